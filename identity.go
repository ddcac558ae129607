package proxyless

import (
	"context"
	"crypto/tls"
	"sync/atomic"
	"time"
)

// identity is who this workload is to its peers: a certificate, renewed for as
// long as the Mesh lives.
type identity struct {
	held atomic.Pointer[credential]
}

// credential is one certificate of this workload with what it came with. It is
// immutable.
type credential struct {
	certificate *tls.Certificate // with Leaf
	id          string           // spiffe://domain/ns/namespace/sa/account
	roots       *trustRoots      // what the mesh's certificates are verified with, those of before included while they overlap
	received    time.Time
}

// available says that there is somewhere to get a certificate from. Where there
// is not, the mesh's offers of mutual TLS are not taken, and its demands fail.
func (i *identity) available() bool { return false }

// want says that a certificate is needed, now or soon. It never blocks.
func (i *identity) want() {}

// current is the certificate in force; nil before the first.
func (i *identity) current() *credential { return i.held.Load() }

// wait wants a certificate and waits for the first one. Its error says why
// there is none.
func (i *identity) wait(ctx context.Context) (*credential, error) {
	if c := i.current(); c != nil {
		return c, nil
	}
	return nil, &Error{Stage: StageIdentity, Reason: "there is no certificate yet", Err: ErrNotReady}
}
