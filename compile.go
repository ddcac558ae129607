package proxyless

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"
)

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

// keep plans the routes of the last whole plan with the endpoints of today.
func (c *compilation) keep(last *plan) {
	c.last, c.plan.name = last, last.name
	c.assemble(last.listener, last.virtualHost)
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

const nameThePort = "name the Service's port grpc-... (or http-...), or give it appProtocol: grpc"

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
