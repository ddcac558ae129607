package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// The tests in this file are about what consumers do: which connections are
// encrypted, what they show, and whom they take.

const originatingNamespace = "originating"

// expectEncrypted waits until the provider's calls come as they should.
func expectEncrypted(t testing.TB, p *provider, client greetpb.GreetingServiceClient, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("a call with TLS %v", want), client, func(_ string, err error) error {
		if err == nil && p.encrypted.Load() != want {
			err = fmt.Errorf("TLS: %v", p.encrypted.Load())
		}
		return err
	})
}

// TestMixedEndpoints calls a Service of two pods, of which one takes nothing
// but the mesh's TLS, and the other, without the label, knows no TLS.
func TestMixedEndpoints(t *testing.T) {
	l := suite.Lab(t)
	labels := map[string]string{"app": "mixed", tlsMode: "istio"}
	secured := startPod(t, l, lab.WorkloadSpec{Namespace: originatingNamespace, Name: "mixed-1", Account: "provider", Labels: labels})
	bare := addWorkload(t, l, originatingNamespace, "mixed-2", map[string]string{"app": "mixed"})
	serve(t, fmt.Sprintf("%v:%d", bare.IP, servicePort), func(s *grpc.Server) { greetpb.RegisterGreetingServiceServer(s, behind("bare")) })
	must(t, bare.SetReady(soon(t), true))
	withManifest(t, l, service(originatingNamespace, "mixed", "mixed", grpcPort)+fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mixed, namespace: %s}
spec: {selector: {matchLabels: {%s: istio}}, mtls: {mode: STRICT}}
`, originatingNamespace, tlsMode))
	m := joinConsumer(t, l, originatingNamespace, as(t, l, "consumer"))
	client := refer(t, m, "mixed")
	ready(t, m)
	calls := drive(t, client)
	calls.reaches(t, "bare", secured.IP.String())
	calls.failed() // while it came to be
	time.Sleep(time.Second)
	calls.stop()
	calls.expectNoneLost(t, "to two kinds of endpoints")
	if !secured.encrypted.Load() {
		t.Error("a call reached the pod with STRICT in plain text")
	}
}

// TestTLSModesSwitched changes a DestinationRule's TLS under calls of a
// provider that takes both: none is lost, and each goes as the rule says.
func TestTLSModesSwitched(t *testing.T) { eachView(t, testTLSModesSwitched) }

func testTLSModesSwitched(t *testing.T) {
	l := suite.Lab(t)
	labels := map[string]string{"app": "modes"}
	if viewOf(t) == fullView {
		labels[tlsMode] = "istio" // the lean view would make the provider refuse plain text
	}
	provide := func(name string) *provider {
		// A provider of the full view: the lean one has no PERMISSIVE.
		return startPod(t, l, lab.WorkloadSpec{Namespace: originatingNamespace, Name: name, Account: "provider", Labels: labels}, fullView.set)
	}
	p := provide("modes-1")
	withManifest(t, l, service(originatingNamespace, "modes", "modes", grpcPort))
	m := joinConsumer(t, l, originatingNamespace, as(t, l, "consumer"))
	client := refer(t, m, "modes")
	ready(t, m)
	calls := drive(t, client)
	without := viewOf(t) == fullView // the lean view has no automatic mutual TLS
	expectEncrypted(t, p, client, without)
	mutual, plain := tlsRule(originatingNamespace, "modes", "{mode: ISTIO_MUTUAL}"), tlsRule(originatingNamespace, "modes", "{mode: DISABLE}")
	for _, step := range []struct {
		manifest string
		want     bool
	}{{mutual, true}, {plain, false}, {mutual, true}, {"", without}, {plain, false}} {
		if step.manifest == "" {
			removeManifest(t, l, plain)
		} else {
			withManifest(t, l, step.manifest)
		}
		expectEncrypted(t, p, client, step.want)
		time.Sleep(500 * time.Millisecond) // under calls
		calls.expectNoneLost(t, "while the rule changed to "+step.manifest)
	}
}

// server is a TLS server that is not of the mesh.
type server struct {
	address   string
	authority *lab.Authority
	served    atomic.Pointer[tls.ConnectionState] // of the last call's connection
}

// startServer serves on the workload with a certificate of its own authority
// for the DNS name, and asks clients for a certificate of the same where it is
// to demand one.
func startServer(t testing.TB, w *lab.Workload, name string, demands bool) *server {
	t.Helper()
	authority, err := lab.NewAuthority("authority of "+name, nil)
	must(t, err)
	s := &server{address: fmt.Sprintf("%v:%d", w.IP, servicePort), authority: authority}
	own := s.issue(t, name)
	config := &tls.Config{
		Certificates:     []tls.Certificate{*own.pair(t)},
		NextProtos:       []string{"h2"},
		VerifyConnection: func(state tls.ConnectionState) error { s.served.Store(&state); return nil },
	}
	if demands {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, own.pool()
	}
	serve(t, s.address, func(g *grpc.Server) { greetpb.RegisterGreetingServiceServer(g, behind(name)) }, grpc.Creds(credentials.NewTLS(config)))
	must(t, w.SetReady(soon(t), true))
	return s
}

// issue makes a certificate for a DNS name.
func (s *server) issue(t testing.TB, name string) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{name},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.authority.Certificate, key.Public(), s.authority.Key)
	must(t, err)
	return &certificate{key: key, parts: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), s.authority.PEM}}
}

// TestOriginate calls servers that are not of the mesh, with the TLS that a
// DestinationRule asks for.
func TestOriginate(t *testing.T) {
	l := suite.Lab(t)
	const host = "outside"
	cases := []struct {
		name    string
		demands bool
		tls     func(s *server, files func(name, text string) string) string
		refused []string // what the error says; nil where the call is answered
		sni     string
	}{
		{name: "SIMPLE, roots and a name", sni: "server.example.com",
			tls: func(s *server, file func(name, text string) string) string {
				return fmt.Sprintf("{mode: SIMPLE, caCertificates: %q, sni: server.example.com, subjectAltNames: [server.example.com]}", file("ca.pem", string(s.authority.PEM)))
			}},
		{name: "SIMPLE, a wrong name",
			tls: func(s *server, file func(name, text string) string) string {
				return fmt.Sprintf("{mode: SIMPLE, caCertificates: %q, sni: server.example.com, subjectAltNames: [other.example.com]}", file("ca.pem", string(s.authority.PEM)))
			}, refused: []string{"server.example.com", "other.example.com"}},
		{name: "SIMPLE, other roots",
			tls: func(s *server, file func(name, text string) string) string {
				other, err := lab.NewAuthority("other", nil)
				must(t, err)
				return fmt.Sprintf("{mode: SIMPLE, caCertificates: %q, sni: server.example.com}", file("ca.pem", string(other.PEM)))
			}, refused: []string{"unknown authority"}},
		{name: "SIMPLE, the system's roots",
			tls:     func(*server, func(name, text string) string) string { return "{mode: SIMPLE, sni: server.example.com}" },
			refused: []string{"unknown authority"}},
		{name: "SIMPLE, the name by itself", // the call's authority is neither's
			tls: func(s *server, file func(name, text string) string) string {
				return fmt.Sprintf("{mode: SIMPLE, caCertificates: %q}", file("ca.pem", string(s.authority.PEM)))
			}, refused: []string{"server.example.com", host}},
		{name: "SIMPLE, not verified", sni: host,
			tls: func(*server, func(name, text string) string) string {
				return "{mode: SIMPLE, insecureSkipVerify: true}"
			}},
		{name: "MUTUAL, files", demands: true, sni: "server.example.com",
			tls: func(s *server, file func(name, text string) string) string {
				own := s.issue(t, "client.example.com")
				return fmt.Sprintf("{mode: MUTUAL, clientCertificate: %q, privateKey: %q, caCertificates: %q, sni: server.example.com, subjectAltNames: [server.example.com]}",
					file("cert.pem", string(own.chain())), file("key.pem", string(own.keyPEM(t))), file("ca.pem", string(s.authority.PEM)))
			}},
		{name: "MUTUAL, files that are not there", demands: true,
			tls: func(s *server, file func(name, text string) string) string {
				return fmt.Sprintf("{mode: MUTUAL, clientCertificate: /nowhere/cert.pem, privateKey: /nowhere/key.pem, caCertificates: %q, sni: server.example.com}", file("ca.pem", string(s.authority.PEM)))
			}, refused: []string{"/nowhere/cert.pem"}},
		{name: "SIMPLE where a certificate is demanded", demands: true,
			tls: func(s *server, file func(name, text string) string) string {
				return fmt.Sprintf("{mode: SIMPLE, caCertificates: %q, sni: server.example.com}", file("ca.pem", string(s.authority.PEM)))
			}, refused: []string{"certificate"}},
		{name: "plain text", tls: func(*server, func(name, text string) string) string { return "{mode: DISABLE}" }, refused: []string{}},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			name := fmt.Sprintf("%s-%d", host, i)
			w := addWorkload(t, l, originatingNamespace, name, map[string]string{"app": name})
			s := startServer(t, w, "server.example.com", c.demands)
			files := t.TempDir()
			rule := c.tls(s, func(name, text string) string { replaceFile(t, files+"/"+name, text); return files + "/" + name })
			withManifest(t, l, service(originatingNamespace, name, name, grpcPort)+tlsRule(originatingNamespace, name, rule))
			catchUp(t, l)
			client := refer(t, joinConsumer(t, l, originatingNamespace, as(t, l, "consumer")), name)
			if c.refused == nil {
				eventually(t, "the call to be answered", client, answered)
				if got := s.served.Load().ServerName; got != c.sni && !(c.sni == host && strings.HasPrefix(got, host)) {
					t.Errorf("asked for the name %q, want %q", got, c.sni)
				}
				return
			}
			eventually(t, "the call to be refused, with the reason", client, refusedSaying(c.refused...))
		})
	}
}

// refusedSaying takes a call that failed, with all of the parts in its error.
func refusedSaying(parts ...string) func(string, error) error {
	return func(host string, err error) error {
		if err == nil {
			return fmt.Errorf("%q answered", host)
		}
		for _, part := range parts {
			if !strings.Contains(err.Error(), part) {
				return fmt.Errorf("the error does not say %q: %w", part, err)
			}
		}
		return nil
	}
}

// TestWrongProvider calls pods that show what the mesh did not issue for them:
// a certificate of another service account, and one of another authority.
func TestWrongProvider(t *testing.T) { eachView(t, testWrongProvider) }

func testWrongProvider(t *testing.T) {
	l := suite.Lab(t)
	authority, err := lab.NewAuthority("elsewhere", nil)
	must(t, err)
	const expected, presented = "spiffe://cluster.local/ns/originating/sa/expected", "spiffe://cluster.local/ns/originating/sa/impostor"
	cases := []struct {
		name  string
		shows func() *certificate
		says  []string
	}{
		{"impostor", func() *certificate { return certified(t, l, originatingNamespace, "impostor") }, []string{expected, presented}},
		{"forger", func() *certificate { return forged(t, authority, expected) }, []string{"unknown authority"}},
		{"expected", func() *certificate { return certified(t, l, originatingNamespace, "expected") }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			serviceAccount(t, l, originatingNamespace, "expected")
			labels := map[string]string{"app": c.name, tlsMode: "istio"}
			w := addPod(t, l, lab.WorkloadSpec{Namespace: originatingNamespace, Name: c.name, Account: "expected", Labels: labels, NotReady: true})
			bareServer(t, fmt.Sprintf("%v:%d", w.IP, servicePort), c.shows())
			must(t, w.SetReady(soon(t), true))
			manifest := service(originatingNamespace, c.name, c.name, grpcPort)
			if viewOf(t) == leanView {
				manifest += mutual(originatingNamespace, c.name)
			}
			withManifest(t, l, manifest)
			catchUp(t, l)
			client := refer(t, joinConsumer(t, l, originatingNamespace, as(t, l, "consumer")), c.name)
			if c.says == nil {
				eventually(t, "the call to be answered", client, answered)
				return
			}
			eventually(t, "the call to be refused, with the reason", client, refusedSaying(c.says...))
		})
	}
}
