package proxyless

import "time"

// listener is what is kept of an envoy.config.listener.v3.Listener. An API
// listener (client side) has a route name or an inline route configuration; an
// inbound listener (server side) has chains.
type listener struct {
	name              string
	routeName         string         // HttpConnectionManager.rds.route_config_name
	inline            *routeConfig   // HttpConnectionManager.route_config
	maxStreamDuration time.Duration  // common_http_protocol_options.max_stream_duration; 0 is none
	fault             *faultPolicy   // of its fault filter, where routes do not say otherwise; nil is none
	session           *sessionPolicy // of its stateful session filter; nil is none
	inbound           []filterChain  // empty for an API listener
}

// filterChain is what is kept of an inbound filter chain.
type filterChain struct {
	name    string
	tls     bool     // it has a transport socket: the peer must speak TLS
	filters []string // type names of its HTTP filters that may refuse a call: all but router and fault
}
