package proxyless

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

// The application protocols by which workloads of the mesh know each other.
var istioProtocols = []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}

const (
	testServerID = "spiffe://cluster.local/ns/demo/sa/server"
	testCallerID = "spiffe://cluster.local/ns/demo/sa/caller"
)

// gateMesh is a mesh's certificates.
type gateMesh struct {
	authority *meshtest.Authority
	server    *tlsContext // what chains with TLS ask for
}

func newGateMesh(t testing.TB) *gateMesh {
	t.Helper()
	m := &gateMesh{authority: meshtest.NewAuthority(t)}
	m.server = m.context(t, "mesh")
	return m
}

// context is a DownstreamTlsContext as istiod has it.
func (m *gateMesh) context(t testing.TB, text string) *tlsContext {
	t.Helper()
	pair := m.issue(t, testServerID)
	key, err := meshtest.KeyPEM(pair)
	if err != nil {
		t.Fatal(err)
	}
	return &tlsContext{
		text: text, demands: true, alpn: []string{"h2", "http/1.1"},
		identity: secretRef{kind: secretInline, inlineKey: append(meshtest.ChainPEM(pair), key...)},
		roots:    secretRef{kind: secretInline, inline: &trustRoots{pool: m.authority.Roots()}},
	}
}

func (m *gateMesh) issue(t testing.TB, id string) tls.Certificate {
	t.Helper()
	pair, err := m.authority.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// caller are the credentials of a workload of the mesh.
func (m *gateMesh) caller(t testing.TB, change ...func(*tls.Config)) credentials.TransportCredentials {
	t.Helper()
	config := &tls.Config{
		Certificates: []tls.Certificate{m.issue(t, testCallerID)}, InsecureSkipVerify: true, // the server's side is what is tested
		NextProtos: []string{"istio", "h2"},
		VerifyConnection: func(state tls.ConnectionState) error {
			if id := state.PeerCertificates[0].URIs; len(id) != 1 || id[0].String() != testServerID {
				return fmt.Errorf("the server shows %v", id)
			}
			return nil
		},
	}
	for _, f := range change {
		f(config)
	}
	return &alpnAny{TransportCredentials: credentials.NewTLS(config), config: config}
}

// alpnAny speaks TLS whatever protocol is agreed on, as Envoy does and grpc's
// own credentials do not.
type alpnAny struct {
	credentials.TransportCredentials
	config *tls.Config
}

func (a *alpnAny) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Client(raw, a.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, nil, err
	}
	return conn, credentials.TLSInfo{State: conn.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
}

func (a *alpnAny) Clone() credentials.TransportCredentials { return a }

// The policies of a port as istiod makes them.
func (m *gateMesh) strict(filters ...inboundFilter) *portPolicy {
	return rules(filterChain{name: "tls", match: chainMatch{transport: overTLS}, tls: m.server, filters: filters})
}

func (m *gateMesh) permissive(filters ...inboundFilter) *portPolicy {
	return rules(
		filterChain{name: "tls", match: chainMatch{transport: overTLS, protocols: istioProtocols}, tls: m.server, filters: filters},
		filterChain{name: "plain", match: chainMatch{transport: inClear}, filters: filters})
}

func (m *gateMesh) disable(filters ...inboundFilter) *portPolicy {
	return rules(filterChain{name: "plain", match: chainMatch{transport: inClear}, filters: filters})
}

func rules(chains ...filterChain) *portPolicy {
	return &portPolicy{rules: &listener{name: "inbound", inbound: chains}}
}

// gated is a Server behind a gate, on this host.
type gated struct {
	*Server
	gate   *gate
	counts *counters
	log    *testLog
	audits chan AuditRecord // the first few
	addr   string
	stop   context.CancelFunc
	done   chan error
}

// gatedConfig is what serveGated starts from.
func gatedConfig() *Config {
	return &Config{
		Host: "127.0.0.1", Port: -1, ShutdownTimeout: 5 * time.Second, ShutdownDelay: -1,
		HandshakeTimeout: 5 * time.Second, PendingConnections: 100,
	}
}

func serveGated(t testing.TB, cfg *Config, p *portPolicy, impl *talker, opts ...grpc.ServerOption) *gated {
	t.Helper()
	records, log := newTestLog()
	r := &gated{counts: new(counters), log: records, audits: make(chan AuditRecord, 100), done: make(chan error, 1)}
	audit := newAuditor(log, func(a AuditRecord) {
		select {
		case r.audits <- a:
		default:
		}
	}, r.counts)
	t.Cleanup(audit.close)
	r.gate = newGate(cfg, log, r.counts, &secretStore{}, audit, &plainPeers{})
	if p != nil {
		r.gate.govern(p)
	}
	r.Server = newServer(cfg, log, newLifecycle(log), serverHooks{gate: r.gate, refuse: new(atomic.Pointer[Error])}, opts)
	r.RegisterService(talkDesc, impl)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = lis.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.done <- r.ServeListener(ctx, lis) }() // ended by the clean-up
	t.Cleanup(func() {
		stop()
		if err := <-r.done; err != nil {
			t.Errorf("Serve = %v", err)
		}
		r.gate.mu.Lock()
		defer r.gate.mu.Unlock()
		if len(r.gate.open) > 0 || r.gate.pending.Len() > 0 {
			t.Errorf("after the server stopped %d connections are open, %d pending", len(r.gate.open), r.gate.pending.Len())
		}
	})
	return r
}

// reconnectSoon reconnects as grpc does, only sooner.
var reconnectSoon = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff: grpcbackoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 20 * time.Millisecond}, MinConnectTimeout: 5 * time.Second,
})

func dialGated(t testing.TB, addr string, creds credentials.TransportCredentials, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, append(opts, grpc.WithTransportCredentials(creds), reconnectSoon)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// whoCalls answers with what the handler sees of its caller.
func whoCalls() *talker {
	return &talker{say: func(ctx context.Context, _ string) (string, error) {
		p, ok := PeerFrom(ctx)
		if !ok {
			return "", errors.New("no peer")
		}
		return fmt.Sprintf("%t %t %s %s/%s/%s", p.Encrypted, p.Verified, p.ID, p.TrustDomain, p.Namespace, p.ServiceAccount), nil
	}}
}

const (
	plainCaller  = "false false  //"
	provenCaller = "true true " + testCallerID + " cluster.local/demo/caller"
)

// TestGateLetsInWhomTheMeshAdmits connects with everything that may come, under
// each kind of policy.
func TestGateLetsInWhomTheMeshAdmits(t *testing.T) {
	m := newGateMesh(t)
	stranger := meshtest.NewAuthority(t)
	foreign, _ := stranger.Issue(testCallerID)
	stale, _ := m.authority.Issue(testCallerID, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	optional := *m.server
	optional.demands = false
	named := *m.server
	named.needSNI = true
	broken := *m.server
	broken.failure = "crl is not read"
	callers := map[string]credentials.TransportCredentials{
		"plain":         insecure.NewCredentials(),
		"mesh":          m.caller(t),
		"mesh, h2 only": m.caller(t, func(c *tls.Config) { c.NextProtos = []string{"h2"} }),
		"mesh, no h2":   m.caller(t, func(c *tls.Config) { c.NextProtos = []string{"istio-peer-exchange", "istio"} }),
		"mesh, no ALPN": m.caller(t, func(c *tls.Config) { c.NextProtos = nil }),
		"TLS 1.2":       m.caller(t, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }),
		"with SNI":      m.caller(t, func(c *tls.Config) { c.ServerName = "outbound_.50052_._.echo.demo.svc.cluster.local" }),
		"no one":        m.caller(t, func(c *tls.Config) { c.Certificates = nil }),
		"stranger":      m.caller(t, func(c *tls.Config) { c.Certificates = []tls.Certificate{foreign} }),
		"stale":         m.caller(t, func(c *tls.Config) { c.Certificates = []tls.Certificate{stale} }),
	}
	one := func(t *tlsContext) *portPolicy {
		return rules(filterChain{name: "one", match: chainMatch{transport: overTLS}, tls: t})
	}
	const tlsOfMesh = "mesh; mesh, h2 only; mesh, no h2; mesh, no ALPN; TLS 1.2; with SNI"
	for name, tt := range map[string]struct {
		policy *portPolicy
		admits string
		why    string // in the log, for the others
	}{
		"no policy":       {noPolicy, "plain", "it speaks TLS where the mesh asks for plain text"},
		"DISABLE":         {m.disable(), "plain", "no filter chain of the mesh takes it"},
		"PERMISSIVE":      {m.permissive(), "plain; mesh; mesh, no h2; TLS 1.2; with SNI", "no filter chain"},
		"STRICT":          {m.strict(), tlsOfMesh, ""},
		"optional":        {one(&optional), tlsOfMesh + "; no one", ""},
		"SNI":             {one(&named), "with SNI", "SNI"},
		"broken":          {one(&broken), "", "crl is not read"},
		"no chain at all": {rules(), "", "no filter chain"},
		"passthrough":     {rules(filterChain{match: chainMatch{transport: overTLS}}, filterChain{match: chainMatch{transport: inClear}}), "plain", "it speaks TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveGated(t, gatedConfig(), tt.policy, whoCalls())
			for caller, creds := range callers {
				got, err := talkSay(t.Context(), dialGated(t, s.addr, creds), "Say", "x")
				want := provenCaller
				switch caller {
				case "plain":
					want = plainCaller
				case "no one":
					want = "true false  //"
				}
				admitted := strings.Contains("; "+tt.admits+"; ", "; "+caller+"; ")
				if admitted && (err != nil || got != want) {
					t.Errorf("%s: answer %q, %v; want %q", caller, got, err, want)
				}
				if !admitted && status.Code(err) != codes.Unavailable {
					t.Errorf("%s: answer %q, %v; want none", caller, got, err)
				}
			}
			if log := s.log.String(); !strings.Contains(log, tt.why) || strings.Contains(log, "PRIVATE") {
				t.Errorf("the log lacks %q:\n%s", tt.why, log)
			}
		})
	}
}

// TestAuthInfoOfTheMeshsTLS holds what grpc's own TLS credentials tell handlers.
func TestAuthInfoOfTheMeshsTLS(t *testing.T) {
	m := newGateMesh(t)
	var seen peer.Peer
	s := serveGated(t, gatedConfig(), m.permissive(), &talker{say: func(ctx context.Context, _ string) (string, error) {
		p, _ := peer.FromContext(ctx)
		seen = *p
		return "", nil
	}})
	if _, err := talkSay(t.Context(), dialGated(t, s.addr, m.caller(t)), "Say", ""); err != nil {
		t.Fatal(err)
	}
	info, ok := seen.AuthInfo.(credentials.TLSInfo)
	if !ok || info.SPIFFEID.String() != testCallerID || info.State.NegotiatedProtocol != "h2" || info.SecurityLevel != credentials.PrivacyAndIntegrity || info.State.DidResume {
		t.Errorf("auth info %+v", seen.AuthInfo)
	}
	if _, ok := seen.Addr.(*net.TCPAddr); !ok || seen.LocalAddr.String() != s.addr || seen.LocalAddr.Network() != "tcp" {
		t.Errorf("from %T %v to %v", seen.Addr, seen.Addr, seen.LocalAddr)
	}
	if _, err := talkSay(t.Context(), dialGated(t, s.addr, insecure.NewCredentials()), "Say", ""); err != nil || seen.AuthInfo != nil {
		t.Errorf("plain text: %v, auth info %v", err, seen.AuthInfo)
	}
}

// TestEveryCallIsJudged holds that nothing is exempt: not streams, not what is
// unknown, not health. Whom the mesh denies learns nothing of what there is.
func TestEveryCallIsJudged(t *testing.T) {
	m := newGateMesh(t)
	s := serveGated(t, gatedConfig(), m.disable(), whoCalls())
	conn := dialGated(t, s.addr, insecure.NewCredentials())
	call := func(method string) error {
		return conn.Invoke(t.Context(), method, wrapperspb.String(""), new(wrapperspb.StringValue))
	}
	all := map[string]func() error{
		"unary":           func() error { _, err := talkSay(t.Context(), conn, "Say", "x"); return err },
		"stream":          func() error { _, err := talkStream(t.Context(), conn, "Chat", "x"); return err },
		"health":          func() error { return call("/grpc.health.v1.Health/Check") },
		"unknown method":  func() error { return call("/" + talkInterface + "/None") },
		"unknown service": func() error { return call("/org.x.None/None") },
		"load":            func() error { return call("/" + orcaService + "/StreamCoreMetrics") },
	}
	for name, f := range all {
		err := f()
		switch want := name; want {
		case "unknown method":
			if status.Convert(err).Message() != "unknown method None for service org.x.Talk" {
				t.Errorf("%s: %v", name, err)
			}
		case "unknown service":
			if status.Convert(err).Message() != "unknown service org.x.None" {
				t.Errorf("%s: %v", name, err)
			}
		case "load":
		default:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	denied := rules(filterChain{name: "denied", failure: "a filter that is not evaluated"})
	s.gate.govern(denied)
	for name, f := range all {
		if err := f(); status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), "not evaluated") || !strings.Contains(err.Error(), "access denied") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.gate.govern(m.disable())
	if err := all["unary"](); err != nil {
		t.Errorf("on the same connection, once it is lifted: %v", err)
	}
	if n := s.counts.plain.Load(); n != 1 {
		t.Errorf("%d connections for all of it", n)
	}
}

// TestHandlersSeeClaims hands a handler what filters found.
func TestHandlersSeeClaims(t *testing.T) {
	claims := &tokenClaimSet{entries: []tokenEntry{{key: claimsPayload, value: map[string]any{"sub": "me", "deep": map[string]any{"er": true}}}}}
	ctx := peer.NewContext(context.WithValue(t.Context(), claimsKey{}, claims), &peer.Peer{})
	p, ok := PeerFrom(ctx)
	sub, _ := p.Claim("sub")
	deep, _ := p.Claim("deep", "er")
	if _, none := p.Claim("aud"); !ok || sub != "me" || deep != true || none {
		t.Errorf("claims %v %v %v", sub, deep, none)
	}
	if _, ok := PeerFrom(t.Context()); ok {
		t.Error("a peer out of nowhere")
	}
}

// TestOwnCredentialsAreJudged takes the gate's place with grpc.Creds, and
// demands of them what the mesh demands.
func TestOwnCredentialsAreJudged(t *testing.T) {
	m := newGateMesh(t)
	own := func(auth tls.ClientAuthType) grpc.ServerOption {
		return grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{m.issue(t, testServerID)}, ClientAuth: auth, ClientCAs: m.authority.Roots(), NextProtos: []string{"h2"},
		}))
	}
	stranger, _ := meshtest.NewAuthority(t).Issue(testCallerID)
	mesh, h2 := m.caller(t), func(c *tls.Config) { c.NextProtos = []string{"h2"} }
	foreign := m.caller(t, h2, func(c *tls.Config) {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil } // asked for or not
	})
	nobody := m.caller(t, h2, func(c *tls.Config) { c.Certificates = nil })
	for name, tt := range map[string]struct {
		creds  grpc.ServerOption
		caller credentials.TransportCredentials
		policy *portPolicy
		want   codes.Code
	}{
		"STRICT, proven":            {own(tls.RequireAndVerifyClientCert), mesh, m.strict(), codes.OK},
		"STRICT, not asked who":     {own(tls.NoClientCert), mesh, m.strict(), codes.PermissionDenied},
		"STRICT, nobody":            {own(tls.RequestClientCert), nobody, m.strict(), codes.PermissionDenied},
		"STRICT, stranger":          {own(tls.RequireAnyClientCert), foreign, m.strict(), codes.PermissionDenied},
		"STRICT, proven to us only": {own(tls.RequireAnyClientCert), mesh, m.strict(), codes.OK},
		"STRICT, plain":             {grpc.Creds(insecure.NewCredentials()), insecure.NewCredentials(), m.strict(), codes.PermissionDenied},
		"PERMISSIVE, plain":         {grpc.Creds(insecure.NewCredentials()), insecure.NewCredentials(), m.permissive(), codes.OK},
		"DISABLE, TLS":              {own(tls.NoClientCert), nobody, m.disable(), codes.PermissionDenied},
		"no policy, TLS":            {own(tls.NoClientCert), nobody, noPolicy, codes.OK},
		"no answer yet":             {grpc.Creds(insecure.NewCredentials()), insecure.NewCredentials(), nil, codes.Unavailable},
		"of an unknown kind":        {grpc.Creds(oddCreds{insecure.NewCredentials()}), insecure.NewCredentials(), m.permissive(), codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveGated(t, gatedConfig(), tt.policy, whoCalls(), tt.creds)
			conn := dialGated(t, s.addr, tt.caller)
			for range 2 {
				if _, err := talkSay(t.Context(), conn, "Say", "x"); status.Code(err) != tt.want {
					t.Errorf("%v, want %v", err, tt.want)
				}
			}
			if tt.want != codes.PermissionDenied {
				return
			}
			if log := s.log.String(); !strings.Contains(log, "grpc.Creds") {
				t.Errorf("the log does not say why:\n%s", log)
			}
			s.isAudited(t, 2, "/"+talkInterface+"/Say", "")
		})
	}
}

// TestOwnCredentialsProveNobodyToTheMesh: a caller that the user's credentials
// verified is one of the mesh's only where the mesh's roots say so.
func TestOwnCredentialsProveNobodyToTheMesh(t *testing.T) {
	m, elsewhere := newGateMesh(t), meshtest.NewAuthority(t)
	stranger, err := elsewhere.Issue(testCallerID)
	if err != nil {
		t.Fatal(err)
	}
	h2 := func(c *tls.Config) { c.NextProtos = []string{"h2"} }
	foreign := m.caller(t, h2, func(c *tls.Config) {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stranger, nil }
	})
	rules := m.strict()
	rules.rules.inbound[0].filters = []inboundFilter{{access: &accessFilter{rules: &accessRules{action: accessDeny}}}}
	for name, tt := range map[string]struct {
		auth   tls.ClientAuthType
		roots  *x509.CertPool
		caller credentials.TransportCredentials
		policy *portPolicy
		want   string
	}{
		"the mesh asks nothing":           {tls.RequireAndVerifyClientCert, elsewhere.Roots(), foreign, noPolicy, ""},
		"the mesh asks nothing of ours":   {tls.RequireAndVerifyClientCert, m.authority.Roots(), m.caller(t, h2), noPolicy, ""},
		"verified by the mesh":            {tls.RequireAndVerifyClientCert, m.authority.Roots(), m.caller(t, h2), m.strict(), testCallerID},
		"verified by the mesh alone":      {tls.RequireAnyClientCert, nil, m.caller(t, h2), m.strict(), testCallerID},
		"verified by the mesh, and rules": {tls.RequireAnyClientCert, nil, m.caller(t, h2), rules, testCallerID},
	} {
		t.Run(name, func(t *testing.T) {
			var seen Peer
			impl := &talker{say: func(ctx context.Context, _ string) (string, error) { seen, _ = PeerFrom(ctx); return "", nil }}
			s := serveGated(t, gatedConfig(), tt.policy, impl, grpc.Creds(credentials.NewTLS(&tls.Config{
				Certificates: []tls.Certificate{m.issue(t, testServerID)}, ClientAuth: tt.auth, ClientCAs: tt.roots, NextProtos: []string{"h2"},
			})))
			if _, err := talkSay(t.Context(), dialGated(t, s.addr, tt.caller), "Say", "x"); err != nil {
				t.Fatal(err)
			}
			if !seen.Encrypted || seen.ID != tt.want || seen.Verified != (tt.want != "") || (seen.Certificate != nil) != seen.Verified {
				t.Errorf("the handler sees %q, verified %v, encrypted %v", seen.ID, seen.Verified, seen.Encrypted)
			}
		})
	}
}

// isAudited wants so many calls to be recorded as refused, by no policy but for
// a reason, and to be counted once each.
func (s *gated) isAudited(t testing.TB, calls int, method, reason string) {
	t.Helper()
	for range calls {
		select {
		case a := <-s.audits:
			if a.Code != codes.PermissionDenied || a.Method != method || a.Policy != "" || a.Action != "" || a.Reason == "" || !strings.Contains(a.Reason, reason) ||
				!a.Address.IsValid() || !a.Refused() {
				t.Errorf("record %+v", a)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a call was refused without a record")
		}
	}
	if n := s.counts.denied.Load(); n != uint64(calls) || len(s.audits) > 0 {
		t.Errorf("%d calls are counted of %d, %d more records", n, calls, len(s.audits))
	}
}

// TestRefusedListenerIsAudited has a listener that was never understood refuse
// calls of each way in.
func TestRefusedListenerIsAudited(t *testing.T) {
	m := newGateMesh(t)
	s := serveGated(t, gatedConfig(), m.strict(), whoCalls())
	conn := dialGated(t, s.addr, m.caller(t))
	if _, err := talkSay(t.Context(), conn, "Say", "x"); err != nil {
		t.Fatal(err)
	}
	s.hooks.refuse.Store(&Error{Stage: StageProvider, Reason: "a field that is not known", Code: codes.PermissionDenied})
	for method, call := range map[string]func() error{
		"/" + talkInterface + "/Say":  func() error { _, err := talkSay(t.Context(), conn, "Say", "x"); return err },
		"/" + talkInterface + "/Chat": func() error { _, err := talkStream(t.Context(), conn, "Chat", "x"); return err },
		"/org.x.None/None": func() error {
			return conn.Invoke(t.Context(), "/org.x.None/None", wrapperspb.String(""), new(wrapperspb.StringValue))
		},
	} {
		s.counts.denied.Store(0)
		if err := call(); status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), "not known") {
			t.Errorf("%s: %v", method, err)
		}
		s.isAudited(t, 1, method, "a field that is not known")
	}
}

// oddCreds are credentials that tell nothing of the caller.
type oddCreds struct {
	credentials.TransportCredentials
}

func (o oddCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return raw, oddInfo{}, nil
}
func (o oddCreds) Clone() credentials.TransportCredentials { return o }

type oddInfo struct{}

func (oddInfo) AuthType() string { return "odd" }

// TestNobodyIsLetInBeforeTheMeshHasSpoken keeps a caller waiting.
func TestNobodyIsLetInBeforeTheMeshHasSpoken(t *testing.T) {
	m := newGateMesh(t)
	for name, creds := range map[string]credentials.TransportCredentials{"plain": insecure.NewCredentials(), "TLS": m.caller(t)} {
		t.Run(name, func(t *testing.T) {
			s := serveGated(t, gatedConfig(), nil, whoCalls())
			answered := make(chan error, 1)
			go func() { // ends with the call
				_, err := talkSay(t.Context(), dialGated(t, s.addr, creds), "Say", "x")
				answered <- err
			}()
			s.pendingIs(t, 1)
			select {
			case err := <-answered:
				t.Fatalf("the call ended: %v", err)
			default:
			}
			s.gate.govern(m.permissive())
			if err := <-answered; err != nil {
				t.Error(err)
			}
			s.pendingIs(t, 0)
		})
	}
	for name, creds := range map[string]credentials.TransportCredentials{"plain, for too long": insecure.NewCredentials(), "TLS, for too long": m.caller(t)} {
		t.Run(name, func(t *testing.T) {
			cfg := gatedConfig()
			cfg.HandshakeTimeout = 100 * time.Millisecond
			s := serveGated(t, cfg, nil, whoCalls())
			conn := dialGated(t, s.addr, creds)
			for end := time.Now().Add(20 * time.Second); !strings.Contains(s.log.String(), errUntold.Error()); time.Sleep(time.Millisecond) {
				if _, err := talkSay(t.Context(), conn, "Say", "x"); status.Code(err) != codes.Unavailable {
					t.Errorf("got %v", err)
				}
				if time.Now().After(end) {
					t.Fatalf("the log blames the caller:\n%s", s.log)
				}
			}
		})
	}
}

// pendingIs waits until so many connections are pending.
func (s *gated) pendingIs(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); s.pending() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are pending, not %d", s.pending(), n)
		}
	}
}

func (s *gated) pending() int {
	s.gate.mu.Lock()
	defer s.gate.mu.Unlock()
	return s.gate.pending.Len()
}

// TestPlainTextPeersAreListed says who speaks plain text, and how much.
func TestPlainTextPeersAreListed(t *testing.T) {
	m := newGateMesh(t)
	s := serveGated(t, gatedConfig(), m.permissive(), whoCalls())
	conn, secret := dialGated(t, s.addr, insecure.NewCredentials()), dialGated(t, s.addr, m.caller(t))
	for range 3 {
		talkSay(t.Context(), conn, "Say", "x")
		talkSay(t.Context(), secret, "Say", "x")
	}
	list := s.gate.plain.list(time.Now())
	if len(list) != 1 || list[0].Address.String() != "127.0.0.1" || list[0].Connections != 1 || list[0].Accepted != 1 || list[0].Calls != 3 {
		t.Errorf("list %+v", list)
	}
	if plain, encrypted := s.counts.plain.Load(), s.counts.encrypted.Load(); plain != 1 || encrypted != 1 {
		t.Errorf("%d in plain text, %d over TLS", plain, encrypted)
	}
	conn.Close()
	for end := time.Now().Add(10 * time.Second); s.gate.plain.list(time.Now())[0].Connections > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the connection stays listed")
		}
	}
}

func hostOfTest(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

func TestPlainTextPeersAreBounded(t *testing.T) {
	var p plainPeers
	now := time.Unix(1e9, 0)
	stays := p.enter(hostOfTest(0), now)
	for i := range 3 * mostPlainPeers {
		p.left(p.enter(hostOfTest(1+i), now.Add(time.Duration(i)*time.Second)), now.Add(time.Duration(i)*time.Second))
	}
	list := p.list(now.Add(time.Hour))
	if len(list) != mostPlainPeers || list[0].Address != stays.address || list[1].Address != hostOfTest(3*mostPlainPeers) {
		t.Errorf("%d are listed, first %v, then %v", len(list), list[0], list[1])
	}
}

// TestJudgingAllocatesNothing is about calls that no filter has a say in.
func TestJudgingAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	m := newGateMesh(t)
	var allocs [2]float64
	at := 0
	s := serveGated(t, gatedConfig(), m.permissive(), &talker{})
	s.sets[talkInterface].exports[0].impl.(*talker).say = func(ctx context.Context, _ string) (string, error) {
		allocs[at] = leastAllocs(1000, func() {
			if own, err := s.gate.judge(ctx, "/org.x.Talk/Say"); own != nil || err != nil {
				t.Errorf("judged: %v, %v", own, err)
			}
		})
		return "", nil
	}
	for i, creds := range []credentials.TransportCredentials{insecure.NewCredentials(), m.caller(t)} {
		at = i
		if _, err := talkSay(t.Context(), dialGated(t, s.addr, creds), "Say", ""); err != nil {
			t.Fatal(err)
		}
	}
	if allocs != [2]float64{} {
		t.Errorf("%v allocations for each call in plain text and over TLS", allocs)
	}
}

// TestStoppingDoesNotWaitForHandshakes closes who has said nothing yet.
func TestStoppingDoesNotWaitForHandshakes(t *testing.T) {
	m := newGateMesh(t)
	cfg := gatedConfig()
	cfg.HandshakeTimeout, cfg.ShutdownTimeout = time.Hour, 30*time.Second
	s := serveGated(t, cfg, m.permissive(), whoCalls())
	silent, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	s.pendingIs(t, 1)
	s.stop()
	start := time.Now()
	err = <-s.done
	s.done <- err // for the clean-up
	if took := time.Since(start); err != nil || took > cfg.ShutdownTimeout/2 {
		t.Errorf("Serve = %v after %v", err, took)
	}
}

// connEnds tells when connections of a client end.
type connEnds struct {
	stats.Handler
	ended chan struct{}
}

func (c *connEnds) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (c *connEnds) HandleRPC(context.Context, stats.RPCStats)                       {}
func (c *connEnds) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}
func (c *connEnds) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); ok {
		c.ended <- struct{}{}
	}
}

// TestWhoIsNotAdmittedAnyLongerLeavesInPeace ends a connection under its calls:
// those that were begun are answered.
func TestWhoIsNotAdmittedAnyLongerLeavesInPeace(t *testing.T) {
	m := newGateMesh(t)
	inside, goOn := make(chan struct{}), make(chan struct{})
	s := serveGated(t, gatedConfig(), m.permissive(), &talker{say: func(context.Context, string) (string, error) {
		inside <- struct{}{}
		<-goOn
		return "answered", nil
	}})
	ends := &connEnds{ended: make(chan struct{}, 1)}
	conn, secret := dialGated(t, s.addr, insecure.NewCredentials(), grpc.WithStatsHandler(ends)), dialGated(t, s.addr, m.caller(t))
	results := make(chan error, 2)
	for _, c := range []*grpc.ClientConn{conn, secret} {
		go func() { // ends with the call
			got, err := talkSay(metadata.AppendToOutgoingContext(context.Background(), "k", "v"), c, "Say", "x")
			if err == nil && got != "answered" {
				err = errors.New(got)
			}
			results <- err
		}()
		<-inside
	}
	s.gate.govern(m.strict())
	s.gate.join() // it was asked to leave
	if n := s.counts.retired.Load(); n != 1 {
		t.Errorf("%d connections were asked to leave", n)
	}
	select {
	case <-ends.ended:
		t.Error("the connection ended under its call")
	case err := <-results:
		t.Errorf("the call ended: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(goOn)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	<-ends.ended
	if _, err := talkSay(t.Context(), conn, "Say", "x"); status.Code(err) != codes.Unavailable {
		t.Errorf("in plain text under STRICT: %v", err)
	}
}

// TestWhoDoesNotLeaveIsCut has a caller that hears GOAWAY and stays.
func TestWhoDoesNotLeaveIsCut(t *testing.T) {
	m := newGateMesh(t)
	for name, tt := range map[string]struct {
		acks bool // the PING that comes with GOAWAY
		more bool // opens a stream then
		cut  bool // at once
	}{
		"silent":                 {},
		"listens, and stays":     {acks: true},
		"listens, and goes on":   {acks: true, more: true, cut: true},
		"does not listen at all": {more: true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := gatedConfig()
			cfg.ShutdownTimeout = 300 * time.Millisecond
			if tt.cut {
				cfg.ShutdownTimeout = 30 * time.Second
			}
			s := serveGated(t, cfg, m.permissive(), whoCalls())
			c := rawClient(t, s.addr)
			c.settle(s)
			s.gate.govern(m.strict())
			start := time.Now()
			ping := c.await(frameGoAway)
			if id := ping.body[:4]; string(id) != "\x7f\xff\xff\xff" || !strings.Contains(string(ping.body), leaveReason) {
				t.Errorf("GOAWAY %q", ping.body)
			}
			f := c.await(framePing)
			if tt.acks {
				c.send(framePing, flagAck, 0, f.body)
			}
			if tt.more {
				c.send(frameHeaders, flagEndHeaders, 1, nil)
			}
			c.drain()
			took := time.Since(start)
			if tt.cut && took > cfg.ShutdownTimeout/2 || !tt.cut && took < cfg.ShutdownTimeout/2 {
				t.Errorf("it was cut after %v", took)
			}
		})
	}
}

// TestOtherTLSIsSpokenAnew has those leave who were verified by another context.
func TestOtherTLSIsSpokenAnew(t *testing.T) {
	m := newGateMesh(t)
	s := serveGated(t, gatedConfig(), m.strict(), whoCalls())
	conn := dialGated(t, s.addr, m.caller(t))
	say := func() {
		t.Helper()
		if _, err := talkSay(t.Context(), conn, "Say", "x", grpc.WaitForReady(true)); err != nil {
			t.Error(err)
		}
	}
	say()
	s.gate.govern(m.permissive()) // the same TLS
	say()
	if n := s.counts.retired.Load(); n != 0 {
		t.Errorf("%d had to leave for nothing", n)
	}
	m.server = m.context(t, "other")
	s.gate.govern(m.strict())
	say()
	if n := s.counts.retired.Load(); n != 1 {
		t.Errorf("%d had to leave", n)
	}
}

// TestClosingWhileSettlingForgetsThePeer closes a connection at the moment when
// its first frame is read.
func TestClosingWhileSettlingForgetsThePeer(t *testing.T) {
	for range 300 {
		g := newGate(gatedConfig(), slog.New(slog.DiscardHandler), new(counters), &secretStore{}, nil, &plainPeers{})
		g.govern(noPolicy)
		client, server := net.Pipe()
		defer client.Close()
		c := newGateConn(g, server)
		if err := g.enter(c); err != nil {
			t.Fatal(err)
		}
		c.admission.Store(&admission{noPolicy, nil})
		done := make(chan struct{})
		go func() { // ends at once
			defer close(done)
			c.Close()
		}()
		g.settle(c)
		<-done
		for _, who := range g.plain.list(time.Now()) {
			if who.Connections != 0 {
				t.Fatalf("%d connections are listed, and none is open", who.Connections)
			}
		}
	}
}
