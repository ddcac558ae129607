package proxyless

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What is told once for each call, and given back after each, however it ends.

func TestOnFinishIsToldOnceHoweverACallEnds(t *testing.T) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for name, test := range map[string]struct {
		ctx    context.Context
		policy *routePolicy
		fault  bool // the first endpoint leaves before it takes calls up
		lost   bool // the mesh has taken the listener away
	}{
		"answered":                      {ctx: soon(t)},
		"answered, governed":            {ctx: soon(t), policy: &routePolicy{retry: istioRetry()}},
		"cancelled before":              {ctx: over},
		"cancelled before, governed":    {ctx: over, policy: &routePolicy{retry: istioRetry()}},
		"one endpoint leaves":           {ctx: soon(t), fault: true},
		"one endpoint leaves, governed": {ctx: soon(t), fault: true, policy: &routePolicy{retry: istioRetry()}},
		"no listener":                   {ctx: soon(t), lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := []*replica{(&replica{say: func(context.Context, string) (string, error) { return "one", nil },
				chat: func(_ any, s grpc.ServerStream) error { return echoAll("one", s) }}).start(t)}
			if test.fault {
				replicas = append(replicas, leaving(t))
			}
			m := underPolicy(t, test.policy, replicas...)
			if test.lost {
				m.inv.plan.Store(&plan{problem: &Error{Stage: StageListener, Reason: "gone"}, superseded: make(chan struct{})})
			}
			for range 2 {
				var finished atomic.Int32
				onFinish := grpc.OnFinish(func(error) { finished.Add(1) })
				m.say(test.ctx, onFinish)
				if n := finished.Load(); n != 1 {
					t.Errorf("a unary call told OnFinish %d times", n)
				}
				finished.Store(0)
				if s, err := m.inv.NewStream(test.ctx, chatDesc, wireStream, onFinish); err == nil {
					s.SendMsg(wrapperspb.String("a"))
					s.CloseSend()
					for err == nil {
						_, err = hear(s)
					}
				}
				if n := finished.Load(); n != 1 {
					t.Errorf("a stream told OnFinish %d times", n)
				}
			}
		})
	}
}

// stateful gives the endpoints in force a state of their cluster.
func (f *handFed) stateful(l *breakers) *clusterState {
	s := f.inv.plan.Load().sets[0]
	st := newClusterState("c", f.mesh.table)
	st.configure(&cluster{limits: l})
	s.state, s.limits = st, &st.breaker
	return st
}

func TestARetryOfAStreamThatNobodyReadsIsGivenBack(t *testing.T) {
	var opened atomic.Int32
	flaky := grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if opened.Add(1) == 1 {
			return nil, status.Error(codes.Unavailable, "not now")
		}
		return next(ctx, desc, cc, method, opts...)
	})
	m := dialledUnderPolicy(t, []grpc.DialOption{flaky}, &routePolicy{retry: istioRetry()}, echoing(t, "one"))
	st := m.stateful(&breakers{requests: 10, pending: 10, retries: 1, connections: noLimit})
	ctx, cancel := context.WithCancel(soon(t))
	finished := make(chan error, 1)
	m.chat(t, ctx, grpc.OnFinish(func(err error) { finished <- err }))
	if n := st.stats().Retries; n != 1 {
		t.Errorf("%d retries are counted, want 1", n)
	}
	cancel()
	<-finished
	if n := st.stats(); n.Retries != 0 || n.Requests != 0 {
		t.Errorf("afterwards %+v", n)
	}
}

// panicky is a codec that panics on answers.
type panicky struct{ encoding.CodecV2 }

func (panicky) Unmarshal(mem.BufferSlice, any) error { panic("no") }

func TestACodecThatPanicsKeepsNothing(t *testing.T) {
	for name, policy := range map[string]*routePolicy{"plain": nil, "governed": {retry: istioRetry()}} {
		t.Run(name, func(t *testing.T) {
			m := underPolicy(t, policy, answering(t, "one", nil))
			st := m.stateful(&breakers{requests: 2, pending: 2, retries: 2, connections: noLimit})
			for range 3 {
				func() {
					defer func() {
						if recover() == nil {
							t.Error("no panic")
						}
					}()
					m.say(soon(t), grpc.ForceCodecV2(panicky{encoding.GetCodecV2("proto")}))
				}()
			}
			c := m.inv.plan.Load().sets[0].slots[0].Load()
			if n := st.stats(); n.Requests != 0 || c.inflight.Load() != 0 {
				t.Errorf("%d requests are counted, %d calls in flight", n.Requests, c.inflight.Load())
			}
		})
	}
}

func TestAStreamInterceptorThatPanicsKeepsNothing(t *testing.T) {
	panics := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, grpc.Streamer, ...grpc.CallOption) (grpc.ClientStream, error) {
		panic("no")
	}
	retry := istioRetry()
	retry.perTry = time.Minute
	for name, policy := range map[string]*routePolicy{"plain": nil, "governed": {retry: retry}} {
		t.Run(name, func(t *testing.T) {
			m := dialledUnderPolicy(t, []grpc.DialOption{grpc.WithStreamInterceptor(panics)}, policy, echoing(t, "one"))
			st := m.stateful(&breakers{requests: 1, pending: 1, retries: 1, connections: noLimit})
			for range 3 {
				func() {
					defer func() {
						if recover() == nil {
							t.Error("no panic")
						}
					}()
					m.inv.NewStream(soon(t), chatDesc, wireStream)
				}()
			}
			c := m.inv.plan.Load().sets[0].slots[0].Load()
			if n := st.stats(); n.Requests != 0 || c.inflight.Load() != 0 {
				t.Errorf("%d requests are counted, %d calls in flight", n.Requests, c.inflight.Load())
			}
		})
	}
}

func TestABroadcastWithoutACodecKeepsNothing(t *testing.T) {
	m := underPolicy(t, nil, answering(t, "one", nil), answering(t, "two", nil))
	m.inv.target.tolerance.mode = clusterBroadcast
	if _, err := m.say(soon(t), grpc.CallContentSubtype("nobody-knows")); err == nil {
		t.Error("no error")
	}
	for i := range m.inv.plan.Load().sets[0].slots {
		if n := m.inv.plan.Load().sets[0].slots[i].Load().inflight.Load(); n != 0 {
			t.Errorf("endpoint %d has %d calls in flight", i, n)
		}
	}
}

func TestABroadcastFollowsThePlan(t *testing.T) {
	m := underPolicy(t, nil, answering(t, "one", nil))
	m.inv.target.tolerance.mode = clusterBroadcast
	stuck := m.inv.plan.Load().sets[0].slots[0].Load()
	stuck.state.Store(uint32(cellConnecting)) // for ever
	done := make(chan error, 1)
	go func() { _, err := m.say(soon(t)); done <- err }()
	time.Sleep(20 * time.Millisecond)
	m.feed([][]byte{replicaEndpoints(fedCluster, answering(t, "two", nil))})
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the call waits for an endpoint that no plan has")
	}
}

func TestHedgedCallsThatFailTellTheirTrailers(t *testing.T) {
	one := saying(t, func(ctx context.Context, _ int) (string, error) {
		grpc.SetTrailer(ctx, metadata.Pairs("why", "full"))
		return "", status.Error(codes.ResourceExhausted, "full")
	})
	m := underPolicy(t, &routePolicy{hedge: &hedgePolicy{initial: 2}}, one)
	var trailer metadata.MD
	if _, err := m.say(soon(t), grpc.Trailer(&trailer)); status.Code(err) != codes.ResourceExhausted || len(trailer["why"]) != 1 {
		t.Errorf("got %v, trailer %v", err, trailer)
	}
}

func TestEveryAttemptGoesOutAsTheMethodOfTheRoute(t *testing.T) {
	for name, mode := range map[string]string{"hedged": clusterForking, "broadcast": clusterBroadcast} {
		t.Run(name, func(t *testing.T) {
			m := underPolicy(t, &routePolicy{path: &pathRewrite{prefix: wireMethod, matched: len("/old.Greeting/Hello")}}, answering(t, "one", nil), answering(t, "two", nil))
			m.inv.target.tolerance = tolerance{mode: mode, forks: 2}
			out := new(wrapperspb.StringValue)
			if err := m.inv.Invoke(soon(t), "/old.Greeting/Hello", wrapperspb.String("hello"), out); err != nil {
				t.Error(err)
			}
		})
	}
}

// sliceCodec takes messages that are bytes.
type sliceCodec struct{}

func (sliceCodec) Name() string { return "slice" }

func (sliceCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(append([]byte(nil), v.([]byte)...))}, nil
}

func (sliceCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func TestBytesThatTheirCallerUsesAgainAreReplayedAsTheyWere(t *testing.T) {
	one := (&replica{}).startRaw(t, func(s grpc.ServerStream, n int) error {
		var all []byte
		for {
			var in []byte
			if err := s.RecvMsg(&in); err == io.EOF {
				break
			} else if err != nil {
				return err
			}
			all = append(all, in...)
		}
		if n == 1 {
			return status.Error(codes.Unavailable, "not now")
		}
		return s.SendMsg(all)
	})
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
	s := m.chat(t, soon(t), grpc.ForceCodecV2(sliceCodec{}))
	buf := make([]byte, 1)
	for _, b := range []byte("abc") {
		buf[0] = b
		if err := s.SendMsg(buf); err != nil {
			t.Fatal(err)
		}
	}
	s.CloseSend()
	var out []byte
	if err := s.RecvMsg(&out); err != nil || string(out) != "abc" {
		t.Errorf("got %q, %v", out, err)
	}
}

// startRaw starts a provider of streams of bytes.
func (r *replica) startRaw(t testing.TB, chat func(s grpc.ServerStream, n int) error) *replica {
	r.chat = func(_ any, s grpc.ServerStream) error { return chat(s, int(r.calls.Load())) }
	return r.start(t, grpc.ForceServerCodecV2(sliceCodec{}))
}

// TestAnEndpointThatIsLostWhileItFallsAsleepStaysLost is about a connection
// that ends just when it is found idle, and a call just came in.
func TestAnEndpointThatIsLostWhileItFallsAsleepStaysLost(t *testing.T) {
	conn := new(grpc.ClientConn)
	table := newConnTable(nil, new(counters))
	for range 1000 {
		c := &cell{table: table, conn: conn}
		l := &leaf{cell: c}
		c.leaf = l
		c.ready.Store(conn)
		c.inflight.Store(1)
		var all sync.WaitGroup
		all.Go(func() { c.sleep() })
		all.Go(func() { // what lose does
			l.mu.Lock()
			defer l.mu.Unlock()
			c.ready.Store(nil)
		})
		all.Wait()
		if c.ready.Load() != nil {
			t.Fatal("calls are sent on a connection that was lost")
		}
	}
}

// TestACallsOwnDeadlineIsNotTakenForAnAttempts is about a provider that notices
// the deadline of a call a moment before its caller does.
func TestACallsOwnDeadlineIsNotTakenForAnAttempts(t *testing.T) {
	one := saying(t, func(ctx context.Context, _ int) (string, error) {
		return "", status.Error(codes.DeadlineExceeded, "the provider noticed")
	})
	for name, hedge := range map[string]*hedgePolicy{"retried": nil, "hedged": {initial: 2}} {
		m := underPolicy(t, &routePolicy{retry: &retryPolicy{on: retryReset, retries: 2, base: quick, perTry: 5 * time.Minute}, hedge: hedge}, one)
		one.calls.Store(0)
		if _, err := m.say(soon(t)); status.Convert(err).Message() != "the provider noticed" || hedge == nil && one.calls.Load() != 1 {
			t.Errorf("%s: got %v after %d calls", name, err, one.calls.Load())
		}
	}
}
