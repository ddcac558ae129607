package proxyless

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
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
}

const hcmName = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

// rarely are the members of a oneof that are not what a mesh usually sends;
// the others share the rest evenly.
var rarely = map[protoreflect.Name]float64{
	"scoped_routes": 0.01, "route_config": 0.3, "config_discovery": 0.02, "path_config_source": 0.01, "api_config_source": 0.01,
	"connect_matcher": 0.02, "path_match_policy": 0.02, "custom": 0.02, "redirect": 0.1, "direct_response": 0.1,
	"filter_action": 0.02, "non_forwarding_action": 0.1, "cluster_header": 0.1, "cluster_specifier_plugin": 0.05,
	"inline_cluster_specifier_plugin": 0.05, "cluster_type": 0.1, "pipe": 0.05, "envoy_internal_address": 0.05,
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
				values.Set(protoreflect.ValueOfString(pick(m, "k", "envoy.lb", "é")).MapKey(), m.value(f.MapValue(), values.NewValue, depth))
			}
		}
	case f.IsList():
		list := to.Mutable(f).List()
		for range 1 + m.IntN(3) {
			list.Append(m.value(f, list.NewElement, depth))
		}
	case f.Message() != nil:
		to.Set(f, m.value(f, func() protoreflect.Value { return to.NewField(f) }, depth))
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
		if f.FullName() == "envoy.config.cluster.v3.Cluster.type" && m.chance(0.8) {
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
	case "google.protobuf.BoolValue":
		to.Set(d.Fields().ByName("value"), protoreflect.ValueOfBool(m.chance(0.5)))
	case "google.protobuf.Struct":
		if m.chance(0.7) {
			s, err := structpb.NewStruct(map[string]any{"tlsMode": "istio", "list": []any{1.5, true, nil}})
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
			names = []string{"envoy.extensions.filters.network.rbac.v3.RBAC", "example.Unknown", ""}
		}
	case "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.typed_config":
		names = []string{typeFault, typeStatefulSession, "envoy.extensions.filters.http.rbac.v3.RBAC", "example.Unknown"}
	case "envoy.config.core.v3.TransportSocket.typed_config":
		names = []string{typeRawBuffer, "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
			"envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport", ""}
	case "envoy.config.core.v3.TypedExtensionConfig.typed_config":
		names = []string{typeRoundRobin, typeLocalityRoundRobin, typeLocalityRoundRobin, "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest", "example.Unknown"}
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

// content fills a configuration that is looked into.
func (m *maker) content(a *anypb.Any, name string, depth int) {
	switch name {
	case hcmName:
		manager := &hcmv3.HttpConnectionManager{}
		m.fill(manager.ProtoReflect(), depth)
		a.Value = marshal(manager)
	case typeLocalityRoundRobin:
		if m.chance(0.9) {
			policies := &clusterv3.LoadBalancingPolicy{}
			m.fill(policies.ProtoReflect(), depth)
			a.Value = marshal(&wrrlocalityv3.WrrLocality{EndpointPickingPolicy: policies})
		}
	case typeFault:
	default:
		a.Value = pick(m, nil, rawVarint)
	}
}
