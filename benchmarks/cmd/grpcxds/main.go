// Command grpcxds is cmd/base with grpc-go's own xDS client in place of an
// address.
package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/xds"

	"github.com/proxyless/proxyless/benchmarks/internal/program"
)

func main() { program.Main(start) }

type client struct{ *grpc.ClientConn }

// Watch returns when every endpoint has refused a connection, since this client
// connects to all of them at once.
func (c client) Watch(ctx context.Context) error {
	c.Connect()
	for s := c.GetState(); s != connectivity.TransientFailure; s = c.GetState() {
		if !c.WaitForStateChange(ctx, s) {
			return fmt.Errorf("the connection is still %v: %w", s, ctx.Err())
		}
	}
	return nil
}

func start(t program.Task) (program.Client, error) {
	if !t.Watch {
		if err := program.Serve(); err != nil {
			return nil, err
		}
	}
	resolver, err := xds.NewXDSResolverWithConfigForTesting([]byte(program.Bootstrap(t.Control)))
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("xds:///"+t.Service, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithResolvers(resolver))
	return client{conn}, err
}
