package proxyless

import "time"

// Client-side weighted round robin (gRFC A58): endpoints take turns by weights
// that are made of what they report of their load. settle, which upkeep calls,
// makes the weights; picks are those of weighted round robin.

// settleReported puts the weights of a tier in force. Within a locality those
// that have reported weigh as they said, and all others as their average; where
// fewer than two have, all weigh the same. The weights of the mesh count among
// localities.
func (s *endpointSet) settleReported(t *tier) {
	now := sinceStart()
	weights := make([]float64, t.count)
	for i := range t.localities {
		l := &t.localities[i]
		if l.count == 0 {
			continue
		}
		own := ofLocality(weights, t, l)
		for j := range own {
			own[j] = s.reported(uint64(l.first+j), now)
		}
		levelOut(own)
		share := s.scale(l) * float64(weightOf(s.endpoints[l.first:l.first+l.count])) / total(own)
		for j := range own {
			own[j] *= share
		}
	}
	t.share(shares(weights))
}

// levelOut gives the average to those that have no weight, and the same to all
// where fewer than two have one.
func levelOut(weights []float64) {
	sum, n := 0.0, 0
	for _, w := range weights {
		if sum += w; w > 0 {
			n++
		}
	}
	for i, w := range weights {
		if n < 2 {
			weights[i] = 1
		} else if w == 0 {
			weights[i] = sum / float64(n)
		}
	}
}

// reported is the weight that an endpoint's last report gives it; 0 where there
// is none, where it is too old, or where the endpoint has not reported for long
// enough. It has the endpoint go on reporting.
func (s *endpointSet) reported(at uint64, now time.Duration) float64 {
	c := s.slots[at].Load()
	if c == nil {
		return 0
	}
	b := &s.balance.reported
	c.wantReports(b, now)
	r := c.report.Load()
	if r == nil {
		return 0
	}
	if now-r.at >= b.expires() {
		c.report.CompareAndSwap(r, nil) // what comes next is the first again
		return 0
	}
	if now-r.since < b.blacksOut() {
		return 0
	}
	return r.weight(b)
}
