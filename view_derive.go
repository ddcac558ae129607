package proxyless

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// deriveListeners derives all listeners again where something changed.
func (d *discovery) deriveListeners(k kind) {
	v := d.view
	if t := &d.types[k]; !t.answered {
		t.answered, v.stale = true, true
	}
	if !v.stale {
		return
	}
	v.stale = false
	clear(v.routes)
	for _, name := range slices.Sorted(maps.Keys(v.held[kindListener])) {
		for _, route := range v.held[kindListener][name].routes {
			if _, named := v.routes[route]; !named {
				v.routes[route] = name
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.entries[kindListener])) {
		if e := d.entries[kindListener][name]; e != nil {
			v.derive(d, e)
		}
	}
}

// derive makes the listener that is referred to.
func (v *fullView) derive(d *discovery, e *entry) {
	address, inbound := strings.CutPrefix(e.name, inboundPrefix)
	switch host, port := splitPort(e.name); {
	case !d.types[kindListener].answered, !inbound && !d.types[kindCluster].answered:
	case inbound:
		v.deriveInbound(d, e, address)
	case port == "":
		v.deriveFamily(d, e, host)
	default:
		v.derivePort(d, e, host, port)
	}
}

// deriveFamily makes a listener without a port, which has one member for each
// port of the service.
func (v *fullView) deriveFamily(d *discovery, e *entry, host string) {
	var names []string
	var members []*entry
	for _, port := range v.portsOf(host) {
		names = append(names, host+":"+port)
		members = append(members, d.want(kindListener, host+":"+port))
	}
	if e.status != statusRequested && slices.Equal(names, e.ports) {
		return
	}
	state := resourceState{kind: kindListener, name: e.name, status: statusAccepted, ports: names, version: v.version[kindCluster], since: d.now}
	if len(names) == 0 {
		state.status, state.version = statusAbsent, ""
	}
	e.resourceState = &state
	d.touch(e)
	d.link(e, members)
}

// derivePort makes the listener of one port.
func (v *fullView) derivePort(d *discovery, e *entry, host, port string) {
	p, absence := v.passage(d, host, port)
	if absence != nil {
		v.refuse(d, e, absence)
		return
	}
	route := p.route()
	old := d.entries[kindRoute][route] // a new one is derived when it is wanted
	turned := old != nil && v.passages[route] != p
	v.passages[route] = p
	h := v.held[kindListener][v.routes[p.table]]
	digest := v.digest(d, route, h)
	if e.status != statusAccepted || e.hash != digest || e.rejection != "" {
		l := &listener{name: e.name}
		var got decoded
		if h != nil && p.table != "" {
			var err error
			if got, err = d.safeDecode(kindListener, h.bytes); err != nil {
				v.rejectListener(d, e, err)
				return
			}
			if f := got.value.(*listener).forwarder(p.table); f != nil {
				l.forwarding = *f
			}
		}
		l.routeName = route
		e.hash = digest
		d.set(e, resourceState{status: statusAccepted, value: l, applied: got.applied, ignored: got.ignored, version: v.version[kindListener], since: d.now})
	}
	if turned {
		v.deriveRoute(d, old)
	}
}

// rejectListener keeps the last good listener, once for each reason. What could
// be read when it came is refused by strict mode.
func (v *fullView) rejectListener(d *discovery, e *entry, err error) {
	if e.rejection != err.Error() {
		d.reject(e, v.version[kindListener], err)
	}
}

// digest stands for what a derived listener is made of.
func (v *fullView) digest(d *discovery, what string, h *holding) uint64 {
	b := []byte(what)
	if h != nil {
		b = binary.LittleEndian.AppendUint64(b, h.hash)
	}
	return maphash.Bytes(d.seed, b)
}

// forwarder is the part of a sidecar's listener that uses a route
// configuration.
func (l *listener) forwarder(routeName string) *forwarding {
	for i := range l.outbound {
		if http := l.outbound[i].http; http != nil && http.routeName == routeName {
			return http
		}
	}
	return nil
}

// refuse applies the mesh's word that there is no such thing.
func (v *fullView) refuse(d *discovery, e *entry, why *absence) {
	if e.status != statusAbsent || e.reason != why.reason {
		e.hash = 0
		d.set(e, resourceState{status: statusAbsent, reason: why.reason, advice: why.advice, since: d.now})
	}
}

// absence is why there is no listener or route.
type absence struct{ reason, advice string }

// deriveInbound makes the listener of one port that a server listens on: all
// the chains that may take connections there, which the gate chooses from.
func (v *fullView) deriveInbound(d *discovery, e *entry, address string) {
	h := v.inboundAt(address)
	if h == nil {
		if e.status == statusRequested {
			d.absent(e)
		}
		return
	}
	if h.failure != "" {
		v.rejectListener(d, e, errors.New(h.failure))
	}
	digest := v.digest(d, address, h)
	if h.failure != "" || e.status == statusAccepted && e.hash == digest && e.rejection == "" {
		return
	}
	got, err := d.safeDecode(kindListener, h.bytes)
	if err != nil {
		v.rejectListener(d, e, err)
		return
	}
	all := got.value.(*listener)
	to, _ := netip.ParseAddrPort(address)
	l := &listener{name: e.name, inbound: all.atPort(to.Port())}
	e.hash = digest
	d.set(e, resourceState{status: statusAccepted, value: l, applied: got.applied, ignored: got.ignored, version: v.version[kindListener], since: d.now})
}

// inboundAt is what has the chains of a port: virtualInbound, or where the
// ingress of a Sidecar has the captureMode NONE a listener of its own. One that
// could never be read may be that, and then virtualInbound must not do.
func (v *fullView) inboundAt(address string) *holding {
	if h := v.held[kindListener][ownInbound(address)]; h != nil && (h.inbound || h.bytes == nil) {
		return h
	}
	return v.held[kindListener][virtualInbound]
}

// ownInbound is how istiod names a listener that is bound to an address.
func ownInbound(address string) string {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	return to.Addr().String() + "_" + strconv.Itoa(int(to.Port()))
}

// meanings is what a host may stand for, the likeliest first. istiod completes
// short names in the same way when it makes the domains of virtual hosts.
func (v *fullView) meanings(host string) []string {
	host = strings.ToLower(host)
	labels := strings.Split(host, ".")
	switch {
	case len(labels) == 1:
		return []string{host + "." + v.namespace + ".svc." + v.domain, host}
	case len(labels) == 2:
		return []string{host + ".svc." + v.domain, host}
	case len(labels) == 3 && labels[2] == "svc":
		return []string{host + "." + v.domain, host}
	}
	return []string{host}
}

// portsOf lists the ports of a host by its clusters, or of the wildcard host
// that it is one of.
func (v *fullView) portsOf(host string) []string {
	for _, meaning := range v.meanings(host) {
		if ports := v.ports[meaning]; len(ports) > 0 {
			return ports
		}
	}
	rest := strings.ToLower(host)
	for {
		dot := strings.IndexByte(rest, '.')
		if dot < 0 {
			return nil
		}
		rest = rest[dot+1:]
		if ports := v.ports["*."+rest]; len(ports) > 0 {
			return ports
		}
	}
}

// catchAll is the cluster that takes calls to addresses that the mesh does not
// know; empty where there is none.
func (v *fullView) catchAll(d *discovery, port string) string {
	h := v.held[kindListener][virtualOutbound]
	if h == nil || h.bytes == nil {
		return ""
	}
	got, err := d.decode(kindListener, h.bytes) // it could be read when it came
	if err != nil {
		return ""
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	chain := got.value.(*listener).outboundFor(netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(n)))
	if chain == nil || len(chain.clusters) == 0 {
		return ""
	}
	return chain.clusters[0].name
}
