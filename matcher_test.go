package proxyless

import (
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
)

// decodeMatch turns a RouteMatch into what is matched with.
func decodeMatch(t *testing.T, raw rawProto) *routeMatch {
	t.Helper()
	var m routeMatch
	if err := new(decoding).routeMatch(raw, &m); err != nil {
		t.Fatal(err)
	}
	return &m
}

func TestPathMatches(t *testing.T) {
	insensitive := rawProto{}.wrap(4, 0)
	for name, test := range map[string]struct {
		match rawProto
		yes   string
		no    string
	}{
		"everything":              {rawProto{}.text(1, "/"), "/a.B/C /", ""},
		"everything, as nothing":  {rawProto{}.text(1, ""), "/a.B/C /", ""},
		"prefix":                  {rawProto{}.text(1, "/a.B/G"), "/a.B/G /a.B/Get", "/a.B/ /a.B/g /a.b/Get /x/a.B/G"},
		"prefix in any case":      {rawProto{}.text(1, "/a.B/G").msg(4, rawProto{}), "/a.B/G /A.b/get", "/a.B/ /a.BG"},
		"exact":                   {rawProto{}.text(2, "/a.B/Get"), "/a.B/Get", "/a.B/get /a.B/Get2 /a.B/Ge"},
		"exact in any case":       {append(rawProto{}.text(2, "/a.B/Get"), insensitive...), "/a.B/Get /A.B/GET", "/a.B/Get2"},
		"regex, the whole path":   {rawProto{}.msg(10, rawRegex("/a\\.B/(Get|List)")), "/a.B/Get /a.B/List", "/a.B/GetAll /x/a.B/Get /aXB/Get"},
		"regex with a choice":     {rawProto{}.msg(10, rawRegex("/a|/b")), "/a /b", "/ab /a/b"},
		"regex is never folded":   {append(rawProto{}.msg(10, rawRegex("/a")), insensitive...), "/a", "/A"},
		"regex with its own flag": {rawProto{}.msg(10, rawRegex("(?i)/a")), "/a /A", "/b"},
		"regex that quotes":       {rawProto{}.msg(10, rawRegex(`\Q/a.b`)), "/a.b", "/aXb /a.b)$"},
		"below":                   {rawProto{}.text(14, "/a.B"), "/a.B /a.B/Get", "/a.Bc /a.Bc/Get /a.b/Get"},
		"below in any case":       {append(rawProto{}.text(14, "/a.B"), insensitive...), "/a.b /A.B/Get", "/a.Bc"},
	} {
		m := decodeMatch(t, test.match)
		for _, path := range strings.Fields(test.yes) {
			if !m.matchPath(path) || !m.matches(path, nil, 0) {
				t.Errorf("%s: %s does not match", name, path)
			}
		}
		for _, path := range strings.Fields(test.no) {
			if m.matchPath(path) || m.matches(path, nil, 0) {
				t.Errorf("%s: %s matches", name, path)
			}
		}
		if want := name == "everything" || name == "everything, as nothing"; m.everything() != want || m.needsHeaders() {
			t.Errorf("%s: everything is %v, headers are needed: %v", name, m.everything(), m.needsHeaders())
		}
	}
}

func TestHeaderMatches(t *testing.T) {
	invert := func(m rawProto) rawProto { return m.num(8, 1) }
	missing := func(m rawProto) rawProto { return m.num(14, 1) }
	is := func(name, value string) rawProto { return rawHeader(name, rawProto{}.text(1, value)) }
	call := &callHeaders{path: "/a.B/Get", authority: "reviews.demo:9080", md: metadata.MD{
		"user": {"jason"}, "multi": {"a", "b"}, "empty": {""}, "none": {}, "n": {"-12"}, "blob-bin": {"x"}, "version": {"v2-Beta"},
	}}
	for name, test := range map[string]struct {
		matcher rawProto
		want    bool
	}{
		"exact":                      {is("User", "jason"), true},
		"exact, another":             {is("user", "Jason"), false},
		"exact in any case":          {rawHeader("user", rawProto{}.text(1, "JASON").num(6, 1)), true},
		"several values are one":     {is("multi", "a,b"), true},
		"one of several is not":      {is("multi", "a"), false},
		"an empty value":             {is("empty", ""), true},
		"prefix":                     {rawHeader("version", rawProto{}.text(2, "v2")), true},
		"prefix, longer":             {rawHeader("user", rawProto{}.text(2, "jasonjason")), false},
		"prefix in any case":         {rawHeader("version", rawProto{}.text(2, "V2-b").num(6, 1)), true},
		"suffix":                     {rawHeader("version", rawProto{}.text(3, "Beta")), true},
		"suffix, another":            {rawHeader("version", rawProto{}.text(3, "beta")), false},
		"suffix in any case":         {rawHeader("version", rawProto{}.text(3, "beta").num(6, 1)), true},
		"suffix, longer":             {rawHeader("user", rawProto{}.text(3, "xjason")), false},
		"contains":                   {rawHeader("version", rawProto{}.text(7, "-B")), true},
		"contains, another":          {rawHeader("version", rawProto{}.text(7, "-b")), false},
		"contains in any case":       {rawHeader("version", rawProto{}.text(7, "-bET").num(6, 1)), true},
		"contains in no case":        {rawHeader("version", rawProto{}.text(7, "alpha").num(6, 1)), false},
		"regex, the whole value":     {rawHeader("version", rawProto{}.msg(5, rawRegex("v[0-9]+-.*"))), true},
		"regex, a part":              {rawHeader("version", rawProto{}.msg(5, rawRegex("v[0-9]+"))), false},
		"range":                      {rawProto{}.text(1, "n").msg(6, rawProto{}.num(1, ^uint64(11)).num(2, 0)), true},
		"range, at its end":          {rawProto{}.text(1, "n").msg(6, rawProto{}.num(1, ^uint64(19)).num(2, ^uint64(11))), false},
		"range of what is no number": {rawProto{}.text(1, "user").msg(6, rawProto{}.num(2, 9)), false},
		"present":                    {rawProto{}.text(1, "user").num(7, 1), true},
		"present though empty":       {rawProto{}.text(1, "empty").num(7, 1), true},
		"present, but is not":        {rawProto{}.text(1, "nobody").num(7, 1), false},
		"present without a value":    {rawProto{}.text(1, "none").num(7, 1), false},
		"not present":                {rawProto{}.text(1, "nobody").num(7, 0), true},
		"not present, but is":        {rawProto{}.text(1, "user").num(7, 0), false},
		"no specifier":               {rawProto{}.text(1, "user"), true},

		"inverted":                                 {invert(is("user", "jason")), false},
		"inverted, another":                        {invert(is("user", "bob")), true},
		"inverted present":                         {invert(rawProto{}.text(1, "nobody").num(7, 1)), true},
		"inverted not present":                     {invert(rawProto{}.text(1, "nobody").num(7, 0)), false},
		"missing never matches":                    {is("nobody", ""), false},
		"missing never matches, not even inverted": {invert(is("nobody", "jason")), false},
		"missing as empty":                         {missing(is("nobody", "")), true},
		"missing as empty, another":                {missing(is("nobody", "x")), false},
		"withoutHeaders":                           {missing(invert(is("nobody", "jason"))), true},
		"withoutHeaders, but it is there":          {missing(invert(is("user", "jason"))), false},
		"missing as empty is present":              {missing(rawProto{}.text(1, "nobody").num(7, 1)), true},
		"missing as empty is not absent":           {missing(rawProto{}.text(1, "nobody").num(7, 0)), false},

		":method":          {is(":method", "POST"), true},
		":method, another": {is(":method", "GET"), false},
		":path":            {is(":path", "/a.B/Get"), true},
		":authority":       {rawHeader(":authority", rawProto{}.text(2, "reviews.")), true},
		"host":             {is("Host", "reviews.demo:9080"), true},
		":scheme":          {is(":scheme", "http"), true},
		"content-type":     {is("Content-Type", "application/grpc"), true},
		"binary is hidden": {rawProto{}.text(1, "blob-bin").num(7, 1), false},
	} {
		m := decodeMatch(t, rawProto{}.text(1, "/").msg(6, test.matcher))
		if got := m.matches(call.path, call, 0); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
		if !m.needsHeaders() || m.everything() {
			t.Errorf("%s: headers are not needed", name)
		}
	}
	both := decodeMatch(t, rawProto{}.text(1, "/").msg(6, is("user", "jason"), is("n", "0")))
	if both.matches(call.path, call, 0) {
		t.Error("one header of two is enough")
	}
}

func TestFractionMatches(t *testing.T) {
	for _, test := range []struct {
		numerator uint64
		random    uint32
		want      bool
	}{{0, 0, false}, {1, 0, true}, {1, 1, false}, {999_999, 999_998, true}, {999_999, 999_999, false}, {1_000_000, 999_999, true}} {
		m := decodeMatch(t, rawProto{}.text(1, "/").msg(9, rawProto{}.msg(1, rawProto{}.num(1, test.numerator).num(2, 2))))
		if got := m.matches("/a", nil, test.random); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
		if m.everything() != (test.numerator == fractionScale) {
			t.Errorf("%d ppm: everything is %v", test.numerator, m.everything())
		}
	}
}

func TestUnknownMatcherNeverMatches(t *testing.T) {
	m := decodeMatch(t, rawProto{}.text(1, "/").msg(13, rawProto{}))
	if m.matches("/a", &callHeaders{}, 0) || m.everything() {
		t.Error("a route for callers with a certain JWT takes a call without one")
	}
}

func TestMatchDomain(t *testing.T) {
	hosts := []virtualHost{
		{name: "all", domains: []string{"*"}},
		{name: "suffix", domains: []string{"*.demo.svc"}},
		{name: "longer suffix", domains: []string{"*reviews.demo.svc", "*.reviews.demo.svc"}},
		{name: "prefix", domains: []string{"reviews.*"}},
		{name: "longer prefix", domains: []string{"reviews.demo.*"}},
		{name: "exact", domains: []string{"other", "reviews.demo.svc", "10.1.2.3:80"}},
		{name: "late", domains: []string{"reviews.demo.svc", "*.demo.svc"}},
		{name: "v6", domains: []string{"[::1]"}},
	}
	for authority, want := range map[string]string{
		"reviews.demo.svc": "exact", "Reviews.Demo.SVC": "exact", "10.1.2.3:80": "exact",
		"a.reviews.demo.svc": "longer suffix", "details.demo.svc": "suffix", "reviews.demo.other": "longer prefix", "reviews.x": "prefix",
		".demo.svc": "all", "reviews.": "all", "": "all", "unknown": "all", "reviews.demo.svc:80": "longer prefix",
	} {
		if got := matchDomain(hosts, authority); got == nil || got.name != want {
			t.Errorf("%q goes to %+v, want %s", authority, got, want)
		}
	}
	for authority, want := range map[string]string{
		"reviews.demo.svc": "exact", "reviews.demo.svc:80": "exact", "10.1.2.3:80": "exact", "[::1]:80": "v6", "[::1]": "v6",
		"10.1.2.3": "", "::1": "", "nobody:80": "", "": "", ":80": "",
	} {
		got := matchDomain([]virtualHost{hosts[5], hosts[7]}, authority)
		if (got == nil) != (want == "") || got != nil && got.name != want {
			t.Errorf("%q goes to %+v, want %q", authority, got, want)
		}
	}
	if got := matchDomain(nil, "a"); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestMatchingTakesNoMemory(t *testing.T) {
	call := &callHeaders{path: "/a.B/Get", authority: "a", md: metadata.MD{"user": {"jason"}}}
	for name, raw := range map[string]rawProto{
		"path":          rawProto{}.text(2, "/a.B/Get"),
		"regex":         rawProto{}.msg(10, rawRegex("/a\\.B/.*")),
		"any case":      rawProto{}.text(2, "/A.B/GET").wrap(4, 0),
		"header":        rawProto{}.text(1, "/").msg(6, rawHeader("user", rawProto{}.text(1, "jason"))),
		"pseudo header": rawProto{}.text(1, "/").msg(6, rawHeader(":authority", rawProto{}.text(1, "a"))),
	} {
		m := decodeMatch(t, raw)
		if allocs := leastAllocs(100, func() {
			if !m.matches(call.path, call, 0) {
				t.Fatal("no match")
			}
		}); allocs > 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}
