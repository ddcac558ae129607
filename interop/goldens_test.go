package interop

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
)

// goldenDir is where the root package's tests find istiod's answers.
const goldenDir = "../testdata/istiod"

var updateGoldens = flag.Bool("update-goldens", false, "write what istiod answers to "+goldenDir+" (read the difference before committing it)")

// golden is one question to istiod whose answer is kept.
type golden struct {
	file    string // without .binpb
	asker   string // the pod that asks
	typeURL string
	names   []string
	about   string
}

var goldens = []golden{
	{"lds-host-port", "consumer", listenerType, []string{"dubbo-samples-xds-provider:50052"}, "a headless Service by its short name and port"},
	{"lds-fqdn-port", "consumer", listenerType, []string{fqdn("dubbo-samples-xds-provider") + ":50052"}, "the same by its full name"},
	{"lds-portless-one-port", "consumer", listenerType, []string{"dubbo-samples-xds-provider"}, "a name without a port, one port: answered as name:port"},
	{"lds-portless-two-ports", "consumer", listenerType, []string{"two-ports"}, "a name without a port, two ports: one listener for each"},
	{"lds-portless-fqdn", "consumer", listenerType, []string{fqdn("two-ports")}, "the same by its full name"},
	{"lds-tcp-named", "consumer", listenerType, []string{"tcp-named:50052"}, "a port named tcp-tri: a listener like any other"},
	{"lds-service-entry", "consumer", listenerType, []string{"spread.example.com:50052"}, "a ServiceEntry's host"},
	{"lds-several", "consumer", listenerType, []string{"routed:50052", "nobody:50052", "two-ports:50053"}, "three names of which one is unknown and left out"},
	{"lds-unknown", "consumer", listenerType, []string{"nobody:50052"}, "an unknown name alone: an answer without resources"},
	{"rds-default", "consumer", routeType, []string{outbound("50052", "", "dubbo-samples-xds-provider")}, "a headless Service's single default route"},
	{"rds-cluster-ip", "consumer", routeType, []string{outbound("50052", "", "two-ports")}, "the same with a cluster address among the domains"},
	{"rds-tcp-named", "consumer", routeType, []string{outbound("50052", "", "tcp-named")}, "a port named tcp-tri: no virtual host"},
	{"rds-bare-named", "consumer", routeType, []string{outbound("50052", "", "bare-named")}, "a port named tri, which Istio sniffs: routes as usual"},
	{"rds-routed", "consumer", routeType, []string{outbound("50052", "", "routed")}, "a VirtualService: header matches (exact, regex, without), path, weights, timeouts, retries, hash policy"},
	{"rds-service-entry", "consumer", routeType, []string{"outbound|50052||spread.example.com"}, "a ServiceEntry's route"},
	{"rds-unknown", "consumer", routeType, []string{outbound("50052", "", "nobody")}, "an unknown host: a route configuration without virtual hosts"},
	{"cds-default", "consumer", clusterType, []string{outbound("50052", "", "dubbo-samples-xds-provider")}, "a headless Service's cluster"},
	{"cds-subsets", "consumer", clusterType, []string{outbound("50052", "", "routed"), outbound("50052", "v1", "routed"), outbound("50052", "v2", "routed")}, "a DestinationRule: subsets, request limit, ring hash on v2"},
	{"cds-mutual-tls", "consumer", clusterType, []string{outbound("50052", "", "secured")}, "a DestinationRule with ISTIO_MUTUAL and outlier detection (which is not sent)"},
	{"cds-least-request", "consumer", clusterType, []string{"outbound|50052||spread.example.com"}, "a ServiceEntry's cluster with LEAST_REQUEST"},
	{"cds-unknown", "consumer", clusterType, []string{outbound("50052", "", "nobody")}, "an unknown cluster: an answer without resources"},
	{"eds-two", "consumer", endpointType, []string{outbound("50052", "", "dubbo-samples-xds-provider")}, "two endpoints"},
	{"eds-subsets", "consumer", endpointType, []string{outbound("50052", "v1", "routed"), outbound("50052", "v2", "routed")}, "one endpoint in each of two subsets"},
	{"eds-mutual-tls", "consumer", endpointType, []string{outbound("50052", "", "secured")}, "an endpoint with tlsMode istio in its metadata"},
	{"eds-unhealthy", "consumer", endpointType, []string{outbound("50052", "", "ailing")}, "two endpoints of which one is UNHEALTHY: its pod is not ready"},
	{"eds-localities", "consumer", endpointType, []string{"outbound|50052||spread.example.com"}, "a ServiceEntry: weights, three localities with priorities, an IPv6 address on a port of its own"},
	{"eds-deserted", "consumer", endpointType, []string{outbound("50052", "", "deserted")}, "a Service that selects no pod: an assignment without endpoints"},
	{"eds-unknown", "consumer", endpointType, []string{outbound("50052", "", "nobody")}, "an unknown cluster: an assignment without endpoints as well"},
	{"inbound-plain", "provider-1", listenerType, []string{"xds.istio.io/grpc/lds/inbound/10.244.0.201:50052"}, "the server side of a pod behind a Service: one plain chain"},
	{"inbound-any-address", "provider-1", listenerType, []string{"xds.istio.io/grpc/lds/inbound/0.0.0.0:50052"}, "the same asked for by 0.0.0.0"},
	{"inbound-strict", "secured-1", listenerType, []string{"xds.istio.io/grpc/lds/inbound/10.244.0.203:50052"}, "STRICT mutual TLS and an AuthorizationPolicy: a TLS chain with an RBAC filter"},
	{"inbound-nobody", "consumer", listenerType, []string{"xds.istio.io/grpc/lds/inbound/10.244.0.250:50052"}, "the server side of an address behind no Service: an answer without resources"},
}

// TestGoldens holds the answers in testdata/istiod, from which the root
// package's decoders are tested, to what istiod answers today.
func TestGoldens(t *testing.T) {
	l := mesh(t)
	for _, g := range goldens {
		t.Run(g.file, func(t *testing.T) {
			a := plainADS(t, l, g.asker).ask(t, g.typeURL, g.names...)
			if a == nil || a.err != nil {
				t.Fatalf("istiod's answer: %+v", a)
			}
			g.keep(t, a.raw, &discoveryv3.DiscoveryResponse{})
		})
	}
}

// keep writes the answer, or compares it with the one that was written. blank is
// an empty message of its type.
func (g golden) keep(t *testing.T, raw []byte, blank proto.Message) {
	t.Helper()
	path := filepath.Join(goldenDir, g.file+".binpb")
	if *updateGoldens {
		write(t, path, raw)
		return
	}
	kept, err := os.ReadFile(path)
	must(t, err)
	if was, is := unpacked(t, kept, blank), unpacked(t, raw, blank); was != is {
		t.Errorf("istiod answers differently today (-update-goldens keeps the new answer)\n%s", firstDifference(was, is))
	}
}

// allGoldens are the goldens of all meshes.
func allGoldens() []golden { return slices.Concat(goldens, fullGoldens, deltaGoldens, secureGoldens) }

// TestGoldensAreAllListed finds files that no refresh would touch, and holds
// the README to the list.
func TestGoldensAreAllListed(t *testing.T) {
	readme := filepath.Join(goldenDir, "README.md")
	if *updateGoldens {
		write(t, readme, goldenReadme(t))
	}
	if readFile(t, readme) != string(goldenReadme(t)) {
		t.Errorf("%s is not what the list says", readme)
	}
	files, err := filepath.Glob(filepath.Join(goldenDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".binpb")
		known := name == "README.md" || slices.ContainsFunc(allGoldens(), func(g golden) bool { return g.file == name })
		if !known {
			t.Errorf("%s is asked for by no test", file)
		}
	}
}

// readable is unpacked for an answer of the state of the world.
func readable(t testing.TB, raw []byte) string {
	t.Helper()
	return unpacked(t, raw, &discoveryv3.DiscoveryResponse{})
}

func goldenReadme(t testing.TB) []byte {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `# Answers of a real istiod

Each file is one DiscoveryResponse of istiod (%s) as it came over the
wire, asked for in the lean view (GENERATOR=grpc) over the mesh of
interop/testdata/mesh.yaml, or, where the file's name begins with full-, in the
full view that a sidecar gets, over interop/testdata/full.yaml; full-delta- are
DeltaDiscoveryResponses; secure- and full-secure- are over
interop/testdata/secure.yaml. Written by

    cd interop && go test -run Goldens -update-goldens .

which also compares them with what istiod answers, when run without the switch.
The names are as in that manifest; short ones are asked for from namespace %s.

| file | asked by | names | what it is |
|---|---|---|---|
`, istioVersion(t), demo)
	for _, g := range allGoldens() {
		names := "all"
		if len(g.names) > 0 {
			names = "`" + strings.Join(g.names, "` `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", g.file, g.asker, strings.ReplaceAll(names, "|", `\|`), g.about)
	}
	return []byte(b.String())
}

// istioVersion is the one pinned in tools/istiod.
func istioVersion(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("tools/istiod/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "istio.io/istio v")
	return "v" + strings.Fields(rest)[0]
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
