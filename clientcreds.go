package proxyless

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc/credentials"
)

// clientTLS is the credentials of connections to endpoints that are spoken to
// in TLS. Certificate and roots are those in force at the handshake; sessions
// are never resumed, so that every connection verifies its peer.
type clientTLS struct {
	secrets  *secretStore
	security *security
}

// ClientHandshake waits for the certificate that is shown, then shakes hands.
func (c clientTLS) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := c.config(ctx)
	if err != nil {
		return nil, nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, nil, handshakeError(err)
	}
	state := conn.ConnectionState()
	if p := state.NegotiatedProtocol; p != "" && p != http2Protocol && p != istioProtocol {
		return nil, nil, advised{fmt.Errorf("the peer chose the protocol %q, which is not HTTP/2", p), adviseSpeak}
	}
	info := credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	if leaf := state.PeerCertificates[0]; len(leaf.URIs) == 1 && leaf.URIs[0].Scheme == "spiffe" {
		info.SPIFFEID = leaf.URIs[0]
	}
	if k, _ := credentials.ClientHandshakeInfoFromContext(ctx).Attributes.Value(linkAttribute{}).(*link); k != nil {
		who := fmt.Sprintf("%s, %s", tls.VersionName(state.Version), presented(state.PeerCertificates[0]))
		k.leaf.cell.peer.Store(&who)
	}
	return conn, meshPeer{info}, nil
}

// config is for one handshake.
func (c clientTLS) config(ctx context.Context) (*tls.Config, error) {
	t := c.security.context
	if err := t.disobeyed(); err != nil {
		return nil, err
	}
	if c.secrets == nil {
		return nil, errors.New("the mesh demands TLS, and this process has no certificates to speak it with")
	}
	config := &tls.Config{
		MinVersion:         max(t.versions[0], tls.VersionTLS12),
		MaxVersion:         t.versions[1],
		CipherSuites:       t.ciphers,
		ServerName:         c.security.name,
		NextProtos:         t.offers(),
		InsecureSkipVerify: true, // verify does it, by the mesh's rules
	}
	for _, id := range t.curves {
		config.CurvePreferences = append(config.CurvePreferences, tls.CurveID(id))
	}
	if t.identity.kind != secretNone {
		certificate, err := c.secrets.certificate(ctx, &t.identity)
		if err != nil {
			return nil, missingSecret("the certificate to show", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	config.VerifyConnection = func(state tls.ConnectionState) error { return c.verify(ctx, state.PeerCertificates) }
	return config, nil
}

func (c clientTLS) verify(ctx context.Context, chain []*x509.Certificate) error {
	if err := c.secrets.verifyPeer(ctx, c.security.context, chain, x509.ExtKeyUsageServerAuth, time.Now()); err != nil {
		return err
	}
	for _, host := range c.security.hosts {
		if err := verifyHost(chain[0], host); err != nil {
			return err
		}
	}
	return nil
}

// handshakeError says more of errors that are often met.
func handshakeError(err error) error {
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return fmt.Errorf("the endpoint does not answer in TLS, which the mesh says that it speaks: %w", err)
	}
	return err
}

const (
	http2Protocol    = "h2"
	istioProtocol    = "istio"
	exchangeProtocol = "istio-peer-exchange"
)

// offers are the protocols to offer to a peer (ALPN). By "istio" a sidecar
// knows the mesh's TLS from that of an application; peers that choose
// istio-peer-exchange would send what is not HTTP/2.
func (t *tlsContext) offers() []string {
	offers := slices.DeleteFunc(slices.Clone(t.alpn), func(p string) bool { return p != istioProtocol && p != http2Protocol })
	if t.identity.kind == secretWorkload && !slices.Contains(offers, istioProtocol) {
		offers = append(offers, istioProtocol)
	}
	if !slices.Contains(offers, http2Protocol) {
		offers = append(offers, http2Protocol)
	}
	return offers
}

// meshPeer is a peer whose certificate was verified as the mesh demands. The
// authority of a call is no name of the connection: one carries calls to
// several services.
type meshPeer struct{ credentials.TLSInfo }

// ValidateAuthority accepts what the mesh routed here.
func (meshPeer) ValidateAuthority(string) error { return nil }

// ServerHandshake is never called.
func (clientTLS) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a client's")
}

// Info says what gRPC asks for.
func (clientTLS) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone returns a copy, which may be the same.
func (c clientTLS) Clone() credentials.TransportCredentials { return c }

// OverrideServerName does nothing: the mesh names the server.
func (clientTLS) OverrideServerName(string) error { return nil }
