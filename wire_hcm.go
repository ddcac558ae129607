package proxyless

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message types that a listener may carry.
const (
	typeConnectionManager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	typeTCPProxy          = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
	typeRouter            = "envoy.extensions.filters.http.router.v3.Router"
	typeFault             = "envoy.extensions.filters.http.fault.v3.HTTPFault"
	typeStatefulSession   = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
	typeRBAC              = "envoy.extensions.filters.http.rbac.v3.RBAC"
	typeNetworkRBAC       = "envoy.extensions.filters.network.rbac.v3.RBAC"
	typeExtAuthz          = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
	typeNetworkExtAuthz   = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"
	typeRawBuffer         = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
)

// harmlessFilters are the filters that change nothing about a gRPC call of this
// process, and refuse none: they count, log, tell the peer about the workload,
// choose the ALPN of an Envoy connection, or serve browsers.
var harmlessFilters = map[string]struct{}{
	typeRouter: {},
	"envoy.extensions.filters.http.cors.v3.Cors":                           {},
	"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig":             {},
	"envoy.extensions.filters.http.grpc_web.v3.GrpcWeb":                    {},
	"envoy.extensions.filters.http.set_filter_state.v3.Config":             {},
	"envoy.extensions.filters.network.set_filter_state.v3.Config":          {},
	"envoy.extensions.filters.network.sni_cluster.v3.SniCluster":           {},
	"envoy.tcp.metadataexchange.config.MetadataExchange":                   {},
	"io.istio.http.peer_metadata.Config":                                   {},
	"envoy.extensions.network_filters.peer_metadata.Config":                {},
	"envoy.extensions.network_filters.peer_metadata.UpstreamConfig":        {},
	"istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig":            {},
	"istio.envoy.config.filter.network.metadata_exchange.MetadataExchange": {},
	"stats.PluginConfig": {},
}

// harmless says that leaving the filter out changes nothing.
func (f *listenerFilter) harmless() bool {
	_, known := harmlessFilters[f.config.name]
	return known || f.config.name == typeStatefulSession && !f.applies() || f.dryRun()
}

// dryRun says that the filter is an RBAC filter that has shadow rules at most:
// an AuthorizationPolicy that is only tried.
func (f *listenerFilter) dryRun() bool {
	matcher, known := map[string]protowire.Number{typeRBAC: 4, typeNetworkRBAC: 6}[f.config.name]
	if !known || f.config.json || len(f.config.value) == 0 {
		return false
	}
	rules := false
	c := walk(f.config.value)
	for c.next() {
		rules = rules || c.num == 1 || c.num == matcher
	}
	return !rules && c.err == nil
}

// forwarding takes what an HttpConnectionManager says about calls on their way
// out. Of an API listener (strict) a filter that is neither known nor optional
// is an error (gRFC A39); a sidecar's is noted, since Envoy has many more.
func (d *decoding) forwarding(m *connectionManager, to *forwarding, strict bool) error {
	if err := d.routeSpecifier(m.route, to); err != nil {
		return err
	}
	var err error
	if to.maxStreamDuration, err = decodeHTTPOptions(m.options); err != nil {
		return inField("common_http_protocol_options", err)
	}
	d.ignoreUnlessZero("stream_idle_timeout", m.streamIdle)
	d.ignoreUnlessZero("request_timeout", m.requestTimeout)
	for i := range m.filters {
		if err := d.clientFilter(&m.filters[i], to, strict); err != nil {
			return inElement("http_filters", i, err)
		}
	}
	return nil
}

// routeSpecifier takes the route configuration, or the name under which to
// ask for it.
func (d *decoding) routeSpecifier(route oneof, to *forwarding) (err error) {
	switch route.num {
	case 3:
		to.routeName, err = decodeRDS(route.val)
		return inField("rds", err)
	case 4:
		outer := d.enter()
		to.inline, err = d.routeConfig(route.val)
		d.leave(outer, "route_config", "", -1)
		return inField("route_config", err)
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

	streamIdle, requestTimeout []byte
	hops                       uint64   // xff_num_trusted_hops
	addressed                  bool     // original_ip_detection_extensions
	useRemote                  []byte   // use_remote_address
	strips                     []string // the fields that have a part of :authority removed before the filters see it
}

// stripping are the fields that have a port, or a dot at the end, removed from
// the :authority of a call.
var stripping = unapplied{39: "strip_matching_host_port", 42: "strip_any_host_port", 47: "strip_trailing_host_dot"}

// checkAPI wants what gRPC wants of an API listener (gRFC A39, A41).
func (m *connectionManager) checkAPI() error {
	switch {
	case m.hops != 0:
		return inField("xff_num_trusted_hops", errors.New("must be 0"))
	case m.addressed:
		return inField("original_ip_detection_extensions", errors.New("must be empty"))
	}
	return inField("http_filters", checkNames(m.filters))
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
// for client and server (gRFC A39).
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
		case 14:
			c.message("use_remote_address", &m.useRemote)
		case 19:
			m.hops = c.scalar("xff_num_trusted_hops")
		case 24:
			c.message("stream_idle_timeout", &m.streamIdle)
		case 28:
			c.message("request_timeout", &m.requestTimeout)
		case 35:
			c.message("common_http_protocol_options", &m.options)
		case 39, 42, 47:
			if field := stripping[c.num]; c.scalar(field) != 0 {
				m.strips = append(m.strips, field)
			}
		case 46:
			m.addressed = true
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

// checkNames wants each filter to have a name of its own.
func checkNames(filters []listenerFilter) error {
	names := make(map[string]struct{}, len(filters))
	for i := range filters {
		if _, ok := names[filters[i].name]; ok {
			return fmt.Errorf("two filters are named %q", filters[i].name)
		}
		names[filters[i].name] = struct{}{}
	}
	return nil
}

// checkFilters wants the router as the last filter and nowhere else.
func checkFilters(filters []listenerFilter) error {
	for i := range filters {
		if last := i == len(filters)-1; last != (filters[i].config.name == typeRouter) {
			return errors.New("the router has to be the last filter, and only the last")
		}
	}
	if len(filters) == 0 {
		return errors.New("no filter, and so no router")
	}
	return nil
}

// clientFilter decides about a filter on the way out.
func (d *decoding) clientFilter(f *listenerFilter, to *forwarding, strict bool) error {
	switch {
	case f.harmless() || f.disabled:
	case f.config.name == typeFault, f.config.name == typeStatefulSession:
		return d.knownFilter(f, to)
	case f.optional || !strict:
		d.ignore("http_filters[" + f.name + "]")
	case f.remote:
		return inField("config_discovery", errors.New("not supported, and the filter is not optional"))
	default:
		return fmt.Errorf("filter type %q is not known, and the filter is not optional", f.config.name)
	}
	return nil
}

// knownFilter takes the configuration of a filter that is applied.
func (d *decoding) knownFilter(f *listenerFilter, to *forwarding) (err error) {
	outer := d.enter()
	defer d.leave(outer, "http_filters", f.name, -1)
	switch {
	case !f.applies():
	case f.config.json:
		d.ignore("typed_config (TypedStruct)")
	case f.config.name == typeFault:
		if p, failed := d.fault(f.config.value); failed != nil || !p.idle() {
			to.fault, err = p, failed
		}
	default:
		if p, failed := d.session(f.config.value); failed != nil || !p.off() {
			to.session, err = p, failed
		}
	}
	return inField("typed_config", err)
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

// typeOrName is the filter's type, or its name where the type is still to be
// discovered.
func (f *listenerFilter) typeOrName() string {
	if f.config.name == "" {
		return f.name
	}
	return f.config.name
}
