package proxyless

import (
	"testing"
)

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

// TestALocalityThatLostEndpointsCountsLess: the first locality weighs as much as
// the second; with one of its two ejected it counts 70 %, so that it has
// 41 % of the calls.
func TestALocalityThatLostEndpointsCountsLess(t *testing.T) {
	weighted := func(c *cluster, a *assignment) {
		c.weighted = true
		a.localities = []locality{{zone: "a", weight: 1, first: 0, count: 2}, {zone: "b", weight: 1, first: 2, count: 4}}
	}
	s := priorities(weighted, [2]int{6, 0})
	if n := s.count(t, 10_000); n[testAddr(0)]+n[testAddr(1)] < 4950 || n[testAddr(0)]+n[testAddr(1)] > 5050 {
		t.Errorf("all healthy: %v", n)
	}
	s.eject(0)
	if n := s.count(t, 10_000)[testAddr(1)]; n < 4110 || n > 4126 {
		t.Errorf("the rest of the first locality has %d of 10 000, want 4118", n)
	}
	s.readmit(0)
	if n := s.count(t, 10_000); n[testAddr(0)]+n[testAddr(1)] < 4950 || n[testAddr(0)]+n[testAddr(1)] > 5050 {
		t.Errorf("all healthy again: %v", n)
	}
}
