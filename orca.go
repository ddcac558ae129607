package proxyless

import (
	"maps"
	"math"
	"strings"

	orcapb "github.com/cncf/xds/go/xds/data/orca/v3"
	"google.golang.org/protobuf/proto"
)

// LoadReport is how loaded a provider is, as ORCA tells it to consumers
// (xds.data.orca.v3.OrcaLoadReport). Zero means that nothing is said, but for
// QPS and EPS of [Server.ReportLoad].
type LoadReport struct {
	// ApplicationUtilization is how much of what the application can do is used:
	// 1 is all of it, and there may be more. It wins over CPUUtilization.
	ApplicationUtilization float64
	// CPUUtilization is how much of the processors is used: 1 is all.
	CPUUtilization float64
	// MemoryUtilization is how much of the memory is used, from 0 to 1.
	MemoryUtilization float64
	// QPS is how many calls are served per second.
	QPS float64
	// EPS is how many of them fail per second.
	EPS float64
	// Utilization is how much of other resources is used, each from 0 to 1.
	Utilization map[string]float64
	// RequestCost is what the call cost, in units of the application.
	RequestCost map[string]float64
	// NamedMetrics are any other measures.
	NamedMetrics map[string]float64
}

// orcaTrailer carries the report of a call.
const orcaTrailer = "endpoint-load-metrics-bin"

// The out-of-band service: the provider streams reports to who asks.
const (
	orcaService = "xds.service.orca.v3.OpenRcaService"
	orcaStream  = "StreamCoreMetrics"
)

// check names the field that no consumer would believe; empty where there is none.
func (r *LoadReport) check() string {
	for _, f := range []struct {
		name  string
		value float64
		most  float64
	}{
		{"ApplicationUtilization", r.ApplicationUtilization, math.MaxFloat64}, {"CPUUtilization", r.CPUUtilization, math.MaxFloat64},
		{"MemoryUtilization", r.MemoryUtilization, 1}, {"QPS", r.QPS, math.MaxFloat64}, {"EPS", r.EPS, math.MaxFloat64},
	} {
		if !(f.value >= 0 && f.value <= f.most) {
			return f.name
		}
	}
	for name, v := range r.Utilization {
		if !(v >= 0 && v <= 1) {
			return "Utilization " + name
		}
	}
	return ""
}

// over returns the report with what another one says in place of its own.
func (r *LoadReport) over(o *LoadReport) LoadReport {
	merged := *r
	for _, f := range []struct{ to, from *float64 }{
		{&merged.ApplicationUtilization, &o.ApplicationUtilization}, {&merged.CPUUtilization, &o.CPUUtilization},
		{&merged.MemoryUtilization, &o.MemoryUtilization}, {&merged.QPS, &o.QPS}, {&merged.EPS, &o.EPS},
	} {
		if *f.from != 0 {
			*f.to = *f.from
		}
	}
	merged.Utilization = mergeMetrics(r.Utilization, o.Utilization)
	merged.RequestCost = mergeMetrics(r.RequestCost, o.RequestCost)
	merged.NamedMetrics = mergeMetrics(r.NamedMetrics, o.NamedMetrics)
	return merged
}

func mergeMetrics(a, b map[string]float64) map[string]float64 {
	if len(b) == 0 {
		return a
	}
	merged := maps.Clone(b)
	for name, v := range a {
		if _, has := merged[name]; !has {
			merged[name] = v
		}
	}
	return merged
}

// marshal encodes the report.
func (r *LoadReport) marshal() []byte {
	b, err := proto.Marshal(r.message())
	if err != nil { // a name that is not UTF-8: check lets none pass
		return nil
	}
	return b
}

// message is the report as it travels.
func (r *LoadReport) message() *orcapb.OrcaLoadReport {
	return &orcapb.OrcaLoadReport{
		ApplicationUtilization: r.ApplicationUtilization, CpuUtilization: r.CPUUtilization, MemUtilization: r.MemoryUtilization,
		RpsFractional: r.QPS, Eps: r.EPS, Utilization: r.Utilization, RequestCost: r.RequestCost, NamedMetrics: r.NamedMetrics,
	}
}

// maxMetrics is how many named metrics of a report are kept.
const maxMetrics = 256

// unmarshal decodes a report into an empty one.
func (r *LoadReport) unmarshal(b []byte) error {
	m := new(orcapb.OrcaLoadReport)
	if err := proto.Unmarshal(b, m); err != nil {
		return err
	}
	r.take(m)
	return nil
}

// take copies what a report says.
func (r *LoadReport) take(m *orcapb.OrcaLoadReport) {
	*r = LoadReport{
		ApplicationUtilization: m.ApplicationUtilization, CPUUtilization: m.CpuUtilization, MemoryUtilization: m.MemUtilization,
		QPS: m.RpsFractional, EPS: m.Eps,
		Utilization: few(m.Utilization), RequestCost: few(m.RequestCost), NamedMetrics: few(m.NamedMetrics),
	}
}

// few keeps no more metrics than there may be.
func few(metrics map[string]float64) map[string]float64 {
	for name := range metrics {
		if len(metrics) <= maxMetrics {
			break
		}
		delete(metrics, name)
	}
	return metrics
}

// used is the utilization that a weight is made of: the largest of the metrics
// that are asked for (gRFC A114), else the application's, else the processors'.
func (r *LoadReport) used(metrics string) float64 {
	most := 0.0
	for metric := range strings.FieldsSeq(metrics) {
		if v := r.find(metric); v > most {
			most = v
		}
	}
	switch {
	case most > 0:
		return most
	case r.ApplicationUtilization > 0:
		return r.ApplicationUtilization
	}
	return r.CPUUtilization
}

// find returns a metric by the name that gRFC A114 gives it.
func (r *LoadReport) find(metric string) float64 {
	switch metric {
	case "application_utilization":
		return r.ApplicationUtilization
	case "cpu_utilization":
		return r.CPUUtilization
	case "mem_utilization":
		return r.MemoryUtilization
	case "rps_fractional":
		return r.QPS
	case "eps":
		return r.EPS
	}
	field, key, _ := strings.Cut(metric, ".")
	switch field {
	case "utilization":
		return r.Utilization[key]
	case "named_metrics":
		return r.NamedMetrics[key]
	case "request_cost":
		return r.RequestCost[key]
	}
	return 0
}

// weight is what an endpoint can take: its calls per second for each unit of
// utilization, less where calls fail (gRFC A58). It is 0 where the report does
// not say.
func (r *LoadReport) weight(b *loadReporting) float64 {
	used := r.used(b.metrics)
	if !(r.QPS > 0 && used > 0) {
		return 0
	}
	penalty := b.penalty
	if penalty == 0 && !b.noPenalty {
		penalty = 1
	}
	if r.EPS > 0 {
		used += r.EPS / r.QPS * penalty
	}
	if w := r.QPS / used; !math.IsInf(w, 0) {
		return w
	}
	return 0
}
