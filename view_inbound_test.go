package proxyless

import (
	"strings"
	"testing"
	"time"
)

// TestAPortWithAListenerOfItsOwn: the ingress of a Sidecar with the captureMode
// NONE takes a port out of virtualInbound.
func TestAPortWithAListenerOfItsOwn(t *testing.T) {
	const address, own = "10.0.0.1:50051", "10.0.0.1_50051"
	const in, out = 1, directionOutbound
	listenerOf := func(name, chain string, direction uint64) rawResource {
		manager := rawManager(rawRouter)
		if direction == out {
			manager = manager.msg(3, rawRDS)
		}
		return rawResource{typeURL: kindListener.typeURL(), value: []byte(rawProto{}.text(1, name).num(16, direction).
			msg(3, rawChain(chain, manager, "")))}
	}
	common := listenerOf(virtualInbound, "virtual", in)
	broken := rawResource{typeURL: kindListener.typeURL(), value: []byte(rawProto{}.text(1, own).num(16, in))}
	for name, tt := range map[string]struct {
		steps [][]rawResource
		want  string // the chain; else what the rejection says
	}{
		"none":                  {[][]rawResource{{common}}, "virtual"},
		"its own":               {[][]rawResource{{common, listenerOf(own, "own", in)}}, "own"},
		"its own comes later":   {[][]rawResource{{common}, {common, listenerOf(own, "own", in)}}, "own"},
		"its own goes":          {[][]rawResource{{common, listenerOf(own, "own", in)}, {common}}, "virtual"},
		"its own alone":         {[][]rawResource{{listenerOf(own, "own", in)}}, "own"},
		"the way out":           {[][]rawResource{{common, listenerOf(own, "out", out)}}, "virtual"},
		"another port's":        {[][]rawResource{{common, listenerOf("10.0.0.1_50052", "other", in)}}, "virtual"},
		"another address'":      {[][]rawResource{{common, listenerOf("10.0.0.2_50051", "other", in)}}, "virtual"},
		"never understood":      {[][]rawResource{{common, broken}}, "missing"},
		"not understood later":  {[][]rawResource{{common, listenerOf(own, "own", in)}, {common, broken}}, "own"},
		"not understood, gone":  {[][]rawResource{{common, broken}, {common}}, "virtual"},
		"the way out, then not": {[][]rawResource{{common, listenerOf(own, "out", out)}, {common, listenerOf(own, "own", in)}}, "own"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiscovery(15 * time.Second)
			d.useFullView("ns", "cluster.local")
			now := time.Now()
			d.refer(now, inboundPrefix+address)
			d.connect(now, false)
			for _, resources := range tt.steps {
				d.receive(now, adsResponse{version: "1", nonce: "1", typeURL: kindListener.typeURL(), resources: resources})
				d.take()
			}
			e := d.entries[kindListener][inboundPrefix+address]
			if l, _ := e.value.(*listener); l != nil {
				if len(l.inbound) != 1 || l.inbound[0].name != tt.want {
					t.Errorf("chains %+v, want %s", l.inbound, tt.want)
				}
			} else if e.status != statusRejected || !strings.Contains(e.rejection, tt.want) {
				t.Errorf("%v, %q", e.status, e.rejection)
			}
		})
	}
}
