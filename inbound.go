package proxyless

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
)

// inbound is what the mesh has said about the calls that a server accepts. asked
// and alarm are guarded by Mesh.mu.
type inbound struct {
	asked  time.Time
	alarm  *time.Timer // rings when the mesh has been silent for long enough
	gate   *gate
	refuse *atomic.Pointer[Error] // the server's
	known  atomic.Bool            // the listener arrived, or counts as absent
}

// askInbound asks the mesh what a server may accept.
func (m *Mesh) askInbound(in *inbound, addr netip.AddrPort) {
	if !addr.IsValid() { // not TCP: the mesh has no name for it
		in.known.Store(true)
		in.gate.govern(noPolicy)
		return
	}
	if m.config.View == ViewLean { // istiod tells a workload of its policy only once it is ready
		in.gate.govern(noPolicy)
		m.log.Warn("part of the mesh's rules is not enforced: "+leanGaps, "advice", "use the full view (Config.View) where calls are to be refused by policy")
	}
	name := m.inboundName(addr)
	m.mu.Lock()
	in.asked, in.alarm = time.Now(), time.AfterFunc(m.config.ResourceTimeout, m.life.refresh)
	m.inbound[name] = append(m.inbound[name], in)
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
	in.alarm.Stop()
	left := slices.DeleteFunc(m.inbound[name], func(other *inbound) bool { return other == in })
	if m.inbound[name] = left; len(left) == 0 {
		delete(m.inbound, name)
	}
	m.mu.Unlock()
	m.ads.do(func(d *discovery, now time.Time) { d.release(now, name) })
}

// inboundAnswered says that a provider need not wait for policy any longer. In
// the lean view istiod finds a workload by its ready pod only and is silent
// about others, so that the first answer of any kind is enough, and the end of
// the timer. In the full view every workload has its listener: until it came,
// nobody is let in.
func (m *Mesh) inboundAnswered(in *inbound) bool {
	m.mu.Lock()
	asked := in.asked
	m.mu.Unlock()
	return in.known.Load() || m.config.View == ViewLean &&
		(m.counts.responses.Load() > 0 || !asked.IsZero() && time.Since(asked) >= m.config.ResourceTimeout)
}

// inboundTrouble is what keeps a provider from doing what the mesh asks of it;
// empty for nothing.
func (m *Mesh) inboundTrouble(in *inbound) string {
	p := in.gate.policy.Load()
	if p == nil && in.known.Load() {
		return noInbound
	}
	if p == nil || p.rules == nil || !p.rules.needsWorkload() {
		return ""
	}
	if c := m.identity.current(); c != nil {
		if !c.expired(time.Now()) || p.rules.takesPlainText() {
			return ""
		}
		if trouble := m.identity.trouble(); trouble != nil {
			return fmt.Sprintf("the mesh demands mutual TLS: %v", trouble)
		}
		return "" // it was renewed just now
	}
	if !m.identity.available() {
		if p.rules.takesPlainText() {
			return "" // who connects with TLS is turned away, and logged
		}
		return "the mesh demands mutual TLS, and there is nowhere to get a certificate from"
	}
	_, trouble := m.identity.wait(ended)
	return fmt.Sprintf("the mesh asks for mutual TLS, and there is no certificate yet: %v", trouble)
}

// noInbound is why a provider in the full view lets nobody in.
const noInbound = "the mesh sent no listener " + virtualInbound + ", so that nobody knows who may connect and call"

// ended is a context that waits for nothing.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// govern applies an inbound listener. What cannot be understood fails closed:
// every call is refused. The absence of a listener that was once received keeps
// its policy, since a workload that turns not ready loses its listener.
func (m *Mesh) govern(in *inbound, state *resourceState) {
	if state == nil || state.status == statusRequested {
		return
	}
	in.known.Store(true)
	defer m.life.refresh()
	l, _ := state.value.(*listener)
	switch {
	case l != nil:
		m.admit(in, l)
		m.refuse(in, state.name, nil)
	case state.status == statusRejected:
		if in.gate.policy.Load() == nil {
			in.gate.govern(noPolicy)
		}
		m.refuse(in, state.name, &Error{Stage: StageProvider, Resource: state.name, Code: codes.PermissionDenied, Reason: "the inbound listener cannot be understood: " + state.rejection,
			Advice: "see the log for the field, and remove the policy that brings it"})
	case in.gate.policy.Load() == nil: // in the full view; in the lean one plain text is taken from the start
		m.log.Error("nobody is let in", keyListener, state.name, keyError, noInbound,
			"advice", "istiod sends it to every sidecar: with another control plane use the lean view (Config.View)")
	}
}

// refuse has a server refuse every call, or lifts that.
func (m *Mesh) refuse(in *inbound, name string, refusal *Error) {
	old := in.refuse.Swap(refusal)
	switch {
	case refusal == nil && old != nil:
		m.log.Info("calls are accepted again", keyListener, name)
	case refusal != nil && (old == nil || old.Reason != refusal.Reason):
		m.log.Error("calls are refused: the mesh demands what this version cannot enforce", keyListener, name, keyError, refusal.Reason, "advice", refusal.Advice)
	}
}

// admit puts a listener's policy in force.
func (m *Mesh) admit(in *inbound, l *listener) {
	if l.needsWorkload() {
		m.identity.want()
	}
	for _, chain := range l.inbound {
		if chain.failure != "" {
			m.tellOnce(l.name+chain.name+chain.failure, func() {
				m.log.Error("calls are refused that this filter chain takes", keyListener, l.name, "chain", chain.name, keyError, chain.failure)
			})
		}
	}
	in.gate.govern(&portPolicy{rules: l})
}

// PlainTextPeers lists from where this process is called in plain text, the
// most recent first: all addresses with an open connection and those that had
// one last, 1000 at most. Probes over gRPC are among them.
func (m *Mesh) PlainTextPeers() []PlainTextPeer { return m.plain.list(time.Now()) }
