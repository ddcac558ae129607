package proxyless

import (
	"fmt"
	"math"
	"strings"
)

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

// tokenFacts is what a token says of itself (RFC 7519, 4.1).
type tokenFacts struct {
	issuer, subject    string
	audiences          []string
	expires, notBefore float64 // seconds since 1970
	hasExpiry          bool
}

// tokenFactsOf reads the registered claims, which have to be of their types.
func tokenFactsOf(payload map[string]any) (f tokenFacts, err error) {
	for name, to := range map[string]*string{"iss": &f.issuer, "sub": &f.subject, "jti": new(string)} {
		if *to, err = textOf(payload, name); err != nil {
			return f, err
		}
	}
	var issued float64
	for name, to := range map[string]*float64{"exp": &f.expires, "nbf": &f.notBefore, "iat": &issued} {
		if *to, err = dateOf(payload, name); err != nil {
			return f, err
		}
	}
	_, f.hasExpiry = payload["exp"]
	f.audiences, err = audiencesOf(payload)
	return f, err
}

// dateOf is a NumericDate: seconds, possibly with a fraction.
func dateOf(payload map[string]any, name string) (float64, error) {
	value, present := payload[name]
	if !present {
		return 0, nil
	}
	seconds, ok := value.(float64)
	if !ok || seconds < 0 || seconds > math.MaxInt64 {
		return 0, fmt.Errorf("%q is no time", name)
	}
	return seconds, nil
}

// audiencesOf is one audience or a list of them.
func audiencesOf(payload map[string]any) (audiences []string, err error) {
	switch value := payload["aud"].(type) {
	case string:
		return []string{plainAudience(value)}, nil
	case []any:
		for _, each := range value {
			text, ok := each.(string)
			if !ok {
				return nil, fmt.Errorf("%q is no list of texts", "aud")
			}
			audiences = append(audiences, plainAudience(text))
		}
		return audiences, nil
	}
	if _, present := payload["aud"]; present {
		return nil, fmt.Errorf("%q is neither text nor a list", "aud")
	}
	return nil, nil
}

// plainAudience is how audiences are compared: Envoy takes no notice of the
// scheme of a URL, nor of a slash at its end.
func plainAudience(audience string) string {
	if rest, ok := strings.CutPrefix(audience, "https://"); ok {
		audience = rest
	} else if rest, ok := strings.CutPrefix(audience, "http://"); ok {
		audience = rest
	}
	return strings.TrimSuffix(audience, "/")
}

// splitClaims is the payload with claims of words between spaces as lists of
// the words, such as scope (RFC 8693, 4.2).
func splitClaims(payload map[string]any, names []string) map[string]any {
	var split map[string]any
	for _, name := range names {
		text, ok := payload[name].(string)
		if !ok {
			continue
		}
		if split == nil {
			split = make(map[string]any, len(payload))
			for k, v := range payload {
				split[k] = v
			}
		}
		words := []any{}
		for word := range strings.SplitSeq(text, " ") {
			if word != "" {
				words = append(words, word)
			}
		}
		split[name] = words
	}
	if split == nil {
		return payload
	}
	return split
}
