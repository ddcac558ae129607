package proxyless

import (
	"container/list"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
)

// gate is what the connections to a Server come through. It reads their first
// bytes, chooses the filter chain that takes them, speaks TLS where that asks
// for it, and turns away whom no chain takes. It is the credentials of the
// grpc.Server, so that all this is done on the connection's own goroutine and
// never in Accept.
//
// Connections that have not said enough yet are pending: from here on until the
// first frame of HTTP/2 was read. There are so many of them at most, each for so
// long at most; the one that is pending for the longest time makes room.
type gate struct {
	// Constant after newGate.
	secrets  *secretStore
	audit    *auditor // nil in tests
	counts   *counters
	log      *slog.Logger
	most     int           // pending connections
	patience time.Duration // how long one may be pending
	grace    time.Duration // how long one that has to leave may stay for its calls
	hearing  time.Duration // how long it may take to hear of that

	plain *plainPeers

	policy atomic.Pointer[portPolicy] // nil until the mesh has said something
	told   chan struct{}              // closed with the first policy
	hushed hush                       // of what is logged about those who are turned away

	foreign foreignPeers // of calls that came through other credentials

	mu      sync.Mutex
	shut    bool
	pending list.List // of *gateConn, the longest pending first
	open    map[*gateConn]struct{}

	leaving sync.WaitGroup // the goroutines of gateConn.leave
}

// portPolicy is what the mesh says of those who connect to a port. It is
// immutable.
type portPolicy struct {
	rules *listener // nil: plain text is taken from everybody
}

// hearingTime is how long a caller may take to hear that it is to leave. It is
// what grpc itself allows for that when it stops gracefully.
const hearingTime = 5 * time.Second

// noPolicy is that of a port of which the mesh says nothing.
var noPolicy = &portPolicy{}

func newGate(cfg *Config, log *slog.Logger, counts *counters, secrets *secretStore, audit *auditor, plain *plainPeers) *gate {
	return &gate{
		secrets: secrets, audit: audit, counts: counts, log: log, plain: plain,
		most: cfg.PendingConnections, patience: cfg.HandshakeTimeout, grace: cfg.ShutdownTimeout, hearing: hearingTime,
		told: make(chan struct{}), open: map[*gateConn]struct{}{},
	}
}

// govern puts a policy in force. Connections that it does not admit are asked
// to leave; it waits for none of them.
func (g *gate) govern(p *portPolicy) {
	g.mu.Lock()
	first := g.policy.Swap(p) == nil
	connected := slices.Collect(maps.Keys(g.open))
	g.mu.Unlock()
	if first {
		close(g.told)
	}
	for _, c := range connected {
		c.readmit()
	}
}

// ServerHandshake takes a connection in or turns it away.
func (g *gate) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if p := g.policy.Load(); p != nil && p.rules == nil && !addrPortOf(raw.LocalAddr()).IsValid() { // not TCP: the mesh has no name for it, and no policy
		return raw, nil, nil
	}
	c := newGateConn(g, raw)
	if err := g.enter(c); err != nil {
		return nil, nil, err
	}
	info, err := c.shake()
	if err != nil {
		g.release(c)
		c.end()
		return nil, nil, g.turnedAway(c, err)
	}
	return c, info, nil
}

var (
	errGateShut      = errors.New("the server is stopping")
	errSlow          = errors.New("it took too long to say what it wants")
	errUntold        = errors.New("the mesh has not said yet what is asked of those who connect")
	errCrowded       = errors.New("too many others connected at the same time")
	errBabble        = errors.New("it speaks neither TLS nor HTTP/2")
	errNoTLS         = errors.New("it speaks TLS where the mesh asks for plain text")
	errPlainText     = errors.New("it speaks plain text where the mesh asks for TLS")
	errNothingToShow = errors.New("the mesh names none")
	errNowhere       = errors.New("the mesh has rules here, and it has no address to go by")
	errNoChain       = errors.New("no filter chain of the mesh takes it")
)

// hindrance is what is in the way on this side. Where a caller had to wait for it
// until its time was over, that says more than that it was slow.
type hindrance struct{ error }

// enter makes a connection pending.
func (g *gate) enter(c *gateConn) error {
	g.mu.Lock()
	if g.shut {
		g.mu.Unlock()
		c.cancel(errGateShut)
		return errGateShut
	}
	var longest *gateConn
	if g.pending.Len() >= g.most {
		longest = g.pending.Remove(g.pending.Front()).(*gateConn)
		longest.place = nil
	}
	c.place = g.pending.PushBack(c)
	c.timer = time.AfterFunc(g.patience, func() { g.putOut(c, errSlow) }) // once it has its place, or it would keep it
	g.mu.Unlock()
	if longest != nil {
		g.counts.crowdedOut.Add(1)
		longest.cut(errCrowded)
	}
	return nil
}

// release takes a connection out of those that are pending, if it still is one.
func (g *gate) release(c *gateConn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.releaseLocked(c)
}

func (g *gate) releaseLocked(c *gateConn) bool {
	if c.place == nil {
		return false
	}
	g.pending.Remove(c.place)
	c.place = nil
	return true
}

// putOut ends a connection that is pending.
func (g *gate) putOut(c *gateConn, why error) {
	if g.release(c) {
		g.counts.timedOut.Add(1)
		c.cut(why)
	}
}

// settle makes a pending connection one of those that are open.
func (g *gate) settle(c *gateConn) {
	g.mu.Lock()
	stays := g.releaseLocked(c)
	if stays {
		g.open[c] = struct{}{}
		if !c.facts.encrypted {
			c.speaker.Store(g.plain.enter(c.facts.remote.Addr(), time.Now()))
		}
	}
	g.mu.Unlock()
	if !stays {
		return
	}
	c.end() // of the limits of those who are pending
	c.speak()
	if c.facts.encrypted {
		g.counts.encrypted.Add(1)
	} else {
		g.counts.plain.Add(1)
	}
	c.readmit() // the policy may have changed in between
}

// forget drops a connection that was closed.
func (g *gate) forget(c *gateConn) {
	g.mu.Lock()
	g.releaseLocked(c)
	delete(g.open, c)
	if c.cutter != nil {
		c.cutter.Stop()
	}
	g.mu.Unlock()
	c.end()
	if speaker := c.speaker.Swap(nil); speaker != nil {
		g.plain.left(speaker, time.Now())
	}
}

// close turns away all who are pending and all who come. Those that are open
// are the grpc.Server's to end.
func (g *gate) close() {
	g.mu.Lock()
	g.shut = true
	var pending []*gateConn
	for g.pending.Len() > 0 {
		c := g.pending.Remove(g.pending.Front()).(*gateConn)
		c.place = nil
		pending = append(pending, c)
	}
	g.mu.Unlock()
	for _, c := range pending {
		c.cut(errGateShut)
	}
}

// join waits for what the gate still does, once every connection is closed.
func (g *gate) join() { g.leaving.Wait() }

// turnedAway counts and logs why a connection was not taken in. Who connects
// and says nothing, as probes do, is not worth a word.
func (g *gate) turnedAway(c *gateConn, err error) error {
	if cause := context.Cause(c.ctx); cause == errGateShut || cause != nil && cause != errDone && !errors.As(err, new(hindrance)) {
		err = cause
	}
	if !c.spoke && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		return io.EOF
	}
	if err != errGateShut {
		g.counts.turnedAway.Add(1)
		text := err.Error()
		if broken, ok := err.(*net.OpError); ok && broken.Source != nil {
			text = broken.Err.Error() // without the addresses, which no two callers share
		}
		g.hushed.say(text, func(more uint64) {
			g.log.Warn("connections are turned away", "peer", c.facts.remote.String(), keyError, text, "not_logged_before", more)
		})
	}
	return err
}

// await waits for the mesh to say what is asked of those who connect.
func (g *gate) await(ctx context.Context) (*portPolicy, error) {
	if p := g.policy.Load(); p != nil {
		return p, nil
	}
	select {
	case <-g.told:
		return g.policy.Load(), nil
	case <-ctx.Done():
		return nil, hindrance{errUntold}
	}
}

// chainFor is the chain that takes a connection; nil where there is no policy.
func (p *portPolicy) chainFor(t *connTraits) (*filterChain, error) {
	encrypted := t.transport == overTLS
	if p.rules == nil {
		if encrypted {
			return nil, errNoTLS
		}
		return nil, nil
	}
	if !t.to.IsValid() || !t.from.IsValid() {
		return nil, errNowhere
	}
	chain := p.rules.inboundFor(*t)
	switch {
	case chain == nil && !encrypted && p.rules.encrypts():
		return nil, errPlainText
	case chain == nil:
		return nil, errNoChain
	case encrypted && chain.tls == nil:
		return nil, errNoTLS
	case !encrypted && chain.tls != nil:
		return nil, errPlainText
	}
	return chain, nil
}

// encrypts says that there is a chain which asks for TLS.
func (l *listener) encrypts() bool {
	return slices.ContainsFunc(l.inbound, func(c filterChain) bool { return c.tls != nil })
}

// Info says what the credentials are, for grpc.
func (g *gate) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: overTLS}
}

// ClientHandshake fails: a gate is for servers.
func (g *gate) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("proxyless: the credentials of a server were used by a client")
}

// Clone returns the gate itself: all of a server's connections share it.
func (g *gate) Clone() credentials.TransportCredentials { return g }

// OverrideServerName does nothing.
func (g *gate) OverrideServerName(string) error { return nil }
