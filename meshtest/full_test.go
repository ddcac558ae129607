package meshtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

func TestPushesInTheFullView(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(fullGreeting())
	k := connectFull(t, c)
	clusters := append(slices.Clone(fixed), greetingCluster, greetingRaw)
	listeners := []string{"0.0.0.0_50052", "10.96.0.1_7000", "virtualInbound", "virtualOutbound"}
	k.ask(cds)
	k.want(cds, clusters...)
	k.ask(lds)
	k.want(lds, listeners...)
	k.ask(rds, "50052")
	k.want(rds, "50052")
	k.ask(eds, greetingCluster)
	k.want(eds, greetingCluster)
	k.ask(eds, greetingCluster, greetingRaw) // only what is new
	k.want(eds, greetingRaw)
	k.ask(rds, "50052", "rubbish")
	r := k.want(rds, "rubbish")
	if n := len(all(r.resources[0], 2)); n != 0 {
		t.Fatalf("%d virtual hosts", n)
	}
	k.ask(rds, "50052")
	k.silent()

	t.Run("endpoints", func(t *testing.T) {
		c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "127.0.0.9"})
		k.want(eds, greetingCluster, greetingRaw)
		k.silent()
	})
	t.Run("routes", func(t *testing.T) {
		s := fullGreeting()
		s.Endpoints = []meshtest.Endpoint{{Address: "127.0.0.9"}}
		s.Routes = []meshtest.Route{{Prefix: "/a", Clusters: []meshtest.WeightedCluster{{Name: greetingCluster}}}}
		c.SetService(s)
		k.want(cds, clusters...)
		k.want(lds, listeners...)
		k.want(rds, "50052")
		k.silent()
	})
	t.Run("egress", func(t *testing.T) {
		c.SetEgress(meshtest.RegistryOnly)
		k.want(cds, clusters...)
		k.accept()
		k.want(lds, listeners...)
		r := k.want(rds, "50052")
		hosts := all(r.resources[0], 2)
		if name := string(field(hosts[len(hosts)-1], 1)); name != "block_all" {
			t.Fatalf("the last virtual host is %s", name)
		}
		c.SetEgress(meshtest.RegistryOnly)
		k.silent()
	})
	t.Run("inbound", func(t *testing.T) {
		c.SetInbound("10.1.0.9:50052", meshtest.Inbound{TLS: true})
		r := k.want(lds, listeners...)
		if got := chains(r.resources[2]); !strings.HasSuffix(got, "0.0.0.0_50052") {
			t.Fatalf("filter chains %s", got)
		}
		c.RemoveInbound("10.1.0.9:50052")
		k.want(lds, listeners...)
		k.silent()
	})
	t.Run("own endpoint", func(t *testing.T) {
		c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "10.1.0.9"})
		k.want(cds, append(append(slices.Clone(fixed), "inbound|50052||", "inbound|7000||"), greetingCluster, greetingRaw)...)
		k.accept()
		r := k.want(lds, listeners...)
		if got := chains(r.resources[2]); !strings.Contains(got, "virtualInbound 0.0.0.0_7000 0.0.0.0_7000 0.0.0.0_7000 0.0.0.0_50052 0.0.0.0_50052") {
			t.Fatalf("filter chains %s", got)
		}
	})
}

// chains lists the names of a listener's filter chains.
func chains(listener []byte) string {
	var names []string
	for _, c := range all(listener, 3) {
		names = append(names, string(field(c, 7)))
	}
	return strings.Join(names, " ")
}

func TestWhoSeesWhichDomains(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetServices(fullGreeting(), meshtest.Service{
		Name: "clock", Namespace: "tools", Ports: []meshtest.Port{{Name: "grpc", Number: 50052}},
	})
	k := connectFull(t, c)
	k.ask(rds, "50052")
	got := ""
	for _, h := range all(k.want(rds, "50052").resources[0], 2) {
		for _, d := range all(h, 2) {
			got += string(d) + " "
		}
	}
	const clock = "clock.tools.svc.cluster.local"
	want := clock + " " + clock + ". clock.tools clock.tools.svc *." + clock + " *." + clock + ". *.clock.tools *.clock.tools.svc " +
		greetingHost + " " + greetingHost + ". greeting greeting.demo.svc greeting.demo 10.96.0.1 * "
	if got != want {
		t.Fatalf("domains\n%s\nwant\n%s", got, want)
	}
}

func TestRouteConfigurationOfOneHost(t *testing.T) {
	s := fullGreeting()
	s.Ports = []meshtest.Port{{Name: "tri", Number: 50052}} // no name that Istio knows
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(s)
	k := connectFull(t, c)
	k.ask(lds)
	k.want(lds, "10.96.0.1_50052", "virtualInbound", "virtualOutbound")
	name := greetingHost + ":50052"
	k.ask(rds, name)
	hosts := all(k.want(rds, name).resources[0], 2)
	if len(hosts) != 1 || string(field(hosts[0], 2)) != "*" {
		t.Fatalf("%d virtual hosts", len(hosts))
	}
}

// A mesh of the size that istiod's answers were weighed at: some 1.24 MB of
// clusters and half a megabyte of routes.
func TestThousandServices(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	start := time.Now()
	c.SetServices(thousand()...)
	k := connectFull(t, c)
	k.ask(cds)
	clusters := k.accept()
	k.ask(rds, "50052")
	routes := k.accept()
	for i := range 100 { // each is a push of everything
		c.SetService(meshtest.Service{Name: fmt.Sprintf("more-%d", i), Namespace: "demo", Address: "10.97.1.1",
			Ports: []meshtest.Port{{Name: "grpc", Number: 50052}}})
	}
	spent := time.Since(start)
	size := func(r response) (n int) {
		for _, b := range r.resources {
			n += len(b)
		}
		return n
	}
	t.Logf("%d bytes of clusters, %d of routes, %v", size(clusters), size(routes), spent)
	if n := size(clusters); n < 1_100_000 || n > 1_500_000 || len(clusters.resources) != 1003 {
		t.Errorf("%d clusters of %d bytes", len(clusters.resources), n)
	}
	if n := size(routes); n < 430_000 || n > 650_000 {
		t.Errorf("routes of %d bytes", n)
	}
	if spent > 10*time.Second {
		t.Errorf("took %v", spent)
	}
}

func thousand() []meshtest.Service {
	list := make([]meshtest.Service, 1000)
	for i := range list {
		list[i] = meshtest.Service{
			Name: fmt.Sprintf("service-%03d", i), Namespace: "demo", Address: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1),
			Ports:     []meshtest.Port{{Name: "grpc", Number: 50052}},
			Endpoints: []meshtest.Endpoint{{Address: "127.0.0.2"}, {Address: "127.0.0.3"}},
			SANs:      []string{"spiffe://cluster.local/ns/demo/sa/default"},
		}
	}
	return list
}

func BenchmarkThousandServices(b *testing.B) {
	list := thousand()
	for b.Loop() {
		c, err := meshtest.Start(meshtest.InMemory())
		if err != nil {
			b.Fatal(err)
		}
		for _, s := range list {
			c.SetService(s)
		}
		c.Close()
	}
}
