package main

import (
	"context"
	"fmt"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/proxyless/proxyless/benchmarks/whitebox"
	"github.com/proxyless/proxyless/meshtest"
)

// manyServices is a mesh of n services, of which a consumer wants three.
func (w *world) manyServices(n int) (wanted []string) {
	list := make([]meshtest.Service, n)
	for i := range list {
		list[i] = meshtest.Service{
			Name: fmt.Sprintf("service-%03d", i), Namespace: namespace, Address: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1),
			Ports:     []meshtest.Port{{Name: "grpc-tri", Number: port}},
			Endpoints: []meshtest.Endpoint{{Address: "127.0.0.2"}, {Address: "127.0.0.3"}},
			SANs:      []string{"spiffe://cluster.local/ns/demo/sa/default"},
		}
	}
	w.control.SetServices(list...)
	for i := range min(3, n) {
		wanted = append(wanted, list[i*n/3].Name)
	}
	return wanted
}

// services is the entry into a wide mesh in the full view: what a sidecar gets,
// of which three services matter.
func services(r *report, share time.Duration) error {
	const n = 1000
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	wanted := w.manyServices(n)
	responses, err := asSidecar(w.control.Addr(), wanted)
	if err != nil {
		return err
	}
	size := 0
	for _, b := range responses {
		size += len(b)
	}
	ours := func(int) { whitebox.Enter(wanted, responses) }
	theirs := func(int) { decodeAll(responses) }
	s := compete(share/2, timed(1, ours), timed(1, theirs))
	mine, its := allocated(3, ours), allocated(3, theirs)
	r.add(row{what: fmt.Sprintf("enter a mesh of %d services, %s MB to the plans of three", n, significant(float64(size)/1e6)),
		ours: nanoseconds(s[0].time) + ", " + mine.String(), other: nanoseconds(s[1].time) + ", " + its.String(),
		compared: "protobuf + go-control-plane's decode alone / proxyless", estimate: ratio(s[1].time, s[0].time)})
	again := whitebox.Enter(wanted, responses)
	u := compete(share/2, timed(1, func(int) { again(responses[1]) }), timed(1, func(int) { decodeAll(responses[1:2]) }))
	mine, its = allocated(3, func(int) { again(responses[1]) }), allocated(3, func(int) { decodeAll(responses[1:2]) })
	r.add(row{what: "… all clusters once more, of which none changed", ours: nanoseconds(u[0].time) + ", " + mine.String(), other: nanoseconds(u[1].time) + ", " + its.String(),
		compared: "protobuf + go-control-plane's decode alone / proxyless", estimate: ratio(u[1].time, u[0].time)})
	return nil
}

// asSidecar asks for what a sidecar asks for, and returns the responses:
// listeners, clusters, routes, endpoints.
func asSidecar(address string, services []string) (responses [][]byte, err error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	stream, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(64<<20))
	if err != nil {
		return nil, err
	}
	metadata, err := structpb.NewStruct(map[string]any{"NAMESPACE": namespace, "CLUSTER_ID": "Kubernetes"})
	if err != nil {
		return nil, err
	}
	node := &corepb.Node{Id: "sidecar~127.0.0.1~benchmark.demo~demo.svc.cluster.local", Metadata: metadata}
	var clusters []string
	for _, name := range services {
		clusters = append(clusters, meshtest.ClusterName(meshtest.Service{Name: name, Namespace: namespace}.FQDN(), port))
	}
	for _, q := range []*discoverypb.DiscoveryRequest{
		{Node: node, TypeUrl: meshtest.ListenerType},
		{TypeUrl: meshtest.ClusterType},
		{TypeUrl: meshtest.RouteConfigurationType, ResourceNames: []string{fmt.Sprint(port)}},
		{TypeUrl: meshtest.ClusterLoadAssignmentType, ResourceNames: clusters},
	} {
		if err := stream.Send(q); err != nil {
			return nil, err
		}
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		b, err := proto.Marshal(answer)
		if err != nil {
			return nil, err
		}
		responses = append(responses, b)
	}
	return responses, nil
}

// decodeAll is what go-control-plane's users do first with a response.
func decodeAll(responses [][]byte) {
	for _, b := range responses {
		var r discoverypb.DiscoveryResponse
		if err := proto.Unmarshal(b, &r); err != nil {
			panic(err)
		}
		for _, any := range r.Resources {
			var m proto.Message
			switch r.TypeUrl {
			case meshtest.ListenerType:
				m = new(listenerpb.Listener)
			case meshtest.ClusterType:
				m = new(clusterpb.Cluster)
			case meshtest.RouteConfigurationType:
				m = new(routepb.RouteConfiguration)
			default:
				m = new(endpointpb.ClusterLoadAssignment)
			}
			if err := proto.Unmarshal(any.Value, m); err != nil {
				panic(err)
			}
		}
	}
}
