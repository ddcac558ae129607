package proxyless

import (
	"context"
	"sync"
)

// mostMirrored is how many copies a Mesh has under way at a time. One more is
// dropped, and counted.
const mostMirrored = 128

// mostFailback is how many calls of a Mesh wait at a time for being made again.
const mostFailback = 100 // Dubbo's

// errands are what nobody waits for, each on a goroutine of its own. There are
// only so many at a time: one more is refused.
type errands struct {
	// Constant after construction.
	ctx  context.Context // ends with close
	stop context.CancelFunc
	most int

	mu     sync.Mutex
	active int  // guarded by mu
	closed bool // guarded by mu

	all sync.WaitGroup
}

func newErrands(most int) *errands {
	e := &errands{most: most}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// run starts an errand, which ends soon after its context does. It returns
// false where it does not.
func (e *errands) run(f func(ctx context.Context)) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.active >= e.most {
		return false
	}
	e.active++
	e.all.Add(1)
	go func() { // joined by close
		defer e.all.Done()
		defer e.done()
		f(e.ctx)
	}()
	return true
}

func (e *errands) done() {
	e.mu.Lock()
	e.active--
	e.mu.Unlock()
}

// close ends all errands and waits for them.
func (e *errands) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.stop()
	e.all.Wait()
}
