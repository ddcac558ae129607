package proxyless

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// hedges says that the policy may have several attempts of a call under way at
// a time. Streams are not hedged.
func (p *routePolicy) hedges() bool {
	h := p.hedge
	return h != nil && (h.initial > 1 || h.chance > 0 || h.onPerTry && p.retry != nil && p.retry.limit() > 0)
}

// mostHedged is how many attempts of one call may be under way at a time,
// whatever the mesh asks for.
const mostHedged = 16

// hedging is one call with several attempts under way. The first good answer
// wins; the others are cancelled and waited for, so that nothing of the call is
// left when it returns. Only the winner's answer is decoded into the reply.
//
// A failure that the retry policy does not ask for is an answer, too. Where
// there is no retry policy, all attempts have to fail.
type hedging struct {
	g       *governed
	ctx     context.Context // of all attempts
	limit   time.Duration   // after which another attempt is made beside; 0 is never
	results chan *hedged
	all     sync.WaitGroup

	started  int // attempts
	active   int
	retries  int // beyond the first ones
	admitted int // that the cluster's state counts
	failed   lapse
	tried    []netip.AddrPort
	pending  bool // a retry waits for its pause
}

// hedged is one of the attempts.
type hedged struct {
	raw     mem.BufferSlice // the answer, not decoded; counts where has
	has     bool
	header  metadata.MD
	trailer metadata.MD
	peer    peer.Peer
	attempt attempt
	timed   bool // its own time ran out
	final   bool // the error is no attempt's: there was none
	err     error
}

// hedge sends a call as often as its policy says.
func (g *governed) hedge(ctx context.Context) error {
	if err := g.payload.hold(); err != nil || !g.payload.held {
		return g.attempts(ctx) // gRPC says what is wrong with the request
	}
	h := &hedging{g: g, results: make(chan *hedged, mostHedged)}
	var cancel context.CancelFunc
	h.ctx, cancel = context.WithCancel(ctx)
	policy := g.policy.hedge
	if policy.onPerTry && g.policy.retry != nil {
		h.limit = g.policy.retry.limit()
	}
	n := max(1, int(min(policy.initial, mostHedged)))
	if policy.chance > 0 && n < mostHedged && rand.Uint32N(fractionScale) < policy.chance {
		n++
	}
	for range n {
		h.start()
	}
	winner := h.wait(ctx)
	cancel()
	h.all.Wait()
	h.drain()
	for range h.admitted {
		g.retry.state.leaveRetry()
	}
	if winner == nil {
		h.tell(h.failed.header, h.failed.trailer)
		return g.inv.cut(ctx, h.failed.err)
	}
	return h.take(winner)
}

// start makes one more attempt.
func (h *hedging) start() {
	c := h.g.choice
	if h.started > 0 {
		c.extra = &choiceExtra{tried: slices.Clone(h.tried), reselect: 5}
	}
	n := h.started
	h.started++
	h.active++
	h.all.Go(func() { h.results <- h.g.hedgeOnce(h.ctx, c, n) }) // ended by the end of h.ctx; joined by hedge
}

// wait returns the attempt whose answer is the call's; nil where all failed.
func (h *hedging) wait(ctx context.Context) *hedged {
	pause, patience := time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	defer pause.Stop()
	defer patience.Stop()
	var paused, late <-chan time.Time // nil while their timers mean nothing
	if h.limit > 0 {
		patience.Reset(h.limit)
		late = patience.C
	}
	again := func(wait time.Duration) {
		h.pending = true
		pause.Reset(wait)
		paused = pause.C
	}
	for h.active > 0 || h.pending {
		select {
		case r := <-h.results:
			h.active--
			if r.err == nil {
				return r
			}
			h.note(r)
			wait, more, over := h.judge(ctx, r)
			if over {
				r.release()
				return nil
			}
			if more {
				again(wait)
			}
			r.release()
		case <-paused:
			h.pending, paused = false, nil
			h.g.inv.counts.retries.Add(1)
			h.start()
			if h.limit > 0 {
				patience.Reset(h.limit)
			}
		case <-late:
			if !h.pending && h.mayRetry() {
				again(h.g.policy.retry.delay(h.retries))
			}
		case <-ctx.Done():
			if h.failed.err == nil {
				h.failed.err = status.FromContextError(ctx.Err()).Err()
			}
			return nil
		}
	}
	return nil
}

// note remembers where an attempt failed.
func (h *hedging) note(r *hedged) {
	if r.attempt.cell != nil {
		h.tried = append(h.tried, r.attempt.cell.key.addr)
	}
	h.failed = newLapse(r.err)
	h.failed.trailer, h.failed.header = r.trailer, r.header
	h.failed.timeout = r.timed
	h.failed.unsent = r.attempt.cell == nil && unreached(r.err)
}

// judge says what follows from a failure: another attempt after a pause, or the
// end of the call.
func (h *hedging) judge(ctx context.Context, r *hedged) (wait time.Duration, more, over bool) {
	p := h.g.policy.retry
	if p == nil {
		return 0, false, false // the others may yet succeed
	}
	if r.final && !h.failed.unsent || ctx.Err() != nil {
		return 0, false, h.active == 0
	}
	if !p.asksFor(&h.failed) {
		return 0, false, true
	}
	wait, pushed, stop := pushback(r.trailer)
	if stop || h.pending || !h.mayRetry() {
		return 0, false, false
	}
	if !pushed {
		wait = p.delay(h.retries)
	}
	return wait, true, false
}

// mayRetry counts one more attempt in, unless there were as many as there may be.
func (h *hedging) mayRetry() bool {
	g := h.g
	if g.policy.retry == nil || uint32(h.retries) >= g.policy.retry.retries || h.active >= mostHedged || h.started >= 1<<16 {
		return false
	}
	headers := g.way.plan.callHeaders(h.ctx, g.method)
	if !g.policy.retry.permits(&headers) || !g.retry.state.admitRetry() {
		return false
	}
	h.admitted++
	h.retries++
	return true
}

// drain lets go of the answers that came too late.
func (h *hedging) drain() {
	for {
		select {
		case r := <-h.results:
			r.release()
		default:
			return
		}
	}
}

func (r *hedged) release() {
	if r.has {
		r.raw.Free()
		r.has = false
	}
}

// take makes an attempt's answer the call's.
func (h *hedging) take(r *hedged) error {
	defer r.release()
	g := h.g
	g.last = r.attempt
	h.tell(r.header, r.trailer)
	for _, o := range g.opts {
		if o, is := o.(grpc.PeerCallOption); is {
			*o.PeerAddr = r.peer
		}
	}
	if !r.has { // an interceptor answered
		return nil
	}
	if err := g.payload.codec.Unmarshal(r.raw, g.reply); err != nil {
		return status.Errorf(codes.Internal, "proxyless: failed to unmarshal the received message: %v", err)
	}
	return nil
}

// tell shows the caller what came of an answer, where it asked for that.
func (h *hedging) tell(header, trailer metadata.MD) {
	for _, o := range h.g.opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = header
		case grpc.TrailerCallOption:
			*o.TrailerAddr = trailer
		}
	}
}

// hedgeOnce is one attempt, the nth from 0 on.
func (g *governed) hedgeOnce(ctx context.Context, c choice, n int) *hedged {
	w := g.way
	r := &hedged{}
	for {
		a, err := g.inv.attempt(ctx, g.method, &w, c, g.opts)
		if err != nil {
			r.final, r.err = true, err
			return r
		}
		r.attempt = a
		codec := &hedgedCodec{codec: g.payload.codec, args: g.args, data: g.payload.data, result: r}
		try, limit, cancel := g.hedgedTime(ctx)
		r.err = a.conn.Invoke(g.policy.outgoing(try, &a, n), g.policy.method(g.method), g.args, g.blankReply(), g.hedgedOptions(ctx, r, codec)...)
		if r.timed = r.err != nil && limit > 0 && ctx.Err() == nil && !nothingSent(r.err) && outOfTime(ctx, try, limit, r.err); r.timed {
			r.err = g.inv.tooSlow(&a.way, limit)
		}
		cancel()
		a.finish(r.err)
		if !nothingSent(r.err) {
			return r
		}
		g.inv.counts.repicks.Add(1)
		r.attempt = attempt{}
	}
}

// hedgedTime limits an attempt where its end is not the start of the next one.
func (g *governed) hedgedTime(ctx context.Context) (context.Context, time.Duration, context.CancelFunc) {
	r := g.policy.retry
	if r == nil || r.limit() == 0 || g.policy.hedge.onPerTry {
		return ctx, 0, func() {}
	}
	try, cancel := context.WithTimeout(ctx, r.limit())
	return try, r.limit(), cancel
}

// blankReply is what interceptors of an attempt see in place of the reply.
func (g *governed) blankReply() any {
	if t := reflect.TypeOf(g.reply); t != nil && t.Kind() == reflect.Pointer {
		return reflect.New(t.Elem()).Interface()
	}
	return new(struct{})
}

// hedgedOptions are the call's options with places of the attempt's own for
// what the caller asked to see.
func (g *governed) hedgedOptions(ctx context.Context, r *hedged, codec *hedgedCodec) []grpc.CallOption {
	a := &r.attempt
	o := slices.Clone(a.plan.options)
	if authority := g.policy.authority(ctx, g.method, a); authority != "" {
		o = append(o, grpc.CallAuthority(authority))
	}
	for _, one := range g.opts {
		switch one.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption:
		case grpc.PeerCallOption:
			o = append(o, grpc.Peer(&r.peer))
		default:
			o = append(o, one)
		}
	}
	o = append(o, grpc.Header(&r.header), grpc.Trailer(&r.trailer), grpc.ForceCodecV2(codec))
	if a.answer != nil {
		o = append(o, a.answer.options()...)
	}
	return o
}

// hedgedCodec sends the request that all attempts share and keeps the answer as
// it came.
type hedgedCodec struct {
	codec  encoding.CodecV2
	args   any
	data   mem.BufferSlice
	result *hedged
}

func (c *hedgedCodec) Name() string { return c.codec.Name() }

func (c *hedgedCodec) Marshal(v any) (mem.BufferSlice, error) {
	if !sameMessage(v, c.args) {
		return c.codec.Marshal(v)
	}
	c.data.Ref()
	return c.data, nil
}

func (c *hedgedCodec) Unmarshal(data mem.BufferSlice, _ any) error {
	c.result.release()
	data.Ref()
	c.result.raw, c.result.has = data, true
	return nil
}
