package proxyless

import (
	"net/netip"
	"testing"
)

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
