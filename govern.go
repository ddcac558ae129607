package proxyless

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// governed is one unary call whose route asks for more than forwarding: what
// its attempts share. Istio gives every route a retry policy, so that most
// calls of a real mesh are governed: while nothing fails, such a call may cost
// next to nothing above one that is not, which alloc_test.go holds. Therefore
// the value and all that it points at are used again by later calls.
type governed struct {
	// Constant for the call.
	inv         *Invoker
	method      string
	args, reply any
	opts        []grpc.CallOption // the caller's, but for OnFinish
	policy      *routePolicy

	way     way
	choice  choice
	guide   guidance
	last    attempt // the latest one
	retry   retrying
	payload payload

	// What an attempt leaves behind.
	header, trailer metadata.MD

	// Constant for the life of the value: options that point into it.
	force, wantHeader, wantTrailer grpc.CallOption

	options []grpc.CallOption // room for those of an attempt
}

var governedCalls = sync.Pool{New: func() any {
	g := new(governed)
	g.force = grpc.ForceCodecV2(&g.payload)
	g.wantHeader, g.wantTrailer = grpc.Header(&g.header), grpc.Trailer(&g.trailer)
	return g
}}

// govern sends a unary call whose route asks for more than forwarding: faults
// first, then copies to mirrors, then attempts.
func (inv *Invoker) govern(ctx context.Context, method string, args, reply any, w way, opts []grpc.CallOption) error {
	return inv.governBy(ctx, w.policy(), method, args, reply, w, opts)
}

// governBy is govern by a policy that may be another one than the way's.
func (inv *Invoker) governBy(ctx context.Context, p *routePolicy, method string, args, reply any, w way, opts []grpc.CallOption) error {
	if p.fault != nil {
		if ended, err := inv.inject(ctx, p.fault, method, &w); ended {
			return err
		}
	}
	g := governedCalls.Get().(*governed)
	g.inv, g.method, g.args, g.reply, g.way, g.policy = inv, method, args, reply, w, p
	g.opts = opts
	g.payload.codec, g.payload.args = inv.table.callCodec(opts), args
	if p.guides() {
		g.guide = g.way.guide(ctx, method, args)
		g.choice = g.guide.choice
	}
	if inv.target.tolerance.mode == clusterAvailable && g.choice.extra == nil {
		g.choice.extra = g.way.cluster.set.firstAvailable()
	}
	if len(p.mirrors) > 0 {
		g.mirror(ctx)
	}
	g.retry.policy, g.retry.state = p.retry, g.way.cluster.set.state
	var err error
	if p.hedges() {
		err = g.hedge(ctx)
	} else {
		err = g.attempts(ctx)
	}
	if len(opts) > 0 {
		p.answered(opts, g.told())
	}
	g.release()
	return err
}

// told is what the answer tells the caller beside what the provider does.
func (g *governed) told() metadata.MD {
	if g.last.cell == nil {
		return nil
	}
	return g.guide.told(&g.last)
}

// release gives the value back for a later call.
func (g *governed) release() {
	g.payload.free()
	clear(g.options)
	*g = governed{force: g.force, wantHeader: g.wantHeader, wantTrailer: g.wantTrailer, options: g.options[:0]}
	governedCalls.Put(g)
}

// attempts makes one attempt after the other until one succeeds, or fails for
// good.
func (g *governed) attempts(ctx context.Context) error {
	defer g.retry.over()
	for {
		l, done := g.attempt(ctx)
		if done {
			return l.err
		}
		wait, again := g.retry.again(&l, func() callHeaders { return g.way.plan.callHeaders(ctx, g.method) })
		if !again || !g.inv.pause(ctx, wait) {
			return g.inv.cut(ctx, l.err)
		}
		g.inv.counts.retries.Add(1)
	}
}

// attempt makes one attempt that counts: those of which nothing was sent are
// made again elsewhere. done says that the call is over, with l.err.
func (g *governed) attempt(ctx context.Context) (l lapse, done bool) {
	for {
		a, err := g.inv.attempt(ctx, g.method, &g.way, g.choice, g.opts)
		if err != nil {
			if g.policy.retry == nil || ctx.Err() != nil {
				return lapse{err: err}, true
			}
			l = newLapse(err)
			l.unsent = unreached(err)
			return l, !l.unsent
		}
		g.last = a
		timed, err := g.send(ctx, &a)
		if nothingSent(err) {
			g.inv.counts.repicks.Add(1)
			continue
		}
		if err == nil {
			return lapse{}, true
		}
		if g.policy.retry == nil || g.payload.decoded || ctx.Err() != nil {
			return lapse{err: g.inv.cut(ctx, err)}, true
		}
		l = newLapse(err)
		l.timeout, l.header, l.trailer = timed, g.header, g.trailer
		g.retry.avoid(&a, &g.choice)
		return l, false
	}
}

// send makes one attempt. timed says that its own time ran out.
func (g *governed) send(ctx context.Context, a *attempt) (timed bool, err error) {
	r := g.policy.retry
	try := ctx
	limit := time.Duration(0)
	if r != nil {
		if limit = r.limit(); limit > 0 {
			var cancel context.CancelFunc
			try, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		g.header, g.trailer = nil, nil
	}
	err = errPanicked
	defer func() { a.finish(err) }()
	err = a.conn.Invoke(g.policy.outgoing(try, a, g.retry.repeats), g.policy.method(g.method), g.args, g.reply, g.attemptOptions(ctx, a)...)
	if timed = err != nil && limit > 0 && ctx.Err() == nil && !nothingSent(err) && outOfTime(ctx, try, limit, err); timed {
		err = g.inv.tooSlow(&a.way, limit)
	}
	return timed, err
}

// outOfTime says that an attempt failed because its time was over. The
// provider, which is told the limit, may notice a little earlier. Where the
// call's own deadline comes first, it is that one.
func outOfTime(call, try context.Context, limit time.Duration, err error) bool {
	at, _ := try.Deadline()
	if end, has := call.Deadline(); has && !at.Before(end) {
		return false
	}
	left := time.Until(at)
	return left <= 0 || status.Code(err) == codes.DeadlineExceeded && left < limit/10
}

// attemptOptions are the options of one attempt: the plan's, the mesh's, the
// caller's, which win, and those that the call is governed by.
func (g *governed) attemptOptions(ctx context.Context, a *attempt) []grpc.CallOption {
	o := append(g.options[:0], a.plan.options...)
	if authority := g.policy.authority(ctx, g.method, a); authority != "" {
		o = append(o, grpc.CallAuthority(authority))
	}
	o = append(o, g.opts...)
	if g.payload.codec != nil {
		o = append(o, g.force)
	}
	if a.answer != nil {
		o = append(o, a.answer.options()...)
	}
	if r := g.policy.retry; r != nil {
		o = append(o, g.wantTrailer)
		if r.on&retryRetriableHeaders != 0 {
			o = append(o, g.wantHeader)
		}
	}
	g.options = o
	return o
}

// unreached says that there are endpoints, of which none is connected.
func unreached(err error) bool {
	own, is := err.(*Error)
	return is && own.Stage == StageEndpoint && own.Err == ErrNotReady
}

// withoutFinish leaves out what is to be told once for each call, and not for
// each attempt.
func withoutFinish(opts []grpc.CallOption) []grpc.CallOption {
	for i, o := range opts {
		if _, is := o.(grpc.OnFinishCallOption); is {
			kept := append([]grpc.CallOption(nil), opts[:i]...)
			for _, o := range opts[i+1:] {
				if _, is := o.(grpc.OnFinishCallOption); !is {
					kept = append(kept, o)
				}
			}
			return kept
		}
	}
	return opts
}

// finishOptions tells the caller's OnFinish that the call is over.
func finishOptions(opts []grpc.CallOption, err error) {
	for _, o := range opts {
		if o, is := o.(grpc.OnFinishCallOption); is {
			o.OnFinish(err)
		}
	}
}
