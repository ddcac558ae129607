package proxyless

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
)

// Limits of the audit, which a caller can make as many records for as it likes.
const (
	maxAudits      = 1024 // records that wait to be taken
	auditsLogged   = 50   // lines in the log for each second
	maxAuditMethod = 256  // bytes
)

// auditor hands records to the log and to Config.Audit, one after the other, on
// a goroutine that lives while there are any: a call only leaves its record.
type auditor struct {
	// Constant after construction.
	log     *slog.Logger
	hook    func(AuditRecord) // may be nil
	counts  *counters
	errands *errands

	mu      sync.Mutex
	waiting []AuditRecord // guarded by mu
	working bool          // guarded by mu
	lost    uint64        // guarded by mu: since the last record

	// Used by the goroutine alone.
	second time.Time // when the second began whose lines are counted
	lines  int
	quiet  uint64 // records since the last line that were not logged
}

func newAuditor(log *slog.Logger, hook func(AuditRecord), counts *counters) *auditor {
	// One that ends may still be counted when the next one starts.
	return &auditor{log: log, hook: hook, counts: counts, errands: newErrands(2)}
}

// report notes what is to be noted of a call.
func (a *auditor) report(method string, call *callFacts, r *ruling) {
	for i := range call.audits {
		audit := &call.audits[i]
		a.add(method, call, audit, codes.OK)
	}
	if r.code != codes.OK {
		a.counts.denied.Add(1)
		a.add(method, call, r, r.code)
	}
}

func (a *auditor) add(method string, call *callFacts, r *ruling, code codes.Code) {
	record := AuditRecord{Time: time.Now(), Method: strings.Clone(method[:min(len(method), maxAuditMethod)]),
		Code: code, Action: r.action, Policy: r.policy, Reason: r.reason}
	if p := call.peer; p != nil {
		record.Address = p.remote
		if p.verified && len(p.names) > 0 {
			record.Peer = p.names[0]
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) == maxAudits {
		a.lost++
		a.counts.auditsLost.Add(1)
		return
	}
	record.Lost, a.lost = a.lost, 0
	a.waiting = append(a.waiting, record)
	if !a.working {
		a.working = a.errands.run(a.work)
	}
}

// work takes records until there are none.
func (a *auditor) work(context.Context) {
	for records := a.take(); len(records) > 0; records = a.take() {
		for i := range records {
			a.write(&records[i])
			if a.hook != nil {
				a.hook(records[i])
			}
		}
	}
}

func (a *auditor) take() []AuditRecord {
	a.mu.Lock()
	defer a.mu.Unlock()
	records := a.waiting
	a.waiting = nil
	a.working = len(records) > 0
	return records
}

// write logs a record, unless there were too many in this second.
func (a *auditor) write(r *AuditRecord) {
	if r.Time.Sub(a.second) >= time.Second {
		a.second, a.lines = r.Time, 0
	}
	if a.lines++; a.lines > auditsLogged {
		a.quiet += 1 + r.Lost
		return
	}
	level := slog.LevelInfo
	if r.Refused() {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{slog.String("method", r.Method), slog.String("peer", r.Peer), slog.String("address", r.Address.String()),
		slog.String("code", r.Code.String()), slog.String("action", r.Action), slog.String("policy", r.Policy), slog.String("reason", r.Reason)}
	if more := r.Lost + a.quiet; more > 0 {
		attrs = append(attrs, slog.Uint64("not_logged_before", more))
	}
	a.quiet = 0
	a.log.LogAttrs(context.Background(), level, r.message(), attrs...)
}

// close waits until what is left was taken, and takes no more.
func (a *auditor) close() { a.errands.close() }
