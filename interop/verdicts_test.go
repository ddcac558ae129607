package interop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
)

const verdictsNamespace = "verdicts"

// caseHeader says which rule a call is held against: each rule has it as one
// more condition.
const caseHeader = "x-case"

// noCase is no rule's.
const noCase = -1

// verdictRule is one rule of an AuthorizationPolicy, in YAML.
type verdictRule struct {
	source, operation, when string
	hidden                  bool // on a header that is not known here: it allows nothing, and denies everything
}

func source(s string) verdictRule    { return verdictRule{source: s} }
func operation(s string) verdictRule { return verdictRule{operation: s} }
func when(key, is string) verdictRule {
	return verdictRule{when: fmt.Sprintf("{key: %q, %s}", key, is)}
}
func hidden(header string) verdictRule {
	r := when("request.headers["+header+"]", `values: ["*"]`)
	r.hidden = true
	return r
}

func (r verdictRule) String() string { return r.source + r.operation + r.when }

func (r verdictRule) yaml(at int) string {
	conditions := fmt.Sprintf("{key: 'request.headers[%s]', values: [case-%d]}", caseHeader, at)
	if r.when != "" {
		conditions += ", " + r.when
	}
	text := "when: [" + conditions + "]"
	if r.source != "" {
		text += ", from: [{source: {" + r.source + "}}]"
	}
	if r.operation != "" {
		text += ", to: [{operation: {" + r.operation + "}}]"
	}
	return "  - {" + text + "}\n"
}

// verdictPolicy is an AuthorizationPolicy with all rules.
func verdictPolicy(action string) string {
	var rules strings.Builder
	for i, r := range verdictRules {
		rules.WriteString(r.yaml(i))
	}
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: verdicts, namespace: %s}
spec:
  action: %s
  rules:
%s`, verdictsNamespace, action, rules.String())
}

// verdictCall is a call; what is not said of it is as usual.
type verdictCall struct {
	name     string
	caller   string // default alice
	headers  []header
	about    []string // parts of the rules that look at what is special in it; none for all of them
	stricter string   // what the rules are about by which the library lets fewer in than Envoy does; empty for none
}

var usualHeaders = pairs(":method", "POST", ":scheme", "http", ":path", "/pkg.Svc/Get", ":authority", "greeter.example",
	"content-type", "application/grpc", "te", "trailers")

// lines are the call's headers, to be held against a rule.
func (c *verdictCall) lines(rule int) (lines []header) {
	for _, h := range usualHeaders {
		if !slices.ContainsFunc(c.headers, func(own header) bool { return own.name == h.name }) {
			lines = append(lines, h)
		}
	}
	for _, h := range c.headers {
		switch {
		case h.absent:
		case strings.HasPrefix(h.name, ":"):
			lines = slices.Insert(lines, 0, h)
		default:
			lines = append(lines, h)
		}
	}
	return append(lines, header{name: caseHeader, value: fmt.Sprint("case-", rule)})
}

// othersHeld is how many calls there are for one that is held against a rule
// which looks at nothing special in it.
const othersHeld = 5

// looksAt says that a rule looks at what is special in the call.
func (r verdictRule) looksAt(c *verdictCall) bool {
	text := strings.ToLower(r.String())
	return len(c.about) == 0 || slices.ContainsFunc(c.about, func(part string) bool { return strings.Contains(text, part) })
}

// judge is somebody who holds calls against rules: by caller, the way there.
type judge map[string]*rawCaller

func newJudge(t testing.TB, address string, certificates map[string]*certificate) judge {
	j := judge{}
	for name, c := range certificates {
		serverName := "outbound_.50052_._.greeter.example"
		if name == "nameless" {
			serverName = ""
		}
		j[name] = rawTo(t, address, c, serverName)
	}
	return j
}

func (j judge) verdict(c *verdictCall, rule int) verdict {
	if c.caller == "" {
		return j["alice"].verdict(c.lines(rule))
	}
	return j[c.caller].verdict(c.lines(rule))
}

// TestVerdicts holds calls of every kind against rules of every kind, which
// allow and which deny, in two ways: by the library, and by a real Envoy, both of
// which a real istiod tells the same. Envoy's verdict is the right one. Where the
// library cannot know, it lets nobody in whom Envoy does not.
func TestVerdicts(t *testing.T) {
	l := suite.Lab(t)
	p := startPod(t, l, lab.WorkloadSpec{Namespace: verdictsNamespace, Name: "provider", Account: "provider",
		Labels: map[string]string{"app": "provider", tlsMode: "istio"}})
	withManifest(t, l, service(verdictsNamespace, "provider", "provider", grpcPort))
	s := startSidecar(t, l, verdictsNamespace, "provider")
	issuers := newVerdictIssuers(t)
	withManifest(t, l, issuers.manifest(t))
	calls := slices.Concat(verdictCalls, issuers.calls(t))

	certificates := map[string]*certificate{"nobody": nil}
	for name, namespace := range map[string]string{"alice": verdictsNamespace, "bob": verdictsNamespace, "carol": verdictsNamespace + "-too"} {
		certificates[name] = certified(t, l, namespace, name)
	}
	certificates["nameless"] = certificates["alice"]
	found := differences{}
	for _, action := range []string{"ALLOW", "DENY"} {
		t.Run(action, func(t *testing.T) {
			withManifest(t, l, verdictPolicy(action))
			envoy, ours := newJudge(t, address(s.Workload), certificates), newJudge(t, address(p.Workload), certificates)
			inForce(t, action, envoy, ours)
			found.compare(t, action, calls, envoy, ours)
		})
	}
	found.expectAll(t, calls)
}

// inForce waits until the judges go by a policy with the action.
func inForce(t testing.TB, action string, judges ...judge) {
	t.Helper()
	met, unmet := passed, denied
	if action == "DENY" {
		met, unmet = denied, passed
	}
	for _, j := range judges {
		must(t, lab.WaitFor(within(t, 30*time.Second), "the policy to be in force", func(context.Context) error {
			var call verdictCall
			yes, no := j.verdict(&call, 0), j.verdict(&call, noCase)
			if yes != met || no != unmet {
				for _, caller := range j { // whose connection may be one of yesterday
					caller.close()
				}
				return fmt.Errorf("a call that meets a rule: %s, one that meets none: %s", yes, no)
			}
			return nil
		}))
	}
}

// differences are the rules and the calls about which the library says otherwise
// than Envoy.
type differences map[string]bool

func (d differences) compare(t *testing.T, action string, calls []verdictCall, envoy, ours judge) {
	for i := range calls {
		c := &calls[i]
		// Who is turned away whatever the rules are must be so by both, but for
		// what grpc takes and Envoy does not: no handler is asked for that.
		want, got := envoy.verdict(c, noCase), ours.verdict(c, noCase)
		if want == unauthenticated && got == passed {
			t.Errorf("%s, a call %s: Envoy says %s, the library %s", action, c.name, want, got)
		}
		if !want.byRules() || !got.byRules() || want == unauthenticated && got == want {
			continue
		}
		for at, r := range verdictRules {
			if (i+at)%othersHeld != 0 && !r.looksAt(c) {
				continue
			}
			if want, got := envoy.verdict(c, at), ours.verdict(c, at); want != got {
				d.judge(t, action, r, c, want, got)
			}
		}
	}
}

// judge takes a difference where the library is known to be stricter.
func (d differences) judge(t *testing.T, action string, r verdictRule, c *verdictCall, want, got verdict) {
	about := c.stricter != "" && strings.Contains(strings.ToLower(r.String()), c.stricter)
	if got == passed || !want.byRules() || !about && !r.hidden {
		t.Errorf("%s {%s}, a call %s: Envoy says %s, the library %s", action, r, c.name, want, got)
	}
	if r.hidden {
		d[r.String()] = true
	}
	if about {
		d[c.name] = true
	}
}

// expectAll fails where the library is said to be stricter than Envoy and never was.
func (d differences) expectAll(t *testing.T, calls []verdictCall) {
	for _, r := range verdictRules {
		if r.hidden && !d[r.String()] {
			t.Errorf("{%s}: the library judges as Envoy does", r)
		}
	}
	for i := range calls {
		if calls[i].stricter != "" && !d[calls[i].name] {
			t.Errorf("a call %s: the library judges as Envoy does", calls[i].name)
		}
	}
}
