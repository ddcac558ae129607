package proxyless

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
)

// Headers by which a call asks for a fault, where the mesh permits it.
const (
	faultDelayHeader      = "x-envoy-fault-delay-request" // in milliseconds
	faultDelayShareHeader = "x-envoy-fault-delay-request-percentage"
	faultAbortHeader      = "x-envoy-fault-abort-request" // an HTTP status
	faultGRPCAbortHeader  = "x-envoy-fault-abort-grpc-request"
	faultAbortShareHeader = "x-envoy-fault-abort-request-percentage"
)

// inject delays a call and then fails it, as far as the mesh asks for that
// (gRFC A33). ended says that the call is over: with err, which is nil where
// the mesh asks for an empty success. It happens once for each call, before
// its first attempt, so that what is injected is not retried.
func (inv *Invoker) inject(ctx context.Context, f *faultPolicy, method string, w *way) (ended bool, err error) {
	h := w.plan.callHeaders(ctx, method)
	if !f.concerns(&h, w.cluster.name, inv.target.node) {
		return false, nil
	}
	delay := f.drawDelay(&h)
	code, abort := f.drawAbort(&h)
	if delay <= 0 && !abort {
		return false, nil
	}
	active := &inv.counts.faultsActive
	if n := active.Add(1); f.limited && n > int64(f.maxActive) {
		active.Add(-1)
		return false, nil
	}
	defer active.Add(-1)
	inv.counts.faults.Add(1)
	if delay > 0 {
		if err := inv.linger(ctx, delay, w); err != nil {
			return true, err
		}
	}
	if !abort {
		return false, nil
	}
	if code == codes.OK {
		return true, nil
	}
	return true, &Error{Stage: StageRoute, Resource: w.route.name, Code: code, Err: errInjected,
		Reason: fmt.Sprintf("the mesh injected this failure, %v: it is not the provider's", code),
		Advice: "take fault.abort out of the VirtualService's route, or x-envoy-fault-abort-... out of the call"}
}

// errInjected marks the failures that no provider caused.
var errInjected = fmt.Errorf("proxyless: injected fault")

// linger is a delay that the mesh injects.
func (inv *Invoker) linger(ctx context.Context, delay time.Duration, w *way) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-inv.closed:
		return inv.meshClosed()
	case <-ctx.Done():
		return expired(ctx, &Error{Stage: StageRoute, Resource: w.route.name,
			Reason: fmt.Sprintf("the mesh injects a delay of %v", delay), Advice: "take fault.delay out of the VirtualService's route, or give the call more time"})
	}
}

// concerns says whether a call is one that faults are meant for.
func (f *faultPolicy) concerns(h *callHeaders, cluster, node string) bool {
	if f.upstream != "" && f.upstream != cluster || len(f.nodes) > 0 && !slices.Contains(f.nodes, node) {
		return false
	}
	for i := range f.headers {
		if !f.headers[i].matches(h) {
			return false
		}
	}
	return true
}

// drawDelay is the delay of this very call; 0 is none.
func (f *faultPolicy) drawDelay(h *callHeaders) time.Duration {
	delay := f.delay
	share := f.delayShare
	if f.headerDelay {
		ms, has := number(h, faultDelayHeader)
		if !has || ms > int64(time.Duration(1<<63-1)/time.Millisecond) {
			return 0
		}
		delay, share = time.Duration(ms)*time.Millisecond, lowered(share, f.delayUnit, h, faultDelayShareHeader)
	}
	if delay <= 0 || !drawn(share) {
		return 0
	}
	return delay
}

// drawAbort is the status that this very call is to fail with.
func (f *faultPolicy) drawAbort(h *callHeaders) (codes.Code, bool) {
	code, share := f.abort, f.abortShare
	if f.headerAbort {
		var has bool
		if code, has = abortOf(h); !has {
			return 0, false
		}
		share = lowered(share, f.abortUnit, h, faultAbortShareHeader)
	} else if !f.hasAbort {
		return 0, false
	}
	return code, drawn(share)
}

// abortOf is the status that a call asks to fail with. The gRPC status counts
// where both are there, as Envoy documents it.
func abortOf(h *callHeaders) (codes.Code, bool) {
	if n, has := number(h, faultGRPCAbortHeader); has {
		if n > int64(codes.Unauthenticated) {
			return codes.Unknown, true
		}
		return codes.Code(n), true
	}
	if n, has := number(h, faultAbortHeader); has && n >= 200 && n < 600 {
		return codeOfHTTP(uint32(n)), true
	}
	return 0, false
}

// lowered is a share that a header may make smaller: it counts in the unit of
// the mesh's percentage.
func lowered(share, unit uint32, h *callHeaders, header string) uint32 {
	n, has := number(h, header)
	if !has {
		return share
	}
	if unit == 0 {
		unit = fractionScale / 100
	}
	return uint32(min(int64(share), min(n, fractionScale)*int64(unit)))
}

// number reads a header that is a number, 0 or more.
func number(h *callHeaders, name string) (int64, bool) {
	text, has := h.get(name)
	if !has {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n >= 0
}

// drawn draws lots: it is true in so many of a million cases.
func drawn(share uint32) bool {
	return share >= fractionScale || share > 0 && rand.Uint32N(fractionScale) < share
}
