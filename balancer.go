package proxyless

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
)

// endpointSet is one cluster's endpoints made ready for picking: weighted
// round robin over the endpoints that are ready, or what the cluster asks for
// in its place, lock-free, in tiers by priority. Sets are replaced by updates;
// what must live on is in the cells that the slots point at, and in the
// cluster's state and hosts where it has policy that remembers. A slot gets its
// cell when its turn first comes.
//
// pick is on the hot path of every call: one add and two loads when endpoints
// are ready. Nothing may be added to it that locks, allocates or logs.
type endpointSet struct {
	// Read by every pick, and therefore side by side. The atomics are written
	// when the health of a tier changes, slots under table.mu.
	even  atomic.Pointer[tier]   // the first tier while it takes all calls and nothing but turns counts: the usual case
	two   atomic.Pointer[tier]   // the first tier while it takes all calls and nothing but the calls in flight of two endpoints counts
	slots []atomic.Pointer[cell] // parallel to endpoints
	hosts []*host                // parallel to endpoints; nil where state is. Constant after construction

	// Constant after construction.
	cluster   *cluster
	source    *assignment // what the mesh sent
	from      *assignment // what is left of it by subsetting
	endpoints []endpoint  // the assignment's; behind them the others, where some rule may choose them
	listed    int         // endpoints[:listed] are those that the mesh calls usable
	tiers     []tier
	balance   balancing   // how endpoints are chosen
	authority string      // of its calls, where auto_sni or auto_san_validation want it; empty otherwise
	security  []*security // how endpoints are spoken to, by endpoint.labels; nil where all are in plain text
	table     *connTable
	state     *clusterState // nil where the cluster has no policy that remembers
	limits    *breaker      // nil where the cluster has no limits
	drops     []dropShare   // nil where no load is shed
	timed     bool          // choosing looks at how long answers take
	judged    bool          // the cluster has outlier detection
	split     bool          // and it splits off failures of local origin

	// Atomics.
	loads  atomic.Pointer[loads]                     // nil while the first tier takes all calls
	byAddr atomic.Pointer[map[netip.AddrPort]uint32] // indexes of endpoints; made by the first call of a session

	// Guarded by table.mu.
	plans   int  // plans that use the set
	retired bool // no plan does any more; it takes no more cells
}

// choice is what a pick is told of its call. The zero value says nothing.
type choice struct {
	hash   uint64 // by the route's hash policies; counts where hashed
	hashed bool
	again  uint32       // how many endpoints of earlier attempts this pick met already
	extra  *choiceExtra // nil for most calls
}

// choiceExtra is what few picks are told.
type choiceExtra struct {
	tried    []netip.AddrPort // endpoints of earlier attempts, to avoid
	avoid    []netip.AddrPort // addresses whose priorities to avoid, too
	reselect int              // how often to pick again to avoid them
	sticky   netip.AddrPort   // where session affinity wants to go; zero is anywhere
	strict   bool             // there or nowhere
}

// pick returns the next endpoint that is usable. An endpoint not yet connected
// is dialled in the background, at most one for each pick. It returns nil when
// none is usable.
func (s *endpointSet) pick(c choice) (uint64, *cell) {
	if c.extra == nil {
		if at, found := s.turn(); found != nil {
			return at, found
		}
	}
	return s.pickOtherwise(c)
}

// turn returns the endpoint whose turn it is where nothing but turns counts,
// and it is ready. It is small so that it is compiled into pick.
func (s *endpointSet) turn() (at uint64, found *cell) {
	if t := s.even.Load(); t != nil {
		at = uint64(uint32(t.next.Add(1)) % uint32(t.count)) // a 32-bit division is the cheaper one
		if c := s.slots[at].Load(); c != nil && c.ready.Load() != nil {
			found = c
		}
	}
	return at, found
}

// pickOtherwise picks where more than turns counts, or where the one whose turn
// it was is not ready: that one is dialled if it never was.
func (s *endpointSet) pickOtherwise(c choice) (uint64, *cell) {
	if c.extra != nil {
		return s.pickAvoiding(c)
	}
	if t := s.two.Load(); t != nil {
		return s.pickOfTwo(t, c)
	}
	t := s.even.Load()
	return s.search(c, t != nil && s.wake(uint64(uint32(t.next.Load())%uint32(t.count))))
}

// pickOfTwo takes the one of two endpoints that has fewer calls in flight. They
// are drawn with replacement (gRFC A48).
func (s *endpointSet) pickOfTwo(t *tier, c choice) (uint64, *cell) {
	r := rand.Uint64()
	at, other := r>>32*t.count>>32, r&math.MaxUint32*t.count>>32
	x, y := s.usable(at), s.usable(other)
	if x == nil || y == nil {
		return s.search(c, false)
	}
	if y.inflight.Load() < x.inflight.Load() {
		return other, y
	}
	return at, x
}

// usable returns the cell of an endpoint that calls may be sent to now; nil
// when they may not.
func (s *endpointSet) usable(at uint64) *cell {
	c := s.slots[at].Load()
	if c == nil || c.ready.Load() == nil || s.hosts != nil && s.hosts[at].ejected.Load() {
		return nil
	}
	return c
}

// anyUsable looks at every endpoint of a tier, from a random one on.
func (s *endpointSet) anyUsable(t *tier) (uint64, *cell) {
	start := rand.Uint64N(t.count)
	for i := range t.count {
		at := t.first + (start+i)%t.count
		if c := s.usable(at); c != nil {
			return at, c
		}
	}
	return 0, nil
}

// pickAvoiding picks again while it meets an endpoint of an earlier attempt.
func (s *endpointSet) pickAvoiding(c choice) (uint64, *cell) {
	x := c.extra
	if x.sticky.IsValid() {
		if at, found, decided := s.pickSticky(x); decided {
			return at, found
		}
	}
	if len(x.avoid) > 0 {
		if at, found := s.pickElsewhere(x.avoid); found != nil {
			return at, found
		}
	}
	for c.extra = nil; ; c.again++ {
		at, found := s.pick(c)
		if found == nil || int(c.again) >= x.reselect || !slices.Contains(x.tried, s.endpoints[at].addr) {
			return at, found
		}
	}
}

// pickElsewhere turns to the first priority with usable endpoints that none of
// some addresses belongs to. It returns nil where there is none, or it is not connected yet.
func (s *endpointSet) pickElsewhere(avoid []netip.AddrPort) (uint64, *cell) {
	for i := range s.tiers {
		t := &s.tiers[i]
		of := func(addr netip.AddrPort) bool {
			at, ok := s.index(addr)
			return ok && at >= t.first && at < t.first+t.count
		}
		if t.count == 0 || slices.ContainsFunc(avoid, of) {
			continue
		}
		if at, c := s.anyUsable(t); c != nil {
			return at, c
		}
		s.wake(t.first)
	}
	return 0, nil
}
