package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/xds"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/benchmarks/internal/program"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/meshtest"
)

const (
	namespace   = "demo"
	port        = 50052
	application = "benchmark"
	version     = "1.0.0"
)

// world is a control plane and what has to be closed after it, in reverse.
type world struct {
	control *meshtest.ControlPlane
	secret  *secret // nil in plain text
	closers []func()
}

func newWorld() (*world, error) {
	control, err := meshtest.Start()
	if err != nil {
		return nil, err
	}
	w := &world{control: control}
	w.later(control.Close)
	return w, nil
}

func (w *world) later(f func()) { w.closers = append(w.closers, f) }

func (w *world) close() {
	for i := len(w.closers) - 1; i >= 0; i-- {
		w.closers[i]()
	}
}

// Greeter answers with what it was sent. It is exported since dubbo-go asks for
// that.
type Greeter struct {
	greetpb.UnimplementedGreetingServiceServer
	prefix string
}

func (g Greeter) SayHello(_ context.Context, in *greetpb.SayHelloRequest) (*greetpb.SayHelloReply, error) {
	return &greetpb.SayHelloReply{Message: g.prefix + in.GetName()}, nil
}

// bareServer is grpc.NewServer and nothing else.
func (w *world) bareServer(g Greeter, options ...grpc.ServerOption) (*net.TCPAddr, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(options...)
	greetpb.RegisterGreetingServiceServer(server, g)
	go server.Serve(lis) // ended by close
	w.later(server.Stop)
	return lis.Addr().(*net.TCPAddr), nil
}

// meshServer is a Server of proxyless.
func (w *world) meshServer(g Greeter) (*net.TCPAddr, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	mesh, err := w.join(0)
	if err != nil {
		return nil, err
	}
	server := mesh.NewServer()
	greetpb.RegisterGreetingServiceServer(server.With(proxyless.Version(version)), g)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { // ended by close
		defer close(served)
		server.ServeListener(ctx, lis)
	}()
	w.later(func() { cancel(); <-served })
	return lis.Addr().(*net.TCPAddr), nil
}

func endpoint(addr *net.TCPAddr) meshtest.Endpoint {
	return meshtest.Endpoint{Address: addr.IP.String(), Port: uint32(addr.Port)}
}

func (w *world) provide(name string, endpoints ...meshtest.Endpoint) {
	w.control.SetService(meshtest.Service{Name: name, Namespace: namespace,
		Ports: []meshtest.Port{{Name: "grpc-tri", Number: port}}, Endpoints: endpoints})
}

// provideBare provides a service of whose calls the mesh says nothing, not even
// what Istio says of all: retries, and the less busy of two endpoints.
func (w *world) provideBare(name string, endpoints ...meshtest.Endpoint) {
	s, route := bareService(name, endpoints...)
	s.Routes = []meshtest.Route{route}
	w.control.SetService(s)
}

// bareService is such a service, and its one route.
func bareService(name string, endpoints ...meshtest.Endpoint) (meshtest.Service, meshtest.Route) {
	s := meshtest.Service{Name: name, Namespace: namespace, Ports: []meshtest.Port{{Name: "grpc-tri", Number: port}}, Endpoints: endpoints, RoutesOnly: true,
		Traffic: &meshtest.TrafficPolicy{LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.RoundRobin}}}
	return s, meshtest.Route{Name: "only", Prefix: "/", Clusters: []meshtest.WeightedCluster{{Name: clusterOf(&s)}}}
}

func (w *world) join(timeout time.Duration) (*proxyless.Mesh, error) {
	cfg := proxyless.Config{
		Application:   application,
		ControlPlanes: []string{w.control.Addr()},
		PlainText:     true,
		Node:          proxyless.Node{IP: "127.0.0.1", Pod: application, Namespace: namespace},
		Timeout:       timeout,
		ShutdownDelay: -1,
		QoS:           proxyless.QoS{Disabled: true},
		Logger:        slog.New(slog.DiscardHandler),
	}
	if w.secret != nil {
		w.secret.configure(&cfg)
	}
	mesh, err := proxyless.Join(context.Background(), cfg)
	if err == nil {
		w.later(func() { mesh.Close() })
	}
	return mesh, err
}

// meshClient refers to a service through proxyless.
func (w *world) meshClient(name string, timeout time.Duration) (grpc.ClientConnInterface, error) {
	mesh, err := w.join(timeout)
	if err != nil {
		return nil, err
	}
	inv, err := mesh.Refer(greetpb.GreetingService_ServiceDesc.ServiceName, proxyless.ProvidedBy(name), proxyless.Version(version))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return inv, mesh.WaitReady(ctx)
}

// xdsClient refers to a service through grpc-go's own xDS client.
func (w *world) xdsClient(name string) (grpc.ClientConnInterface, error) {
	resolver, err := xds.NewXDSResolverWithConfigForTesting([]byte(program.Bootstrap(w.control.Addr())))
	if err != nil {
		return nil, err
	}
	return w.dial(fmt.Sprintf("xds:///%s:%d", name, port), grpc.WithResolvers(resolver))
}

// bareClient is grpc.NewClient, with the content-subtype that Triple asks for.
func (w *world) bareClient(addr *net.TCPAddr) (grpc.ClientConnInterface, error) {
	return w.dial("passthrough:///" + addr.String())
}

func (w *world) dial(target string, options ...grpc.DialOption) (grpc.ClientConnInterface, error) {
	options = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.CallContentSubtype("proto")),
	}, options...)
	conn, err := grpc.NewClient(target, options...)
	if err != nil {
		return nil, err
	}
	w.later(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = greetpb.NewGreetingServiceClient(conn).SayHello(ctx, &greetpb.SayHelloRequest{}, grpc.WaitForReady(true))
	return conn, err
}

// told is a context with the headers that proxyless sends by itself.
func told(ctx context.Context) context.Context {
	return metadata.NewOutgoingContext(ctx, metadata.Pairs("tri-service-version", version, "tri-consumer-appname", application))
}
