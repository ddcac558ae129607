package proxyless

import (
	"fmt"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/proxyless/proxyless/meshtest"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// services is how many Services of package meshtest are made at random.
const services = 400

// TestMeshtestResources compares what package meshtest says of Services, of the
// shape that istiod gives it; one of them in fifty has two thousand endpoints.
func TestMeshtestResources(t *testing.T) {
	endpoints := 0
	for seed := range uint64(services) {
		m := newMaker(seed)
		s := meshtest.Service{Name: m.text(""), Namespace: pick(m, "demo", "Other"), Address: pick(m, "", m.address()),
			Ports: []meshtest.Port{{Name: "grpc", Number: 50052}, {Name: "tcp-x", Number: 81}}, Routes: m.meshRoutes()}
		for range map[bool]int{true: 2000, false: m.IntN(20)}[seed%50 == 49] {
			s.Endpoints = append(s.Endpoints, meshtest.Endpoint{Address: m.address(), Port: pick(m, 0, 0, m.Uint32N(65536)), Weight: m.Uint32N(300),
				Health: meshtest.Health(pick(m, 0, 1, 1, 2, 3, 5)), Region: "r", Zone: pick(m, "a", "b", ""), Priority: m.Uint32N(3), TLSMode: pick(m, "", "istio")})
		}
		limit := time.Duration(m.IntN(1e12))
		for _, port := range s.Ports {
			compare(t, kindListener, s.Listener("name:1", port).Marshal())
			routes := s.RouteConfiguration(port, "demo")
			compare(t, kindListener, meshtest.Listener{Name: "inline", Inline: &routes, MaxStreamDuration: &limit}.Marshal())
			compare(t, kindRoute, routes.Marshal())
			compare(t, kindCluster, s.Cluster(port).Marshal())
			compare(t, kindCluster, meshtest.Cluster{Name: "c", ServiceName: pick(m, "", "c", "s"), Type: meshtest.DiscoveryType(m.IntN(3)), Policy: meshtest.LBPolicy(m.IntN(4)),
				ConnectTimeout: limit, MaxRequests: m.number(""), TLS: m.chance(0.5), SANs: []string{"spiffe://a"}}.Marshal())
			if a, ok := compare(t, kindEndpoints, s.Assignment(port).Marshal()).(*assignment); ok {
				endpoints += len(a.endpoints)
			}
		}
		compare(t, kindListener, meshtest.Listener{Name: "in", Address: "0.0.0.0:1", Inbound: []meshtest.FilterChain{
			{Name: "inbound-plaintext"},
			{Name: "inbound-mtls", TLS: true, Filters: []meshtest.HTTPFilter{meshtest.RBACFilter(m.chance(0.5), meshtest.Policy{Name: "p"}), meshtest.RouterFilter()}},
		}[:1+m.IntN(2)]}.Marshal())
		if t.Failed() {
			t.Fatal("seed", seed)
		}
	}
	t.Logf("%d resources, %d endpoints kept", services*13, endpoints)
}

func (m *maker) meshRoutes() (routes []meshtest.Route) {
	for range m.IntN(6) {
		r := meshtest.Route{Name: m.text(""), Prefix: "/p.S/", IgnoreCase: m.chance(0.2), Clusters: []meshtest.WeightedCluster{{Name: "c"}},
			Timeout: time.Duration(m.IntN(3)-1) * time.Second, Retry: pick(m, nil, meshtest.DefaultRetry())}
		*pick(m, &r.Prefix, &r.Path, &r.SeparatedPrefix, &r.Regex) = pick(m, "/p.S/M", "/p")
		for range m.IntN(4) {
			r.Headers = append(r.Headers, meshtest.HeaderMatch{Name: pick(m, "x-user", "Host"), Kind: meshtest.HeaderKind(m.IntN(int(meshtest.HeaderRange) + 1)), Value: "v1",
				Start: -5, End: int64(m.IntN(9)), Invert: m.chance(0.3), IgnoreCase: m.chance(0.3), MissingAsEmpty: m.chance(0.3), Deprecated: m.chance(0.3)})
		}
		if m.chance(0.5) {
			r.Clusters = []meshtest.WeightedCluster{{Name: "c", Weight: m.Uint32N(100)}, {Name: "d", Weight: 1 + m.Uint32N(100)}}
		}
		if part := m.Uint32N(2_000_000); m.chance(0.2) {
			r.Fraction = &part
		}
		routes = append(routes, r)
	}
	return routes
}

// TestRandomResponses compares envelopes, with resources in wrappers and without.
func TestRandomResponses(t *testing.T) {
	for seed := range uint64(1000) {
		m := newMaker(seed)
		response := &discoveryv3.DiscoveryResponse{VersionInfo: m.text(""), Nonce: pick(m, "", "n"), TypeUrl: typePrefix + m.text(""), Canary: m.chance(0.1)}
		for range m.IntN(5) {
			a := &anypb.Any{TypeUrl: pick(m, "", response.TypeUrl), Value: []byte(m.text(""))}
			if m.chance(0.5) {
				wrapped := &discoveryv3.Resource{Name: m.text(""), Version: "1", Resource: pick(m, nil, a, a)}
				a = &anypb.Any{TypeUrl: typePrefix + nameOf(wrapped), Value: marshal(wrapped)}
			}
			response.Resources = append(response.Resources, a)
		}
		compareResponse(t, marshal(response))
	}
}

// TestRandomRequests reads the requests that are sent with the generated types.
func TestRandomRequests(t *testing.T) {
	for seed := range uint64(1000) {
		m := newMaker(seed)
		metadata := map[string]any{"GENERATOR": "grpc", "n": 1.5, "b": m.chance(0.5), "nothing": nil, "list": []any{m.text(""), 2.0}, "map": map[string]any{"k": m.text("")}}
		fields, err := structpb.NewStruct(metadata)
		if err != nil {
			t.Fatal(err)
		}
		request := adsRequest{kind: kind(m.IntN(int(kindCount))), version: m.text(""), nonce: m.text(""), nack: pick(m, "", "no")}
		for i := range m.IntN(4) {
			request.names = append(request.names, fmt.Sprint(m.text(""), i))
		}
		want := &discoveryv3.DiscoveryRequest{VersionInfo: request.version, ResourceNames: request.names, TypeUrl: request.kind.typeURL(), ResponseNonce: request.nonce}
		if m.chance(0.5) {
			request.node = &nodeMessage{id: m.text(""), cluster: "c", metadata: metadata, zone: "z"}
			want.Node = &corev3.Node{Id: request.node.id, Cluster: "c", Metadata: fields, Locality: &corev3.Locality{Zone: "z"}, UserAgentName: userAgentName,
				UserAgentVersionType: &corev3.Node_UserAgentVersion{UserAgentVersion: userAgentVersion}}
		}
		var got discoveryv3.DiscoveryRequest
		if err := proto.Unmarshal(request.append(nil), &got); err != nil {
			t.Fatal(err)
		}
		if got.ErrorDetail.GetMessage() != request.nack || (got.ErrorDetail.GetCode() == int32(codes.InvalidArgument)) != (request.nack != "") {
			t.Fatalf("seed %d: %v", seed, got.ErrorDetail)
		}
		if got.ErrorDetail = nil; !proto.Equal(&got, want) {
			t.Fatalf("seed %d: sent %v, meant %v", seed, &got, want)
		}
	}
}
