package proxyless

import (
	"testing"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

// TestModelOfJWT wants meshtest's filter to mean what istiod's does.
func TestModelOfJWT(t *testing.T) {
	es, rs := signer{"ES256", "ec", ecKey()}, signer{"RS256", "rsa", rsaKey()}
	one := meshtest.JWTRule{Issuer: "one", JWKS: jwks(es.jwk("")), Audiences: []string{"a"}, ClaimHeaders: map[string]string{"x-sub": "sub"}, PayloadHeader: "x-payload"}
	two := meshtest.JWTRule{Issuer: "two", JWKS: jwks(rs.jwk("")), FromHeaders: []meshtest.JWTHeader{{Name: "x-two", Prefix: "T "}}, FromCookies: []string{"c"}, Forward: true, ClockSkew: time.Second}
	good, second := es.token(claimsUntil(10, `,"aud":"a","scope":"x y"`)), rs.token(`{"iss":"two"}`)
	for name, c := range map[string]struct {
		filter meshtest.HTTPFilter
		cases  []jwtCase
	}{
		"one": {meshtest.JWTFilter(one), []jwtCase{{"none", callWith(), ""}, {"good", bearer(good), ""}, {"bad", bearer("x"), "no JSON"}, {"of another", bearer(second), "another issuer"}}},
		"two": {meshtest.JWTFilter(one, two), []jwtCase{{"none", callWith(), ""}, {"first", bearer(good), ""}, {"second", callWith("x-two", "T "+second), ""}, {"cookie", callWith("cookie", "c="+second), ""},
			{"first is bad", bearer("x"), "no JSON"}, {"second is bad", callWith("x-two", "T x"), "no JSON"}}},
	} {
		f, notes := readJWT(t, rawProto(c.filter.Config))
		if len(notes) > 0 || len(f.providers) == 0 || f.providers[0].payloadKey != "payload" || len(f.providers[0].claimHeaders) != 1 {
			t.Errorf("%s: %q, %+v", name, notes, f.providers)
		}
		checkJWT(t, f, c.cases)
	}
}
