package proxyless

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// TestNobodyIsPendingForEver has connections whose time is over as soon as they
// come, and before the gate gets round to them.
func TestNobodyIsPendingForEver(t *testing.T) {
	cfg := gatedConfig()
	cfg.HandshakeTimeout = time.Nanosecond
	g := newGate(cfg, slog.New(slog.DiscardHandler), new(counters), &secretStore{}, nil, &plainPeers{})
	const n = 50
	for range n {
		client, server := net.Pipe()
		defer client.Close()
		entered := make(chan error)
		g.mu.Lock()
		go func() { entered <- g.enter(newGateConn(g, server)) }() // ends at once
		time.Sleep(time.Millisecond)
		g.mu.Unlock()
		if err := <-entered; err != nil {
			t.Fatal(err)
		}
	}
	for end := time.Now().Add(20 * time.Second); g.counts.timedOut.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("of %d connections whose time is over %d were ended", n, g.counts.timedOut.Load())
		}
	}
}

// TestWhoIsCutAfterItsHandshakeIsCounted: whether a connection is cut within its
// handshake or after it, while its first frame is waited for, it was turned away.
func TestWhoIsCutAfterItsHandshakeIsCounted(t *testing.T) {
	m := newGateMesh(t)
	for name, says := range map[string]string{"before": preface[:5], "after": preface} {
		t.Run(name, func(t *testing.T) {
			cfg := gatedConfig()
			cfg.HandshakeTimeout = 50 * time.Millisecond
			s := serveGated(t, cfg, m.permissive(), whoCalls())
			c := rawClient(t, s.addr)
			io.WriteString(c.conn, says)
			c.drain()
			s.pendingIs(t, 0)
			told := func() bool { return strings.Contains(s.log.String(), errSlow.Error()) } // after it was counted
			for end := time.Now().Add(20 * time.Second); (s.counts.turnedAway.Load() == 0 || !told()) && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if slow, refused := s.counts.timedOut.Load(), s.counts.turnedAway.Load(); slow != 1 || refused != 1 {
				t.Errorf("%d were too slow, %d were turned away", slow, refused)
			}
			if !told() {
				t.Errorf("the log does not say why:\n%s", s.log)
			}
		})
	}
}

// TestStrangersDoNotFillTheLog: what strangers break off has one text, whatever
// their addresses, and who said nothing is not worth a word.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	records, log := newTestLog()
	g := newGate(gatedConfig(), log, new(counters), &secretStore{}, nil, &plainPeers{})
	come := func(port uint16, spoke bool) {
		from := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: int(port)}
		client, server := net.Pipe()
		client.Close()
		c := newGateConn(g, &oddConn{server, &oddListener{remote: from}})
		c.spoke = spoke
		g.turnedAway(c, &net.OpError{Op: "read", Net: "tcp", Source: from, Addr: from, Err: syscall.ECONNRESET})
	}
	come(1, false)
	if n := g.counts.turnedAway.Load(); n != 0 || records.String() != "" {
		t.Errorf("%d were turned away who had said nothing:\n%s", n, records)
	}
	for i := range uint16(20) {
		come(2+i, true)
	}
	if n := strings.Count(records.String(), "turned away"); n != 1 {
		t.Errorf("%d lines:\n%s", n, records)
	}
	g.turnedAway(newGateConn(g, &oddConn{nil, &oddListener{local: oddAddr{"tcp", "127.0.0.1:1"}, remote: oddAddr{"tcp", "127.0.0.1:2"}}}), errBabble)
	if !strings.Contains(records.String(), errBabble.Error()) {
		t.Errorf("what matters is not logged:\n%s", records)
	}
}

// TestZonesDoNotHideAddresses: a link-local address comes with the name of its
// interface, of which prefixes know nothing.
func TestZonesDoNotHideAddresses(t *testing.T) {
	for _, addr := range []net.Addr{
		&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 80, Zone: "eth0"},
		oddAddr{"tcp", "[fe80::1%eth0]:80"},
	} {
		if got := addrPortOf(addr); got != netip.MustParseAddrPort("[fe80::1]:80") {
			t.Errorf("%v is %v", addr, got)
		}
	}
	for _, addr := range []net.Addr{&net.TCPAddr{IP: net.ParseIP("10.0.0.1"), Port: 80}, oddAddr{"tcp", "[::ffff:10.0.0.1]:80"}} {
		if got := addrPortOf(addr); got != netip.MustParseAddrPort("10.0.0.1:80") {
			t.Errorf("%v is %v", addr, got)
		}
	}
}

// deafConn is a client's connection that never lets it hear of a GOAWAY or a
// PING. It calls on as if nothing had been said.
type deafConn struct {
	net.Conn
	heard []byte // of one frame that may be heard
}

func (c *deafConn) Read(b []byte) (int, error) {
	for len(c.heard) == 0 {
		f, err := readRawFrame(c.Conn)
		if err != nil {
			return 0, err
		}
		if f.kind != frameGoAway && f.kind != framePing {
			c.heard = f.append(nil)
		}
	}
	n := copy(b, c.heard)
	c.heard = c.heard[n:]
	return n, nil
}

// TestWhoDoesNotHearIsNotServedForLong has a caller that never hears that it is to
// leave: what it began is served, what it begins later is not.
func TestWhoDoesNotHearIsNotServedForLong(t *testing.T) {
	m := newGateMesh(t)
	inside, goOn := make(chan struct{}), make(chan struct{})
	s := serveGated(t, gatedConfig(), m.permissive(), &talker{say: func(_ context.Context, word string) (string, error) {
		if word == "wait" {
			inside <- struct{}{}
			<-goOn
		}
		return "answered", nil
	}})
	deaf := grpc.WithContextDialer(func(_ context.Context, addr string) (net.Conn, error) {
		c, err := net.Dial("tcp", addr)
		return &deafConn{Conn: c}, err
	})
	conn := dialGated(t, s.addr, insecure.NewCredentials(), deaf)
	begun := make(chan error, 1)
	go func() { // ends with the call
		_, err := talkSay(context.Background(), conn, "Say", "wait")
		begun <- err
	}()
	<-inside
	s.gate.hearing = time.Hour
	s.gate.govern(m.strict())
	s.gate.join() // it was asked to leave
	if _, err := talkSay(t.Context(), conn, "Say", "x"); err != nil {
		t.Errorf("before it could have heard: %v", err)
	}
	s.gate.govern(m.permissive())
	s.gate.hearing = 0
	s.gate.govern(m.strict())
	for range 2 {
		if _, err := talkSay(t.Context(), conn, "Say", "x"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), leaveReason) {
			t.Errorf("when it must have heard: %v", err)
		}
		if _, err := talkStream(t.Context(), conn, "Chat", "x"); status.Code(err) != codes.Unavailable {
			t.Errorf("a stream, when it must have heard: %v", err)
		}
	}
	s.gate.govern(m.permissive())
	if _, err := talkSay(t.Context(), conn, "Say", "x"); err != nil {
		t.Errorf("when it is admitted again: %v", err)
	}
	s.gate.govern(m.strict())
	close(goOn)
	if err := <-begun; err != nil {
		t.Errorf("what it had begun: %v", err)
	}
	if plain, encrypted := s.counts.plain.Load(), s.counts.encrypted.Load(); plain != 1 || encrypted != 0 {
		t.Errorf("%d and %d connections", plain, encrypted)
	}
}
