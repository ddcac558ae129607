package proxyless

import (
	"context"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

// skipUnderRace skips where allocations mean nothing: the race detector makes
// sync.Pool forget at random.
func skipUnderRace(t *testing.T) {
	t.Helper()
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			t.Skip("built with -race")
		}
	}
}

// leastAllocs is what one run of f allocates when nothing else runs: the least
// of several rounds, since background work only adds.
func leastAllocs(runs int, f func()) float64 {
	least := math.Inf(1)
	for range 5 {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}

// mostRounds is how often two ways are measured in turn until neither was
// disturbed: on a busy machine calls wait for each other, and allocate for it.
const mostRounds = 40

// extraAllocs is how many more allocations one run of with makes than one of
// without, where want are expected: the median of rounds in which they take
// turns. What a whole call allocates varies with how its frames meet, so that
// neither the least nor whole numbers of each would tell a difference of one.
func extraAllocs(want float64, without, with func()) float64 {
	var rounds []float64
	for {
		rounds = append(rounds, meanAllocs(with)-meanAllocs(without))
		slices.Sort(rounds)
		extra := math.Round(rounds[len(rounds)/2])
		if n := len(rounds); n >= 5 && extra <= want || n == mostRounds {
			return extra
		}
	}
}

// meanAllocs is [testing.AllocsPerRun] that does not round down.
func meanAllocs(f func()) float64 {
	const runs = 500
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / runs
}

func TestPickAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	for name, weight := range map[string]func(int) uint32{
		"one weight": func(int) uint32 { return 1 },
		"weighted":   func(i int) uint32 { return uint32(1 + i%4) },
	} {
		for _, n := range []int{1, 10, 10_000} {
			s := readySet(n, weight)
			if allocs := leastAllocs(1000, func() { picked.Store(s.pickOne()) }); allocs != 0 {
				t.Errorf("%s, %d endpoints: %v allocations for each pick", name, n, allocs)
			}
		}
	}
}

// TestProtectionAllocatesNothing goes from the plan to a connection and back
// with outlier detection and limits in force.
func TestProtectionAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	m := newHandFed()
	m.feed(fedService(3))
	for name, change := range protections {
		connectAll(m.recluster(change))
		var failed bool
		allocs := leastAllocs(1000, func() { failed = failed || !m.attemptOnce() })
		if failed || allocs != 0 {
			t.Errorf("%s: failed %v, %v allocations", name, failed, allocs)
		}
	}
}

func TestRouteAllocatesForHeadersOnly(t *testing.T) {
	skipUnderRace(t)
	m := newHandFed()
	m.feed(fedService(1))
	ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs("user", "jason", "colour", "blue"))
	// gRPC hands out copies of a call's metadata: one for each header that
	// routes look at and that the call has.
	headers := map[string]float64{"routes=1/header": 1, "routes=100/header": 2}
	for _, c := range routeCases {
		m.feed(fedRoutes(c.routes...))
		var r *plannedRoute
		allocs := leastAllocs(1000, func() { r = loadAndRoute(ctx, m.inv, c.method) })
		if r == nil || r.name != "last" {
			t.Errorf("%s: found %v", c.name, r)
		}
		if allocs > headers[c.name] {
			t.Errorf("%s: %v allocations, want at most %v", c.name, allocs, headers[c.name])
		}
	}
}

func TestRouteByOwnHeadersAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	m := newHandFed()
	m.feed(fedService(1))
	for name, match := range map[string][]meshtest.HeaderMatch{
		"Triple's own":     exactly("tri-service-version", "1.0.0"),
		"authority":        exactly(":authority", fedName),
		"absent":           {{Name: "nobody-sends-this", Kind: meshtest.HeaderAbsent}},
		"present, missing": {{Name: "nobody-sends-this", Kind: meshtest.HeaderPresent, Invert: true}},
	} {
		m.feed(fedRoutes(routeList(1, func(r *meshtest.Route, _ int) { r.Headers = match })...))
		var r *plannedRoute
		allocs := leastAllocs(1000, func() { r = loadAndRoute(t.Context(), m.inv, wireMethod) })
		if r == nil || allocs != 0 {
			t.Errorf("%s: found %v with %v allocations", name, r, allocs)
		}
	}
}

// TestChoiceAllocatesNothing goes from the plan to the connection, over two
// weighted clusters, and back.
func TestChoiceAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	m := newHandFed()
	m.feed(fedService(3))
	m.feed(fedRoutes(routeList(1, func(r *meshtest.Route, _ int) {
		r.Clusters = []meshtest.WeightedCluster{{Name: fedCluster, Weight: 1}, {Name: fedCluster, Weight: 3}}
	})...))
	connectAll(m.inv.plan.Load().sets[0])
	var failed bool
	allocs := leastAllocs(1000, func() {
		w, _ := m.inv.plan.Load().find(context.Background(), wireMethod)
		a, _ := w.pick(choice{})
		if failed = failed || a.conn == nil; !failed {
			a.cell.leave()
		}
	})
	if failed || allocs != 0 {
		t.Errorf("failed %v, %v allocations", failed, allocs)
	}
}

// TestInvokeAllocatesLittleAboveClientConn holds a whole unary call, both ends
// included, to two allocations above a ClientConn that was told the headers
// beforehand: the context that carries them is made for each call.
func TestInvokeAllocatesLittleAboveClientConn(t *testing.T) {
	skipUnderRace(t)
	w := newWire(t)
	call := map[string]func(){}
	for _, c := range w.callers() {
		in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
		call[c.name] = func() {
			if err := c.conn.Invoke(c.ctx, wireMethod, in, out); err != nil {
				t.Error(err)
			}
		}
	}
	if above := extraAllocs(2, call["bare-ClientConn"], call["proxyless"]); above > 2 {
		t.Errorf("%v allocations above a ClientConn, want at most 2", above)
	}
}

// TestAPolicyAllocatesLittleWhileNothingFails holds calls under Istio's default
// retry policy, which nearly all are, to one allocation above calls without
// one: gRPC's copy of the trailers, in which a provider may ask for patience.
func TestAPolicyAllocatesLittleWhileNothingFails(t *testing.T) {
	skipUnderRace(t)
	w := newWire(t)
	in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
	route := &w.inv.plan.Load().routes.routes[0]
	under := func(p *routePolicy) func() {
		return func() {
			route.policy = p
			if err := w.inv.Invoke(context.Background(), wireMethod, in, out); err != nil {
				t.Error(err)
			}
		}
	}
	if above := extraAllocs(1, under(nil), under(&routePolicy{retry: istioRetry()})); above > 1 {
		t.Errorf("%v allocations above calls without a policy, want at most 1", above)
	}
}

func TestUpdateAllocatesLittle(t *testing.T) {
	skipUnderRace(t)
	const n = 10_000
	m := newHandFed()
	m.feed(fedService(n))
	updates := [][]byte{fedEndpoints(n, n/2), fedEndpoints(n, 0)}
	i := 0
	if allocs := leastAllocs(10, func() { m.feed(updates[i%2 : i%2+1]); i++ }); allocs > 100 {
		t.Errorf("%v allocations for an update of one endpoint among %d, want at most 100", allocs, n)
	}
}

// TestWatchedClusterIsSmall holds what a cluster of 10 000 endpoints keeps on
// the heap before any call to 2 MiB.
func TestWatchedClusterIsSmall(t *testing.T) {
	skipUnderRace(t)
	const n, clusters, most = 10_000, 4, 2 << 20
	held := make([]*handFed, clusters)
	before := heapInUse()
	for i := range held {
		held[i] = newHandFed()
		held[i].feed(fedService(n))
	}
	after := heapInUse()
	runtime.KeepAlive(held)
	if each := (int64(after) - int64(before)) / clusters; each > most {
		t.Errorf("%d bytes for each cluster of %d endpoints, want at most %d", each, n, most)
	}
}
