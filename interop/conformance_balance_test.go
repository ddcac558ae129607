package interop

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// notSent is what istiod leaves out for clients of the lean view.
const notSent = "not sent by istiod"

const noQuery = "no: a gRPC call has no query"

// balanceRows: which endpoint a call goes to.
var balanceRows = []row{
	{name: "lb-default", about: "no field: all endpoints get their share", field: "",
		check: shares(300, spec{}, bounds{"v1": {40, 180}, "v2": {40, 180}, "v3": {40, 180}})}, // other rows keep them busy, too
	{name: "lb-round-robin", about: "round robin", field: "loadBalancer.simple: ROUND_ROBIN",
		yaml: rule("loadBalancer: {simple: ROUND_ROBIN}"),
		check: func(s *scene) error {
			if _, err := s.many(30, spec{}); err != nil { // connect
				return err
			}
			return shares(30, spec{}, bounds{"v1": {10, 10}, "v2": {10, 10}, "v3": {10, 10}})(s)
		}},
	{name: "lb-random", about: "random: all get their share, now and then one twice in a row", field: "loadBalancer.simple: RANDOM", lean: notSent,
		yaml:  rule("loadBalancer: {simple: RANDOM}"),
		check: random(300)},
	{name: "lb-least-request", about: "least requests: a slow endpoint gets fewer calls", field: "loadBalancer.simple: LEAST_REQUEST",
		yaml:  rule("loadBalancer: {simple: LEAST_REQUEST}"),
		check: fewerToSlow},
	{name: "lb-passthrough", about: "pass through: the endpoints are used, as there is no original destination", field: "loadBalancer.simple: PASSTHROUGH",
		yaml:  rule("loadBalancer: {simple: PASSTHROUGH}"),
		check: shares(300, spec{}, bounds{"v1": {40, 180}, "v2": {40, 180}, "v3": {40, 180}})},
	{name: "hash-header", about: "consistent hash of a header", field: "loadBalancer.consistentHash.httpHeaderName",
		yaml:  rule("loadBalancer: {consistentHash: {httpHeaderName: x-user}}"),
		check: hashed(func(i int) spec { return withHeader("x-user", fmt.Sprint("user-", i)) })},
	{name: "hash-cookie", about: "consistent hash of a cookie", field: "loadBalancer.consistentHash.httpCookie",
		yaml:  rule("loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}}}"),
		check: hashed(func(i int) spec { return withHeader("cookie", fmt.Sprint("other=1; user=user-", i)) })},
	{name: "hash-cookie-made", about: "a cookie that is made where there is none", field: "loadBalancer.consistentHash.httpCookie.ttl",
		yaml: rule("loadBalancer: {consistentHash: {httpCookie: {name: user, path: /, ttl: 60s}}}"),
		check: seeing(spec{}, func(got seen) error {
			if len(got.header["set-cookie"]) != 1 {
				return unseenf("the response has %v", got.header)
			}
			return nil
		})},
	{name: "hash-source-ip", about: "consistent hash of the caller's address: one endpoint for all calls", field: "loadBalancer.consistentHash.useSourceIp",
		yaml:  rule("loadBalancer: {consistentHash: {useSourceIp: true}}"),
		check: oneHost(30)},
	{name: "hash-query", about: "consistent hash of a query parameter", field: "loadBalancer.consistentHash.httpQueryParameterName", full: noQuery, lean: noQuery,
		yaml:  rule("loadBalancer: {consistentHash: {httpQueryParameterName: user}}"),
		check: hashed(func(i int) spec { return spec{method: fmt.Sprint("/conformance.Echo/Call?user=user-", i)} })},
	{name: "hash-ring", about: "ring of a given size", field: "loadBalancer.consistentHash.ringHash.minimumRingSize",
		yaml:  rule("loadBalancer: {consistentHash: {httpHeaderName: x-user, ringHash: {minimumRingSize: 3000}}}"),
		check: hashed(func(i int) spec { return withHeader("x-user", fmt.Sprint("user-", i)) })},
	{name: "hash-maglev", about: "Maglev", field: "loadBalancer.consistentHash.maglev.tableSize",
		yaml:  rule("loadBalancer: {consistentHash: {httpHeaderName: x-user, maglev: {tableSize: 997}}}"),
		check: hashed(func(i int) spec { return withHeader("x-user", fmt.Sprint("user-", i)) })},
	{name: "subset-policy", about: "policy of a subset in place of the rule's", field: "subsets.trafficPolicy", bare: true,
		yaml: service(governed, "subset-policy", "governed", grpcPort) + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  host: HOST
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets:
  - {name: all, labels: {app: governed}, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}
` + virtual("- route: ["+dest("all")+"]"),
		check: oneHost(30)},
	{name: "port-level", about: "policy of one port", field: "trafficPolicy.portLevelSettings",
		yaml:  rule("portLevelSettings: [{port: {number: 50052}, loadBalancer: {consistentHash: {useSourceIp: true}}}]"),
		check: oneHost(30)},
	{name: "port-level-other", about: "the policy of another port does not count", field: "trafficPolicy.portLevelSettings",
		yaml:  rule("portLevelSettings: [{port: {number: 50053}, loadBalancer: {consistentHash: {useSourceIp: true}}}]"),
		check: shares(100, spec{}, bounds{"v1": {10, 60}, "v2": {10, 60}, "v3": {10, 60}})},
	labelledRow(row{name: "workload-selector", about: "policy for callers with labels", field: "workloadSelector",
		yaml:  selecting("this"),
		check: oneHost(30)}),
	labelledRow(row{name: "workload-selector-other", about: "policy for callers with other labels does not count", field: "workloadSelector",
		yaml:  selecting("that"),
		check: shares(100, spec{}, bounds{"v1": {10, 60}, "v2": {10, 60}, "v3": {10, 60}})}),
	{name: "export-to", about: "policy that is not for this namespace does not count", field: "exportTo",
		yaml: `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  host: HOST
  exportTo: [elsewhere]
  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}
`,
		check: shares(100, spec{}, bounds{"v1": {10, 60}, "v2": {10, 60}, "v3": {10, 60}})},
	{name: "warmup", about: "slow start: an endpoint that is new gets little at first", field: "loadBalancer.warmup", lean: notSent, alone: true, bare: true,
		yaml: service(governed, "warmup", "warmup", grpcPort) + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  host: HOST
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 3s, minimumPercent: 5}}}
`,
		check: warmsUp},
	spread("locality-default", "the caller's own zone comes first", "outlierDetection (turns locality on)", "outlierDetection: {consecutive5xxErrors: 100}",
		shares(40, spec{}, bounds{"near": {40, 40}})),
	spread("locality-failover", "the next zone takes over where the own one is ejected", "loadBalancer.localityLbSetting.failover",
		"loadBalancer: {localityLbSetting: {enabled: true, failover: [{from: region-1, to: region-2}]}}\n"+
			"outlierDetection: {consecutiveGatewayErrors: 3, interval: 100ms, baseEjectionTime: 60s, maxEjectionPercent: 100}",
		func(s *scene) error {
			sick := spec{script: script{At: map[string]step{"near": unavailable}}}
			return eventuallyShares(s, sick, 20, bounds{"zone": {20, 20}})
		}, notSent),
	labelledRow(spread("locality-priority", "priority by labels that endpoint and caller share", "loadBalancer.localityLbSetting.failoverPriority",
		"loadBalancer: {localityLbSetting: {enabled: true, failoverPriority: [\"version=far\"]}}\noutlierDetection: {consecutive5xxErrors: 100}",
		shares(40, spec{}, bounds{"far": {40, 40}}))),
	spread("locality-distribute", "weights of localities", "loadBalancer.localityLbSetting.distribute",
		"loadBalancer: {localityLbSetting: {enabled: true, distribute: [{from: \"region-1/zone-1/*\", to: {\"region-1/zone-1/*\": 25, \"region-2/zone-1/*\": 75}}]}}\noutlierDetection: {consecutive5xxErrors: 100}",
		shares(400, spec{}, bounds{"near": {57, 143}, "far": {257, 343}})), // deviation 9
	spread("locality-off", "localities do not count", "loadBalancer.localityLbSetting.enabled: false",
		"loadBalancer: {localityLbSetting: {enabled: false}}\noutlierDetection: {consecutive5xxErrors: 100}",
		shares(120, spec{}, bounds{"near": {15, 70}, "zone": {15, 70}, "far": {15, 70}})),
	{name: "prefer-same-zone", about: "traffic distribution of a Service", field: "Service: trafficDistribution", bare: true,
		yaml: `---
apiVersion: v1
kind: Service
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  selector: {app: spread}
  trafficDistribution: PreferClose
  ports: [{name: grpc-tri, port: 50052}]
`,
		check: shares(40, spec{}, bounds{"near": {40, 40}})},
	{name: "session-cookie", about: "sessions by a cookie that the mesh makes", field: "Service: label istio.io/persistent-session", bare: true,
		remark: "istiod with PILOT_ENABLE_PERSISTENT_SESSION_FILTER=true", lean: "istiod itself crashes",
		istiod: []string{"PILOT_ENABLE_PERSISTENT_SESSION_FILTER=true"},
		yaml: `---
apiVersion: v1
kind: Service
metadata: {name: HOST, namespace: NAMESPACE, labels: {istio.io/persistent-session: session}}
spec:
  selector: {app: governed}
  ports: [{name: grpc-tri, port: 50052}]
`,
		check: inSession},
	{name: "endpoint-weights", about: "weights of a ServiceEntry's endpoints", field: "ServiceEntry: endpoints.weight", bare: true,
		host: "endpoint-weights.example.com",
		yaml: entry("endpoint-weights.example.com", "STATIC", "{address: IP_v1, weight: 3}", "{address: IP_v2, weight: 1}") + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: HOST, namespace: NAMESPACE}
spec: {host: endpoint-weights.example.com, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
`,
		check: shares(400, spec{}, bounds{"v1": {257, 343}, "v2": {57, 143}})},
}

// spread is a row of a Service with a pod in the caller's zone, one in another
// and one in another region.
func spread(name, about, field, policy string, check func(*scene) error, lean ...string) row {
	r := row{name: name, about: about, field: field, bare: true, check: check,
		yaml: service(governed, name, "spread", grpcPort) + rule(policy)}
	if len(lean) > 0 {
		r.lean = lean[0]
	}
	return r
}

// selecting is a rule for callers with the label.
func selecting(caller string) string {
	return `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  host: HOST
  workloadSelector: {matchLabels: {caller: ` + caller + `}}
  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}
`
}

// hashed makes calls with several keys, each of which must have one host.
func hashed(withKey func(i int) spec) func(*scene) error {
	return func(s *scene) error {
		if _, err := s.many(30, spec{}); err != nil { // connect
			return err
		}
		hosts := map[string]bool{}
		for i := range 16 {
			counts, err := s.many(6, withKey(i))
			if err != nil {
				return err
			}
			if len(counts) != 1 {
				return unseenf("calls with one key went to %v", counts)
			}
			for host := range counts {
				hosts[host] = true
			}
		}
		if len(hosts) < 2 {
			return unseenf("all keys went to %v", hosts)
		}
		return nil
	}
}

// inSession takes the cookie of an answer along, which leads to the same host.
func inSession(s *scene) error {
	hosts := map[string]bool{}
	for range 6 {
		first, err := s.call(spec{})
		if err != nil {
			return err
		}
		cookies := first.header["set-cookie"]
		if len(cookies) != 1 {
			return unseenf("%d cookies", len(cookies))
		}
		cookie, _, _ := strings.Cut(cookies[0], ";")
		hosts[first.Host] = true
		counts, err := s.many(8, withHeader("cookie", cookie))
		if err != nil {
			return err
		}
		if counts[first.Host] != 8 {
			return unseenf("a session at %s went to %v", first.Host, counts)
		}
	}
	if len(hosts) < 2 {
		return unseenf("all sessions are at %v", hosts)
	}
	return nil
}

func oneHost(n int) func(*scene) error {
	return func(s *scene) error {
		counts, err := s.many(n, spec{})
		if err == nil && len(counts) != 1 {
			err = unseenf("calls went to %v", counts)
		}
		return err
	}
}

// random makes n calls and wants each host's share, in no rotation.
func random(n int) func(*scene) error {
	return func(s *scene) error {
		counts, last, again := map[string]int{}, "", 0
		for range n {
			got, err := s.call(spec{})
			if err != nil {
				return err
			}
			counts[got.Host]++
			if got.Host == last {
				again++
			}
			last = got.Host
		}
		if again < n/6 || again > n/2 { // a third on average
			return unseenf("%d of %d calls went where the one before went", again, n)
		}
		return bounds{"v1": {n / 5, n / 2}, "v2": {n / 5, n / 2}, "v3": {n / 5, n / 2}}.check(counts)
	}
}

// fewerToSlow calls from several callers at once, to three hosts of which one
// takes its time.
func fewerToSlow(s *scene) error {
	if _, err := s.many(30, spec{}); err != nil { // connect
		return err
	}
	slow := spec{script: script{At: map[string]step{
		"v1": {Delay: 200 * time.Millisecond}, "v2": {Delay: 20 * time.Millisecond}, "v3": {Delay: 20 * time.Millisecond},
	}}}
	counts, err := s.together(8, 30, slow)
	if err != nil {
		return err
	}
	if n := counts["v1"]; n > 48 { // 80 where the choice does not look
		return unseenf("answers %v", counts)
	}
	return nil
}

// together makes n calls from each of several callers at once and counts the
// answers by backend.
func (s *scene) together(callers, n int, c spec) (map[string]int, error) {
	var mu sync.Mutex
	var running sync.WaitGroup
	counts, failed := map[string]int{}, error(nil)
	for range callers {
		running.Go(func() {
			some, err := s.many(n, c)
			mu.Lock()
			defer mu.Unlock()
			for host, count := range some {
				counts[host] += count
			}
			if err != nil {
				failed = err
			}
		})
	}
	running.Wait()
	return counts, failed
}

// eventuallyShares repeats until n calls in a row are shared as wanted; calls
// that fail until then are part of it.
func eventuallyShares(s *scene, c spec, n int, want bounds) (err error) {
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(20 * time.Millisecond) {
		var counts map[string]int
		if counts, err = s.many(n, c); err == nil {
			if err = want.check(counts); err == nil {
				return nil
			}
		}
	}
	return unseen{err}
}
