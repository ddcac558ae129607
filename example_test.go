package proxyless_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/meshtest"
)

type greeter struct {
	greetpb.UnimplementedGreetingServiceServer
	words string
}

func (g greeter) SayHello(_ context.Context, in *greetpb.SayHelloRequest) (*greetpb.SayHelloReply, error) {
	return &greetpb.SayHelloReply{Message: g.words + ", " + in.GetName() + "!"}, nil
}

const greetings = "org.apache.dubbo.samples.GreetingService"

// member is the configuration of one process; in a cluster most of it comes
// from the environment, and ControlPlanes has a default.
func member(cp *meshtest.ControlPlane, application string) proxyless.Config {
	return proxyless.Config{
		Application:   application,
		ControlPlanes: []string{cp.Addr()},
		PlainText:     true,
		Node:          proxyless.Node{IP: "127.0.0.1", Pod: application + "-0", Namespace: "demo"},
		Host:          "127.0.0.1",
		Port:          -1, // any free one
		ShutdownDelay: -1,
		QoS:           proxyless.QoS{Host: "127.0.0.1", Port: -1},
		Logger:        slog.New(slog.DiscardHandler),
	}
}

// serve runs a provider of two versions until the returned function is called.
func serve(ctx context.Context, cp *meshtest.ControlPlane) (stop func()) {
	mesh, err := proxyless.Join(ctx, member(cp, "provider"))
	if err != nil {
		panic(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := mesh.NewServer()
	greetpb.RegisterGreetingServiceServer(server.With(proxyless.Version("1.0.0")), greeter{words: "hello"})
	greetpb.RegisterGreetingServiceServer(server.With(proxyless.Version("2.0.0")), greeter{words: "good day"})
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- server.ServeListener(ctx, lis) }()
	addr := lis.Addr().(*net.TCPAddr)
	cp.SetService(meshtest.Service{
		Name: "greetings", Namespace: "demo",
		Ports:     []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
		Endpoints: []meshtest.Endpoint{{Address: "127.0.0.1", Port: uint32(addr.Port)}},
	})
	return func() {
		cancel()
		if err := <-served; err != nil {
			panic(err)
		}
		mesh.Close()
	}
}

// A consumer and a provider of two versions meet through a control plane.
func Example() {
	ctx := context.Background()
	cp, err := meshtest.Start() // in a cluster: istiod
	if err != nil {
		panic(err)
	}
	defer cp.Close()
	defer serve(ctx, cp)()

	mesh, err := proxyless.Join(ctx, member(cp, "consumer"))
	if err != nil {
		panic(err)
	}
	defer mesh.Close()
	for _, version := range []string{"1.0.0", "2.0.0"} {
		greeting, err := mesh.Refer(greetings, proxyless.ProvidedBy("greetings"), proxyless.Version(version), proxyless.Timeout(10*time.Second))
		if err != nil {
			panic(err)
		}
		reply, err := greetpb.NewGreetingServiceClient(greeting).SayHello(ctx, &greetpb.SayHelloRequest{Name: "xDS Consumer"})
		if err != nil {
			panic(err)
		}
		fmt.Println(version, reply.GetMessage())
	}
	// Output:
	// 1.0.0 hello, xDS Consumer!
	// 2.0.0 good day, xDS Consumer!
}

// WaitReady connects ahead of the first calls, and says what is missing.
func ExampleMesh_WaitReady() {
	cp, err := meshtest.Start()
	if err != nil {
		panic(err)
	}
	defer cp.Close()
	cp.SetService(meshtest.Service{Name: "greetings", Namespace: "demo", Ports: []meshtest.Port{{Name: "grpc-tri", Number: 50052}}})
	mesh, err := proxyless.Join(context.Background(), member(cp, "consumer"))
	if err != nil {
		panic(err)
	}
	defer mesh.Close()
	if _, err := mesh.Refer(greetings, proxyless.ProvidedBy("greetings")); err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err = mesh.WaitReady(ctx)
	var missing *proxyless.Error
	if errors.As(err, &missing) {
		fmt.Println(missing.Stage, missing.Resource)
		fmt.Println(missing.Reason)
	}
	// Output:
	// endpoint outbound|50052||greetings.demo.svc.cluster.local
	// the mesh lists no endpoint
}

// The file has the keys that Dubbo's users know. What is not honoured is
// reported, with its line.
func ExampleParseConfig() {
	cfg, err := proxyless.ParseConfig("dubbo.properties", []byte(`
dubbo.application.name=dubbo-samples-xds-consumer
dubbo.registry.address=xds://istiod.istio-system.svc:15012
dubbo.consumer.timeout=3000
dubbo.consumer.check=true
`))
	if err != nil {
		panic(err)
	}
	fmt.Println(cfg.Application, cfg.ControlPlanes, cfg.Timeout)
	for _, n := range cfg.Notices {
		fmt.Printf("%s:%d %s\n", n.File, n.Line, n.Key)
	}
	// Output:
	// dubbo-samples-xds-consumer [istiod.istio-system.svc:15012] 3s
	// dubbo.properties:5 dubbo.consumer.check
}

// Kubernetes asks the QoS port; a process that neither exports nor refers yet
// is not ready.
func ExampleMesh_QoSAddr() {
	cp, err := meshtest.Start()
	if err != nil {
		panic(err)
	}
	defer cp.Close()
	mesh, err := proxyless.Join(context.Background(), member(cp, "consumer"))
	if err != nil {
		panic(err)
	}
	defer mesh.Close()
	for _, probe := range []string{"/live", "/startup", "/ready"} {
		r, err := http.Get("http://" + mesh.QoSAddr().String() + probe)
		if err != nil {
			panic(err)
		}
		r.Body.Close()
		fmt.Println(probe, r.StatusCode)
	}
	// Output:
	// /live 200
	// /startup 200
	// /ready 503
}

// Explain says where a call would go, and why it would not go elsewhere.
func ExampleMesh_Explain() {
	cp, err := meshtest.Start()
	if err != nil {
		panic(err)
	}
	defer cp.Close()
	jason := []meshtest.HeaderMatch{{Name: "user", Value: "jason"}}
	cluster := []meshtest.WeightedCluster{{Name: "outbound|50052||greetings.demo.svc.cluster.local"}}
	cp.SetService(meshtest.Service{Name: "greetings", Namespace: "demo", Ports: []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
		Routes: []meshtest.Route{{Name: "for-jason", Headers: jason, Clusters: cluster}, {Name: "for-all", Clusters: cluster}}})
	mesh, err := proxyless.Join(context.Background(), member(cp, "consumer"))
	if err != nil {
		panic(err)
	}
	defer mesh.Close()
	x, err := mesh.Explain(context.Background(), "greetings", greetings+"/sayHello", metadata.Pairs("user", "ann"))
	if err != nil {
		panic(err)
	}
	for _, r := range x.Routes[:2] {
		fmt.Printf("%s takes %v of the calls %s\n", r.Name, r.Share, r.Reason)
	}
	// Output:
	// for-jason takes 0 of the calls header user is "jason": the call has "ann"
	// for-all takes 1 of the calls
}
