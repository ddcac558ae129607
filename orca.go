package proxyless

import (
	"errors"
	"maps"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
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

// The fields of OrcaLoadReport.
const (
	orcaCPU         = 1
	orcaMemory      = 2
	orcaCost        = 4
	orcaUtilization = 5
	orcaQPS         = 6
	orcaEPS         = 7
	orcaNamed       = 8
	orcaApplication = 9
)

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
	var b []byte
	for _, f := range []struct {
		num   protowire.Number
		value float64
	}{{orcaCPU, r.CPUUtilization}, {orcaMemory, r.MemoryUtilization}, {orcaQPS, r.QPS}, {orcaEPS, r.EPS}, {orcaApplication, r.ApplicationUtilization}} {
		if f.value != 0 {
			b = appendDouble(b, f.num, f.value)
		}
	}
	b = appendMetrics(b, orcaCost, r.RequestCost)
	b = appendMetrics(b, orcaUtilization, r.Utilization)
	return appendMetrics(b, orcaNamed, r.NamedMetrics)
}

func appendDouble(b []byte, num protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), math.Float64bits(v))
}

func appendMetrics(b []byte, num protowire.Number, metrics map[string]float64) []byte {
	for name, v := range metrics {
		entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
		b = protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), appendDouble(entry, 2, v))
	}
	return b
}

var errLoadReport = errors.New("malformed load report")

// maxMetrics is how many named metrics of a report are kept.
const maxMetrics = 256

// unmarshal decodes a report into an empty one.
func (r *LoadReport) unmarshal(b []byte) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errLoadReport
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return errLoadReport
		}
		if !r.field(num, typ, b[:n]) {
			return errLoadReport
		}
		b = b[n:]
	}
	return nil
}

// field takes one field; fields it does not know do not count.
func (r *LoadReport) field(num protowire.Number, typ protowire.Type, value []byte) bool {
	switch num {
	case orcaCPU, orcaMemory, orcaQPS, orcaEPS, orcaApplication:
		u, n := protowire.ConsumeFixed64(value)
		if typ != protowire.Fixed64Type || n < 0 {
			return false
		}
		*r.number(num) = math.Float64frombits(u)
	case orcaCost, orcaUtilization, orcaNamed:
		entry, n := protowire.ConsumeBytes(value)
		return typ == protowire.BytesType && n >= 0 && r.metric(num, entry)
	}
	return true
}

func (r *LoadReport) number(num protowire.Number) *float64 {
	switch num {
	case orcaCPU:
		return &r.CPUUtilization
	case orcaMemory:
		return &r.MemoryUtilization
	case orcaQPS:
		return &r.QPS
	case orcaEPS:
		return &r.EPS
	}
	return &r.ApplicationUtilization
}

// metric takes one entry of a map.
func (r *LoadReport) metric(num protowire.Number, entry []byte) bool {
	name, value := "", 0.0
	for len(entry) > 0 {
		field, typ, n := protowire.ConsumeTag(entry)
		if n < 0 {
			return false
		}
		entry = entry[n:]
		if n = protowire.ConsumeFieldValue(field, typ, entry); n < 0 {
			return false
		}
		switch {
		case field == 1 && typ == protowire.BytesType:
			text, _ := protowire.ConsumeBytes(entry)
			name = string(text)
		case field == 2 && typ == protowire.Fixed64Type:
			u, _ := protowire.ConsumeFixed64(entry)
			value = math.Float64frombits(u)
		}
		entry = entry[n:]
	}
	to := &r.NamedMetrics
	switch num {
	case orcaCost:
		to = &r.RequestCost
	case orcaUtilization:
		to = &r.Utilization
	}
	if *to == nil {
		*to = map[string]float64{}
	}
	if len(*to) < maxMetrics {
		(*to)[name] = value
	}
	return true
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
