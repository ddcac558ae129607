package proxyless

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// surveyOf is the coverage of a resource that is accepted.
func surveyOf(t testing.TB, s *surveyor, k kind, raw []byte) *coverage {
	t.Helper()
	got, err := decodeResource(k, raw)
	if err != nil {
		t.Fatal(err)
	}
	return s.survey(k, raw, &got)
}

func rawHosts(hosts ...rawProto) rawProto { return rawProto{}.text(1, "r").msg(2, hosts...) }

// limitedHost is a virtual host with rate limits, which are not applied, with
// one that is newer than this package, and with statistics.
func limitedHost(name string) rawProto {
	host := rawProto{}.text(1, name).text(2, name)
	host = host.msg(3, rawRoute("default", rawEverything, rawProto{}.text(1, "c")).text(19, "stats"))
	return host.msg(6, rawProto{}.msg(1, rawProto{})).num(999, 1).msg(5, rawProto{}.text(2, "virtual cluster"))
}

func TestCoverageNamesFieldsByPath(t *testing.T) {
	c := surveyOf(t, newSurveyor(), kindRoute, rawHosts(limitedHost("a"), limitedHost("b")))
	for _, want := range []string{"name", "virtual_hosts[*].domains[*]", "virtual_hosts[*].routes[*].match.prefix", "virtual_hosts[*].routes[*].route.cluster"} {
		if !slices.Contains(c.applied, want) {
			t.Errorf("%s is not applied", want)
		}
	}
	want := []string{"virtual_hosts[a].rate_limits", "virtual_hosts[b].rate_limits", "virtual_hosts[*].field 999"}
	if !slices.Equal(c.ignored, want) {
		t.Errorf("ignored %q, want %q", c.ignored, want)
	}
	for _, path := range slices.Concat(c.applied, c.ignored) {
		if strings.Contains(path, "stat") || strings.Contains(path, "virtual_clusters") {
			t.Errorf("%s is no policy, and reported", path)
		}
	}
}

// TestCoverageIsAboutWhatWasKept: of a sidecar's route configuration only the
// virtual hosts that matter are decoded.
func TestCoverageIsAboutWhatWasKept(t *testing.T) {
	raw := rawHosts(limitedHost("a"), rawProto{}.text(1, "b").text(2, "b"))
	got, err := decodeRoutes(raw, func(domain []byte) bool { return string(domain) == "b" }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c := newSurveyor().survey(kindRoute, raw, &got); len(c.ignored) > 0 || slices.Contains(c.applied, "virtual_hosts[*].routes[*].route.cluster") {
		t.Errorf("applied %q, ignored %q", c.applied, c.ignored)
	}
}

// TestAnExplicitZeroAsksForNothing: Istio says "no limit" and "no timeout" in
// so many words.
func TestAnExplicitZeroAsksForNothing(t *testing.T) {
	for limit, want := range map[uint64]bool{0: false, 5: true} {
		c := surveyOf(t, newSurveyor(), kindListener, rawClientListener(rawProto{}.wrap(24, limit)))
		if got := len(c.ignored) > 0; got != want {
			t.Errorf("stream_idle_timeout %d: ignored %q", limit, c.ignored)
		}
	}
}

// TestSurveyOfManyEndpointsIsShort: the first ones of each locality count.
func TestSurveyOfManyEndpointsIsShort(t *testing.T) {
	odd := rawEndpoint("10.0.0.200", 80, 0, 7)
	for at, want := range map[int]bool{0: true, maxSurveyed: false} {
		locality := rawProto{}.msg(1, rawProto{}.text(1, "r"))
		for i := range 20 {
			if i == at {
				locality = locality.msg(2, odd)
			}
			locality = locality.msg(2, rawEndpoint(fmt.Sprint("10.0.0.", i), 80, 0, 0))
		}
		c := surveyOf(t, newSurveyor(), kindEndpoints, rawProto{}.text(1, "c").msg(2, locality))
		if got := slices.Contains(c.applied, "endpoints[*].lb_endpoints[*].load_balancing_weight"); got != want {
			t.Errorf("a weight at %d: applied %q", at, c.applied)
		}
	}
}

// TestEqualCoverageIsShared: a thousand clusters are of few makes.
func TestEqualCoverageIsShared(t *testing.T) {
	s := newSurveyor()
	a := surveyOf(t, s, kindRoute, rawHosts(limitedHost("a")))
	if b := surveyOf(t, s, kindRoute, rawHosts(limitedHost("a"))); a != b {
		t.Error("two of the same make have coverages of their own")
	}
	if b := surveyOf(t, s, kindRoute, rawHosts(limitedHost("b"))); a == b {
		t.Error("notes differ, and the coverage is the same")
	}
}

func TestBarePath(t *testing.T) {
	for path, want := range map[string]string{
		"a.b": "a.b", "a[x].b": "a.b", "a[x][y].b[*]": "a.b", "lb_policy (MAGLEV)": "lb_policy",
		"e[[::1]:80].w": "e.w", "a[x": "a[x", "a[b]c].d": "a.d", "a[inbound|80||].d (0)": "a.d",
	} {
		if got := barePath(path); got != want {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
}

// TestCoverageTableIsWhole: each message that a field leads to is there.
func TestCoverageTableIsWhole(t *testing.T) {
	roles := coverageRoles()
	if len(roles) < 20 {
		t.Fatalf("%d messages", len(roles))
	}
	for name, fields := range roles {
		for num, f := range fields {
			if f.role != "" && roles[f.role] == nil || f.name == "" || num == 0 {
				t.Errorf("%s %d %+v", name, num, f)
			}
		}
	}
}

// TestWhatIsIgnoredOfIstiod writes down all that is ignored of what a real
// istiod sent, without the names.
func TestWhatIsIgnoredOfIstiod(t *testing.T) {
	s := newSurveyor()
	ignored := map[string]struct{}{}
	files, err := filepath.Glob("testdata/istiod/*.binpb")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		response, err := decodeADSResponse(raw)
		k, known := kindOf(response.typeURL)
		if err != nil || !known || strings.Contains(file, "delta") {
			continue
		}
		for _, r := range response.resources {
			for _, path := range surveyOf(t, s, k, r.value).ignored {
				ignored[k.String()+" "+barePath(path)] = struct{}{}
			}
		}
	}
	got := strings.Join(slices.Sorted(maps.Keys(ignored)), "\n") + "\n"
	const golden = "testdata/coverage/istiod.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || got != string(want) {
		t.Errorf("%v; got:\n%s", err, got)
	}
}

// rawClientListener is a listener named l that leads to the routes r.
func rawClientListener(manager rawProto) rawProto {
	source := rawProto{}.msg(1, rawProto{}.msg(3, rawProto{})).text(2, "r")
	manager = manager.msg(3, source).msg(5, rawProto{}.text(1, "router").packed(4, typeRouter, nil))
	return rawProto{}.text(1, "l").msg(19, rawProto{}.packed(1, typeConnectionManager, manager))
}

// strictMachine is a machine that was asked for one route configuration, in strict
// mode or not.
func strictMachine(strict bool) (*discovery, time.Time) {
	now := time.Unix(0, 0)
	d := newDiscovery(time.Minute)
	d.strict = strict
	d.refer(now, "l")
	d.connect(now, false)
	l := rawClientListener(nil)
	d.receive(now, adsResponse{version: "1", nonce: "1", typeURL: kindListener.typeURL(), resources: []rawResource{{typeURL: kindListener.typeURL(), value: l}}})
	d.take()
	return d, now
}

func (d *discovery) receiveRoutes(now time.Time, nonce string, raw []byte) (nack string) {
	d.receive(now, adsResponse{version: nonce, nonce: nonce, typeURL: kindRoute.typeURL(), resources: []rawResource{{typeURL: kindRoute.typeURL(), value: raw}}})
	for _, r := range d.take().requests {
		if r.kind == kindRoute {
			nack = r.nack
		}
	}
	return nack
}

func TestStrictRefusesWhatIsIgnored(t *testing.T) {
	d, now := strictMachine(true)
	plain := rawHosts(rawProto{}.text(1, "v").text(2, "v").msg(3, rawRoute("default", rawEverything, rawProto{}.text(1, "c"))))
	if nack := d.receiveRoutes(now, "1", plain); nack != "" {
		t.Fatalf("all of it is applied, and refused: %s", nack)
	}
	before := d.entries[kindRoute]["r"].value
	nack := d.receiveRoutes(now, "2", rawHosts(limitedHost("a")))
	for _, want := range []string{"strict", "virtual_hosts[a].rate_limits", "virtual_hosts[*].field 999"} {
		if !strings.Contains(nack, want) {
			t.Errorf("%q does not name %s", nack, want)
		}
	}
	e := d.entries[kindRoute]["r"]
	if e.value != before || e.status != statusAccepted || len(e.ignored) > 0 {
		t.Errorf("the last good one does not stay: %+v", e.resourceState)
	}
	if !slices.Contains(e.rejectedFields, "virtual_hosts[a].rate_limits") {
		t.Errorf("rejected %q", e.rejectedFields)
	}
}

// TestStrictLetsOffersPass: else no cluster of a sidecar would be accepted.
func TestStrictLetsOffersPass(t *testing.T) {
	got := decoded{ignored: []string{"transport_socket_matches"}}
	if err := newSurveyor().complete(kindCluster, rawProto{}.text(1, "c"), &got, true); err != nil || len(got.ignored) != 1 {
		t.Error(err, got.ignored)
	}
}

func TestWhatIsIgnoredIsAppliedAroundUnlessStrict(t *testing.T) {
	d, now := strictMachine(false)
	if nack := d.receiveRoutes(now, "1", rawHosts(limitedHost("a"))); nack != "" {
		t.Fatal(nack)
	}
	if e := d.entries[kindRoute]["r"]; !slices.Contains(e.ignored, "virtual_hosts[a].rate_limits") || len(e.applied) == 0 {
		t.Errorf("%+v", e.resourceState)
	}
}

func TestARefusedFieldIsNamed(t *testing.T) {
	d, now := strictMachine(false)
	d.receiveRoutes(now, "1", rawHosts(rawProto{}.text(1, "v").text(2, "a*b")))
	if e := d.entries[kindRoute]["r"]; !slices.Equal(e.rejectedFields, []string{"virtual_hosts[0].domains[0]"}) {
		t.Errorf("rejected %q", e.rejectedFields)
	}
}

func TestCoverageAsText(t *testing.T) {
	row := ResourceCoverage{Kind: "route", Name: "r", Status: "ok", Applied: []string{"name"}, Ignored: []string{"vhds"}, Rejected: []string{"a.b"}, Reason: "a.b: no"}
	want := "route r: ok\n  refused   a.b: no\n  rejected  a.b\n  ignored   vhds\n  applied   name\n"
	if got := row.String(); got != want {
		t.Errorf("%q", got)
	}
	q, _ := quietQoS(t, QoS{})
	q.facts.coverage = func() []ResourceCoverage { return []ResourceCoverage{row} }
	if code, text := (askQoS{target: "/coverage"}).of(q.handler()); code != 200 || text != want {
		t.Error(code, text)
	}
	if code, text := (askQoS{target: "/coverage/json"}).of(q.handler()); code != 200 || !strings.Contains(text, `"reason": "a.b: no"`) {
		t.Error(code, text)
	}
	if code, _ := (askQoS{target: "/coverage", from: "10.0.0.1:1"}).of(q.handler()); code != 403 {
		t.Error(code)
	}
}

// FuzzSurvey feeds the walk what no decoder has checked: it must not panic, and
// must not learn without limit.
func FuzzSurvey(f *testing.F) {
	for _, raw := range istiodAnswers(f) {
		if r, err := decodeADSResponse(raw); err == nil && len(r.resources) > 0 {
			k, _ := kindOf(r.typeURL)
			f.Add(uint8(k), r.resources[0].value)
		}
	}
	s := newSurveyor()
	f.Fuzz(func(t *testing.T, k uint8, raw []byte) {
		s.survey(kind(k)%kindCount, raw, new(decoded))
		if len(s.nodes) > maxPaths || len(s.made) > maxMade {
			t.Fatal(len(s.nodes), len(s.made))
		}
	})
}

// BenchmarkSurvey is what the report adds to decoding.
func BenchmarkSurvey(b *testing.B) {
	cases := []struct {
		name string
		kind kind
		raw  []byte
	}{
		{"routes=1", kindRoute, rawServices(1, 1)}, {"routes=1000", kindRoute, rawServices(100, 10)},
	}
	for _, n := range []int{10, 1000, 10_000} {
		cases = append(cases, struct {
			name string
			kind kind
			raw  []byte
		}{"endpoints=" + strconv.Itoa(n), kindEndpoints, rawAssignment(n)})
	}
	for _, tt := range cases {
		b.Run(tt.name, func(b *testing.B) {
			got, err := decodeResource(tt.kind, tt.raw)
			if err != nil {
				b.Fatal(err)
			}
			s := newSurveyor()
			b.ReportAllocs()
			for b.Loop() {
				s.survey(tt.kind, tt.raw, &got)
			}
		})
	}
}
