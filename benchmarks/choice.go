package main

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/proxyless/proxyless/benchmarks/whitebox"
)

// choice is what a call does before it is sent: pick and route, beside what
// nothing can do faster.
func choice(r *report, share time.Duration) error {
	const times = 20_000 // a batch well below a scheduler's time slice
	var few, many contestant
	for _, n := range []int{1, 10, 1000, 10_000} {
		ours, ideal := whitebox.Picks(n)
		s := compete(share/12, timed(times, ours), timed(times, ideal))
		r.add(row{what: fmt.Sprintf("pick, %d endpoints", n), ours: nanoseconds(s[0].time), other: nanoseconds(s[1].time),
			compared: "time / atomic counter over a slice", estimate: ratio(s[0].time, s[1].time), budget: 2})
		p := compete(share/12, timed(times, everywhere(ours)), timed(times, everywhere(ideal)))
		r.add(row{what: fmt.Sprintf("pick, %d endpoints, all cores", n), ours: nanoseconds(p[0].time), other: nanoseconds(p[1].time),
			compared: "time / atomic counter over a slice", estimate: ratio(p[0].time, p[1].time), budget: 2})
		if few == nil {
			few = timed(times, ours)
		}
		many = timed(times, ours)
	}
	s := compete(share/12, many, few)
	r.add(row{what: "pick, 10 000 endpoints over 1", ours: nanoseconds(s[0].time), other: nanoseconds(s[1].time), compared: "time / time", estimate: ratio(s[0].time, s[1].time)})
	cases, load := whitebox.Routes()
	budgets := map[string]float64{"routes=1/default": 20, "routes=1/path": 20, "routes=1/header": 20, "routes=100/path": 200, "routes=100/prefix": 200, "routes=100/header": 200}
	for _, c := range cases {
		s := compete(share/12, timed(times/10, c.Run), timed(times, load))
		r.add(row{what: "route, " + c.Name, ours: nanoseconds(s[0].time), other: nanoseconds(s[1].time), compared: "time / bare atomic load",
			estimate: ratio(s[0].time, s[1].time), budget: budgets[c.Name]})
	}
	return nil
}

// everywhere does the work on all processors at once.
func everywhere(work func(times int)) func(times int) {
	return func(times int) {
		var wg sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			wg.Go(func() { work(times) })
		}
		wg.Wait()
	}
}

// configuration is the way of an assignment into the process. The budgets are
// for 10 000 endpoints.
func configuration(r *report, share time.Duration) error {
	for _, n := range []int{10, 1000, 10_000} {
		assignments(r, share/3, n)
	}
	return nil
}

func assignments(r *report, share time.Duration, n int) {
	budget := func(x float64) float64 {
		if n == 10_000 {
			return x
		}
		return 0
	}
	typeURL, value := whitebox.Assignment(n)
	ours := func(int) {
		if err := whitebox.Decode(typeURL, value); err != nil {
			panic(err)
		}
	}
	theirs := func(int) { decodeWithProtobuf(value) }
	times := max(1, 1000/n)
	s := compete(share/2, timed(times, repeatedly(ours)), timed(times, repeatedly(theirs)))
	mine, its := allocated(5, ours), allocated(5, theirs)
	r.add(row{what: fmt.Sprintf("decode a ClusterLoadAssignment, %d endpoints", n), ours: nanoseconds(s[0].time) + ", " + mine.String(), other: nanoseconds(s[1].time) + ", " + its.String(),
		compared: "protobuf + go-control-plane / proxyless", estimate: ratio(s[1].time, s[0].time), budget: budget(25), atLeast: true})
	exact := func(x float64) estimate { return estimate{x, x, x, 5} }
	r.add(row{what: "… allocations", compared: "count", estimate: exact(mine.objects), budget: budget(100)})
	r.add(row{what: "… memory allocated", compared: "MB", estimate: exact(mine.bytes / 1e6), budget: budget(1)})

	idle, connected := whitebox.NewWatcher(n), whitebox.NewWatcher(n)
	connected.Connect()
	u := compete(share/2, timed(times, repeatedly(func(int) { idle.Update() })), timed(times, repeatedly(theirs)), timed(times, repeatedly(func(int) { connected.Update() })))
	r.add(row{what: fmt.Sprintf("update, 1 of %d endpoints, bytes to plan", n), ours: nanoseconds(u[0].time), other: nanoseconds(u[1].time),
		compared: "protobuf's decode alone / proxyless", estimate: ratio(u[1].time, u[0].time), budget: budget(20), atLeast: true})
	r.add(row{what: "… with all endpoints connected", ours: nanoseconds(u[2].time), other: nanoseconds(u[1].time),
		compared: "protobuf's decode alone / proxyless", estimate: ratio(u[1].time, u[2].time), budget: budget(20), atLeast: true})
}

func repeatedly(once func(int)) func(times int) {
	return func(times int) {
		for range times {
			once(1)
		}
	}
}
