package proxyless

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
)

// signer signs tokens of tests.
type signer struct {
	alg, kid string
	key      crypto.Signer
}

var (
	rsaKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ec384  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	ec521  = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) })
	edKey  = sync.OnceValue(func() ed25519.PrivateKey { _, k, err := ed25519.GenerateKey(rand.Reader); return must(k, err) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func b64(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// token is a token with such claims.
func (s signer) token(claims string) string {
	return s.tokenOf(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, s.alg, s.kid), claims)
}

func (s signer) tokenOf(header, claims string) string {
	signed := b64([]byte(header)) + "." + b64([]byte(claims))
	return signed + "." + b64(s.sign([]byte(signed)))
}

func (s signer) sign(message []byte) []byte {
	a := tokenAlgorithms[s.alg]
	digest := message
	if a.hash != 0 {
		h := a.hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	switch k := s.key.(type) {
	case *rsa.PrivateKey:
		if a.pss {
			return must(rsa.SignPSS(rand.Reader, k, a.hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(rand.Reader, k, a.hash, digest))
	case *ecdsa.PrivateKey:
		r, z, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			panic(err)
		}
		half := (k.Curve.Params().BitSize + 7) / 8
		out := make([]byte, 2*half)
		r.FillBytes(out[:half])
		z.FillBytes(out[half:])
		return out
	case ed25519.PrivateKey:
		return ed25519.Sign(k, message)
	}
	panic("no key")
}

// jwk is the public key as a key set has it; more is put into it.
func (s signer) jwk(more string) string {
	if s.kid != "" {
		more = fmt.Sprintf(`,"kid":%q`, s.kid) + more
	}
	switch k := s.key.Public().(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q%s}`, b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes()), more)
	case *ecdsa.PublicKey:
		point := must(k.Bytes())[1:]
		return fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q%s}`, k.Curve.Params().Name, b64(point[:len(point)/2]), b64(point[len(point)/2:]), more)
	case ed25519.PublicKey:
		return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q%s}`, b64(k), more)
	}
	panic("no key")
}

func jwks(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// signers has each algorithm once.
func signers() []signer {
	return []signer{
		{"RS256", "rsa", rsaKey()}, {"RS384", "rsa", rsaKey()}, {"RS512", "rsa", rsaKey()},
		{"PS256", "rsa", rsaKey()}, {"PS384", "rsa", rsaKey()}, {"PS512", "rsa", rsaKey()},
		{"ES256", "ec", ecKey()}, {"ES384", "ec384", ec384()}, {"ES512", "ec521", ec521()}, {"EdDSA", "ed", edKey()},
	}
}

func verifyWith(token, set string) error {
	keys, _, err := parseKeySet([]byte(set))
	if err != nil {
		return err
	}
	s, err := parseSignedToken(token)
	if err != nil {
		return err
	}
	return s.verify(keys)
}

// TestEveryAlgorithm signs with each, finds the key with and without its name,
// and wants any change of any part to be seen.
func TestEveryAlgorithm(t *testing.T) {
	all := []string{}
	for _, s := range signers() {
		all = append(all, s.jwk(""))
	}
	for _, s := range signers() {
		token := s.token(`{"iss":"a"}`)
		for what, set := range map[string]string{"alone": jwks(s.jwk("")), "of all": jwks(all...), "for the algorithm": jwks(s.jwk(fmt.Sprintf(`,"alg":%q,"use":"sig","key_ops":["verify"]`, s.alg)))} {
			if err := verifyWith(token, set); err != nil {
				t.Errorf("%s, %s: %v", s.alg, what, err)
			}
		}
		nameless := s
		nameless.kid = ""
		if err := verifyWith(nameless.tokenOf(fmt.Sprintf(`{"alg":%q}`, s.alg), `{}`), jwks(all...)); err != nil {
			t.Errorf("%s without a key id: %v", s.alg, err)
		}
		if err := verifyWith(token, jwks(nameless.jwk(""))); err != nil {
			t.Errorf("%s with a key without id: %v", s.alg, err)
		}
		if err := verifyWith(token, jwks(signer{s.alg, "other", s.key}.jwk(""))); err != errTokenKey {
			t.Errorf("%s with a key of another id: %v", s.alg, err)
		}
		for at := range len(token) {
			changed := []byte(token)
			if changed[at] = 'A'; token[at] == 'A' {
				changed[at] = 'B'
			}
			if verifyWith(string(changed), jwks(s.jwk(""))) == nil {
				t.Fatalf("%s: byte %d is not signed", s.alg, at)
			}
		}
	}
}

// TestPublishedVectors holds the verifier to the examples of RFC 7515 (A.2,
// A.3, A.4) and RFC 8037 (A.4), and its refusal to that of A.1 and A.5.
func TestPublishedVectors(t *testing.T) {
	const claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	const rsaVector = `{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`
	for _, c := range []struct {
		name, token, key string
		want             error
	}{
		{"RFC 7515 A.1", "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." + claims + ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", rsaVector, errTokenAlgorithm},
		{"RFC 7515 A.2", "eyJhbGciOiJSUzI1NiJ9." + claims + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
			rsaVector, nil},
		{"RFC 7515 A.3", "eyJhbGciOiJFUzI1NiJ9." + claims + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
			`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`, nil},
		{"RFC 7515 A.5", "eyJhbGciOiJub25lIn0." + claims + ".", rsaVector, errTokenAlgorithm},
	} {
		if err := verifyWith(c.token, jwks(c.key)); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	// These two sign what is no JSON.
	for _, c := range []struct{ name, alg, token, key string }{
		{"RFC 7515 A.4", "ES512", "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
			`{"kty":"EC","crv":"P-521","x":"AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk","y":"ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}`},
		{"RFC 8037 A.4", "EdDSA", "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
			`{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`},
	} {
		keys, _, err := parseKeySet([]byte(jwks(c.key)))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		at := strings.LastIndexByte(c.token, '.')
		s := signedToken{alg: c.alg, signed: c.token[:at], signature: must(base64.RawURLEncoding.DecodeString(c.token[at+1:]))}
		if err := s.verify(keys); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := parseSignedToken(c.token); err != errTokenForm {
			t.Errorf("%s is no JWT: %v", c.name, err)
		}
	}
}

// TestForgedTokens has what was tried against verifiers before.
func TestForgedTokens(t *testing.T) {
	rs, es, es384, ed := signer{"RS256", "rsa", rsaKey()}, signer{"ES256", "ec", ecKey()}, signer{"ES384", "ec384", ec384()}, signer{"EdDSA", "ed", edKey()}
	all := jwks(rs.jwk(""), es.jwk(""), es384.jwk(""), ed.jwk(""))
	good := es.token(`{"iss":"a"}`)
	if err := verifyWith(good, all); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	with := func(header, payload, signature string) string { return header + "." + payload + "." + signature }
	unsigned := func(header string) string { return with(b64([]byte(header)), parts[1], "") }
	const half = 32

	cases := map[string]string{
		"another payload":             with(parts[0], b64([]byte(`{"iss":"b"}`)), parts[2]),
		"another header":              with(b64([]byte(`{"alg":"ES256","kid":"ec","x":1}`)), parts[1], parts[2]),
		"padding of the header":       with(parts[0]+"=", parts[1], parts[2]),
		"padding of the payload":      with(parts[0], parts[1]+"=", parts[2]),
		"padding of the signature":    with(parts[0], parts[1], parts[2]+"=="),
		"space":                       with(parts[0], parts[1], parts[2]+" "),
		"space before":                " " + good,
		"newline":                     with(parts[0], parts[1], parts[2][:10]+"\n"+parts[2][10:]),
		"carriage return":             with(parts[0], "\r"+parts[1], parts[2]),
		"standard alphabet":           with(parts[0], parts[1], strings.NewReplacer("-", "+", "_", "/").Replace(b64(make([]byte, 64))[:80]+"-_-_")),
		"bits left over":              with(parts[0], parts[1], parts[2][:len(parts[2])-1]+string(parts[2][len(parts[2])-1]+1)),
		"four parts":                  good + ".",
		"five parts":                  good + ".a.b",
		"two parts":                   parts[0] + "." + parts[1],
		"one part":                    parts[0],
		"nothing":                     "",
		"dots":                        "..",
		"no payload":                  with(parts[0], "", parts[2]),
		"no signature":                with(parts[0], parts[1], ""),
		"signature of zeros":          with(parts[0], parts[1], b64(make([]byte, 2*half))),
		"signature of 63 bytes":       with(parts[0], parts[1], b64(es.sign([]byte("x"))[:63])),
		"signature of 65 bytes":       with(parts[0], parts[1], b64(append(es.sign([]byte(parts[0]+"."+parts[1])), 0))),
		"zeros before r and s":        with(parts[0], parts[1], b64(padded(es.sign([]byte(parts[0]+"."+parts[1])), half))),
		"ASN.1":                       with(parts[0], parts[1], b64(must(ecKey().Sign(rand.Reader, digestOf(parts[0]+"."+parts[1]), crypto.SHA256)))),
		"r is 0":                      with(parts[0], parts[1], b64(zeroed(es.sign([]byte(parts[0]+"."+parts[1])), 0, half))),
		"s is 0":                      with(parts[0], parts[1], b64(zeroed(es.sign([]byte(parts[0]+"."+parts[1])), half, 2*half))),
		"r is the order":              with(parts[0], parts[1], b64(append(elliptic.P256().Params().N.Bytes(), es.sign([]byte("x"))[half:]...))),
		"JSON form":                   `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"five parts of a JWE":         "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.a.b.c.d",
		"another algorithm of EC":     es.tokenOf(`{"alg":"ES384","kid":"ec"}`, `{}`),
		"ES256 of P-384":              es384.tokenOf(`{"alg":"ES256","kid":"ec384"}`, `{}`),
		"RSA with the name of EC":     signer{"RS256", "ec", rsaKey()}.token(`{}`),
		"ES256 with the name of RSA":  es.tokenOf(`{"alg":"ES256","kid":"rsa"}`, `{}`),
		"PKCS #1 as PSS":              rs.tokenOf(`{"alg":"PS256","kid":"rsa"}`, `{}`),
		"PSS as PKCS #1":              signer{"PS256", "rsa", rsaKey()}.tokenOf(`{"alg":"RS256","kid":"rsa"}`, `{}`),
		"SHA-512 as SHA-256":          signer{"RS512", "rsa", rsaKey()}.tokenOf(`{"alg":"RS256","kid":"rsa"}`, `{}`),
		"Ed25519 as ES256":            ed.tokenOf(`{"alg":"ES256","kid":"ed"}`, `{}`),
		"no algorithm":                es.tokenOf(`{"kid":"ec"}`, `{}`),
		"algorithm in lower case":     es.tokenOf(`{"alg":"es256","kid":"ec"}`, `{}`),
		"algorithm is a list":         es.tokenOf(`{"alg":["ES256"],"kid":"ec"}`, `{}`),
		"algorithm is null":           es.tokenOf(`{"alg":null,"kid":"ec"}`, `{}`),
		"algorithm twice":             es.tokenOf(`{"alg":"ES256","alg":"ES256","kid":"ec"}`, `{}`),
		"algorithm twice, escaped":    es.tokenOf(`{"alg":"none","\u0061lg":"ES256","kid":"ec"}`, `{}`),
		"key id is a number":          es.tokenOf(`{"alg":"ES256","kid":1}`, `{}`),
		"key id of nobody":            es.tokenOf(`{"alg":"ES256","kid":"../../dev/null"}`, `{}`),
		"crit":                        es.tokenOf(`{"alg":"ES256","kid":"ec","crit":["exp"],"exp":1}`, `{}`),
		"crit is empty":               es.tokenOf(`{"alg":"ES256","kid":"ec","crit":[]}`, `{}`),
		"crit is null":                es.tokenOf(`{"alg":"ES256","kid":"ec","crit":null}`, `{}`),
		"b64 with crit":               es.tokenOf(`{"alg":"ES256","kid":"ec","b64":false,"crit":["b64"]}`, `{}`),
		"b64 without crit":            es.tokenOf(`{"alg":"ES256","kid":"ec","b64":false}`, `{}`),
		"claims twice":                es.token(`{"iss":"a","iss":"b"}`),
		"claims twice, deeper":        es.token(`{"x":{"y":1,"y":2}}`),
		"two objects":                 es.token(`{"iss":"a"}{"iss":"b"}`),
		"something after the object":  es.token(`{"iss":"a"} x`),
		"claims are a list":           es.token(`[]`),
		"claims are text":             es.token(`"a"`),
		"claims are null":             es.token(`null`),
		"claims are no JSON":          es.token(`{iss:"a"}`),
		"claims are not UTF-8":        es.token("{\"iss\":\"\xff\"}"),
		"a mark of byte order":        es.token("\ufeff{}"),
		"number out of range":         es.token(`{"exp":1e999}`),
		"deep claims":                 es.token(strings.Repeat(`{"a":`, maxJSONDepth+1) + "1" + strings.Repeat("}", maxJSONDepth+1)),
		"very deep claims":            es.token(`{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}"),
		"huge":                        es.token(`{"a":"` + strings.Repeat("x", maxToken) + `"}`),
		"key brought along":           signer{"ES256", "", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}.foreign(),
		"HS256 with RSA's modulus":    hs256(rsaKey().N.Bytes(), "rsa"),
		"HS256 with RSA's PEM":        hs256(pemOf(rsaKey().Public()), "rsa"),
		"HS256 with EC's PEM":         hs256(pemOf(ecKey().Public()), "ec"),
		"HS256 with the key set":      hs256([]byte(all), "rsa"),
		"HS256 with nothing":          hs256(nil, ""),
		"Ed25519 with s of the order": with(b64([]byte(`{"alg":"EdDSA","kid":"ed"}`)), parts[1], b64(malleable(ed.sign([]byte(b64([]byte(`{"alg":"EdDSA","kid":"ed"}`))+"."+parts[1]))))),
	}
	for _, none := range []string{"none", "None", "NONE", "nOnE", "", " none", "none ", "n\\u006fne"} {
		cases["alg "+none] = unsigned(`{"alg":"` + none + `","kid":"ec"}`)
		cases["alg "+none+", signed"] = es.tokenOf(`{"alg":"`+none+`","kid":"ec"}`, `{}`)
	}
	for name, token := range cases {
		err := verifyWith(token, all)
		if err == nil {
			t.Errorf("%s is accepted", name)
			continue
		}
		if signatureFailures[err] == nil {
			t.Errorf("%s: %v is not among the failures", name, err)
		}
	}
}

func padded(signature []byte, half int) []byte {
	return append(append(append([]byte{0}, signature[:half]...), 0), signature[half:]...)
}

func zeroed(signature []byte, from, to int) []byte { clear(signature[from:to]); return signature }

func digestOf(text string) []byte { d := sha256.Sum256([]byte(text)); return d[:] }

// malleable adds the order of the group to s, as who changes a signature that
// stays valid would.
func malleable(signature []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := make([]byte, 32)
	for i := range s {
		s[i] = signature[63-i]
	}
	new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(s)
	for i := range s {
		signature[63-i] = s[i]
	}
	return signature
}

// foreign is a token that names its own key in every way there is.
func (s signer) foreign() string {
	key := s.jwk("")
	return s.tokenOf(`{"alg":"ES256","jwk":`+key+`,"jku":"https://127.0.0.1/keys","x5u":"https://127.0.0.1/cert","x5c":["MAA="]}`, `{}`)
}

func hs256(secret []byte, kid string) string {
	signed := b64([]byte(`{"alg":"HS256","kid":"`+kid+`"}`)) + "." + b64([]byte(`{}`))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}

func pemOf(key crypto.PublicKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key))})
}

// TestKeyOfSeveral finds the key among those of the same name, which a rotation
// may leave behind.
func TestKeyOfSeveral(t *testing.T) {
	old := signer{"ES256", "same", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	es := signer{"ES256", "same", ecKey()}
	if err := verifyWith(es.token(`{}`), jwks(old.jwk(""), es.jwk(""))); err != nil {
		t.Error(err)
	}
	if err := verifyWith(es.token(`{}`), jwks(old.jwk(""))); err != errTokenSignature {
		t.Error(err)
	}
}

// TestStrictJSON wants the same of what is accepted as package json says.
func TestStrictJSON(t *testing.T) {
	const text = `{"a":[1,-2.5,{"b":null}],"c":true,"d":"\u00e9\n","e":{}}`
	got, err := parseJSONObject([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if json.Unmarshal([]byte(text), &want) != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v instead of %v", got, want)
	}
}
