package proxyless

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// pickFirst sends all calls to one endpoint, the first in order that can be
// connected to, and stays with it while it is ready (gRFC A62). The order is
// the mesh's, or drawn by weight (gRFC A113). Endpoints are dialled one after
// the other, the next one when those before it failed or let 250 ms pass (gRFC
// A61).
type pickFirst struct {
	// Constant after construction.
	order     []uint32 // counted from the tier's first
	endpoints []endpoint

	current atomic.Int64 // the endpoint in use, counted from the tier's first; -1 before there is one
	woken   atomic.Int64 // when the last endpoint was dialled, since the process started
}

func newPickFirst(s *endpointSet, t *tier, before *tier) *pickFirst {
	p := &pickFirst{order: make([]uint32, t.count), endpoints: s.endpoints[t.first : t.first+t.count]}
	for i := range p.order {
		p.order[i] = uint32(i)
	}
	if s.balance.shuffle {
		p.shuffle(s.weights(t))
	}
	p.current.Store(-1)
	if before != nil {
		if last, ok := before.picker.(*pickFirst); ok {
			p.stay(last)
		}
	}
	return p
}

// shuffle draws an order in which heavier endpoints tend to come first.
func (p *pickFirst) shuffle(weights []float64) {
	lots := make([]float64, len(weights))
	for i, w := range weights {
		lots[i] = math.Log(1-rand.Float64()) / w // the logarithm of a random number to the power of 1/w
	}
	slices.SortFunc(p.order, func(a, b uint32) int { return cmp.Compare(lots[b], lots[a]) })
}

// stay takes over the endpoint in use.
func (p *pickFirst) stay(last *pickFirst) {
	at := last.current.Load()
	if at < 0 {
		return
	}
	addr := last.endpoints[at].addr
	p.current.Store(int64(slices.IndexFunc(p.endpoints, func(e endpoint) bool { return e.addr == addr })))
}

func (p *pickFirst) pick(s *endpointSet, t *tier, c choice, dialled bool) (uint64, *cell) {
	current := p.current.Load()
	if c.again > 0 {
		if at, found := p.other(s, t, current, c.again); found != nil {
			return at, found
		}
	}
	if current >= 0 {
		if c := s.usable(t.first + uint64(current)); c != nil {
			return t.first + uint64(current), c
		}
	}
	for _, i := range p.order {
		if c := s.usable(t.first + uint64(i)); c != nil {
			p.current.Store(int64(i))
			return t.first + uint64(i), c
		}
	}
	if !dialled {
		p.dialNext(s, t)
	}
	return 0, nil
}

// other returns an endpoint beside the one in use, another one each time.
func (p *pickFirst) other(s *endpointSet, t *tier, current int64, again uint32) (at uint64, found *cell) {
	for _, i := range p.order {
		if int64(i) == current {
			continue
		}
		if c := s.usable(t.first + uint64(i)); c != nil {
			at, found = t.first+uint64(i), c
			if again--; again == 0 {
				break
			}
		}
	}
	return at, found
}

// attemptDelay is how long an attempt to connect may take before the next
// endpoint is tried as well.
const attemptDelay = 250 * time.Millisecond

// dialNext dials the next endpoint, unless the one before it has not had its
// time.
func (p *pickFirst) dialNext(s *endpointSet, t *tier) {
	connecting := false
	for _, i := range p.order {
		at := t.first + uint64(i)
		if s.failed(at) {
			continue
		}
		if c := s.slots[at].Load(); c != nil && cellState(c.state.Load()) != cellIdle {
			connecting = true
			continue
		}
		now, last := sinceStart(), p.woken.Load()
		if connecting && now-time.Duration(last) < attemptDelay || !p.woken.CompareAndSwap(last, int64(now)) {
			return
		}
		s.wake(at)
		return
	}
}
