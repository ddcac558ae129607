package proxyless

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// target is what one Invoker refers to. It is constant.
type target struct {
	iface, version, group string
	providedBy            string   // as the user wrote it
	listeners             []string // the names asked of the mesh; the first one that exists counts
	headers               metadata.MD
	node                  string        // this process's id, as istiod knows it
	timeout               time.Duration // of calls whose context has no deadline; 0 is none
	caller                caller
	prefers               preference
	tolerance             tolerance
}

// listenerNames are the names to ask for a host and a port, which is empty
// where the choice is left to the mesh. istiod completes a short name, and
// name.namespace for the workload's own namespace only (tried): names that may
// mean a Service of another namespace are asked for in full first, and as they
// are too, since they may also be hosts of a ServiceEntry.
func listenerNames(host, port, domain string) []string {
	names := []string{host}
	labels := strings.Split(host, ".")
	if len(labels) == 2 || len(labels) == 3 && labels[2] == "svc" {
		names = []string{labels[0] + "." + labels[1] + ".svc." + domain, host}
	}
	if port != "" {
		for i := range names {
			names[i] += ":" + port
		}
	}
	return names
}

// existing is the first of the listeners that exists, else the first of which
// that is not known yet.
func existing(snap *snapshot, names []string) string {
	for _, want := range []resourceStatus{statusAccepted, statusRejected, statusRequested} {
		for _, name := range names {
			if state := snap.get(kindListener, name); state != nil && state.status == want {
				return name
			}
		}
	}
	return names[0]
}

// compilation is the state of compiling one plan.
type compilation struct {
	planner *planner
	snap    *snapshot
	target  *target
	plan    *plan
	links   []string // the chain so far, for errors
	planned []plannedRoute
	sets    map[*endpointSet]bool     // true for those that calls go to, and not only copies
	spare   bool                      // what is looked for may be missing
	before  string                    // the listener in force until now
	named   map[string]plannedCluster // those that calls may name; nil until a route asks for it
	last    *plan                     // whose clusters stand in for those the snapshot has nothing of; may be nil
}

func newCompilation(pl *planner, snap *snapshot, t *target) *compilation {
	return &compilation{planner: pl, snap: snap, target: t,
		plan: &plan{headers: t.headers, caller: t.caller, superseded: make(chan struct{}), name: existing(snap, t.listeners)}}
}

// keep plans the routes of the last whole plan with the endpoints of today.
func (c *compilation) keep(last *plan) {
	c.last, c.plan.name = last, last.name
	c.assemble(last.listener, last.virtualHost)
}

func (c *compilation) compile() {
	l := c.listener()
	if l == nil {
		return
	}
	routes := c.routes(l)
	if routes == nil {
		return
	}
	host := c.virtualHost(routes)
	if host == nil {
		return
	}
	c.assemble(l, host)
}

// assemble plans the routes of a virtual host.
func (c *compilation) assemble(l *listener, host *virtualHost) {
	c.plan.listener, c.plan.virtualHost, c.plan.host = l, host, host.name
	// The authority is what the route was chosen by; it is given per call since
	// connections are shared between services.
	c.plan.options = []grpc.CallOption{grpc.CallAuthority(c.plan.name), grpc.CallContentSubtype(contentSubtype)}
	for i := range host.routes {
		if r := &host.routes[i]; r.match.never == "" && c.plan.problem == nil {
			c.route(l, r)
		}
	}
	for s, needed := range c.sets { // also of a plan with a problem: its drop retires them
		c.plan.sets = append(c.plan.sets, s)
		if !needed {
			c.plan.spare = append(c.plan.spare, s)
		}
	}
	if c.plan.problem == nil {
		c.plan.routes = newRouteTable(c.planned)
	}
}

// listener finds the listener that answers for the target, choosing the port
// where that is left to the mesh.
func (c *compilation) listener() *listener {
	state := c.need(kindListener, c.plan.name)
	if state != nil && len(state.ports) > 0 {
		state = c.choosePort(state.ports)
	}
	if state == nil {
		return nil
	}
	c.plan.name = state.name
	l, _ := state.value.(*listener)
	if l == nil || l.routeName == "" && l.inline == nil {
		c.fail(StageListener, state.name, "it is not made for callers", "refer to a Service, not to an inbound listener")
		return nil
	}
	return l
}

// choosePort takes the only port, else the only one with routes, else the one
// in force until now: a port that is added breaks nobody.
func (c *compilation) choosePort(names []string) *resourceState {
	if len(names) == 1 {
		return c.need(kindListener, names[0])
	}
	var routed []*resourceState
	var kept *resourceState
	var ports []string
	for _, name := range names {
		_, port := splitPort(name)
		ports = append(ports, port)
		state := c.need(kindListener, name)
		if state == nil {
			return nil
		}
		l, _ := state.value.(*listener)
		if l == nil {
			continue
		}
		routes := c.routes(l)
		if c.plan.gap {
			return nil
		}
		c.plan.problem = nil // a port without routes is no choice, and no harm
		if routes != nil && len(routes.virtualHosts) > 0 {
			routed = append(routed, state)
		}
		if name == c.before && len(routed) > 0 && routed[len(routed)-1] == state {
			kept = state
		}
	}
	if len(routed) == 1 {
		return routed[0]
	}
	if kept != nil {
		return kept
	}
	list := strings.Join(ports, ", ")
	if len(routed) == 0 {
		c.fail(StageRoute, c.target.providedBy, fmt.Sprintf("none of its ports %s has routes: the mesh takes them for something else than HTTP or gRPC", list), nameThePort)
		return nil
	}
	c.fail(StageListener, c.target.providedBy, fmt.Sprintf("the Service has %d ports with routes among %s", len(routed), list),
		"say which with proxyless.Port, or write the port behind the name in providedBy")
	return nil
}

func (c *compilation) routes(l *listener) *routeConfig {
	if l.inline != nil {
		return l.inline
	}
	if state := c.need(kindRoute, l.routeName); state != nil {
		return state.value.(*routeConfig)
	}
	return nil
}

const nameThePort = "name the Service's port grpc-... (or http-...), or give it appProtocol: grpc"

func (c *compilation) virtualHost(routes *routeConfig) *virtualHost {
	if len(routes.virtualHosts) == 0 {
		c.fail(StageRoute, routes.name, "the port has a listener but no routes: the mesh takes it for something else than HTTP or gRPC", nameThePort)
		return nil
	}
	if routes.settled {
		return &routes.virtualHosts[0]
	}
	host := matchDomain(routes.virtualHosts, c.plan.name)
	if host == nil {
		c.fail(StageRoute, routes.name, fmt.Sprintf("no virtual host has the domain %s", c.plan.name), "refer to the Service by one of its names in the mesh")
	}
	return host
}

// route plans one route. A cluster that does not exist fails its own share of
// the calls only; one that is not known yet keeps the whole plan waiting.
func (c *compilation) route(l *listener, r *route) {
	planned := plannedRoute{match: &r.match, name: r.name, total: r.total, failure: r.failure, code: r.code, limit: l.maxStreamDuration}
	if r.hasMaxDuration {
		planned.limit = r.maxDuration
	}
	links := c.links
	planned.policy = c.target.policy(l.complete(r.policy))
	planned.mirrors = c.mirrors(planned.policy)
	if r.header != "" {
		planned.header, planned.named = r.header, c.known()
	}
	sum := uint32(0)
	for _, w := range r.clusters {
		c.links = links
		sum += w.weight
		next := plannedCluster{name: w.name, upTo: sum}
		if w.policy != nil {
			next.policy = c.target.policy(l.complete(w.policy))
			next.mirrors = c.mirrors(next.policy)
		}
		if c.choices(&next); c.plan.problem != nil {
			return
		}
		planned.clusters = append(planned.clusters, next)
	}
	c.links = links
	if len(planned.clusters) == 0 && planned.header == "" && planned.failure == "" {
		planned.failure = "the route names no cluster with a weight"
	}
	c.planned = append(c.planned, planned)
}

// policy is a route's policy as the reference wants it.
func (t *target) policy(mesh *routePolicy) *routePolicy {
	return t.tolerance.policy(t.prefers.policy(mesh))
}

// complete adds to a route's policy what its listener asks for. It returns nil
// where nothing is asked for.
func (f *forwarding) complete(p *routePolicy) *routePolicy {
	var whole routePolicy
	if p != nil {
		whole = *p
	}
	if whole.fault == nil {
		whole.fault = f.fault
	}
	if whole.session == nil {
		whole.session = f.session
	}
	if whole.fault != nil && whole.fault.idle() {
		whole.fault = nil
	}
	if whole.session != nil && whole.session.off() {
		whole.session = nil
	}
	switch {
	case whole.empty():
		return nil
	case p != nil && whole.fault == p.fault && whole.session == p.session:
		return p
	}
	return &whole
}

// mirrors plans where copies go. What the mesh has nothing of gets none: copies
// neither fail a route nor keep it waiting.
func (c *compilation) mirrors(p *routePolicy) []plannedMirror {
	if p == nil {
		return nil
	}
	var all []plannedMirror
	for i := range p.mirrors {
		m := plannedMirror{policy: &p.mirrors[i]}
		if m.policy.header != "" {
			m.named = c.known()
		} else {
			m.cluster = c.optional(m.policy.cluster)
		}
		all = append(all, m)
	}
	return all
}

// optional finds a cluster that the plan can do without.
func (c *compilation) optional(name string) plannedCluster {
	p, links := c.plan, c.links
	problem, waiting, gap := p.problem, p.waiting, p.gap
	p.problem = nil
	next := plannedCluster{name: name}
	c.spare = true
	c.choices(&next)
	c.spare = false
	if p.problem != nil { // a gap in its own chain: nobody else waits for it
		next.set, next.leaves, next.problem, next.waiting = nil, nil, p.problem, p.waiting
	}
	c.links, p.problem, p.waiting, p.gap = links, problem, waiting, gap
	return next
}

// known finds all clusters that the snapshot has, for routes that leave it to
// the call to name one.
func (c *compilation) known() map[string]plannedCluster {
	if c.named == nil {
		c.named = map[string]plannedCluster{}
		for name, state := range c.snap.resources[kindCluster] {
			if state.status == statusAccepted {
				c.named[name] = c.optional(name)
			}
		}
	}
	return c.named
}

// cluster finds a cluster's endpoint set, or why there is none.
func (c *compilation) cluster(name string) (*endpointSet, *Error) {
	if old := c.last.cluster(name); old != nil && c.snap.lacks(name, c.plan.name) {
		if old.set != nil {
			c.use(old.set)
		}
		return old.set, old.problem
	}
	state := c.need(kindCluster, name)
	if state == nil {
		return nil, c.local()
	}
	v := state.value.(*cluster)
	if v.failure != "" {
		c.fail(StageCluster, name, v.failure, "")
		return nil, c.local()
	}
	if state = c.need(kindEndpoints, c.snap.endpointsOf(v, c.plan.name)); state == nil {
		return nil, c.local()
	}
	s := c.planner.set(v, state.value.(*assignment), c.target.prefers.of(v), c.plan.name)
	c.use(s)
	return s, nil
}

func (c *compilation) use(s *endpointSet) {
	if c.sets == nil {
		c.sets = map[*endpointSet]bool{}
	}
	c.sets[s] = c.sets[s] || !c.spare
}

// lacks says that a cluster or its endpoints are not known, or only refused.
func (s *snapshot) lacks(name, authority string) bool {
	if s.gapAt(kindCluster, name) {
		return true
	}
	v, ok := s.get(kindCluster, name).value.(*cluster)
	return ok && v.failure == "" && s.gapAt(kindEndpoints, s.endpointsOf(v, authority))
}

// gapAt says that a resource is not known, or only refused.
func (s *snapshot) gapAt(k kind, name string) bool {
	state := s.get(k, name)
	return state == nil || state.status == statusRequested || state.status == statusRejected
}

// endpointsOf is the name of the assignment that a cluster uses for calls to an
// authority: one of ORIGINAL_DST for which EDS has no endpoints calls what they
// name.
func (s *snapshot) endpointsOf(v *cluster, authority string) string {
	name := v.endpointsName(authority)
	if v.originalDst && s.get(kindEndpoints, hostPrefix+authority) != nil {
		if state := s.get(kindEndpoints, name); state != nil && v.deserted(state.value) {
			return hostPrefix + authority
		}
	}
	return name
}

// local takes a problem that is final back from the plan, to be one cluster's
// own. One that may end stays the plan's.
func (c *compilation) local() *Error {
	if c.plan.gap {
		return nil
	}
	err := c.plan.problem
	c.plan.problem = nil
	return err
}

// need looks up a link of the chain. It returns nil, and gives the plan a
// problem, where the link holds no value.
func (c *compilation) need(k kind, name string) *resourceState {
	state := c.snap.get(k, name)
	status := statusRequested
	if state != nil {
		status = state.status
	}
	c.links = append(c.links, fmt.Sprintf("%s %s %s", k, name, status))
	switch status {
	case statusAccepted:
		return state
	case statusRequested:
		c.fail(stageOf[k], name, "the control plane has not answered yet", "")
		c.plan.waiting, c.plan.gap = true, true
	case statusAbsent:
		if state.reason != "" {
			c.fail(stageOf[k], name, state.reason, state.advice)
		} else {
			c.fail(stageOf[k], name, "the mesh knows nothing of that name", absentAdvice[k])
		}
	case statusRejected:
		c.fail(stageOf[k], name, "what the control plane sent was rejected: "+state.rejection, "the log and /snapshot have the whole list")
		c.plan.gap = true
	}
	return nil
}

var stageOf = [kindCount]Stage{StageListener, StageRoute, StageCluster, StageEndpoint}

func (c *compilation) fail(stage Stage, resource, reason, advice string) {
	c.plan.problem = &Error{Stage: stage, Resource: resource, Reason: reason, Advice: advice, Chain: strings.Join(c.links, " > "), Err: ErrNotReady}
}
