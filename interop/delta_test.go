package interop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
)

// deltaAnswer is one response of the delta protocol, as bytes and decoded.
type deltaAnswer struct {
	raw []byte
	*discoveryv3.DeltaDiscoveryResponse
	err error
}

// deltaStream is a hand-driven stream of the delta protocol.
type deltaStream struct {
	stream  grpc.ClientStream
	node    *corev3.Node // sent with the first request
	answers chan deltaAnswer
	close   func()
}

func openDelta(t testing.TB, address string, c credential, node *corev3.Node) *deltaStream {
	t.Helper()
	transport := insecure.NewCredentials()
	if c.roots != nil {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(c.roots)
		transport = credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: lab.IstiodName})
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	if c.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.token)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", grpc.ForceCodec(rawCodec{}))
	must(t, err)
	s := &deltaStream{stream: stream, node: node, answers: make(chan deltaAnswer, 64), close: cancel}
	go s.receive() // ends with the stream
	return s
}

func (s *deltaStream) receive() {
	for {
		a := deltaAnswer{DeltaDiscoveryResponse: &discoveryv3.DeltaDiscoveryResponse{}}
		if a.err = s.stream.RecvMsg(&a.raw); a.err == nil {
			a.err = proto.Unmarshal(a.raw, a.DeltaDiscoveryResponse)
		}
		s.answers <- a
		if a.err != nil {
			return
		}
	}
}

func (s *deltaStream) send(t testing.TB, r *discoveryv3.DeltaDiscoveryRequest) {
	t.Helper()
	r.Node, s.node = s.node, nil
	raw, err := proto.Marshal(r)
	must(t, err)
	s.stream.SendMsg(&raw) // a failure is told by the receiving side
}

// next acknowledges what it returns; nil when istiod is silent.
func (s *deltaStream) next(t testing.TB, limit time.Duration) *deltaAnswer {
	t.Helper()
	select {
	case a := <-s.answers:
		if a.err == nil {
			s.send(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: a.TypeUrl, ResponseNonce: a.Nonce})
		}
		return &a
	case <-time.After(limit):
		return nil
	}
}
