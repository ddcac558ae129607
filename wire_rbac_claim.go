package proxyless

import "fmt"

// metadata reads an envoy.type.matcher.v3.MetadataMatcher. What there is to be
// matched comes from the JWT filter alone: no other filter that leaves metadata
// is run here.
func (r ruleReader) metadata(field string, b []byte) (accessRule, error) {
	m := &claimRule{}
	filter := ""
	var value []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			filter = c.text("filter")
		case 2:
			r.keep(&c, "path")
			key, err := subtext(c.bytes("path"), 1, "key")
			c.fail(inElement("path", len(m.path), err))
			m.path = append(m.path, key)
		case 3:
			c.message("value", &value)
		case 4:
			m.invert = c.scalar("invert") != 0
		default:
			filter = unapplied(nil).name(c.num)
		}
	}
	if c.err != nil {
		return accessRule{}, inField(field, c.err)
	}
	unknown, err := r.value(value, &m.value, 0)
	switch {
	case err != nil:
		return accessRule{}, inField(field+".value", err)
	case filter != claimsOfTokens || len(m.path) == 0:
		return r.gap(field + " (" + filter + ")"), nil
	case r.connection:
		return accessRule{value: m.judge(nil)}, nil
	case !r.tokens:
		return r.gap(field + " (no JWT filter)"), nil
	case unknown:
		r.gap(field + ".value")
	}
	return accessRule{kind: ruleClaim, claim: m}, nil
}

// value reads an envoy.type.matcher.v3.ValueMatcher; unknown says that a form
// inside is not known.
func (r ruleReader) value(b []byte, v *valueRule, depth int) (unknown bool, err error) {
	if depth >= maxRuleDepth {
		return false, fmt.Errorf("values are nested more than %d deep", maxRuleDepth)
	}
	var o oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1, 2, 3, 6, 7:
			o.message(&c, "match_pattern")
		case 4, 5:
			o.scalar(&c, "match_pattern")
		default:
			o = oneof{num: c.num}
		}
	}
	if c.err != nil {
		return false, c.err
	}
	v.flag = o.u != 0
	switch o.num {
	case 1:
		v.kind = valueNull
	case 2:
		return v.number(o.val)
	case 3:
		m, never, err := r.textMatch(o.val)
		switch {
		case err != nil:
			return false, inField("string_match", err)
		case never != "":
			return true, nil
		}
		v.kind, v.text = valueText, newTextRule(m)
	case 4:
		v.kind = valueBool
	case 5:
		v.kind = valuePresent
	case 6:
		one, err := submessage(o.val, 1, "one_of")
		if err != nil {
			return false, inField("list_match", err)
		}
		v.kind, v.rules = valueList, make([]valueRule, 1)
		unknown, err = r.value(one, &v.rules[0], depth+1)
		return unknown, inField("list_match.one_of", err)
	case 7:
		return r.values(o.val, v, depth)
	default:
		return true, nil
	}
	return false, nil
}

// values reads an envoy.type.matcher.v3.OrMatcher, which is two values at least.
func (r ruleReader) values(b []byte, v *valueRule, depth int) (unknown bool, err error) {
	v.kind = valueSome
	c := walk(b)
	for c.next() {
		if c.num != 1 {
			unknown = true
			continue
		}
		r.keep(&c, "or_match")
		v.rules = append(v.rules, valueRule{})
		i := len(v.rules) - 1
		odd, err := r.value(c.bytes("value_matchers"), &v.rules[i], depth+1)
		c.fail(inElement("or_match.value_matchers", i, err))
		unknown = unknown || odd
	}
	if unknown || len(v.rules) == 0 {
		v.rules, unknown = append(v.rules, valueRule{}), true
	}
	return unknown, c.err
}

// number reads an envoy.type.matcher.v3.DoubleMatcher.
func (v *valueRule) number(b []byte) (unknown bool, err error) {
	var span []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			v.kind = valueRange
			c.message("range", &span)
		case 2:
			v.kind = valueNumber
			v.from = c.double("exact")
		}
	}
	if v.kind == valueRange && c.err == nil {
		v.from, v.to = 0, 0
		each := walk(span)
		for each.next() {
			switch each.num {
			case 1:
				v.from = each.double("start")
			case 2:
				v.to = each.double("end")
			}
		}
		c.fail(inField("range", each.err))
	}
	return v.kind == valueUnknown, inField("double_match", c.err)
}

// sourced reads an envoy.config.rbac.v3.SourcedMetadata, whose metadata may be
// that of the call, or of its route, which is not looked at.
func (r ruleReader) sourced(b []byte) (accessRule, error) {
	const field = "sourced_metadata"
	var matcher []byte
	source := uint64(0)
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("metadata_matcher", &matcher)
		case 2:
			source = c.scalar("metadata_source")
		default:
			source = 1
		}
	}
	switch {
	case c.err != nil:
		return accessRule{}, inField(field, c.err)
	case source != 0:
		return r.gap(field + ".metadata_source"), nil
	}
	return r.metadata(field+".metadata_matcher", matcher)
}
