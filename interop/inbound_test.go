package interop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
)

const strictNamespace = "strict"

// tlsMode is the label with which Istio marks pods that speak the mesh's TLS.
const tlsMode = "security.istio.io/tlsMode"

// TestTLSModeLabel shows that the label alone, which says that the pod speaks
// the mesh's TLS, makes a provider refuse plain text in the lean view, where
// istiod asks for TLS alone; PeerAuthentication DISABLE lifts it. In the full
// view PERMISSIVE, which is the default, means what it says.
func TestTLSModeLabel(t *testing.T) { eachView(t, testTLSModeLabel) }

func testTLSModeLabel(t *testing.T) {
	l := suite.Lab(t)
	p := startProvider(t, l, strictNamespace, "labelled", map[string]string{"app": "labelled", tlsMode: "istio"})
	withManifest(t, l, service(strictNamespace, "labelled", "labelled", grpcPort))
	plain := bareClient(dialPlain(t, address(p.Workload)))
	m := joinConsumer(t, l, strictNamespace)
	client := refer(t, m, "labelled")
	if viewOf(t) == fullView {
		eventually(t, "the provider to serve plain text", plain, answered)
		expectEncrypted(t, p, client, true)
		return
	}
	eventually(t, "the provider to refuse plain text", plain, refusedWithoutTLS)
	eventually(t, "the consumer, which is told nothing of TLS, to be refused", client, failsAt(proxyless.StageEndpoint))
	withManifest(t, l, mutual(strictNamespace, "labelled"))
	expectEncrypted(t, p, client, true)
	withManifest(t, l, peerAuthentication(strictNamespace, "labelled", "mtls: {mode: DISABLE}")+tlsRule(strictNamespace, "labelled", "{mode: DISABLE}"))
	expectEncrypted(t, p, client, false)
}

// TestPolicyOutlivesReadiness starts a provider whose policy is there before
// it, and lets its pod turn not ready: istiod then knows nothing of the pod, and
// plain text is refused still.
func TestPolicyOutlivesReadiness(t *testing.T) { eachView(t, testPolicyOutlivesReadiness) }

func testPolicyOutlivesReadiness(t *testing.T) {
	l := suite.Lab(t)
	must(t, l.Namespace(soon(t), strictNamespace))
	withManifest(t, l, service(strictNamespace, "early", "early", grpcPort)+strict(strictNamespace, "early"))
	m := joinConsumer(t, l, strictNamespace)
	client := refer(t, m, "early")
	p := startProvider(t, l, strictNamespace, "early", map[string]string{"app": "early"})
	plain := bareClient(dialPlain(t, address(p.Workload)))
	eventually(t, "the provider to refuse", plain, refusedWithoutTLS)

	must(t, p.SetReady(soon(t), false))
	eventually(t, "the pod to be no endpoint", client, failsAt(proxyless.StageEndpoint))
	received := p.received.Load()
	for range 20 {
		if _, err := greet(within(t, 10*time.Second), plain); refusedWithoutTLS("", err) != nil {
			t.Fatalf("called directly, the provider said %v", err)
		}
	}
	if p.received.Load() != received {
		t.Error("a call that was refused reached the implementation")
	}
	removeManifest(t, l, strict(strictNamespace, "early"))
	must(t, p.SetReady(soon(t), true))
	eventually(t, "the provider to serve", client, answered)
}

// TestMutualTLSDemanded calls a Service whose DestinationRule demands the
// mesh's TLS, of a pod that does not speak it: the call fails, and not a byte is
// sent in plain text.
func TestMutualTLSDemanded(t *testing.T) { eachView(t, testMutualTLSDemanded) }

func testMutualTLSDemanded(t *testing.T) {
	l := suite.Lab(t)
	w := addWorkload(t, l, strictNamespace, "demanding", map[string]string{"app": "demanding"})
	heard := firstBytes(t, w)
	must(t, w.SetReady(soon(t), true))
	withManifest(t, l, service(strictNamespace, "demanding", "demanding", grpcPort)+mutual(strictNamespace, "demanding"))
	catchUp(t, l)
	client := refer(t, joinConsumer(t, l, strictNamespace), "demanding")
	eventually(t, "the call to be refused", client, failsAt(proxyless.StageEndpoint))
	const handshake = 0x16
	for _, b := range heard() {
		if b != handshake {
			t.Errorf("a connection began with byte %#x, which is not TLS", b)
		}
	}
	if len(heard()) == 0 {
		t.Error("nobody connected")
	}
}

// firstBytes listens on the workload's port and tells what each connection
// began with. It closes them.
func firstBytes(t testing.TB, w *lab.Workload) (heard func() []byte) {
	t.Helper()
	var mu sync.Mutex
	var bytes []byte
	lis := listen(t, w)
	go func() { // ends with the listener
		for {
			conn, err := lis.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			var first [1]byte
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(conn, first[:]); err == nil {
				mu.Lock()
				bytes = append(bytes, first[0])
				mu.Unlock()
			}
			conn.Close()
		}
	}()
	return func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return bytes
	}
}

// TestIngressWithoutCapture takes a port out of the listener that governs all
// others, by a Sidecar's ingress with the captureMode NONE: istiod gives it one
// of its own, and what a PeerAuthentication says of the port is in that alone.
func TestIngressWithoutCapture(t *testing.T) {
	l := suite.Lab(t)
	for name, bind := range map[string]string{"bound": "the pod's address", "unbound": ""} {
		t.Run(name, func(t *testing.T) {
			p := startProvider(t, l, strictNamespace, name, map[string]string{"app": name})
			if bind != "" {
				bind = "bind: " + p.IP.String() + ", "
			}
			withManifest(t, l, service(strictNamespace, name, name, grpcPort)+fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  workloadSelector: {labels: {app: %[2]s}}
  ingress:
  - {port: {number: %[3]d, protocol: GRPC, name: grpc-tri}, %[4]scaptureMode: NONE, defaultEndpoint: "127.0.0.1:60052"}
`, strictNamespace, name, servicePort, bind))
			catchUp(t, l)
			plain := bareClient(dialPlain(t, address(p.Workload)))
			eventually(t, "the provider to serve plain text", plain, answered)
			withManifest(t, l, peerAuthentication(strictNamespace, name, fmt.Sprintf("mtls: {mode: PERMISSIVE}, portLevelMtls: {%d: {mode: STRICT}}", servicePort)))
			eventually(t, "the provider to refuse plain text", plain, refusedWithoutTLS)
		})
	}
}
