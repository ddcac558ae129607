// Package proxyless lets a process join an Istio mesh without a sidecar and
// without an agent: the process itself speaks xDS to istiod, finds providers,
// and calls them over Triple, which is gRPC with Dubbo's headers.
//
// # Getting started
//
// A provider joins the mesh, exports an implementation and serves until its
// context ends:
//
//	mesh, err := proxyless.Join(ctx, cfg) // proxyless.LoadConfig("dubbo.properties"), or a literal Config
//	server := mesh.NewServer()
//	greetpb.RegisterGreetingServiceServer(server.With(proxyless.Version("1.0.0")), greeter{})
//	err = server.Serve(ctx)
//
// A consumer refers to an interface and uses the generated stub:
//
//	greeting, err := mesh.Refer("org.apache.dubbo.samples.GreetingService",
//		proxyless.ProvidedBy("dubbo-samples-xds-provider"), proxyless.Version("1.0.0"))
//	client := greetpb.NewGreetingServiceClient(greeting)
//
// # How a call travels
//
// An [Invoker] is a grpc.ClientConnInterface. A call loads the Invoker's plan,
// one atomic pointer, matches the route, chooses a cluster by weight and the
// next ready endpoint of it, and sends. Nothing on that way takes a lock. An
// endpoint is connected when its turn first comes, in the background, while the
// next ready one takes the call; only when none is ready does a call wait.
// Connections are shared between services by address.
//
// An attempt that certainly did not reach a provider (its connection had just
// gone, or the provider refused the stream while leaving) is repeated
// elsewhere. Other failures are retried as the route's retry policy says, which
// Istio gives to every route unless it is switched off, within the call's own
// deadline. All attempts share the request, which is marshalled once. A
// streaming call is sent again until something of its response has come, up to
// 256 KiB of requests; one that sent more stays where it is. Copies to mirrors
// and hedges are made of unary calls only.
//
// Of [Config]'s client options, interceptors run once per call, with a nil
// ClientConn; DialOptions, and so stats handlers and interceptors among them,
// run for each attempt. grpc.WaitForReady counts where it is given with the
// call, not among the default call options.
//
// # How configuration arrives
//
// One ADS stream serves everything that the process refers to. What arrives is
// decoded straight from the wire into immutable resources; a resource whose
// bytes did not change is skipped. An update becomes visible to a call as a
// whole: route, cluster and endpoints of one call never disagree.
//
// Last good configuration always wins. A resource that cannot be used is
// refused (NACK) with its reason, and the one before stays in force; so does
// everything while the control plane is away. What the mesh says is applied:
// the absence of a listener or cluster that was there, and an empty list of
// endpoints.
//
// # Providers
//
// A [Server] is a grpc.ServiceRegistrar. The same interface may be exported in
// several versions and groups; calls are told apart by the headers
// tri-service-version and tri-service-group. When its context ends it drains:
// not ready, still serving while consumers learn of it, GOAWAY, finish, close.
//
// # Security
//
// The process has an identity, the SPIFFE id of its service account, for which it
// gets a certificate from istiod, or from files, as soon as something needs it,
// and renews it; see [Identity]. Calls are encrypted as the mesh says of each
// endpoint, and go only to who has the identity that it names. A provider takes
// mutual TLS, plain text or both on its one port, as PeerAuthentication says, and
// changes that without losing a call. AuthorizationPolicy and
// RequestAuthentication judge every call; [PeerFrom] tells a handler who calls.
//
// All of it fails closed. A demand for TLS is never met with plain text, policy
// that cannot be evaluated lets nobody in, and a provider in the full view takes
// no connection before the mesh has said what it may accept. The lean view cannot
// carry all policy; a provider in it says so at start. docs/security.md has the
// details.
//
// # Settings
//
// [Config] documents every field, its default and its Dubbo property. What is
// set in the Config wins over the environment, and that over a bootstrap file.
// Settings that are read but not honoured are logged one by one, never dropped
// in silence.
//
// # Operating it
//
// The QoS port, 22222, answers probes (/live, /ready, /startup) and commands
// (/ls, /offline, /online, /config, /snapshot, /coverage, /explain, /security,
// /help). What changes something is open to the host itself only. gRPC's health
// service mirrors readiness. [Mesh.Stats] has the counters.
//
// Policy of the mesh that is not applied is never dropped in silence:
// [Mesh.Coverage] and /coverage list, for each resource, the paths of the fields
// that are applied, ignored and rejected, and Config.Strict refuses a resource
// of which something is ignored. [Mesh.Explain] and /explain tell where one
// call would go, and why it would not go elsewhere.
//
// # Errors
//
// Errors are an [*Error] where they concern the mesh: the link of the chain
// that is missing (config, identity, control plane, listener, route, cluster,
// endpoint, provider), what happened, and what to change. Calls return them as
// gRPC statuses, UNAVAILABLE in most cases. Match with [errors.Is] and
// [ErrNotReady], [ErrClosed]; the texts may change.
//
// # Concurrency and lifetime
//
// Mesh, Invoker and Server are safe for concurrent use. [Mesh.Close] joins
// every goroutine of the Mesh; a Server's end with its Serve.
package proxyless
