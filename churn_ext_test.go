package proxyless_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

func bounded(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually calls until the answer comes from who.
func eventually(t *testing.T, inv *proxyless.Invoker, who string) {
	t.Helper()
	ctx := bounded(t, 10*time.Second)
	for got := ""; got != who; {
		if got, _ = say(ctx, inv); ctx.Err() != nil {
			t.Fatalf("%s never answers", who)
		}
	}
}

func TestEndpointsFollowTheMeshWhileANewClusterIsMissing(t *testing.T) {
	for name, change := range map[string]func(*meshtest.ControlPlane){
		"unknown": func(cp *meshtest.ControlPlane) { cp.Mute(meshtest.ClusterType) },
		"refused": func(cp *meshtest.ControlPlane) { cp.SetResource(meshtest.ClusterType, "new", []byte{0x0a, 0xff}) },
	} {
		t.Run(name, func(t *testing.T) {
			cp := meshtest.New(t)
			one, two := startProvider(t, cp, &echo{name: "one"}), startProvider(t, cp, &echo{name: "two"})
			cp.SetService(echoService(one.endpoint()))
			mesh := join(t, testConfig(cp, "consumer"))
			inv := refer(t, mesh)
			ready(t, mesh)
			change(cp)
			s := echoService(one.endpoint())
			s.Routes = []meshtest.Route{{Prefix: "/", Clusters: []meshtest.WeightedCluster{{Name: meshtest.ClusterName(s.FQDN(), testPort), Weight: 99}, {Name: "new", Weight: 1}}}}
			cp.SetService(s)
			if err := cp.WaitSettled(bounded(t, 10*time.Second)); err != nil {
				t.Fatal(err)
			}
			cp.SetEndpoints("echo", testNamespace, one.endpoint(), two.endpoint())
			eventually(t, inv, "two")
			eventually(t, inv, "one")
			if n := mesh.Stats().Dials; n != 2 {
				t.Errorf("%d dials for two endpoints: connections did not survive", n)
			}
		})
	}
}

func TestACallThatWaitsEndsWhenItsReferenceIsClosed(t *testing.T) {
	cp := meshtest.New(t)
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	done := make(chan error, 1)
	go func() {
		_, err := say(t.Context(), inv, grpc.WaitForReady(true))
		done <- err
	}()
	if err := cp.WaitStreams(bounded(t, 10*time.Second), 1); err != nil {
		t.Fatal(err)
	}
	inv.Close()
	if err := <-done; !errors.Is(err, proxyless.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestCloseEndsCallsOnConnectionsThatDrain(t *testing.T) {
	cp := meshtest.New(t)
	hold, in := make(chan struct{}), make(chan struct{}, 1)
	defer close(hold)
	one := startProvider(t, cp, &echo{name: "one", hold: hold, seen: func(context.Context) { in <- struct{}{} }})
	two := startProvider(t, cp, &echo{name: "two"})
	cp.SetService(echoService(one.endpoint()))
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	done := make(chan error, 1)
	go func() {
		_, err := say(context.Background(), inv)
		done <- err
	}()
	<-in
	cp.SetEndpoints("echo", testNamespace, two.endpoint())
	if err := cp.WaitSettled(bounded(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	eventually(t, inv, "two")
	select {
	case err := <-done:
		t.Fatalf("the call on the removed endpoint did not survive: %v", err)
	default:
	}
	mesh.Close()
	if err := <-done; !errors.Is(err, proxyless.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// asked waits until a provider has asked what it may accept, besides a consumer
// that asks for listeners as well, and returns the name that it asked for.
func asked(t *testing.T, cp *meshtest.ControlPlane, p *provider) string {
	t.Helper()
	name := "xds.istio.io/grpc/lds/inbound/" + p.addr.String()
	acknowledged := map[int]bool{}
	if _, err := cp.WaitRequest(bounded(t, 10*time.Second), func(r meshtest.Request) bool {
		if r.TypeURL == meshtest.ListenerType && r.Nonce != "" && len(r.Names) == 0 { // the full view
			acknowledged[r.Stream] = true
		}
		return slices.Contains(r.Names, name) || len(acknowledged) > 1
	}); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAnInboundListenerThatIsNotUnderstoodRefusesCalls(t *testing.T) {
	useLeanView(t) // in the full view there was one before, which stays in force
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	inv := refer(t, join(t, testConfig(cp, "consumer")))
	eventually(t, inv, "one")
	name := asked(t, cp, one)
	withoutFilters := []byte{0x1a, 0} // a filter chain
	cp.SetResource(meshtest.ListenerType, name, append(meshtest.Listener{Name: name, Address: one.addr.String()}.Marshal(), withoutFilters...))
	if err := cp.WaitSettled(bounded(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := say(bounded(t, 10*time.Second), inv); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
}

// leaver is an HTTP/2 server that greets each connection with SETTINGS and
// takes leave with GOAWAY at once.
func leaver(t *testing.T) (endpoint meshtest.Endpoint, connections *atomic.Int64) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	connections = new(atomic.Int64)
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer c.Close()
				const settings, goAway = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x07\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00"
				io.WriteString(c, settings+goAway)
				io.Copy(io.Discard, c)
			}()
		}
	}()
	addr := lis.Addr().(*net.TCPAddr)
	return meshtest.Endpoint{Address: "127.0.0.1", Port: uint32(addr.Port)}, connections
}

func TestAPeerThatLeavesAtOnceIsNotRedialledInALoop(t *testing.T) {
	cp := meshtest.New(t)
	endpoint, connections := leaver(t)
	cp.SetService(echoService(endpoint))
	inv := refer(t, join(t, testConfig(cp, "consumer")))
	if _, err := say(bounded(t, 1500*time.Millisecond), inv); err == nil {
		t.Error("a call succeeded")
	}
	if n := connections.Load(); n < 1 || n > 5 {
		t.Errorf("%d connections in 1.5 s", n)
	}
}

func TestAStreamThatWasNotTakenUpSaysSo(t *testing.T) {
	cp := meshtest.New(t)
	endpoint, _ := leaver(t)
	cp.SetService(echoService(endpoint))
	inv := refer(t, join(t, testConfig(cp, "consumer")))
	stream, err := inv.NewStream(bounded(t, time.Second), &echoDesc.Streams[0], echoStream)
	if err == nil {
		err = stream.RecvMsg(nil)
	}
	if own := problem(t, err); own.Stage != proxyless.StageEndpoint || strings.Contains(own.Error(), "endpoint not connected") {
		t.Errorf("got %v", own)
	}
}

// What a server that has ended might accept is asked for no longer.
func TestAServerThatEndedLetsItsListenerGo(t *testing.T) {
	useLeanView(t)
	cp := meshtest.New(t)
	mesh := join(t, testConfig(cp, "provider"))
	serve := func() (name string, stop func()) {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- mesh.NewServer().ServeListener(ctx, lis) }() // ended by stop
		return "xds.istio.io/grpc/lds/inbound/" + lis.Addr().String(), func() { cancel(); <-served }
	}
	listeners := func(want ...string) {
		t.Helper()
		slices.Sort(want)
		if _, err := cp.WaitRequest(bounded(t, 10*time.Second), func(r meshtest.Request) bool {
			return r.TypeURL == meshtest.ListenerType && slices.Equal(slices.Sorted(slices.Values(r.Names)), want)
		}); err != nil {
			t.Fatalf("%v were never asked for: %v", want, err)
		}
	}
	first, stopFirst := serve()
	listeners(first)
	second, stopSecond := serve()
	defer stopSecond()
	listeners(first, second)
	stopFirst()
	listeners(second)
}
