package meshtest_test

import (
	"context"
	"testing"

	"github.com/proxyless/proxyless/meshtest"
)

// both runs a test over TCP and in memory.
func both(t *testing.T, test func(t *testing.T, opts ...meshtest.Option)) {
	t.Run("tcp", func(t *testing.T) { test(t) })
	t.Run("memory", func(t *testing.T) { test(t, meshtest.InMemory()) })
}

func TestChainFromListenerToEndpoints(t *testing.T) {
	both(t, func(t *testing.T, opts ...meshtest.Option) {
		c := meshtest.New(t, opts...)
		c.SetService(greeting())
		k := connect(t, c)

		k.ask(lds, "greeting:50052")
		l := k.want(lds, "greeting:50052").resources[0]
		if route := string(field(l, 19, 1, 2, 3, 2)); route != greetingCluster {
			t.Fatalf("listener names route %q", route)
		}
		k.ask(rds, greetingCluster)
		r := k.want(rds, greetingCluster).resources[0]
		if cluster := string(field(r, 2, 3, 2, 1)); cluster != greetingCluster {
			t.Fatalf("default route goes to %q", cluster)
		}
		k.ask(cds, greetingCluster)
		cl := k.want(cds, greetingCluster).resources[0]
		if name := string(field(cl, 3, 2)); name != greetingCluster {
			t.Fatalf("cluster names assignment %q", name)
		}
		k.ask(eds, greetingCluster)
		if got := addresses(k.want(eds, greetingCluster).resources[0]); got != "127.0.0.2 127.0.0.3" {
			t.Fatalf("endpoints %q", got)
		}
		if err := c.WaitSettled(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// addresses lists the endpoints of an assignment.
func addresses(assignment []byte) string {
	s := ""
	for _, locality := range all(assignment, 2) {
		for _, e := range all(locality, 2) {
			if s != "" {
				s += " "
			}
			s += string(field(e, 1, 1, 1, 2))
		}
	}
	return s
}

func TestNamesOfListeners(t *testing.T) {
	other := meshtest.Service{Name: "clock", Namespace: "tools", Address: "10.96.0.7",
		Ports: []meshtest.Port{{Name: "grpc", Number: 80}}}
	fqdn := greetingHost
	for _, test := range []struct {
		title string
		ask   []string
		want  []string
	}{
		{"short", []string{"greeting:50052"}, []string{"greeting:50052"}},
		{"with namespace", []string{"greeting.demo:50052"}, []string{"greeting.demo:50052"}},
		{"with namespace and svc", []string{"greeting.demo.svc:50052"}, []string{"greeting.demo.svc:50052"}},
		{"full", []string{fqdn + ":50052"}, []string{fqdn + ":50052"}},
		{"without a port", []string{"greeting"}, []string{"greeting:50052", "greeting:7000"}},
		{"full without a port", []string{fqdn}, []string{fqdn + ":50052", fqdn + ":7000"}},
		{"unknown host", []string{"nobody:1"}, []string{}},
		{"unknown port", []string{"greeting:9"}, []string{}},
		{"unknown beside known", []string{"nobody:1", "greeting:50052"}, []string{"greeting:50052"}},
		{"other namespace, short", []string{"clock.tools:80"}, []string{}},
		{"other namespace, full", []string{"clock.tools.svc.cluster.local:80"}, []string{"clock.tools.svc.cluster.local:80"}},
		{"same service twice", []string{"greeting:50052", "greeting.demo:7000"},
			[]string{"greeting.demo:50052", "greeting.demo:7000", "greeting:50052", "greeting:7000"}},
		{"none", nil, []string{"clock.tools.svc.cluster.local:80", fqdn + ":50052", fqdn + ":7000"}},
		{"inbound, not set", []string{"xds.istio.io/grpc/lds/inbound/10.0.0.1:50052"}, []string{}},
		{"inbound", []string{"xds.istio.io/grpc/lds/inbound/0.0.0.0:50052"},
			[]string{"xds.istio.io/grpc/lds/inbound/0.0.0.0:50052"}},
		{"by hand, without a port", []string{"odd"}, []string{"odd:1", "odd:2"}},
	} {
		t.Run(test.title, func(t *testing.T) {
			c := meshtest.New(t, meshtest.InMemory())
			c.SetService(greeting())
			c.SetService(other)
			c.SetInbound("0.0.0.0:50052", meshtest.Inbound{})
			if test.ask != nil {
				c.SetResource(lds, "odd:1", meshtest.Listener{Name: "odd:1"}.Marshal())
				c.SetResource(lds, "odd:2", meshtest.Listener{Name: "odd:2"}.Marshal())
			}
			k := connect(t, c)
			k.ask(lds, test.ask...)
			k.want(lds, test.want...)
		})
	}
}

func TestWhatDoesNotExist(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(greeting())
	k := connect(t, c)

	k.ask(cds, "outbound|1||nobody.demo.svc.cluster.local", "rubbish")
	k.want(cds)
	k.ask(rds, "outbound|1||nobody.demo.svc.cluster.local", "rubbish")
	r := k.want(rds, "outbound|1||nobody.demo.svc.cluster.local")
	if n := len(all(r.resources[0], 2)); n != 0 {
		t.Fatalf("unknown service has %d virtual hosts", n)
	}
	k.ask(eds, "rubbish")
	if got := addresses(k.want(eds, "rubbish").resources[0]); got != "" {
		t.Fatalf("unknown cluster has endpoints %q", got)
	}
	k.ask(rds, greetingRaw)
	if n := len(all(k.want(rds, greetingRaw).resources[0], 2)); n != 0 {
		t.Fatalf("port named tcp-raw has %d virtual hosts", n)
	}
	k.ask(rds) // names nothing: no watch, no answer
	k.silent()
}

func TestPushes(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(greeting())
	k := connect(t, c)
	const later = "outbound|80||later.demo.svc.cluster.local"
	k.ask(lds, "greeting:50052", "later:80")
	k.want(lds, "greeting:50052")
	k.ask(rds, greetingCluster)
	k.want(rds, greetingCluster)
	k.ask(cds, greetingCluster, later)
	k.want(cds, greetingCluster)
	k.ask(eds, greetingCluster, later)
	k.want(eds, greetingCluster, later)

	t.Run("endpoints", func(t *testing.T) {
		c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "127.0.0.9"})
		k.want(cds, greetingCluster)
		if got := addresses(k.want(eds, greetingCluster).resources[0]); got != "127.0.0.9" {
			t.Fatalf("endpoints %q", got)
		}
		k.want(lds, "greeting:50052")
		k.want(rds, greetingCluster)
	})
	t.Run("nothing new", func(t *testing.T) {
		c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "127.0.0.9"})
		c.SetEndpoints("nobody", "demo", meshtest.Endpoint{Address: "127.0.0.9"})
		c.RemoveService("nobody", "demo")
		k.silent()
	})
	t.Run("new service", func(t *testing.T) {
		c.SetService(meshtest.Service{Name: "later", Namespace: "demo", Ports: []meshtest.Port{{Name: "http", Number: 80}}})
		k.want(cds, greetingCluster, later)
		k.want(eds, later)
		k.want(lds, "greeting:50052", "later:80")
		k.want(rds, greetingCluster)
	})
	t.Run("service gone", func(t *testing.T) {
		c.RemoveService("greeting", "demo")
		k.want(cds, later)
		if got := addresses(k.want(eds, greetingCluster).resources[0]); got != "" {
			t.Fatalf("endpoints %q", got)
		}
		k.want(lds, "later:80")
		if n := len(all(k.want(rds, greetingCluster).resources[0], 2)); n != 0 {
			t.Fatalf("%d virtual hosts", n)
		}
	})
}

func TestSubscriptions(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(greeting())
	k := connect(t, c)

	k.ask(eds, greetingCluster)
	first := k.recv()
	k.ask(eds, greetingCluster, greetingRaw) // the ACK brings a new name
	k.want(eds, greetingCluster, greetingRaw)
	k.raw(request{typeURL: eds, nonce: first.nonce, names: []string{"stale"}})
	k.ask(eds, greetingCluster) // one name less: nothing to say
	k.raw(request{typeURL: eds, nonce: k.nonces[eds], names: []string{"in a NACK"}, nack: "rejected"})
	k.ask(lds, "greeting:50052")
	k.want(lds, "greeting:50052")
	k.ask(lds, "nobody:1") // listeners are a full set: absence is news
	k.want(lds)

	q, err := c.WaitRequest(t.Context(), func(q meshtest.Request) bool { return q.NACK })
	if err != nil || q.ErrorDetail != "rejected" || q.ErrorCode != 3 || q.Names[0] != "in a NACK" {
		t.Fatalf("NACK %+v, %v", q, err)
	}
	c.SetEndpoints("greeting", "demo")
	k.want(eds, greetingCluster) // neither the stale nor the rejected names count
}

func TestResourcesByHand(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(greeting())
	k := connect(t, c)
	k.ask(cds, greetingCluster)
	k.want(cds, greetingCluster)

	c.SetResource(cds, greetingCluster, []byte{0xff})
	if r := k.accept(); string(r.resources[0]) != "\xff" {
		t.Fatalf("got %x", r.resources)
	}
	c.HideResource(cds, greetingCluster)
	k.want(cds)
	c.RemoveResource(cds, greetingCluster)
	k.want(cds, greetingCluster)

	const odd = "type.googleapis.com/example.Odd"
	c.SetResource(odd, "a", meshtest.Cluster{Name: "a"}.Marshal())
	k.want(cds, greetingCluster)
	k.ask(odd, "a", "b")
	k.want(odd, "a")
	c.SetResource(odd, "b", meshtest.Cluster{Name: "b"}.Marshal())
	k.want(cds, greetingCluster)
	k.want(odd, "b")
}

func TestMute(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(greeting())
	c.Mute(lds)
	k := connect(t, c)
	k.ask(lds, "greeting:50052")
	k.ask(cds, greetingCluster)
	k.want(cds, greetingCluster)
	if err := c.WaitSettled(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Unmute(lds)
	k.want(lds, "greeting:50052")
}

func TestInject(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	k := connect(t, c)
	k.ask(lds, "greeting:50052")
	k.want(lds)
	c.Inject(meshtest.DiscoveryResponse{Version: "v", TypeURL: "odd", Nonce: "n",
		Resources: []meshtest.Any{{TypeURL: "t", Value: []byte{1}}}}.Marshal())
	r := k.recv()
	if r.version != "v" || r.typeURL != "odd" || r.nonce != "n" || len(r.resources) != 1 {
		t.Fatalf("got %+v", r)
	}
}

func TestWaitsEndWithTheirContext(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.WaitRequest(ctx, func(meshtest.Request) bool { return true }); err == nil {
		t.Fatal("a request where there is none")
	}
	if c.WaitStreams(ctx, 1) == nil {
		t.Fatal("a stream where there is none")
	}
	if err := c.WaitSettled(ctx); err != nil {
		t.Fatalf("nothing to settle: %v", err)
	}
}
