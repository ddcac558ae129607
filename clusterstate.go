package proxyless

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// clusterState is what outlives updates of one cluster: what its limits count,
// and its hosts. Endpoint sets of the cluster share it.
type clusterState struct {
	// Constant after construction.
	name   string
	counts *counters
	upkeep *upkeep
	random func(n uint32) uint32 // below n; tests put theirs

	widen   linkLimit // mayConnect, for the cells
	breaker breaker
	rules   atomic.Pointer[outlierRules] // nil without outlier detection

	// Guarded by mu, within which those of upkeep and of the table are taken.
	mu      sync.Mutex
	known   map[netip.AddrPort]*host // the hosts of the newest set
	order   []*host                  // the same, in its order
	sets    []*endpointSet           // those in use, the newest last
	total   int                      // endpoints that the mesh lists, unusable ones too
	out     int                      // hosts of order that are ejected
	sweeper *chore                   // nil without outlier detection
	settler *chore                   // nil before weights changed with time
	swept   time.Time                // when outliers were last looked for
}

// host is what outlives updates of one endpoint within one cluster.
type host struct {
	// Constant after construction.
	addr  netip.AddrPort
	since time.Time // first seen; zero where it was among the cluster's first

	// Atomics, read by every pick.
	ejected atomic.Bool // picks avoid it: it is out, and its priority is not in panic

	tally   tally
	replies replies

	ejection
}

func newClusterState(name string, t *connTable) *clusterState {
	st := &clusterState{name: name, counts: t.counts, upkeep: t.upkeep, random: rand.Uint32N, known: map[netip.AddrPort]*host{}}
	st.widen = st.mayConnect
	st.breaker.configure(nil)
	return st
}

// configure takes over what the cluster says now.
func (st *clusterState) configure(c *cluster) {
	st.breaker.configure(c.limits)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.detect(c.outlier, time.Now())
}

// close ends what the state does by itself.
func (st *clusterState) close() {
	if st == nil {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.detect(nil, time.Now())
	st.settler.stop()
}

// hostsOf returns the hosts of endpoints, in their order. Those of the newest
// set are the ones that count; unusable is how many more the mesh lists.
func (st *clusterState) hostsOf(endpoints []endpoint, unusable int) []*host {
	st.mu.Lock()
	defer st.mu.Unlock()
	var since time.Time
	if len(st.known) > 0 {
		since = time.Now()
	}
	hosts := make([]*host, len(endpoints))
	known := make(map[netip.AddrPort]*host, len(endpoints))
	out := 0
	for i := range endpoints {
		addr := endpoints[i].addr
		h := st.known[addr]
		if h == nil {
			h = &host{addr: addr, since: since}
		}
		if h.out.Load() && known[addr] == nil {
			out++
		}
		known[addr], hosts[i] = h, h
	}
	st.known, st.order, st.out, st.total = known, hosts, out, len(endpoints)+unusable
	return hosts
}

// join notes a set that has to learn of ejections.
func (st *clusterState) join(s *endpointSet) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sets = append(st.sets, s)
	for i, h := range s.hosts {
		if c := s.slots[i].Load(); c != nil {
			h.watch(c)
		}
	}
	s.weigh()
	st.varyWeights(time.Now())
}

// part is the opposite of join.
func (st *clusterState) part(s *endpointSet) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sets = slices.DeleteFunc(st.sets, func(o *endpointSet) bool { return o == s })
}

// observe counts the outcome of a call for its host.
func (st *clusterState) observe(h *host, v verdict) {
	r := st.rules.Load()
	if r == nil || v == verdictNone {
		return
	}
	if crossed := h.tally.count(r, v); crossed != 0 {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.cross(h, crossed, time.Now())
	}
}
