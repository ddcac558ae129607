package proxyless

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
)

// Limits of a JSON Web Key Set. A token without a key's name is tried with
// every key that fits its algorithm.
const (
	maxKeySet  = 1 << 20 // bytes
	maxKeys    = 64
	minRSABits = 2048
	maxRSABits = 8192
)

// keySet is a JSON Web Key Set (RFC 7517), of which only public keys are kept
// that are good for signatures.
type keySet []tokenKey

// tokenKey is a key with which tokens are verified.
type tokenKey struct {
	id  string           // kid; a token that names another is not tried with it
	alg string           // the only algorithm it is for; empty for each that fits
	key crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// parseKeySet reads a key set. A key that cannot be used costs only itself
// (RFC 7517, 5): refused says why, by its place in the list.
func parseKeySet(data []byte) (keys keySet, refused []string, err error) {
	if len(data) > maxKeySet {
		return nil, nil, fmt.Errorf("the key set is larger than %d bytes", maxKeySet)
	}
	object, err := parseJSONObject(data)
	if err != nil {
		return nil, nil, err
	}
	list, ok := object["keys"].([]any)
	if !ok {
		return nil, nil, errors.New(`it has no list "keys"`)
	}
	for i, entry := range list {
		k, err := parseKey(entry)
		if err == nil && len(keys) == maxKeys {
			err = fmt.Errorf("there are more than %d", maxKeys)
		}
		if err != nil {
			refused = append(refused, "keys["+strconv.Itoa(i)+"]: "+err.Error())
			continue
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, refused, errors.New("it has no key that can be used")
	}
	return keys, refused, nil
}

func parseKey(entry any) (k tokenKey, err error) {
	j := jsonKey{fields: map[string]any{}}
	if fields, ok := entry.(map[string]any); ok {
		j.fields = fields
	}
	k.id, k.alg = j.text("kid"), j.text("alg")
	kind, curve, use := j.text("kty"), j.text("crv"), j.text("use")
	switch {
	case j.err != nil:
		return k, j.err
	case use != "" && use != "sig":
		return k, errors.New("it is not for signatures")
	case !j.mayVerify():
		return k, errors.New("its key_ops do not let it verify")
	case j.fields["d"] != nil || j.fields["k"] != nil:
		return k, errors.New("it is no public key")
	}
	switch kind {
	case "RSA":
		k.key, err = j.rsa()
	case "EC":
		k.key, err = j.ec(curve)
	case "OKP":
		k.key, err = j.ed25519(curve)
	default:
		return k, errors.New("it is of a kind that is not known")
	}
	if err == nil && k.alg != "" {
		if a := tokenAlgorithms[k.alg]; a == nil || !a.fits(k.key) {
			return k, errors.New("its algorithm is not known, or does not fit it")
		}
	}
	return k, err
}

// jsonKey is a key as it is written (RFC 7518, 6); err is the first that went
// wrong.
type jsonKey struct {
	fields map[string]any
	err    error
}

func (j *jsonKey) text(name string) string {
	text, err := textOf(j.fields, name)
	if j.err == nil {
		j.err = err
	}
	return text
}

func (j *jsonKey) octets(name string) []byte {
	octets, ok := decodeBase64URL(j.text(name))
	if j.err == nil && (!ok || len(octets) == 0) {
		j.err = fmt.Errorf("%q is missing, or no base64url", name)
	}
	return octets
}

// mayVerify looks at key_ops.
func (j *jsonKey) mayVerify() bool {
	ops, present := j.fields["key_ops"]
	list, _ := ops.([]any)
	return !present || slices.Contains(list, any("verify"))
}

func (j *jsonKey) rsa() (crypto.PublicKey, error) {
	n, e := new(big.Int).SetBytes(j.octets("n")), new(big.Int).SetBytes(j.octets("e"))
	switch bits := n.BitLen(); {
	case j.err != nil:
		return nil, j.err
	case bits < minRSABits || bits > maxRSABits:
		return nil, fmt.Errorf("it has %d bits, which is not between %d and %d", bits, minRSABits, maxRSABits)
	case n.Bit(0) == 0:
		return nil, errors.New("its modulus is even")
	case e.BitLen() > 31 || e.Bit(0) == 0 || e.Cmp(big.NewInt(3)) < 0:
		return nil, errors.New("its exponent is even, smaller than 3 or larger than 31 bits")
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

func (j *jsonKey) ec(name string) (crypto.PublicKey, error) {
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[name]
	if curve == nil {
		return nil, errors.New("its curve is not known")
	}
	x, y := j.octets("x"), j.octets("y")
	if j.err != nil {
		return nil, j.err
	}
	if size := (curve.Params().BitSize + 7) / 8; len(x) != size || len(y) != size {
		return nil, fmt.Errorf("its coordinates have %d and %d bytes instead of %d", len(x), len(y), size)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	if err != nil {
		return nil, errors.New("it is no point of its curve")
	}
	return key, nil
}

func (j *jsonKey) ed25519(curve string) (crypto.PublicKey, error) {
	x := j.octets("x")
	switch {
	case j.err != nil:
		return nil, j.err
	case curve != "Ed25519":
		return nil, errors.New("its curve is not known")
	case len(x) != ed25519.PublicKeySize:
		return nil, fmt.Errorf("it has %d bytes instead of %d", len(x), ed25519.PublicKeySize)
	case smallOrder(x):
		return nil, errors.New("it is of small order, so that anyone can sign for it")
	}
	return ed25519.PublicKey(x), nil
}

// smallOrder says that a point of edwards25519 has an order of at most 8: one
// signature would then be good for any message. With -x²+y² = 1+dx²y² those are
// the points where y is 0, 1 or -1, and those whose double has y = 0, which is
// where dy⁴+2y²-1 = 0.
func smallOrder(encoded []byte) bool {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	reduced := func(v *big.Int) *big.Int { return v.Mod(v, p) }
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	reduced(d.Mul(d, big.NewInt(-121665)))

	little := slices.Clone(encoded)
	slices.Reverse(little)
	little[0] &= 0x7f // the sign of x
	y := reduced(new(big.Int).SetBytes(little))
	squared := reduced(new(big.Int).Mul(y, y))
	eight := reduced(new(big.Int).Mul(squared, squared))
	eight.Mul(eight, d).Add(eight, squared).Add(eight, squared).Sub(eight, big.NewInt(1))
	return y.Sign() == 0 || squared.Cmp(big.NewInt(1)) == 0 || reduced(eight).Sign() == 0
}
