package proxyless

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

const shadowCluster = "outbound|50052|shadow|" + fedHost

// meshOf is a hand-fed Mesh with the given routes, whose clusters have the
// given providers.
func meshOf(t testing.TB, routes []meshtest.Route, clusters map[string][]*replica, dial ...grpc.DialOption) *handFed {
	t.Helper()
	m := newHandFed(dial...)
	m.mesh.closed = make(chan struct{})
	t.Cleanup(m.mesh.table.close)
	m.feed(fedService(0)[:1])
	m.feed(fedRoutes(routes...))
	var all []meshtest.Any
	for name := range clusters {
		all = append(all, meshtest.Any{TypeURL: meshtest.ClusterType, Value: meshtest.Cluster{Name: name}.Marshal()})
	}
	m.feed([][]byte{meshtest.DiscoveryResponse{Version: "1", Nonce: "1", TypeURL: meshtest.ClusterType, Resources: all}.Marshal()})
	for name, replicas := range clusters {
		m.feed([][]byte{replicaEndpoints(name, replicas...)})
	}
	m.connect(t)
	return m
}

func toCluster(name string) []meshtest.WeightedCluster {
	return []meshtest.WeightedCluster{{Name: name}}
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(quick) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

func TestCopiesGoToTheMirror(t *testing.T) {
	type seen struct {
		in        string
		authority string
		more      string
	}
	got := make(chan seen, 10)
	shade := &replica{}
	shade.say = func(ctx context.Context, in string) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		got <- seen{in, strings.Join(md[":authority"], ""), strings.Join(md["more"], "")}
		return "never seen", status.Error(codes.Internal, "nor this")
	}
	shade.start(t)
	one := answering(t, "one", nil)
	watch := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if in, is := req.(*wrapperspb.StringValue); !is || in.Value != "hello" {
			t.Errorf("an interceptor sees %v", req)
		}
		return next(ctx, method, req, reply, cc, opts...)
	})
	for name, dial := range map[string][]grpc.DialOption{"plain": nil, "watched": {watch}} {
		t.Run(name, func(t *testing.T) {
			m := meshOf(t, []meshtest.Route{{Name: "r", Prefix: "/", Clusters: toCluster(fedCluster), Mirrors: []meshtest.Mirror{{Cluster: shadowCluster}, {Cluster: "missing"}},
				RequestHeaders: meshtest.HeaderMutation{Set: []meshtest.Header{{Name: "more", Value: "mesh"}}}}},
				map[string][]*replica{fedCluster: {one}, shadowCluster: {shade}}, dial...)
			m.inv.plan.Load().routes.routes[0].mirrors[0].policy.keepsName = false // Istio has the name kept
			in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
			var trailer metadata.MD
			if err := m.inv.Invoke(soon(t), wireMethod, in, out, grpc.Trailer(&trailer)); err != nil || out.Value != "one" {
				t.Fatalf("got %q, %v", out.Value, err)
			}
			in.Value = "changed by its owner"
			if s := <-got; s != (seen{"hello", "echo-shadow:50052", "mesh"}) {
				t.Errorf("the mirror got %+v", s)
			}
			waitFor(t, "one copy sent, one dropped", func() bool { s := m.mesh.Stats(); return s.Mirrored == 1 && s.MirrorsDropped == 1 })
			if _, ready := m.inv.plan.Load().census(); ready != 1 {
				t.Errorf("%d endpoints are ready, those of mirrors included", ready)
			}
		})
	}
}

func TestCopiesTakeTheirShareAndKeepTheName(t *testing.T) {
	var names atomic.Pointer[string]
	shade := saying(t, func(ctx context.Context, _ int) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		name := strings.Join(md[":authority"], "")
		names.Store(&name)
		return "", nil
	})
	share := uint32(200_000)
	m := meshOf(t, []meshtest.Route{{Name: "r", Prefix: "/", Clusters: toCluster(fedCluster), Mirrors: []meshtest.Mirror{{Cluster: shadowCluster, Share: &share}}}},
		map[string][]*replica{fedCluster: {answering(t, "one", nil)}, shadowCluster: {shade}})
	const calls = 1000
	for range calls {
		if _, err := m.say(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	s := m.mesh.Stats()
	// Eight standard deviations of the binomial distribution are 101.
	if n := int(s.Mirrored + s.MirrorsDropped); n < 99 || n > 301 {
		t.Logf("%d copies are still waiting", n)
	}
	waitFor(t, "the copies arrive", func() bool { s := m.mesh.Stats(); n := s.Mirrored + s.MirrorsDropped; return n >= 99 && n <= 301 })
	waitFor(t, "a copy was seen", func() bool { return names.Load() != nil })
	if name := *names.Load(); name != fedName {
		t.Errorf("the copy's authority is %q", name)
	}
}

// TestAMirrorThatHangsHoldsNothingUp fills the copies that may be under way.
func TestAMirrorThatHangsHoldsNothingUp(t *testing.T) {
	shade := saying(t, func(ctx context.Context, _ int) (string, error) { <-ctx.Done(); return "", ctx.Err() })
	m := meshOf(t, []meshtest.Route{{Name: "r", Prefix: "/", Clusters: toCluster(fedCluster), Mirrors: []meshtest.Mirror{{Cluster: shadowCluster}}}},
		map[string][]*replica{fedCluster: {answering(t, "one", nil)}, shadowCluster: {shade}})
	const calls = mostMirrored + 20
	for range calls {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		if _, err := m.say(ctx); err != nil {
			t.Fatal(err)
		}
		cancel() // ends the call, not its copy
	}
	waitFor(t, "the copies are sent", func() bool { s := m.mesh.Stats(); return s.Mirrored == mostMirrored && s.MirrorsDropped == 20 })
	closed := make(chan struct{})
	go func() { m.mesh.table.close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Error("Close waits for copies")
	}
}

func TestTheCallMayNameItsCluster(t *testing.T) {
	m := meshOf(t, []meshtest.Route{
		{Name: "by header", Path: wireMethod, ClusterHeader: "x-cluster"},
		{Name: "rest", Prefix: "/", Clusters: []meshtest.WeightedCluster{{Name: fedCluster, Weight: 1}, {Name: shadowCluster, Weight: 1}}},
	}, map[string][]*replica{fedCluster: {answering(t, "one", nil)}, shadowCluster: {answering(t, "two", nil)}})
	for name, want := range map[string]string{fedCluster: "one", shadowCluster: "two"} {
		if who, err := m.say(metadata.AppendToOutgoingContext(soon(t), "x-cluster", name)); err != nil || who != want {
			t.Errorf("%s: %q, %v", name, who, err)
		}
	}
	_, err := m.say(metadata.AppendToOutgoingContext(soon(t), "x-cluster", "nobody"))
	isOwn(t, err, StageCluster, codes.Unavailable, "knows no such cluster")
	_, err = m.say(soon(t))
	isOwn(t, err, StageCluster, codes.Unavailable, "which the call lacks")
}

func TestTheListenersFaultAppliesWhereNoRouteSaysOtherwise(t *testing.T) {
	aborted := &faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: fractionScale}
	own := &faultPolicy{abort: codes.DataLoss, hasAbort: true, abortShare: fractionScale}
	retry := &retryPolicy{retries: 1}
	for name, test := range map[string]struct {
		listener forwarding
		route    *routePolicy
		want     *faultPolicy
		none     bool
	}{
		"neither":              {none: true},
		"the listener's":       {listener: forwarding{fault: aborted}, want: aborted},
		"beside other policy":  {listener: forwarding{fault: aborted}, route: &routePolicy{retry: retry}, want: aborted},
		"the route's":          {listener: forwarding{fault: aborted}, route: &routePolicy{fault: own}, want: own},
		"switched off":         {listener: forwarding{fault: aborted}, route: &routePolicy{fault: &faultPolicy{}}, none: true},
		"off, but a retry":     {listener: forwarding{fault: aborted}, route: &routePolicy{fault: &faultPolicy{}, retry: retry}},
		"a session, then none": {listener: forwarding{session: &sessionPolicy{cookie: "c"}}, route: &routePolicy{session: &sessionPolicy{}}, none: true},
	} {
		p := test.listener.complete(test.route)
		if (p == nil) != test.none || p != nil && p.fault != test.want {
			t.Errorf("%s: %+v", name, p)
		}
	}
	same := &routePolicy{retry: retry}
	if (&forwarding{}).complete(same) != same {
		t.Error("a policy that nothing is added to is copied")
	}
}
