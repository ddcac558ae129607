package proxyless

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
)

// maker makes messages by going over the fields of their types, those that are
// not read included, with values that are likely to be accepted. The same seed
// makes the same messages.
type maker struct {
	*rand.Rand
	noise float64 // how often a field is set that is not read
	spoil float64 // how often a value is one that may be refused

	extension []string // what a TypedExtensionConfig holds; nil is a load balancing policy
}

func newMaker(seed uint64) *maker {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 2))}
	m.noise = pick(m, 0, 0, 0.05, 0.2)
	m.spoil = pick(m, 0, 0, 0, 0.002, 0.03)
	return m
}

func pick[T any](m *maker, from ...T) T { return from[m.IntN(len(from))] }

func (m *maker) chance(p float64) bool { return m.Float64() < p }

// often says how likely the fields are set that are read, and that are not in a
// oneof.
var often = map[protoreflect.FullName]float64{
	"envoy.config.listener.v3.Listener.name":                                             0.999,
	"envoy.config.listener.v3.Listener.api_listener":                                     0.6,
	"envoy.config.listener.v3.Listener.filter_chains":                                    0.9,
	"envoy.config.listener.v3.Listener.default_filter_chain":                             0.3,
	"envoy.config.listener.v3.ApiListener.api_listener":                                  0.999,
	"envoy.config.listener.v3.Filter.name":                                               0.999,
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.name":        1,
	"envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.is_optional": 0.3,
	"envoy.config.listener.v3.FilterChain.name":                                          0.7,
	"envoy.config.listener.v3.FilterChain.filters":                                       0.999,
	"envoy.config.listener.v3.FilterChain.transport_socket":                              0.5,
	"envoy.config.listener.v3.FilterChain.filter_chain_match":                            0.3,
	hcmName + ".common_http_protocol_options":                                            0.5,
	hcmName + ".http_filters":                                                            0.999,
	hcmName + ".xff_num_trusted_hops":                                                    0.01,
	"envoy.extensions.filters.network.http_connection_manager.v3.Rds.route_config_name":  0.999,
	"envoy.extensions.filters.network.http_connection_manager.v3.Rds.config_source":      0.999,
	"envoy.config.core.v3.HttpProtocolOptions.max_stream_duration":                       0.7,

	"envoy.config.route.v3.RouteConfiguration.name":                               0.999,
	"envoy.config.route.v3.RouteConfiguration.virtual_hosts":                      0.98,
	"envoy.config.route.v3.VirtualHost.name":                                      0.9,
	"envoy.config.route.v3.VirtualHost.domains":                                   0.98,
	"envoy.config.route.v3.VirtualHost.routes":                                    0.98,
	"envoy.config.route.v3.VirtualHost.retry_policy":                              0.3,
	"envoy.config.route.v3.Route.name":                                            0.6,
	"envoy.config.route.v3.Route.match":                                           1,
	"envoy.config.route.v3.RouteMatch.case_sensitive":                             0.3,
	"envoy.config.route.v3.RouteMatch.headers":                                    0.5,
	"envoy.config.route.v3.RouteMatch.runtime_fraction":                           0.3,
	"envoy.config.route.v3.RouteMatch.grpc":                                       0.2,
	"envoy.config.route.v3.RouteMatch.query_parameters":                           0.01,
	"envoy.config.route.v3.RouteMatch.dynamic_metadata":                           0.01,
	"envoy.config.route.v3.RouteMatch.filter_state":                               0.01,
	"envoy.config.route.v3.RouteMatch.cookies":                                    0.01,
	"envoy.config.route.v3.RouteMatch.tls_context":                                0.01,
	"envoy.config.route.v3.HeaderMatcher.name":                                    1,
	"envoy.config.route.v3.HeaderMatcher.invert_match":                            0.3,
	"envoy.config.route.v3.HeaderMatcher.treat_missing_header_as_empty":           0.3,
	"envoy.type.matcher.v3.StringMatcher.ignore_case":                             0.3,
	"envoy.type.matcher.v3.RegexMatcher.regex":                                    0.97,
	"envoy.type.v3.Int64Range.start":                                              0.9,
	"envoy.type.v3.Int64Range.end":                                                0.9,
	"envoy.type.v3.FractionalPercent.numerator":                                   0.9,
	"envoy.type.v3.FractionalPercent.denominator":                                 0.7,
	"envoy.config.core.v3.RuntimeFractionalPercent.default_value":                 0.95,
	"envoy.config.route.v3.RouteAction.max_stream_duration":                       0.5,
	"envoy.config.route.v3.RouteAction.timeout":                                   0.5,
	"envoy.config.route.v3.RouteAction.retry_policy":                              0.3,
	"envoy.config.route.v3.RouteAction.MaxStreamDuration.max_stream_duration":     0.7,
	"envoy.config.route.v3.RouteAction.MaxStreamDuration.grpc_timeout_header_max": 0.4,
	"envoy.config.route.v3.WeightedCluster.clusters":                              0.999,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.name":                    1,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.weight":                  0.9,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.cluster_header":          0.002,

	"envoy.config.cluster.v3.Cluster.name":                                      0.99,
	"envoy.config.cluster.v3.Cluster.eds_cluster_config":                        0.99,
	"envoy.config.cluster.v3.Cluster.connect_timeout":                           0.7,
	"envoy.config.cluster.v3.Cluster.lb_policy":                                 0.5,
	"envoy.config.cluster.v3.Cluster.load_balancing_policy":                     0.4,
	"envoy.config.cluster.v3.Cluster.transport_socket":                          0.4,
	"envoy.config.cluster.v3.Cluster.transport_socket_matches":                  0.4,
	"envoy.config.cluster.v3.Cluster.circuit_breakers":                          0.3,
	"envoy.config.cluster.v3.Cluster.EdsClusterConfig.eds_config":               0.999,
	"envoy.config.cluster.v3.Cluster.EdsClusterConfig.service_name":             0.7,
	"envoy.config.cluster.v3.Cluster.TransportSocketMatch.match":                0.6,
	"envoy.config.cluster.v3.Cluster.TransportSocketMatch.transport_socket":     0.9,
	"envoy.config.cluster.v3.LoadBalancingPolicy.policies":                      0.98,
	"envoy.config.cluster.v3.LoadBalancingPolicy.Policy.typed_extension_config": 1,
	"envoy.config.core.v3.TypedExtensionConfig.typed_config":                    1,

	"envoy.config.endpoint.v3.ClusterLoadAssignment.cluster_name":        0.99,
	"envoy.config.endpoint.v3.ClusterLoadAssignment.endpoints":           0.99,
	"envoy.config.endpoint.v3.ClusterLoadAssignment.policy":              0.2,
	"envoy.config.endpoint.v3.LocalityLbEndpoints.locality":              0.9,
	"envoy.config.endpoint.v3.LocalityLbEndpoints.lb_endpoints":          0.95,
	"envoy.config.endpoint.v3.LocalityLbEndpoints.load_balancing_weight": 0.4,
	"envoy.config.endpoint.v3.LocalityLbEndpoints.priority":              0.5,
	"envoy.config.core.v3.Locality.region":                               0.9,
	"envoy.config.core.v3.Locality.zone":                                 0.8,
	"envoy.config.core.v3.Locality.sub_zone":                             0.4,
	"envoy.config.endpoint.v3.LbEndpoint.health_status":                  0.6,
	"envoy.config.endpoint.v3.LbEndpoint.load_balancing_weight":          0.6,
	"envoy.config.endpoint.v3.LbEndpoint.metadata":                       0.3,
	"envoy.config.endpoint.v3.Endpoint.address":                          0.98,
	"envoy.config.core.v3.SocketAddress.address":                         0.99,

	"envoy.config.listener.v3.Listener.address":                                                   0.8,
	"envoy.config.listener.v3.Listener.additional_addresses":                                      0.2,
	"envoy.config.listener.v3.Listener.use_original_dst":                                          0.2,
	"envoy.config.listener.v3.Listener.traffic_direction":                                         0.7,
	"envoy.config.listener.v3.AdditionalAddress.address":                                          0.9,
	"envoy.config.listener.v3.FilterChainMatch.destination_port":                                  0.6,
	"envoy.config.listener.v3.FilterChainMatch.prefix_ranges":                                     0.1,
	"envoy.config.listener.v3.FilterChainMatch.transport_protocol":                                0.6,
	"envoy.config.listener.v3.FilterChainMatch.application_protocols":                             0.5,
	"envoy.config.listener.v3.FilterChainMatch.server_names":                                      0.3,
	"envoy.config.core.v3.CidrRange.address_prefix":                                               1,
	"envoy.config.core.v3.CidrRange.prefix_len":                                                   0.8,
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.clusters":             0.95,
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight.name":   1,
	"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight.weight": 0.9,

	"envoy.config.route.v3.RouteConfiguration.request_headers_to_add":                         0.15,
	"envoy.config.route.v3.RouteConfiguration.request_headers_to_remove":                      0.15,
	"envoy.config.route.v3.RouteConfiguration.response_headers_to_add":                        0.15,
	"envoy.config.route.v3.RouteConfiguration.response_headers_to_remove":                     0.15,
	"envoy.config.route.v3.RouteConfiguration.request_mirror_policies":                        0.1,
	"envoy.config.route.v3.RouteConfiguration.typed_per_filter_config":                        0.1,
	"envoy.config.route.v3.RouteConfiguration.most_specific_header_mutations_wins":            0.3,
	"envoy.config.route.v3.VirtualHost.request_headers_to_add":                                0.15,
	"envoy.config.route.v3.VirtualHost.request_headers_to_remove":                             0.15,
	"envoy.config.route.v3.VirtualHost.response_headers_to_add":                               0.1,
	"envoy.config.route.v3.VirtualHost.response_headers_to_remove":                            0.1,
	"envoy.config.route.v3.VirtualHost.request_mirror_policies":                               0.1,
	"envoy.config.route.v3.VirtualHost.typed_per_filter_config":                               0.1,
	"envoy.config.route.v3.VirtualHost.hedge_policy":                                          0.1,
	"envoy.config.route.v3.Route.request_headers_to_add":                                      0.2,
	"envoy.config.route.v3.Route.request_headers_to_remove":                                   0.2,
	"envoy.config.route.v3.Route.response_headers_to_add":                                     0.1,
	"envoy.config.route.v3.Route.response_headers_to_remove":                                  0.1,
	"envoy.config.route.v3.Route.typed_per_filter_config":                                     0.2,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.request_headers_to_add":              0.1,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.request_headers_to_remove":           0.1,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.response_headers_to_add":             0.1,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.response_headers_to_remove":          0.1,
	"envoy.config.route.v3.WeightedCluster.ClusterWeight.typed_per_filter_config":             0.1,
	"envoy.config.core.v3.HeaderValueOption.header":                                           0.999,
	"envoy.config.core.v3.HeaderValueOption.append":                                           0.2,
	"envoy.config.core.v3.HeaderValueOption.append_action":                                    0.6,
	"envoy.config.core.v3.HeaderValueOption.keep_empty_value":                                 0.2,
	"envoy.config.core.v3.HeaderValue.key":                                                    1,
	"envoy.config.core.v3.HeaderValue.value":                                                  0.9,
	"envoy.config.core.v3.HeaderValue.raw_value":                                              0.1,
	"envoy.config.route.v3.FilterConfig.config":                                               0.9,
	"envoy.config.route.v3.FilterConfig.disabled":                                             0.3,
	"envoy.config.route.v3.RouteAction.hedge_policy":                                          0.2,
	"envoy.config.route.v3.RouteAction.hash_policy":                                           0.3,
	"envoy.config.route.v3.RouteAction.request_mirror_policies":                               0.2,
	"envoy.config.route.v3.RouteAction.max_grpc_timeout":                                      0.4,
	"envoy.config.route.v3.RouteAction.RequestMirrorPolicy.cluster":                           0.99,
	"envoy.config.route.v3.RouteAction.RequestMirrorPolicy.cluster_header":                    0.6,
	"envoy.config.route.v3.RouteAction.RequestMirrorPolicy.runtime_fraction":                  0.5,
	"envoy.config.route.v3.RouteAction.RequestMirrorPolicy.disable_shadow_host_suffix_append": 0.5,
	"envoy.config.route.v3.RouteAction.HashPolicy.terminal":                                   0.3,
	"envoy.config.route.v3.RouteAction.HashPolicy.Header.header_name":                         1,
	"envoy.config.route.v3.RouteAction.HashPolicy.Header.regex_rewrite":                       0.4,
	"envoy.config.route.v3.RouteAction.HashPolicy.Cookie.name":                                1,
	"envoy.config.route.v3.RouteAction.HashPolicy.Cookie.ttl":                                 0.5,
	"envoy.config.route.v3.RouteAction.HashPolicy.Cookie.path":                                0.5,
	"envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties.source_ip":             0.8,
	"envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter.name":                        1,
	"envoy.config.route.v3.RouteAction.HashPolicy.FilterState.key":                            1,
	"envoy.type.matcher.v3.RegexMatchAndSubstitute.pattern":                                   1,
	"envoy.type.matcher.v3.RegexMatchAndSubstitute.substitution":                              0.9,
	"envoy.config.route.v3.QueryParameterMatcher.name":                                        1,
	"envoy.config.route.v3.CookieMatcher.name":                                                1,
	"envoy.config.route.v3.CookieMatcher.string_match":                                        0.9,
	"envoy.config.route.v3.CookieMatcher.invert_match":                                        0.3,
	"envoy.config.route.v3.DirectResponseAction.status":                                       0.9,
	"envoy.config.route.v3.RetryPolicy.retry_on":                                              0.9,
	"envoy.config.route.v3.RetryPolicy.num_retries":                                           0.7,
	"envoy.config.route.v3.RetryPolicy.per_try_timeout":                                       0.4,
	"envoy.config.route.v3.RetryPolicy.per_try_idle_timeout":                                  0.2,
	"envoy.config.route.v3.RetryPolicy.retry_priority":                                        0.3,
	"envoy.config.route.v3.RetryPolicy.retry_host_predicate":                                  0.5,
	"envoy.config.route.v3.RetryPolicy.host_selection_retry_max_attempts":                     0.5,
	"envoy.config.route.v3.RetryPolicy.retriable_status_codes":                                0.5,
	"envoy.config.route.v3.RetryPolicy.retry_back_off":                                        0.4,
	"envoy.config.route.v3.RetryPolicy.retriable_headers":                                     0.1,
	"envoy.config.route.v3.RetryPolicy.retriable_request_headers":                             0.1,
	"envoy.config.route.v3.RetryPolicy.RetryBackOff.base_interval":                            0.9,
	"envoy.config.route.v3.RetryPolicy.RetryBackOff.max_interval":                             0.6,
	"envoy.config.route.v3.RetryPolicy.RetryHostPredicate.name":                               1,
	"envoy.config.route.v3.HedgePolicy.initial_requests":                                      0.5,
	"envoy.config.route.v3.HedgePolicy.additional_request_chance":                             0.5,
	"envoy.config.route.v3.HedgePolicy.hedge_on_per_try_timeout":                              0.5,

	"envoy.extensions.filters.http.fault.v3.HTTPFault.delay":                          0.6,
	"envoy.extensions.filters.http.fault.v3.HTTPFault.abort":                          0.6,
	"envoy.extensions.filters.http.fault.v3.HTTPFault.upstream_cluster":               0.3,
	"envoy.extensions.filters.http.fault.v3.HTTPFault.headers":                        0.2,
	"envoy.extensions.filters.http.fault.v3.HTTPFault.downstream_nodes":               0.2,
	"envoy.extensions.filters.http.fault.v3.HTTPFault.max_active_faults":              0.3,
	"envoy.extensions.filters.http.fault.v3.FaultAbort.percentage":                    0.9,
	"envoy.extensions.filters.common.fault.v3.FaultDelay.percentage":                  0.9,
	"envoy.extensions.filters.http.stateful_session.v3.StatefulSession.session_state": 0.9,
	"envoy.extensions.filters.http.stateful_session.v3.StatefulSession.strict":        0.4,
	"envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState.cookie": 1,
	"envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState.name":   1,
	"envoy.type.http.v3.Cookie.name":                                                  1,
	"envoy.type.http.v3.Cookie.ttl":                                                   0.5,
	"envoy.type.http.v3.Cookie.path":                                                  0.5,

	"envoy.config.cluster.v3.Cluster.max_requests_per_connection":                                                                                      0.2,
	"envoy.config.cluster.v3.Cluster.http2_protocol_options":                                                                                           0.2,
	"envoy.config.cluster.v3.Cluster.common_http_protocol_options":                                                                                     0.2,
	"envoy.config.cluster.v3.Cluster.typed_extension_protocol_options":                                                                                 0.4,
	"envoy.config.cluster.v3.Cluster.dns_refresh_rate":                                                                                                 0.3,
	"envoy.config.cluster.v3.Cluster.dns_lookup_family":                                                                                                0.5,
	"envoy.config.cluster.v3.Cluster.outlier_detection":                                                                                                0.4,
	"envoy.config.cluster.v3.Cluster.common_lb_config":                                                                                                 0.4,
	"envoy.config.cluster.v3.Cluster.upstream_connection_options":                                                                                      0.3,
	"envoy.config.cluster.v3.Cluster.load_assignment":                                                                                                  0.8,
	"envoy.config.cluster.v3.UpstreamConnectionOptions.tcp_keepalive":                                                                                  0.9,
	"envoy.config.core.v3.TcpKeepalive.keepalive_probes":                                                                                               0.7,
	"envoy.config.core.v3.TcpKeepalive.keepalive_time":                                                                                                 0.7,
	"envoy.config.core.v3.TcpKeepalive.keepalive_interval":                                                                                             0.7,
	"envoy.config.core.v3.HttpProtocolOptions.idle_timeout":                                                                                            0.6,
	"envoy.config.core.v3.HttpProtocolOptions.max_connection_duration":                                                                                 0.6,
	"envoy.config.core.v3.HttpProtocolOptions.max_requests_per_connection":                                                                             0.6,
	"envoy.config.core.v3.Http2ProtocolOptions.max_concurrent_streams":                                                                                 0.8,
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.common_http_protocol_options":                                                              0.8,
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig.http2_protocol_options":                                            0.8,
	"envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig.http2_protocol_options":                                                     0.8,
	"envoy.config.cluster.v3.CircuitBreakers.thresholds":                                                                                               0.95,
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.priority":                                                                                      0.3,
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.max_connections":                                                                               0.6,
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.max_pending_requests":                                                                          0.6,
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.max_requests":                                                                                  0.6,
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.max_retries":                                                                                   0.6,
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.retry_budget":                                                                                  0.4,
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget.budget_percent":                                                                    0.7,
	"envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget.min_retry_concurrency":                                                             0.7,
	"envoy.type.v3.Percent.value":                                                                                                                      0.9,
	"envoy.config.core.v3.RuntimeDouble.default_value":                                                                                                 0.9,
	"envoy.config.cluster.v3.Cluster.CommonLbConfig.healthy_panic_threshold":                                                                           0.6,
	"envoy.config.cluster.v3.Cluster.CommonLbConfig.override_host_status":                                                                              0.5,
	"envoy.config.cluster.v3.Cluster.CommonLbConfig.consistent_hashing_lb_config":                                                                      0.3,
	"envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig.use_hostname_for_hashing":                                                0.5,
	"envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig.hash_balance_factor":                                                     0.1,
	"envoy.config.core.v3.HealthStatusSet.statuses":                                                                                                    0.9,
	"envoy.config.cluster.v3.Cluster.SlowStartConfig.slow_start_window":                                                                                0.9,
	"envoy.config.cluster.v3.Cluster.SlowStartConfig.aggression":                                                                                       0.6,
	"envoy.config.cluster.v3.Cluster.SlowStartConfig.min_weight_percent":                                                                               0.6,
	"envoy.config.cluster.v3.Cluster.RoundRobinLbConfig.slow_start_config":                                                                             0.8,
	"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig.slow_start_config":                                                                           0.5,
	"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig.active_request_bias":                                                                         0.5,
	"envoy.config.cluster.v3.Cluster.CustomClusterType.name":                                                                                           0.9,
	"envoy.config.cluster.v3.Cluster.CustomClusterType.typed_config":                                                                                   1,
	"envoy.extensions.clusters.aggregate.v3.ClusterConfig.clusters":                                                                                    0.95,
	"envoy.extensions.clusters.dns.v3.DnsCluster.dns_refresh_rate":                                                                                     0.5,
	"envoy.extensions.clusters.dns.v3.DnsCluster.dns_lookup_family":                                                                                    0.5,
	"envoy.extensions.clusters.dns.v3.DnsCluster.all_addresses_in_single_endpoint":                                                                     0.3,
	"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.drop_overloads":                                                                             0.6,
	"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.overprovisioning_factor":                                                                    0.6,
	"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload.category":                                                                      0.8,
	"envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload.drop_percentage":                                                               0.9,
	"envoy.config.endpoint.v3.Endpoint.hostname":                                                                                                       0.2,
	"envoy.config.endpoint.v3.Endpoint.additional_addresses":                                                                                           0.1,
	"envoy.config.endpoint.v3.Endpoint.AdditionalAddress.address":                                                                                      0.9,
	"envoy.config.cluster.v3.OutlierDetection.consecutive_5xx":                                                                                         0.3,
	"envoy.config.cluster.v3.OutlierDetection.interval":                                                                                                0.3,
	"envoy.config.cluster.v3.OutlierDetection.base_ejection_time":                                                                                      0.3,
	"envoy.config.cluster.v3.OutlierDetection.max_ejection_percent":                                                                                    0.3,
	"envoy.config.cluster.v3.OutlierDetection.enforcing_consecutive_5xx":                                                                               0.3,
	"envoy.config.cluster.v3.OutlierDetection.enforcing_success_rate":                                                                                  0.3,
	"envoy.config.cluster.v3.OutlierDetection.success_rate_minimum_hosts":                                                                              0.3,
	"envoy.config.cluster.v3.OutlierDetection.success_rate_request_volume":                                                                             0.3,
	"envoy.config.cluster.v3.OutlierDetection.success_rate_stdev_factor":                                                                               0.3,
	"envoy.config.cluster.v3.OutlierDetection.consecutive_gateway_failure":                                                                             0.3,
	"envoy.config.cluster.v3.OutlierDetection.enforcing_consecutive_gateway_failure":                                                                   0.3,
	"envoy.config.cluster.v3.OutlierDetection.split_external_local_origin_errors":                                                                      0.3,
	"envoy.config.cluster.v3.OutlierDetection.consecutive_local_origin_failure":                                                                        0.3,
	"envoy.config.cluster.v3.OutlierDetection.enforcing_consecutive_local_origin_failure":                                                              0.3,
	"envoy.config.cluster.v3.OutlierDetection.enforcing_local_origin_success_rate":                                                                     0.3,
	"envoy.config.cluster.v3.OutlierDetection.failure_percentage_threshold":                                                                            0.3,
	"envoy.config.cluster.v3.OutlierDetection.enforcing_failure_percentage":                                                                            0.3,
	"envoy.config.cluster.v3.OutlierDetection.enforcing_failure_percentage_local_origin":                                                               0.3,
	"envoy.config.cluster.v3.OutlierDetection.failure_percentage_minimum_hosts":                                                                        0.3,
	"envoy.config.cluster.v3.OutlierDetection.failure_percentage_request_volume":                                                                       0.3,
	"envoy.config.cluster.v3.OutlierDetection.max_ejection_time":                                                                                       0.3,
	"envoy.config.cluster.v3.OutlierDetection.max_ejection_time_jitter":                                                                                0.3,
	"envoy.config.cluster.v3.OutlierDetection.always_eject_one_host":                                                                                   0.3,
	"envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin.slow_start_config":                                                             0.5,
	"envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin.locality_lb_config":                                                            0.5,
	"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest.active_request_bias":                                                       0.5,
	"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest.slow_start_config":                                                         0.5,
	"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest.locality_lb_config":                                                        0.5,
	"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest.enable_full_scan":                                                          0.5,
	"envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest.selection_method":                                                          0.5,
	"envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash.use_hostname_for_hashing":                                                          0.5,
	"envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash.consistent_hashing_lb_config":                                                      0.5,
	"envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash.locality_weighted_lb_config":                                                       0.5,
	"envoy.extensions.load_balancing_policies.maglev.v3.Maglev.consistent_hashing_lb_config":                                                           0.5,
	"envoy.extensions.load_balancing_policies.maglev.v3.Maglev.locality_weighted_lb_config":                                                            0.5,
	"envoy.extensions.load_balancing_policies.pick_first.v3.PickFirst.shuffle_address_list":                                                            0.5,
	"envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.enable_oob_load_report":                 0.5,
	"envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.oob_reporting_period":                   0.5,
	"envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.blackout_period":                        0.5,
	"envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.weight_expiration_period":               0.5,
	"envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.weight_update_period":                   0.5,
	"envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.error_utilization_penalty":              0.5,
	"envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.metric_names_for_computing_utilization": 0.5,
	"envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin.slow_start_config":                      0.5,
	"envoy.extensions.load_balancing_policies.random_subsetting.v3.RandomSubsetting.subset_size":                                                       0.5,
	"envoy.extensions.load_balancing_policies.random_subsetting.v3.RandomSubsetting.child_policy":                                                      0.5,
	"envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost.fallback_policy":                                                           0.5,
	"envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality.endpoint_picking_policy":                                                     0.5,
	"envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig.slow_start_window":                                                             0.5,
	"envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig.aggression":                                                                    0.5,
	"envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig.min_weight_percent":                                                            0.5,
	"envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig.use_hostname_for_hashing":                                            0.5,
}

func init() {
	const provider = "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider."
	for _, field := range strings.Fields("issuer audiences subjects require_expiration max_lifetime forward from_headers from_params from_cookies forward_payload_header pad_forward_payload_header " +
		"payload_in_metadata normalize_payload_in_metadata header_in_metadata failed_status_in_metadata clock_skew_seconds claim_to_headers") {
		often[protoreflect.FullName(provider+field)] = 0.3
	}
	often["envoy.extensions.filters.http.jwt_authn.v3.JwtHeader.name"] = 1
	often["envoy.extensions.filters.http.jwt_authn.v3.JwtHeader.value_prefix"] = 0.5
	often["envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader.header_name"] = 1
	often["envoy.config.cluster.v3.Cluster.transport_socket_matches"] = 0.5
	often["envoy.config.cluster.v3.Cluster.TransportSocketMatch.match"] = 0.7
	often["envoy.config.cluster.v3.Cluster.TransportSocketMatch.transport_socket"] = 0.9
}

const hcmName = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

// rarely are the members of a oneof that are not what a mesh usually sends;
// the others share the rest evenly.
var rarely = map[protoreflect.Name]float64{
	"scoped_routes": 0.01, "route_config": 0.3, "config_discovery": 0.02, "path_config_source": 0.01, "api_config_source": 0.01,
	"connect_matcher": 0.02, "path_match_policy": 0.2, "custom": 0.02, "redirect": 0.1, "direct_response": 0.1,
	"filter_action": 0.02, "non_forwarding_action": 0.1, "cluster_header": 0.1, "cluster_specifier_plugin": 0.05,
	"inline_cluster_specifier_plugin": 0.05, "cluster_type": 0.3, "pipe": 0.05, "envoy_internal_address": 0.05,
	"endpoint_name": 0.03, "named_port": 0.05,
}

// fill sets fields of a message. Depth bounds what is not read.
func (m *maker) fill(to protoreflect.Message, depth int) {
	d := to.Descriptor()
	if m.special(to) || depth < 0 {
		return
	}
	for i := range d.Oneofs().Len() {
		if o := d.Oneofs().Get(i); !o.IsSynthetic() {
			m.member(to, o, depth)
		}
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		odds, read := often[f.FullName()]
		if !read {
			odds = m.noise
		}
		if f.ContainingOneof() == nil && m.chance(odds) {
			m.field(to, f, depth, read)
		}
	}
	m.finish(to)
}

func (m *maker) member(to protoreflect.Message, o protoreflect.OneofDescriptor, depth int) {
	var total float64
	weight := func(f protoreflect.FieldDescriptor) float64 {
		if w, ok := rarely[f.Name()]; ok {
			return w
		}
		return 1
	}
	for i := range o.Fields().Len() {
		total += weight(o.Fields().Get(i))
	}
	at := m.Float64() * total
	if m.chance(0.03) && o.Name() != "config_source_specifier" {
		return
	}
	for i := range o.Fields().Len() {
		f := o.Fields().Get(i)
		if at -= weight(f); at < 0 {
			m.field(to, f, depth, true)
			return
		}
	}
}

func (m *maker) field(to protoreflect.Message, f protoreflect.FieldDescriptor, depth int, read bool) {
	if !read {
		depth = min(depth, 2)
	}
	depth--
	switch {
	case f.IsMap():
		if f.MapKey().Kind() == protoreflect.StringKind {
			values := to.Mutable(f).Map()
			for range 1 + m.IntN(2) {
				values.Set(protoreflect.ValueOfString(pick(m, "k", "envoy.lb", "é", "fault", "x.stateful_session")).MapKey(), m.value(f.MapValue(), values.NewValue, depth))
			}
		}
	case f.IsList():
		list := to.Mutable(f).List()
		for range 1 + m.IntN(3) {
			list.Append(m.value(f, list.NewElement, depth))
		}
	case f.Message() != nil:
		outer := m.extension
		switch f.FullName() {
		case "envoy.extensions.filters.http.stateful_session.v3.StatefulSession.session_state":
			m.extension = []string{typeCookieSession, typeHeaderSession, "example.Unknown"}
		case "envoy.config.route.v3.RouteMatch.path_match_policy":
			m.extension = []string{typePathTemplate, typePathTemplate, "example.Unknown"}
		}
		to.Set(f, m.value(f, func() protoreflect.Value { return to.NewField(f) }, depth))
		m.extension = outer
	default:
		to.Set(f, m.value(f, nil, depth))
	}
}

func (m *maker) value(f protoreflect.FieldDescriptor, empty func() protoreflect.Value, depth int) protoreflect.Value {
	if f.Message() != nil {
		v := empty()
		if f.Message().FullName() == "google.protobuf.Any" {
			m.pack(v.Message().Interface().(*anypb.Any), f.FullName(), depth)
		} else {
			m.fill(v.Message(), depth)
		}
		return v
	}
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(m.chance(0.5))
	case protoreflect.EnumKind:
		values := f.Enum().Values()
		if m.chance(m.spoil) {
			return protoreflect.ValueOfEnum(99)
		}
		if f.FullName() == "envoy.config.cluster.v3.Cluster.type" && m.chance(0.5) {
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(clusterv3.Cluster_EDS))
		}
		return protoreflect.ValueOfEnum(values.Get(m.IntN(values.Len())).Number())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(pick[int32](m, 0, 1, -1, math.MaxInt32, math.MinInt32))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(m.number(f.FullName()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(pick[int64](m, 0, 1, -1, 1<<40, math.MaxInt64, math.MinInt64))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(pick[uint64](m, 0, 1, 300, math.MaxUint64))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(1.5)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(2.5)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("\xff bytes"))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(m.text(f.FullName()))
	}
	return f.Default()
}

func (m *maker) number(field protoreflect.FullName) uint32 {
	switch field {
	case "envoy.config.core.v3.SocketAddress.port_value":
		if m.chance(m.spoil) {
			return pick[uint32](m, 65536, math.MaxUint32)
		}
		return pick[uint32](m, 0, 1, 80, 443, 50052, 50052, 65535, uint32(m.IntN(65536)))
	case "envoy.extensions.filters.http.fault.v3.FaultAbort.http_status":
		return pick[uint32](m, 200, 404, 503, 504, 599)
	case "envoy.config.route.v3.RetryPolicy.retriable_status_codes", "envoy.config.route.v3.DirectResponseAction.status":
		return pick[uint32](m, 200, 400, 401, 403, 404, 409, 429, 500, 502, 503, 504)
	case "envoy.config.endpoint.v3.LocalityLbEndpoints.priority":
		return pick[uint32](m, 0, 0, 1, 2, 3, math.MaxUint32)
	}
	if m.chance(m.spoil) {
		return math.MaxUint32
	}
	return pick[uint32](m, 0, 1, 1, 2, 50, 100, 127, 128, 300, m.Uint32N(1_000_000))
}

func (m *maker) text(field protoreflect.FullName) string {
	if m.chance(m.spoil) {
		return pick(m, "", "a*b", "**", "(", "\x00")
	}
	switch field {
	case "envoy.config.core.v3.SocketAddress.address":
		return m.address()
	case "envoy.config.route.v3.VirtualHost.domains":
		return pick(m, "*", "*.Example.com", "svc.*", "Svc.Demo.svc.cluster.local", "[fd00::1]:80", "10.0.0.1", "ÄÖ.example")
	case "envoy.config.route.v3.HeaderMatcher.name":
		return pick(m, "x-user", "X-Version", "Host", ":path", ":authority", "É")
	case "envoy.config.core.v3.CidrRange.address_prefix":
		return pick(m, "10.0.0.0", "fd00::", "10.1.2.3")
	case "envoy.config.core.v3.HeaderValue.key", "envoy.config.route.v3.Route.request_headers_to_remove", "envoy.config.route.v3.VirtualHost.request_headers_to_remove",
		"envoy.config.route.v3.RouteConfiguration.request_headers_to_remove", "envoy.config.route.v3.WeightedCluster.ClusterWeight.request_headers_to_remove":
		return pick(m, "x-a", "X-B", "x-c", ":path", "Host")
	case "envoy.config.core.v3.HeaderValue.value":
		return pick(m, "", "v", "100%%", "%PROTOCOL% and %%", "%REQ(x)%", "100%", "%")
	case "envoy.config.route.v3.RetryPolicy.retry_on":
		return pick(m, "5xx", "unavailable, cancelled", "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "odd", "gateway-error,,reset", "retriable-headers")
	case "envoy.config.route.v3.RouteAction.HashPolicy.FilterState.key":
		return pick(m, "io.grpc.channel_id", "other")
	case "envoy.type.matcher.v3.RegexMatchAndSubstitute.substitution":
		return pick(m, "", `\0`, `a$\\b`, `$1`, "x")
	case "envoy.config.cluster.v3.Cluster.name":
		return pick(m, "outbound|50052|v1|a.demo.svc.cluster.local", "PassthroughCluster", "é")
	case "envoy.config.cluster.v3.Cluster.CustomClusterType.name":
		return pick(m, "envoy.clusters.original_dst", "x")
	case "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig.path_template":
		return pick(m, slices.Sorted(maps.Keys(templates))...)
	case "envoy.type.matcher.v3.RegexMatcher.regex":
		return pick(m, "v[0-9]+", "a|b", "a|ab", "(?i)V1", ".*", "a*?", "", "^v1$", `/p\.S/.*`, "(?s)a.b", `\Qa`, "(?U)a+", "(?m)^a$")
	case "envoy.config.route.v3.RouteMatch.prefix", "envoy.config.route.v3.RouteMatch.path", "envoy.config.route.v3.RouteMatch.path_separated_prefix":
		return pick(m, "", "/", "/p.S/", "/p.S/Method", "/p.S", "//", strings.Repeat("/long", 60))
	}
	return pick(m, "a", "b.c", "é", "outbound|50052|v1|a.demo.svc.cluster.local", strings.Repeat("x", 127), strings.Repeat("y", 300), fmt.Sprint("n", m.IntN(1000)))
}

// address is a text as endpoints have it: IPv4 and IPv6 in any notation, and
// what is none.
func (m *maker) address() string {
	var v4 [4]byte
	var v6 [16]byte
	for i := range v6 {
		v6[i] = pick[byte](m, 0, 0, 1, byte(m.IntN(256)))
	}
	copy(v4[:], v6[8:])
	ip := netip.AddrFrom16(v6)
	return pick(m, netip.AddrFrom4(v4).String(), fmt.Sprintf("10.%d.%d.%d", m.IntN(256), m.IntN(256), m.IntN(256)), ip.String(), ip.String(), "10.0.0.1", "fd00::1",
		ip.StringExpanded(), strings.ToUpper(ip.String()), "::ffff:"+netip.AddrFrom4(v4).String(), "FE80::1%eth0", "::", "localhost", "010.0.0.1", "1.2.3", "1:2", "::ffff:a00:1", "1::2::3", "256.1.1.1", "::12345")
}

// special fills messages that have a form of their own.
func (m *maker) special(to protoreflect.Message) bool {
	switch d := to.Descriptor(); d.FullName() {
	case "google.protobuf.Duration":
		seconds := pick[int64](m, 0, 1, 15, 3600, math.MaxInt64/1_000_000_000-1, 315_576_000_000)
		nanos := pick[int32](m, 0, 1, 500_000_000, 999_999_999)
		if m.chance(m.spoil) {
			seconds, nanos = pick[int64](m, -1, 0, 315_576_000_001, math.MaxInt64), pick[int32](m, -1, 1_000_000_000, 0)
		}
		to.Set(d.Fields().ByName("seconds"), protoreflect.ValueOfInt64(seconds))
		to.Set(d.Fields().ByName("nanos"), protoreflect.ValueOfInt32(nanos))
	case "google.protobuf.UInt32Value":
		to.Set(d.Fields().ByName("value"), protoreflect.ValueOfUint32(m.number("")))
	case "google.protobuf.UInt64Value":
		to.Set(d.Fields().ByName("value"), protoreflect.ValueOfUint64(pick[uint64](m, 0, 2, 997, 1021, 65537, pick[uint64](m, 7, 7, 7, 1024, 1<<40))))
	case "google.protobuf.FloatValue":
		to.Set(d.Fields().ByName("value"), protoreflect.ValueOfFloat32(pick[float32](m, 0, 0.5, 1)))
	case "google.protobuf.BoolValue":
		to.Set(d.Fields().ByName("value"), protoreflect.ValueOfBool(m.chance(0.5)))
	case "google.protobuf.Struct":
		if m.chance(0.7) {
			s, err := structpb.NewStruct(map[string]any{"tlsMode": "istio", "hash_key": pick(m, any("k"), any(1.5)), "list": []any{1.5, true, nil}})
			if err != nil {
				panic(err)
			}
			proto.Merge(to.Interface(), s)
		}
	default:
		return false
	}
	return true
}

// finish mends and breaks messages of which a random one would hardly ever, or
// never, be accepted.
func (m *maker) finish(to protoreflect.Message) {
	if unknown := to.Descriptor().FullName(); m.chance(m.spoil) && (unknown == "envoy.config.route.v3.RouteMatch" || unknown == "envoy.config.route.v3.HeaderMatcher") {
		to.SetUnknown(rawVarint)
	}
	if m.chance(m.spoil) {
		return
	}
	switch to := to.Interface().(type) {
	case *listenerv3.FilterChain:
		m.oneManager(to)
	case *hcmv3.HttpConnectionManager:
		m.mendManager(to)
	}
}

// oneManager leaves only the first connection manager of a chain.
func (m *maker) oneManager(chain *listenerv3.FilterChain) {
	managers := 0
	chain.Filters = slices.DeleteFunc(chain.Filters, func(f *listenerv3.Filter) bool {
		if name, _ := extensionType(f.GetTypedConfig()); name != hcmName {
			return false
		}
		managers++
		return managers > 1
	})
}

// mendManager gives the filters names of their own and a router at the end.
func (m *maker) mendManager(hcm *hcmv3.HttpConnectionManager) {
	if hcm.OriginalIpDetectionExtensions = nil; !m.chance(m.spoil) {
		hcm.XffNumTrustedHops = 0
	}
	for i, f := range hcm.HttpFilters {
		f.Name += fmt.Sprint(i)
		if name, _ := extensionType(f.GetTypedConfig()); name == typeRouter {
			f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: typePrefix + typeFault}}
		}
		f.IsOptional = f.IsOptional || m.chance(0.7)
	}
	router := &hcmv3.HttpFilter{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: typePrefix + typeRouter}}}
	hcm.HttpFilters = append(hcm.HttpFilters, router)
}

var rawVarint = []byte{0xC0, 0x3E, 1} // field 1000

// pack makes the configuration of an extension.
func (m *maker) pack(a *anypb.Any, field protoreflect.FullName, depth int) {
	names := []string{"example.Unknown", ""}
	switch field {
	case "envoy.config.listener.v3.ApiListener.api_listener", "envoy.config.listener.v3.Filter.typed_config":
		names = []string{hcmName}
		if m.chance(0.03) || field != "envoy.config.listener.v3.ApiListener.api_listener" && m.chance(0.3) {
			names = []string{typeNetworkRBAC, "example.Unknown", "", typeTCPProxy, "envoy.tcp.metadataexchange.config.MetadataExchange"}
		} else if field != "envoy.config.listener.v3.ApiListener.api_listener" && m.chance(0.4) {
			names = []string{typeTCPProxy}
		}
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config":
		names = []string{typeFault, typeStatefulSession, typeRBAC, typeJWT, "example.Unknown", "stats.PluginConfig"}
	case "envoy.config.route.v3.RouteConfiguration.TypedPerFilterConfigEntry.value", "envoy.config.route.v3.VirtualHost.TypedPerFilterConfigEntry.value",
		"envoy.config.route.v3.Route.TypedPerFilterConfigEntry.value", "envoy.config.route.v3.WeightedCluster.ClusterWeight.TypedPerFilterConfigEntry.value":
		names = []string{typeFault, typeSessionOfRoute, typeFilterConfig, "envoy.extensions.filters.http.cors.v3.CorsPolicy", "example.Unknown"}
	case "envoy.config.route.v3.FilterConfig.config":
		names = []string{typeFault, typeSessionOfRoute, "", "example.Unknown"}
	case "envoy.config.cluster.v3.Cluster.TypedExtensionProtocolOptionsEntry.value":
		names = []string{typeHTTPOptions, typeHTTPOptions, "example.Unknown"}
	case "envoy.config.cluster.v3.Cluster.CustomClusterType.typed_config":
		names = []string{typeAggregate, typeDNSCluster, "example.Unknown"}
	case "envoy.config.route.v3.RetryPolicy.RetryHostPredicate.typed_config":
		names = []string{typePreviousHosts, "example.Unknown"}
	case "envoy.config.route.v3.RetryPolicy.RetryPriority.typed_config":
		names = []string{typePreviousPriorities, "example.Unknown"}
	case "envoy.config.core.v3.TransportSocket.typed_config":
		names = []string{typeRawBuffer, typeUpstreamTLS, typeUpstreamTLS, typeDownstreamTLS, typeDownstreamTLS, "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport", ""}
	case "envoy.config.core.v3.TypedExtensionConfig.typed_config":
		names = []string{"example.Unknown", typeRoundRobin, typeLocalityRoundRobin, typeLocalityRoundRobin, typeLeastRequest, typeRandom, typeRingHash, typeMaglev, typePickFirst,
			typeReportedRoundRobin, typeRandomSubsetting, typeOverrideHost, typeClusterProvided}
		if m.extension != nil {
			names = m.extension
		}
	}
	name := pick(m, names...)
	if a.TypeUrl = name; name != "" {
		a.TypeUrl = pick(m, typePrefix, typePrefix, typePrefix, "", "example.com/a/") + name
	}
	m.content(a, name, depth)
	// The JSON form of a locality policy is left out: a client reads no JSON.
	if m.chance(0.05) && name != typeLocalityRoundRobin {
		packed, err := anypb.New(&xdsv3.TypedStruct{TypeUrl: a.TypeUrl, Value: &structpb.Struct{}})
		if err != nil {
			panic(err)
		}
		a.TypeUrl, a.Value = packed.TypeUrl, packed.Value
	}
}

// access makes an RBAC filter. What its rules say is compared elsewhere: here it
// counts which there are.
func (m *maker) access(name string) []byte {
	policy := `policies { key: "p" value { permissions { any: true } principals { any: true } } }`
	text := pick(m, "", "rules {}", "rules { action: DENY }", "rules { "+policy+" }", "rules { action: DENY "+policy+" }", "rules { action: LOG "+policy+" }")
	text += pick(m, "", " shadow_rules {}", " shadow_rules { action: DENY }", " shadow_rules { action: DENY "+policy+" }", ` shadow_rules_stat_prefix: "x"`, " matcher {}")
	to := map[string]proto.Message{typeRBAC: &httprbacv3.RBAC{}, typeNetworkRBAC: &networkrbacv3.RBAC{}}[name]
	if err := prototext.Unmarshal([]byte(text), to); err != nil {
		panic(err)
	}
	return marshal(to)
}

// tokens makes a JWT filter of up to three providers.
func (m *maker) tokens() []byte {
	to := &jwtv3.JwtAuthentication{Providers: map[string]*jwtv3.JwtProvider{}}
	for i := range 1 + m.IntN(3) {
		p := &jwtv3.JwtProvider{}
		m.fill(p.ProtoReflect(), 3)
		for _, h := range p.ClaimToHeaders {
			h.ClaimName = pick(m, "sub", "a.b", "x")
		}
		if m.chance(0.9) {
			p.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: pick(m, keySets...)}}}
		}
		to.Providers[fmt.Sprint("p", i)] = p
	}
	if m.chance(0.3) {
		to.RequirementMap = map[string]*jwtv3.JwtRequirement{"named": m.needs(1), "other": m.needs(0)}
	}
	for range m.IntN(3) {
		rule := &jwtv3.RequirementRule{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}, RequirementType: &jwtv3.RequirementRule_Requires{Requires: m.needs(0)}}
		if m.chance(0.5) {
			rule.Match.Reset()
			m.fill(rule.Match.ProtoReflect(), 3)
		}
		if to.RequirementMap != nil && m.chance(0.5) {
			rule.RequirementType = &jwtv3.RequirementRule_RequirementName{RequirementName: pick(m, "named", "other", "named", "other", "named", "other", "nobody")}
		}
		to.Rules = append(to.Rules, rule)
	}
	if m.chance(0.05) {
		to.FilterStateRules = &jwtv3.FilterStateRule{}
	}
	return marshal(to)
}

func (m *maker) needs(depth int) *jwtv3.JwtRequirement {
	name := pick(m, "p0", "p0", "p0", "p0", "p0", "p0", "p1")
	text := pick(m, `provider_name: "`+name+`"`, `provider_name: "`+name+`"`, `provider_and_audiences { provider_name: "`+name+`" audiences: "https://a/" }`, `allow_missing {}`,
		`allow_missing_or_failed {}`, ``, `extract_only_without_validation {}`)
	to := &jwtv3.JwtRequirement{}
	if err := prototext.Unmarshal([]byte(text), to); err != nil {
		panic(err)
	}
	if depth < 3 && m.chance(0.5) {
		var list []*jwtv3.JwtRequirement
		for range 1 + m.IntN(3) {
			list = append(list, m.needs(depth+1))
		}
		if m.chance(0.7) {
			to.RequiresType = &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: list}}
		} else {
			to.RequiresType = &jwtv3.JwtRequirement_RequiresAll{RequiresAll: &jwtv3.JwtRequirementAndList{Requirements: list}}
		}
	}
	return to
}

// keySets are sets of public keys: those of examples in RFC 7515 and RFC 8037, and
// some that are refused.
var keySets = []string{
	`{"keys":[{"kty":"EC","crv":"P-256","kid":"ec","alg":"ES256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`,
	`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"oct","k":"AA"},
		{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}]}`,
	`{"keys":[{"kty":"RSA","kid":"r","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}`,
	`{"keys":[]}`, `{}`, `x`,
}

// content fills a configuration that is looked into.
func (m *maker) content(a *anypb.Any, name string, depth int) {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		a.Value = pick(m, nil, rawVarint)
		return
	}
	if name == typeLocalityRoundRobin || name == typeRandomSubsetting || name == typeOverrideHost {
		depth -= 2
	}
	switch name {
	case typeUpstreamTLS, typeDownstreamTLS:
		a.Value = m.tlsContext(name)
		return
	case typeRBAC, typeNetworkRBAC:
		a.Value = m.access(name)
		return
	case typeJWT:
		a.Value = m.tokens()
		return
	}
	if depth < 0 || strings.Contains(name, "transport_sockets") {
		return
	}
	to := kind.New()
	m.fill(to, depth)
	a.Value = marshal(to.Interface())
}
