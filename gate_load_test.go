package proxyless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// load is a client that calls on and on, as one that waits for its server does.
type load struct {
	name     string
	answered atomic.Int64
	failed   atomic.Int64
	first    atomic.Pointer[error]
}

func (l *load) run(t *testing.T, ctx context.Context, addr string, creds credentials.TransportCredentials, callers int, done *sync.WaitGroup) {
	conn := dialGated(t, addr, creds)
	for i := range callers {
		done.Go(func() { // until ctx ends
			for ctx.Err() == nil {
				call, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				stop := context.AfterFunc(ctx, cancel) // who waits for a server need not be waited for
				var err error
				if i%4 == 3 {
					_, err = talkStreamReady(call, conn)
				} else {
					_, err = talkSay(call, conn, "Say", "x", grpc.WaitForReady(true))
				}
				stop()
				cancel()
				switch {
				case err == nil:
					l.answered.Add(1)
				case ctx.Err() == nil:
					l.failed.Add(1)
					l.first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
}

// talkStreamReady is a stream of three words each way.
func talkStreamReady(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	return talkStream(ctx, readyConn{conn}, "Chat", "a", "b", "c")
}

type readyConn struct{ *grpc.ClientConn }

func (c readyConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return c.ClientConn.NewStream(ctx, desc, method, append(opts, grpc.WaitForReady(true))...)
}

// kinds counts the open connections.
func (s *gated) kinds() (plain, encrypted int) {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	for c := range s.gate.open {
		if c.facts.encrypted {
			encrypted++
		} else {
			plain++
		}
	}
	return plain, encrypted
}

// TestPolicyChangesUnderLoad switches modes while callers in plain text and over
// TLS call on and on and connect anew as grpc does: not one call fails. Who is
// not admitted waits, and not one of its calls is served meanwhile.
func TestPolicyChangesUnderLoad(t *testing.T) {
	m := newGateMesh(t)
	var served [2]atomic.Int64 // in plain text, over TLS
	s := serveGated(t, gatedConfig(), m.permissive(), &talker{say: func(ctx context.Context, word string) (string, error) {
		p, _ := PeerFrom(ctx)
		if p.Encrypted {
			served[1].Add(1)
		} else {
			served[0].Add(1)
		}
		return word, nil
	}})
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	defer done.Wait()
	defer stop()
	loads := [2]*load{{name: "plain text"}, {name: "TLS"}}
	loads[0].run(t, ctx, s.addr, insecure.NewCredentials(), 4, &done)
	loads[1].run(t, ctx, s.addr, m.caller(t), 4, &done)
	modes := []struct {
		name   string
		policy func(...inboundFilter) *portPolicy
		admits [2]bool
	}{
		{"PERMISSIVE", m.permissive, [2]bool{true, true}},
		{"STRICT", m.strict, [2]bool{false, true}},
		{"DISABLE", m.disable, [2]bool{true, false}},
	}
	wait := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s; first failures: %v, %v", what, loads[0].first.Load(), loads[1].first.Load())
			}
		}
	}
	const rounds = 8
	for round := range rounds {
		for _, mode := range modes {
			s.gate.govern(mode.policy())
			var before [2]int64
			if !mode.admits[0] || !mode.admits[1] {
				wait("connections stay under "+mode.name, func() bool {
					plain, encrypted := s.kinds()
					return (mode.admits[0] || plain == 0) && (mode.admits[1] || encrypted == 0)
				})
			}
			for i := range served {
				before[i] = served[i].Load()
			}
			for i, l := range loads {
				if mode.admits[i] {
					start := l.answered.Load()
					wait(fmt.Sprintf("round %d: no answers in %s under %s", round, l.name, mode.name), func() bool { return l.answered.Load() > start+25 })
				}
			}
			for i, l := range loads {
				if n := served[i].Load() - before[i]; !mode.admits[i] && n > 0 {
					t.Errorf("%d calls in %s were served under %s", n, l.name, mode.name)
				}
			}
		}
	}
	for _, l := range loads {
		if n := l.failed.Load(); n > 0 {
			t.Errorf("%d of %d calls in %s failed, the first with %v", n, n+l.answered.Load(), l.name, *l.first.Load())
		}
		t.Logf("%d calls in %s", l.answered.Load(), l.name)
	}
	if n := s.counts.retired.Load(); n < 2*rounds-1 {
		t.Errorf("%d connections were asked to leave", n)
	}
}

// attacks are ways to connect and not get on with it.
var attacks = []func(c net.Conn, i int){
	func(net.Conn, int) {}, // says nothing
	func(c net.Conn, i int) { io.WriteString(c, preface[:1+i%23]) },                                   // stops within the preface
	func(c net.Conn, i int) { io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") },                // speaks something else
	func(c net.Conn, i int) { io.WriteString(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") },     // stops within its ClientHello
	func(c net.Conn, i int) { io.WriteString(c, "\x16\x03\x01\x00\x05hello") },                        // sends no ClientHello
	func(c net.Conn, i int) { io.WriteString(c, preface) },                                            // stops before SETTINGS
	func(c net.Conn, i int) { io.WriteString(c, preface+"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00") }, // stops within SETTINGS
	func(c net.Conn, i int) { io.WriteString(c, preface+"\xff\xff\xff\x04\x00\x00\x00\x00\x00") },     // announces too much
	func(c net.Conn, i int) { io.WriteString(c, preface+"\x00\x00\x00\x09\x00\x00\x00\x00\x00") },     // begins with another frame
	func(c net.Conn, i int) { c.Close() },                                                             // is gone
	func(c net.Conn, i int) {
		drip(c, preface+"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00") // never all of SETTINGS
	}, // byte by byte
	func(c net.Conn, i int) {
		drip(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\x00\x00")
	}, // byte by byte
}

// drip writes so slowly that it does not come to an end.
func drip(c net.Conn, text string) {
	for i := range len(text) - 1 {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestFlood opens thousands of connections that come to nothing. So many are
// pending at a time and no more, none for longer than it may be, callers get
// through meanwhile, and nothing is left of it.
func TestFlood(t *testing.T) {
	const (
		most      = 64
		patience  = 400 * time.Millisecond
		strangers = 4000
		atOnce    = 100 // fewer than the kernel keeps for who accepts: what it drops beyond that, the gate never sees
	)
	m := newGateMesh(t)
	cfg := gatedConfig()
	cfg.PendingConnections, cfg.HandshakeTimeout = most, patience
	s := serveGated(t, cfg, m.permissive(), whoCalls())
	steady := dialGated(t, s.addr, m.caller(t))
	if _, err := talkSay(t.Context(), steady, "Say", "x"); err != nil {
		t.Fatal(err)
	}
	goroutines, memory := runtime.NumGoroutine(), heapInUse()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var watching, flood sync.WaitGroup
	var peak atomic.Int64
	watching.Go(func() { // until the flood is over
		for ctx.Err() == nil {
			if n := int64(s.pending()); n > peak.Load() {
				peak.Store(n)
			}
			time.Sleep(100 * time.Microsecond)
		}
	})
	var through, calls atomic.Int64
	for _, creds := range []credentials.TransportCredentials{insecure.NewCredentials(), m.caller(t)} {
		watching.Go(func() { // until the flood is over
			for ctx.Err() == nil {
				conn, err := grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(creds), reconnectSoon)
				if err != nil {
					t.Error(err)
					return
				}
				call, cancel := context.WithTimeout(t.Context(), time.Minute)
				switch _, err := talkSay(call, conn, "Say", "x", grpc.WaitForReady(true)); status.Code(err) {
				case codes.OK:
					through.Add(1)
				case codes.DeadlineExceeded: // it had to make room each time
				default:
					t.Errorf("who comes meanwhile: %v", err)
				}
				cancel()
				conn.Close()
			}
		})
	}
	watching.Go(func() { // until the flood is over
		for ctx.Err() == nil {
			if _, err := talkSay(t.Context(), steady, "Say", "x"); err != nil {
				t.Errorf("who was there before: %v", err)
				return
			}
			calls.Add(1)
			time.Sleep(time.Millisecond)
		}
	})
	var longest atomic.Int64
	places := make(chan struct{}, atOnce)
	enough := func() bool { return through.Load() >= 10 && calls.Load() >= 20 }
	began := time.Now()
	for i := 0; i < strangers || !enough() && time.Since(began) < 3*time.Minute; i++ {
		places <- struct{}{}
		flood.Go(func() { // until it is cut
			defer func() { <-places }()
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			start := time.Now()
			attacks[i%len(attacks)](c, i)
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a connection is never cut")
			}
			if took := int64(time.Since(start)); took > longest.Load() {
				longest.Store(took)
			}
		})
	}
	flood.Wait()
	stop()
	watching.Wait()
	if n := peak.Load(); n > most || n < most/2 {
		t.Errorf("%d connections were pending at a time; %d may be", n, most)
	}
	if !enough() {
		t.Errorf("%d newcomers got through, and %d calls of who was there", through.Load(), calls.Load())
	}
	t.Logf("%d strangers: %d pending at most, the longest for %v; %d newcomers, %d calls; %d crowded out, %d too slow", strangers,
		peak.Load(), time.Duration(longest.Load()), through.Load(), calls.Load(), s.counts.crowdedOut.Load(), s.counts.timedOut.Load())
	s.pendingIs(t, 0)
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > goroutines+4; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
	if now := heapInUse(); now > memory+4<<20 {
		t.Errorf("%d KiB in use, %d before", now>>10, memory>>10)
	}
	if plain, encrypted := s.kinds(); plain+encrypted > 1 {
		t.Errorf("%d and %d connections are left", plain, encrypted)
	}
}

// TestPendingIsBoundedInTime holds, by the gate's own clock, that a connection is
// cut once its time is over, at whatever point of its handshake.
func TestPendingIsBoundedInTime(t *testing.T) {
	m := newGateMesh(t)
	for i, attack := range attacks {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			cfg := gatedConfig()
			cfg.HandshakeTimeout = 100 * time.Millisecond
			s := serveGated(t, cfg, m.permissive(), whoCalls())
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			attack(c, i)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			io.Copy(io.Discard, c)
			s.pendingIs(t, 0)
			if plain, encrypted := s.kinds(); plain+encrypted > 0 {
				t.Error("it is open")
			}
		})
	}
}

// TestTheLongestPendingMakesRoom fills all places, and one more.
func TestTheLongestPendingMakesRoom(t *testing.T) {
	m := newGateMesh(t)
	cfg := gatedConfig()
	cfg.PendingConnections, cfg.HandshakeTimeout = 3, time.Hour
	s := serveGated(t, cfg, m.permissive(), whoCalls())
	var conns []net.Conn
	for i := range 4 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		s.pendingIs(t, min(i+1, 3))
	}
	conns[0].SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := conns[0].Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("the first one was not cut")
	}
	if n := s.counts.crowdedOut.Load(); n != 1 {
		t.Errorf("%d were crowded out", n)
	}
	if _, err := talkSay(t.Context(), dialGated(t, s.addr, m.caller(t)), "Say", "x"); status.Code(err) != codes.OK {
		t.Errorf("who comes then: %v", err)
	}
	s.pendingIs(t, 2)
}

// TestWhoMakesRoomWasToldNothing: the server has its SETTINGS ready and keeps
// them to itself while a caller is pending, in plain text and over TLS. So a
// caller that has to make room did not begin a call that it would lose.
func TestWhoMakesRoomWasToldNothing(t *testing.T) {
	m := newGateMesh(t)
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypted=%v", encrypted), func(t *testing.T) {
			cfg := gatedConfig()
			cfg.PendingConnections, cfg.HandshakeTimeout = 1, time.Hour
			s := serveGated(t, cfg, m.permissive(), whoCalls())
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			if encrypted {
				if c, _, err = m.caller(t).ClientHandshake(t.Context(), "", c); err != nil {
					t.Fatal(err)
				}
			}
			defer c.Close()
			io.WriteString(c, preface)
			for end := time.Now().Add(20 * time.Second); s.heldBack() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the server never had anything to say")
				}
			}
			if _, err := talkSay(t.Context(), dialGated(t, s.addr, m.caller(t)), "Say", "x"); err != nil {
				t.Fatal("who comes next:", err)
			}
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			switch told, err := io.ReadAll(c); {
			case len(told) > 0:
				t.Errorf("it was told %q before it had to make room", told)
			case errors.Is(err, os.ErrDeadlineExceeded):
				t.Error("it did not have to make room")
			}
		})
	}
}

// heldBack is how many bytes are kept from those who are pending.
func (s *gated) heldBack() (n int) {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	for e := s.gate.pending.Front(); e != nil; e = e.Next() {
		c := e.Value.(*gateConn)
		c.writing.Lock()
		n += len(c.held)
		c.writing.Unlock()
	}
	return n
}
