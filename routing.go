package proxyless

import (
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
)

// plannedRoute is a route with its clusters found.
type plannedRoute struct {
	match    *routeMatch
	exact    string // the path where the match is nothing but one; else empty
	name     string
	clusters []plannedCluster
	total    uint32
	policy   *routePolicy              // nil where there is nothing but forwarding
	mirrors  []plannedMirror           // of policy
	header   string                    // names the cluster, where clusters is empty
	named    map[string]plannedCluster // which it may name
	limit    time.Duration             // of the call; 0 is none
	failure  string                    // why the route cannot carry calls
	code     codes.Code                // of calls that meet failure
}

type plannedCluster struct {
	name    string
	upTo    uint32 // the running sum of the weights, this one included
	set     *endpointSet
	policy  *routePolicy     // in place of the route's; nil is the route's
	mirrors []plannedMirror  // of policy
	problem *Error           // set when there is no endpoint set
	waiting bool             // the problem ends by itself
	leaves  []plannedCluster // of an aggregate cluster, and of each one in it: those in it, in order; set is the first one's
}

// plannedMirror is a mirror with its cluster found.
type plannedMirror struct {
	policy  *mirrorPolicy
	cluster plannedCluster            // without a set where the mesh has nothing of it
	named   map[string]plannedCluster // where the call names the cluster
}

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

// routeTable finds the first route that matches. Where there are many, those
// that look at nothing but a path or prefix are found by it, and only the
// others are tried one by one. It is on the hot path: find takes no lock, and
// allocates only for headers that routes look at.
type routeTable struct {
	only *plannedRoute // set when the first route matches every call

	routes   []plannedRoute
	paths    map[string]int32 // by exact path
	prefixes map[string]int32
	lengths  []int   // of the prefixes, each once
	rest     []int32 // the routes not found by path or prefix, in order
	headers  bool    // one of the rest looks at headers
	partial  bool    // one of the rest has a fraction
}

// indexed is from how many routes on finding by path is worth its cost.
const indexed = 6

func newRouteTable(routes []plannedRoute) routeTable {
	t := routeTable{routes: routes, paths: map[string]int32{}, prefixes: map[string]int32{}}
	for i := range routes {
		if m := routes[i].match; m.path == pathExact && m.simple() {
			routes[i].exact = m.text
		}
		if !t.index(int32(i)) {
			t.rest = append(t.rest, int32(i))
			t.headers = t.headers || routes[i].match.needsHeaders()
			t.partial = t.partial || routes[i].match.partial
		}
	}
	if len(routes) > 0 && routes[0].match.everything() {
		t.only = &routes[0]
	}
	return t
}

// index enters a route that looks at nothing but a path or prefix.
func (t *routeTable) index(i int32) bool {
	m := t.routes[i].match
	if len(t.routes) < indexed || !m.simple() {
		return false
	}
	switch m.path {
	case pathExact:
		if _, taken := t.paths[m.text]; !taken {
			t.paths[m.text] = i
		}
	case pathPrefix, pathAny:
		text := m.text
		if m.path == pathAny {
			text = ""
		}
		if _, taken := t.prefixes[text]; !taken {
			t.prefixes[text] = i
		}
		if !slices.Contains(t.lengths, len(text)) {
			t.lengths = append(t.lengths, len(text))
		}
	default:
		return false
	}
	return true
}

// find returns the first route that matches a path; nil when none does. call
// may be nil where no route looks at headers.
func (t *routeTable) find(path string, call *callHeaders) *plannedRoute {
	best := len(t.routes)
	if len(t.rest) < len(t.routes) {
		best = t.lookUp(path)
	}
	var random uint32
	if t.partial {
		random = rand.Uint32N(fractionScale)
	}
	for _, i := range t.rest {
		if int(i) >= best {
			break
		}
		r := &t.routes[i]
		if r.exact != "" {
			if r.exact == path {
				return r
			}
		} else if r.match.matches(path, call, random) {
			return r
		}
	}
	if best == len(t.routes) {
		return nil
	}
	return &t.routes[best]
}

// lookUp finds the first of the indexed routes.
func (t *routeTable) lookUp(path string) int {
	best := int32(len(t.routes))
	if i, ok := t.paths[path]; ok {
		best = i
	}
	for _, n := range t.lengths {
		if n > len(path) {
			continue
		}
		if i, ok := t.prefixes[path[:n]]; ok && i < best {
			best = i
		}
	}
	return int(best)
}
