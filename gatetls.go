package proxyless

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
)

const x509ClientAuth = x509.ExtKeyUsageClientAuth

// encrypt speaks TLS with the caller.
func (c *gateConn) encrypt() (credentials.AuthInfo, error) {
	c.traits.transport = overTLS
	var found *admission
	var refused error
	conn := tls.Server(&c.wire, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (config *tls.Config, err error) {
		config, found, refused = c.gate.configFor(c.ctx, c, hello)
		return config, refused
	}})
	if err := conn.HandshakeContext(c.ctx); err != nil {
		return nil, cmp.Or(refused, err)
	}
	state := conn.ConnectionState()
	c.Conn, c.tls = conn, found.chain.tls
	c.facts.encrypted, c.facts.serverName = true, c.traits.serverName
	if len(state.PeerCertificates) > 0 && c.tls.roots.kind != secretNone {
		c.facts.verified, c.facts.names = true, principalNames(state.PeerCertificates[0])
	}
	c.admission.Store(found)
	return tlsInfo(state), nil
}

// configFor is how a connection whose ClientHello came is encrypted.
func (g *gate) configFor(ctx context.Context, c *gateConn, hello *tls.ClientHelloInfo) (*tls.Config, *admission, error) {
	p, err := g.await(ctx)
	if err != nil {
		return nil, nil, err
	}
	c.traits.serverName, c.traits.protocols = strings.ToLower(hello.ServerName), hello.SupportedProtos
	chain, err := p.chainFor(&c.traits)
	if err != nil {
		return nil, nil, err
	}
	t := chain.tls
	if err := t.objection(hello.ServerName); err != nil {
		return nil, nil, fmt.Errorf("filter chain %s: %w", chain.name, err)
	}
	shown, err := g.secrets.certificate(ctx, &t.identity)
	if err == nil && shown == nil {
		err = errNothingToShow
	}
	if err != nil {
		return nil, nil, fmt.Errorf("filter chain %s: the certificate to show: %w", chain.name, hindrance{err})
	}
	verify := func(state tls.ConnectionState) error { return g.verify(ctx, t, &state) }
	return t.serverConfig(shown, hello.SupportedProtos, verify), &admission{p, chain}, nil
}

// objection is why TLS cannot be spoken with a caller.
func (t *tlsContext) objection(serverName string) error {
	switch {
	case t.failure != "":
		return errors.New(t.failure)
	case t.needSNI && serverName == "":
		return errors.New("the caller names no server (SNI), which the mesh demands")
	case t.demands && t.roots.kind == secretNone:
		return errors.New("it demands a certificate of the caller and names nothing to verify it with")
	}
	return nil
}

// verify verifies what the caller showed of itself.
func (g *gate) verify(ctx context.Context, t *tlsContext, state *tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 && !t.demands {
		return nil
	}
	return g.secrets.verifyPeer(ctx, t, state.PeerCertificates, x509ClientAuth, time.Now())
}

// serverConfig is how a server speaks TLS with a caller that offers protocols.
// Of those only HTTP/2 can be spoken; who offers others gets none, as from
// Envoy, and has to speak HTTP/2 all the same. Nothing is resumed: every caller
// is verified.
func (t *tlsContext) serverConfig(shown *tls.Certificate, offered []string, verify func(tls.ConnectionState) error) *tls.Config {
	config := &tls.Config{
		Certificates: []tls.Certificate{*shown}, MinVersion: tls.VersionTLS12, CipherSuites: t.ciphers,
		SessionTicketsDisabled: true, VerifyConnection: verify,
	}
	if t.versions[0] != 0 {
		config.MinVersion = t.versions[0]
	}
	config.MaxVersion = t.versions[1]
	for _, curve := range t.curves {
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveID(curve))
	}
	for _, protocol := range offered {
		if protocol == "h2" {
			config.NextProtos = []string{"h2"}
		}
	}
	switch {
	case t.demands:
		config.ClientAuth = tls.RequireAnyClientCert // verified by verify, with the roots of this moment
	case t.roots.kind != secretNone:
		config.ClientAuth = tls.RequestClientCert
	}
	return config
}

// tlsInfo is what grpc's own TLS credentials tell of a connection.
func tlsInfo(state tls.ConnectionState) credentials.TLSInfo {
	return credentials.TLSInfo{
		State: state, SPIFFEID: spiffeIDOf(state.PeerCertificates),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}
}

// spiffeIDOf is the id that a certificate is for; nil where it has none, or
// more than one URI.
func spiffeIDOf(chain []*x509.Certificate) *url.URL {
	if len(chain) == 0 || len(chain[0].URIs) != 1 || chain[0].URIs[0].Scheme != "spiffe" {
		return nil
	}
	return chain[0].URIs[0]
}
