package proxyless

import (
	"context"

	"google.golang.org/grpc"
)

// govern sends a unary call whose route asks for more than forwarding.
func (inv *Invoker) govern(ctx context.Context, method string, args, reply any, w way, opts []grpc.CallOption) error {
	for {
		a, err := inv.attempt(ctx, method, &w, choice{}, opts)
		if err != nil {
			return err
		}
		err = a.send(ctx, method, args, reply, opts)
		if !nothingSent(err) {
			return inv.cut(ctx, err)
		}
		inv.counts.repicks.Add(1)
	}
}

// governStream opens a stream whose route asks for more than forwarding.
// cancel is called when the stream has ended, or could not be opened.
func (inv *Invoker) governStream(ctx context.Context, desc *grpc.StreamDesc, method string, w way, opts []grpc.CallOption, cancel func()) (grpc.ClientStream, error) {
	for {
		a, err := inv.attempt(ctx, method, &w, choice{}, opts)
		if err != nil {
			cancel()
			return nil, err
		}
		stream, err := a.open(ctx, desc, method, opts, cancel)
		if !nothingSent(err) {
			return stream, err
		}
		inv.counts.repicks.Add(1)
	}
}
