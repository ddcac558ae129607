package interop

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// verdictIssuers are those whose tokens are taken.
type verdictIssuers struct {
	one   *issuer // where tokens usually are
	two   *issuer // in other places
	three *issuer // in a query
}

func newVerdictIssuers(t testing.TB) *verdictIssuers {
	return &verdictIssuers{newIssuer(t, "https://one.example"), newIssuer(t, "https://two.example"), newIssuer(t, "https://three.example")}
}

// manifest is their RequestAuthentications.
func (v *verdictIssuers) manifest(t testing.TB) string {
	authentication := func(name string, i *issuer, more string) string {
		return fmt.Sprintf(`---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: %s, namespace: %s}
spec: {jwtRules: [{issuer: %q, jwks: '%s', %s}]}
`, name, verdictsNamespace, i.name, i.jwks(t), more)
	}
	return authentication("one", v.one, `audiences: [us, "https://them.example/"], spaceDelimitedClaims: [perm],
  outputClaimToHeaders: [{header: x-claim, claim: sub}], outputPayloadToHeader: x-payload`) +
		authentication("two", v.two, `forwardOriginalToken: true, fromCookies: [session],
  fromHeaders: [{name: x-jwt, prefix: "Tok "}, {name: authorization, prefix: "Bearer "}]`) +
		authentication("three", v.three, `fromParams: [jwt]`)
}

// aboutTokens is what rules look at that comes of a token.
var aboutTokens = []string{"requestprincipals", "request.auth", "authorization", "x-jwt", "cookie", "x-claim", "x-payload", ":path"}

// calls are calls with tokens, good and bad.
func (v *verdictIssuers) calls(t testing.TB) []verdictCall {
	calls := append(v.claims(t), v.places(t)...)
	for i := range calls {
		calls[i].about = aboutTokens
	}
	return calls
}

// places are calls with tokens in places right and wrong, of issuers known and not.
func (v *verdictIssuers) places(t testing.TB) (calls []verdictCall) {
	us := map[string]any{"aud": "us"}
	good, two := v.one.sign(t, "ES256", us), v.two.sign(t, "ES256", nil)
	for _, algorithm := range []string{"RS256", "PS256", "EdDSA", "HS256", "none"} {
		calls = append(calls, verdictCall{name: "signed by " + algorithm, headers: bearerLine(v.one.sign(t, algorithm, us))})
	}
	return append(calls,
		verdictCall{name: "of nobody known", headers: bearerLine(newIssuer(t, "https://four.example").sign(t, "ES256", us))},
		verdictCall{name: "signed by somebody else", headers: bearerLine(newIssuer(t, v.one.name).sign(t, "ES256", us))},
		verdictCall{name: "signed by the other", headers: bearerLine(v.two.sign(t, "ES256", map[string]any{"iss": v.one.name, "aud": "us"}))},
		verdictCall{name: "of two", headers: bearerLine(two)},
		verdictCall{name: "of two in its place", headers: pairs("x-jwt", "Tok "+two)},
		verdictCall{name: "of one in two's place", headers: pairs("x-jwt", "Tok "+good)},
		verdictCall{name: "without its prefix", headers: pairs("x-jwt", two)},
		verdictCall{name: "with another's prefix", headers: pairs("x-jwt", "Bearer "+two)},
		verdictCall{name: "twice in a place of its own", headers: pairs("x-jwt", "Tok "+two, "x-jwt", "Tok "+two)},
		verdictCall{name: "good and bad in a place of its own", headers: pairs("x-jwt", "Tok "+two, "x-jwt", "Tok x")},
		verdictCall{name: "in a cookie", headers: pairs("cookie", "session="+two)},
		verdictCall{name: "in a cookie among others", headers: pairs("cookie", "a=1; session="+two+"; b=2")},
		verdictCall{name: "in one of several cookies", headers: pairs("cookie", "a=1", "cookie", "session="+two)},
		verdictCall{name: "bad in a cookie", headers: pairs("cookie", "session=x")},
		verdictCall{name: "empty in a cookie", headers: pairs("cookie", "session=")},
		verdictCall{name: "two good ones", headers: append(bearerLine(good), pairs("x-jwt", "Tok "+two)...)},
		verdictCall{name: "one of two is bad", headers: append(bearerLine(good), pairs("x-jwt", "Tok x")...)},
		verdictCall{name: "good and bad", headers: append(bearerLine(good), bearerLine("x")...)},
		verdictCall{name: "bad and good", headers: append(bearerLine("x"), bearerLine(good)...)},
		verdictCall{name: "twice", headers: append(bearerLine(good), bearerLine(good)...)},
		verdictCall{name: "and a password", headers: append(bearerLine(good), pairs("authorization", "Basic x")...)},
		verdictCall{name: "a password", headers: pairs("authorization", "Basic x")},
		verdictCall{name: "two passwords", headers: pairs("authorization", "Basic x", "authorization", "Basic y")},
		verdictCall{name: "twice in a line", headers: bearerLine(good + ", Bearer " + good)},
		verdictCall{name: "in lower case", headers: pairs("authorization", "bearer "+good)},
		verdictCall{name: "behind two spaces", headers: bearerLine(" " + good)},
		verdictCall{name: "before a space", headers: bearerLine(good + " ")},
		verdictCall{name: "behind something", headers: pairs("authorization", "x Bearer "+good), stricter: anyRule},
		verdictCall{name: "before something", headers: bearerLine(good + " x"), stricter: anyRule},
		verdictCall{name: "in quotes", headers: bearerLine(`"` + good + `"`)},
		verdictCall{name: "empty", headers: bearerLine("")},
		verdictCall{name: "the word alone", headers: pairs("authorization", "Bearer")},
		verdictCall{name: "nothing", headers: pairs("authorization", "")},
		verdictCall{name: "cut off", headers: bearerLine(good[:len(good)-4])},
		verdictCall{name: "padded", headers: bearerLine(good + "=="), stricter: anyRule},
		verdictCall{name: "of four parts", headers: bearerLine(good + ".x")},
		verdictCall{name: "in a query", headers: pairs(":path", "/pkg.Svc/Get?access_token="+good), stricter: anyRule},
		verdictCall{name: "bad in a query", headers: pairs(":path", "/pkg.Svc/Get?access_token=x")},
		verdictCall{name: "in the query that is its place", headers: pairs(":path", "/pkg.Svc/Get?jwt="+v.three.sign(t, "ES256", nil)), stricter: anyRule},
		verdictCall{name: "bad in the query that is its place", headers: pairs(":path", "/pkg.Svc/Get?x&jwt=x")},
		verdictCall{name: "claims of the caller's own", headers: append(bearerLine(good), pairs("x-claim", "chief", "x-payload", "mine")...)},
	)
}

// anyRule is what all rules are about.
const anyRule = ":"

// bearerLine is bearer as a line of its own.
func bearerLine(token string) []header { return pairs(bearer(token)...) }

// claims are calls with tokens that are in order but for what they say.
func (v *verdictIssuers) claims(t testing.TB) (calls []verdictCall) {
	now := time.Now().Unix()
	for _, changes := range []map[string]any{
		{},
		{"exp": now - 3600}, {"exp": now - 20}, {"exp": fmt.Sprint(now + 3600)}, {"exp": float64(now) + 3600.5}, {"exp": -1}, {"exp": nil}, {"exp": 1e30},
		{"nbf": now + 3600}, {"nbf": now + 20}, {"iat": now + 3600}, {"iat": "x"}, {"jti": 7},
		{"sub": 7}, {"sub": ""}, {"sub": "a/b"}, {"sub": strings.Repeat("x", 5000)},
		{"iss": ""}, {"iss": v.one.name + "/"}, {"iss": []string{v.one.name}},
		{"aud": "x"}, {"aud": []string{"x", "us"}}, {"aud": "them.example"}, {"aud": "http://them.example"}, {"aud": "US"}, {"aud": "us/"}, {"aud": 1}, {"aud": []any{1, "us"}},
		{"aud": nil}, {"aud": ""}, {"aud": []string{}}, {"azp": "app"},
		{"groups": "admin"}, {"groups": "users admin"}, {"groups": []string{"users", "admin"}}, {"groups": []string{"administrators"}}, {"groups": "ADMIN"},
		{"groups": []string{}}, {"groups": ""}, {"groups": nil}, {"groups": 3}, {"groups": []any{[]string{"admin"}}}, {"groups": map[string]any{"admin": true}}, {"groups": "admin\nx"},
		{"scope": "read write"}, {"scope": "write"}, {"scope": "  read  write "}, {"scope": []string{"write"}}, {"scope": []string{"read write"}},
		{"perm": "read write"}, {"perm": "  write "}, {"perm": []string{"write"}}, {"perm": "write"},
		{"realm": map[string]any{"roles": []string{"lead"}}}, {"realm": map[string]any{"roles": "lead"}}, {"realm": map[string]any{"roles": "x lead"}},
		{"realm": []any{map[string]any{"roles": "lead"}}}, {"realm.roles": "lead"},
		{"level": 3}, {"level": "3"}, {"admin": true}, {"admin": "true"},
	} {
		all := map[string]any{"aud": "us"}
		maps.Copy(all, changes)
		calls = append(calls, verdictCall{name: fmt.Sprintf("that claims %.60v", changes), headers: bearerLine(v.one.sign(t, "ES256", all))})
	}
	// For Envoy it never expires.
	return append(calls, verdictCall{name: "that expired in 1970", stricter: anyRule,
		headers: bearerLine(v.one.sign(t, "ES256", map[string]any{"aud": "us", "exp": 0}))})
}
