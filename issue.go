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
	end         time.Time // from which on peers refuse it
}

// What can be done about an answer that is of no use.
const (
	askAnother    = "check what answers at this address: it must sign certificates for workloads, as istiod does"
	compareClocks = "compare this host's clock with the authority's"
	mendAuthority = "the authority's own certificates do not fit together; istiod has them from the secret cacerts of its namespace, whose cert-chain.pem must lead to its root-cert.pem"
)

// judge reads an answer and refuses what is of no use, or is somebody else's.
func (made *issue) judge(n *Node, now time.Time) (*parsed, *Error) {
	chain, err := parseAll(made.chain)
	if err != nil {
		return nil, made.unfit(err, askAnother)
	}
	roots, err := parseAll(made.roots)
	if err != nil {
		return nil, made.unfit(err, askAnother)
	}
	id, trouble := made.judgeLeaf(chain[0], n, now)
	if trouble != nil {
		return nil, trouble
	}
	end, trouble := made.judgeChain(chain, roots, now)
	if trouble != nil {
		return nil, trouble
	}
	return &parsed{
		certificate: &tls.Certificate{Certificate: withoutRoots(chain), PrivateKey: made.key, Leaf: chain[0]},
		id:          id, roots: roots, end: end,
	}, nil
}

// unfit is the trouble with a certificate that came and is not taken.
func (made *issue) unfit(err error, advice string) *Error {
	return &Error{Stage: StageIdentity, Resource: "authority " + made.from, Reason: "what came cannot be used: " + err.Error(), Advice: advice, Err: err}
}

// judgeLeaf says whom a certificate is for.
func (made *issue) judgeLeaf(leaf *x509.Certificate, n *Node, now time.Time) (id spiffeID, trouble *Error) {
	if public, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(made.key.Public()) {
		return id, made.unfit(errors.New("the certificate is for another key than the one that was made"), askAnother)
	}
	if err := judgePair(leaf, now); err != nil {
		return id, made.unfit(err, either(leaf.IsCA, askAnother, compareClocks))
	}
	id, err := spiffeOf(leaf)
	if err != nil {
		return id, made.unfit(err, askAnother)
	}
	return id, n.disowns(id)
}

// judgeChain says until when peers take a chain: a certificate that stands above
// the leaf may end before it.
func (made *issue) judgeChain(chain, roots []*x509.Certificate, now time.Time) (end time.Time, trouble *Error) {
	if contains(roots, chain[0]) {
		return end, made.unfit(errors.New("the certificate came as its own root"), askAnother)
	}
	// Skewed clocks were judged with the leaf; here the chain is looked at as the
	// authority sees it.
	at := now
	if at.Before(chain[0].NotBefore) {
		at = chain[0].NotBefore
	}
	trust := newTrustRoots(roots)
	paths, err := trust.paths(chain, x509.ExtKeyUsageAny, at)
	if err != nil {
		return end, made.unfit(fmt.Errorf("the certificate does not lead to the root that came with it: %w", err), mendAuthority)
	}
	// A workload calls and is called: peers would refuse what the last certificate did.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if err := trust.verify(chain, usage, at); err != nil {
			return end, made.unfit(fmt.Errorf("the certificate is not for clients and servers both (extended key usage): %w", err), askAnother)
		}
	}
	return endOf(paths), nil
}

// endOf is until when a peer finds a path to a root.
func endOf(paths [][]*x509.Certificate) (end time.Time) {
	for _, path := range paths {
		first := path[0].NotAfter
		for _, above := range path[1:] {
			if above.NotAfter.Before(first) {
				first = above.NotAfter
			}
		}
		if first.After(end) {
			end = first
		}
	}
	return end
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
func (n *Node) disowns(id spiffeID) *Error {
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
