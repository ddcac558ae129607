package proxyless

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// trustRoots is what certificates are verified with: roots for all, or for each
// trust domain its own. It is immutable.
type trustRoots struct {
	pool    *x509.CertPool            // for those of no domain below; nil is none
	domains map[string]*x509.CertPool // by trust domain (gRFC A87, Envoy's SPIFFE validator); nil is none
	list    []*x509.Certificate       // all that was put into the above; nil of the system's roots
	named   int                       // how many at the end of list nothing but the mesh's configuration names
}

// maxRoots bounds the certificates that one file, answer or bundle may hold.
const maxRoots = 1000

// newTrustRoots makes roots for all.
func newTrustRoots(list []*x509.Certificate) *trustRoots {
	return &trustRoots{pool: poolOf(list), list: list}
}

func poolOf(list []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, root := range list {
		pool.AddCert(root)
	}
	return pool
}

// systemTrustRoots are the roots of this host.
func systemTrustRoots() (*trustRoots, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("this host's root certificates cannot be read: %w", err)
	}
	return &trustRoots{pool: pool}, nil
}

// parseRoots reads roots from PEM. Unlike [x509.CertPool.AppendCertsFromPEM] it
// fails over what it cannot read: a root that is left out would only be missed
// when a peer is refused.
func parseRoots(text []byte) (*trustRoots, error) {
	list, err := parseCertificates(text)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return newTrustRoots(list), nil
}

// parseCertificates reads all certificates of a PEM text; what stands between
// them is passed over, as are blocks of other kinds.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	if err := wholePEM(text); err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return list, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if len(list) == maxRoots {
			return nil, fmt.Errorf("there are more than %d certificates in it", maxRoots)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of it cannot be read: %w", len(list)+1, err)
		}
		list = append(list, c)
	}
}

// wholePEM says that some block of a text is broken, or was not written to its
// end yet: [pem.Decode] passes over it.
func wholePEM(text []byte) error {
	begun := bytes.Count(text, []byte("-----BEGIN "))
	read := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		read++
	}
	if read < begun {
		return fmt.Errorf("%d of its %d PEM blocks cannot be read", begun-read, begun)
	}
	return nil
}

// verify verifies a chain, the leaf first, for a purpose at a time. Where roots
// are by trust domain, those of the leaf's domain count and no others.
func (r *trustRoots) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	_, err := r.paths(chain, usage, now)
	return err
}

// paths is verify, and how the roots were reached.
func (r *trustRoots) paths(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) ([][]*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, errors.New("there is no certificate")
	}
	pool, err := r.poolFor(chain[0])
	if err != nil {
		return nil, err
	}
	paths, err := chain[0].Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: poolOf(chain[1:]), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired && !invalid.Cert.Equal(chain[0]) {
		err = expiredAbove{invalid}
	}
	return paths, err
}

// expiredAbove is that not the certificate itself is out of its time, but one of
// those above it.
type expiredAbove struct{ x509.CertificateInvalidError }

func (e expiredAbove) Error() string {
	return fmt.Sprintf("that of %q, which vouches for it: %s", e.Cert.Subject, e.CertificateInvalidError.Error())
}

func (e expiredAbove) Unwrap() error { return e.CertificateInvalidError }

// poolFor finds the roots for a leaf, and never none: to crypto/x509 no pool
// means the system's.
func (r *trustRoots) poolFor(leaf *x509.Certificate) (*x509.CertPool, error) {
	switch {
	case r == nil:
		return nil, errNoRoots
	case r.domains == nil && r.pool == nil:
		return nil, errNoRoots
	case r.domains == nil:
		return r.pool, nil
	}
	id, err := spiffeOf(leaf)
	if err == nil {
		if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
			return nil, errors.New("the certificate may sign others, which that of a workload may not")
		}
		if pool := r.domains[id.domain]; pool != nil {
			return pool, nil
		}
		err = fmt.Errorf("there are no roots for the trust domain %s", strconv.Quote(id.domain))
	}
	if r.pool != nil {
		return r.pool, nil
	}
	return nil, err
}

var errNoRoots = errors.New("there are no roots to verify it with")

// selfSigned says that a certificate is signed with its own key: a root.
func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil
}

// sameRoots says that two lists hold the same certificates in the same order.
func sameRoots(a, b []*x509.Certificate) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

// union is a list with those of another that it lacks.
func union(list, more []*x509.Certificate) []*x509.Certificate {
	for _, c := range more {
		if !contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

// overlap says that two lists have a certificate in common.
func overlap(a, b []*x509.Certificate) bool {
	return slices.ContainsFunc(b, func(c *x509.Certificate) bool { return contains(a, c) })
}

func contains(list []*x509.Certificate, c *x509.Certificate) bool {
	return slices.ContainsFunc(list, c.Equal)
}
