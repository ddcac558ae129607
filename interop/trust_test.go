package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
)

const trustNamespace = "trust"

// TestRootsOfAnotherMesh has istiod name the root of another authority
// (meshConfig.caCertificates): a caller and a provider of it are taken by ours
// while it is named, and neither before nor after. In the full view they are of
// another trust domain, which is an alias of ours; the lean view has no aliases.
func TestRootsOfAnotherMesh(t *testing.T) { eachView(t, testRootsOfAnotherMesh) }

func testRootsOfAnotherMesh(t *testing.T) {
	l := suite.Lab(t)
	elsewhere, err := lab.NewAuthority("elsewhere", nil)
	must(t, err)
	istiod, err := l.AddMesh(within(t, 30*time.Second), meshNaming(), "ISTIO_MULTIROOT_MESH=true")
	must(t, err)
	t.Cleanup(istiod.Kill)
	domain := map[view]string{fullView: "elsewhere.example", leanView: "cluster.local"}[viewOf(t)]
	identity := func(account string) string { return "spiffe://" + domain + "/ns/" + trustNamespace + "/sa/" + account }
	of := func(c *proxyless.Config) { c.ControlPlanes = []string{istiod.Secure()} }
	labels := func(app string) map[string]string { return map[string]string{"app": app, tlsMode: "istio"} }

	// Theirs, which trusts both, behind a Service of ours; and ours, STRICT.
	theirs := forged(t, elsewhere, identity("provider"))
	own := certified(t, l, trustNamespace, "somebody")
	theirs.parts[1] = append(theirs.parts[1], own.roots()...)
	serviceAccount(t, l, trustNamespace, "provider")
	w := addPod(t, l, lab.WorkloadSpec{Namespace: trustNamespace, Name: "theirs", Account: "provider", Labels: labels("theirs"), NotReady: true})
	bareServer(t, fmt.Sprintf("%v:%d", w.IP, servicePort), theirs)
	must(t, w.SetReady(soon(t), true))
	p := startPod(t, l, lab.WorkloadSpec{Namespace: trustNamespace, Name: "ours", Account: "provider", Labels: labels("ours")}, of)
	withManifest(t, l, service(trustNamespace, "theirs", "theirs", grpcPort)+service(trustNamespace, "ours", "ours", grpcPort)+
		mutual(trustNamespace, "theirs")+strict(trustNamespace, "ours"))
	catchUp(t, l)
	m := joinConsumer(t, l, trustNamespace, as(t, l, "consumer"), of)
	client := refer(t, m, "theirs")
	caller := forged(t, elsewhere, identity("caller"))
	call := func() error { // over a connection of its own
		conn := dialTLS(t, address(p.Workload), caller, own.pool(), istioALPN...)
		defer conn.Close()
		return outcome(t, conn, sayHello)
	}
	strangers := func(want string) {
		t.Helper()
		must(t, lab.WaitFor(within(t, 30*time.Second), "the caller from elsewhere to be "+want, func(context.Context) error {
			if err := call(); (err == nil) != (want == "answered") {
				return fmt.Errorf("the call ended with %v", err)
			}
			return nil
		}))
	}

	eventually(t, "the provider from elsewhere to be refused, with the reason", client, refusedSaying("is not trusted", identity("provider")))
	must(t, trusting(1, m, p.mesh))
	strangers("refused")

	must(t, istiod.SetMeshConfig(meshNaming(elsewhere)))
	eventually(t, "the provider from elsewhere to answer", client, answered)
	strangers("answered")
	if got := p.caller.Load(); got == nil || got.ID != identity("caller") || !got.Verified {
		t.Errorf("the handler is told that %+v calls", got)
	}
	if s := m.Identity(); len(s.Roots) != 2 || s.Roots[0].Named || !s.Roots[1].Named || !strings.Contains(s.Roots[1].Subject, "elsewhere") {
		t.Errorf("trusted are %+v", s.Roots)
	}

	must(t, istiod.SetMeshConfig(meshNaming()))
	must(t, lab.WaitFor(within(t, 30*time.Second), "the root to be trusted no more", func(context.Context) error { return trusting(1, m, p.mesh) }))
	strangers("refused")
	late := refer(t, joinConsumer(t, l, trustNamespace, as(t, l, "consumer"), of), "theirs")
	eventually(t, "the provider from elsewhere to be refused again", late, refusedSaying("is not trusted"))
}

// meshNaming is a MeshConfig that names the authorities' roots.
func meshNaming(authorities ...*lab.Authority) string {
	text := "trustDomain: cluster.local\ntrustDomainAliases: [elsewhere.example]\n"
	if len(authorities) > 0 {
		text += "caCertificates:\n"
	}
	for _, a := range authorities {
		text += "- pem: |\n    " + strings.ReplaceAll(strings.TrimSpace(string(a.PEM)), "\n", "\n    ") + "\n"
	}
	return text
}
