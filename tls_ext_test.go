package proxyless_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

const (
	aliceID = "spiffe://cluster.local/ns/demo/sa/alice"
	bobID   = "spiffe://cluster.local/ns/demo/sa/bob"
)

// secured is a mesh with an authority, and a consumer in it.
type secured struct {
	t    *testing.T
	ca   *meshtest.Authority
	cp   *meshtest.ControlPlane
	mesh *proxyless.Mesh
	inv  *proxyless.Invoker
}

// beginSecuredBy lets a consumer refer to echo. Its certificate comes from the
// authority.
func beginSecuredBy(t *testing.T, ca *meshtest.Authority, s meshtest.Service, change ...func(*proxyless.Config)) *secured {
	t.Helper()
	return beginSecuredAt(t, ca, s, nil, change...)
}

// beginSecuredAt is beginSecuredBy with options of the control plane.
func beginSecuredAt(t *testing.T, ca *meshtest.Authority, s meshtest.Service, options []meshtest.Option, change ...func(*proxyless.Config)) *secured {
	t.Helper()
	x := &secured{t: t, ca: ca}
	x.cp = meshtest.New(t, append(options, meshtest.WithAuthority(ca))...)
	x.cp.SetService(s)
	root, token, err := ca.WriteFiles(t.TempDir(), testNamespace, "caller")
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(x.cp, "consumer")
	cfg.PlainText, cfg.ServerName, cfg.RootCertFile, cfg.TokenFile, cfg.Node.ServiceAccount = false, meshtest.ServerName, root, token, "caller"
	for _, f := range change {
		f(&cfg)
	}
	x.mesh = join(t, cfg)
	x.inv = refer(t, x.mesh, proxyless.Port(testPort))
	return x
}

// logText is a log that is read while it is written.
type logText struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// called is what a provider saw of its connections and callers.
type called struct {
	endpoint meshtest.Endpoint
	conns    atomic.Int64
	callers  sync.Map // names of callers
	offered  atomic.Pointer[[]string]
	sni      atomic.Pointer[string]
}

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// serveTLS starts a provider that is plain crypto/tls and grpc. It wants a
// client's certificate of the authority, where change does not say otherwise;
// without a certificate it speaks plain text.
func serveTLS(t *testing.T, ca *meshtest.Authority, name string, certificate *tls.Certificate, change ...func(*tls.Config)) *called {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &called{endpoint: meshtest.Endpoint{Address: "127.0.0.1", Port: uint32(lis.Addr().(*net.TCPAddr).Port)}}
	var options []grpc.ServerOption
	if certificate != nil {
		c.endpoint.TLSMode = "istio"
		config := &tls.Config{Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Roots(), NextProtos: []string{"h2"},
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				c.offered.Store(&hello.SupportedProtos)
				c.sni.Store(&hello.ServerName)
				return nil, nil
			}}
		for _, f := range change {
			f(config)
		}
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&echoDesc, &echo{name: name, seen: func(ctx context.Context) {
		p, _ := peer.FromContext(ctx)
		who := "anonymous"
		if info, ok := p.AuthInfo.(credentials.TLSInfo); !ok {
			who = "plain text"
		} else if len(info.State.PeerCertificates) > 0 {
			who = info.State.PeerCertificates[0].URIs[0].String()
		}
		c.callers.Store(who, true)
	}})
	go server.Serve(countingListener{lis, &c.conns})
	t.Cleanup(server.Stop)
	return c
}

func issue(t *testing.T, ca *meshtest.Authority, id string, names ...string) *tls.Certificate {
	t.Helper()
	c, err := ca.Issue(id, func(c *x509.Certificate) { c.DNSNames = names })
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

func expired(t *testing.T, ca *meshtest.Authority) *tls.Certificate {
	t.Helper()
	c, err := ca.Issue(aliceID, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	})
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

func (c *called) by(t *testing.T, want string) {
	t.Helper()
	c.callers.Range(func(who, _ any) bool {
		if who != want {
			t.Errorf("called by %v, want %s", who, want)
		}
		return true
	})
	if _, ok := c.callers.Load(want); !ok {
		t.Errorf("not called by %s", want)
	}
}

// clusterIP gives the service an address, as for auto mTLS it has to have.
func clusterIP(s meshtest.Service, sans ...string) meshtest.Service {
	s.Address, s.SANs = "10.96.0.9", sans
	return s
}

func TestPlainTextAndMutualTLSInOneCluster(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	secure, plain := serveTLS(t, ca, "secure", issue(t, ca, aliceID)), serveTLS(t, ca, "plain", nil)
	x := beginSecuredBy(t, ca, clusterIP(echoService(secure.endpoint, plain.endpoint), aliceID))
	ready(t, x.mesh)
	answers := map[string]int{}
	for deadline := time.Now().Add(10 * time.Second); len(answers) < 2 && time.Now().Before(deadline); {
		who, err := say(t.Context(), x.inv)
		if err != nil {
			t.Fatal(err)
		}
		answers[who]++
	}
	if len(answers) != 2 {
		t.Fatalf("answered by %v", answers)
	}
	secure.by(t, "spiffe://cluster.local/ns/demo/sa/caller")
	plain.by(t, "plain text")
	if got := *secure.offered.Load(); len(got) != 2 || got[0] != "istio" || got[1] != "h2" {
		t.Errorf("offers %q", got)
	}
	if got := *secure.sni.Load(); got != "outbound_.50052_._.echo.demo.svc.cluster.local" {
		t.Errorf("asks for %q", got)
	}
	explained, err := x.mesh.Explain(t.Context(), "echo:50052", echoMethod, nil)
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]string{}
	for _, e := range explained.Routes[0].Clusters[0].Endpoints {
		_, port, _ := net.SplitHostPort(e.Address)
		words[port] = e.Security
	}
	for c, want := range map[*called]string{plain: "plain text", secure: "TLS with the mesh's certificate, expecting " + aliceID + ", trusting the mesh's roots, SNI " + *secure.sni.Load() + "; connected by TLS 1.3, " + aliceID} {
		if got := words[portOf(c)]; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func portOf(c *called) string { return strconv.Itoa(int(c.endpoint.Port)) }

// TestAProviderOfAnotherIdentityIsNotCalled: the error says who was expected
// and who came.
func TestAProviderOfAnotherIdentityIsNotCalled(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	for name, test := range map[string]struct {
		certificate *tls.Certificate
		want        []string
	}{
		"another name":      {issue(t, ca, bobID), []string{"expected " + aliceID, "presented " + bobID, "; see which service account"}},
		"another authority": {issue(t, meshtest.NewAuthority(t), aliceID), []string{"for " + aliceID, "is not trusted", "unknown authority", "; see who signed"}},
		"expired":           {expired(t, ca), []string{"is not trusted", "expired", "; see why the provider's certificate is not renewed"}},
	} {
		t.Run(name, func(t *testing.T) {
			wrong := serveTLS(t, ca, "wrong", test.certificate)
			x := beginSecuredBy(t, ca, clusterIP(echoService(wrong.endpoint), aliceID))
			_, err := say(t.Context(), x.inv)
			own := problem(t, err)
			for _, want := range append(test.want, "outbound|50052||echo.demo.svc.cluster.local", "127.0.0.1:") {
				if own.Stage != proxyless.StageEndpoint || strings.Contains(own.Advice, "targetPort") || !strings.Contains(own.Error(), want) {
					t.Errorf("got %v\nwant %s", own, want)
				}
			}
			wrong.callers.Range(func(who, _ any) bool { t.Errorf("called by %v", who); return true })
		})
	}
}

// TestWhatToDoAboutAnEndpointThatIsSpokenToOtherwise: the advice is about TLS,
// which one side speaks and the other does not, or about our certificate.
func TestWhatToDoAboutAnEndpointThatIsSpokenToOtherwise(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	for name, test := range map[string]struct {
		certificate *tls.Certificate // of the provider
		rule        *meshtest.TLSSettings
		change      func(*proxyless.Config)
		unreachable bool
		advice      string
	}{
		"it speaks plain text":   {nil, nil, nil, false, "take the label security.istio.io/tlsMode: istio off"},
		"it speaks TLS":          {issue(t, ca, aliceID), &meshtest.TLSSettings{Mode: meshtest.TLSDisable}, nil, false, "under PeerAuthentication STRICT"},
		"it wants a certificate": {issue(t, ca, aliceID), &meshtest.TLSSettings{Mode: meshtest.TLSSimple, Insecure: true}, nil, false, "certificate: set tls.mode"},
		"we have no certificate": {issue(t, ca, aliceID), &meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}, withoutIdentity, false, "Config.Identity.Disabled says so; leave it out"},
		"nobody is there":        {nil, &meshtest.TLSSettings{Mode: meshtest.TLSDisable}, nil, true, "check that the provider listens"},
	} {
		t.Run(name, func(t *testing.T) {
			it := serveTLS(t, ca, "it", test.certificate)
			it.endpoint.TLSMode = "istio"
			if test.unreachable {
				it.endpoint.Address = "127.0.0.77"
			}
			s := clusterIP(echoService(it.endpoint), aliceID)
			if test.rule != nil {
				s.Traffic = &meshtest.TrafficPolicy{TLS: test.rule}
			}
			change := test.change
			if change == nil {
				change = func(*proxyless.Config) {}
			}
			x := beginSecuredBy(t, ca, s, change)
			_, err := say(t.Context(), x.inv)
			own := problem(t, err)
			_, said, _ := strings.Cut(own.Error(), "none of 1 endpoints is ready: ")
			if !strings.Contains(said, test.advice) || strings.Contains(said, "nothing blocks the way") != test.unreachable {
				t.Errorf("got %v\nwant %s", own, test.advice)
			}
		})
	}
}

// TestACallThatWaitsForTheCertificateSaysWhy: its deadline passes before the
// connection's does, and the trouble is not at the endpoint.
func TestACallThatWaitsForTheCertificateSaysWhy(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	ca.Fail(errors.New("too many today"))
	it := serveTLS(t, ca, "it", issue(t, ca, aliceID))
	it.endpoint.TLSMode = "istio"
	x := beginSecuredBy(t, ca, clusterIP(echoService(it.endpoint), aliceID))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		impatient, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_, err := say(impatient, x.inv)
		cancel()
		if own := problem(t, err); strings.Contains(own.Error(), "waits for this workload's certificate: ") && strings.Contains(own.Error(), "too many today") {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the call says %v", err)
		}
	}
}

func TestModesOfADestinationRule(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mine := issue(t, ca, "spiffe://elsewhere/ns/a/sa/file")
	key, err := meshtest.KeyPEM(*mine)
	if err != nil {
		t.Fatal(err)
	}
	roots, cert, keyFile := write("ca.pem", ca.RootPEM()), write("cert.pem", meshtest.ChainPEM(*mine)), write("key.pem", key)
	const caller, file = "spiffe://cluster.local/ns/demo/sa/caller", "spiffe://elsewhere/ns/a/sa/file"
	optional := func(c *tls.Config) { c.ClientAuth = tls.VerifyClientCertIfGiven }
	for name, test := range map[string]struct {
		rule   meshtest.TLSSettings
		names  []string // DNS names of the provider
		caller string   // as the provider sees it
		sni    string
		fails  string
	}{
		"DISABLE":               {rule: meshtest.TLSSettings{Mode: meshtest.TLSDisable}, caller: "plain text"},
		"ISTIO_MUTUAL":          {rule: meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}, caller: caller, sni: "outbound_.50052_._.echo.demo.svc.cluster.local"},
		"ISTIO_MUTUAL with SNI": {rule: meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual, SNI: "mine.example", SANs: []string{bobID, aliceID}}, caller: caller, sni: "mine.example"},
		"ISTIO_MUTUAL, others":  {rule: meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual, SANs: []string{bobID}}, fails: "expected " + bobID},
		"SIMPLE":                {rule: meshtest.TLSSettings{Mode: meshtest.TLSSimple, CACertificates: roots}, names: []string{"other", "echo"}, caller: "anonymous", sni: "echo"},
		"SIMPLE, another host":  {rule: meshtest.TLSSettings{Mode: meshtest.TLSSimple, CACertificates: roots}, names: []string{"other.demo.svc.cluster.local"}, fails: "expected echo"},
		"SIMPLE with names":     {rule: meshtest.TLSSettings{Mode: meshtest.TLSSimple, CACertificates: roots, SNI: "mine.example", SANs: []string{"b.example", "a.example"}}, names: []string{"a.example"}, caller: "anonymous", sni: "mine.example"},
		"SIMPLE, system roots":  {rule: meshtest.TLSSettings{Mode: meshtest.TLSSimple}, names: []string{"echo.demo.svc.cluster.local"}, fails: "is not trusted"},
		"SIMPLE, not verified":  {rule: meshtest.TLSSettings{Mode: meshtest.TLSSimple, Insecure: true}, caller: "anonymous"},
		"MUTUAL":                {rule: meshtest.TLSSettings{Mode: meshtest.TLSMutual, CACertificates: roots, ClientCertificate: cert, PrivateKey: keyFile, SANs: []string{aliceID}}, caller: file},
		"MUTUAL, no such file":  {rule: meshtest.TLSSettings{Mode: meshtest.TLSMutual, CACertificates: roots, ClientCertificate: cert + "x", PrivateKey: keyFile, SANs: []string{aliceID}}, fails: "cert.pemx"},
		"MUTUAL with a CRL":     {rule: meshtest.TLSSettings{Mode: meshtest.TLSMutual, CACertificates: roots, ClientCertificate: cert, PrivateKey: keyFile, CRL: "/crl"}, fails: "crl cannot be obeyed"},
		"SIMPLE, a Secret":      {rule: meshtest.TLSSettings{Mode: meshtest.TLSSimple, Credential: "mine"}, fails: `"kubernetes://mine`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var provider *called
			if test.rule.Mode == meshtest.TLSDisable {
				provider = serveTLS(t, ca, "it", nil)
			} else {
				provider = serveTLS(t, ca, "it", issue(t, ca, aliceID, test.names...), optional)
			}
			s := clusterIP(echoService(provider.endpoint), aliceID)
			s.Traffic = &meshtest.TrafficPolicy{TLS: &test.rule}
			x := beginSecuredBy(t, ca, s)
			_, err := say(t.Context(), x.inv)
			if test.fails != "" {
				if own := problem(t, err); !strings.Contains(own.Error(), test.fails) || strings.Contains(own.Error(), "nothing blocks the way") {
					t.Errorf("got %v\nwant %s", own, test.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			provider.by(t, test.caller)
			if test.sni != "" && *provider.sni.Load() != test.sni {
				t.Errorf("asks for %q, want %q", *provider.sni.Load(), test.sni)
			}
		})
	}
}

// TestATrustingClusterIsLoggedOnce: whoever lets every certificate pass is told,
// once however often the cluster comes, and nobody else.
func TestATrustingClusterIsLoggedOnce(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	for name, test := range map[string]struct {
		rule meshtest.TLSSettings
		want int
	}{
		"insecureSkipVerify": {meshtest.TLSSettings{Mode: meshtest.TLSSimple, Insecure: true}, 1},
		"SIMPLE":             {meshtest.TLSSettings{Mode: meshtest.TLSSimple}, 0},
		"DISABLE":            {meshtest.TLSSettings{Mode: meshtest.TLSDisable}, 0},
		"ISTIO_MUTUAL":       {meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var log logText
			s := clusterIP(echoService(serveTLS(t, ca, "it", issue(t, ca, aliceID)).endpoint), aliceID)
			s.Traffic = &meshtest.TrafficPolicy{TLS: &test.rule}
			x := beginSecuredBy(t, ca, s, func(c *proxyless.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			say(t.Context(), x.inv)                                                          // fails in some modes, once the cluster came
			s.Traffic.Connections = &meshtest.ConnectionPool{MaxRequestsPerConnection: 1000} // the cluster comes again
			x.cp.SetService(s)
			if err := x.cp.WaitSettled(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := log.String(); strings.Count(got, "every certificate is accepted") != test.want || test.want > 0 && !strings.Contains(got, "cluster=outbound|50052||echo.demo.svc.cluster.local") {
				t.Errorf("logged:\n%s", got)
			}
		})
	}
}

// TestAChangedContextLosesNoCall: calls go on while whom to expect changes, the
// new context gets connections of its own, and one that says the same none.
func TestAChangedContextLosesNoCall(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	provider := serveTLS(t, ca, "it", issue(t, ca, aliceID))
	s := clusterIP(echoService(provider.endpoint), aliceID)
	x := beginSecuredBy(t, ca, s)
	ready(t, x.mesh)
	stop := make(chan struct{})
	var calls sync.WaitGroup
	var made atomic.Int64
	for range 4 {
		calls.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := say(t.Context(), x.inv); err != nil {
					t.Error(err)
					return
				}
				made.Add(1)
			}
		})
	}
	redialled := func(want int64) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); provider.conns.Load() < want && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		before := made.Load()
		for deadline := time.Now().Add(10 * time.Second); made.Load() < before+50 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if n := provider.conns.Load(); n != want {
			t.Errorf("%d connections were made, want %d", n, want)
		}
	}
	redialled(1)
	s.SANs = []string{aliceID, bobID}
	x.cp.SetService(s)
	redialled(2)
	s.Endpoints[0].Weight = 3 // another assignment, the same context
	x.cp.SetService(s)
	if err := x.cp.WaitSettled(t.Context()); err != nil {
		t.Fatal(err)
	}
	redialled(2)
	close(stop)
	calls.Wait()
	if made.Load() < 100 {
		t.Errorf("%d calls", made.Load())
	}
}

// TestMutualTLSThatIsOfferedAndDemandedWithoutACertificate: an offer is left, a
// demand is not met with plain text.
func TestMutualTLSThatIsOfferedAndDemandedWithoutACertificate(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	plain := serveTLS(t, ca, "plain", nil)
	plain.endpoint.TLSMode = "istio"
	nobody := func(c *proxyless.Config) { c.Identity.Disabled = true }
	x := beginSecuredBy(t, ca, clusterIP(echoService(plain.endpoint), aliceID), nobody)
	if _, err := say(t.Context(), x.inv); err != nil {
		t.Fatal(err)
	}
	ignored := false
	for _, r := range x.mesh.Coverage() {
		ignored = ignored || slices.Contains(r.Ignored, "transport_socket_matches")
	}
	if !ignored {
		t.Error("that the offer is left is not reported")
	}
	demanding := clusterIP(echoService(plain.endpoint), aliceID)
	demanding.Traffic = &meshtest.TrafficPolicy{TLS: &meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}}
	y := beginSecuredBy(t, ca, demanding, nobody)
	_, err := say(t.Context(), y.inv)
	if own := problem(t, err); !strings.Contains(own.Error(), "certificate") {
		t.Errorf("got %v", own)
	}
}
