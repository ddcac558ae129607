package proxyless

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// mostExplained is how many endpoints of a cluster an explanation has.
const mostExplained = 1000

var healthWords = [...]string{healthUnknown: "health unknown", healthHealthy: "healthy", healthUnhealthy: "unhealthy", healthDraining: "draining",
	healthTimeout: "timed out", healthDegraded: "degraded"}

// endpoints explains the endpoints of a set, and what a call would fail with
// where none of them takes it. It dials nothing.
func (x *explaining) endpoints(s *endpointSet, to *ExplainedCluster) {
	to.Balancer, to.Policies = balancerNames[s.balance.policy], s.cluster.words(&s.balance)
	if s.state != nil {
		to.Policies = append(to.Policies, s.state.words()...)
	}
	for _, d := range s.drops {
		to.Policies = append(to.Policies, fmt.Sprintf("%s of the calls are dropped for %s", perMillion(d.share), d.category))
	}
	force := s.inForce()
	to.Count = s.listed + len(s.from.others)
	pickable := false
	add := func(e ExplainedEndpoint) {
		if pickable = pickable || e.Pickable; len(to.Endpoints) < mostExplained {
			to.Endpoints = append(to.Endpoints, e)
		}
	}
	for at := range s.listed {
		add(s.explain(at, force))
	}
	for i := range s.from.others {
		add(s.explainOther(i))
	}
	slices.SortStableFunc(to.Endpoints, func(a, b ExplainedEndpoint) int { return int(a.Priority) - int(b.Priority) })
	switch {
	case s.limits != nil && s.limits.full():
		to.Error = s.refusal(x.plan, obstacle{set: s, refused: refusedRequests}).Error()
	case pickable:
	case s.expectant():
		to.Waits = true
	default:
		to.Error = s.unready(x.plan).Error()
	}
}

// full says that a call would be refused now.
func (b *breaker) full() bool { return b.requests.Load() >= int64(b.limits.Load().requests) }

// inForce says for each tier whether calls go there now. It is what search
// does, without dialling: by the health of priorities, and in their order where
// the one whose turn it is has no connection.
func (s *endpointSet) inForce() []bool {
	force := make([]bool, len(s.tiers))
	ordered := true
	if l := s.loads.Load(); l != nil {
		ordered = l.upTo[0] > 0
		for i := 1; i < len(force); i++ {
			if l.upTo[i] > l.upTo[i-1] {
				force[i] = s.connected(&s.tiers[i])
				ordered = ordered || !force[i]
			}
		}
	}
	for i := 0; ordered && i < len(s.tiers); i++ {
		t := &s.tiers[i]
		blocked := t.blocked.Load()
		overdue := blocked != 0 && time.Now().UnixNano()-blocked >= int64(failoverTime)
		if s.connected(t) || s.hopeful(t) && !overdue {
			force[i], ordered = true, false
		}
	}
	return force
}

// connected says that a call may be sent to some endpoint of the tier.
func (s *endpointSet) connected(t *tier) bool {
	for at := t.first; at < t.first+t.count; at++ {
		if s.usable(at) != nil {
			return true
		}
	}
	return false
}

// explain says how an endpoint stands that the mesh calls usable.
func (s *endpointSet) explain(at int, force []bool) ExplainedEndpoint {
	e := s.explained(&s.endpoints[at])
	for i := range s.tiers {
		t := &s.tiers[i]
		if uint64(at) < t.first || uint64(at) >= t.first+t.count {
			continue
		}
		for j := range t.localities {
			if l := &t.localities[j]; l.first <= at && at < l.first+l.count {
				e.place(l)
			}
		}
		s.connection(at, &e)
		if e.Reason == "" && !force[i] {
			e.Reason = "another priority takes the calls"
		}
	}
	e.Pickable = e.Reason == ""
	return e
}

// explainOther is explain for an endpoint that the mesh does not call usable:
// calls go there only in panic, or where a session is bound to it.
func (s *endpointSet) explainOther(i int) ExplainedEndpoint {
	o := &s.from.others[i]
	e := s.explained(&o.endpoint)
	e.place(&s.from.localities[o.locality])
	panicking := false
	if at := s.listed + i; at < len(s.endpoints) {
		s.connection(at, &e)
		if l := s.loads.Load(); l != nil {
			for j := range s.tiers {
				panicking = panicking || l.panic[j] && slices.Contains(s.tiers[j].others, uint32(at))
			}
		}
	}
	if !panicking {
		e.Reason = "the mesh calls it " + e.Health
	}
	e.Pickable = e.Reason == ""
	return e
}

func (s *endpointSet) explained(e *endpoint) ExplainedEndpoint {
	var sec *security
	if s.security != nil {
		sec = s.security[e.labels].at(e)
	}
	return ExplainedEndpoint{Address: e.addr.String(), Weight: e.weight, Health: healthWords[e.health], Security: sec.String(), Connection: "not connected"}
}

// place says where it is.
func (e *ExplainedEndpoint) place(l *locality) {
	e.Priority = l.priority
	e.Locality = strings.TrimRight(l.region+"/"+l.zone+"/"+l.subZone, "/")
}

// connection says how this process is connected to an endpoint, and why no call
// may be sent there.
func (s *endpointSet) connection(at int, e *ExplainedEndpoint) {
	c := s.slots[at].Load()
	state := cellIdle
	if c != nil {
		state, e.Connection, e.InFlight = cellState(c.state.Load()), c.problem(), c.inflight.Load()
		if who := c.peer.Load(); who != nil && state == cellReady {
			e.Security += "; connected by " + *who
		}
	}
	e.Ejected = s.hosts != nil && s.hosts[at].ejected.Load()
	switch {
	case e.Ejected:
		e.Reason = "ejected by the mesh's outlier detection"
	case s.usable(uint64(at)) != nil:
	case state == cellIdle:
		e.Reason = "a call whose turn it is will connect it"
	case state == cellFailed:
		e.Reason = "it cannot be reached"
	default:
		e.Reason = "not ready"
	}
}
