package proxyless

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
)

func referenceJWT(a *anypb.Any) (*jwtFilter, error) {
	m := &jwtv3.JwtAuthentication{}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return nil, err
	}
	f := &jwtFilter{}
	if m.FilterStateRules != nil || len(m.ProtoReflect().GetUnknown()) > 0 {
		f.failure = "why"
	}
	names := slices.Sorted(maps.Keys(m.Providers))
	for _, name := range names {
		p, err := referenceProvider(m.Providers[name])
		if err != nil {
			return nil, err
		}
		p.name = name
		f.providers = append(f.providers, p)
		for _, header := range p.reserves() {
			if !slices.Contains(f.reserved, header) {
				f.reserved = append(f.reserved, header)
			}
		}
	}
	for _, rule := range m.Rules {
		r, err := referenceTokenRule(rule, names, m.RequirementMap)
		if err != nil {
			return nil, err
		}
		f.rules = append(f.rules, r)
	}
	return f, nil
}

// reserves are the headers that a provider fills.
func (p *jwtProvider) reserves() (headers []string) {
	if p.payloadHeader != "" {
		headers = append(headers, p.payloadHeader)
	}
	for _, h := range p.claimHeaders {
		headers = append(headers, h.header)
	}
	return headers
}

func referenceTokenRule(m *jwtv3.RequirementRule, providers []string, named map[string]*jwtv3.JwtRequirement) (r jwtRule, err error) {
	if m.Match == nil {
		return r, errors.New("no match")
	}
	if err := referenceMatch(m.Match, &r.match); err != nil {
		return r, err
	}
	needs := m.GetRequires()
	if name, ok := m.RequirementType.(*jwtv3.RequirementRule_RequirementName); ok {
		if needs, ok = named[name.RequirementName]; !ok {
			return r, errors.New("requirement_name")
		}
	}
	if r.needs, err = referenceNeeds(needs, providers, 1); err != nil {
		return r, err
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 || unmatchable(m) {
		r = jwtRule{needs: tokenRequirement{kind: requireNever}}
	}
	return r, nil
}

// unmatchable says that a match looks at what a call does not have.
func unmatchable(m *jwtv3.RequirementRule) bool {
	never := func(change func(*routev3.RouteMatch)) bool {
		match, x := proto.CloneOf(m.Match), routeMatch{}
		change(match)
		return referenceMatch(match, &x) == nil && x.never != ""
	}
	anyPath := &routev3.RouteMatch_Prefix{Prefix: "/"}
	switch {
	case never(func(m *routev3.RouteMatch) { *m = routev3.RouteMatch{PathSpecifier: anyPath, Headers: m.Headers} }):
		return true // what is read first decides, and headers come before parameters
	case never(func(m *routev3.RouteMatch) {
		*m = routev3.RouteMatch{PathSpecifier: anyPath, QueryParameters: m.QueryParameters}
	}):
		return false // no call has parameters
	}
	return never(func(m *routev3.RouteMatch) {
		if m.GetConnectMatcher() != nil { // and none is a CONNECT
			m.PathSpecifier = anyPath
		}
	})
}

func referenceNeeds(m *jwtv3.JwtRequirement, providers []string, depth int) (needs tokenRequirement, err error) {
	if depth > 16 {
		return needs, errors.New("deep")
	}
	one := func(name string) error {
		at := slices.Index(providers, name)
		needs.kind, needs.providers = requireProvider, []int{at}
		if at < 0 {
			return fmt.Errorf("provider %q", name)
		}
		return nil
	}
	inside := func(list []*jwtv3.JwtRequirement) error {
		for _, each := range list {
			inner, err := referenceNeeds(each, providers, depth+1)
			if err != nil {
				return err
			}
			needs.inner = append(needs.inner, inner)
		}
		if len(list) == 0 {
			return errors.New("empty")
		}
		return nil
	}
	for i := range providers {
		needs.providers = append(needs.providers, i)
	}
	switch kind := m.GetRequiresType().(type) {
	case *jwtv3.JwtRequirement_ProviderName:
		err = one(kind.ProviderName)
	case *jwtv3.JwtRequirement_ProviderAndAudiences:
		for _, a := range kind.ProviderAndAudiences.GetAudiences() {
			needs.audiences = append(needs.audiences, bareAudience(a))
		}
		err = one(kind.ProviderAndAudiences.GetProviderName())
	case *jwtv3.JwtRequirement_RequiresAny:
		needs.kind, needs.providers = requireAny, nil
		if err = inside(kind.RequiresAny.GetRequirements()); err == nil {
			needs.inner = passLast(needs.inner)
		}
	case *jwtv3.JwtRequirement_RequiresAll:
		needs.kind, needs.providers = requireAll, nil
		err = inside(kind.RequiresAll.GetRequirements())
	case *jwtv3.JwtRequirement_AllowMissing:
		needs.kind = requireMissing
	case *jwtv3.JwtRequirement_AllowMissingOrFailed:
		needs.kind = requireMissingOrFailed
	case *jwtv3.JwtRequirement_ExtractOnlyWithoutValidation:
		needs.kind, needs.providers = requireNever, nil
	default:
		needs.providers = nil
		if len(m.ProtoReflect().GetUnknown()) > 0 {
			needs.kind = requireNever
		}
	}
	return needs, err
}

// passLast moves one alternative that needs no token to the end: one that takes
// bad tokens, too, before one that does not.
func passLast(list []tokenRequirement) (sorted []tokenRequirement) {
	var used []int
	var last []tokenRequirement
	for _, each := range list {
		switch each.kind {
		case requireMissing:
			last = append(last, each)
		case requireMissingOrFailed:
			last = append([]tokenRequirement{each}, last...)
		default:
			sorted = append(sorted, each)
		}
		if each.kind == requireProvider && !slices.Contains(used, each.providers[0]) {
			used = append(used, each.providers[0])
		}
	}
	if len(last) == 0 {
		return sorted
	}
	if len(used) > 0 {
		last[0].providers = used
	}
	return append(sorted, last[0])
}

func bareAudience(a string) string {
	for _, scheme := range []string{"https://", "http://"} {
		if strings.HasPrefix(a, scheme) {
			a = a[len(scheme):]
			break
		}
	}
	return strings.TrimSuffix(a, "/")
}

func referenceHeaderName(name string, err *error) string {
	if name == "" || name[0] == ':' {
		*err = errors.Join(*err, fmt.Errorf("header %q", name))
	}
	return strings.ToLower(name)
}

func referenceProvider(m *jwtv3.JwtProvider) (p jwtProvider, err error) {
	p = jwtProvider{issuer: m.Issuer, skew: 60, mustEnd: m.RequireExpiration, limited: m.MaxLifetime != nil, payloadKey: m.PayloadInMetadata, headerKey: m.HeaderInMetadata,
		split: m.NormalizePayloadInMetadata.GetSpaceDelimitedClaims(), forward: m.Forward, padded: m.PadForwardPayloadHeader}
	if m.ClockSkewSeconds > 0 {
		p.skew = float64(m.ClockSkewSeconds)
	}
	for _, a := range m.Audiences {
		p.audiences = append(p.audiences, bareAudience(a))
	}
	if m.Subjects != nil {
		h := headerMatch{}
		x := routeMatch{}
		if err = errors.Join(err, referenceString(m.Subjects, &x, &h)); x.never != "" {
			h.kind, p.failure = headerNever, "why"
		}
		p.subjects = &stringMatch{kind: h.kind, text: h.text, regex: h.regex, foldCase: h.foldCase}
	}
	limit, e := referenceDuration(m.MaxLifetime)
	p.maxLife, err = limit.Seconds(), errors.Join(err, e)
	for _, h := range m.FromHeaders {
		p.sources = append(p.sources, tokenSource{header: referenceHeaderName(h.Name, &err), prefix: h.ValuePrefix})
	}
	for _, name := range m.FromParams {
		p.sources = append(p.sources, tokenSource{param: name})
	}
	for _, c := range m.FromCookies {
		p.sources = append(p.sources, tokenSource{header: "cookie", cookie: c})
	}
	if len(p.sources) == 0 {
		p.sources = []tokenSource{{header: "authorization", prefix: "Bearer "}, {param: "access_token"}}
	}
	if m.ForwardPayloadHeader != "" {
		p.payloadHeader = referenceHeaderName(m.ForwardPayloadHeader, &err)
	}
	for _, c := range m.ClaimToHeaders {
		h := claimHeader{header: referenceHeaderName(c.HeaderName, &err)}
		for _, key := range c.ClaimPath {
			h.path = append(h.path, key.Key)
		}
		if (c.ClaimName == "") == (len(h.path) == 0) {
			err = errors.Join(err, errors.New("not one claim"))
		}
		if c.ClaimName != "" {
			h.path = strings.Split(c.ClaimName, ".")
		}
		p.claimHeaders = append(p.claimHeaders, h)
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		p.failure = "why"
	}
	set := m.GetLocalJwks().GetInlineString() + string(m.GetLocalJwks().GetInlineBytes())
	if p.keys = referenceKeys(set); len(p.keys) == 0 {
		p.failure = "why"
	}
	return p, err
}

// referenceKeys reads the key sets that are made here.
func referenceKeys(text string) (keys keySet) {
	var set struct {
		Keys []struct{ Kty, Crv, Kid, Alg, N, E, X, Y, D string }
	}
	if json.Unmarshal([]byte(text), &set) != nil {
		return nil
	}
	octets := func(text string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			panic(err)
		}
		return b
	}
	for _, k := range set.Keys {
		key := tokenKey{id: k.Kid, alg: k.Alg}
		switch {
		case k.D != "":
			continue
		case k.Kty == "RSA":
			key.key = &rsa.PublicKey{N: new(big.Int).SetBytes(octets(k.N)), E: int(new(big.Int).SetBytes(octets(k.E)).Int64())}
		case k.Kty == "EC":
			point, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, octets(k.X)...), octets(k.Y)...))
			if err != nil {
				continue
			}
			key.key = point
		case k.Kty == "OKP":
			key.key = ed25519.PublicKey(octets(k.X))
		default:
			continue
		}
		keys = append(keys, key)
	}
	return keys
}
