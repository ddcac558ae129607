package proxyless

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

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
	mu      sync.Mutex
	way     way
	choice  choice
	guide   guidance
	retry   retrying
	backlog backlog
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

func (s *callStream) CloseSend() error {
	if s.committed.Load() {
		return s.live.Load().CloseSend()
	}
	s.mu.Lock()
	s.backlog.closed = true
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
	s.backlog.free()
	s.retry.over()
	if l.patience != nil {
		l.patience.Stop()
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

// endedStream is a stream that the mesh ended at once, with success.
type endedStream struct{ ctx context.Context }

func (endedStream) Header() (metadata.MD, error) { return nil, nil }
func (endedStream) Trailer() metadata.MD         { return nil }
func (endedStream) CloseSend() error             { return nil }
func (s endedStream) Context() context.Context   { return s.ctx }
func (endedStream) SendMsg(any) error            { return io.EOF }
func (endedStream) RecvMsg(any) error            { return io.EOF }
