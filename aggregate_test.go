package proxyless

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
)

// aggregates is a snapshot in which a:1 leads to the cluster "root". Each line
// is a cluster: "name of OTHERS", or "name" and the number of its endpoints.
func aggregates(lines ...string) *snapshot {
	s := &snapshot{}
	for k := range s.resources {
		s.resources[k] = map[string]*resourceState{}
	}
	hold := func(k kind, name string, value any) {
		s.resources[k][name] = &resourceState{kind: k, name: name, status: statusAccepted, value: value}
	}
	hold(kindListener, "a:1", &listener{forwarding: forwarding{routeName: "r"}})
	r := route{clusters: []weightedCluster{{name: "root", weight: 1}}, total: 1}
	hold(kindRoute, "r", &routeConfig{name: "r", virtualHosts: []virtualHost{{name: "a", domains: []string{"*"}, routes: []route{r}}}})
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, " ")
		if children, ok := strings.CutPrefix(rest, "of "); ok {
			hold(kindCluster, name, &cluster{name: name, source: discoverAggregate, children: strings.Fields(children)})
			continue
		}
		hold(kindCluster, name, &cluster{name: name, edsName: name})
		var n int
		fmt.Sscan(rest, &n)
		a := testAssignment(slices.Repeat([]uint32{1}, n))
		for i := range a.endpoints { // no two clusters share one
			a.endpoints[i].addr = netip.AddrPortFrom(a.endpoints[i].addr.Addr(), 1000+uint16(name[0]))
		}
		hold(kindEndpoints, name, a)
	}
	return s
}

func compiled(s *snapshot, last *plan) (*planner, *plan) {
	pl := newPlanner(newConnTable(nil, new(counters)))
	if last == nil {
		last = pending("a:1")
	}
	return pl, pl.compile(s, &target{listeners: []string{"a:1"}}, last)
}

// nest is a chain of so many aggregate clusters, at whose end is "leaf".
func nest(depth int) []string {
	lines := []string{"leaf 1"}
	name := "root"
	for i := range depth - 1 {
		next := fmt.Sprint("level-", i)
		lines = append(lines, name+" of "+next)
		name = next
	}
	return append(lines, name+" of leaf")
}

func TestAnAggregateClusterStandsForItsLeaves(t *testing.T) {
	var lattice []string // each level leads to the next in three ways
	for i := range 15 {
		lattice = append(lattice, fmt.Sprintf("l%d of l%d l%d l%d", i, i+1, i+1, i+1))
	}
	for name, test := range map[string]struct {
		clusters []string
		want     string // the leaves
		problem  string // of the cluster
	}{
		"in order":                       {clusters: []string{"root of b a c", "a 1", "b 1", "c 1"}, want: "b a c"},
		"one":                            {clusters: []string{"root of a", "a 1"}, want: "a"},
		"depth first":                    {clusters: []string{"root of x c", "x of b a", "a 1", "b 1", "c 1"}, want: "b a c"},
		"the same twice":                 {clusters: []string{"root of a b a", "a 1", "b 1"}, want: "a b"},
		"a diamond":                      {clusters: []string{"root of x y", "x of a b", "y of b c", "a 1", "b 1", "c 1"}, want: "a b c"},
		"as many diamonds as may be":     {clusters: append(lattice, "root of l0", "l15 1"), want: "l15"},
		"a circle with a way out":        {clusters: []string{"root of x a", "x of root b", "a 1", "b 1"}, want: "b a"},
		"itself, many times":             {clusters: []string{"root of root root root root a", "a 1"}, want: "a"},
		"a circle":                       {clusters: []string{"root of x", "x of root"}, problem: "leads to no cluster but aggregate ones"},
		"16 deep":                        {clusters: nest(16), want: "leaf"},
		"17 deep":                        {clusters: nest(17), problem: "more than 16 deep"},
		"17 deep, after a shallower way": {clusters: append(nest(17), "level-0 of leaf level-15 level-1"), problem: "more than 16 deep"},
		"a child of an aggregate that the mesh knows nothing of": {clusters: []string{"root of a !b", "a 1", "!b"}, want: "a !b"},
	} {
		t.Run(name, func(t *testing.T) {
			s := aggregates(test.clusters...)
			for name := range s.resources[kindCluster] {
				if strings.HasPrefix(name, "!") {
					s.resources[kindCluster][name] = &resourceState{kind: kindCluster, name: name, status: statusAbsent}
				}
			}
			start := time.Now()
			_, p := compiled(s, nil)
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if p.problem != nil {
				t.Fatal(p.problem)
			}
			c := p.routes.routes[0].clusters[0]
			var got []string
			for i := range c.leaves {
				got = append(got, c.leaves[i].name)
				if (c.leaves[i].set == nil) != strings.HasPrefix(c.leaves[i].name, "!") || (c.leaves[i].set == nil) != (c.leaves[i].problem != nil) {
					t.Errorf("%s: %+v", c.leaves[i].name, c.leaves[i].problem)
				}
			}
			if strings.Join(got, " ") != test.want || (c.problem != nil) != (test.problem != "") || c.problem != nil && !strings.Contains(c.problem.Error(), test.problem) {
				t.Errorf("leaves %v, problem %v", got, c.problem)
			}
			if c.problem != nil {
				if _, blocked := p.find(t.Context(), "/s/M"); blocked.err != c.problem || blocked.hopeful {
					t.Errorf("a call fails with %v, hopeful %v", blocked.err, blocked.hopeful)
				}
			}
		})
	}
}

// stand gives the endpoints of a cluster a state.
func (p *plan) stand(name string, state cellState) {
	s := p.cluster(name).set
	for i := range s.listed {
		s.be(state, i)
	}
}

func TestCallsGoToTheFirstLeafThatMayTakeThem(t *testing.T) {
	s := aggregates("root of gone none a b", "none 0", "a 2", "b 1")
	s.resources[kindCluster]["gone"] = &resourceState{kind: kindCluster, name: "gone", status: statusAbsent}
	_, p := compiled(s, nil)
	if p.problem != nil {
		t.Fatal(p.problem)
	}
	w, blocked := p.find(t.Context(), "/s/M")
	if w.cluster == nil {
		t.Fatalf("no way: %+v", blocked)
	}
	for i, step := range []struct {
		cluster string
		becomes cellState
		want    string // where the same call goes now, and a new one
		waits   bool
	}{
		{"b", cellReady, "a", true}, // a was never dialled: it may rise
		{"a", cellConnecting, "a", true},
		{"a", cellReady, "a", false},
		{"a", cellFailed, "b", false},
		{"b", cellConnecting, "b", true},
		{"b", cellReady, "b", false},
		{"a", cellReady, "a", false}, // and back
	} {
		p.stand(step.cluster, step.becomes)
		fresh, _ := p.find(context.Background(), "/s/M")
		if fresh.cluster.name != step.want {
			t.Errorf("step %d: a new call goes to %s", i, fresh.cluster.name)
		}
		a, blocked := w.pick(choice{})
		if w.cluster.name != step.want || (a.conn == nil) != step.waits || a.conn == nil && !blocked.hopeful {
			t.Errorf("step %d: the call goes to %s, hopeful %v", i, w.cluster.name, blocked.hopeful)
		}
		if a.conn != nil {
			a.cell.leave()
		}
	}
	p.stand("a", cellFailed)
	p.stand("b", cellFailed)
	if a, blocked := w.pick(choice{}); a.conn != nil || blocked.hopeful || blocked.set == nil {
		t.Errorf("nothing is left, and the call gets %+v", blocked)
	}
}

// TestAnAggregateClusterOutlivesAGap says that a plan keeps the aggregate
// cluster that it has, with all its leaves, while the mesh has not sent all of
// a new one.
func TestAnAggregateClusterOutlivesAGap(t *testing.T) {
	for name, test := range map[string]struct {
		before, after []string
		want          string
	}{
		"of the aggregate":     {[]string{"root of a b", "a 1", "b 1"}, []string{"a 2", "b 1"}, "a b"},
		"of all":               {[]string{"root of a b", "a 1", "b 1"}, nil, "a b"},
		"of a leaf":            {[]string{"root of a b", "a 1", "b 1"}, []string{"root of a b", "b 2"}, "a b"},
		"of a new leaf":        {[]string{"root of a b", "a 1", "b 1"}, []string{"root of c a b", "a 2", "b 1"}, "a b"},
		"of what was no other": {[]string{"root 1"}, []string{"root of c"}, "root"},
	} {
		pl, first := compiled(aggregates(test.before...), nil)
		next := pl.compile(aggregates(test.after...), &target{listeners: []string{"a:1"}}, first)
		if next == nil { // nothing changes
			next = first
		}
		if next.problem != nil {
			t.Errorf("%s: %v", name, next.problem)
			continue
		}
		c := &next.routes.routes[0].clusters[0]
		if got := strings.Join(c.stoodFor(), " "); got != test.want || c.set == nil {
			t.Errorf("%s: leaves %s", name, got)
		}
	}
	_, waiting := compiled(aggregates("root of c a", "a 1"), nil)
	if waiting.problem == nil || !waiting.waiting || waiting.problem.Resource != "c" {
		t.Errorf("%v", waiting.problem)
	}
}

// TestAClusterNamedByTheCallMayBeAnAggregate also says that one of which the
// mesh has not sent all is waited for.
func TestAClusterNamedByTheCallMayBeAnAggregate(t *testing.T) {
	s := aggregates("root of a b", "a 1", "b 1", "late of c")
	s.resources[kindRoute]["r"].value.(*routeConfig).virtualHosts[0].routes[0] = route{header: "to"}
	_, p := compiled(s, nil)
	if p.problem != nil {
		t.Fatal(p.problem)
	}
	call := func(cluster string) (way, obstacle) {
		return p.find(metadata.AppendToOutgoingContext(t.Context(), "to", cluster), "/s/M")
	}
	w, _ := call("root")
	if w.cluster == nil || w.cluster.name != "a" {
		t.Fatalf("the call goes to %+v", w.cluster)
	}
	w.cluster.set.be(cellFailed, 0)
	if w, _ = call("root"); w.cluster.name != "b" {
		t.Errorf("the call goes to %s", w.cluster.name)
	}
	if w, blocked := call("late"); w.cluster != nil || !blocked.hopeful || blocked.err == nil || blocked.err.Resource != "c" {
		t.Errorf("%+v", blocked)
	}
}
