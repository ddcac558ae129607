package proxyless

//lint:file-ignore SA1019 istiod sends deprecated fields, and clients have to read them

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// span is what a rule may say: the least and the greatest of it, where what
// cannot be evaluated may be anything.
type span struct{ least, most bool }

func sure(b bool) span { return span{b, b} }

var unsure = span{false, true}

// referee is the reference: slow, and by the messages alone.
type referee struct{ call *callFacts }

func (j referee) filter(rules *rbacv3.RBAC) bool {
	matched := span{}
	for _, p := range rules.Policies {
		s := j.policy(p)
		matched = span{matched.least || s.least, matched.most || s.most}
	}
	if rules.Action == rbacv3.RBAC_ALLOW {
		return matched.least
	}
	return !matched.most
}

func (j referee) policy(p *rbacv3.Policy) span {
	permissions, principals := span{}, span{}
	for _, r := range p.Permissions {
		permissions = eitherOf(permissions, j.permission(r))
	}
	for _, r := range p.Principals {
		principals = eitherOf(principals, j.principal(r))
	}
	if len(p.Permissions) == 0 {
		permissions = unsure
	}
	if len(p.Principals) == 0 {
		principals = unsure
	}
	return both(permissions, principals)
}

func eitherOf(a, b span) span { return span{a.least || b.least, a.most || b.most} }
func both(a, b span) span     { return span{a.least && b.least, a.most && b.most} }
func opposite(a span) span    { return span{!a.most, !a.least} }

func (j referee) permission(r *rbacv3.Permission) span {
	switch x := r.Rule.(type) {
	case *rbacv3.Permission_AndRules:
		s := sure(true)
		for _, r := range x.AndRules.Rules {
			s = both(s, j.permission(r))
		}
		return orUnsure(s, len(x.AndRules.Rules))
	case *rbacv3.Permission_OrRules:
		s := sure(false)
		for _, r := range x.OrRules.Rules {
			s = eitherOf(s, j.permission(r))
		}
		return orUnsure(s, len(x.OrRules.Rules))
	case *rbacv3.Permission_NotRule:
		return opposite(j.permission(x.NotRule))
	case *rbacv3.Permission_Any:
		return sure(true)
	case *rbacv3.Permission_Header:
		return j.header(x.Header)
	case *rbacv3.Permission_DestinationIp:
		return j.address(j.call.peer.local.Addr(), x.DestinationIp)
	case *rbacv3.Permission_DestinationPort:
		return sure(uint32(j.call.peer.local.Port()) == x.DestinationPort)
	case *rbacv3.Permission_DestinationPortRange:
		port := int32(j.call.peer.local.Port())
		return sure(x.DestinationPortRange.Start <= port && port < x.DestinationPortRange.End)
	case *rbacv3.Permission_Metadata:
		return j.metadata(x.Metadata)
	case *rbacv3.Permission_RequestedServerName:
		return sure(text(x.RequestedServerName, j.call.peer.serverName))
	case *rbacv3.Permission_UrlPath:
		return j.path(x.UrlPath)
	case *rbacv3.Permission_UriTemplate:
		m := &templatev3.UriTemplateMatchConfig{}
		if x.UriTemplate.TypedConfig.UnmarshalTo(m) != nil {
			return unsure
		}
		pattern := strings.NewReplacer("**", ".*", "*", "[^/]+").Replace(strings.ReplaceAll(m.PathTemplate, ".", `\.`))
		return j.onPath(func(path string) bool { return wholly(pattern, path) })
	}
	return unsure
}

func orUnsure(s span, n int) span {
	if n == 0 {
		return unsure
	}
	return s
}

func (j referee) principal(r *rbacv3.Principal) span {
	p := j.call.peer
	switch x := r.Identifier.(type) {
	case *rbacv3.Principal_AndIds:
		s := sure(true)
		for _, r := range x.AndIds.Ids {
			s = both(s, j.principal(r))
		}
		return orUnsure(s, len(x.AndIds.Ids))
	case *rbacv3.Principal_OrIds:
		s := sure(false)
		for _, r := range x.OrIds.Ids {
			s = eitherOf(s, j.principal(r))
		}
		return orUnsure(s, len(x.OrIds.Ids))
	case *rbacv3.Principal_NotId:
		return opposite(j.principal(x.NotId))
	case *rbacv3.Principal_Any:
		return sure(true)
	case *rbacv3.Principal_Header:
		return j.header(x.Header)
	case *rbacv3.Principal_Metadata:
		return j.metadata(x.Metadata)
	case *rbacv3.Principal_UrlPath:
		return j.path(x.UrlPath)
	case *rbacv3.Principal_SourceIp:
		return j.address(p.remote.Addr(), x.SourceIp)
	case *rbacv3.Principal_DirectRemoteIp:
		return j.address(p.remote.Addr(), x.DirectRemoteIp)
	case *rbacv3.Principal_RemoteIp:
		ip := p.remote.Addr()
		if list := j.call.headers.md["x-forwarded-for"]; len(list) > 0 {
			parts := strings.Split(strings.Join(list, ","), ",")
			if last, err := netip.ParseAddr(strings.TrimSpace(parts[len(parts)-1])); err == nil {
				ip = last
			}
		}
		return j.address(ip, x.RemoteIp)
	case *rbacv3.Principal_Authenticated_:
		switch {
		case !p.encrypted:
			return sure(false)
		case x.Authenticated.PrincipalName == nil:
			return sure(true)
		}
		for _, name := range p.names {
			if text(x.Authenticated.PrincipalName, name) {
				return sure(true)
			}
		}
		return sure(false)
	}
	return unsure
}

func (j referee) address(ip netip.Addr, r *corev3.CidrRange) span {
	prefix := netip.PrefixFrom(netip.MustParseAddr(r.AddressPrefix), int(r.PrefixLen.GetValue()))
	return sure(prefix.Masked().Contains(ip))
}

func (j referee) path(m *matcherv3.PathMatcher) span {
	return j.onPath(func(path string) bool { return text(m.GetPath(), path) })
}

func (j referee) onPath(match func(path string) bool) span {
	path, _, _ := strings.Cut(j.call.headers.path, "?")
	if strings.Contains(path, "%") || strings.Contains(path, "..") {
		return unsure
	}
	return sure(match(path))
}

func (j referee) header(m *routev3.HeaderMatcher) span {
	var values []string
	switch m.Name {
	case ":method":
		values = []string{"POST"}
	case ":authority":
		values = []string{j.call.headers.authority}
	case "grpc-timeout", "x-bin":
		return unsure
	default:
		values = j.call.headers.md[m.Name]
	}
	present := len(values) > 0
	if want, ok := m.HeaderMatchSpecifier.(*routev3.HeaderMatcher_PresentMatch); ok {
		return sure((present == want.PresentMatch) != m.InvertMatch)
	}
	matches := func(value string) bool { return text(m.GetStringMatch(), value) }
	matched := present && matches(strings.Join(values, ","))
	if matched != slices.ContainsFunc(values, matches) {
		return unsure
	}
	return sure(present && matched != m.InvertMatch)
}

func (j referee) metadata(m *matcherv3.MetadataMatcher) span {
	if m.Filter != "envoy.filters.http.jwt_authn" {
		return unsure
	}
	var value any = map[string]any{"payload": claimsOfReference}
	present := j.call.claims != nil
	for _, segment := range m.Path {
		inside, ok := value.(map[string]any)
		value, present = inside[segment.GetKey()], present && ok
		if _, has := inside[segment.GetKey()]; !has {
			present = false
		}
	}
	matched := present && valueMatches(m.Value, value) || !present && valueMatches(m.Value, struct{}{})
	return sure(matched != m.Invert)
}

// valueMatches holds a matcher against a value; struct{}{} is none.
func valueMatches(m *matcherv3.ValueMatcher, value any) bool {
	switch x := m.MatchPattern.(type) {
	case *matcherv3.ValueMatcher_NullMatch_:
		return value == nil
	case *matcherv3.ValueMatcher_StringMatch:
		s, ok := value.(string)
		return ok && text(x.StringMatch, s)
	case *matcherv3.ValueMatcher_BoolMatch:
		return value == any(x.BoolMatch)
	case *matcherv3.ValueMatcher_PresentMatch:
		return x.PresentMatch && value != any(struct{}{})
	case *matcherv3.ValueMatcher_DoubleMatch:
		n, ok := value.(float64)
		if span := x.DoubleMatch.GetRange(); span != nil {
			return ok && span.Start <= n && n < span.End
		}
		return ok && n == x.DoubleMatch.GetExact()
	case *matcherv3.ValueMatcher_ListMatch:
		list, _ := value.([]any)
		for _, element := range list {
			if valueMatches(x.ListMatch.GetOneOf(), element) {
				return true
			}
		}
	case *matcherv3.ValueMatcher_OrMatch:
		for _, m := range x.OrMatch.ValueMatchers {
			if valueMatches(m, value) {
				return true
			}
		}
	}
	return false
}

var compiled = map[string]*regexp.Regexp{}

func wholly(pattern, s string) bool {
	re := compiled[pattern]
	if re == nil {
		re = regexp.MustCompile(`\A(?:` + pattern + `)\z`)
		compiled[pattern] = re
	}
	return re.MatchString(s)
}

func text(m *matcherv3.StringMatcher, s string) bool {
	fold := func(s string) string {
		if m.IgnoreCase {
			return strings.ToLower(s)
		}
		return s
	}
	switch x := m.MatchPattern.(type) {
	case *matcherv3.StringMatcher_Exact:
		return fold(s) == fold(x.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(fold(s), fold(x.Prefix))
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(fold(s), fold(x.Suffix))
	case *matcherv3.StringMatcher_Contains:
		return strings.Contains(fold(s), fold(x.Contains))
	case *matcherv3.StringMatcher_SafeRegex:
		return wholly(x.SafeRegex.Regex, s)
	}
	panic("no pattern")
}

var claimsOfReference = map[string]any{"iss": "https://issuer", "level": 3.0, "admin": true, "none": nil,
	"groups": []any{"dev", "ops", 3.0}, "realm": map[string]any{"role": "chief"}}

// ruleMaker makes rules at random, of few texts, so that they often match.
type ruleMaker struct{ *rand.Rand }

func oneOf[T any](m ruleMaker, from ...T) T { return from[m.IntN(len(from))] }

func (m ruleMaker) text(words ...string) *matcherv3.StringMatcher {
	s := &matcherv3.StringMatcher{IgnoreCase: m.IntN(4) == 0}
	word := oneOf(m, words...)
	cut := m.IntN(len(word)) // never empty
	switch m.IntN(7) {
	case 0:
		s.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: word[:cut+1]}
	case 1:
		s.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: word[cut:]}
	case 2:
		s.MatchPattern = &matcherv3.StringMatcher_Contains{Contains: word[cut:]}
	case 3:
		pattern := oneOf(m, ".+", ".*"+regexp.QuoteMeta(word[cut:])+".*", regexp.QuoteMeta(word[:cut])+".*", regexp.QuoteMeta(word)+"(x.+|)", "spiffe://.+/ns/shop/(.+/|)sa/web(/.+)?")
		s.IgnoreCase, s.MatchPattern = false, &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: pattern}}
	default:
		s.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: word}
	}
	return s
}

var rulePathsOf = []string{"/shop.Orders/Get", "/shop.Orders/List", "/shop.Carts/Get", "/a/b"}

func (m ruleMaker) path() *matcherv3.PathMatcher {
	return &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: m.text(rulePathsOf...)}}
}

func (m ruleMaker) header() *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{Name: oneOf(m, "x-user", "x-many", "x-none", ":authority", ":method", "grpc-timeout"), InvertMatch: m.IntN(4) == 0,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m.text("ann", "a,b", "POST", "Orders.shop")}}
	if m.IntN(4) == 0 {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: m.IntN(2) == 0}
	}
	return h
}

func (m ruleMaker) cidr() *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: oneOf(m, "10.1.2.3", "10.9.0.0", "198.51.100.7", "0.0.0.0"), PrefixLen: wrapperspb.UInt32(oneOf[uint32](m, 0, 8, 16, 32))}
}

func (m ruleMaker) metadata() *matcherv3.MetadataMatcher {
	x := &matcherv3.MetadataMatcher{Filter: oneOf(m, claimsOfTokens, claimsOfTokens, claimsOfTokens, "else"), Invert: m.IntN(4) == 0, Value: m.value(3)}
	for _, key := range oneOf(m, []string{"iss"}, []string{"level"}, []string{"admin"}, []string{"none"}, []string{"groups"}, []string{"realm", "role"}, []string{"realm"}, []string{"missing"}, []string{"iss", "x"}) {
		if len(x.Path) == 0 {
			x.Path = append(x.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: "payload"}})
		}
		x.Path = append(x.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}})
	}
	return x
}

func (m ruleMaker) value(depth int) *matcherv3.ValueMatcher {
	v := &matcherv3.ValueMatcher{}
	switch n := m.IntN(8); {
	case n == 0:
		v.MatchPattern = &matcherv3.ValueMatcher_NullMatch_{NullMatch: &matcherv3.ValueMatcher_NullMatch{}}
	case n == 1:
		v.MatchPattern = &matcherv3.ValueMatcher_BoolMatch{BoolMatch: m.IntN(2) == 0}
	case n == 2:
		v.MatchPattern = &matcherv3.ValueMatcher_PresentMatch{PresentMatch: m.IntN(2) == 0}
	case n == 3:
		v.MatchPattern = &matcherv3.ValueMatcher_DoubleMatch{DoubleMatch: oneOf(m,
			&matcherv3.DoubleMatcher{MatchPattern: &matcherv3.DoubleMatcher_Exact{Exact: 3}},
			&matcherv3.DoubleMatcher{MatchPattern: &matcherv3.DoubleMatcher_Range{Range: &typev3.DoubleRange{Start: float64(m.IntN(4)), End: float64(m.IntN(5))}}})}
	case n == 4 && depth > 0:
		v.MatchPattern = &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: m.value(depth - 1)}}}
	case n == 5 && depth > 0:
		v.MatchPattern = &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{ValueMatchers: []*matcherv3.ValueMatcher{m.value(depth - 1), m.value(depth - 1)}}}
	default:
		v.MatchPattern = &matcherv3.ValueMatcher_StringMatch{StringMatch: m.text("https://issuer", "dev", "ops", "chief")}
	}
	return v
}

// policy is of any kind, or one with many exact paths and names, which are
// looked up and not compared.
func (m ruleMaker) policy() *rbacv3.Policy {
	if m.IntN(2) == 0 {
		return &rbacv3.Policy{
			Permissions: several(m, 3, func() *rbacv3.Permission { return m.permission(3) }),
			Principals:  several(m, 3, func() *rbacv3.Principal { return m.principal(3) })}
	}
	exact := func(words ...string) *matcherv3.StringMatcher {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: oneOf(m, words...)}}
	}
	return &rbacv3.Policy{
		Permissions: several(m, 8, func() *rbacv3.Permission {
			path := exact(append([]string{"/1", "/2", "/3", "/4", "/5", "/6"}, rulePathsOf...)...)
			return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: path}}}}
		}),
		Principals: several(m, 8, func() *rbacv3.Principal {
			name := exact("a", "b", "c", "d", "e", "f", "spiffe://cluster.local/ns/shop/sa/web", "spiffe://old.domain/ns/shop/sa/web")
			return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: name}}}
		})}
}

func (m ruleMaker) permission(depth int) *rbacv3.Permission {
	p := &rbacv3.Permission{}
	switch n := m.IntN(16); {
	case n < 3 && depth > 0:
		p.Rule = &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: several(m, 3, func() *rbacv3.Permission { return m.permission(depth - 1) })}}
	case n < 6 && depth > 0:
		p.Rule = &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: several(m, 8, func() *rbacv3.Permission { return m.permission(depth - 1) })}}
	case n == 6 && depth > 0:
		p.Rule = &rbacv3.Permission_NotRule{NotRule: m.permission(depth - 1)}
	case n == 7:
		p.Rule = &rbacv3.Permission_Any{Any: true}
	case n == 8:
		p.Rule = &rbacv3.Permission_Header{Header: m.header()}
	case n == 9:
		p.Rule = &rbacv3.Permission_DestinationIp{DestinationIp: m.cidr()}
	case n == 10:
		p.Rule = &rbacv3.Permission_DestinationPort{DestinationPort: oneOf[uint32](m, 50052, 7000)}
		if m.IntN(2) == 0 {
			start := int32(50050 + m.IntN(4))
			p.Rule = &rbacv3.Permission_DestinationPortRange{DestinationPortRange: &typev3.Int32Range{Start: start, End: start + 1 + int32(m.IntN(2))}}
		}
	case n == 11:
		p.Rule = &rbacv3.Permission_RequestedServerName{RequestedServerName: m.text("outbound_.50052")}
	case n == 12:
		p.Rule = &rbacv3.Permission_Metadata{Metadata: m.metadata()}
	case n == 13:
		template, err := anypb.New(&templatev3.UriTemplateMatchConfig{PathTemplate: oneOf(m, "/*/Get", "/shop.Orders/*", "/**", "/shop.Orders/**", "/*/*/*")})
		if err != nil {
			panic(err)
		}
		p.Rule = &rbacv3.Permission_UriTemplate{UriTemplate: &corev3.TypedExtensionConfig{Name: "uri-template", TypedConfig: template}}
	case n == 14 && m.IntN(3) == 0:
		p.Rule = oneOf[*rbacv3.Permission](m, &rbacv3.Permission{}, &rbacv3.Permission{Rule: &rbacv3.Permission_Matcher{Matcher: &corev3.TypedExtensionConfig{Name: "x"}}}).Rule
	default:
		p.Rule = &rbacv3.Permission_UrlPath{UrlPath: m.path()}
	}
	return p
}

func several[T any](m ruleMaker, most int, one func() T) (all []T) {
	for range 1 + m.IntN(most) {
		all = append(all, one())
	}
	if m.IntN(50) == 0 {
		return nil
	}
	return all
}

func (m ruleMaker) principal(depth int) *rbacv3.Principal {
	p := &rbacv3.Principal{}
	switch n := m.IntN(16); {
	case n < 3 && depth > 0:
		p.Identifier = &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: several(m, 3, func() *rbacv3.Principal { return m.principal(depth - 1) })}}
	case n < 6 && depth > 0:
		p.Identifier = &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: several(m, 8, func() *rbacv3.Principal { return m.principal(depth - 1) })}}
	case n == 6 && depth > 0:
		p.Identifier = &rbacv3.Principal_NotId{NotId: m.principal(depth - 1)}
	case n == 7:
		p.Identifier = &rbacv3.Principal_Any{Any: true}
	case n == 8:
		p.Identifier = &rbacv3.Principal_Header{Header: m.header()}
	case n == 9:
		p.Identifier = &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: m.cidr()}
	case n == 10:
		p.Identifier = &rbacv3.Principal_RemoteIp{RemoteIp: m.cidr()}
	case n == 11:
		p.Identifier = &rbacv3.Principal_UrlPath{UrlPath: m.path()}
	case n == 12:
		p.Identifier = &rbacv3.Principal_Metadata{Metadata: m.metadata()}
	case n == 13 && m.IntN(3) == 0:
		p.Identifier = &rbacv3.Principal_Custom{Custom: &corev3.TypedExtensionConfig{Name: "x"}}
	case n == 14:
		p.Identifier = &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{}}
	default:
		p.Identifier = &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m.text("spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/app", "spiffe://old.domain/ns/shop/sa/web")}}
	}
	return p
}

func (m ruleMaker) call() *callFacts {
	peer := &peerFacts{remote: netip.AddrPortFrom(netip.MustParseAddr(oneOf(m, "10.1.2.3", "192.0.2.1")), 4000),
		local: netip.AddrPortFrom(netip.MustParseAddr("10.9.9.9"), oneOf[uint16](m, 50052, 7000))}
	if m.IntN(4) > 0 {
		peer.encrypted, peer.verified, peer.serverName = true, true, "outbound_.50052"
		peer.names = oneOf(m, []string{"spiffe://cluster.local/ns/shop/sa/web"}, []string{"spiffe://cluster.local/ns/shop/sa/app", "spiffe://old.domain/ns/shop/sa/web"})
	}
	md := metadata.MD{":authority": {"Orders.shop"}}
	for name, values := range map[string][]string{"x-user": {"ann"}, "x-many": {"a", "b"}, "x-forwarded-for": {"192.0.2.9, 198.51.100.7"}} {
		if m.IntN(2) == 0 {
			md[name] = values
		}
	}
	c := &callFacts{peer: peer, headers: incomingHeaders(md, oneOf(m, append(rulePathsOf, "/a/%62", "/a/../b", "/a/b?x=y")...))}
	if m.IntN(2) == 0 {
		c.claims = &tokenClaimSet{entries: []tokenEntry{{key: "payload", value: claimsOfReference}}}
	}
	return c
}

// TestRulesAgainstTheReference makes policies and calls at random and compares
// what becomes of the calls with what a slow reading of the messages says.
func TestRulesAgainstTheReference(t *testing.T) {
	const filters, callsEach = 3000, 20
	m := ruleMaker{rand.New(rand.NewPCG(4, 59))}
	passed := map[string]int{}
	for i := range filters {
		rules := &rbacv3.RBAC{Action: oneOf(m, rbacv3.RBAC_ALLOW, rbacv3.RBAC_DENY), Policies: map[string]*rbacv3.Policy{}}
		for n := range m.IntN(12) {
			rules.Policies[fmt.Sprint("p", n)] = m.policy()
		}
		raw, err := proto.Marshal(&filterv3.RBAC{Rules: rules})
		if err != nil {
			t.Fatal(err)
		}
		filter, failure, err := new(decoding).accessFilter(&listenerFilter{name: "rbac", config: extension{name: typeRBAC, value: raw}}, ruleReader{tokens: true})
		if err != nil || failure != "" {
			t.Fatalf("filter %d: %s %v\n%v", i, failure, err, rules)
		}
		for range callsEach {
			call := m.call()
			want := referee{call}.filter(rules)
			got := filter == nil || filter.check(call).code == codes.OK
			if got != want {
				t.Fatalf("filter %d: passes %v, the reference says %v\n%v\n%+v\n%+v", i, got, want, rules, call.peer, call.headers)
			}
			passed[fmt.Sprint(rules.Action, " ", got)]++
		}
	}
	for _, fate := range []string{"ALLOW true", "ALLOW false", "DENY true", "DENY false"} {
		if passed[fate] < filters*callsEach/20 {
			t.Errorf("the policies are too much alike: %v", passed)
		}
	}
	t.Log(passed)
}
