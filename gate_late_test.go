package proxyless

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
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
			for end := time.Now().Add(20 * time.Second); s.counts.turnedAway.Load() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if slow, refused := s.counts.timedOut.Load(), s.counts.turnedAway.Load(); slow != 1 || refused != 1 {
				t.Errorf("%d were too slow, %d were turned away", slow, refused)
			}
			if log := s.log.String(); !strings.Contains(log, errSlow.Error()) {
				t.Errorf("the log does not say why:\n%s", log)
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
