package proxyless

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/metadata"
)

// TestManyRoutesFindWhatOneByOneFinds compares the index with the definition:
// the first route that matches.
func TestManyRoutesFindWhatOneByOneFinds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	paths := []string{"/a.B/c", "/a.B/d", "/a.Bx/c", "/a", "/z.Z/z"}
	for round := range 300 {
		matches := make([]routeMatch, random.IntN(20))
		for i := range matches {
			m := routeMatch{path: pathKind(random.IntN(3)), text: paths[random.IntN(len(paths))]}
			if m.path == pathPrefix {
				m.text = m.text[:1+random.IntN(len(m.text))]
			}
			m.foldCase = random.IntN(8) == 0
			if random.IntN(4) == 0 {
				m.headers = []headerMatch{{name: "colour", kind: headerExact, text: "blue"}}
			}
			matches[i] = m
		}
		planned := make([]plannedRoute, len(matches))
		for i := range matches {
			planned[i] = plannedRoute{match: &matches[i], name: fmt.Sprint(i)}
		}
		table := newRouteTable(planned)
		for _, path := range paths {
			for _, md := range []metadata.MD{nil, {"colour": {"blue"}}} {
				want := ""
				for i := range matches {
					if matches[i].matches(path, &callHeaders{md: md, path: path}, 0) {
						want = fmt.Sprint(i)
						break
					}
				}
				got := ""
				if r := table.find(path, &callHeaders{md: md, path: path}); r != nil {
					got = r.name
				}
				if got != want {
					t.Fatalf("round %d, %s %v: route %q, want %q of %+v", round, path, md, got, want, matches)
				}
			}
		}
	}
}

func TestNoRoutesMatchNothing(t *testing.T) {
	table := newRouteTable(nil)
	if r := table.find("/a/b", nil); r != nil || table.only != nil {
		t.Error("a route was found")
	}
}

func TestWeightedClustersAreChosenByWeight(t *testing.T) {
	r := plannedRoute{total: 100, clusters: []plannedCluster{{name: "a", upTo: 75}, {name: "b", upTo: 100}}}
	count := map[string]int{}
	const draws = 40_000
	for range draws {
		count[r.choose().name]++
	}
	// The standard deviation is 87; ten of them leave no room for chance.
	if n := count["a"]; n < 30_000-870 || n > 30_000+870 {
		t.Errorf("75 of 100 were chosen %d times in %d", n, draws)
	}
}
