package proxyless

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// repick is how often a waiting call looks again: each look may dial one more
// endpoint, so that one which does not answer holds nobody up for long (gRFC
// A61 staggers connection attempts by the same 250 ms).
const repick = 250 * time.Millisecond

// wait is taken by calls whose first look found no way or no ready endpoint. It
// finds the way anew where its plan was superseded, and, unless c is nil,
// picks an endpoint.
func (inv *Invoker) wait(ctx context.Context, method string, w *way, c *choice, opts []grpc.CallOption) (a attempt, err error) {
	inv.counts.calls.Add(1)
	patient := waitForReady(opts)
	timer := time.NewTimer(repick)
	defer timer.Stop()
	var queue queue
	defer queue.leave()
	for {
		changed := inv.table.changed.wait()
		p := inv.plan.Load()
		var blocked obstacle
		if w.plan != p {
			var next way
			if next, blocked = p.find(ctx, method); next.route != nil {
				*w = next
			}
		}
		if w.plan == p {
			if c == nil {
				return a, nil
			}
			if a, blocked = w.pick(*c); a.conn != nil {
				return a, nil
			}
		}
		if blocked.err != nil && errors.Is(blocked.err, ErrClosed) {
			return a, blocked.err
		}
		if blocked.refused != refusedNot || !patient && (!blocked.hopeful || p.waiting && inv.overdue()) {
			return a, inv.describe(p, blocked)
		}
		if blocked.set != nil && !queue.enter(blocked.set.limits) {
			blocked.refused = refusedPending
			return a, inv.describe(p, blocked)
		}
		select {
		case <-ctx.Done():
			return a, expired(ctx, inv.describe(p, blocked))
		case <-inv.closed:
			return a, inv.meshClosed()
		case <-p.superseded:
		case <-changed:
		case <-timer.C:
			timer.Reset(repick)
		}
	}
}

// waitForReady finds the caller's grpc.WaitForReady; the last one counts.
func waitForReady(opts []grpc.CallOption) bool {
	patient := false
	for _, o := range opts {
		if o, ok := o.(grpc.FailFastCallOption); ok {
			patient = !o.FailFast
		}
	}
	return patient
}

// overdue says that the control plane has been in trouble for so long that
// calls wait for its first word no longer. While it answers, the does-not-exist
// timer speaks instead.
func (inv *Invoker) overdue() bool {
	return inv.trouble() != nil && !time.Now().Before(inv.giveUp)
}

// queue is where a waiting call is counted.
type queue struct{ limits *breaker }

// enter counts the call as waiting for a cluster, and no longer for another. It
// returns false where too many wait already.
func (q *queue) enter(limits *breaker) bool {
	if q.limits == limits {
		return true
	}
	q.leave()
	if limits == nil || !limits.admitPending() {
		return limits == nil
	}
	q.limits = limits
	return true
}

func (q *queue) leave() {
	if q.limits != nil {
		q.limits.leavePending()
		q.limits = nil
	}
}

// describe turns an obstacle into the error that a call returns. While the
// mesh has not answered, the trouble with the control plane is the reason.
func (inv *Invoker) describe(p *plan, o obstacle) *Error {
	if o.refused != refusedNot {
		inv.count(o.refused)
		return o.set.refusal(p, o)
	}
	if o.err == nil {
		return o.set.unready(p)
	}
	if trouble := inv.trouble(); trouble != nil && p.waiting {
		e := *trouble
		e.Chain, e.Code = o.err.Chain, codes.Unavailable
		return &e
	}
	return o.err
}

// count counts a call that was refused.
func (inv *Invoker) count(r refusal) {
	if r == refusedToShed {
		inv.counts.dropped.Add(1)
	} else {
		inv.counts.overloads.Add(1)
	}
}

// expired is the error of a call whose context ended while it waited.
func expired(ctx context.Context, why *Error) *Error {
	e := *why
	e.Code = codes.DeadlineExceeded
	word := "the deadline passed"
	if ctx.Err() == context.Canceled {
		e.Code, word = codes.Canceled, "the call was cancelled"
	}
	e.Reason = fmt.Sprintf("%s while waiting: %s", word, why.Reason)
	e.Err = ctx.Err()
	return &e
}
