package proxyless

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// chainParts are the messages inside a filter chain.
type chainParts struct {
	name          string
	match         chainMatch
	socket        []byte
	filters       []listenerFilter
	manager       extension // of its HttpConnectionManager, where there is one
	proxy         extension // of its tcp_proxy
	managers, tcp int
	at            int // index of the manager
}

// filterChain reads an envoy.config.listener.v3.FilterChain.
func (d *decoding) filterChain(b []byte, l *listenerParts, to *listener, field string, index int) error {
	outer := d.enter()
	p, err := d.chainParts(b)
	if err == nil {
		p.match.fallback = index < 0
		if l.outbound {
			err = d.outboundChain(&p, to)
		} else {
			err = d.inboundChain(&p, to)
		}
	}
	d.leave(outer, field, p.name, index)
	return err
}

func (d *decoding) chainParts(b []byte) (p chainParts, err error) {
	var match []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("filter_chain_match", &match)
		case 3:
			d.keep(&c, "filters")
			f, err := decodeFilter(c.bytes("filters"))
			c.fail(inElement("filters", len(p.filters), err))
			p.sort(&f)
			p.filters = append(p.filters, f)
		case 6:
			c.message("transport_socket", &p.socket)
		case 7:
			p.name = c.text("name")
		}
	}
	if c.err == nil {
		c.fail(inField("filter_chain_match", d.chainMatch(match, &p.match)))
	}
	return p, c.err
}

// sort remembers the filter that ends the chain.
func (p *chainParts) sort(f *listenerFilter) {
	switch f.config.name {
	case typeConnectionManager:
		p.manager, p.at = f.config, len(p.filters)
		p.managers++
	case typeTCPProxy:
		p.proxy = f.config
		p.tcp++
	}
}

// chainMatch reads an envoy.config.listener.v3.FilterChainMatch.
func (d *decoding) chainMatch(b []byte, m *chainMatch) error {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 3:
			d.prefix(&c, "prefix_ranges", &m.prefixes)
		case 6:
			d.prefix(&c, "source_prefix_ranges", &m.sources)
		case 7:
			d.ports(&c, "source_ports", &m.sourcePorts)
		case 8:
			port, err := decodeWrapped(c.bytes("destination_port"))
			c.fail(inField("destination_port", err))
			m.port = portOf(&c, "destination_port", port)
		case 9:
			m.transport = d.intern(c.raw("transport_protocol"))
		case 10:
			d.keep(&c, "application_protocols")
			m.protocols = append(m.protocols, d.intern(c.raw("application_protocols")))
		case 11:
			d.keep(&c, "server_names")
			m.serverNames = append(m.serverNames, strings.ToLower(d.intern(c.raw("server_names"))))
		case 12:
			if m.near = nearness(min(c.scalar("source_type"), 1<<8-1)); m.near > fromOutside {
				c.fail(inField("source_type", errors.New("unknown")))
			}
		case 13:
			d.prefix(&c, "direct_source_prefix_ranges", &m.direct)
		default:
			d.ignoreIf(&c, chainMatchUnapplied)
		}
	}
	return c.err
}

// chainMatchUnapplied are conditions that are not looked at, and by Envoy
// neither.
var chainMatchUnapplied = unapplied{4: "filter_chain_match.address_suffix", 5: "filter_chain_match.suffix_len"}

// prefix appends the CidrRange at the cursor.
func (d *decoding) prefix(c *cursor, field string, to *[]netip.Prefix) {
	p, err := decodeCIDR(c.bytes(field))
	c.fail(inElement(field, len(*to), err))
	d.keep(c, field)
	*to = append(*to, p)
}

// ports appends the ports at the cursor, packed or not.
func (d *decoding) ports(c *cursor, field string, to *[]uint16) {
	if c.typ != protowire.BytesType {
		d.keep(c, field)
		*to = append(*to, portOf(c, field, c.scalar(field)))
		return
	}
	for b := c.val; len(b) > 0 && c.err == nil; {
		port, n := protowire.ConsumeVarint(b)
		if n < 0 {
			c.fail(inField(field, protowire.ParseError(n)))
			return
		}
		d.keep(c, field)
		*to = append(*to, portOf(c, field, port))
		b = b[n:]
	}
}

// portOf refuses what is no port: cut to size it would be another one.
func portOf(c *cursor, field string, port uint64) uint16 {
	if port > math.MaxUint16 {
		c.fail(inField(field, fmt.Errorf("%d is no port", port)))
	}
	return uint16(port)
}

// decodeCIDR reads an envoy.config.core.v3.CidrRange.
func decodeCIDR(b []byte) (netip.Prefix, error) {
	var address string
	var length []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			address = c.text("address_prefix")
		case 2:
			c.message("prefix_len", &length)
		}
	}
	bits, err := decodeWrapped(length)
	c.fail(inField("prefix_len", err))
	if c.err != nil {
		return netip.Prefix{}, c.err
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, inField("address_prefix", err)
	}
	p, err := ip.WithZone("").Prefix(int(min(bits, 1<<8)))
	return p, inField("prefix_len", err)
}

// outboundChain keeps where a chain of a sidecar sends what it takes. What
// cannot be applied costs only this chain, or is noted: a sidecar's listener
// has many filters, and the others must not be lost for one.
func (d *decoding) outboundChain(p *chainParts, l *listener) error {
	chain := outboundChain{name: p.name, match: p.match}
	if m := &p.match; m.near != fromAnywhere || len(m.direct)+len(m.sources)+len(m.sourcePorts) > 0 {
		d.ignore("filter_chain_match.source_type") // and its neighbours: they are about who calls, which here is this process
	}
	for i := range p.filters {
		f := &p.filters[i]
		if f.config.name != typeConnectionManager && f.config.name != typeTCPProxy && !f.harmless() {
			d.ignore("filters[" + f.name + "]")
		}
	}
	var err error
	switch {
	case p.managers == 1 && p.tcp == 0:
		err = inElement("filters", p.at, inField("typed_config", d.outboundHTTP(p.manager, &chain)))
	case p.tcp == 1 && p.managers == 0 && !p.proxy.json:
		chain.clusters, chain.total, err = d.tcpProxy(p.proxy.value)
	default:
		chain.failure = fmt.Sprintf("it has %d HttpConnectionManagers and %d TCP proxies", p.managers, p.tcp)
	}
	l.outbound = append(l.outbound, chain)
	return err
}

// outboundHTTP keeps a chain's HttpConnectionManager.
func (d *decoding) outboundHTTP(x extension, chain *outboundChain) error {
	if x.json {
		chain.failure = "its HttpConnectionManager is a TypedStruct, which is not supported"
		return nil
	}
	m, err := d.connectionManager(x)
	if err != nil {
		return err
	}
	if m.route.num == 31 {
		chain.failure = "it asks for scoped routes, which are not supported"
		return nil
	}
	chain.http = &forwarding{}
	return d.forwarding(&m, chain.http, false)
}

// tcpProxy reads the clusters of an
// envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.
func (d *decoding) tcpProxy(b []byte) (clusters []weightedCluster, total uint32, err error) {
	var specifier oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 2:
			specifier.raw(&c, "cluster")
		case 10:
			specifier.message(&c, "weighted_clusters")
		}
	}
	if c.err == nil && specifier.num == 10 {
		return d.tcpClusters(specifier.val)
	}
	if len(specifier.val) == 0 {
		return nil, 0, c.err
	}
	return []weightedCluster{{name: d.intern(specifier.val), weight: 1}}, 1, c.err
}

// tcpClusters reads a TcpProxy.WeightedCluster.
func (d *decoding) tcpClusters(b []byte) (clusters []weightedCluster, total uint32, err error) {
	c := walk(b)
	for c.next() {
		if c.num != 1 {
			continue
		}
		var w weightedCluster
		each := walk(c.bytes("clusters"))
		for each.next() {
			switch each.num {
			case 1:
				w.name = d.intern(each.raw("name"))
			case 2:
				w.weight = uint32(each.scalar("weight"))
			}
		}
		d.keep(&c, "clusters")
		c.fail(inElement("clusters", len(clusters), each.err))
		if total+w.weight < total {
			c.fail(errors.New("the weights add up to more than fits"))
		}
		if total += w.weight; w.weight > 0 {
			clusters = append(clusters, w)
		}
	}
	return clusters, total, inField("weighted_clusters", c.err)
}

// inboundChain collects what may refuse a call on its way in, known or not, so
// that the server can fail closed. There has to be one HttpConnectionManager or
// one TCP proxy; other network filters may refuse connections.
func (d *decoding) inboundChain(p *chainParts, l *listener) error {
	chain := filterChain{name: p.name, match: p.match}
	outer := d.enter()
	secured, err := d.transportSocket(p.socket, typeDownstreamTLS, "transport_socket")
	d.leave(outer, "transport_socket", "", -1)
	if err != nil {
		return inField("transport_socket", err)
	}
	chain.tls = secured
	if p.managers != 1 && (p.managers > 1 || p.tcp != 1) {
		return inField("filters", fmt.Errorf("%d HttpConnectionManagers instead of one", p.managers))
	}
	for i := range p.filters {
		switch f := &p.filters[i]; {
		case f.config.name == typeConnectionManager:
			if err := d.inboundHTTP(f.config, &chain, strings.HasPrefix(l.name, inboundPrefix)); err != nil {
				return inElement("filters", i, inField("typed_config", err))
			}
		case f.config.name == typeNetworkRBAC:
			if err := d.connectionAccess(f, &chain); err != nil {
				return inElement("filters", i, inField("typed_config", err))
			}
		case f.config.name == typeTCPProxy && !f.config.json:
			clusters, _, err := d.tcpProxy(f.config.value)
			if err != nil {
				return inElement("filters", i, inField("typed_config", err))
			}
			if len(clusters) > 0 {
				chain.tcp = clusters[0].name
			}
		case !f.harmless() && !chain.marked(f):
			chain.fail(f)
		}
	}
	l.inbound = append(l.inbound, chain)
	return nil
}

// inboundHTTP keeps the filters that have a say about calls. In the lean view
// (lean) istiod leaves some out.
func (d *decoding) inboundHTTP(x extension, chain *filterChain, lean bool) error {
	m, err := d.connectionManager(x)
	if err != nil {
		return err
	}
	for _, field := range m.strips {
		d.ignore(field)
	}
	for j := range m.filters {
		switch f := &m.filters[j]; {
		case f.config.name == typeFault:
			d.ignoreFault(f)
		case f.config.name == typeRBAC:
			err = d.callAccess(f, &m, chain, lean)
		case f.config.name == typeJWT && !f.config.json:
			err = d.inboundJWT(f, chain)
		case !f.harmless() && !chain.marked(f):
			chain.fail(f)
		}
		if err != nil {
			return inElement("http_filters", j, inField("typed_config", err))
		}
	}
	return d.checkOverrides(&m, chain)
}

// fail makes a chain refuse everything for a filter that cannot be evaluated.
func (c *filterChain) fail(f *listenerFilter) {
	if c.failure == "" {
		c.failure = "filter " + f.typeOrName() + " is not evaluated"
	}
}

// ignoreFault notes a fault filter on the way in that does something.
func (d *decoding) ignoreFault(f *listenerFilter) {
	if f.applies() {
		d.ignore("http_filters[" + f.name + "]")
	}
}
