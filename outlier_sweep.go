package proxyless

import (
	"math"
	"slices"
	"time"
)

// sweep ends an interval: hosts whose time is over come back, what happened in
// the interval is compared, and who behaved is trusted more. st.mu is held.
func (st *clusterState) sweep(r *outlierRules, now time.Time) {
	st.swept = now
	st.missed(r, now)
	all, local := make([]record, 0, len(st.order)), []record(nil)
	for _, h := range st.order {
		if h.out.Load() && now.Sub(h.left) >= min(r.baseTime*time.Duration(h.times), r.maxTime)+h.jitter {
			st.readmit(h, now)
		}
		if r.rates {
			all = h.record(all, &h.tally.all)
		}
		if r.localRates {
			local = h.record(local, &h.tally.local)
		}
	}
	st.compare(r, all, causeSuccessRate, causeFailureShare, now)
	st.compare(r, local, causeLocalSuccessRate, causeLocalFailureShare, now)
	for _, h := range st.order {
		if !h.out.Load() && h.times > 0 && now.Sub(h.back) >= r.interval {
			h.times--
		}
	}
}

// record is how one host did in an interval.
type record struct {
	host    *host
	calls   uint32
	success float64 // in percent
}

// record takes a host's volume and adds it, unless the host is out or had none.
func (h *host) record(to []record, v *volume) []record {
	calls, successes := v.take()
	if h.out.Load() || calls == 0 {
		return to
	}
	return append(to, record{h, calls, 100 * float64(successes) / float64(calls)})
}

// compare ejects by shares of failures: first those far below the others'
// mean, then those above a fixed threshold.
func (st *clusterState) compare(r *outlierRules, records []record, rate, share cause, now time.Time) {
	if r.enforced[rate] > 0 {
		if busy := busyOnes(records, r.successVolume); len(busy) > 0 && len(busy) >= int(r.successHosts) {
			least := leastSuccess(busy, float64(r.successFactor)/1000)
			for _, x := range busy {
				if x.success < least {
					st.eject(r, x.host, rate, now)
				}
			}
		}
	}
	if r.enforced[share] > 0 {
		if busy := busyOnes(records, r.failureVolume); len(busy) > 0 && len(busy) >= int(r.failureHosts) {
			for _, x := range busy {
				if 100-x.success >= float64(r.failureThreshold) {
					st.eject(r, x.host, share, now)
				}
			}
		}
	}
}

// busyOnes are those with enough calls to be compared.
func busyOnes(records []record, volume uint32) []record {
	var busy []record
	for _, x := range records {
		if x.calls >= volume {
			busy = append(busy, x)
		}
	}
	return busy
}

// leastSuccess is the mean less factor times the standard deviation, which is
// that of the population.
func leastSuccess(records []record, factor float64) float64 {
	n := float64(len(records))
	sum, squares := 0.0, 0.0
	for _, x := range records {
		sum += x.success
	}
	mean := sum / n
	for _, x := range records {
		squares += (x.success - mean) * (x.success - mean)
	}
	return mean - factor*math.Sqrt(squares/n)
}

// cellOf returns the cell of a host of order; nil where it has none. Sets of
// other endpoints have it elsewhere, or not at all. st.mu is held.
func (st *clusterState) cellOf(i int) *cell {
	for _, s := range slices.Backward(st.sets) { // references that choose in ways of their own have sets of their own
		if i < len(s.hosts) && s.hosts[i] == st.order[i] {
			if c := s.slots[i].Load(); c != nil {
				return c
			}
		}
	}
	return nil
}

// watch has failures to connect count for a host from now on: the cell may be
// shared, and older than the host's use of it.
func (st *clusterState) watch(h *host, c *cell) {
	st.mu.Lock()
	defer st.mu.Unlock()
	h.watch(c)
}

func (h *host) watch(c *cell) {
	if h.watched != c {
		h.watched, h.missed = c, c.missed.Load()
	}
}

// missed counts failures to connect since the last sweep. No call saw them,
// since picks pass over what is not ready.
func (st *clusterState) missed(r *outlierRules, now time.Time) {
	v := verdictGateway
	if r.split {
		v = verdictLocal
	}
	for i, h := range st.order {
		c := st.cellOf(i)
		if c == nil {
			continue
		}
		h.watch(c)
		for failed := c.missed.Load(); h.missed != failed; h.missed++ {
			st.cross(h, h.tally.count(r, v), now)
		}
	}
}
