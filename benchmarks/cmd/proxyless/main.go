// Command proxyless is cmd/base in a mesh: the server, the probes and the client
// are those of proxyless.
package main

import (
	"context"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/benchmarks/internal/program"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
)

func main() { program.Main(start) }

type client struct {
	*proxyless.Invoker
	mesh *proxyless.Mesh
}

// Watch returns when listener, route, cluster and endpoints have arrived.
func (c client) Watch(ctx context.Context) error {
	for c.mesh.Stats().ResourcesUpdated < 4 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func start(t program.Task) (program.Client, error) {
	ctx := context.Background()
	mesh, err := proxyless.Join(ctx, proxyless.Config{
		Application:   "benchmark",
		ControlPlanes: []string{t.Control},
		PlainText:     true,
		Node:          proxyless.Node{IP: "127.0.0.1", Pod: "benchmark", Namespace: "demo"},
		Host:          "127.0.0.1",
		Port:          -1,
		QoS:           proxyless.QoS{Host: "127.0.0.1", Port: -1, Disabled: t.Watch},
	})
	if err != nil {
		return nil, err
	}
	if !t.Watch {
		server := mesh.NewServer()
		greetpb.RegisterGreetingServiceServer(server, program.Greeter{})
		go server.Serve(ctx) // until the process ends
	}
	inv, err := mesh.Refer(greetpb.GreetingService_ServiceDesc.ServiceName, proxyless.ProvidedBy(t.Service))
	return client{inv, mesh}, err
}
