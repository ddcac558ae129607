package proxyless

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func runUpkeep(t *testing.T) *upkeep {
	u := newUpkeep()
	ctx, stop := context.WithCancel(t.Context())
	go u.loop(ctx)
	t.Cleanup(func() {
		stop()
		<-u.done
	})
	return u
}

func TestChoresRunWhenTheyAreDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, start := runUpkeep(t), time.Now()
		var slow, fast []time.Duration
		u.do(10*time.Second, func(now time.Time) time.Duration {
			slow = append(slow, now.Sub(start))
			return 10 * time.Second
		})
		u.do(time.Second, func(now time.Time) time.Duration {
			fast = append(fast, now.Sub(start))
			if len(fast) == 3 {
				return 0
			}
			return 2 * time.Second
		})
		time.Sleep(35 * time.Second)
		synctest.Wait()
		if !slices.Equal(slow, []time.Duration{10e9, 20e9, 30e9}) || !slices.Equal(fast, []time.Duration{1e9, 3e9, 5e9}) {
			t.Errorf("ran after %v and %v", slow, fast)
		}
	})
}

func TestAChoreIsStoppedAndMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, start := runUpkeep(t), time.Now()
		runs := 0
		stopped := u.do(5*time.Second, func(time.Time) time.Duration { runs++; return time.Second })
		var moved []time.Duration
		c := u.do(time.Hour, func(now time.Time) time.Duration { moved = append(moved, now.Sub(start)); return 0 })
		time.Sleep(time.Second)
		stopped.stop()
		c.in(time.Second)
		time.Sleep(time.Minute)
		c.in(time.Second)
		time.Sleep(time.Minute)
		stopped.in(time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		if runs != 0 || !slices.Equal(moved, []time.Duration{2e9, 62e9}) {
			t.Errorf("the stopped one ran %d times, the moved one after %v", runs, moved)
		}
	})
}

// TestUpkeepSleepsWithoutChores: synctest ends only when every goroutine of the
// bubble has, and a timer that ticks would let time pass.
func TestUpkeepSleepsWithoutChores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := runUpkeep(t)
		synctest.Wait()
		if wait, any := u.work(t.Context()); any {
			t.Errorf("wakes up in %v", wait)
		}
	})
}
