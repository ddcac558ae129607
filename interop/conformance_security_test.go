package interop

import (
	"time"

	"google.golang.org/grpc/codes"
)

// What istiod makes of policies for servers in the lean view.
const (
	byLabel  = "no: istiod goes by the pod's label, TLS only"
	noFilter = "istiod sends no filter: all are let in"
)

// peerRows are about what a port takes: TLS or plain text. Their pods carry the
// label of those that speak the mesh's TLS.
var peerRows = []row{
	{name: "peer-strict", about: "nothing but the mesh's TLS", field: "mtls.mode: STRICT",
		yaml:  peerYAML("mtls: {mode: STRICT}"),
		check: letsIn(in(alice), in(bob), cut(plainText))},
	{name: "peer-stranger", about: "a certificate of another authority is refused", field: "mtls.mode: STRICT",
		yaml:  peerYAML("mtls: {mode: STRICT}"),
		check: letsIn(in(alice), cut(stranger))},
	{name: "peer-permissive", about: "TLS and plain text on one port", field: "mtls.mode: PERMISSIVE", lean: byLabel,
		yaml:  peerYAML("mtls: {mode: PERMISSIVE}"),
		check: letsIn(in(alice), in(plainText), cut(stranger))},
	{name: "peer-none", about: "no PeerAuthentication: the same", lean: byLabel,
		check: letsIn(in(alice), in(plainText))},
	{name: "peer-disable", about: "plain text only", field: "mtls.mode: DISABLE",
		yaml:  peerYAML("mtls: {mode: DISABLE}"),
		check: letsIn(in(plainText), cut(alice))},
	{name: "peer-port", about: "another mode for one port", field: "portLevelMtls",
		yaml:  peerYAML("mtls: {mode: STRICT}, portLevelMtls: {50052: {mode: DISABLE}, 50053: {mode: DISABLE}, 50054: {mode: DISABLE}}"),
		check: letsIn(in(plainText), cut(alice))},
	{name: "peer-port-other", about: "the mode of another port does not count", field: "portLevelMtls",
		yaml:  peerYAML("mtls: {mode: STRICT}, portLevelMtls: {50059: {mode: DISABLE}}"),
		check: letsIn(in(alice), cut(plainText))},
}

// authorizationRows are about whose calls of what are let in.
var authorizationRows = []row{
	{name: "allow-path", about: "a path is allowed, and so nothing else", field: "to.operation.paths",
		yaml:  allowYAML("{to: [{operation: {paths: [/" + greetings + "/*]}}]}"),
		check: letsIn(in(alice), out(alice).at(otherPath))},
	{name: "allow-template", about: "paths by a template", field: `to.operation.paths: ["/{*}/sayHello"]`, remark: "grpc-go refuses a listener with such a rule",
		yaml:  allowYAML(`{to: [{operation: {paths: ["/{*}/sayHello", "/x/{**}"]}}]}`),
		check: letsIn(in(alice), in(alice).at("/x/y/z"), out(alice).at("/a/b/sayHello"))},
	{name: "allow-not-path", about: "all paths but one", field: "to.operation.notPaths",
		yaml:  allowYAML("{to: [{operation: {notPaths: [/admin.*]}}]}"),
		check: letsIn(in(alice), out(alice).at(otherPath))},
	{name: "allow-method", about: "HTTP method, which is POST", field: "to.operation.methods",
		yaml:  denyYAML("{to: [{operation: {methods: [POST], paths: [/admin.*]}}]}, {to: [{operation: {methods: [GET]}}]}"),
		check: letsIn(in(alice), out(alice).at(otherPath))},
	{name: "allow-port", about: "port", field: "to.operation.ports",
		yaml:  denyYAML(`{to: [{operation: {ports: ["50052", "50053", "50054"], paths: [/admin.*]}}]}, {to: [{operation: {ports: ["50059"]}}]}`),
		check: letsIn(in(alice), out(alice).at(otherPath))},
	{name: "allow-principal", about: "caller by its identity", field: "from.source.principals",
		yaml:  allowYAML("{from: [{source: {principals: [cluster.local/ns/governed/sa/alice]}}]}"),
		check: letsIn(in(alice), out(bob))},
	{name: "allow-principal-plain", about: "a caller in plain text has no identity", field: "from.source.principals",
		yaml:  peerYAML("mtls: {mode: DISABLE}") + allowYAML(`{from: [{source: {principals: ["*"]}}]}, {to: [{operation: {paths: [/open.*]}}]}`),
		check: letsIn(in(plainText).at("/open.Service/Call"), out(plainText))},
	{name: "allow-account", about: "caller by its service account", field: "from.source.serviceAccounts",
		yaml:  allowYAML("{from: [{source: {serviceAccounts: [alice]}}]}"),
		check: letsIn(in(alice), out(bob))},
	{name: "allow-namespace", about: "caller by its namespace", field: "from.source.namespaces",
		yaml:  allowYAML("{from: [{source: {namespaces: [governed]}}], to: [{operation: {paths: [/" + greetings + "/*]}}]}, {from: [{source: {namespaces: [elsewhere]}}]}"),
		check: letsIn(in(alice), in(bob), out(alice).at(otherPath))},
	{name: "allow-address", about: "caller by its address", field: "from.source.ipBlocks",
		yaml:  denyYAML("{from: [{source: {ipBlocks: [10.244.0.0/16]}}], to: [{operation: {paths: [/admin.*]}}]}, {from: [{source: {ipBlocks: [192.0.2.0/24]}}]}"),
		check: letsIn(in(alice), out(alice).at(otherPath))},
	{name: "allow-header", about: "header of the call", field: "when.key: request.headers[x-user]",
		yaml:  allowYAML("{when: [{key: 'request.headers[x-user]', values: [jason]}]}"),
		check: letsIn(in(alice, "x-user", "jason"), out(alice, "x-user", "else"), out(alice))},
	{name: "allow-nothing", about: "ALLOW without rules: nobody is let in", field: "action: ALLOW", lean: noFilter,
		yaml:  policyYAML("AuthorizationPolicy", "HOST", "", "action: ALLOW"),
		check: letsIn(out(alice), out(bob).at(otherPath))},
	{name: "deny-path", about: "a path is denied", field: "action: DENY",
		yaml:  denyYAML("{to: [{operation: {paths: [/admin.*]}}]}"),
		check: letsIn(in(alice), out(alice).at(otherPath))},
	{name: "deny-not-principal", about: "all callers but one are denied", field: "from.source.notPrincipals",
		yaml:  denyYAML("{from: [{source: {notPrincipals: [cluster.local/ns/governed/sa/alice]}}]}"),
		check: letsIn(in(alice), out(bob))},
	{name: "deny-first", about: "DENY counts before ALLOW", field: "action: DENY",
		yaml: allowYAML("{from: [{source: {namespaces: [governed]}}]}") +
			authorizationYAML("-too", "DENY", "{from: [{source: {principals: [cluster.local/ns/governed/sa/bob]}}]}"),
		check: letsIn(in(alice), out(bob))},
	{name: "audit", about: "calls are let in and reported", field: "action: AUDIT", lean: notSent,
		yaml:  authorizationYAML("", "AUDIT", "{to: [{operation: {paths: [/"+greetings+"/*]}}]}"),
		check: recording("AUDIT", in(alice))},
	{name: "dry-run", about: "what would be denied is let in and reported", field: "annotation istio.io/dry-run", lean: "istiod sends it as if it were no dry run",
		yaml:  policyYAML("AuthorizationPolicy", "HOST", `"istio.io/dry-run": "true"`, "action: DENY, rules: [{}]"),
		check: recording("shadow DENY", in(alice))},
	{name: "custom", about: "an authorizer that the mesh does not have: calls that it should judge are refused", field: "action: CUSTOM", lean: noFilter,
		yaml:  policyYAML("AuthorizationPolicy", "HOST", "", "action: CUSTOM, provider: {name: elsewhere}, rules: [{to: [{operation: {paths: [/admin.*]}}]}]"),
		check: letsIn(in(alice), out(alice).at(otherPath))},
}

// authenticationRows are about tokens of the callers' users.
var authenticationRows = []row{
	{name: "jwt", about: "a bad token is refused; none is not", field: "jwtRules.jwks", lean: notSent,
		yaml:  tokenYAML(""),
		check: letsIn(in(alice), in(alice).showing(nil), expired.refusedAs(codes.Unauthenticated), unknown.refusedAs(codes.Unauthenticated))},
	{name: "jwt-audience", about: "a token for somebody else is refused", field: "jwtRules.audiences", lean: notSent,
		yaml:  tokenYAML(", audiences: [us]"),
		check: letsIn(in(alice).showing(claim("aud", "us")), out(alice).showing(claim("aud", "them")))},
	{name: "jwt-header", about: "a token in another header", field: "jwtRules.fromHeaders", lean: notSent,
		yaml:  tokenYAML(`, fromHeaders: [{name: x-token, prefix: "token "}]`),
		check: letsIn(in(alice), knock{who: alice, headers: []string{"x-token", "token nonsense"}, want: codes.Unauthenticated})},
	{name: "jwt-needed", about: "a token is needed", field: "from.source.notRequestPrincipals", lean: "tokens are not looked at, so that none counts",
		yaml:  tokenYAML("") + denyYAML(`{from: [{source: {notRequestPrincipals: ["*"]}}]}`),
		check: letsIn(out(alice), in(alice).showing(nil))},
	{name: "jwt-principal", about: "caller by the token's issuer and subject", field: "from.source.requestPrincipals", lean: "tokens are not looked at, so that none counts",
		yaml:  tokenYAML("") + allowYAML("{from: [{source: {requestPrincipals: [https://issuer.example/somebody]}}]}"),
		check: letsIn(in(alice).showing(nil), out(alice), out(alice).showing(claim("sub", "else")))},
	{name: "jwt-claim", about: "a claim of the token", field: "when.key: request.auth.claims[groups]", lean: "tokens are not looked at, so that none counts",
		yaml:  tokenYAML("") + allowYAML("{when: [{key: 'request.auth.claims[groups]', values: [admin]}]}"),
		check: letsIn(in(alice).showing(claim("groups", []string{"users", "admin"})), out(alice).showing(claim("groups", "users")), out(alice))},
}

// Tokens that are not in order.
var (
	expired = in(alice).showing(claim("exp", time.Now().Add(-time.Hour).Unix()))
	unknown = in(alice).showing(claim("iss", "https://elsewhere.example"))
)

func claim(name string, value any) map[string]any { return map[string]any{name: value} }

// peerYAML is a PeerAuthentication of the row's pod.
func peerYAML(spec string) string { return peerAuthentication("NAMESPACE", "HOST", spec) }

func allowYAML(rules string) string { return authorizationYAML("", "ALLOW", rules) }
func denyYAML(rules string) string  { return authorizationYAML("", "DENY", rules) }

// authorizationYAML is an AuthorizationPolicy of the row's pod; more is for the
// name of a second one.
func authorizationYAML(more, action, rules string) string {
	return policyYAML("AuthorizationPolicy", "HOST"+more, "", "action: "+action+", rules: ["+rules+"]")
}

// tokenYAML is a RequestAuthentication of the row's pod.
func tokenYAML(more string) string {
	return policyYAML("RequestAuthentication", "HOST", "", "jwtRules: [{issuer: https://issuer.example, jwks: 'JWKS'"+more+"}]")
}

func policyYAML(kind, name, annotations, spec string) string {
	return `---
apiVersion: security.istio.io/v1
kind: ` + kind + `
metadata: {name: ` + name + `, namespace: NAMESPACE, annotations: {` + annotations + `}}
spec: {selector: {matchLabels: {app: HOST}}, ` + spec + `}
`
}

func init() {
	inPart("PeerAuthentication", peerRows)
	inPart("AuthorizationPolicy", authorizationRows)
	inPart("RequestAuthentication", authenticationRows)
	for _, part := range [][]row{peerRows, authorizationRows, authenticationRows} {
		for i := range part {
			part[i].serves = true
		}
	}
}
