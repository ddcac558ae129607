package proxyless

import (
	"fmt"
	"slices"
	"strings"
)

// obstacle is why a pick found nothing. Its text is made only when it is
// needed.
type obstacle struct {
	err      *Error       // what is known when the plan is compiled
	set      *endpointSet // or the endpoints of which none is ready
	refused  refusal      // or the mesh's policy
	category uint16       // refusedToShed: index into set.drops
	hopeful  bool         // waiting may help
}

// refusal is a policy of the mesh by which a call is not sent. It is not
// waited for, since waiting calls are load, too (gRFC A32), and not tried again.
type refusal uint8

const (
	refusedNot      refusal = iota
	refusedRequests         // as many attempts as there may be are in flight
	refusedPending          // as many calls as may wait do
	refusedToShed           // drop_overloads
)

func (p *plan) unmatched(method string) *Error {
	return &Error{Stage: StageRoute, Resource: p.host, Reason: fmt.Sprintf("no route matches %s", method),
		Advice: "give the VirtualService a route without match at its end, or call what it names"}
}

func (p *plan) unusable(r *plannedRoute) *Error {
	return &Error{Stage: StageRoute, Resource: r.name, Code: r.code, Reason: r.failure, Advice: "change the VirtualService's route"}
}

// refusal says by which policy of the mesh the call was not sent.
func (s *endpointSet) refusal(p *plan, o obstacle) *Error {
	e := &Error{Stage: StageCluster, Resource: s.cluster.name, Chain: fmt.Sprintf("listener %s ok > route %s ok > cluster %s full", p.name, p.host, s.cluster.name)}
	switch o.refused {
	case refusedRequests:
		e.Reason = "as many calls as the mesh allows are in flight"
		e.Advice = "raise connectionPool.http.http2MaxRequests in the DestinationRule, or call less"
	case refusedPending:
		e.Reason = "as many calls as the mesh allows wait for an endpoint"
		e.Advice = "raise connectionPool.http.http1MaxPendingRequests in the DestinationRule, or see why no endpoint is ready"
	case refusedToShed:
		e.Reason = fmt.Sprintf("the mesh sheds load of the category %q", s.drops[o.category].category)
		e.Advice = "call less; the control plane's drop_overloads says how much"
	}
	return e
}

// unready says why none of the endpoints takes calls.
func (s *endpointSet) unready(p *plan) *Error {
	e := &Error{Stage: StageEndpoint, Resource: s.cluster.name, Err: ErrNotReady, Chain: fmt.Sprintf("listener %s ok > route %s ok > cluster %s ok > endpoint none", p.name, p.host, s.cluster.name)}
	if s.listed == 0 {
		e.Reason = "the mesh lists no endpoint"
		if n := len(s.from.others); n > 0 {
			e.Reason = fmt.Sprintf("the mesh lists %d endpoints, none of them healthy", n)
		}
		e.Advice = "start the provider, or see why its readiness probe fails"
		return e
	}
	const most = 3
	var each, advice []string
	for i := range s.listed {
		if len(each) == most {
			break
		}
		if s.hosts != nil && s.hosts[i].ejected.Load() {
			each = append(each, fmt.Sprintf("%s: ejected by the mesh's outlier detection", s.endpoints[i].addr))
		} else if c := s.slots[i].Load(); c != nil {
			each = append(each, fmt.Sprintf("%s: %s", s.endpoints[i].addr, c.problem()))
			if a := c.advice(); a != "" && !slices.Contains(advice, a) {
				advice = append(advice, a)
			}
		}
	}
	if len(each) == 0 {
		e.Reason = fmt.Sprintf("none of %d endpoints is ready: none was dialled yet", s.listed)
		e.Advice = "call again, or let the call wait with a deadline"
		return e
	}
	e.Reason = fmt.Sprintf("none of %d endpoints is ready: %s", s.listed, strings.Join(each, "; "))
	e.Advice = strings.Join(advice, "; ")
	return e
}
