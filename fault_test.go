package proxyless

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestFaultsAreInjected(t *testing.T) {
	always := uint32(fractionScale)
	for name, test := range map[string]struct {
		fault   faultPolicy
		headers []string
		want    codes.Code // OK where the provider is to answer
	}{
		"abort":                        {fault: faultPolicy{abort: codes.ResourceExhausted, hasAbort: true, abortShare: always}, want: codes.ResourceExhausted},
		"abort of none":                {fault: faultPolicy{abort: codes.ResourceExhausted, hasAbort: true}, want: codes.OK},
		"headers match":                {fault: faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: always, headers: []headerMatch{{name: "a"}}}, headers: []string{"a", "1"}, want: codes.Aborted},
		"headers do not match":         {fault: faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: always, headers: []headerMatch{{name: "a"}, {name: "b"}}}, headers: []string{"a", "1"}, want: codes.OK},
		"another cluster":              {fault: faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: always, upstream: "other"}, want: codes.OK},
		"this cluster":                 {fault: faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: always, upstream: fedCluster}, want: codes.Aborted},
		"another node":                 {fault: faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: always, nodes: []string{"other"}}, want: codes.OK},
		"by header":                    {fault: faultPolicy{headerAbort: true, abortShare: always}, headers: []string{faultGRPCAbortHeader, "7"}, want: codes.PermissionDenied},
		"by HTTP header":               {fault: faultPolicy{headerAbort: true, abortShare: always}, headers: []string{faultAbortHeader, "404"}, want: codes.Unimplemented},
		"by both headers":              {fault: faultPolicy{headerAbort: true, abortShare: always}, headers: []string{faultAbortHeader, "404", faultGRPCAbortHeader, "7"}, want: codes.PermissionDenied},
		"by a header that is no code":  {fault: faultPolicy{headerAbort: true, abortShare: always}, headers: []string{faultGRPCAbortHeader, "x"}, want: codes.OK},
		"by a header beyond all codes": {fault: faultPolicy{headerAbort: true, abortShare: always}, headers: []string{faultGRPCAbortHeader, "99"}, want: codes.Unknown},
		"no header":                    {fault: faultPolicy{headerAbort: true, abortShare: always}, want: codes.OK},
		"a header nobody permitted":    {fault: faultPolicy{}, headers: []string{faultGRPCAbortHeader, "7"}, want: codes.OK},
		"a header that lowers":         {fault: faultPolicy{headerAbort: true, abortShare: always}, headers: []string{faultGRPCAbortHeader, "7", faultAbortShareHeader, "0"}, want: codes.OK},
		"a header cannot raise":        {fault: faultPolicy{headerAbort: true}, headers: []string{faultGRPCAbortHeader, "7", faultAbortShareHeader, "100"}, want: codes.OK},
		"no more faults":               {fault: faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: always, limited: true}, want: codes.OK},
		"one fault at a time":          {fault: faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: always, limited: true, maxActive: 1}, want: codes.Aborted},
	} {
		t.Run(name, func(t *testing.T) {
			one := answering(t, "one", nil)
			retry := istioRetry()
			retry.codes = ^uint32(0)
			m := underPolicy(t, &routePolicy{fault: &test.fault, retry: retry}, one)
			for range 2 {
				_, err := m.say(metadata.AppendToOutgoingContext(soon(t), test.headers...))
				if test.want == codes.OK {
					if err != nil {
						t.Errorf("got %v", err)
					}
					continue
				}
				isOwn(t, err, StageRoute, test.want, "the mesh injected")
				if !strings.Contains(err.Error(), "route default") {
					t.Errorf("the route is not named: %v", err)
				}
				if one.calls.Load() != 0 || m.mesh.Stats().Retries != 0 {
					t.Error("an injected failure was sent or retried")
				}
			}
		})
	}
}

func TestAnInjectedOKEndsTheCall(t *testing.T) {
	one := answering(t, "one", nil)
	m := underPolicy(t, &routePolicy{fault: &faultPolicy{hasAbort: true, abortShare: fractionScale}}, one)
	if who, err := m.say(soon(t)); who != "" || err != nil || one.calls.Load() != 0 {
		t.Errorf("got %q, %v, %d calls", who, err, one.calls.Load())
	}
}

func TestFaultsTakeTheirShare(t *testing.T) {
	one := answering(t, "one", nil)
	for name, test := range map[string]struct {
		fault  faultPolicy
		header string
		share  float64
	}{
		"a quarter":              {faultPolicy{abort: codes.Aborted, hasAbort: true, abortShare: 250_000}, "", 0.25},
		"lowered to a tenth":     {faultPolicy{headerAbort: true, abortShare: 250_000}, "10", 0.10},
		"lowered in thousandths": {faultPolicy{headerAbort: true, abortShare: 250_000, abortUnit: 100}, "1000", 0.10},
	} {
		m := underPolicy(t, &routePolicy{fault: &test.fault}, one)
		ctx := metadata.AppendToOutgoingContext(soon(t), faultGRPCAbortHeader, "10")
		if test.header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, faultAbortShareHeader, test.header)
		}
		const calls = 2000
		aborted := 0
		for range calls {
			if _, err := m.say(ctx); status.Code(err) == codes.Aborted {
				aborted++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		// Eight standard deviations of the binomial distribution are at most 155.
		if want := calls * test.share; float64(aborted) < want-155 || float64(aborted) > want+155 {
			t.Errorf("%s: %d of %d calls aborted, want about %v", name, aborted, calls, want)
		}
	}
}

func TestADelayIsInjectedBeforeTheAbort(t *testing.T) {
	one := answering(t, "one", nil)
	m := underPolicy(t, &routePolicy{fault: &faultPolicy{delay: 50 * time.Millisecond, delayShare: fractionScale, hasAbort: true, abort: codes.Aborted, abortShare: fractionScale}}, one)
	start := time.Now()
	if _, err := m.say(soon(t)); status.Code(err) != codes.Aborted || time.Since(start) < 50*time.Millisecond {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
	m = underPolicy(t, &routePolicy{fault: &faultPolicy{headerDelay: true, delayShare: fractionScale}}, one)
	start = time.Now()
	if who, err := m.say(metadata.AppendToOutgoingContext(soon(t), faultDelayHeader, "50")); err != nil || who != "one" || time.Since(start) < 50*time.Millisecond {
		t.Errorf("got %q, %v after %v", who, err, time.Since(start))
	}
}

func TestADelayEndsWithTheDeadline(t *testing.T) {
	one := answering(t, "one", nil)
	m := underPolicy(t, &routePolicy{fault: &faultPolicy{delay: time.Hour, delayShare: fractionScale, limited: true, maxActive: 1}}, one)
	ctx, cancel := context.WithTimeout(soon(t), time.Second)
	defer cancel()
	delayed := make(chan error)
	go func() { _, err := m.say(ctx); delayed <- err }()
	for m.inv.counts.faultsActive.Load() == 0 {
		time.Sleep(quick)
	}
	if _, err := m.say(soon(t)); err != nil { // there is one active fault, and no more may be
		t.Errorf("beside the fault: %v", err)
	}
	isOwn(t, <-delayed, StageRoute, codes.DeadlineExceeded, "injects a delay")
	if n := m.inv.counts.faultsActive.Load(); n != 0 {
		t.Errorf("%d faults are still active", n)
	}
}
