package interop

// matchRows: which route a call takes. Calls that match go to v2, others to v1.
var matchRows = []row{
	matching("uri-exact", "path, exact", "http.match.uri.exact", `{uri: {exact: /conformance.Echo/Hit}}`,
		spec{method: "/conformance.Echo/Hit"}, spec{method: "/conformance.Echo/Hits"}),
	matching("uri-prefix", "path, prefix", "http.match.uri.prefix", `{uri: {prefix: /conformance.Echo/Hi}}`,
		spec{method: "/conformance.Echo/Hit"}, spec{method: "/conformance.Echo/Miss"}),
	matching("uri-regex", "path, regular expression over all of it", "http.match.uri.regex", `{uri: {regex: "/conformance\\.Echo/H[a-z]+"}}`,
		spec{method: "/conformance.Echo/Hit"}, spec{method: "/conformance.Echo/Hit2"}),
	matching("uri-ignore-case", "path, whatever its case", "http.match.ignoreUriCase", `{uri: {exact: /CONFORMANCE.echo/HIT}, ignoreUriCase: true}`,
		spec{method: "/conformance.Echo/Hit"}, spec{method: "/conformance.Echo/Miss"}),
	matching("uri-case", "path, by its case otherwise", "http.match.uri", `{uri: {prefix: /conformance.Echo/hit}}`,
		spec{method: "/conformance.Echo/hit"}, spec{method: "/conformance.Echo/Hit"}),
	matching("header-exact", "header, exact", "http.match.headers.exact", `{headers: {x-user: {exact: alice}}}`,
		withHeader("x-user", "alice"), withHeader("x-user", "alic")),
	matching("header-prefix", "header, prefix", "http.match.headers.prefix", `{headers: {x-user: {prefix: ali}}}`,
		withHeader("x-user", "alice"), withHeader("x-user", "bob")),
	matching("header-regex", "header, regular expression", "http.match.headers.regex", `{headers: {x-user: {regex: "a.*e"}}}`,
		withHeader("x-user", "alice"), withHeader("x-user", "alice2")),
	matching("header-present", "header, present", "http.match.headers: {}", `{headers: {x-user: {}}}`,
		withHeader("x-user", "anybody"), spec{}),
	matching("header-several", "several headers, all of which must match", "http.match.headers", `{headers: {x-user: {exact: alice}, x-stage: {exact: test}}}`,
		withHeader("x-user", "alice", "x-stage", "test"), withHeader("x-user", "alice")),
	matching("match-several", "several matches, one of which is enough", "http.match", `{headers: {x-user: {exact: alice}}}, {headers: {x-user: {exact: carol}}}`,
		withHeader("x-user", "carol"), withHeader("x-user", "bob")),
	matching("without-exact", "header must not have a value; one that is missing counts", "http.match.withoutHeaders.exact", `{withoutHeaders: {x-user: {exact: alice}}}`,
		spec{}, withHeader("x-user", "alice")),
	matching("without-present", "header must be missing", "http.match.withoutHeaders: {}", `{withoutHeaders: {x-user: {}}}`,
		spec{}, withHeader("x-user", "anybody")),
	matching("method", "HTTP method, which is POST", "http.match.method", `{method: {exact: POST}, headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
	matching("method-other", "another HTTP method never matches", "http.match.method", `{method: {exact: GET}}, {headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
	matching("scheme", "scheme", "http.match.scheme", `{scheme: {exact: http}, headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
	matching("authority", "authority", "http.match.authority", `{authority: {prefix: authority}, headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
	matching("authority-other", "another authority never matches", "http.match.authority", `{authority: {prefix: other}}, {headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
	matching("query-params", "query parameters never match, as a gRPC call has none", "http.match.queryParams", `{queryParams: {user: {exact: alice}}}, {headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
	matching("match-port", "port", "http.match.port", `{port: 50052, headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
	labelledRow(matching("source-labels", "labels of the caller's pod", "http.match.sourceLabels", `{sourceLabels: {caller: this}, headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{})),
	labelledRow(matching("source-labels-other", "labels that the caller's pod does not have", "http.match.sourceLabels", `{sourceLabels: {caller: that}}, {headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{})),
	matching("source-namespace", "namespace of the caller", "http.match.sourceNamespace", `{sourceNamespace: elsewhere}, {sourceNamespace: governed, headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
	matching("gateways", "routes for the mesh", "http.match.gateways", `{gateways: [governed/some]}, {gateways: [mesh], headers: {x-hit: {}}}`,
		withHeader("x-hit", "1"), spec{}),
}

func withHeader(pairs ...string) spec { return spec{headers: pairs} }

// matching is a row whose matches, in YAML, take hit and leave miss.
func matching(name, about, field, matches string, hit, miss spec) row {
	return row{
		part: "VirtualService: matches", name: name, about: about, field: field,
		yaml: rule("") + virtual("- match: ["+matches+"]\n  route: ["+dest("v2")+"]\n- route: ["+dest("v1")+"]"),
		check: func(s *scene) error {
			for range 5 {
				if err := goesTo(s, hit, "v2"); err != nil {
					return err
				}
				if err := goesTo(s, miss, "v1"); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func labelledRow(r row) row {
	r.labels = map[string]string{"caller": "this"}
	return r
}

// goesTo makes one call, which the host must answer.
func goesTo(s *scene, c spec, host string) error {
	got, err := s.call(c)
	if err == nil && got.Host != host {
		err = unseenf("%s %v is answered by %s, not %s", c.method, c.headers, got.Host, host)
	}
	return err
}
