package proxyless

import (
	"math"
	"testing"
)

// tallied counts seeded picks by the index of the endpoint.
func tallied(s *endpointSet, picks int, choose func(t *tier, d draws) (uint64, *cell)) []int {
	chance := chances()
	counts := make([]int, len(s.endpoints))
	for range picks {
		at, _ := choose(&s.tiers[0], draws(chance.Uint64()))
		counts[at]++
	}
	return counts
}

func (s *endpointSet) byLeastRequest(t *tier, d draws) (uint64, *cell) {
	return t.picker.(*leastRequest).choose(s, t, choice{}, d, false)
}

// expect holds counts to what they should be, within so many percent.
func expect(t *testing.T, what string, counts []int, percent float64, want ...float64) {
	t.Helper()
	for i, w := range want {
		if math.Abs(float64(counts[i])-w) > w*percent/100+1 {
			t.Errorf("%s: picked %d, want about %.0f", what, counts, want)
			return
		}
	}
}

func TestTheBusierOfTwoIsAvoided(t *testing.T) {
	s := balanced(balancing{policy: lbLeastRequest}, testAssignment(ones(4)), nil)
	connectAll(s)
	s.slots[2].Load().inflight.Store(5)
	// Both draws fall on the busy one in 1 of 16 cases, since they are with
	// replacement; the others share the rest.
	expect(t, "two choices", tallied(s, 16_000, s.byLeastRequest), 10, 5000, 5000, 1000, 5000)

	if s.two.Load() == nil {
		t.Fatal("two choices among equals do not take the short way")
	}
	counts := make([]int, 4)
	for range 16_000 {
		at, _ := s.pickOfTwo(s.two.Load(), choice{})
		counts[at]++
	}
	expect(t, "the short way", counts, 15, 5000, 5000, 1000, 5000)
}

func TestMoreChoicesAvoidTheBusyMore(t *testing.T) {
	s := balanced(balancing{policy: lbLeastRequest, choices: 4}, testAssignment(ones(2)), nil)
	connectAll(s)
	s.slots[0].Load().inflight.Store(1)
	expect(t, "four choices", tallied(s, 16_000, s.byLeastRequest), 10, 1000, 15_000)

	s = balanced(balancing{policy: lbLeastRequest, fullScan: true}, testAssignment(ones(20)), nil)
	connectAll(s)
	for i := range 17 {
		s.slots[i].Load().inflight.Store(int64(1 + i%2))
	}
	counts := tallied(s, 6000, s.byLeastRequest)
	expect(t, "full scan", counts[17:], 10, 2000, 2000, 2000)
}

// TestTwoChoicesKeepCallsLevel holds the longest queue down: by chance alone
// some endpoint of a hundred would have about eight calls more than the average.
func TestTwoChoicesKeepCallsLevel(t *testing.T) {
	s := balanced(balancing{policy: lbLeastRequest}, testAssignment(ones(100)), nil)
	connectAll(s)
	chance := chances()
	for range 1000 {
		_, c := s.byLeastRequest(&s.tiers[0], draws(chance.Uint64()))
		c.inflight.Add(1)
	}
	most := int64(0)
	for i := range s.slots {
		most = max(most, s.slots[i].Load().inflight.Load())
	}
	if most > 13 {
		t.Errorf("one of 100 endpoints has %d of 1000 calls", most)
	}
}

func TestLeastRequestHonoursWeights(t *testing.T) {
	s := balanced(balancing{policy: lbLeastRequest}, testAssignment([]uint32{1, 2, 7}), nil)
	connectAll(s)
	expect(t, "idle", tallied(s, 10_000, s.byLeastRequest), 8, 1000, 2000, 7000)
	s.slots[2].Load().inflight.Store(6) // 7/7 is as good as 1/1
	expect(t, "busy", tallied(s, 10_000, s.byLeastRequest), 8, 2500, 5000, 2500)

	for bias, want := range map[float64][]float64{0: {1000, 2000, 7000}, 2: {3182, 6364, 454}} {
		s := balanced(balancing{policy: lbLeastRequest, bias: bias, hasBias: true}, testAssignment([]uint32{1, 2, 7}), nil)
		connectAll(s)
		s.slots[2].Load().inflight.Store(6)
		expect(t, "bias", tallied(s, 10_000, s.byLeastRequest), 12, want...)
	}
}

func TestLeastRequestHonoursWeightsOfManyEndpoints(t *testing.T) {
	weights := ones(100)
	for i := range 10 {
		weights[i] = 10
	}
	s := balanced(balancing{policy: lbLeastRequest}, testAssignment(weights), nil)
	connectAll(s)
	counts := tallied(s, 95_000, s.byLeastRequest)
	heavy := 0
	for _, n := range counts[:10] {
		heavy += n
	}
	expect(t, "the heavy ones and the rest", []int{heavy, 95_000 - heavy}, 3, 50_000, 45_000)
	for i := range 10 {
		s.slots[i].Load().inflight.Store(9) // 10/10 is as good as 1/1
	}
	heavy = 0
	for _, n := range tallied(s, 100_000, s.byLeastRequest)[:10] {
		heavy += n
	}
	// Exactly 10 %; sixteen candidates come near it.
	if heavy < 9000 || heavy > 15_000 {
		t.Errorf("the heavy, busy ones got %d of 100000", heavy)
	}
}

func TestLeastRequestDrawsALocalityByWeightFirst(t *testing.T) {
	a := testAssignment(ones(5))
	a.localities = []locality{{zone: "a", weight: 80, first: 0, count: 1}, {zone: "b", weight: 20, first: 1, count: 4}}
	s := balanced(balancing{policy: lbLeastRequest}, a, nil)
	connectAll(s)
	s.slots[0].Load().inflight.Store(50) // the busiest, but alone in its locality
	s.slots[1].Load().inflight.Store(1)
	expect(t, "localities", tallied(s, 10_000, s.byLeastRequest), 15, 8000, 125, 625, 625, 625)

	s.be(cellFailed, 0)
	expect(t, "the other locality", tallied(s, 10_000, s.byLeastRequest)[1:], 40, 625, 3125, 3125, 3125)
}

func TestRandomHonoursWeights(t *testing.T) {
	s := balanced(balancing{policy: lbRandom}, testAssignment([]uint32{1, 2, 7, 10}), nil)
	connectAll(s)
	s.be(cellFailed, 3)
	counts := tallied(s, 10_000, func(t *tier, d draws) (uint64, *cell) { return t.picker.(*random).choose(s, t, d, false) })
	expect(t, "random", counts, 8, 1000, 2000, 7000, 0)
}

func TestLotsAreDrawnByWeight(t *testing.T) {
	for _, weights := range [][]float64{{1}, {3, 3, 3}, {1, 2, 3, 4}, {1, 1e6}, {5, 0, 5, 1}, {0.1, 0.2, 0.7}} {
		l := newLots(weights)
		d := draws(1)
		counts := make([]int, len(weights))
		for range 100_000 {
			counts[l.draw(&d)]++
		}
		sum := total(weights)
		for i, w := range weights {
			if want := w / sum * 100_000; math.Abs(float64(counts[i])-want) > 5*math.Sqrt(want)+1 {
				t.Errorf("weights %v: drawn %d", weights, counts)
			}
		}
	}
}
