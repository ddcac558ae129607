package proxyless

import (
	"math/rand/v2"
	"time"
)

// Priorities and localities, as Envoy's load balancers weigh them
// (source/extensions/load_balancing_policies/common/load_balancer_impl.cc).
// The health of a priority is the share of its endpoints that the mesh calls
// usable and that are not ejected, times the overprovisioning factor, 140 %
// where none is given, and at most 100 %. It takes that share of the calls; the
// rest goes to the next priority. So nothing goes over while 72 % are healthy,
// and what went over comes back as gently.
//
// Connections count apart (gRFC A56): a priority is passed over while all its
// endpoints refuse connections, or when none of them became ready for
// failoverTime.

// overprovisioning is ClusterLoadAssignment.Policy.overprovisioning_factor
// where it is absent, in percent.
const overprovisioning = 140

// loads is how calls are spread over the tiers.
type loads struct {
	upTo  []uint32 // by tier: of a hundred calls, those below belong to it or to one before
	panic []bool   // by tier: health does not count
}

// search looks for a tier by load. Where that has nothing ready it takes them
// in order; a tier is passed over when all its endpoints failed, or when none
// has become ready for failoverTime.
func (s *endpointSet) search(c choice, dialled bool) (uint64, *cell) {
	if l := s.loads.Load(); l != nil {
		i := l.draw(c)
		if s.tiers[i].panicking.Load() {
			if at, found := s.pickRegardless(&s.tiers[i], &dialled); found != nil {
				return at, found
			}
		}
		if i > 0 { // else its turn comes below
			if at, found := s.pickIn(&s.tiers[i], c, dialled); found != nil {
				return at, found
			}
		}
	}
	for i := range s.tiers {
		t := &s.tiers[i]
		if at, found := s.pickIn(t, c, dialled); found != nil {
			if t.blocked.Load() != 0 { // a store would take the line from other processors
				t.blocked.Store(0)
			}
			return at, found
		}
		if s.hopeful(t) && (i == len(s.tiers)-1 || !t.overdue()) {
			return 0, nil
		}
	}
	return 0, nil
}

// draw chooses a tier: the same for calls with the same hash, else any by its
// share.
func (l *loads) draw(c choice) int {
	n := uint32(c.hash % 100)
	if !c.hashed {
		n = rand.Uint32N(100)
	}
	for i, most := range l.upTo {
		if n < most {
			return i
		}
	}
	return 0
}

// pickIn picks within a tier, by the rule that the cluster asks for.
func (s *endpointSet) pickIn(t *tier, c choice, dialled bool) (uint64, *cell) {
	if t.picker != nil {
		return t.picker.pick(s, t, c, dialled)
	}
	if t.count == 0 {
		return 0, nil
	}
	if shares := t.shares.Load(); shares != nil {
		return s.pickWeighted(t, *shares, dialled)
	}
	return s.pickEqual(t, dialled)
}

// pickRegardless lets endpoints that the mesh does not call usable have their
// turn in panic. It returns nil where it is not theirs, or where the one whose
// turn it is has no connection and there are better ones.
func (s *endpointSet) pickRegardless(t *tier, dialled *bool) (uint64, *cell) {
	n := rand.Uint64N(t.total)
	if n >= uint64(len(t.others)) {
		return 0, nil
	}
	at := uint64(t.others[n])
	if c := s.usable(at); c != nil {
		return at, c
	}
	*dialled = *dialled || s.wake(at)
	if t.count > 0 {
		return 0, nil
	}
	for _, at := range t.others {
		if c := s.usable(uint64(at)); c != nil {
			return uint64(at), c
		}
	}
	return 0, nil
}

// weigh settles which tiers take how much, by their health. It runs when a set
// is made and when a host of its state is ejected or comes back, in which case
// the state's mu is held.
func (s *endpointSet) weigh() {
	if s.hosts != nil && (s.cluster.weighted || s.balance.varies()) {
		s.settle(time.Now())
	}
	l := s.spread()
	for i := range s.tiers {
		t := &s.tiers[i]
		t.panicking.Store(l != nil && l.panic[i] && len(t.others) > 0)
	}
	s.loads.Store(l)
	var even, two *tier
	if l == nil && len(s.tiers) > 0 && !s.balance.varies() && s.tiers[0].first == 0 {
		t := &s.tiers[0]
		if p, ok := t.picker.(*leastRequest); ok && p.ofTwo() {
			two = t
		} else if s.balance.policy == lbRoundRobin && t.simple() && s.healthy(t) == t.count {
			even = t // of which none is ejected
		}
	}
	s.two.Store(two)
	s.even.Store(even)
}

// spread computes the loads; nil where the first tier takes all.
func (s *endpointSet) spread() *loads {
	n := len(s.tiers)
	if n == 0 {
		return nil
	}
	healthy, available := make([]uint64, n), make([]uint64, n)
	sum := uint64(0)
	for i := range s.tiers {
		t := &s.tiers[i]
		healthy[i] = s.healthy(t)
		available[i] = min(100, s.from.factor()*healthy[i]/max(1, t.total))
		sum += available[i]
	}
	l := &loads{upTo: make([]uint32, n), panic: make([]bool, n)}
	sum = min(100, sum)
	all := true
	for i := range s.tiers {
		l.panic[i] = sum < 100 && healthy[i]*100 < uint64(s.cluster.panic)*s.tiers[i].total
		all = all && l.panic[i]
	}
	share := available // of a hundred calls
	if all {
		sum = 0
		for i := range s.tiers {
			share[i] = s.tiers[i].total
			sum += share[i]
		}
	}
	l.distribute(share, sum)
	s.panicIn(l)
	if l.upTo[0] == 100 && !(l.panic[0] && len(s.tiers[0].others) > 0) {
		return nil
	}
	return l
}

// distribute gives each tier share of sum, as long as there are calls left, and
// what rounding leaves to the first tier that has any.
func (l *loads) distribute(share []uint64, sum uint64) {
	left, first := uint64(100), 0
	for i := len(share) - 1; i >= 0; i-- {
		if share[i] > 0 {
			first = i
		}
	}
	each := make([]uint64, len(share))
	for i := range share {
		each[i] = min(left, share[i]*100/max(1, sum))
		left -= each[i]
	}
	each[first] += left
	upTo := uint32(0)
	for i := range each {
		upTo += uint32(each[i])
		l.upTo[i] = upTo
	}
}

// panicIn lets ejected hosts of tiers in panic have calls.
func (s *endpointSet) panicIn(l *loads) {
	for i := range s.tiers {
		s.eachHost(&s.tiers[i], func(h *host) { h.ejected.Store(h.out.Load() && !l.panic[i]) })
	}
}

// factor is the overprovisioning factor in percent.
func (a *assignment) factor() uint64 {
	if a.overprovided == 0 {
		return overprovisioning
	}
	return uint64(a.overprovided)
}
