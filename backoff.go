package proxyless

import (
	"math/rand/v2"
	"time"
)

// backoff is the jittered exponential delay between attempts to reach the
// control plane (gRFC A57 uses the same shape).
type backoff struct {
	base   time.Duration // delay after the first failure
	factor float64       // growth per further failure
	jitter float64       // each delay is spread by this share in both directions
	most   time.Duration // no delay is longer, jitter aside
}

// controlPlaneBackoff gives up neither quickly nor in step with other
// processes: 1 s, 1.6 s, 2.6 s ... 30 s, each ±20 %.
var controlPlaneBackoff = backoff{base: time.Second, factor: 1.6, jitter: 0.2, most: 30 * time.Second}

// delay is the pause after the given number of failures in a row, counted from
// one.
func (b backoff) delay(failures int) time.Duration {
	d := float64(b.base)
	for range failures - 1 {
		if d *= b.factor; d >= float64(b.most) {
			d = float64(b.most)
			break
		}
	}
	return time.Duration(d * (1 + b.jitter*(2*rand.Float64()-1)))
}
