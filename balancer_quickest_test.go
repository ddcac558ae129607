package proxyless

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// quickly picks at a time by seeded chance.
func quickly(now time.Duration) func(s *endpointSet) func(t *tier, d draws) (uint64, *cell) {
	return func(s *endpointSet) func(t *tier, d draws) (uint64, *cell) {
		return func(t *tier, d draws) (uint64, *cell) {
			return t.picker.(*quickest).choose(s, t, choice{}, d, now, false)
		}
	}
}

func TestTheQuickestEndpointIsChosen(t *testing.T) {
	const now = time.Minute
	s := balanced(balancing{policy: lbShortestReply}, testAssignment(ones(3)), nil)
	connectAll(s)
	for i, took := range []time.Duration{30, 10, 20} {
		s.hosts[i].replies.add(took*time.Millisecond, now)
	}
	expect(t, "idle", tallied(s, 100, quickly(now)(s)), 0, 0, 100, 0)
	s.slots[1].Load().inflight.Store(2) // three times 10 ms
	expect(t, "busy", tallied(s, 100, quickly(now)(s)), 0, 0, 0, 100)
	expect(t, "when all is forgotten", tallied(s, 1000, quickly(now+31*time.Second)(s)), 20, 500, 0, 500)
	s.hosts[2].replies.add(90*time.Millisecond, now) // an eighth of it
	s.slots[1].Load().inflight.Store(0)
	if got := time.Duration(s.hosts[2].replies.average.Load()); got != 28750*time.Microsecond {
		t.Errorf("20 ms and then 90 ms are %v on average", got)
	}
}

func TestTheQuickestOfTwoIsChosen(t *testing.T) {
	const now = time.Minute
	s := balanced(balancing{policy: lbP2C}, testAssignment(ones(2)), nil)
	connectAll(s)
	s.hosts[0].replies.add(10*time.Millisecond, now)
	s.hosts[1].replies.add(20*time.Millisecond, now)
	expect(t, "two choices", tallied(s, 10_000, quickly(now)(s)), 5, 7500, 2500)
}

func TestAnEndpointOfWhichNothingIsKnownGetsOneCallToLearnFrom(t *testing.T) {
	const now = time.Minute
	s := balanced(balancing{policy: lbShortestReply}, testAssignment(ones(2)), nil)
	connectAll(s)
	s.hosts[0].replies.add(time.Millisecond, now)
	expect(t, "unknown", tallied(s, 10, quickly(now)(s)), 0, 0, 10)
	s.slots[1].Load().inflight.Store(1)
	s.slots[0].Load().inflight.Store(100)
	expect(t, "being tried", tallied(s, 10, quickly(now)(s)), 0, 10, 0)
}

func TestTheQuickestHonoursWeights(t *testing.T) {
	const now = time.Minute
	s := balanced(balancing{policy: lbShortestReply}, testAssignment([]uint32{1, 3}), nil)
	connectAll(s)
	s.hosts[0].replies.add(10*time.Millisecond, now)
	s.hosts[1].replies.add(20*time.Millisecond, now)
	expect(t, "weights", tallied(s, 10, quickly(now)(s)), 0, 0, 10)
}

func TestAnswersAreTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := balanced(balancing{policy: lbShortestReply}, testAssignment(ones(1)), nil)
		connectAll(s)
		w := way{plan: &plan{}, cluster: &plannedCluster{set: s}}
		for _, err := range []error{nil, errNothingSent} {
			a, _ := w.pick(choice{})
			time.Sleep(time.Second)
			a.finish(err)
		}
		if took := float64(s.hosts[0].replies.average.Load()); math.Abs(took-1e9) > 1e6 {
			t.Errorf("an answer after 1 s took %v ns", took)
		}
	})
}
