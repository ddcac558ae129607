package proxyless

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of tokenAlgorithms
	_ "crypto/sha512"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
)

// maxToken is how many bytes of a token are read: about what Envoy accepts as
// all headers of a call together.
const maxToken = 64 << 10

// tokenAlgorithm is a way to sign (RFC 7518, 3.1; RFC 8037). What is signed
// with a shared secret (HS256 and its like) is not among them: whoever can
// verify could sign. Nor is "none".
type tokenAlgorithm struct {
	hash  crypto.Hash    // 0 for Ed25519
	pss   bool           // RSASSA-PSS instead of PKCS #1 v1.5
	curve elliptic.Curve // of ECDSA; nil for others
	rsa   bool
}

var tokenAlgorithms = map[string]*tokenAlgorithm{
	"RS256": {hash: crypto.SHA256, rsa: true},
	"RS384": {hash: crypto.SHA384, rsa: true},
	"RS512": {hash: crypto.SHA512, rsa: true},
	"PS256": {hash: crypto.SHA256, rsa: true, pss: true},
	"PS384": {hash: crypto.SHA384, rsa: true, pss: true},
	"PS512": {hash: crypto.SHA512, rsa: true, pss: true},
	"ES256": {hash: crypto.SHA256, curve: elliptic.P256()},
	"ES384": {hash: crypto.SHA384, curve: elliptic.P384()},
	"ES512": {hash: crypto.SHA512, curve: elliptic.P521()},
	"EdDSA": {},
}

// fits says that a key can be used with the algorithm: never any key with what
// the token says.
func (a *tokenAlgorithm) fits(key crypto.PublicKey) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return a.rsa
	case *ecdsa.PublicKey:
		return a.curve == k.Curve
	case ed25519.PublicKey:
		return !a.rsa && a.curve == nil
	}
	return false
}

// verify checks a signature over a message, whose digest is that of the
// algorithm's hash. The key fits.
func (a *tokenAlgorithm) verify(key crypto.PublicKey, message, digest, signature []byte) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if a.pss {
			return rsa.VerifyPSS(k, a.hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(k, a.hash, digest, signature) == nil
	case *ecdsa.PublicKey:
		half := (k.Curve.Params().BitSize + 7) / 8
		if len(signature) != 2*half {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
		return ecdsa.Verify(k, digest, r, s)
	case ed25519.PublicKey:
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(k, message, signature)
	}
	return false
}

// signedToken is a JWS in its compact form (RFC 7515, 7.1), taken apart and not
// verified.
type signedToken struct {
	header, payload map[string]any
	alg, kid        string
	signed          string // header and payload as they were sent
	encoded         string // the payload as it was sent
	signature       []byte
}

var (
	errTokenForm      = errors.New("it is no JSON Web Token")
	errTokenSize      = errors.New("it is too large")
	errTokenAlgorithm = errors.New("its algorithm is not accepted")
	errTokenCritical  = errors.New("its header demands what is not known (crit, b64)")
	errTokenKey       = errors.New("no key fits its key id and algorithm")
	errTokenSignature = errors.New("its signature is wrong")
)

// parseSignedToken takes a token apart. Errors never quote it. Of its header
// only what says how it was signed counts: keys that it brings along, or says
// where to find, are never used.
func parseSignedToken(token string) (*signedToken, error) {
	header, payload, signature, err := splitToken(token)
	if err != nil {
		return nil, err
	}
	s := &signedToken{signed: token[:len(header)+1+len(payload)], encoded: payload}
	if s.header, err = decodeTokenPart(header); err != nil {
		return nil, err
	}
	if s.alg, err = textOf(s.header, "alg"); err != nil {
		return nil, errTokenForm
	}
	if s.kid, err = textOf(s.header, "kid"); err != nil {
		return nil, errTokenForm
	}
	if tokenAlgorithms[s.alg] == nil {
		return nil, errTokenAlgorithm
	}
	if _, critical := s.header["crit"]; critical {
		return nil, errTokenCritical
	}
	if b64, present := s.header["b64"]; present && b64 != true {
		return nil, errTokenCritical
	}
	if s.payload, err = decodeTokenPart(payload); err != nil {
		return nil, err
	}
	var ok bool
	if s.signature, ok = decodeBase64URL(signature); !ok || len(s.signature) == 0 {
		return nil, errTokenForm
	}
	return s, nil
}

func splitToken(token string) (header, payload, signature string, err error) {
	if len(token) > maxToken {
		return "", "", "", errTokenSize
	}
	header, rest, ok := strings.Cut(token, ".")
	payload, signature, more := strings.Cut(rest, ".")
	if !ok || !more || strings.Contains(signature, ".") {
		return "", "", "", errTokenForm
	}
	return header, payload, signature, nil
}

func decodeTokenPart(part string) (map[string]any, error) {
	data, ok := decodeBase64URL(part)
	if !ok {
		return nil, errTokenForm
	}
	object, err := parseJSONObject(data)
	if err != nil {
		return nil, errTokenForm
	}
	return object, nil
}

// decodeBase64URL decodes what is the only encoding of its bytes: no padding,
// no bits left over, and no line breaks, which package base64 skips.
func decodeBase64URL(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return data, err == nil
}

// verify looks for the key with which the token was signed.
func (s *signedToken) verify(keys keySet) error {
	a := tokenAlgorithms[s.alg]
	message := []byte(s.signed)
	var digest []byte
	if a.hash != 0 {
		h := a.hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	failure := errTokenKey
	for i := range keys {
		k := &keys[i]
		if s.kid != "" && k.id != "" && s.kid != k.id || k.alg != "" && k.alg != s.alg || !a.fits(k.key) {
			continue
		}
		if a.verify(k.key, message, digest, s.signature) {
			return nil
		}
		failure = errTokenSignature
	}
	return failure
}
