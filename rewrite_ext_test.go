package proxyless_test

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

// A VirtualService's rewrite.uri lets callers of an old method reach the new one.
func TestCallsGoOutAsTheMethodThatTheMeshSays(t *testing.T) {
	cluster := []meshtest.WeightedCluster{{Name: meshtest.ClusterName("echo.demo.svc.cluster.local", testPort)}}
	for name, c := range map[string]struct {
		route  meshtest.Route
		called string
	}{
		"prefix":             {meshtest.Route{Prefix: "/old.Echo", PrefixRewrite: "/test.Echo"}, "/old.Echo/"},
		"separated prefix":   {meshtest.Route{SeparatedPrefix: "/old.Echo", PrefixRewrite: "/test.Echo"}, "/old.Echo/"},
		"every path":         {meshtest.Route{Prefix: "/", PrefixRewrite: "/test."}, "/Echo/"},
		"regular expression": {meshtest.Route{Prefix: "/", RegexRewrite: &meshtest.Rewrite{Pattern: `^/old\.(\w+)/(.*)$`, Substitution: `/test.\1/\2`}}, "/old.Echo/"},
		"none that fits":     {meshtest.Route{Prefix: "/", RegexRewrite: &meshtest.Rewrite{Pattern: "^/old/", Substitution: "/new/"}}, "/test.Echo/"},
	} {
		t.Run(name, func(t *testing.T) {
			cp := meshtest.New(t)
			s := echoService(startProvider(t, cp, &echo{name: "new"}).endpoint())
			c.route.Clusters = cluster
			s.Routes, s.RoutesOnly = []meshtest.Route{c.route}, true
			cp.SetService(s)
			mesh := join(t, testConfig(cp, "consumer"))
			inv := refer(t, mesh)
			ready(t, mesh)
			out := new(wrapperspb.StringValue)
			if err := inv.Invoke(t.Context(), c.called+"say", wrapperspb.String("hi"), out); err != nil || out.Value != "new:hi" {
				t.Errorf("unary: %q, %v", out.Value, err)
			}
			stream, err := inv.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, c.called+"chat")
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.SendMsg(wrapperspb.String("ho")); err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(out); err != nil || out.Value != "new:ho" {
				t.Errorf("stream: %q, %v", out.Value, err)
			}
		})
	}
}

func TestAWholePathIsRewrittenWhole(t *testing.T) {
	cp := meshtest.New(t)
	s := echoService(startProvider(t, cp, &echo{name: "new"}).endpoint())
	s.Routes = []meshtest.Route{{Path: "/old.Echo/hello", PrefixRewrite: echoMethod, Clusters: []meshtest.WeightedCluster{{Name: meshtest.ClusterName("echo.demo.svc.cluster.local", testPort)}}}}
	cp.SetService(s)
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	ready(t, mesh)
	out := new(wrapperspb.StringValue)
	if err := inv.Invoke(t.Context(), "/old.Echo/hello", wrapperspb.String("hi"), out); err != nil || out.Value != "new:hi" {
		t.Errorf("%q, %v", out.Value, err)
	}
}
