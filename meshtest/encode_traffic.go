package meshtest

import (
	"cmp"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// noLimit is what Istio sends for a limit that nobody set.
const noLimit = math.MaxUint32

func appendDouble(b []byte, num protowire.Number, v float64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), math.Float64bits(v))
}

// appendPercent writes an envoy.type.v3.Percent.
func appendPercent(b []byte, num protowire.Number, v float64) []byte {
	return appendMessage(b, num, appendDouble(nil, 1, v))
}

// appendLimit writes a UInt32Value. What is 0 takes the given default, and is
// left out where that is 0 too.
func appendLimit(b []byte, num protowire.Number, v, otherwise uint32) []byte {
	if v == 0 {
		v = otherwise
	}
	if v == 0 {
		return b
	}
	return appendWrapped(b, num, uint64(v))
}

// appendGiven writes a duration that is not 0.
func appendGiven(b []byte, num protowire.Number, d time.Duration) []byte {
	if d == 0 {
		return b
	}
	return appendDuration(b, num, d)
}

// thresholds is CircuitBreakers with one entry. Limits that are not set have the
// given value.
func (p ConnectionPool) thresholds(otherwise uint32) []byte {
	b := appendLimit(nil, 2, p.MaxConnections, otherwise)
	b = appendLimit(b, 3, p.MaxPendingRequests, otherwise)
	b = appendLimit(b, 4, p.MaxRequests, otherwise)
	b = appendLimit(b, 5, p.MaxRetries, otherwise)
	if r := p.RetryBudget; r != nil {
		budget := appendPercent(nil, 1, r.Percent)
		b = appendMessage(b, 8, appendLimit(budget, 2, r.MinConcurrency, 0))
	}
	if len(b) == 0 {
		return nil
	}
	return appendMessage(nil, 1, b)
}

// common is common_http_protocol_options; nil where there is none.
func (p ConnectionPool) common() []byte {
	b := appendGiven(nil, 1, cmp.Or(p.IdleTimeout, p.TCPIdleTimeout))
	b = appendGiven(b, 3, p.MaxConnectionDuration)
	return appendLimit(b, 6, p.MaxRequestsPerConnection, 0)
}

func (k TCPKeepalive) marshal() []byte {
	b := appendLimit(nil, 1, k.Probes, 0)
	b = appendLimit(b, 2, uint32(k.Time/time.Second), 0)
	b = appendLimit(b, 3, uint32(k.Interval/time.Second), 0)
	return appendMessage(nil, 1, b)
}

func (o OutlierDetection) marshal() []byte {
	b := appendCount(nil, 1, 5, o.Consecutive5xx)
	b = appendGiven(b, 2, o.Interval)
	b = appendGiven(b, 3, o.BaseEjectionTime)
	b = appendLimit(b, 4, o.MaxEjectionPercent, 0)
	b = o.appendRates(b)
	b = appendCount(b, 10, 11, o.ConsecutiveGatewayFailures)
	if o.SplitLocalErrors {
		b = appendBool(b, 12, true)
		b = appendCount(b, 13, 14, o.ConsecutiveLocalFailures)
		b = appendWrapped(b, 15, 0)
	}
	b = appendGiven(b, 21, o.MaxEjectionTime)
	return append(b, o.Raw...)
}

// appendCount writes a number of errors in a row and how it is enforced.
func appendCount(b []byte, count, enforcing protowire.Number, n int) []byte {
	switch {
	case n == 0:
		return b
	case n < 0:
		return appendWrapped(appendWrapped(b, count, 0), enforcing, 0)
	default:
		return appendWrapped(appendWrapped(b, count, uint64(n)), enforcing, 100)
	}
}

func (o OutlierDetection) appendRates(b []byte) []byte {
	rate := SuccessRate{}
	if o.SuccessRate != nil {
		rate = *o.SuccessRate
	}
	b = appendWrapped(b, 6, uint64(rate.Enforcing))
	b = appendLimit(b, 7, rate.MinHosts, 0)
	b = appendLimit(b, 8, rate.RequestVolume, 0)
	b = appendLimit(b, 9, rate.StdevFactor, 0)
	if f := o.FailurePercentage; f != nil {
		b = appendLimit(b, 16, f.Threshold, 0)
		b = appendWrapped(b, 17, uint64(f.Enforcing))
		b = appendLimit(b, 19, f.MinHosts, 0)
		b = appendLimit(b, 20, f.RequestVolume, 0)
	}
	return b
}

// marshal is a SlowStartConfig. The runtime key is that of istiod.
func (w Warmup) marshal() []byte {
	aggression, percent := w.Aggression, w.MinPercent
	if aggression == 0 {
		aggression = 1
	}
	if percent == 0 {
		percent = 10
	}
	b := appendDuration(nil, 1, w.Duration)
	b = appendMessage(b, 2, appendString(appendDouble(nil, 1, aggression), 2, "("))
	return appendPercent(b, 3, float64(percent))
}
