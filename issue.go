package proxyless

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// issue is what an authority answered, not yet judged.
type issue struct {
	from         string // its address
	key          crypto.Signer
	chain, roots [][]byte // DER
}

// parsed is an issue that was judged.
type parsed struct {
	certificate *tls.Certificate
	id          spiffeID
	roots       []*x509.Certificate
}

// judge reads an answer and refuses what is of no use, or is somebody else's.
func (made *issue) judge(n *Node, now time.Time) (*parsed, error) {
	chain, err := parseAll(made.chain)
	if err != nil {
		return nil, err
	}
	roots, err := parseAll(made.roots)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	if public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(made.key.Public()) {
		return nil, errors.New("the certificate is for another key than the one that was made")
	}
	if err := judgePair(leaf, now); err != nil {
		return nil, err
	}
	id, err := spiffeOf(leaf)
	if err != nil {
		return nil, err
	}
	if err := n.disowns(id); err != nil {
		return nil, err
	}
	// Skewed clocks are judged above; here the chain is looked at as the authority
	// sees it.
	at := now
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	if contains(roots, leaf) {
		return nil, errors.New("the certificate came as its own root")
	}
	trust := newTrustRoots(roots)
	if err := trust.verify(chain, x509.ExtKeyUsageAny, at); err != nil {
		return nil, fmt.Errorf("the certificate does not lead to the root that came with it: %w", err)
	}
	// A workload calls and is called: peers would refuse what the last certificate did.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if err := trust.verify(chain, usage, at); err != nil {
			return nil, fmt.Errorf("the certificate is not for clients and servers both (extended key usage): %w", err)
		}
	}
	made.chain = withoutRoots(chain)
	return &parsed{
		certificate: &tls.Certificate{Certificate: made.chain, PrivateKey: made.key, Leaf: leaf},
		id:          id, roots: roots,
	}, nil
}

func parseAll(ders [][]byte) ([]*x509.Certificate, error) {
	list := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		var err error
		if list[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("a certificate of the answer cannot be read: %w", err)
		}
	}
	return list, nil
}

// withoutRoots is a chain as it is shown to peers.
func withoutRoots(chain []*x509.Certificate) [][]byte {
	n := len(chain)
	for n > 1 && selfSigned(chain[n-1]) {
		n--
	}
	ders := make([][]byte, n)
	for i := range ders {
		ders[i] = chain[i].Raw
	}
	return ders
}

// disowns says how an identity contradicts what the node says of itself.
func (n *Node) disowns(id spiffeID) error {
	for _, part := range []struct{ word, node, given, advice string }{
		{"trust domain", n.TrustDomain, id.domain, "TRUST_DOMAIN or Config.Node.TrustDomain"},
		{"namespace", n.Namespace, id.namespace, "POD_NAMESPACE or Config.Node.Namespace"},
		{"service account", n.ServiceAccount, id.account, "SERVICE_ACCOUNT or Config.Node.ServiceAccount"},
	} {
		if part.node != "" && part.node != part.given {
			return &Error{
				Stage: StageIdentity, Resource: id.text,
				Reason: fmt.Sprintf("the certificate is for the %s %q, and this process says that its %s is %q", part.word, part.given, part.word, part.node),
				Advice: "correct " + part.advice,
			}
		}
	}
	return nil
}
