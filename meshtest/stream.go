package meshtest

import (
	"errors"
	"io"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

var errDisconnected = status.Error(codes.Unavailable, "the control plane ended the stream")

// stream is one ADS stream. Its handler alone sends; a second goroutine
// receives.
type stream struct {
	// Constant after construction.
	plane  *ControlPlane
	id     int
	header metadata.MD
	delta  bool          // speaks the delta protocol
	client string        // address of the peer
	wake   chan struct{} // has room for one: there may be something to send
	gone   chan struct{} // closed once by Disconnect

	sending atomic.Bool // the handler is in SendMsg

	// Guarded by plane.mu.
	node    node
	watches map[string]*watch // by type URL
	inject  [][]byte          // responses to send as they are
	ending  bool              // gone is closed
}

// serve is the handler of StreamAggregatedResources, and of
// DeltaAggregatedResources where delta.
func (c *ControlPlane) serve(ss grpc.ServerStream, delta bool) error {
	header, _ := metadata.FromIncomingContext(ss.Context())
	if err := c.admit(header); err != nil {
		return err
	}
	s := c.openStream(ss, header, delta)
	defer c.closeStream(s)
	requests := make(chan Request)
	failed := make(chan error, 1)
	// Ends when the stream does, at the latest when this handler returns.
	c.wg.Go(func() { s.receive(ss, requests, failed) })
	for {
		var err error
		select {
		case <-s.gone:
			return errDisconnected
		case err = <-failed:
			return err
		case q := <-requests:
			err = s.answer(ss, q)
		case <-s.wake:
			err = s.push(ss)
		}
		if err != nil {
			return err
		}
	}
}

func (c *ControlPlane) admit(header metadata.MD) error {
	if c.opts.auth == nil {
		return nil
	}
	err := c.opts.auth(header)
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unauthenticated, err.Error())
}

func (c *ControlPlane) openStream(ss grpc.ServerStream, header metadata.MD, delta bool) *stream {
	s := &stream{
		plane: c, header: header, delta: delta,
		wake: make(chan struct{}, 1), gone: make(chan struct{}),
		watches: make(map[string]*watch),
	}
	if p, ok := peer.FromContext(ss.Context()); ok {
		s.client = p.Addr.String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	s.id = c.lastID
	c.streams[s] = true
	c.noteLocked()
	return s
}

func (c *ControlPlane) closeStream(s *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
	c.noteLocked()
}

// receive records every request and hands it to the handler.
func (s *stream) receive(ss grpc.ServerStream, requests chan<- Request, failed chan<- error) {
	for first := true; ; first = false {
		var message []byte
		if err := ss.RecvMsg(&message); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			failed <- err
			return
		}
		q, err := decodeRequest(message, s.delta)
		if err != nil {
			failed <- status.Error(codes.InvalidArgument, err.Error())
			return
		}
		q.Stream, q.Header = s.id, s.header
		s.plane.record.add(q)
		if first {
			if err := s.introduce(q); err != nil {
				failed <- err
				return
			}
		}
		select {
		case requests <- q:
		case <-ss.Context().Done():
			failed <- status.FromContextError(ss.Context().Err()).Err()
			return
		}
	}
}

// introduce learns who the client is from its first request.
func (s *stream) introduce(q Request) error {
	n, err := newNode(q)
	if err != nil {
		return err
	}
	s.plane.mu.Lock()
	s.node = n
	s.plane.mu.Unlock()
	return nil
}

// answer judges a request and sends the response where it asks for one.
func (s *stream) answer(ss grpc.ServerStream, q Request) error {
	c := s.plane
	c.mu.Lock()
	w := s.watches[q.TypeURL].receive(s.node, q)
	if w == nil {
		delete(s.watches, q.TypeURL)
	} else {
		s.watches[q.TypeURL] = w
	}
	var responses [][]byte
	if w != nil && w.owing() {
		r := s.responseLocked(w)
		responses = append(responses, r)
		// Clusters wait for their endpoints, which the client may not ask for again.
		e := s.watches[ClusterLoadAssignmentType]
		if s.delta && q.TypeURL == ClusterType && r != nil && e != nil {
			e.owesAll = true
			responses = append(responses, s.responseLocked(e))
		}
	}
	c.noteLocked()
	c.mu.Unlock()
	return s.sendAll(ss, responses)
}

// push sends everything that changed since the stream was last told.
func (s *stream) push(ss grpc.ServerStream) error {
	c := s.plane
	c.mu.Lock()
	responses := s.inject
	s.inject = nil
	for _, typeURL := range s.typesInOrder() {
		responses = append(responses, s.responseLocked(s.watches[typeURL]))
	}
	c.noteLocked()
	c.mu.Unlock()
	return s.sendAll(ss, responses)
}

// responseLocked is what is due for a watch, nil where nothing is. The watch is
// brought up to date as though it had been sent.
func (s *stream) responseLocked(w *watch) []byte {
	c := s.plane
	if c.muted[w.typeURL] {
		return nil
	}
	a := w.respond(c.world, s.node)
	if w.due(c.world, s.node) {
		s.wakeUp()
	}
	if a == nil {
		return nil
	}
	c.lastSent++
	version := strconv.FormatUint(c.world.version, 10)
	nonce := version + "-" + strconv.FormatUint(c.lastSent, 10)
	w.nonce, w.acked = nonce, false
	if s.delta {
		r := DeltaDiscoveryResponse{Version: version, TypeURL: w.typeURL, Nonce: nonce, Removed: a.removed}
		for _, n := range a.list {
			r.Resources = append(r.Resources, Resource{Name: n.name, Any: Any{TypeURL: w.typeURL, Value: n.value}})
		}
		return r.Marshal()
	}
	r := DiscoveryResponse{Version: version, TypeURL: w.typeURL, Nonce: nonce}
	for _, n := range a.list {
		r.Resources = append(r.Resources, Any{TypeURL: w.typeURL, Value: n.value})
	}
	return r.Marshal()
}

func (s *stream) sendAll(ss grpc.ServerStream, responses [][]byte) error {
	for _, r := range responses {
		if err := s.send(ss, r); err != nil {
			return err
		}
	}
	return nil
}

// send blocks while the client does not read, at most until Disconnect or the
// end of its connection.
func (s *stream) send(ss grpc.ServerStream, response []byte) error {
	if response == nil {
		return nil
	}
	s.sending.Store(true)
	defer s.sending.Store(false)
	select {
	case <-s.gone:
		return errDisconnected
	default:
		return ss.SendMsg(response)
	}
}

func (s *stream) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// settled is asked with plane.mu held.
func (s *stream) settled() bool {
	if len(s.inject) > 0 {
		return false
	}
	for typeURL, w := range s.watches {
		if s.plane.muted[typeURL] {
			continue
		}
		if w.due(s.plane.world, s.node) || !w.acked {
			return false
		}
	}
	return true
}
