package interop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const policyNamespace = "policy"

// versions is a Service "routed" with one provider of each of two versions,
// which a DestinationRule knows as subsets.
func versions(t *testing.T) (l *lab.Lab, v1, v2 *provider) {
	t.Helper()
	l = suite.Lab(t)
	v1 = startProvider(t, l, policyNamespace, "routed-1", map[string]string{"app": "routed", "version": "v1"})
	v2 = startProvider(t, l, policyNamespace, "routed-2", map[string]string{"app": "routed", "version": "v2"})
	withManifest(t, l, service(policyNamespace, "routed", "routed", grpcPort)+`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: routed, namespace: policy}
spec:
  host: routed
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
`)
	return l, v1, v2
}

// virtualService routes the Service "routed" as the HTTP routes, in YAML, say.
func virtualService(routes string) string {
	return `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: routed, namespace: policy}
spec:
  hosts: [routed]
  http:
` + routes
}

// to is a destination.
func to(subset string, weight int) string {
	return fmt.Sprintf("{destination: {host: routed, subset: %s}, weight: %d}", subset, weight)
}

// split sends calls to the two versions by weight.
func split(v1, v2 int) string {
	return virtualService("  - route: [" + to("v1", v1) + ", " + to("v2", v2) + "]\n")
}

// TestVirtualService holds weights, matches and timeouts of a VirtualService,
// and the subsets of a DestinationRule. A route to a subset that does not exist
// fails its own calls only.
func TestVirtualService(t *testing.T) { eachView(t, testVirtualService) }

func testVirtualService(t *testing.T) {
	l, v1, v2 := versions(t)
	withManifest(t, l, virtualService(`
  - name: canary
    match: [{headers: {x-canary: {exact: "yes"}}}]
    route: [`+to("v2", 100)+`]
  - name: one-method
    match: [{uri: {exact: /org.apache.dubbo.samples.GreetingService/sayHello}, headers: {x-user: {regex: "a.*"}}}]
    route: [`+to("v1", 100)+`]
  - name: broken
    match: [{headers: {x-broken: {exact: "yes"}}}]
    route: [`+to("v9", 100)+`]
  - name: limited
    match: [{headers: {x-limited: {exact: "yes"}}}]
    route: [`+to("v1", 100)+`]
    timeout: 300ms
  - name: rest
    route: [`+to("v1", 75)+", "+to("v2", 25)+`]
`))
	m := joinConsumer(t, l, policyNamespace, func(c *proxyless.Config) { c.ResourceTimeout = 2 * time.Second })
	client := refer(t, m, "routed")
	canary := metadata.AppendToOutgoingContext(t.Context(), "x-canary", "yes")
	must(t, lab.WaitFor(within(t, 30*time.Second), "the VirtualService", func(context.Context) error {
		shares, err := greetMany(canary, client, 10)
		if err == nil && shares[v2.IP.String()] != 10 {
			err = fmt.Errorf("answers %v", shares)
		}
		return err
	}))

	cases := []struct {
		name, key, value string
		least, most      int // of 400 calls, those to v2
	}{
		{"exact header", "x-canary", "yes", 400, 400},
		{"another value", "x-canary", "no", 60, 145},
		{"path and regex", "x-user", "alice", 0, 0},
		{"weights", "x-user", "bob", 60, 145}, // 100 on average, with a deviation of 9
	}
	for _, c := range cases {
		shares, err := greetMany(metadata.AppendToOutgoingContext(t.Context(), c.key, c.value), client, 400)
		must(t, err)
		if n := shares[v2.IP.String()]; n < c.least || n > c.most || n+shares[v1.IP.String()] != 400 {
			t.Errorf("%s: answers %v, want %d to %d from v2 at %v", c.name, shares, c.least, c.most, v2.IP)
		}
	}

	_, err := greet(metadata.AppendToOutgoingContext(within(t, 10*time.Second), "x-broken", "yes"), client)
	if failsAt(proxyless.StageCluster)("", err) != nil {
		t.Errorf("a call to a subset that does not exist: %v", err)
	}
	began := time.Now()
	limited := metadata.AppendToOutgoingContext(within(t, 20*time.Second), "x-limited", "yes")
	_, err = client.SayHello(limited, &greetpb.SayHelloRequest{Name: "slowly"})
	if took := time.Since(began); status.Code(err) != codes.DeadlineExceeded || took < 200*time.Millisecond || took > 10*time.Second {
		t.Errorf("a call that the route gives 300 ms ended after %v with %v", took, err)
	}
}

// greetMany calls n times and counts the answers by host.
func greetMany(ctx context.Context, client greetpb.GreetingServiceClient, n int) (map[string]int, error) {
	shares := map[string]int{}
	for range n {
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		host, err := greet(limited, client)
		cancel()
		if err != nil {
			return shares, err
		}
		shares[host]++
	}
	return shares, nil
}

// TestTrafficShifts changes routes under calls, and none is lost: also not
// while a VirtualService names a subset that no DestinationRule has yet.
func TestTrafficShifts(t *testing.T) { eachView(t, testTrafficShifts) }

func testTrafficShifts(t *testing.T) {
	l, v1, v2 := versions(t)
	one, two := v1.IP.String(), v2.IP.String()
	m := joinConsumer(t, l, policyNamespace, func(c *proxyless.Config) { c.ResourceTimeout = 2 * time.Second })
	client := refer(t, m, "routed")
	ready(t, m)
	calls := drive(t, client)
	calls.reaches(t, one, two)
	withManifest(t, l, split(100, 0))
	calls.reaches(t, one)
	apply(t, l, split(50, 50))
	calls.reaches(t, one, two)
	apply(t, l, split(0, 100))
	calls.reaches(t, two)
	removeManifest(t, l, split(0, 100))
	calls.reaches(t, one, two)
	calls.expectNoneLost(t, "while routes changed")

	apply(t, l, virtualService("  - route: ["+to("v3", 100)+"]\n"))
	missing := func(_ string, err error) error {
		var own *proxyless.Error
		if errors.As(err, &own) && own.Stage == proxyless.StageCluster && strings.Contains(own.Error(), "subset in a DestinationRule") {
			return nil
		}
		return fmt.Errorf("error %w", err)
	}
	eventually(t, "the subset to be missed", client, missing)
	calls.failed()
	apply(t, l, split(0, 100))
	calls.reaches(t, two)
	calls.failed() // those from before the correction arrived
	calls.reaches(t, two)
	calls.stop()
	calls.expectNoneLost(t, "after the VirtualService was corrected")
}

// TestIgnoredPolicy shows that policy which is not applied is reported by its
// field, in the log and under /snapshot, and that calls go on without it; and
// that a route which cannot carry calls fails them with the reason.
func TestIgnoredPolicy(t *testing.T) { eachView(t, testIgnoredPolicy) }

func testIgnoredPolicy(t *testing.T) {
	l, v1, v2 := versions(t)
	withManifest(t, l, virtualService(`
  - name: elsewhere
    match: [{headers: {x-redirect: {exact: "yes"}}}]
    redirect: {uri: /elsewhere}
  - name: rest
    route: [`+to("v1", 50)+", "+to("v2", 50)+`]
    headers: {request: {set: {x-from: "%DOWNSTREAM_REMOTE_ADDRESS%"}}}
`))
	var log record
	m := joinConsumer(t, l, policyNamespace, log.logTo, localQoS)
	client := refer(t, m, "routed")
	fields := []string{
		"request_headers_to_add",
	}
	must(t, lab.WaitFor(within(t, 30*time.Second), "the report", func(context.Context) error {
		code, snapshot := askQoS(t, m, "/snapshot")
		for _, field := range fields {
			if !strings.Contains(snapshot, field) {
				return fmt.Errorf("%s is not in the snapshot: %d %s", field, code, snapshot)
			}
		}
		return nil
	}))
	for _, field := range fields {
		if !strings.Contains(log.String(), field) {
			t.Errorf("%s is not in the log:\n%s", field, log.String())
		}
	}
	shares, err := greetMany(t.Context(), client, 40)
	must(t, err)
	if shares[v1.IP.String()] == 0 || shares[v2.IP.String()] == 0 {
		t.Errorf("answers %v", shares)
	}
	_, err = greet(metadata.AppendToOutgoingContext(within(t, 10*time.Second), "x-redirect", "yes"), client)
	if failsAt(proxyless.StageRoute)("", err) != nil || !strings.Contains(err.Error(), "redirect") {
		t.Errorf("a call to a route that redirects: %v", err)
	}
}
