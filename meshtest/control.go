package meshtest

import "strings"

// SetService adds a Service or replaces it, and pushes what changed to the
// clients that watch it.
func (c *ControlPlane) SetService(s Service) {
	s = s.clone()
	c.update(func(w *world) { w.set(s) })
}

// SetServices adds or replaces many Services in one change, so that clients are
// pushed to once.
func (c *ControlPlane) SetServices(list ...Service) {
	c.update(func(w *world) {
		for _, s := range list {
			w.set(s.clone())
		}
	})
}

// SetEndpoints replaces the endpoints of a Service; only its assignments are
// pushed. A Service that is not known is left unknown.
func (c *ControlPlane) SetEndpoints(name, namespace string, endpoints ...Endpoint) {
	c.update(func(w *world) {
		for _, s := range w.services {
			if s.Name == name && s.Namespace == namespace {
				s.Endpoints = append([]Endpoint(nil), endpoints...)
				w.set(s)
			}
		}
	})
}

// RemoveService removes a Service: its listeners and clusters are absent from
// then on, its route configurations and assignments empty.
func (c *ControlPlane) RemoveService(name, namespace string) {
	c.update(func(w *world) {
		for fqdn, s := range w.services {
			if s.Name == name && s.Namespace == namespace {
				w.remove(fqdn)
			}
		}
	})
}

// SetResource serves value under a type and a name, in place of what the
// Services say. The bytes are sent as they are, broken ones too.
func (c *ControlPlane) SetResource(typeURL, name string, value []byte) {
	o := &override{value: append([]byte(nil), value...)}
	c.update(func(w *world) { w.setOverride(resourceKey{typeURL, name}, o) })
}

// HideResource leaves a resource out of every response, though a Service or
// SetResource says that it exists.
func (c *ControlPlane) HideResource(typeURL, name string) {
	c.update(func(w *world) { w.setOverride(resourceKey{typeURL, name}, &override{hidden: true}) })
}

// RemoveResource takes back SetResource and HideResource.
func (c *ControlPlane) RemoveResource(typeURL, name string) {
	c.update(func(w *world) {
		w.setOverride(resourceKey{typeURL, name}, nil)
		if addr, ok := strings.CutPrefix(name, inboundPrefix); ok && typeURL == ListenerType {
			w.setInbound(addr, nil)
		}
	})
}

// SetInbound sets the policy of the server at addr, an ip:port. In the lean view
// it is given an inbound listener of that address; without SetInbound there is
// none, as for one that no Service selects. In the full view the policy is that
// of the port's filter chains in the virtualInbound of a node with that address,
// of every node where the ip is 0.0.0.0 or [::]. With port 0 it is that of all
// ports without one of their own; without it those are Permissive.
func (c *ControlPlane) SetInbound(addr string, in Inbound) {
	in.Filters = append([]HTTPFilter(nil), in.Filters...)
	in.Policies = append([]AuthorizationPolicy(nil), in.Policies...)
	c.update(func(w *world) { w.setInbound(addr, &in) })
}

// RemoveInbound takes back SetInbound.
func (c *ControlPlane) RemoveInbound(addr string) {
	c.update(func(w *world) { w.setInbound(addr, nil) })
}

// SetMeshRoots names certificates in PEM that the mesh trusts besides those of its
// authority, as meshConfig.caCertificates does for an istiod that runs with
// ISTIO_MULTIROOT_MESH=true; each text may hold several. They take the place of
// those before, and there may be none. Before the first SetMeshRoots whoever asks
// for them is not answered, as by any other istiod.
func (c *ControlPlane) SetMeshRoots(roots ...[]byte) {
	var config []byte
	for _, pem := range roots {
		config = appendString(config, 34, string(pem))
	}
	c.SetResource(ProxyConfigType, "", config)
}

// SetEgress says what clients in the full view do with calls to what is no
// Service; in the beginning that is AllowAny.
func (c *ControlPlane) SetEgress(e Egress) {
	c.update(func(w *world) { w.setEgress(e) })
}

// Disconnect ends every stream with Unavailable. The control plane goes on to
// listen.
func (c *ControlPlane) Disconnect() {
	var stuck []string
	c.mu.Lock()
	for s := range c.streams {
		if s.ending {
			continue
		}
		s.ending = true
		close(s.gone)
		if s.sending.Load() {
			stuck = append(stuck, s.client)
		}
	}
	c.mu.Unlock()
	// A handler that waits for a client to read cannot return before its
	// connection is closed.
	for _, client := range stuck {
		c.gate.cut(client)
	}
}

// Freeze keeps every connection open and lets nothing through, neither answers
// nor the acknowledgement of pings, as when the process is stopped or the
// network lost. New connections are accepted and stay silent.
func (c *ControlPlane) Freeze() { c.gate.setShut(true) }

// Thaw ends what Freeze began; what was held back goes out.
func (c *ControlPlane) Thaw() { c.gate.setShut(false) }

// Mute stops the responses of the given types while all else goes on, as when
// istiod has nothing to say: a client has only its timer then.
func (c *ControlPlane) Mute(typeURLs ...string) { c.setMuted(typeURLs, true) }

// Unmute sends what Mute held back.
func (c *ControlPlane) Unmute(typeURLs ...string) { c.setMuted(typeURLs, false) }

func (c *ControlPlane) setMuted(typeURLs []string, muted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range typeURLs {
		if muted {
			c.muted[t] = true
		} else {
			delete(c.muted, t)
		}
	}
	c.wakeLocked()
}

// Inject sends bytes as one response on every open stream, whatever they are;
// see DiscoveryResponse, and DeltaDiscoveryResponse for streams of the delta
// protocol. What the client answers is recorded and else ignored,
// since its nonce is none of the control plane's.
func (c *ControlPlane) Inject(response []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		s.inject = append(s.inject, append([]byte{}, response...))
	}
	c.wakeLocked()
}
