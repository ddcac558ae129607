package proxyless

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const quick = time.Millisecond // base of pauses in tests

func bit(all ...codes.Code) (set uint32) {
	for _, c := range all {
		set |= 1 << c
	}
	return set
}

// istioRetry is what Istio gives to every route.
func istioRetry() *retryPolicy {
	return &retryPolicy{on: retryConnectFailure | retryRefusedStream | retryStatusCodes, codes: bit(codes.Unavailable, codes.Canceled),
		retries: 2, base: quick, previousHosts: true, reselect: 5}
}

func TestWhatIsRetried(t *testing.T) {
	md := metadata.Pairs("x-retry", "please")
	for name, test := range map[string]struct {
		policy  retryPolicy
		fail    error
		trailer metadata.MD
		want    int // attempts
	}{
		"a status that is named":          {retryPolicy{codes: bit(codes.ResourceExhausted), retries: 3}, status.Error(codes.ResourceExhausted, ""), nil, 4},
		"a status that is not":            {retryPolicy{codes: bit(codes.ResourceExhausted), retries: 3}, status.Error(codes.Internal, ""), nil, 1},
		"no retries, but timeouts":        {retryPolicy{codes: bit(codes.Internal), perTry: time.Hour}, status.Error(codes.Internal, ""), nil, 1},
		"5xx is UNAVAILABLE":              {retryPolicy{on: retry5xx, retries: 1}, status.Error(codes.Unavailable, ""), nil, 2},
		"5xx is not INTERNAL":             {retryPolicy{on: retry5xx, retries: 1}, status.Error(codes.Internal, ""), nil, 1},
		"gateway-error is UNAVAILABLE":    {retryPolicy{on: retryGatewayError, retries: 1}, status.Error(codes.Unavailable, ""), nil, 2},
		"reset is no status":              {retryPolicy{on: retryReset, retries: 1}, status.Error(codes.Unavailable, ""), nil, 1},
		"connect-failure is no status":    {retryPolicy{on: retryConnectFailure, retries: 1}, status.Error(codes.Unavailable, ""), nil, 1},
		"retriable-4xx is ABORTED":        {retryPolicy{on: retryRetriable4xx, retries: 1}, status.Error(codes.Aborted, ""), nil, 2},
		"retriable-4xx is not NOT_FOUND":  {retryPolicy{on: retryRetriable4xx, retries: 1}, status.Error(codes.NotFound, ""), nil, 1},
		"retriable-headers":               {retryPolicy{on: retryRetriableHeaders, retries: 1, headers: []headerMatch{{name: "x-retry", kind: headerExact, text: "please"}}}, status.Error(codes.NotFound, ""), md, 2},
		"retriable-headers, other":        {retryPolicy{on: retryRetriableHeaders, retries: 1, headers: []headerMatch{{name: "x-retry", kind: headerExact, text: "no"}}}, status.Error(codes.NotFound, ""), md, 1},
		"headers without the condition":   {retryPolicy{retries: 1, headers: []headerMatch{{name: "x-retry"}}}, status.Error(codes.NotFound, ""), md, 1},
		"rate limited":                    {retryPolicy{codes: bit(codes.Unavailable), retries: 1}, status.Error(codes.Unavailable, ""), metadata.Pairs("x-envoy-ratelimited", "true"), 1},
		"rate limited, asked for":         {retryPolicy{on: retryEnvoyRateLimited, retries: 1}, status.Error(codes.Unavailable, ""), metadata.Pairs("x-envoy-ratelimited", "true"), 2},
		"the request says so":             {retryPolicy{codes: bit(codes.Internal), retries: 1, requestHeaders: []headerMatch{{name: "idempotent"}}}, status.Error(codes.Internal, ""), nil, 2},
		"the request does not say so":     {retryPolicy{codes: bit(codes.Internal), retries: 1, requestHeaders: []headerMatch{{name: "absent"}}}, status.Error(codes.Internal, ""), nil, 1},
		"the provider says stop":          {retryPolicy{codes: bit(codes.Unavailable), retries: 3}, status.Error(codes.Unavailable, ""), metadata.Pairs("grpc-retry-pushback-ms", "-1"), 1},
		"the provider says nonsense":      {retryPolicy{codes: bit(codes.Unavailable), retries: 3}, status.Error(codes.Unavailable, ""), metadata.Pairs("grpc-retry-pushback-ms", "soon"), 1},
		"the provider says two things":    {retryPolicy{codes: bit(codes.Unavailable), retries: 3}, status.Error(codes.Unavailable, ""), metadata.Pairs("grpc-retry-pushback-ms", "1", "grpc-retry-pushback-ms", "1"), 1},
		"the provider says when":          {retryPolicy{codes: bit(codes.Unavailable), retries: 3, base: time.Hour}, status.Error(codes.Unavailable, ""), metadata.Pairs("grpc-retry-pushback-ms", "1"), 4},
		"more attempts than gRPC's five":  {retryPolicy{codes: bit(codes.Unavailable), retries: 9}, status.Error(codes.Unavailable, ""), nil, 10},
		"a policy that selects nothing":   {retryPolicy{retries: 3}, status.Error(codes.Unavailable, ""), nil, 1},
		"a text like that of a reset":     {retryPolicy{on: retryReset, retries: 1}, status.Error(codes.Unavailable, "it said: "+textReset), nil, 1},
		"Istio's default and UNAVAILABLE": {*istioRetry(), status.Error(codes.Unavailable, ""), nil, 3},
		"Istio's default and INTERNAL":    {*istioRetry(), status.Error(codes.Internal, ""), nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			one := saying(t, func(ctx context.Context, n int) (string, error) {
				in, _ := metadata.FromIncomingContext(ctx)
				headers = append(headers, strings.Join(in[previousAttempts], ","))
				grpc.SetTrailer(ctx, test.trailer)
				return "", test.fail
			})
			if test.policy.base == 0 {
				test.policy.base = quick
			}
			m := underPolicy(t, &routePolicy{retry: &test.policy}, one)
			_, err := m.say(metadata.AppendToOutgoingContext(soon(t), "idempotent", "yes"))
			if status.Code(err) != status.Code(test.fail) {
				t.Errorf("got %v, want %v", err, test.fail)
			}
			if n := int(one.calls.Load()); n != test.want {
				t.Errorf("%d attempts, want %d", n, test.want)
			}
			if n := m.mesh.Stats().Retries; n != uint64(test.want-1) {
				t.Errorf("Stats: %d retries, want %d", n, test.want-1)
			}
			for i, h := range headers {
				want := ""
				if i > 0 {
					want = fmt.Sprint(i)
				}
				if h != want {
					t.Errorf("attempt %d has %s %q", i+1, previousAttempts, h)
				}
			}
		})
	}
}

func TestARetryThatSucceedsIsTheCall(t *testing.T) {
	one := saying(t, func(ctx context.Context, n int) (string, error) {
		grpc.SetTrailer(ctx, metadata.Pairs("attempt", fmt.Sprint(n)))
		if n < 3 {
			return "", status.Error(codes.Unavailable, "not yet")
		}
		return "third", nil
	})
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
	var trailer metadata.MD
	var finished []error
	who, err := m.say(soon(t), grpc.Trailer(&trailer), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	if err != nil || who != "third" || trailer.Get("attempt")[0] != "3" {
		t.Errorf("got %q, %v, trailer %v", who, err, trailer)
	}
	if len(finished) != 1 || finished[0] != nil {
		t.Errorf("OnFinish was told %v, want once nil", finished)
	}
}

func TestRetriesAvoidTheProvidersTriedBefore(t *testing.T) {
	var all []*replica
	for range 3 {
		all = append(all, answering(t, "", status.Error(codes.Unavailable, "")))
	}
	p := istioRetry()
	p.reselect = 50
	m := underPolicy(t, &routePolicy{retry: p}, all...)
	const calls = 20
	for range calls {
		m.say(soon(t))
	}
	for i, r := range all {
		if n := r.calls.Load(); n != calls {
			t.Errorf("provider %d has %d of %d attempts, want one of each call", i, n, 3*calls)
		}
	}
}

func TestTheRequestIsMarshalledOnceForAllAttempts(t *testing.T) {
	for name, test := range map[string]struct {
		call func(*countingCodec) []grpc.CallOption
		dial func(*countingCodec) []grpc.DialOption
	}{
		"forced by the call": {call: func(c *countingCodec) []grpc.CallOption { return []grpc.CallOption{grpc.ForceCodecV2(c)} }},
		"forced, and compressed": {call: func(c *countingCodec) []grpc.CallOption {
			return []grpc.CallOption{grpc.ForceCodecV2(c), grpc.UseCompressor(gzip.Name)}
		}},
		"forced by the old way": {call: func(c *countingCodec) []grpc.CallOption { return []grpc.CallOption{grpc.ForceCodec(oldCodec{c})} }},
		"forced by dial options": {dial: func(c *countingCodec) []grpc.DialOption {
			return []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.ForceCodecV2(c))}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			one := saying(t, func(_ context.Context, n int) (string, error) {
				if n < 3 {
					return "", status.Error(codes.Unavailable, "")
				}
				return strings.Repeat("long ", 1000), nil
			})
			codec := &countingCodec{CodecV2: encoding.GetCodecV2("proto")}
			var dial []grpc.DialOption
			var opts []grpc.CallOption
			if test.dial != nil {
				dial = test.dial(codec)
			}
			if test.call != nil {
				opts = test.call(codec)
			}
			m := dialledUnderPolicy(t, dial, &routePolicy{retry: istioRetry()}, one)
			for range 10 { // buffers that were freed twice would be found in use
				one.calls.Store(0)
				codec.marshals.Store(0)
				codec.unmarshals.Store(0)
				in, out := wrapperspb.String(strings.Repeat("also long ", 1000)), new(wrapperspb.StringValue)
				if err := m.inv.Invoke(soon(t), wireMethod, in, out, opts...); err != nil || len(out.Value) != 5000 {
					t.Fatal(err, len(out.Value))
				}
				if n, u := codec.marshals.Load(), codec.unmarshals.Load(); n != 1 || u != 1 {
					t.Fatalf("marshalled %d times, unmarshalled %d times; want once each", n, u)
				}
			}
		})
	}
}

type countingCodec struct {
	encoding.CodecV2
	marshals, unmarshals atomic.Int32
}

func (c *countingCodec) Marshal(v any) (mem.BufferSlice, error) {
	c.marshals.Add(1)
	return c.CodecV2.Marshal(v)
}

func (c *countingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	c.unmarshals.Add(1)
	return c.CodecV2.Unmarshal(data, v)
}

type oldCodec struct{ *countingCodec }

func (c oldCodec) Marshal(v any) ([]byte, error) {
	data, err := c.countingCodec.Marshal(v)
	return data.Materialize(), err
}

func (c oldCodec) Unmarshal(data []byte, v any) error {
	return c.countingCodec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, v)
}

func TestAnUnknownCodecIsGRPCsToReport(t *testing.T) {
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, answering(t, "one", nil))
	if _, err := m.say(soon(t), grpc.CallContentSubtype("nobody-has-this")); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "nobody-has-this") {
		t.Errorf("got %v", err)
	}
}

func TestAnInterceptorMaySendAnotherRequestEachTime(t *testing.T) {
	var got []string
	one := &replica{}
	one.say = func(_ context.Context, in string) (string, error) {
		got = append(got, in)
		return "", status.Error(codes.Unavailable, "")
	}
	one.start(t)
	n := 0
	replace := grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if n++; n == 1 {
			return next(ctx, method, req, reply, cc, opts...)
		}
		return next(ctx, method, wrapperspb.String(fmt.Sprint("other ", n)), reply, cc, opts...)
	})
	m := dialledUnderPolicy(t, []grpc.DialOption{replace}, &routePolicy{retry: istioRetry()}, one)
	m.say(soon(t))
	if want := "hello,other 2,other 3"; strings.Join(got, ",") != want {
		t.Errorf("the provider got %q, want %s", got, want)
	}
}

func TestEachAttemptHasItsTime(t *testing.T) {
	for name, test := range map[string]struct {
		on    retryConditions
		codes uint32
		want  int32
	}{
		"reset":             {on: retryReset, want: 3},
		"5xx":               {on: retry5xx, want: 3},
		"gateway-error":     {on: retryGatewayError, want: 3},
		"deadline-exceeded": {codes: bit(codes.DeadlineExceeded), want: 3},
		"unavailable":       {codes: bit(codes.Unavailable), want: 1},
		"connect-failure":   {on: retryConnectFailure, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			one := saying(t, func(ctx context.Context, _ int) (string, error) { <-ctx.Done(); return "", ctx.Err() })
			m := underPolicy(t, &routePolicy{retry: &retryPolicy{on: test.on, codes: test.codes, retries: 2, perTry: 100 * time.Millisecond, base: quick}}, one)
			_, err := m.say(soon(t))
			isOwn(t, err, StageRoute, codes.DeadlineExceeded, "perTryTimeout")
			if n := one.calls.Load(); n != test.want {
				t.Errorf("%d attempts, want %d", n, test.want)
			}
		})
	}
}

func TestTheCallsDeadlineCountsForAllAttempts(t *testing.T) {
	one := saying(t, func(ctx context.Context, _ int) (string, error) { <-ctx.Done(); return "", ctx.Err() })
	m := underPolicy(t, &routePolicy{retry: &retryPolicy{on: retryReset, retries: 1000, perTry: 150 * time.Millisecond, base: quick}}, one)
	ctx, cancel := context.WithTimeout(soon(t), time.Second)
	defer cancel()
	start := time.Now()
	_, err := m.say(ctx)
	if took := time.Since(start); status.Code(err) != codes.DeadlineExceeded || took > 5*time.Second {
		t.Errorf("got %v after %v", err, took)
	}
	if n := one.calls.Load(); n < 2 || n > 8 {
		t.Errorf("%d attempts of 150 ms within a second", n)
	}
}

func TestAPauseBeyondTheDeadlineFailsAtOnce(t *testing.T) {
	one := saying(t, func(ctx context.Context, _ int) (string, error) {
		grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "3600000"))
		return "", status.Error(codes.Unavailable, "busy")
	})
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
	start := time.Now()
	if _, err := m.say(soon(t)); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "busy") || time.Since(start) > 10*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
}

func TestAConnectionThatBreaksIsAReset(t *testing.T) {
	for name, test := range map[string]struct {
		policy *retryPolicy
		want   codes.Code
	}{
		"reset":         {&retryPolicy{on: retryReset, retries: 1, base: quick}, codes.OK},
		"5xx":           {&retryPolicy{on: retry5xx, retries: 1, base: quick}, codes.OK},
		"gateway-error": {&retryPolicy{on: retryGatewayError, retries: 1, base: quick}, codes.OK},
		"internal":      {&retryPolicy{codes: bit(codes.Internal), retries: 1, base: quick}, codes.Unavailable},
		"no policy":     {nil, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			var one *replica
			one = saying(t, func(context.Context, int) (string, error) {
				go one.serve.Stop()
				time.Sleep(time.Hour)
				return "", nil
			})
			two := answering(t, "two", nil)
			m := underPolicy(t, &routePolicy{retry: test.policy}, one, two)
			failed := codes.OK
			for range 2 { // one of them meets the first provider
				if _, err := m.say(soon(t)); err != nil {
					failed = status.Code(err)
				}
			}
			if failed != test.want {
				t.Errorf("got %v, want %v", failed, test.want)
			}
		})
	}
}

// TestAStreamThatIsResetIsToldByItsCode has a peer that resets every stream.
func TestAStreamThatIsResetIsToldByItsCode(t *testing.T) {
	for name, test := range map[string]struct {
		reset uint32
		on    retryConditions
		want  bool
	}{
		"refused, refused-stream":        {h2Refused, retryRefusedStream, true},
		"refused, reset":                 {h2Refused, retryReset, true},
		"refused, reset-before-request":  {h2Refused, retryResetBeforeRequest, true},
		"refused, connect-failure":       {h2Refused, retryConnectFailure, false},
		"internal, reset":                {h2Internal, retryReset, true},
		"internal, refused-stream":       {h2Internal, retryRefusedStream, false},
		"internal, reset-before-request": {h2Internal, retryResetBeforeRequest, false},
	} {
		t.Run(name, func(t *testing.T) {
			peer := newH2Peer(t, func(p *h2Peer, kind, flags byte, stream uint32) {
				if kind == h2Data && flags&h2EndStream != 0 {
					p.frame(h2RSTStream, 0, stream, binary.BigEndian.AppendUint32(nil, test.reset))
				}
			})
			m := underPolicy(t, &routePolicy{retry: &retryPolicy{on: test.on, retries: 2, base: quick}}, peer)
			if _, err := m.say(soon(t)); err == nil {
				t.Fatal("the call succeeded")
			}
			want := uint64(0)
			if test.want {
				want = 2
			}
			if n := m.mesh.Stats().Retries; n != want {
				t.Errorf("%d retries, want %d", n, want)
			}
		})
	}
}

func TestAProviderThatCannotBeReachedIsAConnectFailure(t *testing.T) {
	one := answering(t, "one", nil)
	addr := one.addr.String()
	m := underPolicy(t, &routePolicy{retry: &retryPolicy{on: retryConnectFailure, retries: 200, base: 20 * time.Millisecond, max: 40 * time.Millisecond}}, one)
	one.serve.Stop()
	for cellState(m.inv.plan.Load().sets[0].slots[0].Load().state.Load()) != cellFailed {
		time.Sleep(quick)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		lis, err := net.Listen("tcp", addr)
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { lis.Close() })
		s := grpc.NewServer()
		s.RegisterService(&grpc.ServiceDesc{ServiceName: "greet.Greeting", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "SayHello", Handler: answerItself}}}, new(any))
		go s.Serve(lis) // ended by the clean-up
		t.Cleanup(s.Stop)
	})
	if who, err := m.say(soon(t)); err != nil || who != "hello" {
		t.Errorf("got %q, %v", who, err)
	}
}

func TestTheDelayGrowsAndIsSpreadFromNothing(t *testing.T) {
	p := &retryPolicy{base: 10 * time.Millisecond, max: 50 * time.Millisecond}
	for n, most := range map[int]time.Duration{1: 10, 2: 30, 3: 50, 4: 50, 31: 50, 1000: 50} {
		most *= time.Millisecond
		low, high := 0, 0
		const draws = 2000
		for range draws {
			d := p.delay(n)
			if d < 0 || d >= most {
				t.Fatalf("repeat %d: %v", n, d)
			}
			if d < most/4 {
				low++
			} else if d >= 3*most/4 {
				high++
			}
		}
		// A quarter each, give or take eight standard deviations.
		if low < 345 || low > 655 || high < 345 || high > 655 {
			t.Errorf("repeat %d: %d of %d in the lowest quarter, %d in the highest", n, low, draws, high)
		}
	}
	if d := (&retryPolicy{}).delay(1); d >= 25*time.Millisecond {
		t.Errorf("by default %v", d)
	}
	if d := (&retryPolicy{base: 1, max: 1<<63 - 1}).delay(60); d < 0 {
		t.Errorf("overflow: %v", d)
	}
}

func TestAnswersInPlainHTTP(t *testing.T) {
	for text, want := range map[string]retryConditions{
		textHTTP + "503 (Service Unavailable); transport: ...": retry5xx | retryGatewayError,
		textHTTP + "502 (Bad Gateway)":                         retry5xx | retryGatewayError,
		textHTTP + "500 (Internal Server Error)":               retry5xx,
		textHTTP + "409 (Conflict)":                            retryRetriable4xx,
		textHTTP + "404 (Not Found)":                           0,
		textHTTP:                                               0,
	} {
		for bit := retryConditions(1); bit <= retryEnvoyRateLimited; bit <<= 1 {
			l := newLapse(status.Error(codes.Unknown, text))
			if got := (&retryPolicy{on: bit}).asksFor(&l); got != (want&bit != 0) {
				t.Errorf("%s, condition %b: %v", text, bit, got)
			}
		}
	}
}

func TestErrorsOfOthersArePassedOn(t *testing.T) {
	own := errors.New("an interceptor's own")
	fail := grpc.WithUnaryInterceptor(func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
		return own
	})
	m := dialledUnderPolicy(t, []grpc.DialOption{fail}, &routePolicy{retry: istioRetry()}, answering(t, "", nil))
	if _, err := m.say(soon(t)); err != own {
		t.Errorf("got %v", err)
	}
}

func TestRetriesTurnToAnotherPriority(t *testing.T) {
	a := &assignment{cluster: "c", localities: []locality{{count: 2}, {priority: 1, first: 2, count: 2}}, endpoints: make([]endpoint, 4)}
	for i := range a.endpoints {
		a.endpoints[i] = endpoint{addr: testAddr(i), weight: 1}
	}
	s := newEndpointSet(newConnTable(nil, new(counters)), &cluster{name: "c"}, a, nil, nil)
	connectAll(s)
	for every, want := range map[uint32]string{0: "12", 1: "12", 2: "112"} {
		r := retrying{policy: &retryPolicy{previousPriorities: true, priorityEvery: every}}
		var c choice
		got := ""
		for range len(want) {
			at, _ := s.pick(c)
			got += map[bool]string{true: "1", false: "2"}[at < 2]
			r.avoid(&attempt{set: s, at: at}, &c)
		}
		if got != want {
			t.Errorf("every %d attempts: priorities %s, want %s", every, got, want)
		}
	}
}
