package proxyless

import (
	"context"
	"fmt"
	"slices"

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

// pending is the plan of an Invoker that the ADS loop has not seen yet.
func pending(name string) *plan {
	return &plan{name: name, waiting: true, superseded: make(chan struct{}), problem: &Error{
		Stage: StageListener, Resource: name, Reason: "the control plane has not answered yet", Chain: "listener " + name + " requested", Err: ErrNotReady}}
}

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
	h := p.callHeaders(ctx, method)
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

// route finds the first route that matches a call; nil when none does.
func (p *plan) route(ctx context.Context, method string) *plannedRoute {
	if p.routes.only != nil {
		return p.routes.only
	}
	if !p.routes.headers {
		return p.routes.find(method, nil)
	}
	h := p.callHeaders(ctx, method)
	return p.routes.find(method, &h)
}

// callHeaders are what matchers see of a call.
func (p *plan) callHeaders(ctx context.Context, method string) callHeaders {
	return callHeaders{ctx: ctx, md: p.headers, authority: p.name, path: method}
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
