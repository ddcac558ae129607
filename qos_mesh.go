package proxyless

import (
	"slices"
	"strings"
	"time"
)

// securityState is what QoS shows of the Mesh.
func (m *Mesh) securityState() securityState {
	s := securityState{Identity: identityView{IdentityState: m.Identity()}, PlainText: m.plain.list(time.Now())}
	if trouble := s.Identity.IdentityState.Trouble; trouble != nil {
		s.Identity.Trouble = trouble.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, servers := range m.inbound { // which have the same policy
		s.Ports = append(s.Ports, newPortState(strings.TrimPrefix(name, inboundPrefix), servers[0].gate.policy.Load()))
	}
	slices.SortFunc(s.Ports, func(a, b portState) int { return strings.Compare(a.Address, b.Address) })
	return s
}
