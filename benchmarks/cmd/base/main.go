// Command base is the program that the others are measured against: a gRPC
// server and client and a net/http server, without a mesh.
package main

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/proxyless/proxyless/benchmarks/internal/program"
)

func main() { program.Main(start) }

type client struct{ *grpc.ClientConn }

func (client) Watch(context.Context) error { return errors.New("there is nothing to watch") }

func start(t program.Task) (program.Client, error) {
	if err := program.Serve(); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(t.Target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return client{conn}, err
}
