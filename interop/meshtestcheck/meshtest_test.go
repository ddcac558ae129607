package meshtestcheck

//lint:file-ignore SA1019 istiod sends deprecated fields, and clients have to read them

// What meshtest encodes by hand is read here with the generated types of
// go-control-plane, compared field by field with what was meant, and held to
// their validation rules.

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	previouspb "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

type validated interface {
	proto.Message
	ValidateAll() error
}

// sameMessage decodes b into the type of want, which has to say the same.
func sameMessage(t *testing.T, b []byte, want proto.Message) {
	t.Helper()
	got := want.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatalf("%T: %v", want, err)
	}
	// As text, since the order of fields inside an Any is nobody's concern.
	if g, w := prototext.Format(got), prototext.Format(want); g != w {
		t.Fatalf("got  %s\nwant %s", g, w)
	}
	checkMessage(t, got, true)
}

// checkMessage refuses unknown fields and broken rules, through every Any.
func checkMessage(t *testing.T, m proto.Message, whole bool) {
	t.Helper()
	if v, ok := m.(validated); ok && whole {
		if err := v.ValidateAll(); err != nil && !likeIstiod(err) {
			t.Errorf("%T: %v", m, err)
		}
	}
	r := m.ProtoReflect()
	if u := r.GetUnknown(); len(u) > 0 {
		t.Errorf("%s: unknown fields %x", r.Descriptor().FullName(), u)
	}
	if a, ok := m.(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			t.Errorf("%s: %v", a.TypeUrl, err)
			return
		}
		checkMessage(t, inner, true)
		return
	}
	r.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					checkMessage(t, v.Message().Interface(), false)
					return true
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				checkMessage(t, v.List().Get(i).Message().Interface(), false)
			}
		default:
			checkMessage(t, v.Message().Interface(), false)
		}
		return true
	})
}

// likeIstiod tells the rules that istiod breaks too, since gRPC does not ask for
// what they demand: the stat_prefix of a connection manager, the name of an
// inbound virtual host, an SDS secret beside a certificate provider.
func likeIstiod(err error) bool {
	return slices.ContainsFunc([]string{
		"HttpConnectionManager.StatPrefix", "VirtualHost.Name", "ValidationContextSdsSecretConfig",
	}, func(field string) bool { return strings.Contains(err.Error(), field) })
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}

func ads() *corepb.ConfigSource {
	return &corepb.ConfigSource{ConfigSourceSpecifier: &corepb.ConfigSource_Ads{Ads: &corepb.AggregatedConfigSource{}}}
}

func socket(host string, port uint32) *corepb.Address {
	return &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
		Address: host, PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: port},
	}}}
}

func filter(t *testing.T, name string, m proto.Message) *hcmpb.HttpFilter {
	return &hcmpb.HttpFilter{Name: name, ConfigType: &hcmpb.HttpFilter_TypedConfig{TypedConfig: pack(t, m)}}
}

func TestMeshtestListeners(t *testing.T) {
	fault := filter(t, "envoy.filters.http.fault", &faultpb.HTTPFault{})
	router := filter(t, "envoy.filters.http.router", &routerpb.Router{})
	limit := 90*time.Second + 5
	sameMessage(t, meshtest.Listener{
		Name: "a:1", Address: "10.0.0.1:1", Route: "r", MaxStreamDuration: &limit,
	}.Marshal(), &listenerpb.Listener{
		Name: "a:1", Address: socket("10.0.0.1", 1),
		ApiListener: &listenerpb.ApiListener{ApiListener: pack(t, &hcmpb.HttpConnectionManager{
			RouteSpecifier:            &hcmpb.HttpConnectionManager_Rds{Rds: &hcmpb.Rds{ConfigSource: ads(), RouteConfigName: "r"}},
			HttpFilters:               []*hcmpb.HttpFilter{fault, router},
			CommonHttpProtocolOptions: &corepb.HttpProtocolOptions{MaxStreamDuration: durationpb.New(limit)},
		})},
	})

	optional := filter(t, "f", &faultpb.HTTPFault{})
	optional.IsOptional, optional.Disabled = true, true
	sameMessage(t, meshtest.Listener{
		Name: "b:1", Inline: &meshtest.RouteConfiguration{Name: "in place"},
		Filters: []meshtest.HTTPFilter{{Name: "f", TypeURL: meshtest.FaultFilter().TypeURL, Optional: true, Disabled: true}, meshtest.RouterFilter()},
	}.Marshal(), &listenerpb.Listener{
		Name: "b:1",
		ApiListener: &listenerpb.ApiListener{ApiListener: pack(t, &hcmpb.HttpConnectionManager{
			RouteSpecifier: &hcmpb.HttpConnectionManager_RouteConfig{RouteConfig: &routepb.RouteConfiguration{Name: "in place"}},
			HttpFilters:    []*hcmpb.HttpFilter{optional, router},
		})},
	})
}

func TestMeshtestInboundListeners(t *testing.T) {
	router := filter(t, "envoy.filters.http.router", &routerpb.Router{})
	manager := func(filters ...*hcmpb.HttpFilter) *anypb.Any {
		return pack(t, &hcmpb.HttpConnectionManager{
			RouteSpecifier: &hcmpb.HttpConnectionManager_RouteConfig{RouteConfig: &routepb.RouteConfiguration{
				Name: "inbound",
				VirtualHosts: []*routepb.VirtualHost{{Domains: []string{"*"}, Routes: []*routepb.Route{{
					Match:  &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: "/"}},
					Action: &routepb.Route_NonForwardingAction{NonForwardingAction: &routepb.NonForwardingAction{}},
				}}}},
			}},
			HttpFilters: append(filters, router),
		})
	}
	deny := filter(t, "envoy.filters.http.rbac.DENY", &rbacpb.RBAC{Rules: &rbacconfigpb.RBAC{
		Action: rbacconfigpb.RBAC_DENY,
		Policies: map[string]*rbacconfigpb.Policy{"ns-name-0": {
			Permissions: []*rbacconfigpb.Permission{{Rule: &rbacconfigpb.Permission_UrlPath{UrlPath: &matcherpb.PathMatcher{
				Rule: &matcherpb.PathMatcher_Path{Path: exact("/s/m")},
			}}}},
			Principals: []*rbacconfigpb.Principal{{Identifier: &rbacconfigpb.Principal_Any{Any: true}}},
		}},
	}})
	allow := filter(t, "envoy.filters.http.rbac", &rbacpb.RBAC{Rules: &rbacconfigpb.RBAC{
		Policies: map[string]*rbacconfigpb.Policy{"ns-name-0": {
			Permissions: []*rbacconfigpb.Permission{{Rule: &rbacconfigpb.Permission_Any{Any: true}}},
			Principals: []*rbacconfigpb.Principal{{Identifier: &rbacconfigpb.Principal_Authenticated_{
				Authenticated: &rbacconfigpb.Principal_Authenticated{PrincipalName: exact("spiffe://cluster.local/ns/a/sa/b")},
			}}},
		}},
	}})

	sameMessage(t, meshtest.Listener{Name: "i", Address: "[::]:7", Inbound: []meshtest.FilterChain{
		{Name: "inbound-plaintext"},
		{Name: "inbound-mtls", TLS: true, Filters: []meshtest.HTTPFilter{
			meshtest.RBACFilter(true, meshtest.Policy{Name: "ns-name-0", Paths: []string{"/s/m"}}),
			meshtest.RBACFilter(false, meshtest.Policy{Name: "ns-name-0", Principals: []string{"spiffe://cluster.local/ns/a/sa/b"}}),
			meshtest.RouterFilter(),
		}},
	}}.Marshal(), &listenerpb.Listener{Name: "i", Address: socket("::", 7), FilterChains: []*listenerpb.FilterChain{
		{
			Name: "inbound-plaintext",
			Filters: []*listenerpb.Filter{{Name: "inbound-hcmplaintext",
				ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: manager()}}},
		},
		{
			Name: "inbound-mtls",
			Filters: []*listenerpb.Filter{{Name: "inbound-hcmmtls",
				ConfigType: &listenerpb.Filter_TypedConfig{TypedConfig: manager(deny, allow)}}},
			TransportSocket: &corepb.TransportSocket{Name: "envoy.transport_sockets.tls",
				ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: pack(t, &tlspb.DownstreamTlsContext{
					CommonTlsContext:         commonTLS(nil),
					RequireClientCertificate: wrapperspb.Bool(true),
				})}},
		},
	}})
}

func exact(s string) *matcherpb.StringMatcher {
	return &matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Exact{Exact: s}}
}

func commonTLS(sans []string) *tlspb.CommonTlsContext {
	var match []*matcherpb.StringMatcher
	for _, s := range sans {
		match = append(match, exact(s))
	}
	return &tlspb.CommonTlsContext{
		TlsCertificateProviderInstance:            &tlspb.CertificateProviderPluginInstance{InstanceName: "default", CertificateName: "default"},
		TlsCertificateCertificateProviderInstance: &tlspb.CommonTlsContext_CertificateProviderInstance{InstanceName: "default", CertificateName: "default"},
		ValidationContextType: &tlspb.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlspb.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tlspb.CertificateValidationContext{
					MatchSubjectAltNames:          match,
					CaCertificateProviderInstance: &tlspb.CertificateProviderPluginInstance{InstanceName: "default", CertificateName: "ROOTCA"},
				},
				ValidationContextCertificateProviderInstance: &tlspb.CommonTlsContext_CertificateProviderInstance{InstanceName: "default", CertificateName: "ROOTCA"},
			},
		},
	}
}

func TestMeshtestRoutes(t *testing.T) {
	half := uint32(500_000)
	retry := &routepb.RetryPolicy{
		RetryOn: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", NumRetries: wrapperspb.UInt32(2),
		RetryHostPredicate: []*routepb.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routepb.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(t, &previouspb.PreviousHostsPredicate{})},
		}},
		HostSelectionRetryMaxAttempts: 5,
	}
	to := func(cluster string) *routepb.RouteAction {
		return &routepb.RouteAction{ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: cluster}, Timeout: durationpb.New(0)}
	}
	plain := to("c")
	plain.MaxGrpcTimeout, plain.RetryPolicy = durationpb.New(0), retry
	timed := to("c")
	timed.Timeout = durationpb.New(1500 * time.Millisecond)
	timed.MaxStreamDuration = &routepb.RouteAction_MaxStreamDuration{MaxStreamDuration: timed.Timeout}
	timed.RetryPolicy = &routepb.RetryPolicy{RetryOn: "5xx", NumRetries: wrapperspb.UInt32(3), PerTryTimeout: durationpb.New(time.Second)}
	endless := to("c")
	endless.MaxStreamDuration = &routepb.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(0)}
	split := &routepb.RouteAction{
		ClusterSpecifier: &routepb.RouteAction_WeightedClusters{WeightedClusters: &routepb.WeightedCluster{
			Clusters: []*routepb.WeightedCluster_ClusterWeight{
				{Name: "c", Weight: wrapperspb.UInt32(90)}, {Name: "d", Weight: wrapperspb.UInt32(10)},
			},
		}},
		Timeout: durationpb.New(0), MaxGrpcTimeout: durationpb.New(0),
	}
	one := []meshtest.WeightedCluster{{Name: "c"}}

	sameMessage(t, meshtest.RouteConfiguration{Name: "rc", VirtualHosts: []meshtest.VirtualHost{{
		Name: "vh", Domains: []string{"a", "a:1"}, Retry: meshtest.DefaultRetry(), AttemptCount: true,
		Routes: []meshtest.Route{
			{Name: "default", Prefix: "/", Clusters: one, Retry: meshtest.DefaultRetry(), Decorator: "op"},
			{Path: "/s/m", IgnoreCase: true, Fraction: &half, Clusters: one, Timeout: 1500 * time.Millisecond,
				Retry: &meshtest.RetryPolicy{On: "5xx", Retries: 3, PerTryTimeout: time.Second}},
			{Regex: "/s/.*", Clusters: one, Timeout: -1},
			{SeparatedPrefix: "/s", Clusters: []meshtest.WeightedCluster{{Name: "c", Weight: 90}, {Name: "d", Weight: 10}}},
			{Redirect: "elsewhere"},
			{DirectResponse: 503},
			{NonForwarding: true},
		},
	}}}.Marshal(), &routepb.RouteConfiguration{Name: "rc", VirtualHosts: []*routepb.VirtualHost{{
		Name: "vh", Domains: []string{"a", "a:1"}, RetryPolicy: retry, IncludeRequestAttemptCount: true,
		Routes: []*routepb.Route{
			{Name: "default", Decorator: &routepb.Decorator{Operation: "op"},
				Match:  &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routepb.Route_Route{Route: plain}},
			{Match: &routepb.RouteMatch{
				PathSpecifier: &routepb.RouteMatch_Path{Path: "/s/m"}, CaseSensitive: wrapperspb.Bool(false),
				RuntimeFraction: &corepb.RuntimeFractionalPercent{DefaultValue: &typepb.FractionalPercent{
					Numerator: half, Denominator: typepb.FractionalPercent_MILLION}},
			}, Action: &routepb.Route_Route{Route: timed}},
			{Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_SafeRegex{SafeRegex: &matcherpb.RegexMatcher{Regex: "/s/.*"}}},
				Action: &routepb.Route_Route{Route: endless}},
			{Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: "/s"}},
				Action: &routepb.Route_Route{Route: split}},
			{Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{}},
				Action: &routepb.Route_Redirect{Redirect: &routepb.RedirectAction{HostRedirect: "elsewhere"}}},
			{Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{}},
				Action: &routepb.Route_DirectResponse{DirectResponse: &routepb.DirectResponseAction{Status: 503}}},
			{Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{}},
				Action: &routepb.Route_NonForwardingAction{NonForwardingAction: &routepb.NonForwardingAction{}}},
		},
	}}})
}

func TestMeshtestHeaderMatches(t *testing.T) {
	regex := &matcherpb.RegexMatcher{Regex: "v.*"}
	text := func(m *matcherpb.StringMatcher) *routepb.HeaderMatcher {
		return &routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_StringMatch{StringMatch: m}}
	}
	folded := exact("v")
	folded.IgnoreCase = true
	inverted := text(exact("v"))
	inverted.InvertMatch, inverted.TreatMissingHeaderAsEmpty = true, true
	for _, test := range []struct {
		match meshtest.HeaderMatch
		want  *routepb.HeaderMatcher
	}{
		{meshtest.HeaderMatch{Value: "v"}, text(exact("v"))},
		{meshtest.HeaderMatch{Value: "v", IgnoreCase: true}, text(folded)},
		{meshtest.HeaderMatch{Value: "v", Invert: true, MissingAsEmpty: true}, inverted},
		{meshtest.HeaderMatch{Kind: meshtest.HeaderPrefix, Value: "v"},
			text(&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Prefix{Prefix: "v"}})},
		{meshtest.HeaderMatch{Kind: meshtest.HeaderSuffix, Value: "v"},
			text(&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Suffix{Suffix: "v"}})},
		{meshtest.HeaderMatch{Kind: meshtest.HeaderContains, Value: "v"},
			text(&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_Contains{Contains: "v"}})},
		{meshtest.HeaderMatch{Kind: meshtest.HeaderRegex, Value: "v.*"},
			text(&matcherpb.StringMatcher{MatchPattern: &matcherpb.StringMatcher_SafeRegex{SafeRegex: regex}})},
		{meshtest.HeaderMatch{Kind: meshtest.HeaderPresent},
			&routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_PresentMatch{PresentMatch: true}}},
		{meshtest.HeaderMatch{Kind: meshtest.HeaderAbsent},
			&routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_PresentMatch{}}},
		{meshtest.HeaderMatch{Kind: meshtest.HeaderRange, Start: -5, End: math.MaxInt64},
			&routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_RangeMatch{
				RangeMatch: &typepb.Int64Range{Start: -5, End: math.MaxInt64}}}},
		{meshtest.HeaderMatch{Deprecated: true, Value: "v"},
			&routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_ExactMatch{ExactMatch: "v"}}},
		{meshtest.HeaderMatch{Deprecated: true, Kind: meshtest.HeaderPrefix, Value: "v"},
			&routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_PrefixMatch{PrefixMatch: "v"}}},
		{meshtest.HeaderMatch{Deprecated: true, Kind: meshtest.HeaderSuffix, Value: "v"},
			&routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_SuffixMatch{SuffixMatch: "v"}}},
		{meshtest.HeaderMatch{Deprecated: true, Kind: meshtest.HeaderContains, Value: "v"},
			&routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_ContainsMatch{ContainsMatch: "v"}}},
		{meshtest.HeaderMatch{Deprecated: true, Kind: meshtest.HeaderRegex, Value: "v.*"},
			&routepb.HeaderMatcher{Name: "h", HeaderMatchSpecifier: &routepb.HeaderMatcher_SafeRegexMatch{SafeRegexMatch: regex}}},
	} {
		test.match.Name = "h"
		sameMessage(t, meshtest.RouteConfiguration{Name: "rc", VirtualHosts: []meshtest.VirtualHost{{
			Name: "vh", Domains: []string{"*"}, Routes: []meshtest.Route{{
				NonForwarding: true, Headers: []meshtest.HeaderMatch{test.match},
			}},
		}}}.Marshal(), &routepb.RouteConfiguration{Name: "rc", VirtualHosts: []*routepb.VirtualHost{{
			Name: "vh", Domains: []string{"*"}, Routes: []*routepb.Route{{
				Match:  &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{}, Headers: []*routepb.HeaderMatcher{test.want}},
				Action: &routepb.Route_NonForwardingAction{NonForwardingAction: &routepb.NonForwardingAction{}},
			}},
		}}})
	}
}

func TestMeshtestClusters(t *testing.T) {
	sameMessage(t, meshtest.Cluster{Name: "c"}.Marshal(), &clusterpb.Cluster{
		Name: "c", AltStatName: "c;",
		ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
		EdsClusterConfig:     &clusterpb.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: "c"},
	})
	sameMessage(t, meshtest.Cluster{
		Name: "c", ServiceName: "s", Policy: meshtest.RingHash, ConnectTimeout: 2500 * time.Millisecond,
		MaxRequests: 7, TLS: true, SANs: []string{"spiffe://a", "spiffe://b"},
	}.Marshal(), &clusterpb.Cluster{
		Name: "c", AltStatName: "c;",
		ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_EDS},
		EdsClusterConfig:     &clusterpb.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: "s"},
		LbPolicy:             clusterpb.Cluster_RING_HASH,
		ConnectTimeout:       durationpb.New(2500 * time.Millisecond),
		CircuitBreakers: &clusterpb.CircuitBreakers{Thresholds: []*clusterpb.CircuitBreakers_Thresholds{
			{MaxRequests: wrapperspb.UInt32(7)},
		}},
		TransportSocket: &corepb.TransportSocket{Name: "envoy.transport_sockets.tls",
			ConfigType: &corepb.TransportSocket_TypedConfig{TypedConfig: pack(t, &tlspb.UpstreamTlsContext{
				CommonTlsContext: commonTLS([]string{"spiffe://a", "spiffe://b"}),
			})}},
	})
	for ours, theirs := range map[meshtest.DiscoveryType]clusterpb.Cluster_DiscoveryType{
		meshtest.Static: clusterpb.Cluster_STATIC, meshtest.StrictDNS: clusterpb.Cluster_STRICT_DNS,
		meshtest.LogicalDNS: clusterpb.Cluster_LOGICAL_DNS, meshtest.OriginalDst: clusterpb.Cluster_ORIGINAL_DST,
	} {
		var got clusterpb.Cluster
		if err := proto.Unmarshal(meshtest.Cluster{Name: "c", Type: ours}.Marshal(), &got); err != nil || got.GetType() != theirs {
			t.Errorf("type %v: got %v, %v", theirs, got.GetType(), err)
		}
	}
}

func TestMeshtestAssignments(t *testing.T) {
	text := func(key, value string) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
	}
	at := func(host string, port uint32) *endpointpb.LbEndpoint_Endpoint {
		return &endpointpb.LbEndpoint_Endpoint{Endpoint: &endpointpb.Endpoint{Address: socket(host, port)}}
	}
	sameMessage(t, meshtest.ClusterLoadAssignment{Cluster: "c", Localities: []meshtest.Locality{
		{Region: "r", Zone: "z", SubZone: "s", Weight: 5, Endpoints: []meshtest.LbEndpoint{
			{Address: "10.0.0.1", Port: 80, Weight: 2, Health: meshtest.Healthy, TLSMode: "istio", Workload: "w;n;w;v1;k"},
			{Address: "fd00::1", Port: 81, Weight: 3, Health: meshtest.Draining},
		}},
		{Unnamed: true, Priority: 1, Endpoints: []meshtest.LbEndpoint{{Address: "10.0.0.2"}}},
		{Weight: 1},
	}}.Marshal(), &endpointpb.ClusterLoadAssignment{ClusterName: "c", Endpoints: []*endpointpb.LocalityLbEndpoints{
		{
			Locality:            &corepb.Locality{Region: "r", Zone: "z", SubZone: "s"},
			LoadBalancingWeight: wrapperspb.UInt32(5),
			LbEndpoints: []*endpointpb.LbEndpoint{
				{HostIdentifier: at("10.0.0.1", 80), HealthStatus: corepb.HealthStatus_HEALTHY,
					LoadBalancingWeight: wrapperspb.UInt32(2),
					Metadata: &corepb.Metadata{FilterMetadata: map[string]*structpb.Struct{
						"envoy.transport_socket_match": text("tlsMode", "istio"),
						"istio":                        text("workload", "w;n;w;v1;k"),
					}}},
				{HostIdentifier: at("fd00::1", 81), HealthStatus: corepb.HealthStatus_DRAINING, LoadBalancingWeight: wrapperspb.UInt32(3)},
			},
		},
		{Priority: 1, LbEndpoints: []*endpointpb.LbEndpoint{{HostIdentifier: at("10.0.0.2", 0)}}},
		{Locality: &corepb.Locality{}, LoadBalancingWeight: wrapperspb.UInt32(1)},
	}})
}

// TestMeshtestServes asks a control plane with the generated client.
func TestMeshtestServes(t *testing.T) {
	c := meshtest.New(t)
	c.SetService(meshtest.Service{Name: "a", Namespace: "demo", Address: "fd00::7",
		Ports: []meshtest.Port{{Name: "grpc", Number: 80}, {Name: "tcp-x", Number: 81}},
		Endpoints: []meshtest.Endpoint{
			{Address: "10.0.0.1", Zone: "b", Weight: 3}, {Address: "10.0.0.2", Zone: "a"},
			{Address: "10.0.0.3", Zone: "b", Health: meshtest.Unhealthy, Port: 8080}, {Address: "10.0.0.4", Zone: "a", Priority: 1, TLSMode: "istio"},
		},
		Routes: []meshtest.Route{{Path: "/x/y", Clusters: []meshtest.WeightedCluster{{Name: "outbound|80|v1|a.demo.svc.cluster.local"}}}},
	})
	const in = "xds.istio.io/grpc/lds/inbound/0.0.0.0:80"
	c.SetInbound("0.0.0.0:80", meshtest.Inbound{TLS: true, Filters: []meshtest.HTTPFilter{meshtest.RBACFilter(false, meshtest.Policy{Name: "p"})}})
	conn, err := grpc.NewClient(c.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "clusterid", "Kubernetes"), 10*time.Second)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	data := map[string]any{"GENERATOR": "grpc", "NAMESPACE": "demo", "n": 1.5, "b": true, "nothing": nil,
		"list": []any{"x", 2.0}, "map": map[string]any{"k": "v"}}
	md, err := structpb.NewStruct(data)
	if err != nil {
		t.Fatal(err)
	}
	node := &corepb.Node{Id: "sidecar~10.1.0.9~c.demo~demo.svc.cluster.local", Cluster: "c", Metadata: md,
		Locality: &corepb.Locality{Region: "r", Zone: "z", SubZone: "s"}}
	const cluster, raw = "outbound|80||a.demo.svc.cluster.local", "outbound|81||a.demo.svc.cluster.local"
	var got []proto.Message
	var last *discoverypb.DiscoveryResponse
	for _, q := range []*discoverypb.DiscoveryRequest{
		{TypeUrl: meshtest.ListenerType, ResourceNames: []string{"a", in}, Node: node},
		{TypeUrl: meshtest.RouteConfigurationType, ResourceNames: []string{cluster, raw, "outbound|1||nobody.x"}},
		{TypeUrl: meshtest.ClusterType, ResourceNames: []string{cluster, raw, "outbound|1||nobody.x"}},
		{TypeUrl: meshtest.ClusterLoadAssignmentType, ResourceNames: []string{cluster, raw, "outbound|1||nobody.x"}},
	} {
		if err := stream.Send(q); err != nil {
			t.Fatal(err)
		}
		if last, err = stream.Recv(); err != nil {
			t.Fatal(err)
		}
		checkMessage(t, last, true)
		for _, a := range last.Resources {
			m, err := a.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, m)
		}
	}
	if len(got) != 3+3+2+3 {
		t.Fatalf("%d resources", len(got))
	}
	checkLocalities(t, got[8].(*endpointpb.ClusterLoadAssignment), got[9].(*endpointpb.ClusterLoadAssignment))

	_ = stream.Send(&discoverypb.DiscoveryRequest{TypeUrl: last.TypeUrl, ResponseNonce: last.Nonce, VersionInfo: "old",
		ErrorDetail: &status.Status{Code: int32(codes.InvalidArgument), Message: "no"}})
	nack, err := c.WaitRequest(ctx, func(q meshtest.Request) bool { return q.NACK })
	if err != nil || nack.ErrorDetail != "no" || nack.ErrorCode != codes.InvalidArgument || nack.Version != "old" || nack.Nonce != last.Nonce {
		t.Fatalf("NACK %+v, %v", nack, err)
	}
	first := c.Requests()[0]
	seen, err := structpb.NewStruct(first.Metadata)
	if err != nil || !proto.Equal(seen, md) || first.NodeCluster != "c" || first.Zone != "z" || first.Header.Get("clusterid")[0] != "Kubernetes" {
		t.Fatalf("node %+v, %v", first, err)
	}
}

func checkLocalities(t *testing.T, unknown, a *endpointpb.ClusterLoadAssignment) {
	t.Helper()
	if n := len(unknown.Endpoints); n != 0 {
		t.Fatalf("an unknown cluster has %d localities", n)
	}
	if n := len(a.Endpoints); n != 3 {
		t.Fatalf("%d localities", n)
	}
	for i, want := range []struct {
		zone             string
		weight, priority uint32
		count            int
	}{{"a", 1, 0, 1}, {"b", 4, 0, 2}, {"a", 1, 1, 1}} {
		l := a.Endpoints[i]
		if l.Locality.Zone != want.zone || l.LoadBalancingWeight.Value != want.weight || l.Priority != want.priority || len(l.LbEndpoints) != want.count {
			t.Fatalf("locality %d: %v", i, l)
		}
	}
	if port := a.Endpoints[1].LbEndpoints[1].GetEndpoint().GetAddress().GetSocketAddress().GetPortValue(); port != 8080 {
		t.Fatalf("port %d", port)
	}
}
