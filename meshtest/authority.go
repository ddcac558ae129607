package meshtest

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
)

// ServerName is the name in the certificate of a control plane with an
// Authority, beside the addresses of this host.
const ServerName = "istiod.istio-system.svc"

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
