package proxyless

import (
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random_subsetting/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

const (
	core   = "envoy.config.core.v3."
	rds    = "envoy.config.route.v3."
	lds    = "envoy.config.listener.v3."
	cds    = "envoy.config.cluster.v3."
	eds    = "envoy.config.endpoint.v3."
	hcm    = "envoy.extensions.filters.network.http_connection_manager.v3."
	faults = "envoy.extensions.filters.http.fault.v3."
	sess   = "envoy.extensions.filters.http.stateful_session.v3."
	state  = "envoy.extensions.http.stateful_session."
	lb     = "envoy.extensions.load_balancing_policies."
	up     = "envoy.extensions.upstreams.http.v3."
	match  = "envoy.type.matcher.v3."
	typ    = "type.googleapis.com/"
	tcp    = "envoy.extensions.filters.network.tcp_proxy.v3."
)

// whole are messages that are one value, with values of theirs: the table does
// not go into them.
var whole = map[string][]string{
	"google.protobuf.Duration":             {"", "seconds: 1", "seconds: 7 nanos: 5"},
	"google.protobuf.BoolValue":            {"value: true", "value: false"},
	"google.protobuf.UInt32Value":          {"value: 1", "value: 3", "value: 50", ""},
	"google.protobuf.UInt64Value":          {"value: 1", "value: 3", "value: 1500", ""},
	"google.protobuf.DoubleValue":          {"value: 0.5", "value: 3"},
	"google.protobuf.FloatValue":           {"value: 0.5", "value: 3"},
	"google.protobuf.StringValue":          {`value: "x"`},
	"google.protobuf.Struct":               {`fields { key: "a" value { string_value: "b" } }`},
	"google.protobuf.Any":                  {},
	"envoy.type.v3.Percent":                {"value: 20", "value: 70"},
	"envoy.type.v3.FractionalPercent":      {"numerator: 20", "numerator: 7 denominator: MILLION"},
	"envoy.type.v3.Int64Range":             {"start: 1 end: 5", "end: 7"},
	"envoy.type.v3.Int32Range":             {"start: 1 end: 5"},
	core + "RuntimeFractionalPercent":      {"default_value { numerator: 20 }", "default_value { numerator: 7 denominator: MILLION }"},
	core + "RuntimeDouble":                 {"default_value: 0.5", "default_value: 2"},
	core + "RuntimeUInt32":                 {"default_value: 2"},
	core + "RuntimePercent":                {"default_value { value: 20 }"},
	core + "Metadata":                      {`filter_metadata { key: "envoy.lb" value { fields { key: "hash_key" value { string_value: "k" } } } }`},
	core + "ConfigSource":                  {"ads {}", "self {}", `path: "p"`},
	core + "Locality":                      {`region: "a" zone: "b"`, `sub_zone: "c"`},
	core + "Address":                       {`socket_address { address: "10.1.1.1" port_value: 7 }`, `pipe { path: "/p" }`},
	core + "TransportSocket":               {`name: "tls" typed_config { [` + typ + `envoy.config.core.v3.Address] {} }`},
	core + "DataSource":                    {`inline_string: "x"`},
	match + "RegexMatcher":                 {`regex: "a.*"`, `regex: "b|c"`, `regex: "("`},
	rds + "ClusterSpecifierPlugin":         {`extension { name: "x" }`},
	rds + "DirectResponseAction":           {"status: 404", "status: 503"},
	rds + "RedirectAction":                 {`host_redirect: "x"`, ""},
	rds + "FilterAction":                   {""},
	rds + "NonForwardingAction":            {""},
	core + "HealthStatusSet":               {"statuses: DRAINING", "statuses: [HEALTHY, UNKNOWN]"},
	cds + "Cluster.TransportSocketMatch":   {`name: "m" match {} transport_socket { name: "tls" typed_config { [` + typ + `envoy.config.core.v3.Address] {} } }`},
	rds + "RetryPolicy.RetryHostPredicate": {},
	rds + "RetryPolicy.RetryPriority":      {},
}

// filler is what a message needs to be accepted.
var filler = map[string]string{
	rds + "VirtualHost":                                 `name: "w" domains: "b" routes { match { prefix: "/q" } route { cluster: "d" } }`,
	rds + "Route":                                       `match { prefix: "/q" } route { cluster: "d" }`,
	rds + "RouteMatch":                                  `prefix: "/q"`,
	rds + "RouteAction":                                 `cluster: "d"`,
	rds + "HeaderMatcher":                               `name: "h" string_match { exact: "v" }`,
	rds + "QueryParameterMatcher":                       `name: "q" present_match: true`,
	rds + "WeightedCluster":                             `clusters { name: "d" weight { value: 2 } } clusters { name: "e" weight { value: 3 } }`,
	rds + "WeightedCluster.ClusterWeight":               `name: "f" weight { value: 9 }`,
	rds + "RetryPolicy":                                 `retry_on: "unavailable,5xx,retriable-status-codes,retriable-headers" num_retries { value: 4 }`,
	rds + "RetryPolicy.RetryBackOff":                    `base_interval { nanos: 5000000 }`,
	rds + "RouteAction.HashPolicy":                      `header { header_name: "h" }`,
	rds + "RouteAction.HashPolicy.Header":               `header_name: "g"`,
	rds + "RouteAction.HashPolicy.Cookie":               `name: "k"`,
	rds + "RouteAction.HashPolicy.ConnectionProperties": `source_ip: true`,
	rds + "RouteAction.HashPolicy.QueryParameter":       `name: "q"`,
	rds + "RouteAction.HashPolicy.FilterState":          `key: "io.grpc.channel_id"`,
	rds + "RouteAction.RequestMirrorPolicy":             `cluster: "m"`,
	rds + "RouteAction.MaxStreamDuration":               `max_stream_duration { seconds: 5 }`,
	rds + "HedgePolicy":                                 `hedge_on_per_try_timeout: true`,
	core + "HeaderValueOption":                          `header { key: "x" value: "y" }`,
	core + "HeaderValue":                                `key: "x" value: "y"`,
	match + "StringMatcher":                             `exact: "e"`,
	match + "RegexMatchAndSubstitute":                   `pattern { regex: "a(.)" } substitution: "b\\1"`,
	core + "TypedExtensionConfig":                       `name: "t"`,

	cds + "Cluster.EdsClusterConfig":   `eds_config { ads {} }`,
	cds + "CircuitBreakers":            `thresholds { max_requests { value: 9 } }`,
	cds + "CircuitBreakers.Thresholds": `max_requests { value: 5 }`,
	cds + "OutlierDetection":           `consecutive_5xx { value: 4 } enforcing_success_rate { value: 50 } enforcing_failure_percentage { value: 50 }`,
	cds + "LoadBalancingPolicy":        `policies { typed_extension_config { name: "a" typed_config { [` + typ + lb + `round_robin.v3.RoundRobin] {} } } }`,
	cds + "LoadBalancingPolicy.Policy": `typed_extension_config { name: "a" typed_config { [` + typ + lb + `round_robin.v3.RoundRobin] {} } }`,
	cds + "Cluster.SlowStartConfig":    `slow_start_window { seconds: 9 }`,
	lb + "common.v3.SlowStartConfig":   `slow_start_window { seconds: 9 }`,
	cds + "Cluster.CustomClusterType":  `name: "envoy.clusters.aggregate" typed_config { [` + typ + `envoy.extensions.clusters.aggregate.v3.ClusterConfig] { clusters: "x" } }`,

	eds + "ClusterLoadAssignment":                     `cluster_name: "c" endpoints { lb_endpoints { endpoint { address { socket_address { address: "10.0.0.3" port_value: 80 } } } } }`,
	eds + "LocalityLbEndpoints":                       `locality { region: "r" } load_balancing_weight { value: 3 } lb_endpoints { endpoint { address { socket_address { address: "10.0.0.3" port_value: 80 } } } }`,
	eds + "LbEndpoint":                                `endpoint { address { socket_address { address: "10.0.0.4" port_value: 80 } } }`,
	eds + "Endpoint":                                  `address { socket_address { address: "10.0.0.5" port_value: 80 } }`,
	eds + "Endpoint.AdditionalAddress":                `address { socket_address { address: "10.0.0.6" port_value: 80 } }`,
	eds + "ClusterLoadAssignment.Policy.DropOverload": `category: "d" drop_percentage { numerator: 5 }`,

	lds + "FilterChain":   `name: "d" ` + managerChain,
	lds + "Filter":        `name: "g" typed_config { [` + typ + `` + foreignType + `] {} }`,
	core + "CidrRange":    `address_prefix: "10.0.0.0" prefix_len { value: 8 }`,
	hcm + "Rds":           `route_config_name: "s" config_source { ads {} }`,
	hcm + "HttpFilter":    `name: "f" typed_config { [` + typ + `envoy.extensions.filters.http.router.v3.Router] {} }`,
	faults + "HTTPFault":  faultFilter,
	faults + "FaultAbort": `http_status: 503 percentage { numerator: 10 }`,
	"envoy.extensions.filters.common.fault.v3.FaultDelay": `fixed_delay { seconds: 1 } percentage { numerator: 10 }`,
	state + "cookie.v3.CookieBasedSessionState":           `cookie { name: "k" }`,
	"envoy.type.http.v3.Cookie":                           `name: "k"`,
}

// also are further values of messages, of which some fields mean something
// only there.
var also = map[string][]string{
	core + "HeaderValueOption": {`header { key: "x" }`},
}

const (
	faultFilter   = `delay { fixed_delay { seconds: 1 } percentage { numerator: 10 } } abort { http_status: 503 percentage { numerator: 10 } }`
	sessionConfig = `session_state { name: "s" typed_config { [` + typ + state + `cookie.v3.CookieBasedSessionState] { cookie { name: "k" path: "/p" } } } }`
	managerChain  = `filters { name: "m" typed_config { [` + typ + managerType + `] { rds { route_config_name: "r" config_source { ads {} } } ` + routerFilter + ` } } }`
	routerFilter  = `http_filters { name: "router" typed_config { [` + typ + `envoy.extensions.filters.http.router.v3.Router] {} } }`
)

// special are texts that set a field where the others would not do.
var special = map[string][]string{
	rds + "VirtualHost.domains":                        {`domains: "b"`, `domains: "*"`, `domains: ""`},
	rds + "RouteMatch.path_separated_prefix":           {`path_separated_prefix: "/x"`},
	rds + "HeaderMatcher.name":                         {`name: "i"`, `name: ""`},
	rds + "RetryPolicy.retry_on":                       {`retry_on: "connect-failure"`, `retry_on: "cancelled"`},
	rds + "RetryPolicy.retriable_status_codes":         {`retriable_status_codes: 404`},
	rds + "WeightedCluster.clusters":                   {`clusters { name: "f" weight { value: 9 } }`, `clusters { cluster_header: "h" weight { value: 9 } }`},
	rds + "RouteConfiguration.request_mirror_policies": mirrorSamples,
	rds + "VirtualHost.request_mirror_policies":        mirrorSamples,
	rds + "RouteAction.request_mirror_policies":        mirrorSamples,
	rds + "RetryPolicy.retry_host_predicate": {`retry_host_predicate { name: "envoy.retry_host_predicates.previous_hosts" }`,
		`retry_host_predicate { name: "p" typed_config { [` + typ + `envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate] {} } }`},
	rds + "RetryPolicy.retry_priority": {`retry_priority { name: "envoy.retry_priorities.previous_priorities" }`,
		`retry_priority { name: "p" typed_config { [` + typ + `envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig] {} } }`},
	rds + "RouteConfiguration.typed_per_filter_config":            perFilterSamples,
	rds + "VirtualHost.typed_per_filter_config":                   perFilterSamples,
	rds + "Route.typed_per_filter_config":                         perFilterSamples,
	rds + "WeightedCluster.ClusterWeight.typed_per_filter_config": perFilterSamples,
	hcm + "HttpConnectionManager.http_filters": {
		`http_filters { name: "envoy.filters.http.fault" typed_config { [` + typ + faults + `HTTPFault] { ` + faultFilter + ` } } } ` + routerFilter,
		`http_filters { name: "s" typed_config { [` + typ + sess + `StatefulSession] { ` + sessionConfig + ` } } } ` + routerFilter,
		`http_filters { name: "x" is_optional: true typed_config { [` + typ + `` + foreignType + `] {} } } ` + routerFilter,
		routerFilter,
	},
	sess + "StatefulSession.session_state": {sessionConfig,
		`session_state { name: "x" typed_config { [` + typ + foreignType + `] {} } }`,
		`session_state { name: "s" typed_config { [` + typ + state + `header.v3.HeaderBasedSessionState] { name: "h" } } }`},
	lds + "FilterChain.filters": {managerChain, `filters { name: "t" typed_config { [` + typ + tcp + `TcpProxy] { cluster: "c" } } }`,
		`filters { name: "x" typed_config { [` + typ + `` + foreignType + `] {} } } ` + managerChain},
	cds + "Cluster.cluster_type": {`cluster_type { name: "x" typed_config { [` + typ + foreignType + `] {} } }`, `cluster_type { ` + filler[cds+"Cluster.CustomClusterType"] + ` }`},
	cds + "LoadBalancingPolicy.Policy.typed_extension_config": {
		`typed_extension_config { name: "b" typed_config { [` + typ + foreignType + `] {} } }`,
		balancer("round_robin.v3.RoundRobin", ""), balancer("least_request.v3.LeastRequest", ""), balancer("ring_hash.v3.RingHash", ""),
		balancer("maglev.v3.Maglev", ""), balancer("random.v3.Random", ""), balancer("pick_first.v3.PickFirst", ""),
		balancer("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin", ""),
		balancer("random_subsetting.v3.RandomSubsetting", `subset_size { value: 4 } child_policy { policies { `+balancer("random.v3.Random", "")+` } }`),
		balancer("wrr_locality.v3.WrrLocality", `endpoint_picking_policy { policies { `+balancer("random.v3.Random", "")+` } }`),
	},
	cds + "Cluster.typed_extension_protocol_options": {`typed_extension_protocol_options { key: "` + up + `HttpProtocolOptions" value { [` + typ + up + `HttpProtocolOptions] {
		common_http_protocol_options { idle_timeout { seconds: 9 } } explicit_http_config { http2_protocol_options { max_concurrent_streams { value: 7 } } } } } }`},
	cds + "Cluster.load_assignment":                   {`load_assignment { cluster_name: "c" endpoints { lb_endpoints { endpoint { address { socket_address { address: "10.0.0.7" port_value: 80 } } } } } }`},
	cds + "Cluster.lb_policy":                         {"lb_policy: RANDOM", "lb_policy: MAGLEV"},
	cds + "Cluster.type":                              {"type: STRICT_DNS", "type: ORIGINAL_DST", "type: STATIC"},
	cds + "Cluster.name":                              {`name: "d"`},
	faults + "FaultAbort.grpc_status":                 {"grpc_status: 5"},
	faults + "FaultAbort.http_status":                 {"http_status: 404"},
	eds + "LocalityLbEndpoints.priority":              {"priority: 1"},
	eds + "LocalityLbEndpoints.load_balancing_weight": {"load_balancing_weight { value: 7 }"},
	eds + "LbEndpoint.load_balancing_weight":          {"load_balancing_weight { value: 7 }"},
}

var mirrorSamples = []string{`request_mirror_policies { cluster: "m" }`, `request_mirror_policies { cluster_header: "m" }`}

var perFilterSamples = []string{
	`typed_per_filter_config { key: "envoy.filters.http.fault" value { [` + typ + faults + `HTTPFault] { ` + faultFilter + ` } } }`,
	`typed_per_filter_config { key: "envoy.filters.http.stateful_session" value { [` + typ + sess + `StatefulSessionPerRoute] { stateful_session { ` + sessionConfig + ` } } } }`,
	`typed_per_filter_config { key: "x" value { [` + typ + `` + foreignType + `] {} } }`,
}

func balancer(name, config string) string {
	return `typed_extension_config { name: "b" typed_config { [` + typ + lb + name + `] { ` + config + ` } } }`
}

// beside is what a field needs beside it to mean something.
var beside = map[string]string{
	cds + "Cluster.ring_hash_lb_config":                                 "lb_policy: RING_HASH",
	cds + "Cluster.maglev_lb_config":                                    "lb_policy: MAGLEV",
	cds + "Cluster.least_request_lb_config":                             "lb_policy: LEAST_REQUEST",
	cds + "Cluster.round_robin_lb_config":                               "lb_policy: ROUND_ROBIN",
	cds + "Cluster.load_assignment":                                     "type: STATIC",
	cds + "OutlierDetection.enforcing_consecutive_local_origin_failure": "split_external_local_origin_errors: true",
	cds + "OutlierDetection.enforcing_local_origin_success_rate":        "split_external_local_origin_errors: true",
	cds + "OutlierDetection.enforcing_failure_percentage_local_origin":  "split_external_local_origin_errors: true",
	cds + "Cluster.dns_refresh_rate":                                    `type: STRICT_DNS load_assignment { cluster_name: "c" endpoints { lb_endpoints { endpoint { address { socket_address { address: "example.com" port_value: 80 } } } } } }`,
	match + "StringMatcher.ignore_case":                                 `exact: "E"`,
}

// closed are fields that are read, and whose inside is no matter of the table:
// what is inside is judged as a whole, or is gone into elsewhere.
var closed = []string{
	hcm + "HttpConnectionManager.route_config",
	cds + "Cluster.load_assignment",
}
