package proxyless

// This file is a part of package proxyless only in programs that are built with
// ../overlay.json, together with ../../handfed_test.go.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/proxyless/proxyless/benchmarks/whitebox"
	"github.com/proxyless/proxyless/meshtest"
)

func init() {
	whitebox.Decode = func(typeURL string, value []byte) error {
		k, _ := kindOf(typeURL)
		_, err := decodeResource(k, value)
		return err
	}
	whitebox.NewWatcher = func(n int) whitebox.Watcher {
		w := &watcher{fed: newHandFed(), updates: [2][]byte{fedEndpoints(n, n/2), fedEndpoints(n, 0)}}
		w.fed.feed(fedService(n))
		return w
	}
	whitebox.Assignment = func(n int) (string, []byte) {
		r, err := decodeADSResponse(fedEndpoints(n, 0))
		if err != nil {
			panic(err)
		}
		return meshtest.ClusterLoadAssignmentType, r.resources[0].value
	}
	whitebox.Picks, whitebox.Routes, whitebox.Judge = picks, routesOfCalls, judge
	whitebox.Handshakers = handshakers
	whitebox.Enter = func(services []string, responses [][]byte) (again func(response []byte)) {
		fed := newFedBy(ViewFull, services)
		fed.feed(responses)
		if p := fed.inv.plan.Load(); !p.complete() {
			panic(p.problem)
		}
		return func(response []byte) { fed.feed([][]byte{response}) }
	}
}

// judge is what the gate does with each call.
func judge(value []byte, caller, method string) func(times int) {
	chain := &mustDecode(meshtest.ListenerType, value).(*listener).inbound[0]
	facts := &peerFacts{encrypted: true, verified: true, names: []string{caller},
		remote: netip.MustParseAddrPort("10.244.0.9:40000"), local: netip.MustParseAddrPort("10.244.0.8:50052")}
	md := metadata.Pairs("content-type", "application/grpc", "user-agent", "benchmark", ":authority", "echo:50052")
	run := func(times int) {
		for range times {
			call := callFacts{peer: facts, headers: incomingHeaders(md, method)}
			if lastRuling = chain.authorize(&call); lastRuling.code != codes.OK {
				panic(lastRuling.reason)
			}
		}
	}
	run(1)
	return run
}

// handshakers are what a consumer and a provider of the mesh have, once they
// have a certificate.
func handshakers(certificate *tls.Certificate, roots *x509.CertPool, id string) (client, server credentials.TransportCredentials) {
	who := new(identity)
	who.held.Store(&credential{certificate: certificate, id: id, roots: &trustRoots{pool: roots}, received: time.Now(), end: certificate.Leaf.NotAfter})
	secrets := newSecretStore(who, nil, slog.New(slog.DiscardHandler))
	up := meshtest.Cluster{Name: "echo", TLS: true, SANs: []string{id}}.Marshal()
	down := meshtest.Inbound{TLS: true}.Listener("127.0.0.1:50052").Marshal()
	c := mustDecode(meshtest.ClusterType, up).(*cluster)
	g := newGate(&Config{PendingConnections: defaultPending, HandshakeTimeout: defaultHandshakeTimeout, ShutdownTimeout: time.Second},
		slog.New(slog.DiscardHandler), new(counters), secrets, nil, new(plainPeers))
	g.govern(&portPolicy{rules: mustDecode(meshtest.ListenerType, down).(*listener)})
	return clientTLS{secrets, newSecurity(c, c.tls, "echo:50052")}, g
}

func mustDecode(typeURL string, value []byte) any {
	k, _ := kindOf(typeURL)
	got, err := decodeResource(k, value)
	if err != nil {
		panic(err)
	}
	return got.value
}

type watcher struct {
	fed     *handFed
	updates [2][]byte
	turn    int
}

func (w *watcher) Update() {
	before := w.fed.inv.plan.Load()
	w.fed.feed(w.updates[w.turn : w.turn+1])
	w.turn = 1 - w.turn
	if w.fed.inv.plan.Load() == before {
		panic("an update without a new plan")
	}
}

func (w *watcher) Connect() { connectAll(w.fed.inv.plan.Load().sets[0]) }

// Results go where the compiler cannot know that nobody looks.
var (
	pickedCell  *cell
	loadedPlan  *plan
	foundRoutes *plannedRoute
	lastRuling  ruling
)

func picks(n int) (ours, ideal func(times int)) {
	s := readySet(n, func(int) uint32 { return 1 })
	counter := newCounterOverSlice(s)
	ours = func(times int) {
		var c *cell
		for range times {
			c = s.pickOne()
		}
		pickedCell = c
	}
	ideal = func(times int) {
		var c *cell
		for range times {
			c = counter.pick()
		}
		pickedCell = c
	}
	return ours, ideal
}

func routesOfCalls() (cases []whitebox.RouteCase, bareLoad func(times int)) {
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.Pairs("user", "jason", "colour", "blue"))
	var loaded *Invoker
	for _, c := range routeCases {
		m := newHandFed()
		m.feed(fedService(1))
		m.feed(fedRoutes(c.routes...))
		loaded = m.inv
		cases = append(cases, whitebox.RouteCase{Name: c.name, Run: func(times int) {
			var r *plannedRoute
			for range times {
				r = loadAndRoute(ctx, m.inv, c.method)
			}
			foundRoutes = r
		}})
	}
	return cases, func(times int) {
		var p *plan
		for range times {
			p = loaded.plan.Load()
		}
		loadedPlan = p
	}
}
