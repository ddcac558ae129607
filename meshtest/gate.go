package meshtest

import (
	"net"
	"strconv"
	"sync"
)

// gate stands between the gRPC server and its connections. While it is shut,
// bytes are neither read nor written, but no connection is closed: what a client
// sees of a process that is stopped or of a network that swallows everything.
type gate struct {
	mu    sync.Mutex
	open  chan struct{} // closed while the gate is open
	shut  bool
	next  int
	conns map[string]*gatedConn // by the address of the client
}

func newGate() *gate {
	g := &gate{open: make(chan struct{}), conns: make(map[string]*gatedConn)}
	close(g.open)
	return g
}

func (g *gate) setShut(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case shut == g.shut:
	case shut:
		g.open = make(chan struct{})
	default:
		close(g.open)
	}
	g.shut = shut
}

// cut closes the connection of the client with the given address.
func (g *gate) cut(client string) {
	g.mu.Lock()
	c := g.conns[client]
	g.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// gatedListener puts every connection that it accepts behind a gate.
type gatedListener struct {
	net.Listener
	gate *gate
}

func (l gatedListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := l.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	c := &gatedConn{Conn: raw, gate: g, remote: raw.RemoteAddr(), closed: make(chan struct{})}
	if _, tcp := c.remote.(*net.TCPAddr); !tcp {
		c.remote = pipeAddr(g.next)
	}
	g.conns[c.remote.String()] = c
	return c, nil
}

// pipeAddr tells apart the clients of an in-memory control plane.
type pipeAddr int

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return "client-" + strconv.Itoa(int(a)) }

type gatedConn struct {
	net.Conn
	gate   *gate
	remote net.Addr
	once   sync.Once
	closed chan struct{}
}

func (c *gatedConn) RemoteAddr() net.Addr { return c.remote }

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.pass()
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	c.pass()
	return c.Conn.Write(b)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.gate.mu.Lock()
		if c.gate.conns[c.remote.String()] == c {
			delete(c.gate.conns, c.remote.String())
		}
		c.gate.mu.Unlock()
	})
	return c.Conn.Close()
}

// pass waits until the gate is open or the connection closed.
func (c *gatedConn) pass() {
	c.gate.mu.Lock()
	open := c.gate.open
	c.gate.mu.Unlock()
	select {
	case <-open:
	case <-c.closed:
	}
}
