package interop

import (
	"strings"
	"time"
)

// hostRows: what is a host, and who may call it.
var hostRows = []row{
	{name: "headless", about: "headless Service", field: "Service: clusterIP: None", bare: true,
		yaml: `---
apiVersion: v1
kind: Service
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  clusterIP: None
  selector: {app: governed}
  ports: [{name: grpc-tri, port: 50052}]
`,
		check: shares(300, spec{}, bounds{"v1": {40, 180}, "v2": {40, 180}, "v3": {40, 180}})},
	{name: "entry-static", about: "endpoints by address", field: "ServiceEntry: resolution: STATIC", bare: true,
		host:  "entry-static.example.com",
		yaml:  entry("entry-static.example.com", "STATIC", "{address: IP_v1}", "{address: IP_v2}"),
		check: shares(60, spec{}, bounds{"v1": {10, 50}, "v2": {10, 50}})},
	{name: "entry-dns", about: "endpoints by name", field: "ServiceEntry: resolution: DNS", bare: true, lean: "istiod sends a cluster without addresses",
		host:  "entry-dns.example.com",
		yaml:  entry("entry-dns.example.com", "DNS", "{address: v1.backends.test}", "{address: v2.backends.test}"),
		check: shares(60, spec{}, bounds{"v1": {10, 50}, "v2": {10, 50}})},
	{name: "entry-dns-round-robin", about: "the host's own name", field: "ServiceEntry: resolution: DNS_ROUND_ROBIN", bare: true, lean: "istiod sends a cluster without addresses",
		host:  "v3.backends.test",
		yaml:  entry("v3.backends.test", "DNS_ROUND_ROBIN"),
		check: shares(20, spec{}, bounds{"v3": {20, 20}})},
	{name: "entry-none", about: "whatever the host's name resolves to", field: "ServiceEntry: resolution: NONE", bare: true, lean: "istiod sends a cluster without addresses",
		host:  "v2.backends.test",
		yaml:  entry("v2.backends.test", "NONE"),
		check: shares(20, spec{}, bounds{"v2": {20, 20}})},
	{name: "entry-wildcard", about: "any name of a domain", field: "ServiceEntry: hosts: [\"*.domain\"]", bare: true, lean: "istiod sends nothing for a name of the domain",
		host:  "v1.wild.test",
		yaml:  entry("*.wild.test", "NONE"),
		check: shares(20, spec{}, bounds{"v1": {20, 20}})},
	{name: "allow-any", about: "a host that the mesh does not know is dialled by its name", field: "outboundTrafficPolicy.mode: ALLOW_ANY", bare: true, lean: "istiod sends nothing for unknown hosts",
		host:  "v1.outside.test",
		check: shares(20, spec{}, bounds{"v1": {20, 20}})},
	{name: "registry-only", about: "a host that the mesh does not know is refused, with the reason", field: "outboundTrafficPolicy.mode: REGISTRY_ONLY", bare: true, lean: "istiod sends nothing for unknown hosts",
		host: "v1.outside.test", labels: map[string]string{"scope": "registry"},
		yaml: `---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: registry, namespace: NAMESPACE}
spec:
  workloadSelector: {labels: {scope: registry}}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ["*/*"]}]
`,
		check: refusedBecause("REGISTRY_ONLY")},
	{name: "sidecar-egress", about: "a host that the Sidecar lets through", field: "Sidecar: egress.hosts",
		labels: map[string]string{"scope": "narrow"},
		yaml: `---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: NAMESPACE}
spec:
  workloadSelector: {labels: {scope: narrow}}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}
  egress: [{hosts: ["./sidecar-egress.NAMESPACE.svc.cluster.local"]}]
`,
		check: shares(60, spec{}, bounds{"v1": {5, 50}, "v2": {5, 50}, "v3": {5, 50}})},
	{name: "sidecar-egress-other", about: "a host that the Sidecar leaves out is not there", field: "Sidecar: egress.hosts",
		labels: map[string]string{"scope": "narrow"},
		check: func(s *scene) error {
			if got, err := s.call(spec{limit: 20 * time.Second}); err == nil {
				return unseenf("the call was answered by %s", got.Host)
			}
			return nil
		}},
	{name: "external-name", about: "another name for a Service", field: "Service: type: ExternalName",
		host: "external-name-alias." + governed + ".svc.cluster.local",
		yaml: `---
apiVersion: v1
kind: Service
metadata: {name: external-name-alias, namespace: NAMESPACE}
spec:
  type: ExternalName
  externalName: external-name.NAMESPACE.svc.cluster.local
  ports: [{name: grpc-tri, port: 50052}]
`,
		check: shares(60, spec{}, bounds{"v1": {5, 50}, "v2": {5, 50}, "v3": {5, 50}})},
	{name: "gateway-http", about: "HTTPRoute with a Service as parent: header match and weights", field: "Gateway API: HTTPRoute",
		yaml: splitServices("gateway-http") + `---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  parentRefs: [{group: "", kind: Service, name: HOST, port: 50052}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /conformance.Echo}, headers: [{name: x-user, value: alice}]}]
    backendRefs: [{name: HOST-v2, port: 50052}]
  - matches: [{path: {type: PathPrefix, value: /conformance.Echo}}]
    backendRefs: [{name: HOST-v1, port: 50052, weight: 3}, {name: HOST-v3, port: 50052, weight: 1}]
`,
		check: func(s *scene) error {
			if err := goesTo(s, withHeader("x-user", "alice"), "v2"); err != nil {
				return err
			}
			return shares(400, spec{}, bounds{"v1": {257, 343}, "v3": {57, 143}})(s)
		}},
	{name: "gateway-grpc", about: "GRPCRoute with a Service as parent: method match", field: "Gateway API: GRPCRoute",
		yaml: splitServices("gateway-grpc") + `---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  parentRefs: [{group: "", kind: Service, name: HOST, port: 50052}]
  rules:
  - matches: [{method: {service: conformance.Echo, method: Hit}}]
    backendRefs: [{name: HOST-v2, port: 50052}]
  - backendRefs: [{name: HOST-v1, port: 50052}]
`,
		check: func(s *scene) error {
			if err := goesTo(s, spec{method: "/conformance.Echo/Hit"}, "v2"); err != nil {
				return err
			}
			return goesTo(s, spec{}, "v1")
		}},
}

// splitServices are a Service for each version, as the Gateway API has no subsets.
func splitServices(name string) string {
	text := ""
	for _, version := range []string{"v1", "v2", "v3"} {
		text += strings.Replace(service(governed, name+"-"+version, "governed", grpcPort), "selector: {", "selector: {version: "+version+", ", 1)
	}
	return text
}

// refusedBecause makes a call that must fail with the reason.
func refusedBecause(reason string) func(*scene) error {
	return func(s *scene) error {
		got, err := s.call(spec{limit: 20 * time.Second})
		switch {
		case err == nil:
			return unseenf("the call was answered by %s", got.Host)
		case !strings.Contains(err.Error(), reason):
			return err
		}
		return nil
	}
}

func init() { inPart("Hosts: ServiceEntry, Sidecar, Gateway API", hostRows) }
