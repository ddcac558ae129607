package proxyless

import (
	"math"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	rawTLSType = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
)

// rawCluster is a cluster as istiod sends it without a DestinationRule.
func rawCluster() rawProto {
	return rawProto{}.text(1, reviews).num(2, enumEDS).msg(3, rawProto{}.msg(1, rawADS).text(2, reviews)).text(28, "reviews;9080")
}

func rawSocket(name, typeName string) rawProto {
	m := rawProto{}.text(1, name)
	if typeName != "" {
		m = m.packed(3, typeName, nil)
	}
	return m
}

func rawPolicies(typeNames ...string) rawProto {
	var m rawProto
	for _, name := range typeNames {
		m = m.msg(1, rawProto{}.msg(4, rawProto{}.text(1, "name").packed(2, name, nil)))
	}
	return m
}

func rawPolicy(typeName string, config rawProto) rawProto {
	return rawProto{}.msg(1, rawProto{}.msg(4, rawProto{}.text(1, "name").packed(2, typeName, config)))
}

// rawNamed is an LbEndpoint whose address is a name.
func rawNamed(host string, port, weight uint64) rawProto {
	socket := rawProto{}.text(2, host).num(3, port)
	return rawProto{}.msg(1, rawProto{}.msg(1, rawProto{}.msg(1, socket))).wrap(4, weight)
}

// rawDouble is a message with a double.
func rawDouble(n protowire.Number, value float64) rawProto {
	return protowire.AppendFixed64(protowire.AppendTag(nil, n, protowire.Fixed64Type), math.Float64bits(value))
}

// rawFloat is a message with a float.
func rawFloat(n protowire.Number, value float32) rawProto {
	return protowire.AppendFixed32(protowire.AppendTag(nil, n, protowire.Fixed32Type), math.Float32bits(value))
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// istioOutliers is what Istio's outlier detection comes to, but for what is
// changed.
func istioOutliers(change func(*outlierDetection)) *outlierDetection {
	o := &outlierDetection{interval: 10 * time.Second, baseTime: 30 * time.Second, maxTime: 300 * time.Second, maxEjected: 10,
		consecutive5xx: 5, enforce5xx: 100, consecutiveGateway: 5, consecutiveLocal: 5, successHosts: 5, successVolume: 100, successFactor: 1900,
		failureThreshold: 85, failureHosts: 5, failureVolume: 50}
	change(o)
	return o
}

func TestCluster(t *testing.T) {
	autoTLS := rawProto{}.text(1, "tlsMode-istio").msg(2, rawStruct("tlsMode", "istio")).msg(3, rawSocket("envoy.transport_sockets.tls", rawTLSType))
	autoPlain := rawProto{}.text(1, "tlsMode-disabled").msg(2, rawProto{}).msg(3, rawSocket("envoy.transport_sockets.raw_buffer", ""))
	alwaysTLS := rawProto{}.text(1, "always").msg(3, rawSocket("envoy.transport_sockets.tls", rawTLSType))
	anyTLS := (&tlsContext{}).settle()
	istioMatch := socketMatch{name: "tlsMode-istio", labels: socketLabels{"tlsMode": `"istio"`}, tls: anyTLS}
	failing := func(why string) *tlsContext { return (&tlsContext{failure: why}).settle() }
	nested := rawProto{}.msg(1, rawProto{}.msg(4, rawProto{}.packed(2, typeLocalityRoundRobin, rawProto{}.msg(1, rawPolicies(typeRoundRobin)))))
	for name, test := range map[string]struct {
		raw     rawProto
		want    cluster // of a cluster as istiod sends it, where fields are empty
		ignored []string
	}{
		"no DestinationRule": {rawCluster(), cluster{}, nil},
		"the name stands for that of the endpoints": {
			rawProto{}.text(1, reviews).num(2, enumEDS).msg(3, rawProto{}.msg(1, rawADS)), cluster{}, nil,
		},
		"endpoints of another name": {
			rawCluster().msg(3, rawProto{}.text(2, "other")), cluster{edsName: "other"}, nil,
		},
		"connectionPool.tcp.connectTimeout": {rawCluster().msg(4, rawSeconds(10)), cluster{conn: connSettings{connectTimeout: 10 * time.Second}}, nil},
		"connectionPool.http.http2MaxRequests": {
			rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.wrap(4, 100))), cluster{limits: &breakers{connections: noLimit, pending: noLimit, requests: 100, retries: noLimit}}, nil,
		},
		"no limits, as Istio says it": {
			rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.wrap(2, math.MaxUint32).wrap(3, math.MaxUint32).wrap(4, math.MaxUint32).wrap(5, math.MaxUint32).num(6, 1))),
			cluster{}, nil,
		},
		"connectionPool, as Istio says all of it": {
			rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.wrap(2, 7).wrap(3, 5).wrap(4, 9).wrap(5, 4)).msg(1, rawProto{}.num(1, 1).wrap(4, 1)).msg(2, rawProto{})),
			cluster{limits: &breakers{connections: 7, pending: 5, requests: 9, retries: 4}}, []string{"circuit_breakers.per_host_thresholds"},
		},
		"no calls at all": {
			rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.wrap(4, 0))), cluster{limits: &breakers{connections: noLimit, pending: noLimit, retries: noLimit}}, nil,
		},
		"connectionPool.http: a retry budget": {
			rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.wrap(4, math.MaxUint32).wrap(7, 3).msg(8, rawProto{}.msg(1, rawDouble(1, 25)).wrap(2, 1)))),
			cluster{limits: &breakers{connections: noLimit, pending: noLimit, requests: noLimit, retries: noLimit, budget: 0.25, budgetLeast: 1, hasBudget: true}},
			[]string{"circuit_breakers.thresholds.max_connection_pools"},
		},
		"connectionPool.http: idleTimeout, maxRequestsPerConnection, maxConcurrentStreams; tcp: maxConnectionDuration, tcpKeepalive": {
			rawCluster().entry(36, typeHTTPOptions, rawProto{}.text(1, typePrefix+typeHTTPOptions).msg(2, rawProto{}.
				msg(1, rawProto{}.msg(1, rawSeconds(33)).msg(3, rawSeconds(60)).msg(4, rawProto{}).wrap(6, 11)).
				msg(3, rawProto{}.msg(2, rawProto{}.wrap(2, 13))))).
				msg(30, rawProto{}.msg(1, rawProto{}.wrap(1, 3).wrap(2, 20).wrap(3, 5))),
			cluster{conn: connSettings{idleTimeout: 33 * time.Second, maxAge: time.Minute, maxRequests: 11, maxStreams: 13,
				keepAlive: tcpKeepAlive{set: true, idle: 20 * time.Second, interval: 5 * time.Second, probes: 3}}}, nil,
		},
		"the same before there were extensions": {
			rawCluster().wrap(9, 2).msg(14, rawProto{}.wrap(2, 4)).msg(29, rawProto{}.msg(1, rawSeconds(1))),
			cluster{conn: connSettings{idleTimeout: time.Second, maxRequests: 2, maxStreams: 4}}, nil,
		},
		"settings of connections that are not applied": {
			rawCluster().entry(36, typeHTTPOptions, rawProto{}.text(1, typePrefix+typeHTTPOptions).msg(2, rawProto{}.
				msg(1, rawProto{}.msg(4, rawSeconds(1))).msg(3, rawProto{}.msg(2, rawProto{}.msg(15, rawProto{}))).msg(9, rawProto{}))).
				entry(36, "x", rawProto{}.text(1, "x/a.Options")),
			cluster{}, []string{"typed_extension_protocol_options.request_mirror_policies", "typed_extension_protocol_options[a.Options]",
				"common_http_protocol_options.max_stream_duration", "http2_protocol_options.connection_keepalive"},
		},
		"outlierDetection, as Istio says the least of it": {
			rawCluster().msg(19, rawProto{}.wrap(1, 3).wrap(5, 100).wrap(6, 0)), cluster{outlier: istioOutliers(func(o *outlierDetection) { o.consecutive5xx = 3 })}, nil,
		},
		"outlierDetection, all of it": {
			rawCluster().msg(19, rawProto{}.wrap(1, 1).msg(2, rawSeconds(2)).msg(3, rawSeconds(400)).wrap(4, 4).wrap(5, 5).wrap(6, 6).wrap(7, 7).wrap(8, 8).wrap(9, 9).
				wrap(10, 10).wrap(11, 11).num(12, 1).wrap(13, 13).wrap(14, 14).wrap(15, 15).wrap(16, 16).wrap(17, 17).wrap(18, 18).wrap(19, 19).wrap(20, 20).
				msg(22, rawSeconds(22)).msg(24, rawProto{}).wrap(25, 1).wrap(26, 1)),
			cluster{outlier: &outlierDetection{interval: 2 * time.Second, baseTime: 400 * time.Second, maxTime: 400 * time.Second, jitter: 22 * time.Second,
				maxEjected: 4, atLeastOne: true, consecutive5xx: 1, enforce5xx: 5, consecutiveGateway: 10, enforceGateway: 11, split: true,
				consecutiveLocal: 13, enforceLocal: 14, enforceSuccessRate: 6, enforceLocalSuccessRate: 15, successHosts: 7, successVolume: 8, successFactor: 9,
				enforceFailure: 17, enforceLocalFailure: 18, failureThreshold: 16, failureHosts: 19, failureVolume: 20}},
			[]string{"outlier_detection.monitors", "outlier_detection.detect_degraded_hosts"},
		},
		"outlierDetection that ejects nobody": {rawCluster().msg(19, rawProto{}.wrap(5, 0).wrap(6, 0)), cluster{}, nil},
		"outlierDetection.minHealthPercent, localityLbSetting, persistent sessions": {
			rawCluster().msg(27, rawProto{}.msg(1, rawDouble(1, 29.6)).msg(3, rawProto{}).msg(8, rawProto{}.num(1, 3).text(1, "\x01\x05")).msg(2, rawProto{}).num(6, 1)),
			cluster{panic: 30, weighted: true, override: 1<<healthHealthy | 1<<healthDraining | 1<<healthDegraded},
			[]string{"common_lb_config.zone_aware_lb_config", "common_lb_config.close_connections_on_host_set_change"},
		},
		"loadBalancer: LEAST_REQUEST": {rawCluster().num(6, 1), cluster{balance: balancing{policy: lbLeastRequest}}, nil},
		"loadBalancer: LEAST_REQUEST, with warmup": {
			rawCluster().num(6, 1).msg(37, rawProto{}.wrap(1, 3).msg(2, rawDouble(1, 0)).
				msg(3, rawProto{}.msg(1, rawSeconds(30)).msg(2, rawDouble(1, 1.5)).msg(3, rawDouble(1, 20)))),
			cluster{balance: balancing{policy: lbLeastRequest, choices: 3, hasBias: true, slow: slowStart{window: 30 * time.Second, aggression: 1.5, least: 0.2, hasLeast: true}}}, nil,
		},
		"loadBalancer: RANDOM": {rawCluster().num(6, 3), cluster{balance: balancing{policy: lbRandom}}, nil},
		"loadBalancer: consistentHash": {
			rawCluster().num(6, 2).msg(23, rawProto{}.wrap(1, 1024).num(3, 1)), cluster{balance: balancing{policy: lbRingHash, minRing: 1024}},
			[]string{"ring_hash_lb_config.hash_function"},
		},
		"loadBalancer: consistentHash.maglev": {
			rawCluster().num(6, 5).msg(52, rawProto{}.wrap(1, 997)).msg(27, rawProto{}.msg(7, rawProto{}.num(1, 1).wrap(2, 150))),
			cluster{balance: balancing{policy: lbMaglev, table: 997, hostnames: true, bounded: 150}}, nil,
		},
		"loadBalancer: of tomorrow": {rawCluster().num(6, 99), cluster{}, []string{"lb_policy (99)"}},
		"loadBalancer: warmup": {
			rawCluster().msg(56, rawProto{}.msg(1, rawProto{}.msg(1, rawSeconds(10)))), cluster{balance: balancing{slow: slowStart{window: 10 * time.Second}}}, nil,
		},
		"a list of policies that starts with round robin": {
			rawCluster().num(6, 1).msg(41, rawPolicies(typeRoundRobin, "a.LeastRequest")), cluster{}, nil,
		},
		"round robin within localities": {rawCluster().msg(41, nested), cluster{weighted: true}, nil},
		"the first policy that is known": {
			rawCluster().msg(41, rawPolicies("a.Custom", typeLeastRequest, typeRoundRobin)), cluster{balance: balancing{policy: lbLeastRequest}}, nil,
		},
		"no policy that is known": {rawCluster().msg(41, rawPolicies("a.Custom")), cluster{}, []string{"load_balancing_policy (Custom)"}},
		"policies that are known": {
			rawCluster().msg(41, rawPolicy(typeRingHash, rawProto{}.num(1, 1).wrap(2, 8).wrap(3, 16).num(4, 1).wrap(5, 120).msg(7, rawProto{}))),
			cluster{weighted: true, balance: balancing{policy: lbRingHash, minRing: 8, maxRing: 16, hostnames: true, bounded: 120}}, nil,
		},
		"pick first": {rawCluster().msg(41, rawPolicy(typePickFirst, rawProto{}.num(1, 1))), cluster{balance: balancing{policy: lbPickFirst, shuffle: true}}, nil},
		"reports of load, for a part of the endpoints": {
			rawCluster().msg(41, rawPolicy(typeRandomSubsetting, rawProto{}.wrap(1, 20).msg(2, rawPolicy(typeReportedRoundRobin, rawProto{}.wrap(1, 1).msg(2, rawSeconds(2)).
				msg(3, rawProto{}).msg(4, rawSeconds(4)).msg(5, rawSeconds(5)).msg(6, rawFloat(1, 0.5)).text(7, "named_metrics.a", "cpu_utilization"))))),
			cluster{balance: balancing{policy: lbReported, subset: 20, reported: loadReporting{outOfBand: true, period: 2 * time.Second, noBlackout: true,
				expiration: 4 * time.Second, update: 5 * time.Second, penalty: 0.5, metrics: "named_metrics.a cpu_utilization"}}}, nil,
		},
		"hosts that a filter chooses, else random": {
			rawCluster().msg(41, rawPolicy(typeOverrideHost, rawProto{}.msg(3, rawPolicies(typeRandom)))), cluster{balance: balancing{policy: lbRandom}}, nil,
		},
		"the types of policies as TypedStructs": {
			rawCluster().msg(41, rawPolicy("xds.type.v3.TypedStruct", rawProto{}.text(1, typePrefix+typeLeastRequest).msg(2, rawStruct("choice_count", "3")))),
			cluster{balance: balancing{policy: lbLeastRequest}}, []string{"load_balancing_policy (TypedStruct of " + typeLeastRequest + ")"},
		},
		"tls: SIMPLE without anything": {rawCluster().msg(24, rawSocket("envoy.transport_sockets.tls", rawTLSType)), cluster{tls: anyTLS}, nil},
		"tls by name only": {
			rawCluster().msg(24, rawSocket("envoy.transport_sockets.tls", "")),
			cluster{tls: failing("transport_socket.typed_config cannot be obeyed: it has no typed_config")}, nil,
		},
		"another socket": {
			rawCluster().msg(24, rawSocket("x", "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport")),
			cluster{tls: failing(`transport_socket.typed_config cannot be obeyed: "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport" is not supported`)}, nil,
		},
		"a socket without anything": {rawCluster().msg(24, rawProto{}), cluster{tls: failing(`transport_socket.typed_config cannot be obeyed: "" is not supported`)}, nil},
		"a context as a TypedStruct": {
			rawCluster().msg(24, rawProto{}.packed(3, "xds.type.v3.TypedStruct", rawProto{}.text(1, typePrefix+rawTLSType))),
			cluster{tls: failing("transport_socket.typed_config cannot be obeyed: a TypedStruct of a TLS context is not supported")}, nil,
		},
		"tls: DISABLE":           {rawCluster().msg(24, rawSocket("envoy.transport_sockets.raw_buffer", typeRawBuffer)), cluster{}, nil},
		"auto mTLS":              {rawCluster().msg(43, autoTLS, autoPlain), cluster{sockets: []socketMatch{istioMatch}}, nil},
		"auto mTLS, else TLS":    {rawCluster().msg(43, autoTLS).msg(24, rawSocket("x", rawTLSType)), cluster{tls: anyTLS, sockets: []socketMatch{istioMatch}}, nil},
		"auto mTLS, else plain":  {rawCluster().msg(43, autoTLS, autoPlain, alwaysTLS).msg(24, rawSocket("x", rawTLSType)), cluster{sockets: []socketMatch{istioMatch}}, nil},
		"TLS for all endpoints":  {rawCluster().msg(43, alwaysTLS, autoPlain), cluster{tls: anyTLS}, nil},
		"plain for all":          {rawCluster().msg(43, autoPlain, autoTLS).msg(24, rawSocket("x", rawTLSType)), cluster{}, nil},
		"sockets by a matcher":   {rawCluster().msg(59, rawProto{}), cluster{tls: failing("transport_socket_matcher cannot be obeyed: it is not supported")}, nil},
		"names of plain text":    {rawCluster().msg(46, rawProto{}.num(1, 1).num(2, 1)), cluster{}, nil},
		"auto_sni, the old form": {rawCluster().msg(24, rawSocket("x", rawTLSType)).msg(46, rawProto{}.num(1, 1)), cluster{tls: anyTLS, nameSNI: true}, nil},
		"auto_sni and auto_san_validation": {
			rawCluster().msg(24, rawSocket("x", rawTLSType)).entry(36, typeHTTPOptions, rawProto{}.text(1, typePrefix+typeHTTPOptions).msg(2, rawProto{}.msg(2, rawProto{}.num(1, 1).num(2, 1)))),
			cluster{tls: anyTLS, nameSNI: true, nameSAN: true}, nil,
		},
		"auto_sni, the old form beside what replaces it": {
			rawCluster().msg(24, rawSocket("x", rawTLSType)).wrap(9, 2).msg(14, rawProto{}.wrap(2, 4)).msg(29, rawProto{}.msg(1, rawSeconds(1))).
				entry(36, typeHTTPOptions, rawProto{}.text(1, typePrefix+typeHTTPOptions).msg(2, rawProto{}.msg(3, rawProto{}))).msg(46, rawProto{}.num(1, 1).num(2, 1)),
			cluster{tls: anyTLS, conn: connSettings{maxRequests: 2}}, nil,
		},
		"auto_sni by a header": {
			rawCluster().msg(24, rawSocket("x", rawTLSType)).msg(46, rawProto{}.num(1, 1).text(3, "x-host")),
			cluster{tls: failing("upstream_http_protocol_options.override_auto_sni_header cannot be obeyed: the name does not change with each call"), nameSNI: true}, nil,
		},
		"resolution: DNS": {
			rawProto{}.text(1, reviews).num(2, enumStrictDNS).msg(16, rawSeconds(60)).num(17, 1).msg(33, rawProto{}.text(1, reviews).msg(2,
				rawLocality("eu", "b", 1, 0, rawNamed("b.example.org", 80, 3)), rawLocality("eu", "a", 0, 0, rawNamed("a.example.org", 80, 1), rawNamed("c.example.org", 81, 1).num(2, 2)))),
			cluster{edsName: "-", source: discoverStrictDNS, dns: dnsSettings{refresh: time.Minute, family: dnsV4},
				inline: &assignment{cluster: reviews, localities: []locality{{region: "eu", zone: "a", weight: 1}, {region: "eu", zone: "b", priority: 1, weight: 3}}},
				names:  []dnsName{{host: "a.example.org", port: 80, weight: 1}, {host: "b.example.org", port: 80, weight: 3, locality: 1, priority: 1}}}, nil,
		},
		"resolution: DNS_ROUND_ROBIN": {
			rawProto{}.text(1, reviews).num(2, enumLogicalDNS).msg(33, rawProto{}.msg(2, rawLocality("", "", 0, 1, rawNamed("a.example.org", 80, 1)))),
			cluster{edsName: "-", source: discoverLogicalDNS, inline: &assignment{localities: []locality{{weight: 1}}}, names: []dnsName{{host: "a.example.org", port: 80, weight: 1}}}, nil,
		},
		"resolution: DNS, as an extension": {
			rawProto{}.text(1, reviews).msg(38, rawProto{}.text(1, "envoy.cluster.dns").packed(2, typeDNSCluster, rawProto{}.msg(3, rawSeconds(7)).num(8, 3).num(9, 1))).
				msg(33, rawProto{}.msg(2, rawLocality("", "", 0, 1, rawNamed("a.example.org", 80, 1)))),
			cluster{edsName: "-", source: discoverLogicalDNS, dns: dnsSettings{refresh: 7 * time.Second, family: dnsV6},
				inline: &assignment{localities: []locality{{weight: 1}}}, names: []dnsName{{host: "a.example.org", port: 80, weight: 1}}}, nil,
		},
		"resolution: STATIC": {
			rawProto{}.text(1, reviews).msg(33, rawProto{}.msg(2, rawLocality("", "", 0, 1, rawEndpoint("10.0.0.1", 80, 0, 1)))),
			cluster{edsName: "-", source: discoverStatic, inline: &assignment{localities: []locality{{weight: 1, count: 1}}, endpoints: []endpoint{{addr: addr("10.0.0.1:80"), weight: 1, labels: 1}}, labels: []socketLabels{{"tlsMode": `"istio"`}}}}, nil,
		},
		"BlackHoleCluster": {rawProto{}.text(1, reviews), cluster{edsName: "-", source: discoverStatic, inline: &assignment{}}, nil},
		"resolution: NONE, and a Service without an address": {
			rawProto{}.text(1, reviews).num(2, enumOriginalDst).num(6, 6), cluster{originalDst: true}, nil,
		},
		"an aggregate": {
			rawCluster().msg(38, rawProto{}.text(1, "envoy.clusters.aggregate").packed(2, typeAggregate, rawProto{}.text(1, "a", "b"))),
			cluster{edsName: "-", source: discoverAggregate, children: []string{"a", "b"}}, nil,
		},
		"another type": {
			rawCluster().msg(38, rawProto{}.text(1, "envoy.clusters.redis").packed(2, "a.Redis", nil)),
			cluster{edsName: "-", failure: `its endpoints come from a cluster type of its own, "envoy.clusters.redis", which this version does not know`}, nil,
		},
		"other policy": {
			rawCluster().msg(8, rawProto{}, rawProto{}).msg(42, rawProto{}).msg(40, rawProto{}.text(1, "odd").packed(2, "a.Odd", nil),
				rawProto{}.text(1, "istio.metadata_exchange").packed(2, "xds.type.v3.TypedStruct", rawProto{}.text(1, "x/envoy.tcp.metadataexchange.config.MetadataExchange"))),
			cluster{}, []string{"health_checks", "lrs_server", "filters[odd]"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeResource(kindCluster, test.raw)
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			switch want.name = reviews; want.edsName {
			case "":
				want.edsName = reviews
			case "-":
				want.edsName = ""
			}
			if c := got.value.(*cluster); describeValue(reflect.ValueOf(c)) != describeValue(reflect.ValueOf(&want)) {
				t.Errorf("got  %s\nwant %s", describeValue(reflect.ValueOf(c)), describeValue(reflect.ValueOf(&want)))
			}
			if !reflect.DeepEqual(got.ignored, test.ignored) {
				t.Errorf("ignores %q, want %q", got.ignored, test.ignored)
			}
		})
	}
}

func TestClusterThatIsRejected(t *testing.T) {
	deep := rawPolicies(typeRoundRobin)
	for range maxBalancingDepth {
		deep = rawProto{}.msg(1, rawProto{}.msg(4, rawProto{}.packed(2, typeLocalityRoundRobin, rawProto{}.msg(1, deep))))
	}
	for want, raw := range map[string]rawProto{
		"name: missing": rawProto{}.num(2, enumEDS),
		"eds_cluster_config.eds_config: neither ads nor self":                         rawProto{}.text(1, "x").num(2, enumEDS),
		"connect_timeout: negative duration":                                          rawCluster().msg(4, rawSeconds(1<<63)),
		"load_balancing_policy.policies[0]: missing":                                  rawCluster().msg(41, rawProto{}),
		"transport_socket.typed_config.type_url: wire type 0 instead of 2":            rawCluster().msg(24, rawProto{}.msg(3, rawProto{}.num(1, 1))),
		"transport_socket_matches[1].transport_socket.name: wire type 0 instead of 2": rawCluster().msg(43, rawProto{}, rawProto{}.msg(3, rawProto{}.num(1, 1))),
		"typed_extension_protocol_options.common_http_protocol_options: wire type 0 instead of 2": rawCluster().entry(36, "x", rawProto{}.text(1, "x/"+typeHTTPOptions).
			msg(2, rawProto{}.num(1, 1))),
		"cluster_type.typed_config.clusters: missing": rawCluster().msg(38, rawProto{}.packed(2, typeAggregate, nil)),
		"load_assignment: 0 endpoints instead of one": rawProto{}.text(1, "x").num(2, enumLogicalDNS),
		"load_assignment.endpoints[0].lb_endpoints[0].load_balancing_weight.value: wire type 2 instead of 0": rawProto{}.text(1, "x").num(2, enumStrictDNS).
			msg(33, rawProto{}.msg(2, rawProto{}.msg(2, rawProto{}.msg(4, rawProto{}.text(1, "x"))))),
		"outlier_detection.enforcing_success_rate: 101 is more than 100":                     rawCluster().msg(19, rawProto{}.wrap(6, 101)),
		"common_lb_config.healthy_panic_threshold.value: 101 is not a percentage":            rawCluster().msg(27, rawProto{}.msg(1, rawDouble(1, 101))),
		"least_request_lb_config.choice_count: 1 is less than 2":                             rawCluster().num(6, 1).msg(37, rawProto{}.wrap(1, 1)),
		"ring_hash_lb_config.maximum_ring_size: 8388609 is more than 8388608":                rawCluster().num(6, 2).msg(23, rawProto{}.wrap(4, maxRing+1)),
		"ring_hash_lb_config.minimum_ring_size: 3 is more than maximum_ring_size, 2":         rawCluster().num(6, 2).msg(23, rawProto{}.wrap(1, 3).wrap(4, 2)),
		"maglev_lb_config.table_size: 1024 is not a prime number":                            rawCluster().num(6, 5).msg(52, rawProto{}.wrap(1, 1024)),
		"circuit_breakers.thresholds.max_requests: wire type 0 instead of 2":                 rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.num(4, 1))),
		"load_balancing_policy.policies[0].typed_extension_config: wire type 0 instead of 2": rawCluster().msg(41, rawProto{}.msg(1, rawProto{}.num(4, 1))),
	} {
		if got, err := decodeResource(kindCluster, raw); err == nil || err.Error() != want || got.value != nil {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := decodeResource(kindCluster, rawCluster().msg(41, deep)); err == nil {
		t.Error("policies are nested without end")
	}
}
