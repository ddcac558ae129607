package proxyless

import (
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
)

// jwtFilter is what is kept of a JwtAuthentication filter: which tokens calls
// must have, and what verified tokens tell.
type jwtFilter struct {
	providers []jwtProvider
	rules     []jwtRule
	failure   string     // why calls are refused that no rule takes; empty when they pass
	reserved  []string   // headers that only this filter may set, whatever the caller sent
	known     tokenCache // guarded by itself
}

// jwtRule says what the calls that it matches need; the first that matches
// counts.
type jwtRule struct {
	match routeMatch
	needs tokenRequirement
}

// jwtProvider is somebody who issues tokens.
type jwtProvider struct {
	name      string
	failure   string // why no token can be verified; empty when it can
	issuer    string // empty for any
	keys      keySet
	audiences []string     // of which a token must have one, see plainAudience; empty for any
	subjects  *stringMatch // nil for any
	skew      float64      // clock_skew_seconds; Envoy's default is 60
	mustEnd   bool         // require_expiration
	limited   bool         // max_lifetime, which asks for an expiry, too
	maxLife   float64      // seconds that may be left
	sources   []tokenSource

	payloadKey string   // payload_in_metadata; empty for none
	headerKey  string   // header_in_metadata; empty for none
	split      []string // space_delimited_claims

	forward       bool   // the handler sees the token, too
	payloadHeader string // forward_payload_header; empty for none
	padded        bool   // pad_forward_payload_header
	claimHeaders  []claimHeader
}

// tokenSource is a place where tokens are looked for.
type tokenSource struct {
	header string // lower case
	prefix string // before the token; empty where it is the whole value
	cookie string // the name of a cookie, in place of the header
	param  string // the name of a parameter of a query, in place of the header
}

// claimHeader is a claim that the handler sees as a header.
type claimHeader struct {
	header string // lower case
	path   []string
}

// requirementKind is JwtRequirement.requires_type.
type requirementKind uint8

const (
	requireNothing         requirementKind = iota
	requireProvider                        // provider_name, provider_and_audiences
	requireAny                             // requires_any
	requireAll                             // requires_all
	requireMissing                         // allow_missing: no token, or good ones
	requireMissingOrFailed                 // allow_missing_or_failed: tokens are verified, and need not be good
	requireNever                           // what is not known or not supported: never met
)

// tokenRequirement is a JwtRequirement.
type tokenRequirement struct {
	kind      requirementKind
	providers []int              // into jwtFilter.providers: the one, or those whose tokens are looked for
	audiences []string           // in place of the provider's, where there are any
	inner     []tokenRequirement // of requireAny and requireAll
}

// tokenFailure is why a requirement is not met.
type tokenFailure struct {
	code   codes.Code
	rank   int // which of several failures is told: the greatest
	reason string
}

// Failures. Envoy answers 403 to an audience that is not accepted, and 401 to
// all others.
var (
	failMissing    = &tokenFailure{codes.Unauthenticated, 0, "there is no token"}
	failIssuer     = &tokenFailure{codes.Unauthenticated, 1, "the token is of another issuer"}
	failForm       = &tokenFailure{codes.Unauthenticated, 2, "what stands in the token's place is no JSON Web Token, or more than one"}
	failClaims     = &tokenFailure{codes.Unauthenticated, 2, "a registered claim of the token has the wrong type"}
	failExpired    = &tokenFailure{codes.Unauthenticated, 2, "the token has expired"}
	failEarly      = &tokenFailure{codes.Unauthenticated, 2, "the token is not valid yet"}
	failEndless    = &tokenFailure{codes.Unauthenticated, 2, "the token has no expiry"}
	failLong       = &tokenFailure{codes.Unauthenticated, 2, "the token is valid for longer than is accepted"}
	failSubject    = &tokenFailure{codes.Unauthenticated, 2, "the token's subject is not accepted"}
	failAudience   = &tokenFailure{codes.PermissionDenied, 2, "the token is for another audience"}
	failMany       = &tokenFailure{codes.Unauthenticated, 2, "there are too many tokens"}
	failKeys       = &tokenFailure{codes.Unauthenticated, 3, "the keys of the token's issuer are not known"}
	failNotApplied = &tokenFailure{codes.Unauthenticated, 3, "the requirement is not supported"}
)

// check verifies the tokens of a call, and adds what they say to its claims.
// It works on a copy, which is on the heap as what tokens say is: so the calls
// of servers without tokens are not.
func (f *jwtFilter) check(call *callFacts) ruling {
	own := *call
	r := f.checkAt(&own, time.Now())
	*call = own
	return r
}

func (f *jwtFilter) checkAt(call *callFacts, now time.Time) ruling {
	e := evaluations.Get().(*tokenEvaluation)
	defer e.release()
	e.filter, e.call, e.now = f, call, float64(now.Unix())
	switch needs := f.needs(call); {
	case needs == nil && f.failure != "":
		return ruling{code: codes.Unauthenticated, action: "JWT", reason: f.failure}
	case needs != nil:
		if failure := e.meet(needs); failure != nil {
			return ruling{code: failure.code, action: "JWT", reason: e.explain(failure)}
		}
	}
	e.tell()
	return ruling{}
}

// needs is what the first rule that matches asks for; nil where none does.
func (f *jwtFilter) needs(call *callFacts) *tokenRequirement {
	for i := range f.rules {
		rule := &f.rules[i]
		random := uint32(0)
		if rule.match.partial {
			random = rand.Uint32N(fractionScale)
		}
		if rule.match.matches(call.headers.path, &call.headers, random) {
			return &rule.needs
		}
	}
	return nil
}
