package proxyless

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// jwtNow is the time of these tests.
var jwtNow = time.Unix(1_800_000_000, 0)

// rawProvider is a JwtProvider with keys.
func rawProvider(issuer, keys string) rawProto {
	return rawProto{}.text(1, issuer).msg(4, rawProto{}.text(3, keys)).text(9, "payload")
}

func rawNeeds(provider string) rawProto { return rawProto{}.text(1, provider) }

// rawOf is requires_any (3) or requires_all (4).
func rawOf(kind protowire.Number, needs ...rawProto) rawProto {
	return rawProto{}.msg(kind, rawProto{}.msg(1, needs...))
}

var (
	rawAllowMissing         = rawProto{}.msg(6, rawProto{})
	rawAllowMissingOrFailed = rawProto{}.msg(5, rawProto{})
)

// rawJWT is a JwtAuthentication whose only rule is for all calls.
func rawJWT(needs rawProto, providers ...rawProto) rawProto {
	m := rawProto{}
	for i, p := range providers {
		m = m.entry(1, fmt.Sprint("p", i), p)
	}
	return m.msg(2, rawProto{}.msg(1, rawProto{}.text(1, "/")).msg(2, needs))
}

// readJWT reads a filter, and what of it is noted.
func readJWT(t testing.TB, raw rawProto) (*jwtFilter, []string) {
	t.Helper()
	d := &decoding{}
	f, err := d.jwtFilter(raw)
	if err != nil {
		t.Fatal(err)
	}
	return f, d.notes()
}

func callWith(pairs ...string) *callFacts {
	return &callFacts{headers: callHeaders{md: metadata.Pairs(pairs...), path: "/p.S/Get", authority: "a:80", incoming: true}}
}

func callAt(path string, pairs ...string) *callFacts {
	c := callWith(pairs...)
	c.headers.path = path
	return c
}

func claimsUntil(seconds int, more string) string {
	return fmt.Sprintf(`{"iss":"one","sub":"bob","exp":%d%s}`, jwtNow.Unix()+int64(seconds), more)
}

// jwtCase is a call, and what is made of it: empty for passed, or a part of the
// reason for which it was refused.
type jwtCase struct {
	name   string
	call   *callFacts
	reason string
}

func checkJWT(t *testing.T, f *jwtFilter, cases []jwtCase) {
	t.Helper()
	for _, c := range cases {
		for range 2 { // the second time with what is known by then
			call := *c.call
			switch r := f.checkAt(&call, jwtNow); {
			case c.reason == "" && r != ruling{}:
				t.Errorf("%s: refused: %+v", c.name, r)
			case c.reason != "" && (!strings.Contains(r.reason, c.reason) || r.code == codes.OK || r.action != "JWT"):
				t.Errorf("%s: %+v, want %q", c.name, r, c.reason)
			case c.reason != "" && (call.claims != nil || call.edited):
				t.Errorf("%s: refused with claims", c.name)
			}
		}
	}
}

func bearer(token string) *callFacts { return callWith("authorization", "Bearer "+token) }

// TestTokenOfOneProvider judges claims at their edges.
func TestTokenOfOneProvider(t *testing.T) {
	es := signer{"ES256", "ec", ecKey()}
	other := signer{"ES256", "ec", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	provider := rawProvider("one", jwks(es.jwk(""))).text(2, "https://aud.example/", "two")
	f, notes := readJWT(t, rawJWT(rawNeeds("p0"), provider))
	if len(notes) > 0 {
		t.Errorf("noted %q", notes)
	}
	with := func(claims string) *callFacts { return bearer(es.token(claims)) }
	good := claimsUntil(10, `,"aud":"two"`)
	checkJWT(t, f, []jwtCase{
		{"good", with(good), ""},
		{"audience in a list", with(claimsUntil(10, `,"aud":["x","two"]`)), ""},
		{"audience without scheme and slash", with(claimsUntil(10, `,"aud":"aud.example"`)), ""},
		{"audience of another scheme", with(claimsUntil(10, `,"aud":["http://aud.example/"]`)), ""},
		{"no audience", with(claimsUntil(10, "")), "audience"},
		{"empty list of audiences", with(claimsUntil(10, `,"aud":[]`)), "audience"},
		{"another audience", with(claimsUntil(10, `,"aud":"TWO"`)), "audience"},
		{"part of an audience", with(claimsUntil(10, `,"aud":"tw"`)), "audience"},
		{"audience is a number", with(claimsUntil(10, `,"aud":2`)), "wrong type"},
		{"audience in a list is a number", with(claimsUntil(10, `,"aud":["two",2]`)), "wrong type"},
		{"audience is null", with(claimsUntil(10, `,"aud":null`)), "wrong type"},
		{"expires now", with(claimsUntil(0, `,"aud":"two"`)), ""},
		{"expired as long ago as clocks may differ", with(claimsUntil(-60, `,"aud":"two"`)), ""},
		{"expired a second longer ago", with(claimsUntil(-61, `,"aud":"two"`)), "expired"},
		{"expired a part of a second longer ago", with(fmt.Sprintf(`{"iss":"one","aud":"two","exp":%d.5}`, jwtNow.Unix()-61)), "expired"},
		{"expired in 1970", with(`{"iss":"one","aud":"two","exp":0}`), "expired"},
		{"never expires", with(`{"iss":"one","aud":"two"}`), ""},
		{"expires in the far future", with(`{"iss":"one","aud":"two","exp":9e18}`), ""},
		{"expiry is text", with(`{"iss":"one","aud":"two","exp":"9999999999"}`), "wrong type"},
		{"expiry is negative", with(`{"iss":"one","aud":"two","exp":-1}`), "wrong type"},
		{"expiry is null", with(`{"iss":"one","aud":"two","exp":null}`), "wrong type"},
		{"expiry is out of range", with(`{"iss":"one","aud":"two","exp":1e300}`), "wrong type"},
		{"valid in as long as clocks may differ", with(claimsUntil(90, fmt.Sprintf(`,"aud":"two","nbf":%d`, jwtNow.Unix()+60))), ""},
		{"valid a second later", with(claimsUntil(90, fmt.Sprintf(`,"aud":"two","nbf":%d`, jwtNow.Unix()+61))), "not valid yet"},
		{"not before is text", with(claimsUntil(90, `,"aud":"two","nbf":"1"`)), "wrong type"},
		{"issued at is text", with(claimsUntil(90, `,"aud":"two","iat":"1"`)), "wrong type"},
		{"subject is a number", with(`{"iss":"one","aud":"two","sub":1}`), "wrong type"},
		{"no issuer", with(`{"aud":"two"}`), "another issuer"},
		{"another issuer", with(`{"iss":"One","aud":"two"}`), "another issuer"},
		{"issuer with a slash", with(`{"iss":"one/","aud":"two"}`), "another issuer"},
		{"issuer is a list", with(`{"iss":["one"],"aud":"two"}`), "wrong type"},
		{"signed by somebody else", bearer(other.token(good)), "signature"},
		{"another key id", bearer(signer{"ES256", "x", ecKey()}.token(good)), "no key"},
		{"no token", callWith("x", "y"), "no token"},
		{"another scheme", callWith("authorization", "Basic "+es.token(good)), "no token"},
		{"scheme in lower case", callWith("authorization", "bearer "+es.token(good)), "no token"},
		{"no scheme", callWith("authorization", es.token(good)), "no token"},
		{"scheme alone", callWith("authorization", "Bearer "), "no JSON Web Token"},
		{"spaces around", callWith("authorization", "Bearer   "+es.token(good)+" "), ""},
		{"two tokens in one value", bearer(es.token(good) + " " + es.token(good)), "no JSON Web Token"},
		{"two tokens between commas", bearer(es.token(good) + ",Bearer " + es.token(good)), "no JSON Web Token"},
		{"a token behind another scheme", callWith("authorization", "Basic x, Bearer "+es.token(good)), "no JSON Web Token"},
		{"two lines", callWith("authorization", "Bearer "+es.token(good), "authorization", "Bearer "+es.token(good)), "no JSON Web Token"},
		{"a token and another scheme in two lines", callWith("authorization", "Bearer "+es.token(good), "authorization", "Basic x"), "no JSON Web Token"},
		{"two lines of another scheme", callWith("authorization", "Basic x", "authorization", "Basic y"), "no token"},
		{"in a query", callAt("/p.S/Get?x=1&access_token=" + es.token(good)), "no JSON Web Token"},
		{"in a query, escaped", callAt("/p.S/Get?access%5ftoken=" + es.token(good)), "no JSON Web Token"},
		{"a query without one", callAt("/p.S/Get?x=1"), "no token"},
		{"and a bad one in a query", callAt("/p.S/Get?access_token=x", "authorization", "Bearer "+es.token(good)), "no JSON Web Token"},
		{"elsewhere", callWith("x-token", es.token(good)), "no token"},
	})
	if r := f.checkAt(with(claimsUntil(10, "")), jwtNow); r.code != codes.PermissionDenied {
		t.Errorf("another audience: %v, as Envoy's 403", r.code)
	}
	if r := f.checkAt(callWith(), jwtNow); r.code != codes.Unauthenticated || r.reason != "provider p0: there is no token" {
		t.Errorf("no token: %+v", r)
	}
}

// TestKnownTokens wants tokens that were verified before to be judged by their
// time all the same, and those of others never to be taken for them.
func TestKnownTokens(t *testing.T) {
	es := signer{"ES256", "ec", ecKey()}
	f, _ := readJWT(t, rawJWT(rawNeeds("p0"), rawProvider("one", jwks(es.jwk(""))).num(10, 5)))
	token := es.token(claimsUntil(10, ""))
	at := func(seconds int) codes.Code {
		return f.checkAt(bearer(token), jwtNow.Add(time.Duration(seconds)*time.Second)).code
	}
	if at(0) != codes.OK || at(15) != codes.OK || at(16) != codes.Unauthenticated || at(0) != codes.OK {
		t.Error("a token that is known lives longer than it may, or shorter")
	}
	if e := f.known.find((*[32]byte)(digestOf(token))); e == nil {
		t.Error("the token is not remembered")
	}
	if e := f.known.find((*[32]byte)(digestOf(token + "x"))); e != nil {
		t.Error("another token is known")
	}
	for range 3 { // more than there is room for
		for i := range tokenSets * tokenWays {
			k := &knownToken{facts: tokenFacts{hasExpiry: i%2 == 0, expires: float64(jwtNow.Unix() + int64(i%3) - 1)}}
			copy(k.hash[:], digestOf(fmt.Sprint(i)))
			f.known.keep(k, float64(jwtNow.Unix()))
			if f.known.find(&k.hash) != k && f.known.find(&k.hash) == nil {
				t.Fatal("the newest is not there")
			}
		}
	}
	if at(0) != codes.OK {
		t.Error("a token that was forgotten is refused")
	}
	large := es.token(claimsUntil(10, `,"x":"`+strings.Repeat("y", maxKnownToken)+`"`))
	if f.checkAt(bearer(large), jwtNow).code != codes.OK || f.known.find((*[32]byte)(digestOf(large))) != nil {
		t.Error("a large token is refused, or kept")
	}
	forged := token[:len(token)-4] + "AAAA"
	if f.checkAt(bearer(forged), jwtNow).code == codes.OK || f.known.find((*[32]byte)(digestOf(forged))) != nil {
		t.Error("a forged token passes, or is kept")
	}
}

// TestKnownTokenLetsItsHeaderGo sends a small token in a large header, which must
// not be kept for as long as the token is.
func TestKnownTokenLetsItsHeaderGo(t *testing.T) {
	es := signer{"ES256", "ec", ecKey()}
	f, _ := readJWT(t, rawJWT(rawNeeds("p0"), rawProvider("one", jwks(es.jwk("")))))
	token := es.token(claimsUntil(10, ""))
	value := "Bearer " + strings.Repeat(" ", 1<<20) + token
	if r := f.checkAt(callWith("authorization", value), jwtNow); r.code != codes.OK {
		t.Fatalf("refused: %+v", r)
	}
	kept := f.known.find((*[32]byte)(digestOf(token)))
	if kept == nil {
		t.Fatal("it is not known")
	}
	from := uintptr(unsafe.Pointer(unsafe.StringData(value)))
	for name, text := range map[string]string{"signed": kept.signed.signed, "encoded": kept.signed.encoded} {
		if at := uintptr(unsafe.Pointer(unsafe.StringData(text))); from <= at && at < from+uintptr(len(value)) {
			t.Errorf("%s is a part of the header", name)
		}
	}
	runtime.KeepAlive(value)
}

// TestKnownTokenAllocates holds a call with a token that is known to what it
// may cost.
func TestKnownTokenAllocates(t *testing.T) {
	skipUnderRace(t)
	es, rs := signer{"ES256", "ec", ecKey()}, signer{"RS256", "rsa", rsaKey()}
	any2 := rawOf(3, rawNeeds("p0"), rawNeeds("p1"), rawOf(4, rawOf(3, rawNeeds("p0"), rawAllowMissing), rawOf(3, rawNeeds("p1"), rawAllowMissing)))
	f, _ := readJWT(t, rawJWT(any2, rawProvider("zero", jwks(rs.jwk(""))).num(5, 1), rawProvider("one", jwks(es.jwk(""))).num(5, 1)))
	for name, call := range map[string]*callFacts{"of the second provider": bearer(es.token(claimsUntil(100, ""))), "none": callWith("a", "b")} {
		if n := leastAllocs(100, func() {
			call.claims, call.headers.lastName = nil, ""
			if r := f.checkAt(call, jwtNow); r.code != codes.OK {
				t.Fatal(r)
			}
		}); n > 0 {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}

// TestRequirements goes through what istiod makes of RequestAuthentications,
// and what else Envoy knows.
func TestRequirements(t *testing.T) {
	es, rs, ed := signer{"ES256", "ec", ecKey()}, signer{"RS256", "rsa", rsaKey()}, signer{"EdDSA", "ed", edKey()}
	one, two := es.token(claimsUntil(10, "")), rs.token(`{"iss":"two","sub":"alice"}`)
	anyone := ed.token(`{"iss":"whoever"}`)
	providers := []rawProto{
		rawProvider("one", jwks(es.jwk(""))),
		rawProvider("two", jwks(rs.jwk(""))).msg(6, rawProto{}.text(1, "X-Token").text(2, "Token "), rawProto{}.text(1, "x-bare")),
		rawProvider("", jwks(ed.jwk(""))).text(13, "session"),
		rawProvider("one", jwks(es.jwk(""))).text(7, "jwt"),
	}
	missing := []jwtCase{{"none", callWith("a", "b"), "no token"}}
	for name, c := range map[string]struct {
		needs rawProto
		cases []jwtCase
	}{
		"one": {rawNeeds("p0"), append(missing, jwtCase{"first", bearer(one), ""}, jwtCase{"second in the place of the first", bearer(two), "another issuer"})},
		"another place": {rawNeeds("p1"), append(missing, jwtCase{"with prefix", callWith("x-token", "Token "+two), ""}, jwtCase{"bare", callWith("x-bare", two), ""},
			jwtCase{"not in its own place", bearer(two), "no token"}, jwtCase{"without prefix", callWith("x-token", two), "no token"},
			jwtCase{"both places, one bad", callWith("x-bare", two, "x-token", "Token "+one), "another issuer"},
			jwtCase{"twice, one bad", callWith("x-bare", two, "x-bare", one), "another issuer"}, jwtCase{"nine times", callWith(slices.Repeat([]string{"x-bare", two}, 9)...), "too many"},
			jwtCase{"a query is not its place", callAt("/p.S/Get?access_token=x", "x-bare", two), ""}, jwtCase{"empty", callWith("x-bare", ""), "no JSON Web Token"})},
		"cookie": {rawNeeds("p2"), append(missing, jwtCase{"alone", callWith("cookie", "session="+anyone), ""}, jwtCase{"among others", callWith("cookie", `a=b; session="`+anyone+`"; c`), ""},
			jwtCase{"twice, one bad", callWith("cookie", "session="+anyone, "cookie", "session=x"), "no JSON Web Token"}, jwtCase{"another", callWith("cookie", "xsession="+anyone), "no token"})},
		"a query": {rawNeeds("p3"), append(missing, jwtCase{"elsewhere", bearer(one), "no token"}, jwtCase{"there", callAt("/p.S/Get?jwt=" + one), "no JSON Web Token"})},
		"any": {rawOf(3, rawNeeds("p0"), rawNeeds("p1")), append(missing, jwtCase{"first", bearer(one), ""}, jwtCase{"second", callWith("x-bare", two), ""},
			jwtCase{"neither", bearer("x"), "no JSON Web Token"}, jwtCase{"first is enough", callWith("authorization", "Bearer "+one, "x-bare", "x"), ""})},
		"all": {rawOf(4, rawNeeds("p0"), rawNeeds("p1")), append(missing, jwtCase{"first", bearer(one), "no token"}, jwtCase{"both", callWith("authorization", "Bearer "+one, "x-bare", two), ""})},
		"one, which may be missing": {rawOf(3, rawAllowMissing, rawNeeds("p0")), []jwtCase{{"none", callWith(), ""}, {"good", bearer(one), ""}, {"bad", bearer(one[:len(one)-4] + "AAAA"), "signature"},
			{"unknown issuer", bearer(es.token(`{"iss":"x"}`)), "another issuer"}, {"another's place is not looked at", callWith("x-bare", "x"), ""}}},
		"two, which may be missing": {rawOf(3, rawNeeds("p0"), rawNeeds("p1"), rawOf(4, rawOf(3, rawNeeds("p0"), rawAllowMissing), rawOf(3, rawNeeds("p1"), rawAllowMissing))),
			[]jwtCase{{"none", callWith(), ""}, {"first", bearer(one), ""}, {"second", callWith("x-bare", two), ""}, {"first is bad", bearer("x"), "no JSON Web Token"},
				{"second is bad", callWith("x-bare", "x.y.z"), "no JSON Web Token"}, {"a good and a bad", callWith("authorization", "Bearer x", "x-bare", two), ""}}},
		"what there is": {rawAllowMissing, []jwtCase{{"none", callWith(), ""}, {"all three", callWith("authorization", "Bearer "+one, "x-bare", two, "cookie", "session="+anyone), ""},
			{"one is bad", callWith("authorization", "Bearer "+one, "cookie", "session=x"), "no JSON Web Token"}, {"not in its place", bearer(two), "another issuer"}}},
		"good or not":         {rawAllowMissingOrFailed, []jwtCase{{"none", callWith(), ""}, {"bad", bearer("x"), ""}, {"good", bearer(one), ""}}},
		"one, or good or not": {rawOf(3, rawNeeds("p0"), rawAllowMissing, rawAllowMissingOrFailed), []jwtCase{{"none", callWith(), ""}, {"bad", bearer("x"), ""}}},
		"nothing":             {rawProto{}, []jwtCase{{"none", callWith(), ""}, {"bad", bearer("x"), ""}}},
		"for an audience":     {rawProto{}.msg(2, rawProto{}.text(1, "p0").text(2, "http://a/")), []jwtCase{{"none", bearer(one), "audience"}, {"the one", bearer(es.token(claimsUntil(10, `,"aud":"a"`))), ""}}},
		"without validation":  {rawProto{}.msg(7, rawProto{}), []jwtCase{{"good", bearer(one), "not supported"}, {"none", callWith(), "not supported"}}},
		"newer than this":     {rawProto{}.msg(99, rawProto{}), []jwtCase{{"good", bearer(one), "not supported"}}},
		"one, or newer":       {rawOf(3, rawNeeds("p0"), rawProto{}.msg(99, rawProto{})), []jwtCase{{"good", bearer(one), ""}, {"none", callWith(), "not supported"}}},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := readJWT(t, rawJWT(c.needs, providers...))
			checkJWT(t, f, c.cases)
		})
	}
}

// TestClaimsOfCall wants those of verified tokens, and of no others.
func TestClaimsOfCall(t *testing.T) {
	es, rs := signer{"ES256", "ec", ecKey()}, signer{"RS256", "rsa", rsaKey()}
	one := es.token(claimsUntil(10, `,"scope":"read  write","n":7,"deep":{"list":[true]}`))
	two := rs.token(`{"iss":"two","sub":"alice"}`)
	normalize := rawProto{}.text(1, "scope", "sub", "n", "absent")
	f, notes := readJWT(t, rawJWT(rawOf(3, rawOf(4, rawNeeds("p0"), rawNeeds("p1")), rawAllowMissingOrFailed),
		rawProvider("one", jwks(es.jwk(""))).msg(18, normalize), rawProvider("two", jwks(rs.jwk(""))).msg(6, rawProto{}.text(1, "x-two")).text(9, "second").text(14, "header")))
	if len(notes) > 0 {
		t.Errorf("noted %q", notes)
	}
	for _, c := range []struct {
		call *callFacts
		path string
		want any
	}{
		{bearer(one), "payload iss", "one"},
		{bearer(one), "payload scope", []any{"read", "write"}},
		{bearer(one), "payload sub", []any{"bob"}},
		{bearer(one), "payload n", 7.0},
		{bearer(one), "payload deep list", []any{true}},
		{bearer(one), "second iss", nil},
		{bearer(one + "x"), "payload iss", nil},
		{callWith("authorization", "Bearer "+one, "x-two", two), "payload iss", "one"},
		{callWith("authorization", "Bearer "+one, "x-two", two), "second sub", "alice"},
		{callWith("authorization", "Bearer "+one, "x-two", two), "header alg", "RS256"},
		{callWith("authorization", "Bearer "+one, "x-two", two+"x"), "second sub", nil},
		{callWith("authorization", "Bearer "+one, "x-two", two+"x"), "payload iss", "one"},
	} {
		if r := f.checkAt(c.call, jwtNow); r.code != codes.OK {
			t.Fatal(r)
		}
		if got, _ := c.call.claims.lookup(strings.Fields(c.path)); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.path, got, c.want)
		}
	}
}

// TestHandlerHeaders is about what handlers see of tokens.
func TestHandlerHeaders(t *testing.T) {
	es, rs := signer{"ES256", "ec", ecKey()}, signer{"RS256", "rsa", rsaKey()}
	claims := claimsUntil(10, `,"n":7,"f":-0.5,"ok":true,"none":null,"deep":{"er":{"x":"<y>"}},"a.b":"dotted","list":["é",1],"empty":""`)
	token := es.token(claims)
	header := func(name, claim string) rawProto { return rawProto{}.text(1, name).text(2, claim) }
	provider := rawProvider("one", jwks(es.jwk(""))).text(8, "X-Payload").num(11, 1).msg(15,
		header("X-Sub", "sub"), header("x-n", "n"), header("x-f", "f"), header("x-ok", "ok"), header("x-none", "none"), header("x-deep", "deep.er.x"), header("x-map", "deep.er"),
		header("x-list", "list"), header("x-empty", "empty"), header("x-absent", "absent.x"), header("x-sub", "iss"), rawProto{}.text(1, "x-dotted").msg(3, rawProto{}.text(1, "a.b")))
	f, notes := readJWT(t, rawJWT(rawOf(3, rawNeeds("p0"), rawNeeds("p1"), rawAllowMissing), provider,
		rawProvider("two", jwks(rs.jwk(""))).num(5, 1).msg(6, rawProto{}.text(1, "x-two"))))
	if len(notes) > 0 {
		t.Errorf("noted %q", notes)
	}
	call := callWith("authorization", "Bearer "+token, "x-sub", "root", "x-absent", "forged", "other", "o")
	sent := call.headers.md
	if r := f.checkAt(call, jwtNow); r.code != codes.OK {
		t.Fatal(r)
	}
	payload := strings.Split(token, ".")[1]
	want := metadata.MD{"x-payload": {payload + strings.Repeat("=", -len(payload)&3)}, "x-sub": {"bob", "one"}, "x-n": {"7"}, "x-f": {"-0.500000"}, "x-ok": {"true"}, "x-deep": {"<y>"},
		"x-map": {"eyJ4IjoiPHk+In0="}, "x-list": {"WyLDqSIsMV0="}, "x-dotted": {"dotted"}, "other": {"o"}}
	if !call.edited || !reflect.DeepEqual(call.headers.md, want) {
		t.Errorf("the handler sees %v, want %v", call.headers.md, want)
	}
	if len(sent["authorization"]) != 1 || len(sent["x-sub"]) != 1 {
		t.Error("the caller's own metadata was changed")
	}
	if v, _ := call.headers.get("x-sub"); v != "bob,one" {
		t.Errorf("the next filter sees %q", v)
	}
	none := callWith("x-sub", "root", "other", "o")
	if r := f.checkAt(none, jwtNow); r.code != codes.OK || !none.edited || !reflect.DeepEqual(none.headers.md, metadata.MD{"other": {"o"}}) {
		t.Errorf("%+v: a caller without token may forge claims: %v", r, none.headers.md)
	}
	forwarded := callWith("x-two", rs.token(`{"iss":"two"}`))
	if r := f.checkAt(forwarded, jwtNow); r.code != codes.OK || forwarded.edited {
		t.Errorf("%+v: a token that is forwarded is edited: %v", r, forwarded.headers.md)
	}
}

// TestWhatCannotBeObeyed fails closed, and is noted.
func TestWhatCannotBeObeyed(t *testing.T) {
	es := signer{"ES256", "ec", ecKey()}
	token := es.token(claimsUntil(10, ""))
	good := rawProvider("one", jwks(es.jwk("")))
	all := func(match rawProto) rawProto {
		return rawProto{}.entry(1, "p0", good).msg(2, rawProto{}.msg(1, match).msg(2, rawNeeds("p0")))
	}
	for name, c := range map[string]struct {
		filter rawProto
		note   string
		reason string
	}{
		"remote keys":       {rawJWT(rawNeeds("p0"), rawProto{}.text(1, "one").msg(3, rawProto{}.msg(1, rawProto{}.text(1, "https://x")))), "providers[p0].remote_jwks", "remote_jwks is not fetched"},
		"keys of a file":    {rawJWT(rawNeeds("p0"), rawProto{}.text(1, "one").msg(4, rawProto{}.text(1, "/keys"))), "providers[p0].local_jwks.filename", "local_jwks.filename"},
		"keys of a setting": {rawJWT(rawNeeds("p0"), rawProto{}.text(1, "one").msg(4, rawProto{}.text(4, "KEYS"))), "providers[p0].local_jwks.environment_variable", "environment_variable"},
		"no keys":           {rawJWT(rawNeeds("p0"), rawProto{}.text(1, "one")), "providers[p0].jwks_source_specifier", "missing"},
		"bad keys":          {rawJWT(rawNeeds("p0"), rawProvider("one", "{}")), `providers[p0].local_jwks (it has no list "keys")`, "no list"},
		"a bad key":         {rawJWT(rawNeeds("p0"), rawProvider("one", jwks(`{"kty":"oct","k":"AA"}`))), "providers[p0].local_jwks.keys[0] (it is no public key)", "no key that can be used"},
		"newer provider":    {rawJWT(rawNeeds("p0"), good.num(99, 1)), "providers[p0].field 99", "field 99"},
		"newer filter":      {rawProto{}.num(99, 1), "field 99", "newer"},
		"filter state":      {rawProto{}.msg(3, rawProto{}), "filter_state_rules", "filter_state_rules"},
		"newer rule":        {rawProto{}.msg(2, rawProto{}.msg(1, rawProto{}.text(1, "/")).num(99, 1)), "rules[0].field 99", "not supported"},
		"match":             {all(rawProto{}.text(1, "/other").msg(13, rawProto{})), "rules[0].match.dynamic_metadata", "not supported"},
		"subjects":          {rawJWT(rawNeeds("p0"), good.msg(19, rawProto{}.msg(8, rawProto{}))), "providers[p0].subjects.string_match.custom", "subjects"},
	} {
		f, notes := readJWT(t, c.filter)
		if !slices.Contains(notes, c.note) {
			t.Errorf("%s: noted %q", name, notes)
		}
		checkJWT(t, f, []jwtCase{{name, bearer(token), c.reason}})
	}
}

// TestRulesOfFilter takes the first rule that matches.
func TestRulesOfFilter(t *testing.T) {
	es := signer{"ES256", "ec", ecKey()}
	rule := func(match, needs rawProto) rawProto { return rawProto{}.msg(1, match).msg(2, needs) }
	raw := rawProto{}.entry(1, "p0", rawProvider("one", jwks(es.jwk("")))).entry(5, "named", rawNeeds("p0")).num(4, 1).num(6, 1).text(7, "s").msg(2,
		rule(rawProto{}.text(2, "/p.S/Open"), rawProto{}),
		rule(rawProto{}.text(1, "/p.S/").msg(7, rawProto{}.text(1, "q").num(6, 1)), rawAllowMissing), // a query, which no gRPC call has
		rawProto{}.msg(1, rawProto{}.text(1, "/p.S/")).text(3, "named"),
		rawProto{}.msg(1, rawProto{}.text(1, "/q.")),
	)
	f, notes := readJWT(t, raw)
	if len(notes) > 0 {
		t.Errorf("noted %q", notes)
	}
	at := func(path string, call *callFacts) *callFacts { call.headers.path = path; return call }
	checkJWT(t, f, []jwtCase{
		{"open", at("/p.S/Open", callWith()), ""},
		{"by name", at("/p.S/Get", callWith()), "no token"},
		{"by name, good", at("/p.S/Get", bearer(es.token(claimsUntil(1, "")))), ""},
		{"nothing is needed", at("/q.S/Get", callWith()), ""},
		{"no rule", at("/r.S/Get", bearer("x")), ""},
	})
	for name, bad := range map[string]rawProto{
		"unknown provider":     rawJWT(rawNeeds("p1"), rawProvider("one", jwks(es.jwk("")))),
		"unknown provider, 2":  rawJWT(rawProto{}.msg(2, rawProto{}.text(1, "p1"))),
		"unknown provider, 3":  rawJWT(rawOf(3, rawNeeds("p1"))),
		"unknown requirement":  rawProto{}.msg(2, rawProto{}.msg(1, rawProto{}.text(1, "/")).text(3, "x")),
		"empty any":            rawJWT(rawOf(3)),
		"empty all":            rawJWT(rawOf(4)),
		"deep":                 rawJWT(deepNeeds(maxRequirementDepth + 1)),
		"no match":             rawProto{}.msg(2, rawProto{}.msg(2, rawProto{})),
		"wire type":            rawProto{}.num(1, 1),
		"header without name":  rawJWT(rawProto{}, rawProto{}.msg(6, rawProto{}.text(2, "x"))),
		"pseudo header":        rawJWT(rawProto{}, rawProto{}.msg(15, rawProto{}.text(1, ":path").text(2, "x"))),
		"payload as pseudo":    rawJWT(rawProto{}, rawProto{}.text(8, ":path")),
		"claim without name":   rawJWT(rawProto{}, rawProto{}.msg(15, rawProto{}.text(1, "x"))),
		"claim with two names": rawJWT(rawProto{}, rawProto{}.msg(15, rawProto{}.text(1, "x").text(2, "y").msg(3, rawProto{}.text(1, "z")))),
		"negative lifetime":    rawJWT(rawProto{}, rawProto{}.msg(21, rawProto{}.num(1, 1<<63))),
		"subject":              rawJWT(rawProto{}, rawProto{}.msg(19, rawProto{}.msg(5, rawRegex("(")))),
	} {
		if _, err := (&decoding{}).jwtFilter(bad); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func deepNeeds(depth int) rawProto {
	needs := rawAllowMissing
	for range depth {
		needs = rawOf(3, needs)
	}
	return needs
}

// TestLimitsOfProvider is what istiod does not send, and Envoy knows.
func TestLimitsOfProvider(t *testing.T) {
	es := signer{"ES256", "ec", ecKey()}
	with := func(claims string) *callFacts { return bearer(es.token(claims)) }
	provider := rawProto{}.text(1, "one").msg(4, rawProto{}.text(2, jwks(es.jwk("")))).num(10, 10)
	limited, _ := readJWT(t, rawJWT(rawNeeds("p0"), provider.msg(19, rawProto{}.text(2, "bo")).msg(21, rawSeconds(100))))
	checkJWT(t, limited, []jwtCase{
		{"good", with(claimsUntil(100, "")), ""},
		{"for too long", with(claimsUntil(101, "")), "longer"},
		{"for ever", with(`{"iss":"one","sub":"bob"}`), "no expiry"},
		{"skew", with(claimsUntil(-10, "")), ""},
		{"more than skew", with(claimsUntil(-11, "")), "expired"},
		{"another subject", with(fmt.Sprintf(`{"iss":"one","sub":"alice","exp":%d}`, jwtNow.Unix())), "subject"},
		{"no subject", with(fmt.Sprintf(`{"iss":"one","exp":%d}`, jwtNow.Unix())), "subject"},
	})
	ends, _ := readJWT(t, rawJWT(rawNeeds("p0"), provider.num(20, 1)))
	checkJWT(t, ends, []jwtCase{{"ends", with(claimsUntil(1e6, "")), ""}, {"for ever", with(`{"iss":"one"}`), "no expiry"}})
}

// TestIstiodJWT reads what a real istiod made of RequestAuthentications.
func TestIstiodJWT(t *testing.T) {
	for file, c := range map[string]struct {
		providers int
		rules     int
	}{"jwt": {2, 1}, "jwt-one": {1, 1}, "jwt-uri": {1, 1}, "jwt-required": {1, 1}} {
		raw, err := os.ReadFile(filepath.Join("testdata", "jwt", file+".binpb"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeResource(kindListener, raw)
		if err != nil {
			t.Fatal(file, err)
		}
		seen := map[*jwtFilter]int{}
		for _, chain := range got.value.(*listener).inbound {
			for _, f := range chain.filters {
				if f.jwt != nil {
					seen[f.jwt]++
				}
			}
		}
		if len(seen) != 1 {
			t.Fatalf("%s: %d filters", file, len(seen))
		}
		for f, chains := range seen {
			if chains != 4 || len(f.providers) != c.providers || len(f.rules) != c.rules || f.failure != "" || len(f.providers[0].keys) == 0 {
				t.Errorf("%s: in %d chains: %+v", file, chains, f)
			}
			for _, p := range f.providers {
				if p.failure != "" || p.payloadKey != "payload" || p.split[0] != "permission" {
					t.Errorf("%s: %+v", file, p)
				}
			}
			checkJWT(t, f, []jwtCase{{"bad", bearer("x"), map[bool]string{true: "no JSON Web Token"}[file != "jwt"]}, {"none", callWith(), ""}, {"bad elsewhere", callWith("x-bare", "x"), map[bool]string{true: "no JSON Web Token"}[file == "jwt"]}})
		}
		for _, note := range got.ignored {
			if strings.Contains(note, "jwt") {
				t.Errorf("%s: noted %s", file, note)
			}
		}
	}
}

// BenchmarkToken is the cost of a call with a token: one that is known, and one
// whose signature has to be verified.
func BenchmarkToken(b *testing.B) {
	for _, s := range []signer{{"ES256", "k", ecKey()}, {"RS256", "k", rsaKey()}, {"EdDSA", "k", edKey()}} {
		f, _ := readJWT(b, rawJWT(rawNeeds("p0"), rawProvider("one", jwks(s.jwk(""))).num(5, 1)))
		token := s.token(claimsUntil(100, `,"aud":["a","b"],"groups":["x","y"]`))
		call := bearer(token)
		b.Run(s.alg+"/known", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if call.claims = nil; f.checkAt(call, jwtNow).code != codes.OK {
					b.Fatal("refused")
				}
			}
		})
		b.Run(s.alg+"/new", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.known.table.Store(nil)
				if call.claims = nil; f.checkAt(call, jwtNow).code != codes.OK {
					b.Fatal("refused")
				}
			}
		})
	}
}
