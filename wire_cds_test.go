package proxyless

import (
	"math"
	"reflect"
	"testing"
	"time"
)

const (
	rawTLSType = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
	tlsFailure = "the mesh demands TLS to this service (trafficPolicy.tls of a DestinationRule), and this version sends plain text only"
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

func TestCluster(t *testing.T) {
	autoTLS := rawProto{}.text(1, "tlsMode-istio").msg(2, rawStruct("tlsMode", "istio")).msg(3, rawSocket("envoy.transport_sockets.tls", rawTLSType))
	autoPlain := rawProto{}.text(1, "tlsMode-disabled").msg(2, rawProto{}).msg(3, rawSocket("envoy.transport_sockets.raw_buffer", ""))
	alwaysTLS := rawProto{}.text(1, "always").msg(3, rawSocket("envoy.transport_sockets.tls", rawTLSType))
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
			rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.wrap(4, 100))), cluster{}, []string{"circuit_breakers.thresholds.max_requests"},
		},
		"no limits, as Istio says it": {
			rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.wrap(2, math.MaxUint32).wrap(3, math.MaxUint32).wrap(4, math.MaxUint32).wrap(5, math.MaxUint32).num(6, 1))),
			cluster{}, nil,
		},
		"a retry budget":               {rawCluster().msg(10, rawProto{}.msg(1, rawProto{}.msg(8, rawProto{}))), cluster{}, []string{"circuit_breakers.thresholds.retry_budget"}},
		"outlierDetection":             {rawCluster().msg(19, rawProto{}), cluster{}, []string{"outlier_detection"}},
		"loadBalancer: LEAST_REQUEST":  {rawCluster().num(6, 1), cluster{}, []string{"lb_policy (LEAST_REQUEST)"}},
		"loadBalancer: consistentHash": {rawCluster().num(6, 2).msg(23, rawProto{}.wrap(1, 1024)), cluster{}, []string{"lb_policy (RING_HASH)"}},
		"loadBalancer: of tomorrow":    {rawCluster().num(6, 99), cluster{}, []string{"lb_policy (99)"}},
		"loadBalancer: warmup":         {rawCluster().msg(56, rawProto{}), cluster{}, []string{"round_robin_lb_config"}},
		"a list of policies that starts with round robin": {
			rawCluster().num(6, 1).msg(41, rawPolicies(typeRoundRobin, "a.LeastRequest")), cluster{}, nil,
		},
		"round robin within localities": {rawCluster().msg(41, nested), cluster{}, nil},
		"a list that starts with another": {
			rawCluster().msg(41, rawPolicies("envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest", typeRoundRobin)),
			cluster{}, []string{"load_balancing_policy (LeastRequest)"},
		},
		"tls: ISTIO_MUTUAL": {rawCluster().msg(24, rawSocket("envoy.transport_sockets.tls", rawTLSType)), cluster{failure: tlsFailure}, nil},
		"tls by name only":  {rawCluster().msg(24, rawSocket("envoy.transport_sockets.tls", "")), cluster{failure: tlsFailure}, nil},
		"another socket": {
			rawCluster().msg(24, rawSocket("x", "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport")),
			cluster{failure: `the mesh demands the transport socket "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport", and this version sends plain text only`}, nil,
		},
		"a socket without anything": {rawCluster().msg(24, rawProto{}), cluster{failure: `the mesh demands the transport socket "", and this version sends plain text only`}, nil},
		"tls: DISABLE":              {rawCluster().msg(24, rawSocket("envoy.transport_sockets.raw_buffer", typeRawBuffer)), cluster{}, nil},
		"auto mTLS":                 {rawCluster().msg(43, autoTLS, autoPlain), cluster{}, []string{"transport_socket_matches"}},
		"auto mTLS, else TLS":       {rawCluster().msg(43, autoTLS).msg(24, rawSocket("x", rawTLSType)), cluster{failure: tlsFailure}, []string{"transport_socket_matches"}},
		"auto mTLS, else plain":     {rawCluster().msg(43, autoTLS, autoPlain, alwaysTLS).msg(24, rawSocket("x", rawTLSType)), cluster{}, []string{"transport_socket_matches"}},
		"TLS for all endpoints":     {rawCluster().msg(43, alwaysTLS, autoPlain), cluster{failure: tlsFailure}, []string{"transport_socket_matches"}},
		"resolution: DNS": {
			rawProto{}.text(1, reviews).num(2, 1).msg(33, rawProto{}), cluster{edsName: "-", failure: "its endpoints come from STRICT_DNS, and this version knows EDS only"}, nil,
		},
		"resolution: NONE": {
			rawProto{}.text(1, reviews).num(2, 4).num(6, 6), cluster{edsName: "-", failure: "its endpoints come from ORIGINAL_DST, and this version knows EDS only"},
			[]string{"lb_policy (CLUSTER_PROVIDED)"},
		},
		"no type is STATIC": {rawProto{}.text(1, reviews), cluster{edsName: "-", failure: "its endpoints come from STATIC, and this version knows EDS only"}, nil},
		"an aggregate": {
			rawCluster().msg(38, rawProto{}.text(1, "envoy.clusters.aggregate")),
			cluster{edsName: "-", failure: "its endpoints come from a cluster type of its own, and this version knows EDS only"}, nil,
		},
		"other policy": {
			rawCluster().msg(8, rawProto{}, rawProto{}).wrap(9, 1).msg(30, rawProto{}).msg(42, rawProto{}), cluster{},
			[]string{"health_checks", "max_requests_per_connection", "upstream_connection_options", "lrs_server"},
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
			if c := got.value.(*cluster); !reflect.DeepEqual(*c, want) {
				t.Errorf("got  %+v\nwant %+v", *c, want)
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
		"eds_cluster_config.eds_config: neither ads nor self":                                rawProto{}.text(1, "x").num(2, enumEDS),
		"connect_timeout: negative duration":                                                 rawCluster().msg(4, rawSeconds(1<<63)),
		"load_balancing_policy.policies[0]: missing":                                         rawCluster().msg(41, rawProto{}),
		"transport_socket.typed_config.type_url: wire type 0 instead of 2":                   rawCluster().msg(24, rawProto{}.msg(3, rawProto{}.num(1, 1))),
		"transport_socket_matches[1].transport_socket.name: wire type 0 instead of 2":        rawCluster().msg(43, rawProto{}, rawProto{}.msg(3, rawProto{}.num(1, 1))),
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
