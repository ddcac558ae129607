package proxyless

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
)

// wrongPeer is that a peer is somebody else than the mesh expects.
type wrongPeer string

func (e wrongPeer) Error() string { return string(e) }

// untrustedPeer is that the roots do not vouch for a peer.
type untrustedPeer struct {
	text  string
	cause error
}

func (e *untrustedPeer) Error() string { return e.text + ": " + e.cause.Error() }

func (e *untrustedPeer) Unwrap() error { return e.cause }

// advised is a failure that comes with what to do about it: on this side of the
// connection, or of a kind of its own.
type advised struct {
	error
	advice string
}

func (e advised) Unwrap() error { return e.error }

const (
	adviseReach = "check that the provider listens on the Service's targetPort and that nothing blocks the way"
	adviseWho   = "see which service account the pod behind the address runs as; if it is meant, name it in the subjectAltNames of the DestinationRule"
	adviseRoots = "see who signed the provider's certificate: it has to come from this mesh's authority, or from what caCertificates of the DestinationRule names"
	adviseClock = "see why the provider's certificate is not renewed, and compare the clocks of both sides"
	adviseAbove = "replace the certificate of the authority, which is out of its time, or compare the clocks of both sides"
	adviseLabel = "have the provider speak the mesh's TLS, or say that it does not: take the label security.istio.io/tlsMode: istio off its pods, or set tls.mode DISABLE in the DestinationRule"
	adviseShow  = "the provider may want a certificate: set tls.mode ISTIO_MUTUAL or MUTUAL in the DestinationRule; its log says why it ended the connection"
	adviseOurs  = "the provider's log says why it refuses this process's certificate: the roots there have to vouch for it"
	adviseEnd   = "the provider's log says why it ended the connection: it may not speak TLS, or not take this process's certificate"
	adviseState = "see where this process's certificate stands: /security tells"
	adviseAsk   = "have the DestinationRule, or the EnvoyFilter, that says so ask for something else"
	adviseFiles = "see that this container has the files that the DestinationRule or the bootstrap JSON names, readable and in their time"
	advisePins  = "pin the certificate that the provider shows, or have it show one that is pinned"
	adviseSpeak = "have the provider speak HTTP/2 on this port"
	adviseClear = "check that what listens on the Service's targetPort speaks gRPC in plain text: under PeerAuthentication STRICT it does not"
)

// connectAdvice is what to do about a connection that failed, to an endpoint
// that is spoken to in TLS or, where s is nil, in plain text. It is empty where
// the failure says that itself.
func connectAdvice(err error, s *security) string {
	if own := new(Error); errors.As(err, &own) { // of the workload's certificate
		return either(own.Advice == "", adviseState, "")
	}
	if own := (advised{}); errors.As(err, &own) {
		return own.advice
	}
	var who wrongPeer
	var untrusted *untrustedPeer
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &who):
		return adviseWho
	case errors.As(err, &untrusted):
		return untrusted.advice()
	case errors.As(err, &record):
		return adviseLabel
	case s == nil:
		return either(hungUp(err), adviseClear, adviseReach)
	case (refusedByPeer(err) || hungUp(err)) && s.context.identity.kind == secretNone:
		return adviseShow
	case refusedByPeer(err):
		return adviseOurs
	case hungUp(err):
		return adviseEnd
	}
	return adviseReach
}

func (e *untrustedPeer) advice() string {
	if above := (expiredAbove{}); errors.As(e.cause, &above) {
		return adviseAbove
	}
	var invalid x509.CertificateInvalidError
	return either(errors.As(e.cause, &invalid) && invalid.Reason == x509.Expired, adviseClock, adviseRoots)
}

// refusedByPeer says that the peer sent an alert of TLS. crypto/tls has no type
// for one that others can name.
func refusedByPeer(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.HasPrefix(op.Err.Error(), "tls: ")
}

// hungUp says that the peer took the connection and closed it.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
