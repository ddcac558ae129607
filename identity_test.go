package proxyless

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proxyless/proxyless/meshtest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// issuing is a control plane with an authority, and an identity that asks it.
type issuing struct {
	*identity
	t      testing.TB
	ca     *meshtest.Authority
	config *Config
	log    *lockedText
	cancel context.CancelFunc
}

// lockedText is what several goroutines may write to.
type lockedText struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// beginIdentity starts the identity of demo's service account greeter. It ends
// with the test.
func beginIdentity(t *testing.T, change ...func(*Config)) *issuing {
	t.Helper()
	return beginIdentityAt(t, meshtest.NewAuthority(t), change...)
}

func beginIdentityAt(t *testing.T, ca *meshtest.Authority, change ...func(*Config)) *issuing {
	t.Helper()
	cp := meshtest.New(t, meshtest.InMemory(), meshtest.WithAuthority(ca))
	root, token, err := ca.WriteFiles(t.TempDir(), "demo", "greeter")
	if err != nil {
		t.Fatal(err)
	}
	var log lockedText
	cfg := Config{
		Application: "greeter", ControlPlanes: []string{cp.Addr()}, ControlPlaneDialOptions: cp.DialOptions(),
		ServerName: meshtest.ServerName, RootCertFile: root, TokenFile: token,
		Node:   Node{IP: "127.0.0.1", Namespace: "demo", ServiceAccount: "greeter"},
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&cfg)
	}
	cfg, _, err = cfg.withDefaults(fakeEnvironment(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	i := newIdentity(&cfg, cfg.Logger, new(counters), readSmallFile)
	ctx, cancel := context.WithCancel(t.Context())
	go i.run(ctx)
	t.Cleanup(func() { cancel(); <-i.done })
	return &issuing{i, t, ca, &cfg, &log, cancel}
}

// get waits for a certificate.
func (i *issuing) get() *credential {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), 30*time.Second)
	defer cancel()
	c, err := i.wait(ctx)
	if err != nil {
		i.t.Fatal(err)
	}
	return c
}

// asked is how often the authority was asked so far.
func (i *issuing) asked() int { return len(i.ca.Requests()) }

func TestAWorkloadGetsItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t)
		synctest.Wait()
		if i.asked() != 0 || i.current() != nil {
			t.Fatal("it asked although nothing wanted a certificate")
		}
		c := i.get()
		leaf := c.certificate.Leaf
		if c.id != "spiffe://cluster.local/ns/demo/sa/greeter" || leaf.URIs[0].String() != c.id {
			t.Errorf("it is %s, %v", c.id, leaf.URIs)
		}
		if err := c.roots.verify([]*x509.Certificate{leaf}, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
			t.Error(err)
		}
		r := i.ca.Requests()[0]
		if r.Lifetime != 24*time.Hour || r.ClusterID != "Kubernetes" || r.Token == "" || i.trouble() != nil {
			t.Errorf("asked for %+v, trouble %v", r, i.trouble())
		}
		if _, ok := c.certificate.PrivateKey.(*ecdsa.PrivateKey); !ok || leaf.PublicKey.(*ecdsa.PublicKey).Curve.Params().Name != "P-256" {
			t.Errorf("the key is a %T", c.certificate.PrivateKey)
		}
	})
}

func TestKeysAreAsConfigured(t *testing.T) {
	for name, test := range map[string]struct {
		id   Identity
		want func(any) bool
	}{
		"P384": {Identity{Curve: "P384"}, func(key any) bool {
			k, ok := key.(*ecdsa.PublicKey)
			return ok && k.Curve.Params().Name == "P-384"
		}},
		"RSA": {Identity{RSABits: 2048}, func(key any) bool { k, ok := key.(*rsa.PublicKey); return ok && k.N.BitLen() == 2048 }},
	} {
		t.Run(name, func(t *testing.T) {
			i := beginIdentity(t, func(c *Config) { c.Identity = test.id })
			if c := i.get(); !test.want(c.certificate.Leaf.PublicKey) {
				t.Errorf("the key is a %T", c.certificate.Leaf.PublicKey)
			}
		})
	}
}

func TestAnIntermediateIsShownAndItsRootIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := meshtest.NewAuthority(t)
		if err := ca.Intermediate(); err != nil {
			t.Fatal(err)
		}
		i := beginIdentityAt(t, ca)
		c := i.get()
		if len(c.certificate.Certificate) != 2 || len(c.roots.list) != 1 {
			t.Fatalf("%d certificates are shown, %d roots are trusted", len(c.certificate.Certificate), len(c.roots.list))
		}
		below, _ := x509.ParseCertificate(c.certificate.Certificate[1])
		if err := c.roots.verify([]*x509.Certificate{c.certificate.Leaf, below}, x509.ExtKeyUsageClientAuth, time.Now()); err != nil {
			t.Error(err)
		}
	})
}

func TestWhyThereIsNoCertificate(t *testing.T) {
	write := func(t *testing.T, path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		change func(*testing.T, *Config, *meshtest.Authority)
		says   []string
	}{
		"disabled":   {func(_ *testing.T, c *Config, _ *meshtest.Authority) { c.Identity.Disabled = true }, []string{"Config.Identity.Disabled"}},
		"plain text": {func(_ *testing.T, c *Config, _ *meshtest.Authority) { c.PlainText = true }, []string{"plain text", "CA_ADDR"}},
		"no token": {func(_ *testing.T, c *Config, _ *meshtest.Authority) { os.Remove(c.TokenFile) },
			[]string{"there is no token", "serviceAccountToken: {audience: istio-ca"}},
		"wrong audience": {func(t *testing.T, c *Config, ca *meshtest.Authority) {
			write(t, c.TokenFile, ca.TokenFor("vault", "demo", "greeter", time.Hour))
		}, []string{`"vault"`, "istiod asks for the audience istio-ca"}},
		"expired token": {func(t *testing.T, c *Config, ca *meshtest.Authority) {
			write(t, c.TokenFile, ca.Token("demo", "greeter", -time.Minute))
		}, []string{"the token expired at"}},
		"wrong cluster id": {func(_ *testing.T, c *Config, ca *meshtest.Authority) {
			c.Node.ClusterID = "elsewhere"
			ca.SetClusterID("Kubernetes")
		},
			[]string{`"elsewhere"`, "ISTIO_META_CLUSTER_ID"}},
		"another root": {func(t *testing.T, c *Config, _ *meshtest.Authority) {
			write(t, c.RootCertFile, string(meshtest.NewAuthority(t).RootPEM()))
		}, []string{"unknown authority", "istio-ca-root-cert"}},
		"an authority that let its own end": {func(t *testing.T, _ *Config, ca *meshtest.Authority) {
			if err := ca.Intermediate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }); err != nil {
				t.Fatal(err)
			}
		}, []string{"certificate has expired", "clock"}},
		"no token, denied": {func(_ *testing.T, c *Config, ca *meshtest.Authority) {
			os.Remove(c.TokenFile)
			ca.Fail(status.Error(codes.PermissionDenied, "who are you"))
		}, []string{"there is no token"}},
		"no root":      {func(_ *testing.T, c *Config, _ *meshtest.Authority) { os.Remove(c.RootCertFile) }, []string{"no root certificates", "mount the ConfigMap"}},
		"another name": {func(_ *testing.T, c *Config, _ *meshtest.Authority) { c.ServerName = "istiod.example.com" }, []string{"Config.ServerName"}},
		"trust domain": {func(_ *testing.T, c *Config, _ *meshtest.Authority) { c.Node.TrustDomain = "example.org" }, []string{"trust domain \"cluster.local\"", "TRUST_DOMAIN"}},
		"namespace": {func(t *testing.T, c *Config, ca *meshtest.Authority) {
			write(t, c.TokenFile, ca.Token("other", "greeter", time.Hour))
		}, []string{`namespace "other"`, "POD_NAMESPACE"}},
		"service account": {func(t *testing.T, c *Config, ca *meshtest.Authority) {
			write(t, c.TokenFile, ca.Token("demo", "other", time.Hour))
		}, []string{`service account "other"`, "SERVICE_ACCOUNT"}},
		"TTL": {func(_ *testing.T, _ *Config, ca *meshtest.Authority) {
			ca.Fail(status.Error(codes.InvalidArgument, "CSR signing error (requested TTL 24h0m0s is greater than the max allowed TTL 1h0m0s)"))
		}, []string{"requested TTL", "SECRET_TTL"}},
		"no such service": {func(_ *testing.T, _ *Config, ca *meshtest.Authority) {
			ca.Fail(status.Error(codes.Unimplemented, "unknown service"))
		}, []string{"signs no certificates", "CA_ADDR"}},
		"unreachable": {func(_ *testing.T, c *Config, _ *meshtest.Authority) {
			c.Identity.CAAddress, c.ControlPlaneDialOptions = "127.0.0.1:1", nil
		},
			[]string{"127.0.0.1:1", "check CA_ADDR"}},
		"no files": {func(_ *testing.T, c *Config, _ *meshtest.Authority) {
			c.Identity.CertFile, c.Identity.KeyFile = "/nowhere/cert-chain.pem", "/nowhere/key.pem"
		},
			[]string{"/nowhere/cert-chain.pem"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := meshtest.NewAuthority(t)
			i := beginIdentityAt(t, ca, func(c *Config) { test.change(t, c, ca) })
			i.want()
			var err error
			for end := time.Now().Add(10 * time.Second); ; { // until it is no more that there is none yet
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				_, err = i.wait(ctx)
				cancel()
				if err == nil || !errors.Is(err, ErrNotReady) || time.Now().After(end) {
					break
				}
			}
			own := new(Error)
			if !errors.As(err, &own) || own.Stage != StageIdentity {
				t.Fatalf("got %v", err)
			}
			for _, part := range test.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		})
	}
}

// TestWhoIsToldOfACertificateKnowsItsRenewal looks at the moment at which a
// certificate comes into force.
func TestWhoIsToldOfACertificateKnowsItsRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var i *issuing
		told := 0 // by the goroutine of the identity alone
		i = beginIdentity(t, func(c *Config) {
			c.Identity.Lifetime = time.Hour
			c.Logger = slog.New(onRecord(func(r slog.Record) {
				if r.Message != "this workload has a certificate" {
					return
				}
				told++
				if s := i.state(); !s.Renewal.After(time.Now()) || !s.Renewal.Before(s.Expires) {
					t.Errorf("state %+v", s)
				}
			}))
		})
		i.get()
		i.freshToken()
		time.Sleep(35 * time.Minute)
		synctest.Wait()
		if told != 2 {
			t.Errorf("told of %d certificates", told)
		}
	})
}

// onRecord is a handler of logs that is given each record.
type onRecord func(slog.Record)

func (f onRecord) Enabled(context.Context, slog.Level) bool           { return true }
func (f onRecord) Handle(_ context.Context, record slog.Record) error { f(record); return nil }
func (f onRecord) WithAttrs([]slog.Attr) slog.Handler                 { return f }
func (f onRecord) WithGroup(string) slog.Handler                      { return f }

// TestAKeyIsNewWithEachCertificateAndNotWithEachAttempt: an RSA key takes
// seconds of a processor.
func TestAKeyIsNewWithEachCertificateAndNotWithEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t, func(c *Config) { c.Identity.Lifetime = time.Hour })
		i.ca.Fail(status.Error(codes.Unavailable, "not yet"))
		i.want()
		time.Sleep(5 * time.Second)
		i.ca.Fail(nil)
		i.get()
		i.freshToken()
		n := i.asked()
		i.waitFor("a renewal", time.Hour, func() bool { return i.asked() > n })
		keys := map[string]int{}
		for k, r := range i.ca.Requests() {
			if keys[r.CSR]++; k < n && len(keys) != 1 {
				t.Errorf("attempt %d has a key of its own", k)
			}
		}
		if n < 3 || len(keys) != 2 {
			t.Errorf("%d keys in %d requests, of which %d were for the first certificate", len(keys), i.asked(), n)
		}
	})
}

// TestAnotherKindOfTroubleIsLogged, and the same one once only.
func TestAnotherKindOfTroubleIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t)
		for _, code := range []codes.Code{codes.Unavailable, codes.Internal} {
			i.ca.Fail(status.Error(code, "trouble of kind "+code.String()))
			i.want()
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if n := strings.Count(i.log.String(), "trouble of kind "+code.String()); n != 1 {
				t.Errorf("%v is logged %d times", code, n)
			}
		}
	})
}
