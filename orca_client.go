package proxyless

import (
	"context"
	"time"

	orcapb "github.com/cncf/xds/go/xds/data/orca/v3"
	orcaservicepb "github.com/cncf/xds/go/xds/service/orca/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// heardReport is the last report of an endpoint that says something.
type heardReport struct {
	LoadReport
	at    time.Duration // since the process started
	since time.Duration // when the first such report of the connection came
}

// reportPause is how long reports are not looked at after one was: weights are
// settled once a second, and busy endpoints would be heard with every call.
const reportPause = 50 * time.Millisecond

// wantReports keeps a cell listening for some time. It is called again and
// again while somebody is interested.
func (c *cell) wantReports(b *loadReporting, now time.Duration) {
	c.reporting.Store(int64(now + 3*b.settlePeriod() + time.Minute))
	if b.outOfBand && c.ready.Load() != nil && now >= time.Duration(c.listenFrom.Load()) && c.listening.CompareAndSwap(false, true) {
		period := b.period
		if period <= 0 {
			period = 10 * time.Second
		}
		c.table.aside(func() { c.listen(period) })
	}
}

// learn hears the report of a call that ended.
func (c *cell) learn(trailer metadata.MD) {
	if reports := trailer[orcaTrailer]; len(reports) == 1 {
		c.hear([]byte(reports[0]), sinceStart())
	}
}

// hear takes in a report, unless it says nothing.
func (c *cell) hear(b []byte, now time.Duration) {
	c.note(now, func(r *LoadReport) bool { return r.unmarshal(b) == nil })
}

// note takes in what read finds, if it is time for that.
func (c *cell) note(now time.Duration, read func(*LoadReport) bool) {
	last := c.report.Load()
	if last != nil && now-last.at < reportPause {
		return
	}
	if now > time.Duration(c.reporting.Load()) {
		c.reporting.Store(0)
		return
	}
	r := &heardReport{at: now, since: now}
	if last != nil {
		r.since = last.since
	}
	if read(&r.LoadReport) && r.QPS > 0 {
		c.report.CompareAndSwap(last, r)
	}
}

// listen has the provider stream its reports (gRFC A51). It runs aside, and
// ends with the connection, or when nobody is interested any more.
func (c *cell) listen(period time.Duration) {
	heard, err := c.stream(period)
	pause := 10 * time.Second
	switch {
	case heard:
		pause = time.Second
	case status.Code(err) == codes.Unimplemented:
		pause = 2 * time.Minute
	}
	c.listenFrom.Store(int64(sinceStart() + pause))
	c.listening.Store(false)
}

// stream asks for reports and hears them until it ends.
func (c *cell) stream(period time.Duration) (heard bool, err error) {
	conn := c.ready.Load()
	if conn == nil {
		return false, errNothingSent
	}
	ctx, cancel := context.WithCancel(context.Background()) // the connection's end ends it, too
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: orcaStream, ServerStreams: true}, "/"+orcaService+"/"+orcaStream)
	if err != nil {
		return false, err
	}
	if err = stream.SendMsg(&orcaservicepb.OrcaLoadReportRequest{ReportInterval: durationpb.New(period)}); err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		var in orcapb.OrcaLoadReport
		if err = stream.RecvMsg(&in); err == nil {
			c.note(sinceStart(), func(r *LoadReport) bool { r.take(&in); return true })
			heard = true
			if c.reporting.Load() == 0 {
				return true, nil
			}
		}
	}
	return heard, err
}

// learn hears the report of a call.
func (k *link) learn(info balancer.DoneInfo) { k.leaf.cell.learn(info.Trailer) }
