package proxyless

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// spiffeID is an identity as SPIFFE writes it: spiffe://domain/path. Istio's
// paths are ns/<namespace>/sa/<service account>.
type spiffeID struct {
	text               string
	domain             string
	namespace, account string // empty where the path is not of Istio's form
}

// maxSPIFFE is the greatest length of a SPIFFE id (SPIFFE-ID, 2.3).
const maxSPIFFE = 2048

// parseSPIFFE reads a SPIFFE id. What is not of the form that the specification
// demands is none: two programs must not read one id in two ways.
func parseSPIFFE(text string) (spiffeID, error) {
	rest, ok := strings.CutPrefix(text, "spiffe://")
	if !ok {
		return spiffeID{}, errors.New("it does not begin with spiffe://")
	}
	if len(text) > maxSPIFFE {
		return spiffeID{}, fmt.Errorf("it is longer than %d bytes", maxSPIFFE)
	}
	domain, path, _ := strings.Cut(rest, "/")
	if !isTrustDomain(domain) {
		return spiffeID{}, errors.New("its trust domain is none")
	}
	id := spiffeID{text: text, domain: domain}
	if len(rest) == len(domain) {
		return id, nil
	}
	parts := strings.Split(path, "/")
	for _, part := range parts {
		if part == "" || part == "." || part == ".." || strings.Trim(part, idLetters+upperLetters) != "" {
			return spiffeID{}, errors.New("its path is none")
		}
	}
	if len(parts) == 4 && parts[0] == "ns" && parts[2] == "sa" {
		id.namespace, id.account = parts[1], parts[3]
	}
	return id, nil
}

const (
	idLetters    = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
	upperLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func isTrustDomain(text string) bool {
	return text != "" && len(text) <= 255 && strings.Trim(text, idLetters) == ""
}

// spiffeOf reads the SPIFFE id of a certificate, which has exactly one URI
// (X509-SVID, 2).
func spiffeOf(leaf *x509.Certificate) (spiffeID, error) {
	var uri certName
	n := 0
	for _, name := range certNames(leaf) {
		if name.kind == sanURI {
			uri = name
			n++
		}
	}
	if n != 1 {
		return spiffeID{}, fmt.Errorf("the certificate has %d URIs, and a SPIFFE id is the only one", n)
	}
	id, err := parseSPIFFE(uri.text)
	if err != nil {
		return spiffeID{}, fmt.Errorf("the certificate's URI %s is no SPIFFE id: %w", uri, err)
	}
	return id, nil
}

// istioID is the SPIFFE id of a service account.
func istioID(domain, namespace, account string) string {
	return "spiffe://" + domain + "/ns/" + namespace + "/sa/" + account
}
