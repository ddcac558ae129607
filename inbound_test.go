package proxyless

import (
	"net/netip"
	"sync/atomic"
	"testing"
)

// TestServersOfOnePortAreGovernedAlike has two servers at the same port, as
// listeners of IPv4 and IPv6 or such with SO_REUSEPORT are: the mesh has one
// name for both, and both have to hear its policy.
func TestServersOfOnePortAreGovernedAlike(t *testing.T) {
	f := newFedBy(ViewFull, nil)
	m := f.mesh
	m.config.Node.IP = "10.1.2.3"
	newIn := func() *inbound {
		return &inbound{gate: newGate(&m.config, m.log, &m.counts, nil, nil, &plainPeers{}), refuse: new(atomic.Pointer[Error])}
	}
	one, two := newIn(), newIn()
	v4, v6 := netip.MustParseAddrPort("0.0.0.0:50052"), netip.MustParseAddrPort("[::]:50052")
	m.askInbound(one, v4)
	m.askInbound(two, v6)
	tell := func(policy *listener) {
		state := &resourceState{kind: kindListener, name: m.inboundName(v4), status: statusAccepted, value: policy}
		m.publish(outcome{changed: []*resourceState{state}, affected: []string{state.name}})
	}
	first, second := &listener{name: "first"}, &listener{name: "second"}
	tell(first)
	for i, in := range []*inbound{one, two} {
		if p := in.gate.policy.Load(); p == nil || p.rules != first {
			t.Errorf("server %d has the policy %v", i, p)
		}
	}
	m.releaseInbound(two, v6)
	tell(second)
	if p := one.gate.policy.Load(); p == nil || p.rules != second {
		t.Errorf("once the other has stopped the policy is %v", p)
	}
	m.releaseInbound(one, v4)
	if len(m.inbound) > 0 {
		t.Errorf("still known: %v", m.inbound)
	}
}
