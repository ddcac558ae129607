package proxyless

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
)

// bundleMapJSON is a SPIFFE bundle map: for each trust domain a JWK set, of
// which the certificates count (SPIFFE Trust Domain and Bundle, 4; gRFC A87).
type bundleMapJSON struct {
	Domains map[string]struct {
		Keys []struct {
			Use   string   `json:"use"`
			Type  string   `json:"kty"`
			Chain []string `json:"x5c"`
		} `json:"keys"`
	} `json:"trust_domains"`
}

// parseBundleMap reads a SPIFFE bundle map. A domain without keys is known and
// trusts nobody. Keys of other uses, and of types that are not known, are passed
// over, as the specification demands.
func parseBundleMap(text []byte) (*trustRoots, error) {
	var raw bundleMapJSON
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, fmt.Errorf("it is no SPIFFE bundle map: %w", err)
	}
	if raw.Domains == nil {
		return nil, errors.New("it is no SPIFFE bundle map: trust_domains is missing")
	}
	r := &trustRoots{domains: make(map[string]*x509.CertPool, len(raw.Domains))}
	for domain, bundle := range raw.Domains {
		if !isTrustDomain(domain) {
			return nil, fmt.Errorf("%q is no trust domain", domain)
		}
		pool := x509.NewCertPool()
		for i, key := range bundle.Keys {
			if key.Use != "x509-svid" || key.Type != "RSA" && key.Type != "EC" {
				continue
			}
			root, err := bundleRoot(key.Chain)
			if err != nil {
				return nil, fmt.Errorf("trust_domains[%q].keys[%d]: %w", domain, i, err)
			}
			if len(r.list) == maxRoots {
				return nil, fmt.Errorf("there are more than %d certificates in it", maxRoots)
			}
			pool.AddCert(root)
			r.list = append(r.list, root)
		}
		r.domains[domain] = pool
	}
	return r, nil
}

func bundleRoot(chain []string) (*x509.Certificate, error) {
	if len(chain) != 1 {
		return nil, fmt.Errorf("x5c holds %d certificates instead of one", len(chain))
	}
	der, err := base64.StdEncoding.DecodeString(chain[0])
	if err != nil {
		return nil, errors.New("x5c is not base64")
	}
	return x509.ParseCertificate(der)
}
