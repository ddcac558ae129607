package interop

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/protobuf/encoding/protowire"
)

// shortTypes are the names of the resource types in this file's expectations.
var shortTypes = map[string]string{
	listenerType: "LDS",
	routeType:    "RDS",
	clusterType:  "CDS",
	endpointType: "EDS",
}

// subscriber keeps subscriptions on one stream and tells what istiod sends.
type subscriber struct {
	*adsStream
	names  map[string][]string // by type URL
	nonces map[string]string
}

func (s *subscriber) subscribe(t testing.TB, typeURL string, names ...string) {
	s.names[typeURL] = names
	s.send(t, &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: names, ResponseNonce: s.nonces[typeURL]})
}

// settle waits for what may still come of the last change: the endpoint slice
// controller holds back for a second.
func (s *subscriber) settle(t testing.TB) { s.hear(t, 1500*time.Millisecond, 1500*time.Millisecond) }

// hear acknowledges what istiod sends until it is silent, and returns each kind
// of response with the names in it ("EDS a b"), in the order of the kinds. It
// waits as long as first for the first response, as long as rest for others.
func (s *subscriber) hear(t testing.TB, first, rest time.Duration) string {
	t.Helper()
	heard, limit := map[string]string{}, first
	for {
		a := s.next(t, limit)
		if a == nil {
			var kinds []string
			for _, kind := range slices.Sorted(maps.Keys(heard)) {
				kinds = append(kinds, strings.TrimSpace(kind+" "+heard[kind]))
			}
			return strings.Join(kinds, ", ")
		}
		if a.err != nil {
			t.Fatal(a.err)
		}
		heard[shortTypes[a.TypeUrl]] = contents(a)
		s.nonces[a.TypeUrl] = a.Nonce
		s.send(t, &discoveryv3.DiscoveryRequest{
			TypeUrl: a.TypeUrl, ResourceNames: s.names[a.TypeUrl], VersionInfo: a.VersionInfo, ResponseNonce: a.Nonce,
		})
		limit = rest
	}
}

// contents names the resources of a response by the first label of their host;
// one that is a name and nothing else is marked "-".
func contents(a *answer) string {
	var names []string
	for _, r := range a.Resources {
		_, _, n := protowire.ConsumeTag(r.Value) // every kind has its name in field 1
		name, m := protowire.ConsumeString(r.Value[n:])
		short := name[strings.LastIndex(name, "|")+1:]
		short, _, _ = strings.Cut(short, ".")
		short, _, _ = strings.Cut(short, ":")
		if n+m == len(r.Value) {
			short += "-"
		}
		names = append(names, short)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestPushes walks through a mesh that changes, and holds what istiod sends to
// a subscriber of the lean view.
func TestPushes(t *testing.T) {
	l := suite.Lab(t)
	ctx := within(t, time.Minute)
	service := func(name string) string { return service("pushes", name, name, grpcPort) }
	workload := func(name, app, ip string) *lab.Workload {
		w, err := l.AddWorkload(ctx, lab.WorkloadSpec{Namespace: "pushes", Name: name, IP: ip, Labels: map[string]string{"app": app}})
		must(t, err)
		t.Cleanup(func() { w.Remove(context.WithoutCancel(ctx)) })
		return w
	}
	cluster := func(name string) string { return "outbound|50052||" + name + ".pushes.svc.cluster.local" }
	must(t, l.Namespace(ctx, "pushes"))
	t.Cleanup(func() { removeManifest(t, l, service("a")+service("b")+service("c")) })
	apply(t, l, service("a")+service("b"))
	first := workload("a-1", "a", "10.244.0.251")
	workload("b-1", "b", "10.244.0.252")
	must(t, lab.WaitFor(ctx, "both services", func(context.Context) error {
		s := openADS(t, l.Istiod.Plain(), credential{}, leanNode("10.244.0.250", "consumer", "pushes"))
		if got := contents(s.ask(t, endpointType, cluster("a"), cluster("b"))); got != "a b" {
			return fmt.Errorf("endpoints of %q", got)
		}
		return nil
	}))
	s := &subscriber{
		adsStream: openADS(t, l.Istiod.Plain(), credential{}, leanNode("10.244.0.250", "consumer", "pushes")),
		names:     map[string][]string{},
		nonces:    map[string]string{},
	}
	steps := []struct {
		what string
		do   func()
		want string
	}{
		{"one name", func() { s.subscribe(t, listenerType, "a:50052") }, "LDS a"},
		{"one more name: both are sent", func() { s.subscribe(t, listenerType, "a:50052", "b:50052") }, "LDS a b"},
		{"unknown names: absent", func() { s.subscribe(t, listenerType, "a:50052", "b:50052", "c:50052") }, "LDS a b"},
		{"routes", func() { s.subscribe(t, routeType, cluster("a"), cluster("b")) }, "RDS a b"},
		{"clusters", func() { s.subscribe(t, clusterType, cluster("a"), cluster("b")) }, "CDS a b"},
		{"endpoints", func() { s.subscribe(t, endpointType, cluster("a"), cluster("b")) }, "EDS a b"},
		{"an endpoint more: EDS is partial, the rest is sent whole", func() { workload("a-2", "a", "10.244.0.253") },
			"CDS a b, EDS a, LDS a b, RDS a b"},
		{"an endpoint less", func() { must(t, first.Remove(ctx)) }, "CDS a b, EDS a, LDS a b, RDS a b"},
		{"an unknown name comes to be", func() { s.settle(t); apply(t, l, service("c")) }, "CDS a b, LDS a b c, RDS a b"},
		{"a service goes: an empty route and assignment, no cluster, no listener", func() { must(t, l.Delete(ctx, service("b"))) },
			"CDS a, EDS b-, LDS a c, RDS a b-"},
		{"fewer listeners asked for: an answer", func() { s.subscribe(t, listenerType, "a:50052") }, "LDS a"},
		{"fewer endpoints asked for: silence", func() { s.subscribe(t, endpointType, cluster("a")) }, ""},
		{"no endpoints asked for: silence", func() { s.subscribe(t, endpointType) }, ""},
	}
	for _, step := range steps {
		step.do()
		first := answerLimit
		if step.want == "" {
			first = silence
		}
		if got := s.hear(t, first, silence); got != step.want {
			t.Errorf("%s: istiod sent %q, want %q", step.what, got, step.want)
		}
	}
	s.subscribe(t, listenerType)
	if got := s.hear(t, answerLimit, silence); !strings.Contains(got, "kubernetes") {
		t.Errorf("an empty list of listeners: istiod sent %q, want those of the whole mesh", got)
	}
}
