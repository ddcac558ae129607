package proxyless

// This file is a part of package proxyless only in programs that are built with
// ../overlay.json, together with ../../handfed_test.go.

import (
	"context"

	"google.golang.org/grpc/metadata"

	"github.com/proxyless/proxyless/benchmarks/whitebox"
	"github.com/proxyless/proxyless/meshtest"
)

func init() {
	whitebox.Decode = func(typeURL string, value []byte) error {
		k, _ := kindOf(typeURL)
		_, err := decodeResource(k, value)
		return err
	}
	whitebox.NewWatcher = func(n int) whitebox.Watcher {
		w := &watcher{fed: newHandFed(), updates: [2][]byte{fedEndpoints(n, n/2), fedEndpoints(n, 0)}}
		w.fed.feed(fedService(n))
		return w
	}
	whitebox.Assignment = func(n int) (string, []byte) {
		r, err := decodeADSResponse(fedEndpoints(n, 0))
		if err != nil {
			panic(err)
		}
		return meshtest.ClusterLoadAssignmentType, r.resources[0].value
	}
	whitebox.Picks, whitebox.Routes = picks, routesOfCalls
	whitebox.Enter = func(services []string, responses [][]byte) (again func(response []byte)) {
		fed := newFedBy(ViewFull, services)
		fed.feed(responses)
		if p := fed.inv.plan.Load(); !p.complete() {
			panic(p.problem)
		}
		return func(response []byte) { fed.feed([][]byte{response}) }
	}
}

type watcher struct {
	fed     *handFed
	updates [2][]byte
	turn    int
}

func (w *watcher) Update() {
	before := w.fed.inv.plan.Load()
	w.fed.feed(w.updates[w.turn : w.turn+1])
	w.turn = 1 - w.turn
	if w.fed.inv.plan.Load() == before {
		panic("an update without a new plan")
	}
}

func (w *watcher) Connect() { connectAll(w.fed.inv.plan.Load().sets[0]) }

// Results go where the compiler cannot know that nobody looks.
var (
	pickedCell  *cell
	loadedPlan  *plan
	foundRoutes *plannedRoute
)

func picks(n int) (ours, ideal func(times int)) {
	s := readySet(n, func(int) uint32 { return 1 })
	counter := newCounterOverSlice(s)
	ours = func(times int) {
		var c *cell
		for range times {
			c = s.pickOne()
		}
		pickedCell = c
	}
	ideal = func(times int) {
		var c *cell
		for range times {
			c = counter.pick()
		}
		pickedCell = c
	}
	return ours, ideal
}

func routesOfCalls() (cases []whitebox.RouteCase, bareLoad func(times int)) {
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.Pairs("user", "jason", "colour", "blue"))
	var loaded *Invoker
	for _, c := range routeCases {
		m := newHandFed()
		m.feed(fedService(1))
		m.feed(fedRoutes(c.routes...))
		loaded = m.inv
		cases = append(cases, whitebox.RouteCase{Name: c.name, Run: func(times int) {
			var r *plannedRoute
			for range times {
				r = loadAndRoute(ctx, m.inv, c.method)
			}
			foundRoutes = r
		}})
	}
	return cases, func(times int) {
		var p *plan
		for range times {
			p = loaded.plan.Load()
		}
		loadedPlan = p
	}
}
