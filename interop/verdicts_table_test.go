package interop

import (
	"slices"
	"strings"
)

// verdictRules are as many kinds of rules as there are.
var verdictRules = []verdictRule{
	operation(`paths: ["/pkg.Svc/Get"]`),
	operation(`paths: ["/pkg.Svc/*"]`),
	operation(`paths: ["*/Get"]`),
	operation(`paths: ["*"]`),
	operation(`notPaths: ["/pkg.Svc/Get"]`),
	operation(`notPaths: ["/pkg.Svc/*"]`),
	operation(`paths: ["/pkg.Svc/*"], notPaths: ["*/Get"]`),
	operation(`paths: ["/pkg.Svc/{*}"]`),
	operation(`paths: ["/{*}/Get"]`),
	operation(`paths: ["/pkg.Svc/{**}"]`),
	operation(`paths: ["/{**}/Get"]`),
	operation(`notPaths: ["/pkg.Svc/{*}"]`),
	operation(`paths: ["/a", "/b", "/c", "/d", "/e", "/pkg.Svc/Get"]`),
	operation(`methods: [POST], paths: ["/pkg.Svc/*", "/other.Svc/Get"], hosts: [greeter.example], ports: ["50052"]`),
	operation(`methods: [POST]`),
	operation(`methods: [GET]`),
	operation(`methods: ["P*"]`),
	operation(`notMethods: [GET]`),
	operation(`hosts: [greeter.example]`),
	operation(`hosts: ["*.example"]`),
	operation(`hosts: ["greeter.*"]`),
	operation(`hosts: ["greeter.example:*"]`),
	operation(`hosts: ["*"]`),
	operation(`notHosts: [greeter.example, "greeter.example:*"]`),
	operation(`ports: ["50052"]`),
	operation(`notPorts: ["50052"]`),
	operation(`ports: ["80"]`),
	source(`principals: [cluster.local/ns/verdicts/sa/alice]`),
	source(`principals: ["*/sa/alice"]`),
	source(`principals: ["cluster.local/*"]`),
	source(`principals: ["*"]`),
	source(`notPrincipals: ["*"]`),
	source(`notPrincipals: [cluster.local/ns/verdicts/sa/alice]`),
	source(`namespaces: [verdicts]`),
	source(`namespaces: ["verd*"]`),
	source(`namespaces: ["*icts"]`),
	source(`namespaces: ["*"]`),
	source(`namespaces: ["ver.icts"]`),
	source(`notNamespaces: [verdicts]`),
	source(`serviceAccounts: [alice]`),
	source(`serviceAccounts: [other/alice]`),
	source(`notServiceAccounts: [verdicts/alice]`),
	source(`ipBlocks: [10.244.0.0/16]`),
	source(`ipBlocks: [0.0.0.0/0]`),
	source(`ipBlocks: ["::/0"]`),
	source(`ipBlocks: ["::ffff:10.244.0.0/112"]`),
	source(`notIpBlocks: [10.244.0.0/16]`),
	source(`remoteIpBlocks: [192.0.2.0/24]`),
	source(`remoteIpBlocks: [10.244.0.0/16]`),
	source(`remoteIpBlocks: ["2001:db8::/32"]`),
	source(`notRemoteIpBlocks: [192.0.2.0/24]`),
	source(`principals: ["cluster.local/*"], notPrincipals: ["*/sa/bob"], notNamespaces: [elsewhere]`),
	source(`namespaces: [verdicts], requestPrincipals: ["*"]`),
	source(`requestPrincipals: ["*"]`),
	source(`notRequestPrincipals: ["*"]`),
	source(`requestPrincipals: ["https://one.example/*"]`),
	source(`requestPrincipals: ["*/somebody"]`),
	source(`requestPrincipals: ["https://one.example/somebody"]`),
	source(`requestPrincipals: ["https://two.example/*"]`),
	when(`request.headers[x-team]`, `values: [red]`),
	when(`request.headers[X-Team]`, `values: [red, "blue-*"]`),
	when(`request.headers[x-team]`, `values: ["*-x"]`),
	when(`request.headers[x-team]`, `values: ["*"]`),
	when(`request.headers[x-team]`, `notValues: [red]`),
	when(`request.headers[x-team]`, `notValues: ["*"]`),
	when(`request.headers[x-team]`, `values: ["*"], notValues: ["red*"]`),
	when(`request.headers[x-team]`, `values: ["red,blue-1"]`),
	when(`request.headers[cookie]`, `values: ["a=1; b=2"]`),
	when(`request.headers[cookie]`, `values: ["*b=2"]`),
	when(`request.headers[user-agent]`, `values: ["tool*"]`),
	when(`request.headers[host]`, `values: [greeter.example]`),
	when(`request.headers[:authority]`, `values: [greeter.example]`),
	when(`request.headers[:method]`, `values: [POST]`),
	when(`request.headers[:path]`, `values: ["/pkg.Svc/Get"]`),
	when(`request.headers[content-type]`, `values: [application/grpc]`),
	when(`request.headers[content-type]`, `values: ["*"]`),
	when(`request.headers[grpc-accept-encoding]`, `values: ["*gzip*"]`),
	hidden(`te`),
	hidden(`x-data-bin`),
	when(`request.headers[x-forwarded-for]`, `values: ["192.0.2.*"]`),
	hidden(`x-forwarded-proto`),
	hidden(`x-forwarded-client-cert`),
	hidden(`x-request-id`),
	hidden(`x-envoy-attempt-count`),
	hidden(`x-envoy-original-path`),
	hidden(`x-envoy-expected-rq-timeout-ms`),
	hidden(`x-envoy-internal`),
	hidden(`x-envoy-peer-metadata-id`),
	hidden(`x-envoy-retry-on`),
	hidden(`x-envoy-decorator-operation`),
	when(`request.headers[x-b3-traceid]`, `values: ["*"]`),
	when(`request.headers[traceparent]`, `values: ["*"]`),
	when(`request.headers[x-claim]`, `values: ["*"]`),
	when(`request.headers[x-claim]`, `values: [somebody]`),
	when(`request.headers[x-payload]`, `values: ["*"]`),
	when(`request.headers[authorization]`, `values: ["*"]`),
	when(`request.headers[x-jwt]`, `values: ["*"]`),
	when(`source.ip`, `values: [10.244.0.0/16]`),
	when(`remote.ip`, `values: [192.0.2.7]`),
	when(`remote.ip`, `notValues: [192.0.2.0/24]`),
	when(`source.namespace`, `values: [verdicts]`),
	when(`source.principal`, `notValues: [cluster.local/ns/verdicts/sa/alice]`),
	when(`destination.ip`, `values: [10.244.0.0/16]`),
	when(`destination.port`, `values: ["50052"]`),
	when(`connection.sni`, `values: ["outbound_.50052_._.greeter.example"]`),
	when(`connection.sni`, `values: ["*.example"]`),
	when(`connection.sni`, `values: ["*"]`),
	when(`connection.sni`, `notValues: ["*.example"]`),
	when(`request.auth.principal`, `values: ["https://one.example/somebody"]`),
	when(`request.auth.audiences`, `values: [us]`),
	when(`request.auth.presenter`, `values: [app]`),
	when(`request.auth.claims[groups]`, `values: [admin]`),
	when(`request.auth.claims[groups]`, `values: ["adm*"]`),
	when(`request.auth.claims[groups]`, `values: ["*"]`),
	when(`request.auth.claims[groups]`, `notValues: [admin]`),
	when(`request.auth.claims[scope]`, `values: [write]`),
	when(`request.auth.claims[realm][roles]`, `values: [lead]`),
	when(`request.auth.claims[realm][roles]`, `values: ["*"]`),
	when(`request.auth.claims[realm]`, `values: ["*"]`),
	when(`request.auth.claims[level]`, `values: ["3"]`),
	when(`request.auth.claims[admin]`, `values: ["true"]`),
	when(`request.auth.claims[iss]`, `values: ["https://two.example"]`),
	when(`request.auth.claims[sub]`, `notValues: [somebody]`),
	when(`request.auth.claims[perm]`, `values: [write]`),
}

// verdictCalls are calls of many kinds; tokenCalls are those with tokens.
var verdictCalls = slices.Concat(
	[]verdictCall{{name: "alice"}, {name: "bob", caller: "bob"}, {name: "carol of another namespace", caller: "carol"},
		{name: "TLS without a server name", caller: "nameless"}, {name: "plain text", caller: "nobody"}, {name: "GET", headers: pairs(":method", "GET")}},
	callsAt("", "/pkg.Svc/Put", "/other.Svc/Get", "/pkg.Svc/Get/", "/pkg.Svc/Get?", "/pkg.Svc/Get?x=1", "/pkg.Svc/Put?/pkg.Svc/Get", "/pkg.Svc/Get;x",
		"/pkg.svc/get", "/PKG.SVC/GET", "/pkg.Svc/", "/a/b/Get", "/pkg.Svc/a/b", "/pkg.Svc/Get*", "/pkg.Svc/Get.", "/pkg.Svc/a~b!$&'()+,;=:@_-"),
	// Those that mean something else to some readers, and are no gRPC method's.
	callsAt("ath", "//pkg.Svc/Get", "/pkg.Svc//Get", "/pkg.Svc/./Get", "/./pkg.Svc/Get", "/x/../pkg.Svc/Get", "/pkg.Svc/../pkg.Svc/Get", "/../pkg.Svc/Get",
		"/pkg.Svc/%47et", "/pkg.Svc/Get%", "/pkg.Svc/%zz", "/pkg.Svc/%2e%2e/pkg.Svc/Get", "/pkg.Svc/a/..%2fGet", "/pkg.Svc/Get\u00e9", "/pkg.Svc/{*}",
		"/pkg.Svc/...", "/pkg.Svc/.Get", "/pkg.Svc/Get|", "/pkg.Svc/Get^"),
	// Those that nobody lets in.
	callsAt("", "/", "/pkg.Svc", "/pkg.Svc%2FGet", "/pkg.Svc\\Get", "/pkg.Svc/Get#x", "/pkg.Svc/Get%00", "pkg.Svc/Get", "*", "http://greeter.example/pkg.Svc/Get"),
	callsWith("",
		":authority=Greeter.Example", ":authority=greeter.example:50052", ":authority=greeter.example.", ":authority=other.example", ":authority=[::1]:50052",
		":authority=", ":authority", ":authority|host=greeter.example", "host=other.example", ":authority=other.example|host=greeter.example",
		":authority=greeter.example,other.example", ":authority=user@greeter.example", ":authority|host=other.example|host=greeter.example",
		"x-team=red", "x-team=Red", "x-team=blue-1", "x-team=a-x", "x-team=", "x-team= red", "x-team=red ", "x-team=red,blue-1", "x-team=red\u00e9", "x-team=red\xff",
		"x-team=x|x-team=a-x", "x-team=one|x-team=two", "cookie=a=1; b=2", "cookie=a=1|cookie=b=2", "cookie=b=2|cookie=a=1",
		"user-agent=tool/1", "content-type=application/grpc+proto", "grpc-accept-encoding=identity|grpc-accept-encoding=gzip", "te=trailers, deflate", "x-data-bin=AAEC", "x-data-bin=!",
		"x-forwarded-for=192.0.2.7", "x-forwarded-for=10.0.0.1, 192.0.2.7", "x-forwarded-for=192.0.2.7,10.244.0.9", "x-forwarded-for=192.0.2.7,", "x-forwarded-for= 192.0.2.7 ",
		"x-forwarded-for=", "x-forwarded-for=unknown", "x-forwarded-for=192.0.2.7:80", "x-forwarded-for=192.0.2.007", "x-forwarded-for=::ffff:192.0.2.7", "x-forwarded-for=2001:db8::1",
		"x-forwarded-for=2001:db8::1%eth0", "x-forwarded-for=[2001:db8::1]", "x-forwarded-for=[2001:db8::1]:80",
		"x-forwarded-proto=https", "x-forwarded-client-cert=By=x", "x-request-id=1", "x-envoy-attempt-count=1", "x-envoy-original-path=/x", "x-envoy-expected-rq-timeout-ms=5",
		"x-envoy-internal=true", "x-envoy-peer-metadata-id=a", "x-envoy-retry-on=5xx", "x-envoy-decorator-operation=x",
		"x-claim=somebody", "x-payload=x"),
	// Of which some readers take one line, and some all of them.
	callsWith("x-team", "x-team=red|x-team=blue-1", "x-team=blue-1|x-team=red", "x-team=red|x-team=red", "x-team=|x-team=red"),
	callsWith("", "x-forwarded-for=192.0.2.7|x-forwarded-for=10.244.0.9"),
	callsWith("user-agent", "user-agent=other|user-agent=tool"),
)

func callsAt(stricter string, paths ...string) (calls []verdictCall) {
	for _, path := range paths {
		calls = append(calls, verdictCall{name: "at " + path, headers: pairs(":path", path), about: []string{"ath"}, stricter: stricter})
	}
	return calls
}

// callsWith are calls with headers, of which each says its lines: name=value
// with a bar between two; a name alone takes the usual line away.
func callsWith(stricter string, all ...string) (calls []verdictCall) {
	for _, lines := range all {
		c := verdictCall{name: "with " + lines, stricter: stricter}
		for line := range strings.SplitSeq(lines, "|") {
			name, value, given := strings.Cut(line, "=")
			c.headers = append(c.headers, header{name, value, !given})
			c.about = append(c.about, name)
		}
		switch c.about[0] {
		case ":authority":
			c.about = append(c.about, "host")
		case "x-forwarded-for":
			c.about = append(c.about, "remote")
		}
		calls = append(calls, c)
	}
	return calls
}

func pairs(pairs ...string) (headers []header) {
	for i := 0; i < len(pairs); i += 2 {
		headers = append(headers, header{name: pairs[i], value: pairs[i+1]})
	}
	return headers
}
