package proxyless

import (
	"context"
	"math"
	"net"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestALoadReportSurvivesTheWire(t *testing.T) {
	want := LoadReport{ApplicationUtilization: 1.5, CPUUtilization: 0.25, MemoryUtilization: 0.5, QPS: 1000.5, EPS: 2,
		Utilization: map[string]float64{"disk": 0.75}, RequestCost: map[string]float64{"rows": 12}, NamedMetrics: map[string]float64{"queue": -3, "": 1}}
	var got LoadReport
	if err := got.unmarshal(want.marshal()); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if b := (&LoadReport{}).marshal(); len(b) != 0 {
		t.Errorf("an empty report takes %d bytes", len(b))
	}
}

func FuzzLoadReport(f *testing.F) {
	f.Add((&LoadReport{QPS: 1, CPUUtilization: 2, Utilization: map[string]float64{"disk": 0.75}}).marshal())
	f.Add([]byte{0x22, 0x02, 0x0a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, again LoadReport
		if r.unmarshal(b) != nil {
			return
		}
		if err := again.unmarshal(r.marshal()); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
		r.weight(&loadReporting{metrics: "named_metrics.x utilization.disk"})
	})
}

func TestTheWeightOfALoadReport(t *testing.T) {
	named := map[string]float64{"x": 0.9}
	for name, c := range map[string]struct {
		r    LoadReport
		b    loadReporting
		want float64
	}{
		"processors":                 {LoadReport{QPS: 100, CPUUtilization: 0.5}, loadReporting{}, 200},
		"the application wins":       {LoadReport{QPS: 100, CPUUtilization: 0.5, ApplicationUtilization: 2}, loadReporting{}, 50},
		"errors count":               {LoadReport{QPS: 100, EPS: 50, CPUUtilization: 0.5}, loadReporting{}, 100},
		"errors count more":          {LoadReport{QPS: 100, EPS: 50, CPUUtilization: 0.5}, loadReporting{penalty: 3}, 50},
		"errors do not count":        {LoadReport{QPS: 100, EPS: 50, CPUUtilization: 0.5}, loadReporting{noPenalty: true}, 200},
		"without QPS":                {LoadReport{CPUUtilization: 0.5}, loadReporting{}, 0},
		"without utilization":        {LoadReport{QPS: 100}, loadReporting{}, 0},
		"a named metric":             {LoadReport{QPS: 90, CPUUtilization: 0.5, NamedMetrics: named}, loadReporting{metrics: "named_metrics.x"}, 100},
		"the largest of some":        {LoadReport{QPS: 90, CPUUtilization: 0.5, NamedMetrics: named}, loadReporting{metrics: "cpu_utilization named_metrics.x"}, 100},
		"a metric that is missing":   {LoadReport{QPS: 100, CPUUtilization: 0.5}, loadReporting{metrics: "utilization.disk"}, 200},
		"what is no number":          {LoadReport{QPS: math.NaN(), CPUUtilization: 0.5}, loadReporting{}, 0},
		"what is more than a number": {LoadReport{QPS: math.Inf(1), CPUUtilization: 0.5}, loadReporting{}, 0},
	} {
		if got := c.r.weight(&c.b); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestCallsFollowLoadReports goes through the life of weights: blackout, in
// force, and expired.
func TestCallsFollowLoadReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := balanced(balancing{policy: lbReported}, testAssignment(ones(3)), nil)
		connectAll(s)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go s.table.upkeep.loop(ctx)
		even, weighted := []float64{1000, 1000, 1000}, []float64{500, 1000, 1500}
		check := func(what string, want []float64) {
			t.Helper()
			synctest.Wait()
			counts := make([]int, 3)
			for range 3000 {
				at, _ := s.pick(choice{})
				counts[at]++
			}
			expect(t, what, counts, 2, want...)
		}
		report := func() { // weights 100 and 300; the one that says nothing weighs as the average
			for i, used := range map[int]float64{0: 1, 2: 1.0 / 3} {
				s.slots[i].Load().hear((&LoadReport{QPS: 100, CPUUtilization: used}).marshal(), sinceStart())
			}
		}
		check("before any report", even)
		for range 9 {
			report()
			time.Sleep(time.Second)
		}
		check("in the blackout", even)
		report()
		time.Sleep(2 * time.Second)
		check("in force", weighted)
		time.Sleep(170 * time.Second)
		check("three minutes later", weighted)
		time.Sleep(10 * time.Second)
		check("expired", even)
		report()
		time.Sleep(5 * time.Second)
		check("in the blackout again", even)
	})
}

func TestAServerReportsItsLoad(t *testing.T) {
	var own *LoadReport
	failed := make(chan error, 10)
	handler := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if own != nil {
			failed <- ReportCallLoad(ctx, *own)
		}
		return next(ctx, req)
	}
	s, conn := startTalk(t, &Config{}, serverHooks{}, func(s *Server) { exportTalk(s, "") }, grpc.ChainUnaryInterceptor(handler))
	call := func() []string {
		t.Helper()
		var trailer metadata.MD
		if err := conn.Invoke(t.Context(), "/"+talkInterface+"/Say", wrapperspb.String("x"), new(wrapperspb.StringValue), grpc.Trailer(&trailer)); err != nil {
			t.Fatal(err)
		}
		return trailer.Get(orcaTrailer)
	}
	if got := call(); got != nil {
		t.Errorf("reports %q though nobody asked", got)
	}
	own = &LoadReport{CPUUtilization: 0.75}
	if call(); <-failed == nil {
		t.Error("a call reports on a Server that does not")
	}
	if err := s.ReportLoad(LoadReport{MemoryUtilization: 1.5}); err == nil {
		t.Error("a memory more than full is reported")
	}
	own = nil
	if err := s.ReportLoad(LoadReport{QPS: 10, CPUUtilization: 0.5}); err != nil {
		t.Fatal(err)
	}
	read := func() (r LoadReport) {
		t.Helper()
		got := call()
		if len(got) != 1 || r.unmarshal([]byte(got[0])) != nil {
			t.Fatalf("the answer reports %q", got)
		}
		return r
	}
	if r := read(); !reflect.DeepEqual(r, LoadReport{QPS: 10, CPUUtilization: 0.5}) {
		t.Errorf("reported %+v", r)
	}
	own = &LoadReport{CPUUtilization: 0.75, RequestCost: map[string]float64{"rows": 3}}
	if r := read(); !reflect.DeepEqual(r, LoadReport{QPS: 10, CPUUtilization: 0.75, RequestCost: own.RequestCost}) || <-failed != nil {
		t.Errorf("the call reported %+v", r)
	}
}

func TestRatesAreMeasured(t *testing.T) {
	var c callRates
	for i := range 301 {
		var err error
		if i%10 == 9 {
			err = errNothingSent
		}
		c.count(err, time.Minute+time.Duration(i)*10*time.Millisecond)
	}
	if qps, eps := c.read(); math.Abs(qps-100) > 1 || math.Abs(eps-10) > 1 {
		t.Errorf("%v calls per second, %v fail; want 100 and 10", qps, eps)
	}
}

// TestAConsumerHearsAProvider lets a cell hear a real server, with its calls and
// in a stream.
func TestAConsumerHearsAProvider(t *testing.T) {
	r := serveTalk(t, &Config{ShutdownTimeout: 20 * time.Second}, serverHooks{}, func(s *Server) { exportTalk(s, "") })
	if err := r.ReportLoad(LoadReport{QPS: 10, CPUUtilization: 0.5}); err != nil {
		t.Fatal(err)
	}
	dial := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.lis.DialContext(ctx) })
	for name, b := range map[string]loadReporting{"with calls": {}, "in a stream": {outOfBand: true}} {
		table := newConnTable([]grpc.DialOption{dial}, &counters{})
		defer table.close()
		c := &cluster{name: "c", balance: balancing{policy: lbReported, reported: b}}
		s := newEndpointSet(table, c, testAssignment(ones(1)), newClusterState("c", table), nil)
		s.wake(0)
		cell := s.slots[0].Load()
		end := time.Now().Add(time.Minute)
		for heard := cell.report.Load(); heard == nil; heard = cell.report.Load() {
			if time.Now().After(end) {
				t.Fatalf("%s: nothing was heard", name)
			}
			s.state.mu.Lock()
			s.state.settle(time.Now())
			s.state.mu.Unlock()
			if conn := cell.enter(); conn != nil {
				if !b.outOfBand {
					conn.Invoke(t.Context(), "/"+talkInterface+"/Say", wrapperspb.String("x"), new(wrapperspb.StringValue))
				}
				cell.leave()
			}
			time.Sleep(time.Millisecond) // a connection and a stream are being made
		}
		if got := cell.report.Load(); got.QPS != 10 || got.CPUUtilization != 0.5 {
			t.Errorf("%s: heard %+v", name, got.LoadReport)
		}
	}
	// Streams of reports do not hold the server up.
	r.stop()
	select {
	case <-r.done:
	case <-time.After(10 * time.Second):
		t.Error("the server waits for those who listen")
	}
}
