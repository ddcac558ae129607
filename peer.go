package proxyless

import (
	"context"
	"crypto/x509"
	"net"
	"net/url"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Peer is who makes a call, as far as it was proven.
type Peer struct {
	// Address is where the call comes from.
	Address net.Addr
	// Encrypted says that the connection speaks TLS.
	Encrypted bool
	// Verified says that the caller showed a certificate which was verified
	// with the mesh's roots. All that follows but Claims is empty without. What
	// grpc.Creds of the user's verified with roots of their own is not: see
	// gRPC's peer.FromContext for that.
	Verified bool
	// ID is the SPIFFE id of the certificate, spiffe://domain/ns/namespace/sa/account,
	// whose parts are the next three. It is empty for a certificate without
	// one, and the three are for an id of another form.
	ID             string
	TrustDomain    string
	Namespace      string
	ServiceAccount string
	// Certificate is what the caller showed. It is shared and must not be
	// changed.
	Certificate *x509.Certificate

	claims *tokenClaimSet
}

// Claim finds a claim of the call's verified token (RequestAuthentication) by
// its path, of the names of nested objects: Claim("sub"), Claim("realm", "roles").
// Values are as encoding/json has them: string, float64, bool, nil, []any and
// map[string]any. They must not be changed.
func (p *Peer) Claim(path ...string) (value any, ok bool) {
	return p.claims.lookup(append([]string{claimsPayload}, path...))
}

// claimsPayload is the key under which istiod has the claims of a token kept.
const claimsPayload = "payload"

// PeerFrom tells a handler who makes its call. It reports false for a context
// that is not a handler's.
func PeerFrom(ctx context.Context) (Peer, bool) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return Peer{}, false
	}
	p := Peer{Address: from.Addr}
	p.claims, _ = ctx.Value(claimsKey{}).(*tokenClaimSet)
	info, isTLS := from.AuthInfo.(credentials.TLSInfo)
	p.Encrypted = isTLS
	if facts := factsFrom(ctx); facts.verified {
		p.Verified = true
		p.identify(info.State.PeerCertificates[0])
	}
	return p, true
}

// identify takes what a certificate says.
func (p *Peer) identify(leaf *x509.Certificate) {
	p.Certificate = leaf
	id := spiffeIDOf([]*x509.Certificate{leaf})
	if id == nil {
		return
	}
	p.ID, p.TrustDomain = id.String(), id.Host
	p.Namespace, p.ServiceAccount = accountOf(id)
}

// accountOf is the namespace and the service account of an id of Istio's form.
func accountOf(id *url.URL) (namespace, account string) {
	parts := strings.Split(id.Path, "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return "", ""
	}
	return parts[2], parts[4]
}
