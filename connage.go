package proxyless

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
)

// What ends connections by time: idle_timeout and max_connection_duration of
// HttpProtocolOptions, and links beyond the first that nobody needs any more.

// spareTime is how long a link beyond the first is kept without a call.
const spareTime = time.Minute

// watchAges has the ages of the links looked at, where one is limited or there
// is more than one. l.mu is held.
func (l *leaf) watchAges() {
	if next := l.nextAge(time.Now()); next > 0 {
		if l.ages == nil {
			l.ages = l.cell.table.upkeep.do(next, l.age)
		} else {
			l.ages.in(next)
		}
	}
}

// nextAge is when the next link may be over its time; 0 is never. l.mu is held.
func (l *leaf) nextAge(now time.Time) time.Duration {
	next := time.Duration(0)
	if len(l.links) > 1 {
		next = spareTime
	}
	for _, k := range l.links {
		if left := k.until.Sub(now); k.ready && !k.until.IsZero() && (next == 0 || left < next) {
			next = max(left, reconnectPause) // one that could not be replaced is tried again
		}
	}
	return next
}

// age is a chore: it replaces links that are too old and closes those that are
// spare.
func (l *leaf) age(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return 0
	}
	for i := len(l.links) - 1; i >= 0; i-- {
		k := l.links[i]
		switch {
		case !k.ready:
		case !k.until.IsZero() && !now.Before(k.until):
			l.open(k)
		case i > 0 && now.Sub(k.since) >= spareTime:
			if !k.busy.Swap(false) && k.streams.Load() == 0 {
				l.retire(k)
				l.publish()
			}
		}
	}
	return l.nextAge(now)
}

// watch has the cell closed when no call used it for its idle timeout. The time
// is known to a quarter.
func (c *cell) watch() {
	timeout := c.key.settings.idleTimeout
	if timeout <= 0 {
		return
	}
	last := time.Now()
	every := max(timeout/4, time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle.stop()
	c.idle = c.table.upkeep.do(every, func(now time.Time) time.Duration {
		if c.used.Swap(false) || c.inflight.Load() > 0 || cellState(c.state.Load()) != cellReady {
			last = now
		}
		if now.Sub(last) < timeout || !c.sleep() {
			return every
		}
		return 0
	})
}

// sleep closes the connection of an endpoint that has no call. The next pick
// that falls on it dials again.
func (c *cell) sleep() bool {
	leaf, conn := c.disconnect()
	if conn == nil {
		return false
	}
	c.table.aside(func() {
		leaf.shutdown()
		conn.Close()
		c.links.Store(0)
		c.state.Store(uint32(cellIdle)) // the leaf, which is done, does not write it any more
		c.table.changed.notify()
	})
	return true
}

// disconnect takes its connection off an endpoint that has no call; nil where
// it has one. The leaf, which may lose the connection at any time, is held
// meanwhile: what is put back has not been lost.
func (c *cell) disconnect() (*leaf, *grpc.ClientConn) {
	c.mu.Lock()
	leaf := c.leaf
	c.mu.Unlock()
	if leaf == nil {
		return nil, nil
	}
	leaf.mu.Lock()
	defer leaf.mu.Unlock()
	conn := c.ready.Swap(nil)
	if conn == nil {
		return nil, nil
	}
	if c.inflight.Load() > 0 { // a call came in before: see enter
		c.ready.Store(conn)
		if c.draining.Load() {
			c.ready.Store(nil)
		}
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn, c.leaf = nil, nil
	return leaf, conn
}

// dialer is net.Dialer's with the mesh's keepalive. What the mesh leaves open is
// the system's.
func (k *tcpKeepAlive) dialer() func(context.Context, string) (net.Conn, error) {
	d := &net.Dialer{KeepAliveConfig: k.config()}
	return func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
}

// config says -1 for what is to stay as it is: 0 would mean Go's 15 s.
func (k *tcpKeepAlive) config() net.KeepAliveConfig {
	c := net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}
	if k.idle > 0 {
		c.Idle = k.idle
	}
	if k.interval > 0 {
		c.Interval = k.interval
	}
	if k.probes > 0 {
		c.Count = k.probes
	}
	return c
}
