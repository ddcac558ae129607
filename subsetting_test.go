package proxyless

import (
	"math"
	"net/netip"
	"slices"
	"testing"
)

func addresses(a *assignment) []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range a.endpoints {
		all = append(all, e.addr)
	}
	return all
}

func TestASubsetHasItsSizeInEveryPriority(t *testing.T) {
	a := testAssignment(ones(100), ones(5), ones(30))
	b := subsetOf(a, 10, 1)
	for i, want := range []int{10, 5, 10} {
		if l := b.localities[i]; l.count != want || l.weight != uint32(want) {
			t.Errorf("priority %d has %d endpoints that weigh %d, want %d", i, l.count, l.weight, want)
		}
	}
	if len(b.endpoints) != 25 || len(a.endpoints) != 135 {
		t.Errorf("%d endpoints are left of %d", len(b.endpoints), len(a.endpoints))
	}
	for _, size := range []uint32{0, 100, 1000} {
		if subsetOf(a, size, 1) != a {
			t.Errorf("a subset of %d is another assignment", size)
		}
	}
}

func TestASubsetChangesAsLittleAsItsEndpoints(t *testing.T) {
	a := testAssignment(ones(100))
	before := addresses(subsetOf(a, 10, 1))
	gone := testAssignment(ones(100))
	gone.endpoints = slices.DeleteFunc(gone.endpoints, func(e endpoint) bool { return e.addr == before[3] })
	gone.localities[0].count--
	stayed := 0
	for _, addr := range addresses(subsetOf(gone, 10, 1)) {
		if slices.Contains(before, addr) {
			stayed++
		}
	}
	if stayed != 9 {
		t.Errorf("%d of 9 endpoints stayed", stayed)
	}
}

func TestSubsetsOfManyProcessesAreEven(t *testing.T) {
	a := testAssignment(ones(50))
	counts := map[netip.AddrPort]int{}
	for seed := range uint64(5000) {
		for _, addr := range addresses(subsetOf(a, 5, seed)) {
			counts[addr]++
		}
	}
	for addr, n := range counts {
		if n < 390 || n > 610 { // 500 and five standard deviations
			t.Errorf("%s is in %d of 5000 subsets, want about 500", addr, n)
		}
	}
	if len(counts) != 50 {
		t.Errorf("%d of 50 endpoints are in any subset", len(counts))
	}
}

func TestASubsetOfLocalitiesKeepsTheirWeights(t *testing.T) {
	a := testAssignment(ones(90))
	a.localities = []locality{{zone: "a", weight: 75, first: 0, count: 45}, {zone: "b", weight: 25, first: 45, count: 45}}
	s := balanced(balancing{subset: 20}, a, nil)
	connectAll(s)
	inA := 0
	for range 10_000 {
		if at, _ := s.pick(choice{}); slices.IndexFunc(a.endpoints[:45], func(e endpoint) bool { return e.addr == s.endpoints[at].addr }) >= 0 {
			inA++
		}
	}
	if len(s.slots) != 20 || math.Abs(float64(inA)-7500) > 100 {
		t.Errorf("%d endpoints; the locality with 75 of 100 got %d of 10000", len(s.slots), inA)
	}
}
