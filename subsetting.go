package proxyless

import (
	"cmp"
	"slices"
)

// subsetOf keeps so many endpoints of each priority of an assignment, chosen by
// chance and yet the same ones for as long as they are there: those whose
// addresses have the smallest hashes with a seed (gRFC A68). Each process has a
// seed of its own, so that all endpoints together get about as many callers
// each. It returns a where nothing is left out.
//
// Endpoints that the mesh does not call usable stay for sessions alone: they do
// not count for the health of a priority.
func subsetOf(a *assignment, size uint32, seed uint64) *assignment {
	if size == 0 || !a.exceeds(int(size)) {
		return a
	}
	kept := a.leastHashes(int(size), seed)
	b := *a
	b.localities = slices.Clone(a.localities)
	b.endpoints = make([]endpoint, 0, len(a.endpoints))
	for i := range b.localities {
		l := &b.localities[i]
		all := a.endpoints[l.first : l.first+l.count]
		before, first := weightOf(all), l.first
		l.first, l.others = len(b.endpoints), 0
		for j := range all {
			if kept[first+j] {
				b.endpoints = append(b.endpoints, all[j])
			}
		}
		own := b.endpoints[l.first:]
		l.count = len(own)
		if uint64(l.weight) == before { // nothing but the sum of its endpoints', as istiod sends it
			l.weight = uint32(weightOf(own))
		}
	}
	return &b
}

// exceeds says that some priority has more endpoints than size.
func (a *assignment) exceeds(size int) bool {
	counts := map[uint32]int{}
	for i := range a.localities {
		l := &a.localities[i]
		if counts[l.priority] += l.count; counts[l.priority] > size {
			return true
		}
	}
	return false
}

// leastHashes marks the endpoints to keep.
func (a *assignment) leastHashes(size int, seed uint64) []bool {
	type ranked struct {
		hash uint64
		at   int
	}
	byPriority := map[uint32][]ranked{}
	var buf [64]byte
	for i := range a.localities {
		l := &a.localities[i]
		for j := l.first; j < l.first+l.count; j++ {
			hash := xxHash64(a.endpoints[j].addr.AppendTo(buf[:0]), seed)
			byPriority[l.priority] = append(byPriority[l.priority], ranked{hash, j})
		}
	}
	kept := make([]bool, len(a.endpoints))
	for _, all := range byPriority {
		slices.SortFunc(all, func(a, b ranked) int { return cmp.Compare(a.hash, b.hash) })
		for _, r := range all[:min(size, len(all))] {
			kept[r.at] = true
		}
	}
	return kept
}

func weightOf(endpoints []endpoint) (sum uint64) {
	for i := range endpoints {
		sum += uint64(endpoints[i].weight)
	}
	return sum
}
