package meshtestcheck

// What meshtest answers in the full view is compared with what istiod answered
// over the mesh of interop/testdata/full.yaml, kept in testdata/istiod. Left out
// are what no client of ours sees: traces, and cors.

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	_ "github.com/cncf/xds/go/udpa/type/v1"

	"github.com/proxyless/proxyless/meshtest"
)

const goldens = "../../testdata/istiod"

// setMesh is the mesh of full.yaml.
func setMesh(c *meshtest.ControlPlane) {
	grpcPort := []meshtest.Port{{Name: "grpc-tri", Number: 50052}}
	pod := func(name, ip, app, revision string) meshtest.Endpoint {
		return meshtest.Endpoint{
			Address: ip, Region: "region-1", Zone: "zone-1", Labels: map[string]string{"version": revision},
			Workload: fmt.Sprintf("%s;full;%s;%s;Kubernetes", name, app, revision),
		}
	}
	encrypted := func(e meshtest.Endpoint) meshtest.Endpoint { e.TLSMode = "istio"; return e }
	plain := pod("plain-1", "10.244.0.206", "plain", "v1")
	in := func(name, address string, e meshtest.Endpoint) meshtest.Service {
		return meshtest.Service{
			Name: name, Namespace: "full", Address: address, Ports: grpcPort,
			Endpoints: []meshtest.Endpoint{e}, SANs: []string{"spiffe://cluster.local/ns/full/sa/default"},
		}
	}
	disabled := in("disabled", "10.96.0.44", pod("disabled-1", "10.244.0.210", "disabled", ""))
	disabled.Ports = []meshtest.Port{{Name: "grpc-tri", Number: 50052, Target: 6000}, {Name: "tcp-raw", Number: 7000}}
	sticky := in("sticky", "10.96.0.45", plain)
	sticky.Session = &meshtest.Session{Cookie: "session-cookie"}
	sticky.Ports = []meshtest.Port{{Name: "grpc-tri", Number: 50055}}
	header := in("stickyheader", "10.96.0.46", plain)
	header.Session = &meshtest.Session{Header: "x-session"}
	header.Ports = []meshtest.Port{{Name: "grpc-tri", Number: 50056}}
	external := func(name string, how meshtest.Resolution, list ...meshtest.Endpoint) meshtest.Service {
		for i := range list {
			list[i].Workload = fmt.Sprintf("%s-%d;full;%s-%d;;Kubernetes", name, i, name, i)
		}
		return meshtest.Service{
			Name: name, Namespace: "full", Host: name + ".example.com", Resolution: how,
			Ports: []meshtest.Port{{Name: "grpc", Number: 50061}}, Endpoints: list,
		}
	}
	wild := external("wild", meshtest.ResolveNone)
	wild.Host = "*.wild.example.com"
	wild.Ports = append(wild.Ports, meshtest.Port{Name: "tls", Number: 443})
	once := external("dnsrr", meshtest.ResolveDNSOnce, meshtest.Endpoint{Address: "dnsrr.example.com"})
	once.Endpoints[0].Workload = "dnsrr;full;dnsrr;;Kubernetes"
	c.SetServices(
		plainService(in("plain", "10.96.0.41", plain)),
		in("permissive", "10.96.0.42", encrypted(pod("permissive-1", "10.244.0.207", "permissive", ""))),
		in("strict", "10.96.0.43", encrypted(pod("strict-1", "10.244.0.208", "strict", ""))),
		in("guarded", "", pod("guarded-1", "10.244.0.209", "guarded", "")),
		disabled, sticky, header, wild, once,
		external("dns", meshtest.ResolveDNS,
			meshtest.Endpoint{Address: "back1.example.com", Weight: 2, Region: "region-1", Zone: "zone-1"},
			meshtest.Endpoint{Address: "back2.example.com"}),
		external("static", meshtest.ResolveStatic,
			meshtest.Endpoint{Address: "10.9.9.9"},
			meshtest.Endpoint{Address: "10.9.9.8", Weight: 4, Region: "region-2", Zone: "zone-1"}),
		external("none", meshtest.ResolveNone),
	)
}

// plainService is the one with a DestinationRule and a VirtualService.
func plainService(s meshtest.Service) meshtest.Service {
	s.Aliases = []string{"outside.full.svc.cluster.local"}
	s.Traffic = &meshtest.TrafficPolicy{
		LoadBalancer: &meshtest.LoadBalancer{
			Policy: meshtest.LeastRequest, LocalityWeighted: true,
			Warmup: &meshtest.Warmup{Duration: 30 * time.Second, Aggression: 1.5, MinPercent: 20},
		},
		Connections: &meshtest.ConnectionPool{
			MaxConnections: 7, MaxPendingRequests: 5, MaxRequests: 9, MaxRetries: 4,
			MaxRequestsPerConnection: 11, MaxConcurrentStreams: 13,
			ConnectTimeout: 3 * time.Second, IdleTimeout: 33 * time.Second, TCPIdleTimeout: 90 * time.Second,
			MaxConnectionDuration: time.Minute,
			Keepalive:             &meshtest.TCPKeepalive{Probes: 3, Time: 20 * time.Second, Interval: 5 * time.Second},
		},
		Outliers: &meshtest.OutlierDetection{
			Consecutive5xx: 3, ConsecutiveGatewayFailures: 2, SplitLocalErrors: true, ConsecutiveLocalFailures: 4,
			Interval: 2 * time.Second, BaseEjectionTime: 5 * time.Second, MaxEjectionPercent: 50, MinHealthPercent: 30,
		},
	}
	pool := *s.Traffic.Connections
	pool.RetryBudget = &meshtest.RetryBudget{Percent: 20, MinConcurrency: 3}
	five, ttl := &meshtest.OutlierDetection{Consecutive5xx: 5}, 5*time.Second
	ring := func(h meshtest.HashPolicy) *meshtest.LoadBalancer {
		return &meshtest.LoadBalancer{Policy: meshtest.RingHash, Hash: []meshtest.HashPolicy{h}}
	}
	bigRing := ring(meshtest.HashPolicy{Header: "x-user"})
	bigRing.RingSize = 2048
	weighted := func(weights map[string]uint32) *meshtest.LoadBalancer {
		return &meshtest.LoadBalancer{Policy: meshtest.LeastRequest, LocalityWeighted: true, LocalityWeights: weights}
	}
	for name, policy := range map[string]*meshtest.TrafficPolicy{
		"v1": nil,
		"simple": {TLS: &meshtest.TLSSettings{
			Mode: meshtest.TLSSimple, SNI: "plain.example", CACertificates: "/etc/ca.pem", SANs: []string{"a", "b"}}},
		"mutual": {TLS: &meshtest.TLSSettings{
			Mode: meshtest.TLSMutual, ClientCertificate: "/c", PrivateKey: "/k", CACertificates: "/ca"}},
		"istiomutual": {TLS: &meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}},
		"notls":       {TLS: &meshtest.TLSSettings{}},
		"random":      {LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.Random}},
		"passthrough": {LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.Passthrough}},
		"rr": {LoadBalancer: &meshtest.LoadBalancer{
			Policy: meshtest.RoundRobin, Warmup: &meshtest.Warmup{Duration: 10 * time.Second}}},
		"header": {LoadBalancer: ring(meshtest.HashPolicy{Header: "x-user"})},
		"cookie": {LoadBalancer: ring(meshtest.HashPolicy{Cookie: "c", CookiePath: "/p", CookieTTL: &ttl})},
		"query":  {LoadBalancer: ring(meshtest.HashPolicy{Query: "q"})},
		"source": {LoadBalancer: &meshtest.LoadBalancer{
			Policy: meshtest.Maglev, TableSize: 997, Hash: []meshtest.HashPolicy{{SourceIP: true}}}},
		"ring":        {LoadBalancer: bigRing},
		"distribute":  {Outliers: five, LoadBalancer: weighted(map[string]uint32{"region-1/zone-1": 80, "region-2": 20})},
		"priority":    {Outliers: five, LoadBalancer: weighted(nil)},
		"retrybudget": {Connections: &pool},
	} {
		s.Subsets = append(s.Subsets, meshtest.Subset{Name: name, Labels: map[string]string{"version": "v1"}, Traffic: policy})
	}
	s.Routes = plainRoutes()
	return s
}

func plainRoutes() []meshtest.Route {
	const host = "plain.full.svc.cluster.local"
	all, v1 := "outbound|50052||"+host, "outbound|50052|v1|"+host
	const permissive = "outbound|50052||permissive.full.svc.cluster.local"
	third := uint32(330000)
	one := func(name string) []meshtest.WeightedCluster { return []meshtest.WeightedCluster{{Name: name}} }
	set := func(name, value string) []meshtest.Header { return []meshtest.Header{{Name: name, Value: value}} }
	return []meshtest.Route{
		{Name: "uri-prefix", Prefix: "/A", IgnoreCase: true, Clusters: one(v1), PrefixRewrite: "/B",
			HostRewrite: "other.example", Retry: meshtest.DefaultRetry(), Timeout: -1, Decorator: host + ":50052/A*"},
		{Name: "uri-prefix", Regex: "/x.*", Clusters: one(v1), PrefixRewrite: "/B",
			HostRewrite: "other.example", Retry: meshtest.DefaultRetry(), Timeout: -1, Decorator: host + ":50052/x.*"},
		{
			Name: "matches", Prefix: "/",
			Headers: []meshtest.HeaderMatch{
				{Name: "a", Kind: meshtest.HeaderPrefix, Value: "x"}, {Name: "b", Kind: meshtest.HeaderPresent},
				{Name: "c", Kind: meshtest.HeaderRegex, Value: "y+"}, {Name: "d", Value: "z", Invert: true, MissingAsEmpty: true},
				{Name: ":method", Value: "POST"}, {Name: ":authority", Kind: meshtest.HeaderPrefix, Value: "plain"},
				{Name: ":scheme", Value: "http"},
			},
			Query: []meshtest.QueryMatch{{Name: "q", Value: "1"}, {Name: "r", Kind: meshtest.HeaderRegex, Value: "2+"}},
			Clusters: []meshtest.WeightedCluster{
				{Name: v1, Weight: 30, RequestHeaders: meshtest.HeaderMutation{Set: set("ds", "1")},
					ResponseHeaders: meshtest.HeaderMutation{Remove: []string{"dr"}}},
				{Name: permissive, Weight: 70},
			},
			RequestHeaders: meshtest.HeaderMutation{
				Set: set("rs", "1"), Add: set("ra", "%DOWNSTREAM_REMOTE_ADDRESS%"), Remove: []string{"rr"}},
			ResponseHeaders: meshtest.HeaderMutation{Set: set("ps", "1"), Add: set("pa", "2"), Remove: []string{"pr"}},
			Timeout:         4 * time.Second,
			Retry: &meshtest.RetryPolicy{
				On:      "5xx,gateway-error,reset,connect-failure,refused-stream,cancelled,deadline-exceeded,internal,resource-exhausted,unavailable,retriable-4xx,retriable-status-codes",
				Retries: 4, PerTryTimeout: 700 * time.Millisecond, Codes: []uint32{503, 429},
				Backoff: 30 * time.Millisecond, PreviousHosts: true, PreviousPriorities: true,
			},
			Fault: &meshtest.Fault{Delay: 100 * time.Millisecond, DelayShare: 125000,
				AbortGRPC: codes.Unavailable, AbortShare: 2500},
			Mirrors: []meshtest.Mirror{{Cluster: permissive, Share: &third}}, Decorator: "plain:50052/*",
		},
		{Name: "redirect", Path: "/r", Redirect: "t", RedirectPath: "/s", RedirectCode: 302, Decorator: "plain:50052/r"},
		{Name: "direct", Path: "/d", DirectResponse: 429, DirectBody: "busy", Decorator: "plain:50052/d"},
		{Name: "uriregex", Prefix: "/w", Clusters: one(all), Decorator: host + ":50052/w*",
			RegexRewrite: &meshtest.Rewrite{Pattern: "^/w/(.*)", Substitution: `/v/\1`}},
		{Name: "rest", Prefix: "/", Clusters: one(all), Retry: meshtest.DefaultRetry(),
			Fault: &meshtest.Fault{AbortHTTP: 503}, Decorator: host + ":50052/*"},
	}
}

// fullClient asks in both protocols.
type fullClient struct {
	t    *testing.T
	node *corepb.Node
	conn *grpc.ClientConn
}

func newFullClient(t *testing.T, c *meshtest.ControlPlane, ip string) fullClient {
	conn, err := grpc.NewClient(c.Addr(), append(c.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	md, err := structpb.NewStruct(map[string]any{"NAMESPACE": "full", "INSTANCE_IPS": ip})
	if err != nil {
		t.Fatal(err)
	}
	return fullClient{t, &corepb.Node{Id: "sidecar~" + ip + "~pod.full~full.svc.cluster.local", Metadata: md}, conn}
}

func (k fullClient) ask(typeURL string, names ...string) map[string]proto.Message {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 10*time.Second)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(k.conn).StreamAggregatedResources(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	_ = stream.Send(&discoverypb.DiscoveryRequest{Node: k.node, TypeUrl: typeURL, ResourceNames: names})
	r, err := stream.Recv()
	if err != nil {
		k.t.Fatal(err)
	}
	found := make(map[string]proto.Message)
	for _, a := range r.Resources {
		addResource(k.t, found, a)
	}
	return found
}

func (k fullClient) askDelta(typeURL string, names ...string) map[string]proto.Message {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), 10*time.Second)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(k.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		k.t.Fatal(err)
	}
	_ = stream.Send(&discoverypb.DeltaDiscoveryRequest{Node: k.node, TypeUrl: typeURL, ResourceNamesSubscribe: names})
	r, err := stream.Recv()
	if err != nil {
		k.t.Fatal(err)
	}
	return deltaResources(k.t, r)
}

func deltaResources(t *testing.T, r *discoverypb.DeltaDiscoveryResponse) map[string]proto.Message {
	t.Helper()
	found := make(map[string]proto.Message)
	for _, x := range r.Resources {
		if name := addResource(t, found, x.Resource); name != x.Name || x.Version != "" {
			t.Errorf("resource %q is wrapped as %q, version %q", name, x.Name, x.Version)
		}
	}
	return found
}

func addResource(t *testing.T, found map[string]proto.Message, a *anypb.Any) string {
	t.Helper()
	m, err := a.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	checkKnown(t, m)
	var name string
	switch m := m.(type) {
	case interface{ GetName() string }:
		name = m.GetName()
	case interface{ GetClusterName() string }:
		name = m.GetClusterName()
	}
	found[name] = m
	return name
}

// checkKnown refuses fields that the message does not have.
func checkKnown(t *testing.T, m proto.Message) {
	t.Helper()
	if u := m.ProtoReflect().GetUnknown(); len(u) > 0 {
		t.Errorf("%T: unknown fields %x", m, u)
	}
}

// golden reads what istiod answered.
func golden(t *testing.T, file string) map[string]proto.Message {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(goldens, file+".binpb"))
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]proto.Message)
	if strings.Contains(file, "-delta-") {
		var r discoverypb.DeltaDiscoveryResponse
		if err := proto.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		return deltaResources(t, &r)
	}
	var r discoverypb.DiscoveryResponse
	if err := proto.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Resources {
		addResource(t, found, a)
	}
	return found
}

// same compares what meshtest answered with what istiod did, resource by
// resource.
func same(t *testing.T, got, want map[string]proto.Message) {
	t.Helper()
	if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
		t.Errorf("names\ngot  %q\nwant %q", g, w)
	}
	for name, w := range want {
		g, ok := got[name]
		if !ok {
			continue
		}
		g, w = visible(t, g), visible(t, w)
		if gt, wt := prototext.Format(g), prototext.Format(w); gt != wt {
			t.Errorf("%s differs%s", name, lineDiff(gt, wt))
		}
	}
}

// visible takes out of a resource what no client of ours looks at.
func visible(t *testing.T, m proto.Message) proto.Message {
	t.Helper()
	switch m := m.(type) {
	case *listenerpb.Listener:
		for _, c := range append(slices.Clone(m.FilterChains), m.DefaultFilterChain) {
			for _, f := range c.GetFilters() {
				var manager hcmpb.HttpConnectionManager
				if f.GetTypedConfig().UnmarshalTo(&manager) == nil {
					manager.Tracing = nil
					// istiod has it with PILOT_ENABLE_PERSISTENT_SESSION_FILTER only.
					manager.HttpFilters = slices.DeleteFunc(manager.HttpFilters, func(f *hcmpb.HttpFilter) bool {
						return f.Name == "envoy.filters.http.stateful_session"
					})
					f.ConfigType = &listenerpb.Filter_TypedConfig{TypedConfig: pack(t, &manager)}
				}
			}
		}
	case *routepb.RouteConfiguration:
		for _, h := range m.VirtualHosts {
			delete(h.TypedPerFilterConfig, "envoy.filters.http.stateful_session")
			for _, r := range h.Routes {
				delete(r.TypedPerFilterConfig, "envoy.filters.http.cors")
				r.StatPrefix, r.Metadata = "", nil
				if r.Match.CaseSensitive.GetValue() {
					r.Match.CaseSensitive = nil
				}
			}
		}
	case *clusterpb.Cluster:
		if strings.Contains(m.Name, "|sticky.") {
			m.CommonLbConfig.LocalityConfigSpecifier = nil // trafficDistribution
		}
	}
	return m
}

// lineDiff lists the lines that only one of two texts has.
func lineDiff(got, want string) string {
	count := make(map[string]int)
	for line := range strings.Lines(want) {
		count[line]--
	}
	for line := range strings.Lines(got) {
		count[line]++
	}
	var b strings.Builder
	for _, text := range []struct {
		sign  int
		lines string
	}{{1, got}, {-1, want}} {
		for line := range strings.Lines(text.lines) {
			if count[line]*text.sign > 0 {
				fmt.Fprintf(&b, "\n%+d %s", text.sign, strings.TrimRight(line, "\n"))
				count[line] -= text.sign
			}
		}
	}
	if b.Len() == 0 {
		return " in the order of its lines"
	}
	return b.String()
}

func TestFullViewIsThatOfIstiod(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	setMesh(c)
	k := newFullClient(t, c, "10.244.0.199")
	plain, host := "outbound|50052||plain.full.svc.cluster.local", "plain.full.svc.cluster.local"
	someEDS := []string{
		plain, "outbound|50052||strict.full.svc.cluster.local", "outbound|50052|distribute|" + host,
		"outbound|50052|passthrough|" + host, "outbound|50061||static.example.com", "outbound|50055||sticky.full.svc.cluster.local",
	}
	for _, test := range []struct {
		file, typeURL string
		names         []string
	}{
		{"full-lds", meshtest.ListenerType, nil},
		{"full-cds", meshtest.ClusterType, nil},
		{"full-rds", meshtest.RouteConfigurationType, []string{"50052", "50055", "50056", "50061"}},
		{"full-rds-unknown", meshtest.RouteConfigurationType, []string{"50099"}},
		{"full-eds", meshtest.ClusterLoadAssignmentType, someEDS},
		{"full-eds-headless", meshtest.ClusterLoadAssignmentType, []string{"outbound|50052||guarded.full.svc.cluster.local"}},
		{"full-eds-dns", meshtest.ClusterLoadAssignmentType, []string{"outbound|50061||dns.example.com"}},
		{"full-delta-lds", meshtest.ListenerType, []string{"*"}},
		{"full-delta-rds", meshtest.RouteConfigurationType, []string{"50055"}},
		{"full-delta-eds", meshtest.ClusterLoadAssignmentType, []string{plain, "outbound|50052||unknown.full.svc.cluster.local"}},
	} {
		t.Run(test.file, func(t *testing.T) {
			k.t = t
			want, ask := golden(t, test.file), k.ask
			if strings.Contains(test.file, "-delta-") {
				ask = k.askDelta
			}
			got := ask(test.typeURL, test.names...)
			delete(want, "outbound|50052|proxyproto|"+host) // the PROXY protocol: meshtest has no word for it
			same(t, got, want)
		})
	}
}

func TestEgressIsThatOfIstiod(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	setMesh(c)
	c.SetEgress(meshtest.RegistryOnly)
	k := newFullClient(t, c, "10.244.0.199")
	same(t, k.ask(meshtest.ListenerType), golden(t, "full-registry-lds"))
	same(t, k.ask(meshtest.RouteConfigurationType, "50061"), golden(t, "full-registry-rds"))
}

func TestInboundIsThatOfIstiod(t *testing.T) {
	for who, test := range map[string]struct {
		ip, addr string
		policy   *meshtest.Inbound
	}{
		"plain":      {"10.244.0.206", "", nil},
		"permissive": {"10.244.0.207", "10.244.0.207:0", &meshtest.Inbound{Permissive: true}},
		"strict":     {"10.244.0.208", "10.244.0.208:0", &meshtest.Inbound{TLS: true}},
		"disabled":   {"10.244.0.210", "10.244.0.210:0", &meshtest.Inbound{}},
	} {
		t.Run(who, func(t *testing.T) {
			c := meshtest.New(t, meshtest.InMemory())
			setMesh(c)
			if test.policy != nil {
				c.SetInbound(test.addr, *test.policy)
			}
			k := newFullClient(t, c, test.ip)
			same(t, k.ask(meshtest.ListenerType), golden(t, "full-inbound-"+who))
		})
	}
}
