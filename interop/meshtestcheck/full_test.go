package meshtestcheck

//lint:file-ignore SA1019 istiod sends deprecated fields, and clients have to read them

import (
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	aggregatepb "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	commonfaultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	sessionpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiepb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerpb "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	optionspb "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	httppb "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	matcherpb "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

// TestFullViewIsValid holds everything in the full view to the rules of
// go-control-plane.
func TestFullViewIsValid(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	setMesh(c)
	c.SetInbound("10.244.0.206:50052", meshtest.Inbound{Permissive: true, Filters: []meshtest.HTTPFilter{
		meshtest.RBACFilter(true, meshtest.Policy{Name: "deny"}), meshtest.RBACFilter(false, meshtest.Policy{Name: "allow"}),
	}})
	k := newFullClient(t, c, "10.244.0.206")
	found := 0
	for _, list := range []map[string]proto.Message{
		k.ask(meshtest.ListenerType), k.ask(meshtest.ClusterType),
		k.ask(meshtest.RouteConfigurationType, "50052", "50055", "plain.full.svc.cluster.local:50052", "rubbish"),
	} {
		for name, m := range list {
			found++
			if v, ok := m.(validated); !ok {
				t.Errorf("%s is a %T", name, m)
			} else if err := v.ValidateAll(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if found < 40 {
		t.Fatalf("%d resources", found)
	}
}

func TestMeshtestRoutesInFull(t *testing.T) {
	ttl, half := 5*time.Second, uint32(500_000)
	rewrite := &meshtest.Rewrite{Pattern: "a(.*)", Substitution: `\1`}
	rewritten := &matcherpb.RegexMatchAndSubstitute{Pattern: &matcherpb.RegexMatcher{Regex: "a(.*)"}, Substitution: `\1`}
	anyPath := &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{}}
	none, one := durationpb.New(0), []meshtest.WeightedCluster{{Name: "c"}}
	base := func(change func(a *routepb.RouteAction)) *routepb.Route_Route {
		a := &routepb.RouteAction{Timeout: none, MaxGrpcTimeout: none, ClusterSpecifier: &routepb.RouteAction_Cluster{Cluster: "c"}}
		change(a)
		return &routepb.Route_Route{Route: a}
	}
	sameMessage(t, meshtest.RouteConfiguration{Name: "rc", Sidecar: true, VirtualHosts: []meshtest.VirtualHost{{
		Name: "vh", Domains: []string{"*"}, Fault: &meshtest.Fault{Delay: time.Second, DelayShare: half},
		RequestHeaders:  meshtest.HeaderMutation{Add: []meshtest.Header{{Name: "a", Value: "1"}}, Remove: []string{"b"}},
		ResponseHeaders: meshtest.HeaderMutation{Set: []meshtest.Header{{Name: "c", Value: "2"}}, Remove: []string{"d"}},
		Routes: []meshtest.Route{
			{Query: []meshtest.QueryMatch{{Name: "q", Kind: meshtest.HeaderPresent}}, ClusterHeader: "x-cluster", HostRewriteHeader: "x-host", Hedge: true},
			{Clusters: one, AutoHostRewrite: true, Timeout: -1, Mirrors: []meshtest.Mirror{{Cluster: "m"}}},
			{Clusters: one, Timeout: time.Second, Hash: []meshtest.HashPolicy{
				{Header: "h", HeaderRegex: rewrite, Terminal: true}, {Cookie: "c", CookiePath: "/", CookieTTL: &ttl},
				{SourceIP: true}, {Query: "q"}, {FilterState: "io.grpc.channel_id"},
			}},
			{RedirectPath: "/p", Fault: &meshtest.Fault{ByHeader: true, DelayShare: 1_000_000, AbortShare: 1_000_000}},
			{Clusters: []meshtest.WeightedCluster{{Name: "c", Weight: 1, HostRewrite: "h", Filters: []meshtest.HTTPFilter{meshtest.FaultFilter()}}}},
			{Clusters: []meshtest.WeightedCluster{{Name: "c"}}, Fault: &meshtest.Fault{AbortGRPC: codes.Internal, AbortShare: half},
				Retry: &meshtest.RetryPolicy{On: "5xx", Backoff: time.Second, MaxBackoff: time.Minute, HostDraws: 3}},
		},
	}}}.Marshal(), &routepb.RouteConfiguration{
		Name: "rc", ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: true,
		MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(1 << 20),
		VirtualHosts: []*routepb.VirtualHost{{
			Name: "vh", Domains: []string{"*"},
			RequestHeadersToAdd:     []*corepb.HeaderValueOption{{Header: &corepb.HeaderValue{Key: "a", Value: "1"}}},
			RequestHeadersToRemove:  []string{"b"},
			ResponseHeadersToAdd:    []*corepb.HeaderValueOption{{Header: &corepb.HeaderValue{Key: "c", Value: "2"}, AppendAction: corepb.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD}},
			ResponseHeadersToRemove: []string{"d"},
			TypedPerFilterConfig: map[string]*anypb.Any{"envoy.filters.http.fault": pack(t, &faultpb.HTTPFault{Delay: &commonfaultpb.FaultDelay{
				FaultDelaySecifier: &commonfaultpb.FaultDelay_FixedDelay{FixedDelay: durationpb.New(time.Second)}, Percentage: millionth(half)}})},
			Routes: []*routepb.Route{
				{Match: &routepb.RouteMatch{PathSpecifier: &routepb.RouteMatch_Prefix{}, QueryParameters: []*routepb.QueryParameterMatcher{{
					Name: "q", QueryParameterMatchSpecifier: &routepb.QueryParameterMatcher_PresentMatch{PresentMatch: true}}}},
					Action: base(func(a *routepb.RouteAction) {
						a.ClusterSpecifier = &routepb.RouteAction_ClusterHeader{ClusterHeader: "x-cluster"}
						a.HostRewriteSpecifier = &routepb.RouteAction_HostRewriteHeader{HostRewriteHeader: "x-host"}
						a.HedgePolicy = &routepb.HedgePolicy{HedgeOnPerTryTimeout: true}
					})},
				{Match: anyPath, Action: base(func(a *routepb.RouteAction) {
					a.HostRewriteSpecifier = &routepb.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
					a.RequestMirrorPolicies = []*routepb.RouteAction_RequestMirrorPolicy{{Cluster: "m", TraceSampled: wrapperspb.Bool(false), DisableShadowHostSuffixAppend: true}}
				})},
				{Match: anyPath, Action: base(func(a *routepb.RouteAction) {
					a.Timeout, a.MaxGrpcTimeout = durationpb.New(time.Second), durationpb.New(time.Second)
					a.HashPolicy = []*routepb.RouteAction_HashPolicy{
						{Terminal: true, PolicySpecifier: &routepb.RouteAction_HashPolicy_Header_{Header: &routepb.RouteAction_HashPolicy_Header{HeaderName: "h", RegexRewrite: rewritten}}},
						{PolicySpecifier: &routepb.RouteAction_HashPolicy_Cookie_{Cookie: &routepb.RouteAction_HashPolicy_Cookie{Name: "c", Path: "/", Ttl: durationpb.New(ttl)}}},
						{PolicySpecifier: &routepb.RouteAction_HashPolicy_ConnectionProperties_{ConnectionProperties: &routepb.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}},
						{PolicySpecifier: &routepb.RouteAction_HashPolicy_QueryParameter_{QueryParameter: &routepb.RouteAction_HashPolicy_QueryParameter{Name: "q"}}},
						{PolicySpecifier: &routepb.RouteAction_HashPolicy_FilterState_{FilterState: &routepb.RouteAction_HashPolicy_FilterState{Key: "io.grpc.channel_id"}}},
					}
				})},
				{Match: anyPath, Action: &routepb.Route_Redirect{Redirect: &routepb.RedirectAction{
					PathRewriteSpecifier: &routepb.RedirectAction_PathRedirect{PathRedirect: "/p"}}},
					TypedPerFilterConfig: map[string]*anypb.Any{"envoy.filters.http.fault": pack(t, &faultpb.HTTPFault{
						Delay: &commonfaultpb.FaultDelay{FaultDelaySecifier: &commonfaultpb.FaultDelay_HeaderDelay_{HeaderDelay: &commonfaultpb.FaultDelay_HeaderDelay{}}, Percentage: millionth(1_000_000)},
						Abort: &faultpb.FaultAbort{ErrorType: &faultpb.FaultAbort_HeaderAbort_{HeaderAbort: &faultpb.FaultAbort_HeaderAbort{}}, Percentage: millionth(1_000_000)},
					})}},
				{Match: anyPath, Action: base(func(a *routepb.RouteAction) {
					a.ClusterSpecifier = &routepb.RouteAction_WeightedClusters{WeightedClusters: &routepb.WeightedCluster{Clusters: []*routepb.WeightedCluster_ClusterWeight{{
						Name: "c", Weight: wrapperspb.UInt32(1), HostRewriteSpecifier: &routepb.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: "h"},
						TypedPerFilterConfig: map[string]*anypb.Any{"envoy.filters.http.fault": pack(t, &faultpb.HTTPFault{})},
					}}}}
				})},
				{Match: anyPath, Action: base(func(a *routepb.RouteAction) {
					a.ClusterSpecifier = &routepb.RouteAction_Cluster{Cluster: "c"}
					a.RetryPolicy = &routepb.RetryPolicy{RetryOn: "5xx", HostSelectionRetryMaxAttempts: 3,
						RetryBackOff: &routepb.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(time.Second), MaxInterval: durationpb.New(time.Minute)}}
				}), TypedPerFilterConfig: map[string]*anypb.Any{"envoy.filters.http.fault": pack(t, &faultpb.HTTPFault{
					Abort: &faultpb.FaultAbort{ErrorType: &faultpb.FaultAbort_GrpcStatus{GrpcStatus: 13}, Percentage: millionth(half)}})}},
			},
		}},
	})
}

func millionth(n uint32) *typepb.FractionalPercent {
	return &typepb.FractionalPercent{Numerator: n, Denominator: typepb.FractionalPercent_MILLION}
}

func TestMeshtestClustersInFull(t *testing.T) {
	at := meshtest.ClusterLoadAssignment{Cluster: "c", Overprovisioning: 150,
		Drops: []meshtest.Drop{{Category: "d", Share: 10}},
		Localities: []meshtest.Locality{{Weight: 1, Endpoints: []meshtest.LbEndpoint{
			{Address: "host.example", Port: 1, Hostname: "h"}}}}}
	assignment := &endpointpb.ClusterLoadAssignment{ClusterName: "c",
		Policy: &endpointpb.ClusterLoadAssignment_Policy{OverprovisioningFactor: wrapperspb.UInt32(150),
			DropOverloads: []*endpointpb.ClusterLoadAssignment_Policy_DropOverload{{Category: "d", DropPercentage: millionth(10)}}},
		Endpoints: []*endpointpb.LocalityLbEndpoints{{Locality: &corepb.Locality{}, LoadBalancingWeight: wrapperspb.UInt32(1),
			LbEndpoints: []*endpointpb.LbEndpoint{{HostIdentifier: &endpointpb.LbEndpoint_Endpoint{
				Endpoint: &endpointpb.Endpoint{Address: socket("host.example", 1), Hostname: "h"}}}}}}}
	sameMessage(t, at.Marshal(), assignment)
	sameMessage(t, meshtest.Cluster{
		Name: "c", Type: meshtest.StrictDNS, Assignment: &at, Health: []meshtest.Health{meshtest.Healthy, meshtest.Draining},
		Balancer: &meshtest.LoadBalancer{Policy: meshtest.RingHash, RingSize: 7, MaxRingSize: 9},
		Outliers: &meshtest.OutlierDetection{
			Consecutive5xx: -1, ConsecutiveGatewayFailures: 3, MaxEjectionTime: time.Minute, MinHealthPercent: 50,
			SuccessRate:       &meshtest.SuccessRate{StdevFactor: 1900, MinHosts: 3, RequestVolume: 10, Enforcing: 100},
			FailurePercentage: &meshtest.FailurePercentage{Threshold: 60, MinHosts: 2, RequestVolume: 5, Enforcing: 90},
		},
		Connections: &meshtest.ConnectionPool{ConnectTimeout: time.Second, IdleTimeout: time.Minute, MaxConcurrentStreams: 4, MaxRetries: 2},
	}.Marshal(), &clusterpb.Cluster{
		Name: "c", AltStatName: "c;", ClusterDiscoveryType: &clusterpb.Cluster_Type{Type: clusterpb.Cluster_STRICT_DNS},
		LoadAssignment: assignment, ConnectTimeout: durationpb.New(time.Second), LbPolicy: clusterpb.Cluster_RING_HASH,
		LbConfig: &clusterpb.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterpb.Cluster_RingHashLbConfig{
			MinimumRingSize: wrapperspb.UInt64(7), MaximumRingSize: wrapperspb.UInt64(9)}},
		CommonLbConfig: &clusterpb.Cluster_CommonLbConfig{HealthyPanicThreshold: &typepb.Percent{Value: 50},
			OverrideHostStatus: &corepb.HealthStatusSet{Statuses: []corepb.HealthStatus{corepb.HealthStatus_HEALTHY, corepb.HealthStatus_DRAINING}}},
		CircuitBreakers: &clusterpb.CircuitBreakers{Thresholds: []*clusterpb.CircuitBreakers_Thresholds{{MaxRetries: wrapperspb.UInt32(2)}}},
		OutlierDetection: &clusterpb.OutlierDetection{
			Consecutive_5Xx: wrapperspb.UInt32(0), EnforcingConsecutive_5Xx: wrapperspb.UInt32(0),
			ConsecutiveGatewayFailure: wrapperspb.UInt32(3), EnforcingConsecutiveGatewayFailure: wrapperspb.UInt32(100),
			MaxEjectionTime: durationpb.New(time.Minute), EnforcingSuccessRate: wrapperspb.UInt32(100),
			SuccessRateStdevFactor: wrapperspb.UInt32(1900), SuccessRateMinimumHosts: wrapperspb.UInt32(3), SuccessRateRequestVolume: wrapperspb.UInt32(10),
			FailurePercentageThreshold: wrapperspb.UInt32(60), FailurePercentageMinimumHosts: wrapperspb.UInt32(2),
			FailurePercentageRequestVolume: wrapperspb.UInt32(5), EnforcingFailurePercentage: wrapperspb.UInt32(90),
		},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(t, &optionspb.HttpProtocolOptions{
			CommonHttpProtocolOptions: &corepb.HttpProtocolOptions{IdleTimeout: durationpb.New(time.Minute)},
			UpstreamProtocolOptions: &optionspb.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &optionspb.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &optionspb.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corepb.Http2ProtocolOptions{MaxConcurrentStreams: wrapperspb.UInt32(4)}}}},
		})},
	})
	sameMessage(t, meshtest.Cluster{Name: "both", Children: []string{"a", "b"}}.Marshal(), &clusterpb.Cluster{
		Name: "both", AltStatName: "both;", ClusterDiscoveryType: &clusterpb.Cluster_ClusterType{ClusterType: &clusterpb.Cluster_CustomClusterType{
			Name: "envoy.clusters.aggregate", TypedConfig: pack(t, &aggregatepb.ClusterConfig{Clusters: []string{"a", "b"}})}},
	})
}

// Sessions are checked where istiod has them only with a switch of its own.
func TestMeshtestSessions(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	s := meshtest.Service{Name: "a", Namespace: "full", Address: "10.96.0.1", Ports: []meshtest.Port{{Name: "grpc", Number: 80}}}
	s.Session = &meshtest.Session{Cookie: "c", Path: "/p", TTL: time.Minute}
	c.SetService(s)
	s.Name, s.Session = "b", &meshtest.Session{Header: "h"}
	c.SetService(s)
	k := newFullClient(t, c, "10.0.0.1")
	rc := k.ask(meshtest.RouteConfigurationType, "80")["80"].(*routepb.RouteConfiguration)
	cookie := &cookiepb.CookieBasedSessionState{Cookie: &httppb.Cookie{Name: "c", Path: "/p", Ttl: durationpb.New(time.Minute)}}
	for i, want := range []*sessionpb.StatefulSession{
		{SessionState: &corepb.TypedExtensionConfig{Name: "envoy.http.stateful_session.cookie", TypedConfig: pack(t, cookie)}},
		{SessionState: &corepb.TypedExtensionConfig{Name: "envoy.http.stateful_session.header", TypedConfig: pack(t, &headerpb.HeaderBasedSessionState{Name: "h"})}},
	} {
		var got sessionpb.StatefulSessionPerRoute
		if err := rc.VirtualHosts[i].TypedPerFilterConfig["envoy.filters.http.stateful_session"].UnmarshalTo(&got); err != nil {
			t.Fatal(err)
		}
		if g := got.GetStatefulSession(); g.SessionState.Name != want.SessionState.Name ||
			string(g.SessionState.TypedConfig.Value) != string(want.SessionState.TypedConfig.Value) || got.ValidateAll() != nil {
			t.Errorf("got %v, want %v", g, want)
		}
	}
}

func TestMeshtestDeltaResponse(t *testing.T) {
	sameMessage(t, meshtest.DeltaDiscoveryResponse{
		Version: "v", TypeURL: meshtest.ClusterType, Nonce: "n", Removed: []string{"x", "y"},
		Resources: []meshtest.Resource{{Name: "c", Version: "1", Any: meshtest.Any{TypeURL: meshtest.ClusterType, Value: meshtest.Cluster{Name: "c"}.Marshal()}}},
	}.Marshal(), &discoverypb.DeltaDiscoveryResponse{
		SystemVersionInfo: "v", TypeUrl: meshtest.ClusterType, Nonce: "n", RemovedResources: []string{"x", "y"},
		Resources: []*discoverypb.Resource{{Name: "c", Version: "1", Resource: &anypb.Any{
			TypeUrl: meshtest.ClusterType, Value: meshtest.Cluster{Name: "c"}.Marshal()}}},
	})
}
