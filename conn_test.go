package proxyless

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/proxyless/proxyless/meshtest"
)

// lines are the connections that were made to a served Invoker.
type lines struct {
	made, open atomic.Int64
	hang       atomic.Bool // connections do not come about
}

type line struct {
	net.Conn
	lines *lines
	once  sync.Once
}

func (c *line) Close() error {
	c.once.Do(func() { c.lines.open.Add(-1) })
	return c.Conn.Close()
}

func (l *lines) dialer(pipe func() *meshtest.Pipe) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		if l.hang.Load() {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		conn, err := pipe().DialContext(ctx)
		if err == nil {
			l.made.Add(1)
			l.open.Add(1)
			conn = &line{Conn: conn, lines: l}
		}
		return conn, err
	})
}

// held makes n calls that go on until release is called, and waits until so
// many of them have arrived.
type held struct {
	arrived atomic.Int64
	gate    chan struct{}
	all     sync.WaitGroup
}

func (h *held) handle(context.Context) error {
	h.arrived.Add(1)
	<-h.gate
	return nil
}

func (h *held) call(t *testing.T, v *served, n int) {
	for range n {
		h.all.Go(func() {
			if err := v.call(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	synctest.Wait()
}

func (h *held) release() {
	close(h.gate)
	h.all.Wait()
}

func TestCallsDoNotQueueWhereAnotherConnectionMayBeOpened(t *testing.T) {
	for _, c := range []struct {
		name   string
		server []grpc.ServerOption
		change func(*cluster)
		calls  int
		want   int64 // that arrive
		conns  int64
	}{
		{"no limit", nil, nil, 50, 50, 1},
		{"the peer's limit", []grpc.ServerOption{grpc.MaxConcurrentStreams(3)}, nil, 10, 10, 4},
		{"the mesh's limit", nil, func(c *cluster) { c.conn.maxStreams = 5 }, 11, 11, 3},
		{"the lower one", []grpc.ServerOption{grpc.MaxConcurrentStreams(2)}, func(c *cluster) { c.conn.maxStreams = 5 }, 4, 4, 2},
		{"maxConnections", []grpc.ServerOption{grpc.MaxConcurrentStreams(3)}, func(c *cluster) {
			c.limits = &breakers{requests: noLimit, pending: noLimit, retries: noLimit, connections: 2}
		}, 10, 6, 2},
		{"maxConnections leaves each endpoint one", []grpc.ServerOption{grpc.MaxConcurrentStreams(3)}, func(c *cluster) {
			c.limits = &breakers{requests: noLimit, pending: noLimit, retries: noLimit, connections: 0}
		}, 10, 3, 1},
		{"no more than the cap", []grpc.ServerOption{grpc.MaxConcurrentStreams(1)}, nil, 20, mostLinks, mostLinks},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &held{gate: make(chan struct{})}
				v := newServed(t, 1, h.handle, c.server...)
				if c.change != nil {
					v.recluster(c.change)
				}
				h.call(t, v, c.calls)
				time.Sleep(time.Second)
				synctest.Wait()
				if n := h.arrived.Load(); n != c.want {
					t.Errorf("%d of %d calls arrived, want %d", n, c.calls, c.want)
				}
				if n := v.lines.open.Load(); n != c.conns {
					t.Errorf("%d connections, want %d", n, c.conns)
				}
				h.release()
				if n := h.arrived.Load(); n != int64(c.calls) {
					t.Errorf("%d calls arrived in the end", n)
				}
			})
		})
	}
}

func TestACallThatWaitsForAConnectionTakesAFreeStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &held{gate: make(chan struct{})}
		v := newServed(t, 1, h.handle, grpc.MaxConcurrentStreams(2))
		h.call(t, v, 2)
		v.lines.hang.Store(true)
		h.call(t, v, 1)
		if n := h.arrived.Load(); n != 2 {
			t.Fatalf("%d calls arrived", n)
		}
		begin := time.Now()
		h.release()
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("it waited for %v after streams were free", waited)
		}
		if n := v.lines.made.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestSpareConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &held{gate: make(chan struct{})}
		v := newServed(t, 1, h.handle, grpc.MaxConcurrentStreams(2))
		h.call(t, v, 6)
		h.release()
		if n := v.lines.open.Load(); n != 3 {
			t.Fatalf("%d connections for 6 calls", n)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := v.lines.open.Load(); n != 1 {
			t.Errorf("%d connections are left after five minutes without a call", n)
		}
		if err := v.call(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAConnectionServesNoMoreRequestsThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		served := map[int64]int{}
		v := newServed(t, 1, func(ctx context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			served[lineOf(ctx)]++
			return nil
		}, grpc.StatsHandler(&numbered{}))
		v.recluster(func(c *cluster) { c.conn.maxRequests = 16 })
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 100 {
					if err := v.call(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		total := 0
		for line, n := range served {
			total += n
			if n > 16 {
				t.Errorf("connection %d served %d requests", line, n)
			}
		}
		if total != 400 || len(served) < 25 || len(served) > 40 {
			t.Errorf("%d requests over %d connections", total, len(served))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := v.lines.open.Load(); n > 2 {
			t.Errorf("%d connections are open", n)
		}
	})
}

func TestOldConnectionsAreReplacedAndNoCallFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newServed(t, 1, func(context.Context) error { time.Sleep(300 * time.Millisecond); return nil })
		v.recluster(func(c *cluster) { c.conn.maxAge = 10 * time.Second })
		end := time.Now().Add(95 * time.Second)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for time.Now().Before(end) {
					if err := v.call(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if n := v.lines.made.Load(); n < 10 || n > 11 {
			t.Errorf("%d connections in 95 s, none older than 10 s, want 10 or 11", n)
		}
		synctest.Wait()
		if n := v.lines.open.Load(); n != 1 {
			t.Errorf("%d connections are open", n)
		}
		if n := v.mesh.Stats().Repicks; n > 0 {
			t.Errorf("%d calls had to be picked for again", n)
		}
	})
}

func TestIdleConnectionsAreClosedAndDialledOnDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		slow := false
		v := newServed(t, 1, func(context.Context) error {
			if slow {
				<-gate
			}
			return nil
		})
		v.recluster(func(c *cluster) { c.conn.idleTimeout = 20 * time.Second })
		for range 10 { // a call now and then keeps it
			if err := v.call(t.Context()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(14 * time.Second)
		}
		if n := v.lines.made.Load(); n != 1 {
			t.Fatalf("%d connections while there were calls", n)
		}
		time.Sleep(26 * time.Second)
		synctest.Wait()
		if n := v.lines.open.Load(); n != 0 {
			t.Fatalf("%d connections are open after 40 s without a call", n)
		}
		slow = true
		var all sync.WaitGroup
		all.Go(func() {
			if err := v.call(t.Context()); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(5 * time.Minute)
		if n := v.lines.open.Load(); n != 1 {
			t.Errorf("%d connections are open during a long call", n)
		}
		close(gate)
		all.Wait()
	})
}

// numbered gives each connection of a server a number, which its calls know.
type numbered struct{ n atomic.Int64 }

type lineNumber struct{}

func lineOf(ctx context.Context) int64 { return ctx.Value(lineNumber{}).(int64) }

func (h *numbered) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, lineNumber{}, h.n.Add(1))
}

func (h *numbered) HandleConn(context.Context, stats.ConnStats) {}

func (h *numbered) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (h *numbered) HandleRPC(context.Context, stats.RPCStats) {}

func TestKeepAliveOfTheMesh(t *testing.T) {
	for _, c := range []struct {
		asked tcpKeepAlive
		want  net.KeepAliveConfig
	}{
		{tcpKeepAlive{set: true, idle: time.Minute, interval: 10 * time.Second, probes: 3}, net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 10 * time.Second, Count: 3}},
		{tcpKeepAlive{set: true}, net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}},
	} {
		if got := c.asked.config(); got != c.want {
			t.Errorf("%+v: %+v", c.asked, got)
		}
	}
}

// TestPeerLimitIsReadHoweverItArrives hands the first frames over in pieces of
// any size.
func TestPeerLimitIsReadHoweverItArrives(t *testing.T) {
	settings := func(pairs ...byte) []byte {
		return append([]byte{0, 0, byte(len(pairs)), typeSettings, 0, 0, 0, 0, 0}, pairs...)
	}
	for name, c := range map[string]struct {
		bytes []byte
		want  uint32
	}{
		"a limit":           {settings(0, 5, 0, 0, 64, 0, 0, 3, 0, 0, 1, 2), 258},
		"none":              {settings(0, 5, 0, 0, 64, 0), noLimit},
		"empty":             {settings(), noLimit},
		"0":                 {settings(0, 3, 0, 0, 0, 0), 0},
		"the last one":      {settings(0, 3, 0, 0, 0, 7, 0, 3, 0, 0, 0, 9), 9},
		"another frame":     {[]byte{0, 0, 6, 6, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1}, noLimit},
		"too long":          {append([]byte{255, 255, 255, typeSettings, 0, 0, 0, 0, 0}, make([]byte, 4096)...), noLimit},
		"an incomplete one": {settings(0, 3, 0, 0, 0, 7)[:12], noLimit},
	} {
		for piece := 1; piece <= len(c.bytes); piece++ {
			k := new(link)
			k.peer.Store(noLimit)
			s := &settingsConn{link: k}
			rest := append(append([]byte(nil), c.bytes...), 0, 0, 0, 4, 1, 0, 0, 0, 0)
			if name == "an incomplete one" {
				rest = c.bytes
			}
			for len(rest) > 0 && !s.seen {
				n := min(piece, len(rest))
				s.look(rest[:n])
				rest = rest[n:]
			}
			if got := k.peer.Load(); got != c.want {
				t.Errorf("%s in pieces of %d: %d, want %d", name, piece, got, c.want)
			}
		}
	}
}
