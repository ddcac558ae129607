package meshtest

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	networkRBACType = typePrefix + "envoy.extensions.filters.network.rbac.v3.RBAC"
	templateType    = typePrefix + "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
	jwtFilterName   = "envoy.filters.http.jwt_authn"
)

// accessWhere is where RBAC filters stand.
type accessWhere struct{ lean, tcp bool }

// The actions of envoy.config.rbac.v3.RBAC.
const (
	rbacAllow, rbacDeny, rbacLog = 0, 1, 2
)

// accessSteps are the filters that istiod makes, in their order.
var accessSteps = [...]struct {
	action AccessAction
	rbac   uint64
}{{AccessCustom, rbacDeny}, {AccessAudit, rbacLog}, {AccessDeny, rbacDeny}, {AccessAllow, rbacAllow}}

// httpFilters are the RBAC filters of an HTTP port.
func httpFilters(list []AuthorizationPolicy, lean bool) (filters []HTTPFilter) {
	for _, step := range accessSteps {
		config := accessConfig(list, step.action, step.rbac, accessWhere{lean: lean})
		if config == nil {
			continue
		}
		name := "envoy.filters.http.rbac"
		if lean && step.rbac == rbacDeny {
			name += ".DENY"
		}
		filters = append(filters, HTTPFilter{Name: name, TypeURL: rbacType, Config: config})
	}
	return filters
}

// networkFilters are the RBAC filters of a TCP port.
func networkFilters(list []AuthorizationPolicy) (filters [][]byte) {
	for _, step := range accessSteps {
		if config := accessConfig(list, step.action, step.rbac, accessWhere{tcp: true}); config != nil {
			filters = append(filters, appendAny(appendString(nil, 1, "envoy.filters.network.rbac"), 4, networkRBACType, config))
		}
	}
	return filters
}

// accessConfig is the configuration of the RBAC filter for one action; nil where
// there is no policy of it.
func accessConfig(list []AuthorizationPolicy, action AccessAction, rbac uint64, at accessWhere) []byte {
	rules, shadow := map[string][]byte{}, map[string][]byte{}
	var enforced, tried bool
	for _, p := range list {
		if p.Action != action || at.lean && (p.Action == AccessAudit || p.Action == AccessCustom || len(p.Rules) == 0) {
			continue
		}
		into := rules
		if p.DryRun && !at.lean {
			into, tried = shadow, true
		} else {
			enforced = true
		}
		maps.Copy(into, p.compile(rbac, at))
	}
	if !enforced && !tried {
		return nil
	}
	var b []byte
	if enforced {
		b = appendMessage(b, 1, rbacRules(rbac, rules))
	}
	if tried {
		b = appendMessage(b, 2, rbacRules(rbac, shadow))
	}
	if at.tcp {
		b = appendString(b, 3, "tcp.")
	}
	if at.lean || action == AccessCustom {
		return b
	}
	kind := "allow"
	if tried && action == AccessDeny {
		kind = "deny"
	}
	num := protowire.Number(3)
	if at.tcp {
		num = 5
	}
	return appendString(b, num, "istio_dry_run_"+kind+"_")
}

func rbacRules(action uint64, policies map[string][]byte) []byte {
	b := appendVarint(nil, 1, action)
	for _, name := range slices.Sorted(maps.Keys(policies)) {
		b = appendMessage(b, 2, appendMessage(appendString(nil, 1, name), 2, policies[name]))
	}
	return b
}

// compile makes the Policy messages of the rules, by name.
func (p AuthorizationPolicy) compile(rbac uint64, at accessWhere) map[string][]byte {
	compiled := make(map[string][]byte)
	rules := p.Rules
	if len(rules) == 0 {
		never := appendMessage(nil, 1, appendMessage(nil, 8, appendPresentBool(nil, 3, true)))
		compiled[p.ruleName(0, at)] = appendMessage(never, 2, appendMessage(nil, 8, appendPresentBool(nil, 3, true)))
	}
	for i, r := range rules {
		var b []byte
		permissions, principals := 0, 0
		for _, tests := range r.permissions() {
			if one, ok := p.allOf(tests, rbac, at); ok {
				b, permissions = appendMessage(b, 1, one), permissions+1
			}
		}
		for _, tests := range r.principals() {
			if one, ok := p.allOf(tests, rbac, at); ok {
				b, principals = appendMessage(b, 2, one), principals+1
			}
		}
		if permissions > 0 && principals > 0 {
			compiled[p.ruleName(i, at)] = b
		}
	}
	return compiled
}

func (p AuthorizationPolicy) ruleName(i int, at accessWhere) string {
	if at.lean {
		return fmt.Sprintf("%s-%s-%d", p.Namespace, p.Name, i)
	}
	name := fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Namespace, p.Name, i)
	if p.Action == AccessCustom {
		name = "istio-ext-authz-unknown-provider-" + name + "-deny-due-to-bad-CUSTOM-action"
	}
	return name
}

// allOf is a Permission or a Principal that asks for all tests; both have the
// same numbers for what combines others. It is not ok where nothing may be left
// of an ALLOW rule on a TCP port.
func (p AuthorizationPolicy) allOf(tests []accessTest, rbac uint64, at accessWhere) (b []byte, ok bool) {
	var list []byte
	for _, t := range tests {
		if len(t.values)+len(t.not) == 0 {
			continue
		}
		if at.tcp && t.ofHTTP() {
			if rbac == rbacAllow {
				return nil, false
			}
			continue
		}
		if len(t.values) > 0 {
			list = appendMessage(list, 1, t.anyOf(t.values, p.Namespace))
		}
		if len(t.not) > 0 {
			list = appendMessage(list, 1, appendMessage(nil, 8, t.anyOf(t.not, p.Namespace)))
		}
	}
	if list == nil {
		list = appendMessage(nil, 1, appendPresentBool(nil, 3, true))
	}
	return appendMessage(nil, 1, list), true
}

func (t accessTest) ofHTTP() bool {
	switch t.key {
	case keyDestinationIP, keyDestinationPort, keySNI, keySourceIP, keyRemoteIP, keySourceNamespace, keySourceAccount, keySourcePrincipal:
		return false
	}
	return true
}

// anyOf is a Permission or Principal that asks for one of the values.
func (t accessTest) anyOf(values []string, namespace string) []byte {
	if path := t.claim(); path != nil {
		return claimIs(path, values)
	}
	if t.key == keyRequestPrincipal && len(values) == 1 {
		return requestPrincipal(values[0])
	}
	var list []byte
	for _, v := range values {
		list = appendMessage(list, 1, t.one(v, namespace))
	}
	return appendMessage(nil, 2, list)
}

func (t accessTest) one(v, namespace string) []byte {
	switch t.key {
	case keyHost:
		return headerIs(":authority", appendBool(globMatcher(v), 6, true))
	case keyMethod:
		return headerIs(":method", globMatcher(v))
	case keyPath:
		return pathIs(v)
	case keyDestinationPort:
		number, _ := strconv.ParseUint(v, 10, 16)
		return appendVarint(nil, 6, number)
	case keyDestinationIP:
		return appendMessage(nil, 5, cidrRange(v))
	case keySNI:
		return appendMessage(nil, 9, globMatcher(v))
	case keySourceIP:
		return appendMessage(nil, 10, cidrRange(v))
	case keyRemoteIP:
		return appendMessage(nil, 11, cidrRange(v))
	case keySourceNamespace:
		return principalIs(regexMatcher(".*/ns/" + strings.ReplaceAll(regexp.QuoteMeta(v), `\*`, ".*") + "/.*"))
	case keySourceAccount:
		return principalIs(accountMatcher(v, namespace))
	case keySourcePrincipal:
		return principalIs(principalMatcher(v))
	case keyRequestPrincipal:
		return requestPrincipal(v)
	}
	name := strings.TrimSuffix(strings.TrimPrefix(t.key, prefixHeader), "]")
	if v == "*" {
		return appendMessage(nil, 6, appendPresentBool(appendString(nil, 1, name), 7, true))
	}
	return appendMessage(nil, 6, appendMessage(appendString(nil, 1, name), 13, globMatcher(v)))
}

// headerIs is a Permission about a header.
func headerIs(name string, matcher []byte) []byte {
	return appendMessage(nil, 4, appendMessage(appendString(nil, 1, name), 13, matcher))
}

func pathIs(v string) []byte {
	if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
		template := strings.NewReplacer("{*}", "*", "{**}", "**").Replace(v)
		b := appendString(nil, 1, "uri-template")
		return appendMessage(nil, 13, appendAny(b, 2, templateType, appendString(nil, 1, template)))
	}
	return appendMessage(nil, 10, appendMessage(nil, 1, globMatcher(v)))
}

// globMatcher is the StringMatcher of one of Istio's patterns.
func globMatcher(v string) []byte {
	switch {
	case v == "*":
		return regexMatcher(".+")
	case strings.HasSuffix(v, "*"):
		return appendMember(nil, 2, strings.TrimSuffix(v, "*"))
	case strings.HasPrefix(v, "*"):
		return appendMember(nil, 3, strings.TrimPrefix(v, "*"))
	}
	return appendMember(nil, 1, v)
}

func regexMatcher(pattern string) []byte {
	return appendMessage(nil, 5, appendString(nil, 2, pattern))
}

func principalIs(matcher []byte) []byte {
	return appendMessage(nil, 4, appendMessage(nil, 2, matcher))
}

func principalMatcher(v string) []byte {
	switch {
	case v == "*":
		return regexMatcher(".+")
	case strings.HasPrefix(v, "*"):
		return regexMatcher("spiffe://.*" + regexp.QuoteMeta(v[1:]))
	}
	return globMatcher("spiffe://" + v)
}

func accountMatcher(v, namespace string) []byte {
	ns, account, ok := strings.Cut(v, "/")
	if !ok {
		ns, account = namespace, v
	}
	return regexMatcher("spiffe://.+/ns/" + regexp.QuoteMeta(ns) + "/(.+/|)sa/" + regexp.QuoteMeta(account) + "(/.+)?")
}

// cidrRange is a CidrRange of a prefix or of a single address.
func cidrRange(v string) []byte {
	p, err := netip.ParsePrefix(v)
	if err != nil {
		addr, _ := netip.ParseAddr(v)
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	return appendWrapped(appendString(nil, 1, p.Addr().String()), 2, uint64(p.Bits()))
}

// claim is the path of a claim that the key names; nil where it names none.
func (t accessTest) claim() []string {
	switch t.key {
	case keyAudiences:
		return []string{"aud"}
	case keyPresenter:
		return []string{"azp"}
	}
	rest, ok := strings.CutPrefix(t.key, prefixClaim)
	if !ok {
		return nil
	}
	return strings.Split(strings.TrimSuffix(rest, "]"), "][")
}

// claimIs is a Principal whose claim is one of the values, or a list with one.
func claimIs(path, values []string) []byte {
	value := appendMessage(nil, 3, globMatcher(values[0]))
	if len(values) > 1 {
		var list []byte
		for _, v := range values {
			list = appendMessage(list, 1, appendMessage(nil, 3, globMatcher(v)))
		}
		value = appendMessage(nil, 7, list)
	}
	listed := appendMessage(nil, 6, appendMessage(nil, 1, value))
	either := appendMessage(appendMessage(nil, 1, listed), 1, value)
	return claimMatch(path, appendMessage(nil, 7, either))
}

func claimMatch(path []string, value []byte) []byte {
	b := appendString(nil, 1, jwtFilterName)
	for _, key := range append([]string{"payload"}, path...) {
		b = appendMessage(b, 2, appendMember(nil, 1, key))
	}
	return appendMessage(nil, 7, appendMessage(b, 3, value))
}

// requestPrincipal is a Principal of an issuer and a subject.
func requestPrincipal(v string) []byte {
	issuer, subject := regexMatcher(".+"), regexMatcher(".+")
	if at := strings.LastIndexByte(v, '/'); at >= 0 {
		if v[:at] != "*" {
			issuer = globMatcher(v[:at])
		}
		subject = globMatcher(v[at+1:])
	}
	both := appendMessage(nil, 1, claimMatch([]string{"iss"}, appendMessage(nil, 3, issuer)))
	both = appendMessage(both, 1, claimMatch([]string{"sub"}, appendMessage(nil, 3, subject)))
	return appendMessage(nil, 1, both)
}
