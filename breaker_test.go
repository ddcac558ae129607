package proxyless

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

// reclusters changes the cluster of a hand-fed Invoker, as an update would.
func (f *handFed) recluster(change func(c *cluster)) *endpointSet {
	return f.reassign(func(c *cluster, _ *assignment) { change(c) })
}

// reassign is recluster with the assignment.
func (f *handFed) reassign(change func(c *cluster, a *assignment)) *endpointSet {
	p := *f.inv.plan.Load()
	old := p.sets[0]
	c, a := *old.cluster, *old.from
	change(&c, &a)
	s := f.mesh.planner.set(&c, &a, c.balance, "")
	p.sets = []*endpointSet{s}
	p.superseded = make(chan struct{})
	routes := append([]plannedRoute(nil), p.routes.routes...)
	for i := range routes {
		routes[i].clusters = []plannedCluster{{name: c.name, upTo: 1, set: s}}
	}
	p.routes = newRouteTable(routes)
	f.mesh.planner.hold(&p)
	f.mesh.swap(f.inv, &p)
	return s
}

// served is an Invoker whose endpoints are all one server behind a pipe.
type served struct {
	*handFed
	handle atomic.Pointer[func(ctx context.Context) error] // of every call
	pipe   *meshtest.Pipe
	lines  lines
}

func newServed(t *testing.T, endpoints int, handle func(ctx context.Context) error, options ...grpc.ServerOption) *served {
	pipe := meshtest.NewPipe()
	v := &served{pipe: pipe}
	v.handle.Store(&handle)
	v.handFed = newHandFed(v.lines.dialer(func() *meshtest.Pipe { return pipe }))
	server := grpc.NewServer(append(options, grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		in := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(in); err != nil {
			return err
		}
		if err := (*v.handle.Load())(stream.Context()); err != nil {
			return err
		}
		return stream.SendMsg(in)
	}))...)
	go server.Serve(pipe) // ended by the clean-up
	ctx, stop := context.WithCancel(context.Background())
	go v.mesh.table.upkeep.loop(ctx)
	t.Cleanup(func() {
		stop()
		<-v.mesh.table.upkeep.done
		v.mesh.table.close()
		server.Stop()
	})
	v.feed(fedService(endpoints))
	return v
}

func (v *served) call(ctx context.Context, opts ...grpc.CallOption) error {
	return v.inv.Invoke(ctx, wireMethod, wrapperspb.String("hello"), new(wrapperspb.StringValue), opts...)
}

func TestCallsOverTheLimitAreRefused(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	v := newServed(t, 1, func(context.Context) error { entered <- struct{}{}; <-release; return nil })
	s := v.recluster(func(c *cluster) {
		c.limits = &breakers{requests: 2, pending: noLimit, retries: noLimit, connections: noLimit}
	})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			if err := v.call(t.Context()); err != nil {
				t.Error(err)
			}
		})
		<-entered
	}
	err := v.call(t.Context(), grpc.WaitForReady(true))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connectionPool.http.http2MaxRequests in the DestinationRule") {
		t.Errorf("the third call: %v", err)
	}
	if n := v.mesh.Stats().Overloads; n != 1 {
		t.Errorf("%d overloads", n)
	}
	next := v.recluster(func(c *cluster) {
		c.limits = &breakers{requests: 3, pending: noLimit, retries: noLimit, connections: noLimit}
	})
	if next.limits != s.limits {
		t.Error("an update has a count of its own")
	}
	all.Go(func() {
		if err := v.call(t.Context()); err != nil {
			t.Errorf("after the limit was raised: %v", err)
		}
	})
	<-entered
	close(release)
	all.Wait()
	if got := next.state.stats(); got.Requests != 0 || got.Pending != 0 || got.Refused.Requests != 1 {
		t.Errorf("afterwards %+v", got)
	}
}

func TestWhateverEndsACallCountsItOut(t *testing.T) {
	v := newServed(t, 1, func(ctx context.Context) error { return ctx.Err() })
	s := v.recluster(func(c *cluster) {
		c.limits = &breakers{requests: 5, pending: 5, retries: noLimit, connections: noLimit}
	})
	cancelled, cancel := context.WithCancel(t.Context())
	for name, run := range map[string]func(){
		"success": func() { v.call(t.Context()) },
		"failure": func() {
			fail := func(context.Context) error { return status.Error(codes.Internal, "") }
			v.handle.Store(&fail)
			v.call(t.Context())
		},
		"cancelled": func() { cancel(); v.call(cancelled) },
		"a stream that ends": func() {
			stream, err := v.inv.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, wireMethod)
			if err != nil {
				t.Fatal(err)
			}
			stream.SendMsg(wrapperspb.String(""))
			stream.CloseSend()
			for stream.RecvMsg(new(wrapperspb.StringValue)) == nil {
			}
		},
		"a stream that is left": func() {
			ctx, leave := context.WithCancel(t.Context())
			stream, err := v.inv.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, wireMethod)
			if err != nil {
				t.Fatal(err)
			}
			leave()
			stream.RecvMsg(new(wrapperspb.StringValue))
		},
	} {
		run()
		for range 1000 { // a stream that is left is finished by another goroutine
			if s.state.stats().Requests == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if n := s.state.stats().Requests; n != 0 {
			t.Errorf("%s: %d are left", name, n)
		}
	}
}

func TestCallsThatWaitAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newHandFed(grpc.WithContextDialer(nowhere))
		defer m.mesh.table.close()
		m.feed(fedService(1))
		s := m.recluster(func(c *cluster) {
			c.limits = &breakers{requests: noLimit, pending: 2, retries: noLimit, connections: noLimit}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		call := func() error {
			return m.inv.Invoke(ctx, wireMethod, wrapperspb.String(""), new(wrapperspb.StringValue))
		}
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				if err := call(); status.Code(err) != codes.DeadlineExceeded {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := s.state.stats().Pending; n != 2 {
			t.Errorf("%d calls count as waiting", n)
		}
		begin := time.Now()
		if err := call(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "http1MaxPendingRequests") || time.Since(begin) > 0 {
			t.Errorf("the third call, after %v: %v", time.Since(begin), err)
		}
		all.Wait()
		if got := s.state.stats(); got.Pending != 0 || got.Requests != 0 {
			t.Errorf("afterwards %+v", got)
		}
	})
}

func TestRetriesAreLimitedByNumberOrBudget(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits breakers
		active int64
		want   int
	}{
		{"a number", breakers{retries: 3}, 100, 3},
		{"none", breakers{retries: 0}, 100, 0},
		{"20 % of 100", breakers{hasBudget: true, budget: 0.2, budgetLeast: 3, retries: 1}, 100, 20},
		{"20 % of 10, at least 3", breakers{hasBudget: true, budget: 0.2, budgetLeast: 3}, 10, 3},
	} {
		st := newClusterState("c", newConnTable(nil, new(counters)))
		st.configure(&cluster{limits: &c.limits})
		st.breaker.requests.Store(c.active - 1)
		st.breaker.pending.Store(1)
		n := 0
		for range 50 {
			if st.admitRetry() {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d retries, want %d", c.name, n, c.want)
		}
		if c.want > 0 {
			st.leaveRetry()
			if !st.admitRetry() || st.admitRetry() {
				t.Errorf("%s: not one more after one ended", c.name)
			}
		}
	}
	var none *clusterState
	if !none.admitRetry() {
		t.Error("refused without a limit")
	}
	none.leaveRetry()
}

// TestLoadIsShed: of 4 000 calls 30 % and then a tenth of the rest are dropped,
// 37 % in all; the deviation is 31.
func TestLoadIsShed(t *testing.T) {
	v := newServed(t, 2, func(context.Context) error { return nil })
	s := v.reassign(func(c *cluster, a *assignment) {
		a.drops = []dropShare{{"throttle", 300_000}, {"lottery", 100_000}}
		c.limits = &breakers{requests: noLimit, pending: noLimit, retries: noLimit, connections: noLimit}
	})
	connectAll(s)
	by := map[uint16]int{}
	for range 4000 {
		w, _ := v.inv.plan.Load().find(t.Context(), wireMethod)
		a, o := w.pick(choice{})
		if a.conn != nil {
			a.finish(nil)
			continue
		}
		by[o.category]++
	}
	if by[0] < 1080 || by[0] > 1320 || by[1] < 210 || by[1] > 350 {
		t.Errorf("dropped by category: %v", by)
	}
	if n := s.state.stats().Requests; n != 0 {
		t.Errorf("%d are left", n)
	}
	v.reassign(func(_ *cluster, a *assignment) { a.drops = []dropShare{{"throttle", 1_000_000}} })
	err := v.call(t.Context(), grpc.WaitForReady(true))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"throttle"`) || v.mesh.Stats().Dropped != 1 {
		t.Errorf("%v; %+v", err, v.mesh.Stats())
	}
}

func TestTheStateOfProtectionIsSaid(t *testing.T) {
	s := outlierSet(t, 3, outlierDefaults(nil))
	s.state.configure(&cluster{outlier: outlierDefaults(nil), limits: &breakers{requests: 7, pending: noLimit, retries: 2, connections: noLimit}})
	s.state.breaker.admit()
	s.eject(1)
	text := strings.Join(s.state.words(), "; ")
	if !containsAll(text, "1 of 7 calls in flight, 0 refused", "0 of 2 retries", testAddr(1).String()+" ejected since", "consecutive 5xx") || strings.Contains(text, "waiting") {
		t.Error(text)
	}
}
