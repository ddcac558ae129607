package proxyless

import "google.golang.org/grpc/codes"

// jwtFilter is what is kept of a JwtAuthentication filter.
type jwtFilter struct{}

// tokenClaimSet is what verified tokens of a call say, as the rules find it:
// the metadata of the namespace envoy.filters.http.jwt_authn. It is immutable,
// and nil is that of a call without a token.
type tokenClaimSet struct {
	entries []tokenEntry // with keys of their own
}

// tokenEntry is one key of that metadata, such as "payload".
type tokenEntry struct {
	key   string
	value map[string]any
}

// lookup finds what is at a path, whose first element is the key under which a
// token's payload was put. Values are as a protobuf Struct has them: string,
// float64, bool, nil, []any, map[string]any. They must not be changed.
func (s *tokenClaimSet) lookup(path []string) (value any, ok bool) {
	if s == nil || len(path) == 0 {
		return nil, false
	}
	for i := range s.entries {
		if s.entries[i].key == path[0] {
			return lookupClaim(s.entries[i].value, path[1:])
		}
	}
	return nil, false
}

// lookupClaim descends through objects only, as Envoy's matchers do: an element
// of a list has no name.
func lookupClaim(claims map[string]any, path []string) (value any, ok bool) {
	value = claims
	for _, name := range path {
		inside, isMap := value.(map[string]any)
		if !isMap {
			return nil, false
		}
		if value, ok = inside[name]; !ok {
			return nil, false
		}
	}
	return value, true
}

// with is this set and another's entries, which win.
func (s *tokenClaimSet) with(more *tokenClaimSet) *tokenClaimSet {
	switch {
	case s == nil || s == more:
		return more
	case more == nil:
		return s
	}
	merged := &tokenClaimSet{entries: make([]tokenEntry, 0, len(s.entries)+len(more.entries))}
	merged.entries = append(merged.entries, more.entries...)
	for _, e := range s.entries {
		if _, replaced := more.lookup([]string{e.key}); !replaced {
			merged.entries = append(merged.entries, e)
		}
	}
	return merged
}

func (f *jwtFilter) check(*callFacts) ruling {
	return ruling{code: codes.Unauthenticated, reason: "JWT is not evaluated yet"}
}
