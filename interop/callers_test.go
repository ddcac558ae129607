package interop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc/codes"
)

const callersNamespace = "callers"

// TestCallers has a handler know who calls, and the provider who speaks plain
// text still.
func TestCallers(t *testing.T) {
	l := suite.Lab(t)
	p := startPod(t, l, lab.WorkloadSpec{Namespace: callersNamespace, Name: "called", Account: "provider",
		Labels: map[string]string{"app": "called", tlsMode: "istio"}})
	withManifest(t, l, service(callersNamespace, "called", "called", grpcPort))
	client := refer(t, joinConsumer(t, l, callersNamespace, as(t, l, "alice")), "called")
	expectEncrypted(t, p, client, true)
	if got := p.caller.Load(); got == nil || !got.Encrypted || !got.Verified || got.ID != "spiffe://cluster.local/ns/callers/sa/alice" ||
		got.TrustDomain != "cluster.local" || got.Namespace != callersNamespace || got.ServiceAccount != "alice" || got.Certificate == nil {
		t.Errorf("the handler is told that %+v calls", got)
	}
	if peers := p.mesh.PlainTextPeers(); len(peers) > 0 {
		t.Errorf("in plain text: %+v", peers)
	}
	eventually(t, "plain text to be answered", bareClient(dialPlain(t, address(p.Workload))), answered)
	if got := p.caller.Load(); got.Encrypted || got.Verified || got.ID != "" {
		t.Errorf("the handler is told that %+v calls", got)
	}
	if peers := p.mesh.PlainTextPeers(); len(peers) != 1 || peers[0].Calls == 0 || peers[0].Connections != 1 {
		t.Errorf("in plain text: %+v", peers)
	}
}

// TestAudit hands what the rules make of calls to the application: a refusal
// with its policy, what AUDIT asks for, and what a policy under dry run would
// have done; the caller is told none of it.
func TestAudit(t *testing.T) {
	l := suite.Lab(t)
	var mu sync.Mutex
	var records []proxyless.AuditRecord
	p := startPod(t, l, lab.WorkloadSpec{Namespace: callersNamespace, Name: "audited", Account: "provider",
		Labels: map[string]string{"app": "audited", tlsMode: "istio"}}, func(c *proxyless.Config) {
		c.Audit = func(r proxyless.AuditRecord) {
			mu.Lock()
			defer mu.Unlock()
			records = append(records, r)
		}
	})
	policy := func(name, annotations, spec string) string {
		return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, namespace: callers, annotations: {%s}}
spec: {selector: {matchLabels: {app: audited}}, %s}
`, name, annotations, spec)
	}
	withManifest(t, l, service(callersNamespace, "audited", "audited", grpcPort)+
		policy("no-admin", "", `action: DENY, rules: [{to: [{operation: {paths: ["/admin.*"]}}]}]`)+
		policy("noted", "", `action: AUDIT, rules: [{to: [{operation: {paths: ["`+sayHello+`"]}}]}]`)+
		policy("tried", `"istio.io/dry-run": "true"`, `action: DENY, rules: [{to: [{operation: {paths: ["`+sayHello+`"]}}]}]`))
	catchUp(t, l)
	m := joinConsumer(t, l, callersNamespace, as(t, l, "alice"))
	inv, err := m.Refer(greetings, proxyless.ProvidedBy("audited"), proxyless.Version(version))
	must(t, err)
	ready(t, m)
	has := func(want proxyless.AuditRecord) error {
		mu.Lock()
		defer mu.Unlock()
		if slices.ContainsFunc(records, func(r proxyless.AuditRecord) bool {
			return r.Method == want.Method && r.Code == want.Code && r.Action == want.Action && strings.Contains(r.Policy, want.Policy) &&
				r.Peer == "spiffe://cluster.local/ns/callers/sa/alice" && !r.Time.IsZero()
		}) {
			return nil
		}
		return fmt.Errorf("no %+v among %+v", want, records)
	}
	must(t, lab.WaitFor(within(t, 30*time.Second), "the records", func(context.Context) error {
		if err := outcome(t, inv, sayHello); err != nil {
			return err
		}
		refused := outcome(t, inv, otherPath)
		if refused != nil {
			quiet(t, refused, "no-admin", "rule", "policy")
		}
		return errors.Join(
			coded(codes.PermissionDenied)("", refused),
			has(proxyless.AuditRecord{Method: otherPath, Code: codes.PermissionDenied, Action: "DENY", Policy: "policy[no-admin]"}),
			has(proxyless.AuditRecord{Method: sayHello, Code: codes.OK, Action: "AUDIT", Policy: "policy[noted]"}),
			has(proxyless.AuditRecord{Method: sayHello, Code: codes.OK, Action: "shadow DENY", Policy: "policy[tried]"}),
		)
	}))
	if p.received.Load() == 0 {
		t.Error("no call was let in")
	}
}
