package proxyless

import (
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A Stage is the link of the chain at which something went wrong, from the
// process's own settings to the endpoint that was to be called.
type Stage string

// The stages, in the order in which a call depends on them.
const (
	StageConfig       Stage = "config"        // the settings of this process
	StageIdentity     Stage = "identity"      // the token and the certificate that prove who this process is
	StageControlPlane Stage = "control plane" // the connection to istiod
	StageListener     Stage = "listener"      // LDS: is there such a service and port
	StageRoute        Stage = "route"         // RDS: which cluster takes the call
	StageCluster      Stage = "cluster"       // CDS: how to reach that cluster
	StageEndpoint     Stage = "endpoint"      // EDS and connections: who answers
	StageProvider     Stage = "provider"      // serving: listening, exporting, draining
)

// Errors that callers may match with [errors.Is].
var (
	// ErrClosed says that the Mesh was closed.
	ErrClosed = errors.New("proxyless: mesh closed")
	// ErrNotReady says that configuration or connections are still missing; a
	// later attempt may succeed.
	ErrNotReady = errors.New("proxyless: not ready")
)

// Error says what happened, at which link of the chain, and what to do about
// it. Calls return it as UNAVAILABLE unless Code says otherwise; it implements
// GRPCStatus, so that [status.FromError] and [status.Code] understand it.
type Error struct {
	Stage    Stage      // the first link that is missing or broken
	Resource string     // its name in the mesh, or the setting's name; may be empty
	Reason   string     // what happened
	Advice   string     // what to change; may be empty
	Chain    string     // every link with its state, for errors of a call; may be empty
	Code     codes.Code // status code of calls; OK means UNAVAILABLE
	Err      error      // the cause, for errors.Is and errors.As; may be nil
}

// Error joins the parts into one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("proxyless: ")
	b.WriteString(string(e.Stage))
	if e.Resource != "" {
		b.WriteString(" ")
		b.WriteString(e.Resource)
	}
	b.WriteString(": ")
	b.WriteString(e.Reason)
	if cause := e.cause(); cause != "" {
		b.WriteString(": ")
		b.WriteString(cause)
	}
	if e.Advice != "" {
		b.WriteString("; ")
		b.WriteString(e.Advice)
	}
	if e.Chain != "" {
		b.WriteString(" [")
		b.WriteString(e.Chain)
		b.WriteString("]")
	}
	return b.String()
}

// cause is the text of Err where the reason does not tell it already.
func (e *Error) cause() string {
	if e.Err == nil || e.Err == ErrClosed || e.Err == ErrNotReady {
		return ""
	}
	text := e.Err.Error()
	if strings.Contains(e.Reason, text) || strings.Contains(text, e.Reason) {
		return ""
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus is the status that a caller of a stub sees.
func (e *Error) GRPCStatus() *status.Status {
	code := e.Code
	if code == codes.OK {
		code = codes.Unavailable
	}
	return status.New(code, e.Error())
}

func either(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}
