package proxyless_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/meshtest"
)

// knowing greets callers by the identity that they proved.
type knowing struct {
	greetpb.UnimplementedGreetingServiceServer
}

func (knowing) SayHello(ctx context.Context, _ *greetpb.SayHelloRequest) (*greetpb.SayHelloReply, error) {
	peer, _ := proxyless.PeerFrom(ctx)
	return &greetpb.SayHelloReply{Message: "hello, " + peer.ServiceAccount + " of " + peer.Namespace}, nil
}

// A provider that takes mutual TLS only knows who calls. In a cluster the
// authority is istiod's, and the files are those of the pod's volumes.
func ExamplePeerFrom() {
	ctx := context.Background()
	authority, err := meshtest.StartAuthority("cluster.local")
	if err != nil {
		panic(err)
	}
	cp, err := meshtest.Start(meshtest.WithAuthority(authority))
	if err != nil {
		panic(err)
	}
	defer cp.Close()
	folder, err := os.MkdirTemp("", "proxyless-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	join := func(account string) *proxyless.Mesh {
		cfg := member(cp, account)
		cfg.PlainText = false
		cfg.Node.ServiceAccount = account
		own, err := os.MkdirTemp(folder, account)
		if err != nil {
			panic(err)
		}
		if cfg.RootCertFile, cfg.TokenFile, err = authority.WriteFiles(own, "demo", account); err != nil {
			panic(err)
		}
		mesh, err := proxyless.Join(ctx, cfg)
		if err != nil {
			panic(err)
		}
		return mesh
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	cp.SetInbound(lis.Addr().String(), meshtest.Inbound{TLS: true})
	cp.SetService(meshtest.Service{
		Name: "greetings", Namespace: "demo", Address: "10.96.0.1",
		Ports:     []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
		Endpoints: []meshtest.Endpoint{{Address: "127.0.0.1", Port: uint32(lis.Addr().(*net.TCPAddr).Port), TLSMode: "istio"}},
		SANs:      []string{"spiffe://cluster.local/ns/demo/sa/greeter"},
	})

	provider := join("greeter")
	defer provider.Close()
	server := provider.NewServer()
	greetpb.RegisterGreetingServiceServer(server, knowing{})
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- server.ServeListener(serving, lis) }()
	defer func() { stop(); <-served }()

	consumer := join("visitor")
	defer consumer.Close()
	greeting, err := consumer.Refer(greetings, proxyless.ProvidedBy("greetings"), proxyless.Timeout(10*time.Second))
	if err != nil {
		panic(err)
	}
	reply, err := greetpb.NewGreetingServiceClient(greeting).SayHello(ctx, &greetpb.SayHelloRequest{})
	if err != nil {
		panic(err)
	}
	fmt.Println(reply.GetMessage())
	fmt.Println(consumer.Identity().ID)
	// Output:
	// hello, visitor of demo
	// spiffe://cluster.local/ns/demo/sa/visitor
}
