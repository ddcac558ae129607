package proxyless_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// problem is the *Error of a failed call.
func problem(t *testing.T, err error) *proxyless.Error {
	t.Helper()
	var own *proxyless.Error
	if !errors.As(err, &own) {
		t.Fatalf("not an *Error: %v", err)
	}
	return own
}

func TestPortsOfProvidedBy(t *testing.T) {
	grpcPort := func(n uint32) meshtest.Port { return meshtest.Port{Name: fmt.Sprintf("grpc-%d", n), Number: n} }
	tcpPort := func(n uint32) meshtest.Port { return meshtest.Port{Name: "tcp-x", Number: n} }
	for name, test := range map[string]struct {
		ports      []meshtest.Port
		providedBy string
		port       int
		stage      proxyless.Stage // of the error; empty for success
		says       string
	}{
		"the only one":          {ports: []meshtest.Port{grpcPort(1)}, providedBy: "echo"},
		"the only one routed":   {ports: []meshtest.Port{tcpPort(1), grpcPort(2)}, providedBy: "echo"},
		"two routed":            {ports: []meshtest.Port{grpcPort(1), grpcPort(2)}, providedBy: "echo", stage: proxyless.StageListener, says: "1, 2"},
		"two, one named":        {ports: []meshtest.Port{grpcPort(1), grpcPort(2)}, providedBy: "echo:2"},
		"two, one given":        {ports: []meshtest.Port{grpcPort(1), grpcPort(2)}, providedBy: "echo", port: 1},
		"no routes":             {ports: []meshtest.Port{tcpPort(1)}, providedBy: "echo", stage: proxyless.StageRoute, says: "appProtocol: grpc"},
		"name and namespace":    {ports: []meshtest.Port{grpcPort(1)}, providedBy: "echo.demo"},
		"namespace and svc":     {ports: []meshtest.Port{grpcPort(1)}, providedBy: "echo.demo.svc:1"},
		"full host":             {ports: []meshtest.Port{grpcPort(1)}, providedBy: "echo.demo.svc.cluster.local"},
		"full host and port":    {ports: []meshtest.Port{grpcPort(1)}, providedBy: "echo.demo.svc.cluster.local:1"},
		"a port that is absent": {ports: []meshtest.Port{grpcPort(1)}, providedBy: "echo:9", stage: proxyless.StageListener, says: "the port"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := meshtest.New(t)
			one := startProvider(t, cp, &echo{name: "one"})
			s := echoService(one.endpoint())
			s.Ports = test.ports
			cp.SetService(s)
			cfg := testConfig(cp, "consumer")
			if test.stage != "" {
				cfg.ResourceTimeout = 2 * time.Second
			}
			mesh := join(t, cfg)
			inv, err := mesh.Refer(echoInterface, proxyless.ProvidedBy(test.providedBy), proxyless.Version("1.0.0"), proxyless.Port(test.port))
			if err != nil {
				t.Fatal(err)
			}
			_, err = say(t.Context(), inv)
			if test.stage == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if own := problem(t, err); own.Stage != test.stage || !strings.Contains(own.Error(), test.says) {
				t.Errorf("got %v, want stage %s with %q", own, test.stage, test.says)
			}
		})
	}
}

func TestAServiceOfAnotherNamespaceIsFoundByNameAndNamespace(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	s := echoService(one.endpoint())
	s.Namespace = "elsewhere"
	cp.SetService(s)
	mesh := join(t, testConfig(cp, "consumer"))
	inv, err := mesh.Refer(echoInterface, proxyless.ProvidedBy("echo.elsewhere"), proxyless.Version("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if who, err := say(t.Context(), inv); err != nil || who != "one" {
		t.Errorf("got %q, %v", who, err)
	}
}

// routed makes a service whose routes lead to clusters of the given names, each
// with one provider of the same name.
func routed(t *testing.T, cp *meshtest.ControlPlane, routes []meshtest.Route, clusters ...string) {
	t.Helper()
	s := echoService()
	s.Routes = routes
	cp.SetService(s)
	for _, name := range clusters {
		p := startProvider(t, cp, &echo{name: name})
		cp.SetResource(meshtest.ClusterType, name, meshtest.Cluster{Name: name}.Marshal())
		cp.SetResource(meshtest.ClusterLoadAssignmentType, name, meshtest.ClusterLoadAssignment{Cluster: name, Localities: []meshtest.Locality{{
			Weight: 1, Endpoints: []meshtest.LbEndpoint{{Address: p.addr.IP.String(), Port: uint32(p.addr.Port), Weight: 1}}}}}.Marshal())
	}
}

func to(name string) []meshtest.WeightedCluster { return []meshtest.WeightedCluster{{Name: name}} }

func TestTheFirstRouteThatMatchesTakesTheCall(t *testing.T) {
	cp := meshtest.New(t)
	routed(t, cp, []meshtest.Route{
		{Name: "by header", Headers: []meshtest.HeaderMatch{{Name: "colour", Kind: meshtest.HeaderExact, Value: "blue"}}, Clusters: to("blue")},
		{Name: "by path", Path: echoStream, Clusters: to("green")},
		{Name: "rest", Prefix: "/", Clusters: to("red")},
	}, "blue", "green", "red")
	inv := refer(t, join(t, testConfig(cp, "consumer")))
	if who, err := say(t.Context(), inv); err != nil || who != "red" {
		t.Errorf("plain call: %q, %v", who, err)
	}
	if who, err := say(metadata.AppendToOutgoingContext(t.Context(), "colour", "blue"), inv); err != nil || who != "blue" {
		t.Errorf("with the header: %q, %v", who, err)
	}
	stream, err := inv.NewStream(t.Context(), &echoDesc.Streams[0], echoStream)
	if err != nil {
		t.Fatal(err)
	}
	stream.CloseSend()
	if err := stream.RecvMsg(nil); err == nil || status.Code(err) == codes.Unavailable {
		t.Errorf("stream: %v", err)
	}
}

func TestWeightsSplitTheCalls(t *testing.T) {
	cp := meshtest.New(t)
	routed(t, cp, []meshtest.Route{{Prefix: "/", Clusters: []meshtest.WeightedCluster{{Name: "much", Weight: 90}, {Name: "little", Weight: 10}}}}, "much", "little")
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	ready(t, mesh)
	count := map[string]int{}
	const calls = 2000
	for range calls {
		who, err := say(t.Context(), inv)
		if err != nil {
			t.Fatal(err)
		}
		count[who]++
	}
	// Ten standard deviations of the binomial distribution.
	if n := count["little"]; n < 70 || n > 330 {
		t.Errorf("%d of %d calls went to the tenth part", n, calls)
	}
}

func TestARouteThatCannotCarryCallsSaysWhy(t *testing.T) {
	cp := meshtest.New(t)
	routed(t, cp, []meshtest.Route{{Name: "away", Prefix: "/", Redirect: "example.com"}})
	_, err := say(t.Context(), refer(t, join(t, testConfig(cp, "consumer"))))
	if own := problem(t, err); own.Stage != proxyless.StageRoute || !strings.Contains(own.Error(), "redirect") {
		t.Errorf("got %v", own)
	}
}

func TestTheRoutesTimeLimitShortensTheDeadline(t *testing.T) {
	cp := meshtest.New(t)
	hold := make(chan struct{})
	defer close(hold)
	one := startProvider(t, cp, &echo{name: "one", hold: hold})
	s := echoService(one.endpoint())
	s.Routes = []meshtest.Route{{Prefix: "/", Timeout: 50 * time.Millisecond, Clusters: to(meshtest.ClusterName(s.FQDN(), testPort))}}
	cp.SetService(s)
	inv := refer(t, join(t, testConfig(cp, "consumer")))
	start := time.Now()
	if _, err := say(t.Context(), inv); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestNoEndpointsFailsAtOnceAndRecovers(t *testing.T) {
	cp := meshtest.New(t)
	cp.SetService(echoService())
	inv := refer(t, join(t, testConfig(cp, "consumer")))
	_, err := say(t.Context(), inv)
	if own := problem(t, err); own.Stage != proxyless.StageEndpoint || status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v", own)
	}
	waited := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		_, err := say(ctx, inv, grpc.WaitForReady(true))
		waited <- err
	}()
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	if err := <-waited; err != nil {
		t.Errorf("the call that waits for readiness: %v", err)
	}
}

func TestEndpointsThatRefuseConnectionsFailAtOnce(t *testing.T) {
	cp := meshtest.New(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := lis.Addr().(*net.TCPAddr)
	lis.Close()
	cp.SetService(echoService(meshtest.Endpoint{Address: "127.0.0.1", Port: uint32(dead.Port)}))
	_, err = say(t.Context(), refer(t, join(t, testConfig(cp, "consumer"))))
	if own := problem(t, err); own.Stage != proxyless.StageEndpoint || !strings.Contains(own.Error(), "refused") {
		t.Errorf("got %v", own)
	}
}

func TestADeadlineEndsTheWaitWithTheReason(t *testing.T) {
	cp := meshtest.New(t)
	cp.StopListening()
	inv := refer(t, join(t, testConfig(cp, "consumer")), proxyless.Timeout(100*time.Millisecond))
	_, err := say(t.Context(), inv)
	if own := problem(t, err); status.Code(err) != codes.DeadlineExceeded || own.Stage != proxyless.StageControlPlane || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestABadUpdateKeepsTheLastGoodOne(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	s := echoService(one.endpoint())
	cp.SetService(s)
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	ready(t, mesh)
	cp.SetResource(meshtest.ClusterLoadAssignmentType, meshtest.ClusterName(s.FQDN(), testPort), []byte{0x0a, 0xff})
	nack, err := cp.WaitRequest(t.Context(), func(r meshtest.Request) bool { return r.NACK })
	if err != nil {
		t.Fatal(err)
	}
	if nack.ErrorDetail == "" || nack.Version == "" && !nack.Delta {
		t.Errorf("the NACK has no reason, or no version that is still good: %+v", nack)
	}
	if who, err := say(t.Context(), inv); err != nil || who != "one" {
		t.Errorf("after the bad update: %q, %v", who, err)
	}
	if n := mesh.Stats().ResourcesRejected; n != 1 {
		t.Errorf("%d resources rejected", n)
	}
}

func TestAClusterThatDemandsTLSIsNotCalledInPlainText(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one", seen: func(context.Context) { t.Error("called in plain text") }})
	s := echoService(one.endpoint())
	cp.SetService(s)
	name := meshtest.ClusterName(s.FQDN(), testPort)
	cp.SetResource(meshtest.ClusterType, name, meshtest.Cluster{Name: name, TLS: true}.Marshal())
	_, err := say(t.Context(), refer(t, join(t, testConfig(cp, "consumer"))))
	if own := problem(t, err); own.Stage != proxyless.StageEndpoint || !strings.Contains(own.Error(), "handshake failed") {
		t.Errorf("got %v", own)
	}
}

func TestInboundPolicyThatCannotBeEnforcedRefusesCalls(t *testing.T) {
	for name, tt := range map[string]struct {
		in   meshtest.Inbound
		want codes.Code
	}{
		"mutual TLS":    {meshtest.Inbound{TLS: true}, codes.Unavailable}, // there is no certificate, and no connection
		"authorization": {meshtest.Inbound{Filters: []meshtest.HTTPFilter{meshtest.RBACFilter(true, meshtest.Policy{Name: "deny"})}}, codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			cp := meshtest.New(t)
			one := startProvider(t, cp, &echo{name: "one"})
			cp.SetService(echoService(one.endpoint()))
			inv := refer(t, join(t, testConfig(cp, "consumer")))
			if _, err := say(t.Context(), inv); err != nil {
				t.Fatalf("without policy: %v", err)
			}
			asked(t, cp, one)
			cp.SetInbound(one.addr.String(), tt.in)
			if err := cp.WaitSettled(t.Context()); err != nil {
				t.Fatal(err)
			}
			ctx := bounded(t, 10*time.Second)
			for _, err := say(ctx, inv); status.Code(err) != tt.want; _, err = say(ctx, inv) { // by the old policy until the caller heard of it
				if ctx.Err() != nil {
					t.Fatalf("with policy: %v", err)
				}
			}
			cp.SetInbound(one.addr.String(), meshtest.Inbound{})
			if err := cp.WaitSettled(t.Context()); err != nil {
				t.Fatal(err)
			}
			eventually(t, inv, "one")
		})
	}
}

func TestInterceptorsRunOncePerCall(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	cfg := testConfig(cp, "consumer")
	var order []string
	count := func(name string) grpc.UnaryClientInterceptor {
		return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			order = append(order, name)
			return next(ctx, method, req, reply, cc, opts...)
		}
	}
	cfg.UnaryInterceptors = []grpc.UnaryClientInterceptor{count("outer"), count("inner")}
	var attempts atomic.Int32
	cfg.DialOptions = []grpc.DialOption{grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		attempts.Add(1)
		return next(ctx, method, req, reply, cc, opts...)
	})}
	if _, err := say(t.Context(), refer(t, join(t, cfg))); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(order) != "[outer inner]" || attempts.Load() != 1 {
		t.Errorf("interceptors %v, attempts %d", order, attempts.Load())
	}
}

func TestADeadReplicaOfTheControlPlaneIsPassedOver(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	cfg := testConfig(cp, "consumer")
	cfg.ControlPlanes = []string{"127.0.0.1:1", cp.Addr()}
	if _, err := say(t.Context(), refer(t, join(t, cfg))); err != nil {
		t.Error(err)
	}
}

func TestReferExplainsWhatIsMissing(t *testing.T) {
	mesh := join(t, testConfig(meshtest.New(t), "consumer"))
	for name, opts := range map[string][]proxyless.ReferOption{
		"no providedBy": nil,
		"two":           {proxyless.ProvidedBy("a,b")},
		"port":          {proxyless.ProvidedBy("a:b")},
	} {
		if _, err := mesh.Refer(echoInterface, opts...); err == nil || problem(t, err).Stage != proxyless.StageConfig {
			t.Errorf("%s: %v", name, err)
		}
	}
	mesh.Close()
	if _, err := mesh.Refer(echoInterface, proxyless.ProvidedBy("a")); !errors.Is(err, proxyless.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestACloseLeavesNothingBehind(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	use := func() {
		mesh := join(t, testConfig(cp, "consumer"))
		inv := refer(t, mesh)
		ready(t, mesh)
		if _, err := say(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		mesh.Close()
		if _, err := say(t.Context(), inv); err == nil {
			t.Error("a call after Close succeeded")
		}
	}
	use()
	before := runtime.NumGoroutine()
	for range 5 {
		use()
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond) // gRPC ends some of its goroutines after Close has returned
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines before, %d after\n%s", before, n, buf[:runtime.Stack(buf, true)])
	}
}

func TestAClosedReferenceIsForgotten(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	other := echoService(one.endpoint())
	other.Name = "other"
	cp.SetService(other)
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	stays, err := mesh.Refer(echoInterface, proxyless.ProvidedBy("other"), proxyless.Version("1.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, inv := range []*proxyless.Invoker{inv, stays} {
		if _, err := say(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
	}
	inv.Close()
	_, err = cp.WaitRequest(t.Context(), func(r meshtest.Request) bool {
		if r.Delta {
			return r.TypeURL == meshtest.ClusterLoadAssignmentType && len(r.Unsubscribed) == 1 && strings.Contains(r.Unsubscribed[0], "echo")
		}
		return r.TypeURL == meshtest.ClusterLoadAssignmentType && len(r.Names) == 1 && strings.Contains(r.Names[0], "other") && r.Nonce != ""
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := say(t.Context(), stays); err != nil {
		t.Error(err)
	}
	if _, err := say(t.Context(), inv); !errors.Is(err, proxyless.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
