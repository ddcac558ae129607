package proxyless

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
)

// explaining is the making of one explanation, from a plan and the snapshot
// that it was compiled from.
type explaining struct {
	inv    *Invoker
	plan   *plan
	snap   *snapshot
	ctx    context.Context // with the hypothetical call's metadata
	method string
	out    *Explanation
}

// explain tells how a call goes by the plan in force.
func (inv *Invoker) explain(p *plan, snap *snapshot, method string, md metadata.MD) *Explanation {
	out := &Explanation{Service: inv.target.providedBy, Method: method, Reference: inv.target.key(), Authority: p.name}
	x := &explaining{inv: inv, plan: p, snap: snap, method: method, out: out, ctx: metadata.NewOutgoingContext(context.Background(), md)}
	x.listeners()
	l := p.listener
	if l == nil {
		l = x.valueOf(p.name)
	}
	if l != nil {
		x.virtualHosts(l)
	}
	if p.problem != nil {
		out.Error = inv.describe(p, obstacle{err: p.problem}).Error()
		return out
	}
	x.routes()
	x.conclude()
	return out
}

// key is interface, version and group as QoS writes them.
func (t *target) key() string {
	return referenceState{Interface: t.iface, Version: t.version, Group: t.group}.key()
}

func (x *explaining) valueOf(name string) *listener {
	if state := x.snap.get(kindListener, name); state != nil {
		l, _ := state.value.(*listener)
		return l
	}
	return nil
}

// listeners explains the names asked for, and the ports of the one that was
// found without.
func (x *explaining) listeners() {
	for _, name := range x.inv.target.listeners {
		state := x.snap.get(kindListener, name)
		host, _ := splitPort(x.plan.name)
		n := ExplainedName{Name: name, Taken: name == x.plan.name || state != nil && len(state.ports) > 0 && name == host}
		switch {
		case state == nil:
			n.Reason = statusRequested.String()
		case state.rejection != "":
			n.Reason = "rejected: " + state.rejection
		case state.status != statusAccepted:
			n.Reason = state.status.String() + because(state.reason)
		case !n.Taken:
			n.Reason = "another name comes before it"
		}
		x.out.Listeners = append(x.out.Listeners, n)
		x.ignored(state)
		if state != nil {
			for _, port := range state.ports {
				x.port(port)
			}
		}
	}
}

// port explains one port of a service that was asked for without.
func (x *explaining) port(name string) {
	n := ExplainedName{Name: name, Taken: name == x.plan.name}
	l := x.valueOf(name)
	switch {
	case n.Taken:
		x.ignored(x.snap.get(kindListener, name))
	case l == nil:
		n.Reason = "what the control plane sent was rejected"
	default:
		routes := x.routesOf(l)
		switch {
		case routes == nil:
			n.Reason = "its routes have not come"
		case len(routes.virtualHosts) == 0:
			n.Reason = "it has no routes: the mesh takes it for something else than HTTP or gRPC"
		case x.plan.complete():
			n.Reason = "another port is in force"
		default:
			n.Reason = "which of the ports is meant has to be said"
		}
	}
	x.out.Listeners = append(x.out.Listeners, n)
}

func (x *explaining) routesOf(l *listener) *routeConfig {
	if l.inline != nil {
		return l.inline
	}
	if state := x.snap.get(kindRoute, l.routeName); state != nil {
		routes, _ := state.value.(*routeConfig)
		return routes
	}
	return nil
}

// virtualHosts explains the choice among the virtual hosts of a port.
func (x *explaining) virtualHosts(l *listener) {
	routes := x.routesOf(l)
	if l.routeName != "" {
		x.out.RouteConfiguration = l.routeName
		x.ignored(x.snap.get(kindRoute, l.routeName))
	}
	if routes == nil {
		return
	}
	winner := x.plan.virtualHost // the plan's, where it has one: it is what calls go by
	if winner == nil && !routes.settled {
		winner = matchDomain(routes.virtualHosts, x.plan.name)
	}
	x.passed(routes, winner)
	found := false
	for i := range routes.virtualHosts {
		v := &routes.virtualHosts[i]
		n := ExplainedName{Name: v.name, Taken: v == winner}
		if !n.Taken {
			n.Reason = domainObjection(v, winner, x.plan.name)
		}
		found = found || n.Taken
		x.out.VirtualHosts = append(x.out.VirtualHosts, n)
	}
	if winner != nil && !found {
		x.out.VirtualHosts = append(x.out.VirtualHosts, ExplainedName{Name: winner.name, Taken: true, Reason: "of the last whole configuration: the new one has gaps"})
	}
}

// passed explains the virtual hosts that were not meant, where only the one that
// was has been kept.
func (x *explaining) passed(routes *routeConfig, winner *virtualHost) {
	for i := range routes.passed {
		v := &routes.passed[i]
		n := ExplainedName{Name: v.name, Reason: "it takes what no other virtual host has"}
		switch {
		case winner == nil:
			n.Reason = "it takes what is no service of the mesh, and this is one"
		case !isCatchAll(v) || isCatchAll(winner):
			n.Reason = fmt.Sprintf("%s matches better than its domains %s", winner.name, someOf(v.domains))
		}
		x.out.VirtualHosts = append(x.out.VirtualHosts, n)
	}
}

// routes explains the choice among the routes of the virtual host. A call draws
// one number, which is held against the fraction of each route.
func (x *explaining) routes() {
	headers := x.plan.callHeaders(x.ctx, x.method)
	taken := uint32(0)
	winner := ""
	for i := range x.plan.virtualHost.routes {
		r := &x.plan.virtualHost.routes[i]
		row := ExplainedRoute{Name: r.name, Match: r.match.words()}
		part := uint32(fractionScale)
		if r.match.partial {
			part = min(part, r.match.fraction)
		}
		switch {
		case taken == fractionScale:
			row.Reason = "comes after " + winner
		case !r.match.matches(x.method, &headers, 0):
			row.Reason = r.match.objection(x.method, &headers)
		case part <= taken:
			row.Reason = "routes before it take its share of the calls"
		default:
			row.Share = float64(part-taken) / fractionScale
			taken = part
			winner = either(r.name != "", "route "+r.name, fmt.Sprintf("route %d", i))
			x.route(r, &row)
		}
		x.out.Routes = append(x.out.Routes, row)
	}
	if taken < fractionScale {
		x.out.Error = x.inv.describe(x.plan, obstacle{err: x.plan.unmatched(x.method)}).Error()
	}
}

// route explains what becomes of the calls that a route takes.
func (x *explaining) route(r *route, row *ExplainedRoute) {
	at := slices.IndexFunc(x.plan.routes.routes, func(p plannedRoute) bool { return p.match == &r.match })
	if at < 0 {
		return
	}
	p := &x.plan.routes.routes[at]
	if p.limit > 0 {
		row.Policies = append(row.Policies, fmt.Sprintf("time limit %s", p.limit))
	}
	row.Policies = append(row.Policies, p.policy.words()...)
	if p.failure != "" {
		row.Error = x.inv.describe(x.plan, obstacle{err: x.plan.unusable(p)}).Error()
		return
	}
	before := uint32(0)
	for i := range p.clusters {
		c := &p.clusters[i]
		row.Clusters = append(row.Clusters, x.cluster(c, float64(c.upTo-before)/float64(max(1, p.total))))
		before = c.upTo
	}
}

func (x *explaining) cluster(c *plannedCluster, share float64) ExplainedCluster {
	row := ExplainedCluster{Name: c.name, Share: share}
	state := x.snap.get(kindCluster, c.name)
	x.ignored(state)
	if c.set == nil {
		if c.problem != nil {
			row.Error = x.inv.describe(x.plan, obstacle{err: c.problem}).Error()
		}
		return row
	}
	c = c.leaf()
	x.ignored(x.snap.get(kindEndpoints, c.set.from.cluster))
	x.endpoints(c.set, &row)
	if c.policy != nil {
		row.Policies = append([]string{"in place of the route's: " + strings.Join(c.policy.words(), "; ")}, row.Policies...)
	}
	return row
}

// ignored notes what of a resource on the way is not applied.
func (x *explaining) ignored(state *resourceState) {
	if state == nil {
		return
	}
	for _, path := range state.ignored {
		if text := fmt.Sprintf("%s %s: %s", state.kind, state.name, path); !slices.Contains(x.out.Ignored, text) {
			x.out.Ignored = append(x.out.Ignored, text)
		}
	}
}

// conclude says what the call fails with where no way of it leads anywhere.
func (x *explaining) conclude() {
	var errors []string
	for i := range x.out.Routes {
		r := &x.out.Routes[i]
		switch {
		case r.Share == 0:
		case r.Error != "":
			errors = append(errors, r.Error)
		default:
			for j := range r.Clusters {
				if r.Clusters[j].Error == "" {
					x.out.Error = ""
					return
				}
				errors = append(errors, r.Clusters[j].Error)
			}
		}
	}
	if len(errors) > 0 {
		slices.Sort(errors)
		x.out.Error = strings.Join(slices.Compact(errors), "\n")
	}
}
