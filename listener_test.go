package proxyless

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func prefixes(list ...string) (all []netip.Prefix) {
	for _, s := range list {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// TestChainOfAConnection holds Envoy's order of criteria: port, prefix, server
// name, transport, application protocol, direct source, source type, source
// prefix, source port; each keeps the best, and what was left behind does not
// come back.
func TestChainOfAConnection(t *testing.T) {
	const here, away, own = "127.0.0.1:9", "192.168.3.4:40000", "10.0.0.1:40000"
	conn := func(from, transport, sni string, protocols ...string) connTraits {
		return connTraits{to: netip.MustParseAddrPort("10.0.0.1:80"), from: netip.MustParseAddrPort(from), transport: transport, serverName: sni, protocols: protocols}
	}
	chain := func(name string, m chainMatch) filterChain { return filterChain{name: name, match: m} }
	otherwise := chain("default", chainMatch{fallback: true})
	for name, tt := range map[string]struct {
		chains []filterChain
		conn   connTraits
		want   string // "" is none
	}{
		"nothing matches":         {[]filterChain{chain("a", chainMatch{port: 81})}, conn(away, inClear, ""), ""},
		"the default chain":       {[]filterChain{chain("a", chainMatch{port: 81}), otherwise}, conn(away, inClear, ""), "default"},
		"the default chain alone": {[]filterChain{otherwise}, conn(away, overTLS, "x"), "default"},
		"default comes last":      {[]filterChain{otherwise, chain("any", chainMatch{})}, conn(away, inClear, ""), "any"},

		"port before any":                       {[]filterChain{chain("any", chainMatch{}), chain("80", chainMatch{port: 80})}, conn(away, inClear, ""), "80"},
		"port, and no way back":                 {[]filterChain{chain("any", chainMatch{}), chain("80", chainMatch{port: 80, transport: overTLS})}, conn(away, inClear, ""), ""},
		"no way back, but to the default chain": {[]filterChain{chain("any", chainMatch{}), chain("80", chainMatch{port: 80, transport: overTLS}), otherwise}, conn(away, inClear, ""), "default"},
		"port before prefix":                    {[]filterChain{chain("prefix", chainMatch{prefixes: prefixes("10.0.0.1/32")}), chain("80", chainMatch{port: 80})}, conn(away, inClear, ""), "80"},

		"the longest prefix":      {[]filterChain{chain("8", chainMatch{prefixes: prefixes("10.0.0.0/8")}), chain("24", chainMatch{prefixes: prefixes("1.2.3.4/32", "10.0.0.0/24")}), chain("any", chainMatch{})}, conn(away, inClear, ""), "24"},
		"prefix, and no way back": {[]filterChain{chain("8", chainMatch{prefixes: prefixes("10.0.0.0/8")}), chain("24", chainMatch{prefixes: prefixes("10.0.0.0/24"), serverNames: []string{"a"}})}, conn(away, overTLS, "b"), ""},
		"another prefix":          {[]filterChain{chain("11", chainMatch{prefixes: prefixes("11.0.0.0/8")}), chain("any", chainMatch{})}, conn(away, inClear, ""), "any"},

		"the exact server name": {[]filterChain{chain("star", chainMatch{serverNames: []string{"*.b.c"}}), chain("exact", chainMatch{serverNames: []string{"a.b.c"}}), chain("any", chainMatch{})}, conn(away, overTLS, "a.b.c"), "exact"},
		"the longest wildcard":  {[]filterChain{chain("c", chainMatch{serverNames: []string{"*.c"}}), chain("b.c", chainMatch{serverNames: []string{"*.b.c"}}), chain("any", chainMatch{})}, conn(away, overTLS, "a.b.c"), "b.c"},
		"a wildcard is no name": {[]filterChain{chain("b.c", chainMatch{serverNames: []string{"*.b.c"}}), chain("any", chainMatch{})}, conn(away, overTLS, "b.c"), "any"},
		"no part of a label":    {[]filterChain{chain("b.c", chainMatch{serverNames: []string{"*.b.c"}}), chain("any", chainMatch{})}, conn(away, overTLS, "ab.c"), "any"},
		"no server name":        {[]filterChain{chain("empty", chainMatch{serverNames: []string{""}}), chain("any", chainMatch{})}, conn(away, overTLS, ""), "any"},
		"name before transport": {[]filterChain{chain("tls", chainMatch{transport: overTLS}), chain("name", chainMatch{serverNames: []string{"a"}})}, conn(away, overTLS, "a"), "name"},

		"the transport":        {[]filterChain{chain("any", chainMatch{}), chain("tls", chainMatch{transport: overTLS}), chain("raw", chainMatch{transport: inClear})}, conn(away, inClear, ""), "raw"},
		"transport before all": {[]filterChain{chain("h2", chainMatch{protocols: []string{"h2"}}), chain("tls", chainMatch{transport: overTLS})}, conn(away, overTLS, "", "h2"), "tls"},

		"the protocol":                  {[]filterChain{chain("any", chainMatch{}), chain("h2", chainMatch{protocols: []string{"x", "h2"}})}, conn(away, overTLS, "", "istio", "h2"), "h2"},
		"the protocol offered first":    {[]filterChain{chain("istio", chainMatch{protocols: []string{"istio"}}), chain("h2", chainMatch{protocols: []string{"h2"}})}, conn(away, overTLS, "", "h2", "istio"), "h2"},
		"and that one, the other way":   {[]filterChain{chain("istio", chainMatch{protocols: []string{"istio"}}), chain("h2", chainMatch{protocols: []string{"h2"}})}, conn(away, overTLS, "", "istio", "h2"), "istio"},
		"no protocol in common":         {[]filterChain{chain("istio", chainMatch{protocols: []string{"istio"}})}, conn(away, overTLS, "", "h2"), ""},
		"protocol before who it is":     {[]filterChain{chain("near", chainMatch{near: fromHere}), chain("h2", chainMatch{protocols: []string{"h2"}})}, conn(here, overTLS, "", "h2"), "h2"},
		"direct source before nearness": {[]filterChain{chain("near", chainMatch{near: fromHere}), chain("direct", chainMatch{direct: prefixes("127.0.0.0/8")})}, conn(here, inClear, ""), "direct"},
		"another direct source":         {[]filterChain{chain("direct", chainMatch{direct: prefixes("10.0.0.0/8")}), chain("any", chainMatch{})}, conn(away, inClear, ""), "any"},

		"from this machine":            {[]filterChain{chain("any", chainMatch{}), chain("near", chainMatch{near: fromHere}), chain("far", chainMatch{near: fromOutside})}, conn(here, inClear, ""), "near"},
		"from this address":            {[]filterChain{chain("any", chainMatch{}), chain("near", chainMatch{near: fromHere}), chain("far", chainMatch{near: fromOutside})}, conn(own, inClear, ""), "near"},
		"from outside":                 {[]filterChain{chain("any", chainMatch{}), chain("near", chainMatch{near: fromHere}), chain("far", chainMatch{near: fromOutside})}, conn(away, inClear, ""), "far"},
		"from outside, nothing for it": {[]filterChain{chain("near", chainMatch{near: fromHere})}, conn(away, inClear, ""), ""},
		"nearness before source":       {[]filterChain{chain("source", chainMatch{sources: prefixes("192.168.3.4/32")}), chain("far", chainMatch{near: fromOutside})}, conn(away, inClear, ""), "far"},

		"the longest source":      {[]filterChain{chain("any", chainMatch{}), chain("16", chainMatch{sources: prefixes("192.168.0.0/16")}), chain("24", chainMatch{sources: prefixes("192.168.3.0/24")})}, conn(away, inClear, ""), "24"},
		"source before its port":  {[]filterChain{chain("port", chainMatch{sourcePorts: []uint16{40000}}), chain("16", chainMatch{sources: prefixes("192.168.0.0/16")})}, conn(away, inClear, ""), "16"},
		"the source port":         {[]filterChain{chain("any", chainMatch{}), chain("port", chainMatch{sourcePorts: []uint16{1, 40000}})}, conn(away, inClear, ""), "port"},
		"another source port":     {[]filterChain{chain("port", chainMatch{sourcePorts: []uint16{1}}), chain("any", chainMatch{})}, conn(away, inClear, ""), "any"},
		"source, and no way back": {[]filterChain{chain("any", chainMatch{}), chain("24", chainMatch{sources: prefixes("192.168.3.0/24"), sourcePorts: []uint16{1}})}, conn(away, inClear, ""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if c := (&listener{inbound: tt.chains}).inboundFor(tt.conn); c != nil {
				got = c.name
			}
			if got != tt.want {
				t.Errorf("%q takes it, want %q", got, tt.want)
			}
			l := listener{inbound: (&listener{inbound: tt.chains}).atPort(80)}
			if c := l.inboundFor(tt.conn); (c == nil) != (tt.want == "") || c != nil && c.name != tt.want {
				t.Errorf("of the chains of the port: %v", c)
			}
		})
	}
}

// TestIstiodsChains is about who gets in where istiod has decided: with each
// mode of PeerAuthentication, whether in plain text, as a workload of the mesh,
// or over TLS from elsewhere.
func TestIstiodsChains(t *testing.T) {
	traits := map[string]connTraits{
		"plain":    plainGRPC(netip.AddrPort{}),
		"mesh":     {transport: overTLS, protocols: []string{"istio-peer-exchange", "istio", "h2"}},
		"mesh tcp": {transport: overTLS, protocols: []string{"istio-peer-exchange", "istio"}},
		"tls":      {transport: overTLS, protocols: []string{"h2"}},
		"bare tls": {transport: overTLS},
	}
	for _, tt := range []struct {
		file   string
		port   uint16
		admits string
	}{
		{"full-inbound-plain", 50051, "plain, mesh, mesh tcp"},
		{"full-inbound-permissive", 50051, "plain, mesh, mesh tcp"},
		{"full-inbound-strict", 50051, "mesh, mesh tcp, tls, bare tls"},
		{"full-inbound-disabled", 50051, "plain"},
		{"full-inbound-guarded", 50051, "plain, mesh, mesh tcp"},
		{"full-secure-inbound-ported", 50052, "plain"}, // the one port that is exempt
		{"full-secure-inbound-ported", 7000, "plain, mesh, mesh tcp"},
		{"full-inbound-permissive", 1234, "plain, mesh, mesh tcp"}, // no Service's
		{"full-inbound-strict", 1234, "mesh, mesh tcp, tls, bare tls"},
	} {
		value := captured(t, tt.file+".binpb")[virtualInbound]
		got, err := decodeResource(kindListener, value)
		if err != nil {
			t.Fatalf("%s: %v", tt.file, err)
		}
		all := got.value.(*listener)
		ports := map[uint16]bool{}
		for _, c := range all.inbound {
			ports[c.match.port] = true
		}
		l := &listener{inbound: all.atPort(tt.port)}
		for name, c := range traits {
			c.to, c.from = netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), tt.port), netip.MustParseAddrPort("10.0.0.2:40000")
			chain, err := (&portPolicy{rules: l}).chainFor(&c)
			admitted := strings.Contains(", "+tt.admits+", ", ", "+name+", ")
			if (err == nil) != admitted {
				t.Errorf("%s, port %d of %v: %s is taken by %v: %v", tt.file, tt.port, ports, name, chain, err)
			}
			if err == nil && chain.tls != nil && (chain.tls.failure != "" || !chain.tls.demands || chain.tls.identity.kind != secretWorkload || chain.tls.roots.kind != secretWorkload) {
				t.Errorf("%s: %s is taken with TLS %+v", tt.file, name, chain.tls)
			}
		}
	}
}

// TestChainMatchIsRead reads all of a FilterChainMatch that is looked at.
func TestChainMatchIsRead(t *testing.T) {
	cidr := func(address string, bits uint64) rawProto {
		return rawProto{}.text(1, address).msg(2, rawProto{}.num(1, bits))
	}
	match := rawProto{}.msg(8, rawProto{}.num(1, 80)).msg(3, cidr("10.0.0.0", 8)).text(9, "tls").text(10, "h2").text(11, "A.b").
		msg(6, cidr("192.168.0.0", 16)).text(7, "\x01\x90\x4e").num(7, 65535).num(12, 2).msg(13, cidr("::1", 128))
	value := rawInbound(rawChain("c", rawManager(rawRouter), "").msg(1, match))
	got, err := decodeResource(kindListener, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	m := got.value.(*listener).inbound[0].match
	if m.port != 80 || m.prefixes[0] != prefixes("10.0.0.0/8")[0] || m.transport != overTLS || m.protocols[0] != "h2" || m.serverNames[0] != "a.b" ||
		m.sources[0] != prefixes("192.168.0.0/16")[0] || len(m.sourcePorts) != 3 || m.sourcePorts[1] != 10000 || m.sourcePorts[2] != 65535 ||
		m.near != fromOutside || m.direct[0] != prefixes("::1/128")[0] || len(got.ignored) > 0 {
		t.Errorf("match %+v, ignored %v", m, got.ignored)
	}
	for name, bad := range map[string]rawProto{
		"destination_port": rawProto{}.msg(8, rawProto{}.num(1, 65536+80)),
		"source_ports":     rawProto{}.num(7, 65536),
		"source_type":      rawProto{}.num(12, 3),
	} {
		_, err := decodeResource(kindListener, []byte(rawInbound(rawChain("c", rawManager(rawRouter), "").msg(1, bad))))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAChainThatAnotherWayMayChooseRefuses: where a tree of matchers chooses
// among the chains on the way in, which is not evaluated, none of them lets a
// call in.
func TestAChainThatAnotherWayMayChooseRefuses(t *testing.T) {
	for name, field := range map[string]int{"filter_chains": 3, "default_filter_chain": 25} {
		raw := rawProto{}.text(1, virtualInbound).msg(protowire.Number(field), rawChain("c", rawManager(rawRouter), "")).msg(32, rawProto{})
		got, err := decodeResource(kindListener, []byte(raw))
		if err != nil {
			t.Fatal(name, err)
		}
		if c := got.value.(*listener).inbound[0]; !strings.Contains(c.failure, "filter_chain_matcher") || !slices.Contains(got.ignored, "filter_chain_matcher") {
			t.Errorf("%s: %+v, ignored %v", name, c, got.ignored)
		}
	}
}
