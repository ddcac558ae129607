package proxyless

import (
	"container/list"
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// gateConn is a connection that came through a gate, from the handshake on. It
// knows what its caller is, which chain admitted it, and where frames begin and
// end in both directions: so it can be asked to leave between two of them.
type gateConn struct {
	net.Conn // what grpc reads and writes: wire, or TLS over it
	gate     *gate
	wire     replayConn
	local    gateAddr
	timer    *time.Timer // ends it while it is pending
	ctx      context.Context
	cancel   context.CancelCauseFunc

	// Constant once the handshake is done.
	spoke  bool // it sent something
	facts  peerFacts
	traits connTraits
	tls    *tlsContext // nil in plain text

	admission atomic.Pointer[admission]
	speaker   atomic.Pointer[plainPeer] // nil unless it speaks plain text, and is open
	asked     atomic.Bool               // to leave
	hearBy    atomic.Int64              // when it must have heard of that, by sinceStart; 0 while it may stay
	heard     atomic.Bool               // that it is to leave
	goodbye   atomic.Bool               // grpc itself has asked it to leave, and sees to it
	closed    atomic.Bool               // after it was cut

	// Guarded by gate.mu.
	place  *list.Element // in gate.pending; nil unless it is pending
	cutter *time.Timer   // ends it once it was asked to leave

	judging sync.Mutex // held while it is judged by the newest policy

	// Owned by who reads.
	greeted int // bytes of the preface that were read
	in      frameWalk
	settled bool
	newest  uint32 // the greatest stream that the caller opened

	writing sync.Mutex // guards the following
	taken   bool       // no longer pending
	held    []byte     // what grpc said before
	out     frameWalk
	note    []byte // to be written between two frames
}

// admission is the chain by which a connection is admitted, and so by whose
// filters its calls are judged.
type admission struct {
	policy *portPolicy
	chain  *filterChain // nil where there is no policy
}

// gateAddr is the local address of a connection by which a call finds the
// connection again.
type gateAddr struct {
	net.Addr
	conn *gateConn
}

// replayConn has bytes that were read before.
type replayConn struct {
	net.Conn
	ahead []byte
	kept  [len(preface)]byte
}

func (r *replayConn) Read(b []byte) (int, error) {
	if len(r.ahead) == 0 {
		return r.Conn.Read(b)
	}
	n := copy(b, r.ahead)
	r.ahead = r.ahead[n:]
	return n, nil
}

var (
	errDone     = errors.New("done")
	errLate     = errors.New("proxyless: a call was begun after the policy of the mesh had ended the connection")
	errOtherTLS = errors.New("the mesh asks for other TLS than was spoken when it connected")
)

// leaveReason is what a caller reads of why it is to connect anew.
const leaveReason = "the policy of the mesh changed"

var leavePing = [pingSize]byte{'p', 'x', '-', 'l', 'e', 'a', 'v', 'e'}

func newGateConn(g *gate, raw net.Conn) *gateConn {
	c := &gateConn{gate: g, wire: replayConn{Conn: raw}}
	c.Conn = &c.wire
	c.local = gateAddr{raw.LocalAddr(), c}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.facts = peerFacts{remote: addrPortOf(raw.RemoteAddr()), local: addrPortOf(raw.LocalAddr())}
	c.traits = plainGRPC(c.facts.local)
	c.traits.from = c.facts.remote
	return c
}

// LocalAddr is the address that the caller connected to.
func (c *gateConn) LocalAddr() net.Addr { return &c.local }

// end releases what limits a pending connection.
func (c *gateConn) end() {
	c.timer.Stop()
	c.cancel(errDone)
}

// cut ends a connection that is pending.
func (c *gateConn) cut(why error) {
	c.timer.Stop()
	c.cancel(why)
	c.wire.Close()
}

// shake finds out what the caller speaks, and whether the mesh admits it.
func (c *gateConn) shake() (credentials.AuthInfo, error) {
	what, err := c.sniff()
	switch {
	case err != nil:
		return nil, err
	case what == openingOther:
		return nil, errBabble
	case what == openingTLS:
		return c.encrypt()
	}
	p, err := c.gate.await(c.ctx)
	if err != nil {
		return nil, err
	}
	chain, err := p.chainFor(&c.traits)
	if err != nil {
		return nil, err
	}
	c.admission.Store(&admission{p, chain})
	return nil, nil
}

// sniff reads as much as tells what the caller speaks.
func (c *gateConn) sniff() (opening, error) {
	buffer, n := c.wire.kept[:], 0
	for {
		more, err := c.wire.Conn.Read(buffer[n:])
		n += more
		c.spoke = n > 0
		if what := sniff(buffer[:n]); what != openingShort {
			c.wire.ahead = buffer[:n]
			return what, nil
		}
		if err != nil {
			return openingShort, err
		}
	}
}

// readmit judges the connection by the newest policy. It reports whether the
// connection stays.
func (c *gateConn) readmit() bool {
	c.judging.Lock()
	defer c.judging.Unlock()
	p := c.gate.policy.Load()
	if c.admission.Load().policy == p {
		return true
	}
	chain, err := p.chainFor(&c.traits)
	if err == nil && c.tls != nil && (chain.tls.failure != "" || chain.tls.text != c.tls.text) {
		err = errOtherTLS
	}
	if err != nil { // until it is gone, its calls are judged as before
		c.hearBy.CompareAndSwap(0, int64(sinceStart()+c.gate.hearing))
		c.leave()
		return false
	}
	c.hearBy.Store(0)
	c.admission.Store(&admission{p, chain})
	return true
}

// deaf says that the caller should have heard by now that it is to leave, and
// gave no sign of it. Whoever reads at all does so at once.
func (c *gateConn) deaf() bool {
	by := c.hearBy.Load()
	return by != 0 && sinceStart() >= time.Duration(by) && !c.heard.Load() && !c.goodbye.Load()
}

// leave asks the caller to connect anew. Calls that it began before it heard of
// that are served, for a time.
func (c *gateConn) leave() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if _, open := c.gate.open[c]; !open || !c.asked.CompareAndSwap(false, true) {
		return
	}
	c.gate.counts.retired.Add(1)
	c.cutter = time.AfterFunc(c.gate.grace, func() { c.wire.Close() })
	c.gate.leaving.Add(1)
	go func() { // ends with the connection, which the cutter ends at the latest; joined by gate.join
		defer c.gate.leaving.Done()
		c.insert(appendGoAway(nil, leaveReason, leavePing))
	}()
}

// Close ends the connection. One that was cut after its handshake was turned
// away as well.
func (c *gateConn) Close() error {
	cut := context.Cause(c.ctx)
	c.gate.forget(c)
	if cut != nil && cut != errDone && c.closed.CompareAndSwap(false, true) {
		c.gate.turnedAway(c, cut)
	}
	return c.Conn.Close()
}
