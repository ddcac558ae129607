// Command proxyless is cmd/base in a mesh: the server, the probes and the client
// are those of proxyless.
package main

import (
	"context"
	"strings"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/benchmarks/internal/program"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
)

func main() { program.Main(start) }

type client struct {
	*proxyless.Invoker
	mesh     *proxyless.Mesh
	services []string
}

// Watch returns when the endpoints of all services have arrived.
func (c client) Watch(ctx context.Context) error {
	for _, service := range c.services {
		for !c.listed(ctx, service) {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

func (c client) listed(ctx context.Context, service string) bool {
	e, err := c.mesh.Explain(ctx, service, "/any/any", nil)
	if err != nil {
		return false
	}
	for _, r := range e.Routes {
		for _, c := range r.Clusters {
			if c.Count > 0 {
				return true
			}
		}
	}
	return false
}

func start(t program.Task) (program.Client, error) {
	ctx := context.Background()
	view := proxyless.ViewFull
	if t.Lean {
		view = proxyless.ViewLean
	}
	mesh, err := proxyless.Join(ctx, proxyless.Config{
		Application:   "benchmark",
		ControlPlanes: []string{t.Control},
		PlainText:     true,
		View:          view,
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
	c := client{mesh: mesh, services: strings.Split(t.Service, ",")}
	for _, service := range c.services {
		if c.Invoker, err = mesh.Refer(greetpb.GreetingService_ServiceDesc.ServiceName, proxyless.ProvidedBy(service)); err != nil {
			return nil, err
		}
	}
	return c, nil
}
