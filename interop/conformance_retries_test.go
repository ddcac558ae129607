package interop

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// retryRows: which failures are tried again, how often, and where.
var retryRows = []row{
	retrying("retry-default", "no field: twice, where the call was not served", "", step{Code: codes.Unavailable}, step{Code: codes.Internal}),
	retrying("retry-unavailable", "gRPC status UNAVAILABLE", "unavailable", step{Code: codes.Unavailable}, step{Code: codes.Internal}),
	retrying("retry-cancelled", "gRPC status CANCELLED", "cancelled", step{Code: codes.Canceled}, step{Code: codes.Internal}),
	retrying("retry-deadline", "gRPC status DEADLINE_EXCEEDED", "deadline-exceeded", step{Code: codes.DeadlineExceeded}, step{Code: codes.Internal}),
	retrying("retry-internal", "gRPC status INTERNAL", "internal", step{Code: codes.Internal}, step{Code: codes.Unavailable}),
	retrying("retry-exhausted", "gRPC status RESOURCE_EXHAUSTED", "resource-exhausted", step{Code: codes.ResourceExhausted}, step{Code: codes.Internal}),
	retrying("retry-reset", "the connection breaks", "reset", step{Reset: true}, step{Code: codes.NotFound}),
	retrying("retry-5xx", "5xx, which a broken connection counts as", "5xx", step{Reset: true}, step{Code: codes.NotFound}),
	retrying("retry-gateway-error", "gateway errors, which a broken connection counts as", "gateway-error", step{Reset: true}, step{Code: codes.NotFound}),
	retrying("retry-several", "several conditions", "internal,resource-exhausted", step{Code: codes.ResourceExhausted}, step{Code: codes.Unavailable}),
	{name: "retry-connect-failure", about: "an endpoint that refuses connections costs no call", field: "http.retries.retryOn: connect-failure", bare: true,
		host: "retry-connect-failure.example.com",
		yaml: entry("retry-connect-failure.example.com", "STATIC", "{address: 10.244.0.1}", "{address: IP_v1}"),
		check: func(s *scene) error {
			_, err := s.many(40, spec{})
			return err
		}},
	{name: "retry-attempts", about: "number of further attempts", field: "http.retries.attempts",
		yaml: virtual("- retries: {attempts: 3, retryOn: unavailable}\n  route: [{destination: {host: HOST}}]"),
		check: func(s *scene) error {
			return visitsOf(s, spec{script: script{At: everywhere(step{Code: codes.Unavailable})}}, 4, codes.Unavailable)
		}},
	{name: "retry-none", about: "no retry at all", field: "http.retries.attempts: 0",
		yaml: virtual("- retries: {attempts: 0}\n  route: [{destination: {host: HOST}}]"),
		check: func(s *scene) error {
			return visitsOf(s, spec{script: script{At: everywhere(step{Code: codes.Unavailable})}}, 1, codes.Unavailable)
		}},
	{name: "per-try-timeout", about: "timeout of each attempt", field: "http.retries.perTryTimeout",
		yaml: virtual("- retries: {attempts: 2, perTryTimeout: 300ms, retryOn: \"5xx,reset,deadline-exceeded\"}\n  timeout: 10s\n  route: [{destination: {host: HOST}}]"),
		check: func(s *scene) error {
			got, visits, err := s.callKeyed(spec{script: script{Steps: []step{{Delay: 8 * time.Second}}}})
			if err != nil || got.took > 4*time.Second || len(visits) != 2 {
				return unseenf("%d visits in %v: %v", len(visits), got.took, err)
			}
			return nil
		}},
	{name: "retry-other-host", about: "another endpoint at each attempt", field: "http.retries.retryIgnorePreviousHosts",
		yaml: virtual("- retries: {attempts: 2, retryOn: unavailable}\n  route: [{destination: {host: HOST}}]"),
		check: func(s *scene) error {
			again := 0
			for range 40 {
				_, visits, err := s.callKeyed(spec{script: script{Steps: []step{unavailable}}})
				if err != nil {
					return err
				}
				if visits[0].Host == visits[1].Host {
					again++
				}
			}
			if again > 2 { // 13 where the choice does not look; Envoy's too gives up after some picks
				return unseenf("%d of 40 retries went where the call had failed", again)
			}
			return nil
		}},
	{name: "retry-backoff", about: "pause between attempts", field: "http.retries.backoff",
		yaml: virtual("- retries: {attempts: 5, retryOn: unavailable, backoff: 400ms}\n  route: [{destination: {host: HOST}}]"),
		check: func(s *scene) error {
			began := time.Now()
			for range 3 {
				down := step{Code: codes.Unavailable}
				if _, err := s.call(spec{script: script{Steps: []step{down, down}}}); err != nil {
					return err
				}
			}
			if took := time.Since(began); took < 700*time.Millisecond { // 1.8 s on average with jitter from nothing
				return unseenf("six retries took %v", took)
			}
			return nil
		}},
	{name: "retry-remote", about: "other localities once the near one failed", field: "http.retries.retryRemoteLocalities", bare: true,
		host: "retry-remote.example.com",
		yaml: entry("retry-remote.example.com", "STATIC", "{address: IP_v1, locality: region-1/zone-1}", "{address: IP_v2, locality: region-2/zone-1}") + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: retry-remote, namespace: NAMESPACE}
spec:
  host: retry-remote.example.com
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1000}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: retry-remote, namespace: NAMESPACE}
spec:
  hosts: [retry-remote.example.com]
  http:
  - route: [{destination: {host: retry-remote.example.com}}]
    retries: {attempts: 3, retryOn: unavailable, retryRemoteLocalities: true}
`,
		check: func(s *scene) error {
			for range 5 {
				got, _, err := s.callKeyed(spec{script: script{At: map[string]step{"v1": {Code: codes.Unavailable}}}})
				if err != nil {
					return unseen{err}
				}
				if err := equal("who answers", got.Host, "v2"); err != nil {
					return err
				}
			}
			return nil
		}},
}

// retrying is a row with a condition: one failure of the kind on is tried again,
// one of the kind off is not.
func retrying(name, about, condition string, on, off step) row {
	routes := "- route: [{destination: {host: HOST}}]"
	field := "http.retries"
	if condition != "" {
		routes += "\n  retries: {attempts: 2, retryOn: \"" + condition + "\"}"
		field += ".retryOn: " + condition
	}
	return row{
		name: name, about: about, field: field, yaml: virtual(routes), breaks: on.Reset,
		check: func(s *scene) error {
			if err := visitsOf(s, spec{script: script{Steps: []step{on}}}, 2, codes.OK); err != nil {
				return err
			}
			return visitsOf(s, spec{script: script{Steps: []step{off}}}, 1, off.Code)
		},
	}
}

// visitsOf makes a call that must end with the code after that many visits.
func visitsOf(s *scene, c spec, want int, code codes.Code) error {
	_, visits, err := s.callKeyed(c)
	if status.Code(err) != code || len(visits) != want {
		return unseen{fmt.Errorf("%d visits, want %d and code %v: %w", len(visits), want, code, errOrNone(err))}
	}
	return nil
}

func errOrNone(err error) error {
	if err == nil {
		return fmt.Errorf("no error")
	}
	return err
}

// entry is a ServiceEntry for the host with the endpoints, in YAML.
func entry(host, resolution string, endpoints ...string) string {
	text := `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: "HOST", namespace: NAMESPACE}
spec:
  hosts: ["` + host + `"]
  location: MESH_INTERNAL
  resolution: ` + resolution + `
  ports: [{name: grpc-tri, number: 50052, protocol: GRPC}]
`
	if len(endpoints) > 0 {
		text += "  endpoints:\n"
	}
	for _, e := range endpoints {
		text += "  - " + e + "\n"
	}
	return text
}

func init() { inPart("VirtualService: retries", retryRows) }
