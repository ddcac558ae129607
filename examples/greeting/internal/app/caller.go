package app

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
)

// Caller calls the greeting service over and over.
type Caller struct {
	Client   greetpb.GreetingServiceClient
	Name     string        // who is greeted
	Interval time.Duration // pause between two calls
	Calls    int           // how many; 0 means until the context ends
	Out      io.Writer     // gets a line for each call, a reply or an error
}

// Run calls until ctx ends or all calls are made. A failed call is counted and
// does not end it; the call that ctx cuts off is not counted.
func (c *Caller) Run(ctx context.Context) (answered, failed int) {
	for ctx.Err() == nil {
		reply, err := c.Client.SayHello(ctx, &greetpb.SayHelloRequest{Name: c.Name})
		switch {
		case err == nil:
			answered++
			fmt.Fprintf(c.Out, "result: %s\n", reply.GetMessage())
		case ctx.Err() == nil:
			failed++
			fmt.Fprintf(c.Out, "error: %v\n", err)
		}
		if c.Calls > 0 && answered+failed >= c.Calls {
			break
		}
		pause(ctx, c.Interval)
	}
	return answered, failed
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
