package proxyless

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// contact is what is known of one attempt to speak to a control plane or to a
// certificate authority, so that its failure can be explained.
type contact struct {
	config    *Config
	address   string
	plain     bool
	authority bool   // it is asked for a certificate
	rootFile  string // what it was verified with

	token, tokenPath string
	tokenErr         error
}

// explain says what a failure means and what to change.
func (x *contact) explain(err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	err = withoutToken(err, x.token)
	e := &Error{Stage: StageControlPlane, Resource: x.address, Reason: status.Convert(err).Message(), Err: err}
	if x.authority {
		e.Stage, e.Resource = StageIdentity, "authority "+x.address
	}
	text := e.Reason
	if x.authority && status.Code(err) == codes.DeadlineExceeded {
		e.Reason = fmt.Sprintf("there was no answer within %v: %s", askTimeout, text)
	}
	switch {
	case (status.Code(err) == codes.Unauthenticated || status.Code(err) == codes.PermissionDenied) && errors.As(x.tokenErr, &own):
		return own
	case status.Code(err) == codes.Unauthenticated:
		return explainUnauthenticated(x.config, x.token, x.tokenPath, time.Now())
	case status.Code(err) == codes.PermissionDenied:
		if claims, err := parseToken(x.token); err == nil {
			own = claims.contradict(&x.config.Node, x.tokenPath)
		}
		if own != nil {
			return own
		}
		e.Stage, e.Advice = StageIdentity, "the token's namespace and service account must be those of this node: check POD_NAMESPACE and SERVICE_ACCOUNT"
	case x.authority && status.Code(err) == codes.Unimplemented:
		e.Advice = "it signs no certificates: let CA_ADDR name one that does (istiod does unless its ENABLE_CA_SERVER is false)"
	case x.authority && status.Code(err) == codes.InvalidArgument && strings.Contains(text, "TTL"):
		e.Advice = fmt.Sprintf("ask for less than %v with SECRET_TTL or Config.Identity.Lifetime, or raise istiod's MAX_WORKLOAD_CERT_TTL", x.config.Identity.Lifetime)
	case strings.Contains(text, "unknown authority"):
		e.Advice = fmt.Sprintf("%s must hold istiod's root certificate: mount the ConfigMap istio-ca-root-cert there", x.rootFile)
	case strings.Contains(text, "certificate has expired or is not yet valid"):
		e.Advice = compareClocks + ", and look why its own certificate was not renewed"
	case strings.Contains(text, "certificate is valid for"), strings.Contains(text, "cannot validate certificate for"), strings.Contains(text, "not valid for any names"):
		e.Advice = fmt.Sprintf("set %s to a name in istiod's certificate, such as %s, or dial istiod by it", either(x.ownName(), "Config.Identity.CAServerName", "Config.ServerName"), defaultControlPlaneHost)
	case strings.Contains(text, "error reading server preface") && x.plain:
		e.Advice = "the port may speak TLS: use 15010 for plain text, or drop dubbo.registry.secure=plaintext"
	case strings.Contains(text, "first record does not look like a TLS handshake"):
		e.Advice = "the port speaks plain text: use 15012, or set dubbo.registry.secure=plaintext"
		if x.authority {
			e.Advice = "the port speaks plain text: use 15012"
		}
	default:
		e.Advice = "check the registry address, and that istiod runs and can be reached from here"
		if x.ownName() {
			e.Advice = "check CA_ADDR, and that the authority runs and can be reached from here"
		}
	}
	return e
}

// ownName says that what was spoken to is an authority apart from the control
// planes.
func (x *contact) ownName() bool { return x.authority && x.config.Identity.CAAddress != "" }

// withoutToken takes a token out of an error's text. It gets there when a server
// repeats what it was told.
func withoutToken(err error, token string) error {
	if err == nil {
		return nil
	}
	clean := redacted(err.Error(), token)
	if clean == err.Error() {
		return err
	}
	return status.Error(status.Code(err), redacted(status.Convert(err).Message(), token))
}

// redacted hides the parts of a token in a text.
func redacted(text, token string) string {
	for part := range strings.SplitSeq(token, ".") {
		if len(part) >= leastSecret {
			text = strings.ReplaceAll(text, part, hidden)
		}
	}
	return text
}

// leastSecret is the length from which a part of a token is looked for: shorter
// ones stand in any text.
const leastSecret = 6
