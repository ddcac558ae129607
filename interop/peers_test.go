package interop

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The peers in this file are without the library, and without a proxy: a client
// or server of grpc-go with a certificate of istiod's, as a sidecar presents
// itself.

// istioALPN is what a sidecar offers for HTTP/2.
var istioALPN = []string{"istio-peer-exchange", "istio", "h2"}

// dialTLS connects as a sidecar does: it shows the certificate where there is
// one, and takes any peer that the mesh's roots vouch for.
func dialTLS(t testing.TB, address string, c *certificate, roots *x509.CertPool, alpn ...string) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{
		InsecureSkipVerify: true, // the names of the mesh are no host names; the chain is verified below
		NextProtos:         alpn,
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
			for _, above := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(above)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	}
	if c != nil {
		config.Certificates = []tls.Certificate{*c.pair(t)}
	}
	return dialWith(t, address, credentials.NewTLS(config))
}

// dialPlain connects without TLS.
func dialPlain(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	return dialWith(t, address, insecure.NewCredentials())
}

func dialWith(t testing.TB, address string, transport credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// bareClient is a client without the library of what the providers of this
// package export.
func bareClient(conn *grpc.ClientConn) greetpb.GreetingServiceClient {
	return versioned{greetpb.NewGreetingServiceClient(conn)}
}

// bareServer serves the greeting with a certificate, to clients with one.
func bareServer(t testing.TB, address string, c *certificate) {
	t.Helper()
	config := &tls.Config{
		Certificates: []tls.Certificate{*c.pair(t)},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    c.pool(),
		NextProtos:   []string{"h2"},
	}
	serve(t, address, func(s *grpc.Server) { greetpb.RegisterGreetingServiceServer(s, behind("bare")) }, grpc.Creds(credentials.NewTLS(config)))
}

// sayHello is the path of the one method of the greeting.
const sayHello = "/" + greetings + "/sayHello"

// outcome calls a path, of the greeting or any other, with headers, and returns
// how it ended. Unimplemented means that the call was let in, for a path that
// nothing serves.
func outcome(t testing.TB, conn grpc.ClientConnInterface, path string, headers ...string) error {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(within(t, 10*time.Second), append(headers, "tri-service-version", version)...)
	err := conn.Invoke(ctx, path, &greetpb.SayHelloRequest{}, &greetpb.SayHelloReply{})
	if path != sayHello && status.Code(err) == codes.Unimplemented {
		return nil
	}
	return err
}

// staysOpen reads from a connection without TLS, over which HTTP/2 has begun,
// until it is closed, and returns how long that took.
func staysOpen(t testing.TB, conn net.Conn, limit time.Duration) (time.Duration, bool) {
	t.Helper()
	began := time.Now()
	must(t, conn.SetReadDeadline(began.Add(limit)))
	for buffer := make([]byte, 4096); ; {
		if _, err := conn.Read(buffer); err != nil {
			var timeout net.Error
			return time.Since(began), errors.As(err, &timeout) && timeout.Timeout()
		}
	}
}

// greetRaw opens a connection without TLS and begins HTTP/2 on it.
func greetRaw(t testing.TB, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	_, err = conn.Write(append([]byte(preface), 0, 0, 0, 4, 0, 0, 0, 0, 0)) // empty SETTINGS
	must(t, err)
	return conn
}

// untilEach waits until all clients take their checks at once.
func untilEach(t testing.TB, what string, checks map[greetpb.GreetingServiceClient]func(string, error) error) {
	t.Helper()
	for client, check := range checks {
		eventually(t, what, client, check)
	}
}

// coded takes a call that ended with one of the codes.
func coded(want ...codes.Code) func(string, error) error {
	return func(_ string, err error) error {
		if slices.Contains(want, status.Code(err)) {
			return nil
		}
		return errors.Join(errors.New("the call ended otherwise"), err)
	}
}

// quiet fails the test where a text says more to a caller than that it is refused.
func quiet(t testing.TB, err error, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the caller is told %q: %v", secret, err)
		}
	}
}

func containsAny(text string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(text, part) })
}
