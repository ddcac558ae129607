package proxyless

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

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

// open makes one attempt to open the stream. The endpoint counts it until it
// ends.
func (s *callStream) open(l *liveStream) (err error) {
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
	err = errPanicked
	defer func() {
		if err != nil {
			l.finish(err)
		}
	}()
	l.ClientStream, err = a.conn.NewStream(ctx, s.desc, s.outgoingMethod(), l.options()...)
	return err
}

// outgoingMethod is what the mesh lets the stream go out as.
func (s *callStream) outgoingMethod() string {
	if s.policy == nil {
		return s.method
	}
	return s.policy.method(s.method)
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
