package proxyless

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
)

// manyPolicies are as istiod makes them: two paths and two principals each, the
// last of them those of rulesCall.
func manyPolicies(t testing.TB, action uint64, n int, principal func(i int) rawProto) *accessFilter {
	policies := map[string]rawProto{}
	for i := range n {
		path := fmt.Sprintf("/shop.Service%d/Get", i)
		if i == n-1 && action == actionAllow {
			path = "/shop.Orders/Get"
		}
		permission := rawSetOf(1, rawSetOf(2, rawPath(path+"All"), rawPath(path)))
		policies[fmt.Sprintf("ns[shop]-policy[p%03d]-rule[0]", i)] = rawAccess(permission, rawSetOf(1, rawSetOf(2, principal(i), principal(n-1))))
	}
	f, ignored := accessOf(t, rawRules(action, policies), callRules)
	if len(ignored) > 0 {
		t.Fatal(ignored)
	}
	return f
}

var principalKinds = map[string]func(i int) rawProto{
	"principals": func(i int) rawProto {
		return rawPeer(1, fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/%s", [...]string{"web", "app"}[min(i%3, 1)]))
	},
	"namespaces": func(i int) rawProto {
		return rawPeer(5, fmt.Sprintf(".*/ns/%s/.*", [...]string{"shop", "other"}[min(i%3, 1)]))
	},
}

// TestRulesAllocateNothing judges a call that a hundred policies are about.
func TestRulesAllocateNothing(t *testing.T) {
	skipUnderRace(t)
	call := rulesCall()
	for name, principal := range principalKinds {
		for _, action := range []uint64{actionAllow, actionDeny} {
			for _, n := range []int{1, 10, 100} {
				chain := filterChain{filters: []inboundFilter{{access: manyPolicies(t, action, n, principal)}}}
				if allocs := leastAllocs(200, func() {
					c := newCallFacts(call.peer, call.headers.md, call.headers.path)
					if r := chain.authorize(c); r.code != codes.OK {
						t.Fatalf("%+v", r)
					}
					c.release()
				}); allocs != 0 {
					t.Errorf("%s, action %d, %d policies: %v allocations for each call", name, action, n, allocs)
				}
			}
		}
	}
}

// BenchmarkRules is the cost of rules for one call: of ALLOW policies whose
// last one lets it through, and of DENY policies none of which is about it.
func BenchmarkRules(b *testing.B) {
	call := rulesCall()
	for _, action := range []uint64{actionAllow, actionDeny} {
		for _, name := range []string{"principals", "namespaces"} {
			for _, n := range []int{1, 10, 100} {
				b.Run(fmt.Sprintf("%v/%s/%d", accessAction(action), name, n), func(b *testing.B) {
					chain := filterChain{filters: []inboundFilter{{access: manyPolicies(b, action, n, principalKinds[name])}}}
					b.ReportAllocs()
					for b.Loop() {
						c := newCallFacts(call.peer, call.headers.md, call.headers.path)
						if r := chain.authorize(c); r.code != codes.OK {
							b.Fatalf("%+v", r)
						}
						c.release()
					}
				})
			}
		}
	}
}
