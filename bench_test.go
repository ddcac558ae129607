package proxyless

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

// These benchmarks run without rivals; benchmarks/ has those beside grpc-go
// xDS and dubbo-go. Where there is an ideal it runs in the same benchmark,
// since ratios carry over from one machine to another and times do not.

// BenchmarkPick chooses one of the ready endpoints, which all weigh the same.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 10, 1000, 10_000} {
		s := readySet(n, func(int) uint32 { return 1 })
		ideal := newCounterOverSlice(s)
		for _, c := range []struct {
			name string
			pick func() *cell
		}{{"proxyless", s.pickOne}, {"atomic-counter-over-a-slice", ideal.pick}} {
			benchmarkPick(b, fmt.Sprintf("endpoints=%d/%s", n, c.name), c.pick)
		}
	}
}

// BenchmarkPickWeighted chooses among endpoints of the weights 1 to 4.
func BenchmarkPickWeighted(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		s := readySet(n, func(i int) uint32 { return uint32(1 + i%4) })
		benchmarkPick(b, fmt.Sprintf("endpoints=%d", n), s.pickOne)
	}
}

var picked atomic.Pointer[cell] // keeps the compiler from dropping picks

func benchmarkPick(b *testing.B, name string, pick func() *cell) {
	b.Run(name+"/serial", func(b *testing.B) {
		b.ReportAllocs()
		var c *cell
		for b.Loop() {
			c = pick()
		}
		picked.Store(c)
	})
	b.Run(name+"/parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			var c *cell
			for pb.Next() {
				c = pick()
			}
			picked.Store(c)
		})
	})
}

// BenchmarkRoute loads the plan and finds the route of a call, which is always
// the last one. Beside it stands the load alone.
func BenchmarkRoute(b *testing.B) {
	m := newHandFed()
	m.feed(fedService(1))
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.Pairs("user", "jason", "colour", "blue"))
	b.Run("bare-atomic-load", func(b *testing.B) {
		var p *plan
		for b.Loop() {
			p = m.inv.plan.Load()
		}
		runtime.KeepAlive(p)
	})
	for _, c := range routeCases {
		m.feed(fedRoutes(c.routes...))
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var r *plannedRoute
			for b.Loop() {
				r = loadAndRoute(ctx, m.inv, c.method)
			}
			if r == nil || r.name != "last" {
				b.Fatalf("found %v", r)
			}
		})
	}
}

// BenchmarkUpdate takes an update from its bytes to the plan in force: one
// endpoint of 10 000 changed. In one case no endpoint is connected, in the
// other all are.
func BenchmarkUpdate(b *testing.B) {
	const n = 10_000
	updates := [][]byte{fedEndpoints(n, 0), fedEndpoints(n, n/2)}
	for _, c := range []struct {
		name    string
		connect bool
	}{{"none-connected", false}, {"all-connected", true}} {
		b.Run(fmt.Sprintf("endpoints=%d/changed=1/%s", n, c.name), func(b *testing.B) {
			m := newHandFed()
			m.feed(fedService(n))
			if c.connect {
				connectAll(m.inv.plan.Load().sets[0])
			}
			b.SetBytes(int64(len(updates[0])))
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				before := m.inv.plan.Load()
				i++
				m.feed(updates[i%2 : i%2+1])
				if m.inv.plan.Load() == before {
					b.Fatal("no new plan")
				}
			}
		})
	}
	b.Run(fmt.Sprintf("endpoints=%d/unchanged", n), func(b *testing.B) {
		m := newHandFed()
		m.feed(fedService(n))
		b.SetBytes(int64(len(updates[0])))
		b.ReportAllocs()
		for b.Loop() {
			m.feed(updates[:1])
		}
	})
}

// BenchmarkHeap reports what a watched cluster of 10 000 endpoints holds on to
// before any call: configuration, snapshot and plan, without the ADS stream.
func BenchmarkHeap(b *testing.B) {
	const n = 10_000
	var held []*handFed
	before := heapInUse()
	for b.Loop() {
		m := newHandFed()
		m.feed(fedService(n))
		held = append(held, m)
	}
	bytes := float64(heapInUse()-before) / float64(len(held))
	runtime.KeepAlive(held)
	b.ReportMetric(bytes, "B/cluster")
	b.ReportMetric(bytes/n, "B/endpoint")
	b.ReportMetric(0, "ns/op")
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkAttempt goes from the plan to a connection and back, without and
// with what protects providers.
func BenchmarkAttempt(b *testing.B) {
	m := newHandFed()
	m.feed(fedService(10))
	for _, name := range slices.Sorted(maps.Keys(protections)) {
		connectAll(m.recluster(protections[name]))
		b.Run(name+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !m.attemptOnce() {
					b.Fatal("nothing was picked")
				}
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					m.attemptOnce()
				}
			})
		})
	}
}

// protections are what a cluster may ask for to protect its endpoints.
var protections = map[string]func(*cluster){
	"none":    func(*cluster) {},
	"outlier": func(c *cluster) { c.outlier = outlierDefaults(nil) },
	"outlier-rates": func(c *cluster) {
		c.outlier = outlierDefaults(func(d *outlierDetection) { d.enforceSuccessRate = 100 })
	},
	"limits":         func(c *cluster) { c.limits = &breakers{requests: 1 << 20, pending: 1, retries: 1, connections: 1} },
	"outlier+limits": func(c *cluster) { c.outlier, c.limits = outlierDefaults(nil), &breakers{requests: 1 << 20, pending: 1} },
}

// attemptOnce goes from the plan to a connection and counts the attempt out.
func (f *handFed) attemptOnce() bool {
	w, _ := f.inv.plan.Load().find(context.Background(), wireMethod)
	a, _ := w.pick(choice{})
	if a.conn == nil {
		return false
	}
	a.finish(nil)
	return true
}

// BenchmarkInvokeProtected sends a unary call through memory and back, without
// and with what protects providers.
func BenchmarkInvokeProtected(b *testing.B) {
	w := newWire(b)
	in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
	for _, name := range []string{"none", "outlier+limits"} {
		w.fed.recluster(protections[name])
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := w.inv.Invoke(context.Background(), wireMethod, in, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkInvoke sends a unary call through memory and back: through an
// Invoker, and through a ClientConn with the same headers.
func BenchmarkInvoke(b *testing.B) {
	w := newWire(b)
	for _, c := range w.callers() {
		call := func(b *testing.B, in, out *wrapperspb.StringValue) {
			if err := c.conn.Invoke(c.ctx, wireMethod, in, out); err != nil {
				b.Error(err)
			}
		}
		b.Run(c.name+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
			for b.Loop() {
				call(b, in, out)
			}
		})
		b.Run(c.name+"/parallel=32", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
				for pb.Next() {
					call(b, in, out)
				}
			})
		})
	}
}

// BenchmarkInvokeUnderPolicy sends a unary call through memory and back, under
// no policy, under the one that Istio gives to every route, and under others.
func BenchmarkInvokeUnderPolicy(b *testing.B) {
	w := newWire(b)
	route := &w.inv.plan.Load().routes.routes[0]
	for _, c := range []struct {
		name   string
		policy *routePolicy
	}{
		{"none", nil},
		{"istio-default-retry", &routePolicy{retry: istioRetry()}},
		{"headers", &routePolicy{headers: headerPolicy{request: headerMutations{change: []headerChange{{name: "a", value: "b"}}}}}},
		{"per-try-timeout", &routePolicy{retry: &retryPolicy{codes: 1, perTry: time.Minute}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			route.policy = c.policy
			in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
			for b.Loop() {
				if err := w.inv.Invoke(context.Background(), wireMethod, in, out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStream opens a stream, sends one message, hears one and ends; and
// sends and hears messages on a stream that is open: through an Invoker and
// through a ClientConn.
func BenchmarkStream(b *testing.B) {
	w := newWire(b)
	desc := &grpc.StreamDesc{StreamName: "Chat", ClientStreams: true, ServerStreams: true}
	in, out := wrapperspb.String("hello"), new(wrapperspb.StringValue)
	turn := func(b *testing.B, s grpc.ClientStream) {
		if err := s.SendMsg(in); err != nil {
			b.Fatal(err)
		}
		if err := s.RecvMsg(out); err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range w.callers() {
		b.Run("short/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := c.conn.NewStream(c.ctx, desc, "/greet.Greeting/Chat")
				if err != nil {
					b.Fatal(err)
				}
				turn(b, s)
				s.CloseSend()
				s.RecvMsg(out)
			}
		})
		b.Run("message/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			s, err := c.conn.NewStream(c.ctx, desc, "/greet.Greeting/Chat")
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				turn(b, s)
			}
			s.CloseSend()
			s.RecvMsg(out)
		})
	}
}

// wire is a server behind a pipe, with an Invoker and a ClientConn that both
// lead to it.
type wire struct {
	fed  *handFed
	inv  *Invoker
	bare *grpc.ClientConn
}

const wireMethod = "/greet.Greeting/SayHello"

func newWire(tb testing.TB) *wire {
	pipe := meshtest.NewPipe()
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "greet.Greeting", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "SayHello", Handler: answerItself}},
		Streams: []grpc.StreamDesc{{StreamName: "Chat", Handler: answerAll, ServerStreams: true, ClientStreams: true}},
	}, new(any))
	go server.Serve(pipe) // ended by the clean-up
	tb.Cleanup(server.Stop)
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) })

	bare, err := grpc.NewClient("passthrough:///"+fedName, dial, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.CallContentSubtype("proto")))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { bare.Close() })
	m := newHandFed(dial)
	tb.Cleanup(m.mesh.table.close)
	m.feed(fedService(1))
	return &wire{fed: m, inv: m.inv, bare: bare}
}

func answerItself(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.StringValue)
	err := decode(in)
	return in, err
}

func answerAll(_ any, s grpc.ServerStream) error {
	in := new(wrapperspb.StringValue)
	for {
		if err := s.RecvMsg(in); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(in); err != nil {
			return err
		}
	}
}

type wireCaller struct {
	name string
	conn grpc.ClientConnInterface
	ctx  context.Context
}

// callers are the two ways to make the same call. The ClientConn is told the
// headers once for all calls, which is the least that a call can cost.
func (w *wire) callers() []wireCaller {
	ctx := context.Background()
	told := metadata.NewOutgoingContext(ctx, w.inv.target.headers)
	return []wireCaller{{"proxyless", w.inv, ctx}, {"bare-ClientConn", w.bare, told}}
}
