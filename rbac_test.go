package proxyless

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	actionAllow = 0
	actionDeny  = 1
	actionLog   = 2
)

func rawRules(action uint64, policies map[string]rawProto) rawProto {
	rules := rawProto{}.num(1, action)
	for name, policy := range policies {
		rules = rules.entry(2, name, policy)
	}
	return rules
}

// rawAccess has one permission and one principal.
func rawAccess(permission, principal rawProto) rawProto {
	return rawProto{}.msg(1, permission).msg(2, principal)
}

var (
	rawAny = rawProto{}.num(3, 1) // of both
)

// rawText is a StringMatcher.
func rawText(member int, text string) rawProto {
	if member == 5 {
		return rawProto{}.msg(5, rawProto{}.text(2, text))
	}
	return rawProto{}.text(protowire.Number(member), text)
}

func rawSetOf(number int, rules ...rawProto) rawProto {
	return rawProto{}.msg(protowire.Number(number), rawProto{}.msg(1, rules...))
}

func rawPath(path string) rawProto { // a permission
	return rawProto{}.msg(10, rawProto{}.msg(1, rawText(1, path)))
}

func rawPeer(member int, name string) rawProto { // a principal
	return rawProto{}.msg(4, rawProto{}.msg(2, rawText(member, name)))
}

// accessOf decodes rules as istiod puts them into a filter.
func accessOf(t testing.TB, rules rawProto, r ruleReader) (*accessFilter, []string) {
	t.Helper()
	d := &decoding{}
	f := listenerFilter{name: "rbac", config: extension{name: typeRBAC, value: rawProto{}.msg(1, rules)}}
	filter, failure, err := d.accessFilter(&f, r)
	if err != nil || failure != "" {
		t.Fatal(failure, err)
	}
	return filter, d.ignored
}

// callRules is a filter of calls in the full view.
var callRules = ruleReader{tokens: true}

// rulesCall is what the tests ask about, as callers of a mesh with one proxy
// behind them look.
func rulesCall(change ...func(*callFacts)) *callFacts {
	c := &callFacts{
		peer: &peerFacts{
			remote: netip.MustParseAddrPort("10.1.2.3:40000"), local: netip.MustParseAddrPort("[::ffff:10.9.9.9]:50052"),
			encrypted: true, verified: true, serverName: "Outbound_.50052_._.orders",
			names: []string{"spiffe://cluster.local/ns/shop/sa/web", "spiffe://old.domain/ns/shop/sa/web"},
		},
		headers: incomingHeaders(metadata.MD{":authority": {"Orders.shop:50052"}, "content-type": {"application/grpc+proto"}, "x-user": {"ann"},
			"x-many": {"a", "b"}, "cookie": {"a=1", "b=2"}, "x-forwarded-for": {"192.0.2.1, 198.51.100.7"}, "trace-bin": {"\x01"}}, "/shop.Orders/Get"),
		claims: &tokenClaimSet{entries: []tokenEntry{{key: "payload", value: map[string]any{
			"iss": "https://issuer", "level": 3.0, "admin": true, "none": nil, "groups": []any{"dev", "ops"}, "realm": map[string]any{"role": "chief"},
			"mixed": []any{1.0, "x", []any{"deep"}},
		}}}},
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// TestRuleSays goes through all conditions, in both messages.
func TestRuleSays(t *testing.T) {
	header := func(parts rawProto) rawProto { return rawProto{}.msg(4, parts) }
	cidr := func(number int, address string, bits uint64) rawProto {
		return rawProto{}.msg(protowire.Number(number), rawProto{}.text(1, address).wrap(2, bits))
	}
	template := func(text string) rawProto {
		return rawProto{}.msg(13, rawProto{}.text(1, "uri-template").packed(2, typePathTemplate, rawProto{}.text(1, text)))
	}
	claim := func(value rawProto, path ...string) rawProto {
		m := rawProto{}.text(1, claimsOfTokens)
		for _, key := range append([]string{"payload"}, path...) {
			m = m.msg(2, rawProto{}.text(1, key))
		}
		if value != nil {
			m = m.msg(3, value)
		}
		return m
	}
	text := func(member int, s string) rawProto { return rawProto{}.msg(3, rawText(member, s)) }
	path := func(m rawProto) rawProto { return rawProto{}.msg(10, rawProto{}.msg(1, m)) }
	invert := func(m rawProto) rawProto { return append(slices.Clone(m), rawProto{}.num(4, 1)...) }
	for name, test := range map[string]struct {
		permission, principal rawProto
		want                  judgment
		gap                   string
	}{
		"any":                        {permission: rawAny, want: yes},
		"any that is false":          {permission: rawProto{}.num(3, 0), gap: "permissions.any (false)", want: cannotTell},
		"the path":                   {permission: rawPath("/shop.Orders/Get"), want: yes},
		"the path in another case":   {permission: rawPath("/shop.orders/Get"), want: no},
		"and that does not matter":   {permission: path(rawText(1, "/SHOP.orders/get").num(6, 1)), want: yes},
		"the path's service":         {permission: path(rawText(2, "/shop.Orders/")), want: yes},
		"the path's method":          {permission: path(rawText(3, "/Get")), want: yes},
		"a pattern that is whole":    {permission: path(rawText(5, "/shop\\..*/Get")), want: yes},
		"a pattern of a part":        {permission: path(rawText(5, "shop")), want: no},
		"a part of the path":         {permission: path(rawText(7, "Orders")), want: yes},
		"some path":                  {permission: path(rawText(5, ".+")), want: yes},
		"a custom matcher":           {permission: path(rawProto{}.msg(8, rawProto{})), want: cannotTell, gap: "permissions.url_path.string_match.custom"},
		"a template":                 {permission: template("/*/Get"), want: yes},
		"a template of two segments": {permission: template("/shop.Orders/*/*"), want: no},
		"a template's rest":          {permission: template("/shop.Orders/**"), want: yes},
		"a template of another type": {permission: rawProto{}.msg(13, rawProto{}.packed(2, "a.Template", nil)), want: cannotTell, gap: "permissions.uri_template (a.Template)"},
		"the method is POST":         {permission: header(rawProto{}.text(1, ":method").msg(13, rawText(1, "POST"))), want: yes},
		"the authority":              {permission: header(rawProto{}.text(1, ":authority").msg(13, rawText(1, "orders.SHOP:50052").num(6, 1))), want: yes},
		"the host is the authority":  {permission: header(rawProto{}.text(1, "Host").msg(13, rawText(3, "shop:50052"))), want: yes},
		"a header":                   {principal: rawProto{}.msg(6, rawProto{}.text(1, "X-User").msg(13, rawText(1, "ann"))), want: yes},
		"a header that is absent":    {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-none").msg(13, rawText(1, "ann"))), want: no},
		"absent, and inverted":       {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-none").msg(13, rawText(1, "ann")).num(8, 1)), want: no},
		"absent counts as empty":     {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-none").msg(13, rawText(1, "")).num(14, 1)), want: yes},
		"a header that is there":     {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-user").num(7, 1)), want: yes},
		"a header's lines joined":    {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-many").msg(13, rawText(1, "a,b"))), want: cannotTell},
		"one of a header's lines":    {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-many").msg(13, rawText(1, "b"))), want: cannotTell},
		"not one of its lines":       {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-many").msg(13, rawText(1, "b")).num(8, 1)), want: cannotTell},
		"lines, taken either way":    {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-many").msg(13, rawText(2, "a"))), want: yes},
		"none of its lines":          {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-many").msg(13, rawText(1, "c"))), want: no},
		"a header of several lines":  {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-many").num(7, 1)), want: yes},
		"all but a header's lines":   {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-many").msg(13, rawText(1, "c")).num(8, 1)), want: yes},
		"cookies in crumbs":          {principal: rawProto{}.msg(6, rawProto{}.text(1, "cookie").msg(13, rawText(1, "a=1; b=2"))), want: yes},
		"a header of Envoy's own":    {principal: rawProto{}.msg(6, rawProto{}.text(1, "X-Envoy-Retry-On").num(7, 1)), want: cannotTell, gap: "principals.header (x-envoy-retry-on)"},
		"the content type as sent":   {principal: rawProto{}.msg(6, rawProto{}.text(1, "content-type").msg(13, rawText(1, "application/grpc+proto"))), want: yes},
		"a binary header":            {principal: rawProto{}.msg(6, rawProto{}.text(1, "trace-bin").num(7, 1)), want: cannotTell, gap: "principals.header (trace-bin)"},
		"a header gRPC keeps":        {principal: rawProto{}.msg(6, rawProto{}.text(1, "grpc-timeout").num(7, 1)), want: cannotTell, gap: "principals.header (grpc-timeout)"},
		"a header a sidecar writes":  {principal: rawProto{}.msg(6, rawProto{}.text(1, "x-forwarded-client-cert").num(7, 1)), want: cannotTell, gap: "principals.header (x-forwarded-client-cert)"},
		"destination_ip":             {permission: cidr(5, "10.9.0.0", 16), want: yes},
		"another destination_ip":     {permission: cidr(5, "10.8.0.0", 16), want: no},
		"destination_port":           {permission: rawProto{}.num(6, 50052), want: yes},
		"another destination_port":   {permission: rawProto{}.num(6, 50053), want: no},
		"a range of ports":           {permission: rawProto{}.msg(11, rawProto{}.num(1, 50052).num(2, 50053)), want: yes},
		"a range that ends before":   {permission: rawProto{}.msg(11, rawProto{}.num(1, 50000).num(2, 50052)), want: no},
		"requested_server_name":      {permission: rawProto{}.msg(9, rawText(2, "outbound_.50052_")), want: yes},
		"a matcher":                  {permission: rawProto{}.msg(12, rawProto{}), want: cannotTell, gap: "permissions.matcher"},
		"a newer permission":         {permission: rawProto{}.msg(99, rawProto{}), want: cannotTell, gap: "permissions.field 99"},
		"no permission at all":       {permission: rawProto{}, want: cannotTell, gap: "permissions.no condition"},
		"a principal":                {principal: rawPeer(1, "spiffe://cluster.local/ns/shop/sa/web"), want: yes},
		"its second name":            {principal: rawPeer(1, "spiffe://old.domain/ns/shop/sa/web"), want: yes},
		"another principal":          {principal: rawPeer(1, "spiffe://cluster.local/ns/shop/sa/admin"), want: no},
		"a namespace":                {principal: rawPeer(5, ".*/ns/shop/.*"), want: yes},
		"another namespace":          {principal: rawPeer(5, ".*/ns/sho/.*"), want: no},
		"a service account":          {principal: rawPeer(5, "spiffe://.+/ns/shop/(.+/|)sa/web(/.+)?"), want: yes},
		"another service account":    {principal: rawPeer(5, "spiffe://.+/ns/shop/(.+/|)sa/we(/.+)?"), want: no},
		"a trust domain":             {principal: rawPeer(2, "spiffe://cluster.local/"), want: yes},
		"anybody with a certificate": {principal: rawProto{}.msg(4, rawProto{}), want: yes},
		"a newer way of proving it":  {principal: rawProto{}.msg(4, rawProto{}.text(9, "x")), want: cannotTell, gap: "principals.authenticated.field 9"},
		"source_ip":                  {principal: cidr(5, "10.1.0.0", 16), want: yes},
		"direct_remote_ip":           {principal: cidr(10, "10.1.2.3", 32), want: yes},
		"direct_remote_ip of v6":     {principal: cidr(10, "::", 0), want: no},
		"remote_ip":                  {principal: cidr(11, "198.51.100.0", 24), want: yes},
		"remote_ip is not the peer":  {principal: cidr(11, "10.1.2.3", 32), want: no},
		"the path as a principal":    {principal: rawProto{}.msg(9, rawProto{}.msg(1, rawText(1, "/shop.Orders/Get"))), want: yes},
		"the principal of a tunnel":  {principal: rawProto{}.msg(12, rawProto{}.text(1, peerPrincipal).msg(2, rawText(2, "spiffe://cluster.local/"))), want: yes},
		"another filter state":       {principal: rawProto{}.msg(12, rawProto{}.text(1, "x").msg(2, rawText(2, "s"))), want: cannotTell, gap: "principals.filter_state (x)"},
		"a custom principal":         {principal: rawProto{}.msg(14, rawProto{}), want: cannotTell, gap: "principals.custom"},
		"a claim":                    {principal: rawProto{}.msg(7, claim(text(1, "https://issuer"), "iss")), want: yes},
		"a claim inside":             {principal: rawProto{}.msg(7, claim(text(2, "ch"), "realm", "role")), want: yes},
		"a claim that is a list":     {principal: rawProto{}.msg(7, claim(text(1, "dev"), "groups")), want: no},
		"one of a list":              {principal: rawProto{}.msg(7, claim(rawProto{}.msg(6, rawProto{}.msg(1, text(1, "ops"))), "groups")), want: yes},
		"none of a list":             {principal: rawProto{}.msg(7, claim(rawProto{}.msg(6, rawProto{}.msg(1, text(1, "op"))), "groups")), want: no},
		"a list in a list":           {principal: rawProto{}.msg(7, claim(rawProto{}.msg(6, rawProto{}.msg(1, rawProto{}.msg(6, rawProto{}.msg(1, text(1, "deep"))))), "mixed")), want: yes},
		"either value":               {principal: rawProto{}.msg(7, claim(rawProto{}.msg(7, rawProto{}.msg(1, text(1, "x"), text(1, "https://issuer"))), "iss")), want: yes},
		"a number":                   {principal: rawProto{}.msg(7, claim(rawProto{}.msg(2, rawDouble(2, 3)), "level")), want: yes},
		"a range of numbers":         {principal: rawProto{}.msg(7, claim(rawProto{}.msg(2, rawProto{}.msg(1, append(rawDouble(1, 2), rawDouble(2, 3)...))), "level")), want: no},
		"a flag":                     {principal: rawProto{}.msg(7, claim(rawProto{}.num(4, 1), "admin")), want: yes},
		"null":                       {principal: rawProto{}.msg(7, claim(rawProto{}.msg(1, rawProto{}), "none")), want: yes},
		"null is not absent":         {principal: rawProto{}.msg(7, claim(rawProto{}.msg(1, rawProto{}), "nothing")), want: no},
		"present":                    {principal: rawProto{}.msg(7, claim(rawProto{}.num(5, 1), "none")), want: yes},
		"not present":                {principal: rawProto{}.msg(7, claim(rawProto{}.num(5, 1), "nothing")), want: no},
		"present_match false":        {principal: rawProto{}.msg(7, claim(rawProto{}.num(5, 0), "nothing")), want: no},
		"a claim, inverted":          {principal: rawProto{}.msg(7, invert(claim(text(1, "x"), "nothing"))), want: yes},
		"a claim as a pattern":       {principal: rawProto{}.msg(7, claim(text(5, "https://.+"), "iss")), want: yes},
		"a claim, custom":            {principal: rawProto{}.msg(7, claim(rawProto{}.msg(3, rawProto{}.msg(8, rawProto{})), "iss")), want: cannotTell, gap: "principals.metadata.value"},
		"a claim without a value":    {principal: rawProto{}.msg(7, claim(nil, "iss")), want: cannotTell, gap: "principals.metadata.value"},
		"metadata of other filters":  {permission: rawProto{}.msg(7, rawProto{}.text(1, "envoy.filters.network.mysql_proxy").msg(3, text(1, "x"))), want: cannotTell, gap: "permissions.metadata (envoy.filters.network.mysql_proxy)"},
		"sourced_metadata":           {permission: rawProto{}.msg(14, rawProto{}.msg(1, claim(text(1, "https://issuer"), "iss"))), want: yes},
		"metadata of the route":      {principal: rawProto{}.msg(13, rawProto{}.msg(1, claim(text(1, "https://issuer"), "iss")).num(2, 1)), want: cannotTell, gap: "principals.sourced_metadata.metadata_source"},
		"all":                        {permission: rawSetOf(1, rawAny, rawPath("/shop.Orders/Get")), want: yes},
		"all but one":                {permission: rawSetOf(1, rawAny, rawPath("/"), rawAny), want: no},
		"all of nothing":             {permission: rawSetOf(1), want: cannotTell, gap: "permissions.and_rules.empty"},
		"one of some":                {principal: rawSetOf(2, rawPeer(1, "x"), rawPeer(1, "spiffe://old.domain/ns/shop/sa/web")), want: yes},
		"one of many": {principal: rawSetOf(2, rawPeer(1, "a"), rawPeer(1, "b"), rawPeer(1, "c"), rawPeer(1, "d"), rawPeer(1, "e"),
			rawPeer(1, "spiffe://cluster.local/ns/shop/sa/web")), want: yes},
		"none of many":    {principal: rawSetOf(2, rawPeer(1, "a"), rawPeer(1, "b"), rawPeer(1, "c"), rawPeer(1, "d"), rawPeer(1, "e"), rawPeer(2, "f")), want: no},
		"not":             {principal: rawProto{}.msg(8, rawPeer(1, "x")), want: yes},
		"not of unknown":  {principal: rawProto{}.msg(8, rawProto{}.msg(14, rawProto{})), want: cannotTell, gap: "principals.custom"},
		"unknown or yes":  {principal: rawSetOf(2, rawProto{}.msg(14, rawProto{}), rawAny), want: yes, gap: "principals.custom"},
		"unknown or no":   {principal: rawSetOf(2, rawProto{}.msg(14, rawProto{}), rawPeer(1, "x")), want: cannotTell, gap: "principals.custom"},
		"unknown and yes": {principal: rawSetOf(1, rawProto{}.msg(14, rawProto{}), rawAny), want: cannotTell, gap: "principals.custom"},
		"unknown and no":  {principal: rawSetOf(1, rawProto{}.msg(14, rawProto{}), rawPeer(1, "x")), want: no, gap: "principals.custom"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.permission == nil {
				test.permission = rawAny
			}
			if test.principal == nil {
				test.principal = rawAny
			}
			f, ignored := accessOf(t, rawRules(actionAllow, map[string]rawProto{"p": rawAccess(test.permission, test.principal)}), callRules)
			p := &f.rules.policies[0]
			if got := p.judge(rulesCall()); got != test.want {
				t.Errorf("it says %d", got)
			}
			var gaps, paths []string
			if test.gap != "" {
				gaps, paths = []string{test.gap}, []string{"rules.policies[p]." + test.gap}
			}
			if !reflect.DeepEqual(p.gaps, gaps) || !reflect.DeepEqual(ignored, paths) {
				t.Errorf("gaps %q, ignored %q", p.gaps, ignored)
			}
		})
	}
}

// TestRulesOnAStrippedAuthority has proxies remove a part of :authority before
// rules are held against it: what is left is not known here, so that rules on it
// cannot tell.
func TestRulesOnAStrippedAuthority(t *testing.T) {
	for name, test := range map[string]struct {
		number protowire.Number
		value  uint64
		field  string
	}{
		"none":                  {0, 0, ""},
		"not the matching port": {39, 0, ""},
		"the matching port":     {39, 1, "strip_matching_host_port"},
		"any port":              {42, 1, "strip_any_host_port"},
		"the dot":               {47, 1, "strip_trailing_host_dot"},
	} {
		for _, header := range []string{":authority", "Host", "x-user"} {
			t.Run(name+" "+header, func(t *testing.T) {
				deny := rawAccess(rawProto{}.msg(4, rawProto{}.text(1, header).msg(13, rawText(1, "orders.shop"))), rawAny)
				filter := rawFilter("rbac", typeRBAC, rawProto{}.msg(1, rawRules(actionDeny, map[string]rawProto{"p": deny})))
				manager := rawManager(filter, rawRouter)
				if test.number != 0 {
					manager = manager.num(test.number, test.value)
				}
				got, err := decodeResource(kindListener, []byte(rawInbound(rawChain("c", manager, ""))))
				if err != nil {
					t.Fatal(err)
				}
				gap := test.field != "" && header != "x-user"
				want := codes.OK
				if gap {
					want = codes.PermissionDenied
				}
				if r := got.value.(*listener).inbound[0].authorize(rulesCall()); r.code != want {
					t.Errorf("a call for orders.shop:50052 gets %+v, want %s", r, want)
				}
				noted := strings.Join(got.ignored, " ")
				if (test.field == "") != (noted == "") || !strings.Contains(noted, test.field) || strings.Contains(noted, "permissions.header (:authority)") != gap {
					t.Errorf("noted %q", noted)
				}
			})
		}
	}
}

// TestRulesFailClosed has policies that cannot be evaluated, by what is in them
// and by what the call is: they allow nothing and deny everything.
func TestRulesFailClosed(t *testing.T) {
	odd := rawProto{}.msg(14, rawProto{}) // a custom principal
	plain := func(c *callFacts) {
		c.peer = &peerFacts{remote: c.peer.remote, local: c.peer.local}
	}
	unverified := func(c *callFacts) { plain(c); c.peer.encrypted = true }
	at := func(path string) func(*callFacts) { return func(c *callFacts) { c.headers.path = path } }
	not := func(principal rawProto) rawProto { return rawProto{}.msg(8, principal) }
	host := rawProto{}.msg(4, rawProto{}.text(1, ":authority").msg(13, rawText(2, "orders")))
	to := func(authority string) func(*callFacts) { return func(c *callFacts) { c.headers.authority = authority } }
	blank := rawProto{}
	for name, test := range map[string]struct {
		policy rawProto
		call   func(*callFacts)
		allows bool // a policy that allows
		denies bool // the same, if it denies
	}{
		"a custom principal":                      {rawAccess(rawAny, odd), at("/a/b"), false, true},
		"anybody but a custom principal":          {rawAccess(rawAny, not(odd)), at("/a/b"), false, true},
		"a custom principal on another path":      {rawAccess(rawPath("/x/y"), odd), at("/a/b"), false, false},
		"a condition":                             {rawAccess(rawAny, rawAny).msg(3, blank), at("/a/b"), false, true},
		"a checked condition on another path":     {rawAccess(rawPath("/x/y"), rawAny).msg(4, blank), at("/a/b"), false, false},
		"a policy that istiod could not make":     {blank, at("/a/b"), false, true},
		"without principals":                      {rawProto{}.msg(1, rawAny), at("/a/b"), false, true},
		"a path":                                  {rawAccess(rawPath("/a/b"), rawAny), at("/a/b"), true, true},
		"a path with a query":                     {rawAccess(rawPath("/a/b"), rawAny), at("/a/b?c"), true, true},
		"a path with a fragment":                  {rawAccess(rawPath("/a/b"), rawAny), at("/a/b#c"), false, true},
		"a path that is escaped":                  {rawAccess(rawPath("/a/b"), rawAny), at("/a/%62"), false, true},
		"a path around a corner":                  {rawAccess(rawPath("/a/b"), rawAny), at("/x/../a/b"), false, true},
		"a path with an empty segment":            {rawAccess(rawPath("/a/b"), rawAny), at("//a/b"), false, true},
		"a path with a backslash":                 {rawAccess(rawPath("/a/b"), rawAny), at(`/a\b`), false, true},
		"a path without its slash":                {rawAccess(rawPath("/a/b"), rawAny), at("a/b"), false, true},
		"a template for a star":                   {rawAccess(rawProto{}.msg(13, rawProto{}.packed(2, typePathTemplate, rawProto{}.text(1, "/a/*"))), rawAny), at("/a/*b"), true, true},
		"a template's rest with a star":           {rawAccess(rawProto{}.msg(13, rawProto{}.packed(2, typePathTemplate, rawProto{}.text(1, "/a/**"))), rawAny), at("/a/*b/c"), true, true},
		"a host":                                  {rawAccess(host, rawAny), to("orders.[a]%:50052"), true, true},
		"a host and a user":                       {rawAccess(host, rawAny), to("orders@x"), false, true},
		"a host and a path":                       {rawAccess(host, rawAny), to("orders/x"), false, true},
		"a host with a space":                     {rawAccess(host, rawAny), to("orders x"), false, true},
		"no host":                                 {rawAccess(host, rawAny), to(""), false, true},
		"any path":                                {rawAccess(rawAny, rawAny), at("/a/%62"), true, true},
		"a principal of a plain connection":       {rawAccess(rawAny, rawPeer(2, "spiffe://")), plain, false, false},
		"not that principal, and no certificate":  {rawAccess(rawAny, not(rawPeer(2, "spiffe://"))), plain, true, true},
		"anybody authenticated, TLS without one":  {rawAccess(rawAny, rawProto{}.msg(4, blank)), unverified, false, true},
		"a principal, TLS without a certificate":  {rawAccess(rawAny, rawPeer(5, ".+")), unverified, false, false},
		"an address that is none":                 {rawAccess(rawAny, rawProto{}.msg(10, rawProto{}.text(1, "0.0.0.0"))), func(c *callFacts) { plain(c); c.peer.remote = netip.AddrPort{} }, false, true},
		"a port of what has none":                 {rawAccess(rawProto{}.num(6, 1), rawAny), func(c *callFacts) { plain(c); c.peer.local = netip.AddrPort{} }, false, true},
		"who is not known":                        {rawAccess(rawAny, not(rawPeer(1, "x"))), func(c *callFacts) { c.peer = nil }, false, true},
		"the path asked for as a header, escaped": {rawAccess(rawProto{}.msg(4, rawProto{}.text(1, ":path").msg(13, rawText(1, "/a/b"))), rawAny), at("/a/%62"), false, true},
	} {
		t.Run(name, func(t *testing.T) {
			for action, passes := range map[uint64]bool{actionAllow: test.allows, actionDeny: !test.denies} {
				f, _ := accessOf(t, rawRules(action, map[string]rawProto{"p": test.policy}), callRules)
				if r := f.check(rulesCall(test.call)); (r.code == codes.OK) != passes || !passes && (r.code != codes.PermissionDenied || r.reason == "") {
					t.Errorf("action %d: %+v", action, r)
				}
			}
			f, _ := accessOf(t, rawRules(actionLog, map[string]rawProto{"p": test.policy}), callRules)
			call := rulesCall(test.call)
			if r := f.check(call); r.code != codes.OK || (len(call.audits) == 1) != test.denies {
				t.Errorf("AUDIT: %+v, %+v", r, call.audits)
			}
		})
	}
}

// TestRuling is about which policy decides, and what the audit record says.
func TestRuling(t *testing.T) {
	web, other := rawPeer(1, "spiffe://cluster.local/ns/shop/sa/web"), rawPeer(1, "spiffe://cluster.local/ns/shop/sa/other")
	odd := rawProto{}.msg(14, rawProto{})
	for name, test := range map[string]struct {
		rules rawProto
		want  ruling
	}{
		"nothing allowed":       {rawRules(actionAllow, nil), ruling{codes.PermissionDenied, "", "ALLOW", "nothing is allowed"}},
		"no match":              {rawRules(actionAllow, map[string]rawProto{"a": rawAccess(rawAny, other)}), ruling{codes.PermissionDenied, "", "ALLOW", "no policy matches"}},
		"a match":               {rawRules(actionAllow, map[string]rawProto{"a": rawAccess(rawAny, other), "b": rawAccess(rawAny, web)}), ruling{}},
		"a match after unknown": {rawRules(actionAllow, map[string]rawProto{"a": rawAccess(rawAny, odd), "b": rawAccess(rawAny, web)}), ruling{}},
		"no match but unknown": {rawRules(actionAllow, map[string]rawProto{"a": rawAccess(rawAny, odd), "b": rawAccess(rawAny, other)}),
			ruling{codes.PermissionDenied, "", "ALLOW", "no policy matches, and a cannot: not evaluated: principals.custom"}},
		"denied by the first by name": {rawRules(actionDeny, map[string]rawProto{"c": rawAccess(rawAny, web), "b": rawAccess(rawAny, web), "a": rawAccess(rawAny, other)}),
			ruling{codes.PermissionDenied, "b", "DENY", "the policy matches"}},
		"denied for want of understanding": {rawRules(actionDeny, map[string]rawProto{"a": rawAccess(rawAny, odd)}), ruling{codes.PermissionDenied, "a", "DENY", "not evaluated: principals.custom"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := accessOf(t, test.rules, callRules)
			if got := f.check(rulesCall()); got != test.want {
				t.Errorf("%+v", got)
			}
		})
	}
	for name, rules := range map[string]rawProto{"DENY": rawRules(actionDeny, nil), "AUDIT": rawRules(actionLog, nil)} {
		if f, _ := accessOf(t, rules, callRules); f != nil {
			t.Errorf("%s without policies costs something", name)
		}
	}
}

// TestShadowRules are evaluated and refuse nothing.
func TestShadowRules(t *testing.T) {
	d := &decoding{}
	shadow := rawRules(actionDeny, map[string]rawProto{"try": rawAccess(rawAny, rawAny)})
	f, failure, err := d.accessFilter(&listenerFilter{name: "rbac", config: extension{name: typeRBAC, value: rawProto{}.msg(2, shadow).text(3, "istio_dry_run_deny_")}}, callRules)
	if err != nil || failure != "" {
		t.Fatal(failure, err)
	}
	call := rulesCall()
	if r := f.check(call); r.code != codes.OK || !reflect.DeepEqual(call.audits, []ruling{{codes.PermissionDenied, "try", "shadow DENY", "the policy matches"}}) {
		t.Errorf("%+v, %+v", r, call.audits)
	}
}

// TestAuditOptions asks for records of calls that are let through (gRFC A59).
func TestAuditOptions(t *testing.T) {
	options := func(condition uint64, logger string) rawProto {
		return rawProto{}.num(1, condition).msg(2, rawProto{}.msg(1, rawProto{}.packed(2, logger, nil)))
	}
	for name, test := range map[string]struct {
		options rawProto
		audits  int
		ignored []string
	}{
		"none":      {options(0, typeStdoutAudit), 0, nil},
		"on deny":   {options(1, typeStdoutAudit), 0, nil},
		"on allow":  {options(2, typeStdoutAudit), 1, nil},
		"both":      {options(3, typeStdoutAudit), 1, nil},
		"elsewhere": {options(3, "a.Logger"), 1, []string{"rules.audit_logging_options.logger_configs (a.Logger)"}},
	} {
		for _, action := range []uint64{actionAllow, actionDeny} {
			policies := map[string]rawProto{"p": rawAccess(rawAny, rawAny)}
			if action == actionDeny {
				policies = nil
			}
			f, ignored := accessOf(t, rawRules(action, policies).msg(3, test.options), callRules)
			call := rulesCall()
			if f != nil && f.check(call).code != codes.OK || len(call.audits) != test.audits || !reflect.DeepEqual(ignored, test.ignored) {
				t.Errorf("%s, action %d: %+v, ignored %q", name, action, call.audits, ignored)
			}
		}
	}
}

// TestConnectionRules see no headers: what asks for some is not met.
func TestConnectionRules(t *testing.T) {
	for name, test := range map[string]struct {
		permission, principal rawProto
		want                  judgment
	}{
		"the port":         {rawProto{}.num(6, 50052), rawAny, yes},
		"the peer":         {rawAny, rawPeer(5, ".*/ns/shop/.*"), yes},
		"a path":           {rawPath("/shop.Orders/Get"), rawAny, no},
		"no path":          {rawProto{}.msg(8, rawPath("/shop.Orders/Get")), rawAny, yes},
		"a header":         {rawAny, rawProto{}.msg(6, rawProto{}.text(1, "x-user").num(7, 1)), no},
		"an absent header": {rawAny, rawProto{}.msg(6, rawProto{}.text(1, "x-user").num(7, 0)), yes},
		"remote_ip":        {rawAny, rawProto{}.msg(11, rawProto{}.text(1, "10.1.2.3").wrap(2, 32)), yes},
		"a claim":          {rawAny, rawProto{}.msg(7, rawProto{}.text(1, claimsOfTokens).msg(2, rawProto{}.text(1, "payload")).msg(3, rawProto{}.num(5, 1))), no},
	} {
		f, _ := accessOf(t, rawRules(actionAllow, map[string]rawProto{"p": rawAccess(test.permission, test.principal)}), ruleReader{connection: true})
		if got := f.rules.policies[0].judge(rulesCall()); got != test.want {
			t.Errorf("%s: it says %d", name, got)
		}
	}
}

// TestRemoteAddress goes by x-forwarded-for as a sidecar does.
func TestRemoteAddress(t *testing.T) {
	for _, test := range []struct {
		forwarded []string
		trusted   int
		want      string
	}{
		{nil, 0, "10.1.2.3"},
		{[]string{"192.0.2.1"}, 0, "192.0.2.1"},
		{[]string{"192.0.2.1, 198.51.100.7"}, 0, "198.51.100.7"},
		{[]string{"192.0.2.1", "198.51.100.7"}, 0, "198.51.100.7"},
		{[]string{"192.0.2.1, 198.51.100.7"}, 1, "192.0.2.1"},
		{[]string{"192.0.2.1, 198.51.100.7"}, 2, "10.1.2.3"},
		{[]string{"2001:db8::1"}, 0, "2001:db8::1"},
		{[]string{"::ffff:192.0.2.1"}, 0, "::ffff:192.0.2.1"},
		{[]string{"fe80::1%eth0"}, 0, "10.1.2.3"},
		{[]string{"unknown"}, 0, "10.1.2.3"},
		{[]string{"192.0.2.1,"}, 0, "10.1.2.3"},
		{[]string{""}, 0, "10.1.2.3"},
	} {
		call := rulesCall(func(c *callFacts) { c.headers.md["x-forwarded-for"] = test.forwarded })
		got := remoteAddr(call, test.trusted)
		if got.String() != test.want {
			t.Errorf("%q past %d: %v", test.forwarded, test.trusted, got)
		}
		rule := accessRule{kind: ruleRemoteIP, prefix: netip.PrefixFrom(got, got.BitLen()), from: uint32(test.trusted)}
		v4 := accessRule{kind: ruleRemoteIP, prefix: netip.MustParsePrefix("0.0.0.0/0"), from: uint32(test.trusted)}
		if rule.judge(call) != yes || (v4.judge(call) == yes) != got.Is4() {
			t.Errorf("%q past %d: rules find another address", test.forwarded, test.trusted)
		}
	}
}

// TestRulesThatAreRejected are those which cannot be meant.
func TestRulesThatAreRejected(t *testing.T) {
	deep := func(n int) rawProto {
		rule := rawAny
		for range n {
			rule = rawProto{}.msg(8, rule)
		}
		return rule
	}
	value := rawProto{}.num(5, 1)
	for range maxRuleDepth {
		value = rawProto{}.msg(6, rawProto{}.msg(1, value))
	}
	for want, policy := range map[string]rawProto{
		"rules.policies[p].permissions[0].url_path.safe_regex.regex: ":                   rawAccess(rawProto{}.msg(10, rawProto{}.msg(1, rawText(5, "("))), rawAny),
		"rules.policies[p].principals[0].direct_remote_ip.address_prefix: ":              rawAccess(rawAny, rawProto{}.msg(10, rawProto{}.text(1, "10.0.0"))),
		"rules.policies[p].principals[0].remote_ip.prefix_len: ":                         rawAccess(rawAny, rawProto{}.msg(11, rawProto{}.text(1, "10.0.0.0").wrap(2, 33))),
		"rules.policies[p].permissions[0].destination_port: 65536 to 65537":              rawAccess(rawProto{}.num(6, 65536), rawAny),
		"rules.policies[p].permissions[0].destination_port_range: 2 to 1 are":            rawAccess(rawProto{}.msg(11, rawProto{}.num(1, 2).num(2, 1)), rawAny),
		"rules.policies[p].permissions[0].header.name: missing":                          rawAccess(rawProto{}.msg(4, rawProto{}.num(7, 1)), rawAny),
		"rules.policies[p].permissions[0].uri_template.typed_config.path_template: a":    rawAccess(rawProto{}.msg(13, rawProto{}.packed(2, typePathTemplate, rawProto{}.text(1, "a"))), rawAny),
		"rules.policies[p].principals[0].metadata.value.string_match.safe_regex.regex: ": rawAccess(rawAny, rawProto{}.msg(7, rawProto{}.text(1, claimsOfTokens).msg(2, rawProto{}.text(1, "a")).msg(3, rawProto{}.msg(3, rawText(5, "("))))),
		"rules nested":  rawAccess(deep(maxRuleDepth), rawAny),
		"values nested": rawAccess(rawAny, rawProto{}.msg(7, rawProto{}.text(1, claimsOfTokens).msg(2, rawProto{}.text(1, "a")).msg(3, value))),
	} {
		d := &decoding{}
		_, _, err := d.accessFilter(&listenerFilter{config: extension{value: rawProto{}.msg(1, rawRules(actionAllow, map[string]rawProto{"p": policy}))}}, callRules)
		if what, nested := strings.CutSuffix(want, " nested"); nested {
			want = what + " are nested more than 32 deep"
			if err == nil || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%v", err)
			}
		} else if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	if f, _ := accessOf(t, rawRules(actionAllow, map[string]rawProto{"p": rawAccess(deep(maxRuleDepth-1), rawAny)}), callRules); f == nil {
		t.Error("32 levels are too many")
	}
}

// TestChainsThatRefuseEverything have filters that judge calls in ways that are
// not evaluated; the last ones are evaluated.
func TestChainsThatRefuseEverything(t *testing.T) {
	rules := rawProto{}.msg(1, rawRules(actionAllow, map[string]rawProto{"p": rawAccess(rawAny, rawAny)}))
	rbac := func(config rawProto) rawProto { return rawFilter("rbac", typeRBAC, config) }
	custom := rbac(rawProto{}.msg(2, rawRules(actionDeny, map[string]rawProto{"istio-ext-authz-x": rawAccess(rawPath("/a/b"), rawAny)})).text(3, customPrefix))
	authorizer := func(filter, key string) rawProto {
		return rawFilter("ext_authz", typeExtAuthz, rawProto{}.msg(14, rawProto{}.text(1, filter).msg(2, rawProto{}.text(1, key))))
	}
	tried := rawProto{}.msg(2, rawRules(actionDeny, map[string]rawProto{"p": rawAccess(rawAny, rawAny)}))
	marked := authorizer("envoy.filters.http.rbac", "istio_ext_authz_shadow_effective_policy_id")
	routed := func(routes rawProto) rawProto { return rawManager(rbac(rules), rawRouter).msg(4, routes) }
	entry := rawProto{}.text(1, "rbac").msg(2, rawProto{}.text(1, "a.Type"))
	for name, test := range map[string]struct {
		manager rawProto
		failure string
	}{
		"a matcher":              {rawManager(rbac(rawProto{}.msg(4, rawProto{})), rawRouter), "matcher of filter rbac is not evaluated"},
		"rules and a matcher":    {rawManager(rbac(append(slices.Clone(rules), rawProto{}.msg(4, rawProto{})...)), rawRouter), "matcher of filter rbac is not evaluated"},
		"an action of tomorrow":  {rawManager(rbac(rawProto{}.msg(1, rawProto{}.num(1, 3))), rawRouter), "action 3 is not known"},
		"a field of tomorrow":    {rawManager(rbac(rawProto{}.msg(99, rawProto{})), rawRouter), "field 99 of filter rbac is not known"},
		"rules of tomorrow":      {rawManager(rbac(rawProto{}.msg(1, rawProto{}.num(9, 1))), rawRouter), "field 9 of the rules is not known"},
		"as JSON":                {rawManager(rawFilter("rbac", "xds.type.v3.TypedStruct", rawProto{}.text(1, typePrefix+typeRBAC).msg(2, rawStruct("a", "b"))), rawRouter), "filter " + typeRBAC + " has a configuration that cannot be read"},
		"an authorizer":          {rawManager(marked, rawRouter), "filter " + typeExtAuthz + " is not evaluated"},
		"another mark":           {rawManager(custom, authorizer("envoy.filters.http.rbac", "x"), rawRouter), "filter " + typeExtAuthz + " is not evaluated"},
		"routes of their own":    {routed(rawProto{}.msg(16, entry)), "filter rbac is not the same for all routes (typed_per_filter_config), which is not evaluated"},
		"a host of its own":      {routed(rawProto{}.msg(2, rawProto{}.msg(15, entry))), "filter rbac is not the same for all routes (typed_per_filter_config), which is not evaluated"},
		"a route of its own":     {routed(rawProto{}.msg(2, rawProto{}.msg(3, rawProto{}.msg(13, entry)))), "filter rbac is not the same for all routes (typed_per_filter_config), which is not evaluated"},
		"a cluster of its own":   {routed(rawProto{}.msg(2, rawProto{}.msg(3, rawProto{}.msg(2, rawProto{}.msg(3, rawProto{}.msg(1, rawProto{}.msg(10, entry))))))), "filter rbac is not the same for all routes (typed_per_filter_config), which is not evaluated"},
		"a try, and a route's":   {rawManager(rbac(tried), rawRouter).msg(4, rawProto{}.msg(16, entry)), "filter rbac is not the same for all routes (typed_per_filter_config), which is not evaluated"},
		"routes elsewhere":       {rawManager(rbac(rules), rawRouter).msg(3, rawRDS), "the filters may differ by routes that are not looked at (rds, scoped_routes)"},
		"routes, but no rules":   {rawManager(rawRouter).msg(3, rawRDS), ""},
		"a host of other filter": {routed(rawProto{}.msg(16, rawProto{}.text(1, "fault"))), ""},
		"rules that are off":     {rawManager(append(slices.Clone(rbac(rules)), rawProto{}.num(7, 1)...), rawRouter), ""},
		"marked calls only":      {rawManager(custom, marked, rawRouter), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeResource(kindListener, rawInbound(rawChain("c", test.manager, "")))
			if err != nil {
				t.Fatal(err)
			}
			chain := &got.value.(*listener).inbound[0]
			if chain.failure != test.failure {
				t.Errorf("%q", chain.failure)
			}
			if r := chain.authorize(rulesCall()); (r.code == codes.OK) != (test.failure == "") {
				t.Errorf("%+v", r)
			}
		})
	}
	got, err := decodeResource(kindListener, rawInbound(rawChain("c", rawManager(custom, marked, rawRouter), "")))
	if err != nil {
		t.Fatal(err)
	}
	call := rulesCall(func(c *callFacts) { c.headers.path = "/a/b" })
	if r := got.value.(*listener).inbound[0].authorize(call); r.code != codes.PermissionDenied || r.action != "CUSTOM" || len(call.audits) != 0 || len(got.ignored) != 1 {
		t.Errorf("%+v, audits %+v, ignored %q", r, call.audits, got.ignored)
	}
}
