package proxyless

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAProviderThatTakesTLSOnlyIsNotReadyWhileItsCertificateHasExpired lets the
// authority fail for longer than a certificate lives. Nobody asks meanwhile.
func TestAProviderThatTakesTLSOnlyIsNotReadyWhileItsCertificateHasExpired(t *testing.T) {
	mutual := filterChain{match: chainMatch{transport: overTLS}, tls: &tlsContext{identity: secretRef{kind: secretWorkload}}}
	for name, test := range map[string]struct {
		chains []filterChain
		says   string // after the end
	}{
		"STRICT":     {[]filterChain{mutual}, "the mesh demands mutual TLS: "},
		"PERMISSIVE": {[]filterChain{mutual, {match: chainMatch{transport: inClear}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := beginIdentity(t, func(c *Config) { c.Identity.Lifetime = time.Hour })
				m := &Mesh{identity: i.identity}
				in := &inbound{gate: newGate(i.config, i.config.Logger, i.counts, nil, nil, &plainPeers{})}
				in.gate.govern(&portPolicy{rules: &listener{inbound: test.chains}})
				var turns atomic.Int32
				var said atomic.Value // what is in the way, as readiness learnt without being asked
				i.turned = func() { turns.Add(1); said.Store(m.inboundTrouble(in)) }
				if why := m.inboundTrouble(in); !strings.Contains(why, "there is no certificate yet") {
					t.Fatalf("before the first: %q", why)
				}
				i.get()
				synctest.Wait()
				if turns.Load() != 1 || said.Load() != "" {
					t.Fatalf("the first certificate: %d turns, %q", turns.Load(), said.Load())
				}
				i.ca.Fail(errors.New("the authority is being upgraded"))
				time.Sleep(time.Hour + time.Second)
				synctest.Wait()
				if why := said.Load().(string); turns.Load() != 2 || !strings.HasPrefix(why, test.says) || (why == "") != (test.says == "") ||
					why != "" && !strings.Contains(why, "expired at") {
					t.Fatalf("after its end: %d turns, %q", turns.Load(), why)
				}
				i.ca.Fail(nil)
				i.freshToken()
				i.waitFor("a new certificate", 2*time.Minute, func() bool { return turns.Load() == 3 })
				if said.Load() != "" {
					t.Errorf("after renewal: %q", said.Load())
				}
			})
		})
	}
}
