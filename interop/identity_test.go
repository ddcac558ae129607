package interop

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
)

// TestIdentity has the real istiod certify members, and refuse them.
func TestIdentity(t *testing.T) {
	l, ns := suite.Lab(t), credentialsNamespace
	must(t, l.Namespace(soon(t), ns))
	const id = "spiffe://cluster.local/ns/" + credentialsNamespace + "/sa/default"
	for _, c := range []struct {
		name   string
		change setting
		said   []string // none: there is a certificate
	}{
		{"ECDSA", func(*proxyless.Config) {}, nil},
		{"RSA", func(c *proxyless.Config) { c.Identity.RSABits = 2048 }, nil},
		{"P-384 and a short life", func(c *proxyless.Config) { c.Identity.Curve, c.Identity.Lifetime = "P384", time.Minute }, nil},
		{"by CAAddress, XDS in plain text", func(c *proxyless.Config) {
			c.Identity.CAAddress, c.Identity.CARootFile = c.ControlPlanes[0], c.RootCertFile
			c.ControlPlanes, c.PlainText = []string{l.Istiod.Plain()}, true
		}, nil},
		{"wrong audience", func(c *proxyless.Config) {
			replaceFile(t, c.TokenFile, issued(t, l, ns, "https://kubernetes.default.svc"))
		}, []string{"https://kubernetes.default.svc", "istiod asks for the audience istio-ca"}},
		{"no token", func(c *proxyless.Config) { c.TokenFile += ".absent" }, []string{"there is no token"}},
		{"wrong cluster id", func(c *proxyless.Config) { c.Node.ClusterID = "elsewhere" }, []string{`"elsewhere"`, "ISTIO_META_CLUSTER_ID"}},
		{"another namespace", func(c *proxyless.Config) { c.Node.Namespace = "default" }, []string{`namespace "credentials"`, "POD_NAMESPACE"}},
		{"another trust domain", func(c *proxyless.Config) { c.Node.TrustDomain = "example.org" }, []string{"TRUST_DOMAIN"}},
		{"too long a life", func(c *proxyless.Config) { c.Identity.Lifetime = 365 * 24 * time.Hour }, []string{"TTL", "SECRET_TTL"}},
		{"the plain port", func(c *proxyless.Config) {
			c.Identity.CAAddress, c.Identity.CARootFile = l.Istiod.Plain(), c.RootCertFile
		}, []string{"the port speaks plain text: use 15012"}},
		{"unreachable", func(c *proxyless.Config) {
			c.Identity.CAAddress, c.Identity.CARootFile = lab.IstiodName+":15999", c.RootCertFile
		}, []string{"connection refused", "check CA_ADDR"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var log record
			m := joinConsumer(t, l, ns, log.logTo, c.change)
			defer func() {
				if text := log.String(); strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, "eyJ") {
					t.Errorf("a key or a token is in the log:\n%s", text)
				}
			}()
			if c.said == nil {
				must(t, m.WaitIdentity(within(t, 45*time.Second)))
				s := m.Identity()
				if s.ID != id || s.Trouble != nil || s.Certificates != 1 || len(s.Roots) == 0 || !s.Renewal.Before(s.Expires) {
					t.Errorf("state %+v", s)
				}
				return
			}
			must(t, lab.WaitFor(within(t, 45*time.Second), "WaitIdentity to say why", func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				err := m.WaitIdentity(ctx)
				own := new(proxyless.Error)
				if !errors.As(err, &own) || own.Stage != proxyless.StageIdentity {
					return errors.Join(errors.New("want an error of stage identity"), err)
				}
				for _, part := range c.said {
					if !strings.Contains(own.Error(), part) {
						return errors.Join(errors.New("want an error that says "+part), err)
					}
				}
				return nil
			}))
		})
	}
}
