package proxyless

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// typeProxyConfig is the type under which istiod tells its agents of the roots
// that the mesh trusts besides those of its authority.
const typeProxyConfig = "istio.mesh.v1alpha1.ProxyConfig"

func isProxyConfig(typeURL string) bool {
	return typeURL[strings.LastIndexByte(typeURL, '/')+1:] == typeProxyConfig
}

// decodeProxyConfig reads what counts of an istio.mesh.v1alpha1.ProxyConfig that
// comes by ADS: ca_certificates_pem, of which one element may hold several
// certificates. The result is never nil but with an error. A certificate that
// may not sign others is no root, and spoils all: one that is left out would only
// be missed when a peer is refused.
func decodeProxyConfig(message []byte) ([]*x509.Certificate, error) {
	roots := []*x509.Certificate{}
	texts, all := 0, 0
	c := walk(message)
	for c.next() {
		if c.num != 34 {
			continue
		}
		found, err := rootsOf(c.raw("ca_certificates_pem"))
		if all += len(found); err == nil && all > maxRoots {
			err = fmt.Errorf("more than %d certificates", maxRoots)
		}
		c.fail(inElement("ca_certificates_pem", texts, err))
		roots = union(roots, found)
		texts++
	}
	if c.err != nil {
		return nil, c.err
	}
	return roots, nil
}

func rootsOf(text []byte) ([]*x509.Certificate, error) {
	list, err := parseCertificates(text)
	if err == nil && len(list) == 0 {
		err = errors.New("there is no PEM certificate in it")
	}
	for i, root := range list {
		if err == nil && !root.IsCA {
			err = fmt.Errorf("certificate %d of it is not that of an authority", i+1)
		}
	}
	return list, err
}
