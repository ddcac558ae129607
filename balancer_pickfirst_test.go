package proxyless

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestPickFirstStaysWithTheFirst(t *testing.T) {
	skipUnderRace(t)
	s := balanced(balancing{policy: lbPickFirst}, testAssignment(ones(4)), nil)
	s.be(cellReady, 1, 2, 3)
	s.be(cellFailed, 0)
	picks := func(want int) {
		t.Helper()
		for addr, n := range s.count(t, 100) {
			if addr != testAddr(want) {
				t.Errorf("%s was picked %d times in 100, want endpoint %d alone", addr, n, want)
			}
		}
	}
	picks(1)
	s.be(cellReady, 0)
	picks(1) // an earlier one that comes back changes nothing
	s.be(cellConnecting, 1)
	picks(0)
	next := testAssignment(ones(6)) // an update with two more, in another order
	next.endpoints = []endpoint{next.endpoints[4], next.endpoints[5], next.endpoints[3], next.endpoints[0], next.endpoints[1]}
	next.localities[0].count = 5
	s = balanced(balancing{policy: lbPickFirst}, next, s)
	picks(0)
	if at, c := s.pick(choice{extra: &choiceExtra{tried: []netip.AddrPort{testAddr(0)}, reselect: 5}}); c == nil || at == 3 {
		t.Error("the endpoint of an earlier attempt is not avoided")
	}
	picks(0)
	if allocs := leastAllocs(100, func() { picked.Store(s.pickOne()) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestPickFirstDialsOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := balanced(balancing{policy: lbPickFirst}, testAssignment(ones(4)), nil)
		defer s.table.close()
		dials := func(want uint64) {
			t.Helper()
			for range 100 {
				s.pickOne()
			}
			if n := s.table.counts.dials.Load(); n != want {
				t.Errorf("%d endpoints dialled, want %d", n, want)
			}
		}
		dials(1)
		time.Sleep(200 * time.Millisecond)
		dials(1)
		time.Sleep(50 * time.Millisecond)
		dials(2)
		s.be(cellFailed, 0, 1)
		dials(3)
		s.be(cellReady, 2)
		time.Sleep(time.Second)
		dials(3)
	})
}

func TestPickFirstTurnsToTheNextPriority(t *testing.T) {
	s := balanced(balancing{policy: lbPickFirst}, testAssignment(ones(2), ones(1)), nil)
	s.be(cellConnecting, 0, 1)
	s.be(cellReady, 2)
	if s.pickOne() != nil {
		t.Error("does not wait for the first priority")
	}
	s.be(cellFailed, 0, 1)
	if c := s.pickOne(); c == nil || c.key.addr != testAddr(2) {
		t.Error("the second priority does not serve")
	}
}

func TestPickFirstShufflesByWeight(t *testing.T) {
	first := make([]int, 3)
	for range 10_000 {
		p := &pickFirst{order: []uint32{0, 1, 2}}
		p.shuffle([]float64{1, 2, 7})
		first[p.order[0]]++
	}
	expect(t, "first of the order", first, 12, 1000, 2000, 7000)
}
