// Package app holds what the greeting programs share: the service, the loop
// that calls it, and where their settings come from.
package app

import (
	"context"
	"fmt"
	"io"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
)

// Greeter is the greeting service of one provider.
type Greeter struct {
	greetpb.UnimplementedGreetingServiceServer
	Host string    // what its greetings say they come from
	Out  io.Writer // gets a line for each call
}

// SayHello answers with a greeting from this host.
func (g *Greeter) SayHello(_ context.Context, request *greetpb.SayHelloRequest) (*greetpb.SayHelloReply, error) {
	name := request.GetName()
	fmt.Fprintf(g.Out, "greeting service received: %s\n", name)
	return &greetpb.SayHelloReply{Message: fmt.Sprintf("hello, %s! from host: %s", name, g.Host)}, nil
}
