package proxyless

import (
	"context"
	"encoding/base64"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
)

// sessionWay leads to two clusters: "a" with the endpoints 0 to 3, of which 3 is
// draining, and "b" with the endpoint 50. All are ready. The first is the one
// drawn.
func sessionWay(p *sessionPolicy, override healthSet) *way {
	a := testAssignment(ones(3))
	a.others = []otherEndpoint{{endpoint: endpoint{addr: testAddr(3), weight: 1, health: healthDraining}}}
	a.localities[0].others = 1
	b := testAssignment(ones(1))
	b.endpoints[0].addr = testAddr(50)
	set := func(name string, a *assignment) *endpointSet {
		s := newEndpointSet(newConnTable(nil, &counters{}), &cluster{name: name, override: override}, a, nil, nil)
		connectAll(s)
		return s
	}
	route := &plannedRoute{policy: &routePolicy{session: p}, clusters: []plannedCluster{{name: "a", set: set("a", a)}, {name: "b", set: set("b", b)}}}
	return &way{plan: &plan{}, route: route, cluster: &route.clusters[0]}
}

func cookieCall(name, value string) context.Context {
	return metadata.NewOutgoingContext(context.Background(), metadata.Pairs("cookie", "x=y; "+name+"="+value))
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestACallReturnsToTheEndpointOfItsSession(t *testing.T) {
	w := sessionWay(&sessionPolicy{cookie: "sid", ttl: time.Hour}, 0)
	g := w.guide(context.Background(), "/s/M", nil)
	first, _ := w.pick(g.choice)
	told := g.told(&first)
	value := cookieOf(told.Get("set-cookie"), "sid") // what comes before the first semicolon
	if value == "" || len(told) != 1 {
		t.Fatalf("the caller is told %v", told)
	}
	for range 10 {
		g := w.guide(cookieCall("sid", value), "/s/M", nil)
		a, _ := w.pick(g.choice)
		if a.cell != first.cell {
			t.Fatalf("the session of %s went to %s", first.cell.key.addr, a.cell.key.addr)
		}
		if told := g.told(&a); told != nil {
			t.Fatalf("the caller is told %v once more", told)
		}
	}
}

func TestSessionsAreReadInEveryForm(t *testing.T) {
	cookie, header := &sessionPolicy{cookie: "sid"}, &sessionPolicy{header: "x-session"}
	_, message := (&sessionPolicy{cookie: "sid"}).name(testAddr(2), time.Now())
	_, long := (&sessionPolicy{cookie: "sid", ttl: time.Minute}).name(testAddr(2), time.Now())
	_, expired := (&sessionPolicy{cookie: "sid", ttl: time.Minute}).name(testAddr(2), time.Now().Add(-time.Hour))
	value := func(setCookie string) string { return cookieOf([]string{setCookie}, "sid") }
	for name, c := range map[string]struct {
		policy  *sessionPolicy
		ctx     context.Context
		want    netip.AddrPort // of the session; zero is none
		cluster string
	}{
		"no cookie":                {policy: cookie, ctx: context.Background()},
		"Envoy's message":          {policy: cookie, ctx: cookieCall("sid", value(message)), want: testAddr(2), cluster: "a"},
		"with an expiry":           {policy: cookie, ctx: cookieCall("sid", value(long)), want: testAddr(2), cluster: "a"},
		"expired":                  {policy: cookie, ctx: cookieCall("sid", value(expired))},
		"an address":               {policy: cookie, ctx: cookieCall("sid", encoded("127.1.0.2:1")), want: testAddr(2), cluster: "a"},
		"gRPC's, with the cluster": {policy: cookie, ctx: cookieCall("sid", encoded("127.1.0.50:1;b")), want: testAddr(50), cluster: "b"},
		"another of the route":     {policy: cookie, ctx: cookieCall("sid", encoded("127.1.0.50:1")), want: testAddr(50), cluster: "b"},
		"a cluster not there":      {policy: cookie, ctx: cookieCall("sid", encoded("127.1.0.2:1;c"))},
		"no base64":                {policy: cookie, ctx: cookieCall("sid", "%%%")},
		"no address":               {policy: cookie, ctx: cookieCall("sid", encoded("somewhere"))},
		"another cookie":           {policy: cookie, ctx: cookieCall("sad", value(message))},
		"a header": {policy: header, ctx: metadata.NewOutgoingContext(context.Background(), metadata.Pairs("x-session", encoded("127.1.0.1:1"))),
			want: testAddr(1), cluster: "a"},
	} {
		w := sessionWay(c.policy, 0)
		g := w.guide(c.ctx, "/s/M", nil)
		if g.asked != c.want {
			t.Errorf("%s: the session names %v, want %v", name, g.asked, c.want)
			continue
		}
		if a, _ := w.pick(g.choice); c.want.IsValid() && (a.cell.key.addr != c.want || w.cluster.name != c.cluster) {
			t.Errorf("%s: went to %s of %s", name, a.cell.key.addr, w.cluster.name)
		}
	}
}

func TestAHeaderSessionTellsItsEndpoint(t *testing.T) {
	w := sessionWay(&sessionPolicy{header: "x-session"}, 0)
	g := w.guide(context.Background(), "/s/M", nil)
	a, _ := w.pick(g.choice)
	if got, want := g.told(&a).Get("x-session"), encoded(a.cell.key.addr.String()); len(got) != 1 || got[0] != want {
		t.Errorf("told %v, want %s", got, want)
	}
}

func TestASessionReachesADrainingEndpointWhereTheMeshAllows(t *testing.T) {
	ctx := cookieCall("sid", encoded("127.1.0.3:1"))
	for _, c := range []struct {
		override healthSet
		reached  bool
	}{{0, false}, {1<<healthUnknown | 1<<healthHealthy, false}, {1<<healthUnknown | 1<<healthHealthy | 1<<healthDraining, true}} {
		w := sessionWay(&sessionPolicy{cookie: "sid"}, c.override)
		for range 4 {
			a, _ := w.pick(w.guide(ctx, "/s/M", nil).choice)
			if reached := a.cell.key.addr == testAddr(3); reached != c.reached {
				t.Errorf("statuses %b: went to %s", c.override, a.cell.key.addr)
			}
			if a, _ := w.pick(choice{}); a.cell.key.addr == testAddr(3) {
				t.Errorf("statuses %b: a call without a session went to an endpoint that drains", c.override)
			}
		}
	}
}

func TestASessionWhoseEndpointIsGone(t *testing.T) {
	for _, strict := range []bool{false, true} {
		for name, c := range map[string]struct {
			address string
			state   cellState
			waits   bool
		}{
			"not listed":     {address: "127.9.9.9:1", state: cellReady},
			"refusing":       {address: "127.1.0.1:1", state: cellFailed},
			"now connecting": {address: "127.1.0.1:1", state: cellConnecting, waits: true},
		} {
			w := sessionWay(&sessionPolicy{cookie: "sid", strict: strict}, 0)
			w.cluster.set.be(c.state, 1)
			a, blocked := w.pick(w.guide(cookieCall("sid", encoded(c.address)), "/s/M", nil).choice)
			if served := a.conn != nil; served == (strict || c.waits) {
				t.Errorf("%s, strict %v: served %v", name, strict, served)
			}
			if a.conn == nil && (blocked.hopeful != c.waits || (blocked.err != nil) == c.waits) {
				t.Errorf("%s, strict %v: hopeful %v, error %v", name, strict, blocked.hopeful, blocked.err)
			}
		}
	}
}

func TestACookiesPath(t *testing.T) {
	for path, calls := range map[string]map[string]bool{
		"":      {"/s/M": true},
		"/":     {"/s/M": true},
		"/s":    {"/s/M": true, "/s": true, "/service/M": false},
		"/s/":   {"/s/M": true, "/t/M": false},
		"/s/M":  {"/s/M": true, "/s/Me": false},
		"/long": {"/s": false},
	} {
		for call, want := range calls {
			if got := (&sessionPolicy{cookie: "c", path: path}).covers(call); got != want {
				t.Errorf("a cookie for %q covers %q: %v", path, call, got)
			}
		}
	}
}

func TestAGeneratedCookieIsToldOnceAndKeepsTheEndpoint(t *testing.T) {
	w := sessionWay(nil, 0)
	w.plan.caller = caller{id: 7, ip: "10.0.0.1"}
	w.route.policy = &routePolicy{hash: []hashPolicy{{kind: hashCookie, name: "lb", path: "/", ttl: time.Minute, hasTTL: true}}}
	g := w.guide(context.Background(), "/s/M", nil)
	a, _ := w.pick(g.choice)
	cookie := g.told(&a).Get("set-cookie")
	if len(cookie) != 1 {
		t.Fatalf("told %v", cookie)
	}
	again := w.guide(cookieCall("lb", cookieOf(cookie, "lb")), "/s/M", nil)
	if again.choice.hash != g.choice.hash || !again.choice.hashed || again.told(&a) != nil {
		t.Errorf("the cookie leads to %v, the first call went by %v", again, g)
	}
}

func TestGuidanceOfARouteThatAsksForNothing(t *testing.T) {
	skipUnderRace(t)
	w := sessionWay(nil, 0)
	if allocs := leastAllocs(100, func() { w.guide(context.Background(), "/s/M", nil) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
