package proxyless

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// istioRetryOn is the policy that Istio gives to every route without one.
const istioRetryOn = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"

const (
	reviews   = "outbound|9080||reviews.demo.svc.cluster.local"
	reviewsV1 = "outbound|9080|v1|reviews.demo.svc.cluster.local"
	reviewsV2 = "outbound|9080|v2|reviews.demo.svc.cluster.local"
)

// rawRoutes is the route configuration of the service reviews with the given
// routes, as istiod sends it.
func rawRoutes(routes ...rawProto) rawProto {
	host := rawProto{}.text(1, "reviews.demo.svc.cluster.local:9080").text(2, "reviews.demo.svc.cluster.local", "Reviews.demo:9080").msg(3, routes...)
	return rawProto{}.text(1, reviews).msg(2, host)
}

// rawDefaultAction is the action of a route without any settings: Istio sets
// no timeout, and its own retry policy.
func rawDefaultAction(cluster string) rawProto {
	return rawProto{}.text(1, cluster).msg(8, rawProto{}).msg(9, rawRetry(istioRetryOn, 2)).msg(23, rawProto{})
}

func rawRetry(on string, n uint64) rawProto {
	return rawProto{}.text(1, on).wrap(2, n).msg(5, rawProto{}.text(1, "envoy.retry_host_predicates.previous_hosts")).num(6, 5)
}

func rawRoute(name string, match, action rawProto) rawProto {
	return rawProto{}.msg(1, match).msg(2, action).text(14, name)
}

func rawSeconds(n uint64) rawProto { return rawProto{}.num(1, n) }

func rawRegex(pattern string) rawProto { return rawProto{}.msg(1, rawProto{}).text(2, pattern) }

// rawHeader is a HeaderMatcher with a StringMatcher.
func rawHeader(name string, match rawProto) rawProto { return rawProto{}.text(1, name).msg(13, match) }

var rawEverything = rawProto{}.text(1, "/")

// describe writes a route configuration down as text, a line for each route.
func (c *routeConfig) describe() string {
	var b strings.Builder
	for _, v := range c.virtualHosts {
		fmt.Fprintf(&b, "%s %v\n", v.name, v.domains)
		for i := range v.routes {
			fmt.Fprintf(&b, "  %s\n", v.routes[i].describe())
		}
	}
	return b.String()
}

func (r *route) describe() string {
	m := &r.match
	s := r.name + ": "
	s += [...]string{"any", "prefix " + m.text, "path " + m.text, "regex " + m.text, "below " + m.text}[m.path]
	if m.foldCase {
		s += " (any case)"
	}
	for _, h := range m.headers {
		s += ", " + h.describe()
	}
	if m.partial {
		s += fmt.Sprintf(", %d ppm", m.fraction)
	}
	if m.never != "" {
		s += ", never: " + m.never
	}
	s += " ->"
	for _, w := range r.clusters {
		s += fmt.Sprintf(" %s=%d/%d", w.name, w.weight, r.total)
	}
	if r.header != "" {
		s += " of " + r.header
	}
	if r.code != codes.OK {
		s += " " + strings.ToUpper(r.code.String())
	}
	if r.hasMaxDuration {
		s += fmt.Sprintf(" within %v", r.maxDuration)
	}
	s += " " + r.failure
	switch {
	case r.policy == nil:
		return s
	case reflect.DeepEqual(*r.policy, routePolicy{retry: istioRetries}):
		return s + " as Istio retries"
	}
	return s + " " + describeValue(reflect.ValueOf(r.policy))
}

// istioRetries is Istio's policy as it is kept.
var istioRetries = &retryPolicy{
	on:      retryConnectFailure | retryRefusedStream | retryStatusCodes,
	codes:   1<<codes.Unavailable | 1<<codes.Canceled,
	retries: 2, base: 25 * time.Millisecond, max: 250 * time.Millisecond, previousHosts: true, reselect: 5,
}

func (m *headerMatch) describe() string {
	s := m.name + " " + [...]string{"is there", "is not there", "= ", "starts with ", "ends with ", "contains ", "matches ", "in ", "never"}[m.kind] + m.text
	if m.kind == headerRange {
		s += fmt.Sprintf("[%d,%d)", m.start, m.end)
	}
	for i, set := range []bool{m.foldCase, m.invert, m.missingEmpty} {
		if set {
			s += []string{" (any case)", " (inverted)", " (missing is empty)"}[i]
		}
	}
	return s
}

// What a VirtualService (and with it a route of the Gateway API) turns into.
func TestVirtualService(t *testing.T) {
	const host = "virtual_hosts[reviews.demo.svc.cluster.local:9080]."
	to := func(cluster string) rawProto { return rawProto{}.text(1, cluster) }
	for name, test := range map[string]struct {
		routes  []rawProto
		want    []string
		ignored []string
	}{
		"none": {
			[]rawProto{rawRoute("default", rawEverything, rawDefaultAction(reviews)), rawRoute("default2", rawEverything, rawDefaultAction(reviews))},
			[]string{"default: any -> " + reviews + "=1/1  as Istio retries", "default2: any -> " + reviews + "=1/1  as Istio retries"}, nil,
		},
		"weights": {
			[]rawProto{rawRoute("canary", rawEverything, rawProto{}.msg(3, rawProto{}.
				msg(1, rawProto{}.text(1, reviewsV1).wrap(2, 90), rawProto{}.text(1, reviewsV2).wrap(2, 10), rawProto{}.text(1, "no weight"), rawProto{}.text(1, "none").wrap(2, 0)).
				wrap(3, 100)))},
			[]string{"canary: any -> " + reviewsV1 + "=90/100 " + reviewsV2 + "=10/100 "}, nil,
		},
		"match.uri": {
			[]rawProto{
				rawRoute("exact", rawProto{}.text(2, "/demo.Reviews/Get"), to("a")),
				rawRoute("prefix", rawProto{}.text(1, "/demo.Reviews/").wrap(4, 0), to("a")),
				rawRoute("regex", rawProto{}.msg(10, rawRegex("/demo\\.Reviews/(Get|List)")).wrap(4, 0), to("a")),
				rawRoute("empty", rawProto{}.text(1, "").wrap(4, 1), to("a")),
			},
			[]string{"exact: path /demo.Reviews/Get -> a=1/1 ", "prefix: prefix /demo.Reviews/ (any case) -> a=1/1 ",
				"regex: regex /demo\\.Reviews/(Get|List) -> a=1/1 ", "empty: any -> a=1/1 "}, nil,
		},
		"a path prefix of the Gateway API": {
			[]rawProto{rawRoute("one", rawProto{}.text(14, "/demo.Reviews/"), to("a")), rawRoute("all", rawProto{}.text(14, "/"), to("a"))},
			[]string{"one: below /demo.Reviews -> a=1/1 ", "all: any -> a=1/1 "}, nil,
		},
		"match.headers": {
			[]rawProto{rawRoute("h", rawProto{}.text(1, "/").msg(6,
				rawHeader("End-User", rawProto{}.text(1, "jason")),
				rawHeader("a", rawProto{}.text(2, "x").num(6, 1)),
				rawHeader("b", rawProto{}.text(3, "x")),
				rawHeader("c", rawProto{}.text(7, "x")),
				rawHeader("d", rawProto{}.msg(5, rawRegex("v[0-9]+")).num(6, 1)),
				rawProto{}.text(1, "e").num(7, 1),
				rawProto{}.text(1, "f").num(7, 0),
				rawProto{}.text(1, "g")), to("a"))},
			[]string{"h: any, end-user = jason, a starts with x (any case), b ends with x, c contains x, d matches v[0-9]+, " +
				"e is there, f is not there, g is there -> a=1/1 "}, nil,
		},
		"match.headers in their old form": {
			[]rawProto{rawRoute("h", rawProto{}.text(1, "/").msg(6,
				rawProto{}.text(1, "a").text(4, "x"), rawProto{}.text(1, "b").msg(6, rawProto{}.num(1, ^uint64(0)).num(2, 7)), rawProto{}.text(1, "c").text(9, "x"),
				rawProto{}.text(1, "d").text(10, "x"), rawProto{}.text(1, "e").msg(11, rawRegex("x+")), rawProto{}.text(1, "f").text(12, "x")), to("a"))},
			[]string{"h: any, a = x, b in [-1,7), c starts with x, d ends with x, e matches x+, f contains x -> a=1/1 "}, nil,
		},
		"match.withoutHeaders": {
			[]rawProto{rawRoute("h", rawProto{}.text(1, "/").msg(6, rawProto{}.text(1, "canary").num(8, 1).msg(13, rawProto{}.text(1, "true")),
				rawProto{}.text(1, "debug").num(14, 1).msg(13, rawProto{}.text(1, "")), rawProto{}.text(1, "beta").num(7, 1).num(8, 1)), to("a"))},
			[]string{"h: any, canary = true (inverted), debug =  (missing is empty), beta is there (inverted) -> a=1/1 "}, nil,
		},
		"match.authority, scheme, method": {
			[]rawProto{rawRoute("h", rawProto{}.text(1, "/").msg(6, rawHeader(":authority", rawProto{}.text(1, "a")), rawHeader("Host", rawProto{}.text(1, "a")),
				rawHeader(":method", rawProto{}.text(1, "POST"))), to("a"))},
			[]string{"h: any, :authority = a, :authority = a, :method = POST -> a=1/1 "}, nil,
		},
		"a share of the calls": {
			[]rawProto{rawRoute("some", rawProto{}.text(1, "/").msg(9, rawProto{}.msg(1, rawProto{}.num(1, 25).num(2, 1)).text(2, "key")), to("a")),
				rawRoute("none", rawProto{}.text(1, "/").msg(9, rawProto{}), to("a")),
				rawRoute("all", rawProto{}.text(1, "/").msg(9, rawProto{}.msg(1, rawProto{}.num(1, 100))), to("a"))},
			[]string{"some: any, 2500 ppm -> a=1/1 ", "none: any, 0 ppm -> a=1/1 ", "all: any -> a=1/1 "}, nil,
		},
		"what no call has never matches, and costs that route only": {
			[]rawProto{
				rawRoute("query", rawProto{}.text(1, "/").msg(7, rawProto{}.text(1, "q")), to("a")),
				rawRoute("claims", rawProto{}.text(1, "/").msg(13, rawProto{}), to("a")),
				rawRoute("tls", rawProto{}.text(1, "/").msg(11, rawProto{}), to("a")),
				rawRoute("state", rawProto{}.text(1, "/").msg(16, rawProto{}), to("a")),
				rawRoute("cookies", rawProto{}.text(1, "/").msg(17, rawProto{}.text(1, "c").msg(2, rawProto{}.num(99, 1))), to("a")),
				rawRoute("connect", rawProto{}.msg(12, rawProto{}), to("a")),
				rawRoute("policy", rawProto{}.msg(15, rawProto{}.packed(2, "a.Matcher", nil)), to("a")),
				rawRoute("new", rawProto{}.text(1, "/").num(99, 1), to("a")),
				rawRoute("new path", rawProto{}, to("a")),
				rawRoute("new header", rawProto{}.text(1, "/").msg(6, rawProto{}.text(1, "h").num(99, 1)), to("a")),
				rawRoute("new string", rawProto{}.text(1, "/").msg(6, rawHeader("h", rawProto{}.num(99, 1))), to("a")),
				rawRoute("custom string", rawProto{}.text(1, "/").msg(6, rawHeader("h", rawProto{}.msg(8, rawProto{}))), to("a")),
				rawRoute("grpc", rawProto{}.text(1, "/").msg(8, rawProto{}), to("a")),
			},
			[]string{
				"query: any, never: query_parameters, which a gRPC call has none of -> its match has query_parameters, which a gRPC call has none of, so that it never matches",
				"claims: any, never: dynamic_metadata, which is not supported -> its match has dynamic_metadata, which is not supported, so that it never matches",
				"tls: any, never: tls_context, which is not supported -> its match has tls_context, which is not supported, so that it never matches",
				"state: any, never: filter_state, which is not supported -> its match has filter_state, which is not supported, so that it never matches",
				"cookies: any, cookie = , never: cookies.string_match of an unknown kind, which is not supported -> its match has cookies.string_match of an unknown kind, which is not supported, so that it never matches",
				"connect: any, never: connect_matcher, which a gRPC call is no CONNECT for -> its match has connect_matcher, which a gRPC call is no CONNECT for, so that it never matches",
				"policy: any, never: path_match_policy (a.Matcher), which is not supported -> its match has path_match_policy (a.Matcher), which is not supported, so that it never matches",
				"new: any, never: field 99, which is not supported -> its match has field 99, which is not supported, so that it never matches",
				"new path: any, never: path_specifier of an unknown kind, which is not supported -> its match has path_specifier of an unknown kind, which is not supported, so that it never matches",
				"new header: any, h is there, never: headers.field 99, which is not supported -> its match has headers.field 99, which is not supported, so that it never matches",
				"new string: any, h is there, never: headers.string_match of an unknown kind, which is not supported -> its match has headers.string_match of an unknown kind, which is not supported, so that it never matches",
				"custom string: any, h is there, never: headers.string_match.custom, which is not supported -> its match has headers.string_match.custom, which is not supported, so that it never matches",
				"grpc: any -> a=1/1 ",
			},
			[]string{
				host + "routes[claims].match.dynamic_metadata", host + "routes[tls].match.tls_context",
				host + "routes[state].match.filter_state", host + "routes[cookies].match.cookies.string_match of an unknown kind",
				host + "routes[policy].match.path_match_policy (a.Matcher)", host + "routes[new].match.field 99", host + "routes[new path].match.path_specifier of an unknown kind",
				host + "routes[new header].match.headers.field 99", host + "routes[new string].match.headers.string_match of an unknown kind",
				host + "routes[custom string].match.headers.string_match.custom",
			},
		},
		"timeout": {
			[]rawProto{
				rawRoute("set", rawEverything, to("a").msg(8, rawSeconds(3)).msg(36, rawProto{}.msg(1, rawSeconds(3)))),
				rawRoute("unset", rawEverything, to("a").msg(8, rawProto{}).msg(36, rawProto{}.msg(1, rawProto{}))),
				rawRoute("header", rawEverything, to("a").msg(36, rawProto{}.msg(1, rawSeconds(3)).msg(2, rawSeconds(9)))),
				rawRoute("absent", rawEverything, to("a").msg(36, rawProto{})),
				rawRoute("envoy", rawEverything, to("a").msg(8, rawSeconds(3)).msg(23, rawSeconds(1))),
				rawRoute("old", rawEverything, to("a").msg(8, rawSeconds(3))),
				rawRoute("none", rawEverything, to("a").msg(8, rawSeconds(3)).msg(23, rawProto{})),
				rawRoute("offset", rawEverything, to("a").msg(36, rawProto{}.msg(1, rawSeconds(3)).msg(3, rawSeconds(1)))),
			},
			[]string{"set: any -> a=1/1 within 3s ", "unset: any -> a=1/1 within 0s ", "header: any -> a=1/1 within 9s ", "absent: any -> a=1/1 ", "envoy: any -> a=1/1 within 1s ", "old: any -> a=1/1 within 3s ", "none: any -> a=1/1 ",
				"offset: any -> a=1/1 within 3s "},
			[]string{host + "routes[offset].route.max_stream_duration.grpc_timeout_header_offset"},
		},
		"what cannot carry a call": {
			[]rawProto{
				rawProto{}.msg(1, rawEverything).msg(3, rawProto{}.text(1, "elsewhere")).text(14, "redirect"),
				rawProto{}.msg(1, rawEverything).msg(7, rawProto{}.num(1, 418).msg(2, rawProto{}.text(3, "teapot"))).text(14, "direct"),
				rawProto{}.msg(1, rawEverything).msg(7, rawProto{}.num(1, 429).msg(2, rawProto{}.text(1, "/etc/file"))).text(14, "busy"),
				rawProto{}.msg(1, rawEverything).msg(18, rawProto{}).text(14, "server"),
				rawProto{}.msg(1, rawEverything).text(14, "nothing"),
				rawRoute("header", rawEverything, rawProto{}.text(2, "X-Cluster")),
				rawRoute("weights", rawEverything, rawProto{}.msg(3, rawProto{}.msg(1, rawProto{}.text(12, "h").wrap(2, 1)))),
				rawRoute("plugin", rawEverything, rawProto{}.text(37, "rls")),
				rawRoute("no cluster", rawEverything, rawProto{}),
				rawRoute("the last one wins", rawEverything, rawProto{}.text(1, "a").text(2, "x-cluster").text(1, "b")),
			},
			[]string{
				"redirect: any -> UNKNOWN the route answers with a redirect to elsewhere, which a gRPC call cannot follow",
				"direct: any -> UNKNOWN the route answers every call directly, with HTTP status 418: teapot",
				"busy: any -> UNAVAILABLE the route answers every call directly, with HTTP status 429",
				"server: any -> the route does not forward: it is meant for servers",
				"nothing: any -> the route has no action that is known",
				"header: any -> of x-cluster ", "weights: any -> the route takes one of its weighted clusters from a header, which is not supported",
				"plugin: any -> the route takes its cluster from a plugin, which is not supported",
				"no cluster: any -> the route names no cluster",
				"the last one wins: any -> b=1/1 ",
			}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeResource(kindRoute, rawRoutes(test.routes...))
			if err != nil {
				t.Fatal(err)
			}
			want := "reviews.demo.svc.cluster.local:9080 [reviews.demo.svc.cluster.local reviews.demo:9080]\n  " + strings.Join(test.want, "\n  ") + "\n"
			if text := got.value.(*routeConfig).describe(); text != want {
				t.Errorf("got\n%s\nwant\n%s", text, want)
			}
			if !sameElements(got.ignored, test.ignored) {
				t.Errorf("ignored\n%s\nwant\n%s", strings.Join(got.ignored, "\n"), strings.Join(test.ignored, "\n"))
			}
			if got.name != reviews {
				t.Errorf("name %q", got.name)
			}
		})
	}
}

func sameElements(a, b []string) bool {
	count := map[string]int{}
	for _, s := range a {
		count[s]++
	}
	for _, s := range b {
		count[s]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestPolicyAboveTheRoutesIsNoted(t *testing.T) {
	host := rawProto{}.text(2, "a").entry(15, "envoy.filters.http.cors", nil).num(4, 1)
	got, err := decodeResource(kindRoute, rawProto{}.text(1, "r").msg(2, host).msg(9, rawProto{}).entry(16, "f", nil))
	want := []string{
		"vhds", "typed_per_filter_config[f]", "virtual_hosts[0].typed_per_filter_config[envoy.filters.http.cors]", "virtual_hosts[0].require_tls",
	}
	if err != nil || !reflect.DeepEqual(got.ignored, want) {
		t.Errorf("ignored\n%s\n%v", strings.Join(got.ignored, "\n"), err)
	}
}

func TestIgnoredFieldsAreBounded(t *testing.T) {
	var routes []rawProto
	for i := range 1000 {
		routes = append(routes, rawRoute(fmt.Sprint("r", i), rawEverything, rawProto{}.text(1, "a").msg(28, rawSeconds(1))))
	}
	got, err := decodeResource(kindRoute, rawRoutes(routes...))
	if err != nil || len(got.ignored) != maxIgnored+1 || got.ignored[maxIgnored] != "..." {
		t.Errorf("%d entries, last %q, %v", len(got.ignored), got.ignored[len(got.ignored)-1], err)
	}
}

func TestRouteConfigurationThatIsRejected(t *testing.T) {
	match := func(m rawProto) rawProto { return rawRoutes(rawRoute("r", m, rawProto{}.text(1, "a"))) }
	action := func(m rawProto) rawProto { return rawRoutes(rawRoute("r", rawEverything, m)) }
	header := func(m rawProto) rawProto { return match(rawProto{}.text(1, "/").msg(6, m)) }
	clusters := func(weights ...uint64) rawProto {
		var w rawProto
		for _, n := range weights {
			w = w.msg(1, rawProto{}.text(1, "c").wrap(2, n))
		}
		return action(rawProto{}.msg(3, w))
	}
	domain := func(d string) rawProto {
		return rawProto{}.text(1, "r").msg(2, rawProto{}.text(2, "ok"), rawProto{}.text(2, "ok", d))
	}
	const first = "virtual_hosts[0].routes[0]."
	for want, raw := range map[string]rawProto{
		"name: missing": rawProto{}.msg(2, rawProto{}),
		`virtual_hosts[1].domains[1]: "" is neither a name nor one with a single * at its start or end`:    domain(""),
		`virtual_hosts[1].domains[1]: "a*b" is neither a name nor one with a single * at its start or end`: domain("A*b"),
		`virtual_hosts[1].domains[1]: "**" is neither a name nor one with a single * at its start or end`:  domain("**"),
		first + "match: missing": rawRoutes(rawProto{}.msg(2, rawProto{}.text(1, "a"))),
		first + "match.safe_regex.regex: error parsing regexp: missing closing ): `(`":                         match(rawProto{}.msg(10, rawRegex("("))),
		first + "match.safe_regex.regex: error parsing regexp: unexpected ): `a)|(b`":                          match(rawProto{}.msg(10, rawRegex("a)|(b"))),
		first + "match.headers[0].string_match.safe_regex.regex: error parsing regexp: missing closing ]: `[`": header(rawHeader("h", rawProto{}.msg(5, rawRegex("[")))),
		first + "match.headers[0].safe_regex_match.regex: error parsing regexp: missing closing ]: `[`":        header(rawProto{}.text(1, "h").msg(11, rawRegex("["))),
		first + "match.headers[0].name: missing":                                                               header(rawProto{}.num(7, 1)),
		first + "match.headers[0].string_match.prefix: empty":                                                  header(rawHeader("h", rawProto{}.text(2, ""))),
		first + "match.headers[0].suffix_match: empty":                                                         header(rawProto{}.text(1, "h").text(10, "")),
		first + "match.headers[0].range_match.end: wire type 2 instead of 0":                                   header(rawProto{}.text(1, "h").msg(6, rawProto{}.text(2, "x"))),
		first + "match.runtime_fraction.default_value.denominator: unknown value 9":                            match(rawProto{}.text(1, "/").msg(9, rawProto{}.msg(1, rawProto{}.num(2, 9)))),
		first + "match.path_specifier: invalid UTF-8":                                                          match(rawProto{}.text(1, "\xff")),
		first + "route.cluster: missing":                                                                       action(rawProto{}.text(1, "")),
		first + "route.weighted_clusters: no cluster has a weight":                                             clusters(0, 0),
		first + "route.weighted_clusters: the weights add up to 4294967296, more than 4294967295":              clusters(math.MaxUint32, 1),
		first + "route.weighted_clusters.clusters[1].name: missing":                                            action(rawProto{}.msg(3, rawProto{}.msg(1, rawProto{}.text(1, "c"), rawProto{}.wrap(2, 1)))),
		first + "route.max_stream_duration.max_stream_duration: negative duration":                             action(rawProto{}.text(1, "a").msg(36, rawProto{}.msg(1, rawSeconds(1<<63)))),
		first + "route.max_stream_duration.grpc_timeout_header_max: duration out of range":                     action(rawProto{}.text(1, "a").msg(36, rawProto{}.msg(2, rawSeconds(1<<62)))),
	} {
		if got, err := decodeResource(kindRoute, raw); err == nil || err.Error() != want || got.value != nil {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestRouteConfigurationOutlivesTheResponse(t *testing.T) {
	raw := rawRoutes(rawRoute("r", rawProto{}.text(2, "/a").msg(6, rawHeader("h", rawProto{}.msg(5, rawRegex("x.")))), rawProto{}.text(1, "cluster").msg(36, rawProto{}.msg(1, rawSeconds(1)))))
	got, err := decodeResource(kindRoute, raw)
	if err != nil {
		t.Fatal(err)
	}
	before := got.value.(*routeConfig).describe()
	clear(raw)
	if after := got.value.(*routeConfig).describe(); after != before || got.name != reviews {
		t.Errorf("after the buffer was used again:\n%s", after)
	}
	if r := got.value.(*routeConfig).virtualHosts[0].routes[0]; r.maxDuration != time.Second {
		t.Errorf("%v", r.maxDuration)
	}
}
