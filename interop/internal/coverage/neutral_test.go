package proxyless

import "strings"

// neutral are fields that carry no policy, or none that means anything to a
// gRPC client without a proxy: names, statistics, tracing, access logs, buffers,
// HTTP/1, browsers, and how a listener binds.
var neutral = fieldsOf(map[string]string{
	rds + "RouteConfiguration.": `validate_clusters internal_only_headers ignore_port_in_host_matching max_direct_response_body_size_bytes metadata`,
	rds + "VirtualHost.": `virtual_clusters cors include_request_attempt_count include_attempt_count_in_response include_is_timeout_retry_header
		per_request_buffer_limit_bytes request_body_buffer_limit metadata`,
	rds + "Route.":      `metadata decorator tracing per_request_buffer_limit_bytes stat_prefix request_body_buffer_limit`,
	rds + "RouteMatch.": `grpc`,
	rds + "RouteAction.": `cors cluster_not_found_response_code upgrade_configs internal_redirect_action internal_redirect_policy
		max_internal_redirects early_data_policy include_vh_rate_limits flush_timeout`,
	rds + "WeightedCluster.":                 `runtime_key_prefix total_weight`,
	rds + "RouteAction.HashPolicy.Cookie.":   `attributes`,
	rds + "RouteAction.RequestMirrorPolicy.": `trace_sampled`,
	"envoy.type.http.v3.Cookie.":             `attributes`,
	cds + "Cluster.": `per_connection_buffer_limit_bytes http_protocol_options metadata protocol_selection alt_stat_name
		close_connections_on_host_health_failure ignore_health_on_host_removal cleanup_interval track_timeout_budgets
		track_cluster_stats upstream_http_protocol_options wait_for_warm_on_init stats_matcher
		per_connection_buffer_high_watermark_timeout upstream_bind_config respect_dns_ttl dns_jitter dns_failure_refresh_rate use_tcp_for_dns_lookups
		dns_resolution_config typed_dns_resolver_config original_dst_lb_config lrs_report_endpoint_metrics`,
	cds + "Cluster.CommonLbConfig.":     `update_merge_window ignore_new_hosts_until_first_hc `,
	cds + "CircuitBreakers.Thresholds.": `track_remaining`,
	cds + "UpstreamConnectionOptions.":  `set_local_interface_name_on_upstream_connections happy_eyeballs_config`,
	cds + "OutlierDetection.":           `successful_active_health_check_uneject_host`,
	lds + "FilterChain.":                `transport_socket_connect_timeout`,
	core + "TypedExtensionConfig.":      `name`,
	core + "HttpProtocolOptions.":       `max_headers_count headers_with_underscores_action max_response_headers_kb`,
	core + "Http2ProtocolOptions.": `hpack_table_size initial_stream_window_size initial_connection_window_size allow_connect allow_metadata
		max_outbound_frames max_outbound_control_frames max_consecutive_inbound_frames_with_empty_payload
		max_inbound_priority_frames_per_stream max_inbound_window_update_frames_per_data_frame_sent
		stream_error_on_invalid_http_messaging custom_settings_parameters override_stream_error_on_invalid_http_message
		use_oghttp2_codec max_metadata_size enable_huffman_encoding max_header_field_size_kb disallow_obs_text
		stream_reset_burst stream_reset_rate`,
	up + "HttpProtocolOptions.":                         `upstream_http_protocol_options header_validation_config`,
	up + "HttpProtocolOptions.UseDownstreamHttpConfig.": `http_protocol_options http3_protocol_options`,
	up + "HttpProtocolOptions.AutoHttpConfig.":          `http_protocol_options http3_protocol_options alternate_protocols_cache_options`,
	eds + "Endpoint.":                                   `health_check_config observability_name`,
	eds + "LocalityLbEndpoints.":                        `proximity metadata`,
	eds + "ClusterLoadAssignment.":                      `named_endpoints`,
	lds + "Listener.": `per_connection_buffer_limit_bytes metadata deprecated_v1 drain_type listener_filters
		transparent freebind tcp_fast_open_queue_length socket_options listener_filters_timeout continue_on_listener_filters_timeout udp_listener_config connection_balance_config reuse_port access_log
		tcp_backlog_size bind_to_port internal_listener stat_prefix enable_reuse_port enable_mptcp ignore_global_conn_limit
		additional_addresses max_connections_to_accept_per_socket_event bypass_overload_manager fcds_config tcp_keepalive
		per_connection_buffer_high_watermark_timeout stats_matcher`,
	hcm + "HttpConnectionManager.": `codec_type stat_prefix add_user_agent tracing http_protocol_options http2_protocol_options server_name drain_timeout
		access_log use_remote_address generate_request_id forward_client_cert_details set_current_client_cert_details
		proxy_100_continue represent_ipv4_remote_address_as_ipv4_mapped_ipv6 skip_xff_append via upgrade_configs
		internal_address_config delayed_close_timeout max_request_headers_kb normalize_path preserve_external_request_id
		merge_slashes server_header_transformation request_id_extension always_set_request_id_in_response
		stream_error_on_invalid_http_message request_headers_timeout
		path_normalization_options http3_protocol_options path_with_escaped_slashes_action
		scheme_header_transformation proxy_status_config typed_header_validation_config append_x_forwarded_port
		add_proxy_protocol_connection_state access_log_flush_interval flush_access_log_on_new_request access_log_options
		append_local_overload http1_safe_max_connection_duration stream_flush_timeout forward_client_cert_matcher
		forward_proto_config drain_timeout_jitter`,
	tcp + "TcpProxy.": `stat_prefix access_log access_log_options access_log_flush_interval idle_timeout max_connect_attempts
		backoff_options downstream_idle_timeout upstream_idle_timeout hash_policy tunneling_config metadata_match max_downstream_connection_duration
		proxy_protocol_tlvs upstream_connect_mode max_early_data_bytes`,
	faults + "HTTPFault.": `delay_percent_runtime abort_percent_runtime delay_duration_runtime abort_http_status_runtime max_active_faults_runtime
		response_rate_limit_percent_runtime abort_grpc_status_runtime disable_downstream_cluster_stats filter_metadata`,
	sess + "StatefulSession.": `stat_prefix`,
})

func fieldsOf(names map[string]string) (all []string) {
	for message, fields := range names {
		for field := range strings.FieldsSeq(fields) {
			all = append(all, message+field)
		}
	}
	return all
}
