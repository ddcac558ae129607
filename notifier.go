package proxyless

import (
	"sync"
	"sync/atomic"
)

// notifier wakes everyone who waits for some change.
type notifier struct {
	mu sync.Mutex
	ch atomic.Pointer[chan struct{}]
}

func (n *notifier) init() {
	ch := make(chan struct{})
	n.ch.Store(&ch)
}

// wait returns the channel that the next notify closes. Take it before looking
// at what may change.
func (n *notifier) wait() <-chan struct{} { return *n.ch.Load() }

func (n *notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := make(chan struct{})
	close(*n.ch.Swap(&ch))
}
