package proxyless

// coverageTable is what the decoders make of the fields of each message; see
// parseCoverage. It is made, and held to them, by interop/internal/coverage.
const coverageTable = `
Listener envoy.config.listener.v3.Listener
 1 name
 2 address
 3 filter_chains[*] FilterChain
 4 use_original_dst
 5 per_connection_buffer_limit_bytes -
 6 metadata -
 7 deprecated_v1 -
 8 drain_type -
 9 listener_filters[*] -
 10 transparent -
 11 freebind -
 12 tcp_fast_open_queue_length -
 13 socket_options[*] -
 15 listener_filters_timeout -
 16 traffic_direction
 17 continue_on_listener_filters_timeout -
 18 udp_listener_config -
 19 api_listener ApiListener
 20 connection_balance_config -
 21 reuse_port -
 22 access_log[*] -
 24 tcp_backlog_size -
 25 default_filter_chain FilterChain
 26 bind_to_port -
 27 internal_listener -
 28 stat_prefix -
 29 enable_reuse_port -
 30 enable_mptcp -
 31 ignore_global_conn_limit -
 32 filter_chain_matcher !
 33 additional_addresses[*] -
 34 max_connections_to_accept_per_socket_event -
 35 bypass_overload_manager -
 36 fcds_config -
 37 tcp_keepalive -
 38 per_connection_buffer_high_watermark_timeout -
 39 stats_matcher -
FilterChain envoy.config.listener.v3.FilterChain
 1 filter_chain_match FilterChainMatch
 3 filters[*] Filter
 4 use_proxy_proto !0
 5 metadata !
 6 transport_socket
 7 name
 9 transport_socket_connect_timeout !0
FilterChainMatch envoy.config.listener.v3.FilterChainMatch
 3 prefix_ranges[*] CidrRange
 4 address_suffix !
 5 suffix_len !0
 6 source_prefix_ranges[*] CidrRange
 7 source_ports[*]
 8 destination_port
 9 transport_protocol
 10 application_protocols[*]
 11 server_names[*]
 12 source_type
 13 direct_source_prefix_ranges[*] CidrRange
Filter envoy.config.listener.v3.Filter
 1 name
 4 typed_config ?
 5 config_discovery
HttpConnectionManager envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
 1 codec_type -
 2 stat_prefix -
 3 rds Rds
 4 route_config RouteConfiguration
 5 http_filters[*] HttpFilter
 6 add_user_agent -
 7 tracing -
 8 http_protocol_options -
 9 http2_protocol_options -
 10 server_name -
 12 drain_timeout -
 13 access_log[*] -
 14 use_remote_address -
 15 generate_request_id -
 16 forward_client_cert_details -
 17 set_current_client_cert_details -
 18 proxy_100_continue -
 19 xff_num_trusted_hops
 20 represent_ipv4_remote_address_as_ipv4_mapped_ipv6 -
 21 skip_xff_append -
 22 via -
 23 upgrade_configs[*] -
 24 stream_idle_timeout !0
 25 internal_address_config -
 26 delayed_close_timeout -
 28 request_timeout !0
 29 max_request_headers_kb -
 30 normalize_path -
 31 scoped_routes
 32 preserve_external_request_id -
 33 merge_slashes -
 34 server_header_transformation -
 35 common_http_protocol_options HttpProtocolOptions
 36 request_id_extension -
 37 always_set_request_id_in_response -
 38 local_reply_config !
 39 strip_matching_host_port -
 40 stream_error_on_invalid_http_message -
 41 request_headers_timeout -
 42 strip_any_host_port -
 43 path_normalization_options -
 44 http3_protocol_options -
 45 path_with_escaped_slashes_action -
 46 original_ip_detection_extensions[*] TypedExtensionConfig
 47 strip_trailing_host_dot -
 48 scheme_header_transformation -
 49 proxy_status_config -
 50 typed_header_validation_config -
 51 append_x_forwarded_port -
 52 early_header_mutation_extensions[*] !
 53 add_proxy_protocol_connection_state -
 54 access_log_flush_interval -
 55 flush_access_log_on_new_request -
 56 access_log_options -
 57 append_local_overload -
 58 http1_safe_max_connection_duration -
 59 stream_flush_timeout -
 60 forward_client_cert_matcher -
 61 forward_proto_config -
 62 drain_timeout_jitter -
Rds envoy.extensions.filters.network.http_connection_manager.v3.Rds
 1 config_source
 2 route_config_name
HttpFilter envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter
 1 name
 4 typed_config ?
 5 config_discovery
 6 is_optional !
 7 disabled
TcpProxy envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
 1 stat_prefix -
 2 cluster
 3 downstream_idle_timeout -
 4 upstream_idle_timeout -
 5 access_log[*] -
 7 max_connect_attempts -
 8 idle_timeout -
 9 metadata_match -
 10 weighted_clusters WeightedCluster
 11 hash_policy[*] -
 12 tunneling_config -
 13 max_downstream_connection_duration -
 14 on_demand !
 15 access_log_flush_interval -
 16 flush_access_log_on_connected !
 17 access_log_options -
 18 backoff_options -
 19 proxy_protocol_tlvs[*] -
 20 max_downstream_connection_duration_jitter_percentage !
 21 upstream_connect_mode -
 22 max_early_data_bytes -
 23 proxy_protocol_tlv_merge_policy !
 24 check_drain_close !0
HTTPFault envoy.extensions.filters.http.fault.v3.HTTPFault
 1 delay FaultDelay
 2 abort FaultAbort
 3 upstream_cluster
 4 headers[*] HeaderMatcher
 5 downstream_nodes[*]
 6 max_active_faults
 7 response_rate_limit !
 8 delay_percent_runtime -
 9 abort_percent_runtime -
 10 delay_duration_runtime -
 11 abort_http_status_runtime -
 12 max_active_faults_runtime -
 13 response_rate_limit_percent_runtime -
 14 abort_grpc_status_runtime -
 15 disable_downstream_cluster_stats -
 16 filter_metadata -
FaultDelay envoy.extensions.filters.common.fault.v3.FaultDelay
 3 fixed_delay
 4 percentage
 5 header_delay
FaultAbort envoy.extensions.filters.http.fault.v3.FaultAbort
 2 http_status
 3 percentage
 4 header_abort
 5 grpc_status
StatefulSession envoy.extensions.filters.http.stateful_session.v3.StatefulSession
 1 session_state TypedExtensionConfig
 2 strict
 3 stat_prefix -
 4 status_on_strict_destination_not_found !
TypedExtensionConfig envoy.config.core.v3.TypedExtensionConfig
 1 name -
 2 typed_config ?
CookieBasedSessionState envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState
 1 cookie Cookie
Cookie envoy.type.http.v3.Cookie
 1 name
 2 ttl
 3 path
 4 attributes[*] -
HttpProtocolOptions envoy.config.core.v3.HttpProtocolOptions
 1 idle_timeout !0
 2 max_headers_count -
 3 max_connection_duration !0
 4 max_stream_duration
 5 headers_with_underscores_action -
 6 max_requests_per_connection !0
 7 max_response_headers_kb -
 8 max_connection_duration_jitter !
ApiListener envoy.config.listener.v3.ApiListener
 1 api_listener ?
HeaderMatcher envoy.config.route.v3.HeaderMatcher
 1 name
 4 exact_match
 6 range_match
 7 present_match
 8 invert_match
 9 prefix_match
 10 suffix_match
 11 safe_regex_match
 12 contains_match
 13 string_match StringMatcher
 14 treat_missing_header_as_empty
StringMatcher envoy.type.matcher.v3.StringMatcher
 1 exact
 2 prefix
 3 suffix
 5 safe_regex
 6 ignore_case
 7 contains
 8 custom
HeaderBasedSessionState envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState
 1 name
CidrRange envoy.config.core.v3.CidrRange
 1 address_prefix
 2 prefix_len
WeightedCluster envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster
 1 clusters[*] ClusterWeight
ClusterWeight envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight
 1 name !
 2 weight
 3 metadata_match !
RouteConfiguration envoy.config.route.v3.RouteConfiguration
 1 name
 2 virtual_hosts[*] VirtualHost^
 3 internal_only_headers[*] -
 4 response_headers_to_add[*] HeaderValueOption
 5 response_headers_to_remove[*]
 6 request_headers_to_add[*] HeaderValueOption
 7 validate_clusters -
 8 request_headers_to_remove[*]
 9 vhds !
 10 most_specific_header_mutations_wins !
 11 max_direct_response_body_size_bytes -
 12 cluster_specifier_plugins[*] !
 13 request_mirror_policies[*] RequestMirrorPolicy
 14 ignore_port_in_host_matching -
 15 ignore_path_parameters_in_path_matching !
 16 typed_per_filter_config[*] ?{}
 17 metadata -
 18 vhost_header !
VirtualHost envoy.config.route.v3.VirtualHost
 1 name
 2 domains[*]
 3 routes[*] Route
 4 require_tls !
 5 virtual_clusters[*] -
 6 rate_limits[*] !
 7 request_headers_to_add[*] HeaderValueOption
 8 cors -
 10 response_headers_to_add[*] HeaderValueOption
 11 response_headers_to_remove[*]
 13 request_headers_to_remove[*]
 14 include_request_attempt_count -
 15 typed_per_filter_config[*] ?{}
 16 retry_policy RetryPolicy
 17 hedge_policy HedgePolicy
 18 per_request_buffer_limit_bytes -
 19 include_attempt_count_in_response -
 20 retry_policy_typed_config !
 21 matcher !
 22 request_mirror_policies[*] RequestMirrorPolicy
 23 include_is_timeout_retry_header -
 24 metadata -
 25 request_body_buffer_limit -
Route envoy.config.route.v3.Route
 1 match RouteMatch
 2 route RouteAction
 3 redirect
 4 metadata -
 5 decorator -
 7 direct_response
 9 request_headers_to_add[*] HeaderValueOption
 10 response_headers_to_add[*] HeaderValueOption
 11 response_headers_to_remove[*]
 12 request_headers_to_remove[*]
 13 typed_per_filter_config[*] ?{}
 14 name
 15 tracing -
 16 per_request_buffer_limit_bytes -
 17 filter_action
 18 non_forwarding_action
 19 stat_prefix -
 20 request_body_buffer_limit -
RouteMatch envoy.config.route.v3.RouteMatch
 1 prefix
 2 path
 4 case_sensitive
 6 headers[*] HeaderMatcher
 7 query_parameters[*]
 8 grpc -
 9 runtime_fraction
 10 safe_regex
 11 tls_context
 12 connect_matcher
 13 dynamic_metadata[*]
 14 path_separated_prefix
 15 path_match_policy TypedExtensionConfig
 16 filter_state[*]
 17 cookies[*]
RouteAction envoy.config.route.v3.RouteAction
 1 cluster
 2 cluster_header
 3 weighted_clusters v3WeightedCluster
 4 metadata_match !
 5 prefix_rewrite !
 6 host_rewrite_literal
 7 auto_host_rewrite
 8 timeout
 9 retry_policy RetryPolicy
 11 priority !
 13 rate_limits[*] !
 14 include_vh_rate_limits -
 15 hash_policy[*] HashPolicy
 17 cors -
 20 cluster_not_found_response_code -
 23 max_grpc_timeout
 24 idle_timeout !0
 25 upgrade_configs[*] -
 26 internal_redirect_action -
 27 hedge_policy HedgePolicy
 28 grpc_timeout_offset !0
 29 host_rewrite_header
 30 request_mirror_policies[*] RequestMirrorPolicy
 31 max_internal_redirects -
 32 regex_rewrite !
 33 retry_policy_typed_config !
 34 internal_redirect_policy -
 35 host_rewrite_path_regex RegexMatchAndSubstitute
 36 max_stream_duration MaxStreamDuration
 37 cluster_specifier_plugin
 38 append_x_forwarded_host !
 39 inline_cluster_specifier_plugin
 40 early_data_policy -
 41 path_rewrite_policy !
 42 flush_timeout -
 44 host_rewrite !
 45 path_rewrite !
v3WeightedCluster envoy.config.route.v3.WeightedCluster
 1 clusters[*] WeightedClusterClusterWeight
 2 runtime_key_prefix -
 3 total_weight -
 4 header_name !
 5 use_hash_policy !0
WeightedClusterClusterWeight envoy.config.route.v3.WeightedCluster.ClusterWeight
 1 name
 2 weight
 3 metadata_match !
 4 request_headers_to_add[*] HeaderValueOption
 5 response_headers_to_add[*] HeaderValueOption
 6 response_headers_to_remove[*]
 9 request_headers_to_remove[*]
 10 typed_per_filter_config[*] ?{}
 11 host_rewrite_literal
 12 cluster_header
HeaderValueOption envoy.config.core.v3.HeaderValueOption
 1 header HeaderValue
 2 append
 3 append_action
 4 keep_empty_value
HeaderValue envoy.config.core.v3.HeaderValue
 1 key
 2 value
 3 raw_value
StatefulSessionPerRoute envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute
 1 disabled
 2 stateful_session StatefulSession
RegexMatchAndSubstitute envoy.type.matcher.v3.RegexMatchAndSubstitute
 1 pattern
 2 substitution
RetryPolicy envoy.config.route.v3.RetryPolicy
 1 retry_on
 2 num_retries
 3 per_try_timeout
 4 retry_priority
 5 retry_host_predicate[*]
 6 host_selection_retry_max_attempts
 7 retriable_status_codes[*]
 8 retry_back_off RetryBackOff
 9 retriable_headers[*] HeaderMatcher
 10 retriable_request_headers[*] HeaderMatcher
 11 rate_limited_retry_back_off !
 12 retry_options_predicates[*] !
 13 per_try_idle_timeout
 14 refresh_cluster_on_retry !
RetryBackOff envoy.config.route.v3.RetryPolicy.RetryBackOff
 1 base_interval
 2 max_interval
RequestMirrorPolicy envoy.config.route.v3.RouteAction.RequestMirrorPolicy
 1 cluster
 3 runtime_fraction
 4 trace_sampled -
 5 cluster_header
 6 disable_shadow_host_suffix_append
 7 request_headers_mutations[*] !
 8 host_rewrite_literal !
HashPolicy envoy.config.route.v3.RouteAction.HashPolicy
 1 header Header
 2 cookie HashPolicyCookie
 3 connection_properties ConnectionProperties
 4 terminal
 5 query_parameter QueryParameter
 6 filter_state FilterState
Header envoy.config.route.v3.RouteAction.HashPolicy.Header
 1 header_name
 2 regex_rewrite RegexMatchAndSubstitute
HashPolicyCookie envoy.config.route.v3.RouteAction.HashPolicy.Cookie
 1 name
 2 ttl
 3 path
 4 attributes[*] -
ConnectionProperties envoy.config.route.v3.RouteAction.HashPolicy.ConnectionProperties
 1 source_ip
QueryParameter envoy.config.route.v3.RouteAction.HashPolicy.QueryParameter
 1 name
FilterState envoy.config.route.v3.RouteAction.HashPolicy.FilterState
 1 key
HedgePolicy envoy.config.route.v3.HedgePolicy
 1 initial_requests
 2 additional_request_chance
 3 hedge_on_per_try_timeout
MaxStreamDuration envoy.config.route.v3.RouteAction.MaxStreamDuration
 1 max_stream_duration
 2 grpc_timeout_header_max
 3 grpc_timeout_header_offset !0
Cluster envoy.config.cluster.v3.Cluster
 1 name
 2 type
 3 eds_cluster_config EdsClusterConfig
 4 connect_timeout
 5 per_connection_buffer_limit_bytes -
 6 lb_policy !
 8 health_checks[*] !
 9 max_requests_per_connection !0
 10 circuit_breakers !
 13 http_protocol_options -
 14 http2_protocol_options !
 16 dns_refresh_rate !0
 17 dns_lookup_family !
 18 dns_resolvers[*] !
 19 outlier_detection !
 20 cleanup_interval -
 21 upstream_bind_config !
 22 lb_subset_config !
 23 ring_hash_lb_config !
 24 transport_socket
 25 metadata -
 26 protocol_selection -
 27 common_lb_config !
 28 alt_stat_name -
 29 common_http_protocol_options !
 30 upstream_connection_options !
 31 close_connections_on_host_health_failure -
 32 ignore_health_on_host_removal -
 33 load_assignment !
 34 original_dst_lb_config -
 36 typed_extension_protocol_options[*] !
 37 least_request_lb_config !
 38 cluster_type
 39 respect_dns_ttl -
 40 filters[*] !
 41 load_balancing_policy LoadBalancingPolicy
 42 lrs_server !
 43 transport_socket_matches[*]
 44 dns_failure_refresh_rate -
 45 use_tcp_for_dns_lookups -
 46 upstream_http_protocol_options -
 47 track_timeout_budgets -
 48 upstream_config !
 49 track_cluster_stats -
 50 preconnect_policy !
 51 connection_pool_per_downstream_connection !
 52 maglev_lb_config !
 53 dns_resolution_config -
 54 wait_for_warm_on_init -
 55 typed_dns_resolver_config -
 56 round_robin_lb_config !
 57 lrs_report_endpoint_metrics[*] -
 58 dns_jitter -
 59 transport_socket_matcher !
 60 per_connection_buffer_high_watermark_timeout -
 61 stats_matcher -
EdsClusterConfig envoy.config.cluster.v3.Cluster.EdsClusterConfig
 1 eds_config
 2 service_name
LoadBalancingPolicy envoy.config.cluster.v3.LoadBalancingPolicy
 1 policies[*] Policy
Policy envoy.config.cluster.v3.LoadBalancingPolicy.Policy
 4 typed_extension_config TypedExtensionConfig
WrrLocality envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality
 1 endpoint_picking_policy LoadBalancingPolicy
ClusterLoadAssignment envoy.config.endpoint.v3.ClusterLoadAssignment
 1 cluster_name
 2 endpoints[*] LocalityLbEndpoints
 4 policy !
 5 named_endpoints[*] -
LocalityLbEndpoints envoy.config.endpoint.v3.LocalityLbEndpoints
 1 locality
 2 lb_endpoints[*] LbEndpoint~
 3 load_balancing_weight
 5 priority
 6 proximity -
 7 load_balancer_endpoints !
 8 leds_cluster_locality_config !
 9 metadata -
LbEndpoint envoy.config.endpoint.v3.LbEndpoint
 1 endpoint Endpoint
 2 health_status
 3 metadata !
 4 load_balancing_weight
 5 endpoint_name
Endpoint envoy.config.endpoint.v3.Endpoint
 1 address
 2 health_check_config -
 3 hostname !
 4 additional_addresses[*] !
 5 observability_name -
`
