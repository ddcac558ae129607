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
 32 filter_chain_matcher
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
 9 transport_socket_connect_timeout -
FilterChainMatch envoy.config.listener.v3.FilterChainMatch
 3 prefix_ranges[*] CidrRange
 4 address_suffix =
 5 suffix_len =
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
 24 stream_idle_timeout =
 25 internal_address_config -
 26 delayed_close_timeout -
 28 request_timeout =
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
 39 strip_matching_host_port =
 40 stream_error_on_invalid_http_message -
 41 request_headers_timeout -
 42 strip_any_host_port =
 43 path_normalization_options -
 44 http3_protocol_options -
 45 path_with_escaped_slashes_action -
 46 original_ip_detection_extensions[*] TypedExtensionConfig
 47 strip_trailing_host_dot =
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
 6 is_optional
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
 7 response_rate_limit =
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
 4 status_on_strict_destination_not_found =
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
 1 idle_timeout
 2 max_headers_count -
 3 max_connection_duration
 4 max_stream_duration
 5 headers_with_underscores_action -
 6 max_requests_per_connection
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
 9 vhds =
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
 4 require_tls =
 5 virtual_clusters[*] -
 6 rate_limits[*] =
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
 21 matcher =
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
 4 metadata_match =
 5 prefix_rewrite
 6 host_rewrite_literal
 7 auto_host_rewrite
 8 timeout
 9 retry_policy RetryPolicy
 11 priority !
 13 rate_limits[*] =
 14 include_vh_rate_limits -
 15 hash_policy[*] HashPolicy
 17 cors -
 20 cluster_not_found_response_code -
 23 max_grpc_timeout
 24 idle_timeout =
 25 upgrade_configs[*] -
 26 internal_redirect_action -
 27 hedge_policy HedgePolicy
 28 grpc_timeout_offset =
 29 host_rewrite_header
 30 request_mirror_policies[*] RequestMirrorPolicy
 31 max_internal_redirects -
 32 regex_rewrite RegexMatchAndSubstitute
 33 retry_policy_typed_config !
 34 internal_redirect_policy -
 35 host_rewrite_path_regex RegexMatchAndSubstitute
 36 max_stream_duration MaxStreamDuration
 37 cluster_specifier_plugin
 38 append_x_forwarded_host =
 39 inline_cluster_specifier_plugin
 40 early_data_policy -
 41 path_rewrite_policy =
 42 flush_timeout -
 44 host_rewrite =
 45 path_rewrite =
v3WeightedCluster envoy.config.route.v3.WeightedCluster
 1 clusters[*] WeightedClusterClusterWeight
 2 runtime_key_prefix -
 3 total_weight -
 4 header_name =
 5 use_hash_policy =
WeightedClusterClusterWeight envoy.config.route.v3.WeightedCluster.ClusterWeight
 1 name
 2 weight
 3 metadata_match =
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
 11 rate_limited_retry_back_off =
 12 retry_options_predicates[*] =
 13 per_try_idle_timeout
 14 refresh_cluster_on_retry =
RetryBackOff envoy.config.route.v3.RetryPolicy.RetryBackOff
 1 base_interval
 2 max_interval
RequestMirrorPolicy envoy.config.route.v3.RouteAction.RequestMirrorPolicy
 1 cluster
 3 runtime_fraction
 4 trace_sampled -
 5 cluster_header
 6 disable_shadow_host_suffix_append
 7 request_headers_mutations[*] =
 8 host_rewrite_literal =
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
 3 grpc_timeout_header_offset =
Cluster envoy.config.cluster.v3.Cluster
 1 name
 2 type
 3 eds_cluster_config EdsClusterConfig
 4 connect_timeout
 5 per_connection_buffer_limit_bytes -
 6 lb_policy
 8 health_checks[*] =
 9 max_requests_per_connection
 10 circuit_breakers CircuitBreakers
 13 http_protocol_options -
 14 http2_protocol_options Http2ProtocolOptions
 16 dns_refresh_rate
 17 dns_lookup_family
 18 dns_resolvers[*] !
 19 outlier_detection OutlierDetection
 20 cleanup_interval -
 21 upstream_bind_config -
 22 lb_subset_config =
 23 ring_hash_lb_config RingHashLbConfig
 24 transport_socket
 25 metadata -
 26 protocol_selection -
 27 common_lb_config CommonLbConfig
 28 alt_stat_name -
 29 common_http_protocol_options HttpProtocolOptions
 30 upstream_connection_options UpstreamConnectionOptions
 31 close_connections_on_host_health_failure -
 32 ignore_health_on_host_removal -
 33 load_assignment ClusterLoadAssignment
 34 original_dst_lb_config -
 36 typed_extension_protocol_options[*] ?{}
 37 least_request_lb_config LeastRequestLbConfig
 38 cluster_type CustomClusterType
 39 respect_dns_ttl -
 40 filters[*] =
 41 load_balancing_policy LoadBalancingPolicy
 42 lrs_server =
 43 transport_socket_matches[*]
 44 dns_failure_refresh_rate -
 45 use_tcp_for_dns_lookups -
 46 upstream_http_protocol_options -
 47 track_timeout_budgets -
 48 upstream_config !
 49 track_cluster_stats -
 50 preconnect_policy !
 51 connection_pool_per_downstream_connection !
 52 maglev_lb_config MaglevLbConfig
 53 dns_resolution_config -
 54 wait_for_warm_on_init -
 55 typed_dns_resolver_config -
 56 round_robin_lb_config RoundRobinLbConfig
 57 lrs_report_endpoint_metrics[*] -
 58 dns_jitter -
 59 transport_socket_matcher
 60 per_connection_buffer_high_watermark_timeout -
 61 stats_matcher -
CustomClusterType envoy.config.cluster.v3.Cluster.CustomClusterType
 1 name
 2 typed_config ?
ClusterConfig envoy.extensions.clusters.aggregate.v3.ClusterConfig
 1 clusters[*]
EdsClusterConfig envoy.config.cluster.v3.Cluster.EdsClusterConfig
 1 eds_config
 2 service_name
CircuitBreakers envoy.config.cluster.v3.CircuitBreakers
 1 thresholds[*] Thresholds
 2 per_host_thresholds[*] =
Thresholds envoy.config.cluster.v3.CircuitBreakers.Thresholds
 1 priority
 2 max_connections
 3 max_pending_requests
 4 max_requests
 5 max_retries
 6 track_remaining -
 7 max_connection_pools =
 8 retry_budget RetryBudget
RetryBudget envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget
 1 budget_percent
 2 min_retry_concurrency
 3 budget_interval =
Http2ProtocolOptions envoy.config.core.v3.Http2ProtocolOptions
 1 hpack_table_size -
 2 max_concurrent_streams
 3 initial_stream_window_size -
 4 initial_connection_window_size -
 5 allow_connect -
 6 allow_metadata -
 7 max_outbound_frames -
 8 max_outbound_control_frames -
 9 max_consecutive_inbound_frames_with_empty_payload -
 10 max_inbound_priority_frames_per_stream -
 11 max_inbound_window_update_frames_per_data_frame_sent -
 12 stream_error_on_invalid_http_messaging -
 13 custom_settings_parameters[*] -
 14 override_stream_error_on_invalid_http_message -
 15 connection_keepalive =
 16 use_oghttp2_codec -
 17 max_metadata_size -
 18 enable_huffman_encoding -
 19 max_header_field_size_kb -
 20 disallow_obs_text -
 21 stream_reset_burst -
 22 stream_reset_rate -
v3HttpProtocolOptions envoy.extensions.upstreams.http.v3.HttpProtocolOptions
 1 common_http_protocol_options HttpProtocolOptions
 2 upstream_http_protocol_options -
 3 explicit_http_config ExplicitHttpConfig
 4 use_downstream_protocol_config UseDownstreamHttpConfig
 5 auto_config AutoHttpConfig
 6 http_filters[*] =
 7 header_validation_config -
 8 outlier_detection =
 9 request_mirror_policies[*] =
 10 hash_policy[*] =
 11 retry_policy =
ExplicitHttpConfig envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig
 1 http_protocol_options
 2 http2_protocol_options Http2ProtocolOptions
 3 http3_protocol_options
UseDownstreamHttpConfig envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig
 1 http_protocol_options -
 2 http2_protocol_options Http2ProtocolOptions
 3 http3_protocol_options -
AutoHttpConfig envoy.extensions.upstreams.http.v3.HttpProtocolOptions.AutoHttpConfig
 1 http_protocol_options -
 2 http2_protocol_options Http2ProtocolOptions
 3 http3_protocol_options -
 4 alternate_protocols_cache_options -
OutlierDetection envoy.config.cluster.v3.OutlierDetection
 1 consecutive_5xx
 2 interval
 3 base_ejection_time
 4 max_ejection_percent
 5 enforcing_consecutive_5xx
 6 enforcing_success_rate
 7 success_rate_minimum_hosts
 8 success_rate_request_volume
 9 success_rate_stdev_factor
 10 consecutive_gateway_failure
 11 enforcing_consecutive_gateway_failure
 12 split_external_local_origin_errors
 13 consecutive_local_origin_failure
 14 enforcing_consecutive_local_origin_failure
 15 enforcing_local_origin_success_rate
 16 failure_percentage_threshold
 17 enforcing_failure_percentage
 18 enforcing_failure_percentage_local_origin
 19 failure_percentage_minimum_hosts
 20 failure_percentage_request_volume
 21 max_ejection_time
 22 max_ejection_time_jitter
 23 successful_active_health_check_uneject_host -
 24 monitors[*] =
 25 always_eject_one_host
 26 detect_degraded_hosts =
RingHashLbConfig envoy.config.cluster.v3.Cluster.RingHashLbConfig
 1 minimum_ring_size
 3 hash_function =
 4 maximum_ring_size
MaglevLbConfig envoy.config.cluster.v3.Cluster.MaglevLbConfig
 1 table_size
LeastRequestLbConfig envoy.config.cluster.v3.Cluster.LeastRequestLbConfig
 1 choice_count
 2 active_request_bias
 3 slow_start_config SlowStartConfig
SlowStartConfig envoy.config.cluster.v3.Cluster.SlowStartConfig
 1 slow_start_window
 2 aggression
 3 min_weight_percent
RoundRobinLbConfig envoy.config.cluster.v3.Cluster.RoundRobinLbConfig
 1 slow_start_config SlowStartConfig
CommonLbConfig envoy.config.cluster.v3.Cluster.CommonLbConfig
 1 healthy_panic_threshold
 2 zone_aware_lb_config =
 3 locality_weighted_lb_config
 4 update_merge_window -
 5 ignore_new_hosts_until_first_hc -
 6 close_connections_on_host_set_change =
 7 consistent_hashing_lb_config ConsistentHashingLbConfig
 8 override_host_status
ConsistentHashingLbConfig envoy.config.cluster.v3.Cluster.CommonLbConfig.ConsistentHashingLbConfig
 1 use_hostname_for_hashing
 2 hash_balance_factor
UpstreamConnectionOptions envoy.config.cluster.v3.UpstreamConnectionOptions
 1 tcp_keepalive TcpKeepalive
 2 set_local_interface_name_on_upstream_connections -
 3 happy_eyeballs_config -
TcpKeepalive envoy.config.core.v3.TcpKeepalive
 1 keepalive_probes
 2 keepalive_time
 3 keepalive_interval
LoadBalancingPolicy envoy.config.cluster.v3.LoadBalancingPolicy
 1 policies[*] Policy
Policy envoy.config.cluster.v3.LoadBalancingPolicy.Policy
 4 typed_extension_config TypedExtensionConfig
LeastRequest envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest
 1 choice_count
 2 active_request_bias
 3 slow_start_config v3SlowStartConfig
 4 locality_lb_config LocalityLbConfig
 5 enable_full_scan
 6 selection_method
v3SlowStartConfig envoy.extensions.load_balancing_policies.common.v3.SlowStartConfig
 1 slow_start_window
 2 aggression
 3 min_weight_percent
LocalityLbConfig envoy.extensions.load_balancing_policies.common.v3.LocalityLbConfig
 1 zone_aware_lb_config =
 2 locality_weighted_lb_config
RingHash envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash
 1 hash_function =
 2 minimum_ring_size
 3 maximum_ring_size
 4 use_hostname_for_hashing
 5 hash_balance_factor
 6 consistent_hashing_lb_config v3ConsistentHashingLbConfig
 7 locality_weighted_lb_config
v3ConsistentHashingLbConfig envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig
 1 use_hostname_for_hashing
 2 hash_balance_factor
 3 hash_policy[*] =
Maglev envoy.extensions.load_balancing_policies.maglev.v3.Maglev
 1 table_size
 2 consistent_hashing_lb_config v3ConsistentHashingLbConfig
 3 locality_weighted_lb_config
Random envoy.extensions.load_balancing_policies.random.v3.Random
 1 locality_lb_config LocalityLbConfig
PickFirst envoy.extensions.load_balancing_policies.pick_first.v3.PickFirst
 1 shuffle_address_list
ClientSideWeightedRoundRobin envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin
 1 enable_oob_load_report
 2 oob_reporting_period
 3 blackout_period
 4 weight_expiration_period
 5 weight_update_period
 6 error_utilization_penalty
 7 metric_names_for_computing_utilization[*]
 8 slow_start_config v3SlowStartConfig
 9 oob_reporting_config =
RandomSubsetting envoy.extensions.load_balancing_policies.random_subsetting.v3.RandomSubsetting
 1 subset_size
 2 child_policy LoadBalancingPolicy
WrrLocality envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality
 1 endpoint_picking_policy LoadBalancingPolicy
RoundRobin envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin
 1 slow_start_config v3SlowStartConfig
 2 locality_lb_config LocalityLbConfig
ClusterLoadAssignment envoy.config.endpoint.v3.ClusterLoadAssignment
 1 cluster_name
 2 endpoints[*] LocalityLbEndpoints
 4 policy ClusterLoadAssignmentPolicy
 5 named_endpoints[*] -
LocalityLbEndpoints envoy.config.endpoint.v3.LocalityLbEndpoints
 1 locality
 2 lb_endpoints[*] LbEndpoint~
 3 load_balancing_weight
 5 priority
 6 proximity -
 7 load_balancer_endpoints =
 8 leds_cluster_locality_config =
 9 metadata -
LbEndpoint envoy.config.endpoint.v3.LbEndpoint
 1 endpoint Endpoint
 2 health_status
 3 metadata
 4 load_balancing_weight
 5 endpoint_name
Endpoint envoy.config.endpoint.v3.Endpoint
 1 address
 2 health_check_config -
 3 hostname
 4 additional_addresses[*] AdditionalAddress
 5 observability_name -
AdditionalAddress envoy.config.endpoint.v3.Endpoint.AdditionalAddress
 1 address
ClusterLoadAssignmentPolicy envoy.config.endpoint.v3.ClusterLoadAssignment.Policy
 2 drop_overloads[*] DropOverload
 3 overprovisioning_factor
 4 endpoint_stale_after !0
 6 weighted_priority_health =
DropOverload envoy.config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload
 1 category
 2 drop_percentage
`
