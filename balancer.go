package proxyless

import (
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
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

// picker chooses an endpoint of a tier by another rule than weighted round
// robin. It is made for one tier of one set, and its pick is on the hot path.
type picker interface {
	// pick returns an endpoint that is usable and its index, or nil. It wakes
	// at most one endpoint that was never dialled, and none where one was
	// dialled for this pick already.
	pick(s *endpointSet, t *tier, c choice, dialled bool) (uint64, *cell)
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

// failoverTime is how long calls wait for a priority of which some endpoints
// may yet become ready, before they turn to the next (gRFC A56).
const failoverTime = 10 * time.Second

func (t *tier) overdue() bool {
	now := time.Now().UnixNano()
	return !t.blocked.CompareAndSwap(0, now) && now-t.blocked.Load() >= int64(failoverTime)
}

// pickEqual takes the counter's next values until one belongs to a usable
// endpoint, so that those which are not do not burden their neighbours.
func (s *endpointSet) pickEqual(t *tier, dialled bool) (uint64, *cell) {
	for range t.count {
		at := t.first + t.next.Add(1)%t.count
		if c := s.usable(at); c != nil {
			return at, c
		}
		dialled = dialled || s.wake(at)
	}
	return s.anyUsable(t) // others may have taken the values that were usable
}

// pickWeighted lets an endpoint with share w take its turn in w of 65535
// rounds, spread evenly: a static stride schedule (gRFC A58) on one counter.
func (s *endpointSet) pickWeighted(t *tier, shares []uint16, dialled bool) (uint64, *cell) {
	for range 4*t.count + 64 {
		n := t.next.Add(1)
		i, round := n%t.count, n/t.count
		share := uint64(shares[i])
		if (share*round+i*32767)%65535 < 65535-share {
			continue
		}
		if c := s.usable(t.first + i); c != nil {
			return t.first + i, c
		}
		dialled = dialled || s.wake(t.first+i)
	}
	return s.anyUsable(t)
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

// wake dials an endpoint that never was, and says whether it did.
func (s *endpointSet) wake(at uint64) bool {
	c := s.slots[at].Load()
	if c == nil {
		c = s.adopt(at)
	}
	if c == nil || cellState(c.state.Load()) != cellIdle {
		return false
	}
	c.dial()
	return true
}

// adopt fills a slot; nil when the set has been replaced, whose successor then
// holds the cell.
func (s *endpointSet) adopt(at uint64) *cell {
	c := s.take(at)
	if c != nil && s.hosts != nil {
		s.state.watch(s.hosts[at], c)
	}
	return c
}

func (s *endpointSet) take(at uint64) *cell {
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := s.slots[at].Load(); c != nil {
		return c
	}
	if s.retired || t.closed {
		return nil
	}
	sec := s.securityOf(at)
	c := t.acquire(s.key(at, sec), sec)
	s.hold(at, c)
	return c
}

func (s *endpointSet) key(at uint64, sec *security) connKey {
	return connKey{addr: s.endpoints[at].addr, settings: s.cluster.conn, security: sec.key()}
}

// secure settles how the endpoints are spoken to, by their labels.
func (s *endpointSet) secure() {
	c := s.cluster
	if !c.secured() {
		return
	}
	s.security = make([]*security, 1+len(s.from.labels))
	for i := range s.security {
		var labels socketLabels
		if i > 0 {
			labels = s.from.labels[i-1]
		}
		t := c.contextFor(labels)
		s.security[i] = newSecurity(c, t, s.authority)
		if t.needsWorkload() && s.table.secrets != nil {
			s.table.secrets.workload.want()
		}
	}
}

// securityOf is how an endpoint is spoken to; nil is plain text.
func (s *endpointSet) securityOf(at uint64) *security {
	if s.security == nil {
		return nil
	}
	e := &s.endpoints[at]
	return s.security[e.labels].at(e)
}

// newEndpointSet prepares an assignment for picking as its cluster asks for.
// Endpoints that prev holds too keep their cells. state may be nil.
func newEndpointSet(table *connTable, c *cluster, a *assignment, state *clusterState, prev *endpointSet) *endpointSet {
	return newBalancedSet(table, c, a, c.balance, "", state, prev)
}

// newBalancedSet prepares an assignment for picking as b says. The authority is
// that of calls, where it counts for how endpoints are spoken to.
func newBalancedSet(table *connTable, c *cluster, source *assignment, b balancing, authority string, state *clusterState, prev *endpointSet) *endpointSet {
	a := subsetOf(source, b.subset, table.seed)
	s := &endpointSet{cluster: c, source: source, from: a, balance: b, authority: authority, timed: b.policy == lbShortestReply || b.policy == lbP2C, endpoints: a.endpoints, listed: len(a.endpoints), drops: a.drops, table: table, state: state}
	s.addOthers()
	s.slots = make([]atomic.Pointer[cell], len(s.endpoints))
	if state != nil {
		s.govern()
	}
	s.secure()
	s.buildTiers(prev)
	s.inherit(prev)
	if state != nil {
		state.join(s)
	} else {
		s.weigh()
	}
	return s
}

// inherit takes over the cells that other sets hold of its endpoints.
// Assignments change little and in order, so that walking prev in step finds
// nearly all; only the rest is looked up by address.
func (s *endpointSet) inherit(prev *endpointSet) {
	t := s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.cells) == 0 {
		return
	}
	if prev != nil && prev.cluster.conn != s.cluster.conn {
		prev = nil
	}
	at := 0
	for i := range s.endpoints {
		sec := s.securityOf(uint64(i))
		if found := prev.find(s.endpoints[i].addr, at); found >= 0 {
			at = found + 1
			c := prev.slots[found].Load()
			if c == nil || c.key.security == sec.key() {
				s.share(i, c)
				continue
			}
			if key := s.key(uint64(i), sec); t.cells[key] == nil && c.works() {
				s.hold(uint64(i), t.succeed(key, sec))
				continue
			}
		}
		s.share(i, t.cells[s.key(uint64(i), sec)])
	}
}

// share puts another set's cell, if there is one, into a slot.
func (s *endpointSet) share(at int, c *cell) {
	if c != nil {
		c.refs++
		s.hold(uint64(at), c)
	}
}

// hold puts a cell into a slot.
func (s *endpointSet) hold(at uint64, c *cell) {
	if s.limits != nil {
		c.most.Store(&s.state.widen)
	}
	s.slots[at].Store(c)
}

// find looks for an address at a position or shortly after it.
func (s *endpointSet) find(addr netip.AddrPort, at int) int {
	if s == nil {
		return -1
	}
	for i := at; i < min(at+8, len(s.endpoints)); i++ {
		if s.endpoints[i].addr == addr {
			return i
		}
	}
	return -1
}

// retire lets go of every cell. Those that no other set holds are drained.
func (s *endpointSet) retire() {
	if s.state != nil {
		s.state.part(s)
	}
	t := s.table
	var last []*cell
	t.mu.Lock()
	s.retired = true
	for i := range s.slots {
		if c := s.slots[i].Load(); c != nil {
			if c = t.release(c); c != nil {
				last = append(last, c)
			}
		}
	}
	t.mu.Unlock()
	for _, c := range last {
		c.drain()
	}
}

// gone says that no plan uses the set any more, so that none of its endpoints
// will become ready. It is for rare use.
func (s *endpointSet) gone() bool {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	return s.retired
}

// census counts the endpoints and those that are ready.
func (s *endpointSet) census() (endpoints, ready int) {
	for i := range s.listed {
		if c := s.slots[i].Load(); c != nil && c.ready.Load() != nil {
			ready++
		}
	}
	return s.listed, ready
}
