package proxyless

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

var update = flag.Bool("update", false, "write coverage_fields.go anew, by what the decoders do")

const tableFile = "../../../coverage_fields.go"

// TestTable holds coverageTable to the decoders. After a change to these, write
// it anew with -update, and read what changed.
func TestTable(t *testing.T) {
	x := explore(t)
	t.Logf("%d fields of %d messages, %d decodings", len(x.found), len(x.messages), x.decodes)
	text := x.table()
	if *update {
		source := "package proxyless\n\n// coverageTable is what the decoders make of the fields of each message; see\n// parseCoverage. It is made, and held to them, by interop/internal/coverage.\nconst coverageTable = `\n" + text + "`\n"
		if err := os.WriteFile(tableFile, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, want := strings.Split(strings.TrimSpace(coverageTable), "\n"), strings.Split(strings.TrimSpace(text), "\n")
	message := ""
	for _, line := range want {
		if line[0] != ' ' {
			message = line
		}
		if !slices.Contains(have, line) {
			t.Errorf("%s: the decoders say %q", message, line)
		}
	}
	if !slices.Equal(have, want) {
		t.Error("coverage_fields.go is not what the decoders do: run this test with -update")
	}
}

// table writes down what was found.
func (x *explorer) table() string {
	names := x.names()
	var b strings.Builder
	for _, d := range x.reached() {
		fmt.Fprintf(&b, "%s %s\n", names[d.FullName()], d.FullName())
		fields := make([]protoreflect.FieldDescriptor, d.Fields().Len())
		for i := range fields {
			fields[i] = d.Fields().Get(i)
		}
		slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number() - b.Number()) })
		for _, f := range fields {
			fmt.Fprintf(&b, " %d %s%s\n", f.Number(), fieldName(f), x.mark(f, names))
		}
	}
	return b.String()
}

func fieldName(f protoreflect.FieldDescriptor) string {
	if f.IsList() || f.IsMap() {
		return string(f.Name()) + "[*]"
	}
	return string(f.Name())
}

func (x *explorer) mark(f protoreflect.FieldDescriptor, names map[protoreflect.FullName]string) string {
	found := x.found[f.FullName()]
	isNeutral := slices.Contains(neutral, string(f.FullName()))
	if isNeutral && (found.value || found.noted) {
		x.t.Errorf("%s is called neutral and is not", f.FullName())
	}
	inside := f.Message()
	switch {
	case isNeutral:
		return " -"
	case found.value && f.IsMap():
		return " ?{}"
	case found.value && inside != nil && inside.FullName() == "google.protobuf.Any":
		return " ?"
	case found.value && inside != nil && names[inside.FullName()] != "":
		return " " + names[inside.FullName()] + suffixes[f.FullName()]
	case found.value:
		return ""
	case found.noted:
		return " ="
	case inside != nil && strings.HasSuffix(string(inside.FullName()), "Value"), inside != nil && inside.FullName() == "google.protobuf.Duration":
		return " !0"
	}
	return " !"
}

var suffixes = map[protoreflect.FullName]string{
	rds + "RouteConfiguration.virtual_hosts": "^",
	eds + "LocalityLbEndpoints.lb_endpoints": "~",
}

// names gives each message that was gone into a short name of its own.
func (x *explorer) names() map[protoreflect.FullName]string {
	names := map[protoreflect.FullName]string{}
	taken := map[string]bool{}
	for _, d := range x.reached() {
		parts := strings.Split(string(d.FullName()), ".")
		name := parts[len(parts)-1]
		for i := len(parts) - 2; taken[name]; i-- {
			name = parts[i] + name
		}
		taken[name] = true
		names[d.FullName()] = name
	}
	return names
}

// reached are the messages of which anything counts.
func (x *explorer) reached() []protoreflect.MessageDescriptor {
	return slices.DeleteFunc(slices.Clone(x.messages), func(d protoreflect.MessageDescriptor) bool {
		for i := range d.Fields().Len() {
			if x.found[d.Fields().Get(i).FullName()].value {
				return false
			}
		}
		return true
	})
}
