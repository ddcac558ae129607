package proxyless_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// TestTheUsersCredentialsDoNotReplaceTheMeshes: where the mesh demands TLS, dial
// options for plain text send nothing in the open.
func TestTheUsersCredentialsDoNotReplaceTheMeshes(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	open := func(c *proxyless.Config) {
		c.DialOptions = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	plain := serveTLS(t, ca, "plain", nil)
	demanding := clusterIP(echoService(plain.endpoint), aliceID)
	demanding.Traffic = &meshtest.TrafficPolicy{TLS: &meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}}
	x := beginSecuredBy(t, ca, demanding, open)
	if who, err := say(t.Context(), x.inv); err == nil {
		t.Errorf("%s was called in plain text", who)
	}
	secure := serveTLS(t, ca, "secure", issue(t, ca, aliceID))
	y := beginSecuredBy(t, ca, clusterIP(echoService(secure.endpoint), aliceID), open)
	if _, err := say(t.Context(), y.inv); err != nil {
		t.Error(err)
	}
}

// slowToTurn is the credentials of a provider that speaks plain text and, once
// it has heard of it, TLS on the same port.
type slowToTurn struct {
	credentials.TransportCredentials // of TLS
	heard                            atomic.Bool
	refused                          atomic.Int64
	plain, encrypted                 atomic.Int64 // connections
}

type readAgain struct {
	net.Conn
	all io.Reader
}

func (c readAgain) Read(b []byte) (int, error) { return c.all.Read(b) }

func (s *slowToTurn) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var first [1]byte
	if _, err := io.ReadFull(raw, first[:]); err != nil {
		return nil, nil, err
	}
	conn := readAgain{raw, io.MultiReader(strings.NewReader(string(first[:])), raw)}
	switch {
	case first[0] != 0x16:
		s.plain.Add(1)
		return insecure.NewCredentials().ServerHandshake(conn)
	case !s.heard.Load():
		s.refused.Add(1)
		return nil, nil, errors.New("not yet")
	}
	s.encrypted.Add(1)
	return s.TransportCredentials.ServerHandshake(conn)
}

// beginToTurn serves echo so, and calls it all the time until stop.
func beginToTurn(t *testing.T) (x *secured, provider *slowToTurn, service meshtest.Service, failures func() []error) {
	ca := meshtest.NewAuthority(t)
	provider = &slowToTurn{TransportCredentials: credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*issue(t, ca, aliceID)}, NextProtos: []string{"h2"}})}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(provider))
	server.RegisterService(&echoDesc, &echo{name: "it"})
	go server.Serve(lis)
	t.Cleanup(server.Stop)
	service = clusterIP(echoService(meshtest.Endpoint{Address: "127.0.0.1", Port: uint32(lis.Addr().(*net.TCPAddr).Port)}), aliceID)
	x = beginSecuredBy(t, ca, service)
	ready(t, x.mesh)
	if _, err := say(t.Context(), x.inv); err != nil {
		t.Fatal(err)
	}
	if err := x.mesh.WaitIdentity(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var calls sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for range 4 {
		calls.Go(func() {
			for ctx.Err() == nil {
				if _, err := say(t.Context(), x.inv); err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	var once sync.Once
	end := func() { once.Do(func() { stop(); calls.Wait() }) }
	t.Cleanup(end)
	return x, provider, service, func() []error { end(); return failed }
}

func waitUntil(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// TestAProviderThatHearsOfTLSAfterItsConsumersLosesNoCall: calls wait for the few
// handshakes that come to nothing, and none is made in plain text any more.
func TestAProviderThatHearsOfTLSAfterItsConsumersLosesNoCall(t *testing.T) {
	x, provider, service, failures := beginToTurn(t)
	service.Endpoints[0].TLSMode = "istio"
	x.cp.SetService(service)
	waitUntil(t, "the consumer tries no second handshake", func() bool { return provider.refused.Load() >= 3 })
	provider.heard.Store(true)
	waitUntil(t, "there is no encrypted connection", func() bool { return provider.encrypted.Load() == 1 })
	if _, err := say(t.Context(), x.inv); err != nil {
		t.Error(err)
	}
	if failed := failures(); len(failed) > 0 {
		t.Errorf("%d calls failed, the first with %v", len(failed), failed[0])
	}
	if n := provider.plain.Load(); n != 1 {
		t.Errorf("%d plain-text connections", n)
	}
}

// TestAProviderThatNeverHearsOfTLSIsNotWaitedForLong: calls fail after some
// seconds, with what the handshakes fail with, and are not made in plain text.
func TestAProviderThatNeverHearsOfTLSIsNotWaitedForLong(t *testing.T) {
	x, provider, service, failures := beginToTurn(t)
	service.Endpoints[0].TLSMode = "istio"
	x.cp.SetService(service)
	waitUntil(t, "the consumer does not try", func() bool { return provider.refused.Load() >= 1 })
	start := time.Now()
	_, err := say(t.Context(), x.inv)
	if own := problem(t, err); own.Stage != proxyless.StageEndpoint {
		t.Errorf("failed with %v", err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("a call waited %v", took)
	}
	if n := provider.refused.Load(); n > 15 {
		t.Errorf("%d handshakes in the meantime", n)
	}
	failures()
	if n := provider.plain.Load(); n != 1 {
		t.Errorf("%d plain-text connections", n)
	}
}
