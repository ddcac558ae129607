package proxyless

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// inbound is what the mesh has said about the calls that a server accepts. asked
// is guarded by Mesh.mu.
type inbound struct {
	asked  time.Time
	refuse *atomic.Pointer[Error] // the server's
	known  atomic.Bool            // the listener arrived, or counts as absent
}

// askInbound asks the mesh what a server may accept.
func (m *Mesh) askInbound(in *inbound, addr netip.AddrPort) {
	if !addr.IsValid() { // not TCP: the mesh has no name for it
		in.known.Store(true)
		return
	}
	name := m.inboundName(addr)
	m.mu.Lock()
	in.asked = time.Now()
	m.inbound[name] = in
	m.mu.Unlock()
	m.ads.do(func(d *discovery, now time.Time) { d.refer(now, name) })
}

// inboundName is the listener of what a server accepts.
func (m *Mesh) inboundName(addr netip.AddrPort) string {
	ip := addr.Addr().Unmap()
	if own, err := netip.ParseAddr(m.config.Node.IP); err == nil && ip.IsUnspecified() {
		ip = own
	}
	return inboundPrefix + netip.AddrPortFrom(ip, addr.Port()).String()
}

// releaseInbound takes back what askInbound asked.
func (m *Mesh) releaseInbound(in *inbound, addr netip.AddrPort) {
	if !addr.IsValid() {
		return
	}
	name := m.inboundName(addr)
	m.mu.Lock()
	if m.inbound[name] == in {
		delete(m.inbound, name)
	}
	m.mu.Unlock()
	m.ads.do(func(d *discovery, now time.Time) { d.release(now, name) })
}

// inboundAnswered says that a provider need not wait for policy any longer. In
// the lean view istiod finds a workload by its ready pod only and is silent
// about others, so that the first answer of any kind is enough; in the full
// view every workload has its listener. The end of the timer is enough in both.
func (m *Mesh) inboundAnswered(in *inbound) bool {
	m.mu.Lock()
	asked := in.asked
	m.mu.Unlock()
	return in.known.Load() || m.config.View == ViewLean && m.counts.responses.Load() > 0 || !asked.IsZero() && time.Since(asked) >= m.config.ResourceTimeout
}

// govern applies an inbound listener. Policy that cannot be evaluated here
// fails closed: every call is refused. The absence of a listener that was once
// received keeps its policy, since a workload that turns not ready loses its
// listener.
func (m *Mesh) govern(in *inbound, state *resourceState) {
	if state == nil || state.status == statusRequested {
		return
	}
	in.known.Store(true)
	l, _ := state.value.(*listener)
	var refusal *Error
	switch {
	case l != nil:
		refusal = l.refusal()
	case state.status == statusRejected:
		refusal = &Error{Stage: StageProvider, Resource: state.name, Code: codes.PermissionDenied, Reason: "the inbound listener cannot be understood: " + state.rejection,
			Advice: "see the log for the field, and remove the policy that brings it"}
	default:
		return
	}
	old := in.refuse.Swap(refusal)
	switch {
	case refusal == nil && old != nil:
		m.log.Info("calls are accepted again", keyListener, state.name)
	case refusal != nil && (old == nil || old.Reason != refusal.Reason):
		m.log.Error("calls are refused: the mesh demands what this version cannot enforce", keyListener, state.name, keyError, refusal.Reason, "advice", refusal.Advice)
	}
}

// refusal is why no call may be accepted under an inbound listener; nil when
// plain text without authorization is what the mesh asks for.
func (l *listener) refusal() *Error {
	e := &Error{Stage: StageProvider, Resource: l.name, Code: codes.PermissionDenied}
	for _, chain := range l.inbound {
		if chain.failure == "" && len(chain.filters) > 0 {
			chain.failure = "its rules are not evaluated"
		}
		if chain.failure != "" {
			e.Reason = fmt.Sprintf("filter chain %s: %s", chain.name, chain.failure)
			e.Advice = "remove the AuthorizationPolicy of this workload"
			return e
		}
	}
	for _, chain := range l.inbound {
		if chain.tls == nil {
			return nil
		}
	}
	e.Reason = "the mesh demands mutual TLS, which is not spoken"
	e.Advice = "set PeerAuthentication to PERMISSIVE or DISABLE, and remove the label security.istio.io/tlsMode"
	return e
}
