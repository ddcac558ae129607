package proxyless_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

const (
	echoInterface = "test.Echo"
	echoMethod    = "/" + echoInterface + "/say"
	echoStream    = "/" + echoInterface + "/chat"
	testNamespace = "demo"
	testPort      = 50052
)

// echo answers with its own name, so that a test sees who answered.
type echo struct {
	name string
	hold chan struct{} // when set, calls wait for it
	seen func(context.Context)
}

var echoDesc = grpc.ServiceDesc{
	ServiceName: echoInterface,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "say", Handler: func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := dec(in); err != nil {
			return nil, err
		}
		handler := func(ctx context.Context, req any) (any, error) {
			return srv.(*echo).say(ctx, req.(*wrapperspb.StringValue))
		}
		if interceptor == nil {
			return handler(ctx, in)
		}
		return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: echoMethod}, handler)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "chat", ServerStreams: true, ClientStreams: true, Handler: func(srv any, stream grpc.ServerStream) error {
		for {
			in := new(wrapperspb.StringValue)
			if err := stream.RecvMsg(in); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(wrapperspb.String(srv.(*echo).name + ":" + in.Value)); err != nil {
				return err
			}
		}
	}}},
}

func (e *echo) say(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	if e.seen != nil {
		e.seen(ctx)
	}
	if e.hold != nil {
		select {
		case <-e.hold:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	return wrapperspb.String(e.name + ":" + in.Value), nil
}

func quiet() *slog.Logger {
	if os.Getenv("PROXYLESS_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// testConfig is that of a member of the control plane's mesh without QoS port.
func testConfig(cp *meshtest.ControlPlane, name string) proxyless.Config {
	return proxyless.Config{
		Application:             name,
		ControlPlanes:           []string{cp.Addr()},
		PlainText:               true,
		ControlPlaneDialOptions: cp.DialOptions(),
		Node:                    proxyless.Node{IP: "127.0.0.1", Pod: name, Namespace: testNamespace},
		Host:                    "127.0.0.1",
		Port:                    -1,
		ShutdownDelay:           -1,
		QoS:                     proxyless.QoS{Disabled: true},
		Logger:                  quiet(),
	}
}

// useLeanView makes a test that is about the lean view run in it.
func useLeanView(t *testing.T) { t.Setenv("DUBBO_REGISTRY_VIEW", "lean") }

func join(t testing.TB, cfg proxyless.Config) *proxyless.Mesh {
	t.Helper()
	mesh, err := proxyless.Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	return mesh
}

// provider is one process that exports echo.
type provider struct {
	addr *net.TCPAddr
	stop func() error // drains, and returns what Serve returned
}

func startProvider(t testing.TB, cp *meshtest.ControlPlane, e *echo, change ...func(*proxyless.Config)) *provider {
	t.Helper()
	cfg := testConfig(cp, "provider")
	for _, f := range change {
		f(&cfg)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mesh := join(t, cfg)
	server := mesh.NewServer()
	server.With(proxyless.Version("1.0.0")).RegisterService(&echoDesc, e)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.ServeListener(ctx, lis) }()
	stop := sync.OnceValue(func() error { cancel(); return <-served })
	t.Cleanup(func() { stop() })
	return &provider{lis.Addr().(*net.TCPAddr), stop}
}

func (p *provider) endpoint() meshtest.Endpoint {
	return meshtest.Endpoint{Address: p.addr.IP.String(), Port: uint32(p.addr.Port)}
}

func echoService(endpoints ...meshtest.Endpoint) meshtest.Service {
	return meshtest.Service{Name: "echo", Namespace: testNamespace, Ports: []meshtest.Port{{Name: "grpc-tri", Number: testPort}}, Endpoints: endpoints}
}

func refer(t testing.TB, mesh *proxyless.Mesh, opts ...proxyless.ReferOption) *proxyless.Invoker {
	t.Helper()
	inv, err := mesh.Refer(echoInterface, append([]proxyless.ReferOption{proxyless.ProvidedBy("echo"), proxyless.Version("1.0.0")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func say(ctx context.Context, inv *proxyless.Invoker, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	err := inv.Invoke(ctx, echoMethod, wrapperspb.String("hi"), out, opts...)
	who, _, _ := strings.Cut(out.Value, ":")
	return who, err
}

func ready(t testing.TB, mesh *proxyless.Mesh) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := mesh.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCallsGoToEveryProviderInTurn(t *testing.T) {
	cp := meshtest.New(t)
	one, two := startProvider(t, cp, &echo{name: "one"}), startProvider(t, cp, &echo{name: "two"})
	cp.SetService(echoService(one.endpoint(), two.endpoint()))
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	ready(t, mesh)
	last := ""
	for range 20 {
		who, err := say(t.Context(), inv)
		if err != nil {
			t.Fatal(err)
		}
		if who == last {
			t.Errorf("%s answered twice in a row", who)
		}
		last = who
	}
}

func TestStreamsAreRoutedToo(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	inv := refer(t, join(t, testConfig(cp, "consumer")))
	stream, err := inv.NewStream(t.Context(), &echoDesc.Streams[0], echoStream)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := stream.SendMsg(wrapperspb.String(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		out := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(out); err != nil || out.Value != fmt.Sprintf("one:%d", i) {
			t.Fatalf("got %q, %v", out.Value, err)
		}
	}
	stream.CloseSend()
	if err := stream.RecvMsg(new(wrapperspb.StringValue)); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}
}

// under keeps calling until stop, and returns how many calls were made and the
// first errors.
func under(inv *proxyless.Invoker, callers int) (stop func() (calls int, failures []error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	var wg sync.WaitGroup
	calls := 0
	var failures []error
	for range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := say(context.Background(), inv)
				mu.Lock()
				calls++
				if err != nil && len(failures) < 5 {
					failures = append(failures, err)
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		cancel()
		wg.Wait()
		return calls, failures
	}
}

func TestNoCallIsLostWhileProvidersComeAndGo(t *testing.T) {
	cp := meshtest.New(t)
	providers := []*provider{}
	for i := range 3 {
		providers = append(providers, startProvider(t, cp, &echo{name: fmt.Sprint(i)}))
	}
	cp.SetService(echoService(providers[0].endpoint()))
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	ready(t, mesh)
	stop := under(inv, 4)
	for range 10 {
		for n := range 3 {
			eps := []meshtest.Endpoint{}
			for i := range n + 1 {
				eps = append(eps, providers[(i+n)%3].endpoint())
			}
			cp.SetEndpoints("echo", testNamespace, eps...)
			if err := cp.WaitSettled(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := providers[1].stop(); err != nil { // one drains while it is still listed
		t.Error(err)
	}
	if calls, failures := stop(); len(failures) > 0 || calls == 0 {
		t.Errorf("%d calls, failures %v", calls, failures)
	}
}

func TestNoCallIsLostWhileTheControlPlaneRestarts(t *testing.T) {
	cp := meshtest.New(t)
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	ready(t, mesh)
	stop := under(inv, 2)
	cp.StopListening()
	time.Sleep(50 * time.Millisecond)
	two := startProvider(t, cp, &echo{name: "two"})
	cp.SetService(echoService(two.endpoint()))
	if err := cp.Restart(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for who := ""; who != "two"; {
		if who, _ = say(t.Context(), inv); time.Now().After(deadline) {
			t.Fatal("the new provider is never called")
		}
	}
	if calls, failures := stop(); len(failures) > 0 {
		t.Errorf("%d calls, failures %v", calls, failures)
	}
}

func TestUnknownServiceFailsWithTheChain(t *testing.T) {
	t.Parallel()
	cp := meshtest.New(t)
	cfg := testConfig(cp, "consumer")
	cfg.ResourceTimeout = 2 * time.Second
	inv := refer(t, join(t, cfg))
	_, err := say(t.Context(), inv)
	var own *proxyless.Error
	if !errors.As(err, &own) || status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v", err)
	}
	if own.Stage != proxyless.StageListener || !strings.Contains(own.Error(), "providedBy") || !strings.Contains(own.Chain, "listener echo") {
		t.Errorf("the error does not say what to do: %v", own)
	}
	one := startProvider(t, cp, &echo{name: "one"})
	cp.SetService(echoService(one.endpoint()))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if who, err := say(ctx, inv, grpc.WaitForReady(true)); err != nil || who != "one" {
		t.Errorf("after the service appeared: %q, %v", who, err)
	}
}

func TestHeadersAndAttachmentsTravel(t *testing.T) {
	cp := meshtest.New(t)
	var got metadata.MD
	one := startProvider(t, cp, &echo{name: "one", seen: func(ctx context.Context) {
		got, _ = metadata.FromIncomingContext(ctx)
		grpc.SetTrailer(ctx, metadata.Pairs("answer", "42"))
	}})
	cp.SetService(echoService(one.endpoint()))
	inv := refer(t, join(t, testConfig(cp, "consumer")), proxyless.Port(testPort))
	var trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "colour", "blue")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := say(ctx, inv, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"tri-service-version": "1.0.0", "tri-consumer-appname": "consumer", "colour": "blue",
		":authority": fmt.Sprintf("echo:%d", testPort), "content-type": "application/grpc+proto",
	} {
		if v := got.Get(name); len(v) != 1 || v[0] != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	if v := trailer.Get("answer"); len(v) != 1 || v[0] != "42" {
		t.Errorf("trailer %v", trailer)
	}
}
