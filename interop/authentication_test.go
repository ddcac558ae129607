package interop

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// issuer signs tokens of end users.
type issuer struct {
	name string
	rsa  *rsa.PrivateKey
	ec   *ecdsa.PrivateKey
	ed   ed25519.PrivateKey
}

func newIssuer(t testing.TB, name string) *issuer {
	t.Helper()
	i := &issuer{name: name}
	var err error
	i.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	_, i.ed, err = ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return i
}

// jwks is the public half, as a RequestAuthentication has it.
func (i *issuer) jwks(t testing.TB) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	point, err := i.ec.PublicKey.Bytes() // 4, x, y
	must(t, err)
	keys, err := json.Marshal(map[string]any{"keys": []map[string]string{
		{"kty": "RSA", "kid": "rsa", "n": b64(i.rsa.N.Bytes()), "e": b64(big.NewInt(int64(i.rsa.E)).Bytes())},
		{"kty": "EC", "kid": "ec", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])},
		{"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": b64(i.ed.Public().(ed25519.PublicKey))},
	}})
	must(t, err)
	return string(keys)
}

// claims are those of a token that is in order, with changes.
func (i *issuer) claims(changes map[string]any) map[string]any {
	claims := map[string]any{"iss": i.name, "sub": "somebody", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, changes)
	return claims
}

// sign makes a token. The algorithm says which key.
func (i *issuer) sign(t testing.TB, algorithm string, changes map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(i.claims(changes))
	must(t, err)
	kid := map[string]string{"RS256": "rsa", "PS256": "rsa", "ES256": "ec", "EdDSA": "ed"}[algorithm]
	header := fmt.Sprintf(`{"alg":"%s","typ":"JWT","kid":"%s"}`, algorithm, kid)
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(header)) + "." + b64(payload)
	digest := sha256.Sum256([]byte(text))
	var signature []byte
	switch algorithm {
	case "RS256":
		signature, err = rsa.SignPKCS1v15(rand.Reader, i.rsa, crypto.SHA256, digest[:])
	case "PS256":
		signature, err = rsa.SignPSS(rand.Reader, i.rsa, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	case "ES256":
		r, s, e := ecdsa.Sign(rand.Reader, i.ec, digest[:])
		signature, err = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...), e
	case "EdDSA":
		signature = ed25519.Sign(i.ed, []byte(text))
	case "HS256": // with what is public as the secret, an old trick
		mac := hmac.New(sha256.New, i.rsa.N.Bytes())
		mac.Write([]byte(text))
		signature = mac.Sum(nil)
	case "none":
	default:
		t.Fatal("no such algorithm: " + algorithm)
	}
	must(t, err)
	return text + "." + b64(signature)
}

// bearer is the header of a call with the token.
func bearer(token string) []string { return []string{"authorization", "Bearer " + token} }

// requestAuthentication is one for the guarded provider.
func requestAuthentication(t testing.TB, more string, issuers ...*issuer) string {
	t.Helper()
	rules := ""
	for _, i := range issuers {
		rules += fmt.Sprintf("  - {issuer: %q, jwks: '%s'%s}\n", i.name, i.jwks(t), more)
	}
	return `---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tried, namespace: guarded}
spec:
  selector: {matchLabels: {app: guarded}}
  jwtRules:
` + rules
}

// TestRequestAuthentication sends tokens good and bad to a provider that takes
// those of two issuers. A call without a token is let in: that one is needed is
// an AuthorizationPolicy's word. A token for somebody else is forbidden rather
// than bad, as Envoy has it.
func TestRequestAuthentication(t *testing.T) {
	g := newGuarded(t)
	one, two, stranger := newIssuer(t, "https://one.example"), newIssuer(t, "https://two.example"), newIssuer(t, "https://three.example")
	impostor := newIssuer(t, one.name)
	g.govern(t, requestAuthentication(t, ", audiences: [greetings, others]", one, two))
	must(t, lab.WaitFor(within(t, 30*time.Second), "tokens to be looked at", func(context.Context) error {
		if err := outcome(t, g.callers["alice"], sayHello, bearer("nonsense")...); status.Code(err) != codes.Unauthenticated {
			return fmt.Errorf("a bad token: %w", err)
		}
		return nil
	}))
	ours := map[string]any{"aud": "greetings"}
	with := func(changes map[string]any) map[string]any {
		all := maps.Clone(ours)
		maps.Copy(all, changes)
		return all
	}
	good := one.sign(t, "RS256", ours)
	cases := []struct {
		name, token string
		want        codes.Code
	}{
		{"no token", "", codes.OK},
		{"RS256", good, codes.OK},
		{"PS256", one.sign(t, "PS256", ours), codes.OK},
		{"ES256", one.sign(t, "ES256", ours), codes.OK},
		{"EdDSA", one.sign(t, "EdDSA", ours), codes.OK},
		{"the other issuer", two.sign(t, "ES256", ours), codes.OK},
		{"one of several audiences", one.sign(t, "RS256", with(map[string]any{"aud": []string{"x", "others"}})), codes.OK},
		{"none", one.sign(t, "none", ours), codes.Unauthenticated},
		{"HS256", one.sign(t, "HS256", ours), codes.Unauthenticated},
		{"expired", one.sign(t, "RS256", with(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})), codes.Unauthenticated},
		{"not valid yet", one.sign(t, "RS256", with(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()})), codes.Unauthenticated},
		{"a wrong audience", one.sign(t, "RS256", map[string]any{"aud": "elsewhere"}), codes.PermissionDenied},
		{"no audience", one.sign(t, "RS256", nil), codes.PermissionDenied},
		{"an unknown issuer", stranger.sign(t, "RS256", ours), codes.Unauthenticated},
		{"signed by somebody else", impostor.sign(t, "RS256", ours), codes.Unauthenticated},
		{"signed by the other issuer", two.sign(t, "RS256", with(map[string]any{"iss": one.name})), codes.Unauthenticated},
		{"a changed signature", good[:len(good)-8] + "AAAAAAAA", codes.Unauthenticated},
		{"not a token", "a.b.c", codes.Unauthenticated},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			if c.token != "" {
				headers = bearer(c.token)
			}
			err := outcome(t, g.callers["alice"], sayHello, headers...)
			if status.Code(err) != c.want {
				t.Errorf("the call ended with %v, want %v", err, c.want)
			}
			if err != nil {
				quiet(t, err, "signature", "issuer", "expired", "audience", "kid")
			}
		})
	}
	if s := g.log.String(); containsAny(s, good) {
		t.Error("a token is in the log")
	}
}

// TestClaims lets calls in by what their tokens say.
func TestClaims(t *testing.T) {
	g := newGuarded(t)
	one, two := newIssuer(t, "https://one.example"), newIssuer(t, "https://two.example")
	token := func(i *issuer, changes map[string]any) []string { return bearer(i.sign(t, "ES256", changes)) }
	admin := token(one, map[string]any{"groups": []string{"users", "admin"}})
	cases := []struct {
		name, spec string
		attempts   []attempt
	}{
		{"a token is needed", `{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]}`,
			[]attempt{no("alice"), yes("alice", admin...)}},
		{"request principal", `{action: ALLOW, rules: [{from: [{source: {requestPrincipals: ["https://one.example/somebody"]}}]}]}`,
			[]attempt{no("alice"), yes("alice", admin...), no("alice", token(one, map[string]any{"sub": "else"})...), no("alice", token(two, nil)...)}},
		{"any of an issuer", `{action: ALLOW, rules: [{from: [{source: {requestPrincipals: ["https://two.example/*"]}}]}]}`,
			[]attempt{no("alice"), no("alice", admin...), yes("alice", token(two, nil)...)}},
		{"claim in a list", `{action: ALLOW, rules: [{when: [{key: "request.auth.claims[groups]", values: [admin]}]}]}`,
			[]attempt{no("alice"), yes("alice", admin...), yes("alice", token(two, map[string]any{"groups": "admin"})...),
				no("alice", token(one, map[string]any{"groups": []string{"users", "administrators"}})...)}},
		{"claim in a claim", `{action: ALLOW, rules: [{when: [{key: "request.auth.claims[realm][roles]", values: ["lead-*"], notValues: [lead-x]}]}]}`,
			[]attempt{no("alice", admin...), yes("alice", token(one, map[string]any{"realm": map[string]any{"roles": []string{"a", "lead-b"}}})...),
				no("alice", token(one, map[string]any{"realm": map[string]any{"roles": []string{"lead-x"}}})...),
				no("alice", token(one, map[string]any{"realm.roles": "lead-b"})...)}},
		{"audience and presenter", `{action: ALLOW, rules: [{when: [{key: request.auth.audiences, values: [us]}, {key: request.auth.presenter, values: [app]}]}]}`,
			[]attempt{no("alice", admin...), yes("alice", token(one, map[string]any{"aud": "us", "azp": "app"})...), no("alice", token(one, map[string]any{"aud": "us"})...)}},
		{"claim and caller", `{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/guarded/sa/alice]}}], when: [{key: "request.auth.claims[groups]", values: [admin]}]}]}`,
			[]attempt{yes("alice", admin...), no("bob", admin...), no("alice")}},
	}
	g.govern(t, requestAuthentication(t, "", one, two))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g.govern(t, authorizationPolicy(c.spec, ""))
			g.expect(t, c.attempts)
		})
	}
}
