package proxyless

import (
	"fmt"
	"slices"
)

// An aggregate cluster stands for other clusters: calls go to the first of them
// that may take them (gRFC A37). When a plan is compiled, it is resolved into
// its leaves, which are the clusters with endpoints that it leads to.

// maxAggregate is how deep aggregate clusters may be nested (gRFC A37).
const maxAggregate = 16

// leaf is the cluster itself, or of an aggregate cluster the first one in it
// that calls may be sent to, or may be soon; the first where there is none
// (gRFC A37).
func (c *plannedCluster) leaf() *plannedCluster {
	for i := range c.leaves {
		if s := c.leaves[i].set; s != nil && s.expectant() {
			return &c.leaves[i]
		}
	}
	for i := range c.leaves {
		if c.leaves[i].set != nil {
			return &c.leaves[i]
		}
	}
	return c
}

// choices finds the endpoint set of a cluster, or of an aggregate one those of
// the clusters in it.
func (c *compilation) choices(next *plannedCluster) {
	names, problem := c.leavesOf(next.name)
	switch {
	case len(names) == 0:
		next.problem = problem
		return
	case len(names) == 1 && names[0] == next.name:
		next.set, next.problem = c.cluster(next.name)
		return
	}
	var leaves []plannedCluster
	for _, name := range names {
		leaf := *next
		leaf.name = name
		if leaf.set, leaf.problem = c.cluster(name); c.plan.problem != nil {
			return
		}
		leaves = append(leaves, leaf)
	}
	for i := range leaves {
		leaves[i].leaves = leaves
		if next.set == nil {
			next.set = leaves[i].set
		}
	}
	next.leaves = leaves
	if next.set == nil {
		next.problem = leaves[0].problem
	}
}

// leavesOf names the clusters that a cluster stands for. While the mesh has sent
// too little of them, it stands for those that it did in the last plan.
func (c *compilation) leavesOf(name string) ([]string, *Error) {
	w := leafWalk{snap: c.snap, depths: map[string]int{}}
	depth := w.visit(name)
	if old := c.last.cluster(name); old != nil && c.unsettled(name, w.leaves) {
		return old.stoodFor(), nil
	}
	switch {
	case depth > maxAggregate:
		c.fail(StageCluster, name, fmt.Sprintf("aggregate clusters are nested more than %d deep", maxAggregate), "nest them less")
		return nil, c.local()
	case len(w.leaves) == 0:
		c.fail(StageCluster, name, "the aggregate cluster leads to no cluster but aggregate ones", "name a cluster with endpoints in it")
		return nil, c.local()
	}
	return w.leaves, nil
}

// unsettled says that a cluster, or one that it stands for and the last plan
// has not, is not known yet.
func (c *compilation) unsettled(name string, leaves []string) bool {
	return c.snap.gapAt(kindCluster, name) || slices.ContainsFunc(leaves, func(leaf string) bool {
		return c.last.cluster(leaf) == nil && c.snap.lacks(leaf, c.plan.name)
	})
}

// stoodFor names the clusters that a planned one stands for.
func (c *plannedCluster) stoodFor() []string {
	if c.leaves == nil {
		return []string{c.name}
	}
	var names []string
	for i := range c.leaves {
		names = append(names, c.leaves[i].name)
	}
	return names
}

// leafWalk lists the clusters that a cluster stands for, each once, in order:
// itself, or those in an aggregate one.
type leafWalk struct {
	snap   *snapshot
	depths map[string]int // of those that were visited
	leaves []string
}

// visit says how many aggregate clusters lie one in the other from a cluster
// down. One that leads back to itself adds nothing.
func (w *leafWalk) visit(name string) int {
	if depth, been := w.depths[name]; been {
		return depth
	}
	w.depths[name] = 0
	v := w.snap.aggregate(name)
	if v == nil {
		w.leaves = append(w.leaves, name)
		return 0
	}
	below := 0
	for _, child := range v.children {
		below = max(below, w.visit(child))
	}
	w.depths[name] = below + 1
	return below + 1
}

// aggregate is an aggregate cluster; nil where the name is of no such.
func (s *snapshot) aggregate(name string) *cluster {
	if state := s.get(kindCluster, name); state != nil {
		if v, ok := state.value.(*cluster); ok && v.source == discoverAggregate && v.failure == "" {
			return v
		}
	}
	return nil
}
