package proxyless

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"google.golang.org/grpc"
)

// balanced is a set of n endpoints in one locality that chooses as b says.
func balanced(b balancing, a *assignment, prev *endpointSet) *endpointSet {
	table := newConnTable([]grpc.DialOption{grpc.WithContextDialer(nowhere)}, &counters{})
	if prev != nil {
		table = prev.table
	}
	var state *clusterState
	if b.remembers() {
		if state = newClusterState("c", table); prev != nil {
			state = prev.state
		}
	}
	return newEndpointSet(table, &cluster{name: "c", balance: b}, a, state, prev)
}

func ones(n int) []uint32 { return slices.Repeat([]uint32{1}, n) }

// pickers are all policies, each with n endpoints which are all ready.
func pickers(n int) map[string]*endpointSet {
	sets := map[string]*endpointSet{}
	for name, b := range policies {
		s := balanced(b, testAssignment(ones(n)), nil)
		connectAll(s)
		sets[name] = s
	}
	weights := make([]uint32, n)
	for i := range weights {
		weights[i] = uint32(1 + i%4)
	}
	for name, b := range policies {
		s := balanced(b, testAssignment(weights), nil)
		connectAll(s)
		sets[name+", weighted"] = s
	}
	return sets
}

var policies = map[string]balancing{
	"round robin":              {},
	"least request":            {policy: lbLeastRequest},
	"least request of five":    {policy: lbLeastRequest, choices: 5},
	"least request, full scan": {policy: lbLeastRequest, fullScan: true},
	"random":                   {policy: lbRandom},
	"ring hash":                {policy: lbRingHash},
	"ring hash, bounded":       {policy: lbRingHash, bounded: 150},
	"maglev":                   {policy: lbMaglev},
	"shortest response":        {policy: lbShortestReply},
	"two choices by response":  {policy: lbP2C},
	"reported load":            {policy: lbReported},
}

// chances are the seeds of picks that a test can repeat.
func chances() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

func TestEveryPickerPicksWithoutAllocation(t *testing.T) {
	skipUnderRace(t)
	for _, n := range []int{1, 10, 1000} {
		for name, s := range pickers(n) {
			c := choice{hash: 1, hashed: true}
			extra := &choiceExtra{tried: []netip.AddrPort{testAddr(0)}, reselect: 3}
			for what, c := range map[string]choice{"": {}, " by hash": c, " avoiding": {hash: 1, hashed: true, extra: extra}} {
				allocs := leastAllocs(200, func() {
					_, found := s.pick(c)
					picked.Store(found)
				})
				if allocs != 0 || picked.Load() == nil {
					t.Errorf("%s, %d endpoints%s: %v allocations", name, n, what, allocs)
				}
			}
		}
	}
}

func TestEveryPickerPassesFailedEndpointsOver(t *testing.T) {
	for name, s := range pickers(10) {
		s.be(cellFailed, 0, 1, 2, 4, 5, 6, 7, 9)
		chance := chances()
		counts := map[netip.AddrPort]int{}
		for range 2000 {
			_, c := s.pick(choice{hash: chance.Uint64(), hashed: true})
			if c == nil {
				t.Fatalf("%s: nothing was picked", name)
			}
			counts[c.key.addr]++
		}
		if len(counts) != 2 || counts[testAddr(3)] < 300 || counts[testAddr(8)] < 300 {
			t.Errorf("%s: picked %v, want the two that are ready, both often", name, counts)
		}
	}
}

func TestEveryPickerTurnsToTheNextPriority(t *testing.T) {
	for name, b := range policies {
		s := balanced(b, testAssignment(ones(3), ones(2)), nil)
		s.be(cellReady, 3, 4)
		s.be(cellConnecting, 0, 1, 2)
		if c := s.pickOne(); c != nil {
			t.Errorf("%s: picked %s while the first priority may still become ready", name, c.key.addr)
		}
		s.be(cellFailed, 0, 1, 2)
		if at, c := s.pick(choice{hash: 7, hashed: true}); c == nil || at < 3 {
			t.Errorf("%s: the second priority does not serve", name)
		}
		s.be(cellReady, 1)
		if at, c := s.pick(choice{hash: 7, hashed: true}); c == nil || at != 1 {
			t.Errorf("%s: the first priority is not returned to", name)
		}
	}
}

func TestEveryPickerDialsOneEndpointForEachPick(t *testing.T) {
	for name, b := range policies {
		s := balanced(b, testAssignment(ones(50)), nil)
		for n := range uint64(3) {
			// Hashes of their own, since calls of one hash wait for one endpoint.
			s.pick(choice{hash: n<<62 + n*7919, hashed: true})
			if dials := s.table.counts.dials.Load(); dials != n+1 {
				t.Errorf("%s: %d endpoints dialled by %d picks", name, dials, n+1)
			}
		}
		s.table.close()
	}
}

func TestEveryPickerAvoidsEarlierEndpoints(t *testing.T) {
	for name, s := range pickers(5) {
		chance := chances()
		met := 0
		for range 1000 {
			c := choice{hash: chance.Uint64(), hashed: true}
			first, _ := s.pick(c)
			c.extra = &choiceExtra{tried: []netip.AddrPort{s.endpoints[first].addr}, reselect: 5}
			if second, found := s.pick(c); found == nil || second == first {
				met++
			}
		}
		// The heaviest of five weighs 4 of 11: met six times in a row by 2 of 1000.
		if met > 20 {
			t.Errorf("%s: %d of 1000 picks met the endpoint to avoid, whatever they drew", name, met)
		}
	}
}

func TestAPickThatCannotAvoidTakesWhatThereIs(t *testing.T) {
	for name, s := range pickers(1) {
		c := choice{extra: &choiceExtra{tried: []netip.AddrPort{testAddr(0)}, reselect: 5}}
		if _, found := s.pick(c); found == nil {
			t.Errorf("%s: nothing was picked", name)
		}
	}
}

// pickOfTwo is the ideal of least request: nothing in the slice can be not ready.
func (c *counterOverSlice) pickOfTwo() *cell {
	r, n := rand.Uint64(), uint64(len(c.cells))
	x, y := c.cells[r>>32*n>>32], c.cells[uint64(uint32(r))*n>>32]
	if y.inflight.Load() < x.inflight.Load() {
		return y
	}
	return x
}

// BenchmarkPolicies chooses among ready endpoints that weigh the same, by each
// policy. The ideals beside it are a bare counter over a slice, and the less
// busy of two of its elements.
func BenchmarkPolicies(b *testing.B) {
	for _, n := range []int{10, 1000} {
		ideal := newCounterOverSlice(readySet(n, func(int) uint32 { return 1 }))
		benchmarkPick(b, fmt.Sprintf("endpoints=%d/atomic-counter-over-a-slice", n), ideal.pick)
		benchmarkPick(b, fmt.Sprintf("endpoints=%d/less-of-two-in-a-slice", n), ideal.pickOfTwo)
		for _, p := range []struct {
			name string
			b    balancing
		}{
			{"round-robin", balancing{}},
			{"least-request", balancing{policy: lbLeastRequest}},
			{"least-request-full-scan", balancing{policy: lbLeastRequest, fullScan: true}},
			{"random", balancing{policy: lbRandom}},
			{"ring-hash", balancing{policy: lbRingHash}},
			{"maglev", balancing{policy: lbMaglev}},
		} {
			s := balanced(p.b, testAssignment(ones(n)), nil)
			connectAll(s)
			pick := s.pickOne
			if p.b.policy == lbRingHash || p.b.policy == lbMaglev {
				pick = func() *cell { // with a hash that costs next to nothing to make
					_, c := s.pick(choice{hash: s.tiers[0].next.Load(), hashed: true})
					return c
				}
			}
			benchmarkPick(b, fmt.Sprintf("endpoints=%d/%s", n, p.name), pick)
		}
	}
}
