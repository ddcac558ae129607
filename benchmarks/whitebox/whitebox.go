// Package whitebox is what the benchmarks see of the inside of package
// proxyless. Its variables are set by testdata/whitebox.go,
// which becomes a part of that package when the go command is given overlay.json;
// without it they are nil. So nothing has to be exported for them.
package whitebox

import (
	"crypto/tls"
	"crypto/x509"

	"google.golang.org/grpc/credentials"
)

// Present says that the program was built with overlay.json.
func Present() bool { return Decode != nil }

// Set by the overlay.
var (
	// Decode decodes one resource and forgets it.
	Decode func(typeURL string, value []byte) error

	// NewWatcher makes a consumer that watches a cluster of n endpoints.
	NewWatcher func(n int) Watcher

	// Assignment is the ClusterLoadAssignment of n endpoints, with the metadata
	// that istiod sends.
	Assignment func(n int) (typeURL string, value []byte)

	// Enter is a process that refers to services in the full view, from the
	// responses of a control plane to the plans of calls. again takes one more
	// response.
	Enter func(services []string, responses [][]byte) (again func(response []byte))

	// Picks are round robin over n ready endpoints, ours and the ideal, an
	// atomic counter over a slice. Each runs as often as it is told.
	Picks func(n int) (ours, ideal func(times int))

	// Judge is a call's way through the filters of the first chain of an inbound
	// listener, by a caller of a SPIFFE id. It lets the call in.
	Judge func(listener []byte, caller, method string) func(times int)

	// Handshakers are the mesh's credentials of both ends, with one certificate,
	// which is verified by the roots and a SPIFFE id.
	Handshakers func(certificate *tls.Certificate, roots *x509.CertPool, id string) (client, server credentials.TransportCredentials)

	// Routes are a call's way to its route, by the number and kind of routes.
	Routes func() (cases []RouteCase, bareLoad func(times int))
)

// Watcher takes updates from their bytes to the plan that calls go by.
type Watcher interface {
	// Update moves one endpoint, there and back in turn.
	Update()
	// Connect makes every endpoint count as connected.
	Connect()
}

// RouteCase finds the last of some routes as often as it is told.
type RouteCase struct {
	Name string
	Run  func(times int)
}
