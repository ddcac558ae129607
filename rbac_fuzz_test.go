package proxyless

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// FuzzRules decodes filters and has them judge a call. Whatever they are: no
// panic, no time lost; and what a policy cannot tell is let through by no rule
// that allows, and by none that denies.
func FuzzRules(f *testing.F) {
	claim := func(value rawProto) rawProto {
		return rawProto{}.msg(7, rawProto{}.text(1, claimsOfTokens).msg(2, rawProto{}.text(1, "payload")).msg(3, value))
	}
	pattern := rawProto{}.msg(3, rawText(5, "https://.+"))
	for _, policy := range []rawProto{rawAccess(rawAny, rawAny), rawAccess(rawPath("/a/b"), rawPeer(5, ".*/ns/shop/.*")), {},
		rawAccess(rawSetOf(1, rawSetOf(2, rawPath("/shop.Orders/Get")), rawProto{}.msg(8, rawAny)), claim(rawProto{}.num(5, 1))),
		rawAccess(rawAny, claim(pattern)), rawAccess(rawAny, claim(rawProto{}.msg(2, rawDouble(2, 3)))),
		rawAccess(rawAny, claim(rawProto{}.msg(7, rawProto{}.msg(1, rawProto{}.msg(6, rawProto{}.msg(1, pattern)), pattern))))} {
		for action := range uint64(4) {
			f.Add([]byte(rawProto{}.msg(1, rawRules(action, map[string]rawProto{"p": policy}))), false)
		}
	}
	for _, raw := range istiodPolicies(f) {
		response, err := decodeADSResponse(raw)
		if err != nil {
			f.Fatal(err)
		}
		for _, r := range response.resources {
			c := walk(r.value)
			for c.next() {
				if c.num == 3 {
					addFilters(f, c.val)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, connection bool) {
		start := time.Now()
		filter, failure, err := new(decoding).accessFilter(&listenerFilter{name: "f", config: extension{name: typeRBAC, value: b}}, ruleReader{connection: connection, tokens: true})
		if err != nil && filter != nil && failure != "" {
			t.Fatal("an error and a filter")
		}
		if err != nil || failure != "" || filter == nil {
			return
		}
		for _, call := range []*callFacts{rulesCall(), rulesCall(func(c *callFacts) { c.peer, c.claims = &peerFacts{}, nil }), rulesCall(func(c *callFacts) { c.headers.path = "/%" })} {
			r := filter.check(call)
			if r.code != codes.OK && r.code != codes.PermissionDenied || r.code != codes.OK && (r.reason == "" || r.action == "") {
				t.Fatalf("%+v", r)
			}
			if filter.rules == nil {
				continue
			}
			most := no
			for i := range filter.rules.policies {
				most = max(most, filter.rules.policies[i].judge(call))
			}
			if at, v := filter.rules.decide(call); v != most && !(filter.rules.action == accessDeny && v == cannotTell) || at < 0 && most != no {
				t.Fatalf("%d of policy %d, the most is %d", v, at, most)
			}
			if filter.custom == nil && (r.code == codes.OK) != (filter.rules.action == accessLog || filter.rules.action == accessAllow && most == yes || filter.rules.action == accessDeny && most == no) {
				t.Fatalf("action %v, %d: %+v", filter.rules.action, most, r)
			}
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Fatalf("%v for %d bytes", took, len(b))
		}
	})
}

// addFilters adds the RBAC filters of a chain to the corpus.
func addFilters(f *testing.F, chain []byte) {
	p, err := new(decoding).chainParts(chain)
	if err != nil {
		f.Fatal(err)
	}
	filters := p.filters
	if p.managers == 1 {
		m, err := new(decoding).connectionManager(p.manager)
		if err != nil {
			f.Fatal(err)
		}
		filters = append(filters, m.filters...)
	}
	for _, filter := range filters {
		if filter.config.name == typeRBAC || filter.config.name == typeNetworkRBAC {
			f.Add(filter.config.value, filter.config.name == typeNetworkRBAC)
		}
	}
}
