package proxyless

import (
	"sync"
	"time"
)

// Of what strangers can make happen as often as they like, so much is logged.
const (
	hushWindow = 10 * time.Second
	hushLines  = 8 // for each window, each of another text
)

// hush keeps a log from being flooded.
type hush struct {
	mu   sync.Mutex
	ends time.Duration // of the window, since start
	said map[string]struct{}
	more uint64 // not said, since something was
}

// say calls f, with how many were not said before it, unless the same or too
// much was said in this window.
func (h *hush) say(text string, f func(more uint64)) {
	now := sinceStart()
	h.mu.Lock()
	if now >= h.ends {
		h.ends, h.said = now+hushWindow, make(map[string]struct{}, hushLines)
	}
	if _, said := h.said[text]; said || len(h.said) == hushLines {
		h.more++
		h.mu.Unlock()
		return
	}
	h.said[text] = struct{}{}
	more := h.more
	h.more = 0
	h.mu.Unlock()
	f(more)
}
