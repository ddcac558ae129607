package meshtest_test

import (
	"slices"
	"testing"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

// ruled is a Service with a DestinationRule.
func ruled() meshtest.Service {
	s := fullGreeting()
	s.Endpoints = []meshtest.Endpoint{
		{Address: "127.0.0.2", Zone: "a", Labels: map[string]string{"version": "v1"}},
		{Address: "127.0.0.3", Zone: "b", Labels: map[string]string{"version": "v2"}, Hostname: "pod-2"},
		{Address: "127.0.0.4", Zone: "b", Labels: map[string]string{"version": "v2"}, Health: meshtest.Unhealthy},
	}
	s.Traffic = &meshtest.TrafficPolicy{
		LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.RingHash, Hash: []meshtest.HashPolicy{{Header: "x-user"}}},
		Connections:  &meshtest.ConnectionPool{MaxRequests: 7, MaxConnections: 3, ConnectTimeout: time.Second},
		TLS:          &meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual},
	}
	s.SANs = []string{"spiffe://cluster.local/ns/demo/sa/default"}
	s.Subsets = []meshtest.Subset{
		{Name: "v1", Labels: map[string]string{"version": "v1"}},
		{Name: "v2", Labels: map[string]string{"version": "v2"}, Traffic: &meshtest.TrafficPolicy{
			LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.Random, LocalityWeights: map[string]uint32{"/b": 80}},
			Outliers:     &meshtest.OutlierDetection{Consecutive5xx: 3, MinHealthPercent: 30},
		}},
	}
	return s
}

func TestDestinationRuleInBothViews(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(ruled())
	v1, v2 := "outbound|50052|v1|"+greetingHost, "outbound|50052|v2|"+greetingHost
	const v3 = "outbound|50052|v3|" + greetingHost
	for view, k := range map[string]*client{"lean": connect(t, c), "full": connectFull(t, c)} {
		k.ask(cds, greetingCluster, v1, v2, v3)
		clusters := map[string][]byte{}
		r := k.accept()
		for i, name := range r.names() {
			clusters[name] = r.resources[i]
		}
		policies := map[string]uint64{"lean": 0, "full": 3} // Random is none of a proxyless client's
		if got := varint(clusters[v1], 6); got != 2 {
			t.Errorf("%s view: v1 has policy %d", view, got)
		}
		if got := varint(clusters[v2], 6); got != policies[view] {
			t.Errorf("%s view: v2 has policy %d", view, got)
		}
		if got := number(field(clusters[v2], 10, 1, 4)); got != 7 {
			t.Errorf("%s view: %d requests", view, got)
		}
		if got := number(field(clusters[v2], 10, 1, 2)); (view == "full") != (got == 3) {
			t.Errorf("%s view: %d connections", view, got)
		}
		if _, ok := clusters[v3]; ok {
			t.Errorf("%s view: a cluster of no subset", view)
		}
		if socket := field(clusters[v1], 24); socket == nil {
			t.Errorf("%s view: no TLS", view)
		}
		k.ask(eds, v1, v2, v3)
		r = k.want(eds, v1, v2, v3)
		if got := addresses(r.resources[0]); got != "127.0.0.2" {
			t.Errorf("%s view: v1 is %s", view, got)
		}
		if got := addresses(r.resources[1]); got != "127.0.0.3" { // MinHealthPercent leaves the sick one out
			t.Errorf("%s view: v2 is %s", view, got)
		}
		if weight, host := number(field(r.resources[1], 2, 3)), string(field(r.resources[1], 2, 2, 1, 3)); weight != 80 || host != "pod-2" {
			t.Errorf("%s view: locality of weight %d, host %q", view, weight, host)
		}
		if got := addresses(r.resources[2]); got != "" {
			t.Errorf("%s view: v3 is %s", view, got)
		}
		name := map[string]string{"lean": greetingCluster, "full": "50052"}[view]
		k.ask(rds, name)
		route := field(k.want(rds, name).resources[0], 2, 3, 2)
		if header := string(field(route, 15, 1, 1)); header != "x-user" {
			t.Errorf("%s view: hashes %q", view, header)
		}
		if field(route, 9, 5) != nil {
			t.Errorf("%s view: looks for another host though it hashes", view)
		}
	}
}

// number is that of a wrapped value.
func number(b []byte) uint64 { return varint(b, 1) }

// varint finds a scalar field.
func varint(b []byte, want int) uint64 {
	for len(b) > 0 {
		key, n := uvarint(b)
		b = b[n:]
		switch key & 7 {
		case 0:
			v, n := uvarint(b)
			if int(key>>3) == want {
				return v
			}
			b = b[n:]
		case 1:
			b = b[8:]
		case 2:
			size, n := uvarint(b)
			b = b[n+int(size):]
		default:
			return 0
		}
	}
	return 0
}

func uvarint(b []byte) (v uint64, n int) {
	for n < len(b) {
		v |= uint64(b[n]&0x7f) << (7 * n)
		n++
		if b[n-1] < 0x80 {
			break
		}
	}
	return v, n
}

func TestExternalServices(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	outside := func(name string, how meshtest.Resolution) meshtest.Service {
		return meshtest.Service{Name: name, Namespace: "demo", Host: name + ".example.com", Resolution: how,
			Ports:     []meshtest.Port{{Name: "grpc", Number: 443}, {Name: "tls", Number: 444}},
			Endpoints: []meshtest.Endpoint{{Address: name + ".example.net"}}}
	}
	c.SetServices(outside("static", meshtest.ResolveStatic), outside("dns", meshtest.ResolveDNS),
		outside("once", meshtest.ResolveDNSOnce), outside("none", meshtest.ResolveNone))
	k := connectFull(t, c)
	k.ask(cds)
	r := k.accept()
	for name, want := range map[string]struct {
		kind  uint64
		place string
	}{"static": {3, ""}, "dns": {1, "dns.example.net"}, "once": {2, "once.example.net"}, "none": {4, ""}} {
		at := slices.Index(r.names(), "outbound|443||"+name+".example.com")
		if at < 0 {
			t.Fatalf("no cluster of %s in %q", name, r.names())
		}
		b := r.resources[at]
		if got := varint(b, 2); got != want.kind {
			t.Errorf("%s: type %d", name, got)
		}
		if got := addresses(field(b, 33)); got != want.place {
			t.Errorf("%s: places %q", name, got)
		}
	}
	k.ask(lds)
	r = k.want(lds, "0.0.0.0_443", "0.0.0.0_444", "virtualInbound", "virtualOutbound")
	if n := len(all(r.resources[1], 3)); n != 4 {
		t.Errorf("%d chains by server name", n)
	}
	k.ask(eds, "outbound|443||static.example.com", "outbound|443||dns.example.com")
	r = k.accept()
	if got := addresses(r.resources[0]) + addresses(r.resources[1]); got != "static.example.net" {
		t.Errorf("endpoints %s", got)
	}
	c.SetEndpoints("dns", "demo", meshtest.Endpoint{Address: "other.example.net"}) // is in the cluster
	r = k.accept()
	if r.typeURL != cds || addresses(field(r.resources[slices.Index(r.names(), "outbound|443||dns.example.com")], 33)) != "other.example.net" {
		t.Errorf("got %s", r.kind())
	}
}

func TestRoutesOnly(t *testing.T) {
	s := fullGreeting()
	s.Routes = []meshtest.Route{{Name: "one", Prefix: "/a", Clusters: []meshtest.WeightedCluster{{Name: greetingCluster}}}}
	s.RoutesOnly = true
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(s)
	for name, k := range map[string]*client{greetingCluster: connect(t, c), "50052": connectFull(t, c)} {
		k.ask(rds, name)
		if n := len(all(field(k.want(rds, name).resources[0], 2), 3)); n != 1 {
			t.Errorf("%s: %d routes", name, n)
		}
	}
}
