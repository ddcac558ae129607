package proxyless

import (
	"errors"
	"net/netip"
)

// directionOutbound is TrafficDirection.OUTBOUND.
const directionOutbound = 2

// listenerParts are the messages inside a listener, before they are looked into.
type listenerParts struct {
	api, fallback []byte
	chains        [][]byte
	outbound      bool
	matcher       bool // chains are chosen by a filter_chain_matcher
}

// listener reads an envoy.config.listener.v3.Listener. With an api_listener it
// is the client's side of a service; without one it is what a sidecar gets, on
// the way out, or the server's side of a port.
func (d *decoding) listener(b []byte) (*listener, error) {
	l := &listener{}
	p, err := d.listenerParts(b, l)
	switch {
	case err != nil:
		return nil, err
	case l.name == "":
		return nil, missingField("name")
	case p.api != nil:
		l.addresses = nil
		return l, inField("api_listener", d.apiListener(p.api, l))
	case len(p.chains) == 0 && p.fallback == nil:
		return nil, inField("api_listener", errors.New("missing, and there are no filter_chains either"))
	}
	for i, chain := range p.chains {
		if err := d.filterChain(chain, &p, l, "filter_chains", i); err != nil {
			return nil, inElement("filter_chains", i, err)
		}
	}
	if p.fallback != nil {
		if err := d.filterChain(p.fallback, &p, l, "default_filter_chain", -1); err != nil {
			return nil, inField("default_filter_chain", err)
		}
	}
	if p.matcher {
		for i := range l.inbound { // whichever is chosen here, another one may be meant
			l.inbound[i].failure = "filter_chain_matcher is not evaluated"
		}
	}
	return l, nil
}

func (d *decoding) listenerParts(b []byte, l *listener) (p listenerParts, err error) {
	var originalDst, address []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			l.name = c.text("name")
		case 2:
			c.message("address", &address)
		case 3:
			d.keep(&c, "filter_chains")
			p.chains = append(p.chains, c.bytes("filter_chains"))
		case 4:
			c.message("use_original_dst", &originalDst)
		case 16:
			p.outbound = c.scalar("traffic_direction") == directionOutbound
		case 19:
			c.message("api_listener", &p.api)
		case 25:
			c.message("default_filter_chain", &p.fallback)
		case 32:
			d.ignore("filter_chain_matcher")
			p.matcher = true
		case 33:
			d.keep(&c, "additional_addresses")
			more, err := submessage(c.bytes("additional_addresses"), 1, "address")
			c.fail(inField("additional_addresses", err))
			c.fail(inField("additional_addresses.address", l.addAddress(more)))
		}
	}
	value, err := decodeWrapped(originalDst)
	l.originalDst = value != 0
	c.fail(inField("use_original_dst", err))
	c.fail(inField("address", l.addAddress(address)))
	return p, c.err
}

// addAddress keeps an address that connections are made to: an IP address and
// a port. Others (pipes, internal addresses) mean nothing here.
func (l *listener) addAddress(b []byte) error {
	kind, err := decodeAddress(b)
	if err != nil || kind.num != 1 {
		return err
	}
	host, port, err := decodeSocketAddress(kind.val)
	if ip, ok := parseIP(host); ok && err == nil && port != 0 {
		l.addresses = append(l.addresses, netip.AddrPortFrom(ip, port))
	}
	return inField("socket_address", err)
}

// apiListener reads an envoy.config.listener.v3.ApiListener.
func (d *decoding) apiListener(b []byte, l *listener) error {
	packed, err := submessage(b, 1, "api_listener")
	if err != nil {
		return err
	}
	x, err := decodeExtension(packed)
	if err != nil {
		return err
	}
	m, err := d.connectionManager(x)
	if err != nil {
		return err
	}
	if err := m.checkAPI(); err != nil {
		return err
	}
	outer := d.enter()
	defer d.leave(outer, "api_listener", "", -1)
	if m.route.num == 31 {
		return inField("scoped_routes", errors.New("not supported"))
	}
	return d.forwarding(&m, &l.forwarding, true)
}
