package proxyless

import (
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// AuditRecord says what the mesh's rules made of a call to a server of this
// process: every call that they refused, and those that an AuthorizationPolicy
// asks to be told of. The caller hears nothing of it but the code.
type AuditRecord struct {
	Time    time.Time
	Method  string         // "/package.Service/Method"; cut off where it is longer than 256 bytes
	Peer    string         // what the caller's certificate calls it, spiffe://...; empty where it showed none
	Address netip.AddrPort // of the caller
	// Code is what the caller was told: PermissionDenied, or Unauthenticated
	// for a token. OK where the call was let through.
	Code codes.Code
	// Action is what was decided by: ALLOW, DENY or AUDIT, the action of an
	// AuthorizationPolicy, or CUSTOM, whose external authorizer is not asked:
	// what it is about is refused; JWT for RequestAuthentication; "shadow ALLOW"
	// and "shadow DENY" for policies under dry run, which would have refused the
	// call. Empty where the listener as a whole cannot be evaluated, and
	// where grpc.Creds of the user's do not do what the mesh asks.
	Action string
	// Policy is the name that istiod gave the rule, such as
	// ns[orders]-policy[viewers]-rule[0], or orders-viewers-0 in the lean view.
	// Empty where none of them matched, and that is why.
	Policy string
	Reason string // in words, with the fields that could not be evaluated
	// Lost is how many records before this one were lost, since they came
	// faster than they were taken.
	Lost uint64
}

// Refused says that the call was refused.
func (r AuditRecord) Refused() bool { return r.Code != codes.OK }

// Tried says that the policy is under dry run.
func (r AuditRecord) Tried() bool { return strings.HasPrefix(r.Action, "shadow ") }

// message is the record's line in the log.
func (r AuditRecord) message() string {
	switch {
	case r.Refused():
		return "a call was refused by the mesh's rules"
	case r.Tried():
		return "a call would have been refused by a policy under dry run"
	}
	return "a call was audited"
}
