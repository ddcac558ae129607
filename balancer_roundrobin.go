package proxyless

import (
	"slices"
)

// pickEqual takes the counter's next values until one belongs to a usable
// endpoint, so that those which are not do not burden their neighbours.
func (s *endpointSet) pickEqual(t *tier, dialled bool) (uint64, *cell) {
	for range t.count {
		at := t.first + t.next.Add(1)%t.count
		if c := s.usable(at); c != nil {
			return at, c
		}
		dialled = dialled || s.wake(at)
	}
	return s.anyUsable(t) // others may have taken the values that were usable
}

// pickWeighted lets an endpoint with share w take its turn in w of 65535
// rounds, spread evenly: a static stride schedule (gRFC A58) on one counter.
func (s *endpointSet) pickWeighted(t *tier, shares []uint16, dialled bool) (uint64, *cell) {
	for range 4*t.count + 64 {
		n := t.next.Add(1)
		i, round := n%t.count, n/t.count
		share := uint64(shares[i])
		if (share*round+i*32767)%65535 < 65535-share {
			continue
		}
		if c := s.usable(t.first + i); c != nil {
			return t.first + i, c
		}
		dialled = dialled || s.wake(t.first+i)
	}
	return s.anyUsable(t)
}

// share puts shares in force; nil says that all are equal.
func (t *tier) share(shares []uint16) {
	if shares == nil {
		t.shares.Store(nil)
	} else {
		t.shares.Store(&shares)
	}
}

// shares scales the endpoints' weights within their localities, and those of
// the localities among one another (gRFC A27), so that the largest is 65535.
// It returns nil when all are equal.
func (s *endpointSet) shares(t *tier) []uint16 {
	if t.count == 0 {
		return nil
	}
	return shares(s.weights(t))
}

func shares(weights []float64) []uint16 {
	if even(weights) {
		return nil
	}
	most := slices.Max(weights)
	scaled := make([]uint16, len(weights))
	for i, w := range weights {
		scaled[i] = uint16(max(1, w/most*65535+0.5))
	}
	return scaled
}
