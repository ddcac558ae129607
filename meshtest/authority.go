package meshtest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// ServerName is the name in the certificate of a control plane with an
// Authority, beside the addresses of this host.
const ServerName = "istiod.istio-system.svc"

// backdate is how long before now certificates of istiod begin to be valid.
const backdate = 2 * time.Minute

// Authority is the certificate authority of a mesh in this process. A control
// plane that was given it ([WithAuthority]) speaks TLS with a certificate from
// it, admits who shows one of its tokens, and signs certificates as istiod does
// (istio.v1.auth.IstioCertificateService). All methods may be called from any
// goroutine.
type Authority struct {
	domain string // constant after construction
	secret []byte // that signs tokens; constant after construction

	// Guarded by mu.
	mu        sync.Mutex
	signer    *signer
	roots     [][]byte // DER, in the order in which they are told
	lifetime  func(asked time.Duration) time.Duration
	failure   error
	clusterID string
	script    func(AuthorityRequest) ([]string, error)
	requests  []AuthorityRequest
	changed   chan struct{} // closed and replaced with each request
}

// signer is a root, or a root with an intermediate below it.
type signer struct {
	certificate *x509.Certificate
	key         crypto.Signer
	chain       [][]byte // DER of intermediates, the signing one first
}

// AuthorityRequest is one call of CreateCertificate, whether it was answered or
// refused.
type AuthorityRequest struct {
	At        time.Time
	CSR       string        // PEM, as it came
	Lifetime  time.Duration // validity_duration
	Token     string        // without "Bearer"; empty for none
	ClusterID string        // header clusterid
	ID        string        // SPIFFE id that the token stands for; empty for a token that is not in order
}

// NewAuthority makes an authority for the trust domain cluster.local.
func NewAuthority(tb TB) *Authority { return NewAuthorityOf(tb, "cluster.local") }

// NewAuthorityOf makes an authority for a trust domain.
func NewAuthorityOf(tb TB, trustDomain string) *Authority {
	tb.Helper()
	a, err := StartAuthority(trustDomain)
	if err != nil {
		tb.Fatalf("meshtest: %v", err)
	}
	return a
}

// StartAuthority is NewAuthorityOf for programs that are no tests.
func StartAuthority(trustDomain string) (*Authority, error) {
	a := &Authority{domain: trustDomain, secret: make([]byte, 32), changed: make(chan struct{})}
	rand.Read(a.secret) // never fails
	return a, a.newRoot()
}

// WithAuthority makes the control plane speak TLS and sign certificates as
// istiod does. Streams are admitted by the authority's tokens where WithAuth
// does not say otherwise.
func WithAuthority(a *Authority) Option {
	return func(o *options) {
		o.authority = a
		o.tls = a.ServerConfig(ServerName)
		if o.auth == nil {
			o.auth = func(md metadata.MD) error {
				_, err := a.admit(md)
				return err
			}
		}
	}
}

// SetLifetime gives certificates another lifetime, counted from now, than the
// one that is asked for. It may be negative. Zero goes back to what is asked for.
func (a *Authority) SetLifetime(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lifetime = nil
	if d != 0 {
		a.lifetime = func(time.Duration) time.Duration { return d }
	}
}

// SetClusterID refuses calls whose clusterid is another one. An empty one
// refuses none.
func (a *Authority) SetClusterID(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clusterID = id
}

// Fail refuses all requests with an error, until it is told nil.
func (a *Authority) Fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failure = err
}

// Answer has f make the answers to requests that are in order: cert_chain, the
// leaf first and the roots last. With nil the authority does so itself again.
func (a *Authority) Answer(f func(AuthorityRequest) ([]string, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.script = f
}

// RotateRoot makes a new root, with which certificates are signed from now on.
// With keep, answers and RootPEM carry the older ones as well.
func (a *Authority) RotateRoot(keep bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.roots
	if err := a.newRoot(); err != nil {
		return err
	}
	if keep {
		a.roots = append(a.roots, old...)
	}
	return nil
}

// Intermediate has certificates signed by a new intermediate below what signed
// so far. The functions change it before it is signed.
func (a *Authority) Intermediate(change ...func(*x509.Certificate)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	below, err := a.signer.newAuthority("intermediate", change...)
	if err == nil {
		a.signer = below
	}
	return err
}

// RootPEM is what the mesh verifies certificates with: the newest root first.
func (a *Authority) RootPEM() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.rootPEM()
}

func (a *Authority) rootPEM() []byte {
	var text []byte
	for _, der := range a.roots {
		text = append(text, certificatePEM(der)...)
	}
	return text
}

// Roots is RootPEM as a pool.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.RootPEM())
	return pool
}

// WriteFiles writes into a directory what a pod has: root-cert.pem and
// istio-token, the token of a service account that is valid for an hour.
func (a *Authority) WriteFiles(dir, namespace, account string) (rootFile, tokenFile string, err error) {
	rootFile, tokenFile = filepath.Join(dir, "root-cert.pem"), filepath.Join(dir, "istio-token")
	err = errors.Join(
		os.WriteFile(rootFile, a.RootPEM(), 0o600),
		os.WriteFile(tokenFile, []byte(a.Token(namespace, account, time.Hour)), 0o600),
	)
	return rootFile, tokenFile, err
}

// ServerConfig is for a server that is known by names and by the addresses of
// this host. It shows a certificate of the newest root.
func (a *Authority) ServerConfig(names ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.issue(func(c *x509.Certificate) {
				c.DNSNames = append(names, "localhost")
				c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.IPv4(192, 0, 2, 1)}
			})
		},
	}
}

// Issue makes a key and a certificate for a SPIFFE id, valid for an hour, for
// both ends of a connection; id may be empty. The functions change the
// certificate before it is signed.
func (a *Authority) Issue(id string, change ...func(*x509.Certificate)) (tls.Certificate, error) {
	var uris []*url.URL
	if id != "" {
		u, err := url.Parse(id)
		if err != nil {
			return tls.Certificate{}, err
		}
		uris = append(uris, u)
	}
	c, err := a.issue(func(c *x509.Certificate) {
		c.URIs = uris
		for _, f := range change {
			f(c)
		}
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	return *c, nil
}

func (a *Authority) issue(change func(*x509.Certificate)) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	der, err := a.signer.sign(key.Public(), change)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, a.signer.chain...), PrivateKey: key, Leaf: leaf}, nil
}

// KeyPEM is the private key of a certificate that Issue made, for tests that
// need files.
func KeyPEM(c tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ChainPEM is the chain of a certificate, the leaf first.
func ChainPEM(c tls.Certificate) []byte {
	var text []byte
	for _, der := range c.Certificate {
		text = append(text, certificatePEM(der)...)
	}
	return text
}

// Requests are all requests so far, in order.
func (a *Authority) Requests() []AuthorityRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]AuthorityRequest(nil), a.requests...)
}

// WaitRequests returns when there were n requests, and fails when ctx ends
// before.
func (a *Authority) WaitRequests(ctx context.Context, n int) error {
	for {
		a.mu.Lock()
		count, changed := len(a.requests), a.changed
		a.mu.Unlock()
		if count >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d requests for certificates, want %d: %w", count, n, ctx.Err())
		}
	}
}

// newRoot makes a root that signs from now on and is the only one. mu is held,
// but at first.
func (a *Authority) newRoot() error {
	root, err := (*signer)(nil).newAuthority("root")
	if err != nil {
		return err
	}
	a.signer, a.roots = root, [][]byte{root.certificate.Raw}
	return nil
}

// newAuthority makes an intermediate, or a root where s is nil.
func (s *signer) newAuthority(name string, change ...func(*x509.Certificate)) (*signer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	made := &signer{key: key}
	parent := s
	if s == nil {
		parent = made
	}
	der, err := parent.sign(key.Public(), func(c *x509.Certificate) {
		c.Subject = pkix.Name{Organization: []string{"meshtest"}, CommonName: fmt.Sprintf("%s %x", name, c.SerialNumber.Bytes()[:4])}
		c.NotAfter = time.Now().Add(10 * 365 * 24 * time.Hour)
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		for _, f := range change {
			f(c)
		}
	})
	if err != nil {
		return nil, err
	}
	if made.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if s != nil {
		made.chain = append([][]byte{der}, s.chain...)
	}
	return made, nil
}

// sign signs a certificate, by itself where the signer has none yet.
func (s *signer) sign(key crypto.PublicKey, change func(*x509.Certificate)) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	serial.SetBit(serial, 120, 1)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-backdate), NotAfter: now.Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	parent := s.certificate
	if parent == nil {
		parent = template
	}
	return x509.CreateCertificate(rand.Reader, template, parent, key, s.key)
}

// create is CreateCertificate. Its caller is who the token says.
func (a *Authority) create(ctx context.Context, message []byte) ([]byte, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	request, err := decodeCertificateRequest(message)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	request.At, request.Token, request.ClusterID = time.Now(), bearer(md), first(md, "clusterid")
	id, refusal := a.admit(md)
	request.ID = id
	a.mu.Lock()
	a.requests = append(a.requests, request)
	close(a.changed)
	a.changed = make(chan struct{})
	failure, script := a.failure, a.script
	a.mu.Unlock()
	switch {
	case failure != nil:
		return nil, failure
	case refusal != nil:
		return nil, refusal
	}
	if script == nil {
		script = a.Sign
	}
	chain, err := script(request)
	if err != nil {
		return nil, err
	}
	return encodeCertificateResponse(chain), nil
}

// Sign is the answer that a request gets: cert_chain, the leaf first, then
// intermediates, and the roots, all in one, last.
func (a *Authority) Sign(request AuthorityRequest) ([]string, error) {
	block, _ := pem.Decode([]byte(request.CSR))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, status.Error(codes.InvalidArgument, "no PEM certificate request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	uri, err := url.Parse(request.ID)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	lifetime := request.Lifetime
	if a.lifetime != nil {
		lifetime = a.lifetime(lifetime)
	}
	der, err := a.signer.sign(csr.PublicKey, func(c *x509.Certificate) {
		c.URIs, c.NotAfter = []*url.URL{uri}, time.Now().Add(lifetime)
	})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	chain := []string{string(certificatePEM(der))}
	for _, der := range a.signer.chain {
		chain = append(chain, string(certificatePEM(der)))
	}
	return append(chain, string(a.rootPEM())), nil
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }
