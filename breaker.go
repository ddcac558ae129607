package proxyless

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// breaker is the circuit breakers of a cluster (Cluster.circuit_breakers of
// Envoy, gRFC A32): counts of what is under way in this process, shared by all
// references, and the most there may be of each. What would go over a limit is
// refused at once, and nothing refused is tried again. A set without limits
// has no breaker, and its calls count nothing.
//
// Limits apply as Envoy applies them: requests are attempts in flight, retries
// among them; pending are calls that wait for an endpoint to become ready;
// connections are all to the cluster's endpoints, and only those beyond the
// first to each endpoint are refused.
type breaker struct {
	_        [64]byte
	requests atomic.Int64 // attempts in flight; every call writes it
	_        [56]byte
	limits   atomic.Pointer[breakers] // nil is none

	pending atomic.Int64
	retries atomic.Int64

	refused struct{ requests, pending, retries, connections atomic.Uint64 }
}

// unlimited is in force where nothing is.
var unlimited = breakers{connections: noLimit, pending: noLimit, requests: noLimit, retries: noLimit}

func (b *breaker) configure(l *breakers) {
	if l == nil {
		l = &unlimited
	}
	b.limits.Store(l)
}

// admit counts an attempt in, unless there are as many as there may be.
func (b *breaker) admit() bool {
	return b.requests.Add(1) <= int64(b.limits.Load().requests) || over(&b.requests, &b.refused.requests)
}

// leave counts an attempt out.
func (b *breaker) leave() { b.requests.Add(-1) }

// admitPending counts a call in that is to wait.
func (b *breaker) admitPending() bool {
	return b.pending.Add(1) <= int64(b.limits.Load().pending) || over(&b.pending, &b.refused.pending)
}

func (b *breaker) leavePending() { b.pending.Add(-1) }

// mayConnect says whether there may be one more connection to an endpoint that
// has one.
func (st *clusterState) mayConnect() bool {
	b := &st.breaker
	most := b.limits.Load().connections
	if most == noLimit || st.connections() < int64(most) {
		return true
	}
	b.refused.connections.Add(1)
	return false
}

// connections counts those to the endpoints of the newest set. It is for rare
// use.
func (st *clusterState) connections() (n int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for i := range st.order {
		if c := st.cellOf(i); c != nil {
			n += int64(c.links.Load())
		}
	}
	return n
}

// admitRetry counts a retry in, from when it is decided on until its attempt is
// over. Where it returns false the call ends with what it has. A nil state
// admits everything.
func (st *clusterState) admitRetry() bool {
	if st == nil {
		return true
	}
	b := &st.breaker
	return b.retries.Add(1) <= st.mostRetries() || over(&b.retries, &b.refused.retries)
}

// leaveRetry counts a retry out that was admitted.
func (st *clusterState) leaveRetry() {
	if st != nil {
		st.breaker.retries.Add(-1)
	}
}

// mostRetries is how many retries there may be now. A budget is a share of the
// calls that are in flight or wait.
func (st *clusterState) mostRetries() int64 {
	b := &st.breaker
	l := b.limits.Load()
	if !l.hasBudget {
		return int64(l.retries)
	}
	active := b.requests.Load() + b.pending.Load()
	return max(int64(l.budgetLeast), int64(l.budget*float64(active)))
}

// shed says whether a call is not to be sent, lest the mesh be overloaded
// (ClusterLoadAssignment.Policy.drop_overloads), and for which category.
func (s *endpointSet) shed() (category uint16, drop bool) {
	for i := range s.drops {
		if rand.Uint32N(1_000_000) < s.drops[i].share {
			return uint16(i), true
		}
	}
	return 0, false
}

// over takes back what went over its limit, and counts that.
func over(count *atomic.Int64, refused *atomic.Uint64) bool {
	count.Add(-1)
	refused.Add(1)
	return false
}

// words are for people: what the state counts now, and what it refused.
func (st *clusterState) words() []string {
	s, l := st.stats(), st.breaker.limits.Load()
	var w []string
	add := func(name string, now int64, most uint32, refused uint64) {
		if most != noLimit {
			w = append(w, fmt.Sprintf("%d of %d %s, %d refused so far", now, most, name, refused))
		}
	}
	add("calls in flight", s.Requests, l.requests, s.Refused.Requests)
	add("calls waiting", s.Pending, l.pending, s.Refused.Pending)
	if l != &unlimited {
		add("retries", s.Retries, uint32(min(st.mostRetries(), noLimit)), s.Refused.Retries)
	}
	add("connections", s.Connections, l.connections, s.Refused.Connections)
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, h := range st.order {
		if h.out.Load() {
			w = append(w, fmt.Sprintf("%s ejected since %s for %s", h.addr, h.left.Format(time.TimeOnly), causeNames[h.cause]))
		}
	}
	return w
}

// breakerStats is what a breaker counts now and has refused so far.
type breakerStats struct {
	Requests, Pending, Retries, Connections int64
	Refused                                 struct{ Requests, Pending, Retries, Connections uint64 }
}

func (st *clusterState) stats() (s breakerStats) {
	b := &st.breaker
	s.Requests, s.Pending, s.Retries, s.Connections = b.requests.Load(), b.pending.Load(), b.retries.Load(), st.connections()
	r := &b.refused
	s.Refused.Requests, s.Refused.Pending = r.requests.Load(), r.pending.Load()
	s.Refused.Retries, s.Refused.Connections = r.retries.Load(), r.connections.Load()
	return s
}
