package proxyless

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// hanging starts a provider that never answers, and tells when it was cancelled.
func hanging(t testing.TB) (r *replica, cancelled *atomic.Int32) {
	cancelled = new(atomic.Int32)
	return saying(t, func(ctx context.Context, _ int) (string, error) {
		<-ctx.Done()
		cancelled.Add(1)
		return "", ctx.Err()
	}), cancelled
}

func TestAHedgeIsSentWhereAnAttemptTakesTooLong(t *testing.T) {
	slow, cancelled := hanging(t)
	fast := saying(t, func(ctx context.Context, _ int) (string, error) {
		grpc.SetHeader(ctx, metadata.Pairs("by", "fast"))
		return strings.Repeat("fast", 1000), nil
	})
	p := &routePolicy{retry: &retryPolicy{retries: 2, perTry: 30 * time.Millisecond, base: quick}, hedge: &hedgePolicy{initial: 1, onPerTry: true}}
	m := underPolicy(t, p, slow, fast)
	codec := &countingCodec{CodecV2: encoding.GetCodecV2("proto")}
	for range 6 {
		var header metadata.MD
		var who peer.Peer
		codec.marshals.Store(0)
		codec.unmarshals.Store(0)
		got, err := m.say(soon(t), grpc.Header(&header), grpc.Peer(&who), grpc.ForceCodecV2(codec))
		if err != nil || len(got) != 4000 || strings.Join(header["by"], "") != "fast" || who.Addr.String() != fast.addr.String() {
			t.Errorf("got %d bytes, %v, header %v, from %v", len(got), err, header, who.Addr)
		}
		if n, u := codec.marshals.Load(), codec.unmarshals.Load(); n != 1 || u != 1 {
			t.Errorf("marshalled %d times, unmarshalled %d times", n, u)
		}
	}
	if n := slow.calls.Load(); n == 0 {
		t.Error("the slow one was never called")
	}
	waitFor(t, "all losers are cancelled", func() bool { return cancelled.Load() == slow.calls.Load() })
	for i := range 2 {
		waitFor(t, "nothing is left of the calls", func() bool { return m.inv.plan.Load().sets[0].slots[i].Load().inflight.Load() == 0 })
	}
}

func TestInitialRequestsAreSentAtOnce(t *testing.T) {
	var all []*replica
	for i := range 3 {
		all = append(all, saying(t, func(ctx context.Context, _ int) (string, error) {
			if i < 2 {
				return "", status.Error(codes.Unavailable, "")
			}
			time.Sleep(20 * time.Millisecond)
			return "third", nil
		}))
	}
	m := underPolicy(t, &routePolicy{hedge: &hedgePolicy{initial: 3}}, all...)
	for range 10 {
		if who, err := m.say(soon(t)); err != nil || who != "third" {
			t.Errorf("got %q, %v", who, err)
		}
	}
	for i, r := range all {
		if n := r.calls.Load(); n != 10 {
			t.Errorf("provider %d was called %d times in 10 calls", i, n)
		}
	}
}

func TestAnAdditionalRequestIsSentByChance(t *testing.T) {
	one := saying(t, func(ctx context.Context, _ int) (string, error) { time.Sleep(quick); return "one", nil })
	m := underPolicy(t, &routePolicy{hedge: &hedgePolicy{initial: 1, chance: 500_000}}, one)
	const calls = 400
	for range calls {
		m.say(soon(t))
	}
	// Eight standard deviations of the binomial distribution are 80.
	if n := one.calls.Load() - calls; n < 120 || n > 280 {
		t.Errorf("%d of %d calls had an additional request, want about half", n, calls)
	}
}

func TestAHedgedCallFailsAsItsAttemptsDo(t *testing.T) {
	for name, test := range map[string]struct {
		retry *retryPolicy
		code  codes.Code
		most  int32
	}{
		"all fail":                  {nil, codes.Unavailable, 2},
		"an answer that is final":   {&retryPolicy{codes: bit(codes.Unavailable), retries: 3, base: quick}, codes.NotFound, 2},
		"retried as often as it is": {&retryPolicy{codes: bit(codes.Unavailable), retries: 3, base: quick}, codes.Unavailable, 5},
	} {
		t.Run(name, func(t *testing.T) {
			one := answering(t, "", status.Error(test.code, "no"))
			m := underPolicy(t, &routePolicy{hedge: &hedgePolicy{initial: 2}, retry: test.retry}, one)
			if _, err := m.say(soon(t)); status.Code(err) != test.code {
				t.Errorf("got %v", err)
			}
			if n := one.calls.Load(); n > test.most || test.code == codes.Unavailable && n != test.most {
				t.Errorf("%d attempts, want %d", n, test.most)
			}
		})
	}
}

func TestAHedgedCallEndsWithItsContext(t *testing.T) {
	slow, cancelled := hanging(t)
	m := underPolicy(t, &routePolicy{hedge: &hedgePolicy{initial: 3}}, slow)
	ctx, cancel := context.WithTimeout(soon(t), 50*time.Millisecond)
	defer cancel()
	if _, err := m.say(ctx); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	waitFor(t, "all are cancelled", func() bool { return cancelled.Load() == slow.calls.Load() })
}

func TestHedgedAttemptsHaveTheirTime(t *testing.T) {
	slow, _ := hanging(t)
	m := underPolicy(t, &routePolicy{hedge: &hedgePolicy{initial: 2}, retry: &retryPolicy{codes: 1, retries: 1, perTry: 20 * time.Millisecond}}, slow)
	_, err := m.say(soon(t))
	isOwn(t, err, StageRoute, codes.DeadlineExceeded, "perTryTimeout")
}

func TestManyHedgedCallsAtATime(t *testing.T) {
	var all []*replica
	for i := range 3 {
		all = append(all, saying(t, func(_ context.Context, n int) (string, error) {
			time.Sleep(time.Duration(n%3) * quick)
			if n%5 == i {
				return "", status.Error(codes.Unavailable, "")
			}
			return "fine", nil
		}))
	}
	m := underPolicy(t, &routePolicy{hedge: &hedgePolicy{initial: 2, onPerTry: true}, retry: &retryPolicy{codes: bit(codes.Unavailable), retries: 10, base: quick, perTry: 3 * quick}}, all...)
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			for range 30 {
				var h, tr metadata.MD
				if who, err := m.say(context.Background(), grpc.Header(&h), grpc.Trailer(&tr)); err != nil || who != "fine" {
					done <- fmt.Errorf("%q, %v", who, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
