package proxyless

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/proxyless/proxyless/meshtest"
)

// exportTalk exports a talker under [group/]version, named after it.
func exportTalk(s *Server, name string) *talker {
	group, version, ok := strings.Cut(name, "/")
	if !ok {
		group, version = "", name
	}
	impl := &talker{name: name}
	s.With(Group(group), Version(version)).RegisterService(talkDesc, impl)
	return impl
}

// testLog collects the log of a test.
type testLog struct {
	mu      sync.Mutex
	written sync.Cond
	b       strings.Builder
}

func newTestLog() (*testLog, *slog.Logger) {
	l := new(testLog)
	l.written.L = &l.mu
	return l, slog.New(slog.NewTextHandler(l, nil))
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written.Broadcast()
	return l.b.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await returns when the log has the text.
func (l *testLog) await(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !strings.Contains(l.b.String(), text) {
		l.written.Wait()
	}
}

// serving is a Server that serves in memory, until stop is called or the test
// ends.
type serving struct {
	*Server
	life *lifecycle
	log  *testLog
	lis  *meshtest.Pipe
	stop context.CancelFunc
	done chan struct{} // closed when ServeListener has returned
	err  error         // what it returned

	security securityState // what QoS is told
}

func serveTalk(t *testing.T, cfg *Config, hooks serverHooks, register func(*Server), opts ...grpc.ServerOption) *serving {
	t.Helper()
	records, log := newTestLog()
	r := &serving{log: records, life: newLifecycle(log), lis: meshtest.NewPipe(), done: make(chan struct{})}
	r.Server = newServer(cfg, log, r.life, hooks, opts)
	register(r.Server)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { // ended by the test's clean-up
		defer close(r.done)
		r.err = r.ServeListener(ctx, r.lis)
	}()
	t.Cleanup(func() {
		stop()
		<-r.done
	})
	r.log.await("provider is serving")
	return r
}

func (r *serving) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///talk",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func startTalk(t *testing.T, cfg *Config, hooks serverHooks, register func(*Server), opts ...grpc.ServerOption) (*Server, *grpc.ClientConn) {
	t.Helper()
	if cfg.ShutdownTimeout == 0 {
		cfg.ShutdownTimeout = 5 * time.Second
	}
	r := serveTalk(t, cfg, hooks, register, opts...)
	return r.Server, r.dial(t)
}

func healthOf(t *testing.T, conn *grpc.ClientConn, service string) string {
	t.Helper()
	answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		return status.Code(err).String()
	}
	return answer.Status.String()
}

func TestServeOnTCP(t *testing.T) {
	listening := make(chan netip.AddrPort, 1)
	log := slog.New(slog.DiscardHandler)
	s := newServer(&Config{Host: "127.0.0.1", Port: -1, ShutdownTimeout: time.Second}, log, newLifecycle(log),
		serverHooks{listening: func(addr netip.AddrPort) { listening <- addr }}, nil)
	exportTalk(s, "1.0.0")
	if s.Addr() != nil {
		t.Errorf("address before Serve: %v", s.Addr())
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }() // ended by stop
	addr := <-listening
	if addr.String() != s.Addr().String() || addr.Port() == 0 {
		t.Errorf("announced %v, listens on %v", addr, s.Addr())
	}
	conn, err := grpc.NewClient(addr.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := talkSay(t.Context(), conn, "Say", "x"); err != nil || got != "1.0.0:x" {
		t.Errorf("answer %q, %v", got, err)
	}
	var again *Error
	if err := s.Serve(ctx); !errors.As(err, &again) || again.Stage != StageProvider || !strings.Contains(err.Error(), "Serve was called before") {
		t.Errorf("second Serve: %v", err)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

func TestAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	log := slog.New(slog.DiscardHandler)
	s := newServer(&Config{Host: "127.0.0.1", Port: taken.Addr().(*net.TCPAddr).Port}, log, newLifecycle(log), serverHooks{}, nil)
	err = s.Serve(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Stage != StageProvider || e.Resource != taken.Addr().String() || !strings.Contains(err.Error(), "dubbo.protocol.port") {
		t.Fatalf("error = %v", err)
	}
	taken.Close()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Serve(done); err != nil {
		t.Errorf("Serve after failing to listen = %v", err)
	}
}

func TestListenAdvice(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EADDRINUSE: "DUBBO_PORT_TO_BIND", syscall.EADDRNOTAVAIL: "address of this machine",
		syscall.EACCES: "below 1024", io.EOF: "check Config.Host and Config.Port",
	} {
		if got := listenAdvice(&net.OpError{Op: "listen", Err: err}); !strings.Contains(got, want) {
			t.Errorf("%v: %s", err, got)
		}
	}
}

func TestServeOfAClosedMesh(t *testing.T) {
	done := make(chan struct{})
	close(done)
	log := slog.New(slog.DiscardHandler)
	s := newServer(&Config{Host: "127.0.0.1", Port: -1}, log, newLifecycle(log), serverHooks{done: done}, nil)
	if err := s.Serve(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("error = %v", err)
	}
}

func TestMeshCloseDrains(t *testing.T) {
	done := make(chan struct{})
	r := serveTalk(t, &Config{ShutdownTimeout: time.Second}, serverHooks{done: done}, func(*Server) {})
	close(done)
	<-r.done
	if r.err != nil {
		t.Errorf("ServeListener = %v", r.err)
	}
}

func TestListenerThatFails(t *testing.T) {
	r := serveTalk(t, &Config{ShutdownDelay: time.Hour, ShutdownTimeout: time.Second}, serverHooks{}, func(*Server) {})
	r.lis.Close()
	<-r.done
	if r.err == nil || !strings.Contains(r.err.Error(), "stopped accepting connections") {
		t.Errorf("ServeListener = %v", r.err)
	}
}

func TestPanicIsInternalAndLogged(t *testing.T) {
	r := serveTalk(t, &Config{ShutdownTimeout: time.Second}, serverHooks{}, func(s *Server) {
		exportTalk(s, "").say = func(context.Context, string) (string, error) { panic("secret detail") }
	})
	conn := r.dial(t)
	_, unary := talkSay(t.Context(), conn, "Say", "x")
	_, stream := talkStream(t.Context(), conn, "Chat", "x")
	for method, err := range map[string]error{"/org.x.Talk/Say": unary, "/org.x.Talk/Chat": stream} {
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), method) {
			t.Errorf("%s: %v", method, err)
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), ".go:") {
			t.Errorf("%s: the caller sees the inside: %v", method, err)
		}
		for _, want := range []string{"secret detail", "method=" + method, "dispatch_test.go"} {
			if !strings.Contains(r.log.String(), want) {
				t.Errorf("log lacks %q", want)
			}
		}
	}
}

func TestPanicInUnknownServiceHandler(t *testing.T) {
	_, conn := startTalk(t, &Config{}, serverHooks{}, func(*Server) {},
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { panic("oh") }))
	if _, err := talkSay(t.Context(), conn, "Say", "x"); status.Code(err) != codes.Internal {
		t.Errorf("error = %v", err)
	}
}

// statsRecorder notes the methods a stats handler is told of.
type statsRecorder struct {
	mu      sync.Mutex
	methods []string
}

func (*statsRecorder) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*statsRecorder) HandleConn(context.Context, stats.ConnStats)                       {}
func (*statsRecorder) HandleRPC(context.Context, stats.RPCStats)                         {}
func (r *statsRecorder) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.methods = append(r.methods, info.FullMethodName)
	return ctx
}

func TestUserOptionsSeeTheRealMethodAndImplementation(t *testing.T) {
	type seen struct {
		method string
		server any
	}
	var mu sync.Mutex
	var calls []seen
	note := func(method string, server any) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, seen{method, server})
	}
	recorder := new(statsRecorder)
	var two *talker
	_, conn := startTalk(t, &Config{ServerOptions: []grpc.ServerOption{
		grpc.StatsHandler(recorder),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			note(info.FullMethod, info.Server)
			return handler(ctx, request)
		}),
	}}, serverHooks{}, func(s *Server) {
		exportTalk(s, "1.0.0")
		two = exportTalk(s, "2.0.0")
	}, grpc.ChainStreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		note(info.FullMethod, server)
		return handler(server, stream)
	}))
	ctx := talkContext(t.Context(), "2.0.0", "-")
	if _, err := talkSay(ctx, conn, "Say", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := talkStream(ctx, conn, "Chat", "x"); err != nil {
		t.Fatal(err)
	}
	want := []seen{{"/org.x.Talk/Say", two}, {"/org.x.Talk/Chat", two}}
	if !slices.Equal(calls, want) {
		t.Errorf("interceptors saw %v, want %v", calls, want)
	}
	if got := strings.Join(recorder.methods, " "); got != "/org.x.Talk/Say /org.x.Talk/Chat" {
		t.Errorf("the stats handler saw %s", got)
	}
}

func TestInterceptorMaySwapTheImplementation(t *testing.T) {
	_, conn := startTalk(t, &Config{}, serverHooks{}, func(s *Server) { exportTalk(s, "1.0.0") },
		grpc.ChainStreamInterceptor(func(_ any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return handler(&talker{name: "other"}, stream)
		}))
	if got, err := talkStream(t.Context(), conn, "Chat", "x"); err != nil || got != "other:x" {
		t.Errorf("answer %q, %v", got, err)
	}
}

func TestAttachmentsTravelBothWays(t *testing.T) {
	_, conn := startTalk(t, &Config{}, serverHooks{}, func(s *Server) {
		exportTalk(s, "").say = func(ctx context.Context, _ string) (string, error) {
			grpc.SetHeader(ctx, metadata.Pairs("answered-by", "me"))
			grpc.SetTrailer(ctx, metadata.Pairs("cost", "3"))
			return strings.Join(metadata.ValueFromIncomingContext(ctx, "tri-consumer-appname"), ""), nil
		}
	})
	var header, trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "tri-consumer-appname", "app")
	got, err := talkSay(ctx, conn, "Say", "x", grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil || got != "app" {
		t.Errorf("answer %q, %v", got, err)
	}
	if header.Get("answered-by") == nil || trailer.Get("cost") == nil {
		t.Errorf("header %v, trailer %v", header, trailer)
	}
}

func TestServiceInfoAndReflection(t *testing.T) {
	s, _ := startTalk(t, &Config{}, serverHooks{}, func(s *Server) {
		s.With(Version("1.0.0")).RegisterService(newTalkDesc("Say"), &talker{})
		s.With(Version("2.0.0")).RegisterService(newTalkDesc("Say", "Chat"), &talker{})
		reflection.Register(s)
	})
	infos := s.GetServiceInfo()
	want := []grpc.MethodInfo{{Name: "Chat", IsClientStream: true, IsServerStream: true}, {Name: "Say"}}
	if got := infos[talkInterface]; !slices.Equal(got.Methods, want) || got.Metadata != "talk.proto" {
		t.Errorf("info = %+v", got)
	}
	for _, name := range []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} {
		if _, ok := infos[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if got := s.exportKeys(); !slices.Equal(got, []string{"org.x.Talk:1.0.0", "org.x.Talk:2.0.0"}) {
		t.Errorf("exports = %v", got)
	}
}

func TestUsersOwnHealthService(t *testing.T) {
	own := health.NewServer()
	own.SetServingStatus("mine", healthpb.HealthCheckResponse_SERVING)
	_, conn := startTalk(t, &Config{}, serverHooks{}, func(s *Server) { healthpb.RegisterHealthServer(s, own) })
	if got := healthOf(t, conn, "mine"); got != "SERVING" {
		t.Errorf("health = %s", got)
	}
}

func TestDrainLetsTheCallInFlightFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		r := serveTalk(t, &Config{ShutdownTimeout: 10 * time.Second}, serverHooks{}, func(s *Server) {
			exportTalk(s, "").say = func(context.Context, string) (string, error) {
				<-finish
				return "done", nil
			}
		})
		answer := callInBackground(r.dial(t))
		synctest.Wait()
		r.stop()
		synctest.Wait()
		select {
		case <-r.done:
			t.Error("Serve returned before the call had finished")
		default:
		}
		close(finish)
		if got := <-answer; got != "done" {
			t.Errorf("the call in flight: %s", got)
		}
		<-r.done
		if r.err != nil {
			t.Errorf("ServeListener = %v", r.err)
		}
	})
}

func TestDrainCutsWhatDoesNotFinish(t *testing.T) {
	for name, stubborn := range map[string]bool{"handler heeds its context": false, "handler does not": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				finish := make(chan struct{})
				r := serveTalk(t, &Config{ShutdownTimeout: 10 * time.Second}, serverHooks{}, func(s *Server) {
					exportTalk(s, "").say = func(ctx context.Context, _ string) (string, error) {
						if stubborn {
							<-finish
						}
						<-ctx.Done()
						return "", ctx.Err()
					}
				})
				answer := callInBackground(r.dial(t))
				synctest.Wait()
				told := time.Now()
				r.stop()
				<-r.done
				if r.err == nil || !strings.Contains(r.err.Error(), "within 10s") || !strings.Contains(r.err.Error(), "dubbo.service.shutdown.wait") {
					t.Errorf("ServeListener = %v", r.err)
				}
				if took := time.Since(told); took != 10*time.Second {
					t.Errorf("drained in %v", took)
				}
				if got := <-answer; got != codes.Unavailable.String() {
					t.Errorf("the call that was cut: %s", got)
				}
				close(finish)
			})
		})
	}
}

// callInBackground sends the answer to one call, or its status code.
func callInBackground(conn *grpc.ClientConn) <-chan string {
	answer := make(chan string, 1)
	go func() { // ended by the answer
		got, err := talkSay(context.Background(), conn, "Say", "x")
		if err != nil {
			got = status.Code(err).String()
		}
		answer <- got
	}()
	return answer
}

func TestDrainServesOnDuringTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serveTalk(t, &Config{ShutdownDelay: 5 * time.Second, ShutdownTimeout: 10 * time.Second}, serverHooks{}, func(s *Server) { exportTalk(s, "") })
		conn := r.dial(t)
		if got := healthOf(t, conn, ""); got != "SERVING" {
			t.Errorf("health = %s", got)
		}
		told := time.Now()
		r.stop()
		synctest.Wait()
		if ok, why := r.life.ready(); ok || !strings.Contains(strings.Join(why, ""), "draining") {
			t.Errorf("ready = %v, %v", ok, why)
		}
		time.Sleep(4 * time.Second)
		if got, err := talkSay(t.Context(), conn, "Say", "x"); err != nil || got != ":x" {
			t.Errorf("a call during the delay: %q, %v", got, err)
		}
		for _, service := range []string{"", talkInterface} {
			if got := healthOf(t, conn, service); got != "NOT_SERVING" {
				t.Errorf("health of %q = %s", service, got)
			}
		}
		<-r.done
		if took := time.Since(told); r.err != nil || took < 5*time.Second || took > 6*time.Second {
			t.Errorf("drained in %v, %v", took, r.err)
		}
		conn.Close()
	})
}

func TestConcurrentCallsAndProbes(t *testing.T) {
	r := serveTalk(t, &Config{ShutdownTimeout: 5 * time.Second}, serverHooks{}, func(s *Server) {
		exportTalk(s, "1.0.0")
		exportTalk(s, "2.0.0")
	})
	conn := r.dial(t)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 20 {
				version := []string{"1.0.0", "2.0.0"}[i%2]
				if got, err := talkSay(talkContext(t.Context(), version, "-"), conn, "Say", "x"); err != nil || got != version+":x" {
					t.Errorf("answer %q, %v", got, err)
				}
				r.life.offline("")
				r.life.ready()
				r.life.online("")
				healthOf(t, conn, talkInterface)
			}
		})
	}
	group.Wait()
}
