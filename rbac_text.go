package proxyless

import (
	"regexp/syntax"
	"strings"
)

// textRule is a StringMatcher of a rule. Istio writes regular expressions for
// namespaces, service accounts and stars; most calls are told apart by the
// plain text in them.
type textRule struct {
	stringMatch
	shape textShape
	needs []string // of a regular expression: what every text has in it that matches
}

// textShape is a frequent form of a regular expression.
type textShape uint8

const (
	shapeOther    textShape = iota
	shapeSome               // .+
	shapeContains           // .*text.*
)

func newTextRule(m stringMatch) *textRule {
	t := &textRule{stringMatch: m}
	if m.kind != headerRegex {
		return t
	}
	text := strings.TrimSuffix(strings.TrimPrefix(m.regex.String(), "^(?:"), ")$") // see decoding.regex
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return t
	}
	tree = tree.Simplify()
	parts := []*syntax.Regexp{tree}
	if tree.Op == syntax.OpConcat {
		parts = tree.Sub
	}
	for _, part := range parts {
		if part.Op == syntax.OpLiteral && part.Flags&syntax.FoldCase == 0 {
			t.needs = append(t.needs, string(part.Rune))
		}
	}
	switch {
	case len(parts) == 1 && anyText(parts[0], syntax.OpPlus):
		t.shape = shapeSome
	case len(parts) == 3 && len(t.needs) == 1 && anyText(parts[0], syntax.OpStar) && anyText(parts[2], syntax.OpStar):
		t.shape = shapeContains
	}
	return t
}

// anyText says that a part is .* or .+, after its operator.
func anyText(part *syntax.Regexp, op syntax.Op) bool {
	return part.Op == op && part.Sub[0].Op == syntax.OpAnyCharNotNL
}

// exact says that one text matches alone.
func (t *textRule) exact() bool { return t.kind == headerExact && !t.foldCase }

func (t *textRule) matches(value string) bool {
	if t.kind != headerRegex {
		return t.stringMatch.matches(value)
	}
	for _, part := range t.needs {
		if !strings.Contains(value, part) {
			return false
		}
	}
	switch {
	case t.shape == shapeSome:
		return value != "" && strings.IndexByte(value, '\n') < 0
	case t.shape == shapeContains && strings.IndexByte(value, '\n') < 0:
		return true
	}
	return t.regex.MatchString(value)
}
