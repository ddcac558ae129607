package proxyless

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// The errors of calls that the mesh does not let in. They tell the caller
// nothing of why: that is for the audit record.
var (
	errDenied          = &Error{Stage: StageProvider, Reason: "access denied", Code: codes.PermissionDenied}
	errUnauthenticated = &Error{Stage: StageProvider, Reason: "the token of the call is not accepted", Code: codes.Unauthenticated}
)

// errGone is that of a call on a connection which the caller should have left.
var errGone = &Error{Stage: StageProvider, Reason: leaveReason, Advice: "connect anew", Code: codes.Unavailable}

// claimsKey is the context key of the claims of a call.
type claimsKey struct{}

// judge asks the filters of the chain that admitted the call's connection. Where
// they found or changed something it returns a context with that for the
// handler, else nil.
func (g *gate) judge(ctx context.Context, method string) (context.Context, error) {
	if g == nil {
		return nil, nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, nil // not from a connection: a test
	}
	addr, ok := p.LocalAddr.(*gateAddr)
	if !ok {
		return g.judgeForeign(ctx, p, method)
	}
	c := addr.conn
	if speaker := c.speaker.Load(); speaker != nil {
		speaker.calls.Add(1)
	}
	if c.deaf() {
		return nil, errGone
	}
	chain := c.admission.Load().chain
	if chain == nil || chain.failure == "" && len(chain.filters) == 0 {
		return nil, nil
	}
	return g.ask(ctx, chain, &c.facts, method)
}

// refused says that no call may be served, where that is so: the listener could
// never be understood. The reason is for the audit record, and never for who
// calls.
func (g *gate) refused(ctx context.Context, reason *atomic.Pointer[Error], method string) error {
	if reason == nil {
		return nil
	}
	why := reason.Load()
	if why == nil {
		return nil
	}
	if g != nil {
		g.deny(method, factsFrom(ctx), why.Reason)
	}
	return errDenied
}

// factsFrom is what is known of a handler's caller.
func factsFrom(ctx context.Context) *peerFacts {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	if addr, ok := p.LocalAddr.(*gateAddr); ok {
		return &addr.conn.facts
	}
	if proven, ok := ctx.Value(provenKey{}).(*peerFacts); ok {
		return proven
	}
	return &peerFacts{remote: addrPortOf(p.Addr), local: addrPortOf(p.LocalAddr)}
}

// deny notes a call that no filter was asked about, since it is refused
// whatever they say.
func (g *gate) deny(method string, facts *peerFacts, reason string) {
	if g.audit != nil {
		g.audit.report(method, &callFacts{peer: facts}, &ruling{code: codes.PermissionDenied, reason: reason})
	}
}

// ask asks the filters of a chain.
func (g *gate) ask(ctx context.Context, chain *filterChain, facts *peerFacts, method string) (own context.Context, err error) {
	call := newCallFacts(facts, incomingMetadata(ctx), method)
	defer call.release()
	r := chain.authorize(call)
	if g.audit != nil {
		g.audit.report(method, call, &r)
	}
	switch r.code {
	case codes.OK:
	case codes.Unauthenticated:
		return nil, errUnauthenticated
	default:
		return nil, errDenied
	}
	if call.edited {
		ctx = metadata.NewIncomingContext(ctx, call.headers.md)
		own = ctx
	}
	if call.claims != nil {
		own = context.WithValue(ctx, claimsKey{}, call.claims)
	}
	return own, nil
}
