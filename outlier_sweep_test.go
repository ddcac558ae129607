package proxyless

import (
	"slices"
	"testing"
	"time"
)

func TestSuccessRateEjectsWhoIsFarBelowTheMean(t *testing.T) {
	rate := func(change func(*outlierDetection)) func(*outlierDetection) {
		return func(d *outlierDetection) {
			d.enforce5xx, d.enforceSuccessRate = 0, 100
			if change != nil {
				change(d)
			}
		}
	}
	// Five hosts at 50, 100, 100, 100, 100 %: the mean is 90, the deviation of the
	// population is 20, so that 50 lies 2 deviations below.
	for _, c := range []struct {
		name   string
		change func(*outlierDetection)
		calls  int
		want   []int
	}{
		{"1.9 deviations", nil, 100, []int{0}},
		{"2.1 deviations", func(d *outlierDetection) { d.successFactor = 2100 }, 100, nil},
		{"too few calls", nil, 98, nil},
		{"too few hosts", func(d *outlierDetection) { d.successHosts = 6 }, 100, nil},
		{"not enforced", func(d *outlierDetection) { d.enforceSuccessRate, d.enforce5xx = 0, 100; d.consecutive5xx = 1000 }, 100, nil},
	} {
		o := newOutliers(5, outlierDefaults(rate(c.change)))
		o.calls(0, c.calls, c.calls/2)
		for i := 1; i < 5; i++ {
			o.calls(i, c.calls, 0)
		}
		if got := o.ejected(); got != nil {
			t.Errorf("%s: %v are ejected before the sweep", c.name, got)
		}
		o.sweepAfter(10 * time.Second)
		if got := o.ejected(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v are ejected, want %v", c.name, got, c.want)
		}
	}
}

func TestEachIntervalIsComparedByItself(t *testing.T) {
	o := newOutliers(5, outlierDefaults(func(d *outlierDetection) { d.enforce5xx, d.enforceSuccessRate = 0, 100 }))
	o.calls(0, 99, 99)
	for i := 1; i < 5; i++ {
		o.calls(i, 99, 0)
	}
	o.sweepAfter(10 * time.Second)
	for i := range 5 {
		o.calls(i, 99, 0)
	}
	o.sweepAfter(10 * time.Second)
	if got := o.ejected(); got != nil {
		t.Errorf("%v are ejected though no interval has 100 calls", got)
	}
}

func TestFailurePercentageEjectsAtItsThreshold(t *testing.T) {
	o := newOutliers(5, outlierDefaults(func(d *outlierDetection) { d.enforce5xx, d.enforceFailure = 0, 100 }))
	for i, failed := range []int{84, 85, 86, 0, 100} {
		o.calls(i, 100, failed)
	}
	o.sweepAfter(10 * time.Second)
	if got := o.ejected(); !slices.Equal(got, []int{1, 2, 4}) {
		t.Errorf("%v are ejected, want those with 85 %% and more", got)
	}
	few := newOutliers(4, outlierDefaults(func(d *outlierDetection) { d.enforce5xx, d.enforceFailure = 0, 100 }))
	for i := range 4 {
		few.calls(i, 100, 100)
	}
	few.sweepAfter(10 * time.Second)
	if got := few.ejected(); got != nil {
		t.Errorf("%v are ejected though there are too few hosts", got)
	}
}

func TestLocalFailuresAreComparedApart(t *testing.T) {
	o := newOutliers(5, outlierDefaults(func(d *outlierDetection) {
		d.enforce5xx, d.split, d.enforceLocalFailure, d.enforceFailure = 0, true, 100, 100
	}))
	for i := range 5 {
		o.calls(i, 10, 0)
		if i == 3 {
			o.call(i, slices.Repeat([]verdict{verdictLocal}, 90)...)
		} else {
			o.calls(i, 90, 0)
		}
	}
	o.sweepAfter(10 * time.Second)
	if got := o.ejected(); !slices.Equal(got, []int{3}) || o.order[3].cause != causeLocalFailureShare {
		t.Errorf("%v are ejected, by %s", got, causeNames[o.order[3].cause])
	}
}

func TestEndpointsThatRefuseConnectionsAreEjected(t *testing.T) {
	s := outlierSet(t, 3, outlierDefaults(nil))
	s.slots[1].Load().missed.Add(4)
	s.state.tick(time.Now())
	if s.hosts[1].ejected.Load() {
		t.Error("ejected too soon")
	}
	s.slots[1].Load().missed.Add(1)
	s.state.tick(time.Now())
	if !s.hosts[1].ejected.Load() {
		t.Error("not ejected after five failures to connect")
	}
}

func TestFailuresToConnectAreThoseOfTheHost(t *testing.T) {
	t.Run("while endpoints change", func(t *testing.T) {
		s := outlierSet(t, 3, outlierDefaults(nil))
		s.state.tick(time.Now())
		s.slots[0].Load().missed.Add(5)
		s.state.hostsOf(s.endpoints[1:], 0) // the one that died is taken out, and the set of the others is not ready yet
		s.state.tick(time.Now())
		if s.hosts[1].ejected.Load() {
			t.Error("ejected for the failures of an endpoint that was listed before it")
		}
	})
	t.Run("of another cluster's time", func(t *testing.T) {
		s := outlierSet(t, 2, outlierDefaults(nil))
		other := newEndpointSet(s.table, &cluster{name: "other"}, testAssignment([]uint32{1, 1, 1}), nil, nil)
		c := &cluster{name: "late", outlier: s.cluster.outlier}
		st := newClusterState(c.name, s.table)
		st.configure(c)
		t.Cleanup(st.close)
		late := newEndpointSet(s.table, c, testAssignment([]uint32{1, 1, 1}), st, nil)
		other.be(cellReady, 2)
		other.slots[2].Load().missed.Add(5) // and it came back
		late.wake(2)
		st.tick(time.Now())
		if late.slots[2].Load() != other.slots[2].Load() || late.hosts[2].ejected.Load() {
			t.Error("ejected for failures from before the cluster used the connection")
		}
	})
}

// TestFailuresToConnectCountOnce: references may have connections of their own
// to a host, and one of these sets goes while the other stays.
func TestFailuresToConnectCountOnce(t *testing.T) {
	s := outlierSet(t, 2, outlierDefaults(func(d *outlierDetection) { d.consecutive5xx = 3 }))
	s.slots[0].Load().missed.Add(2)
	s.state.tick(time.Now())
	s.state.observe(s.hosts[0], verdictSuccess)
	own := *s.cluster
	own.conn.connectTimeout = time.Second
	other := newEndpointSet(s.table, &own, s.source, s.state, s)
	other.be(cellReady, 0)
	s.state.tick(time.Now())
	other.retire()
	for range 2 {
		s.state.tick(time.Now())
		s.state.observe(s.hosts[0], verdictFailure)
	}
	if s.hosts[0].ejected.Load() {
		t.Error("ejected by failures to connect from before its success")
	}
}
