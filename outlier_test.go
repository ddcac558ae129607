package proxyless

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// outlierDefaults are Envoy's, but that all may be ejected.
func outlierDefaults(change func(*outlierDetection)) *outlierDetection {
	d := &outlierDetection{interval: 10 * time.Second, baseTime: 30 * time.Second, maxTime: 300 * time.Second, maxEjected: 100,
		consecutive5xx: 5, enforce5xx: 100, consecutiveGateway: 5, consecutiveLocal: 5,
		successHosts: 5, successVolume: 100, successFactor: 1900, failureThreshold: 85, failureHosts: 5, failureVolume: 50}
	if change != nil {
		change(d)
	}
	return d
}

// outliers is a state with n hosts, told the time, and certain to enforce.
type outliers struct {
	*clusterState
	now time.Time
}

func newOutliers(n int, d *outlierDetection) *outliers {
	o := &outliers{newClusterState("c", newConnTable(nil, new(counters))), time.Unix(1_000_000, 0)}
	o.random = func(uint32) uint32 { return 0 }
	o.hostsOf(testAssignment(make([]uint32, n)).endpoints, 0)
	o.detect(d, o.now)
	return o
}

func (o *outliers) call(host int, verdicts ...verdict) {
	h := o.order[host]
	for _, v := range verdicts {
		o.cross(h, h.tally.count(o.rules.Load(), v), o.now)
	}
}

// calls makes n calls to a host, of which so many fail.
func (o *outliers) calls(host, n, failed int) {
	for i := range n {
		v := verdictSuccess
		if i < failed {
			v = verdictFailure
		}
		o.call(host, v)
	}
}

// sweepAfter lets time pass and sweeps.
func (o *outliers) sweepAfter(d time.Duration) {
	o.now = o.now.Add(d)
	o.sweep(o.rules.Load(), o.now)
}

func (o *outliers) ejected() (list []int) {
	for i, h := range o.order {
		if h.ejected.Load() {
			list = append(list, i)
		}
	}
	return list
}

func TestFailuresInARowEjectAtOnce(t *testing.T) {
	s, f, g, l := verdictSuccess, verdictFailure, verdictGateway, verdictLocal
	gateway := func(d *outlierDetection) { d.enforce5xx, d.enforceGateway, d.consecutiveGateway = 0, 100, 3 }
	server := func(d *outlierDetection) { d.consecutive5xx = 3 }
	split := func(d *outlierDetection) {
		d.split, d.consecutiveLocal, d.enforceLocal = true, 3, 100
		d.consecutive5xx = 3
	}
	for _, c := range []struct {
		name    string
		change  func(*outlierDetection)
		calls   []verdict
		ejected bool
	}{
		{"one too few", server, []verdict{f, f}, false},
		{"as many as it takes", server, []verdict{f, f, f}, true},
		{"a success between", server, []verdict{f, f, s, f, f}, false},
		{"gateway failures are failures", server, []verdict{f, g, f}, true},
		{"gateway failures alone", gateway, []verdict{g, g, g}, true},
		{"another failure ends a row of gateway failures", gateway, []verdict{g, g, f, g, g}, false},
		{"other failures are no gateway failures", gateway, []verdict{f, f, f, f, f}, false},
		{"local failures apart", split, []verdict{l, l, l}, true},
		{"local failures do not add to others", split, []verdict{f, f, l, l}, false},
		{"local failures do not end a row of others", split, []verdict{f, l, f, l, f}, true},
		{"any answer ends a row of local failures", split, []verdict{l, l, f, l, l, s, l}, false},
		{"a limit of 0 is none", func(d *outlierDetection) { d.consecutive5xx = 0 }, slices.Repeat([]verdict{f}, 100), false},
		{"not enforced", func(d *outlierDetection) { d.enforce5xx, d.enforceSuccessRate = 0, 1 }, slices.Repeat([]verdict{f}, 100), false},
		{"local ones need the split", func(d *outlierDetection) { d.enforceLocal, d.consecutiveLocal = 100, 1 }, []verdict{l, l}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOutliers(3, outlierDefaults(c.change))
			o.call(1, c.calls...)
			want := []int(nil)
			if c.ejected {
				want = []int{1}
			}
			if got := o.ejected(); !slices.Equal(got, want) {
				t.Errorf("ejected are %v, want %v", got, want)
			}
		})
	}
}

func TestNoMoreAreEjectedThanMayBe(t *testing.T) {
	for _, c := range []struct {
		percent    uint32
		atLeastOne bool
		hosts      int
		want       int
	}{
		{10, false, 5, 0}, // as Envoy: 1 of 5 would be 20 %
		{10, true, 5, 1},
		{20, false, 5, 1},
		{50, false, 5, 2},
		{100, false, 5, 5},
		{0, true, 5, 1},
		{10, false, 10, 1},
	} {
		o := newOutliers(c.hosts, outlierDefaults(func(d *outlierDetection) { d.maxEjected, d.atLeastOne = c.percent, c.atLeastOne }))
		for i := range c.hosts {
			o.calls(i, 5, 5)
		}
		if got := len(o.ejected()); got != c.want {
			t.Errorf("%d %% of %d, at least one %v: %d are ejected, want %d", c.percent, c.hosts, c.atLeastOne, got, c.want)
		}
	}
}

func TestAHostThatWasSparedIsCaughtTheNextTime(t *testing.T) {
	o := newOutliers(2, outlierDefaults(func(d *outlierDetection) { d.maxEjected = 50 }))
	o.calls(0, 5, 5)
	o.calls(1, 5, 5)
	o.sweepAfter(30 * time.Second)
	if got := o.ejected(); got != nil {
		t.Fatalf("%v are still out", got)
	}
	o.calls(1, 4, 4)
	if got := o.ejected(); got != nil {
		t.Fatalf("%v were ejected by the failures before", got)
	}
	o.calls(1, 1, 1)
	if got := o.ejected(); !slices.Equal(got, []int{1}) {
		t.Errorf("%v are ejected", got)
	}
}

// TestEnforcingIsAShareOfTheTimes: 3 000 trials at 30 % have a deviation of 25.
func TestEnforcingIsAShareOfTheTimes(t *testing.T) {
	o := newOutliers(3000, outlierDefaults(func(d *outlierDetection) { d.enforce5xx = 30 }))
	o.random = rand.New(rand.NewPCG(1, 2)).Uint32N
	for i := range 3000 {
		o.calls(i, 5, 5)
	}
	if n := len(o.ejected()); n < 800 || n > 1000 {
		t.Errorf("%d of 3000 were ejected, want about 900", n)
	}
}

func TestEjectionsGrowLongerAndTrustComesBack(t *testing.T) {
	o := newOutliers(1, outlierDefaults(func(d *outlierDetection) { d.maxTime = 80 * time.Second }))
	lasts := func() time.Duration {
		o.calls(0, 5, 5)
		begin := o.now
		for o.order[0].ejected.Load() && o.now.Sub(begin) < time.Hour {
			o.sweepAfter(10 * time.Second)
		}
		return o.now.Sub(begin)
	}
	for i, want := range []time.Duration{30, 60, 80, 80, 80} {
		if got := lasts(); got != want*time.Second {
			t.Errorf("ejection %d lasts %v, want %d s", i+1, got, want)
		}
	}
	o.sweepAfter(10 * time.Second) // the next would have been 4 base times: the limit; each good interval takes one away
	o.sweepAfter(10 * time.Second)
	o.sweepAfter(10 * time.Second)
	if got := lasts(); got != 60*time.Second {
		t.Errorf("after three good intervals it lasts %v, want 60 s", got)
	}
}

func TestEndsOfEjectionsAreSpread(t *testing.T) {
	const hosts = 200
	o := newOutliers(hosts, outlierDefaults(func(d *outlierDetection) { d.jitter = 100 * time.Second }))
	random := rand.New(rand.NewPCG(3, 4))
	o.random = random.Uint32N
	for i := range hosts {
		o.calls(i, 5, 5)
	}
	left := []int{}
	for range 14 { // sweeps after 10 to 140 s
		o.sweepAfter(10 * time.Second)
		left = append(left, len(o.ejected()))
	}
	if left[1] != hosts || left[13] != 0 || left[7] < hosts/3 || left[7] > hosts*2/3 {
		t.Errorf("still out after 10, 20, ... s: %v", left)
	}
}

func TestEjectionsEndWithTheirConfiguration(t *testing.T) {
	o := newOutliers(3, outlierDefaults(nil))
	o.calls(0, 5, 5)
	o.calls(1, 4, 4)
	o.detect(nil, o.now)
	if got := o.ejected(); got != nil {
		t.Errorf("%v are still out", got)
	}
	o.detect(outlierDefaults(nil), o.now)
	o.calls(0, 4, 4)
	if got := o.ejected(); got != nil {
		t.Errorf("%v were ejected by what happened before", got)
	}
}

func TestEjectionsOutliveUpdatesAndEndWithTheEndpoint(t *testing.T) {
	o := newOutliers(4, outlierDefaults(func(d *outlierDetection) { d.maxEjected = 50 }))
	o.calls(1, 5, 5)
	o.calls(2, 5, 5)
	if got := o.ejected(); !slices.Equal(got, []int{1, 2}) {
		t.Fatalf("%v are ejected", got)
	}
	all := testAssignment(make([]uint32, 4)).endpoints
	o.hostsOf(slices.Delete(slices.Clone(all), 2, 3), 0)
	o.hostsOf(all, 0)
	if got := o.ejected(); !slices.Equal(got, []int{1}) || o.clusterState.out != 1 {
		t.Errorf("%v are ejected after host 2 had left, %d count", got, o.clusterState.out)
	}
}

func TestOneOfManyCallersEjects(t *testing.T) {
	o := newOutliers(1, outlierDefaults(nil))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				o.observe(o.order[0], verdictFailure)
			}
		})
	}
	all.Wait()
	if n := o.counts.ejections.Load(); n != 1 || o.clusterState.out != 1 {
		t.Errorf("%d ejections, %d out", n, o.clusterState.out)
	}
}
