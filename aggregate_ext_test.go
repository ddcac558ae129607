package proxyless_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// place lists the endpoints of a cluster.
func place(cp *meshtest.ControlPlane, name string, endpoints ...meshtest.Endpoint) {
	l := meshtest.Locality{Weight: 1}
	for _, e := range endpoints {
		l.Endpoints = append(l.Endpoints, meshtest.LbEndpoint{Address: e.Address, Port: e.Port, Weight: 1})
	}
	a := meshtest.ClusterLoadAssignment{Cluster: name}
	if len(endpoints) > 0 {
		a.Localities = []meshtest.Locality{l}
	}
	cp.SetResource(meshtest.ClusterLoadAssignmentType, name, a.Marshal())
}

// aggregate makes a cluster that stands for others.
func aggregate(cp *meshtest.ControlPlane, name string, children ...string) {
	cp.SetResource(meshtest.ClusterType, name, meshtest.Cluster{Name: name, Children: children}.Marshal())
}

// leaves makes the echo service lead to the cluster "all", and clusters with
// the endpoints given.
func leaves(cp *meshtest.ControlPlane, clusters map[string][]meshtest.Endpoint) {
	for name, endpoints := range clusters {
		cp.SetResource(meshtest.ClusterType, name, meshtest.Cluster{Name: name}.Marshal())
		place(cp, name, endpoints...)
	}
	s := echoService()
	s.Routes = []meshtest.Route{{Prefix: "/", Clusters: to("all")}}
	cp.SetService(s)
}

func TestAnAggregateClusterFailsOverAndBack(t *testing.T) {
	inBothProtocols(t, func(t *testing.T, cp *meshtest.ControlPlane) {
		one, two := startProvider(t, cp, &echo{name: "one"}), startProvider(t, cp, &echo{name: "two"})
		aggregate(cp, "all", "gone", "some", "second")
		aggregate(cp, "some", "first", "all") // leads back, which adds nothing
		leaves(cp, map[string][]meshtest.Endpoint{"first": {one.endpoint()}, "second": {two.endpoint()}})
		inv := refer(t, join(t, testConfig(cp, "consumer")))
		for range 10 {
			if who, err := say(bounded(t, 10*time.Second), inv); err != nil || who != "one" {
				t.Fatalf("%s answers, %v", who, err)
			}
		}
		calls, failures := 0, []error(nil)
		stop := under(inv, 2)
		place(cp, "first")
		eventually(t, inv, "two")
		place(cp, "first", one.endpoint())
		eventually(t, inv, "one")
		aggregate(cp, "all", "second", "some")
		eventually(t, inv, "two")
		aggregate(cp, "all", "some", "second")
		eventually(t, inv, "one")
		if calls, failures = stop(); len(failures) > 0 {
			t.Errorf("%d of %d calls failed: %v", len(failures), calls, failures[0])
		}
		one.stop()
		eventually(t, inv, "two")
	})
}

// TestACallFallsThroughWhenTheFirstClusterRefusesConnections says that the very
// call that waits for the first cluster goes on to the second.
func TestACallFallsThroughWhenTheFirstClusterRefusesConnections(t *testing.T) {
	cp := meshtest.New(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := lis.Addr().(*net.TCPAddr)
	lis.Close()
	dead := meshtest.Endpoint{Address: "127.0.0.1", Port: uint32(addr.Port)}
	two := startProvider(t, cp, &echo{name: "two"})
	aggregate(cp, "all", "first", "second")
	leaves(cp, map[string][]meshtest.Endpoint{"first": {dead}, "second": {two.endpoint()}})
	inv := refer(t, join(t, testConfig(cp, "consumer")))
	if who, err := say(bounded(t, 10*time.Second), inv); err != nil || who != "two" {
		t.Errorf("%s answers, %v", who, err)
	}
	place(cp, "second")
	for ctx := bounded(t, 10*time.Second); ; {
		if _, err = say(ctx, inv); err != nil {
			break
		}
	}
	if own := problem(t, err); status.Code(err) != codes.Unavailable || own.Stage != proxyless.StageEndpoint || own.Resource != "first" {
		t.Errorf("got %v", err)
	}
}

func TestWaitReadyNamesTheProblemOfClustersThatCannotBeCalled(t *testing.T) {
	cp := meshtest.New(t)
	aggregate(cp, "all", "some")
	aggregate(cp, "some", "all")
	leaves(cp, nil)
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	_, err := say(bounded(t, 10*time.Second), inv)
	own := problem(t, err)
	if own.Stage != proxyless.StageCluster || own.Resource != "all" || !strings.Contains(own.Error(), "no cluster but aggregate ones") {
		t.Errorf("a call fails with %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err = mesh.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), own.Reason) {
		t.Errorf("WaitReady says %v", err)
	}
}
