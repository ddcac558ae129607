package proxyless

import "math/rand/v2"

// random chooses an endpoint by chance, as often as its weight says.
type random struct{ lots lots }

func (p *random) pick(s *endpointSet, t *tier, _ choice, dialled bool) (uint64, *cell) {
	return p.choose(s, t, draws(rand.Uint64()), dialled)
}

// misses is how many draws may fall on endpoints that are not usable before
// all are looked at.
const misses = 8

func (p *random) choose(s *endpointSet, t *tier, d draws, dialled bool) (uint64, *cell) {
	for range misses {
		at := t.first + p.lots.draw(&d)
		if c := s.usable(at); c != nil {
			return at, c
		}
		dialled = dialled || s.wake(at)
	}
	return s.anyUsable(t)
}

// lots draws endpoints in proportion to their weights, by Walker's alias
// method: one random number and one look, however many there are. It is
// immutable.
type lots struct {
	count uint64
	table []lot // nil where all weigh the same
}

// lot keeps its own number in keep of 2^32 cases and gives other's in the rest.
type lot struct{ keep, other uint32 }

// draw returns the number of an endpoint.
func (l *lots) draw(d *draws) uint64 {
	r := d.next()
	at := r >> 32 * l.count >> 32
	if l.table != nil {
		if entry := l.table[at]; uint32(r) >= entry.keep {
			return uint64(entry.other)
		}
	}
	return at
}

// newLots prepares to draw by weights, of which at least one is above 0.
func newLots(weights []float64) lots {
	l := lots{count: uint64(len(weights))}
	if even(weights) {
		return l
	}
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	l.table = make([]lot, len(weights))
	left := make([]float64, len(weights)) // what is still to be given away, 1 on average
	var poor, rich []uint32
	for i, w := range weights {
		left[i] = w / sum * float64(len(weights))
		if left[i] < 1 {
			poor = append(poor, uint32(i))
		} else {
			rich = append(rich, uint32(i))
		}
	}
	for len(poor) > 0 && len(rich) > 0 {
		p, r := poor[len(poor)-1], rich[len(rich)-1]
		poor = poor[:len(poor)-1]
		l.table[p] = lot{keep: uint32(left[p] * (1 << 32)), other: r}
		left[r] -= 1 - left[p]
		if left[r] < 1 {
			rich = rich[:len(rich)-1]
			poor = append(poor, r)
		}
	}
	for _, i := range append(poor, rich...) { // 1 but for rounding
		l.table[i] = lot{other: i}
	}
	return l
}
