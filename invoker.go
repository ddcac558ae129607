package proxyless

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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

// within adds a deadline where the context has none.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, has := ctx.Deadline(); has {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
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
