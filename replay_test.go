package proxyless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// echoing answers each message of a stream with itself, after a name.
func echoing(t testing.TB, name string) *replica {
	return chatting(t, func(s grpc.ServerStream, _ int) error { return echoAll(name, s) })
}

func echoAll(name string, s grpc.ServerStream) error {
	for {
		text, err := hear(s)
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.SendMsg(wrapperspb.String(name + ":" + text)); err != nil {
			return err
		}
	}
}

// hears and tells are what both ends of a stream can do.
type (
	hears interface{ RecvMsg(any) error }
	tells interface{ SendMsg(any) error }
)

func hear(s hears) (string, error) {
	in := new(wrapperspb.StringValue)
	err := s.RecvMsg(in)
	return in.Value, err
}

// chatting starts a provider whose stream depends on which call it is, from 1.
func chatting(t testing.TB, chat func(s grpc.ServerStream, n int) error) *replica {
	r := &replica{}
	r.chat = func(_ any, s grpc.ServerStream) error { return chat(s, int(r.calls.Load())) }
	return r.start(t)
}

func (f *handFed) chat(t testing.TB, ctx context.Context, opts ...grpc.CallOption) grpc.ClientStream {
	t.Helper()
	s, err := f.inv.NewStream(ctx, chatDesc, wireStream, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tell(t testing.TB, s tells, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := s.SendMsg(wrapperspb.String(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// leaving is a provider that says GOAWAY to a stream once it was sent a
// message, and never takes a stream up.
func leaving(t testing.TB) *replica {
	return newH2Peer(t, func(p *h2Peer, kind, flags byte, stream uint32) {
		if kind == h2Data {
			p.frame(h2GoAway, 0, 0, make([]byte, 8))
		}
	})
}

// TestAStreamThatAProviderLeavesIsTakenElsewhere is about streams of which
// nothing was processed: they are taken elsewhere whatever the mesh says.
func TestAStreamThatAProviderLeavesIsTakenElsewhere(t *testing.T) {
	for name, policy := range map[string]*routePolicy{"no policy": nil, "Istio's retries": {retry: istioRetry()}} {
		t.Run(name, func(t *testing.T) {
			m := underPolicy(t, policy, leaving(t), echoing(t, "two"))
			for range 2 { // one of them meets the first provider
				var finished atomic.Int32
				s := m.chat(t, soon(t), grpc.OnFinish(func(error) { finished.Add(1) }))
				tell(t, s, "a", "b")
				s.CloseSend()
				for _, want := range []string{"two:a", "two:b"} {
					if got, err := hear(s); err != nil || got != want {
						t.Fatalf("got %q, %v, want %s", got, err, want)
					}
				}
				if _, err := hear(s); err != io.EOF || finished.Load() != 1 {
					t.Errorf("at the end: %v, OnFinish called %d times", err, finished.Load())
				}
			}
			if n := m.mesh.Stats(); n.Repicks == 0 || n.Retries != 0 {
				t.Errorf("%d repicks, %d retries", n.Repicks, n.Retries)
			}
		})
	}
}

func TestAStreamIsRetriedBeforeItsFirstResponse(t *testing.T) {
	fails := func(s grpc.ServerStream, n int) error {
		for range 2 {
			if _, err := hear(s); err != nil {
				return err
			}
		}
		if n < 3 {
			return status.Error(codes.Unavailable, "not now")
		}
		return s.SendMsg(wrapperspb.String("third"))
	}
	one := chatting(t, fails)
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
	s := m.chat(t, soon(t))
	tell(t, s, "a", "b")
	if md, err := s.Header(); md == nil || err != nil {
		t.Errorf("header %v, %v", md, err)
	}
	if got, err := hear(s); got != "third" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := hear(s); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if n := m.mesh.Stats().Retries; n != 2 || one.calls.Load() != 3 {
		t.Errorf("%d retries, %d calls", n, one.calls.Load())
	}
}

func TestAStreamIsNotRetriedAfterItsFirstResponse(t *testing.T) {
	for name, begin := range map[string]func(s grpc.ServerStream) error{
		"message": func(s grpc.ServerStream) error { return s.SendMsg(wrapperspb.String("begun")) },
		"headers": func(s grpc.ServerStream) error { return s.SendHeader(metadata.Pairs("a", "b")) },
	} {
		t.Run(name, func(t *testing.T) {
			one := chatting(t, func(s grpc.ServerStream, _ int) error {
				begin(s)
				return status.Error(codes.Unavailable, "broken off")
			})
			m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
			s := m.chat(t, soon(t))
			tell(t, s, "a")
			_, err := hear(s)
			if err == nil {
				_, err = hear(s)
			}
			if status.Code(err) != codes.Unavailable || one.calls.Load() != 1 {
				t.Errorf("got %v after %d calls", err, one.calls.Load())
			}
		})
	}
}

func TestAStreamThatSentMuchIsNotRetried(t *testing.T) {
	big := strings.Repeat("x", streamBuffer/4)
	for kept, want := range map[int]int32{3: 3, 4: 1} {
		one := chatting(t, func(s grpc.ServerStream, _ int) error {
			for {
				if _, err := hear(s); err != nil {
					return status.Error(codes.Unavailable, "not now")
				}
			}
		})
		m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
		s := m.chat(t, soon(t))
		for range kept {
			tell(t, s, big)
		}
		s.CloseSend()
		if _, err := hear(s); status.Code(err) != codes.Unavailable || one.calls.Load() != want {
			t.Errorf("%d messages: %v after %d calls, want %d", kept, err, one.calls.Load(), want)
		}
	}
}

func TestAClientStreamIsReplayedWhole(t *testing.T) {
	desc := &grpc.StreamDesc{StreamName: "Chat", ClientStreams: true}
	one := chatting(t, func(s grpc.ServerStream, n int) error {
		var all []string
		for {
			text, err := hear(s)
			if err == io.EOF {
				break
			} else if err != nil {
				return err
			}
			all = append(all, text)
		}
		if n < 3 {
			return status.Error(codes.Unavailable, "not now")
		}
		return s.SendMsg(wrapperspb.String(strings.Join(all, "")))
	})
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
	s, err := m.inv.NewStream(soon(t), desc, wireStream)
	if err != nil {
		t.Fatal(err)
	}
	reused := new(wrapperspb.StringValue) // callers do reuse messages
	for _, text := range []string{"a", "b", "c"} {
		reused.Value = text
		if err := s.SendMsg(reused); err != nil {
			t.Fatal(err)
		}
	}
	s.CloseSend()
	if got, err := hear(s); got != "abc" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAStreamThatIsRefusedForGoodSaysWhy(t *testing.T) {
	one := chatting(t, func(s grpc.ServerStream, n int) error { return status.Error(codes.Unavailable, fmt.Sprint("time ", n)) })
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
	var finished []error
	s := m.chat(t, soon(t), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	if md, err := s.Header(); md != nil || err != nil {
		t.Errorf("header %v, %v", md, err)
	}
	for range 2 {
		if _, err := hear(s); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "time 3") {
			t.Errorf("got %v", err)
		}
	}
	if err := s.SendMsg(wrapperspb.String("a")); err != io.EOF {
		t.Errorf("sending: %v", err)
	}
	if len(finished) != 1 || status.Code(finished[0]) != codes.Unavailable {
		t.Errorf("OnFinish was told %v", finished)
	}
}

func TestAStreamWithNowhereToGoSaysWhy(t *testing.T) {
	m := underPolicy(t, nil, leaving(t))
	s := m.chat(t, soon(t))
	tell(t, s, "a")
	ctx, cancel := context.WithTimeout(soon(t), time.Second)
	defer cancel()
	s2, err := m.inv.NewStream(ctx, chatDesc, wireStream)
	if err == nil {
		s2.SendMsg(wrapperspb.String("a"))
		_, err = hear(s2)
	}
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

// abandoned is a stream whose endpoint leaves before it took the stream up,
// while the caller gives up as well.
type abandoned struct {
	grpc.ClientStream
	leave func()
}

func (s abandoned) RecvMsg(any) error {
	s.leave()
	return errNothingSent
}

// TestTheEndOfAStreamIsToldAlike: what is not for callers to see, that an
// endpoint left, is worded the same each time and to everybody.
func TestTheEndOfAStreamIsToldAlike(t *testing.T) {
	for name, c := range map[string]struct {
		gaveUp bool
		want   codes.Code
	}{"the caller gave up": {true, codes.Canceled}, "it sent more than is kept": {false, codes.Unavailable}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(soon(t))
			defer cancel()
			abandon := func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				s, err := next(ctx, desc, cc, method, opts...)
				return abandoned{s, func() {
					finishOptions(opts, errNothingSent)
					if c.gaveUp {
						cancel()
					}
				}}, err
			}
			m := dialledUnderPolicy(t, []grpc.DialOption{grpc.WithStreamInterceptor(abandon)}, nil, echoing(t, "one"))
			finished := make(chan error, 2)
			s := m.chat(t, ctx, grpc.OnFinish(func(err error) { finished <- err }))
			if !c.gaveUp {
				tell(t, s, strings.Repeat("x", streamBuffer+1))
			}
			for range 2 {
				if _, err := hear(s); status.Code(err) != c.want || nothingSent(err) {
					t.Errorf("the caller hears %v", err)
				}
			}
			if err := <-finished; status.Code(err) != c.want || nothingSent(err) {
				t.Errorf("OnFinish was told %v", err)
			}
		})
	}
}

func TestAStreamThatTheMeshCutsOffSaysSo(t *testing.T) {
	m := underPolicy(t, nil, echoing(t, "one"))
	closed := make(chan struct{})
	m.inv.closed = closed
	finished := make(chan error, 2)
	s := m.chat(t, soon(t), grpc.OnFinish(func(err error) { finished <- err }))
	tell(t, s, "a")
	if got, err := hear(s); err != nil || got != "one:a" {
		t.Fatalf("got %q, %v", got, err)
	}
	close(closed)
	m.mesh.table.close()
	if _, err := hear(s); !errors.Is(err, ErrClosed) {
		t.Errorf("the caller hears %v", err)
	}
	if err := <-finished; !errors.Is(err, ErrClosed) {
		t.Errorf("OnFinish was told %v", err)
	}
}

func TestAttemptsAtAStreamHaveTheirTime(t *testing.T) {
	one := chatting(t, func(s grpc.ServerStream, n int) error {
		if n == 1 {
			<-s.Context().Done()
			return s.Context().Err()
		}
		if err := s.SendMsg(wrapperspb.String("second")); err != nil {
			return err
		}
		time.Sleep(150 * time.Millisecond) // the time is for the first response
		return s.SendMsg(wrapperspb.String("late"))
	})
	m := underPolicy(t, &routePolicy{retry: &retryPolicy{on: retryReset, retries: 1, base: quick, perTry: 100 * time.Millisecond}}, one)
	s := m.chat(t, soon(t))
	tell(t, s, "a")
	for _, want := range []string{"second", "late"} {
		if got, err := hear(s); got != want || err != nil {
			t.Errorf("got %q, %v, want %s", got, err, want)
		}
	}
	m.govern(&routePolicy{retry: &retryPolicy{codes: 1, retries: 1, base: quick, perTry: 20 * time.Millisecond}})
	one.calls.Store(0)
	s = m.chat(t, soon(t))
	_, err := hear(s)
	isOwn(t, err, StageRoute, codes.DeadlineExceeded, "perTryTimeout")
}

func TestAStreamEndsWithItsContextWhileItPauses(t *testing.T) {
	one := chatting(t, func(s grpc.ServerStream, n int) error {
		s.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", "10000"))
		return status.Error(codes.Unavailable, "busy")
	})
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, one)
	ctx, cancel := context.WithCancel(soon(t))
	var finished atomic.Int32
	s := m.chat(t, ctx, grpc.OnFinish(func(error) { finished.Add(1) }))
	time.AfterFunc(50*time.Millisecond, cancel)
	start := time.Now()
	if _, err := hear(s); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
	if n := finished.Load(); n != 1 {
		t.Errorf("OnFinish was called %d times", n)
	}
}

func TestAStreamThatNobodyReadsLetsGo(t *testing.T) {
	m := underPolicy(t, &routePolicy{retry: istioRetry()}, echoing(t, "one"))
	ctx, cancel := context.WithCancel(soon(t))
	finished := make(chan error, 2)
	s := m.chat(t, ctx, grpc.OnFinish(func(err error) { finished <- err }))
	tell(t, s, "a")
	cancel()
	if err := <-finished; status.Code(err) != codes.Canceled {
		t.Errorf("OnFinish was told %v", err)
	}
	for m.inv.plan.Load().sets[0].slots[0].Load().inflight.Load() != 0 {
		time.Sleep(quick)
	}
}

func TestFaultsOfStreams(t *testing.T) {
	one := echoing(t, "one")
	m := underPolicy(t, &routePolicy{fault: &faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: fractionScale}}, one)
	_, err := m.inv.NewStream(soon(t), chatDesc, wireStream)
	isOwn(t, err, StageRoute, codes.Aborted, "the mesh injected")
	m.govern(&routePolicy{fault: &faultPolicy{hasAbort: true, abortShare: fractionScale}})
	s := m.chat(t, soon(t))
	if _, err := hear(s); err != io.EOF {
		t.Errorf("after an injected OK: %v", err)
	}
}

func TestHeadersOfStreams(t *testing.T) {
	var got metadata.MD
	one := chatting(t, func(s grpc.ServerStream, _ int) error {
		got, _ = metadata.FromIncomingContext(s.Context())
		return s.SendHeader(metadata.Pairs("secret", "x"))
	})
	m := underPolicy(t, &routePolicy{rewrite: authorityRewrite{literal: "elsewhere"}, headers: headerPolicy{
		request:  headerMutations{change: []headerChange{{name: "more", value: "2"}}},
		response: headerMutations{remove: []string{"secret"}, change: []headerChange{{name: "mesh", value: "yes"}}}}}, one)
	s := m.chat(t, soon(t))
	md, err := s.Header()
	if err != nil || md["secret"] != nil || strings.Join(md["mesh"], ",") != "yes" {
		t.Errorf("the caller sees %v, %v", md, err)
	}
	if strings.Join(got["more"], ",") != "2" || strings.Join(got[":authority"], ",") != "elsewhere" {
		t.Errorf("the provider sees %v", got)
	}
}

// TestStreamsSendAndReceiveWhileTheyChangeOver is for the race detector: every
// message arrives once and in order, whichever provider answers in the end.
func TestStreamsSendAndReceiveWhileTheyChangeOver(t *testing.T) {
	var flaky atomic.Int32
	chat := func(name string) func(s grpc.ServerStream, n int) error {
		return func(s grpc.ServerStream, _ int) error {
			if n := int(flaky.Add(1)); n%3 != 0 {
				for range n % 4 {
					if _, err := hear(s); err != nil {
						return err
					}
				}
				return status.Error(codes.Unavailable, "not now")
			}
			return echoAll(name, s)
		}
	}
	one, two := chatting(t, chat("x")), chatting(t, chat("x"))
	policy := istioRetry()
	policy.retries = 50
	m := underPolicy(t, &routePolicy{retry: policy}, one, two)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10 {
				s := m.chat(t, soon(t))
				const messages = 20
				all.Go(func() {
					for i := range messages {
						if err := s.SendMsg(wrapperspb.String(fmt.Sprint(i))); err != nil {
							t.Error(err)
							return
						}
					}
					s.CloseSend()
				})
				all.Go(func() { s.Header() })
				for i := range messages {
					if got, err := hear(s); err != nil || got != fmt.Sprint("x:", i) {
						t.Errorf("got %q, %v, want message %d", got, err, i)
						return
					}
				}
				if _, err := hear(s); err != io.EOF {
					t.Errorf("at the end: %v", err)
				}
				s.Trailer()
			}
		})
	}
	all.Wait()
	if m.mesh.Stats().Retries == 0 {
		t.Error("nothing was retried")
	}
}
