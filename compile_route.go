package proxyless

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
