package interop

import (
	"context"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The tests in this file speak ADS by hand. They hold what the library relies
// on in istiod, and fail on their own when a newer istiod no longer does it.

// resource decodes the i-th resource of an answer.
func resource[M proto.Message](t testing.TB, a *answer, i int, into M) M {
	t.Helper()
	if a == nil || a.err != nil || len(a.Resources) <= i {
		t.Fatalf("istiod's answer has no resource %d: %+v", i, a)
	}
	if err := a.Resources[i].UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
	return into
}

// TestChain follows a Service from its name to its endpoints over TLS, with
// nothing but a projected token and the published root.
func TestChain(t *testing.T) {
	l := mesh(t)
	s := openADS(t, l.Istiod.Secure(), goodCredential(t, l), leanNode("10.244.0.250", "consumer", demo))

	var listener listenerv3.Listener
	resource(t, s.ask(t, listenerType, "dubbo-samples-xds-provider:50052"), 0, &listener)
	var hcm hcmv3.HttpConnectionManager
	unpack(t, listener.GetApiListener().GetApiListener(), &hcm)
	var route routev3.RouteConfiguration
	resource(t, s.ask(t, routeType, hcm.GetRds().GetRouteConfigName()), 0, &route)
	var cluster clusterv3.Cluster
	resource(t, s.ask(t, clusterType, route.VirtualHosts[0].Routes[0].GetRoute().GetCluster()), 0, &cluster)
	if cluster.GetType() != clusterv3.Cluster_EDS {
		t.Errorf("the headless Service's cluster has type %v", cluster.GetType())
	}
	var assignment endpointv3.ClusterLoadAssignment
	resource(t, s.ask(t, endpointType, cluster.GetEdsClusterConfig().GetServiceName()), 0, &assignment)
	var addresses []string
	for _, locality := range assignment.Endpoints {
		for _, e := range locality.LbEndpoints {
			addresses = append(addresses, e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
		}
	}
	if got := strings.Join(addresses, " "); got != "10.244.0.201 10.244.0.202" {
		t.Errorf("endpoints %s", got)
	}
}

func unpack(t testing.TB, packed *anypb.Any, into proto.Message) {
	t.Helper()
	if err := packed.UnmarshalTo(into); err != nil {
		t.Fatal(err)
	}
}

// TestPortlessName shows that a name without a port is answered for each port.
func TestPortlessName(t *testing.T) {
	l := mesh(t)
	for _, name := range []string{"two-ports", "two-ports." + demo, fqdn("two-ports")} {
		a := plainADS(t, l, "consumer").ask(t, listenerType, name)
		for i, port := range []string{"50052", "50053"} {
			if got := resource(t, a, i, &listenerv3.Listener{}).Name; got != name+":"+port {
				t.Errorf("asked for %s, listener %d is %s", name, i, got)
			}
		}
	}
}

// goodCredential is what a pod of the demo namespace has: its token and the root.
func goodCredential(t testing.TB, l *lab.Lab) credential {
	t.Helper()
	ctx := within(t, 10*time.Second)
	roots, err := l.RootCert(ctx, demo)
	if err != nil {
		t.Fatal(err)
	}
	return credential{roots: roots, token: istioToken(ctx, t, l, demo), clusterID: "Kubernetes"}
}

// signed makes a token for the default account with the lab's own key.
func signed(t testing.TB, l *lab.Lab, namespace string, expires time.Time, audiences ...string) string {
	t.Helper()
	claims, err := l.Claims(soon(t), namespace, "default", expires, audiences...)
	if err != nil {
		t.Fatal(err)
	}
	token, err := l.SignToken(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func issued(t testing.TB, l *lab.Lab, namespace string, audiences ...string) string {
	t.Helper()
	token, err := l.Token(soon(t), namespace, "default", time.Hour, audiences...)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// TestCredentials shows which credentials istiod takes, and that it says the
// same of all that it does not.
func TestCredentials(t *testing.T) {
	l := mesh(t)
	good := goodCredential(t, l)
	cases := []struct {
		name   string
		change func(*credential)
		want   codes.Code
	}{
		{"audience istio-ca", func(*credential) {}, codes.OK},
		{"no cluster id", func(c *credential) { c.clusterID = "" }, codes.OK},
		{"two audiences", func(c *credential) {
			c.token = issued(t, l, demo, "https://kubernetes.default.svc", lab.IstioAudience)
		}, codes.OK},
		{"signed by hand", func(c *credential) { c.token = signed(t, l, demo, time.Now().Add(time.Minute), lab.IstioAudience) }, codes.OK},
		{"wrong audience", func(c *credential) { c.token = issued(t, l, demo, "https://kubernetes.default.svc") }, codes.Unauthenticated},
		{"audience of the API server", func(c *credential) { c.token = issued(t, l, demo) }, codes.Unauthenticated},
		{"expired", func(c *credential) { c.token = signed(t, l, demo, time.Now().Add(-time.Minute), lab.IstioAudience) }, codes.Unauthenticated},
		{"no token", func(c *credential) { c.token = "" }, codes.Unauthenticated},
		{"wrong cluster id", func(c *credential) { c.clusterID = "elsewhere" }, codes.Unauthenticated},
		{"not a token", func(c *credential) { c.token = "not.a.token" }, codes.Unauthenticated},
		{"token of another namespace", func(c *credential) { c.token = issued(t, l, "default", lab.IstioAudience) }, codes.PermissionDenied},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			credential := good
			c.change(&credential)
			a := openADS(t, l.Istiod.Secure(), credential, leanNode("10.244.0.250", "consumer", demo)).ask(t, listenerType, "two-ports")
			if a == nil {
				t.Fatal("istiod is silent")
			}
			if got := status.Code(a.err); got != c.want {
				t.Errorf("%v", a.err)
			}
			t.Log(a.err)
		})
	}
}

// TestRestart kills istiod: its streams break, and a new one on the same port
// gets the same answers.
func TestRestart(t *testing.T) {
	l := mesh(t)
	before := plainADS(t, l, "consumer")
	kept := before.ask(t, listenerType, "two-ports")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l.Istiod.Kill()
	if a := before.next(t, 5*time.Second); a == nil || status.Code(a.err) != codes.Unavailable {
		t.Errorf("the stream of a killed istiod says %+v", a)
	}
	began := time.Now()
	if err := l.Istiod.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Log("ready again after", time.Since(began))
	again := plainADS(t, l, "consumer").ask(t, listenerType, "two-ports")
	if readable(t, kept.raw) != readable(t, again.raw) {
		t.Error("the restarted istiod answers differently")
	}
}

// TestReplica starts a second istiod: the same mesh, the same root.
func TestReplica(t *testing.T) {
	l := mesh(t)
	replica, err := l.AddIstiod(within(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replica.Kill)
	ask := func(i *lab.Istiod) string {
		s := openADS(t, i.Secure(), goodCredential(t, l), leanNode("10.244.0.250", "consumer", demo))
		a := s.ask(t, listenerType, "two-ports")
		resource(t, a, 0, &listenerv3.Listener{})
		return readable(t, a.raw)
	}
	if ask(replica) != ask(l.Istiod) {
		t.Error("the two replicas answer differently")
	}
}
