package proxyless

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/proxyless/proxyless/meshtest"
)

// What the benchmarks and the allocation tests measure is made here. The
// module benchmarks/ compiles this file too, see benchmarks/overlay.json.

// handFed is a Mesh with one Invoker whose ADS loop does not run: it is handed
// responses, and does with them what the loop would, on the caller's goroutine.
type handFed struct {
	mesh *Mesh
	inv  *Invoker
}

const (
	fedName    = "echo:50052"
	fedHost    = "echo.demo.svc.cluster.local"
	fedCluster = "outbound|50052||" + fedHost
)

func newHandFed(options ...grpc.DialOption) *handFed {
	return newFedBy(ViewLean, []string{"echo"}, options...)
}

// newFedBy is a handFed in one of the views, which refers to services; its
// Invoker is that of the last.
func newFedBy(view View, services []string, options ...grpc.DialOption) *handFed {
	m := &Mesh{
		config: Config{Application: "bench", ControlPlanes: []string{"nowhere:15010"}, ResourceTimeout: 15 * time.Second,
			View: view, Node: Node{Namespace: "demo", Domain: "cluster.local"}},
		log:  slog.New(slog.DiscardHandler),
		told: map[string]struct{}{}, invokers: map[string][]*Invoker{}, inbound: map[string][]*inbound{},
	}
	m.snapshot.Store(&snapshot{})
	m.table = newConnTable(options, &m.counts)
	m.planner = newPlanner(m.table)
	m.life = newLifecycle(m.log)
	m.ads = newADS(&m.config, m.log, &m.counts, os.ReadFile, m.publish)
	f := &handFed{mesh: m}
	for _, service := range services {
		inv, err := m.Refer("greet.Greeting", ProvidedBy(service), Port(50052), Version("1.0.0"))
		if err != nil {
			panic(err)
		}
		f.inv = inv
	}
	m.ads.commands()
	m.ads.settle()
	return f
}

// feed takes responses from their bytes to the plan.
func (f *handFed) feed(responses [][]byte) {
	for _, b := range responses {
		r, err := decodeADSResponse(b)
		if err != nil {
			panic(err)
		}
		f.mesh.ads.machine.receive(time.Now(), r)
		f.mesh.ads.settle()
	}
	if f.mesh.counts.rejected.Load() > 0 {
		panic("a response was rejected")
	}
}

// fedService is the whole chain of a service with n endpoints.
func fedService(n int) [][]byte {
	chain := [][]byte{fedResponse(meshtest.ListenerType, meshtest.Listener{Name: fedName, Route: fedCluster}.Marshal())}
	chain = append(chain, fedRoutes(meshtest.Route{Name: "default", Prefix: "/", Clusters: []meshtest.WeightedCluster{{Name: fedCluster}}})...)
	chain = append(chain, fedResponse(meshtest.ClusterType, meshtest.Cluster{Name: fedCluster}.Marshal()))
	return append(chain, fedEndpoints(n, 0))
}

func fedRoutes(routes ...meshtest.Route) [][]byte {
	host := meshtest.VirtualHost{Name: fedHost + ":50052", Domains: []string{"echo", "echo:50052"}, Routes: routes}
	return [][]byte{fedResponse(meshtest.RouteConfigurationType, meshtest.RouteConfiguration{Name: fedCluster, VirtualHosts: []meshtest.VirtualHost{host}}.Marshal())}
}

// fedEndpoints is an assignment as istiod sends it, of n pods in three zones.
// The endpoint at moved, if that is not 0, has another address.
func fedEndpoints(n, moved int) []byte {
	a := meshtest.ClusterLoadAssignment{Cluster: fedCluster}
	for zone := range min(n, 3) {
		l := meshtest.Locality{Region: "region-1", Zone: fmt.Sprint("zone-", zone)}
		for i := zone; i < n; i += 3 {
			e := meshtest.LbEndpoint{
				Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(), Port: 50052, Weight: 1, Health: meshtest.Healthy,
				TLSMode: "istio", Workload: "provider;demo;provider;v1;Kubernetes",
			}
			if i == moved && moved > 0 {
				e.Address = "10.255.0.1"
			}
			l.Endpoints = append(l.Endpoints, e)
		}
		l.Weight = uint32(len(l.Endpoints))
		a.Localities = append(a.Localities, l)
	}
	return fedResponse(meshtest.ClusterLoadAssignmentType, a.Marshal())
}

func fedResponse(typeURL string, resource []byte) []byte {
	return meshtest.DiscoveryResponse{Version: "1", Nonce: "1", TypeURL: typeURL, Resources: []meshtest.Any{{TypeURL: typeURL, Value: resource}}}.Marshal()
}

// readySet is an endpoint set whose cells all count as connected.
func readySet(n int, weight func(i int) uint32) *endpointSet {
	a := &assignment{cluster: "c", localities: []locality{{count: n}}, endpoints: make([]endpoint, n)}
	for i := range a.endpoints {
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		a.endpoints[i] = endpoint{addr: netip.AddrPortFrom(ip, 50052), weight: weight(i)}
	}
	s := newEndpointSet(newConnTable(nil, new(counters)), &cluster{name: "c"}, a, nil, nil)
	connectAll(s)
	return s
}

// connectAll makes every endpoint count as connected.
func connectAll(s *endpointSet) {
	conn := new(grpc.ClientConn)
	for i := range s.slots {
		c := s.adopt(uint64(i))
		c.state.Store(uint32(cellReady))
		c.ready.Store(conn)
	}
}

// counterOverSlice is the ideal of round robin: nothing in the slice can be
// not ready.
type counterOverSlice struct {
	_     [64]byte
	next  atomic.Uint64
	_     [56]byte
	cells []*cell
}

func newCounterOverSlice(s *endpointSet) *counterOverSlice {
	ideal := &counterOverSlice{cells: make([]*cell, len(s.slots))}
	for i := range s.slots {
		ideal.cells[i] = s.slots[i].Load()
	}
	return ideal
}

func (c *counterOverSlice) pick() *cell { return c.cells[c.next.Add(1)%uint64(len(c.cells))] }

// loadAndRoute is the first half of a call: one load, one match.
func loadAndRoute(ctx context.Context, inv *Invoker, method string) *plannedRoute {
	p := inv.plan.Load()
	return p.route(ctx, method)
}

// routeCases are routes of which the one named "last" takes the method.
var routeCases = []struct {
	name   string
	method string
	routes []meshtest.Route
}{
	{"routes=1/default", "/greet.Greeting/SayHello", routeList(1, func(r *meshtest.Route, _ int) {})},
	{"routes=1/path", "/greet.Greeting/SayHello0", routeList(1, func(r *meshtest.Route, i int) { r.Path = fmt.Sprint("/greet.Greeting/SayHello", i) })},
	{"routes=1/header", "/greet.Greeting/SayHello", routeList(1, func(r *meshtest.Route, _ int) { r.Headers = exactly("user", "jason") })},
	{"routes=100/path", "/greet.Greeting/SayHello99", routeList(100, func(r *meshtest.Route, i int) { r.Path = fmt.Sprint("/greet.Greeting/SayHello", i) })},
	{"routes=100/prefix", "/greet.Greeting99/SayHello", routeList(100, func(r *meshtest.Route, i int) { r.Prefix = fmt.Sprintf("/greet.Greeting%d/", i) })},
	{"routes=100/header", "/greet.Greeting/SayHello", append(routeList(99, func(r *meshtest.Route, i int) {
		r.Headers = exactly("user", fmt.Sprint("user", i))
	}), routeList(1, func(r *meshtest.Route, i int) { r.Headers = exactly("colour", "blue") })...)},
}

func exactly(name, value string) []meshtest.HeaderMatch {
	return []meshtest.HeaderMatch{{Name: name, Value: value}}
}

// routeList makes n routes to the one cluster.
func routeList(n int, match func(r *meshtest.Route, i int)) []meshtest.Route {
	routes := make([]meshtest.Route, n)
	for i := range routes {
		routes[i] = meshtest.Route{Name: fmt.Sprint("r", i), Clusters: []meshtest.WeightedCluster{{Name: fedCluster}}}
		match(&routes[i], i)
	}
	routes[n-1].Name = "last"
	return routes
}

// pickOne picks for a call of which nothing is known.
func (s *endpointSet) pickOne() *cell {
	_, c := s.pick(choice{})
	return c
}
