package proxyless

import (
	"hash/maphash"
	"strings"
	"testing"

	"github.com/proxyless/proxyless/meshtest"
)

// fullScript is a script in the full view whose listeners are given line by
// line; a listener with the word "odd" has policy that is not applied.
func fullScript(t *testing.T) *script {
	s := newScript(t, []byte("view full\n"))
	s.d.decode = func(k kind, b []byte) (decoded, error) {
		got, err := decodeToy(k, b)
		if strings.Contains(string(b), " odd") {
			got.ignored = []string{"odd"}
		}
		return got, err
	}
	return s
}

func TestStrictModeTakesTheLastGoodListenerBack(t *testing.T) {
	s := fullScript(t)
	s.d.strict = true
	good := "receive listener v l\n  0.0.0.0_80 routes 80\n"
	s.run([]byte("refer p:80\nconnect\nreceive cluster v c\n  outbound|80||p.ns.svc.x\n" + good))
	s.run([]byte("receive listener w l\n  0.0.0.0_80 routes 80 odd\n"))
	if e := s.d.entries[kindListener]["p:80"]; e.status != statusAccepted || e.rejection == "" {
		t.Fatalf("%s, rejection %q: want the last good one, and the new one refused", e.status, e.rejection)
	}
	s.run([]byte(good))
	if e := s.d.entries[kindListener]["p:80"]; e.rejection != "" {
		t.Errorf("still rejected, though what was refused is gone: %s", e.rejection)
	}
}

func TestTheFullViewForgetsWhatNobodyRefersTo(t *testing.T) {
	s := fullScript(t)
	s.run([]byte("connect\nreceive cluster v c\n  PassthroughCluster passthrough\nreceive listener v l\n  0.0.0.0_80 routes 80\n  virtualOutbound to PassthroughCluster\n"))
	for _, name := range []string{"p:80", "e.com:80", "e.com:81"} {
		s.run([]byte("refer " + name + "\nrelease " + name + "\n"))
	}
	for k := range s.d.entries {
		if n := len(s.d.entries[k]); n > 0 {
			t.Errorf("%d entries of %ss", n, kind(k))
		}
	}
	if v := s.d.view; len(v.passages)+len(v.tables)+len(s.d.lookups) > 0 {
		t.Errorf("held: passages %v, tables %v, names %v", v.passages, v.tables, s.d.lookups)
	}
}

func TestOthersListenersCostNoRoutes(t *testing.T) {
	s := fullScript(t)
	decodes := 0
	decode := s.d.decodeTable
	s.d.decodeTable = func(b []byte, wanted func([]byte) bool, digest *maphash.Hash) (decoded, error) {
		decodes++
		return decode(b, wanted, digest)
	}
	clusters := "receive cluster v c\n  outbound|80||p.ns.svc.x\n"
	s.run([]byte("refer p:80\nconnect\n" + clusters + "receive listener v l\n  0.0.0.0_80 routes 80\nreceive route v r\n  80 : p.ns.svc.x -> outbound|80||p.ns.svc.x\n"))
	before := decodes
	s.run([]byte(clusters + "  outbound|90||q.ns.svc.x\nreceive listener v l\n  0.0.0.0_80 routes 80\n  0.0.0.0_90 routes 90\n"))
	if decodes > before {
		t.Errorf("routes were looked through %d times for a listener and a cluster of somebody else", decodes-before)
	}
}

func TestOnlyRoutesWhoseHostsTurnedAreDerivedAgain(t *testing.T) {
	s := fullScript(t)
	toy, derived := s.d.decode, []string(nil)
	s.d.decode = func(k kind, b []byte) (decoded, error) {
		if k == kindRoute {
			return decodeResource(k, b)
		}
		return toy(k, b)
	}
	s.d.decodeTable = func(b []byte, wanted func([]byte) bool, digest *maphash.Hash) (decoded, error) {
		for _, host := range []string{"p.ns.svc.x", "q.ns.svc.x"} {
			if wanted([]byte(host)) {
				derived = append(derived, host[:1])
			}
		}
		return decodeRoutes(b, wanted, digest)
	}
	s.run([]byte("refer p:80\nrefer q:80\nconnect\nreceive cluster v c\n  outbound|80||p.ns.svc.x\n  outbound|80||q.ns.svc.x\nreceive listener v l\n  0.0.0.0_80 routes 80\n"))
	host := func(name, cluster string) meshtest.VirtualHost {
		return meshtest.VirtualHost{Name: name, Domains: []string{name}, Routes: []meshtest.Route{{Prefix: "/", Clusters: []meshtest.WeightedCluster{{Name: cluster}}}}}
	}
	p, q, r := host("p.ns.svc.x", "a"), host("q.ns.svc.x", "a"), host("r.ns.svc.x", "a")
	broken := meshtest.RouteConfiguration{Name: "80", VirtualHosts: []meshtest.VirtualHost{p, q}}.Marshal()
	for i, step := range []struct {
		what  string
		table []byte
		hosts []meshtest.VirtualHost
		want  string
		leads string // p, q
	}{
		{"the first", nil, []meshtest.VirtualHost{p, q, r}, "p q", "a a"},
		{"another order", nil, []meshtest.VirtualHost{r, q, p}, "", "a a"},
		{"one of nobody's turns", nil, []meshtest.VirtualHost{p, q, host("r.ns.svc.x", "b")}, "", "a a"},
		{"one turns", nil, []meshtest.VirtualHost{p, host("Q.ns.svc.x", "b"), r}, "q", "a b"},
		{"one is gone", nil, []meshtest.VirtualHost{host("q.ns.svc.x", "b"), r}, "p q", "- b"},
		{"one comes for all", nil, []meshtest.VirtualHost{p, host("q.ns.svc.x", "b"), host("*", "c")}, "p q", "a b"},
		{"what is broken", broken[:len(broken)-1], nil, "p q", "a b"},
		{"what is whole again", nil, []meshtest.VirtualHost{p, host("q.ns.svc.x", "b"), host("*", "c")}, "p q", "a b"},
	} {
		if step.table == nil {
			step.table = meshtest.RouteConfiguration{Name: "80", VirtualHosts: step.hosts}.Marshal()
		}
		derived = nil
		s.d.receive(s.now, adsResponse{typeURL: kindRoute.typeURL(), nonce: "n", resources: []rawResource{{name: "80", typeURL: kindRoute.typeURL(), value: step.table}}})
		s.d.take()
		var leads []string
		for _, name := range []string{"80/p", "80/q"} {
			e := s.d.entries[kindRoute][name]
			leads = append(leads, strings.Join(append(e.value.(*routeConfig).clusterNames(nil), "-")[:1], ""))
			if broken := step.hosts == nil; broken != (e.rejection != "") {
				t.Errorf("%d, %s: %s has the rejection %q", i, step.what, name, e.rejection)
			}
		}
		if got := strings.Join(derived, " "); got != step.want {
			t.Errorf("%d, %s: looked for the routes of %q, want %q", i, step.what, got, step.want)
		}
		if got := strings.Join(leads, " "); got != step.leads {
			t.Errorf("%d, %s: leads to %s, want %s", i, step.what, got, step.leads)
		}
	}
}
