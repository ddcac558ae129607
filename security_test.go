package proxyless

import (
	"reflect"
	"strings"
	"testing"
)

// TestWhoIsAskedForAndExpected: by the context, the endpoint's hostname, and
// the authority of calls.
func TestWhoIsAskedForAndExpected(t *testing.T) {
	named := []sanMatch{{text: stringMatch{kind: headerExact, text: "spiffe://x"}}}
	for name, test := range map[string]struct {
		cluster   cluster
		context   tlsContext
		hostname  string
		authority string
		sni       string
		hosts     []string
		names     int // of the context that are left
	}{
		"nothing":                             {sni: ""},
		"the context's":                       {context: tlsContext{sni: "a", names: named}, hostname: "pod", authority: "b", sni: "a", names: 1},
		"auto_host_sni":                       {context: tlsContext{sni: "a", hostSNI: true}, hostname: "pod", sni: "pod"},
		"auto_host_sni, no hostname":          {context: tlsContext{sni: "a", hostSNI: true}, sni: "a"},
		"auto_sni":                            {cluster: cluster{nameSNI: true}, context: tlsContext{sni: "a", hostSNI: true}, hostname: "pod", authority: "b", sni: "b"},
		"auto_sni of an address":              {cluster: cluster{nameSNI: true, nameSAN: true}, authority: "10.0.0.1", hosts: []string{"10.0.0.1"}},
		"auto_san_validation beside names":    {cluster: cluster{nameSNI: true, nameSAN: true}, context: tlsContext{names: named}, authority: "b", sni: "b", hosts: []string{"b"}, names: 1},
		"auto_sni_san_validation":             {context: tlsContext{sni: "a", sameSNI: true, names: named}, sni: "a", hosts: []string{"a"}},
		"auto_sni_san_validation without SNI": {context: tlsContext{sameSNI: true, names: named}, names: 1},
		"both, and an SNI":                    {context: tlsContext{sni: "a", hostSNI: true, sameSNI: true, names: named}, hostname: "pod", sni: "pod", hosts: []string{"pod"}},
		"both by the hostname":                {context: tlsContext{hostSNI: true, sameSNI: true, names: named}, hostname: "pod", sni: "pod", hosts: []string{"pod"}},
	} {
		e := endpoint{}
		if test.hostname != "" {
			e.more().hostname = test.hostname
		}
		s := newSecurity(&test.cluster, test.context.settle(), test.authority).at(&e)
		if s.name != test.sni || !reflect.DeepEqual(s.hosts, test.hosts) || len(s.context.names) != test.names {
			t.Errorf("%s: asks for %q, expects %q and %d names", name, s.name, s.hosts, len(s.context.names))
		}
	}
}

// TestWhatMayShareConnections: what says the same, and nothing else.
func TestWhatMayShareConnections(t *testing.T) {
	by := cluster{nameSNI: true}
	a, same, other := newSecurity(&by, (&tlsContext{}).settle(), "a"), newSecurity(&by, (&tlsContext{}).settle(), "a"), newSecurity(&by, (&tlsContext{}).settle(), "b")
	failing := newSecurity(&by, (&tlsContext{failure: "x"}).settle(), "a")
	var plain *security
	if a.key() != same.key() || a.key() == other.key() || a.key() == plain.key() || a.key() == failing.key() || plain.key() != newSecurity(&by, nil, "a").key() {
		t.Error("keys do not tell contexts apart")
	}
}

// TestAnotherKeyIsAnotherContext: a certificate in the configuration whose key was
// wrong, and is put right, gets connections of its own; the text has no key.
func TestAnotherKeyIsAnotherContext(t *testing.T) {
	with := func(key string) *tlsContext {
		raw := rawUpstream(rawProto{}.msg(2, rawProto{}.msg(1, rawProto{}.text(3, "certificate")).msg(2, rawProto{}.text(3, key))))
		c, err := new(decoding).transportSocket(rawProto{}.packed(3, typeUpstreamTLS, raw), typeUpstreamTLS, "transport_socket")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	wrong, right := with("wrong key"), with("right key")
	if wrong.text == right.text || right.text != with("right key").text || strings.Contains(right.text, "right key") {
		t.Errorf("%s\n%s", wrong.text, right.text)
	}
}

func TestProtocolsThatAreOffered(t *testing.T) {
	for _, test := range []struct {
		context tlsContext
		want    []string
	}{
		{tlsContext{}, []string{"h2"}},
		{tlsContext{identity: secretRef{kind: secretWorkload}}, []string{"istio", "h2"}},
		{tlsContext{identity: secretRef{kind: secretWorkload}, alpn: []string{"istio-peer-exchange", "istio"}}, []string{"istio", "h2"}},
		{tlsContext{alpn: []string{"http/1.1", "h2"}}, []string{"h2"}},
	} {
		if got := test.context.offers(); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: offers %q, want %q", test.context.alpn, got, test.want)
		}
	}
}
