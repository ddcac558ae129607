package proxyless

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// upkeep does on one goroutine whatever a Mesh has to do from time to time:
// sweeps, ages, refreshed weights. While it has no chore it has no timer.
type upkeep struct {
	// Constant after construction.
	nudge chan struct{} // the earliest chore changed
	done  chan struct{} // closed when run has returned

	mu     sync.Mutex
	chores choreHeap // guarded by mu
}

// chore is something that upkeep does again and again.
type chore struct {
	// Constant after construction.
	upkeep *upkeep
	run    func(now time.Time) (again time.Duration)

	// Guarded by upkeep.mu.
	due     time.Time
	at      int // in the heap; -1 while it is in none
	stopped bool
}

func newUpkeep() *upkeep {
	return &upkeep{nudge: make(chan struct{}, 1), done: make(chan struct{})}
}

// do has f called after a delay, and again after each delay that f returns,
// until that is 0 or less. f holds up all other chores: it neither waits nor
// calls users. Anybody may call do, from within a chore, too; before run and
// after its end it only notes the chore.
func (u *upkeep) do(after time.Duration, f func(now time.Time) (again time.Duration)) *chore {
	c := &chore{upkeep: u, run: f, at: -1}
	c.in(after)
	return c
}

// in moves the next run of a chore, which may have ended, to a delay from now.
func (c *chore) in(after time.Duration) {
	u := c.upkeep
	u.mu.Lock()
	defer u.mu.Unlock()
	if !c.stopped {
		u.put(c, time.Now().Add(after))
	}
}

// stop ends a chore. It does not wait for a run that has begun.
func (c *chore) stop() {
	if c == nil {
		return
	}
	u := c.upkeep
	u.mu.Lock()
	defer u.mu.Unlock()
	c.stopped = true
	if c.at >= 0 {
		heap.Remove(&u.chores, c.at)
	}
}

// put makes a chore due. u.mu is held.
func (u *upkeep) put(c *chore, due time.Time) {
	c.due = due
	if c.at >= 0 {
		heap.Fix(&u.chores, c.at)
	} else {
		heap.Push(&u.chores, c)
	}
	if c.at == 0 {
		select {
		case u.nudge <- struct{}{}:
		default: // one is under way
		}
	}
}

// loop is the goroutine of upkeep. It returns when the context ends.
func (u *upkeep) loop(ctx context.Context) {
	defer close(u.done)
	for {
		var timer *time.Timer
		var due <-chan time.Time
		if wait, any := u.work(ctx); any {
			timer = time.NewTimer(wait)
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-u.nudge:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// work does what is due, and returns how long until more is.
func (u *upkeep) work(ctx context.Context) (wait time.Duration, any bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.chores) > 0 && ctx.Err() == nil {
		c, now := u.chores[0], time.Now()
		if wait := c.due.Sub(now); wait > 0 {
			return wait, true
		}
		heap.Pop(&u.chores)
		u.mu.Unlock()
		again := c.run(now)
		u.mu.Lock()
		if again > 0 && !c.stopped && c.at < 0 { // else it was moved meanwhile
			u.put(c, now.Add(again))
		}
	}
	return 0, false
}

// choreHeap is a container/heap with the earliest chore first.
type choreHeap []*chore

func (h choreHeap) Len() int           { return len(h) }
func (h choreHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h choreHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *choreHeap) Push(x any) {
	c := x.(*chore)
	c.at = len(*h)
	*h = append(*h, c)
}

func (h *choreHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last], c.at = nil, -1
	*h = (*h)[:last]
	return c
}
