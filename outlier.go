package proxyless

import (
	"math"
	"sync/atomic"
	"time"
)

// Outlier detection ejects endpoints that fail where others do not: picks avoid
// them for a while, calls in flight go on. It follows Envoy's, whose settings
// are in envoy.config.cluster.v3.OutlierDetection
// (source/common/upstream/outlier_detection_impl.cc), in all its modes:
// failures in a row, which eject at once, and shares of failures, which are
// compared at each sweep. gRFC A50 has the latter only.
//
// Counting is atomics; whatever ejects holds the state's mu and is told the
// time.

// outlierRules is outlier detection made ready for counting.
type outlierRules struct {
	outlierDetection
	rates      bool // some rule compares shares of failures
	localRates bool // the same, for failures of local origin
	enforced   [causeCount]uint32
}

// cause is why an endpoint is ejected.
type cause uint8

const (
	causeServer cause = iota // failures in a row
	causeGateway
	causeLocal
	causeSuccessRate
	causeFailureShare
	causeLocalSuccessRate
	causeLocalFailureShare
	causeCount
)

var causeNames = [causeCount]string{"consecutive 5xx", "consecutive gateway failures", "consecutive local-origin failures",
	"success rate", "failure percentage", "local-origin success rate", "local-origin failure percentage"}

// causes is a set: bit n for cause n.
type causes uint8

func newOutlierRules(d *outlierDetection) *outlierRules {
	r := &outlierRules{outlierDetection: *d}
	r.enforced = [causeCount]uint32{d.enforce5xx, d.enforceGateway, d.enforceLocal,
		d.enforceSuccessRate, d.enforceFailure, d.enforceLocalSuccessRate, d.enforceLocalFailure}
	if r.interval <= 0 {
		r.interval = 10 * time.Second // Envoy's default; 0 would be no sweep, and no way back
	}
	if !d.split {
		r.enforced[causeLocal], r.enforced[causeLocalSuccessRate], r.enforced[causeLocalFailureShare] = 0, 0, 0
	}
	r.rates = r.enforced[causeSuccessRate] > 0 || r.enforced[causeFailureShare] > 0
	r.localRates = r.enforced[causeLocalSuccessRate] > 0 || r.enforced[causeLocalFailureShare] > 0
	return r
}

// idle says that no rule is in force.
func (r *outlierRules) idle() bool { return r.enforced == [causeCount]uint32{} }

// tally counts the outcomes of one host. Calls write it.
type tally struct {
	row   [causeSuccessRate]atomic.Uint32 // failures in a row, by cause
	all   volume
	local volume
}

// volume counts calls and, of these, successes since the last sweep, in one
// word: calls in the upper half.
type volume struct{ n atomic.Uint64 }

func (v *volume) add(success bool) {
	n := uint64(1) << 32
	if success {
		n++
	}
	v.n.Add(n)
}

// take returns the counts and begins anew.
func (v *volume) take() (calls, successes uint32) {
	n := v.n.Swap(0)
	return uint32(n >> 32), uint32(n)
}

// count notes an outcome and returns the rules whose limit it reaches.
func (t *tally) count(r *outlierRules, v verdict) causes {
	if v == verdictLocal && r.split {
		if r.localRates {
			t.local.add(false)
		}
		return t.fail(r, causeLocal, r.consecutiveLocal)
	}
	if r.split { // whatever else, it answered
		t.clear(causeLocal)
		if r.localRates {
			t.local.add(true)
		}
	}
	if r.rates {
		t.all.add(v == verdictSuccess)
	}
	switch v {
	case verdictSuccess:
		t.clear(causeServer)
		t.clear(causeGateway)
		return 0
	case verdictFailure:
		t.clear(causeGateway)
		return t.fail(r, causeServer, r.consecutive5xx)
	}
	return t.fail(r, causeGateway, r.consecutiveGateway) | t.fail(r, causeServer, r.consecutive5xx)
}

// fail counts a failure in a row.
func (t *tally) fail(r *outlierRules, c cause, limit uint32) causes {
	if limit > 0 && r.enforced[c] > 0 && t.row[c].Add(1) >= limit {
		return 1 << c
	}
	return 0
}

// clear ends a row of failures. It writes only where there is one.
func (t *tally) clear(c cause) {
	if t.row[c].Load() != 0 {
		t.row[c].Store(0)
	}
}

// ejection is how a host stands. It is written with the mu of its state held,
// and all but out is read so, too.
type ejection struct {
	out    atomic.Bool
	left   time.Time // when it was last ejected
	back   time.Time // when it last came back; zero if never
	jitter time.Duration
	times  int   // the next ejection lasts so many base times; good intervals let it shrink
	cause  cause // of the latest

	// Failures to connect that were counted, and where.
	missed  uint32
	watched *cell
}

// detect begins, changes or ends outlier detection. An interval that has begun
// keeps its begin. st.mu is held.
func (st *clusterState) detect(d *outlierDetection, now time.Time) {
	var r *outlierRules
	if d != nil {
		if r = newOutlierRules(d); r.idle() {
			r = nil
		}
	}
	was := st.rules.Swap(r)
	switch {
	case r == nil:
		st.sweeper.stop()
		st.sweeper = nil
		st.pardon(now)
	case was == nil:
		st.swept = now
		st.sweeper = st.upkeep.do(r.interval, st.tick)
	case was.interval != r.interval:
		st.sweeper.in(max(0, st.swept.Add(r.interval).Sub(now)))
	}
}

// tick is the chore of sweeping.
func (st *clusterState) tick(now time.Time) time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	r := st.rules.Load()
	if r == nil {
		return 0
	}
	st.sweep(r, now)
	return r.interval
}

// pardon lets all hosts in and forgets what they did. st.mu is held.
func (st *clusterState) pardon(now time.Time) {
	for _, h := range st.order {
		if h.out.Load() {
			st.readmit(h, now)
		}
		h.tally.all.take()
		h.tally.local.take()
		h.times = 0
	}
}

// cross ejects a host for failures in a row. st.mu is held.
func (st *clusterState) cross(h *host, crossed causes, now time.Time) {
	r := st.rules.Load()
	for c := range causeSuccessRate {
		if crossed>>c&1 != 0 && r != nil && !h.out.Load() {
			st.eject(r, h, c, now)
			h.tally.row[c].Store(0) // also where it was spared, so that it is caught the next time
		}
	}
}

// eject takes a host out, if there may be one more and the rule is enforced
// this time. st.mu is held.
func (st *clusterState) eject(r *outlierRules, h *host, c cause, now time.Time) {
	if h.out.Load() || st.known[h.addr] != h {
		return
	}
	if uint64(st.out+1)*100 > uint64(r.maxEjected)*uint64(st.total) && !(r.atLeastOne && st.out == 0) {
		return
	}
	if st.random(100) >= r.enforced[c] {
		return
	}
	h.out.Store(true)
	h.left, h.cause = now, c
	h.jitter = 0
	if most := r.jitter.Milliseconds(); most > 0 {
		h.jitter = time.Duration(st.random(uint32(min(most, math.MaxUint32-1))+1)) * time.Millisecond
	}
	if time.Duration(h.times)*r.baseTime < r.maxTime+r.baseTime {
		h.times++
	}
	st.out++
	st.counts.ejections.Add(1)
	h.ejected.Store(true)
	st.reweigh()
}

// readmit lets a host in again, with no failures in a row. st.mu is held.
func (st *clusterState) readmit(h *host, now time.Time) {
	h.out.Store(false)
	h.back = now
	st.out--
	for c := range h.tally.row {
		h.tally.row[c].Store(0)
	}
	h.ejected.Store(false)
	st.reweigh()
}

// reweigh tells the sets that the health of their priorities changed. st.mu is
// held.
func (st *clusterState) reweigh() {
	for _, s := range st.sets {
		s.weigh()
	}
}
