package proxyless

import (
	"net/netip"
	"sync/atomic"
)

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

// govern takes the cluster's hosts and what its policy has to count. The
// state is there.
func (s *endpointSet) govern() {
	c := s.cluster
	unusable := len(s.from.others)
	if s.listed < len(s.endpoints) {
		unusable = 0 // they are hosts, too
	}
	s.hosts = s.state.hostsOf(s.endpoints, unusable)
	if c.limits != nil {
		s.limits = &s.state.breaker
	}
	if c.outlier != nil {
		s.judged, s.split = true, c.outlier.split
	}
}

// addOthers puts the endpoints that the mesh does not call usable behind the
// others, where panic or session affinity may choose them.
func (s *endpointSet) addOthers() {
	if len(s.from.others) == 0 || s.cluster.panic == 0 && s.cluster.override == 0 {
		return
	}
	all := make([]endpoint, 0, s.listed+len(s.from.others))
	all = append(all, s.from.endpoints...)
	for i := range s.from.others {
		all = append(all, s.from.others[i].endpoint)
	}
	s.endpoints = all
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
