package proxyless

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

func TestQoSTellsWhoThisProcessIsInTheMesh(t *testing.T) {
	until := time.Date(2026, 11, 24, 4, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		state   IdentityState
		trouble string
		want    string
	}{
		"none":        {IdentityState{Source: "none"}, "Config.Identity.Disabled says so", "Identity: none; Config.Identity.Disabled says so"},
		"not yet":     {IdentityState{Source: "authority istiod:15012"}, "not yet", "Identity: none yet, nothing needed it; it would come from authority istiod:15012"},
		"in trouble":  {IdentityState{Source: "authority istiod:15012", Wanted: true}, "istiod is away", "Identity: none yet, from authority istiod:15012; istiod is away"},
		"one":         {IdentityState{Source: "authority istiod:15012", Wanted: true, Certificates: 1, ID: "spiffe://d/ns/n/sa/a", Expires: until, Renewal: until.Add(-time.Hour)}, "", "Identity: spiffe://d/ns/n/sa/a, from authority istiod:15012, until 2026-11-24T04:00:00Z, to be renewed 2026-11-24T03:00:00Z"},
		"one, ageing": {IdentityState{Source: "/etc/certs/cert.pem", Wanted: true, Certificates: 1, ID: "spiffe://d/ns/n/sa/a", Expires: until}, "no new one", "Identity: spiffe://d/ns/n/sa/a, from /etc/certs/cert.pem, until 2026-11-24T04:00:00Z; no new one"},
		"no id":       {IdentityState{Source: "/c.pem", Wanted: true, Certificates: 1, Expires: until}, "", "Identity: a certificate without a SPIFFE id, from /c.pem, until 2026-11-24T04:00:00Z"},
	} {
		if got := (&identityView{test.state, test.trouble}).String(); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, test.want)
		}
	}
}

func TestQoSTellsWhatAPortTakes(t *testing.T) {
	from := func(in meshtest.Inbound) *portPolicy {
		k, _ := kindOf(meshtest.ListenerType)
		got, err := decodeResource(k, in.Listener("10.0.0.1:50052").Marshal())
		if err != nil {
			t.Fatal(err)
		}
		return &portPolicy{rules: got.value.(*listener)}
	}
	deny := meshtest.AuthorizationPolicy{Namespace: "demo", Name: "d", Action: meshtest.AccessDeny, Rules: make([]meshtest.AccessRule, 2)}
	allow := meshtest.AuthorizationPolicy{Namespace: "demo", Name: "a", Rules: make([]meshtest.AccessRule, 1)}
	for name, test := range map[string]struct {
		policy *portPolicy
		want   string
	}{
		"unknown":  {nil, "nobody is let in before the mesh has said what may be"},
		"no word":  {noPolicy, "plain text, since the mesh says nothing of it"},
		"strict":   {from(meshtest.Inbound{TLS: true}), "mutual TLS only (STRICT)"},
		"disabled": {from(meshtest.Inbound{}), "plain text only (DISABLE)"},
		"rules": {from(meshtest.Inbound{TLS: true, Policies: []meshtest.AuthorizationPolicy{deny, allow}}),
			"mutual TLS only (STRICT); 1 ALLOW rule; 2 DENY rules"},
		"custom and dry run": {&portPolicy{rules: &listener{inbound: []filterChain{{filters: []inboundFilter{{access: &accessFilter{
			custom: &accessRules{action: accessDeny, policies: make([]accessPolicy, 2)}, shadow: &accessRules{policies: make([]accessPolicy, 1)}}}}}}}},
			"plain text only (DISABLE); 2 CUSTOM rules; 1 dry run ALLOW rule"},
		"refused": {from(meshtest.Inbound{Filters: []meshtest.HTTPFilter{{Name: "wasm", TypeURL: "type.googleapis.com/x.Wasm"}}}), "plain text only (DISABLE); calls are refused: "},
	} {
		s := newPortState("10.0.0.1:50052", test.policy)
		if got := s.String(); !strings.HasPrefix(got, "Port 10.0.0.1:50052 takes "+test.want) || name != "refused" && len(got) != len("Port 10.0.0.1:50052 takes "+test.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestLsNamesAFewOfThoseWhoSpeakPlainText(t *testing.T) {
	s := securityState{Identity: identityView{IdentityState: IdentityState{Source: "none"}}}
	for i := range byte(7) {
		s.PlainText = append(s.PlainText, PlainTextPeer{Address: netip.AddrFrom4([4]byte{10, 0, 0, i}), Calls: uint64(i), Connections: int(i) % 2, Last: time.Unix(0, 0)})
	}
	q, r := quietQoS(t, QoS{})
	r.security = s
	_, ls := askQoS{target: "/ls"}.of(q.handler())
	for _, want := range []string{
		"Plain text from 10.0.0.0: 0 calls, last seen 1970-01-01T00:00:00Z\n",
		"Plain text from 10.0.0.1: 1 call, 1 connection open\n", "and from 2 more: see /security\n",
	} {
		if !strings.Contains(ls, want) {
			t.Errorf("ls lacks %q:\n%s", want, ls)
		}
	}
	_, text := askQoS{target: "/security"}.of(q.handler())
	_, json := askQoS{target: "/security/json"}.of(q.handler())
	if !strings.Contains(text, "10.0.0.6") || !strings.Contains(json, `"Address": "10.0.0.6"`) || !strings.Contains(json, `"Trouble": ""`) {
		t.Errorf("%s\n%s", text, json)
	}
	if code, _ := (askQoS{target: "/security", from: qosStranger}).of(q.handler()); code != 403 {
		t.Errorf("a stranger is answered with %d", code)
	}
}
