// Package meshtest is a control plane in the process of a test or of a demo, as
// net/http/httptest is a web server. It is a real ADS server, on TCP or in
// memory, that speaks the state of the world protocol and says what istiod says
// to a proxyless client (node metadata GENERATOR=grpc).
//
//	plane := meshtest.New(t)                  // ends with the test
//	plane.SetService(meshtest.Service{
//		Name: "greeting", Namespace: "demo",
//		Ports:     []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
//		Endpoints: []meshtest.Endpoint{{Address: "127.0.0.2"}, {Address: "127.0.0.3"}},
//	})
//	// point a client at plane.Addr(), with plane.DialOptions()
//	plane.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "127.0.0.4"})
//	err := plane.WaitSettled(ctx)             // every client has been told and has answered
//
// # Two levels
//
// Services, their ports and endpoints are the upper level: from them the control
// plane makes listeners, route configurations, clusters and assignments. The
// lower one is SetResource, which serves any bytes under any type and name, in
// place of what the Services say; Listener, RouteConfiguration, Cluster and
// ClusterLoadAssignment encode the usual ones. Their Raw fields, and bytes that
// are no message at all, are for what a good control plane would not send.
//
// # As istiod does it
//
// What follows was compared with a running istiod, answer by answer, except for
// NACKs, nodes without an id and inbound listeners, which follow its code:
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
//
// It differs in these points: what changes is sent at once, not after 100 ms of
// quiet; the first endpoints of a headless Service make istiod send all watched
// assignments, here only those of the Service; of Istio's resources only Service, EndpointSlice and the routes of a
// VirtualService have a counterpart; there is neither the delta protocol nor the
// view that a sidecar gets, so that a node without GENERATOR=grpc is refused.
//
// # Faults
//
// Disconnect ends every stream. StopListening is a control plane that was
// killed, Restart brings it back on the same address. Freeze lets nothing
// through and closes nothing, so that only unanswered pings tell. Mute silences
// single types. Inject sends one response of any bytes. HideResource makes a
// resource absent that ought to be there. WithAuth refuses streams, and
// WithServerOptions sets the maximum age of connections that istiod has.
//
// # Time
//
// A control plane has no timers. InMemory makes it fit for a bubble of
// testing/synctest, where a client's backoff and keepalive take no real time:
// start it inside the bubble, where New also ends it, and close the client's
// connections before the bubble ends.
package meshtest
