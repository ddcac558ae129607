// Package balance compares how we balance with grpc-go.
package balance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/ringhash"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// serve starts a server that answers every call with its own address.
func serve(t *testing.T) *net.TCPAddr {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(new(wrapperspb.StringValue)); err != nil {
			return err
		}
		return stream.SendMsg(wrapperspb.String(lis.Addr().String()))
	}))
	go server.Serve(lis) // ended by the clean-up
	t.Cleanup(server.Stop)
	return lis.Addr().(*net.TCPAddr)
}

// ours is an Invoker of a service whose calls are hashed by the header "user".
func ours(t *testing.T, addrs []*net.TCPAddr) grpc.ClientConnInterface {
	t.Helper()
	cp := meshtest.New(t)
	s := meshtest.Service{Name: "echo", Namespace: "demo", Address: "10.96.0.9", Ports: []meshtest.Port{{Name: "grpc", Number: 80}},
		Traffic: &meshtest.TrafficPolicy{LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.RingHash, Hash: []meshtest.HashPolicy{{Header: "user"}}}}}
	for _, a := range addrs {
		s.Endpoints = append(s.Endpoints, meshtest.Endpoint{Address: a.IP.String(), Port: uint32(a.Port)})
	}
	cp.SetService(s)
	mesh, err := proxyless.Join(t.Context(), proxyless.Config{
		Application: "consumer", ControlPlanes: []string{cp.Addr()}, PlainText: true, View: proxyless.ViewFull, ControlPlaneDialOptions: cp.DialOptions(),
		Node: proxyless.Node{IP: "127.0.0.1", Pod: "consumer", Namespace: "demo"}, QoS: proxyless.QoS{Disabled: true}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	inv, err := mesh.Refer("test.Echo", proxyless.ProvidedBy("echo"))
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

// theirs is a channel of grpc-go with the same ring.
func theirs(t *testing.T, addrs []*net.TCPAddr) grpc.ClientConnInterface {
	t.Helper()
	r := manual.NewBuilderWithScheme("rings")
	var state resolver.State
	for _, a := range addrs {
		state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: a.String()}}})
	}
	r.InitialState(state)
	conn, err := grpc.NewClient("rings:///echo", grpc.WithResolvers(r), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"ring_hash_experimental":{"minRingSize":1024,"maxRingSize":4096,"requestHashHeader":"user"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestOurRingLeadsWhereThatOfGRPCLeads(t *testing.T) {
	var addrs []*net.TCPAddr
	for range 5 {
		addrs = append(addrs, serve(t))
	}
	one, other := ours(t, addrs), theirs(t, addrs)
	reached := map[string]int{}
	for i := range 300 {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "user", fmt.Sprint("user-", i)), 10*time.Second)
		var answers [2]wrapperspb.StringValue
		for j, conn := range []grpc.ClientConnInterface{one, other} {
			if err := conn.Invoke(ctx, "/test.Echo/say", wrapperspb.String("hi"), &answers[j]); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if answers[0].Value != answers[1].Value {
			t.Errorf("user %d: we call %s, gRPC %s", i, answers[0].Value, answers[1].Value)
		}
		reached[answers[0].Value]++
	}
	if len(reached) != 5 {
		t.Errorf("300 users reached %v", reached)
	}
}
