package proxyless

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// verifyPeer verifies the certificate that a peer showed, the leaf first, as a
// TLS context asks for: its chain, its names, its hashes. Of a context that
// asks for nothing it accepts anybody.
func (s *secretStore) verifyPeer(ctx context.Context, t *tlsContext, chain []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	if err := t.disobeyed(); err != nil {
		return err
	}
	if t.roots.kind == secretNone && len(t.names)+len(t.hashes)+len(t.keys) == 0 {
		return nil
	}
	if len(chain) == 0 {
		return errors.New("the peer shows no certificate")
	}
	if t.roots.kind != secretNone {
		roots, err := s.roots(ctx, &t.roots)
		if err != nil {
			return missingSecret("the roots to verify the peer with", err)
		}
		if roots == nil {
			return errors.New("there are no roots to verify the peer's certificate with")
		}
		if err := roots.verify(chain, usage, now); err != nil {
			return &untrustedPeer{"the peer's certificate, for " + presented(chain[0]) + ", is not trusted", err}
		}
	}
	if err := t.verifyNames(chain[0]); err != nil {
		return err
	}
	return t.verifyHashes(chain[0])
}

// disobeyed is why no handshake can be as the context asks; nil where it can.
func (t *tlsContext) disobeyed() error {
	if t.failure == "" {
		return nil
	}
	return advised{errors.New(t.failure), adviseAsk}
}

// missingSecret says which secret could not be had.
func missingSecret(what string, err error) error {
	if own := new(Error); errors.As(err, &own) { // the workload's own, which says itself what to do
		return err
	}
	return advised{fmt.Errorf("%s cannot be had: %w", what, err), adviseFiles}
}

// verifyNames asks for one of the names, where there are any.
func (t *tlsContext) verifyNames(leaf *x509.Certificate) error {
	if len(t.names) == 0 {
		return nil
	}
	all := certNames(leaf)
	for i := range t.names {
		for j := range all {
			if t.names[i].matches(&all[j]) {
				return nil
			}
		}
	}
	return somebodyElse(t.expected(), leaf)
}

// verifyHashes asks for one of the hashes, where there are any.
func (t *tlsContext) verifyHashes(leaf *x509.Certificate) error {
	if len(t.hashes)+len(t.keys) == 0 {
		return nil
	}
	certificate, key := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	if slices.Contains(t.hashes, certificate) || slices.Contains(t.keys, key) {
		return nil
	}
	return advised{fmt.Errorf("the peer's certificate is none of the pinned ones (verify_certificate_hash, verify_certificate_spki): presented %s with SHA-256 %x", presented(leaf), certificate), advisePins}
}

// verifyHost asks for a name among those of the certificate.
func verifyHost(leaf *x509.Certificate, host string) error {
	if host == "" {
		return errors.New("the mesh wants the certificate to be for the host of the call, which names none")
	}
	all := certNames(leaf)
	for i := range all {
		if all[i].kind == sanDNS && dnsNameMatches(host, all[i].text) || all[i].kind != sanDNS && all[i].text == host {
			return nil
		}
	}
	return somebodyElse(host, leaf)
}

func somebodyElse(expected string, leaf *x509.Certificate) error {
	return wrongPeer(fmt.Sprintf("the peer's certificate is for somebody else: expected %s, presented %s", expected, presented(leaf)))
}

// mostNamed is how many names an error has.
const mostNamed = 8

// presented is whom a certificate is for.
func presented(leaf *x509.Certificate) string {
	var names []string
	for _, n := range certNames(leaf) {
		names = append(names, n.String())
	}
	if len(names) == 0 {
		return fmt.Sprintf("no subject alternative name (subject %q)", leaf.Subject.String())
	}
	return aFewOf(names)
}

// expected is whom a context asks for.
func (t *tlsContext) expected() string {
	var names []string
	for i := range t.names {
		names = append(names, t.names[i].String())
	}
	return aFewOf(names)
}

func aFewOf(names []string) string {
	if more := len(names) - mostNamed; more > 0 {
		names = append(names[:mostNamed:mostNamed], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
