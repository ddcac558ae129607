package proxyless

import (
	"math/rand/v2"
	"time"
)

// renewal decides when a certificate is asked for. It has no clock: times are
// told to it.
type renewal struct {
	settings *Identity // constant

	next     time.Time // when to ask
	date     time.Time // the same by the calendar: a host that slept has another; zero after a failure
	asked    time.Time // when it was asked last
	failures int       // in a row
}

const (
	// askFloor is the least time between two certificates, whatever the lifetimes
	// that an authority grants and the roots that change. Who asks for shorter
	// ones than can be renewed so gets a lower floor, down to leastFloor.
	askFloor   = 5 * time.Second
	leastFloor = 500 * time.Millisecond
	// rootSpread is over how long the processes that see a changed root ask for
	// certificates of it.
	rootSpread = 10 * time.Second
)

// authorityBackoff is the pause after failures: the old certificate is kept
// meanwhile. 1 s, 1.6 s, 2.6 s ... 60 s, each ±20 %.
var authorityBackoff = backoff{base: time.Second, factor: 1.6, jitter: 0.2, most: time.Minute}

// due says that it is time to ask. Times that were told here are compared by the
// clock that runs evenly, so that one that is set does no harm; but certificates
// end by the calendar, and that clock stands still while a host sleeps.
func (r *renewal) due(now time.Time) bool {
	if !now.Before(r.next) {
		return true
	}
	return !r.date.IsZero() && !now.Round(0).Before(r.date) && !now.Before(r.asked.Add(r.pause()))
}

// ask notes that a certificate is asked for.
func (r *renewal) ask(now time.Time) { r.asked = now }

// granted notes a certificate and its end. What counts is the time that it has
// left: istiod dates the beginning two minutes back.
func (r *renewal) granted(now, end time.Time) {
	r.failures = 0
	left := float64(end.Sub(now)) * (1 - r.settings.share(2*rand.Float64()-1))
	r.next = r.floor(now.Add(time.Duration(left)))
	r.date = r.next.Round(0)
}

// failed notes that there was no certificate.
func (r *renewal) failed(now time.Time) {
	r.failures++
	r.date = time.Time{}
	r.next = now.Add(authorityBackoff.delay(r.failures))
}

// hurry asks earlier, since the roots changed.
func (r *renewal) hurry(now time.Time) {
	if early := r.floor(now.Add(rand.N(rootSpread))); early.Before(r.next) && r.failures == 0 {
		r.next = early
	}
}

// pause is the floor: a quarter of the lifetime that is asked for, within its
// bounds.
func (r *renewal) pause() time.Duration {
	if r.settings.Lifetime <= 0 {
		return askFloor
	}
	return min(max(r.settings.Lifetime/4, leastFloor), askFloor)
}

func (r *renewal) floor(at time.Time) time.Time {
	if floor := r.asked.Add(r.pause()); at.Before(floor) {
		return floor
	}
	return at
}
