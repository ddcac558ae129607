package proxyless

import "slices"

// planner compiles plans and keeps the endpoint sets that they share. Only the
// ADS loop uses it.
type planner struct {
	table  *connTable
	sets   map[string][]*endpointSet // those that plans use, by cluster name, the newest last
	states map[string]*clusterState  // of the clusters that have sets and need one
}

func newPlanner(table *connTable) *planner {
	return &planner{table: table, sets: map[string][]*endpointSet{}, states: map[string]*clusterState{}}
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
			pl.states[name].close()
			delete(pl.states, name)
		}
		s.retire()
	}
}

// set returns the endpoint set of a cluster, made from the newest one where the
// assignment changed.
func (pl *planner) set(c *cluster, a *assignment) *endpointSet {
	var newest *endpointSet
	for _, s := range pl.sets[c.name] {
		if s.cluster == c && s.from == a {
			return s
		}
		newest = s
	}
	s := newEndpointSet(pl.table, c, a, pl.state(c), newest)
	pl.sets[c.name] = append(pl.sets[c.name], s)
	return s
}

// state returns the state of a cluster; nil where it needs none.
func (pl *planner) state(c *cluster) *clusterState {
	if !c.remembers() {
		pl.states[c.name].close()
		delete(pl.states, c.name)
		return nil
	}
	st := pl.states[c.name]
	if st == nil {
		st = newClusterState(c.name, pl.table)
		pl.states[c.name] = st
	}
	st.configure(c)
	return st
}
