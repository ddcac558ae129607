package proxyless

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/proxyless/proxyless/meshtest"
)

// fullAnswers are what a real istiod sends in the full view, in each protocol.
func fullAnswers(t testing.TB) (sotw, delta map[string][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "istiod", "full-*.binpb"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	sotw, delta = map[string][]byte{}, map[string][]byte{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if name := filepath.Base(file); strings.HasPrefix(name, "full-delta-") {
			delta[name] = raw
		} else {
			sotw[name] = raw
		}
	}
	return sotw, delta
}

// fuzzDecode checks what holds for every decoder: it does not panic, it gives
// an error or a result and never both, it gives the same again, and it leaves
// the response as it was. It starts from what istiod sends, and from seeds for
// what istiod did not send when it was asked.
func fuzzDecode(f *testing.F, k kind, check func(*testing.T, decoded), seeds ...rawProto) {
	add := func(answers map[string][]byte, decode func([]byte) (adsResponse, error)) {
		for name, answer := range answers {
			response, err := decode(answer)
			if err != nil {
				f.Fatal(name, err)
			}
			for _, r := range response.resources {
				if r.typeURL == k.typeURL() {
					f.Add(r.value)
				}
			}
		}
	}
	sotw, delta := fullAnswers(f)
	add(istiodAnswers(f), decodeADSResponse)
	add(sotw, decodeADSResponse)
	add(delta, decodeDeltaResponse)
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		got, err := decodeResource(k, raw)
		again, err2 := decodeResource(k, raw)
		if !reflect.DeepEqual(got, again) || (err == nil) != (err2 == nil) || err != nil && err.Error() != err2.Error() {
			t.Fatalf("first %+v, %v, then %+v, %v", got, err, again, err2)
		}
		if !bytes.Equal(raw, before) {
			t.Fatal("the response was written to")
		}
		if err != nil {
			if got.value != nil || got.ignored != nil || err.Error() == "" {
				t.Fatalf("an error and a result: %+v, %v", got, err)
			}
			return
		}
		if got.name == "" || got.name != resourceName(k, raw) || len(got.ignored) > maxIgnored+1 {
			t.Fatalf("name %q, %d ignored", got.name, len(got.ignored))
		}
		check(t, got)
	})
}

func FuzzDecodeListener(f *testing.F) {
	fault := rawFilter("envoy.filters.http.fault", typeFault, rawProto{}.msg(1, rawProto{}.msg(3, rawSeconds(1)).msg(4, rawProto{}.num(1, 25))).msg(2, rawProto{}.num(5, 14).msg(3, rawProto{}.num(1, 5))))
	rbac := rawFilter("rbac", "envoy.extensions.filters.http.rbac.v3.RBAC", nil)
	fuzzDecode(f, kindListener, func(t *testing.T, got decoded) {
		l := got.value.(*listener)
		kinds := 0
		for _, is := range []bool{l.routeName != "" || l.inline != nil, len(l.outbound) > 0, len(l.inbound) > 0} {
			if is {
				kinds++
			}
		}
		if kinds != 1 || l.routeName != "" && l.inline != nil {
			t.Fatalf("not one of the three kinds: %+v", l)
		}
		for i := range l.outbound {
			if h := l.outbound[i].http; h != nil && h.inline != nil {
				checkRoutes(t, h.inline)
			}
		}
		if l.inline != nil {
			checkRoutes(t, l.inline)
		}
	},
		rawAPIListener(rawManager().msg(3, rawRDS)),
		rawAPIListener(rawManager(fault, rawRouter).msg(4, everyPolicy())),
		rawAPIListener(rawManager().msg(4, rawRoutes(rawRoute("r", rawEverything, rawDefaultAction(reviews)))).msg(35, rawProto{}.msg(4, rawSeconds(30)))),
		rawInbound(rawChain("inbound-mtls", rawManager(rbac, rawRouter), "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext")),
	)
}

func FuzzDecodeRouteConfig(f *testing.F) {
	header := rawProto{}.text(1, "/").msg(6, rawHeader("a", rawProto{}.msg(5, rawRegex("v[0-9]+"))), rawProto{}.text(1, "b").msg(6, rawProto{}.num(2, 7)).num(8, 1))
	fuzzDecode(f, kindRoute, func(t *testing.T, got decoded) { checkRoutes(t, got.value.(*routeConfig)) },
		rawRoutes(rawRoute("default", rawEverything, rawDefaultAction(reviews))),
		everyPolicy(),
		rawRoutes(rawRoute("h", header, rawProto{}.text(1, "a").msg(36, rawProto{}.msg(1, rawSeconds(3))))),
		rawRoutes(rawRoute("w", rawProto{}.text(14, "/a").msg(9, rawProto{}.msg(1, rawProto{}.num(1, 5))), rawProto{}.msg(3, rawProto{}.msg(1, rawProto{}.text(1, "a").wrap(2, 1), rawProto{}.text(1, "b").wrap(2, 2))))),
	)
}

// everyPolicy is a route that asks for all that routes may ask for.
func everyPolicy() rawProto {
	share, ttl := uint32(250000), time.Minute
	mutation := meshtest.HeaderMutation{Set: []meshtest.Header{{Name: "a", Value: "%REQ(b)%"}}, Add: []meshtest.Header{{Name: "b", Value: "1"}}, Remove: []string{"c"}}
	return rawProto(meshtest.RouteConfiguration{Name: "r", VirtualHosts: []meshtest.VirtualHost{{Name: "a", Domains: []string{"*"}, Routes: []meshtest.Route{{
		Name: "all", Prefix: "/",
		Clusters: []meshtest.WeightedCluster{{Name: "a", Weight: 1, RequestHeaders: mutation}, {Name: "b", Weight: 2, ResponseHeaders: mutation}},
		Retry: &meshtest.RetryPolicy{On: "unavailable,5xx,retriable-status-codes", Retries: 3, PerTryTimeout: time.Second, PreviousHosts: true,
			PreviousPriorities: true, Codes: []uint32{503}, Backoff: time.Millisecond, MaxBackoff: time.Second},
		Fault:          &meshtest.Fault{Delay: time.Second, DelayShare: share, AbortGRPC: codes.Aborted, AbortShare: share, ByHeader: true},
		Mirrors:        []meshtest.Mirror{{Cluster: "c", Share: &share}, {Cluster: "d"}},
		Hash:           []meshtest.HashPolicy{{Header: "h", HeaderRegex: &meshtest.Rewrite{Pattern: "(.).*", Substitution: `\\1`}, Terminal: true}, {Cookie: "s", CookiePath: "/", CookieTTL: &ttl}, {SourceIP: true}, {Query: "q"}},
		RequestHeaders: mutation, ResponseHeaders: mutation,
	}}}}}.Marshal())
}

func checkRoutes(t *testing.T, c *routeConfig) {
	call := &callHeaders{path: "/a.B/Get", authority: "a:80", md: metadata.MD{"a": {"v1"}, "b": {"7"}}}
	matchDomain(c.virtualHosts, call.authority)
	for _, v := range c.virtualHosts {
		for i := range v.routes {
			r := &v.routes[i]
			var sum uint32
			for _, w := range r.clusters {
				if sum += w.weight; w.name == "" || w.weight == 0 {
					t.Fatalf("%+v", r)
				}
			}
			if sum != r.total || (sum == 0) != (r.failure != "" || r.header != "") || r.failure != "" && r.header != "" {
				t.Fatalf("%+v", r)
			}
			if r.match.matches(call.path, call, 0) && r.match.never != "" {
				t.Fatalf("%+v", r.match)
			}
			if r.match.everything() && !r.match.matches(call.path, nil, fractionScale-1) {
				t.Fatalf("%+v", r.match)
			}
		}
	}
}

func FuzzDecodeCluster(f *testing.F) {
	fuzzDecode(f, kindCluster, func(t *testing.T, got decoded) {
		c := got.value.(*cluster)
		if (c.edsName != "") != (c.source == discoverEDS && !strings.HasPrefix(c.failure, "its ")) || c.conn.connectTimeout < 0 || c.conn.idleTimeout < 0 {
			t.Fatalf("%+v", c)
		}
		if (c.source == discoverStatic || len(c.names) > 0) != (c.inline != nil) && c.source != discoverStrictDNS || (c.source == discoverAggregate) != (len(c.children) > 0) {
			t.Fatalf("%+v", c)
		}
		for _, n := range c.names {
			if n.host == "" || n.port == 0 || n.weight == 0 || n.locality >= len(c.inline.localities) {
				t.Fatalf("%+v", n)
			}
		}
		b := &c.balance
		if least, most := b.ring(); least > most || b.choices == 1 || b.slow.window < 0 || b.slow.least > 1 || b.bounded > 0 && b.bounded < 100 {
			t.Fatalf("%+v", b)
		}
		if o := c.outlier; o != nil && (o.maxTime < o.baseTime || o.maxEjected > 100) {
			t.Fatalf("%+v", o)
		}
	},
		rawCluster(),
		rawCluster().num(6, 2).msg(10, rawProto{}.msg(1, rawProto{}.wrap(4, 100))).msg(24, rawSocket("envoy.transport_sockets.tls", rawTLSType)),
		rawCluster().msg(19, rawProto{}.wrap(1, 3).msg(3, rawSeconds(400))).msg(27, rawProto{}.msg(1, rawDouble(1, 30)).msg(8, rawProto{}.text(1, "\x01\x03"))),
		rawCluster().num(6, 1).msg(37, rawProto{}.wrap(1, 3).msg(3, rawProto{}.msg(1, rawSeconds(30)).msg(2, rawDouble(1, 1.5)).msg(3, rawDouble(1, 20)))),
		rawCluster().entry(36, typeHTTPOptions, rawProto{}.text(1, "x/"+typeHTTPOptions).msg(2, rawProto{}.msg(1, rawProto{}.wrap(6, 11)).msg(3, rawProto{}.msg(2, rawProto{}.wrap(2, 13))))),
		rawCluster().msg(41, rawPolicy(typeRandomSubsetting, rawProto{}.wrap(1, 20).msg(2, rawPolicy(typeReportedRoundRobin, rawProto{}.msg(6, rawFloat(1, 0.5)))))),
		rawProto{}.text(1, "dns").num(2, enumStrictDNS).msg(33, rawProto{}.msg(2, rawLocality("eu", "b", 1, 0, rawNamed("b.example.org", 80, 3)))),
		rawCluster().msg(38, rawProto{}.text(1, "envoy.clusters.aggregate").packed(2, typeAggregate, rawProto{}.text(1, "a", "b"))),
		rawProto(meshtest.Cluster{Name: "c", Balancer: &meshtest.LoadBalancer{Policy: meshtest.RingHash, RingSize: 64, Warmup: &meshtest.Warmup{}},
			Outliers: &meshtest.OutlierDetection{Consecutive5xx: 3, ConsecutiveGatewayFailures: 2, ConsecutiveLocalFailures: 4, SplitLocalErrors: true,
				Interval: time.Second, BaseEjectionTime: time.Second, MaxEjectionTime: time.Minute, MaxEjectionPercent: 50, MinHealthPercent: 20}}.Marshal()),
		rawProto(meshtest.Cluster{Name: "c", Balancer: &meshtest.LoadBalancer{Policy: meshtest.Maglev, TableSize: 251}}.Marshal()),
		rawCluster().msg(41, rawPolicies(typeRoundRobin)).msg(43, rawProto{}.msg(3, rawSocket("", typeRawBuffer))),
	)
}

func FuzzDecodeAssignment(f *testing.F) {
	fuzzDecode(f, kindEndpoints, func(t *testing.T, got decoded) {
		a := got.value.(*assignment)
		at, priority := 0, uint32(0)
		for _, l := range a.localities {
			if l.first != at || l.count < 0 || l.priority < priority {
				t.Fatalf("%+v", a.localities)
			}
			at, priority = at+l.count, l.priority
		}
		seen := map[netip.AddrPort]bool{}
		for _, e := range a.endpoints {
			if seen[e.addr] || !e.addr.IsValid() || e.addr.Port() == 0 || e.weight == 0 || !e.health.usable() {
				t.Fatalf("%+v", e)
			}
			seen[e.addr] = true
		}
		if at != len(a.endpoints) {
			t.Fatalf("%d endpoints, %d in localities", len(a.endpoints), at)
		}
	},
		rawAssignment(4),
		rawCLA(rawLocality("eu", "a", 1, 3, rawEndpoint("2001:db8::1", 80, 1, 300), rawEndpoint("host", 80, 2, 1)), rawLocality("eu", "b", 0, 1)),
		rawCLA().msg(4, rawProto{}.msg(2, rawProto{}.msg(2, rawProto{}.num(1, 5)))),
	)
}

// FuzzUsualEndpoint holds the short way of reading an endpoint against the
// general one, and the reading of addresses against netip.
func FuzzUsualEndpoint(f *testing.F) {
	f.Add([]byte(rawEndpoint("10.244.13.7", 50052, 1, 1)))
	f.Add([]byte("10.244.13.7"))
	f.Add([]byte("fd00:10:244::1f"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		checkUsualEndpoint(t, raw)
		want, err := netip.ParseAddr(string(raw))
		if got, ok := parseIP(raw); ok != (err == nil) || got != want.Unmap() {
			t.Fatalf("%q: %v %v, want %v %v", raw, got, ok, want, err)
		}
	})
}

func FuzzDecodeADSResponse(f *testing.F) {
	for _, answer := range istiodAnswers(f) {
		f.Add(answer)
	}
	f.Add([]byte(rawProto{}.packed(2, wrapperType, rawProto{}.packed(2, "envoy.config.cluster.v3.Cluster", rawCluster()).text(3, reviews))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := decodeADSResponse(raw)
		again, err2 := decodeADSResponse(raw)
		if !reflect.DeepEqual(got, again) || (err == nil) != (err2 == nil) {
			t.Fatalf("first %+v, %v, then %+v, %v", got, err, again, err2)
		}
		if err != nil && !reflect.DeepEqual(got, adsResponse{}) {
			t.Fatalf("an error and a result: %+v, %v", got, err)
		}
		for _, r := range got.resources {
			if k, ok := kindOf(r.typeURL); ok {
				resourceName(k, r.value)
			}
		}
	})
}

func FuzzDecodeDeltaResponse(f *testing.F) {
	_, answers := fullAnswers(f)
	for _, answer := range answers {
		f.Add(answer)
	}
	f.Add([]byte(rawProto{}.text(1, "v").msg(2, rawProto{}.text(3, "a").text(1, "v1")).text(4, kindCluster.typeURL()).text(5, "n").text(6, "b", "c")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		got, err := decodeDeltaResponse(raw)
		again, err2 := decodeDeltaResponse(raw)
		if !reflect.DeepEqual(got, again) || (err == nil) != (err2 == nil) || !bytes.Equal(raw, before) {
			t.Fatalf("first %+v, %v, then %+v, %v", got, err, again, err2)
		}
		if err != nil && !reflect.DeepEqual(got, adsResponse{}) {
			t.Fatalf("an error and a result: %+v, %v", got, err)
		}
		for _, r := range got.resources {
			if k, ok := kindOf(r.typeURL); ok {
				resourceName(k, r.value)
			}
		}
	})
}
