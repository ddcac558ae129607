package proxyless

import (
	"errors"
	"fmt"
	"time"
)

// Message types that a listener may carry.
const (
	typeConnectionManager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	typeRouter            = "envoy.extensions.filters.http.router.v3.Router"
	typeFault             = "envoy.extensions.filters.http.fault.v3.HTTPFault"
	typeStatefulSession   = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
	typeRawBuffer         = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
)

// listener reads an envoy.config.listener.v3.Listener. With an api_listener it
// is the client's side of a service, without one the server's side of a port.
func (d *decoding) listener(b []byte) (*listener, error) {
	l := &listener{}
	var api, fallback []byte
	var chains [][]byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			l.name = c.text("name")
		case 3:
			d.keep(&c, "filter_chains")
			chains = append(chains, c.bytes("filter_chains"))
		case 19:
			c.message("api_listener", &api)
		case 25:
			c.message("default_filter_chain", &fallback)
		}
	}
	switch {
	case c.err != nil:
		return nil, c.err
	case l.name == "":
		return nil, missingField("name")
	case api != nil:
		return l, inField("api_listener", d.apiListener(api, l))
	case len(chains) == 0 && fallback == nil:
		return nil, inField("api_listener", errors.New("missing, and there are no filter_chains either"))
	}
	for i, chain := range chains {
		if err := d.filterChain(chain, l, "filter_chains"); err != nil {
			return nil, inElement("filter_chains", i, err)
		}
	}
	if fallback == nil {
		return l, nil
	}
	return l, inField("default_filter_chain", d.filterChain(fallback, l, "default_filter_chain"))
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
	outer := d.enter()
	defer d.leave(outer, "api_listener", "", -1)
	if err := d.routeSpecifier(m.route, l); err != nil {
		return err
	}
	if l.maxStreamDuration, err = decodeHTTPOptions(m.options); err != nil {
		return inField("common_http_protocol_options", err)
	}
	for i := range m.filters {
		if err := d.clientFilter(&m.filters[i]); err != nil {
			return inElement("http_filters", i, err)
		}
	}
	return nil
}

// routeSpecifier takes the route configuration, or the name under which to
// ask for it.
func (d *decoding) routeSpecifier(route oneof, l *listener) (err error) {
	switch route.num {
	case 3:
		l.routeName, err = decodeRDS(route.val)
		return inField("rds", err)
	case 4:
		outer := d.enter()
		l.inline, err = d.routeConfig(route.val)
		d.leave(outer, "route_config", "", -1)
		return inField("route_config", err)
	case 31:
		return inField("scoped_routes", errors.New("not supported"))
	}
	return inField("rds", errors.New("missing, and there is no route_config either"))
}

// decodeRDS reads an Rds message.
func decodeRDS(b []byte) (name string, err error) {
	var source []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("config_source", &source)
		case 2:
			name = c.text("route_config_name")
		}
	}
	if c.err == nil && name == "" {
		return "", missingField("route_config_name")
	}
	c.fail(inField("config_source", checkConfigSource(source)))
	return name, c.err
}

// checkConfigSource reads an envoy.config.core.v3.ConfigSource, which has to say
// that the resource comes over the same stream (gRFC A27).
func checkConfigSource(b []byte) error {
	var specifier oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			specifier.raw(&c, "path")
		case 2, 3, 5, 8:
			specifier.message(&c, "config_source_specifier")
		}
	}
	if c.err == nil && specifier.num != 3 && specifier.num != 5 {
		return errors.New("neither ads nor self")
	}
	return c.err
}

// decodeHTTPOptions reads max_stream_duration of an envoy.config.core.v3.HttpProtocolOptions.
func decodeHTTPOptions(b []byte) (time.Duration, error) {
	message, err := submessage(b, 4, "max_stream_duration")
	if err != nil {
		return 0, err
	}
	limit, err := decodeDuration(message)
	return limit, inField("max_stream_duration", err)
}

// connectionManager is what is looked at of an HttpConnectionManager.
type connectionManager struct {
	route   oneof
	filters []listenerFilter
	options []byte // common_http_protocol_options
}

// listenerFilter is what is looked at of an HttpFilter, or of a network Filter, which
// has the same numbers for what both have.
type listenerFilter struct {
	name     string
	config   extension
	remote   bool // its configuration would have to be discovered (ECDS)
	optional bool
	disabled bool // unless a route enables it
}

// connectionManager reads an HttpConnectionManager, and checks what is the same
// for client and server (gRFC A39, A41).
func (d *decoding) connectionManager(x extension) (m connectionManager, err error) {
	if x.name != typeConnectionManager || x.json {
		return m, fmt.Errorf("%q instead of an HttpConnectionManager", x.name)
	}
	c := walk(x.value)
	for c.next() {
		switch c.num {
		case 3, 4, 31:
			m.route.message(&c, "route_specifier")
		case 5:
			d.keep(&c, "http_filters")
			f, err := decodeFilter(c.bytes("http_filters"))
			c.fail(inElement("http_filters", len(m.filters), err))
			m.filters = append(m.filters, f)
		case 19:
			if c.scalar("xff_num_trusted_hops") != 0 {
				c.fail(inField("xff_num_trusted_hops", errors.New("must be 0")))
			}
		case 35:
			c.message("common_http_protocol_options", &m.options)
		case 46:
			c.fail(inField("original_ip_detection_extensions", errors.New("must be empty")))
		}
	}
	if c.err != nil {
		return m, c.err
	}
	return m, inField("http_filters", checkFilters(m.filters))
}

// decodeFilter reads an HttpFilter or a network Filter.
func decodeFilter(b []byte) (f listenerFilter, err error) {
	var config oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			f.name = c.text("name")
		case 4, 5:
			config.message(&c, "config_type")
		case 6:
			f.optional = c.scalar("is_optional") != 0
		case 7:
			f.disabled = c.scalar("disabled") != 0
		}
	}
	switch {
	case c.err != nil:
		return f, c.err
	case f.name == "":
		return f, missingField("name")
	case config.num == 4:
		f.config, err = decodeExtension(config.val)
	}
	f.remote = config.num == 5
	return f, inField("typed_config", err)
}

// checkFilters wants unique names, and the router as the last filter and
// nowhere else.
func checkFilters(filters []listenerFilter) error {
	names := make(map[string]struct{}, len(filters))
	for i := range filters {
		f := &filters[i]
		if _, ok := names[f.name]; ok {
			return fmt.Errorf("two filters are named %q", f.name)
		}
		names[f.name] = struct{}{}
		if last := i == len(filters)-1; last != (f.config.name == typeRouter) {
			return errors.New("the router has to be the last filter, and only the last")
		}
	}
	if len(filters) == 0 {
		return errors.New("no filter, and so no router")
	}
	return nil
}

// clientFilter decides about a filter on the way out. One that is neither
// known nor optional must not be skipped (gRFC A39).
func (d *decoding) clientFilter(f *listenerFilter) error {
	switch {
	case f.config.name == typeRouter:
	case f.config.name == typeFault, f.config.name == typeStatefulSession:
		if !f.disabled && f.applies() {
			d.ignore("http_filters[" + f.name + "]")
		}
	case f.optional:
		d.ignore("http_filters[" + f.name + "]")
	case f.remote:
		return inField("config_discovery", errors.New("not supported, and the filter is not optional"))
	default:
		return fmt.Errorf("filter type %q is not known, and the filter is not optional", f.config.name)
	}
	return nil
}

// applies says that a known filter does something by itself: the fault filter
// that Istio puts into every listener is empty, and waits for routes to fill it.
func (f *listenerFilter) applies() bool {
	if f.config.name != typeFault || f.config.json {
		return len(f.config.value) > 0
	}
	c := walk(f.config.value)
	for c.next() {
		if c.num == 1 || c.num == 2 || c.num == 7 { // delay, abort, response_rate_limit
			return true
		}
	}
	return c.err != nil
}

// filterChain reads an envoy.config.listener.v3.FilterChain.
func (d *decoding) filterChain(b []byte, l *listener, field string) error {
	var chain filterChain
	var match, socket []byte
	var filters [][]byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("filter_chain_match", &match)
		case 3:
			d.keep(&c, "filters")
			filters = append(filters, c.bytes("filters"))
		case 6:
			c.message("transport_socket", &socket)
		case 7:
			chain.name = c.text("name")
		}
	}
	if c.err != nil {
		return c.err
	}
	outer := d.enter()
	if len(match) > 0 {
		d.ignore("filter_chain_match")
	}
	d.leave(outer, field, chain.name, len(l.inbound))
	plain, _, err := decodeTransportSocket(socket)
	if err != nil {
		return inField("transport_socket", err)
	}
	chain.tls = !plain
	if err := d.serverFilters(filters, &chain); err != nil {
		return err
	}
	l.inbound = append(l.inbound, chain)
	return nil
}

// serverFilters collects what may refuse a call on its way in, known or not,
// so that the server can fail closed. There has to be one
// HttpConnectionManager; other network filters may refuse connections.
func (d *decoding) serverFilters(filters [][]byte, chain *filterChain) error {
	managers := 0
	for i, b := range filters {
		f, err := decodeFilter(b)
		if err != nil {
			return inElement("filters", i, err)
		}
		if f.config.name != typeConnectionManager {
			chain.filters = append(chain.filters, f.typeOrName())
			continue
		}
		managers++
		m, err := d.connectionManager(f.config)
		if err != nil {
			return inElement("filters", i, inField("typed_config", err))
		}
		for j := range m.filters {
			if f := &m.filters[j]; f.config.name != typeRouter && f.config.name != typeFault {
				chain.filters = append(chain.filters, f.typeOrName())
			}
		}
	}
	if managers != 1 {
		return inField("filters", fmt.Errorf("%d HttpConnectionManagers instead of one", managers))
	}
	return nil
}

// typeOrName is the filter's type, or its name where the type is still to be
// discovered.
func (f *listenerFilter) typeOrName() string {
	if f.config.name == "" {
		return f.name
	}
	return f.config.name
}

// decodeTransportSocket reads an envoy.config.core.v3.TransportSocket; without one,
// and with that of raw_buffer, connections are plain text. The type is its
// name where it has no configuration.
func decodeTransportSocket(b []byte) (plain bool, kind string, err error) {
	if b == nil {
		return true, "", nil
	}
	var name, packed []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			name = c.raw("name")
		case 3:
			c.message("typed_config", &packed)
		}
	}
	x, err := decodeExtension(packed)
	c.fail(inField("typed_config", err))
	if x.name == "" {
		x.name = string(name)
		return x.name == "envoy.transport_sockets.raw_buffer", x.name, c.err
	}
	return x.name == typeRawBuffer, x.name, c.err
}
