package proxyless

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// oddAddr is an address of a type of its own, as listeners have that are
// wrapped.
type oddAddr struct{ network, text string }

func (a oddAddr) Network() string { return a.network }
func (a oddAddr) String() string  { return a.text }

// oddListener says odd addresses of its connections.
type oddListener struct {
	net.Listener
	local, remote net.Addr // nil is the real one
	own           net.Addr // of the listener; likewise
}

func (l *oddListener) Addr() net.Addr {
	if l.own != nil {
		return l.own
	}
	return l.Listener.Addr()
}

func (l *oddListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &oddConn{c, l}, nil
}

type oddConn struct {
	net.Conn
	from *oddListener
}

func (c *oddConn) LocalAddr() net.Addr {
	if c.from.local != nil {
		return c.from.local
	}
	return c.Conn.LocalAddr()
}

func (c *oddConn) RemoteAddr() net.Addr {
	if c.from.remote != nil {
		return c.from.remote
	}
	return c.Conn.RemoteAddr()
}

// TestWrappedListenersAreGoverned serves on listeners whose addresses are of
// other types than the net package's.
func TestWrappedListenersAreGoverned(t *testing.T) {
	m := newGateMesh(t)
	tcp := func(text string) net.Addr { return oddAddr{"tcp", text} }
	near := rules(filterChain{name: "near", match: chainMatch{transport: inClear, sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}},
		filterChain{name: "far", match: chainMatch{transport: inClear}, failure: "far"})
	for name, tt := range map[string]struct {
		local, remote net.Addr
		policy        *portPolicy
		want          codes.Code
	}{
		"STRICT, TCP of another type":        {tcp("127.0.0.1:50052"), tcp("127.0.0.1:4242"), m.strict(), codes.Unavailable},
		"STRICT, TCP without an address":     {tcp("somewhere"), nil, m.strict(), codes.Unavailable},
		"STRICT, not TCP":                    {oddAddr{"pipe", "pipe"}, nil, m.strict(), codes.Unavailable},
		"DISABLE, TCP of another type":       {tcp("127.0.0.1:50052"), tcp("127.0.0.1:4242"), m.disable(), codes.OK},
		"near, TCP of another type":          {nil, tcp("127.0.0.1:4242"), near, codes.OK},
		"far, TCP of another type":           {nil, tcp("10.0.0.1:4242"), near, codes.PermissionDenied},
		"a caller from nowhere":              {nil, tcp("somewhere"), near, codes.Unavailable},
		"a caller from nowhere, not TCP":     {nil, oddAddr{"pipe", "pipe"}, near, codes.Unavailable},
		"no policy, TCP without an address":  {tcp("somewhere"), tcp("somewhere"), noPolicy, codes.OK},
		"no policy yet, not TCP":             {oddAddr{"pipe", "pipe"}, nil, nil, codes.Unavailable},
		"no policy, TLS, without an address": {tcp("somewhere"), nil, noPolicy, codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := gatedConfig()
			if tt.policy == nil {
				cfg.HandshakeTimeout = 20 * time.Millisecond
			}
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			log := slog.New(slog.DiscardHandler)
			g := newGate(cfg, log, new(counters), &secretStore{}, nil, &plainPeers{})
			if tt.policy != nil {
				g.govern(tt.policy)
			}
			s := newServer(cfg, log, newLifecycle(log), serverHooks{gate: g}, nil)
			s.RegisterService(talkDesc, whoCalls())
			ctx, stop := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- s.ServeListener(ctx, &oddListener{lis, tt.local, tt.remote, nil}) }() // ended by the clean-up
			t.Cleanup(func() { stop(); <-done })
			conn := dialGated(t, lis.Addr().String(), insecure.NewCredentials())
			_, err = talkSay(t.Context(), conn, "Say", "x")
			if status.Code(err) != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestAListenerWithoutAnAddressIsNotServed is about one of which nobody could
// ask the mesh for its policy.
func TestAListenerWithoutAnAddressIsNotServed(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := newServer(gatedConfig(), log, newLifecycle(log), serverHooks{}, nil)
	err = s.ServeListener(t.Context(), &oddListener{Listener: lis, own: oddAddr{"tcp", "somewhere"}})
	if err == nil || !strings.Contains(err.Error(), "somewhere") {
		t.Errorf("got %v", err)
	}
}
