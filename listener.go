package proxyless

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// listener is what is kept of an envoy.config.listener.v3.Listener. It is one
// of three: an API listener (lean view, client side) says itself where calls
// go; an outbound listener of a sidecar (full view, client side) has chains
// that do; an inbound listener (server side) has chains that say what a peer
// must do. Each chain is matched by the connection.
type listener struct {
	name        string
	addresses   []netip.AddrPort // address and additional_addresses; none of an API listener, of which they say nothing
	originalDst bool             // use_original_dst: takes all that no other listener takes (virtualOutbound, virtualInbound)
	forwarding                   // of an API listener
	outbound    []outboundChain  // empty but for an outbound listener
	inbound     []filterChain    // empty but for an inbound listener
}

// forwarding is what is kept of an HttpConnectionManager on the way out. It
// has a route name or an inline route configuration.
type forwarding struct {
	routeName         string         // rds.route_config_name
	inline            *routeConfig   // route_config
	maxStreamDuration time.Duration  // common_http_protocol_options.max_stream_duration; 0 is none
	fault             *faultPolicy   // of its fault filter, where routes do not say otherwise; nil is none
	session           *sessionPolicy // of its stateful session filter; nil is none
}

// outboundChain is a filter chain on the way out: HTTP, or TCP to clusters
// that are chosen by weight.
type outboundChain struct {
	name     string
	match    chainMatch
	http     *forwarding       // nil of a TCP chain
	clusters []weightedCluster // of a TCP chain; empty where it has neither
	total    uint32            // sum of their weights
	failure  string            // why it cannot carry a call; empty when it can
}

// filterChain is what is kept of an inbound filter chain.
type filterChain struct {
	name    string
	match   chainMatch
	tls     *tlsContext     // nil is plain text
	tcp     string          // the cluster of its tcp_proxy, where it has no HttpConnectionManager
	filters []inboundFilter // network filters, then HTTP filters, in their order
	failure string          // what of it cannot be evaluated: every call that it takes is refused; empty for nothing
}

// chainMatch is what is kept of an envoy.config.listener.v3.FilterChainMatch.
// What is empty matches everything.
type chainMatch struct {
	fallback    bool           // this is the default_filter_chain: for what no other chain matches
	port        uint16         // destination_port
	prefixes    []netip.Prefix // prefix_ranges: of the destination
	serverNames []string       // SNI: exact or "*.suffix"
	transport   string         // transport_protocol: overTLS or inClear
	protocols   []string       // application_protocols: ALPN, or "http/1.1" and "h2c" as they are sniffed
	direct      []netip.Prefix // direct_source_prefix_ranges: of who connected
	near        nearness       // source_type
	sources     []netip.Prefix // source_prefix_ranges: of the caller, which here is who connected
	sourcePorts []uint16       // source_ports
}

// nearness is FilterChainMatch.ConnectionSourceType.
type nearness uint8

const (
	fromAnywhere nearness = iota
	fromHere              // SAME_IP_OR_LOOPBACK
	fromOutside           // EXTERNAL
)

// The transport protocols of a FilterChainMatch.
const (
	overTLS = "tls"
	inClear = "raw_buffer"
)

// connTraits is what a chain is chosen by.
type connTraits struct {
	to, from   netip.AddrPort // from is not valid on the way out, where callers are not looked at
	serverName string
	transport  string
	protocols  []string // in the order in which they are offered
}

// plainGRPC are the traits of an unencrypted gRPC connection.
func plainGRPC(to netip.AddrPort) connTraits {
	return connTraits{to: to, transport: inClear, protocols: []string{"h2c"}}
}

// outboundFor is the chain that takes a plain-text gRPC call to an address;
// nil where none does.
func (l *listener) outboundFor(to netip.AddrPort) *outboundChain {
	at := chooseChain(len(l.outbound), func(i int) *chainMatch { return &l.outbound[i].match }, plainGRPC(to))
	if at < 0 {
		return nil
	}
	return &l.outbound[at]
}

// inboundFor is the chain that takes a connection on its way in; nil where
// none does, so that Envoy would close it.
func (l *listener) inboundFor(c connTraits) *filterChain {
	at := chooseChain(len(l.inbound), func(i int) *chainMatch { return &l.inbound[i].match }, c)
	if at < 0 {
		return nil
	}
	return &l.inbound[at]
}

// chainCriteria are the ways to choose among chains, in Envoy's order.
var chainCriteria = [...]func(*chainMatch, *connTraits) int{
	fitPort, fitPrefix, fitServerName, fitTransport, fitProtocols, fitDirectSource, fitNearness, fitSource, fitSourcePort,
}

// chooseChain finds the chain for a connection as Envoy does: by one criterion
// after the other, of which each keeps the chains that fit it best, without
// going back. It returns -1 where no chain is left.
func chooseChain(n int, match func(int) *chainMatch, c connTraits) int {
	left, fallback := splitFallback(n, match)
	for _, fit := range chainCriteria {
		left = bestFits(left, match, fit, &c)
	}
	if len(left) == 0 {
		return fallback
	}
	return left[0]
}

// splitFallback separates the default chain, -1 for none, from the others.
func splitFallback(n int, match func(int) *chainMatch) (others []int, fallback int) {
	others, fallback = make([]int, 0, n), -1
	for i := range n {
		if match(i).fallback {
			fallback = i
		} else {
			others = append(others, i)
		}
	}
	return others, fallback
}

// bestFits keeps the chains that fit best, if they fit at all.
func bestFits(left []int, match func(int) *chainMatch, fit func(*chainMatch, *connTraits) int, c *connTraits) []int {
	best := 0
	for _, i := range left {
		best = max(best, fit(match(i), c))
	}
	return slices.DeleteFunc(left, func(i int) bool { return best == 0 || fit(match(i), c) != best })
}

// atPort is the part of an inbound listener that has to do with one port: the
// chains that may take connections there, and the default chain.
func (l *listener) atPort(port uint16) []filterChain {
	match := func(i int) *chainMatch { return &l.inbound[i].match }
	left, fallback := splitFallback(len(l.inbound), match)
	c := connTraits{to: netip.AddrPortFrom(netip.Addr{}, port)}
	left = bestFits(left, match, fitPort, &c)
	if fallback >= 0 {
		left = append(left, fallback)
	}
	chains := make([]filterChain, 0, len(left))
	for _, i := range left {
		chains = append(chains, l.inbound[i])
	}
	return chains
}

// The fits are 0 where a criterion is not met, 1 where there is none, and more
// the better it is met.

func fitPort(m *chainMatch, c *connTraits) int { return fitOne(m.port == 0, m.port == c.to.Port()) }

func fitPrefix(m *chainMatch, c *connTraits) int { return fitPrefixes(m.prefixes, c.to.Addr()) }

func fitServerName(m *chainMatch, c *connTraits) int {
	best := fitOne(len(m.serverNames) == 0, false)
	for _, name := range m.serverNames {
		switch {
		case name == c.serverName && name != "":
			best = max(best, 1<<16)
		case strings.HasPrefix(name, "*.") && len(c.serverName) >= len(name) && strings.HasSuffix(c.serverName, name[1:]):
			best = max(best, 1+len(name))
		}
	}
	return best
}

func fitTransport(m *chainMatch, c *connTraits) int {
	return fitOne(m.transport == "", m.transport == c.transport)
}

// fitProtocols prefers the protocol that is offered first.
func fitProtocols(m *chainMatch, c *connTraits) int {
	for i, p := range c.protocols {
		if slices.Contains(m.protocols, p) {
			return 2 + len(c.protocols) - i
		}
	}
	return fitOne(len(m.protocols) == 0, false)
}

func fitDirectSource(m *chainMatch, c *connTraits) int { return fitCaller(m.direct, c) }

func fitSource(m *chainMatch, c *connTraits) int { return fitCaller(m.sources, c) }

func fitNearness(m *chainMatch, c *connTraits) int {
	return fitOne(m.near == fromAnywhere || !c.from.IsValid(), (m.near == fromHere) == c.local())
}

func fitSourcePort(m *chainMatch, c *connTraits) int {
	return fitOne(len(m.sourcePorts) == 0 || !c.from.IsValid(), slices.Contains(m.sourcePorts, c.from.Port()))
}

// local says that the caller is on this machine.
func (c *connTraits) local() bool { return c.from.Addr().IsLoopback() || c.from.Addr() == c.to.Addr() }

func fitCaller(prefixes []netip.Prefix, c *connTraits) int {
	if !c.from.IsValid() {
		return 1
	}
	return fitPrefixes(prefixes, c.from.Addr())
}

func fitPrefixes(prefixes []netip.Prefix, address netip.Addr) int {
	best := fitOne(len(prefixes) == 0, false)
	for _, p := range prefixes {
		if p.Contains(address) {
			best = max(best, 2+p.Bits())
		}
	}
	return best
}

func fitOne(absent, met bool) int {
	switch {
	case absent:
		return 1
	case met:
		return 2
	}
	return 0
}

// needsWorkload says that a chain shows this workload's own certificate.
func (l *listener) needsWorkload() bool {
	return slices.ContainsFunc(l.inbound, func(c filterChain) bool {
		return c.tls != nil && c.tls.failure == "" && c.tls.identity.kind == secretWorkload
	})
}

// takesPlainText says that a chain takes connections in plain text.
func (l *listener) takesPlainText() bool {
	return slices.ContainsFunc(l.inbound, func(c filterChain) bool { return c.tls == nil && c.match.transport != overTLS })
}
