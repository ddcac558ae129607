package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
)

const credentialsNamespace = "credentials"

// record keeps what a member logs.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// logTo makes a member log into the record.
func (r *record) logTo(c *proxyless.Config) { c.Logger = slog.New(slog.NewTextHandler(r, nil)) }

// oneProvider is a Service "greeter" with one provider in the namespace.
func oneProvider(t testing.TB, namespace string) (*lab.Lab, *provider) {
	t.Helper()
	l := suite.Lab(t)
	p := startProvider(t, l, namespace, "greeter-1", map[string]string{"app": "greeter"})
	withManifest(t, l, service(namespace, "greeter", "greeter", grpcPort))
	return l, p
}

// expectTrouble waits until the mesh says why istiod cannot be used, and until
// calls say the same. WaitReady and calls speak of the latest attempt, one of
// which may be under way.
func expectTrouble(t *testing.T, m *proxyless.Mesh, client greetpb.GreetingServiceClient, stage proxyless.Stage, parts ...string) {
	t.Helper()
	says := func(err error) error {
		own := new(proxyless.Error)
		if !errors.As(err, &own) || own.Stage != stage {
			return fmt.Errorf("want an error of stage %q: %w", stage, err)
		}
		for _, part := range parts {
			if !strings.Contains(own.Error(), part) {
				return fmt.Errorf("want an error that says %q: %w", part, err)
			}
		}
		return nil
	}
	must(t, lab.WaitFor(within(t, 45*time.Second), "WaitReady to say why", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		return says(m.WaitReady(ctx))
	}))
	eventually(t, "the call to say why", client, func(_ string, err error) error { return says(err) })
}

// TestBadCredentials joins with what istiod refuses. istiod says the same of
// all of it; the library says what to change, and goes on without a restart
// once the file is replaced.
func TestBadCredentials(t *testing.T) { eachView(t, testBadCredentials) }

func testBadCredentials(t *testing.T) {
	l, _ := oneProvider(t, credentialsNamespace)
	const ns = credentialsNamespace
	foreign, err := l.Claims(soon(t), ns, "default", time.Now().Add(time.Hour), lab.IstioAudience)
	must(t, err)
	foreign["iss"] = "https://elsewhere.example"
	foreignToken, err := l.SignToken(foreign)
	must(t, err)
	cases := []struct {
		name  string
		token string
		said  []string
	}{
		{"wrong audience", issued(t, l, ns, "https://kubernetes.default.svc"),
			[]string{"https://kubernetes.default.svc", "istiod asks for the audience istio-ca", "serviceAccountToken: {audience: istio-ca"}},
		{"expired", signed(t, l, ns, time.Now().Add(-time.Minute), lab.IstioAudience),
			[]string{"the token expired at", "projected volume"}},
		{"not valid yet", signed(t, l, ns, time.Now().Add(2*time.Hour), lab.IstioAudience),
			[]string{"the token is not valid before", "clock"}},
		{"no token", "", []string{"there is no token", "serviceAccountToken: {audience: istio-ca"}},
		{"not a token", "not.a.token", []string{"not a JSON Web Token", "serviceAccountToken: {audience: istio-ca"}},
		{"of another namespace", issued(t, l, "default", lab.IstioAudience),
			[]string{`belongs to the namespace "default"`, `"credentials"`, "POD_NAMESPACE"}},
		{"of an issuer that is not trusted", foreignToken,
			[]string{"audience (istio-ca) and time", "does not trust the token's issuer \"https://elsewhere.example\"", "ISTIO_META_CLUSTER_ID"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var good, file string
			var log record
			m := joinConsumer(t, l, ns, log.logTo, func(c *proxyless.Config) { c.ResourceTimeout = time.Second }, func(cfg *proxyless.Config) {
				good, file = readFile(t, cfg.TokenFile), cfg.TokenFile
				replaceFile(t, file, c.token)
			})
			client := refer(t, m, "greeter")
			expectTrouble(t, m, client, proxyless.StageIdentity, append(c.said, file)...)
			replaceFile(t, file, good)
			ready(t, m)
			if _, err := greet(within(t, 10*time.Second), client); err != nil {
				t.Error(err)
			}
			if c.token != "" && strings.Contains(log.String(), c.token) {
				t.Error("the token is in the log")
			}
		})
	}
}

// TestMissingTokenFile starts before the token is there.
func TestMissingTokenFile(t *testing.T) {
	l, _ := oneProvider(t, credentialsNamespace)
	file := t.TempDir() + "/istio-token"
	m := joinConsumer(t, l, credentialsNamespace, func(c *proxyless.Config) { c.TokenFile, c.ResourceTimeout = file, time.Second })
	client := refer(t, m, "greeter")
	expectTrouble(t, m, client, proxyless.StageIdentity, "there is no token", file)
	replaceFile(t, file, istioToken(t.Context(), t, l, credentialsNamespace))
	ready(t, m)
}

// TestWrongWorkload joins as somebody whom the token does not belong to.
func TestWrongWorkload(t *testing.T) {
	l, _ := oneProvider(t, credentialsNamespace)
	cases := []struct {
		name   string
		change setting
		said   []string
	}{
		{"cluster id", func(c *proxyless.Config) { c.Node.ClusterID = "elsewhere" },
			[]string{`"elsewhere"`, "ISTIO_META_CLUSTER_ID", "CLUSTER_ID"}},
		{"service account", func(c *proxyless.Config) { c.Node.ServiceAccount = "somebody" },
			[]string{`service account "default"`, `"somebody"`, "SERVICE_ACCOUNT"}},
		{"namespace", func(c *proxyless.Config) { c.Node.Namespace = "default" },
			[]string{`namespace "credentials"`, `"default"`, "POD_NAMESPACE"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := joinConsumer(t, l, credentialsNamespace, func(c *proxyless.Config) { c.ResourceTimeout = time.Second }, c.change)
			expectTrouble(t, m, refer(t, m, "greeter"), proxyless.StageIdentity, c.said...)
		})
	}
}

// TestTrust connects to istiod with what does not verify it, or in the wrong
// language.
func TestTrust(t *testing.T) { eachView(t, testTrust) }

func testTrust(t *testing.T) {
	l, _ := oneProvider(t, credentialsNamespace)
	var kube struct{ Data map[string]string }
	must(t, l.API.Get(within(t, 10*time.Second), "/api/v1/namespaces/default/configmaps/kube-root-ca.crt", &kube))
	kubeRoot := tempFile(t, "ca.crt", kube.Data["ca.crt"])
	byAddress := lab.Gateway.String() + ":15012"
	cases := []struct {
		name   string
		change setting
		said   []string // none: it works
	}{
		{"Kubernetes' root", func(c *proxyless.Config) { c.RootCertFile = kubeRoot }, []string{"unknown authority", kubeRoot, "istio-ca-root-cert"}},
		{"no root", func(c *proxyless.Config) { c.RootCertFile += ".absent" }, []string{"root-cert.pem.absent", "mount the ConfigMap istio-ca-root-cert"}},
		{"no certificate", func(c *proxyless.Config) { c.RootCertFile = c.TokenFile }, []string{"no PEM certificate", "istio-ca-root-cert"}},
		{"another server name", func(c *proxyless.Config) { c.ServerName = "istiod.example.com" }, []string{"istiod.istio-system.svc", "ServerName"}},
		{"an address for a name", func(c *proxyless.Config) { c.ControlPlanes = []string{byAddress} }, []string{"ServerName"}},
		{"an address and the name", func(c *proxyless.Config) {
			c.ControlPlanes, c.ServerName = []string{byAddress}, lab.IstiodName
		}, nil},
		{"TLS to the plain port", func(c *proxyless.Config) { c.ControlPlanes = []string{l.Istiod.Plain()} }, []string{"plain text", "15012", "dubbo.registry.secure=plaintext"}},
		{"plain text to the TLS port", func(c *proxyless.Config) { c.PlainText = true }, []string{"15010", "dubbo.registry.secure"}},
		{"a port nobody listens on", func(c *proxyless.Config) { c.ControlPlanes = []string{lab.IstiodName + ":15999"} }, []string{"connection refused", "check the registry address"}},
		{"a host that is not there", func(c *proxyless.Config) { c.ControlPlanes = []string{"istiod.nowhere.svc:15012"} }, []string{"istiod.nowhere.svc", "check the registry address"}},
		{"no verification", func(c *proxyless.Config) { c.InsecureSkipVerify, c.RootCertFile = true, "" }, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := joinConsumer(t, l, credentialsNamespace, func(c *proxyless.Config) { c.ResourceTimeout = time.Second }, c.change)
			client := refer(t, m, "greeter")
			if c.said == nil {
				ready(t, m)
				return
			}
			expectTrouble(t, m, client, proxyless.StageControlPlane, c.said...)
		})
	}
}

// TestRootIsReadAgain replaces the root file of a process that runs.
func TestRootIsReadAgain(t *testing.T) { eachView(t, testRootIsReadAgain) }

func testRootIsReadAgain(t *testing.T) {
	l, _ := oneProvider(t, credentialsNamespace)
	var roots, file string
	m := joinConsumer(t, l, credentialsNamespace, func(c *proxyless.Config) {
		roots, file = readFile(t, c.RootCertFile), c.RootCertFile
		c.ResourceTimeout = time.Second
		replaceFile(t, file, "")
	})
	client := refer(t, m, "greeter")
	expectTrouble(t, m, client, proxyless.StageControlPlane, file)
	replaceFile(t, file, roots)
	ready(t, m)
}
