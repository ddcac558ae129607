package interop

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var unavailable = step{Code: codes.Unavailable}

// once is a VirtualService without retries, which would hide what is looked at.
func once(subset string) string {
	to := "{destination: {host: HOST}}"
	if subset != "" {
		to = dest(subset)
	}
	return virtual("- route: [" + to + "]\n  retries: {attempts: 0}")
}

// protectionRows: limits, connections and outliers.
var protectionRows = []row{
	{name: "max-requests", about: "calls at once; others fail at once", field: "connectionPool.http.http2MaxRequests",
		yaml:  rule("connectionPool: {http: {http2MaxRequests: 2}}") + once(""),
		check: limited(6, 2, codes.Unavailable)},
	{name: "max-pending", about: "calls that wait for a connection; others fail at once", field: "connectionPool.http.http1MaxPendingRequests", lean: notSent, bare: true,
		host: "max-pending.example.com",
		yaml: nobody("max-pending.example.com", "connectionPool: {tcp: {connectTimeout: 2s}, http: {http1MaxPendingRequests: 1}}"),
		check: func(s *scene) error {
			var mu sync.Mutex
			var running sync.WaitGroup
			early := 0
			for range 6 {
				running.Go(func() {
					if got, err := s.call(spec{limit: 5 * time.Second}); err != nil && got.took < time.Second {
						mu.Lock()
						defer mu.Unlock()
						early++
					}
				})
			}
			running.Wait()
			if early < 4 {
				return unseenf("%d of 6 calls failed at once", early)
			}
			return nil
		}},
	{name: "max-concurrent-streams", about: "calls at once on one connection; others get another", field: "connectionPool.http.maxConcurrentStreams", lean: notSent,
		yaml:  rule("connectionPool: {http: {maxConcurrentStreams: 1}}") + once("v1"),
		check: connectionsAtOnce(4, 4, 4, 1)},
	{name: "max-connections", about: "connections to the Service", field: "connectionPool.tcp.maxConnections", lean: notSent,
		yaml:  rule("connectionPool: {tcp: {maxConnections: 2}, http: {maxConcurrentStreams: 1, idleTimeout: 77s}}") + once("v1"),
		check: connectionsAtOnce(5, 2, 2, 5)},
	{name: "max-requests-per-connection", about: "calls over one connection", field: "connectionPool.http.maxRequestsPerConnection", lean: notSent,
		yaml: rule("connectionPool: {http: {maxRequestsPerConnection: 3}}") + once("v1"),
		check: func(s *scene) error {
			peers, err := s.peers(12, 10*time.Millisecond)
			if err == nil && len(peers) < 4 {
				err = unseenf("12 calls over %d connections", len(peers))
			}
			for peer, n := range peers {
				if err == nil && n > 3 {
					err = unseenf("%d calls over the connection of %s", n, peer)
				}
			}
			return err
		}},
	{name: "max-retries", about: "retries at once", field: "connectionPool.http.maxRetries", lean: notSent,
		yaml:  rule("connectionPool: {http: {maxRetries: 1}}") + virtual("- route: [{destination: {host: HOST}}]\n  retries: {attempts: 1, retryOn: unavailable}"),
		check: fewRetries},
	{name: "retry-budget", about: "retries by the calls at once", field: "trafficPolicy.retryBudget", lean: notSent,
		yaml:  rule("retryBudget: {percent: 1, minRetryConcurrency: 1}") + virtual("- route: [{destination: {host: HOST}}]\n  retries: {attempts: 1, retryOn: unavailable}"),
		check: fewRetries},
	{name: "idle-timeout", about: "an idle connection is closed", field: "connectionPool.http.idleTimeout", lean: notSent,
		yaml:  rule("connectionPool: {http: {idleTimeout: 1s}}") + once("v1"),
		check: anotherConnection(1, 3*time.Second)},
	{name: "idle-timeout-tcp", about: "the same", field: "connectionPool.tcp.idleTimeout", lean: notSent,
		yaml:  rule("connectionPool: {tcp: {idleTimeout: 1s}}") + once("v1"),
		check: anotherConnection(1, 3*time.Second)},
	{name: "max-connection-duration", about: "a connection in use is replaced at an age", field: "connectionPool.tcp.maxConnectionDuration", lean: notSent,
		yaml:  rule("connectionPool: {tcp: {maxConnectionDuration: 1s}}") + once("v1"),
		check: anotherConnection(30, 100*time.Millisecond)},
	{name: "connect-timeout", about: "limit of a connection's making", field: "connectionPool.tcp.connectTimeout", lean: notSent, bare: true, single: true,
		host: "connect-timeout.example.com",
		yaml: nobody("connect-timeout.example.com", "connectionPool: {tcp: {connectTimeout: 300ms}}"),
		check: func(s *scene) error {
			got, err := s.call(spec{limit: 5 * time.Second})
			if err == nil || got.took > 1500*time.Millisecond {
				return unseenf("the call ended after %v with %v", got.took, err)
			}
			return nil
		}},
	{name: "tcp-keepalive", about: "TCP keepalive", field: "connectionPool.tcp.tcpKeepalive", lean: notSent,
		yaml: rule("connectionPool: {tcp: {tcpKeepalive: {time: 77s, interval: 7s, probes: 2}}}") + once("v1"),
		check: seeing(spec{}, func(got seen) error {
			next, err := keepaliveTimer(got.Peer)
			if err == nil && (next < 60*time.Second || next > 78*time.Second) {
				err = unseenf("the next probe is in %v", next)
			}
			return err
		})},
	outlying("outlier-5xx", "consecutive failures of any kind", "outlierDetection.consecutive5xxErrors",
		"consecutive5xxErrors: 3", step{Code: codes.Internal}),
	outlying("outlier-gateway", "consecutive failures as a gateway's", "outlierDetection.consecutiveGatewayErrors",
		"consecutive5xxErrors: 0, consecutiveGatewayErrors: 3", unavailable),
	{name: "outlier-gateway-only", about: "other failures do not count as a gateway's", field: "outlierDetection.consecutiveGatewayErrors",
		yaml: rule("outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, interval: 100ms, maxEjectionPercent: 100}") + once(""),
		check: func(s *scene) error {
			return s.keepsFailing(spec{script: script{At: map[string]step{"v2": {Code: codes.Internal}}}}, 60, 10, 40)
		}},
	outlying("outlier-local-origin", "connections that break, counted apart", "outlierDetection.consecutiveLocalOriginFailures",
		"splitExternalLocalOriginErrors: true, consecutive5xxErrors: 0, consecutiveLocalOriginFailures: 2", step{Reset: true}),
	{name: "outlier-return", about: "an endpoint comes back after its time", field: "outlierDetection.baseEjectionTime", lean: notSent,
		yaml: rule("outlierDetection: {consecutive5xxErrors: 3, interval: 100ms, baseEjectionTime: 1s, maxEjectionPercent: 100}") + once(""),
		check: func(s *scene) error {
			if err := ejects(s, unavailable); err != nil {
				return err
			}
			return eventuallyShares(s, spec{}, 30, bounds{"v1": {1, 28}, "v2": {1, 28}, "v3": {1, 28}})
		}},
	{name: "outlier-max-percent", about: "no more are ejected than a share", field: "outlierDetection.maxEjectionPercent", lean: notSent,
		yaml: rule("outlierDetection: {consecutive5xxErrors: 3, interval: 100ms, baseEjectionTime: 60s, maxEjectionPercent: 34}") + once(""),
		check: func(s *scene) error {
			sick := spec{script: script{At: map[string]step{"v1": unavailable, "v2": unavailable}}}
			s.tally(40, 0, sick)
			reached := s.tally(60, 0, sick)
			if (reached["v1"] > 0) == (reached["v2"] > 0) {
				return unseenf("calls reached %v", reached)
			}
			return nil
		}},
	{name: "outlier-panic", about: "with too few healthy, all are used", field: "outlierDetection.minHealthPercent", lean: notSent,
		yaml: rule("outlierDetection: {consecutive5xxErrors: 3, interval: 100ms, baseEjectionTime: 60s, maxEjectionPercent: 100, minHealthPercent: 50}") + once(""),
		check: func(s *scene) error {
			// One ejected leaves 66 %, which is enough; two leave 33 %.
			if err := ejects(s, unavailable); err != nil {
				return err
			}
			sick := spec{script: script{At: map[string]step{"v1": unavailable, "v2": unavailable}}}
			s.tally(60, 0, sick)
			if reached := s.tally(90, 0, sick); reached["v1"] == 0 || reached["v2"] == 0 || reached["v3"] == 0 {
				return unseenf("calls reached %v", reached)
			}
			return nil
		}},
	{name: "unhealthy", about: "a pod that is not ready gets no calls", field: "Pod: readiness", bare: true,
		yaml:  service(governed, "unhealthy", "ailing", grpcPort),
		check: shares(30, spec{}, bounds{"well": {30, 30}})},
	{name: "not-ready-published", about: "a pod that is not ready gets calls where the Service says so", field: "Service: publishNotReadyAddresses", bare: true,
		yaml: `---
apiVersion: v1
kind: Service
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  selector: {app: ailing}
  publishNotReadyAddresses: true
  ports: [{name: grpc-tri, port: 50052}]
`,
		check: shares(100, spec{}, bounds{"well": {20, 80}, "ill": {20, 80}})},
}

// outlying is a row whose outlier detection, in YAML, ejects an endpoint that
// fails as told.
func outlying(name, about, field, detection string, failure step) row {
	return row{name: name, about: about, field: field, lean: notSent, breaks: failure.Reset,
		yaml:  rule("outlierDetection: {"+detection+", interval: 100ms, baseEjectionTime: 60s, maxEjectionPercent: 100}") + once(""),
		check: func(s *scene) error { return ejects(s, failure) }}
}

// ejects has v2 fail until it gets no calls any more.
func ejects(s *scene, failure step) error {
	pause := time.Duration(0)
	if failure.Reset {
		pause = 100 * time.Millisecond // to connect again in
	}
	sick := spec{script: script{At: map[string]step{"v2": failure}}}
	for began := time.Now(); time.Since(began) < 4*time.Second; {
		if reached := s.tally(24, pause, sick); reached["v2"] == 0 {
			if reached["v1"] == 0 || reached["v3"] == 0 {
				return fmt.Errorf("calls reached %v", reached)
			}
			return nil
		}
	}
	return unseenf("v2 gets calls still")
}

// tally makes n calls, whatever becomes of them, and counts which backends they
// reached.
func (s *scene) tally(n int, pause time.Duration, c spec) map[string]int {
	reached := map[string]int{}
	for range n {
		_, visits, _ := s.callKeyed(c)
		for _, v := range visits {
			reached[v.Host]++
		}
		time.Sleep(pause)
	}
	return reached
}

// keepsFailing makes n calls of which some must fail.
func (s *scene) keepsFailing(c spec, n, least, most int) error {
	failed := 0
	for range n {
		if _, err := s.call(c); err != nil {
			failed++
		}
	}
	if failed < least || failed > most {
		return unseenf("%d of %d calls failed, want %d to %d", failed, n, least, most)
	}
	return nil
}

// limited makes n slow calls at once of which only some may pass; the others
// fail at once.
func limited(n, pass int, code codes.Code) func(*scene) error {
	return func(s *scene) error {
		if _, err := s.many(6, spec{}); err != nil { // connect
			return err
		}
		var mu sync.Mutex
		var running sync.WaitGroup
		passed, refused := 0, 0
		for range n {
			running.Go(func() {
				got, err := s.call(spec{script: slow(700 * time.Millisecond)})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					passed++
				case status.Code(err) == code && got.took < 500*time.Millisecond:
					refused++
				}
			})
		}
		running.Wait()
		if passed != pass || refused != n-pass {
			return unseenf("%d calls passed and %d were refused, want %d and %d", passed, refused, pass, n-pass)
		}
		return nil
	}
}

// fewRetries has calls fail at once, of which few may be retried.
func fewRetries(s *scene) error {
	if _, err := s.many(6, spec{}); err != nil { // connect
		return err
	}
	var mu sync.Mutex
	var running sync.WaitGroup
	visits := 0
	for range 12 {
		running.Go(func() {
			_, some, _ := s.callKeyed(spec{script: script{At: everywhere(step{Code: codes.Unavailable, Delay: 400 * time.Millisecond})}})
			mu.Lock()
			defer mu.Unlock()
			visits += len(some)
		})
	}
	running.Wait()
	if visits < 13 || visits > 15 { // 12 and one retry, or some more where they come one after the other; 24 without a limit
		return unseenf("%d visits of 12 calls", visits)
	}
	return nil
}

// peers makes n calls and counts them by connection.
func (s *scene) peers(n int, pause time.Duration) (map[string]int, error) {
	peers := map[string]int{}
	for range n {
		got, err := s.call(spec{})
		if err != nil {
			return nil, err
		}
		peers[got.Peer]++
		time.Sleep(pause)
	}
	return peers, nil
}

// anotherConnection makes n calls with pauses and one more, for which there must
// be another connection than for the first.
func anotherConnection(n int, pause time.Duration) func(*scene) error {
	return func(s *scene) error {
		peers, err := s.peers(n, pause)
		if err != nil {
			return err
		}
		got, err := s.call(spec{})
		if err == nil && (peers[got.Peer] > 0 && len(peers) == 1) {
			err = unseenf("one connection for all calls")
		}
		return err
	}
}

// connectionsAtOnce makes n slow calls at once, over so many connections, on each
// of which so many calls may run.
func connectionsAtOnce(n, least, most, calls int) func(*scene) error {
	return func(s *scene) error {
		if _, err := s.call(spec{}); err != nil { // connect
			return err
		}
		var mu sync.Mutex
		var running sync.WaitGroup
		var failed error
		starts := map[string]int{}
		for range n {
			running.Go(func() {
				_, visits, err := s.callKeyed(spec{script: slow(time.Second)})
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed = err
				}
				for _, v := range visits {
					starts[v.Peer]++
				}
			})
		}
		running.Wait()
		if failed != nil {
			return failed
		}
		if len(starts) < least || len(starts) > most {
			return unseenf("%d connections, want %d to %d", len(starts), least, most)
		}
		for _, count := range starts {
			if count > calls {
				return unseenf("calls by connection: %v", starts)
			}
		}
		return nil
	}
}

// nobody is a ServiceEntry whose only endpoint takes no connection, with a policy.
func nobody(host, policy string) string {
	return entry(host, "STATIC", "{address: IP_nobody}") + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  host: ` + host + `
  trafficPolicy:
    ` + policy + `
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  hosts: [` + host + `]
  http: [{route: [{destination: {host: ` + host + `}}], retries: {attempts: 0}}]
`
}

// keepaliveTimer is how long until the connection from the address is probed.
func keepaliveTimer(local string) (time.Duration, error) {
	_, port, _ := strings.Cut(local, ":")
	number, err := strconv.Atoi(port)
	if err != nil {
		return 0, err
	}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if !strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", number)) {
				continue
			}
			kind, when, _ := strings.Cut(fields[5], ":")
			ticks, err := strconv.ParseInt(when, 16, 64)
			if kind != "02" || err != nil {
				return 0, unseenf("no keepalive: timer %s", fields[5])
			}
			return time.Duration(ticks) * 10 * time.Millisecond, nil
		}
	}
	return 0, fmt.Errorf("no connection from %s", local)
}

func init() {
	inPart("DestinationRule: connections, limits, outliers", protectionRows)
	inPart("DestinationRule: load balancing", balanceRows)
}
