package meshtest_test

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/proxyless/proxyless/meshtest"
)

// fixed are the clusters that ride along with every change.
var fixed = []string{"BlackHoleCluster", "InboundPassthroughCluster", "PassthroughCluster"}

func fullGreeting() meshtest.Service {
	s := greeting()
	s.Address = "10.96.0.1"
	return s
}

// fresh is a Service on a port of its own.
func fresh() meshtest.Service {
	return meshtest.Service{Name: "fresh", Namespace: "demo", Address: "10.96.0.2",
		Ports: []meshtest.Port{{Name: "grpc", Number: 50077}}}
}

const freshCluster = "outbound|50077||fresh.demo.svc.cluster.local"

// What follows is the log of a running istiod, question by question.
func TestDeltaInTheFullView(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(fullGreeting())
	k := connectDelta(t, c, full())
	clusters := append(slices.Clone(fixed), greetingCluster, greetingRaw)
	listeners := []string{"0.0.0.0_50052", "10.96.0.1_7000", "virtualInbound", "virtualOutbound"}
	const unknown = "outbound|50052||unknown.demo.svc.cluster.local"

	t.Run("wildcards", func(t *testing.T) {
		k.sub(cds)
		k.want(cds, clusters...)
		k.sub(lds, "*")
		k.want(lds, listeners...)
		k.sub(rds, "50052")
		k.want(rds, "50052")
	})
	t.Run("subscriptions", func(t *testing.T) {
		k.sub(eds, greetingCluster)
		if got := addresses(k.want(eds, greetingCluster).resources[greetingCluster]); got != "127.0.0.2 127.0.0.3" {
			t.Fatalf("endpoints %q", got)
		}
		k.sub(eds, greetingRaw) // only what is new
		k.want(eds, greetingRaw)
		k.sub(eds, greetingRaw) // twice: silence
		k.unsub(eds, greetingRaw)
		k.silent()
		k.sub(eds, greetingRaw)
		k.want(eds, greetingRaw)
		k.sub(eds, unknown) // empty, not removed
		if got := addresses(k.want(eds, unknown).resources[unknown]); got != "" {
			t.Fatalf("endpoints %q", got)
		}
		k.sub(rds, "9999")
		k.want(rds, "9999")
		k.sub(lds, "0.0.0.0_50052") // known from the wildcard: silence
		k.sub(cds, greetingCluster)
		k.silent()
	})
	t.Run("destination rule", func(t *testing.T) {
		s := fullGreeting()
		s.Subsets = []meshtest.Subset{{Name: "v1"}}
		c.SetService(s)
		v1 := "outbound|50052|v1|" + greetingHost
		k.want(cds, append(slices.Clone(fixed), v1, greetingCluster, "outbound|7000|v1|"+greetingHost, greetingRaw)...)
		r := k.accept() // of strangers too
		if r.typeURL != eds || !slices.Contains(r.names, unknown) || !slices.Contains(r.names, greetingCluster) {
			t.Fatalf("got %q", r.names)
		}
		k.want(lds, listeners...)
		k.want(rds, "50052", "9999")
		c.SetService(fullGreeting())
		k.gone(cds, v1, "outbound|7000|v1|"+greetingHost)
		k.accept()
		k.want(lds, listeners...)
		k.want(rds, "50052", "9999")
	})
	t.Run("virtual service", func(t *testing.T) {
		s := fullGreeting()
		s.Routes = []meshtest.Route{{Path: "/a/b", Clusters: []meshtest.WeightedCluster{{Name: greetingCluster}}}}
		c.SetService(s)
		k.want(cds, fixed...)
		k.want(lds, listeners...)
		k.want(rds, "50052", "9999")
	})
	t.Run("endpoints", func(t *testing.T) {
		c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "127.0.0.9"})
		if got := addresses(k.want(eds, greetingCluster, greetingRaw).resources[greetingCluster]); got != "127.0.0.9" {
			t.Fatalf("endpoints %q", got)
		}
		k.silent()
	})
	t.Run("service that comes and goes", func(t *testing.T) {
		more := append([]string{"0.0.0.0_50052", "0.0.0.0_50077"}, listeners[1:]...)
		c.SetService(fresh())
		k.want(cds, append(slices.Clone(fixed), freshCluster)...)
		k.want(lds, more...)
		k.want(rds, "50052", "9999")
		k.sub(eds, freshCluster)
		k.want(eds, freshCluster)
		k.sub(rds, "50077")
		k.want(rds, "50077")
		c.RemoveService("fresh", "demo")
		if r := k.gone(cds, freshCluster); !slices.Equal(r.names, fixed) {
			t.Fatalf("along with it came %q", r.names)
		}
		k.want(eds, freshCluster)
		if r := k.gone(lds, "0.0.0.0_50077"); !slices.Equal(r.names, listeners) {
			t.Fatalf("along with it came %q", r.names)
		}
		k.want(rds, "50052", "50077", "9999")
		c.SetService(fresh())
		k.want(cds, append(slices.Clone(fixed), freshCluster)...)
		k.want(eds, freshCluster)
		k.want(lds, more...)
		k.want(rds, "50052", "50077", "9999")
	})
	if err := c.WaitSettled(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDeltaReconnect(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(fullGreeting())
	k := connectDelta(t, c, full())
	k.raw(deltaRequest{typeURL: cds, held: []string{greetingCluster, "outbound|1||gone"}})
	r := k.gone(cds, "outbound|1||gone")
	if want := append(slices.Clone(fixed), greetingCluster, greetingRaw); !slices.Equal(r.names, want) {
		t.Fatalf("got %q", r.names)
	}
	k.raw(deltaRequest{typeURL: lds, sub: []string{"*"}, held: []string{"0.0.0.0_1"}})
	k.gone(lds, "0.0.0.0_1")
	k.raw(deltaRequest{typeURL: eds, sub: []string{greetingCluster}, held: []string{greetingCluster, "outbound|1||gone"}})
	k.want(eds, "outbound|1||gone", greetingCluster)
	k.raw(deltaRequest{typeURL: rds, sub: []string{"50052"}, held: []string{"1"}})
	k.want(rds, "1", "50052")
	q := c.Requests()[0]
	if !q.Delta || len(q.Held) != 2 || q.Held[greetingCluster] != "v" || q.Names != nil || !q.HasNode {
		t.Fatalf("recorded %+v", q)
	}
	// A request for clusters sends their endpoints along, which nobody asked for.
	k.unsub(cds, greetingCluster)
	k.want(cds, append(slices.Clone(fixed), greetingCluster, greetingRaw)...)
	k.want(eds, "outbound|1||gone", greetingCluster)
}

func TestDeltaNACK(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(fullGreeting())
	k := connectDelta(t, c, full())
	k.sub(eds, greetingCluster)
	r := k.recv()
	k.raw(deltaRequest{typeURL: eds, nonce: r.nonce, nack: "no", sub: []string{"lost"}})
	k.raw(deltaRequest{typeURL: eds, nonce: "stale", sub: []string{"stale"}})
	k.silent()
	q, err := c.WaitRequest(t.Context(), func(q meshtest.Request) bool { return q.NACK })
	if err != nil || q.ErrorDetail != "no" || q.Nonce != r.nonce || !slices.Equal(q.Names, []string{"lost"}) {
		t.Fatalf("NACK %+v, %v", q, err)
	}
	if err := c.WaitSettled(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// istiod's generator for proxyless clients was not made for this protocol: what
// it answers a subscription with is all that it goes on to watch.
func TestDeltaInTheLeanView(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(greeting())
	k := connectDelta(t, c, lean())
	k.sub(lds, "greeting:50052")
	k.want(lds, "greeting:50052")
	k.sub(lds, "greeting:7000")
	k.want(lds, "greeting:7000")
	k.sub(cds, greetingCluster)
	k.want(cds, greetingCluster)
	k.sub(rds, greetingCluster, "rubbish")
	k.gone(rds, "rubbish")
	k.sub(eds, greetingCluster)
	k.want(eds, greetingCluster)

	c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "127.0.0.9"})
	k.want(cds, greetingCluster)
	k.want(eds, greetingCluster)
	k.want(lds, "greeting:7000") // greeting:50052 is forgotten
	k.gone(rds, "rubbish")

	k.sub(lds, "nobody:1")
	if r := k.gone(lds, "nobody:1"); len(r.names) > 0 {
		t.Fatalf("got %q", r.names)
	}
	c.SetEndpoints("greeting", "demo")
	k.want(cds, greetingCluster)
	k.want(eds, greetingCluster)
	k.want(lds, greetingHost+":50052", greetingHost+":7000") // none left: all of them
}

func TestDeltaFaults(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(fullGreeting())
	k := connectDelta(t, c, full())
	c.Mute(eds)
	k.sub(eds, greetingCluster)
	k.sub(eds, greetingRaw)
	k.sub(rds, "50052")
	k.want(rds, "50052")
	if err := c.WaitSettled(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Unmute(eds)
	k.want(eds, greetingCluster, greetingRaw)

	c.HideResource(eds, greetingCluster)
	k.gone(eds, greetingCluster)
	c.RemoveResource(eds, greetingCluster)
	k.want(eds, greetingCluster)
	c.SetResource(eds, greetingRaw, []byte{0xff})
	if r := k.want(eds, greetingRaw); string(r.resources[greetingRaw]) != "\xff" {
		t.Fatalf("got %x", r.resources)
	}

	k.sub(cds)
	k.accept()
	k.accept() // endpoints go along
	c.HideResource(cds, greetingCluster)
	k.gone(cds, greetingCluster)
	c.RemoveResource(cds, greetingCluster)
	k.want(cds, append(slices.Clone(fixed), greetingCluster)...)
	c.SetResource(cds, "mine", meshtest.Cluster{Name: "mine"}.Marshal())
	k.want(cds, append(slices.Clone(fixed), "mine")...)
	c.RemoveResource(cds, "mine")
	k.gone(cds, "mine")

	c.Inject(meshtest.DeltaDiscoveryResponse{Version: "v", TypeURL: "odd", Nonce: "n", Removed: []string{"r"},
		Resources: []meshtest.Resource{{Name: "a", Any: meshtest.Any{TypeURL: "t", Value: []byte{1}}}}}.Marshal())
	r := k.recv()
	if r.version != "v" || r.typeURL != "odd" || r.nonce != "n" || !slices.Equal(r.removed, []string{"r"}) || string(r.resources["a"]) != "\x01" {
		t.Fatalf("got %+v", r)
	}
	c.Disconnect()
	var b []byte
	if err := k.stream.RecvMsg(&b); status.Code(err) != codes.Unavailable {
		t.Fatalf("stream ended with %v", err)
	}
	k.open(full())
	k.sub(eds, greetingCluster)
	k.want(eds, greetingCluster)
}

func TestWithoutDelta(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory(), meshtest.WithoutDelta())
	c.SetService(fullGreeting())
	k := connectDelta(t, c, full())
	k.sub(eds, greetingCluster)
	var b []byte
	if err := k.stream.RecvMsg(&b); status.Code(err) != codes.Unimplemented {
		t.Fatalf("stream ended with %v", err)
	}
	f := connectFull(t, c)
	f.ask(eds, greetingCluster)
	f.want(eds, greetingCluster)
}

func TestBothProtocolsAtOnce(t *testing.T) {
	both(t, func(t *testing.T, opts ...meshtest.Option) {
		c := meshtest.New(t, opts...)
		c.SetService(fullGreeting())
		d, s := connectDelta(t, c, full()), connectFull(t, c)
		d.sub(eds, greetingCluster)
		d.want(eds, greetingCluster)
		s.ask(eds, greetingCluster)
		s.want(eds, greetingCluster)
		c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "127.0.0.9"})
		d.want(eds, greetingCluster)
		s.want(eds, greetingCluster)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := c.WaitSettled(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitStreams(ctx, 2); err != nil {
			t.Fatal(err)
		}
	})
}
