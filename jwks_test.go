package proxyless

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// TestKeysThatAreRefused has what is weak or odd about keys; a good one beside
// stays.
func TestKeysThatAreRefused(t *testing.T) {
	rs, es, ed := signer{"RS256", "", rsaKey()}, signer{"ES256", "", ecKey()}, signer{"EdDSA", "", edKey()}
	rsaOf := func(n *big.Int, e string) string {
		return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q}`, b64(n.Bytes()), e)
	}
	bits := func(n uint) *big.Int {
		v := new(big.Int).Lsh(big.NewInt(1), n-1)
		return v.SetBit(v, 0, 1)
	}
	n := rsaKey().N
	point := must(ecKey().PublicKey.Bytes())
	x, y := b64(point[1:33]), b64(point[33:])
	ec := func(x, y string) string { return fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q}`, x, y) }
	okp := func(x string) string { return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q}`, x) }
	field := elliptic.P256().Params().P
	cases := map[string]string{
		"no object":                `1`,
		"empty":                    `{}`,
		"kind is a number":         `{"kty":1}`,
		"unknown kind":             `{"kty":"AKP"}`,
		"kind in lower case":       strings.Replace(rs.jwk(""), "RSA", "rsa", 1),
		"symmetric":                `{"kty":"oct","k":"c2VjcmV0"}`,
		"RSA without modulus":      `{"kty":"RSA","e":"AQAB"}`,
		"RSA without exponent":     `{"kty":"RSA","n":"` + b64(n.Bytes()) + `"}`,
		"RSA modulus is padded":    `{"kty":"RSA","n":"` + b64(n.Bytes()) + `=","e":"AQAB"}`,
		"RSA of 512 bits":          rsaOf(bits(512), "AQAB"),
		"RSA of 1024 bits":         rsaOf(bits(1024), "AQAB"),
		"RSA of 2047 bits":         rsaOf(bits(2047), "AQAB"),
		"RSA of 16384 bits":        rsaOf(bits(16384), "AQAB"),
		"RSA with an even modulus": rsaOf(new(big.Int).Add(n, big.NewInt(1)), "AQAB"),
		"RSA exponent 0":           rsaOf(n, "AA"),
		"RSA exponent 1":           rsaOf(n, "AQ"),
		"RSA exponent 2":           rsaOf(n, "Ag"),
		"RSA exponent 65536":       rsaOf(n, "AQAA"),
		"RSA exponent of 32 bits":  rsaOf(n, "gAAAAQ"),
		"RSA exponent of 64 bits":  rsaOf(n, "AQAAAAAAAAE"),
		"RSA private":              rs.jwk(`,"d":"AQ"`),
		"RSA as ES256":             rs.jwk(`,"alg":"ES256"`),
		"RSA as HS256":             rs.jwk(`,"alg":"HS256"`),
		"RSA as none":              rs.jwk(`,"alg":"none"`),
		"RSA for encryption":       rs.jwk(`,"use":"enc"`),
		"RSA that may not verify":  rs.jwk(`,"key_ops":["encrypt"]`),
		"key_ops is text":          rs.jwk(`,"key_ops":"verify"`),
		"key id is a number":       rs.jwk(`,"kid":1`),
		"EC of another curve":      strings.Replace(es.jwk(""), "P-256", "P-384", 1),
		"EC of secp256k1":          strings.Replace(es.jwk(""), "P-256", "secp256k1", 1),
		"EC without curve":         strings.Replace(es.jwk(""), `"crv":"P-256",`, "", 1),
		"EC off the curve":         ec(y, x),
		"EC at infinity":           ec(b64(make([]byte, 32)), b64(make([]byte, 32))),
		"EC with a short x":        ec(b64(point[2:33]), y),
		"EC with a long x":         ec(b64(append([]byte{0}, point[1:33]...)), y),
		"EC x is the field":        ec(b64(field.Bytes()), y),
		"EC without y":             ec(x, ""),
		"EC private":               es.jwk(`,"d":"AQ"`),
		"EC as EdDSA":              es.jwk(`,"alg":"EdDSA"`),
		"Ed25519 of 31 bytes":      okp(b64(edKey()[32:63])),
		"Ed25519 private":          ed.jwk(`,"d":"AQ"`),
		"X25519":                   strings.Replace(ed.jwk(""), "Ed25519", "X25519", 1),
		"Ed448":                    strings.Replace(ed.jwk(""), "Ed25519", "Ed448", 1),
	}
	// The points of small order of edwards25519, and what else stands for them.
	for i, text := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p, which is 0
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+1
	} {
		cases[fmt.Sprint("Ed25519 of small order ", i)] = okp(b64(must(hex.DecodeString(text))))
	}
	for name, key := range cases {
		if _, refused, err := parseKeySet([]byte(jwks(key))); err == nil || len(refused) != 1 {
			t.Errorf("%s is accepted: %q, %v", name, refused, err)
		}
		keys, refused, err := parseKeySet([]byte(jwks(key, es.jwk(""), key)))
		if err != nil || len(keys) != 1 || len(refused) != 2 || !strings.HasPrefix(refused[1], "keys[2]: ") {
			t.Errorf("%s, beside a good one: %d keys, %q, %v", name, len(keys), refused, err)
		}
	}
	small := ed25519.PublicKey(must(hex.DecodeString("0100000000000000000000000000000000000000000000000000000000000000")))
	if !ed25519.Verify(small, []byte("anything"), append(slices.Clone(small), make([]byte, 32)...)) {
		t.Error("this is why they are refused: anyone can sign for them")
	}
}

// TestKeySets has whole sets.
func TestKeySets(t *testing.T) {
	es := signer{"ES256", "a", ecKey()}
	good := jwks(es.jwk(""))
	for name, set := range map[string]string{
		"nothing": "", "null": "null", "list": "[" + good + "]", "no keys": "{}", "empty": jwks(), "keys is an object": `{"keys":{}}`, "cut off": good[:len(good)-1],
		"two": good + good, "keys twice": `{"keys":[],"keys":[]}`, "not UTF-8": good[:len(good)-1] + ",\"x\":\"\xff\"}", "large": `{"keys":[],"x":"` + strings.Repeat("x", maxKeySet) + `"}`,
		"PEM by key id": `{"a":"-----BEGIN CERTIFICATE-----"}`,
	} {
		if _, _, err := parseKeySet([]byte(set)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	many, refused, err := parseKeySet([]byte(jwks(slices.Repeat([]string{es.jwk("")}, maxKeys+1)...)))
	if err != nil || len(many) != maxKeys || len(refused) != 1 {
		t.Errorf("%d keys, %q, %v", len(many), refused, err)
	}
	if keys, refused, err := parseKeySet([]byte(`{"x":1,"keys":[` + es.jwk(`,"x5t":"y","ext":true`) + `]}`)); err != nil || len(keys) != 1 || len(refused) > 0 {
		t.Errorf("members that mean nothing here: %q, %v", refused, err)
	}
}
