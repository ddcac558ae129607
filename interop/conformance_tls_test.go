package interop

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/proxyless/proxyless/interop/lab"
)

// tlsRows are the rows about TLS between members of the mesh, and with others.
// Their Service is of a pod that takes both, as PERMISSIVE does.
var tlsRows = []row{
	{name: "tls-auto", about: "the mesh's TLS with pods that are labelled for it", field: "Pod: security.istio.io/tlsMode", lean: notSent,
		yaml: "",
		check: sealed(func(s seen) bool {
			return s.TLS && s.Caller == meshCaller && strings.HasPrefix(s.SNI, "outbound_.50052_._.")
		})},
	{name: "tls-istio-mutual", about: "the mesh's TLS", field: "trafficPolicy.tls.mode: ISTIO_MUTUAL",
		yaml:  rule("tls: {mode: ISTIO_MUTUAL}"),
		check: sealed(func(s seen) bool { return s.TLS && s.Caller == meshCaller })},
	{name: "tls-istio-mutual-plain", about: "the same with a pod that does not speak it: calls are refused, with the reason", field: "trafficPolicy.tls.mode: ISTIO_MUTUAL",
		yaml:  service(governed, "tls-istio-mutual-plain", "governed", grpcPort) + rule("tls: {mode: ISTIO_MUTUAL}"),
		bare:  true,
		check: refusedBecause("TLS")},
	{name: "tls-sni", about: "the name that is asked for", field: "trafficPolicy.tls.sni", lean: notSent,
		yaml:  rule("tls: {mode: ISTIO_MUTUAL, sni: asked.example.com}"),
		check: sealed(func(s seen) bool { return s.TLS && s.SNI == "asked.example.com" })},
	{name: "tls-names", about: "another name than the one that is presented: calls are refused, and both are told", field: "trafficPolicy.tls.subjectAltNames", lean: notSent,
		yaml:  rule("tls: {mode: ISTIO_MUTUAL, subjectAltNames: [expected.example.com]}"),
		check: refusedBecause("expected.example.com")},
	{name: "tls-disable", about: "plain text, also with pods that are labelled", field: "trafficPolicy.tls.mode: DISABLE",
		yaml:  rule("tls: {mode: DISABLE}"),
		check: sealed(func(s seen) bool { return !s.TLS })},
	{name: "tls-simple", about: "TLS without a certificate of one's own", field: "trafficPolicy.tls.mode: SIMPLE", lean: notSent,
		yaml:  rule("tls: {mode: SIMPLE, caCertificates: FILES/root.pem, subjectAltNames: [" + sealedName + "]}"),
		check: sealed(func(s seen) bool { return s.TLS && s.Caller == "" })},
	{name: "tls-unverified", about: "TLS with whoever answers", field: "trafficPolicy.tls.insecureSkipVerify", lean: notSent,
		yaml:  rule("tls: {mode: SIMPLE, insecureSkipVerify: true}"),
		check: sealed(func(s seen) bool { return s.TLS && s.Caller == "" })},
	{name: "tls-mutual", about: "TLS with a certificate from files", field: "trafficPolicy.tls.mode: MUTUAL", lean: notSent,
		yaml:  rule("tls: {mode: MUTUAL, clientCertificate: FILES/cert.pem, privateKey: FILES/key.pem, caCertificates: FILES/root.pem, subjectAltNames: [" + sealedName + "]}"),
		check: sealed(func(s seen) bool { return s.TLS && s.Caller == "spiffe://cluster.local/ns/governed/sa/filed" })},
	{name: "tls-port", about: "for one port", field: "trafficPolicy.portLevelSettings.tls",
		yaml:  rule("portLevelSettings: [{port: {number: 50052}, tls: {mode: ISTIO_MUTUAL}}]"),
		check: sealed(func(s seen) bool { return s.TLS && s.Caller == meshCaller })},
}

// Who is who in these rows.
const (
	meshCaller    = "spiffe://cluster.local/ns/governed/sa/default"
	sealedAccount = "sealed"
	sealedName    = "spiffe://cluster.local/ns/governed/sa/sealed"
)

// sealed looks at how one call came.
func sealed(right func(seen) bool) func(*scene) error {
	return seeing(spec{}, func(s seen) error {
		if !right(s) {
			return unseenf("TLS %v, caller %q, name asked for %q", s.TLS, s.Caller, s.SNI)
		}
		return nil
	})
}

// sealing is the TLS of a pod of the account.
func sealing(t testing.TB, l *lab.Lab, namespace, account string) *tls.Config {
	t.Helper()
	c := certified(t, l, namespace, account)
	return &tls.Config{
		Certificates: []tls.Certificate{*c.pair(t)},
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    c.pool(),
		NextProtos:   []string{"h2"},
	}
}

// sealedFiles writes what rows name files for.
func sealedFiles(t testing.TB, l *lab.Lab) (dir string) {
	t.Helper()
	c, own := certified(t, l, governed, "filed"), certified(t, l, governed, "default")
	dir = t.TempDir()
	for name, text := range map[string][]byte{
		"root.pem": c.roots(), "cert.pem": c.chain(), "key.pem": c.keyPEM(t), "own.pem": own.chain(), "own-key.pem": own.keyPEM(t),
	} {
		replaceFile(t, dir+"/"+name, string(text))
	}
	return dir
}

// seal adds how the connection was made.
func (b *backend) seal(s *seen) {
	b.mu.Lock()
	conn := b.conns[s.Peer]
	b.mu.Unlock()
	if got, ok := conn.(*sniffed); ok {
		if secure, ok := got.inner.(*tls.Conn); ok {
			state := secure.ConnectionState()
			s.TLS, s.SNI = true, state.ServerName
			if len(state.PeerCertificates) > 0 {
				s.Caller = state.PeerCertificates[0].URIs[0].String()
			}
		}
	}
}

// sniffed is a connection whose first byte tells TLS from plain text.
type sniffed struct {
	net.Conn
	config *tls.Config

	once  sync.Once
	inner net.Conn // set by once
	err   error    // set by once
}

func (c *sniffed) open() error {
	c.once.Do(func() {
		var first [1]byte
		_, c.err = io.ReadFull(c.Conn, first[:])
		c.inner = &begun{c.Conn, io.MultiReader(bytes.NewReader(first[:]), c.Conn)}
		if first[0] == 0x16 { // a handshake record
			c.inner = tls.Server(c.inner, c.config)
		}
	})
	return c.err
}

func (c *sniffed) Read(p []byte) (int, error) {
	if err := c.open(); err != nil {
		return 0, err
	}
	return c.inner.Read(p)
}

func (c *sniffed) Write(p []byte) (int, error) {
	if err := c.open(); err != nil {
		return 0, err
	}
	return c.inner.Write(p)
}

// begun is a connection of which some has been read.
type begun struct {
	net.Conn
	reader io.Reader
}

func (b *begun) Read(p []byte) (int, error) { return b.reader.Read(p) }

func init() { inPart("DestinationRule: TLS", tlsRows) }
