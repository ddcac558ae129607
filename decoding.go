package proxyless

import (
	"fmt"
	"hash/maphash"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Limits of one resource. What is not known is skipped without descending into
// it, so nesting is as deep as the messages that are read.
const (
	maxResource = 64 << 20 // bytes
	maxIgnored  = 64       // entries of decoded.ignored
)

// decoding is what the decoding of one resource shares.
type decoding struct {
	strings map[string]string
	regexes map[string]*regexp.Regexp
	kept    int      // list elements kept so far
	ignored []string // see decoded.ignored
	level   int      // where the entries of the message being read start in ignored
	more    bool     // ignored was full

	lastRetry      *retryPolicy // of the route before, where it has one and nothing of it was noted
	lastRetryBytes []byte

	jwtFilters map[string]*jwtFilter // of this listener, by their bytes

	anonymous bool // this workload has no certificate to come by

	wanted func(domain []byte) bool // which virtual hosts matter; nil is all (decodeRoutes)
	digest *maphash.Hash            // of what mattered; may be nil
}

// keep counts a list element against maxElements.
func (d *decoding) keep(c *cursor, field string) {
	if d.kept++; d.kept > maxElements {
		c.fail(inField(field, fmt.Errorf("more than %d list elements in one resource", maxElements)))
	}
}

// intern copies a string that is likely to occur again in the same resource.
func (d *decoding) intern(b []byte) string {
	if s, ok := d.strings[string(b)]; ok || len(b) == 0 {
		return s
	}
	if d.strings == nil {
		d.strings = map[string]string{}
	}
	s := string(b)
	d.strings[s] = s
	return s
}

// regex compiles a pattern that has to match the whole text, as RE2's full
// match does.
func (d *decoding) regex(text string) (*regexp.Regexp, error) {
	if re, ok := d.regexes[text]; ok {
		return re, nil
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, err
	}
	// The tree's own text, since that of the pattern might not survive being
	// put between anchors: "a)|(b" and "\Qa" change their meaning there.
	re, err := regexp.Compile("^(?:" + tree.String() + ")$")
	if err != nil {
		return nil, err
	}
	if d.regexes == nil {
		d.regexes = map[string]*regexp.Regexp{}
	}
	d.regexes[text] = re
	return re, nil
}

// unapplied names the fields of a message that carry policy which a user would
// expect to work, and which is not applied.
type unapplied map[protowire.Number]string

// name is what a field is called. One without a name came after this decoder
// was written.
func (u unapplied) name(num protowire.Number) string {
	if name, ok := u[num]; ok {
		return name
	}
	return "field " + strconv.Itoa(int(num))
}

// ignoreIf notes the field at the cursor if it is one of those.
func (d *decoding) ignoreIf(c *cursor, fields unapplied) { d.ignore(fields[c.num]) }

// ignore notes a field that carries policy which is not applied, once for each
// message; an empty field is none.
func (d *decoding) ignore(field string) {
	switch {
	case field == "" || slices.Contains(d.ignored[d.level:], field):
	case len(d.ignored) == maxIgnored:
		d.more = true
	default:
		d.ignored = append(d.ignored, field)
	}
}

// enter starts a message whose ignored fields are noted below it; what it
// returns is for leave.
func (d *decoding) enter() (outer int) {
	outer, d.level = d.level, len(d.ignored)
	return outer
}

// leave ends what enter started: the path of the message comes before what was
// noted since. An element of a list is called by its name, or by its index
// where it has none, so that paths stay the same when the list grows; of
// elements with the same name, as istiod makes them of a VirtualService with
// several matches, a path is noted once.
func (d *decoding) leave(outer int, field, name string, i int) {
	if noted := d.ignored[d.level:]; len(noted) > 0 {
		if name == "" && i >= 0 {
			name = strconv.Itoa(i)
		}
		if name != "" {
			field += "[" + name + "]"
		}
		d.ignored = d.ignored[:d.level]
		for _, below := range noted {
			if path := field + "." + below; !slices.Contains(d.ignored[outer:], path) {
				d.ignored = append(d.ignored, path)
			}
		}
	}
	d.level = outer
}

// notes is what was ignored, with a mark where there was more than is kept.
func (d *decoding) notes() []string {
	if d.more {
		return append(d.ignored, "...")
	}
	return d.ignored
}
