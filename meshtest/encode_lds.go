package meshtest

import (
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	hcmType    = typePrefix + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	routerType = typePrefix + "envoy.extensions.filters.http.router.v3.Router"
	faultType  = typePrefix + "envoy.extensions.filters.http.fault.v3.HTTPFault"
)

// Listener is an envoy.config.listener.v3.Listener. Without Inbound it is an
// API listener, which a client asks for; with Inbound it is one of a server.
type Listener struct {
	Name    string
	Address string // host:port; left out where empty

	// Of an API listener: the route configuration by name, or in place.
	Route  string
	Inline *RouteConfiguration
	// MaxStreamDuration is common_http_protocol_options.max_stream_duration;
	// nil leaves it out.
	MaxStreamDuration *time.Duration
	// Filters are the HTTP filters of an API listener; nil stands for those
	// that istiod sends, fault and router.
	Filters []HTTPFilter

	Inbound []FilterChain

	Raw []byte // appended as it is: fields that have no name here
}

// FilterChain is an envoy.config.listener.v3.FilterChain of an inbound
// listener. Its routes are those of istiod, every call to the server itself,
// unless Inline says otherwise.
type FilterChain struct {
	Name    string // "inbound-plaintext" and "inbound-mtls" are istiod's
	TLS     bool   // mutual TLS with the certificate provider "default"
	Filters []HTTPFilter
	Inline  *RouteConfiguration
	Raw     []byte // appended as it is
}

// HTTPFilter is an
// envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.
type HTTPFilter struct {
	Name     string
	TypeURL  string
	Config   []byte
	Optional bool
	Disabled bool
}

// Marshal encodes the message.
func (l Listener) Marshal() []byte {
	b := appendString(nil, 1, l.Name)
	if l.Address != "" {
		b = appendMessage(b, 2, socketAddress(l.Address))
	}
	for _, c := range l.Inbound {
		b = appendMessage(b, 3, c.marshal())
	}
	if len(l.Inbound) == 0 {
		b = appendMessage(b, 19, appendAny(nil, 1, hcmType, l.manager()))
	}
	return append(b, l.Raw...)
}

// manager is the HttpConnectionManager of an API listener.
func (l Listener) manager() []byte {
	var b []byte
	switch {
	case l.Inline != nil:
		b = appendMessage(b, 4, l.Inline.Marshal())
	case l.Route != "":
		rds := appendMessage(nil, 1, adsSource())
		b = appendMessage(b, 3, appendString(rds, 2, l.Route))
	}
	filters := l.Filters
	if filters == nil {
		filters = []HTTPFilter{FaultFilter(), RouterFilter()}
	}
	b = appendFilters(b, filters)
	if l.MaxStreamDuration != nil {
		b = appendMessage(b, 35, appendDuration(nil, 4, *l.MaxStreamDuration))
	}
	return b
}

func (c FilterChain) marshal() []byte {
	routes := c.Inline
	if routes == nil {
		routes = &RouteConfiguration{Name: "inbound", VirtualHosts: []VirtualHost{{
			Domains: []string{"*"},
			Routes:  []Route{{Prefix: "/", NonForwarding: true}},
		}}}
	}
	filters := c.Filters
	if filters == nil {
		filters = []HTTPFilter{RouterFilter()}
	}
	manager := appendFilters(appendMessage(nil, 4, routes.Marshal()), filters)
	b := appendExtension(nil, 3, 4, "inbound-hcm"+strings.TrimPrefix(c.Name, "inbound-"), hcmType, manager)
	if c.TLS {
		b = appendExtension(b, 6, 3, tlsSocketName, downstreamType, downstreamTLS())
	}
	return append(appendString(b, 7, c.Name), c.Raw...)
}

// RouterFilter is the filter that ends every list of HTTP filters.
func RouterFilter() HTTPFilter {
	return HTTPFilter{Name: "envoy.filters.http.router", TypeURL: routerType}
}

// FaultFilter is the fault filter without a fault, which istiod puts into each
// API listener so that a route can override it.
func FaultFilter() HTTPFilter {
	return HTTPFilter{Name: "envoy.filters.http.fault", TypeURL: faultType}
}

func appendFilters(b []byte, filters []HTTPFilter) []byte {
	for _, f := range filters {
		m := appendString(nil, 1, f.Name)
		if f.TypeURL != "" {
			m = appendAny(m, 4, f.TypeURL, f.Config)
		}
		m = appendBool(m, 6, f.Optional)
		b = appendMessage(b, 5, appendBool(m, 7, f.Disabled))
	}
	return b
}

// socketAddress is an envoy.config.core.v3.Address for host:port. A string that
// is not of that form is written as the address, without a port.
func socketAddress(hostPort string) []byte {
	host, text, err := net.SplitHostPort(hostPort)
	if err != nil {
		return address(hostPort, 0)
	}
	port, _ := strconv.ParseUint(text, 10, 32)
	return address(host, uint32(port))
}

func address(host string, port uint32) []byte {
	return appendMessage(nil, 1, plainAddress(host, port))
}

// plainAddress is an envoy.config.core.v3.SocketAddress.
func plainAddress(host string, port uint32) []byte {
	b := appendString(nil, 2, host)
	return protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(port))
}
