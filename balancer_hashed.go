package proxyless

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// hashed chooses the endpoint that a call's hash leads to (Envoy's RING_HASH
// and MAGLEV, gRFC A42), so that calls with equal hashes meet at one endpoint.
// Where that one cannot be used, its successor takes its place: the same one
// for all calls of that hash.
type hashed struct {
	order circle
	from  hashedFrom
}

// circle is endpoints in an order that hashes lead into.
type circle interface {
	// start returns where a hash leads into the order, or, for another attempt
	// of the same call, where else.
	start(hash uint64, again uint32) uint64
	// at returns the endpoint so many steps on, counted from the tier's first.
	at(start uint64, steps int) uint64
	size() int
}

// hashedFrom is what a circle is made from: while it stays the same, so does
// the circle.
type hashedFrom struct {
	balance   balancing
	endpoints []endpoint
	weights   []float64 // which add up to 1
}

func newHashed(s *endpointSet, t *tier, before *tier) *hashed {
	from := hashedFrom{balance: s.balance, endpoints: s.endpoints[t.first : t.first+t.count], weights: s.weights(t)}
	sum := total(from.weights)
	for i := range from.weights {
		from.weights[i] /= sum
	}
	if before != nil {
		if last, ok := before.picker.(*hashed); ok && last.from.same(&from) {
			return &hashed{order: last.order, from: from}
		}
	}
	if s.balance.policy == lbMaglev {
		return &hashed{order: newMaglev(&from), from: from}
	}
	return &hashed{order: newRing(&from), from: from}
}

func (f *hashedFrom) same(other *hashedFrom) bool {
	return f.balance == other.balance && slices.Equal(f.weights, other.weights) &&
		slices.EqualFunc(f.endpoints, other.endpoints, func(a, b endpoint) bool {
			return a.addr == b.addr && (a.extra == b.extra || f.key(nil, &a) == f.key(nil, &b))
		})
}

// key is what stands for an endpoint on the ring, put into buf where there is
// room.
func (f *hashedFrom) key(buf []byte, e *endpoint) string {
	if e.extra != nil && e.extra.hashKey != "" {
		return e.extra.hashKey
	}
	if f.balance.hostnames && e.extra != nil && e.extra.hostname != "" {
		return e.extra.hostname
	}
	return string(e.addr.AppendTo(buf[:0]))
}

// keyed is an endpoint of a circle in the making.
type keyed struct {
	key    string
	at     uint32
	weight float64
}

// byKey lists the endpoints by their keys: the order in which endpoints come
// from the mesh must not count.
func (f *hashedFrom) byKey() []keyed {
	all := make([]keyed, len(f.endpoints))
	var buf [64]byte
	for i := range all {
		all[i] = keyed{key: f.key(buf[:], &f.endpoints[i]), at: uint32(i), weight: f.weights[i]}
	}
	slices.SortStableFunc(all, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	return all
}

func (p *hashed) pick(s *endpointSet, t *tier, c choice, dialled bool) (uint64, *cell) {
	if !c.hashed {
		return p.anywhere(s, t, p.order.start(rand.Uint64(), c.again), dialled)
	}
	return p.walk(s, t, p.order.start(c.hash, c.again), dialled)
}

// walk goes from where the hash leads to the first endpoint that has not failed. A call
// waits for one that connects, and for one that was never dialled, which it
// wakes (gRFC A42).
func (p *hashed) walk(s *endpointSet, t *tier, from uint64, dialled bool) (uint64, *cell) {
	load := -1.0 // not known
	full := int64(math.MaxInt64)
	var last uint64 // which of the full ones is the least busy
	var lastCell *cell
	for i := range p.steps() {
		at := t.first + p.step(from, i)
		c := s.usable(at)
		if c == nil {
			if s.failed(at) {
				continue
			}
			dialled = dialled || s.wake(at)
			if lastCell == nil {
				return 0, nil
			}
			continue
		}
		n := c.inflight.Load()
		if p.from.balance.bounded == 0 || n <= 1 {
			return at, c
		}
		if load < 0 {
			load = s.load(t)
		}
		if n <= p.slots(at-t.first, load) {
			return at, c
		}
		if n < full {
			full, last, lastCell = n, at, c
		}
	}
	return last, lastCell
}

// steps is how far walks go: a few times around the endpoints by the circle,
// where each should have been met, and then by their numbers.
func (p *hashed) steps() int { return p.around() + len(p.from.endpoints) }

func (p *hashed) around() int { return min(p.order.size(), 4*len(p.from.endpoints)+64) }

func (p *hashed) step(from uint64, i int) uint64 {
	if i == 0 || i < p.around() {
		return p.order.at(from, i)
	}
	return (from + uint64(i)) % uint64(len(p.from.endpoints))
}

// anywhere is for calls without a hash: they take the first endpoint that is
// ready, and wake one only where none on the way to it connects (gRFC A76).
func (p *hashed) anywhere(s *endpointSet, t *tier, from uint64, dialled bool) (uint64, *cell) {
	for i := range p.steps() {
		at := t.first + p.step(from, i)
		if c := s.usable(at); c != nil {
			return at, c
		}
		dialled = dialled || s.wake(at) || !s.failed(at)
	}
	return 0, nil
}

// failed says that an endpoint cannot become usable by waiting for a little.
func (s *endpointSet) failed(at uint64) bool {
	if s.hosts != nil && s.hosts[at].ejected.Load() {
		return true
	}
	c := s.slots[at].Load()
	return c != nil && cellState(c.state.Load()) == cellFailed
}

// load is how many calls of a tier are in flight.
func (s *endpointSet) load(t *tier) float64 {
	sum := int64(0)
	for i := range t.count {
		if c := s.slots[t.first+i].Load(); c != nil {
			sum += c.inflight.Load()
		}
	}
	return float64(sum)
}

// slots is how many calls an endpoint may have in flight before it counts as
// overloaded (hash_balance_factor).
func (p *hashed) slots(at uint64, load float64) int64 {
	most := math.Floor(((load+1)*float64(p.from.balance.bounded) + 99) / 100)
	return max(1, int64(math.Ceil(most*p.from.weights[at])))
}
