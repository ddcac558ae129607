package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// The type URLs of the four resource types.
const (
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// How long a test waits for istiod: for an answer that should come, and until
// it is taken to have nothing more to say (it collects changes for 100 ms).
const (
	answerLimit = 5 * time.Second
	silence     = 500 * time.Millisecond
)

// rawCodec leaves messages as the bytes they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (rawCodec) Name() string { return "proto" }

// answer is one response of istiod, as bytes and decoded.
type answer struct {
	raw []byte
	*discoveryv3.DiscoveryResponse
	err error
}

// adsStream is a hand-driven ADS stream, which nothing of the library is in.
type adsStream struct {
	stream  grpc.ClientStream
	node    *corev3.Node // sent with the first request
	answers chan answer
}

// credential says how a test presents itself to istiod.
type credential struct {
	roots     []byte // PEM; none means plain text
	token     string
	clusterID string
}

// openADS opens a stream. It ends with the test.
func openADS(t testing.TB, address string, c credential, node *corev3.Node) *adsStream {
	t.Helper()
	transport := insecure.NewCredentials()
	if c.roots != nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(c.roots)
		transport = credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: lab.IstiodName})
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx := t.Context()
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	if c.clusterID != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", c.clusterID)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources", grpc.ForceCodec(rawCodec{}))
	if err != nil {
		t.Fatal(err)
	}
	s := &adsStream{stream: stream, node: node, answers: make(chan answer, 16)}
	go s.receive() // ends with the stream
	return s
}

func (s *adsStream) receive() {
	for {
		a := answer{DiscoveryResponse: &discoveryv3.DiscoveryResponse{}}
		if a.err = s.stream.RecvMsg(&a.raw); a.err == nil {
			a.err = proto.Unmarshal(a.raw, a.DiscoveryResponse)
		}
		s.answers <- a
		if a.err != nil {
			return
		}
	}
}

// ask subscribes to the names and returns the answer; nil when istiod is silent.
func (s *adsStream) ask(t testing.TB, typeURL string, names ...string) *answer {
	t.Helper()
	s.send(t, &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: names})
	a := s.next(t, answerLimit)
	if a != nil && a.err == nil {
		s.send(t, &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: names, VersionInfo: a.VersionInfo, ResponseNonce: a.Nonce})
	}
	return a
}

func (s *adsStream) send(t testing.TB, r *discoveryv3.DiscoveryRequest) {
	t.Helper()
	r.Node, s.node = s.node, nil
	raw, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	s.stream.SendMsg(&raw) // a failure is told by the receiving side
}

func (s *adsStream) next(t testing.TB, limit time.Duration) *answer {
	t.Helper()
	select {
	case a := <-s.answers:
		return &a
	case <-time.After(limit):
		return nil
	}
}

// leanNode is a node as the library presents itself.
func leanNode(ip, pod, namespace string) *corev3.Node {
	meta, err := structpb.NewStruct(map[string]any{
		"GENERATOR":    "grpc",
		"NAMESPACE":    namespace,
		"INSTANCE_IPS": ip,
		"CLUSTER_ID":   "Kubernetes",
	})
	if err != nil {
		panic(err)
	}
	return &corev3.Node{
		Id:       fmt.Sprintf("sidecar~%s~%s.%s~%s.svc.cluster.local", ip, pod, namespace, namespace),
		Locality: &corev3.Locality{Region: "region-1", Zone: "zone-1"},
		Metadata: meta,
	}
}

// istioToken is what a projected istio-ca token holds.
func istioToken(ctx context.Context, t testing.TB, l *lab.Lab, namespace string) string {
	t.Helper()
	token, err := l.Token(ctx, namespace, "default", time.Hour, lab.IstioAudience)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
