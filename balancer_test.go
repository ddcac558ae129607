package proxyless

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
)

func testAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 1)
}

// testAssignment has one locality with the given weights, for each priority.
func testAssignment(priorities ...[]uint32) *assignment {
	a := &assignment{cluster: "c"}
	for p, weights := range priorities {
		l := locality{priority: uint32(p), first: len(a.endpoints), count: len(weights)}
		for _, w := range weights {
			l.weight += w
			a.endpoints = append(a.endpoints, endpoint{addr: testAddr(len(a.endpoints)), weight: w})
		}
		a.localities = append(a.localities, l)
	}
	return a
}

func testSet(a *assignment, prev *endpointSet) *endpointSet {
	var table *connTable
	if prev != nil {
		table = prev.table
	} else {
		table = newConnTable([]grpc.DialOption{grpc.WithContextDialer(nowhere)}, &counters{})
	}
	return newEndpointSet(table, &cluster{name: "c"}, a, nil, prev)
}

// nowhere keeps the tests of picking off the network.
func nowhere(ctx context.Context, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// be puts endpoints into a state without connecting.
func (s *endpointSet) be(state cellState, indexes ...int) {
	for _, i := range indexes {
		c := s.slots[i].Load()
		if c == nil {
			c = s.adopt(uint64(i))
		}
		c.state.Store(uint32(state))
		c.ready.Store(nil)
		if state == cellReady {
			c.ready.Store(new(grpc.ClientConn))
		}
	}
}

func (s *endpointSet) count(t *testing.T, picks int) map[netip.AddrPort]int {
	t.Helper()
	counts := map[netip.AddrPort]int{}
	for range picks {
		c := s.pickOne()
		if c == nil {
			t.Fatal("nothing was picked")
		}
		counts[c.key.addr]++
	}
	return counts
}

func TestReadyEndpointsTakeTurns(t *testing.T) {
	s := testSet(testAssignment([]uint32{1, 1, 1, 1}), nil)
	s.be(cellReady, 0, 1, 2, 3)
	for addr, n := range s.count(t, 400) {
		if n != 100 {
			t.Errorf("%s was picked %d times in 400", addr, n)
		}
	}
}

func TestAFailedEndpointsShareIsSpreadOverAll(t *testing.T) {
	s := testSet(testAssignment([]uint32{1, 1, 1, 1}), nil)
	s.be(cellReady, 0, 2, 3)
	s.be(cellFailed, 1)
	for addr, n := range s.count(t, 300) {
		if n != 100 || addr == testAddr(1) {
			t.Errorf("%s was picked %d times in 300", addr, n)
		}
	}
}

func TestWeightsAreHonoured(t *testing.T) {
	s := testSet(testAssignment([]uint32{1, 2, 7}), nil)
	s.be(cellReady, 0, 1, 2)
	counts := s.count(t, 10_000)
	for i, want := range []int{1000, 2000, 7000} {
		if n := counts[testAddr(i)]; n < want-20 || n > want+20 {
			t.Errorf("endpoint %d was picked %d times, want %d", i, n, want)
		}
	}
}

func TestLocalityWeightsWinOverTheirEndpoints(t *testing.T) {
	a := &assignment{cluster: "c"}
	for i, l := range []struct{ weight, count int }{{80, 1}, {20, 4}} {
		at := len(a.endpoints)
		for range l.count {
			a.endpoints = append(a.endpoints, endpoint{addr: testAddr(len(a.endpoints)), weight: 1})
		}
		a.localities = append(a.localities, locality{zone: string(rune('a' + i)), weight: uint32(l.weight), first: at, count: l.count})
	}
	s := testSet(a, nil)
	s.be(cellReady, 0, 1, 2, 3, 4)
	counts := s.count(t, 10_000)
	for i, want := range []int{8000, 500, 500, 500, 500} {
		if n := counts[testAddr(i)]; n < want-30 || n > want+30 {
			t.Errorf("endpoint %d was picked %d times, want %d", i, n, want)
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

func TestAPickDialsAtMostOneEndpoint(t *testing.T) {
	s := testSet(testAssignment(make([]uint32, 50)), nil)
	defer s.table.close()
	for i := range 3 {
		s.pickOne()
		if n := s.table.counts.dials.Load(); n != uint64(i+1) {
			t.Fatalf("%d endpoints dialled by %d picks", n, i+1)
		}
	}
}

func TestAnUpdateKeepsTheCellsOfEndpointsThatStay(t *testing.T) {
	old := testAssignment([]uint32{1, 1, 1, 1, 1, 1})
	s := testSet(old, nil)
	s.be(cellReady, 0, 1, 2, 3, 4, 5)
	cells := map[netip.AddrPort]*cell{}
	for i := range s.slots {
		cells[s.endpoints[i].addr] = s.slots[i].Load()
	}
	next := testAssignment([]uint32{1, 1, 1, 1, 1})
	next.endpoints = []endpoint{old.endpoints[5], {addr: testAddr(99), weight: 1}, old.endpoints[1], old.endpoints[2], old.endpoints[0]}
	n := testSet(next, s)
	s.retire()
	for i, e := range n.endpoints {
		if c := n.slots[i].Load(); c != cells[e.addr] {
			t.Errorf("%s has another cell", e.addr)
		}
	}
	for _, gone := range []int{3, 4} {
		if c := cells[testAddr(gone)]; !c.draining.Load() || c.ready.Load() != nil {
			t.Errorf("endpoint %d is not drained", gone)
		}
	}
	if cells[testAddr(1)].draining.Load() || len(n.table.cells) != 4 {
		t.Errorf("%d cells are held, want 4", len(n.table.cells))
	}
	if c := s.adopt(3); c != nil && len(n.table.cells) != 4 {
		t.Error("a set that was replaced took a new cell")
	}
	n.retire()
	if len(n.table.cells) != 0 {
		t.Errorf("%d cells are left", len(n.table.cells))
	}
}

func TestTwoServicesShareAConnectionUntilBothLetGo(t *testing.T) {
	s := testSet(testAssignment([]uint32{1}), nil)
	s.be(cellReady, 0)
	other := newEndpointSet(s.table, &cluster{name: "d"}, testAssignment([]uint32{1}), nil, nil)
	other.adopt(0)
	c := s.slots[0].Load()
	if other.slots[0].Load() != c {
		t.Fatal("the address has two cells")
	}
	s.retire()
	if c.draining.Load() {
		t.Error("drained while the other service holds it")
	}
	other.retire()
	if !c.draining.Load() {
		t.Error("not drained")
	}
}

func TestACallThatMeetsADrainIsTurnedAwayOrCounted(t *testing.T) {
	s := testSet(testAssignment([]uint32{1}), nil)
	s.be(cellReady, 0)
	c := s.slots[0].Load()
	if c.enter() == nil || c.inflight.Load() != 1 {
		t.Fatal("the call was not let in")
	}
	s.retire()
	if c.enter() != nil || c.inflight.Load() != 1 {
		t.Error("a call was let in after the drain")
	}
	c.leave()
	if c.inflight.Load() != 0 {
		t.Error("calls are left")
	}
}

func TestAnEmptyAssignmentPicksNothing(t *testing.T) {
	s := testSet(testAssignment(), nil)
	if s.pickOne() != nil || s.expectant() {
		t.Error("there is hope for no endpoints")
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
