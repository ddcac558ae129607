package proxyless

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// tier is the endpoints of one priority. Its counter has a cache line of its
// own, which every processor that picks still shares with the others.
type tier struct {
	_     [64]byte
	next  atomic.Uint64
	_     [56]byte
	first uint64
	count uint64
	// others are the indexes of its endpoints that the mesh does not call usable,
	// where some rule may choose them; total counts them in any case.
	others     []uint32
	panicking  atomic.Bool // they are chosen now
	total      uint64
	localities []locality
	// blocked is when a search first found none of the tier ready, in unix
	// nanoseconds; 0 after one that did.
	blocked atomic.Int64
	// shares are the weights scaled so that the largest is 65535; nil when all
	// are equal.
	shares atomic.Pointer[[]uint16]
	// picker chooses where the cluster asks for something else than round
	// robin; nil otherwise. Constant after construction.
	picker picker
}

// buildTiers groups the localities, which are sorted by priority. The round
// goes on where that of prev stood; a first one starts anywhere, lest many
// consumers start at the same endpoint.
func (s *endpointSet) buildTiers(prev *endpointSet) {
	localities := s.from.localities
	s.tiers = make([]tier, 0, len(localities)) // never grown: tiers have atomics
	for from := 0; from < len(localities); {
		to := from + 1
		for to < len(localities) && localities[to].priority == localities[from].priority {
			to++
		}
		s.addTier(from, to)
		from = to
	}
	for i := range s.tiers {
		t := &s.tiers[i]
		start := uint64(rand.Uint32())
		var before *tier
		if prev != nil && i < len(prev.tiers) {
			before = &prev.tiers[i]
			start = before.next.Load()
		}
		t.next.Store(start)
		if t.count > 0 {
			t.picker = newPicker(s, t, before)
		}
	}
}

// addTier adds the endpoints of one priority, which are those of
// localities[from:to]. A priority of which none is usable is passed over,
// unless panic may choose it.
func (s *endpointSet) addTier(from, to int) {
	localities := s.from.localities[from:to]
	t := tier{first: uint64(localities[0].first)}
	for _, l := range localities {
		t.count += uint64(l.count)
		t.total += uint64(l.count + l.others)
	}
	if s.cluster.panic > 0 && t.total > t.count {
		for i := range s.from.others {
			if l := int(s.from.others[i].locality); from <= l && l < to {
				t.others = append(t.others, uint32(s.listed+i))
			}
		}
	}
	if t.count == 0 && len(t.others) == 0 {
		return
	}
	s.tiers = append(s.tiers, tier{first: t.first, count: t.count, total: t.total, others: t.others, localities: localities})
	added := &s.tiers[len(s.tiers)-1]
	added.share(s.shares(added))
}

// simple says that nothing but turns counts.
func (t *tier) simple() bool { return t.picker == nil && t.shares.Load() == nil }

// healthy counts the endpoints of a tier that are usable and not ejected.
func (s *endpointSet) healthy(t *tier) uint64 {
	n := t.count
	if s.hosts != nil {
		for _, h := range s.hosts[t.first : t.first+t.count] {
			if h.out.Load() {
				n--
			}
		}
	}
	return n
}

func (s *endpointSet) eachHost(t *tier, do func(*host)) {
	if s.hosts == nil {
		return
	}
	for _, h := range s.hosts[t.first : t.first+t.count] {
		do(h)
	}
	for _, at := range t.others {
		do(s.hosts[at])
	}
}

// expectant says that some endpoint may become ready soon.
func (s *endpointSet) expectant() bool {
	for i := range s.tiers {
		if s.hopeful(&s.tiers[i]) {
			return true
		}
	}
	return false
}

// hopeful says that some endpoint of the tier may yet become usable soon: not
// all have failed or are ejected.
func (s *endpointSet) hopeful(t *tier) bool {
	for i := range t.count {
		if s.hosts != nil && s.hosts[t.first+i].ejected.Load() {
			continue
		}
		if s.mayRise(t.first + i) {
			return true
		}
	}
	if t.panicking.Load() {
		for _, at := range t.others {
			if s.mayRise(uint64(at)) {
				return true
			}
		}
	}
	return false
}

// mayRise says that the latest attempt to connect has not failed.
func (s *endpointSet) mayRise(at uint64) bool {
	c := s.slots[at].Load()
	return c == nil || cellState(c.state.Load()) != cellFailed
}

// failoverTime is how long calls wait for a priority of which some endpoints
// may yet become ready, before they turn to the next (gRFC A56).
const failoverTime = 10 * time.Second

func (t *tier) overdue() bool {
	now := time.Now().UnixNano()
	return !t.blocked.CompareAndSwap(0, now) && now-t.blocked.Load() >= int64(failoverTime)
}
