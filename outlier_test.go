package proxyless

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
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

func TestVerdicts(t *testing.T) {
	want := map[codes.Code]verdict{
		codes.OK: verdictSuccess, codes.Canceled: verdictNone, codes.Unknown: verdictFailure, codes.InvalidArgument: verdictSuccess,
		codes.DeadlineExceeded: verdictGateway, codes.NotFound: verdictSuccess, codes.AlreadyExists: verdictSuccess,
		codes.PermissionDenied: verdictSuccess, codes.ResourceExhausted: verdictSuccess, codes.FailedPrecondition: verdictSuccess,
		codes.Aborted: verdictSuccess, codes.OutOfRange: verdictSuccess, codes.Unimplemented: verdictFailure, codes.Internal: verdictFailure,
		codes.Unavailable: verdictGateway, codes.DataLoss: verdictFailure, codes.Unauthenticated: verdictSuccess,
	}
	for code, v := range want {
		if got := verdictOf(status.Error(code, "")); got != v {
			t.Errorf("%v is %d, want %d", code, got, v)
		}
	}
	answered := answer{trailer: metadata.Pairs("content-type", "application/grpc")}
	for _, c := range []struct {
		name string
		got  verdict
		want verdict
	}{
		{"nothing sent", verdictOf(fmt.Errorf("wrapped: %w", errNothingSent)), verdictNone},
		{"deadline", verdictOf(context.DeadlineExceeded), verdictGateway},
		{"cancelled", verdictOf(context.Canceled), verdictNone},
		{"another error", verdictOf(errors.New("from an interceptor")), verdictFailure},
		{"the caller's own message", verdictOf(status.Error(codes.Internal, "grpc: error while marshaling: no message")), verdictNone},
		{"no answer", new(answer).judge(status.Error(codes.Unavailable, "")), verdictLocal},
		{"an answer", answered.judge(status.Error(codes.Unavailable, "")), verdictGateway},
		{"no answer, cancelled", new(answer).judge(status.Error(codes.Canceled, "")), verdictNone},
	} {
		if c.got != c.want {
			t.Errorf("%s is %d, want %d", c.name, c.got, c.want)
		}
	}
}

// outlierSet is a set of ready endpoints with outlier detection.
func outlierSet(t *testing.T, n int, d *outlierDetection) *endpointSet {
	table := newConnTable([]grpc.DialOption{grpc.WithContextDialer(nowhere)}, &counters{})
	c := &cluster{name: "c", outlier: d}
	st := newClusterState(c.name, table)
	st.configure(c)
	s := newEndpointSet(table, c, testAssignment(slices.Repeat([]uint32{1}, n)), st, nil)
	for i := range n {
		s.be(cellReady, i)
	}
	t.Cleanup(st.close)
	return s
}

func TestPicksAvoidEjectedEndpointsUntilTheyComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := outlierSet(t, 4, outlierDefaults(nil))
		ctx, stop := context.WithCancel(t.Context())
		go s.table.upkeep.loop(ctx)
		defer func() { stop(); <-s.table.upkeep.done }()
		for range 5 {
			s.state.observe(s.hosts[2], verdictGateway)
		}
		counts := s.count(t, 300)
		if len(counts) != 3 || counts[testAddr(2)] > 0 || counts[testAddr(0)] != 100 {
			t.Errorf("picked while endpoint 2 is out: %v", counts)
		}
		time.Sleep(29 * time.Second)
		if n := s.count(t, 400)[testAddr(2)]; n > 0 {
			t.Errorf("picked %d times after 29 s", n)
		}
		time.Sleep(2 * time.Second)
		if n := s.count(t, 400)[testAddr(2)]; n != 100 {
			t.Errorf("picked %d times in 400 when it is back", n)
		}
	})
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

func TestAllEjectedIsSaid(t *testing.T) {
	s := outlierSet(t, 2, outlierDefaults(nil))
	for _, h := range s.hosts {
		for range 5 {
			s.state.observe(h, verdictFailure)
		}
	}
	if s.pickOne() != nil || s.expectant() {
		t.Fatal("an ejected endpoint was picked")
	}
	if text := s.unready(&plan{}).Error(); !containsAll(text, "none of 2 endpoints", "ejected by the mesh's outlier detection") {
		t.Error(text)
	}
}

func containsAll(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

func TestAProviderThatFailsIsCalledNoMore(t *testing.T) {
	v := newServed(t, 1, func(context.Context) error { return status.Error(codes.Unavailable, "out of order") })
	v.recluster(func(c *cluster) { c.outlier = outlierDefaults(nil) })
	for i := range 5 {
		if err := v.call(t.Context()); status.Convert(err).Message() != "out of order" {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if err := v.call(t.Context()); status.Code(err) != codes.Unavailable || !containsAll(err.Error(), "ejected") {
		t.Errorf("after five failures: %v", err)
	}
	if n := v.mesh.Stats().Ejections; n != 1 {
		t.Errorf("%d ejections", n)
	}
	v.recluster(func(c *cluster) { c.outlier = nil })
	if err := v.call(t.Context()); status.Convert(err).Message() != "out of order" {
		t.Errorf("without outlier detection: %v", err)
	}
}

// TestTimeoutsAreOfLocalOrigin: with the split, a provider that answers with
// errors is not taken for one that does not answer.
func TestTimeoutsAreOfLocalOrigin(t *testing.T) {
	silent := make(chan struct{})
	answers := func(context.Context) error { return status.Error(codes.DeadlineExceeded, "") }
	hangs := func(context.Context) error { <-silent; return nil }
	v := newServed(t, 1, answers)
	s := v.recluster(func(c *cluster) {
		c.outlier = outlierDefaults(func(d *outlierDetection) {
			d.split, d.enforce5xx, d.enforceLocal, d.consecutiveLocal = true, 0, 100, 2
		})
	})
	defer close(silent)
	unary := func(ctx context.Context) error { return v.call(ctx) }
	stream := func(ctx context.Context) error {
		stream, err := v.inv.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, wireMethod)
		if err != nil {
			return err
		}
		stream.SendMsg(wrapperspb.String(""))
		stream.CloseSend()
		return stream.RecvMsg(new(wrapperspb.StringValue))
	}
	for name, call := range map[string]func(context.Context) error{"unary": unary, "stream": stream} {
		v.handle.Store(&answers)
		for range 10 {
			if err := call(t.Context()); status.Code(err) != codes.DeadlineExceeded {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if s.hosts[0].ejected.Load() {
			t.Fatalf("%s: answers were taken for silence", name)
		}
		v.handle.Store(&hangs)
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			if err := call(ctx); status.Code(err) != codes.DeadlineExceeded {
				t.Fatalf("%s: %v", name, err)
			}
			cancel()
		}
		for range 10000 { // a stream is finished by another goroutine
			if s.hosts[0].ejected.Load() {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if !s.hosts[0].ejected.Load() {
			t.Errorf("%s: silence does not count", name)
		}
		s.readmit(0)
	}
}

// TestADestinationRulesProtectionTakesEffect goes from the bytes of a cluster
// to what calls meet.
func TestADestinationRulesProtectionTakesEffect(t *testing.T) {
	v := newServed(t, 1, func(context.Context) error { return status.Error(codes.Internal, "broken") })
	update := func(c meshtest.Cluster) {
		c.Name = fedCluster
		v.feed([][]byte{fedResponse(meshtest.ClusterType, c.Marshal())})
	}
	update(meshtest.Cluster{Outliers: &meshtest.OutlierDetection{Consecutive5xx: 2, MaxEjectionPercent: 100}})
	for range 2 {
		if err := v.call(t.Context()); status.Convert(err).Message() != "broken" {
			t.Fatal(err)
		}
	}
	if err := v.call(t.Context()); !containsAll(err.Error(), "ejected") {
		t.Errorf("after two failures: %v", err)
	}
	update(meshtest.Cluster{Outliers: &meshtest.OutlierDetection{Consecutive5xx: 2, MaxEjectionPercent: 100, Interval: time.Second}})
	if err := v.call(t.Context()); !containsAll(err.Error(), "ejected") {
		t.Errorf("after an update: %v", err)
	}
	update(meshtest.Cluster{})
	if err := v.call(t.Context()); status.Convert(err).Message() != "broken" {
		t.Errorf("without outlier detection: %v", err)
	}
}
