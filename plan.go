package proxyless

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// plan is a snapshot compiled for one Invoker: everything that a call needs,
// found with one atomic load, so that route, cluster and endpoint never
// disagree. It is immutable, but for what its endpoint sets' cells live
// through. What the mesh does not ask for is compiled out.
type plan struct {
	routes  routeTable
	headers metadata.MD       // Triple's request headers; shared, never written
	options []grpc.CallOption // of every attempt; shared, never written
	name    string            // the listener in force, host:port; the authority of calls
	host    string            // the virtual host in force
	caller  caller            // who calls

	// What the plan was compiled from, for the next one; nil with a problem.
	listener    *listener
	virtualHost *virtualHost

	problem *Error // set when no call can be routed
	waiting bool   // the problem ends by itself: an answer is outstanding
	gap     bool   // the chain may yet close: waiting, or refused while nothing good is held

	superseded chan struct{}  // closed when another plan takes over
	sets       []*endpointSet // all that the plan holds
	spare      []*endpointSet // those of sets that get nothing but copies
}

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

// way is how a call goes: the route that matched, and the cluster chosen by
// weight. All attempts of a call go the same way while its plan is in force.
type way struct {
	plan    *plan
	route   *plannedRoute
	cluster *plannedCluster
}

// policy is what the route asks for beyond forwarding; nil when nothing.
func (w *way) policy() *routePolicy {
	if w.cluster.policy != nil {
		return w.cluster.policy
	}
	return w.route.policy
}

// find goes from the method to a cluster. Where the way is blocked, route is nil.
func (p *plan) find(ctx context.Context, method string) (way, obstacle) {
	if p.problem != nil {
		return way{}, obstacle{err: p.problem, hopeful: p.waiting}
	}
	r := p.route(ctx, method)
	if r == nil {
		return way{}, obstacle{err: p.unmatched(method)}
	}
	if r.failure != "" {
		return way{}, obstacle{err: p.unusable(r)}
	}
	if r.header != "" {
		return p.byHeader(ctx, method, r)
	}
	c := r.choose()
	if c.leaves != nil {
		c = c.leaf()
	}
	if c.set == nil {
		return way{}, obstacle{err: c.problem}
	}
	return way{plan: p, route: r, cluster: c}, obstacle{}
}

// byHeader goes to the cluster that the call names itself (cluster_header).
func (p *plan) byHeader(ctx context.Context, method string, r *plannedRoute) (way, obstacle) {
	h := callHeaders{ctx: ctx, md: p.headers, authority: p.name, path: method}
	name, has := h.get(r.header)
	if c, known := r.named[name]; known && c.set != nil {
		return way{plan: p, route: r, cluster: c.leaf()}, obstacle{}
	} else if known {
		return way{}, obstacle{err: c.problem, hopeful: c.waiting}
	}
	e := &Error{Stage: StageCluster, Resource: name, Reason: fmt.Sprintf("the route takes the cluster's name from the call's header %s, and the process knows no such cluster", r.header),
		Advice: "name one of the clusters that the references of this process lead to", Chain: fmt.Sprintf("listener %s ok > route %s ok", p.name, p.host)}
	if !has {
		e.Reason = fmt.Sprintf("the route takes the cluster's name from the call's header %s, which the call lacks", r.header)
		e.Advice = "send it as metadata"
	}
	return way{}, obstacle{err: e}
}

// pick goes on from the cluster to a connection. In an aggregate cluster it
// begins with the one that calls go to now, which may be another than it was
// when the way was found. The caller finishes the attempt when it is over.
func (w *way) pick(c choice) (attempt, obstacle) {
	if w.cluster.leaves != nil {
		w.cluster = w.cluster.leaf()
	}
	s := w.cluster.set
	if s.limits != nil && !s.limits.admit() {
		return attempt{}, obstacle{set: s, refused: refusedRequests}
	}
	for at, cell := s.pick(c); cell != nil; at, cell = s.pick(c) {
		if s.drops != nil {
			if i, drop := s.shed(); drop {
				s.giveUp()
				return attempt{}, obstacle{set: s, refused: refusedToShed, category: i}
			}
		}
		if conn := cell.enter(); conn != nil {
			return w.begin(at, cell, conn), obstacle{}
		}
	}
	s.giveUp()
	blocked := obstacle{set: s, hopeful: s.hope(c)}
	if !blocked.hopeful && c.extra != nil && c.extra.strict {
		blocked.err = s.unpinned(c.extra.sticky)
	} else if !blocked.hopeful && w.cluster.leaves != nil {
		blocked.hopeful = w.cluster.leaf() != w.cluster // it failed just now
	}
	return attempt{}, blocked
}

// begin is an attempt at an endpoint that was entered.
func (w *way) begin(at uint64, c *cell, conn *grpc.ClientConn) attempt {
	s := w.cluster.set
	a := attempt{way: *w, set: s, at: at, cell: c, conn: conn}
	if s.hosts != nil {
		a.host = s.hosts[at]
		if s.split {
			a.answer = new(answer)
		}
		if s.timed {
			a.begun = sinceStart()
		}
	}
	return a
}

// enter is pick where the endpoint is given.
func (w *way) enter(at uint64) (attempt, bool) {
	s := w.cluster.set
	if s.limits != nil && !s.limits.admit() {
		return attempt{}, false
	}
	if c := s.usable(at); c != nil {
		if conn := c.enter(); conn != nil {
			return w.begin(at, c, conn), true
		}
	}
	s.giveUp()
	return attempt{}, false
}

// giveUp counts a call out that was admitted and came to nothing.
func (s *endpointSet) giveUp() {
	if s.limits != nil {
		s.limits.leave()
	}
}

// route finds the first route that matches a call; nil when none does.
func (p *plan) route(ctx context.Context, method string) *plannedRoute {
	if p.routes.only != nil {
		return p.routes.only
	}
	if !p.routes.headers {
		return p.routes.find(method, nil)
	}
	return p.routes.find(method, &callHeaders{ctx: ctx, md: p.headers, authority: p.name, path: method})
}

// attempt is one endpoint chosen for one call.
type attempt struct {
	way
	set  *endpointSet
	at   uint64 // the endpoint's index in set
	host *host  // nil where the cluster has no state
	cell *cell
	conn *grpc.ClientConn

	begun  time.Duration // since the process started; 0 where nobody asks how long it took
	answer *answer       // nil unless failures of local origin are told from others
}

// finish counts the attempt out, and its outcome where somebody wants to know.
func (a *attempt) finish(err error) {
	a.cell.leave()
	s := a.set
	if s.limits != nil {
		s.limits.leave()
	}
	if s.timed && err == nil {
		now := sinceStart()
		a.host.replies.add(now-a.begun, now)
	}
	if s.judged {
		s.state.observe(a.host, a.verdict(err))
	}
}

// verdict is what outlier detection counts.
func (a *attempt) verdict(err error) verdict {
	if a.answer != nil {
		return a.answer.judge(err)
	}
	return verdictOf(err)
}

// options are those of one attempt: the plan's, then the caller's, which win.
func (a *attempt) options(opts []grpc.CallOption) []grpc.CallOption {
	opts = a.plan.callOptions(opts)
	if a.answer != nil {
		opts = append(slices.Clip(opts), a.answer.options()...)
	}
	return opts
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

// cluster finds a cluster of the plan by name; nil when it has none such.
func (p *plan) cluster(name string) *plannedCluster {
	if p == nil {
		return nil
	}
	for i := range p.routes.routes {
		for j := range p.routes.routes[i].clusters {
			c := &p.routes.routes[i].clusters[j]
			if c.name == name {
				return c
			}
			for l := range c.leaves {
				if c.leaves[l].name == name {
					return &c.leaves[l]
				}
			}
		}
	}
	return nil
}

// barren is why no route leads to endpoints; nil where one does, or where the
// calls themselves name the cluster.
func (p *plan) barren() (why *Error) {
	for i := range p.routes.routes {
		r := &p.routes.routes[i]
		if r.header != "" {
			return nil
		}
		if r.failure != "" && why == nil {
			why = p.unusable(r)
		}
		for j := range r.clusters {
			if c := &r.clusters[j]; c.set != nil {
				return nil
			} else if why == nil || why.Stage == StageRoute {
				why = c.problem
			}
		}
	}
	return why
}

// needed are the sets without which calls fail.
func (p *plan) needed() []*endpointSet {
	if len(p.spare) == 0 {
		return p.sets
	}
	return slices.DeleteFunc(slices.Clone(p.sets), func(s *endpointSet) bool { return slices.Contains(p.spare, s) })
}

// complete says that calls can be routed.
func (p *plan) complete() bool { return p.problem == nil }

// census counts the endpoints of all sets and those that are ready.
func (p *plan) census() (endpoints, ready int) {
	for _, s := range p.needed() {
		n, r := s.census()
		endpoints, ready = endpoints+n, ready+r
	}
	return endpoints, ready
}

// callOptions puts the plan's options before the caller's, which win.
func (p *plan) callOptions(opts []grpc.CallOption) []grpc.CallOption {
	if len(opts) == 0 {
		return p.options
	}
	return slices.Concat(p.options, opts)
}
