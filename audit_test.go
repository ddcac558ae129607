package proxyless

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
)

func auditedCall() *callFacts {
	return &callFacts{peer: &peerFacts{remote: netip.MustParseAddrPort("10.0.0.7:4242"), encrypted: true, verified: true,
		names: []string{"spiffe://cluster.local/ns/shop/sa/web"}}}
}

// TestAudit says what a refused call leaves behind, and one that policies only
// take note of.
func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var got []AuditRecord
		a := newAuditor(slog.New(slog.NewTextHandler(&log, nil)), func(r AuditRecord) { got = append(got, r) }, &counters{})
		call := auditedCall()
		call.audits = []ruling{{code: codes.PermissionDenied, action: "shadow DENY", policy: "ns[shop]-policy[try]-rule[0]", reason: "the policy matches"},
			{action: "AUDIT", policy: "ns[shop]-policy[watch]-rule[0]", reason: "the policy matches"}}
		a.report("/shop.Orders/Get", call, &ruling{})
		call.audits = nil
		a.report("/shop.Orders/"+strings.Repeat("x", 300), call, &ruling{code: codes.PermissionDenied, action: "ALLOW", reason: "no policy matches"})
		a.close()
		if len(got) != 3 {
			t.Fatalf("%d records: %+v", len(got), got)
		}
		for i, want := range []struct {
			code         codes.Code
			action       string
			tried, heard bool
		}{{codes.OK, "shadow DENY", true, false}, {codes.OK, "AUDIT", false, false}, {codes.PermissionDenied, "ALLOW", false, true}} {
			r := got[i]
			if r.Code != want.code || r.Action != want.action || r.Tried() != want.tried || r.Refused() != want.heard || len(r.Method) > maxAuditMethod ||
				r.Peer != "spiffe://cluster.local/ns/shop/sa/web" || r.Address != call.peer.remote || r.Time != time.Now() {
				t.Errorf("record %d: %+v", i, r)
			}
		}
		for _, line := range []string{`level=WARN msg="a call was refused by the mesh's rules"`, `code=PermissionDenied action=ALLOW policy="" reason="no policy matches"`,
			`level=INFO msg="a call was audited" method=/shop.Orders/Get peer=spiffe://cluster.local/ns/shop/sa/web address=10.0.0.7:4242 code=OK action=AUDIT policy=ns[shop]-policy[watch]-rule[0]`,
			`msg="a call would have been refused by a policy under dry run"`} {
			if !strings.Contains(log.String(), line) {
				t.Errorf("the log lacks %s:\n%s", line, log.String())
			}
		}
		if a.counts.denied.Load() != 1 {
			t.Errorf("%d calls were denied", a.counts.denied.Load())
		}
	})
}

// TestAuditHoldsUpNobody has a hook that does not return and a flood of refused
// calls: what does not fit is lost and counted, and the log has its limit.
func TestAuditHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		release := make(chan struct{})
		var got []AuditRecord
		a := newAuditor(slog.New(slog.NewTextHandler(&log, nil)), func(r AuditRecord) { <-release; got = append(got, r) }, &counters{})
		denied := ruling{code: codes.PermissionDenied, action: "DENY"}
		a.report("/s/m", auditedCall(), &denied)
		synctest.Wait() // the hook has that one
		const flood = 5000
		for range flood {
			a.report("/s/m", auditedCall(), &denied)
		}
		if lost := a.counts.auditsLost.Load(); lost != flood-maxAudits {
			t.Errorf("%d records were lost", lost)
		}
		close(release)
		synctest.Wait()
		a.report("/s/m", auditedCall(), &denied)
		synctest.Wait()
		if n := len(got); n != 1+maxAudits+1 || got[n-1].Lost != flood-maxAudits {
			t.Errorf("%d records, the last %+v", n, got[n-1])
		}
		if lines := strings.Count(log.String(), "\n"); lines != auditsLogged {
			t.Errorf("%d lines were logged in one second", lines)
		}
		time.Sleep(time.Second)
		a.report("/s/m", auditedCall(), &denied)
		a.close()
		if !strings.HasSuffix(log.String(), " not_logged_before=4952\n") {
			t.Errorf("the log does not say how much it lacks: %s", log.String()[strings.LastIndex(strings.TrimSpace(log.String()), "\n"):])
		}
		a.report("/s/m", auditedCall(), &denied) // after the end: nothing happens
	})
}
