package interop

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
)

// demo is the namespace of the mesh that all tests look at.
const demo = "dubbo-demo"

//go:embed testdata/mesh.yaml
var meshManifest string

// pods are those that the test process plays: two providers, one that declares
// the mesh's TLS, and two of which the second is not ready.
var pods = []lab.WorkloadSpec{
	{Namespace: demo, Name: "provider-1", IP: "10.244.0.201", Labels: map[string]string{"demo": "provider", "version": "v1"}},
	{Namespace: demo, Name: "provider-2", IP: "10.244.0.202", Labels: map[string]string{"demo": "provider", "version": "v2"}},
	{Namespace: demo, Name: "secured-1", IP: "10.244.0.203", Labels: map[string]string{"demo": "secured", "security.istio.io/tlsMode": "istio"}},
	{Namespace: demo, Name: "ailing-1", IP: "10.244.0.204", Labels: map[string]string{"demo": "ailing"}},
	{Namespace: demo, Name: "ailing-2", IP: "10.244.0.205", Labels: map[string]string{"demo": "ailing"}, NotReady: true},
}

// podIPs are the addresses under which streams are opened.
var podIPs = map[string]string{
	"consumer":   "10.244.0.250", // behind no Service
	"provider-1": "10.244.0.201",
	"secured-1":  "10.244.0.203",
}

var meshOnce struct {
	sync.Once
	err error
}

// mesh is the lab with testdata/mesh.yaml and the pods in it. Tests that change
// anything do so in a namespace of their own.
func mesh(t testing.TB) *lab.Lab {
	t.Helper()
	l := suite.Lab(t)
	meshOnce.Do(func() {
		ctx := within(t, 30*time.Second)
		if meshOnce.err = l.Apply(ctx, meshManifest); meshOnce.err != nil {
			return
		}
		for _, spec := range pods {
			if _, meshOnce.err = l.AddWorkload(ctx, spec); meshOnce.err != nil {
				return
			}
		}
		meshOnce.err = lab.WaitFor(ctx, "istiod to know the whole mesh", func(context.Context) error { return settled(t, l) })
	})
	if meshOnce.err != nil {
		t.Fatal(meshOnce.err)
	}
	return l
}

// settled says what istiod does not know yet of testdata/mesh.yaml.
func settled(t testing.TB, l *lab.Lab) error {
	signs := []struct{ pod, typeURL, name, sign string }{
		{"consumer", endpointType, outbound("50052", "", "dubbo-samples-xds-provider"), "10.244.0.201"},
		{"consumer", endpointType, outbound("50052", "", "dubbo-samples-xds-provider"), "10.244.0.202"},
		{"consumer", endpointType, outbound("50052", "v2", "routed"), "10.244.0.202"},
		{"consumer", endpointType, outbound("50052", "", "secured"), "10.244.0.203"},
		{"consumer", endpointType, outbound("50052", "", "ailing"), "10.244.0.205"},
		{"consumer", endpointType, "outbound|50052||spread.example.com", "10.244.0.211"},
		{"consumer", routeType, outbound("50052", "", "routed"), "canary"},
		{"consumer", clusterType, outbound("50052", "", "secured"), "UpstreamTlsContext"},
		{"secured-1", listenerType, "xds.istio.io/grpc/lds/inbound/10.244.0.203:50052", "filters.http.rbac"},
		{"secured-1", listenerType, "xds.istio.io/grpc/lds/inbound/10.244.0.203:50052", "inbound-mtls"},
	}
	for _, s := range signs {
		a := plainADS(t, l, s.pod).ask(t, s.typeURL, s.name)
		if a == nil || a.err != nil || !bytes.Contains(a.raw, []byte(s.sign)) {
			return fmt.Errorf("%s is not in the answer for %s", s.sign, s.name)
		}
	}
	return nil
}

// plainADS opens a stream on 15010 as the given pod.
func plainADS(t testing.TB, l *lab.Lab, pod string) *adsStream {
	t.Helper()
	return openADS(t, l.Istiod.Plain(), credential{}, leanNode(podIPs[pod], pod, demo))
}

// fqdn is a Service's full name in the mesh.
func fqdn(service string) string { return service + "." + demo + ".svc.cluster.local" }

// outbound names a cluster or a route.
func outbound(port, subset, service string) string {
	return "outbound|" + port + "|" + subset + "|" + fqdn(service)
}
