package proxyless

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// streamBuffer is how many bytes of a stream's requests are kept until its
// first response, to send them again on another endpoint. A stream that sends
// more stays where it is. gRPC keeps as much.
const streamBuffer = 256 << 10

// callStream is a stream as its caller sees it, whichever endpoint carries it.
// Until something of a response has come it is not committed to its endpoint,
// and what was sent is kept: where the endpoint leaves before it takes the
// stream up, another one gets all of it, and so it is after failures that the
// mesh wants tried again. From then on, which is after one message of most
// streams, it adds one atomic load to what gRPC does.
//
// Only what waits for the response (RecvMsg, Header) finds out how an endpoint
// failed, and changes over to the next. SendMsg on a stream that broke keeps
// what it is given.
type callStream struct {
	// Constant after construction.
	inv    *Invoker
	ctx    context.Context
	desc   *grpc.StreamDesc
	method string
	all    []grpc.CallOption // the caller's
	opts   []grpc.CallOption // the same without OnFinish, which is told once
	policy *routePolicy      // nil where the route asks for nothing
	cancel func()            // of the call's own deadlines
	codec  encoding.CodecV2  // nil where it is not known: then nothing is kept

	// Atomics. failure is written before committed is set.
	committed atomic.Bool
	live      atomic.Pointer[liveStream] // the one that carries the call; changed under mu until committed
	settled   atomic.Bool                // cancel was called
	changing  atomic.Bool                // mu is held to change over
	failure   error                      // of a stream that no endpoint carries, as its caller is told

	first liveStream

	// Guarded by mu until committed, unused from then on. It is held while the
	// stream changes over, pauses included: senders wait.
	mu     sync.Mutex
	way    way
	choice choice
	guide  guidance
	retry  retrying
	kept   []keptMessage
	size   int
	closed bool // CloseSend was called
}

// keptMessage is one request. What it was marshalled to counts; interceptors of
// Config.DialOptions are shown the message.
type keptMessage struct {
	message any
	data    mem.BufferSlice
}

// liveStream is one attempt at a stream.
type liveStream struct {
	grpc.ClientStream
	call    *callStream
	attempt attempt
	codec   streamCodec

	patience *time.Timer        // of per_try_timeout; nil without
	stop     context.CancelFunc // ends the attempt alone; nil without per_try_timeout
	timed    atomic.Bool        // patience is over

	over  atomic.Bool // end is being told
	end   error       // why it ended; written before ended is set
	ended atomic.Bool
	told  atomic.Pointer[chan struct{}] // closed after ended is set; made by who waits for it
}

// openStream opens a stream. cancel is called when it has ended, or could not
// be opened.
func (inv *Invoker) openStream(ctx context.Context, desc *grpc.StreamDesc, method string, w way, opts []grpc.CallOption, cancel func()) (grpc.ClientStream, error) {
	p := w.policy()
	if p != nil && p.fault != nil {
		if ended, err := inv.inject(ctx, p.fault, method, &w); ended {
			cancel()
			finishOptions(opts, err)
			if err != nil {
				return nil, err
			}
			return endedStream{ctx}, nil
		}
	}
	s := &callStream{inv: inv, ctx: ctx, desc: desc, method: method, all: opts, opts: withoutFinish(opts), policy: p, cancel: cancel,
		way: w, codec: inv.table.callCodec(opts)}
	if p != nil {
		if p.guides() {
			s.guide = s.way.guide(ctx, method, nil)
			s.choice = s.guide.choice
		}
		s.retry.policy = p.retry
		s.retry.state = s.way.cluster.set.state
	}
	l := &s.first
	s.live.Store(l)
	for {
		err := s.open(l)
		if err == nil {
			return s, nil
		}
		if !s.mayRepeat(l, err) {
			s.retry.over()
			err = s.explain(err)
			if !s.settled.Swap(true) { // else its context ended meanwhile
				cancel()
				finishOptions(opts, err)
			}
			return nil, err
		}
		l = new(liveStream)
		s.live.Store(l)
	}
}

// open makes one attempt to open the stream. The endpoint counts it until it
// ends.
func (s *callStream) open(l *liveStream) error {
	a, err := s.inv.attempt(s.ctx, s.method, &s.way, s.choice, s.opts)
	if err != nil {
		return err
	}
	l.call, l.attempt = s, a
	l.codec.codec = s.codec
	ctx := s.ctx
	if r := s.retry.policy; r != nil && r.limit() > 0 {
		ctx, l.stop = context.WithCancel(ctx)
		l.patience = time.AfterFunc(r.limit(), func() { l.timed.Store(true); l.stop() }) // stopped when the stream is committed or ends
	}
	repeats := 0
	if s.policy == nil {
		ctx = a.plan.outgoing(ctx)
	} else {
		repeats = s.retry.repeats
		ctx = s.policy.outgoing(ctx, &a, repeats)
	}
	l.ClientStream, err = a.conn.NewStream(ctx, s.desc, s.outgoingMethod(), l.options()...)
	if err != nil {
		l.finish(err)
	}
	return err
}

func (l *liveStream) options() []grpc.CallOption {
	s, p := l.call, l.attempt.plan
	o := make([]grpc.CallOption, 0, len(p.options)+len(s.opts)+5)
	o = append(o, p.options...)
	if s.policy != nil {
		if authority := s.policy.authority(s.ctx, s.method, &l.attempt); authority != "" {
			o = append(o, grpc.CallAuthority(authority))
		}
	}
	o = append(o, s.opts...)
	if l.attempt.answer != nil {
		o = append(o, l.attempt.answer.options()...)
	}
	if s.codec != nil {
		o = append(o, grpc.ForceCodecV2(&l.codec))
	}
	return append(o, grpc.OnFinish(l.finish))
}

// finish is called by gRPC when the attempt has ended, from any goroutine and
// with s.mu held or not.
func (l *liveStream) finish(err error) {
	if l.over.Swap(true) {
		return
	}
	s := l.call
	if l.patience != nil {
		l.patience.Stop()
		defer l.stop()
		if err != nil && l.timed.Load() && s.ctx.Err() == nil {
			err = s.inv.tooSlow(&l.attempt.way, s.retry.policy.limit())
		}
	}
	l.attempt.finish(err)
	l.end = err
	l.ended.Store(true)
	if told := l.told.Load(); told != nil {
		close(*told)
	}
	if s.live.Load() == l && !s.changing.Load() {
		s.settle()
	}
}

// endTime is for how long awaitEnd waits. finish follows at once, but where an
// interceptor says that a stream is over which is not.
const endTime = time.Second

// awaitEnd waits until finish has noted why the attempt ended, which may happen
// on another goroutine just after its stream said that it is over.
func (l *liveStream) awaitEnd() {
	if l.ended.Load() {
		return
	}
	told := make(chan struct{})
	if !l.told.CompareAndSwap(nil, &told) {
		told = *l.told.Load()
	}
	if l.ended.Load() {
		return
	}
	timer := time.NewTimer(endTime)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.C:
	}
}

// settle ends the call where nothing more can come of it. s.mu is not held.
func (s *callStream) settle() {
	committed := s.committed.Load()
	if !committed && s.ctx.Err() == nil {
		return
	}
	l := s.live.Load()
	var err error
	if committed && s.failure != nil {
		err = s.failure
	} else if !l.ended.Load() {
		return
	} else {
		err = s.explain(l.end)
	}
	if !s.settled.Swap(true) {
		s.retry.over()
		s.cancel()
		finishOptions(s.all, err)
	}
}

// commit binds the stream to its endpoint.
func (s *callStream) commit() {
	if s.committed.Load() {
		return
	}
	s.mu.Lock()
	s.bind(nil)
	s.mu.Unlock()
	s.settle()
}

// bind is commit with s.mu held. failure, unless it is nil, is what RecvMsg
// will say.
func (s *callStream) bind(failure error) {
	if s.committed.Load() {
		return
	}
	s.failure = failure
	l := s.live.Load()
	s.committed.Store(true)
	for i := range s.kept {
		s.kept[i].data.Free()
	}
	s.kept = nil
	s.retry.over()
	if l.patience != nil {
		l.patience.Stop()
	}
}

func (s *callStream) SendMsg(m any) error {
	if s.committed.Load() {
		return s.explain(s.live.Load().SendMsg(m))
	}
	s.mu.Lock()
	data, kept := s.keep(m)
	l := s.live.Load()
	s.mu.Unlock()
	if !kept {
		s.settle()
	}
	err := l.send(m, data)
	switch {
	case err == nil || !kept:
		return s.explain(err)
	case nothingSent(err) || l != s.live.Load() || l.ended.Load() && nothingSent(l.end):
		return nil // it is kept, and sent again
	case err == io.EOF && s.retry.policy != nil && !s.committed.Load():
		return nil // it may be sent again; RecvMsg finds out
	}
	return err
}

// keep keeps a request as long as the stream is not committed. What it returns
// is for sending it now. s.mu is held.
func (s *callStream) keep(m any) (data mem.BufferSlice, kept bool) {
	if s.committed.Load() {
		return nil, false
	}
	_, prepared := m.(*grpc.PreparedMsg)
	if s.codec == nil || prepared {
		s.bind(nil)
		return nil, false
	}
	data, err := s.codec.Marshal(m)
	if err != nil { // gRPC will say so
		s.bind(nil)
		return nil, false
	}
	if s.size+data.Len() > streamBuffer {
		if l := s.live.Load(); l.ended.Load() && nothingSent(l.end) {
			s.changeOver(l, l.end)
		}
		s.bind(nil)
		return data, false
	}
	s.size += data.Len()
	s.kept = append(s.kept, keptMessage{m, data})
	data.Ref()
	return data, true
}

func (s *callStream) CloseSend() error {
	if s.committed.Load() {
		return s.live.Load().CloseSend()
	}
	s.mu.Lock()
	s.closed = true
	l := s.live.Load()
	s.mu.Unlock()
	return l.CloseSend()
}

func (s *callStream) RecvMsg(m any) error {
	for {
		committed := s.committed.Load()
		if committed && s.failure != nil {
			return s.failure
		}
		l := s.live.Load()
		err := l.RecvMsg(m)
		if committed {
			return s.explain(s.wrap(l, err))
		}
		if err == nil || err == io.EOF {
			s.commit()
			return err
		}
		if again, err := s.recover(l, err); !again {
			return err
		}
	}
}

// wrap names the time limit as the reason where it was.
func (s *callStream) wrap(l *liveStream, err error) error {
	if err == nil || !l.timed.Load() || !l.ended.Load() || l.end == nil {
		return err
	}
	return l.end
}

func (s *callStream) Header() (metadata.MD, error) {
	for {
		committed := s.committed.Load()
		l := s.live.Load()
		md, err := l.Header()
		if md != nil && s.policy != nil {
			md = s.policy.headers.response.amend(md, s.guide.told(&l.attempt))
		}
		if committed || err != nil {
			return md, s.explain(err)
		}
		if md == nil {
			l.awaitEnd()
		}
		if md != nil || !l.ended.Load() || l.end == nil {
			s.commit()
			return md, nil
		}
		if again, _ := s.recover(l, l.end); !again {
			return nil, nil // as of gRPC: RecvMsg says why
		}
	}
}

func (s *callStream) Trailer() metadata.MD {
	l := s.live.Load()
	md := l.Trailer()
	if s.policy != nil && md["content-type"] != nil { // a response that is nothing but trailers
		md = s.policy.headers.response.amend(md, s.guide.told(&l.attempt))
	}
	return md
}

// Context is that of the endpoint's stream, which the call is bound to by it.
func (s *callStream) Context() context.Context {
	s.commit()
	return s.live.Load().Context()
}

// recover takes a stream that failed before a response to another endpoint,
// if that may be. Otherwise it returns why the call failed, as its caller is
// told.
func (s *callStream) recover(l *liveStream, err error) (again bool, _ error) {
	defer s.settle()
	l.awaitEnd()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live.Load() != l {
		return true, nil // another goroutine did
	}
	if s.committed.Load() {
		if s.failure != nil {
			return false, s.failure
		}
		return false, s.explain(s.wrap(l, err))
	}
	if l.ended.Load() && l.end != nil {
		err = l.end
	}
	return s.changeOver(l, err)
}

// changeOver opens the stream elsewhere and sends again what was sent. s.mu is
// held.
func (s *callStream) changeOver(l *liveStream, err error) (again bool, _ error) {
	s.changing.Store(true)
	defer s.changing.Store(false)
	for s.mayRepeat(l, err) {
		l = new(liveStream)
		if err = s.open(l); err != nil {
			continue
		}
		s.live.Store(l)
		s.replay(l)
		return true, nil
	}
	s.bind(s.explain(err))
	return false, s.failure
}

// mayRepeat says whether to try again after an attempt, or after none was
// possible, and waits as long as need be before.
func (s *callStream) mayRepeat(l *liveStream, err error) bool {
	if nothingSent(err) {
		s.inv.counts.repicks.Add(1)
		return s.ctx.Err() == nil
	}
	if s.retry.policy == nil || s.ctx.Err() != nil {
		return false
	}
	lapse := newLapse(err)
	switch {
	case l.call == nil: // there was no endpoint
		if lapse.unsent = unreached(err); !lapse.unsent {
			return false
		}
	case l.ClientStream != nil:
		if md, _ := l.ClientStream.Header(); md != nil {
			return false // a response had begun
		}
		lapse.trailer = l.ClientStream.Trailer()
		fallthrough
	default:
		lapse.timeout = l.timed.Load()
		s.retry.avoid(&l.attempt, &s.choice)
	}
	wait, again := s.retry.again(&lapse, func() callHeaders {
		return callHeaders{ctx: s.ctx, md: s.way.plan.headers, authority: s.way.plan.name, path: s.method}
	})
	if !again || !s.inv.pause(s.ctx, wait) {
		return false
	}
	s.inv.counts.retries.Add(1)
	return true
}

// replay sends what is kept. What fails here shows when a response is waited
// for.
func (s *callStream) replay(l *liveStream) {
	for _, k := range s.kept {
		k.data.Ref()
		if l.send(k.message, k.data) != nil {
			return
		}
	}
	if s.closed {
		l.CloseSend()
	}
}

// explain words what is not for callers as it is: that the mesh was closed, or
// that the endpoint left before it took the stream up, of which more was sent
// than is kept.
func (s *callStream) explain(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if err = s.inv.cut(s.ctx, err); !nothingSent(err) {
		return err
	}
	if ended := s.ctx.Err(); ended != nil {
		return status.FromContextError(ended).Err()
	}
	a := &s.live.Load().attempt
	return &Error{Stage: StageEndpoint, Resource: a.cell.key.addr.String(), Reason: "it left before it took the stream up; nothing was processed",
		Advice: "open the stream again", Chain: "listener " + a.plan.name + " ok", Err: ErrNotReady}
}

// send sends one request, which was marshalled to data; nil where it was not.
// It takes over data.
func (l *liveStream) send(m any, data mem.BufferSlice) error {
	if data == nil {
		return l.SendMsg(m)
	}
	c := &l.codec
	c.message, c.data, c.has = m, data, true
	err := l.SendMsg(m)
	if c.has {
		c.data.Free()
	}
	c.message, c.data, c.has = nil, nil, false
	return err
}

// streamCodec is the codec of a stream's attempt. It gives gRPC what a request
// was marshalled to already. Only the sending side uses its fields.
type streamCodec struct {
	codec   encoding.CodecV2
	message any
	data    mem.BufferSlice
	has     bool
}

func (c *streamCodec) Name() string { return c.codec.Name() }

func (c *streamCodec) Marshal(v any) (mem.BufferSlice, error) {
	if c.has && sameMessage(v, c.message) {
		c.has = false
		return c.data, nil
	}
	return c.codec.Marshal(v)
}

func (c *streamCodec) Unmarshal(data mem.BufferSlice, v any) error { return c.codec.Unmarshal(data, v) }

// endedStream is a stream that the mesh ended at once, with success.
type endedStream struct{ ctx context.Context }

func (endedStream) Header() (metadata.MD, error) { return nil, nil }
func (endedStream) Trailer() metadata.MD         { return nil }
func (endedStream) CloseSend() error             { return nil }
func (s endedStream) Context() context.Context   { return s.ctx }
func (endedStream) SendMsg(any) error            { return io.EOF }
func (endedStream) RecvMsg(any) error            { return io.EOF }

// outgoingMethod is what the mesh lets the stream go out as.
func (s *callStream) outgoingMethod() string {
	if s.policy == nil {
		return s.method
	}
	return s.policy.method(s.method)
}
