package proxyless

import (
	"container/list"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
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

	// Guarded by gate.mu.
	place  *list.Element // in gate.pending; nil unless it is pending
	cutter *time.Timer   // ends it once it was asked to leave

	judging sync.Mutex // held while it is judged by the newest policy

	// Owned by who reads.
	greeted int // bytes of the preface that were read
	in      frameWalk
	settled bool
	newest  uint32 // the greatest stream that the caller opened
	heard   bool   // that it is to leave

	writing sync.Mutex // guards the following
	taken   bool       // no longer pending
	held    []byte     // what grpc said before
	out     frameWalk
	note    []byte // to be written between two frames
	goodbye bool   // grpc itself has asked the caller to leave
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

const x509ClientAuth = x509.ExtKeyUsageClientAuth

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

// encrypt speaks TLS with the caller.
func (c *gateConn) encrypt() (credentials.AuthInfo, error) {
	c.traits.transport = overTLS
	var found *admission
	conn := tls.Server(&c.wire, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (config *tls.Config, err error) {
		config, found, err = c.gate.configFor(c.ctx, c, hello)
		return config, err
	}})
	if err := conn.HandshakeContext(c.ctx); err != nil {
		return nil, err
	}
	state := conn.ConnectionState()
	c.Conn, c.tls = conn, found.chain.tls
	c.facts.encrypted, c.facts.serverName = true, c.traits.serverName
	if len(state.PeerCertificates) > 0 && c.tls.roots.kind != secretNone {
		c.facts.verified, c.facts.names = true, principalNames(state.PeerCertificates[0])
	}
	c.admission.Store(found)
	return tlsInfo(state), nil
}

// tlsInfo is what grpc's own TLS credentials tell of a connection.
func tlsInfo(state tls.ConnectionState) credentials.TLSInfo {
	return credentials.TLSInfo{
		State: state, SPIFFEID: spiffeIDOf(state.PeerCertificates),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}
}

// spiffeIDOf is the id that a certificate is for; nil where it has none, or
// more than one URI.
func spiffeIDOf(chain []*x509.Certificate) *url.URL {
	if len(chain) == 0 || len(chain[0].URIs) != 1 || chain[0].URIs[0].Scheme != "spiffe" {
		return nil
	}
	return chain[0].URIs[0]
}

// serverConfig is how a server speaks TLS with a caller that offers protocols.
// Of those only HTTP/2 can be spoken; who offers others gets none, as from
// Envoy, and has to speak HTTP/2 all the same. Nothing is resumed: every caller
// is verified.
func (t *tlsContext) serverConfig(shown *tls.Certificate, offered []string, verify func(tls.ConnectionState) error) *tls.Config {
	config := &tls.Config{
		Certificates: []tls.Certificate{*shown}, MinVersion: tls.VersionTLS12, CipherSuites: t.ciphers,
		SessionTicketsDisabled: true, VerifyConnection: verify,
	}
	if t.versions[0] != 0 {
		config.MinVersion = t.versions[0]
	}
	config.MaxVersion = t.versions[1]
	for _, curve := range t.curves {
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveID(curve))
	}
	for _, protocol := range offered {
		if protocol == "h2" {
			config.NextProtos = []string{"h2"}
		}
	}
	switch {
	case t.demands:
		config.ClientAuth = tls.RequireAnyClientCert // verified by verify, with the roots of this moment
	case t.roots.kind != secretNone:
		config.ClientAuth = tls.RequestClientCert
	}
	return config
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
		c.leave()
		return false
	}
	c.admission.Store(&admission{p, chain})
	return true
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

// insert writes frames between two of grpc's. Where grpc itself said goodbye
// there is nothing to add.
func (c *gateConn) insert(frames []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	switch {
	case c.goodbye:
	case c.out.between():
		c.Conn.Write(frames) // where it fails, grpc's next read does
	default:
		c.note = frames
	}
}

// Write writes what grpc has to say. While the connection is pending it is held
// back: a caller that was told nothing and has to make room connects anew, where
// one that has read SETTINGS would lose the calls it began.
func (c *gateConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.taken {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.write(b)
}

// speak writes what was held back.
func (c *gateConn) speak() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.taken = true
	if len(c.held) > 0 {
		c.write(c.held) // where it fails, grpc's next read does
	}
	c.held = nil
}

// write writes, and what there is to insert at the first place where it may be.
// The caller holds writing.
func (c *gateConn) write(b []byte) (int, error) {
	if c.note == nil {
		n, err := c.Conn.Write(b)
		c.follow(b[:n], false)
		return n, err
	}
	at := c.follow(b, true)
	n, err := c.Conn.Write(b[:at])
	if err != nil {
		return n, err
	}
	if c.note != nil && c.out.between() {
		if _, err := c.Conn.Write(c.note); err != nil {
			return n, err
		}
		c.note = nil
	}
	if at == len(b) {
		return n, nil
	}
	more, err := c.Conn.Write(b[at:])
	c.follow(b[at:at+more], false)
	return n + more, err
}

// follow walks through what is written, to its end or to the first place
// between two frames.
func (c *gateConn) follow(b []byte, toEdge bool) (at int) {
	for at < len(b) {
		n, ended := c.out.step(b[at:])
		at += n
		if !ended {
			continue
		}
		if c.out.kind() == frameGoAway {
			c.goodbye, c.note = true, nil
		}
		if toEdge && c.out.between() {
			break
		}
	}
	return at
}

// Read reads what the caller has to say.
func (c *gateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.heed(b[:n]) {
		c.wire.Close()
		return 0, errLate
	}
	return n, err
}

// heed walks through what was read. It reports false where the caller goes on
// to open streams although it has heard that it is to leave.
func (c *gateConn) heed(b []byte) bool {
	if rest := len(preface) - c.greeted; rest > 0 {
		n := min(rest, len(b))
		c.greeted += n
		b = b[n:]
	}
	for len(b) > 0 {
		n, ended := c.in.step(b)
		b = b[n:]
		if !ended {
			continue
		}
		if !c.settled {
			c.settled = true
			c.gate.settle(c)
		}
		switch c.in.kind() {
		case frameHeaders:
			if id := c.in.stream(); id > c.newest {
				if c.heard {
					return false
				}
				c.newest = id
			}
		case framePing:
			c.heard = c.heard || c.in.flags()&flagAck != 0 && c.in.body == leavePing && c.asked.Load()
		}
	}
	return true
}

// Close ends the connection.
func (c *gateConn) Close() error {
	c.gate.forget(c)
	return c.Conn.Close()
}
