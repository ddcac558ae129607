package meshtest

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	maxReceive  = 64 << 20 // bytes of one request
	serviceName = "envoy.service.discovery.v3.AggregatedDiscoveryService"
)

// StopListening closes the listener and every connection, as a control plane
// does that is killed. What it was told stays; Restart brings it back.
func (c *ControlPlane) StopListening() {
	c.lifeMu.Lock()
	defer c.lifeMu.Unlock()
	c.stop()
}

// Restart listens again on the same address. It does nothing where the control
// plane listens already, and fails when the address is taken or Close was
// called.
func (c *ControlPlane) Restart() error {
	c.lifeMu.Lock()
	defer c.lifeMu.Unlock()
	if c.closed {
		return errors.New("the control plane is closed")
	}
	if c.server != nil {
		return nil
	}
	listener, err := c.listen()
	if err != nil {
		return fmt.Errorf("control plane: %w", err)
	}
	server := c.newServer()
	c.server = server
	// Ends when stop closes the server.
	c.wg.Go(func() { _ = server.Serve(gatedListener{listener, c.gate}) })
	return nil
}

// stop ends what Restart began and waits for it. lifeMu is held.
func (c *ControlPlane) stop() {
	if c.server == nil {
		return
	}
	c.pipe.Store(nil)
	c.server.Stop() // waits for the handlers
	c.server = nil
	c.wg.Wait()
}

func (c *ControlPlane) listen() (net.Listener, error) {
	if c.opts.inMemory {
		pipe := NewPipe()
		c.pipe.Store(pipe)
		return pipe, nil
	}
	l, err := net.Listen("tcp", c.addr)
	if err != nil {
		return nil, err
	}
	if actual := l.Addr().String(); actual != c.addr {
		c.addr = actual // only before Start returns: from then on it is the same
	}
	return l, nil
}

func (c *ControlPlane) newServer() *grpc.Server {
	opts := []grpc.ServerOption{
		grpc.ForceServerCodec(rawCodec{}),
		grpc.MaxRecvMsgSize(maxReceive),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 5 * time.Second, PermitWithoutStream: true,
		}),
	}
	if c.opts.tls != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(c.opts.tls)))
	}
	server := grpc.NewServer(append(opts, c.opts.server...)...)
	streams := []grpc.StreamDesc{c.streamDesc("StreamAggregatedResources", false)}
	if !c.opts.noDelta {
		streams = append(streams, c.streamDesc("DeltaAggregatedResources", true))
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName, HandlerType: (*any)(nil), Streams: streams,
	}, nil)
	if c.opts.authority != nil {
		server.RegisterService(c.opts.authority.service(), nil)
	}
	return server
}

func (c *ControlPlane) streamDesc(name string, delta bool) grpc.StreamDesc {
	return grpc.StreamDesc{
		StreamName:    name,
		Handler:       func(_ any, ss grpc.ServerStream) error { return c.serve(ss, delta) },
		ServerStreams: true,
		ClientStreams: true,
	}
}

// rawCodec passes messages through as bytes: they are encoded and decoded by
// hand.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("cannot send a %T", v)
	}
	return b, nil
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("cannot receive into a %T", v)
	}
	*b = append([]byte(nil), data...)
	return nil
}
