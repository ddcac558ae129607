package proxyless

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Which failures are tried again, by the tokens of retry_on.
//
// gRPC's own (cancelled, deadline-exceeded, internal, resource-exhausted,
// unavailable) are the status of the call, whoever made it: the provider, or
// gRPC here when the connection broke.
//
// Envoy's speak of HTTP, in which every gRPC answer is a 200, whatever its
// status. They are met by what is not the provider's answer: a stream that
// broke (reset, 5xx, gateway-error; refused-stream, where the peer said that it
// had not begun), no connection (connect-failure and the two), a
// per_try_timeout that passed (reset and the two; Envoy treats it as a reset of
// its own), and an answer in plain HTTP, which only an intermediary gives, by
// its status. Two statuses count as the HTTP status that they stand for, since
// intermediaries that speak gRPC answer with these: UNAVAILABLE is 503 (5xx,
// gateway-error), ABORTED is 409 (retriable-4xx). INTERNAL and UNKNOWN are not
// 5xx: providers answer so for failures of their own, after having done who
// knows what, and no sidecar would repeat them.
//
// A per_try_timeout also counts as the DEADLINE_EXCEEDED that the caller would
// see. Envoy looks for gRPC statuses in the headers of responses only, and so
// never does.
//
// A call is tried again until a response message was decoded. gRPC and Envoy
// stop at the headers of a response, since they pass these on; a unary call
// here hands out nothing before its end.

// lapse is how one attempt failed.
type lapse struct {
	err     error
	code    codes.Code
	text    string // of the status
	timeout bool   // its own time limit passed, the call's did not
	unsent  bool   // no endpoint could be reached
	header  metadata.MD
	trailer metadata.MD
}

func newLapse(err error) lapse {
	s, known := status.FromError(err)
	if !known {
		s = status.FromContextError(err)
	}
	return lapse{err: err, code: s.Code(), text: s.Message()}
}

// How gRPC words the failures that are not the peer's answer.
const (
	textReset   = "stream terminated by RST_STREAM with error code: "
	textRefused = textReset + "REFUSED_STREAM"
	textHTTP    = "unexpected HTTP status code received from server: "
)

var textBroken = []string{
	textReset, "connection error: desc = ", "closing transport due to: ", "error reading from server: ",
	"transport is closing", "the connection is draining", "the stream is rejected because server is draining the connection",
}

// broken says that the stream broke, or its connection.
func (l *lapse) broken() bool {
	for _, text := range textBroken {
		if strings.HasPrefix(l.text, text) {
			return true
		}
	}
	return false
}

// httpStatus is that of an answer in plain HTTP; 0 when it was none.
func (l *lapse) httpStatus() int {
	rest, found := strings.CutPrefix(l.text, textHTTP)
	if !found || len(rest) < 3 {
		return 0
	}
	n, _ := strconv.Atoi(rest[:3])
	return n
}

// asksFor says that the policy wants a failure of this kind tried again.
func (p *retryPolicy) asksFor(l *lapse) bool {
	if l.trailer.Get("x-envoy-ratelimited") != nil {
		return p.on&retryEnvoyRateLimited != 0
	}
	if p.codes>>l.code&1 != 0 {
		return true
	}
	const gateway = retry5xx | retryGatewayError
	var met retryConditions
	switch h := l.httpStatus(); {
	case l.timeout:
		met = retryReset | gateway
	case l.unsent:
		met = retryConnectFailure | retryResetBeforeRequest | gateway
	case strings.HasPrefix(l.text, textRefused):
		met = retryRefusedStream | retryReset | retryResetBeforeRequest | gateway
	case l.broken():
		met = retryReset | gateway
	case h >= 502 && h <= 504 || h == 0 && l.code == codes.Unavailable:
		met = gateway
	case h >= 500:
		met = retry5xx
	case h == 409 || h == 0 && l.code == codes.Aborted:
		met = retryRetriable4xx
	}
	return p.on&met != 0 || p.on&retryRetriableHeaders != 0 && p.matchesHeaders(l)
}

// matchesHeaders looks for retriable_headers in what came of a response. Where
// it has a status only, its headers are in its trailers.
func (p *retryPolicy) matchesHeaders(l *lapse) bool {
	md := l.header
	if md == nil {
		md = l.trailer
	}
	if md == nil {
		return false
	}
	h := callHeaders{md: md}
	for i := range p.headers {
		if p.headers[i].matches(&h) {
			return true
		}
	}
	return false
}

// permits says that the request may be repeated at all.
func (p *retryPolicy) permits(h *callHeaders) bool {
	for i := range p.requestHeaders {
		if p.requestHeaders[i].matches(h) {
			return true
		}
	}
	return len(p.requestHeaders) == 0
}

// delay is the pause before the nth repeat, counted from one: any time below
// base*(2^n-1), and below max. That is Envoy's rule. gRPC's spreads by a fifth
// only, so that callers that failed together come back together, and policies
// of a mesh are written for Envoy.
func (p *retryPolicy) delay(n int) time.Duration {
	base, most := p.base, p.max
	if base <= 0 {
		base = 25 * time.Millisecond
	}
	if most <= 0 {
		most = 10 * base
	}
	ceiling := most
	if n < 32 && base <= most>>(n-1) {
		ceiling = min(most, base<<n-base)
	}
	return time.Duration(rand.Int64N(int64(max(1, ceiling))))
}

// limit is the time limit of one attempt; 0 is none. A unary call hears
// nothing before its response, so that per_try_idle_timeout is one, too.
func (p *retryPolicy) limit() time.Duration {
	if p.perTry > 0 && p.perTryIdle > 0 {
		return min(p.perTry, p.perTryIdle)
	}
	return max(p.perTry, p.perTryIdle)
}

// pushback reads grpc-retry-pushback-ms (gRFC A6): how long the provider wants
// the caller to wait, and whether it may try again at all.
func pushback(trailer metadata.MD) (wait time.Duration, has, stop bool) {
	values := trailer["grpc-retry-pushback-ms"]
	if len(values) == 0 {
		return 0, false, false
	}
	n, err := strconv.ParseInt(values[0], 10, 32)
	if len(values) > 1 || err != nil || n < 0 {
		return 0, true, true
	}
	return time.Duration(n) * time.Millisecond, true, false
}

// retrying is the state of repeating one call.
type retrying struct {
	policy  *retryPolicy // nil is no repeats
	state   *clusterState
	repeats int         // attempts that count, the first one aside
	pauses  int         // since the provider said how long to wait; for backoff
	counted atomic.Bool // state counts a repeat that is not over
	extra   choiceExtra
	addrs   [4]netip.AddrPort // room for extra.tried
	asked   bool              // whether the request may be repeated is known,
	barred  bool              // and it may not
}

// again says whether to try again after a lapse, and how long to wait before.
func (r *retrying) again(l *lapse, h func() callHeaders) (time.Duration, bool) {
	r.over()
	p := r.policy
	if p == nil || uint32(r.repeats) >= p.retries || !p.asksFor(l) {
		return 0, false
	}
	if !r.asked {
		r.asked = true
		if len(p.requestHeaders) > 0 {
			headers := h()
			r.barred = !p.permits(&headers)
		}
	}
	if r.barred {
		return 0, false
	}
	wait, pushed, stop := pushback(l.trailer)
	if stop || !r.state.admitRetry() {
		return 0, false
	}
	r.counted.Store(true)
	r.repeats++
	r.pauses++
	if pushed {
		r.pauses = 0
		return wait, true
	}
	return p.delay(r.pauses), true
}

// over counts a repeat out.
func (r *retrying) over() {
	if r.counted.Load() && r.counted.Swap(false) {
		r.state.leaveRetry()
	}
}

// avoid notes where an attempt went, so that the next one goes elsewhere.
func (r *retrying) avoid(a *attempt, c *choice) {
	p := r.policy
	c.extra = nil // a session counts for the first attempt only, as in Envoy
	if p == nil || !p.previousHosts && !p.previousPriorities {
		return
	}
	if r.extra.tried == nil {
		r.extra.tried = r.addrs[:0]
	}
	r.extra.tried = append(r.extra.tried, a.set.endpoints[a.at].addr)
	if p.previousHosts {
		r.extra.reselect = int(max(1, p.reselect))
	}
	if p.previousPriorities { // priorities change over after each so many attempts
		r.extra.avoid = r.extra.tried[:len(r.extra.tried)-len(r.extra.tried)%int(max(1, p.priorityEvery))]
	}
	c.extra = &r.extra
}

// pause waits before an attempt. It returns false at once where the call's
// deadline comes first: its caller learns why it failed, and not only that
// time is over.
func (inv *Invoker) pause(ctx context.Context, wait time.Duration) bool {
	if wait <= 0 {
		return ctx.Err() == nil
	}
	if at, has := ctx.Deadline(); has && time.Until(at) <= wait {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-inv.closed:
	}
	return false
}

// tooSlow is the error of an attempt that took longer than the mesh gives it.
func (inv *Invoker) tooSlow(w *way, limit time.Duration) *Error {
	return &Error{Stage: StageRoute, Resource: w.route.name, Code: codes.DeadlineExceeded, Err: errPerTry,
		Reason: fmt.Sprintf("no answer within %v, which is all that the route gives one attempt", limit),
		Advice: "raise perTryTimeout of the VirtualService's retries, or retry on reset"}
}

// errPerTry tells the end of an attempt's time from that of the call's.
var errPerTry = errors.New("proxyless: per_try_timeout")
