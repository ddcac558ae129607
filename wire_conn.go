package proxyless

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const typeHTTPOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

var protocolUnapplied = unapplied{6: "http_filters", 8: "outlier_detection", 9: "request_mirror_policies", 10: "hash_policy", 11: "retry_policy"}

// protocolOptions reads an entry of typed_extension_protocol_options.
func (d *decoding) protocolOptions(entry []byte, p *clusterParts) error {
	packed, err := submessage(entry, 2, "value")
	if err != nil {
		return inField("typed_extension_protocol_options", err)
	}
	x, err := decodeExtension(packed)
	switch {
	case err != nil:
	case x.name != typeHTTPOptions || x.json:
		d.ignore("typed_extension_protocol_options[" + x.name + "]")
	default:
		err = d.httpOptions(x.value, p)
	}
	return inField("typed_extension_protocol_options", err)
}

// httpOptions reads an envoy.extensions.upstreams.http.v3.HttpProtocolOptions.
// What it says of HTTP/1 is not for gRPC.
func (d *decoding) httpOptions(b []byte, p *clusterParts) error {
	var config oneof
	x := &httpParts{}
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("common_http_protocol_options", &x.common)
		case 2:
			c.message("upstream_http_protocol_options", &x.names)
		case 3, 4, 5:
			config.message(&c, "upstream_protocol_options")
		default:
			if name := protocolUnapplied[c.num]; name != "" {
				d.ignore("typed_extension_protocol_options." + name)
			}
		}
	}
	if c.err != nil {
		return c.err
	}
	var err error
	x.http2, err = submessage(config.val, 2, "http2_protocol_options")
	p.typed = x
	return inField("upstream_protocol_options", err)
}

// connection settles the settings of the cluster's connections.
func (d *decoding) connection(p *clusterParts, x *cluster) (err error) {
	s := &x.conn
	if s.connectTimeout, err = decodeDuration(p.timeout); err != nil {
		return inField("connect_timeout", err)
	}
	perConn, err := decodeWrapped(p.perConn)
	if err != nil {
		return inField("max_requests_per_connection", err)
	}
	s.maxRequests = uint32(perConn)
	if err := d.commonHTTP(p.http.common, s); err != nil {
		return inField("common_http_protocol_options", err)
	}
	if err := d.http2(p.http.http2, s); err != nil {
		return inField("http2_protocol_options", err)
	}
	keepAlive, err := submessage(p.upstream, 1, "tcp_keepalive")
	if err == nil && keepAlive != nil {
		err = inField("tcp_keepalive", s.keepAlive.read(keepAlive))
	}
	return inField("upstream_connection_options", err)
}

// commonHTTP reads an envoy.config.core.v3.HttpProtocolOptions.
func (d *decoding) commonHTTP(b []byte, s *connSettings) (err error) {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			s.idleTimeout, err = decodeDuration(c.bytes("idle_timeout"))
			c.fail(inField("idle_timeout", err))
		case 3:
			s.maxAge, err = decodeDuration(c.bytes("max_connection_duration"))
			c.fail(inField("max_connection_duration", err))
		case 4:
			d.ignoreUnlessZero("common_http_protocol_options.max_stream_duration", c.bytes("max_stream_duration"))
		case 6:
			n, err := decodeWrapped(c.bytes("max_requests_per_connection"))
			c.fail(inField("max_requests_per_connection", err))
			s.maxRequests = uint32(n)
		}
	}
	return c.err
}

// http2 reads an envoy.config.core.v3.Http2ProtocolOptions. The sizes of its
// windows are gRPC's own affair.
func (d *decoding) http2(b []byte, s *connSettings) error {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 2:
			n, err := decodeWrapped(c.bytes("max_concurrent_streams"))
			c.fail(inField("max_concurrent_streams", err))
			if s.maxStreams = uint32(n); n >= math.MaxInt32 {
				s.maxStreams = 0
			}
		case 15:
			d.ignore("http2_protocol_options.connection_keepalive")
		}
	}
	return c.err
}

// read reads an envoy.config.core.v3.TcpKeepalive, in seconds.
func (k *tcpKeepAlive) read(b []byte) error {
	k.set = true
	c := walk(b)
	for c.next() {
		if c.num > 3 {
			continue
		}
		field := [...]string{"", "keepalive_probes", "keepalive_time", "keepalive_interval"}[c.num]
		value, err := decodeWrapped(c.bytes(field))
		c.fail(inField(field, err))
		switch value = min(value, math.MaxInt32); c.num {
		case 1:
			k.probes = int(value)
		case 2:
			k.idle = time.Duration(value) * time.Second
		case 3:
			k.interval = time.Duration(value) * time.Second
		}
	}
	return c.err
}

// breakers reads CircuitBreakers: the thresholds of the default priority, of
// which every call is. What they do not say is no limit, as Istio means it,
// but for max_requests, which is 1024 in Envoy and gRPC.
func (d *decoding) breakers(p *clusterParts, x *cluster) error {
	c := walk(p.breakers)
	for c.next() {
		switch c.num {
		case 1:
			limits, priority, err := d.thresholds(c.bytes("thresholds"))
			c.fail(inField("thresholds", err))
			if priority == 0 && x.limits == nil {
				x.limits = limits
			}
		case 2:
			d.ignore("circuit_breakers.per_host_thresholds")
		}
	}
	if x.limits != nil && x.limits.none() {
		x.limits = nil
	}
	return inField("circuit_breakers", c.err)
}

// none says that there is no limit.
func (b *breakers) none() bool {
	return *b == breakers{connections: noLimit, pending: noLimit, requests: noLimit, retries: noLimit}
}

// defaultMaxRequests is CircuitBreakers.Thresholds.max_requests where it is absent.
const defaultMaxRequests = 1024

// thresholds reads a CircuitBreakers.Thresholds.
func (d *decoding) thresholds(b []byte) (limits *breakers, priority uint64, err error) {
	limits = &breakers{connections: noLimit, pending: noLimit, requests: defaultMaxRequests, retries: noLimit}
	var budget []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			priority = c.scalar("priority")
		case 2:
			c.limit("max_connections", &limits.connections)
		case 3:
			c.limit("max_pending_requests", &limits.pending)
		case 4:
			c.limit("max_requests", &limits.requests)
		case 5:
			c.limit("max_retries", &limits.retries)
		case 7:
			pools := uint32(noLimit)
			if c.limit("max_connection_pools", &pools); pools != noLimit {
				d.ignore("circuit_breakers.thresholds.max_connection_pools")
			}
		case 8:
			c.message("retry_budget", &budget)
		}
	}
	if c.err == nil && budget != nil {
		c.fail(inField("retry_budget", d.retryBudget(budget, limits)))
	}
	return limits, priority, c.err
}

// limit reads a google.protobuf.UInt32Value.
func (c *cursor) limit(field string, to *uint32) {
	value, err := decodeWrapped(c.bytes(field))
	c.fail(inField(field, err))
	*to = uint32(value)
}

// retryBudget reads a Thresholds.RetryBudget.
func (d *decoding) retryBudget(b []byte, limits *breakers) error {
	limits.hasBudget, limits.budget, limits.budgetLeast = true, 0.2, 3
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			percent, err := decodePercent(c.bytes("budget_percent"))
			c.fail(inField("budget_percent", err))
			limits.budget = percent / 100
		case 2:
			c.limit("min_retry_concurrency", &limits.budgetLeast)
		case 3:
			d.ignore("circuit_breakers.thresholds.retry_budget.budget_interval")
		}
	}
	return c.err
}

// outlierDetection reads an envoy.config.cluster.v3.OutlierDetection, with
// Envoy's defaults for what is absent. One that enforces nothing is none.
func (d *decoding) outlierDetection(p *clusterParts, x *cluster) error {
	if p.outlier == nil {
		return nil
	}
	o := &outlierDetection{
		interval: 10 * time.Second, baseTime: 30 * time.Second, maxEjected: 10,
		consecutive5xx: 5, enforce5xx: 100, consecutiveGateway: 5, consecutiveLocal: 5, enforceLocal: 100,
		enforceSuccessRate: 100, enforceLocalSuccessRate: 100, successHosts: 5, successVolume: 100, successFactor: 1900,
		failureThreshold: 85, failureHosts: 5, failureVolume: 50,
	}
	if err := inField("outlier_detection", d.outlierFields(p.outlier, o)); err != nil {
		return err
	}
	if !o.split {
		o.enforceLocal, o.enforceLocalSuccessRate, o.enforceLocalFailure = 0, 0, 0
	}
	if o.enforce5xx|o.enforceGateway|o.enforceLocal|o.enforceSuccessRate|o.enforceLocalSuccessRate|o.enforceFailure|o.enforceLocalFailure != 0 {
		x.outlier = o
	}
	return nil
}

func (d *decoding) outlierFields(b []byte, o *outlierDetection) (err error) {
	const defaultMaxEjection = 300 * time.Second
	numbers := map[protowire.Number]struct {
		name    string
		to      *uint32
		percent bool
	}{
		1: {"consecutive_5xx", &o.consecutive5xx, false}, 4: {"max_ejection_percent", &o.maxEjected, true},
		5: {"enforcing_consecutive_5xx", &o.enforce5xx, true}, 6: {"enforcing_success_rate", &o.enforceSuccessRate, true},
		7: {"success_rate_minimum_hosts", &o.successHosts, false}, 8: {"success_rate_request_volume", &o.successVolume, false},
		9: {"success_rate_stdev_factor", &o.successFactor, false}, 10: {"consecutive_gateway_failure", &o.consecutiveGateway, false},
		11: {"enforcing_consecutive_gateway_failure", &o.enforceGateway, true}, 13: {"consecutive_local_origin_failure", &o.consecutiveLocal, false},
		14: {"enforcing_consecutive_local_origin_failure", &o.enforceLocal, true},
		15: {"enforcing_local_origin_success_rate", &o.enforceLocalSuccessRate, true},
		16: {"failure_percentage_threshold", &o.failureThreshold, true}, 17: {"enforcing_failure_percentage", &o.enforceFailure, true},
		18: {"enforcing_failure_percentage_local_origin", &o.enforceLocalFailure, true},
		19: {"failure_percentage_minimum_hosts", &o.failureHosts, false}, 20: {"failure_percentage_request_volume", &o.failureVolume, false},
	}
	durations := map[protowire.Number]struct {
		name string
		to   *time.Duration
	}{2: {"interval", &o.interval}, 3: {"base_ejection_time", &o.baseTime}, 21: {"max_ejection_time", &o.maxTime}, 22: {"max_ejection_time_jitter", &o.jitter}}
	c := walk(b)
	for c.next() {
		if f, ok := numbers[c.num]; ok {
			c.limit(f.name, f.to)
			if f.percent && *f.to > 100 {
				c.fail(inField(f.name, fmt.Errorf("%d is more than 100", *f.to)))
			}
			continue
		}
		if f, ok := durations[c.num]; ok {
			*f.to, err = decodeDuration(c.bytes(f.name))
			c.fail(inField(f.name, err))
			continue
		}
		switch c.num {
		case 12:
			o.split = c.scalar("split_external_local_origin_errors") != 0
		case 24:
			d.ignore("outlier_detection.monitors")
		case 25:
			always, err := decodeWrapped(c.bytes("always_eject_one_host"))
			c.fail(inField("always_eject_one_host", err))
			o.atLeastOne = always != 0
		case 26:
			d.ignoreUnlessZero("outlier_detection.detect_degraded_hosts", c.bytes("detect_degraded_hosts"))
		}
	}
	if o.maxTime == 0 {
		o.maxTime = defaultMaxEjection
	}
	o.maxTime = max(o.maxTime, o.baseTime)
	return c.err
}

// commonBalancing reads a Cluster.CommonLbConfig.
func (d *decoding) commonBalancing(p *clusterParts, x *cluster) error {
	c := walk(p.common)
	for c.next() {
		switch c.num {
		case 1:
			percent, err := decodePercent(c.bytes("healthy_panic_threshold"))
			c.fail(inField("healthy_panic_threshold", err))
			x.panic = uint32(math.Round(percent))
		case 2:
			d.ignore("common_lb_config.zone_aware_lb_config")
		case 3:
			x.weighted = true
		case 6:
			if c.scalar("close_connections_on_host_set_change") != 0 {
				d.ignore("common_lb_config.close_connections_on_host_set_change")
			}
		case 7:
			c.fail(inField("consistent_hashing_lb_config", d.hashing(c.bytes("consistent_hashing_lb_config"), &x.balance)))
		case 8:
			c.fail(inField("override_host_status", x.overrideStatus(c.bytes("override_host_status"))))
		}
	}
	return inField("common_lb_config", c.err)
}

// overrideStatus reads an envoy.config.core.v3.HealthStatusSet.
func (x *cluster) overrideStatus(b []byte) error {
	x.override = 0
	c := walk(b)
	for c.next() {
		if c.num == 1 {
			eachVarint(&c, "statuses", func(status uint64) {
				if status <= uint64(healthDegraded) {
					x.override |= 1 << status
				}
			})
		}
	}
	return c.err
}
