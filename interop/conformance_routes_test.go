package interop

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// routeRows: what becomes of a call on its route.
var routeRows = []row{
	{name: "weights", about: "weights of destinations", field: "http.route.weight",
		yaml:  rule("") + virtual("- route: [{destination: {host: HOST, subset: v1}, weight: 75}, {destination: {host: HOST, subset: v2}, weight: 25}]"),
		check: shares(400, spec{}, bounds{"v1": {250, 350}, "v2": {50, 150}})}, // deviation 9
	{name: "weights-zero", about: "a destination of weight 0 gets nothing", field: "http.route.weight",
		yaml:  rule("") + virtual("- route: [{destination: {host: HOST, subset: v1}, weight: 100}, {destination: {host: HOST, subset: v2}, weight: 0}]"),
		check: shares(60, spec{}, bounds{"v1": {60, 60}})},
	{name: "weights-services", about: "weights of different Services", field: "http.route.destination.host",
		yaml:  rule("") + service(governed, "weights-other", "spread", grpcPort) + virtual("- route: [{destination: {host: HOST, subset: v1}, weight: 50}, {destination: {host: weights-other}, weight: 50}]"),
		check: shares(200, spec{}, bounds{"v1": {65, 135}, "near": {0, 135}, "zone": {0, 135}, "far": {0, 135}})},
	{name: "redirect", about: "redirect: the call fails and says so", field: "http.redirect",
		yaml:  virtual("- redirect: {uri: /elsewhere, authority: elsewhere}"),
		check: failing(spec{}, codes.Unknown, "redirect")},
	{name: "direct-response", about: "direct response: the call fails with its status and text", field: "http.directResponse",
		yaml:  virtual("- directResponse: {status: 403, body: {string: not for you}}"),
		check: failing(spec{}, codes.PermissionDenied, "not for you")},
	{name: "rewrite-authority", about: "rewrite of the authority", field: "http.rewrite.authority",
		yaml: virtual("- rewrite: {authority: other.example.com}\n  route: [{destination: {host: HOST}}]"),
		check: seeing(spec{}, func(got seen) error {
			return equal("the authority", got.Authority, "other.example.com")
		})},
	{name: "rewrite-uri", about: "rewrite of the path's prefix", field: "http.rewrite.uri",
		yaml: virtual("- match: [{uri: {prefix: /conformance.Echo/}}]\n  rewrite: {uri: /other.Service/}\n  route: [{destination: {host: HOST}}]"),
		check: seeing(spec{}, func(got seen) error {
			return equal("the path", got.Path, "/other.Service/Call")
		})},
	{name: "rewrite-uri-regex", about: "rewrite of the path by a regular expression", field: "http.rewrite.uriRegexRewrite",
		yaml: virtual("- rewrite: {uriRegexRewrite: {match: \"^/conformance.Echo/(.*)\", rewrite: '/other.Service/Other\\1'}}\n  route: [{destination: {host: HOST}}]"),
		check: seeing(spec{}, func(got seen) error {
			return equal("the path", got.Path, "/other.Service/OtherCall")
		})},
	{name: "timeout", about: "timeout of a call", field: "http.timeout",
		yaml:  virtual("- timeout: 300ms\n  route: [{destination: {host: HOST}}]\n  retries: {attempts: 0}"),
		check: timesOut(spec{script: slow(5 * time.Second)}, 250*time.Millisecond, 3*time.Second)},
	{name: "timeout-application", about: "a shorter deadline of the application holds", field: "http.timeout",
		yaml:  virtual("- timeout: 30s\n  route: [{destination: {host: HOST}}]\n  retries: {attempts: 0}"),
		check: timesOut(spec{limit: 300 * time.Millisecond, script: slow(5 * time.Second)}, 250*time.Millisecond, 3*time.Second)},
	{name: "timeout-none", about: "no timeout unless there is one", field: "http.timeout",
		yaml:  virtual("- route: [{destination: {host: HOST}}]"),
		check: seeing(spec{script: slow(700 * time.Millisecond)}, func(seen) error { return nil })},
	{name: "mirror", about: "mirroring of all calls", field: "http.mirror",
		yaml:  rule("") + virtual("- route: ["+dest("v1")+"]\n  mirror: {host: HOST, subset: v3}"),
		check: mirrored(40, 40, 40, "v3")},
	{name: "mirror-percentage", about: "mirroring of a part of the calls", field: "http.mirrorPercentage",
		yaml:  rule("") + virtual("- route: ["+dest("v1")+"]\n  mirror: {host: HOST, subset: v3}\n  mirrorPercentage: {value: 50}"),
		check: mirrored(200, 65, 135, "v3")}, // deviation 7
	{name: "mirrors", about: "mirroring to several", field: "http.mirrors",
		yaml:  rule("") + virtual("- route: ["+dest("v1")+"]\n  mirrors: [{destination: {host: HOST, subset: v2}}, {destination: {host: HOST, subset: v3}}]"),
		check: mirrored(40, 40, 40, "v2", "v3")},
	{name: "delegate", about: "routes in another VirtualService", field: "http.delegate",
		yaml: rule("") + virtual("- match: [{uri: {prefix: /}}]\n  delegate: {name: delegated, namespace: NAMESPACE}") + `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: delegated, namespace: NAMESPACE}
spec:
  http: [{route: [` + dest("v3") + `]}]
`,
		check: shares(20, spec{}, bounds{"v3": {20, 20}})},
	{name: "missing-subset", about: "a route to a subset that does not exist fails", field: "http.route.destination.subset",
		yaml:  virtual("- route: [" + dest("v9") + "]"),
		check: failing(spec{}, codes.Unavailable, "")},
}

// bounds are the least and the most answers of each backend that may answer.
type bounds map[string][2]int

// shares makes n calls and checks who answered how many.
func shares(n int, c spec, want bounds) func(*scene) error {
	return func(s *scene) error {
		counts, err := s.many(n, c)
		if err != nil {
			return err
		}
		return want.check(counts)
	}
}

func (want bounds) check(counts map[string]int) error {
	for host, n := range counts {
		if limits, ok := want[host]; !ok || n < limits[0] || n > limits[1] {
			return unseenf("answers %v, want %v", counts, want)
		}
	}
	for host, limits := range want {
		if counts[host] < limits[0] {
			return unseenf("answers %v, want %v", counts, want)
		}
	}
	return nil
}

// failing makes a call that must fail with the code and the text.
func failing(c spec, code codes.Code, text string) func(*scene) error {
	return func(s *scene) error {
		got, err := s.call(c)
		if err == nil {
			return unseenf("the call was answered by %s", got.Host)
		}
		if status.Code(err) != code || !strings.Contains(err.Error(), text) {
			return fmt.Errorf("want code %v and %q: %w", code, text, err)
		}
		return nil
	}
}

// seeing makes a call and looks at what the backend saw.
func seeing(c spec, look func(seen) error) func(*scene) error {
	return func(s *scene) error {
		got, err := s.call(c)
		if err != nil {
			return err
		}
		return look(got)
	}
}

func equal(what, got, want string) error {
	if got != want {
		return unseenf("%s is %q, want %q", what, got, want)
	}
	return nil
}

// slow is a script that takes its time at every visit.
func slow(d time.Duration) script {
	return script{At: everywhere(step{Delay: d})}
}

func everywhere(do step) map[string]step {
	at := map[string]step{}
	for _, pod := range backendPods {
		at[pod.Labels["version"]] = do
	}
	return at
}

// timesOut makes a call that must end by its deadline.
func timesOut(c spec, least, most time.Duration) func(*scene) error {
	return func(s *scene) error {
		got, err := s.call(c)
		if err == nil || got.took > most {
			return unseenf("the call took %v: %v", got.took, err)
		}
		if status.Code(err) != codes.DeadlineExceeded || got.took < least {
			return fmt.Errorf("the call failed after %v: %w", got.took, err)
		}
		return nil
	}
}

// mirrored makes n calls, which v1 must answer, and counts those that reached
// each of the hosts, too.
func mirrored(n, least, most int, hosts ...string) func(*scene) error {
	return func(s *scene) error {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprintf("%s-mirrored-%d", s.name, lastKey.Add(1))
			if err := goesTo(s, spec{script: script{Key: keys[i]}}, "v1"); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond) // mirrored calls may be dropped in a rush
		}
		time.Sleep(300 * time.Millisecond) // nobody waits for mirrored calls
		for _, host := range hosts {
			reached := 0
			for _, key := range keys {
				if slices.ContainsFunc(s.world.ledger.of(key), func(v seen) bool { return v.Host == host }) {
					reached++
				}
			}
			if reached < least || reached > most {
				return unseenf("%d of %d calls reached %s, want %d to %d", reached, n, host, least, most)
			}
		}
		return nil
	}
}

func init() { inPart("VirtualService: routes", routeRows) }

// inPart names the part of the rows that do not name it themselves.
func inPart(part string, rows []row) {
	for i := range rows {
		if rows[i].part == "" {
			rows[i].part = part
		}
	}
}
