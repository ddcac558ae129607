// Package meshtest is a control plane in the process of a test or of a demo, as
// net/http/httptest is a web server. It is a real ADS server, on TCP or in
// memory, that says what istiod says: to a node with the metadata GENERATOR=grpc
// what a proxyless client is given (the lean view), to any other what a sidecar
// is given (the full view), in the state of the world protocol and in the delta
// protocol.
//
//	plane := meshtest.New(t)                  // ends with the test
//	plane.SetService(meshtest.Service{
//		Name: "greeting", Namespace: "demo", Address: "10.96.0.1",
//		Ports:     []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
//		Endpoints: []meshtest.Endpoint{{Address: "127.0.0.2"}, {Address: "127.0.0.3"}},
//	})
//	// point a client at plane.Addr(), with plane.DialOptions()
//	plane.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "127.0.0.4"})
//	err := plane.WaitSettled(ctx)             // every client has been told and has answered
//
// # Two levels
//
// Services are the upper level: their ports and endpoints, the Routes of a
// VirtualService, the TrafficPolicy and the Subsets of a DestinationRule, session
// affinity, and, with Host, what a ServiceEntry says. SetInbound is the policy of
// a server, its AuthorizationPolicies included, SetEgress what becomes of calls to
// what is no Service. From them the control plane makes listeners, route
// configurations, clusters and assignments. With an Authority it speaks TLS, asks
// for tokens, and signs certificates.
//
// The lower level is SetResource, which serves any bytes under any type and name,
// in place of what the Services say; Listener, RouteConfiguration, Cluster and
// ClusterLoadAssignment encode the usual ones. Their Raw fields, and bytes that
// are no message at all, are for what a good control plane would not send.
//
// # The lean view, as istiod does it
//
// What follows was compared with a running istiod, answer by answer, except for
// NACKs, nodes without an id, inbound listeners and the delta protocol, which
// follow its code:
//
//   - A listener is asked for as host:port, where host is the short name, name.ns
//     or name.ns.svc of a Service of the client's own namespace, or the full name
//     of any. It is answered under the name that was asked for. Without a port,
//     there is one answer for each port of the Service. Names that mean the same
//     Service are combined: greeting:80 and greeting.demo:90 yield four.
//   - Every request for listeners, clusters or routes is answered, if need be
//     with nothing in it. Unknown listeners and clusters are absent; an unknown
//     route configuration has no virtual host, nor has that of a port named
//     tcp-something; an unknown assignment is empty.
//   - No names stand for all listeners, for no cluster, and for the end of the
//     watch of the other types.
//   - A request that answers an older response than the last is ignored. So are
//     the names in a NACK. An ACK is answered when it brings a new name, for
//     listeners and clusters also when one is missing.
//   - Any change, of endpoints too, sends all watched clusters, the assignments
//     that changed, all watched listeners and all watched route configurations,
//     in this order.
//   - A first request without a proper node id ends the stream.
//   - In the delta protocol istiod takes what it sends of listeners and clusters
//     for what is watched: after greeting:80 a subscription to clock:80 is
//     answered with clock:80 alone, and greeting:80 is never sent again. What
//     does not exist is removed at once, and forgotten.
//
// # The full view, as istiod does it
//
// Resources were compared with those of a running istiod field by field, pushes
// and the delta protocol question by question:
//
//   - Listeners and clusters are all there are, whatever a request names. HTTP
//     ports share 0.0.0.0_port, whose route configuration is named by the port. A
//     TCP port listens on the address of its Service, or on those of the pods of
//     a headless one; so does a port whose protocol has to be found out, with a
//     route configuration named host:port.
//   - virtualOutbound ends in PassthroughCluster, or under RegistryOnly in
//     BlackHoleCluster. virtualInbound has the ports that a node serves: those of
//     a Service with an endpoint at one of its addresses (of the node id and
//     INSTANCE_IPS), and those of SetInbound.
//   - A cluster is LEAST_REQUEST unless a policy says otherwise, and uses mutual
//     TLS for the endpoints whose TLSMode is istio, which the lean view does only
//     under ISTIO_MUTUAL. That of a headless Service is
//     ORIGINAL_DST; its assignment is answered all the same.
//   - A route configuration has a virtual host for every Service of the port,
//     under the names that the client's namespace may use, and allow_any or
//     block_all for all other hosts. One of an unknown port has only that.
//   - A request for more names of routes or assignments is answered with those
//     that are new.
//   - A change sends what it may matter to: that of endpoints the assignments of
//     the Service (and, where it is headless, the listeners), that of an inbound
//     policy the listeners, that of routes all but assignments, all others
//     everything, of assignments those that changed.
//   - In the delta protocol, resources have no version. A change sends the
//     clusters of the Services that it concerns, those that no Service makes, and
//     the names that are gone; listeners and route configurations are sent whole.
//     A subscription to what is watched is not answered, an unsubscription only
//     for listeners and clusters, which are then sent whole. Assignments and
//     route configurations are never removed but by HideResource: they become
//     empty. Every answered request for clusters sends all watched assignments
//     along. initial_resource_versions are names that are watched and may be
//     removed; their versions are compared with nothing.
//
// # In both views
//
// Whoever asks for ProxyConfigType, as Istio's agent does, gets the roots of
// SetMeshRoots in one resource without a name, again when they change.
//
// # Where it differs
//
// What changes is sent at once, not after 100 ms of quiet. Resources come in the
// order of their names. The first endpoints of a headless Service make istiod
// send all watched assignments in the lean view, here only those of the Service.
// The default route stays behind the Routes of a Service unless RoutesOnly says
// otherwise; istiod drops it wherever there is a VirtualService. Priorities and
// the weights of localities are what the model says: nothing is worked out from
// where the client is. The filters of session affinity are there whenever a
// Service asks for it; istiod wants a switch of its own for them. SetInbound
// sends listeners only, where istiod sends clusters and assignments again too,
// unchanged. There is no Sidecar resource that hides Services, no EnvoyFilter,
// no name table, no tunnel, and no IPv6 or second network of the client's.
//
// # Faults
//
// Disconnect ends every stream. StopListening is a control plane that was
// killed, Restart brings it back on the same address. Freeze lets nothing
// through and closes nothing, so that only unanswered pings tell. Mute silences
// single types. Inject sends one response of any bytes. HideResource makes a
// resource absent that ought to be there. WithAuth refuses streams, WithoutDelta
// the delta protocol, and WithServerOptions sets the maximum age of connections
// that istiod has.
//
// # Time
//
// A control plane has no timers. InMemory makes it fit for a bubble of
// testing/synctest, where a client's backoff and keepalive take no real time:
// start it inside the bubble, where New also ends it, and close the client's
// connections before the bubble ends.
package meshtest
