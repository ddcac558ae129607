package proxyless

import (
	"reflect"
	"testing"
	"time"
)

// rawManager is an HttpConnectionManager with a route specifier of ours and
// the filters given; without any it has those that Istio sends.
func rawManager(filters ...rawProto) rawProto {
	if filters == nil {
		filters = []rawProto{rawFilter("envoy.filters.http.fault", typeFault, nil), rawFilter("envoy.filters.http.router", typeRouter, nil)}
	}
	return rawProto{}.text(2, "stat_prefix").msg(5, filters...)
}

func rawFilter(name, typeName string, config rawProto) rawProto {
	return rawProto{}.text(1, name).packed(4, typeName, config)
}

var (
	rawRouter = rawFilter("envoy.filters.http.router", typeRouter, nil)
	rawADS    = rawProto{}.msg(3, rawProto{})
	rawRDS    = rawProto{}.msg(1, rawADS).text(2, reviews)
)

// rawAPIListener is a client's listener as istiod sends it.
func rawAPIListener(manager rawProto) rawProto {
	return rawProto{}.text(1, "reviews.demo:9080").msg(2, rawProto{}.msg(1, rawProto{}.text(2, "10.1.2.3").num(3, 9080))).
		msg(19, rawProto{}.packed(1, typeConnectionManager, manager))
}

const inboundName = "xds.istio.io/grpc/lds/inbound/0.0.0.0:50052"

func rawInbound(chains ...rawProto) rawProto {
	return rawProto{}.text(1, inboundName).msg(3, chains...)
}

func rawChain(name string, manager rawProto, socketType string) rawProto {
	c := rawProto{}.msg(3, rawProto{}.text(1, "inbound-hcm"+name).packed(4, typeConnectionManager, manager)).text(7, name)
	if socketType != "" {
		c = c.msg(6, rawProto{}.text(1, "envoy.transport_sockets.tls").packed(3, socketType, nil))
	}
	return c
}

func TestListener(t *testing.T) {
	inlined := rawRoutes(rawRoute("r", rawEverything, rawProto{}.text(1, "a").msg(28, rawSeconds(1))))
	routes, err := new(decoding).routeConfig(inlined)
	if err != nil {
		t.Fatal(err)
	}
	rbac := rawFilter("envoy.filters.http.rbac", typeRBAC, rawProto{}.msg(1, rawProto{}))
	optional := rawFilter("wasm", "envoy.extensions.filters.http.wasm.v3.Wasm", nil).num(6, 1)
	for name, test := range map[string]struct {
		raw     rawProto
		want    listener
		ignored []string
	}{
		"a service": {
			rawAPIListener(rawManager().msg(3, rawRDS)),
			listener{name: "reviews.demo:9080", forwarding: forwarding{routeName: reviews}}, nil,
		},
		"routes from the same server": {
			rawAPIListener(rawManager().msg(3, rawProto{}.msg(1, rawProto{}.msg(5, rawProto{})).text(2, "r"))),
			listener{name: "reviews.demo:9080", forwarding: forwarding{routeName: "r"}}, nil,
		},
		"a limit for all calls": {
			rawAPIListener(rawManager().msg(3, rawRDS).msg(35, rawProto{}.msg(1, rawSeconds(9)).msg(4, rawSeconds(30)))),
			listener{name: "reviews.demo:9080", forwarding: forwarding{routeName: reviews, maxStreamDuration: 30 * time.Second}}, nil,
		},
		"routes inside": {
			rawAPIListener(rawManager().msg(4, inlined)),
			listener{name: "reviews.demo:9080", forwarding: forwarding{inline: routes}},
			[]string{"api_listener.route_config.virtual_hosts[reviews.demo.svc.cluster.local:9080].routes[r].route.grpc_timeout_offset"},
		},
		"the route specifier seen last wins": {
			rawAPIListener(rawManager().msg(4, inlined).msg(3, rawRDS)),
			listener{name: "reviews.demo:9080", forwarding: forwarding{routeName: reviews}}, nil,
		},
		"filters that are not applied": {
			rawAPIListener(rawManager(
				rawFilter("fault", typeFault, rawProto{}.msg(7, rawProto{})),
				rawFilter("fault of EnvoyFilter", "xds.type.v3.TypedStruct", rawProto{}.text(1, typePrefix+typeFault).msg(2, rawStruct("abort", "x"))),
				rawFilter("fault without policy", typeFault, rawProto{}.text(3, "cluster")),
				rawFilter("fault that is off", typeFault, rawProto{}.msg(1, rawProto{})).num(7, 1),
				rawFilter("session", typeStatefulSession, rawProto{}.msg(1, rawProto{})),
				optional, rawProto{}.text(1, "discovered").msg(5, rawProto{}).num(6, 1), rawRouter).msg(3, rawRDS)),
			listener{name: "reviews.demo:9080", forwarding: forwarding{routeName: reviews}},
			[]string{"api_listener.http_filters[fault].response_rate_limit", "api_listener.http_filters[fault of EnvoyFilter].typed_config (TypedStruct)",
				"api_listener.http_filters[session].session_state ()", "api_listener.http_filters[wasm]", "api_listener.http_filters[discovered]"},
		},
		"a provider without policy": {
			rawInbound(rawChain("inbound-plaintext", rawManager(rawRouter), "")),
			listener{name: inboundName, inbound: []filterChain{{name: "inbound-plaintext"}}}, nil,
		},
		"a provider with STRICT mTLS and an AuthorizationPolicy": {
			rawInbound(rawChain("inbound-mtls", rawManager(rbac, rawFilter("fault", typeFault, nil), rawRouter), "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext")),
			listener{name: inboundName, inbound: []filterChain{{name: "inbound-mtls", tls: (&tlsContext{failure: "transport_socket.common_tls_context cannot be obeyed: it names no certificate to show"}).settle(), filters: []inboundFilter{{access: &accessFilter{rules: &accessRules{}}}}}}}, nil,
		},
		"a provider with what is not known": {
			rawInbound(rawChain("x", rawManager(rawFilter("jwt", "a.Jwt", nil), rawProto{}.text(1, "discovered").msg(5, rawProto{}), rawRouter), typeRawBuffer).
				msg(1, rawProto{}.wrap(8, 80)).msg(3, rawProto{}.text(1, "rbac").packed(4, "a.NetworkRBAC", nil), rawProto{}.text(1, "late").msg(5, rawProto{}))).
				msg(25, rawChain("rest", rawManager(rawRouter), "")),
			listener{name: inboundName, inbound: []filterChain{
				{name: "x", match: chainMatch{port: 80}, failure: "filter a.Jwt is not evaluated"},
				{name: "rest", match: chainMatch{fallback: true}}}}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeResource(kindListener, test.raw)
			if err != nil {
				t.Fatal(err)
			}
			if l := got.value.(*listener); !reflect.DeepEqual(*l, test.want) {
				t.Errorf("got  %+v\nwant %+v", *l, test.want)
			}
			if !reflect.DeepEqual(got.ignored, test.ignored) || got.name != test.want.name {
				t.Errorf("%s ignores %q", got.name, got.ignored)
			}
		})
	}
}

func TestListenerThatIsRejected(t *testing.T) {
	api := func(filters ...rawProto) rawProto { return rawAPIListener(rawManager(filters...).msg(3, rawRDS)) }
	managed := func(f func(rawProto) rawProto) rawProto { return rawAPIListener(f(rawManager())) }
	chain := func(c rawProto) rawProto { return rawInbound(rawChain("ok", rawManager(), ""), c) }
	for want, raw := range map[string]rawProto{
		"name: missing": rawProto{}.text(28, "x"),
		"api_listener: missing, and there are no filter_chains either":                                                   rawProto{}.text(1, "x"),
		`api_listener: "" instead of an HttpConnectionManager`:                                                           rawProto{}.text(1, "x").msg(19, rawProto{}),
		`api_listener: "a.TcpProxy" instead of an HttpConnectionManager`:                                                 rawProto{}.text(1, "x").msg(19, rawProto{}.packed(1, "a.TcpProxy", nil)),
		"api_listener.rds: missing, and there is no route_config either":                                                 rawAPIListener(rawManager()),
		"api_listener.rds.route_config_name: missing":                                                                    managed(func(m rawProto) rawProto { return m.msg(3, rawProto{}.msg(1, rawADS)) }),
		"api_listener.rds.config_source: neither ads nor self":                                                           managed(func(m rawProto) rawProto { return m.msg(3, rawProto{}.text(2, "r")) }),
		"api_listener.scoped_routes: not supported":                                                                      managed(func(m rawProto) rawProto { return m.msg(31, rawProto{}) }),
		"api_listener.xff_num_trusted_hops: must be 0":                                                                   managed(func(m rawProto) rawProto { return m.num(19, 1) }),
		"api_listener.original_ip_detection_extensions: must be empty":                                                   managed(func(m rawProto) rawProto { return m.msg(46, rawProto{}) }),
		"api_listener.common_http_protocol_options.max_stream_duration: negative duration":                               managed(func(m rawProto) rawProto { return m.msg(3, rawRDS).msg(35, rawProto{}.msg(4, rawSeconds(1<<63))) }),
		"api_listener.route_config.virtual_hosts[0].routes[0].match: missing":                                            managed(func(m rawProto) rawProto { return m.msg(4, rawRoutes(rawProto{})) }),
		"api_listener.http_filters: no filter, and so no router":                                                         api([]rawProto{}...),
		"api_listener.http_filters: the router has to be the last filter, and only the last":                             api(rawFilter("fault", typeFault, nil)),
		`api_listener.http_filters: two filters are named "x"`:                                                           api(rawFilter("x", typeFault, nil), rawFilter("x", typeRouter, nil)),
		"api_listener.http_filters[1].name: missing":                                                                     api(rawFilter("x", typeFault, nil), rawFilter("", typeRouter, nil)),
		`api_listener.http_filters[0]: filter type "a.Wasm" is not known, and the filter is not optional`:                api(rawFilter("x", "a.Wasm", nil), rawRouter),
		"api_listener.http_filters[0].config_discovery: not supported, and the filter is not optional":                   api(rawProto{}.text(1, "x").msg(5, rawProto{}), rawRouter),
		"filter_chains[1].filters: 0 HttpConnectionManagers instead of one":                                              chain(rawProto{}),
		"filter_chains[1].filters[0].typed_config.http_filters: the router has to be the last filter, and only the last": chain(rawChain("x", rawManager(rawFilter("fault", typeFault, nil)), "")),
		"filter_chains[1].transport_socket.name: wire type 0 instead of 2":                                               chain(rawProto{}.msg(6, rawProto{}.num(1, 1))),
		"default_filter_chain.filters: 0 HttpConnectionManagers instead of one":                                          rawProto{}.text(1, "x").msg(25, rawProto{}),
	} {
		if got, err := decodeResource(kindListener, raw); err == nil || err.Error() != want || got.value != nil {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}
