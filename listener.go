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
	transport   string         // transport_protocol: "raw_buffer" or "tls"
	protocols   []string       // application_protocols: ALPN, or "http/1.1" and "h2c" as they are sniffed
	source      bool           // it has conditions about the caller's address, which are not kept
}

// connTraits is what a chain is chosen by.
type connTraits struct {
	to         netip.AddrPort
	serverName string
	transport  string
	protocols  []string
}

// plainGRPC are the traits of an unencrypted gRPC connection.
func plainGRPC(to netip.AddrPort) connTraits {
	return connTraits{to: to, transport: "raw_buffer", protocols: []string{"h2c"}}
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

// chooseChain finds the chain for a connection as Envoy does: by one criterion
// after the other, of which each keeps the chains that fit it best, without
// going back. It returns -1 where no chain is left.
func chooseChain(n int, match func(int) *chainMatch, c connTraits) int {
	left := make([]int, 0, n)
	fallback := -1
	for i := range n {
		if match(i).fallback {
			fallback = i
		} else {
			left = append(left, i)
		}
	}
	for _, fit := range [...]func(*chainMatch, *connTraits) int{fitPort, fitPrefix, fitServerName, fitTransport, fitProtocols} {
		best := 0
		for _, i := range left {
			best = max(best, fit(match(i), &c))
		}
		left = slices.DeleteFunc(left, func(i int) bool { return best == 0 || fit(match(i), &c) != best })
	}
	if len(left) == 0 {
		return fallback
	}
	return left[0]
}

// The fits are 0 where a criterion is not met, 1 where there is none, and more
// the better it is met.

func fitPort(m *chainMatch, c *connTraits) int { return fitOne(m.port == 0, m.port == c.to.Port()) }

func fitPrefix(m *chainMatch, c *connTraits) int {
	best := fitOne(len(m.prefixes) == 0, false)
	for _, p := range m.prefixes {
		if p.Contains(c.to.Addr()) {
			best = max(best, 2+p.Bits())
		}
	}
	return best
}

func fitServerName(m *chainMatch, c *connTraits) int {
	best := fitOne(len(m.serverNames) == 0, false)
	for _, name := range m.serverNames {
		switch {
		case name == c.serverName && name != "":
			best = max(best, 1<<16)
		case strings.HasPrefix(name, "*") && len(c.serverName) >= len(name) && strings.HasSuffix(c.serverName, name[1:]):
			best = max(best, 1+len(name))
		}
	}
	return best
}

func fitTransport(m *chainMatch, c *connTraits) int {
	return fitOne(m.transport == "", m.transport == c.transport)
}

func fitProtocols(m *chainMatch, c *connTraits) int {
	met := slices.ContainsFunc(m.protocols, func(p string) bool { return slices.Contains(c.protocols, p) })
	return fitOne(len(m.protocols) == 0, met)
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
