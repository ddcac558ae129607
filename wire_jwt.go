package proxyless

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

const typeJWT = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"

// maxRequirementDepth is how deep the requirements of a rule may nest.
const maxRequirementDepth = 16

// inboundJWT adds a filter to a chain, unless it is switched off, see
// checkOverrides.
func (d *decoding) inboundJWT(f *listenerFilter, chain *filterChain) error {
	if f.disabled {
		return nil
	}
	outer := d.enter()
	filter, err := d.jwtFilter(f.config.value)
	d.leave(outer, "http_filters", f.name, -1)
	chain.filters = append(chain.filters, inboundFilter{jwt: filter})
	return err
}

// jwtReading is what the parts of one filter share.
type jwtReading struct {
	*decoding
	filter *jwtFilter
	index  map[string]int    // providers by name
	named  map[string][]byte // requirement_map
}

// jwtFilter reads an
// envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication. istiod repeats
// it in each chain of a listener; equal ones become one, which knows the tokens
// of all chains.
func (d *decoding) jwtFilter(b []byte) (*jwtFilter, error) {
	if f := d.jwtFilters[string(b)]; f != nil {
		return f, nil
	}
	r := jwtReading{decoding: d, filter: &jwtFilter{}, index: map[string]int{}, named: map[string][]byte{}}
	providers := map[string][]byte{}
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			r.entry(&c, "providers", providers)
		case 3:
			d.ignore("filter_state_rules")
			r.filter.failure = "filter_state_rules are not supported"
		case 5:
			r.entry(&c, "requirement_map", r.named)
		case 2, 4, 6, 7: // rules: below. bypass_cors_preflight: no gRPC call is one. strip_failure_response: never told. stat_prefix
		default:
			d.ignore(unapplied(nil).name(c.num))
			r.filter.failure = "its filter is newer than what is supported"
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	if err := r.readProviders(providers); err != nil {
		return nil, err
	}
	if err := r.readRules(b); err != nil {
		return nil, err
	}
	if d.jwtFilters == nil {
		d.jwtFilters = map[string]*jwtFilter{}
	}
	d.jwtFilters[string(b)] = r.filter
	return r.filter, nil
}

// entry reads an entry of a map; of equal keys the last wins.
func (r *jwtReading) entry(c *cursor, field string, to map[string][]byte) {
	var key string
	value := []byte{}
	each := walk(c.bytes(field))
	for each.next() {
		switch each.num {
		case 1:
			key = r.intern(each.raw("key"))
		case 2:
			each.message("value", &value)
		}
	}
	c.fail(inField(field, each.err))
	r.keep(c, field)
	to[key] = value
}

func (r *jwtReading) readProviders(providers map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(providers)) {
		outer := r.enter()
		p, err := r.jwtProvider(providers[name])
		r.leave(outer, "providers", name, -1)
		if err != nil {
			return inField("providers["+name+"]", err)
		}
		p.name = name
		r.index[name] = len(r.filter.providers)
		r.filter.providers = append(r.filter.providers, p)
		if p.payloadHeader != "" {
			r.reserve(p.payloadHeader)
		}
		for _, h := range p.claimHeaders {
			r.reserve(h.header)
		}
	}
	return nil
}

func (r *jwtReading) reserve(header string) {
	if !slices.Contains(r.filter.reserved, header) {
		r.filter.reserved = append(r.filter.reserved, header)
	}
}

// readRules reads the rules, once the providers are known.
func (r *jwtReading) readRules(b []byte) error {
	c := walk(b)
	for c.next() {
		if c.num != 2 {
			continue
		}
		r.keep(&c, "rules")
		outer := r.enter()
		rule, err := r.rule(c.bytes("rules"))
		r.leave(outer, "rules", "", len(r.filter.rules))
		c.fail(inElement("rules", len(r.filter.rules), err))
		r.filter.rules = append(r.filter.rules, rule)
	}
	return c.err
}

// rule reads a RequirementRule. Where its match is not understood it takes
// every call, and lets none pass.
func (r *jwtReading) rule(b []byte) (rule jwtRule, err error) {
	var match []byte
	var needs oneof
	unknown := ""
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("match", &match)
		case 2:
			needs.message(&c, "requirement_type")
		case 3:
			needs.raw(&c, "requirement_type")
		default:
			unknown = unapplied(nil).name(c.num)
			r.ignore(unknown)
		}
	}
	if c.err != nil {
		return rule, c.err
	}
	if match == nil {
		return rule, missingField("match")
	}
	if err := r.routeMatch(match, &rule.match); err != nil {
		return rule, inField("match", err)
	}
	switch needs.num {
	case 2:
		rule.needs, err = r.requirement(needs.val, 0)
		err = inField("requires", err)
	case 3:
		rule.needs, err = r.namedRequirement(string(needs.val))
		err = inField("requirement_name", err)
	}
	if unknown != "" || rule.match.unsupported() {
		rule = jwtRule{needs: tokenRequirement{kind: requireNever}}
	}
	return rule, err
}

func (r *jwtReading) namedRequirement(name string) (tokenRequirement, error) {
	b, known := r.named[name]
	if !known {
		return tokenRequirement{}, fmt.Errorf("requirement_map has no %q", name)
	}
	return r.requirement(b, 0)
}

// requirement reads a JwtRequirement.
func (r *jwtReading) requirement(b []byte, depth int) (needs tokenRequirement, err error) {
	var kind oneof
	c := walk(b)
	for c.next() {
		if c.num == 1 {
			kind.raw(&c, "requires_type")
		} else {
			kind.message(&c, "requires_type")
		}
	}
	if depth++; depth > maxRequirementDepth {
		c.fail(fmt.Errorf("requirements nest deeper than %d", maxRequirementDepth))
	}
	if c.err != nil {
		return needs, c.err
	}
	switch kind.num {
	case 0:
	case 1:
		needs.kind = requireProvider
		needs.providers, err = r.provider(string(kind.val))
		err = inField("provider_name", err)
	case 2:
		needs, err = r.providerAndAudiences(kind.val)
		err = inField("provider_and_audiences", err)
	case 3:
		needs.kind = requireAny
		if needs.inner, err = r.requirements(kind.val, depth); err == nil {
			needs.inner = bypassLast(needs.inner)
		}
		err = inField("requires_any", err)
	case 4:
		needs.kind = requireAll
		needs.inner, err = r.requirements(kind.val, depth)
		err = inField("requires_all", err)
	case 5, 6:
		needs.kind = map[protowire.Number]requirementKind{5: requireMissingOrFailed, 6: requireMissing}[kind.num]
		needs.providers = r.all()
	default:
		r.ignore("requires." + unapplied{7: "extract_only_without_validation"}.name(kind.num))
		needs.kind = requireNever
	}
	return needs, err
}

// requirements reads a JwtRequirementOrList or a JwtRequirementAndList.
func (r *jwtReading) requirements(b []byte, depth int) (list []tokenRequirement, err error) {
	c := walk(b)
	for c.next() {
		if c.num != 1 {
			continue
		}
		r.keep(&c, "requirements")
		each, err := r.requirement(c.bytes("requirements"), depth)
		c.fail(inElement("requirements", len(list), err))
		list = append(list, each)
	}
	if c.err == nil && len(list) == 0 {
		c.fail(missingField("requirements"))
	}
	if c.err != nil {
		return nil, c.err
	}
	return list, nil
}

// bypassLast puts what lets calls without a token pass behind the other
// alternatives, as Envoy does: of several one counts, and it looks for tokens
// where the alternatives do that name a provider.
func bypassLast(list []tokenRequirement) []tokenRequirement {
	var bypass *tokenRequirement
	var providers []int
	var others []tokenRequirement
	for i := range list {
		switch each := &list[i]; each.kind {
		case requireMissing, requireMissingOrFailed:
			if bypass == nil || bypass.kind == requireMissing {
				bypass = each
			}
			continue
		case requireProvider:
			if !slices.Contains(providers, each.providers[0]) {
				providers = append(providers, each.providers[0])
			}
		}
		others = append(others, list[i])
	}
	if bypass == nil {
		return others
	}
	if len(providers) > 0 {
		bypass.providers = providers
	}
	return append(others, *bypass)
}

func (r *jwtReading) all() []int {
	all := make([]int, len(r.filter.providers))
	for i := range all {
		all[i] = i
	}
	return all
}

func (r *jwtReading) provider(name string) ([]int, error) {
	at, known := r.index[name]
	if !known {
		return nil, fmt.Errorf("providers has no %q", name)
	}
	return []int{at}, nil
}

// providerAndAudiences reads a ProviderWithAudiences.
func (r *jwtReading) providerAndAudiences(b []byte) (needs tokenRequirement, err error) {
	name := ""
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			name = c.text("provider_name")
		case 2:
			r.keep(&c, "audiences")
			needs.audiences = append(needs.audiences, plainAudience(r.intern(c.raw("audiences"))))
		}
	}
	if c.err != nil {
		return needs, c.err
	}
	needs.kind = requireProvider
	needs.providers, err = r.provider(name)
	return needs, inField("provider_name", err)
}

// jwtHeader is the name of a header that a filter sets or reads.
func jwtHeader(name string) (string, error) {
	if name == "" || strings.HasPrefix(name, ":") {
		return "", errors.New("no name of a header")
	}
	return strings.ToLower(name), nil
}
