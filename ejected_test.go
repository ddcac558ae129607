package proxyless

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

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
