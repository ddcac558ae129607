package interop

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const strictNamespace = "strict"

// tlsMode is the label with which Istio marks pods that speak the mesh's TLS.
const tlsMode = "security.istio.io/tlsMode"

// TestInboundPolicy gives a provider policy that it cannot evaluate: it refuses
// calls, and serves again when the policy is lifted. Nothing else about it
// changes, and the consumer knows nothing of the policy.
func TestInboundPolicy(t *testing.T) { eachView(t, testInboundPolicy) }

func testInboundPolicy(t *testing.T) {
	l := suite.Lab(t)
	var log record
	p := startProvider(t, l, strictNamespace, "governed", map[string]string{"app": "governed"}, log.logTo, localQoS)
	startProvider(t, l, strictNamespace, "another", map[string]string{"app": "another"})
	withManifest(t, l, service(strictNamespace, "governed", "governed", grpcPort)+service(strictNamespace, "another", "another", grpcPort))
	m := joinConsumer(t, l, strictNamespace)
	client, other := refer(t, m, "governed"), refer(t, m, "another")
	ready(t, m)
	cases := []struct{ name, reason, advice, manifest string }{
		{"PeerAuthentication of the workload", "mutual TLS", "set PeerAuthentication to PERMISSIVE or DISABLE", `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: governed, namespace: strict}
spec: {selector: {matchLabels: {app: governed}}, mtls: {mode: STRICT}}
`},
		{"PeerAuthentication of the namespace", "mutual TLS", "set PeerAuthentication to PERMISSIVE or DISABLE", `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: strict}
spec: {mtls: {mode: STRICT}}
`},
		{"AuthorizationPolicy", "filters.http.rbac", "remove the AuthorizationPolicy", `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: governed, namespace: strict}
spec:
  selector: {matchLabels: {app: governed}}
  action: DENY
  rules: [{to: [{operation: {paths: ["/admin/*"]}}]}]
`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			eventually(t, "the provider to serve", client, answered)
			withManifest(t, l, c.manifest)
			eventually(t, "the provider to refuse", client, denied(c.reason, c.advice))
			if !strings.Contains(log.String(), "calls are refused") || !strings.Contains(log.String(), c.reason) {
				t.Errorf("the provider's log does not say why:\n%s", log.String())
			}
			if _, text := askQoS(t, p.mesh, "/ls"); !strings.Contains(text, "every call is refused") {
				t.Errorf("/ls does not say that calls are refused:\n%s", text)
			}
			received := p.received.Load()
			if host, err := greet(within(t, 10*time.Second), client); status.Code(err) != codes.PermissionDenied {
				t.Errorf("answer of %q, error %v", host, err)
			}
			if p.received.Load() != received {
				t.Error("a call that was refused reached the implementation")
			}
			removeManifest(t, l, c.manifest)
			eventually(t, "the provider to serve again", client, answered)
		})
	}
	eventually(t, "the other provider to serve", other, answered)
}

// denied takes a call that the provider refused for the reason.
func denied(reason, advice string) func(string, error) error {
	return func(host string, err error) error {
		if status.Code(err) == codes.PermissionDenied && strings.Contains(err.Error(), reason) && strings.Contains(err.Error(), advice) {
			return nil
		}
		return fmt.Errorf("answer of %q, error %w", host, err)
	}
}

// TestTLSModeLabel shows that the label alone, which says that the pod speaks
// the mesh's TLS, makes a provider refuse plain text in the lean view, where
// istiod asks for TLS alone; PeerAuthentication DISABLE lifts it. In the full
// view PERMISSIVE, which is the default, means what it says.
func TestTLSModeLabel(t *testing.T) { eachView(t, testTLSModeLabel) }

func testTLSModeLabel(t *testing.T) {
	l := suite.Lab(t)
	startProvider(t, l, strictNamespace, "labelled", map[string]string{"app": "labelled", tlsMode: "istio"})
	withManifest(t, l, service(strictNamespace, "labelled", "labelled", grpcPort))
	m := joinConsumer(t, l, strictNamespace)
	client := refer(t, m, "labelled")
	ready(t, m)
	if viewOf(t) == fullView {
		eventually(t, "the provider to serve", client, answered)
		return
	}
	eventually(t, "the provider to refuse", client, denied("mutual TLS", "PeerAuthentication"))
	withManifest(t, l, `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: labelled, namespace: strict}
spec: {selector: {matchLabels: {app: labelled}}, mtls: {mode: DISABLE}}
`)
	eventually(t, "the provider to serve", client, answered)
}

// TestPolicyOutlivesReadiness starts a provider whose policy is there before
// it, and lets its pod turn not ready: istiod then knows nothing of the pod, and
// the refusal stays.
func TestPolicyOutlivesReadiness(t *testing.T) { eachView(t, testPolicyOutlivesReadiness) }

func testPolicyOutlivesReadiness(t *testing.T) {
	l := suite.Lab(t)
	must(t, l.Namespace(within(t, 10*time.Second), strictNamespace))
	strict := `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: early, namespace: strict}
spec: {selector: {matchLabels: {app: early}}, mtls: {mode: STRICT}}
`
	withManifest(t, l, service(strictNamespace, "early", "early", grpcPort))
	withManifest(t, l, strict)
	m := joinConsumer(t, l, strictNamespace)
	client := refer(t, m, "early")
	p := startProvider(t, l, strictNamespace, "early", map[string]string{"app": "early"})
	eventually(t, "the provider to refuse", client, denied("mutual TLS", "PeerAuthentication"))

	must(t, p.SetReady(within(t, 10*time.Second), false))
	eventually(t, "the pod to be no endpoint", client, failsAt(proxyless.StageEndpoint))
	direct := greetpb.NewGreetingServiceClient(dial(t, p.Workload))
	for range 20 {
		if _, err := greet(within(t, 10*time.Second), direct); status.Code(err) != codes.PermissionDenied {
			t.Fatalf("called directly, the provider said %v", err)
		}
	}
	removeManifest(t, l, strict)
	must(t, p.SetReady(within(t, 10*time.Second), true))
	eventually(t, "the provider to serve", client, answered)
}

// TestMutualTLSDemanded calls a Service whose DestinationRule demands the
// mesh's TLS: the call fails, and nobody is even connected to.
func TestMutualTLSDemanded(t *testing.T) { eachView(t, testMutualTLSDemanded) }

func testMutualTLSDemanded(t *testing.T) {
	l := suite.Lab(t)
	w := addWorkload(t, l, strictNamespace, "demanding", map[string]string{"app": "demanding", tlsMode: "istio"})
	touched := countConnections(t, w)
	must(t, w.SetReady(within(t, 10*time.Second), true))
	withManifest(t, l, service(strictNamespace, "demanding", "demanding", grpcPort)+demandTLS("demanding"))
	client := refer(t, joinConsumer(t, l, strictNamespace), "demanding")
	eventually(t, "the call to be refused", client, failsAt(proxyless.StageCluster))
	expectError(t, refusal(t, client), proxyless.StageCluster, "TLS", "outbound|50052||demanding."+strictNamespace)
	if n := touched(); n > 0 {
		t.Errorf("%d connections were opened in plain text", n)
	}
}

// TestMutualTLSComes demands TLS of a Service that is being called, and takes
// the demand back.
func TestMutualTLSComes(t *testing.T) { eachView(t, testMutualTLSComes) }

func testMutualTLSComes(t *testing.T) {
	l := suite.Lab(t)
	p := startProvider(t, l, strictNamespace, "changing", map[string]string{"app": "changing"})
	withManifest(t, l, service(strictNamespace, "changing", "changing", grpcPort))
	m := joinConsumer(t, l, strictNamespace)
	client := refer(t, m, "changing")
	ready(t, m)
	eventually(t, "the call to be answered", client, answered)
	withManifest(t, l, demandTLS("changing"))
	eventually(t, "the call to be refused", client, failsAt(proxyless.StageCluster))
	received := p.received.Load()
	for range 20 {
		if _, err := greet(within(t, 10*time.Second), client); err == nil {
			t.Error("a call went out in plain text")
		}
	}
	if p.received.Load() != received {
		t.Error("the provider was called in plain text")
	}
	removeManifest(t, l, demandTLS("changing"))
	eventually(t, "the call to be answered again", client, answered)
}

// demandTLS is a DestinationRule with the mesh's mutual TLS.
func demandTLS(service string) string {
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s, namespace: strict}
spec: {host: %[1]s, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
`, service)
}

// countConnections listens on the workload's port and counts who connects.
func countConnections(t testing.TB, w *lab.Workload) (count func() int64) {
	t.Helper()
	var n atomic.Int64
	lis := listen(t, w)
	go func() { // ends with the listener
		for {
			conn, err := lis.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				n.Add(1)
				conn.Close()
			}
		}
	}()
	return n.Load
}
