package proxyless

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/proxyless/proxyless/meshtest"
)

// explainedBy makes the explanation of a call by the plan in force.
func (f *handFed) explained(method string, md metadata.MD) *Explanation {
	return f.inv.explain(f.inv.plan.Load(), f.mesh.snapshot.Load(), method, md)
}

func fedWith(routes ...meshtest.Route) *handFed {
	f := newHandFed()
	f.feed(fedService(3))
	f.feed(fedRoutes(routes...))
	return f
}

var fedTo = []meshtest.WeightedCluster{{Name: fedCluster}}

// TestExplainNamesTheFirstMatcherThatFailed, with the value seen.
func TestExplainNamesTheFirstMatcherThatFailed(t *testing.T) {
	half := uint32(500_000)
	f := fedWith(
		meshtest.Route{Name: "path", Path: "/greet.Greeting/Other", Clusters: fedTo},
		meshtest.Route{Name: "case", Prefix: "/GREET", Clusters: fedTo},
		meshtest.Route{Name: "regex", Regex: "/greet\\.[a-z]+", Clusters: fedTo},
		meshtest.Route{Name: "separated", SeparatedPrefix: "/greet", Clusters: fedTo},
		meshtest.Route{Name: "missing", Headers: []meshtest.HeaderMatch{{Name: "tier", Value: "gold"}}, Clusters: fedTo},
		meshtest.Route{Name: "value", Headers: []meshtest.HeaderMatch{{Name: "user", Value: "ann"}}, Clusters: fedTo},
		meshtest.Route{Name: "version", Headers: []meshtest.HeaderMatch{{Name: "tri-service-version", Value: "2.0.0"}}, Clusters: fedTo},
		meshtest.Route{Name: "half", Fraction: &half, Clusters: fedTo},
		meshtest.Route{Name: "rest", Clusters: fedTo},
		meshtest.Route{Name: "late", Clusters: fedTo},
	)
	x := f.explained("/greet.Greeting/SayHello", metadata.Pairs("user", "jason"))
	want := []struct {
		name   string
		share  float64
		reason string
	}{
		{"path", 0, `path "/greet.Greeting/Other" does not match /greet.Greeting/SayHello`},
		{"case", 0, `path prefix "/GREET" does not match /greet.Greeting/SayHello`},
		{"regex", 0, `path regex "/greet\\.[a-z]+" does not match /greet.Greeting/SayHello`},
		{"separated", 0, `path separated prefix "/greet" does not match /greet.Greeting/SayHello`},
		{"missing", 0, `header tier is "gold": the call has none`},
		{"value", 0, `header user is "ann": the call has "jason"`},
		{"version", 0, `header tri-service-version is "2.0.0": the call has "1.0.0"`},
		{"half", 0.5, ""},
		{"rest", 0.5, ""},
		{"late", 0, "comes after route rest"},
	}
	if len(x.Routes) != len(want) {
		t.Fatalf("%d routes", len(x.Routes))
	}
	for i, w := range want {
		if got := x.Routes[i]; got.Name != w.name || got.Share != w.share || got.Reason != w.reason {
			t.Errorf("%s: %v %q, want %v %q", got.Name, got.Share, got.Reason, w.share, w.reason)
		}
	}
}

// TestExplainTakesTheRoutesThatCallsTake holds explanations to what routing
// does, for random routes and calls.
func TestExplainTakesTheRoutesThatCallsTake(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 11))
	decided, unmatched, split := 0, 0, 0
	for range 300 {
		f := fedWith(randomRoutes(r)...)
		p := f.inv.plan.Load()
		for range 10 {
			method, md := randomCall(r)
			x := f.explained(method, md)
			shares := map[string]float64{}
			total := 0.0
			for _, row := range x.Routes {
				shares[row.Name] = row.Share
				total += row.Share
				if (row.Share > 0) == (row.Reason != "") {
					t.Fatalf("%+v", row)
				}
			}
			ctx := metadata.NewOutgoingContext(t.Context(), md)
			for range 5 {
				taken := p.route(ctx, method)
				switch {
				case taken == nil && total > 1-1e-9:
					t.Fatalf("no route takes %s %v, and the explanation is\n%s", method, md, x)
				case taken == nil:
					unmatched++
				case shares[taken.name] == 0:
					t.Fatalf("%s takes %s %v, and the explanation is\n%s", taken.name, method, md, x)
				case shares[taken.name] == 1:
					decided++
				default:
					split++
				}
			}
			if w, blocked := p.find(ctx, method); w.route == nil && total == 0 && x.Error != blocked.err.Error() {
				t.Fatalf("the call fails with %q, the explanation with %q", blocked.err, x.Error)
			}
		}
	}
	if decided < 1000 || unmatched < 100 || split < 100 {
		t.Errorf("%d calls took the one route, %d none, %d one of several", decided, unmatched, split)
	}
}

func randomRoutes(r *rand.Rand) []meshtest.Route {
	routes := make([]meshtest.Route, 1+r.IntN(12))
	for i := range routes {
		o := meshtest.Route{Name: fmt.Sprint("r", i), Clusters: fedTo}
		switch r.IntN(6) {
		case 0:
			o.Path = randomPath(r)
		case 1:
			o.Prefix = randomPath(r)[:1+r.IntN(6)]
		case 2:
			o.Regex = "/[a-c]+\\.S/.*"
		case 3:
			o.SeparatedPrefix = "/" + string("abc"[r.IntN(3)]) + ".S"
		case 4:
			o.Prefix, o.IgnoreCase = "/A", true
		}
		for range r.IntN(3) {
			h := meshtest.HeaderMatch{Name: string("xy"[r.IntN(2)]), Value: string("12"[r.IntN(2)]), Invert: r.IntN(3) == 0}
			h.Kind = []meshtest.HeaderKind{meshtest.HeaderExact, meshtest.HeaderPresent, meshtest.HeaderPrefix}[r.IntN(3)]
			o.Headers = append(o.Headers, h)
		}
		if r.IntN(5) == 0 {
			part := uint32(r.IntN(5)) * 250_000
			o.Fraction = &part
		}
		routes[i] = o
	}
	return routes
}

func randomPath(r *rand.Rand) string {
	return fmt.Sprintf("/%c.S/%c", "abc"[r.IntN(3)], "mn"[r.IntN(2)])
}

func randomCall(r *rand.Rand) (string, metadata.MD) {
	md := metadata.MD{}
	for _, name := range []string{"x", "y"} {
		if r.IntN(2) == 0 {
			md.Set(name, string("12"[r.IntN(2)]))
		}
	}
	return randomPath(r), md
}

// TestExplainSaysWhichDomainWon and what the others have.
func TestExplainSaysWhichDomainWon(t *testing.T) {
	f := newHandFed()
	f.feed(fedService(1))
	host := func(name string, domains ...string) meshtest.VirtualHost {
		return meshtest.VirtualHost{Name: name, Domains: domains, Routes: []meshtest.Route{{Clusters: fedTo}}}
	}
	f.feed([][]byte{fedResponse(meshtest.RouteConfigurationType, meshtest.RouteConfiguration{Name: fedCluster, VirtualHosts: []meshtest.VirtualHost{
		host("any", "*"), host("other", "other", "other:50052"), host("echo", "echo:50052"),
	}}.Marshal())})
	x := f.explained("/a/b", nil)
	var got []string
	for _, v := range x.VirtualHosts {
		got = append(got, fmt.Sprintf("%v %s: %s", v.Taken, v.Name, v.Reason))
	}
	want := []string{"false any: echo matches better than its domains *", "false other: none of its domains matches: other, other:50052", "true echo: "}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if winner := f.inv.plan.Load().host; winner != "echo" {
		t.Errorf("calls go by %s", winner)
	}
}

func TestExplainSharesOfClustersAndPolicies(t *testing.T) {
	f := fedWith(meshtest.Route{Name: "split", Clusters: []meshtest.WeightedCluster{{Name: fedCluster, Weight: 90}, {Name: "gone", Weight: 10}}, Timeout: 3 * time.Second})
	f.feed([][]byte{fedResponse(meshtest.ClusterType, meshtest.Cluster{Name: fedCluster}.Marshal())})
	p := f.inv.plan.Load()
	if !p.complete() { // one of the clusters is still to come
		x := f.explained("/a/b", nil)
		if x.Error == "" || x.Error != f.inv.describe(p, obstacle{err: p.problem}).Error() {
			t.Errorf("%q", x.Error)
		}
	}
	f.mesh.ads.machine.tick(time.Now().Add(time.Hour)) // and never comes
	f.mesh.ads.settle()
	x := f.explained("/a/b", nil)
	if len(x.Routes) != 1 || len(x.Routes[0].Clusters) != 2 {
		t.Fatalf("%s", x)
	}
	row := x.Routes[0]
	if row.Clusters[0].Share != 0.9 || row.Clusters[1].Share != 0.1 || row.Clusters[0].Count != 3 {
		t.Errorf("%+v", row.Clusters)
	}
	if !strings.Contains(row.Clusters[1].Error, "knows nothing of that name") {
		t.Errorf("%q", row.Clusters[1].Error)
	}
	if !slices.Contains(row.Policies, "time limit 3s") {
		t.Errorf("%q", row.Policies)
	}
}

// explainSet explains the endpoints of a set.
func explainSet(s *endpointSet) ExplainedCluster {
	var row ExplainedCluster
	x := &explaining{plan: &plan{name: "echo:1", host: "echo"}, out: new(Explanation)}
	x.endpoints(s, &row)
	return row
}

func TestExplainEndpoints(t *testing.T) {
	s := readySet(4, func(int) uint32 { return 1 })
	s.slots[1].Load().ready.Store(nil)
	s.slots[1].Load().state.Store(uint32(cellConnecting))
	s.slots[2].Store(nil)
	s.slots[3].Load().ready.Store(nil)
	s.slots[3].Load().state.Store(uint32(cellFailed))
	row := explainSet(s)
	want := []struct {
		pickable           bool
		connection, reason string
	}{{true, "ready", ""}, {false, "connecting", "not ready"}, {false, "not connected", "a call whose turn it is will connect it"}, {false, "failed", "it cannot be reached"}}
	for i, w := range want {
		if e := row.Endpoints[i]; e.Pickable != w.pickable || e.Connection != w.connection || e.Reason != w.reason {
			t.Errorf("%+v, want %+v", e, w)
		}
	}
	if row.Error != "" || s.slots[2].Load() != nil {
		t.Errorf("%q; or an endpoint was dialled", row.Error)
	}
}

func TestExplainSaysWhatACallWouldSayWhereNothingIsReady(t *testing.T) {
	s := readySet(2, func(int) uint32 { return 1 })
	for i := range s.slots {
		s.slots[i].Load().ready.Store(nil)
		s.slots[i].Load().state.Store(uint32(cellFailed))
	}
	want := s.unready(&plan{name: "echo:1", host: "echo"}).Error()
	if row := explainSet(s); row.Error != want {
		t.Errorf("%q, want %q", row.Error, want)
	}
}

// TestExplainPicksWhatCallsPick holds the endpoints that are called pickable to
// those that are picked, over random states of endpoints in two priorities.
func TestExplainPicksWhatCallsPick(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	for round := range 300 {
		a := &assignment{cluster: "c"}
		n := 1 + r.IntN(5)
		for priority := range 2 {
			a.localities = append(a.localities, locality{priority: uint32(priority), first: priority * n, count: n})
		}
		a.endpoints = slices.Clone(readySet(2*n, func(int) uint32 { return 1 }).endpoints)
		s := newEndpointSet(newConnTable(nil, new(counters)), &cluster{name: "c"}, a, nil, nil)
		connectAll(s)
		for i := range s.slots {
			if r.IntN(2) == 0 {
				c := s.slots[i].Load()
				c.ready.Store(nil)
				c.state.Store(uint32([]cellState{cellConnecting, cellFailed}[r.IntN(2)]))
			}
		}
		pickable := map[string]bool{}
		for _, e := range explainSet(s).Endpoints {
			pickable[e.Address] = e.Pickable
		}
		picked := map[string]bool{}
		for range 50 * n {
			if _, c := s.pick(choice{}); c != nil {
				picked[c.key.addr.String()] = true
			}
		}
		for addr, yes := range pickable {
			if picked[addr] != yes {
				t.Fatalf("round %d: %s is picked: %v, explained: %v\n%+v", round, addr, picked[addr], yes, explainSet(s).Endpoints)
			}
		}
	}
}

func TestExplainAsText(t *testing.T) {
	f := fedWith(meshtest.Route{Name: "blue", Headers: exactly("colour", "blue"), Clusters: fedTo}, meshtest.Route{Name: "rest", Clusters: fedTo, Timeout: time.Second})
	got := f.explained("/greet.Greeting/SayHello", nil).String()
	for _, want := range []string{
		"> call /greet.Greeting/SayHello of echo by reference greet.Greeting:1.0.0\n",
		"\n  > listener echo:50052\n", "\n  > authority echo:50052\n", "\n  > virtual host echo.demo.svc.cluster.local:50052\n",
		"\n  - route blue (any path, header colour is \"blue\"): header colour is \"blue\": the call has none\n",
		"\n  > route rest (any path)\n    > time limit 1s\n", "\n    > cluster " + fedCluster + ", round robin\n",
		"\n      - endpoint 10.0.0.0:50052 in region-1/zone-0, priority 0, weight 1, healthy, not connected, 0 calls in flight: a call whose turn it is will connect it\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestQoSExplain(t *testing.T) {
	q, _ := quietQoS(t, QoS{})
	f := fedWith(meshtest.Route{Name: "blue", Headers: exactly("colour", "blue"), Clusters: fedTo}, meshtest.Route{Name: "rest", Clusters: fedTo})
	q.facts.explain = func(_ context.Context, service, method string, md metadata.MD) (*Explanation, error) {
		if service != "echo" || method != "greet.Greeting/SayHello" {
			return nil, fmt.Errorf("asked for %s %s", service, method)
		}
		return f.explained("/"+method, md), nil
	}
	for target, want := range map[string]string{
		"/explain?service=echo&method=greet.Greeting/SayHello":                                         "> route rest",
		"/explain?header=Colour:%20blue&method=greet.Greeting%2FSayHello&service=echo":                 "> route blue",
		"/explain?service=echo&method=greet.Greeting/SayHello&header=colour:blue&format=json&header=a": `"share": 1`,
		"/explain?service=echo":       "which call?",
		"/explain?service=a&method=b": "asked for a b",
	} {
		if code, text := (askQoS{target: target}).of(q.handler()); !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", target, code, text)
		}
	}
	if code, _ := (askQoS{target: "/explain?service=a&method=b", from: "10.0.0.1:1"}).of(q.handler()); code != 403 {
		t.Error(code)
	}
}

// TestExplainNamesEachPolicyInForce: of the route, and of the cluster.
func TestExplainNamesEachPolicyInForce(t *testing.T) {
	share := uint32(250_000)
	f := fedWith(meshtest.Route{
		Name: "all", Clusters: fedTo, Timeout: 2 * time.Second,
		Retry:          &meshtest.RetryPolicy{On: "unavailable,connect-failure", Retries: 3, PerTryTimeout: time.Second, PreviousHosts: true},
		Fault:          &meshtest.Fault{Delay: 5 * time.Second, DelayShare: 100_000, AbortGRPC: codes.Aborted, AbortShare: 10_000},
		Mirrors:        []meshtest.Mirror{{Cluster: fedCluster, Share: &share}},
		Hash:           []meshtest.HashPolicy{{Header: "user"}},
		RequestHeaders: meshtest.HeaderMutation{Set: []meshtest.Header{{Name: "x-team", Value: "blue"}}, Remove: []string{"x-debug"}},
		HostRewrite:    "elsewhere",
	})
	x := f.explained("/a/b", nil)
	if len(x.Routes) != 1 {
		t.Fatalf("%s", x)
	}
	got := strings.Join(x.Routes[0].Policies, "\n")
	for _, want := range []string{
		"time limit 2s", "retry up to 3 times on connect-failure, Unavailable, each try within 1s, not where it was tried",
		"fault: 10 % of the calls are delayed by 5s", "fault: 1 % of the calls fail with Aborted", "mirror 25 % to " + fedCluster,
		"hash by header user", `request headers: without x-debug, set x-team="blue"`, "authority becomes elsewhere",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	c := cluster{limits: &breakers{connections: 5, pending: noLimit, requests: 7, hasBudget: true, budget: 0.2}, panic: 30,
		outlier: &outlierDetection{interval: time.Second, maxEjected: 10, baseTime: time.Minute}, conn: connSettings{connectTimeout: time.Second}}
	got = strings.Join(c.words(&balancing{subset: 4}), "\n")
	want := "at most 5 connections, 7 calls, retries for 20 % of the calls\noutlier detection every 1s, ejecting at most 10 % for 1m0s\npanic below 30 % healthy\n4 of the endpoints of each priority\nconnect timeout 1s"
	if got != want {
		t.Errorf("%s", got)
	}
}

func TestPercent(t *testing.T) {
	for share, want := range map[float64]string{0: "0 %", 1: "100 %", 0.5: "50 %", 0.125: "12.5 %", 1.0 / 3: "33.33 %", 0.1: "10 %"} {
		if got := percent(share); got != want {
			t.Errorf("%v: %s", share, got)
		}
	}
}

func TestAnExplanationDisturbsNobody(t *testing.T) {
	f := newHandFed()
	f.mesh.life.setReferences(f.mesh.references)
	f.feed(fedService(1))
	if ok, why := f.mesh.life.ready(); !ok {
		t.Fatal("not ready before: ", why)
	}
	options := []ReferOption{ProvidedBy("nobody"), Port(1)}
	first, temporary, err := f.mesh.referenceTo("other.Service", options)
	if err != nil || !temporary {
		t.Fatal(temporary, err)
	}
	f.mesh.ads.commands()
	f.mesh.ads.settle()
	if ok, why := f.mesh.life.ready(); !ok {
		t.Error("a service that is only explained makes the process not ready: ", why)
	}
	if rows := f.mesh.references(); len(rows) != 1 {
		t.Errorf("listed as references: %v", rows)
	}
	second, temporary, err := f.mesh.referenceTo("other.Service", options)
	if err != nil || !temporary || second == first {
		t.Error("two explanations at once share a reference that the first to end closes")
	}
	for _, inv := range []*Invoker{first, second} {
		inv.Close()
	}
	f.mesh.ads.commands()
	f.mesh.ads.settle()
	if d := f.mesh.ads.machine; len(d.types[kindListener].wanted) != 1 {
		t.Errorf("still asked for: %v", d.types[kindListener].wanted)
	}
}
