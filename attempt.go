package proxyless

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// attempt is one endpoint chosen for one call.
type attempt struct {
	way
	set  *endpointSet
	at   uint64 // the endpoint's index in set
	host *host  // nil where the cluster has no state
	cell *cell
	conn *grpc.ClientConn

	begun  time.Duration // since the process started; 0 where nobody asks how long it took
	answer *answer       // nil unless failures of local origin are told from others
}

// pick goes on from the cluster to a connection. In an aggregate cluster it
// begins with the one that calls go to now, which may be another than it was
// when the way was found. The caller finishes the attempt when it is over.
func (w *way) pick(c choice) (attempt, obstacle) {
	if w.cluster.leaves != nil {
		w.cluster = w.cluster.leaf()
	}
	s := w.cluster.set
	if s.limits != nil && !s.limits.admit() {
		return attempt{}, obstacle{set: s, refused: refusedRequests}
	}
	for at, cell := s.pick(c); cell != nil; at, cell = s.pick(c) {
		if s.drops != nil {
			if i, drop := s.shed(); drop {
				s.giveUp()
				return attempt{}, obstacle{set: s, refused: refusedToShed, category: i}
			}
		}
		if conn := cell.enter(); conn != nil {
			return w.begin(at, cell, conn), obstacle{}
		}
	}
	s.giveUp()
	blocked := obstacle{set: s, hopeful: s.hope(c)}
	if !blocked.hopeful && c.extra != nil && c.extra.strict {
		blocked.err = s.unpinned(c.extra.sticky)
	} else if !blocked.hopeful && w.cluster.leaves != nil {
		blocked.hopeful = w.cluster.leaf() != w.cluster // it failed just now
	}
	return attempt{}, blocked
}

// begin is an attempt at an endpoint that was entered.
func (w *way) begin(at uint64, c *cell, conn *grpc.ClientConn) attempt {
	s := w.cluster.set
	a := attempt{way: *w, set: s, at: at, cell: c, conn: conn}
	if s.hosts != nil {
		a.host = s.hosts[at]
		if s.split {
			a.answer = new(answer)
		}
		if s.timed {
			a.begun = sinceStart()
		}
	}
	return a
}

// enter is pick where the endpoint is given.
func (w *way) enter(at uint64) (attempt, bool) {
	s := w.cluster.set
	if s.limits != nil && !s.limits.admit() {
		return attempt{}, false
	}
	if c := s.usable(at); c != nil {
		if conn := c.enter(); conn != nil {
			return w.begin(at, c, conn), true
		}
	}
	s.giveUp()
	return attempt{}, false
}

// giveUp counts a call out that was admitted and came to nothing.
func (s *endpointSet) giveUp() {
	if s.limits != nil {
		s.limits.leave()
	}
}

// send makes one attempt.
func (a *attempt) send(ctx context.Context, method string, args, reply any, opts []grpc.CallOption) (err error) {
	err = errPanicked
	defer func() { a.finish(err) }()
	err = a.conn.Invoke(a.plan.outgoing(ctx), method, args, reply, a.options(opts)...)
	return err
}

// errPanicked is how an attempt ended out of which a codec or an interceptor
// panicked: it says nothing of the endpoint.
var errPanicked = context.Canceled

// outgoing adds Triple's headers to the call's own metadata.
func (p *plan) outgoing(ctx context.Context) context.Context {
	if len(p.headers) == 0 {
		return ctx
	}
	md, has := metadata.FromOutgoingContext(ctx)
	if !has {
		return metadata.NewOutgoingContext(ctx, p.headers)
	}
	for name, values := range p.headers {
		md[name] = values
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// options are those of one attempt: the plan's, then the caller's, which win.
func (a *attempt) options(opts []grpc.CallOption) []grpc.CallOption {
	opts = a.plan.callOptions(opts)
	if a.answer != nil {
		opts = append(slices.Clip(opts), a.answer.options()...)
	}
	return opts
}

// callOptions puts the plan's options before the caller's, which win.
func (p *plan) callOptions(opts []grpc.CallOption) []grpc.CallOption {
	if len(opts) == 0 {
		return p.options
	}
	return slices.Concat(p.options, opts)
}

// finish counts the attempt out, and its outcome where somebody wants to know.
func (a *attempt) finish(err error) {
	a.cell.leave()
	s := a.set
	if s.limits != nil {
		s.limits.leave()
	}
	if s.timed && err == nil {
		now := sinceStart()
		a.host.replies.add(now-a.begun, now)
	}
	if s.judged {
		s.state.observe(a.host, a.verdict(err))
	}
}

// verdict is what outlier detection counts.
func (a *attempt) verdict(err error) verdict {
	if a.answer != nil {
		return a.answer.judge(err)
	}
	return verdictOf(err)
}
