package proxyless

import (
	"context"

	"google.golang.org/grpc"
)

// chainUnary folds interceptors into one, the first outermost; nil for none.
func chainUnary(all []grpc.UnaryClientInterceptor) grpc.UnaryClientInterceptor {
	if len(all) == 0 {
		return nil
	}
	first, rest := all[0], chainUnary(all[1:])
	if rest == nil {
		return first
	}
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		inner := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
			return rest(ctx, method, req, reply, cc, next, opts...)
		}
		return first(ctx, method, req, reply, cc, inner, opts...)
	}
}

// chainStream folds interceptors into one, the first outermost; nil for none.
func chainStream(all []grpc.StreamClientInterceptor) grpc.StreamClientInterceptor {
	if len(all) == 0 {
		return nil
	}
	first, rest := all[0], chainStream(all[1:])
	if rest == nil {
		return first
	}
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		inner := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return rest(ctx, desc, cc, method, next, opts...)
		}
		return first(ctx, desc, cc, method, inner, opts...)
	}
}
