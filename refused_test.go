package proxyless

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proxyless/proxyless/meshtest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lying answers requests with certificates of its own root that change makes of
// what would be in order.
func lying(t *testing.T, change func(leaf *x509.Certificate)) func(meshtest.AuthorityRequest) ([]string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"lies"}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return func(r meshtest.AuthorityRequest) ([]string, error) {
		block, _ := pem.Decode([]byte(r.CSR))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return nil, err
		}
		id, err := url.Parse(r.ID)
		if err != nil {
			return nil, err
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), URIs: []*url.URL{id}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
		change(leaf)
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, csr.PublicKey, key)
		return []string{text(der), text(rootDER)}, err
	}
}

// TestACertificateThatPeersWouldRefuseDoesNotReplaceAGoodOne: whatever the
// authority answers, the last good certificate stays, and it is said why.
func TestACertificateThatPeersWouldRefuseDoesNotReplaceAGoodOne(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(t *testing.T, ca *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error)
		want   string
	}{
		"for servers alone": {func(t *testing.T, _ *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error) {
			return lying(t, func(leaf *x509.Certificate) { leaf.ExtKeyUsage = leaf.ExtKeyUsage[1:] })
		}, "extended key usage"},
		"for clients alone": {func(t *testing.T, _ *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error) {
			return lying(t, func(leaf *x509.Certificate) { leaf.ExtKeyUsage = leaf.ExtKeyUsage[:1] })
		}, "extended key usage"},
		"an authority's": {func(t *testing.T, _ *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error) {
			return lying(t, func(leaf *x509.Certificate) {
				leaf.IsCA, leaf.BasicConstraintsValid, leaf.KeyUsage = true, true, x509.KeyUsageCertSign
			})
		}, "that of an authority"},
		"its own root": {func(_ *testing.T, ca *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error) {
			return func(r meshtest.AuthorityRequest) ([]string, error) {
				chain, err := ca.Sign(r)
				return []string{chain[0], chain[0]}, err
			}
		}, "its own root"},
		"not yet valid": {func(t *testing.T, _ *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error) {
			return lying(t, func(leaf *x509.Certificate) { leaf.NotBefore = time.Now().Add(30 * time.Minute) })
		}, "not valid before"},
		"expired": {func(t *testing.T, _ *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error) {
			return lying(t, func(leaf *x509.Certificate) { leaf.NotAfter = time.Now().Add(-time.Minute) })
		}, "compare this host's clock with the authority's"},
		"of another root": {func(t *testing.T, ca *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error) {
			return func(r meshtest.AuthorityRequest) ([]string, error) {
				chain, err := ca.Sign(r)
				return []string{chain[0], string(meshtest.NewAuthority(t).RootPEM())}, err
			}
		}, "cacerts"},
		"below one that ended": {func(t *testing.T, _ *meshtest.Authority) func(meshtest.AuthorityRequest) ([]string, error) {
			signer := meshtest.NewAuthority(t)
			if err := signer.Intermediate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }); err != nil {
				t.Fatal(err)
			}
			return signer.Sign
		}, "does not lead to the root"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := meshtest.NewAuthority(t)
				i := beginIdentityAt(t, ca, func(c *Config) { c.Identity.Lifetime = time.Hour })
				first := i.get()
				ca.Answer(test.answer(t, ca))
				time.Sleep(45 * time.Minute)
				synctest.Wait()
				if c := i.current(); c.certificate != first.certificate || !sameRoots(c.roots.list, first.roots.list) {
					t.Errorf("%s came into force", c.id)
				}
				if trouble := i.trouble(); trouble == nil || !strings.Contains(trouble.Error(), test.want) || trouble.Advice == "" {
					t.Errorf("the trouble is %v", trouble)
				}
			})
		})
	}
}

// TestACertificateEndsWithThoseAboveIt: from then on peers refuse it, however
// long it would live by itself.
func TestACertificateEndsWithThoseAboveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, signer := beginIdentity(t), meshtest.NewAuthority(t)
		end := time.Now().Add(time.Hour)
		if err := signer.Intermediate(func(c *x509.Certificate) { c.NotAfter = end }); err != nil {
			t.Fatal(err)
		}
		i.ca.Answer(signer.Sign)
		first := i.get()
		if s := i.state(); !s.Expires.Equal(end) || s.Renewal.After(time.Now().Add(31*time.Minute)) {
			t.Errorf("state %+v", s)
		}
		i.ca.Fail(status.Error(codes.Unavailable, "the authority is gone"))
		time.Sleep(time.Hour + time.Minute)
		synctest.Wait()
		if trouble := i.trouble(); trouble == nil || !strings.Contains(trouble.Error(), "the authority's own certificate expired at") {
			t.Errorf("after its end: %v", trouble)
		}
		i.ca.Fail(nil)
		i.freshToken()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if i.current().certificate != first.certificate {
			t.Error("a certificate below one that ended came into force")
		}
		if err := signer.RotateRoot(true); err != nil {
			t.Fatal(err)
		}
		i.waitFor("a new certificate", 2*time.Minute, func() bool { return i.current().certificate != first.certificate })
		if i.trouble() != nil {
			t.Error(i.trouble())
		}
	})
}

// TestASecretFileThatBreaksLaterIsLogged once, and that it is in order again.
func TestASecretFileThatBreaksLaterIsLogged(t *testing.T) {
	ca, dir := meshtest.NewAuthority(t), t.TempDir()
	writePair(t, ca, dir, "spiffe://cluster.local/ns/a/sa/b", time.Hour)
	cert, key := filepath.Join(dir, certChainName), filepath.Join(dir, certKeyName)
	var log lockedText
	store := newSecretStore(nil, nil, slog.New(slog.NewTextHandler(&log, nil)))
	ref := &secretRef{kind: secretFile, name: cert, key: key}
	look := func() {
		t.Helper()
		for range 3 {
			if _, err := store.certificate(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
		}
	}
	look()
	good, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if log.String() != "" {
		t.Errorf("logged %s", log.String())
	}
	replace(t, key, []byte("-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"))
	look()
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, certChainName) || strings.Contains(text, "c2VjcmV0") || strings.Contains(text, "secret ") {
		t.Errorf("logged %s", text)
	}
	replace(t, key, good)
	look()
	if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "in order again") {
		t.Errorf("logged %s", text)
	}
}

// TestAnAuthorityThatIsNotNamedIsNotVerifiedSilently: settings about it that
// count for nothing are said.
func TestAnAuthorityThatIsNotNamedIsNotVerifiedSilently(t *testing.T) {
	for name, test := range map[string]struct {
		env  map[string]string
		said bool
	}{
		"nobody":  {nil, true},
		"CA_ADDR": {map[string]string{"CA_ADDR": "ca:15012"}, false},
	} {
		_, notes, err := Config{Application: "greeting", Identity: Identity{CARootFile: "/ca.pem", CAServerName: "ca"}}.withDefaults(fakeEnvironment(test.env, nil))
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(notes, "\n")
		for _, field := range []string{"Identity.CARootFile", "Identity.CAServerName"} {
			if strings.Contains(text, field) != test.said {
				t.Errorf("%s: notes %q", name, notes)
			}
		}
	}
}

// TestRootsFoundByNameDoNotVouchForAValidatorsDomains: a SPIFFE validator's
// bundles stay where roots are named beside them, too.
func TestRootsFoundByNameDoNotVouchForAValidatorsDomains(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	validator := rawProto{}.msg(12, rawProto{}.packed(2, typeSPIFFEValidator, rawProto{}.msg(1, rawProto{}.text(1, "other.domain").msg(2, rawProto{}.text(3, string(ca.RootPEM()))))))
	for name, common := range map[string]rawProto{
		"combined": rawProto{}.msg(8, rawProto{}.msg(1, validator).msg(2, rawSDS("ROOTCA"))),
		"provider": rawValidated(validator.msg(13, rawProto{}.text(1, "default"))),
	} {
		t.Run(name, func(t *testing.T) {
			d := &decoding{}
			context := &tlsContext{}
			if err := d.upstreamTLS(rawUpstream(common), context); err != nil || context.failure != "" {
				t.Fatalf("%v, %s", err, context.failure)
			}
			if context.roots.inline == nil || context.roots.inline.domains["other.domain"] == nil {
				t.Errorf("roots %s", context.roots.text())
			}
		})
	}
}

// TestAFileWithAnExpiredCertificateDoesNotReplaceAGoodOne: nor does one of later
// or of an authority.
func TestAFileWithAnExpiredCertificateDoesNotReplaceAGoodOne(t *testing.T) {
	for name, change := range map[string]func(*x509.Certificate){
		"expired":        func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"of later":       func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) },
		"an authority's": func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const id = "spiffe://cluster.local/ns/demo/sa/greeter"
				dir, ca := t.TempDir(), meshtest.NewAuthority(t)
				writePair(t, ca, dir, id, 10*time.Hour)
				i := beginIdentityAt(t, ca, func(c *Config) { c.Identity.useDirectory(dir) })
				first := i.get()
				bad, err := ca.Issue(id, change)
				if err != nil {
					t.Fatal(err)
				}
				key, err := meshtest.KeyPEM(bad)
				if err != nil {
					t.Fatal(err)
				}
				replace(t, filepath.Join(dir, certKeyName), key)
				replace(t, filepath.Join(dir, certChainName), meshtest.ChainPEM(bad))
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if i.current().certificate != first.certificate {
					t.Error("it came into force")
				}
				if i.trouble() == nil {
					t.Error("nothing is said")
				}
			})
		})
	}
}

// TestAHalfWrittenRootFileIsNotTaken: pem.Decode passes over what has no end.
func TestAHalfWrittenRootFileIsNotTaken(t *testing.T) {
	one, other := meshtest.NewAuthority(t).RootPEM(), meshtest.NewAuthority(t).RootPEM()
	both := string(one) + string(other)
	for name, text := range map[string]string{
		"no end":               both[:len(both)-20],
		"half of a block":      both[:len(one)+100],
		"begun":                string(one) + "-----BEGIN CERT",
		"broken in the middle": string(one[:100]) + "\n" + string(other),
	} {
		if roots, err := parseRoots([]byte(text)); err == nil {
			t.Errorf("%s: %d roots", name, len(roots.list))
		}
	}
	if roots, err := parseRoots([]byte("# two\n" + string(one) + "# and\n" + string(other))); err != nil || len(roots.list) != 2 {
		t.Errorf("both: %v", err)
	}
}

// TestARootFileThatBreaksLaterIsLogged once; the roots of before stay.
func TestARootFileThatBreaksLaterIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t)
		roots := i.get().roots
		replace(t, i.config.RootCertFile, i.ca.RootPEM()[:100])
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := strings.Count(i.log.String(), "cannot be read again"); n != 1 || i.current().roots != roots {
			t.Errorf("logged %d times:\n%s", n, i.log)
		}
	})
}
