package proxyless

import (
	"context"
	"errors"
)

// warmed is how many endpoints of each priority WaitReady connects ahead of
// the first calls.
const warmed = 32

// warm connects the first endpoints of every cluster and waits until one of
// them is ready and none is still connecting. It returns what is missing when
// the context ends.
func (inv *Invoker) warm(ctx context.Context) error {
	for {
		changed := inv.table.changed.wait()
		p := inv.plan.Load()
		if p.complete() && p.warm() {
			return nil
		}
		if p.problem != nil && errors.Is(p.problem, ErrClosed) {
			return p.problem
		}
		select {
		case <-ctx.Done():
			return inv.missing(p)
		case <-inv.closed:
			return ErrClosed
		case <-p.superseded:
		case <-changed:
		}
	}
}

// warm dials and says whether that has led to something.
func (p *plan) warm() bool {
	connecting, ready := false, false
	for _, s := range p.needed() {
		warm := func(at uint64) {
			s.wake(at)
			if c := s.slots[at].Load(); c != nil {
				connecting = connecting || cellState(c.state.Load()) == cellConnecting
				ready = ready || c.ready.Load() != nil
			}
		}
		for i := range s.tiers {
			t := &s.tiers[i]
			for at := t.first; at < t.first+min(t.count, warmed); at++ {
				warm(at)
			}
			if t.panicking.Load() {
				for _, at := range t.others[:min(len(t.others), warmed)] {
					warm(uint64(at))
				}
			}
		}
	}
	return ready && !connecting
}

// missing is why the reference is not ready.
func (inv *Invoker) missing(p *plan) *Error {
	if p.problem != nil {
		return inv.describe(p, obstacle{err: p.problem})
	}
	if err := p.barren(); err != nil {
		return err
	}
	for _, s := range p.needed() {
		if _, ready := s.census(); ready == 0 {
			return s.unready(p)
		}
	}
	return &Error{Stage: StageEndpoint, Resource: p.name, Reason: "connections are still being made", Err: ErrNotReady}
}
