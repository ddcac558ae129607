package proxyless_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

func explain(t *testing.T, mesh *proxyless.Mesh, service string, md ...string) *proxyless.Explanation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	x, err := mesh.Explain(ctx, service, echoMethod, metadata.Pairs(md...))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// winner is the route, cluster and endpoint of an explanation that leaves no
// choice.
func winner(t *testing.T, x *proxyless.Explanation) (route, cluster string, endpoints []proxyless.ExplainedEndpoint) {
	t.Helper()
	for _, r := range x.Routes {
		if r.Share == 1 && len(r.Clusters) == 1 {
			return r.Name, r.Clusters[0].Name, r.Clusters[0].Endpoints
		}
	}
	t.Fatalf("no winner:\n%s", x)
	return "", "", nil
}

func TestExplainLeadsWhereCallsGo(t *testing.T) {
	cp := meshtest.New(t)
	routed(t, cp, []meshtest.Route{
		{Name: "by header", Headers: []meshtest.HeaderMatch{{Name: "colour", Value: "blue"}}, Clusters: to("blue")},
		{Name: "without", Headers: []meshtest.HeaderMatch{{Name: "colour", Value: "grey", Invert: true, MissingAsEmpty: true}}, Clusters: to("red")},
		{Name: "rest", Prefix: "/", Clusters: to("green")},
	}, "blue", "green", "red")
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	ready(t, mesh)
	for _, md := range [][]string{nil, {"colour", "blue"}, {"colour", "grey"}} {
		who, err := say(metadata.AppendToOutgoingContext(t.Context(), md...), inv)
		x := explain(t, mesh, "echo", md...)
		_, cluster, endpoints := winner(t, x)
		if err != nil || who != cluster {
			t.Errorf("%v: the call went to %q (%v), explained:\n%s", md, who, err, x)
		}
		if len(endpoints) != 1 || !endpoints[0].Pickable {
			t.Errorf("%v: %+v", md, endpoints)
		}
		if x.Temporary || x.Error != "" || x.Reference != echoInterface+":1.0.0" {
			t.Errorf("%+v", x)
		}
	}
}

// TestExplainRefersWhereNothingDoes, and lets go again.
func TestExplainRefersWhereNothingDoes(t *testing.T) {
	cp := meshtest.New(t)
	cp.SetService(echoService(startProvider(t, cp, &echo{name: "a"}).endpoint()))
	mesh := join(t, testConfig(cp, "consumer"))
	x := explain(t, mesh, "echo")
	if _, _, endpoints := winner(t, x); !x.Temporary || len(endpoints) != 1 || endpoints[0].Connection != "not connected" || x.Error != "" || !strings.Contains(x.String(), "waits until") {
		t.Errorf("%s", x)
	}
	if mesh.Stats().Dials != 0 {
		t.Error("it dialled")
	}
}

func TestExplainEndsWithTheErrorOfTheCall(t *testing.T) {
	cp := meshtest.New(t)
	routed(t, cp, []meshtest.Route{
		{Name: "away", Headers: []meshtest.HeaderMatch{{Name: "go", Value: "away"}}, Redirect: "example.com"},
		{Name: "none", Headers: []meshtest.HeaderMatch{{Name: "go", Value: "nowhere"}}, Clusters: to("empty")},
		{Name: "one", Headers: []meshtest.HeaderMatch{{Name: "go", Value: "here"}}, Clusters: to("here")},
	}, "here")
	cp.SetResource(meshtest.ClusterType, "empty", meshtest.Cluster{Name: "empty"}.Marshal())
	cp.SetResource(meshtest.ClusterLoadAssignmentType, "empty", meshtest.ClusterLoadAssignment{Cluster: "empty"}.Marshal())
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	for _, where := range []string{"away", "nowhere", "elsewhere"} {
		_, err := say(metadata.AppendToOutgoingContext(t.Context(), "go", where), inv)
		x := explain(t, mesh, "echo", "go", where)
		if err == nil || x.Error != problem(t, err).Error() {
			t.Errorf("%s: the call fails with %v\nexplained: %s", where, err, x.Error)
		}
	}
}

func TestExplainOfAServiceThatDoesNotExist(t *testing.T) {
	t.Parallel()
	cp := meshtest.New(t)
	cfg := testConfig(cp, "consumer")
	cfg.ResourceTimeout = 2 * time.Second
	mesh := join(t, cfg)
	x := explain(t, mesh, "nobody")
	if !strings.Contains(x.Error, "the mesh knows nothing of that name") || len(x.Listeners) == 0 || x.Listeners[0].Taken && x.Listeners[0].Reason == "" {
		t.Errorf("%s", x)
	}
}

func TestExplainRefusesWhatIsNoCall(t *testing.T) {
	cp := meshtest.New(t)
	mesh := join(t, testConfig(cp, "consumer"))
	for service, method := range map[string]string{"": echoMethod, "echo": "say", "echo:0": echoMethod} {
		if _, err := mesh.Explain(t.Context(), service, method, nil); problem(t, err).Stage != proxyless.StageConfig {
			t.Error(err)
		}
	}
	mesh.Close()
	if _, err := mesh.Explain(t.Context(), "echo", echoMethod, nil); !errors.Is(err, proxyless.ErrClosed) {
		t.Error(err)
	}
}

// limits are rate limits (VirtualHost.rate_limits), which are not applied.
var limits = []byte{6<<3 | 2, 0}

func limitedEcho(t *testing.T, cp *meshtest.ControlPlane) {
	t.Helper()
	cp.SetService(echoService(startProvider(t, cp, &echo{name: "a"}).endpoint()))
	name := "echo:50052"
	hosts := []meshtest.VirtualHost{{Name: name, Domains: []string{"*"}, Raw: limits, Routes: []meshtest.Route{{Name: "rest", Redirect: "example.com"}}}}
	cp.SetResource(meshtest.ListenerType, "limited:50052", meshtest.Listener{Name: "limited:50052", Route: name}.Marshal())
	cp.SetResource(meshtest.RouteConfigurationType, name, meshtest.RouteConfiguration{Name: name, VirtualHosts: hosts}.Marshal())
}

func TestWhatIsIgnoredIsSaidEverywhere(t *testing.T) {
	useLeanView(t)
	cp := meshtest.New(t)
	limitedEcho(t, cp)
	mesh := join(t, testConfig(cp, "consumer"))
	x := explain(t, mesh, "limited:50052")
	want := "virtual_hosts[echo:50052].rate_limits"
	if !slices.Contains(x.Ignored, "route echo:50052: "+want) {
		t.Errorf("%s", x)
	}
	if mesh.Stats().PolicyIgnored == 0 {
		t.Error("it is not counted")
	}
	if _, err := mesh.Refer(echoInterface, proxyless.ProvidedBy("limited:50052")); err != nil {
		t.Fatal(err)
	}
	mesh.Explain(t.Context(), "limited:50052", echoMethod, nil)
	for _, row := range mesh.Coverage() {
		if row.Kind == "route" && row.Name == "echo:50052" && slices.Contains(row.Ignored, want) && slices.Contains(row.Applied, "virtual_hosts[*].domains[*]") {
			return
		}
	}
	t.Errorf("%+v", mesh.Coverage())
}

func TestStrictRefusesTheResource(t *testing.T) {
	useLeanView(t)
	cp := meshtest.New(t)
	limitedEcho(t, cp)
	cfg := testConfig(cp, "consumer")
	cfg.Strict = true
	x := explain(t, join(t, cfg), "limited:50052")
	if !strings.Contains(x.Error, "strict mode refuses policy that is not applied: virtual_hosts[echo:50052].rate_limits") {
		t.Errorf("%s", x)
	}
}

// TestExplainIsAlikeInBothViews: the full view's links are derived, and are
// explained as the lean view's are.
func TestExplainIsAlikeInBothViews(t *testing.T) {
	cp := meshtest.New(t)
	cluster := to("outbound|50052||echo." + testNamespace + ".svc.cluster.local")
	s := echoService(startProvider(t, cp, &echo{name: "a"}).endpoint())
	s.Routes = []meshtest.Route{
		{Name: "blue", Headers: []meshtest.HeaderMatch{{Name: "colour", Value: "blue"}}, Clusters: cluster, Timeout: time.Second},
		{Name: "rest", Clusters: cluster, Retry: &meshtest.RetryPolicy{On: "unavailable", Retries: 2}},
	}
	cp.SetService(s)
	var said []string
	for _, view := range []proxyless.View{proxyless.ViewLean, proxyless.ViewFull} {
		cfg := testConfig(cp, "consumer")
		cfg.View = view
		x := explain(t, join(t, cfg), "echo", "colour", "red")
		route, cluster, endpoints := winner(t, x)
		if route != "rest" || len(endpoints) != 1 || x.Authority != "echo:50052" || x.Error != "" {
			t.Errorf("%v: %s", view, x)
		}
		said = append(said, cluster, strings.Join(x.Routes[0].Policies, ","), x.Routes[0].Reason, strings.Join(x.Routes[1].Policies, ","), endpoints[0].Address)
		if view == proxyless.ViewFull && !slices.ContainsFunc(x.VirtualHosts, func(v proxyless.ExplainedName) bool { return !v.Taken && v.Name == "allow_any" && v.Reason != "" }) {
			t.Errorf("the virtual host for the rest is not explained:\n%s", x)
		}
		if view == proxyless.ViewFull {
			if x := explain(t, join(t, cfg), "echo:1"); !strings.Contains(x.Error, "the Service has no port 1") {
				t.Errorf("%s", x)
			}
		}
	}
	if half := len(said) / 2; !slices.Equal(said[:half], said[half:]) {
		t.Errorf("%q", said)
	}
}
