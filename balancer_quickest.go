package proxyless

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// quickest chooses the endpoint that would answer first, as far as one can
// tell: by the average time of its last answers times the calls that are in
// flight, divided by its weight. It looks at all endpoints (Dubbo's
// shortestresponse), or at two drawn at random (its p2c).
type quickest struct {
	all     bool
	weights []float64 // nil where all weigh the same
}

func newQuickest(s *endpointSet, t *tier) *quickest {
	p := &quickest{all: s.balance.policy == lbShortestReply}
	if weights := s.weights(t); !even(weights) {
		p.weights = weights
	}
	return p
}

func (p *quickest) pick(s *endpointSet, t *tier, c choice, dialled bool) (uint64, *cell) {
	return p.choose(s, t, c, draws(rand.Uint64()), sinceStart(), dialled)
}

func (p *quickest) choose(s *endpointSet, t *tier, c choice, d draws, now time.Duration, dialled bool) (at uint64, best *cell) {
	least, equals := 0.0, uint64(0)
	look := func(i uint64) bool {
		c := s.usable(i)
		if c == nil {
			dialled = dialled || s.wake(i)
			return false
		}
		n := s.hosts[i].replies.cost(c.inflight.Load(), now)
		if p.weights != nil {
			n /= p.weights[i-t.first]
		}
		if best == nil || n < least {
			at, best, least, equals = i, c, n, 1
		} else if n == least && p.all {
			if equals++; d.below(equals) == 0 {
				at, best = i, c
			}
		}
		return true
	}
	if !p.all || c.again > 0 { // the quickest of all has been tried
		for drawn, missed := 0, 0; drawn < 2 && missed < misses; {
			if look(t.first + d.below(t.count)) {
				drawn++
			} else {
				missed++
			}
		}
		if best != nil {
			return at, best
		}
	}
	for i := range t.count {
		look(t.first + i)
	}
	return at, best
}

// replies is how long the answers of an endpoint took of late. Calls that end
// at the same time may overwrite one another's part in the average.
type replies struct {
	average atomic.Int64 // in nanoseconds
	last    atomic.Int64 // a time.Duration since the process started; 0 is never
}

// replyMemory is for how long an answer tells something, as in Dubbo: an
// endpoint that was slow once has to be tried again.
const replyMemory = 30 * time.Second

// add counts an answer. Each is an eighth of the average.
func (r *replies) add(took, now time.Duration) {
	average := time.Duration(r.average.Load())
	if last := time.Duration(r.last.Load()); last == 0 || now-last > replyMemory {
		average = took
	}
	r.average.Store(int64(average + (took-average)/8))
	r.last.Store(int64(now))
}

// cost is what one more call would wait for. An endpoint of which nothing is
// known gets one call to learn from, before all others, and no second one
// meanwhile.
func (r *replies) cost(inflight int64, now time.Duration) float64 {
	last := time.Duration(r.last.Load())
	if last == 0 || now-last > replyMemory {
		if inflight <= 0 {
			return 0
		}
		return math.MaxInt64 * float64(inflight)
	}
	return float64(max(1, r.average.Load())) * float64(max(0, inflight)+1)
}
