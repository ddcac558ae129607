package meshtest_test

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/proxyless/proxyless/meshtest"
)

// A client under test dials Addr with DialOptions; here it is a bare stream that
// asks for one listener.
func Example() {
	plane, err := meshtest.Start(meshtest.InMemory())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer plane.Close()
	plane.SetService(meshtest.Service{
		Name: "greeting", Namespace: "demo",
		Ports:     []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
		Endpoints: []meshtest.Endpoint{{Address: "127.0.0.2"}, {Address: "127.0.0.3"}},
	})

	conn, err := grpc.NewClient(plane.Addr(), append(plane.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := conn.NewStream(ctx, eitherWay, method, grpc.ForceCodec(codec{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = stream.SendMsg(request{typeURL: lds, names: []string{"greeting"}, node: lean()}.marshal())
	var message []byte
	_ = stream.RecvMsg(&message)
	fmt.Println(parseResponse(message).names())

	first := plane.Requests()[0]
	fmt.Println(first.NodeID, first.Metadata["NAMESPACE"], first.Names)
	// Output:
	// [greeting:50052]
	// sidecar~10.1.0.9~consumer.demo~demo.svc.cluster.local demo [greeting]
}

// A resource that istiod would not send: a listener whose route configuration
// nobody has.
func ExampleControlPlane_SetResource() {
	plane, err := meshtest.Start(meshtest.InMemory())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer plane.Close()
	listener := meshtest.Listener{Name: "greeting:50052", Route: "nowhere"}
	plane.SetResource(meshtest.ListenerType, listener.Name, listener.Marshal())
}

// What a VirtualService and a DestinationRule would say, to a client that asks
// for what a sidecar gets.
func ExampleService() {
	plane, err := meshtest.Start(meshtest.InMemory())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer plane.Close()
	stable := meshtest.Service{
		Name: "greeting", Namespace: "demo", Address: "10.96.0.1",
		Ports: []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
		Endpoints: []meshtest.Endpoint{
			{Address: "127.0.0.2", Labels: map[string]string{"version": "v1"}},
			{Address: "127.0.0.3", Labels: map[string]string{"version": "v2"}},
		},
		Traffic: &meshtest.TrafficPolicy{
			LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.RoundRobin},
			Connections:  &meshtest.ConnectionPool{MaxRequests: 100},
			Outliers:     &meshtest.OutlierDetection{Consecutive5xx: 3},
		},
		Subsets: []meshtest.Subset{{Name: "v2", Labels: map[string]string{"version": "v2"}}},
		Routes: []meshtest.Route{{
			Headers:  []meshtest.HeaderMatch{{Name: "x-canary", Value: "yes"}},
			Clusters: []meshtest.WeightedCluster{{Name: "outbound|50052|v2|greeting.demo.svc.cluster.local"}},
			Fault:    &meshtest.Fault{AbortGRPC: codes.Unavailable, AbortShare: 10_000}, // one call of a hundred
		}},
	}
	plane.SetService(stable)
	plane.SetEgress(meshtest.RegistryOnly)

	conn, err := grpc.NewClient(plane.Addr(), append(plane.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := conn.NewStream(ctx, eitherWay, method, grpc.ForceCodec(codec{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = stream.SendMsg(request{typeURL: cds, node: full()}.marshal())
	var message []byte
	_ = stream.RecvMsg(&message)
	for _, name := range parseResponse(message).names() {
		fmt.Println(name)
	}
	// Output:
	// BlackHoleCluster
	// InboundPassthroughCluster
	// PassthroughCluster
	// outbound|50052|v2|greeting.demo.svc.cluster.local
	// outbound|50052||greeting.demo.svc.cluster.local
}
