package proxyless

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// cell is what outlives updates of one endpoint: its connection, its state and
// the calls in flight. Endpoint sets point at cells, share them by key, and the
// last one to let go of a cell drains it.
type cell struct {
	// Constant after construction.
	key      connKey
	table    *connTable
	security *security // nil is plain text
	watched  bool      // whether calls use it is watched, since it is closed when they do not
	heir     bool      // it takes the place of one that worked, and is spoken to otherwise

	// Atomics, read by every pick. ready is set exactly while calls may be
	// sent; one load tells that and gives the connection.
	ready    atomic.Pointer[grpc.ClientConn]
	inflight atomic.Int64
	state    atomic.Uint32 // a cellState
	failure  atomic.Pointer[error]
	peer     atomic.Pointer[string] // who answered the last handshake; nil of plain text
	draining atomic.Bool
	missed   atomic.Uint32             // failures to connect
	patience atomic.Int64              // of an heir: until when failures do not count, since the process started; 0 is not at all
	used     atomic.Bool               // by some call since the last look; where watched
	links    atomic.Int32              // connections that there are or that are being made
	most     atomic.Pointer[linkLimit] // nil is none

	// Atomics of load reports.
	reporting  atomic.Int64 // until when somebody is interested, since the process started; 0 is not at all
	report     atomic.Pointer[heardReport]
	listening  atomic.Bool  // reports are streamed
	listenFrom atomic.Int64 // when to ask for a stream again, since the process started

	// Guarded by table.mu.
	refs int // endpoint sets that hold it

	// Guarded by mu.
	mu   sync.Mutex
	conn *grpc.ClientConn
	leaf *leaf
	idle *chore // closes it when no call uses it; nil unless watched
}

type cellState uint32

const (
	cellIdle cellState = iota // never dialled
	cellConnecting
	cellReady
	cellFailed // the last attempt failed; another one follows after a pause
)

// dial begins to connect, once; it never blocks. A connection that is lost or
// refused is dialled again by its leaf for as long as the cell is held.
func (c *cell) dial() {
	if !c.state.CompareAndSwap(uint32(cellIdle), uint32(cellConnecting)) {
		return
	}
	c.table.counts.dials.Add(1)
	if c.heir {
		c.patience.Store(int64(sinceStart() + heirPatience))
	}
	conn, err := grpc.NewClient("proxyless:///"+c.key.addr.String(), c.dialOptions()...)
	if err != nil { // the user's dial options contradict one another
		c.fail(err)
		return
	}
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	c.watch()
	if c.draining.Load() {
		c.table.aside(c.shut)
		return
	}
	conn.Connect()
}

// dialOptions are the mesh's, then the user's, which win, then those without
// which a cell would not work, or would be open where the mesh says TLS.
func (c *cell) dialOptions() []grpc.DialOption {
	settings := &c.key.settings
	timeout := settings.connectTimeout
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	pauses := endpointBackoff
	if c.heir {
		pauses.BaseDelay = heirPause
	}
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: pauses, MinConnectTimeout: timeout}),
		grpc.WithTransportCredentials(heedful{c.credentials()}),
	}
	if settings.keepAlive.set {
		options = append(options, grpc.WithContextDialer(settings.keepAlive.dialer()))
	}
	options = append(options, c.table.options...)
	if c.security != nil {
		options = append(options, grpc.WithTransportCredentials(heedful{c.credentials()}))
	}
	return append(options,
		grpc.WithResolvers(cellResolver{c}),
		grpc.WithDefaultServiceConfig(leafServiceConfig),
		grpc.WithIdleTimeout(0),
	)
}

// defaultConnectTimeout bounds one attempt to connect to an endpoint whose
// cluster names no connect_timeout; it is gRPC's own.
const defaultConnectTimeout = 20 * time.Second

// endpointBackoff is gRPC's own but for its limit, which is two minutes: a
// provider that comes back at its address is to be found sooner.
var endpointBackoff = grpcbackoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 30 * time.Second}

// credentials are those that the mesh asks for.
func (c *cell) credentials() credentials.TransportCredentials {
	if c.security == nil {
		return insecure.NewCredentials()
	}
	return clientTLS{c.table.secrets, c.security}
}

// enter counts a call in and returns the connection to send it on, or nil when
// the endpoint has just become unusable. Each enter that returns a connection
// is followed by one leave.
func (c *cell) enter() *grpc.ClientConn {
	c.inflight.Add(1)
	if c.watched && !c.used.Load() {
		c.used.Store(true)
	}
	conn := c.ready.Load() // after the count: a drain either sees the call or is seen by it
	if conn == nil {
		c.leave()
	}
	return conn
}

// leave counts a call out. The last one to leave a draining endpoint closes
// its connection.
func (c *cell) leave() {
	if c.inflight.Add(-1) == 0 && c.draining.Load() {
		c.table.aside(c.shut)
	}
}

// drain takes the endpoint out of every pick, tells the peer, and closes the
// connection when its last call is done. It does not wait.
func (c *cell) drain() {
	c.draining.Store(true)
	c.ready.Store(nil)
	c.table.aside(func() {
		c.mu.Lock()
		leaf := c.leaf
		c.mu.Unlock()
		if leaf != nil {
			leaf.shutdown()
		}
		if c.inflight.Load() == 0 {
			c.shut()
		}
	})
}

// shut closes the connection, if there is one.
func (c *cell) shut() {
	t := c.table
	t.mu.Lock()
	delete(t.leaving, c)
	t.mu.Unlock()
	c.mu.Lock()
	conn := c.conn
	c.conn = nil
	c.idle.stop()
	c.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// When the mesh changes how an endpoint is spoken to, from plain text to TLS or
// from one context to another, consumers and the provider hear of it one after
// the other, mostly within tens of milliseconds. An endpoint that worked until
// then is tried again soon, and calls wait for it meanwhile, where the first
// handshakes fail; nothing goes out over the old connection any more.
const (
	heirPatience = 3 * time.Second       // after which it is an endpoint like others
	heirPause    = 50 * time.Millisecond // after the first failure; then 1.6 times as long
)

// patient says that failures to connect do not count yet.
func (c *cell) patient() bool {
	until := c.patience.Load()
	return until != 0 && int64(sinceStart()) < until
}

// works says that the endpoint takes calls, or may soon.
func (c *cell) works() bool {
	state := cellState(c.state.Load())
	return state == cellReady || state == cellConnecting
}

func (c *cell) fail(err error) {
	c.ready.Store(nil)
	c.failure.Store(&err)
	c.state.Store(uint32(cellFailed))
	c.table.changed.notify()
}

// problem is why the endpoint is not ready, for errors.
func (c *cell) problem() string {
	switch cellState(c.state.Load()) {
	case cellIdle:
		return "not connected"
	case cellConnecting:
		if e := c.awaited(); e != nil {
			return "connecting, and it waits for this workload's certificate: " + e.Reason
		}
		if err := c.failure.Load(); err != nil && c.patient() {
			return "connecting again, after " + status.Convert(*err).Message()
		}
		return "connecting"
	case cellReady:
		return "ready"
	}
	if err := c.failure.Load(); err != nil {
		return status.Convert(*err).Message()
	}
	return "failed"
}

// awaited says why this workload has no certificate to connect with; nil where
// nothing waits for one.
func (c *cell) awaited() *Error {
	if c.security == nil {
		return nil
	}
	return c.table.secrets.awaited(c.security.context)
}

// advice is what to do about a failure to connect; empty where there was none,
// or it says that itself.
func (c *cell) advice() string {
	switch cellState(c.state.Load()) {
	case cellConnecting:
		if e := c.awaited(); e != nil {
			return e.Advice
		}
	case cellFailed:
		if err := c.failure.Load(); err != nil {
			return connectAdvice(*err, c.security)
		}
	}
	return ""
}

// errNothingSent is what a connection that is not ready answers. It reaches
// the Invoker as this very value, which proves that nothing was sent, so that
// another endpoint may be tried whatever the call does.
var errNothingSent = status.Error(codes.Unavailable, "proxyless: endpoint not connected")

// nothingSent finds that very value, which the user's interceptors may have
// wrapped. errors.Is would not do: it takes equal statuses for the same, and
// one may have come from a provider that is a consumer itself.
func nothingSent(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err == errNothingSent {
			return true
		}
	}
	return false
}
