package proxyless

import (
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// coverageField is one row of coverageTable.
type coverageField struct {
	name       string // with "[*]" behind that of a list
	role       string // the message that is inside and is descended into; empty for none
	ignored    bool   // policy that is not applied
	unlessZero bool   // and no policy where it is an explicit zero
	neutral    bool   // no policy, or none that means anything to a gRPC client
	packed     bool   // an Any, which is descended into by its type
	entries    bool   // a map with such values
	sampled    bool   // a list of which the first elements stand for all
	hosts      bool   // the virtual hosts, which may not all count
}

// coverageMessages are the messages of coverageTable by name, and the names of
// those that may be inside an Any, by type.
var coverageMessages = sync.OnceValues(parseCoverage)

func coverageRoles() map[string]map[protowire.Number]coverageField {
	roles, _ := coverageMessages()
	return roles
}

func coverageTypes() map[string]string {
	_, types := coverageMessages()
	return types
}

// parseCoverage reads coverageTable. A line that starts with a letter begins a
// message: its name here, and its type. The others are its fields: number, name
// with [*] for a list, and what is to be done:
//
//	(nothing)  applied
//	!          ignored: policy that is not applied
//	!0         ignored where it is not an explicit zero
//	-          neutral
//	=          neutral unless the decoder notes it, which judges by the value
//	Name       look into it: a message of the table
//	?          look into it: an Any
//	?{}        look into it: a map to Any
//
// Behind a message's name, ~ says that only the first elements count, and ^
// that only the virtual hosts do that were kept.
func parseCoverage() (roles map[string]map[protowire.Number]coverageField, types map[string]string) {
	roles, types = map[string]map[protowire.Number]coverageField{}, map[string]string{}
	var role map[protowire.Number]coverageField
	for line := range strings.Lines(coverageTable) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if line[0] != ' ' {
			role = map[protowire.Number]coverageField{}
			roles[words[0]], types[words[1]] = role, words[0]
			continue
		}
		num, _ := strconv.Atoi(words[0])
		f := coverageField{name: words[1]}
		if len(words) > 2 {
			f.mark(words[2])
		}
		role[protowire.Number(num)] = f
	}
	return roles, types
}

func (f *coverageField) mark(word string) {
	switch word {
	case "!":
		f.ignored = true
	case "!0":
		f.ignored, f.unlessZero = true, true
	case "-", "=":
		f.neutral = true
	case "?":
		f.packed = true
	case "?{}":
		f.packed, f.entries = true, true
	default:
		f.role = strings.TrimRight(word, "~^")
		f.sampled, f.hosts = strings.HasSuffix(word, "~"), strings.HasSuffix(word, "^")
	}
}
