package proxyless

import "slices"

// planner compiles plans and keeps the endpoint sets that they share. Only the
// ADS loop uses it.
type planner struct {
	table  *connTable
	sets   map[string][]*endpointSet  // those that plans use, by cluster name, the newest last
	states map[stateKey]*clusterState // of the clusters that have sets and need one
}

// stateKey is whose hosts are judged together: those of one cluster, and apart
// from them those of references that see but some of its endpoints.
type stateKey struct {
	cluster string
	subset  uint32
}

func newPlanner(table *connTable) *planner {
	return &planner{table: table, sets: map[string][]*endpointSet{}, states: map[stateKey]*clusterState{}}
}

// compile makes the plan of a target; it has a problem while the chain is not
// whole. Where the chain has a gap that may yet close, last, if it is whole,
// stays in force with its routes, and only its endpoints follow the mesh; nil
// says that nothing of it changes.
func (pl *planner) compile(snap *snapshot, t *target, last *plan) *plan {
	c := newCompilation(pl, snap, t)
	c.before = last.name
	c.compile()
	pl.hold(c.plan)
	if !c.plan.gap || !last.complete() {
		return c.plan
	}
	kept := newCompilation(pl, snap, t)
	kept.keep(last)
	pl.hold(kept.plan)
	pl.drop(c.plan)
	if sameSets(kept.plan.sets, last.sets) {
		pl.drop(kept.plan)
		return nil
	}
	return kept.plan
}

func sameSets(a, b []*endpointSet) bool {
	if len(a) != len(b) {
		return false
	}
	for _, s := range a {
		if !slices.Contains(b, s) {
			return false
		}
	}
	return true
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
		name := s.cluster.name
		pl.sets[name] = slices.DeleteFunc(pl.sets[name], func(o *endpointSet) bool { return o == s })
		if len(pl.sets[name]) == 0 {
			delete(pl.sets, name)
		}
		pl.forget(stateKey{name, s.balance.subset}, false)
		s.retire()
	}
}

// set returns the endpoint set of a cluster that chooses as b says, made from
// the newest one of its kind where the assignment changed. The authority of
// calls counts where the cluster names its endpoints' certificates by it.
func (pl *planner) set(c *cluster, a *assignment, b balancing, authority string) *endpointSet {
	host := ""
	if c.nameSNI || c.nameSAN {
		host = hostOf(authority)
	}
	var newest *endpointSet
	for _, s := range pl.sets[c.name] {
		if s.cluster == c && s.source == a && s.balance == b && s.authority == host {
			return s
		}
		if newest == nil || s.balance == b || newest.balance != b {
			newest = s
		}
	}
	s := newBalancedSet(pl.table, c, a, b, host, pl.state(c, &b), newest)
	pl.sets[c.name] = append(pl.sets[c.name], s)
	return s
}

// state returns the state of a cluster; nil where it needs none.
func (pl *planner) state(c *cluster, b *balancing) *clusterState {
	key := stateKey{c.name, b.subset}
	if !c.remembers() && !b.remembers() {
		pl.forget(key, true)
		return nil
	}
	st := pl.states[key]
	if st == nil {
		st = newClusterState(c.name, pl.table)
		pl.states[key] = st
	}
	st.configure(c)
	return st
}

// forget ends a state that no set needs: none at all, or, once the cluster
// remembers nothing any more, none by its own way of choosing.
func (pl *planner) forget(key stateKey, forgetful bool) {
	for _, s := range pl.sets[key.cluster] {
		if s.balance.subset == key.subset && s.state != nil && (!forgetful || s.balance.remembers()) {
			return
		}
	}
	pl.states[key].close()
	delete(pl.states, key)
}
