package proxyless

// claimRule is what is kept of an envoy.type.matcher.v3.MetadataMatcher about
// what the JWT filter found.
type claimRule struct {
	path   []string // the key under which the payload is, and the claim inside
	value  valueRule
	invert bool
}

// valueKind is ValueMatcher.match_pattern.
type valueKind uint8

const (
	valueUnknown valueKind = iota // a form that is not known
	valueNull
	valueRange   // double_match.range: [from, to)
	valueNumber  // double_match.exact
	valueText    // string_match
	valueBool    // bool_match
	valuePresent // present_match
	valueList    // list_match: one element has to match
	valueSome    // or_match
)

// valueRule is what is kept of an envoy.type.matcher.v3.ValueMatcher.
type valueRule struct {
	kind     valueKind
	text     *textRule
	from, to float64
	flag     bool        // of bool_match and present_match
	rules    []valueRule // inside list_match (one) and or_match
}

func (c *claimRule) judge(claims *tokenClaimSet) judgment {
	value, present := claims.lookup(c.path)
	v := c.value.judge(value, present)
	if c.invert {
		return yes - v
	}
	return v
}

// judge holds the rule against a value as a protobuf Struct has it. What is not
// there is of no kind.
func (r *valueRule) judge(value any, present bool) judgment {
	switch r.kind {
	case valueSome:
		v := no
		for i := 0; i < len(r.rules) && v != yes; i++ {
			v = max(v, r.rules[i].judge(value, present))
		}
		return v
	case valueList:
		list, _ := value.([]any)
		v := no
		for i := 0; i < len(list) && v != yes; i++ {
			v = max(v, r.rules[0].judge(list[i], true))
		}
		return v
	case valuePresent:
		return judged(r.flag && present)
	case valueNull:
		return judged(present && value == nil)
	case valueRange:
		n, ok := value.(float64)
		return judged(ok && r.from <= n && n < r.to)
	case valueNumber:
		n, ok := value.(float64)
		return judged(ok && n == r.from)
	case valueText:
		s, ok := value.(string)
		return judged(ok && r.text.matches(s))
	case valueBool:
		b, ok := value.(bool)
		return judged(ok && b == r.flag)
	}
	return cannotTell
}
