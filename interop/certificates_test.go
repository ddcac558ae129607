package interop

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// The tests in this file ask istiod for certificates by hand. They hold what
// the library relies on in istiod's authority.

const certificatesNamespace = "certificates"

// asked is one CreateCertificate.
type asked struct {
	address string           // default the first replica's
	roots   []byte           // PEM that istiod is verified with; default what it publishes
	token   string           // none for none
	present *tls.Certificate // shown to istiod; nil for none
	seconds int64            // validity_duration
	key     crypto.Signer    // default a new one of P-256
	uri     string           // in the CSR; none for none
}

// certificate is what istiod issued.
type certificate struct {
	parts [][]byte // PEM, as they came: the leaf, what signed it, the roots
	leaf  *x509.Certificate
	key   crypto.Signer
}

// ask makes the call.
func (a asked) ask(t testing.TB, l *lab.Lab) (*certificate, error) {
	t.Helper()
	ctx := soon(t)
	if a.key == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		a.key = key
	}
	template := &x509.CertificateRequest{}
	if a.uri != "" {
		uri, err := url.Parse(a.uri)
		must(t, err)
		template.URIs = []*url.URL{uri}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, a.key)
	must(t, err)
	request := protowire.AppendTag(nil, 1, protowire.BytesType)
	request = protowire.AppendBytes(request, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	request = protowire.AppendTag(request, 3, protowire.VarintType)
	request = protowire.AppendVarint(request, uint64(a.seconds))
	var response []byte
	conn := a.dial(t, l)
	if a.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+a.token)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", "Kubernetes")
	err = conn.Invoke(ctx, "/istio.v1.auth.IstioCertificateService/CreateCertificate", &request, &response, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return nil, err
	}
	return issuedBy(t, response, a.key), nil
}

func (a asked) dial(t testing.TB, l *lab.Lab) *grpc.ClientConn {
	t.Helper()
	if a.address == "" {
		a.address = l.Istiod.Secure()
	}
	if a.roots == nil {
		roots, err := l.RootCert(soon(t), "default")
		must(t, err)
		a.roots = roots
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: lab.IstiodName}
	config.RootCAs.AppendCertsFromPEM(a.roots)
	if a.present != nil {
		config.Certificates = []tls.Certificate{*a.present}
	}
	conn, err := grpc.NewClient("passthrough:///"+a.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// issuedBy reads an IstioCertificateResponse: field 1, repeated.
func issuedBy(t testing.TB, response []byte, key crypto.Signer) *certificate {
	t.Helper()
	c := &certificate{key: key}
	for len(response) > 0 {
		number, kind, n := protowire.ConsumeTag(response)
		value, m := protowire.ConsumeBytes(response[n:])
		if number != 1 || kind != protowire.BytesType || m < 0 {
			t.Fatalf("field %d in istiod's answer", number)
		}
		c.parts = append(c.parts, value)
		response = response[n+m:]
	}
	c.leaf = parseAll(t, c.parts[0])[0]
	return c
}

// parseAll reads all certificates of a PEM.
func parseAll(t testing.TB, text []byte) (all []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		must(t, err)
		all = append(all, c)
	}
	return all
}

// chain is the PEM that is shown to peers: all parts but the last.
func (c *certificate) chain() []byte { return bytes.Join(c.parts[:len(c.parts)-1], nil) }

// roots is the PEM of the last part.
func (c *certificate) roots() []byte { return c.parts[len(c.parts)-1] }

func (c *certificate) keyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// pair is the certificate as crypto/tls takes it.
func (c *certificate) pair(t testing.TB) *tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(c.chain(), c.keyPEM(t))
	must(t, err)
	return &pair
}

// pool is the roots as crypto/tls takes them.
func (c *certificate) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.roots())
	return pool
}

// certified is a certificate of istiod's for the service account, for an hour.
func certified(t testing.TB, l *lab.Lab, namespace, account string) *certificate {
	t.Helper()
	serviceAccount(t, l, namespace, account)
	token, err := l.Token(soon(t), namespace, account, time.Hour, lab.IstioAudience)
	must(t, err)
	c, err := asked{token: token, seconds: 3600}.ask(t, l)
	must(t, err)
	return c
}

// names are the URIs of the leaf.
func (c *certificate) names() (names []string) {
	for _, uri := range c.leaf.URIs {
		names = append(names, uri.String())
	}
	return names
}

// TestCertificateLifetimes shows that istiod grants any lifetime from a second
// on, dates certificates back by two minutes, and refuses what is too long
// rather than shortening it.
func TestCertificateLifetimes(t *testing.T) {
	l := suite.Lab(t)
	must(t, l.Namespace(soon(t), certificatesNamespace))
	token := istioToken(t.Context(), t, l, certificatesNamespace)
	const day = 24 * 3600
	for _, c := range []struct{ seconds, granted int64 }{{1, 1}, {30, 30}, {3600, 3600}, {0, day}, {-5, day}, {90 * day, 90 * day}} {
		got, err := asked{token: token, seconds: c.seconds}.ask(t, l)
		must(t, err)
		left, span := time.Until(got.leaf.NotAfter), got.leaf.NotAfter.Sub(got.leaf.NotBefore)
		granted := time.Duration(c.granted) * time.Second
		if left > granted+time.Second || left < granted-10*time.Second {
			t.Errorf("asked for %d s, %v are left", c.seconds, left)
		}
		if span != granted+2*time.Minute {
			t.Errorf("asked for %d s, the certificate spans %v", c.seconds, span)
		}
	}
	_, err := asked{token: token, seconds: 91 * day}.ask(t, l)
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "max allowed TTL") {
		t.Errorf("asked for 91 days: %v", err)
	}
}

// TestCertificateNames shows that who a certificate is for is read off the
// token alone, and that the kind of key does not matter.
func TestCertificateNames(t *testing.T) {
	l := suite.Lab(t)
	must(t, l.Namespace(soon(t), certificatesNamespace))
	token := istioToken(t.Context(), t, l, certificatesNamespace)
	const own = "spiffe://cluster.local/ns/certificates/sa/default"
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	for name, a := range map[string]asked{
		"own name":     {uri: own},
		"no name":      {},
		"another name": {uri: "spiffe://cluster.local/ns/kube-system/sa/admin"},
		"RSA":          {uri: own, key: big},
		"P-384":        {uri: own, key: p384},
	} {
		a.token, a.seconds = token, 60
		c, err := a.ask(t, l)
		must(t, err)
		if got := c.names(); !slices.Equal(got, []string{own}) || len(c.leaf.DNSNames) > 0 || c.leaf.Subject.String() != "" {
			t.Errorf("%s: the certificate is for %q, %q, %q", name, got, c.leaf.DNSNames, c.leaf.Subject)
		}
		if len(c.parts) != 2 || !parseAll(t, c.roots())[0].IsCA {
			t.Errorf("%s: %d parts", name, len(c.parts))
		}
	}
}

// TestCertificateRefused shows who gets none; a certificate of the mesh serves
// in place of a token.
func TestCertificateRefused(t *testing.T) {
	l := suite.Lab(t)
	must(t, l.Namespace(soon(t), certificatesNamespace))
	token := istioToken(t.Context(), t, l, certificatesNamespace)
	for name, bad := range map[string]string{
		"no token":       "",
		"not a token":    "not.a.token",
		"wrong audience": issued(t, l, certificatesNamespace, "https://kubernetes.default.svc"),
		"expired":        signed(t, l, certificatesNamespace, time.Now().Add(-time.Minute), lab.IstioAudience),
	} {
		if _, err := (asked{token: bad, seconds: 60}).ask(t, l); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	first, err := asked{token: token, seconds: 60}.ask(t, l)
	must(t, err)
	if _, err := (asked{present: first.pair(t), seconds: 60}).ask(t, l); err != nil {
		t.Errorf("with a certificate and no token: %v", err)
	}
}

// TestRootsRotate replaces the root of a replica step by step: the answers name
// all roots last, and istiod's own certificate is of the new root at once.
func TestRootsRotate(t *testing.T) {
	l := suite.Lab(t)
	must(t, l.Namespace(soon(t), certificatesNamespace))
	token := istioToken(t.Context(), t, l, certificatesNamespace)
	r := startRotation(t, l)
	ask := func(roots ...*lab.Authority) (*certificate, error) {
		return asked{address: r.istiod.Secure(), roots: lab.Bundle(roots...), token: token, seconds: 60}.ask(t, l)
	}
	expect := func(during string, signer *lab.Authority, roots ...*lab.Authority) {
		t.Helper()
		must(t, lab.WaitFor(within(t, 20*time.Second), during, func(context.Context) error {
			c, err := ask(roots...)
			if err != nil {
				return err
			}
			if !bytes.Equal(c.roots(), lab.Bundle(roots...)) || c.leaf.CheckSignatureFrom(signer.Certificate) != nil {
				return fmt.Errorf("signed by %v, %d parts, %d roots", c.leaf.Issuer, len(c.parts), len(parseAll(t, c.roots())))
			}
			return nil
		}))
	}
	expect("the old root", r.signers[0], r.roots[0])
	r.publishBoth(t)
	expect("both roots", r.signers[0], r.roots...)
	r.signAnew(t)
	expect("the new signer", r.signers[1], r.roots...)
	if _, err := ask(r.roots[0]); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("istiod verified with the old root: %v", err)
	}
	r.dropOld(t)
	expect("the new root alone", r.signers[1], r.roots[1])
}

// rotation is a replica of istiod whose root is replaced.
type rotation struct {
	istiod         *lab.Istiod
	dir            string
	roots, signers []*lab.Authority // the old one and the new one
}

// startRotation starts a replica that signs with the old root.
func startRotation(t testing.TB, l *lab.Lab, env ...string) *rotation {
	t.Helper()
	r := &rotation{dir: filepath.Join(t.TempDir(), "cacerts")}
	for _, name := range []string{"old", "new"} {
		root, err := lab.NewAuthority(name+" root", nil)
		must(t, err)
		signer, err := lab.NewAuthority(name+" signer", root)
		must(t, err)
		r.roots, r.signers = append(r.roots, root), append(r.signers, signer)
	}
	must(t, lab.WriteAuthority(r.dir, r.signers[0], r.roots[0], r.roots[0]))
	replica, err := l.AddIstiod(within(t, 30*time.Second), append(env, "ROOT_CA_DIR="+r.dir, "ISTIO_MULTIROOT_MESH=true")...)
	must(t, err)
	t.Cleanup(replica.Kill)
	r.istiod = replica
	return r
}

// The three steps: both roots are published, the new one signs, the old one goes.
func (r *rotation) publishBoth(t testing.TB) {
	must(t, lab.WriteAuthority(r.dir, r.signers[0], r.roots[0], r.roots...))
}
func (r *rotation) signAnew(t testing.TB) {
	must(t, lab.WriteAuthority(r.dir, r.signers[1], r.roots[1], r.roots...))
}
func (r *rotation) dropOld(t testing.TB) {
	must(t, lab.WriteAuthority(r.dir, r.signers[1], r.roots[1], r.roots[1]))
}

// forged is a certificate of another authority for the name.
func forged(t testing.TB, authority *lab.Authority, name string) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	uri, err := url.Parse(name)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{uri},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority.Certificate, key.Public(), authority.Key)
	must(t, err)
	c := &certificate{key: key, parts: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), authority.PEM}}
	c.leaf = parseAll(t, c.parts[0])[0]
	return c
}
