package proxyless

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ruleReader reads the rules of a policy.
type ruleReader struct {
	*decoding
	connection bool      // of a filter that sees connections only: there are no headers
	hops       int       // how many proxies are trusted to have written x-forwarded-for; -1 is not to look at it
	origin     bool      // the address of a call comes from an extension
	tokens     bool      // what tokens say is known
	stripped   bool      // a part of :authority would have been removed
	side       string    // permissions or principals
	gaps       *[]string // accessPolicy.gaps
}

// unseenHeaders are those that the rules cannot ask for: gRPC keeps them to
// itself, or a sidecar would have written them itself.
var unseenHeaders = map[string]bool{
	":scheme": true, "te": true, "connection": true, "grpc-timeout": true, "grpc-encoding": true, "grpc-message-type": true,
	"grpc-status": true, "grpc-message": true, "x-forwarded-client-cert": true, "x-forwarded-proto": true, "x-request-id": true,
}

// unseen says that rules cannot ask for a header: a sidecar writes and removes
// those of Envoy's own as it sees fit.
func unseen(name string) bool {
	return unseenHeaders[name] || strings.HasPrefix(name, "x-envoy-") || strings.HasSuffix(name, "-bin")
}

const (
	claimsOfTokens = "envoy.filters.http.jwt_authn"
	peerPrincipal  = "io.istio.peer_principal"
)

// gap is a rule that cannot be evaluated, by its field; nothing is said of the
// call, and the field is reported.
func (r ruleReader) gap(field string) accessRule {
	path := r.side
	if field != "" {
		path += "." + field
	}
	r.ignore(path)
	if !slices.Contains(*r.gaps, path) {
		*r.gaps = append(*r.gaps, path)
	}
	return accessRule{value: cannotTell}
}

// The sides of a policy.
const (
	permissionSide = "permissions"
	principalSide  = "principals"
)

// rule reads an envoy.config.rbac.v3.Permission or Principal, which share the
// numbers of what is made of other rules.
func (r ruleReader) rule(b []byte, depth int) (accessRule, error) {
	and, or, not, scalar := "and_rules", "or_rules", "not_rule", 6
	if r.side == principalSide {
		and, or, not, scalar = "and_ids", "or_ids", "not_id", 3
	}
	o, unknown, err := readRule(b, scalar, depth)
	switch {
	case err != nil:
		return accessRule{}, err
	case unknown != "":
		return r.gap(unknown), nil
	}
	switch o.num {
	case 1:
		return r.set(ruleAll, and, o.val, depth)
	case 2:
		return r.set(ruleSome, or, o.val, depth)
	case 3:
		return r.any(o.u), nil
	case 7:
		return r.metadata("metadata", o.val)
	case 8:
		inner, err := r.rule(o.val, depth+1)
		return accessRule{kind: ruleNot, rules: []accessRule{inner}}, inField(not, err)
	}
	if r.side == principalSide {
		return r.principal(o)
	}
	return r.permission(o)
}

// permission reads what of a Permission is its own.
func (r ruleReader) permission(o oneof) (accessRule, error) {
	switch o.num {
	case 4:
		return r.header(o.val)
	case 5:
		return r.address(ruleLocalIP, "destination_ip", o.val)
	case 6:
		return portRule(o.u, o.u+1, "destination_port")
	case 9:
		return r.string(ruleServerName, "requested_server_name", o.val)
	case 10:
		return r.path(o.val)
	case 11:
		return portRange(o.val)
	case 13:
		return r.template(o.val)
	case 14:
		return r.sourced(o.val)
	}
	return r.gap("matcher"), nil
}

// principal reads what of a Principal is its own.
func (r ruleReader) principal(o oneof) (accessRule, error) {
	switch o.num {
	case 4:
		return r.authenticated(o.val)
	case 5:
		return r.address(ruleDirectIP, "source_ip", o.val)
	case 6:
		return r.header(o.val)
	case 9:
		return r.path(o.val)
	case 10:
		return r.address(ruleDirectIP, "direct_remote_ip", o.val)
	case 11:
		return r.remote(o.val)
	case 12:
		return r.filterState(o.val)
	case 13:
		return r.sourced(o.val)
	}
	return r.gap("custom"), nil
}

// readRule finds the one condition of a Permission or Principal: all are
// messages but any, and the number given.
func readRule(b []byte, scalar, depth int) (o oneof, unknown string, err error) {
	if depth >= maxRuleDepth {
		return o, "", fmt.Errorf("rules are nested more than %d deep", maxRuleDepth)
	}
	c := walk(b)
	for c.next() {
		switch n := int(c.num); {
		case n == 3 || n == scalar:
			o.scalar(&c, "rule")
		case n <= 14:
			o.message(&c, "rule")
		default:
			unknown = unapplied(nil).name(c.num)
		}
	}
	if o.num == 0 && unknown == "" {
		unknown = "no condition"
	}
	return o, unknown, c.err
}

// set reads a Permission.Set or Principal.Set.
func (r ruleReader) set(kind ruleKind, field string, b []byte, depth int) (accessRule, error) {
	var rules []accessRule
	_, element, _ := strings.Cut(field, "_") // rules or ids
	c := walk(b)
	for c.next() {
		if c.num != 1 {
			rules = append(rules, r.gap(field+"."+unapplied(nil).name(c.num)))
			continue
		}
		r.keep(&c, field)
		rule, err := r.rule(c.bytes(element), depth+1)
		c.fail(inElement(element, len(rules), err))
		rules = append(rules, rule)
	}
	return r.combine(kind, rules, field), inField(field, c.err)
}

// combine makes one rule of several; of none it cannot be told what was meant.
func (r ruleReader) combine(kind ruleKind, rules []accessRule, field string) accessRule {
	if kind == ruleSome {
		rules = gather(rules)
	} else if len(rules) > 1 {
		rules = withoutAny(rules)
	}
	switch len(rules) {
	case 0:
		return r.gap(strings.TrimPrefix(field+".empty", "."))
	case 1:
		return rules[0]
	}
	return accessRule{kind: kind, rules: rules}
}

// withoutAny leaves out the rules that every call meets, but for the last.
func withoutAny(rules []accessRule) []accessRule {
	some := slices.DeleteFunc(rules, func(r accessRule) bool { return r.kind == ruleConstant && r.value == yes })
	if len(some) == 0 {
		return []accessRule{{value: yes}}
	}
	return some
}

// any has to be true where it is there.
func (r ruleReader) any(u uint64) accessRule {
	if u == 0 {
		return r.gap("any (false)")
	}
	return accessRule{value: yes}
}

func (r ruleReader) header(b []byte) (accessRule, error) {
	h := &headerMatch{}
	never, err := r.headerMatch(b, h)
	switch {
	case err != nil:
		return accessRule{}, inField("header", err)
	case never != "":
		return r.gap("header." + never), nil
	case r.connection:
		return accessRule{value: judged(h.judge("", false))}, nil
	case unseen(h.name) || r.stripped && h.name == ":authority":
		return r.gap("header (" + h.name + ")"), nil
	}
	return accessRule{kind: ruleHeader, header: h}, nil
}

func (r ruleReader) address(kind ruleKind, field string, b []byte) (accessRule, error) {
	prefix, err := decodeCIDR(b)
	return accessRule{kind: kind, prefix: prefix}, inField(field, err)
}

func (r ruleReader) remote(b []byte) (accessRule, error) {
	rule, err := r.address(ruleRemoteIP, "remote_ip", b)
	switch {
	case err != nil:
	case r.origin:
		return r.gap("remote_ip (original_ip_detection_extensions)"), nil
	case r.connection || r.hops < 0:
		rule.kind = ruleDirectIP
	default:
		rule.from = uint32(r.hops)
	}
	return rule, err
}

// portRule is for ports from one up to but not including another.
func portRule(from, to uint64, field string) (accessRule, error) {
	if from >= to || to > 1<<16 {
		return accessRule{}, inField(field, fmt.Errorf("%d to %d are no ports", from, to))
	}
	return accessRule{kind: ruleLocalPort, from: uint32(from), to: uint32(to)}, nil
}

// portRange reads an envoy.type.v3.Int32Range.
func portRange(b []byte) (accessRule, error) {
	const field = "destination_port_range"
	start, end, err := decodeRange(b)
	switch {
	case err != nil:
		return accessRule{}, inField(field, err)
	case start < 0 || end < 0:
		return accessRule{}, inField(field, errors.New("below 0"))
	}
	return portRule(uint64(start), uint64(end), field)
}

// string is a rule with a StringMatcher.
func (r ruleReader) string(kind ruleKind, field string, b []byte) (accessRule, error) {
	m, never, err := r.textMatch(b)
	switch {
	case err != nil:
		return accessRule{}, inField(field, err)
	case never != "":
		return r.gap(field + "." + never), nil
	}
	return accessRule{kind: kind, text: newTextRule(m)}, nil
}

// path reads an envoy.type.matcher.v3.PathMatcher.
func (r ruleReader) path(b []byte) (accessRule, error) {
	matcher, err := submessage(b, 1, "path")
	if err != nil {
		return accessRule{}, inField("url_path", err)
	}
	if r.connection {
		return accessRule{value: no}, nil
	}
	return r.string(rulePath, "url_path", matcher)
}

// template reads the TypedExtensionConfig of uri_template.
func (r ruleReader) template(b []byte) (accessRule, error) {
	const field = "uri_template"
	m, unknown, err := r.pathTemplate(b)
	switch {
	case err != nil:
		return accessRule{}, inField(field, err)
	case unknown != "":
		return r.gap(field + " (" + unknown + ")"), nil
	case r.connection:
		return accessRule{value: no}, nil
	}
	return accessRule{kind: rulePath, text: newTextRule(m)}, nil
}

// authenticated reads a Principal.Authenticated.
func (r ruleReader) authenticated(b []byte) (accessRule, error) {
	const field = "authenticated"
	var name []byte
	c := walk(b)
	for c.next() {
		if c.num != 2 {
			return r.gap(field + "." + unapplied(nil).name(c.num)), nil
		}
		c.message("principal_name", &name)
	}
	switch {
	case c.err != nil:
		return accessRule{}, inField(field, c.err)
	case name == nil:
		return accessRule{kind: ruleVerified}, nil
	}
	return r.string(rulePeer, field+".principal_name", name)
}

// filterState reads an envoy.type.matcher.v3.FilterStateMatcher. There is one
// that istiod makes of a principal, where a connection comes through a tunnel;
// here the peer itself is at the other end.
func (r ruleReader) filterState(b []byte) (accessRule, error) {
	const field = "filter_state"
	key := ""
	var matcher oneof
	c := walk(b)
	for c.next() {
		if c.num == 1 {
			key = c.text("key")
			continue
		}
		matcher.message(&c, "matcher")
	}
	switch {
	case c.err != nil:
		return accessRule{}, inField(field, c.err)
	case key != peerPrincipal || matcher.num != 2:
		return r.gap(field + " (" + key + ")"), nil
	}
	return r.string(rulePeer, field+".string_match", matcher.val)
}
