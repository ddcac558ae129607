package interop

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	"github.com/proxyless/proxyless/interop/lab"
)

// secureDemo is the namespace whose answers about security are kept.
const secureDemo = "secure"

//go:embed testdata/secure.yaml
var secureManifest string

var securePods = []lab.WorkloadSpec{
	{Namespace: secureDemo, Name: "ported-1", IP: "10.244.0.206", Labels: map[string]string{"app": "ported", tlsMode: "istio"}},
	{Namespace: secureDemo, Name: "ruled-1", IP: "10.244.0.207", Labels: map[string]string{"app": "ruled", tlsMode: "istio"}},
	{Namespace: secureDemo, Name: "denying-1", IP: "10.244.0.208", Labels: map[string]string{"app": "denying"}},
	{Namespace: secureDemo, Name: "nothing-1", IP: "10.244.0.209", Labels: map[string]string{"app": "nothing"}},
	{Namespace: secureDemo, Name: "foreign-1", IP: "10.244.0.210", Labels: map[string]string{"app": "foreign"}},
	{Namespace: secureDemo, Name: "mixed-1", IP: "10.244.0.200", Labels: map[string]string{"app": "mixed", tlsMode: "istio"}, Account: "alice"},
	{Namespace: secureDemo, Name: "mixed-2", IP: "10.244.0.254", Labels: map[string]string{"app": "mixed"}, Account: "bob"},
}

// secureCluster names a cluster of the namespace.
func secureCluster(service string) string {
	return "outbound|50052||" + service + "." + secureDemo + ".svc.cluster.local"
}

// secureGoldens are the questions about security; those of the lean view are
// asked by askers with "lean-" before their names.
var secureGoldens = []golden{
	{"full-secure-cds", "secret", clusterType, nil, "clusters with TLS of every mode, automatic and by DestinationRules"},
	{"full-secure-eds", "secret", endpointType, []string{secureCluster("auto"), secureCluster("disabled"), "outbound|50061||named.example.com"}, "endpoints with and without the mesh's TLS; DISABLE takes the mark away"},
	{"full-secure-inbound-ported", "ported-1", listenerType, nil, "PeerAuthentication by port"},
	{"full-secure-inbound-ruled", "ruled-1", listenerType, nil, "STRICT; tokens of two issuers; policies that allow, deny, audit and are only tried, with everything that there is"},
	{"full-secure-inbound-denying", "denying-1", listenerType, nil, "a policy that denies everything"},
	{"full-secure-inbound-nothing", "nothing-1", listenerType, nil, "a policy that allows nothing"},
	{"full-secure-inbound-foreign", "foreign-1", listenerType, nil, "a policy of an authorizer that is not there"},
	{"secure-cds", "lean-secret", clusterType, []string{secureCluster("auto"), secureCluster("simple"), secureCluster("istio"), secureCluster("istio-names")}, "the lean view: nothing but ISTIO_MUTUAL is sent"},
	{"secure-inbound-ruled", "lean-ruled-1", listenerType, []string{"xds.istio.io/grpc/lds/inbound/10.244.0.207:50052"}, "the lean view of the policies: no tokens, no audit, and what is only tried is in force"},
	{"secure-inbound-nothing", "lean-nothing-1", listenerType, []string{"xds.istio.io/grpc/lds/inbound/10.244.0.209:50052"}, "the lean view of a policy that allows nothing: no filter at all"},
}

// secureAsker is the node under which a golden's question is asked.
func secureAsker(name string) *corev3.Node {
	short, lean := strings.CutPrefix(name, "lean-")
	ip, labels := consumerIP, map[string]string{"scope": short}
	for _, pod := range securePods {
		if pod.Name == short {
			ip, labels = pod.IP, pod.Labels
		}
	}
	if lean {
		return labelled(leanNode(ip, short, secureDemo), labels)
	}
	return fullNode(ip, short, secureDemo, labels)
}

// TestSecureGoldens is TestGoldens for what is about security.
func TestSecureGoldens(t *testing.T) {
	l := suite.Lab(t)
	withManifest(t, l, secureManifest)
	addPods(t, l, securePods)
	must(t, lab.WaitFor(within(t, 30*time.Second), "istiod to know testdata/secure.yaml", func(context.Context) error { return secureSettled(t, l) }))
	keepAll(t, l, secureGoldens, secureAsker)
}

// secureSettled says what istiod does not know yet of testdata/secure.yaml.
func secureSettled(t testing.TB, l *lab.Lab) error {
	signs := []struct {
		asker, typeURL, name, sign string
		times                      int // at least; 0 is once
	}{
		{"secret", endpointType, secureCluster("auto"), "10.244.0.200", 0},
		{"secret", endpointType, secureCluster("auto"), "10.244.0.254", 0},
		{"secret", clusterType, "", "spiffe://cluster.local/ns/secure/sa/bob", 5}, // of a pod: istiod learns of it apart from its endpoint
		{"lean-secret", clusterType, secureCluster("istio"), "spiffe://cluster.local/ns/secure/sa/bob", 0},
		{"secret", clusterType, "", "kubernetes://some-secret", 0},
		{"secret", clusterType, "", "/etc/certs/crl.pem", 0},
		{"secret", clusterType, "", "spiffe://cluster.local/ns/secure/sa/special", 0},
		{"ruled-1", listenerType, "", "policy[tried-allow]", 0},
		{"ruled-1", listenerType, "", "policy[tried-deny]", 0},
		{"ruled-1", listenerType, "", "policy[audit]", 0},
		{"ruled-1", listenerType, "", "policy[deny]", 0},
		{"ruled-1", listenerType, "", "policy[allow]", 0},
		{"ruled-1", listenerType, "", "https://two.example", 0},
		{"denying-1", listenerType, "", "policy[denying]", 0},
		{"nothing-1", listenerType, "", "policy[nothing]", 0},
		{"foreign-1", listenerType, "", "bad-CUSTOM-action", 0},
		{"ported-1", listenerType, "", "0.0.0.0_50052", 0},
	}
	for _, s := range signs {
		var names []string
		if s.name != "" {
			names = []string{s.name}
		}
		a := openADS(t, l.Istiod.Plain(), credential{}, secureAsker(s.asker)).ask(t, s.typeURL, names...)
		if a == nil || a.err != nil || strings.Count(string(a.raw), s.sign) < max(1, s.times) {
			return fmt.Errorf("%s is not in the answer for %q to %s", s.sign, s.name, s.asker)
		}
	}
	return nil
}
