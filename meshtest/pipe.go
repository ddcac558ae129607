package meshtest

import (
	"context"
	"net"
	"sync"
)

// Pipe is a [net.Listener] in memory, for tests in a testing/synctest bubble: a
// provider serves it, and consumers reach it by DialContext. Up to 256 KiB that
// one end wrote may wait for the other to read, as in the buffers of a socket.
//
// It stands where google.golang.org/grpc/test/bufconn could, whose timers fire at
// once: in a bubble they crash the race detector (golang/go#78156).
type Pipe struct {
	accepts chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// NewPipe makes a Pipe that listens.
func NewPipe() *Pipe {
	return &Pipe{accepts: make(chan net.Conn), closed: make(chan struct{})}
}

// DialContext connects, once the listener accepts. It fails with
// [net.ErrClosed] after Close, and with ctx's error when that ends before.
func (p *Pipe) DialContext(ctx context.Context) (net.Conn, error) {
	there, back := newLane(), newLane()
	select {
	case p.accepts <- &pipeConn{in: there, out: back}:
		return &pipeConn{in: back, out: there}, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept waits for the next connection. It fails with [net.ErrClosed] after
// Close.
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case conn := <-p.accepts:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and DialContext. Connections stay.
func (p *Pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr is the same for every Pipe, and no address of a network.
func (p *Pipe) Addr() net.Addr { return memory{} }

// memory is the address of what has none.
type memory struct{}

func (memory) Network() string { return "pipe" }
func (memory) String() string  { return "pipe" }
