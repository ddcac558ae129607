package proxyless

import (
	"crypto/x509"
	"errors"
	"time"
)

// trustRoots is what certificates are verified with: roots for all, or for each
// trust domain its own. It is immutable.
type trustRoots struct {
	pool    *x509.CertPool            // for those of no domain below; nil is none
	domains map[string]*x509.CertPool // by trust domain (gRFC A87, Envoy's SPIFFE validator); nil is none
}

// verify verifies a chain, the leaf first, for a purpose at a time.
func (r *trustRoots) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	return errors.New("not built yet")
}
