package proxyless

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheFactorOfAnEndpointThatWarmsUp(t *testing.T) {
	const window = 100 * time.Second
	for _, c := range []struct {
		slow slowStart
		age  time.Duration
		want float64
	}{
		{slowStart{}, 0, 0.1},
		{slowStart{}, 5 * time.Second, 0.1},
		{slowStart{}, 50 * time.Second, 0.5},
		{slowStart{}, 100 * time.Second, 1},
		{slowStart{}, time.Hour, 1},
		{slowStart{aggression: 2}, 25 * time.Second, 0.5},
		{slowStart{aggression: 0.5}, 50 * time.Second, 0.25},
		{slowStart{hasLeast: true}, 0, 0.00001},
		{slowStart{least: 0.3, hasLeast: true}, 0, 0.3},
	} {
		c.slow.window = window
		if got := c.slow.factor(c.age); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v at %v: %v, want %v", c.slow, c.age, got, c.want)
		}
	}
}

func TestANewEndpointWarmsUp(t *testing.T) {
	for name, policy := range map[string]lbPolicy{"round robin": lbRoundRobin, "least request": lbLeastRequest} {
		synctest.Test(t, func(t *testing.T) {
			b := balancing{policy: policy, slow: slowStart{window: 100 * time.Second}}
			s := balanced(b, testAssignment(ones(3)), nil)
			connectAll(s)
			share := func() int {
				n := 0
				for range 30_000 {
					if at, _ := s.pick(choice{}); at == 3 {
						n++
					}
				}
				return n
			}
			go s.table.upkeep.loop(t.Context())
			if w := s.tiers[0].shares.Load(); w != nil {
				t.Errorf("%s: the cluster's first endpoints warm up: %d", name, *w)
			}
			s = balanced(b, testAssignment(ones(4)), s)
			connectAll(s)
			for _, c := range []struct {
				after time.Duration
				want  float64 // of the others' weights
			}{{time.Second, 0.1}, {49 * time.Second, 0.5}, {25 * time.Second, 0.75}, {26 * time.Second, 1}} {
				time.Sleep(c.after)
				synctest.Wait()
				want := 30_000 * c.want / (3 + c.want)
				if n := share(); math.Abs(float64(n)-want) > 0.12*want {
					t.Errorf("%s: %v later the new endpoint gets %d of 30000 calls, want about %.0f", name, c.after, n, want)
				}
			}
			s.state.mu.Lock()
			idle := s.state.settler.at < 0
			s.state.mu.Unlock()
			if !idle {
				t.Errorf("%s: upkeep goes on although all endpoints are warm", name)
			}
		})
	}
}

// TestAnEjectionDoesNotMakeAnEndpointNew: an endpoint is new once, and when it
// comes back from an ejection it gets at once what the others get.
func TestAnEjectionDoesNotMakeAnEndpointNew(t *testing.T) {
	s := outlierSet(t, 3, outlierDefaults(nil))
	s.balance.slow = slowStart{window: 100 * time.Second}
	s.eject(1)
	if !s.hosts[1].out.Load() {
		t.Fatal("it is not ejected")
	}
	if f := s.warmth(&s.tiers[0], time.Now()); f != nil {
		t.Errorf("it warms up: %v", f)
	}
}
