package proxyless_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// guarded is a provider with probes, and what is dialled to call it directly.
type guarded struct {
	*securedMesh
	mesh *proxyless.Mesh
	conn *grpc.ClientConn
}

func startGuarded(m *securedMesh, change ...func(*proxyless.Config)) *guarded {
	t := m.t
	t.Helper()
	cfg := testConfig(m.cp, "provider")
	m.as("provider")(&cfg)
	cfg.QoS = proxyless.QoS{Host: "127.0.0.1", Port: -1}
	cfg.ResourceTimeout, cfg.HandshakeTimeout = 200*time.Millisecond, 300*time.Millisecond
	for _, f := range change {
		f(&cfg)
	}
	mesh := join(t, cfg)
	server := mesh.NewServer()
	server.With(proxyless.Version("1.0.0")).RegisterService(&echoDesc, &echo{name: "guarded"})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-served })
	for server.Addr() == nil {
		time.Sleep(time.Millisecond)
	}
	conn, err := grpc.NewClient(server.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &guarded{m, mesh, conn}
}

// readiness waits until the readiness probe answers with the code and a text.
func (g *guarded) readiness(code int, text string) {
	g.t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		r, err := http.Get("http://" + g.mesh.QoSAddr().String() + "/ready")
		if err != nil {
			g.t.Fatal(err)
		}
		body, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if r.StatusCode == code && strings.Contains(string(body), text) {
			return
		}
		if time.Now().After(end) {
			g.t.Fatalf("not %d %q but %d %s", code, text, r.StatusCode, body)
		}
	}
}

// call calls directly, in plain text.
func (g *guarded) call() error {
	ctx, cancel := context.WithTimeout(g.t.Context(), 10*time.Second)
	defer cancel()
	return g.conn.Invoke(ctx, "/"+echoDesc.ServiceName+"/say", wrapperspb.String("x"), new(wrapperspb.StringValue))
}

// TestAProviderIsReadyOnceItCanDoWhatTheMeshAsks has the authority refuse at
// first.
func TestAProviderIsReadyOnceItCanDoWhatTheMeshAsks(t *testing.T) {
	for name, in := range map[string]meshtest.Inbound{"STRICT": {TLS: true}, "PERMISSIVE": {Permissive: true}} {
		t.Run(name, func(t *testing.T) {
			m := newSecuredMesh(t)
			m.authority.Fail(errors.New("not today"))
			m.cp.SetInbound(anyOfLocal, in)
			g := startGuarded(m)
			g.readiness(http.StatusServiceUnavailable, "there is no certificate yet")
			g.readiness(http.StatusServiceUnavailable, "not today")
			if err := g.call(); (err == nil) != in.Permissive {
				t.Errorf("in plain text: %v", err)
			}
			m.authority.Fail(nil)
			g.readiness(http.StatusOK, "")
		})
	}
}

// TestNobodyIsLetInBeforePolicyCame mutes the mesh, for longer than anything
// else is waited for.
func TestNobodyIsLetInBeforePolicyCame(t *testing.T) {
	m := newSecuredMesh(t)
	m.cp.Mute(meshtest.ListenerType)
	m.cp.SetInbound(anyOfLocal, meshtest.Inbound{})
	g := startGuarded(m)
	for range 2 {
		if err := g.call(); status.Code(err) != codes.Unavailable {
			t.Errorf("before there was any policy: %v", err)
		}
	}
	g.readiness(http.StatusServiceUnavailable, "has not answered about its inbound configuration")
	m.cp.Unmute(meshtest.ListenerType)
	g.readiness(http.StatusOK, "")
	for end := time.Now().Add(10 * time.Second); g.call() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody is let in")
		}
	}
	if list := g.mesh.PlainTextPeers(); len(list) != 1 || list[0].Calls != 1 || g.mesh.Stats().ConnectionsPlain != 1 {
		t.Errorf("plain text peers %+v of %+v", list, g.mesh.Stats())
	}
}

// TestHealthWatchersLearnOfTheFirstCertificate: nothing else asks how ready the
// provider is.
func TestHealthWatchersLearnOfTheFirstCertificate(t *testing.T) {
	m := newSecuredMesh(t)
	m.authority.Fail(errors.New("not today"))
	m.cp.SetInbound(anyOfLocal, meshtest.Inbound{Permissive: true})
	g := startGuarded(m)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watch, err := healthpb.NewHealthClient(g.conn).Watch(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING} {
		if got, err := watch.Recv(); err != nil || got.Status != want {
			t.Fatalf("watched %v, %v; want %v", got, err, want)
		}
		m.authority.Fail(nil)
	}
}

// TestWithoutAnInboundListenerNobodyIsLetIn: in the full view every workload has
// one. Without it nobody knows who may come, now or later.
func TestWithoutAnInboundListenerNobodyIsLetIn(t *testing.T) {
	m := newSecuredMesh(t)
	m.cp.HideResource(meshtest.ListenerType, "virtualInbound")
	g := startGuarded(m)
	g.readiness(http.StatusServiceUnavailable, "virtualInbound")
	if err := g.call(); status.Code(err) != codes.Unavailable {
		t.Errorf("in plain text: %v", err)
	}
	m.cp.RemoveResource(meshtest.ListenerType, "virtualInbound")
	g.readiness(http.StatusOK, "")
	for end := time.Now().Add(10 * time.Second); g.call() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody is let in once it came")
		}
	}
	m.cp.HideResource(meshtest.ListenerType, "virtualInbound")
	for range 20 { // what it said last stays
		if err := g.call(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestHealthWatchersLearnThatTheMeshStaysSilent is about a provider in the lean
// view, of which the mesh knows nothing before it is ready.
func TestHealthWatchersLearnThatTheMeshStaysSilent(t *testing.T) {
	m := newSecuredMesh(t)
	m.cp.Mute(meshtest.ListenerType)
	g := startGuarded(m, func(c *proxyless.Config) {
		c.View, c.ResourceTimeout, c.QoS.Disabled = proxyless.ViewLean, 500*time.Millisecond, true
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watch, err := healthpb.NewHealthClient(g.conn).Watch(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	for {
		got, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got.Status == healthpb.HealthCheckResponse_SERVING {
			break
		}
	}
}
