package meshtest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// ControlPlane is a control plane in this process: an ADS server that serves both
// protocols and both views from the Services and resources it was told of.
// All methods may be called from any goroutine and do not wait for clients,
// except those whose name begins with Wait.
type ControlPlane struct {
	// Constant after construction.
	opts   options
	addr   string
	gate   *gate
	record *record
	wg     sync.WaitGroup // the accept loops and the receivers of the streams

	// lifeMu serializes StopListening, Restart and Close.
	lifeMu sync.Mutex
	server *grpc.Server // nil while nothing listens
	closed bool

	pipe atomic.Pointer[Pipe] // in memory only

	// Guarded by mu.
	mu       sync.Mutex
	world    *world
	muted    map[string]bool
	streams  map[*stream]bool
	lastID   int // of a stream
	lastSent uint64
	changed  chan struct{} // closed and replaced whenever something above changes
}

// TB is the part of testing.TB that New needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// New starts a control plane that ends with the test.
func New(tb TB, opts ...Option) *ControlPlane {
	tb.Helper()
	c, err := Start(opts...)
	if err != nil {
		tb.Fatalf("meshtest: %v", err)
		return nil
	}
	tb.Cleanup(c.Close)
	return c
}

// Start starts a control plane, on a free TCP port of 127.0.0.1 unless the
// options say otherwise. Close ends it.
func Start(opts ...Option) (*ControlPlane, error) {
	c := &ControlPlane{
		gate:    newGate(),
		record:  newRecord(),
		world:   newWorld(),
		muted:   make(map[string]bool),
		streams: make(map[*stream]bool),
		changed: make(chan struct{}),
	}
	for _, apply := range opts {
		apply(&c.opts)
	}
	c.addr = c.opts.address
	if c.addr == "" {
		c.addr = c.defaultAddress()
	}
	if err := c.Restart(); err != nil {
		return nil, err
	}
	return c, nil
}

var pipes atomic.Uint32

// defaultAddress is, in memory, an address of RFC 5737 that no name service has
// to look up and that no packet reaches when a dial option is forgotten.
func (c *ControlPlane) defaultAddress() string {
	if !c.opts.inMemory {
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("192.0.2.1:%d", 15010+pipes.Add(1)%10000)
}

// Addr is the host:port that a client dials.
func (c *ControlPlane) Addr() string { return c.addr }

// DialOptions is what a client of an in-memory control plane needs; nil for one
// on TCP.
func (c *ControlPlane) DialOptions() []grpc.DialOption {
	if !c.opts.inMemory {
		return nil
	}
	return []grpc.DialOption{grpc.WithContextDialer(c.Dial)}
}

// Dial connects to the control plane whatever the address says. A test with
// several in-memory control planes chooses among them by Addr in a dialer of
// its own.
func (c *ControlPlane) Dial(ctx context.Context, _ string) (net.Conn, error) {
	if !c.opts.inMemory {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", c.addr)
	}
	pipe := c.pipe.Load()
	if pipe == nil {
		return nil, fmt.Errorf("dial %s: connection refused", c.addr)
	}
	return pipe.DialContext(ctx)
}

// Close ends every stream and connection and waits for all goroutines.
func (c *ControlPlane) Close() {
	c.lifeMu.Lock()
	defer c.lifeMu.Unlock()
	c.closed = true
	c.stop()
}

// Streams is the number of streams that are open.
func (c *ControlPlane) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// WaitStreams returns when exactly n streams are open, and fails when ctx ends
// before.
func (c *ControlPlane) WaitStreams(ctx context.Context, n int) error {
	return c.wait(ctx, func() bool { return len(c.streams) == n })
}

// WaitSettled returns when every stream has been sent all that it watches, in
// its present state, and has answered each response with an ACK or a NACK. Types
// that are muted do not count. Without streams, or before a stream has asked for
// anything, there is nothing to wait for.
func (c *ControlPlane) WaitSettled(ctx context.Context) error {
	return c.wait(ctx, func() bool {
		for s := range c.streams {
			if !s.settled() {
				return false
			}
		}
		return true
	})
}

// wait calls done with mu held, after every change, until it is true.
func (c *ControlPlane) wait(ctx context.Context, done func() bool) error {
	for {
		c.mu.Lock()
		ok, changed := done(), c.changed
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// noteLocked tells those who wait that something changed.
func (c *ControlPlane) noteLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// update changes the world and wakes every stream.
func (c *ControlPlane) update(change func(w *world)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.world)
	c.wakeLocked()
}

func (c *ControlPlane) wakeLocked() {
	for s := range c.streams {
		s.wakeUp()
	}
	c.noteLocked()
}
