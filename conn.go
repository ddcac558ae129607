package proxyless

import (
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/status"
)

// cell is what outlives updates of one endpoint: its connection, its state and
// the calls in flight. Endpoint sets point at cells, share them by key, and the
// last one to let go of a cell drains it.
type cell struct {
	// Constant after construction.
	key   connKey
	table *connTable

	// Atomics, read by every pick. ready is set exactly while calls may be
	// sent; one load tells that and gives the connection.
	ready    atomic.Pointer[grpc.ClientConn]
	inflight atomic.Int64
	state    atomic.Uint32 // a cellState
	failure  atomic.Pointer[error]
	draining atomic.Bool
	missed   atomic.Uint32 // failures to connect

	// Guarded by table.mu.
	refs int // endpoint sets that hold it

	// Guarded by mu.
	mu   sync.Mutex
	conn *grpc.ClientConn
	leaf *leaf
}

// connKey is what must be equal for two services to share a connection.
type connKey struct {
	addr     netip.AddrPort
	settings connSettings
}

type cellState uint32

const (
	cellIdle cellState = iota // never dialled
	cellConnecting
	cellReady
	cellFailed // the last attempt failed; another one follows after a pause
)

// connTable holds the cells of one Mesh.
type connTable struct {
	// Constant after construction.
	options []grpc.DialOption
	counts  *counters
	codec   func() encoding.CodecV2 // that options force on every call; nil when none
	upkeep  *upkeep
	seed    uint64 // of subsetting

	changed notifier // some cell changed its state

	mu      sync.Mutex
	cells   map[connKey]*cell  // those that an endpoint set holds
	leaving map[*cell]struct{} // those that finish their calls
	closed  bool

	closers sync.WaitGroup // those of aside; joined by close
}

// defaultConnectTimeout bounds one attempt to connect to an endpoint whose
// cluster names no connect_timeout; it is gRPC's own.
const defaultConnectTimeout = 20 * time.Second

// endpointBackoff is gRPC's own but for its limit, which is two minutes: a
// provider that comes back at its address is to be found sooner.
var endpointBackoff = grpcbackoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 30 * time.Second}

func newConnTable(user []grpc.DialOption, counts *counters) *connTable {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
	}
	t := &connTable{options: append(options, user...), counts: counts, codec: dialledCodec(user), upkeep: newUpkeep(), seed: rand.Uint64(), cells: map[connKey]*cell{}, leaving: map[*cell]struct{}{}}
	t.changed.init()
	return t
}

// acquire returns the cell of a key with one more reference. t.mu is held.
func (t *connTable) acquire(key connKey) *cell {
	c := t.cells[key]
	if c == nil {
		c = &cell{key: key, table: t}
		t.cells[key] = c
	}
	c.refs++
	return c
}

// release gives one reference back. It returns the cell when that was the last
// one: the caller drains it after unlocking. t.mu is held.
func (t *connTable) release(c *cell) *cell {
	if c.refs--; c.refs > 0 {
		return nil
	}
	if t.cells[c.key] == c {
		delete(t.cells, c.key)
	}
	t.leaving[c] = struct{}{}
	return c
}

// close ends every connection, calls in flight included.
func (t *connTable) close() {
	t.mu.Lock()
	t.closed = true
	for _, c := range t.cells {
		t.leaving[c] = struct{}{}
	}
	leaving := slices.Collect(maps.Keys(t.leaving))
	t.cells = map[connKey]*cell{}
	t.mu.Unlock()
	var all sync.WaitGroup
	for _, c := range leaving {
		c.draining.Store(true)
		c.ready.Store(nil)
		all.Go(c.shut) // joined below
	}
	t.changed.notify()
	all.Wait()
	t.closers.Wait()
}

// aside runs what may wait for a peer that does not read, which can take gRPC
// seconds, off the ADS loop and off the way of a call.
func (t *connTable) aside(f func()) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		f()
		return
	}
	t.closers.Add(1)
	t.mu.Unlock()
	go func() { // bounded by gRPC; joined by close
		defer t.closers.Done()
		f()
	}()
}

// dial begins to connect, once; it never blocks. A connection that is lost or
// refused is dialled again by its leaf for as long as the cell is held.
func (c *cell) dial() {
	if !c.state.CompareAndSwap(uint32(cellIdle), uint32(cellConnecting)) {
		return
	}
	c.table.counts.dials.Add(1)
	conn, err := grpc.NewClient("proxyless:///"+c.key.addr.String(), c.dialOptions()...)
	if err != nil { // the user's dial options contradict one another
		c.fail(err)
		return
	}
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	if c.draining.Load() {
		c.table.aside(c.shut)
		return
	}
	conn.Connect()
}

func (c *cell) dialOptions() []grpc.DialOption {
	timeout := c.key.settings.connectTimeout
	if timeout <= 0 {
		timeout = defaultConnectTimeout
	}
	options := append([]grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: endpointBackoff, MinConnectTimeout: timeout}),
	}, c.table.options...)
	return append(options,
		grpc.WithResolvers(cellResolver{c}),
		grpc.WithDefaultServiceConfig(leafServiceConfig),
		grpc.WithIdleTimeout(0),
	)
}

// enter counts a call in and returns the connection to send it on, or nil when
// the endpoint has just become unusable. Each enter that returns a connection
// is followed by one leave.
func (c *cell) enter() *grpc.ClientConn {
	c.inflight.Add(1)
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
	c.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
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
		return "connecting"
	case cellReady:
		return "ready"
	}
	if err := c.failure.Load(); err != nil {
		return status.Convert(*err).Message()
	}
	return "failed"
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

// leafPolicy is the name of the private load-balancing policy inside each
// connection. A plain ClientConn would block calls while it connects, and hide
// whether a failed call was sent.
const leafPolicy = "proxyless_leaf"

const leafServiceConfig = `{"loadBalancingConfig":[{"` + leafPolicy + `":{}}]}`

func init() { balancer.Register(leafBuilder{}) }

type leafBuilder struct{}

func (leafBuilder) Name() string { return leafPolicy }

func (leafBuilder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &leaf{cc: cc}
}

// leaf keeps the one SubConn of a cell connected and mirrors its state into
// the cell.
type leaf struct {
	cc balancer.ClientConn

	mu   sync.Mutex // guards the fields below against drain
	cell *cell
	sub  balancer.SubConn
	done bool        // draining: do not connect again
	last time.Time   // of the latest Connect
	wait *time.Timer // of the next Connect, where it has to wait; nil otherwise
}

// reconnectPause is the least time between two connects of an endpoint that
// closes its connections as soon as they are made.
const reconnectPause = time.Second

func (l *leaf) UpdateClientConnState(s balancer.ClientConnState) error {
	c, _ := s.ResolverState.Attributes.Value(cellAttribute{}).(*cell)
	if c == nil || len(s.ResolverState.Endpoints) == 0 {
		return errors.New("proxyless: the leaf policy serves proxyless connections only")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sub != nil {
		return nil
	}
	//lint:ignore SA1019 the notice is about several addresses; this SubConn has one
	sub, err := l.cc.NewSubConn(s.ResolverState.Endpoints[0].Addresses, balancer.NewSubConnOptions{StateListener: l.update})
	if err != nil {
		c.fail(err)
		return err
	}
	l.cell, l.sub = c, sub
	c.mu.Lock()
	c.leaf = l
	c.mu.Unlock()
	l.cc.UpdateState(notReady(connectivity.Connecting))
	if !l.done && !c.draining.Load() {
		l.connect()
	}
	return nil
}

// connect connects at once, or after a pause when the last time was just now.
// l.mu is held.
func (l *leaf) connect() {
	pause := reconnectPause - time.Since(l.last)
	if l.last.IsZero() || pause <= 0 {
		l.last = time.Now()
		l.sub.Connect()
		return
	}
	l.wait = time.AfterFunc(pause, func() { // stopped by shutdown and Close
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.done {
			l.last = time.Now()
			l.sub.Connect()
		}
	})
}

// finish says that there is nothing to connect for any more. l.mu is held.
func (l *leaf) finish() {
	l.done = true
	if l.wait != nil {
		l.wait.Stop()
	}
}

// update is the SubConn's state listener; gRPC calls it in order, never
// concurrently with itself.
func (l *leaf) update(s balancer.SubConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cell
	if l.done || c.draining.Load() {
		return
	}
	switch s.ConnectivityState {
	case connectivity.Ready:
		l.cc.UpdateState(balancer.State{ConnectivityState: connectivity.Ready, Picker: readyPicker{l.sub}})
		c.state.Store(uint32(cellReady))
		c.mu.Lock()
		c.ready.Store(c.conn)
		c.mu.Unlock()
		if c.draining.Load() { // drained meanwhile: what drain cleared stays cleared
			c.ready.Store(nil)
		}
	case connectivity.TransientFailure:
		c.ready.Store(nil)
		l.cc.UpdateState(notReady(connectivity.TransientFailure))
		err := s.ConnectionError
		c.missed.Add(1)
		c.failure.Store(&err)
		c.state.Store(uint32(cellFailed))
	case connectivity.Idle: // lost, sent away by GOAWAY, or the pause after a failure is over
		c.ready.Store(nil)
		l.cc.UpdateState(notReady(connectivity.Connecting))
		c.state.CompareAndSwap(uint32(cellReady), uint32(cellConnecting))
		l.connect()
	default:
		return
	}
	c.table.changed.notify()
}

// shutdown lets the calls in flight finish and begins no more.
func (l *leaf) shutdown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	l.finish()
	l.cc.UpdateState(notReady(connectivity.Idle))
	l.sub.Shutdown()
}

func (l *leaf) ResolverError(error) {}

func (l *leaf) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

func (l *leaf) ExitIdle() {}

func (l *leaf) Close() {
	l.mu.Lock()
	l.finish()
	l.mu.Unlock()
}

func notReady(s connectivity.State) balancer.State {
	return balancer.State{ConnectivityState: s, Picker: nothingPicker{}}
}

type readyPicker struct{ sub balancer.SubConn }

func (p readyPicker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{SubConn: p.sub}, nil
}

type nothingPicker struct{}

func (nothingPicker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{}, errNothingSent
}

// cellResolver hands a connection its one address, and its leaf the cell.
type cellResolver struct{ cell *cell }

type cellAttribute struct{}

func (r cellResolver) Scheme() string { return "proxyless" }

func (r cellResolver) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	return r, cc.UpdateState(resolver.State{
		Endpoints:  []resolver.Endpoint{{Addresses: []resolver.Address{{Addr: r.cell.key.addr.String()}}}},
		Attributes: attributes.New(cellAttribute{}, r.cell),
	})
}

func (cellResolver) ResolveNow(resolver.ResolveNowOptions) {}

func (cellResolver) Close() {}

// notifier wakes everyone who waits for some change.
type notifier struct {
	mu sync.Mutex
	ch atomic.Pointer[chan struct{}]
}

func (n *notifier) init() {
	ch := make(chan struct{})
	n.ch.Store(&ch)
}

// wait returns the channel that the next notify closes. Take it before looking
// at what may change.
func (n *notifier) wait() <-chan struct{} { return *n.ch.Load() }

func (n *notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	ch := make(chan struct{})
	close(*n.ch.Swap(&ch))
}
