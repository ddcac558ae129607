package interop

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/protobuf/types/known/structpb"
)

// fullDemo is the namespace whose answers in the full view are kept.
const fullDemo = "full"

//go:embed testdata/full.yaml
var fullManifest string

// fullPods are the pods of testdata/full.yaml, one for each way of letting
// calls in. Their streams ask under their own addresses.
var fullPods = []lab.WorkloadSpec{
	{Namespace: fullDemo, Name: "plain-1", IP: "10.244.0.206", Labels: map[string]string{"app": "plain", "version": "v1"}},
	{Namespace: fullDemo, Name: "permissive-1", IP: "10.244.0.207", Labels: map[string]string{"app": "permissive", "security.istio.io/tlsMode": "istio"}},
	{Namespace: fullDemo, Name: "strict-1", IP: "10.244.0.208", Labels: map[string]string{"app": "strict", "security.istio.io/tlsMode": "istio"}},
	{Namespace: fullDemo, Name: "guarded-1", IP: "10.244.0.209", Labels: map[string]string{"app": "guarded"}},
	{Namespace: fullDemo, Name: "disabled-1", IP: "10.244.0.210", Labels: map[string]string{"app": "disabled"}},
}

// fullCluster names a cluster of the namespace.
func fullCluster(subset, service string) string {
	return "outbound|50052|" + subset + "|" + service + "." + fullDemo + ".svc.cluster.local"
}

// fullGoldens are the questions of the full view. No names is the wildcard.
var fullGoldens = []golden{
	{"full-lds", "consumer", listenerType, nil, "all listeners of a consumer"},
	{"full-cds", "consumer", clusterType, nil, "all clusters, with those of subsets"},
	{"full-rds", "consumer", routeType, []string{"50052", "50055", "50056", "50061"}, "routes by port; a VirtualService with everything that there is"},
	{"full-rds-unknown", "consumer", routeType, []string{"50099"}, "a port of no Service: only what becomes of other hosts"},
	{"full-eds", "consumer", endpointType, []string{fullCluster("", "plain"), fullCluster("", "strict"), fullCluster("distribute", "plain"), fullCluster("passthrough", "plain"), "outbound|50061||static.example.com", "outbound|50055||sticky.full.svc.cluster.local"}, "endpoints of clusters of several kinds"},
	{"full-eds-headless", "consumer", endpointType, []string{fullCluster("", "guarded")}, "a headless Service, whose cluster is ORIGINAL_DST: answered"},
	{"full-eds-dns", "consumer", endpointType, []string{"outbound|50061||dns.example.com"}, "a STRICT_DNS cluster: an assignment without endpoints"},
	{"full-registry-lds", "registry", listenerType, nil, "listeners under REGISTRY_ONLY"},
	{"full-registry-rds", "registry", routeType, []string{"50061"}, "routes under REGISTRY_ONLY"},
	{"full-narrow-cds", "narrow", clusterType, nil, "clusters where a Sidecar lets two hosts through"},
	{"full-inbound-plain", "plain-1", listenerType, nil, "a provider without PeerAuthentication: virtualInbound takes plain text and TLS"},
	{"full-inbound-permissive", "permissive-1", listenerType, nil, "PERMISSIVE"},
	{"full-inbound-strict", "strict-1", listenerType, nil, "STRICT"},
	{"full-inbound-disabled", "disabled-1", listenerType, nil, "DISABLE"},
	{"full-inbound-guarded", "guarded-1", listenerType, nil, "one AuthorizationPolicy that allows and one that denies"},
}

// deltaGoldens are asked for by the delta protocol.
var deltaGoldens = []golden{
	{"full-delta-lds", "consumer", listenerType, []string{"*"}, "the delta protocol: all listeners"},
	{"full-delta-cds", "narrow", clusterType, []string{"*"}, "the same: all clusters of a Sidecar that lets two hosts through"},
	{"full-delta-rds", "consumer", routeType, []string{"50055"}, "the same: routes"},
	{"full-delta-eds", "consumer", endpointType, []string{fullCluster("", "plain"), fullCluster("", "unknown")}, "the same: endpoints of a cluster and of an unknown one"},
}

// fullNode is a node as a sidecar presents itself.
func fullNode(ip, pod, namespace string, labels map[string]string) *corev3.Node {
	node := leanNode(ip, pod, namespace)
	delete(node.Metadata.Fields, "GENERATOR")
	return labelled(node, labels)
}

// labelled adds the labels of its pod to a node.
func labelled(node *corev3.Node, labels map[string]string) *corev3.Node {
	if len(labels) > 0 {
		fields := map[string]*structpb.Value{}
		for key, value := range labels {
			fields[key] = structpb.NewStringValue(value)
		}
		node.Metadata.Fields["LABELS"] = structpb.NewStructValue(&structpb.Struct{Fields: fields})
	}
	return node
}

// fullAsker is the node under which a golden's question is asked: a pod, or a
// consumer with the label that a Sidecar of that name selects.
func fullAsker(name string) *corev3.Node {
	for _, pod := range fullPods {
		if pod.Name == name {
			return fullNode(pod.IP, name, fullDemo, pod.Labels)
		}
	}
	var labels map[string]string
	if name != "consumer" {
		labels = map[string]string{"scope": name}
	}
	return fullNode(consumerIP, name, fullDemo, labels)
}

// addPods makes pods known to Kubernetes until the test ends.
func addPods(t *testing.T, l *lab.Lab, pods []lab.WorkloadSpec) {
	t.Helper()
	for _, spec := range pods {
		w, err := l.AddWorkload(within(t, 20*time.Second), spec)
		must(t, err)
		t.Cleanup(func() { w.Remove(context.Background()) })
	}
}

// keepAll asks istiod the questions and holds its answers against what is kept.
func keepAll(t *testing.T, l *lab.Lab, goldens []golden, asker func(name string) *corev3.Node) {
	for _, g := range goldens {
		t.Run(g.file, func(t *testing.T) {
			a := openADS(t, l.Istiod.Plain(), credential{}, asker(g.asker)).ask(t, g.typeURL, g.names...)
			if a == nil || a.err != nil {
				t.Fatalf("istiod's answer: %+v", a)
			}
			g.keep(t, a.raw, &discoveryv3.DiscoveryResponse{})
		})
	}
}

// TestFullGoldens is TestGoldens for the full view.
func TestFullGoldens(t *testing.T) {
	l := suite.Lab(t)
	withManifest(t, l, fullManifest)
	addPods(t, l, fullPods)
	must(t, lab.WaitFor(within(t, 30*time.Second), "istiod to know testdata/full.yaml", func(context.Context) error { return fullSettled(t, l) }))
	keepAll(t, l, fullGoldens, fullAsker)
	for _, g := range deltaGoldens {
		t.Run(g.file, func(t *testing.T) {
			s := openDelta(t, l.Istiod.Plain(), credential{}, fullAsker(g.asker))
			s.send(t, &discoveryv3.DeltaDiscoveryRequest{TypeUrl: g.typeURL, ResourceNamesSubscribe: g.names})
			a := s.next(t, answerLimit)
			if a == nil || a.err != nil {
				t.Fatalf("istiod's answer: %+v", a)
			}
			g.keep(t, a.raw, &discoveryv3.DeltaDiscoveryResponse{})
		})
	}
}

// fullSettled says what istiod does not know yet of testdata/full.yaml.
func fullSettled(t testing.TB, l *lab.Lab) error {
	signs := []struct{ asker, typeURL, name, sign string }{
		{"consumer", endpointType, fullCluster("v1", "plain"), "10.244.0.206"},
		{"consumer", endpointType, fullCluster("", "strict"), "10.244.0.208"},
		{"consumer", endpointType, fullCluster("", "guarded"), "10.244.0.209"},
		{"consumer", endpointType, "outbound|50061||static.example.com", "10.9.9.8"},
		{"consumer", routeType, "50052", "uri-prefix"},
		{"registry", routeType, "50052", "block_all"},
		{"guarded-1", listenerType, "", "policy[deny]"},
		{"guarded-1", listenerType, "", "policy[allow]"},
		{"permissive-1", listenerType, "", "0.0.0.0_50052"},
		{"disabled-1", listenerType, "", "inbound|7000||"},
	}
	for _, s := range signs {
		var names []string
		if s.name != "" {
			names = []string{s.name}
		}
		a := openADS(t, l.Istiod.Plain(), credential{}, fullAsker(s.asker)).ask(t, s.typeURL, names...)
		if a == nil || a.err != nil || !strings.Contains(string(a.raw), s.sign) {
			return fmt.Errorf("%s is not in the answer for %q to %s", s.sign, s.name, s.asker)
		}
	}
	return nil
}
