package interop

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc/codes"
)

const envoyNamespace = "sidecars"

// TestEnvoy puts the library on both sides of a real Envoy, which a real istiod
// configures: each takes the other for one of its own kind.
func TestEnvoy(t *testing.T) {
	l := suite.Lab(t)
	p := startPod(t, l, lab.WorkloadSpec{Namespace: envoyNamespace, Name: "provider", Account: "provider",
		Labels: map[string]string{"app": "provider", tlsMode: "istio"}})
	withManifest(t, l, service(envoyNamespace, "provider", "provider", grpcPort))
	s := startSidecar(t, l, envoyNamespace, "provider")
	consumer := joinConsumer(t, l, envoyNamespace, as(t, l, "consumer"))
	client := refer(t, consumer, "sidecar")
	ready(t, consumer)

	t.Run("Envoy calls, PERMISSIVE", func(t *testing.T) {
		eventually(t, "the provider to answer Envoy", s.client, answered)
		expectEncrypted(t, p, s.client, true)
	})
	t.Run("Envoy calls, STRICT", func(t *testing.T) {
		withManifest(t, l, strict(envoyNamespace, "provider"))
		eventually(t, "plain text to be refused", bareClient(dialPlain(t, address(p.Workload))), refusedWithoutTLS)
		eventually(t, "the provider to answer Envoy", s.client, answered)
	})
	t.Run("Envoy calls, and is known", func(t *testing.T) {
		withManifest(t, l, allowing("provider", "cluster.local/ns/sidecars/sa/sidecar"))
		catchUp(t, l)
		eventually(t, "the sidecar to be let in", s.client, answered)
		removeManifest(t, l, allowing("provider", ""))
		withManifest(t, l, allowing("provider", "cluster.local/ns/sidecars/sa/other"))
		eventually(t, "the sidecar to be refused", s.client, coded(codes.PermissionDenied))
	})
	t.Run("Envoy serves, PERMISSIVE", func(t *testing.T) {
		eventually(t, "Envoy to answer", client, answered)
		if s.handshakes(t) == 0 {
			t.Error("Envoy counts no handshake: the call went in plain text")
		}
	})
	t.Run("Envoy serves, STRICT", func(t *testing.T) {
		withManifest(t, l, strict(envoyNamespace, "sidecar"))
		eventually(t, "plain text to be refused", bareClient(dialPlain(t, address(s.Workload))), refusedWithoutTLS)
		eventually(t, "Envoy to answer", client, answered)
	})
	t.Run("Envoy serves, and knows the caller", func(t *testing.T) {
		withManifest(t, l, allowing("sidecar", "cluster.local/ns/sidecars/sa/consumer"))
		eventually(t, "those without a name to be refused", bareClient(dialPlain(t, address(s.Workload))), coded(codes.PermissionDenied))
		eventually(t, "the consumer to be let in", client, answered)
		removeManifest(t, l, allowing("sidecar", ""))
		withManifest(t, l, allowing("sidecar", "cluster.local/ns/sidecars/sa/other"))
		eventually(t, "the consumer to be refused", client, coded(codes.PermissionDenied))
	})
	t.Run("switched under calls", func(t *testing.T) {
		eventually(t, "the provider to answer Envoy", s.client, answered)
		eventually(t, "Envoy to answer", client, answered)
		in, out := drive(t, s.client), drive(t, client)
		for _, mode := range []string{"STRICT", "PERMISSIVE", "STRICT"} {
			for _, app := range []string{"provider", "sidecar"} {
				withManifest(t, l, peerAuthentication(envoyNamespace, app, "mtls: {mode: "+mode+"}"))
			}
			catchUp(t, l)
			time.Sleep(time.Second) // under calls
		}
		in.stop()
		out.stop()
		in.expectNoneLost(t, "of Envoy's")
		out.expectNoneLost(t, "to Envoy")
	})
	t.Run("Envoy calls, DISABLE", func(t *testing.T) {
		withManifest(t, l, peerAuthentication(envoyNamespace, "provider", "mtls: {mode: DISABLE}"))
		expectEncrypted(t, p, s.client, false)
	})
	t.Run("Envoy serves, DISABLE", func(t *testing.T) {
		withManifest(t, l, peerAuthentication(envoyNamespace, "sidecar", "mtls: {mode: DISABLE}"))
		eventually(t, "plain text to be let in", bareClient(dialPlain(t, address(s.Workload))), answered)
		eventually(t, "Envoy to answer", client, answered)
	})
}

// allowing is an AuthorizationPolicy with one principal.
func allowing(app, principal string) string {
	return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, namespace: %s}
spec: {selector: {matchLabels: {app: %[1]s}}, action: ALLOW, rules: [{from: [{source: {principals: ["%[3]s"]}}]}]}
`, app, envoyNamespace, principal)
}

// address is where a pod serves.
func address(w *lab.Workload) string { return fmt.Sprintf("%v:%d", w.IP, servicePort) }

// handshakes is how many Envoy has made as a server.
func (s *sidecar) handshakes(t testing.TB) int {
	t.Helper()
	name := fmt.Sprintf("listener.%v_%d.ssl.handshake", s.IP, servicePort)
	count := 0
	must(t, lab.WaitFor(soon(t), "Envoy's statistics", func(context.Context) error {
		text, err := s.page("/stats?filter=ssl.handshake")
		for line := range strings.Lines(text) {
			if value, found := strings.CutPrefix(line, name+": "); found {
				count, err = strconv.Atoi(strings.TrimSpace(value))
				return err
			}
		}
		return fmt.Errorf("no %s among them, error %w:\n%s", name, err, text)
	}))
	return count
}
