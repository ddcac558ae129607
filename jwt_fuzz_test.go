package proxyless

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

// FuzzDecodeJWT reads filters, and holds calls against them: without keys of
// the fuzzer's own nothing that has a signature can pass as verified.
func FuzzDecodeJWT(f *testing.F) {
	es := signer{"ES256", "ec", ecKey()}
	provider := rawProvider("one", jwks(es.jwk(""))).text(2, "aud").text(8, "x-payload").msg(6, rawProto{}.text(1, "x-token").text(2, "T ")).text(13, "c").
		msg(15, rawProto{}.text(1, "x-a").text(2, "a.b")).msg(18, rawProto{}.text(1, "scope")).msg(19, rawProto{}.text(2, "a")).msg(21, rawSeconds(9))
	f.Add([]byte(rawJWT(rawOf(3, rawNeeds("p0"), rawAllowMissing, rawOf(4, rawNeeds("p0"))), provider)))
	f.Add([]byte(rawJWT(rawProto{}.msg(2, rawProto{}.text(1, "p0").text(2, "x")), rawProvider("", ""))))
	f.Add([]byte(rawProto{}.entry(5, "n", rawAllowMissingOrFailed).msg(2, rawProto{}.msg(1, rawProto{}.text(1, "/")).text(3, "n")).num(4, 1).msg(3, rawProto{})))
	for _, filter := range istiodJWTs(f) {
		f.Add(filter)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := &decoding{}
		filter, err := d.jwtFilter(raw)
		again, err2 := (&decoding{}).jwtFilter(raw)
		if !reflect.DeepEqual(filter, again) || (err == nil) != (err2 == nil) || (err == nil) == (filter == nil) {
			t.Fatalf("first %+v, %v, then %+v, %v", filter, err, again, err2)
		}
		if err != nil {
			return
		}
		for _, call := range []*callFacts{callWith(), callWith("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.", "cookie", "c=a.b.c", "x-token", "T x"), bearer(strings.Repeat(".", 9))} {
			if r := filter.checkAt(call, jwtNow); r.code != codes.OK && (r.reason == "" || r.action != "JWT") {
				t.Fatalf("%+v", r)
			}
			if call.claims != nil {
				t.Fatalf("claims of nothing: %+v", call.claims)
			}
		}
	})
}

// FuzzKeySet parses key sets; what it keeps is good for its algorithms only.
func FuzzKeySet(f *testing.F) {
	for _, s := range signers() {
		f.Add([]byte(jwks(s.jwk(`,"alg":"` + s.alg + `","use":"sig","key_ops":["verify"]`))))
	}
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AA"},{"kty":"OKP","crv":"Ed25519","x":"AQ"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		keys, refused, err := parseKeySet(raw)
		if (err == nil) != (len(keys) > 0) || len(keys) > maxKeys {
			t.Fatalf("%d keys, %q, %v", len(keys), refused, err)
		}
		s := signedToken{signed: "a.b", signature: make([]byte, 64)}
		for s.alg = range tokenAlgorithms {
			if s.verify(keys) == nil {
				t.Fatalf("zeros are a signature of %s", s.alg)
			}
		}
	})
}

// FuzzSignedToken takes tokens apart. What is accepted is the only way to write it,
// and package json reads the same in it.
func FuzzSignedToken(f *testing.F) {
	for _, s := range signers() {
		f.Add(s.token(`{"iss":"a","aud":["b"],"exp":1,"nbf":2.5,"x":{"y":[null,true]}}`))
	}
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, token string) {
		s, err := parseSignedToken(token)
		if err != nil {
			if signatureFailures[err] == nil {
				t.Fatal(err)
			}
			return
		}
		if s.signed+"."+b64(s.signature) != token || tokenAlgorithms[s.alg] == nil {
			t.Fatalf("%q is not %+v", token, s)
		}
		data, _ := decodeBase64URL(s.encoded)
		var want map[string]any
		if err := json.Unmarshal(data, &want); err != nil || !reflect.DeepEqual(want, s.payload) {
			t.Fatalf("%s is %v, package json says %v, %v", data, s.payload, want, err)
		}
		if facts, err := tokenFactsOf(s.payload); err == nil {
			p := jwtProvider{issuer: "a", audiences: []string{"b"}, skew: 60}
			p.accepts(&facts, p.audiences, float64(jwtNow.Unix()))
		}
	})
}

// istiodJWTs are the filters that a real istiod sent.
func istiodJWTs(t testing.TB) (filters [][]byte) {
	files, err := filepath.Glob(filepath.Join("testdata", "jwt", "*.binpb"))
	if err != nil || len(files) == 0 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, after, found := bytes.Cut(raw, []byte(typeJWT+"\x12")) // of an Any: its type and the tag of its value
		value, n := protowire.ConsumeBytes(after)
		if !found || n < 0 {
			t.Fatal(file)
		}
		filters = append(filters, value)
	}
	return filters
}
