package proxyless

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Invoker calls one interface of one provider. It is a
// [grpc.ClientConnInterface], so that any generated stub works on it, and safe
// for concurrent use.
//
// A call waits for configuration and for a connection until its deadline. It
// fails at once with UNAVAILABLE, and an [*Error] that names the chain, when
// the mesh says that there is nothing to call, when every endpoint refuses
// connections, or when the first configuration is overdue
// (Config.ResourceTimeout after Refer). With [grpc.WaitForReady] it waits in
// these cases too.
//
// An attempt that certainly did not reach the provider is repeated on another
// endpoint; nothing else is.
type Invoker struct {
	// Constant after construction.
	target    target
	temporary bool // made to explain a call: nobody waits for it, and readiness does not depend on it

	serial  uint64 // counts Refer, for a stable order
	table   *connTable
	counts  *counters
	log     *slog.Logger
	closed  <-chan struct{} // the Mesh's
	giveUp  time.Time       // when the first configuration is overdue
	trouble func() *Error   // why the control plane is silent; nil when it is not
	unary   grpc.UnaryClientInterceptor
	stream  grpc.StreamClientInterceptor
	release func() // tells the Mesh
	once    sync.Once

	// Written by the ADS loop only, read by every call.
	plan atomic.Pointer[plan]
}

var _ grpc.ClientConnInterface = (*Invoker)(nil)

// Invoke sends a unary call. The interceptors of Config run around it, with a
// nil ClientConn: the connection is chosen inside.
func (inv *Invoker) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if inv.unary != nil {
		return inv.unary(ctx, method, args, reply, nil, inv.invoke, opts...)
	}
	return inv.invoke(ctx, method, args, reply, nil, opts...)
}

// NewStream opens a streaming call. The interceptors of Config run around it,
// with a nil ClientConn.
func (inv *Invoker) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if inv.stream != nil {
		return inv.stream(ctx, desc, nil, method, inv.newStream, opts...)
	}
	return inv.newStream(ctx, desc, nil, method, opts...)
}

// Close gives the reference back. Calls in flight finish; later ones fail.
func (inv *Invoker) Close() error {
	inv.once.Do(inv.release)
	return nil
}

func (inv *Invoker) invoke(ctx context.Context, method string, args, reply any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
	own := withoutFinish(opts)
	err := inv.unaryCall(ctx, method, args, reply, own)
	if err != nil && inv.target.tolerance.forgives() {
		err = inv.forgive(ctx, method, args, reply, own, err)
	}
	if len(own) < len(opts) {
		finishOptions(opts, err)
	}
	return err
}

func (inv *Invoker) unaryCall(ctx context.Context, method string, args, reply any, opts []grpc.CallOption) error {
	if inv.target.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = within(ctx, inv.target.timeout)
		defer cancel()
	}
	w, waited, err := inv.way(ctx, method, opts)
	if err != nil {
		return err
	}
	if limit := w.route.limit; limit > 0 { // it counts from the start of the call, shortens the call's deadline and never extends it (gRFC A31)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit-waited)
		defer cancel()
	}
	if inv.target.tolerance.spreads() {
		return inv.spread(ctx, method, args, reply, w, opts)
	}
	if w.policy() != nil {
		return inv.govern(ctx, method, args, reply, w, opts)
	}
	for {
		a, err := inv.attempt(ctx, method, &w, choice{}, opts)
		if err != nil {
			return err
		}
		err = a.send(ctx, method, args, reply, opts)
		if !nothingSent(err) {
			return inv.cut(ctx, err)
		}
		inv.counts.repicks.Add(1)
	}
}

// way finds how a call goes, and waits for it where need be.
func (inv *Invoker) way(ctx context.Context, method string, opts []grpc.CallOption) (w way, waited time.Duration, err error) {
	w, _ = inv.plan.Load().find(ctx, method)
	if w.route != nil {
		return w, 0, nil
	}
	start := time.Now()
	_, err = inv.wait(ctx, method, &w, nil, opts)
	return w, time.Since(start), err
}

// attempt chooses an endpoint on the way of a call, and waits for it where need
// be. Where the plan has been superseded, the way is found anew.
func (inv *Invoker) attempt(ctx context.Context, method string, w *way, c choice, opts []grpc.CallOption) (attempt, error) {
	if w.plan == inv.plan.Load() {
		a, blocked := w.pick(c)
		if a.conn != nil {
			return a, nil
		}
		if blocked.refused != refusedNot {
			return a, inv.describe(w.plan, blocked)
		}
	}
	return inv.wait(ctx, method, w, &c, opts)
}

// cut names the reason of a call that Mesh.Close cut off.
func (inv *Invoker) cut(ctx context.Context, err error) error {
	if code := status.Code(err); code != codes.Canceled && code != codes.Unavailable || ctx.Err() != nil {
		return err
	}
	select {
	case <-inv.closed:
		return inv.meshClosed()
	default:
		return err
	}
}

func (inv *Invoker) meshClosed() *Error {
	return &Error{Stage: StageProvider, Resource: inv.target.providedBy, Reason: "the mesh was closed", Err: ErrClosed}
}

// within adds a deadline where the context has none.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// errPanicked is how an attempt ended out of which a codec or an interceptor
// panicked: it says nothing of the endpoint.
var errPanicked = context.Canceled

// send makes one attempt.
func (a *attempt) send(ctx context.Context, method string, args, reply any, opts []grpc.CallOption) (err error) {
	err = errPanicked
	defer func() { a.finish(err) }()
	err = a.conn.Invoke(a.plan.outgoing(ctx), method, args, reply, a.options(opts)...)
	return err
}

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

func (inv *Invoker) newStream(ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	cancel := func() {}
	if inv.target.timeout > 0 {
		ctx, cancel = within(ctx, inv.target.timeout)
	}
	w, waited, err := inv.way(ctx, method, opts)
	if err != nil {
		cancel()
		finishOptions(opts, err)
		return nil, err
	}
	if limit := w.route.limit; limit > 0 {
		outer := cancel
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, limit-waited)
		cancel = func() { stop(); outer() }
	}
	return inv.openStream(ctx, desc, method, w, opts, cancel)
}

// overdue says that the control plane has been in trouble for so long that
// calls wait for its first word no longer. While it answers, the does-not-exist
// timer speaks instead.
func (inv *Invoker) overdue() bool {
	return inv.trouble() != nil && !time.Now().Before(inv.giveUp)
}

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

// count counts a call that was refused.
func (inv *Invoker) count(r refusal) {
	if r == refusedToShed {
		inv.counts.dropped.Add(1)
	} else {
		inv.counts.overloads.Add(1)
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

// pending is the plan of an Invoker that the ADS loop has not seen yet.
func pending(name string) *plan {
	return &plan{name: name, waiting: true, superseded: make(chan struct{}), problem: &Error{
		Stage: StageListener, Resource: name, Reason: "the control plane has not answered yet", Chain: "listener " + name + " requested", Err: ErrNotReady}}
}

// chainUnary folds interceptors into one, the first outermost; nil for none.
func chainUnary(all []grpc.UnaryClientInterceptor) grpc.UnaryClientInterceptor {
	if len(all) == 0 {
		return nil
	}
	first, rest := all[0], chainUnary(all[1:])
	if rest == nil {
		return first
	}
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		inner := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
			return rest(ctx, method, req, reply, cc, next, opts...)
		}
		return first(ctx, method, req, reply, cc, inner, opts...)
	}
}

// chainStream folds interceptors into one, the first outermost; nil for none.
func chainStream(all []grpc.StreamClientInterceptor) grpc.StreamClientInterceptor {
	if len(all) == 0 {
		return nil
	}
	first, rest := all[0], chainStream(all[1:])
	if rest == nil {
		return first
	}
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		inner := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return rest(ctx, desc, cc, method, next, opts...)
		}
		return first(ctx, desc, cc, method, inner, opts...)
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
