package meshtest

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const jwtType = typePrefix + "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"

// Members of a JwtRequirement.
const (
	requiresAny  = 3
	requiresAll  = 4
	allowMissing = 6
)

// JWTRule is one rule of a RequestAuthentication: whose tokens are verified.
type JWTRule struct {
	Issuer    string
	JWKS      string   // the JSON Web Key Set itself, as istiod delivers it
	Audiences []string // of which a token has to have one; empty for any

	FromHeaders []JWTHeader // where tokens are looked for; empty is "authorization: Bearer" where there are no cookies either
	FromCookies []string
	Forward     bool // forwardOriginalToken: the server sees the token, too

	PayloadHeader string            // outputPayloadToHeader; empty for none
	ClaimHeaders  map[string]string // outputClaimToHeaders: by the header's name the claim, with dots for nested ones
	ClockSkew     time.Duration     // 0 is Envoy's default of 60 s; istiod does not send it
}

// JWTHeader is a header with a token behind a prefix.
type JWTHeader struct {
	Name, Prefix string
}

// JWTFilter is the filter that istiod makes of RequestAuthentications, an
// envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication: a call without a
// token passes, one with a bad token does not. What tokens say is then there for
// rules about claims; it is for them to demand a token.
func JWTFilter(rules ...JWTRule) HTTPFilter {
	var config []byte
	for i, r := range rules {
		entry := appendString(nil, 1, jwtProviderName(i))
		config = appendMessage(config, 1, appendMessage(entry, 2, r.marshal()))
	}
	match := appendMember(nil, 1, "/")
	rule := appendMessage(appendMessage(nil, 1, match), 2, jwtRequirement(len(rules)))
	config = appendMessage(config, 2, rule)
	return HTTPFilter{Name: jwtFilterName, TypeURL: jwtType, Config: appendBool(config, 4, true)}
}

func jwtProviderName(i int) string { return "origins-" + strconv.Itoa(i) }

// jwtRequirement is that of n providers: any of them, or for each none or a good
// token.
func jwtRequirement(n int) []byte {
	provider := func(i int) []byte { return appendMember(nil, 1, jwtProviderName(i)) }
	optional := func(i int) []byte { return jwtList(requiresAny, provider(i), appendMessage(nil, allowMissing, nil)) }
	if n == 1 {
		return optional(0)
	}
	var alternatives, each [][]byte
	for i := range n {
		alternatives, each = append(alternatives, provider(i)), append(each, optional(i))
	}
	return jwtList(requiresAny, append(alternatives, jwtList(requiresAll, each...))...)
}

// jwtList is requires_any or requires_all.
func jwtList(kind protowire.Number, requirements ...[]byte) []byte {
	var list []byte
	for _, r := range requirements {
		list = appendMessage(list, 1, r)
	}
	return appendMessage(nil, kind, list)
}

func (r JWTRule) marshal() []byte {
	b := appendString(nil, 1, r.Issuer)
	for _, audience := range r.Audiences {
		b = appendMember(b, 2, audience)
	}
	b = appendMessage(b, 4, appendMember(nil, 3, r.JWKS))
	b = appendBool(b, 5, r.Forward)
	for _, h := range r.FromHeaders {
		b = appendMessage(b, 6, appendString(appendString(nil, 1, h.Name), 2, h.Prefix))
	}
	b = appendString(b, 8, r.PayloadHeader)
	b = appendString(b, 9, "payload")
	b = appendVarint(b, 10, uint64(r.ClockSkew/time.Second))
	for _, cookie := range r.FromCookies {
		b = appendMember(b, 13, cookie)
	}
	for _, header := range slices.Sorted(maps.Keys(r.ClaimHeaders)) {
		b = appendMessage(b, 15, appendString(appendString(nil, 1, header), 2, r.ClaimHeaders[header]))
	}
	return appendMessage(b, 18, appendMember(appendMember(nil, 1, "permission"), 1, "scope"))
}
