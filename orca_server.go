package proxyless

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	orcaservicepb "github.com/cncf/xds/go/xds/service/orca/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// ReportLoad tells consumers from now on how loaded this provider is: with the
// answer to each call (in the trailer endpoint-load-metrics-bin), and in a
// stream to those who ask for one (xds.service.orca.v3.OpenRcaService). Consumers
// whose mesh says client_side_weighted_round_robin (gRFC A58) spread their calls
// by it. Call it again whenever the load has changed, say once a second. QPS and
// EPS that are 0 are measured by the Server, over a second at least. A report
// with a value that no consumer would believe fails and changes nothing.
//
// It costs some allocations per call. Without it nothing is reported, and grpc's
// own package orca may be used with the Server instead.
func (s *Server) ReportLoad(r LoadReport) error {
	if field := r.check(); field != "" {
		return &Error{Stage: StageProvider, Resource: "ReportLoad", Reason: field + " is out of range", Advice: "report what is finite and not negative; shares lie between 0 and 1"}
	}
	s.load.state.Store(&r)
	s.load.trailer.Store(nil)
	return nil
}

// ReportCallLoad tells the consumer of the call whose handler runs with ctx what
// this very call cost, or how loaded the provider is: what r says goes in place
// of what [Server.ReportLoad] said last, which has to have been called. Of
// several reports for one call the last counts.
func ReportCallLoad(ctx context.Context, r LoadReport) error {
	if field := r.check(); field != "" {
		return &Error{Stage: StageProvider, Resource: "ReportCallLoad", Reason: field + " is out of range", Advice: "report what is finite and not negative; shares lie between 0 and 1"}
	}
	own, _ := ctx.Value(callLoadKey{}).(*callLoad)
	if own == nil {
		return &Error{Stage: StageProvider, Resource: "ReportCallLoad", Reason: "the call does not report", Advice: "call Server.ReportLoad before the call comes, and use the handler's context"}
	}
	own.report.Store(&r)
	return nil
}

type callLoadKey struct{}

// callLoad is what the handler of one call reports.
type callLoad struct{ report atomic.Pointer[LoadReport] }

// providerLoad is what a Server reports.
type providerLoad struct {
	state   atomic.Pointer[LoadReport] // nil before ReportLoad
	trailer atomic.Pointer[string]     // state, encoded; nil where it has to be made
	rates   callRates
}

// begin gives a call's handler a place to report to. It returns nil where
// nothing is reported.
func (p *providerLoad) begin(ctx context.Context) (context.Context, *callLoad) {
	if p == nil || p.state.Load() == nil {
		return ctx, nil
	}
	own := new(callLoad)
	return context.WithValue(ctx, callLoadKey{}, own), own
}

// end reports with the answer to a call that began.
func (p *providerLoad) end(own *callLoad, err error, set func(metadata.MD)) {
	if own == nil {
		return
	}
	if p.rates.count(err, sinceStart()) {
		p.trailer.Store(nil)
	}
	if r := own.report.Load(); r != nil {
		set(metadata.Pairs(orcaTrailer, string(p.now(r).marshal())))
		return
	}
	text := p.trailer.Load()
	if text == nil {
		made := string(p.now(nil).marshal())
		text = &made
		p.trailer.Store(text)
	}
	set(metadata.Pairs(orcaTrailer, *text))
}

// now is the report of this moment, with what a call says of itself.
func (p *providerLoad) now(own *LoadReport) *LoadReport {
	r := *p.state.Load()
	if own != nil {
		r = r.over(own)
	}
	qps, eps := p.rates.read()
	if r.QPS == 0 {
		r.QPS = qps
	}
	if r.EPS == 0 {
		r.EPS = eps
	}
	return &r
}

// callRates measures calls per second.
type callRates struct {
	calls, failures           atomic.Int64
	due                       atomic.Int64  // when to look again, since the process started
	qps, eps                  atomic.Uint64 // bits of floats
	since                     time.Duration // written by who moved due
	callsBefore, failedBefore int64
}

// count counts a call that ended, and says whether there are new rates.
func (c *callRates) count(err error, now time.Duration) bool {
	c.calls.Add(1)
	if err != nil {
		c.failures.Add(1)
	}
	return c.turn(now)
}

// turn measures anew when it is time, and says whether it did.
func (c *callRates) turn(now time.Duration) bool {
	due := c.due.Load()
	if int64(now) < due || !c.due.CompareAndSwap(due, math.MaxInt64) {
		return false
	}
	n, failed := c.calls.Load(), c.failures.Load()
	if due > 0 { // else this is the first look
		seconds := (now - c.since).Seconds()
		c.qps.Store(math.Float64bits(float64(n-c.callsBefore) / seconds))
		c.eps.Store(math.Float64bits(float64(failed-c.failedBefore) / seconds))
	}
	c.since, c.callsBefore, c.failedBefore = now, n, failed
	c.due.Store(int64(now + time.Second))
	return due > 0
}

func (c *callRates) read() (qps, eps float64) {
	return math.Float64frombits(c.qps.Load()), math.Float64frombits(c.eps.Load())
}

// reportStream is a stream whose handler may report.
type reportStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s reportStream) Context() context.Context { return s.ctx }

// loadService streams reports to those who ask.
type loadService struct {
	load    *providerLoad
	leaving context.Context // ends when those who listen are to go
	leave   context.CancelFunc
}

func newLoadService(load *providerLoad) *loadService {
	s := &loadService{load: load}
	s.leaving, s.leave = context.WithCancel(context.Background())
	return s
}

func (s *loadService) desc() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: orcaService, HandlerType: (*any)(nil), Metadata: "xds/service/orca/v3/orca.proto",
		Streams: []grpc.StreamDesc{{StreamName: orcaStream, Handler: s.stream, ServerStreams: true}}}
}

// leastReportInterval is how often reports are streamed at most; it is also the
// default.
const leastReportInterval = time.Second

func (s *loadService) stream(_ any, stream grpc.ServerStream) error {
	if s.load.state.Load() == nil {
		return status.Error(codes.Unimplemented, "proxyless: provider: the load is not reported: nobody called Server.ReportLoad")
	}
	var in orcaservicepb.OrcaLoadReportRequest
	if err := stream.RecvMsg(&in); err != nil {
		return err
	}
	ticker := time.NewTicker(max(in.ReportInterval.AsDuration(), leastReportInterval))
	defer ticker.Stop()
	for {
		if s.load.rates.turn(sinceStart()) {
			s.load.trailer.Store(nil)
		}
		if err := stream.SendMsg(s.load.now(nil).message()); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-s.leaving.Done():
			return status.Error(codes.Unavailable, "proxyless: provider: the server is stopping")
		}
	}
}
