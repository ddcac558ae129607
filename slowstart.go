package proxyless

import (
	"math"
	"time"
)

// varies says that weights change with time: those of endpoints that warm up,
// and of those that report their load. They are settled by upkeep, and picks
// take them as they are.
func (b *balancing) varies() bool { return b.slow.window > 0 || b.policy == lbReported }

// settle puts the weights of now in force and returns when to do it again; 0 is
// never. The state's mu is held.
func (s *endpointSet) settle(now time.Time) (again time.Duration) {
	for i := range s.tiers {
		t := &s.tiers[i]
		if t.count == 0 {
			continue
		}
		if s.balance.policy == lbReported {
			s.settleReported(t)
			again = s.balance.reported.settlePeriod()
			continue
		}
		factors := s.warmth(t, now)
		if factors != nil {
			again = min(max(s.balance.slow.window/100, 100*time.Millisecond), time.Second)
		}
		if p, ok := t.picker.(*leastRequest); ok {
			p.spread.Store(newSpread(s, t, factors))
		} else if t.picker == nil {
			weights := s.weights(t)
			for i, f := range factors {
				weights[i] *= f
			}
			t.share(shares(weights))
		}
	}
	return again
}

// warmth returns the factors of a tier's endpoints; nil where all are warm.
func (s *endpointSet) warmth(t *tier, now time.Time) []float64 {
	var factors []float64
	for i := range t.count {
		f := s.balance.slow.factor(now.Sub(s.hosts[t.first+i].since))
		if f == 1 {
			continue
		}
		if factors == nil {
			factors = make([]float64, t.count)
			for j := range factors {
				factors[j] = 1
			}
		}
		factors[i] = f
	}
	return factors
}

// factor is what an endpoint's weight is multiplied with at an age: Envoy's
// max(min_weight_percent, (age/window)^(1/aggression)).
func (b *slowStart) factor(age time.Duration) float64 {
	if age >= b.window {
		return 1
	}
	least := b.least
	if !b.hasLeast && least == 0 {
		least = 0.1
	}
	f := float64(max(age, time.Millisecond)) / float64(b.window)
	if b.aggression > 0 && b.aggression != 1 {
		f = math.Pow(f, 1/b.aggression)
	}
	return max(f, least)
}

// varyWeights has upkeep settle the weights of the state's sets for as long as
// they change. st.mu is held.
func (st *clusterState) varyWeights(now time.Time) {
	again := st.settle(now)
	switch {
	case again == 0:
	case st.settler == nil:
		st.settler = st.upkeep.do(again, func(now time.Time) time.Duration {
			st.mu.Lock()
			defer st.mu.Unlock()
			return st.settle(now)
		})
	default:
		st.settler.in(again)
	}
}

// settle puts the weights of all sets in force. st.mu is held.
func (st *clusterState) settle(now time.Time) (again time.Duration) {
	for _, s := range st.sets {
		if !s.balance.varies() {
			continue
		}
		if next := s.settle(now); next > 0 && (again == 0 || next < again) {
			again = next
		}
	}
	return again
}
