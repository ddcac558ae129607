package proxyless

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// streamBuffer is how many bytes of a stream's requests are kept until its
// first response, to send them again on another endpoint. A stream that sends
// more stays where it is. gRPC keeps as much.
const streamBuffer = 256 << 10

// backlog is what a stream sent, as long as it may have to send it again.
type backlog struct {
	kept   []keptMessage
	size   int  // in bytes
	closed bool // CloseSend was called
}

// keptMessage is one request. What it was marshalled to counts; interceptors of
// Config.DialOptions are shown the message.
type keptMessage struct {
	message any
	data    mem.BufferSlice
}

// add keeps a request, unless that would be too much.
func (b *backlog) add(m any, data mem.BufferSlice) bool {
	if b.size+data.Len() > streamBuffer {
		return false
	}
	b.size += data.Len()
	b.kept = append(b.kept, keptMessage{m, data})
	data.Ref()
	return true
}

// free lets go of what was kept.
func (b *backlog) free() {
	for i := range b.kept {
		b.kept[i].data.Free()
	}
	b.kept = nil
}

// replay sends what is kept once more. What fails here shows when a response is
// waited for.
func (b *backlog) replay(l *liveStream) {
	for _, k := range b.kept {
		k.data.Ref()
		if l.send(k.message, k.data) != nil {
			return
		}
	}
	if b.closed {
		l.CloseSend()
	}
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
	if s.backlog.add(m, data) {
		return data, true
	}
	if l := s.live.Load(); l.ended.Load() && nothingSent(l.end) {
		s.changeOver(l, l.end)
	}
	s.bind(nil)
	return data, false
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
		s.backlog.replay(l)
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
	wait, again := s.retry.again(&lapse, func() callHeaders { return s.way.plan.callHeaders(s.ctx, s.method) })
	if !again || !s.inv.pause(s.ctx, wait) {
		return false
	}
	s.inv.counts.retries.Add(1)
	return true
}
