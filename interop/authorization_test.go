package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const guardedNamespace = "guarded"

// otherPath is one that is called beside the greeting's; nothing serves it.
const otherPath = "/admin.Service/Shutdown"

// attempt is one call and what a policy makes of it.
type attempt struct {
	caller  string // alice and bob of the namespace, carol of another one, nobody without TLS
	path    string // default the greeting's
	headers []string
	refused bool
}

func yes(caller string, headers ...string) attempt { return attempt{caller: caller, headers: headers} }
func no(caller string, headers ...string) attempt {
	return attempt{caller: caller, headers: headers, refused: true}
}
func (a attempt) at(path string) attempt { a.path = path; return a }

// authorizations are AuthorizationPolicies, by their specs without selector.
var authorizations = []struct {
	name, spec  string
	annotations string
	attempts    []attempt
	lean        string // what is different in the lean view, by istiod's doing; empty for nothing
}{
	{name: "deny a path", spec: `{action: DENY, rules: [{to: [{operation: {paths: ["/admin.*"]}}]}]}`,
		attempts: []attempt{yes("alice"), yes("bob"), no("alice").at(otherPath)}},
	{name: "allow a path", spec: `{action: ALLOW, rules: [{to: [{operation: {paths: ["/` + greetings + `/*"]}}]}]}`,
		attempts: []attempt{yes("alice"), no("alice").at(otherPath)}},
	{name: "allow all but a path", spec: `{action: ALLOW, rules: [{to: [{operation: {notPaths: ["/admin.*"]}}]}]}`,
		attempts: []attempt{yes("alice"), no("alice").at(otherPath)}},
	{name: "path template", spec: `{action: ALLOW, rules: [{to: [{operation: {paths: ["/{*}/sayHello", "/x/{**}"]}}]}]}`,
		attempts: []attempt{yes("alice"), no("alice").at(otherPath), no("alice").at("/a/b/sayHello"), yes("alice").at("/x/y/z")}},
	{name: "namespace", spec: `{action: ALLOW, rules: [{from: [{source: {namespaces: [guarded]}}]}]}`,
		attempts: []attempt{yes("alice"), yes("bob"), no("carol")}},
	{name: "not the namespace", spec: `{action: ALLOW, rules: [{from: [{source: {notNamespaces: [guarded]}}]}]}`,
		attempts: []attempt{no("alice"), yes("carol")}},
	{name: "principal", spec: `{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/guarded/sa/alice]}}]}]}`,
		attempts: []attempt{yes("alice"), no("bob"), no("carol")}},
	{name: "principal, the end", spec: `{action: ALLOW, rules: [{from: [{source: {principals: ["*/sa/bob"]}}]}]}`,
		attempts: []attempt{no("alice"), yes("bob")}},
	{name: "principal, the beginning", spec: `{action: DENY, rules: [{from: [{source: {principals: ["cluster.local/ns/guarded-too/*"]}}]}]}`,
		attempts: []attempt{yes("alice"), no("carol")}},
	{name: "any principal", spec: `{action: ALLOW, rules: [{from: [{source: {principals: ["*"]}}]}]}`,
		attempts: []attempt{yes("alice"), yes("carol")}},
	{name: "service account", spec: `{action: ALLOW, rules: [{from: [{source: {serviceAccounts: [alice, guarded-too/carol]}}]}]}`,
		attempts: []attempt{yes("alice"), no("bob"), yes("carol")}},
	{name: "method", spec: `{action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}`,
		attempts: []attempt{no("alice")}},
	{name: "port", spec: `{action: ALLOW, rules: [{to: [{operation: {ports: ["50052"]}}]}]}`,
		attempts: []attempt{yes("alice")}},
	{name: "another port", spec: `{action: ALLOW, rules: [{to: [{operation: {ports: ["50053"]}}]}]}`,
		attempts: []attempt{no("alice")}},
	{name: "addresses", spec: `{action: ALLOW, rules: [{from: [{source: {ipBlocks: [10.244.0.0/16]}}]}]}`,
		attempts: []attempt{yes("alice")}},
	{name: "other addresses", spec: `{action: ALLOW, rules: [{from: [{source: {ipBlocks: [192.0.2.0/24], notIpBlocks: [10.244.0.0/16]}}]}]}`,
		attempts: []attempt{no("alice")}},
	{name: "header", spec: `{action: ALLOW, rules: [{when: [{key: "request.headers[x-team]", values: ["red", "blue-*"], notValues: ["blue-9"]}]}]}`,
		attempts: []attempt{no("alice"), yes("alice", "x-team", "red"), yes("alice", "x-team", "blue-1"), no("alice", "x-team", "blue-9"), no("alice", "x-team", "reddish")}},
	{name: "and, or", spec: `{action: ALLOW, rules: [
  {from: [{source: {principals: [cluster.local/ns/guarded/sa/alice]}}], to: [{operation: {paths: [` + sayHello + `]}}]},
  {from: [{source: {namespaces: [guarded-too]}}], when: [{key: "request.headers[x-team]", values: [red]}]}]}`,
		attempts: []attempt{yes("alice"), no("alice").at(otherPath), no("bob"), no("carol"), yes("carol", "x-team", "red")}},
	{name: "allow nothing", spec: `{action: ALLOW}`, lean: "istiod sends no filter for it",
		attempts: []attempt{no("alice"), no("carol"), no("alice").at(otherPath)}},
	{name: "deny nothing", spec: `{action: DENY}`, attempts: []attempt{yes("alice"), yes("carol")}},
	{name: "deny everything", spec: `{action: DENY, rules: [{}]}`, attempts: []attempt{no("alice"), no("carol")}},
	{name: "audit", spec: `{action: AUDIT, rules: [{}]}`, attempts: []attempt{yes("alice"), yes("carol")}},
	{name: "dry run", spec: `{action: DENY, rules: [{}]}`, annotations: `"istio.io/dry-run": "true"`, lean: "istiod sends it as if it were no dry run",
		attempts: []attempt{yes("alice")}},
	{name: "an authorizer of its own", spec: `{action: CUSTOM, provider: {name: elsewhere}, rules: [{to: [{operation: {paths: ["/admin.*"]}}]}]}`,
		lean: "istiod sends no filter for it", attempts: []attempt{yes("alice"), no("alice").at(otherPath)}},
}

// TestAuthorization holds a provider with STRICT against policies of every
// kind, one after the other, with callers of three identities.
func TestAuthorization(t *testing.T) { eachView(t, testAuthorization) }

func testAuthorization(t *testing.T) {
	g := newGuarded(t)
	for _, c := range authorizations {
		if c.lean != "" && viewOf(t) == leanView {
			continue // TestLeanGaps
		}
		t.Run(c.name, func(t *testing.T) {
			g.govern(t, authorizationPolicy(c.spec, c.annotations))
			g.expect(t, c.attempts)
		})
	}
}

// guarded is a provider with STRICT and its callers.
type guarded struct {
	lab      *lab.Lab
	provider *provider
	callers  map[string]grpc.ClientConnInterface
	log      *record
}

// strict is the PeerAuthentication of a workload.
func strict(namespace, app string) string {
	return peerAuthentication(namespace, app, "mtls: {mode: STRICT}")
}

func peerAuthentication(namespace, app, spec string) string {
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: %[2]s, namespace: %[1]s}
spec: {selector: {matchLabels: {app: %[2]s}}, %[3]s}
`, namespace, app, spec)
}

// mutual is the DestinationRule without which the lean view tells consumers
// nothing of the mesh's TLS; the full view does the same without it.
func mutual(namespace, host string) string { return tlsRule(namespace, host, "{mode: ISTIO_MUTUAL}") }

func tlsRule(namespace, host, settings string) string {
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[2]s, namespace: %[1]s}
spec: {host: %[2]s.%[1]s.svc.cluster.local, trafficPolicy: {tls: %[3]s}}
`, namespace, host, settings)
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	l := suite.Lab(t)
	g := &guarded{lab: l, callers: map[string]grpc.ClientConnInterface{}, log: &record{}}
	g.provider = startPod(t, l, lab.WorkloadSpec{Namespace: guardedNamespace, Name: "guarded", Account: "provider",
		Labels: map[string]string{"app": "guarded", tlsMode: "istio"}}, g.log.logTo, localQoS)
	manifest := service(guardedNamespace, "guarded", "guarded", grpcPort) + strict(guardedNamespace, "guarded")
	if viewOf(t) == leanView {
		manifest += mutual(guardedNamespace, "guarded")
	}
	withManifest(t, l, manifest)
	catchUp(t, l)
	for caller, namespace := range map[string]string{"alice": guardedNamespace, "bob": guardedNamespace, "carol": guardedNamespace + "-too"} {
		must(t, l.Namespace(soon(t), namespace))
		m := joinConsumer(t, l, namespace, as(t, l, caller))
		inv, err := m.Refer(greetings, proxyless.ProvidedBy("guarded."+guardedNamespace), proxyless.Version(version))
		must(t, err)
		g.callers[caller] = inv
		ready(t, m)
	}
	g.callers["nobody"] = dialPlain(t, g.address())
	must(t, lab.WaitFor(within(t, 30*time.Second), "STRICT to be in force", func(context.Context) error {
		if err := outcome(t, g.callers["alice"], sayHello); err != nil {
			return err
		}
		if err := outcome(t, g.callers["nobody"], sayHello); status.Code(err) != codes.Unavailable {
			return fmt.Errorf("a call without TLS ended with %w", err)
		}
		return nil
	}))
	return g
}

func (g *guarded) address() string { return fmt.Sprintf("%v:%d", g.provider.IP, servicePort) }

// govern applies a manifest until the subtest ends, and waits until istiod
// knows of it.
func (g *guarded) govern(t *testing.T, manifest string) {
	t.Helper()
	withManifest(t, g.lab, manifest)
	catchUp(t, g.lab)
}

// authorizationPolicy is one for the guarded provider, by its spec in one line
// of YAML without the selector.
func authorizationPolicy(spec, annotations string) string {
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: guarded, annotations: {%s}}
spec: %s
`, annotations, "{selector: {matchLabels: {app: guarded}}, "+strings.TrimPrefix(spec, "{"))
}

// expect makes the attempts until all end as they should, which takes as long
// as istiod does to tell, and then once more.
func (g *guarded) expect(t *testing.T, attempts []attempt) {
	t.Helper()
	look := func(context.Context) error {
		for _, a := range attempts {
			if err := g.try(t, a); err != nil {
				return err
			}
		}
		return nil
	}
	must(t, lab.WaitFor(within(t, 45*time.Second), "the policy to be in force", look))
	if err := look(t.Context()); err != nil {
		t.Error(err)
	}
}

func (g *guarded) try(t *testing.T, a attempt) error {
	t.Helper()
	if a.path == "" {
		a.path = sayHello
	}
	received := g.provider.received.Load()
	err := outcome(t, g.callers[a.caller], a.path, a.headers...)
	switch {
	case !a.refused && err != nil:
		return fmt.Errorf("%s at %s %v: %w", a.caller, a.path, a.headers, err)
	case a.refused && status.Code(err) != codes.PermissionDenied:
		return fmt.Errorf("%s at %s %v was let in: %w", a.caller, a.path, a.headers, err)
	case a.refused && g.provider.received.Load() != received:
		return fmt.Errorf("%s at %s %v was refused and reached the implementation", a.caller, a.path, a.headers)
	}
	if err != nil {
		quiet(t, err, "tried", "guarded", "policy", "rule")
	}
	return nil
}
