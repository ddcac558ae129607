package proxyless

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
)

// leastRequest chooses among some endpoints drawn at random the one with the
// fewest calls in flight (Envoy's LEAST_REQUEST, gRFC A48). Where endpoints
// have different weights it draws by weight/(calls in flight + 1)^bias, as
// Envoy does. Where localities have weights of their own, a locality is drawn
// first.
//
// Two choices among equal endpoints, which Istio asks for everywhere, are not
// made here but by endpointSet.pickOfTwo, unless hosts count.
type leastRequest struct {
	// Constant after construction.
	choices int
	all     bool    // look at all endpoints
	bias    float64 // counts where endpoints have weights

	spread atomic.Pointer[spread] // replaced where weights change with time
}

// spread is the endpoints of a tier with their weights. It is immutable.
type spread struct {
	places []place // one for each locality, where their weights count, else one of all
	lots   lots    // of the places
}

// place is a range of a tier's endpoints that compete with one another.
type place struct {
	first, count uint64
	weights      []float64 // nil where all weigh the same
	lots         lots
}

// fewChoices bounds choice_count in small clusters (gRFC A48); in a large one it
// is bounded by the number of endpoints.
const fewChoices = 10

func newLeastRequest(s *endpointSet, t *tier) *leastRequest {
	b := &s.balance
	p := &leastRequest{choices: int(min(max(uint64(b.choices), 2), max(fewChoices, t.count))), all: b.fullScan, bias: b.bias}
	if !b.hasBias && b.bias == 0 {
		p.bias = 1
	}
	p.spread.Store(newSpread(s, t, nil))
	return p
}

// newSpread takes the endpoints' weights, times factors where they are not nil.
func newSpread(s *endpointSet, t *tier, factors []float64) *spread {
	weights := s.weights(t)
	var each []float64 // before factors, which are the endpoints' own affair
	for i := range t.localities {
		if l := &t.localities[i]; l.count > 0 {
			each = append(each, total(ofLocality(weights, t, l)))
		}
	}
	for i, f := range factors {
		weights[i] *= f
	}
	if !s.unequal(t) {
		return &spread{places: []place{newPlace(t.first, weights)}}
	}
	v := spread{lots: newLots(each)}
	for i := range t.localities {
		if l := &t.localities[i]; l.count > 0 {
			v.places = append(v.places, newPlace(uint64(l.first), ofLocality(weights, t, l)))
		}
	}
	return &v
}

// ofLocality returns the part of a tier's weights that belongs to a locality.
func ofLocality(weights []float64, t *tier, l *locality) []float64 {
	first := uint64(l.first) - t.first
	return weights[first : first+uint64(l.count)]
}

func total(weights []float64) (sum float64) {
	for _, w := range weights {
		sum += w
	}
	return sum
}

func newPlace(first uint64, weights []float64) place {
	g := place{first: first, count: uint64(len(weights)), lots: newLots(weights)}
	if g.lots.table != nil {
		g.weights = weights
	}
	return g
}

// ofTwo says that the endpoints differ in nothing but their calls in flight,
// and that two of them are to be compared.
func (p *leastRequest) ofTwo() bool {
	v := p.spread.Load()
	return p.choices == 2 && !p.all && len(v.places) == 1 && v.places[0].weights == nil
}

func (p *leastRequest) pick(s *endpointSet, t *tier, c choice, dialled bool) (uint64, *cell) {
	return p.choose(s, t, c, draws(rand.Uint64()), dialled)
}

func (p *leastRequest) choose(s *endpointSet, t *tier, c choice, d draws, dialled bool) (at uint64, found *cell) {
	v := p.spread.Load()
	if len(v.places) == 1 {
		at, found, dialled = p.within(s, &v.places[0], c, &d, dialled)
	} else {
		for n := 0; found == nil && n < misses; n++ {
			at, found, dialled = p.within(s, &v.places[v.lots.draw(&d)], c, &d, dialled)
		}
	}
	if found == nil {
		at, found, _ = s.leastOf(t.first, t.count, &d, dialled)
	}
	return at, found
}

// within chooses in one place.
func (p *leastRequest) within(s *endpointSet, g *place, c choice, d *draws, dialled bool) (uint64, *cell, bool) {
	if g.weights != nil {
		return p.byWeight(s, g, d, dialled)
	}
	if p.all && c.again == 0 { // else the least of all has been tried
		return s.leastOf(g.first, g.count, d, dialled)
	}
	return p.ofSome(s, g, d, dialled)
}

// ofSome draws with replacement, so that the busiest endpoint has its share of
// calls too (gRFC A48). Draws that fall on endpoints which are not usable do
// not count.
func (p *leastRequest) ofSome(s *endpointSet, g *place, d *draws, dialled bool) (at uint64, best *cell, _ bool) {
	least, missed := int64(0), 0
	for drawn := 0; drawn < p.choices && missed < misses; {
		i := g.first + d.below(g.count)
		c := s.usable(i)
		if c == nil {
			missed++
			dialled = dialled || s.wake(i)
			continue
		}
		drawn++
		if n := c.inflight.Load(); best == nil || n < least {
			at, best, least = i, c, n
		}
	}
	return at, best, dialled
}

// candidates is how many endpoints are weighed for one call. Where there are no
// more than that, endpoints get calls exactly in proportion; else nearly so.
const candidates = 16

// byWeight draws by weight/(calls in flight + 1)^bias.
func (p *leastRequest) byWeight(s *endpointSet, g *place, d *draws, dialled bool) (at uint64, best *cell, _ bool) {
	all := g.count <= candidates
	sum := 0.0
	for n := range min(g.count, candidates) {
		if !all {
			n = g.lots.draw(d)
		}
		c := s.usable(g.first + n)
		if c == nil {
			dialled = dialled || s.wake(g.first+n)
			continue
		}
		w := p.discount(c.inflight.Load())
		if all {
			w *= g.weights[n]
		}
		sum += w
		if d.share()*sum < w { // each stays with its share of the sum
			at, best = g.first+n, c
		}
	}
	return at, best, dialled
}

// discount is what calls in flight leave of a weight.
func (p *leastRequest) discount(inflight int64) float64 {
	switch p.bias {
	case 0:
		return 1
	case 1:
		return 1 / float64(max(inflight, 0)+1)
	}
	return math.Pow(float64(max(inflight, 0)+1), -p.bias)
}

// leastOf looks at a range of endpoints and chooses at random among those with
// the fewest calls in flight.
func (s *endpointSet) leastOf(first, count uint64, d *draws, dialled bool) (at uint64, best *cell, _ bool) {
	least, equals := int64(0), uint64(0)
	for i := first; i < first+count; i++ {
		c := s.usable(i)
		if c == nil {
			dialled = dialled || s.wake(i)
			continue
		}
		n := c.inflight.Load()
		if best == nil || n < least {
			at, best, least, equals = i, c, n, 1
		} else if n == least {
			if equals++; d.below(equals) == 0 {
				at, best = i, c
			}
		}
	}
	return at, best, dialled
}
