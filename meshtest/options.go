package meshtest

import (
	"crypto/tls"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Option changes how a ControlPlane is reached and whom it admits.
type Option func(*options)

type options struct {
	address  string
	inMemory bool
	noDelta  bool
	tls      *tls.Config
	auth     func(metadata.MD) error
	server   []grpc.ServerOption

	authority *Authority // nil for none
}

// WithAddress makes the control plane listen on a TCP address other than
// 127.0.0.1:0. With InMemory it is only the name that Addr returns.
func WithAddress(addr string) Option {
	return func(o *options) { o.address = addr }
}

// WithTLS makes the control plane speak TLS, as istiod does on port 15012.
func WithTLS(config *tls.Config) Option {
	return func(o *options) { o.tls = config }
}

// InMemory makes the control plane listen on a pipe in place of a socket, so
// that it works in a testing/synctest bubble. Clients then need DialOptions.
func InMemory() Option {
	return func(o *options) { o.inMemory = true }
}

// WithoutDelta makes the control plane one that speaks the state of the world
// protocol only: DeltaAggregatedResources fails with Unimplemented.
func WithoutDelta() Option {
	return func(o *options) { o.noDelta = true }
}

// WithAuth calls judge with the metadata of every new stream, before its first
// request is read. An error ends the stream; one that is no gRPC status becomes
// Unauthenticated. Several goroutines may call judge at once.
func WithAuth(judge func(metadata.MD) error) Option {
	return func(o *options) { o.auth = judge }
}

// WithServerOptions adds options of the gRPC server, for example
// keepalive.ServerParameters with the maximum age of connections that istiod
// has.
func WithServerOptions(opts ...grpc.ServerOption) Option {
	return func(o *options) { o.server = append(o.server, opts...) }
}
