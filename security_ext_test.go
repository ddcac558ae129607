package proxyless_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// securedMesh is a control plane that speaks TLS and signs certificates, whose
// members prove by a token who they are.
type securedMesh struct {
	t         *testing.T
	authority *meshtest.Authority
	cp        *meshtest.ControlPlane
	accounts  map[string]string // directories of their files, and who they are
}

const (
	idPrefix   = "spiffe://cluster.local/ns/" + testNamespace + "/sa/"
	anyOfLocal = "127.0.0.1:0" // the policy of every port of the providers
)

func newSecuredMesh(t *testing.T) *securedMesh {
	t.Helper()
	authority := meshtest.NewAuthority(t)
	return &securedMesh{t, authority, meshtest.New(t, meshtest.WithAuthority(authority)), map[string]string{}}
}

// as makes a Config that of a service account.
func (m *securedMesh) as(account string) func(*proxyless.Config) {
	m.t.Helper()
	dir := m.t.TempDir()
	m.accounts[dir] = account
	root, token, err := m.authority.WriteFiles(dir, testNamespace, account)
	if err != nil {
		m.t.Fatal(err)
	}
	return func(c *proxyless.Config) {
		c.PlainText, c.RootCertFile, c.TokenFile = false, root, token
		c.Node.ServiceAccount = account
	}
}

// rotateRoot has the authority sign by a new root. The pods' files follow, as
// istiod's ConfigMap does.
func (m *securedMesh) rotateRoot() {
	m.t.Helper()
	if err := m.authority.RotateRoot(true); err != nil {
		m.t.Fatal(err)
	}
	for dir, account := range m.accounts {
		if _, _, err := m.authority.WriteFiles(dir, testNamespace, account); err != nil {
			m.t.Fatal(err)
		}
	}
}

// consumer is one process that calls as a service account.
func (m *securedMesh) consumer(account string, change ...func(*proxyless.Config)) (*proxyless.Mesh, *proxyless.Invoker) {
	m.t.Helper()
	cfg := testConfig(m.cp, account)
	for _, f := range append([]func(*proxyless.Config){m.as(account)}, change...) {
		f(&cfg)
	}
	mesh := join(m.t, cfg)
	inv := refer(m.t, mesh)
	ready(m.t, mesh)
	return mesh, inv
}

// provide starts a provider and makes it the service echo.
func (m *securedMesh) provide(e *echo, change ...func(*proxyless.Config)) *provider {
	m.t.Helper()
	p := startProvider(m.t, m.cp, e, append([]func(*proxyless.Config){m.as("provider")}, change...)...)
	m.serve(p, "istio")
	return p
}

// serve has the mesh tell of a provider, as one that speaks TLS or not.
func (m *securedMesh) serve(p *provider, tlsMode string) {
	s := echoService(p.endpoint())
	s.Address, s.SANs = "10.96.0.1", []string{idPrefix + "provider"}
	s.Endpoints[0].TLSMode = tlsMode
	m.cp.SetService(s)
}

// inbound sets the policy of the providers, and returns when all were told.
func (m *securedMesh) inbound(in meshtest.Inbound) {
	m.t.Helper()
	m.cp.SetInbound(anyOfLocal, in)
	m.settled()
}

func (m *securedMesh) settled() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	if err := m.cp.WaitSettled(ctx); err != nil {
		m.t.Fatal(err)
	}
}

// withoutIdentity is a consumer of yesterday, which speaks plain text.
func withoutIdentity(c *proxyless.Config) { c.Identity.Disabled = true }

// callers remembers who called.
type callers struct {
	mu   sync.Mutex
	last proxyless.Peer
	info credentials.AuthInfo
}

func (c *callers) see(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, _ = proxyless.PeerFrom(ctx)
	if p, ok := peer.FromContext(ctx); ok {
		c.info = p.AuthInfo
	}
}

func (c *callers) who() (proxyless.Peer, credentials.AuthInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.info
}

func TestAutoMTLSTellsTheHandlerWhoCalls(t *testing.T) {
	m, seen := newSecuredMesh(t), &callers{}
	m.cp.SetInbound(anyOfLocal, meshtest.Inbound{TLS: true})
	m.provide(&echo{name: "one", seen: seen.see})
	mesh, inv := m.consumer("caller")
	if who, err := say(t.Context(), inv); err != nil || who != "one" {
		t.Fatalf("got %q, %v", who, err)
	}
	p, info := seen.who()
	if p.ID != idPrefix+"caller" || p.TrustDomain != "cluster.local" || p.Namespace != testNamespace || p.ServiceAccount != "caller" || !p.Encrypted {
		t.Errorf("the handler sees %+v", p)
	}
	if tls, ok := info.(credentials.TLSInfo); !ok || len(tls.State.PeerCertificates) == 0 {
		t.Errorf("AuthInfo is %T", info)
	}
	if own := mesh.Identity(); own.ID != idPrefix+"caller" || time.Until(own.Expires) < 23*time.Hour {
		t.Errorf("the consumer's identity is %+v", own)
	}
}

func TestTheLeanViewSpeaksMutualTLSWhereARuleSaysSo(t *testing.T) {
	useLeanView(t)
	m, seen := newSecuredMesh(t), &callers{}
	one := startProvider(t, m.cp, &echo{name: "one", seen: seen.see}, m.as("provider"))
	m.cp.SetInbound(one.addr.String(), meshtest.Inbound{TLS: true})
	s := echoService(one.endpoint())
	s.SANs = []string{idPrefix + "provider"}
	s.Traffic = &meshtest.TrafficPolicy{TLS: &meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}}
	m.cp.SetService(s)
	_, inv := m.consumer("caller")
	if who, err := say(t.Context(), inv, grpc.WaitForReady(true)); err != nil || who != "one" {
		t.Fatalf("got %q, %v", who, err)
	}
	if p, _ := seen.who(); p.ID != idPrefix+"caller" {
		t.Errorf("the handler sees %+v", p)
	}
}

func TestAuthorizationByPathAndPrincipal(t *testing.T) {
	m := newSecuredMesh(t)
	var mu sync.Mutex
	var records []proxyless.AuditRecord
	audit := func(c *proxyless.Config) {
		c.Audit = func(r proxyless.AuditRecord) {
			mu.Lock()
			defer mu.Unlock()
			records = append(records, r)
		}
	}
	m.cp.SetInbound(anyOfLocal, meshtest.Inbound{TLS: true, Policies: []meshtest.AuthorizationPolicy{
		{Namespace: testNamespace, Name: "callers", Rules: []meshtest.AccessRule{{
			From: []meshtest.AccessSource{{Principals: []string{"cluster.local/ns/demo/sa/caller"}}}}}},
		{Namespace: testNamespace, Name: "no-chat", Action: meshtest.AccessDeny, Rules: []meshtest.AccessRule{{
			To: []meshtest.AccessOperation{{Paths: []string{echoStream}}}}}},
	}})
	m.provide(&echo{name: "one"}, audit)
	_, inv := m.consumer("caller")
	if _, err := say(t.Context(), inv); err != nil {
		t.Errorf("who may call: %v", err)
	}
	_, stranger := m.consumer("stranger")
	for name, err := range map[string]error{"who may not": second(say(t.Context(), stranger)), "what nobody may": chat(t.Context(), inv)} {
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		} else if text := err.Error(); strings.Contains(text, "callers") || strings.Contains(text, "no-chat") || strings.Contains(text, "spiffe") {
			t.Errorf("%s: the caller is told too much: %v", name, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(records) != 2 {
		t.Fatalf("audit records: %+v", records)
	}
}

func second(_ string, err error) error { return err }

// chat is a streaming call.
func chat(ctx context.Context, inv *proxyless.Invoker) error {
	stream, err := inv.NewStream(ctx, &echoDesc.Streams[0], echoStream)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(wrapperspb.String("hi")); err != nil && !errors.Is(err, context.Canceled) {
		return stream.RecvMsg(new(wrapperspb.StringValue))
	}
	return stream.RecvMsg(new(wrapperspb.StringValue))
}

func TestNoCallIsLostWhileCertificatesAreRenewedAndRootsRotate(t *testing.T) {
	t.Parallel() // takes as long as the floor between two renewals
	m := newSecuredMesh(t)
	m.authority.SetLifetime(9 * time.Second)
	m.cp.SetInbound(anyOfLocal, meshtest.Inbound{TLS: true})
	one := m.provide(&echo{name: "one"})
	mesh, inv := m.consumer("caller")
	stop := under(inv, 2)
	m.rotateRoot()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for round := range 3 {
		if round > 0 {
			if err := m.authority.WaitRequests(ctx, 2*(round+1)); err != nil {
				t.Fatal(err)
			}
		}
		s := echoService(one.endpoint()) // who asks for other names makes a new connection
		s.Address, s.SANs = "10.96.0.1", []string{idPrefix + "provider", idPrefix + string(rune('a'+round))}
		s.Endpoints[0].TLSMode = "istio"
		m.cp.SetService(s)
		m.settled()
	}
	if calls, failures := stop(); len(failures) > 0 || calls == 0 {
		t.Errorf("%d calls, failures %v", calls, failures)
	}
	if own := mesh.Identity(); own.Certificates < 2 || own.Trouble != nil {
		t.Errorf("%+v", own)
	}
	if asked := len(m.authority.Requests()); asked > 8 {
		t.Errorf("%d certificates were asked for", asked)
	}
}

func TestNoCallIsLostWhileTheModeChanges(t *testing.T) {
	m := newSecuredMesh(t)
	m.cp.SetInbound(anyOfLocal, meshtest.Inbound{Permissive: true})
	one := m.provide(&echo{name: "one"})
	_, inv := m.consumer("caller")
	_, old := m.consumer("old", withoutIdentity)
	if _, err := say(t.Context(), old); err != nil {
		t.Fatalf("plain text under PERMISSIVE: %v", err)
	}
	stop := under(inv, 4)
	for range 5 {
		m.inbound(meshtest.Inbound{TLS: true})
		m.inbound(meshtest.Inbound{Permissive: true})
		m.serve(one, "") // plain text, before TLS is switched off
		m.settled()
		m.inbound(meshtest.Inbound{})
		m.inbound(meshtest.Inbound{Permissive: true})
		m.serve(one, "istio")
		m.settled()
	}
	m.inbound(meshtest.Inbound{TLS: true})
	if calls, failures := stop(); len(failures) > 0 || calls == 0 {
		t.Errorf("%d calls, failures %v", calls, failures)
	}
	if _, err := say(t.Context(), old); status.Code(err) != codes.Unavailable {
		t.Errorf("plain text under STRICT: %v", err)
	}
	m.inbound(meshtest.Inbound{Permissive: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := say(ctx, old, grpc.WaitForReady(true)); err != nil {
		t.Errorf("after STRICT was lifted: %v", err)
	}
}
