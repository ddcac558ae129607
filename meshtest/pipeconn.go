package meshtest

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// laneRoom is how many bytes wait in a lane at most.
const laneRoom = 256 << 10

// pipeConn is one end of a connection in memory.
type pipeConn struct{ in, out *lane }

func (c *pipeConn) Read(b []byte) (int, error)  { return c.in.read(b) }
func (c *pipeConn) Write(b []byte) (int, error) { return c.out.write(b) }
func (c *pipeConn) LocalAddr() net.Addr         { return memory{} }
func (c *pipeConn) RemoteAddr() net.Addr        { return memory{} }

// Close lets the other end read what is on its way.
func (c *pipeConn) Close() error {
	c.in.end(true)
	c.out.end(false)
	return nil
}

func (c *pipeConn) SetReadDeadline(t time.Time) error {
	c.in.limit(&c.in.reading, t)
	return nil
}

func (c *pipeConn) SetWriteDeadline(t time.Time) error {
	c.out.limit(&c.out.writing, t)
	return nil
}

func (c *pipeConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// lane is one direction of a connection.
type lane struct {
	mu       sync.Mutex // guards all
	changed  sync.Cond
	waiting  bytes.Buffer
	busy     bool // a write is under way, which others do not come between
	ended    bool // nothing more is written
	unwanted bool // nothing more is read
	reading  deadline
	writing  deadline
}

// deadline is until when one end of a lane waits.
type deadline struct {
	at    time.Time   // zero is without end
	alarm *time.Timer // wakes who waits; nil for none
}

func newLane() *lane {
	l := new(lane)
	l.changed.L = &l.mu
	return l
}

func (l *lane) read(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.unwanted:
			return 0, net.ErrClosed
		case l.reading.passed():
			return 0, os.ErrDeadlineExceeded
		case l.waiting.Len() > 0:
			l.changed.Broadcast()
			return l.waiting.Read(b)
		case l.ended:
			return 0, io.EOF
		case len(b) == 0:
			return 0, nil
		}
		l.changed.Wait()
	}
}

func (l *lane) write(b []byte) (written int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine := false
	defer func() {
		if mine {
			l.busy = false
			l.changed.Broadcast()
		}
	}()
	for {
		switch room := laneRoom - l.waiting.Len(); {
		case l.ended:
			return written, net.ErrClosed
		case l.unwanted:
			return written, io.ErrClosedPipe
		case l.writing.passed():
			return written, os.ErrDeadlineExceeded
		case len(b) == 0:
			return written, nil
		case room > 0 && (mine || !l.busy):
			mine, l.busy = true, true
			n, _ := l.waiting.Write(b[:min(room, len(b))])
			b, written = b[n:], written+n
			l.changed.Broadcast()
		default:
			l.changed.Wait()
		}
	}
}

// end ends the lane, on the side of who reads or of who writes.
func (l *lane) end(reader bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	side := &l.writing
	if reader {
		l.unwanted, side = true, &l.reading
		l.waiting.Reset()
	} else {
		l.ended = true
	}
	side.silence()
	l.changed.Broadcast()
}

// limit sets a deadline of the lane.
func (l *lane) limit(d *deadline, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.silence()
	d.at = at
	if left := time.Until(at); !at.IsZero() && left > 0 {
		d.alarm = time.AfterFunc(left, l.wake)
	}
	l.changed.Broadcast()
}

func (l *lane) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) silence() {
	if d.alarm != nil {
		d.alarm.Stop()
		d.alarm = nil
	}
}
