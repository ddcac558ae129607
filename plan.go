package proxyless

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
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
	timeout               time.Duration // of calls whose context has no deadline; 0 is none
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

// plan is a snapshot compiled for one Invoker: everything that a call needs,
// found with one atomic load, so that route, cluster and endpoint never
// disagree. It is immutable, but for what its endpoint sets' cells live
// through. What the mesh does not ask for is compiled out.
type plan struct {
	routes  []plannedRoute
	only    *plannedRoute     // set when the one route matches every call
	headers metadata.MD       // Triple's request headers; shared, never written
	options []grpc.CallOption // of every attempt; shared, never written
	look    lookup            // what the routes look at
	name    string            // the listener in force, host:port
	host    string            // the virtual host in force

	problem *Error // set when no call can be routed
	waiting bool   // the problem may end by itself: an answer is outstanding

	superseded chan struct{} // closed when another plan takes over
	sets       []*endpointSet
}

// lookup says what the routes of a plan look at besides the path.
type lookup struct{ headers, fraction bool }

type plannedRoute struct {
	match    *routeMatch
	name     string
	clusters []plannedCluster
	total    uint32
	limit    time.Duration // of the call; 0 is none
	failure  string        // why the route cannot carry calls
}

type plannedCluster struct {
	name    string
	upTo    uint32 // the running sum of the weights, this one included
	set     *endpointSet
	problem *Error // set when there is no endpoint set
}

// obstacle is why a pick found nothing. Its text is made only when it is
// needed.
type obstacle struct {
	err     *Error       // what is known when the plan is compiled
	set     *endpointSet // or the endpoints of which none is ready
	hopeful bool         // waiting may help
}

// route finds the first route that matches; nil when none does.
func (p *plan) route(ctx context.Context, method string) *plannedRoute {
	if p.only != nil {
		return p.only
	}
	headers := callHeaders{path: method}
	if p.look.headers {
		headers.md, _ = metadata.FromOutgoingContext(ctx)
		headers.authority = p.name
	}
	var random uint32
	if p.look.fraction {
		random = rand.Uint32N(million)
	}
	for i := range p.routes {
		if r := &p.routes[i]; r.match.matches(method, &headers, random) {
			return r
		}
	}
	return nil
}

// million is the denominator of fractions, as runtime_fraction counts.
const million = 1_000_000

// choose picks a cluster by weight.
func (r *plannedRoute) choose() *plannedCluster {
	if len(r.clusters) == 1 {
		return &r.clusters[0]
	}
	draw := rand.Uint32N(r.total)
	for i := range r.clusters {
		if draw < r.clusters[i].upTo {
			return &r.clusters[i]
		}
	}
	return &r.clusters[len(r.clusters)-1]
}

// pick goes from the method to a connection: route, cluster, endpoint. The
// caller leaves the returned cell when the attempt is over.
func (p *plan) pick(ctx context.Context, method string) (attempt, obstacle) {
	if p.problem != nil {
		return attempt{}, obstacle{err: p.problem, hopeful: p.waiting}
	}
	r := p.route(ctx, method)
	if r == nil {
		return attempt{}, obstacle{err: p.unmatched(method)}
	}
	if r.failure != "" {
		return attempt{}, obstacle{err: p.unusable(r)}
	}
	c := r.choose()
	if c.set == nil {
		return attempt{}, obstacle{err: c.problem}
	}
	for cell := c.set.pick(); cell != nil; cell = c.set.pick() {
		if conn := cell.enter(); conn != nil {
			return attempt{plan: p, route: r, cell: cell, conn: conn}, obstacle{}
		}
	}
	return attempt{}, obstacle{set: c.set, hopeful: c.set.expectant()}
}

// attempt is one endpoint chosen for one call.
type attempt struct {
	plan  *plan
	route *plannedRoute
	cell  *cell
	conn  *grpc.ClientConn
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
	return &Error{Stage: StageRoute, Resource: r.name, Reason: r.failure, Advice: "change the VirtualService's route"}
}

// unready says why none of the endpoints takes calls.
func (s *endpointSet) unready(p *plan) *Error {
	e := &Error{Stage: StageEndpoint, Resource: s.cluster.name, Err: ErrNotReady, Chain: fmt.Sprintf("listener %s ok > route %s ok > cluster %s ok > endpoint none", p.name, p.host, s.cluster.name)}
	if len(s.endpoints) == 0 {
		e.Reason = "the mesh lists no endpoint"
		if s.from.unusable > 0 {
			e.Reason = fmt.Sprintf("the mesh lists %d endpoints, none of them healthy", s.from.unusable)
		}
		e.Advice = "start the provider, or see why its readiness probe fails"
		return e
	}
	const most = 3
	var each []string
	for i := range s.endpoints {
		if c := s.slots[i].Load(); c != nil && len(each) < most {
			each = append(each, fmt.Sprintf("%s: %s", s.endpoints[i].addr, c.problem()))
		}
	}
	e.Reason = fmt.Sprintf("none of %d endpoints is ready: %s", len(s.endpoints), strings.Join(each, "; "))
	e.Advice = "check that the provider listens on the Service's targetPort and that nothing blocks the way"
	return e
}

// planner compiles plans and keeps the endpoint sets that they share. Only the
// ADS loop uses it.
type planner struct {
	table *connTable
	sets  map[string]*endpointSet // current set by cluster name
}

func newPlanner(table *connTable) *planner {
	return &planner{table: table, sets: map[string]*endpointSet{}}
}

// compile makes the plan of a target. The plan has a problem while the chain
// is not whole.
func (pl *planner) compile(snap *snapshot, t *target) *plan {
	c := compilation{planner: pl, snap: snap, target: t, plan: &plan{headers: t.headers, superseded: make(chan struct{}), name: existing(snap, t.listeners)}}
	c.compile()
	pl.hold(c.plan)
	return c.plan
}

// hold counts a plan as a user of its endpoint sets.
func (pl *planner) hold(p *plan) {
	pl.table.mu.Lock()
	defer pl.table.mu.Unlock()
	for _, s := range p.sets {
		s.plans++
	}
}

// drop is the opposite of hold. Sets that no plan uses any more are retired.
func (pl *planner) drop(p *plan) {
	var idle []*endpointSet
	pl.table.mu.Lock()
	for _, s := range p.sets {
		if s.plans--; s.plans == 0 {
			idle = append(idle, s)
		}
	}
	pl.table.mu.Unlock()
	for _, s := range idle {
		if pl.sets[s.cluster.name] == s {
			delete(pl.sets, s.cluster.name)
		}
		s.retire()
	}
}

// set returns the endpoint set of a cluster, made from the current one where
// the assignment changed.
func (pl *planner) set(c *cluster, a *assignment) *endpointSet {
	current := pl.sets[c.name]
	if current != nil && current.cluster == c && current.from == a {
		return current
	}
	s := newEndpointSet(pl.table, c, a, current)
	pl.sets[c.name] = s
	return s
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
	sets    map[*endpointSet]struct{}
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
	c.plan.host = host.name
	// The authority is what the route was chosen by; it is given per call since
	// connections are shared between services.
	c.plan.options = []grpc.CallOption{grpc.CallAuthority(c.plan.name), grpc.CallContentSubtype("proto")}
	c.plan.routes = make([]plannedRoute, 0, len(host.routes))
	for i := range host.routes {
		if r := &host.routes[i]; r.match.never == "" {
			c.route(l, r)
		}
	}
	if c.plan.problem != nil {
		c.plan.routes = nil
		return
	}
	if len(c.plan.routes) > 0 && c.plan.routes[0].match.everything() {
		c.plan.only = &c.plan.routes[0]
	}
	for s := range c.sets {
		c.plan.sets = append(c.plan.sets, s)
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

// choosePort takes the only port, else the only one with routes.
func (c *compilation) choosePort(names []string) *resourceState {
	if len(names) == 1 {
		return c.need(kindListener, names[0])
	}
	var routed []*resourceState
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
		if routes == nil {
			return nil
		}
		if len(routes.virtualHosts) > 0 {
			routed = append(routed, state)
		}
	}
	if len(routed) == 1 {
		return routed[0]
	}
	reason := fmt.Sprintf("the Service has %d ports with routes among %s", len(routed), strings.Join(ports, ", "))
	c.fail(StageListener, c.target.providedBy, reason, "say which with proxyless.Port, or write the port behind the name in providedBy")
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

func (c *compilation) virtualHost(routes *routeConfig) *virtualHost {
	if len(routes.virtualHosts) == 0 {
		c.fail(StageRoute, routes.name, "the port has a listener but no routes: the mesh takes it for something else than HTTP or gRPC",
			"name the Service's port grpc-... (or http-...), or give it appProtocol: grpc")
		return nil
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
	planned := plannedRoute{match: &r.match, name: r.name, total: r.total, failure: r.failure, limit: l.maxStreamDuration}
	if r.hasMaxDuration {
		planned.limit = r.maxDuration
	}
	sum := uint32(0)
	links := c.links
	for _, w := range r.clusters {
		c.links = links
		sum += w.weight
		next := plannedCluster{name: w.name, upTo: sum}
		if next.set, next.problem = c.cluster(w.name); c.plan.problem != nil {
			return
		}
		planned.clusters = append(planned.clusters, next)
	}
	c.links = links
	if len(planned.clusters) == 0 && planned.failure == "" {
		planned.failure = "the route names no cluster with a weight"
	}
	c.plan.look.headers = c.plan.look.headers || r.match.needsHeaders()
	c.plan.look.fraction = c.plan.look.fraction || r.match.partial
	c.plan.routes = append(c.plan.routes, planned)
}

// cluster finds a cluster's endpoint set, or why there is none.
func (c *compilation) cluster(name string) (*endpointSet, *Error) {
	state := c.need(kindCluster, name)
	if state == nil {
		return nil, c.local()
	}
	v := state.value.(*cluster)
	if v.failure != "" {
		c.fail(StageCluster, name, v.failure, "")
		return nil, c.local()
	}
	if state = c.need(kindEndpoints, v.edsName); state == nil {
		return nil, c.local()
	}
	s := c.planner.set(v, state.value.(*assignment))
	if c.sets == nil {
		c.sets = map[*endpointSet]struct{}{}
	}
	c.sets[s] = struct{}{}
	return s, nil
}

// local takes a problem that is final back from the plan, to be one cluster's
// own. One that waits stays the plan's.
func (c *compilation) local() *Error {
	if c.plan.waiting {
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
		c.plan.waiting = true
	case statusAbsent:
		c.fail(stageOf[k], name, "the mesh knows nothing of that name", absentAdvice[k])
	case statusRejected:
		c.fail(stageOf[k], name, "what the control plane sent was rejected: "+state.rejection, "")
		c.plan.waiting = true
	}
	return nil
}

var stageOf = [kindCount]Stage{StageListener, StageRoute, StageCluster, StageEndpoint}

var absentAdvice = [kindCount]string{
	kindListener: "check providedBy (name, name.namespace or full host), the port, and that the Service exists and is visible from this namespace (exportTo, Sidecar)",
	kindCluster:  "check that the VirtualService's destination exists, and its subset in a DestinationRule",
}

func (c *compilation) fail(stage Stage, resource, reason, advice string) {
	c.plan.problem = &Error{Stage: stage, Resource: resource, Reason: reason, Advice: advice, Chain: strings.Join(c.links, " > "), Err: ErrNotReady}
}

// complete says that calls can be routed.
func (p *plan) complete() bool { return p.problem == nil }

// census counts the endpoints of all sets and those that are ready.
func (p *plan) census() (endpoints, ready int) {
	for _, s := range p.sets {
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
