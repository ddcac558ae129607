package proxyless

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
)

// priorities is a set with so many healthy and unhealthy endpoints in each
// priority, all connected.
func priorities(change func(c *cluster, a *assignment), counts ...[2]int) *endpointSet {
	a := &assignment{cluster: "c"}
	at := 0
	for p, n := range counts {
		l := locality{priority: uint32(p), first: len(a.endpoints), count: n[0], others: n[1]}
		for range n[0] {
			a.endpoints = append(a.endpoints, endpoint{addr: testAddr(at), weight: 1})
			l.weight++
			at++
		}
		for range n[1] {
			e := endpoint{addr: testAddr(at), weight: 1, health: healthUnhealthy}
			a.others = append(a.others, otherEndpoint{endpoint: e, locality: int32(len(a.localities))})
			at++
		}
		a.localities = append(a.localities, l)
	}
	c := &cluster{name: "c", outlier: outlierDefaults(nil)}
	if change != nil {
		change(c, a)
	}
	table := newConnTable([]grpc.DialOption{grpc.WithContextDialer(nowhere)}, &counters{})
	st := newClusterState(c.name, table)
	st.random = func(uint32) uint32 { return 0 }
	st.configure(c)
	s := newEndpointSet(table, c, a, st, nil)
	for i := range s.endpoints {
		s.be(cellReady, i)
	}
	return s
}

func (s *endpointSet) eject(hosts ...int) {
	for _, i := range hosts {
		for range 5 {
			s.state.observe(s.hosts[i], verdictFailure)
		}
	}
}

func (s *endpointSet) readmit(hosts ...int) {
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	for _, i := range hosts {
		s.state.readmit(s.hosts[i], s.hosts[i].since)
	}
}

// spreadNow is how many calls of a hundred each tier takes.
func (s *endpointSet) spreadNow() []int {
	l := s.loads.Load()
	if l == nil {
		return []int{100}
	}
	each, before := []int{}, uint32(0)
	for _, upTo := range l.upTo {
		each = append(each, int(upTo-before))
		before = upTo
	}
	return each
}

// TestLoadOfPriorities has the figures of Envoy's documentation on priority
// levels and on panic.
func TestLoadOfPriorities(t *testing.T) {
	panicAt := func(percent uint32) func(*cluster, *assignment) {
		return func(c *cluster, _ *assignment) { c.panic = percent }
	}
	for _, c := range []struct {
		name   string
		change func(*cluster, *assignment)
		counts [][2]int
		want   []int
	}{
		{"all healthy", nil, [][2]int{{100, 0}, {100, 0}}, []int{100}},
		{"72 %", nil, [][2]int{{72, 28}, {100, 0}}, []int{100}},
		{"71 %", nil, [][2]int{{71, 29}, {100, 0}}, []int{99, 1}},
		{"50 %", nil, [][2]int{{50, 50}, {100, 0}}, []int{70, 30}},
		{"25 %", nil, [][2]int{{25, 75}, {100, 0}}, []int{35, 65}},
		{"25 % and 25 %", nil, [][2]int{{25, 75}, {25, 75}}, []int{50, 50}},
		{"less than needed: scaled up", nil, [][2]int{{20, 80}, {20, 80}, {10, 90}}, []int{40, 40, 20}},
		{"three levels", nil, [][2]int{{25, 75}, {25, 75}, {100, 0}}, []int{35, 35, 30}},
		{"none healthy: the next", nil, [][2]int{{0, 100}, {100, 0}}, []int{100}},
		{"another factor", func(_ *cluster, a *assignment) { a.overprovided = 100 }, [][2]int{{80, 20}, {100, 0}}, []int{80, 20}},
		{"panic, but the next makes up for it", panicAt(50), [][2]int{{10, 90}, {100, 0}}, []int{14, 86}},
		{"panic in both: by size", panicAt(50), [][2]int{{10, 90}, {10, 290}}, []int{25, 75}},
		{"panic, nobody healthy", panicAt(50), [][2]int{{0, 10}, {0, 10}}, []int{50, 50}},
	} {
		s := priorities(c.change, c.counts...)
		got := s.spreadNow()
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestCallsSpillOverWithEjectionsAndComeBack: the deviation of 10 000 calls at
// 30 % is 46.
func TestCallsSpillOverWithEjectionsAndComeBack(t *testing.T) {
	s := priorities(nil, [2]int{10, 0}, [2]int{10, 0})
	second := func() (n int) {
		for addr, count := range s.count(t, 10_000) {
			if addr.Compare(testAddr(10)) >= 0 {
				n += count
			}
		}
		return n
	}
	for _, step := range []struct {
		do       func()
		low, top int
	}{
		{func() {}, 0, 0},
		{func() { s.eject(0, 1) }, 0, 0},
		{func() { s.eject(2, 3, 4) }, 2800, 3200},
		{func() { s.readmit(0) }, 1420, 1780},
		{func() { s.readmit(1, 2) }, 0, 0},
		{func() { s.readmit(3, 4) }, 0, 0},
	} {
		step.do()
		if n := second(); n < step.low || n > step.top {
			t.Errorf("the second priority takes %d of 10 000, want %d to %d", n, step.low, step.top)
		}
	}
	if s.even.Load() == nil {
		t.Error("the usual case is not returned to")
	}
}

func TestWithoutPanicAllEjectedIsAnEnd(t *testing.T) {
	s := priorities(nil, [2]int{3, 0})
	s.eject(0, 1, 2)
	if s.pickOne() != nil {
		t.Error("an ejected endpoint was picked")
	}
}

// TestPanicIgnoresHealth: below the threshold all endpoints of the priority have
// calls, the ejected ones and those that the mesh calls unhealthy.
func TestPanicIgnoresHealth(t *testing.T) {
	s := priorities(func(c *cluster, _ *assignment) { c.panic = 50 }, [2]int{5, 5})
	if n := len(s.count(t, 1000)); n != 5 {
		t.Fatalf("%d endpoints have calls while half of them are healthy", n)
	}
	s.eject(0)
	counts := s.count(t, 10_000)
	for i := range 10 {
		if n := counts[testAddr(i)]; n < 850 || n > 1150 {
			t.Errorf("in panic endpoint %d has %d calls of 10 000", i, n)
		}
	}
	s.readmit(0)
	if n := len(s.count(t, 1000)); n != 5 {
		t.Errorf("%d endpoints have calls after the panic", n)
	}
}

// TestInPanicUnhealthyEndpointsAreDialledAndCalled: there is nobody else.
func TestInPanicUnhealthyEndpointsAreDialledAndCalled(t *testing.T) {
	v := newServed(t, 3, func(context.Context) error { return nil })
	v.reassign(func(c *cluster, a *assignment) {
		c.panic = 50
		for _, e := range a.endpoints {
			e.health = healthUnhealthy
			a.others = append(a.others, otherEndpoint{endpoint: e})
		}
		a.endpoints = nil
		a.localities = []locality{{others: 3}}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := v.inv.warm(ctx); err != nil {
		t.Error(err)
	}
	for range 20 {
		if err := v.call(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoPanicWhileTheNextPriorityMakesUpForIt: few are healthy in the first, but
// together there are enough.
func TestNoPanicWhileTheNextPriorityMakesUpForIt(t *testing.T) {
	s := priorities(func(c *cluster, _ *assignment) { c.panic = 50 }, [2]int{1, 9}, [2]int{10, 0})
	for addr := range s.count(t, 2000) {
		if addr.Compare(testAddr(1)) >= 0 && addr.Compare(testAddr(9)) <= 0 {
			t.Fatalf("%s is unhealthy and has calls", addr)
		}
	}
}

func TestThePriorityThatIsDownInConnectionsIsPassedOver(t *testing.T) {
	s := priorities(nil, [2]int{10, 0}, [2]int{10, 0})
	s.eject(0, 1, 2, 3, 4)
	s.be(cellFailed, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
	for addr := range s.count(t, 1000) {
		if addr.Compare(testAddr(5)) < 0 || addr.Compare(testAddr(9)) > 0 {
			t.Errorf("picked %s", addr)
		}
	}
}

func TestTheNextPriorityServesOnlyWhenAllOfTheFirstFailed(t *testing.T) {
	s := testSet(testAssignment([]uint32{1, 1}, []uint32{1}), nil)
	s.be(cellReady, 2)
	s.be(cellFailed, 0)
	s.be(cellConnecting, 1)
	if c := s.pickOne(); c != nil {
		t.Errorf("picked %s while the first priority may still become ready", c.key.addr)
	}
	s.be(cellFailed, 1)
	if c := s.pickOne(); c == nil || c.key.addr != testAddr(2) {
		t.Error("the second priority does not serve")
	}
	s.be(cellReady, 1)
	if c := s.pickOne(); c == nil || c.key.addr != testAddr(1) {
		t.Error("the first priority is not returned to")
	}
}

func TestTheNextPriorityServesWhenTheFirstHangsForTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := testSet(testAssignment([]uint32{1, 1}, []uint32{1}), nil)
		s.be(cellConnecting, 0, 1)
		s.be(cellReady, 2)
		for range 9 {
			if s.pickOne() != nil {
				t.Fatal("the second priority serves too soon")
			}
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Second)
		if c := s.pickOne(); c == nil || c.key.addr != testAddr(2) {
			t.Error("the second priority does not serve")
		}
		s.be(cellReady, 0)
		if c := s.pickOne(); c == nil || c.key.addr != testAddr(0) {
			t.Error("the first priority is not returned to")
		}
	})
}
