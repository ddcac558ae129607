package proxyless

import (
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// maxCallTokens is how many tokens of one call are looked at.
const maxCallTokens = 8

// tokenEvaluation is one filter's look at one call.
type tokenEvaluation struct {
	filter   *jwtFilter
	call     *callFacts
	now      float64 // seconds since 1970
	claims   *tokenClaimSet
	verified []verifiedToken
	blamed   int // the provider of the failure with the greatest rank, plus one
	rank     int // that rank

	last  tokenReading // of the token that was looked at last, since providers tend to look at the same
	bytes []byte       // the token, to be hashed
}

// evaluations are used again: one would be most of what a call with a known
// token allocates.
var evaluations = sync.Pool{New: func() any { return &tokenEvaluation{} }}

// release forgets the call.
func (e *tokenEvaluation) release() {
	clear(e.verified)
	clear(e.bytes)
	if cap(e.bytes) > maxKnownToken {
		e.bytes = nil
	}
	*e = tokenEvaluation{verified: e.verified[:0], bytes: e.bytes[:0]}
	evaluations.Put(e)
}

// verifiedToken is a token that passed.
type verifiedToken struct {
	provider *jwtProvider
	source   *tokenSource
	signed   *signedToken
}

// tokenReading is what is known of a token before its signature.
type tokenReading struct {
	token   string
	hash    [32]byte
	known   *knownToken // verified before; nil if not
	signed  *signedToken
	facts   *tokenFacts
	failure *tokenFailure
}

// foundToken is a token where it was found; text is empty of what is none.
type foundToken struct {
	text   string
	source *tokenSource
}

// meet says why a requirement is not met; nil where it is. Of alternatives the
// first that is met ends the search, as in Envoy.
func (e *tokenEvaluation) meet(r *tokenRequirement) *tokenFailure {
	switch r.kind {
	case requireNothing:
		return nil
	case requireProvider:
		return e.meetProvider(r)
	case requireAny:
		failure := failMissing
		if len(r.inner) == 0 {
			failure = failNotApplied
		}
		for i := range r.inner {
			f := e.meet(&r.inner[i])
			if f == nil {
				return nil
			}
			if f.rank > failure.rank {
				failure = f
			}
		}
		return failure
	case requireAll:
		for i := range r.inner {
			if failure := e.meet(&r.inner[i]); failure != nil {
				return failure
			}
		}
		return nil
	case requireMissing:
		return e.meetMissing(r)
	case requireMissingOrFailed:
		_ = e.meetMissing(r)
		return nil
	}
	return failNotApplied
}

// meetProvider wants a token of one provider. Where there are several they all
// have to be good: the handler might use another than was verified.
func (e *tokenEvaluation) meetProvider(r *tokenRequirement) *tokenFailure {
	p := &e.filter.providers[r.providers[0]]
	var space [2]foundToken
	found := p.find(e.call, space[:0])
	if len(found) == 0 {
		return e.blame(r.providers[0], failMissing)
	}
	if len(found) > maxCallTokens {
		return e.blame(r.providers[0], failMany)
	}
	for i := range found {
		if failure := e.verify(r.providers[0], r.audiences, &found[i]); failure != nil {
			return failure
		}
	}
	return nil
}

// meetMissing verifies what tokens there are, each with the provider that has
// its issuer and looks for tokens in its place.
func (e *tokenEvaluation) meetMissing(r *tokenRequirement) (failure *tokenFailure) {
	for _, at := range r.providers {
		var space [2]foundToken
		found := e.filter.providers[at].find(e.call, space[:0])
		if len(found) > maxCallTokens {
			return e.blame(at, failMany)
		}
		for i := range found {
			if f := e.verifyByIssuer(r.providers, &found[i]); f != nil {
				failure = f
				if r.kind == requireMissing {
					return failure
				}
			}
		}
	}
	return failure
}

func (e *tokenEvaluation) verifyByIssuer(providers []int, found *foundToken) *tokenFailure {
	failure := failMissing
	for _, at := range providers {
		if !slices.Contains(e.filter.providers[at].sources, *found.source) {
			continue
		}
		f := e.verify(at, nil, found)
		if f == nil {
			return nil
		}
		if f.rank >= failure.rank {
			failure = f
		}
	}
	return failure
}

// verify verifies one token with one provider.
func (e *tokenEvaluation) verify(at int, audiences []string, found *foundToken) *tokenFailure {
	p := &e.filter.providers[at]
	if p.failure != "" {
		return e.blame(at, failKeys)
	}
	read := e.read(found.text)
	if read.failure != nil {
		return e.blame(at, read.failure)
	}
	if len(audiences) == 0 {
		audiences = p.audiences
	}
	if failure := p.accepts(read.facts, audiences, e.now); failure != nil {
		return e.blame(at, failure)
	}
	claims, failure := e.claimsOf(at, read)
	if failure != nil {
		return e.blame(at, failure)
	}
	e.claims = e.claims.with(claims)
	v := verifiedToken{p, found.source, read.signed}
	if !slices.Contains(e.verified, v) {
		e.verified = append(e.verified, v)
	}
	return nil
}

// claimsOf looks at the signature, unless it was found good before.
func (e *tokenEvaluation) claimsOf(at int, read *tokenReading) (*tokenClaimSet, *tokenFailure) {
	p := &e.filter.providers[at]
	if read.known != nil {
		if claims := read.known.claims[at].Load(); claims != nil {
			return claims, nil
		}
	}
	if err := read.signed.verify(p.keys); err != nil {
		return nil, signatureFailures[err]
	}
	claims := p.claimsOf(read.signed)
	if read.known == nil {
		read.known = &knownToken{hash: read.hash, signed: read.signed, facts: *read.facts, claims: make([]atomic.Pointer[tokenClaimSet], len(e.filter.providers))}
		if len(read.token) <= maxKnownToken {
			e.filter.known.keep(read.known, e.now)
		}
	}
	read.known.claims[at].Store(claims)
	return claims, nil
}

var signatureFailures = map[error]*tokenFailure{
	errTokenKey:       {failForm.code, 2, "no key of the issuer has the token's key id and algorithm"},
	errTokenSignature: {failForm.code, 2, "the token's signature is wrong"},
	errTokenForm:      failForm,
	errTokenSize:      {failForm.code, 2, "the token is too large"},
	errTokenAlgorithm: {failForm.code, 2, "the token's algorithm is not accepted"},
	errTokenCritical:  {failForm.code, 2, "the token's header demands what is not supported (crit, b64)"},
}

// read takes a token apart, or finds it among those that are known.
func (e *tokenEvaluation) read(token string) *tokenReading {
	r := &e.last
	if r.token == token && token != "" {
		return r
	}
	*r = tokenReading{token: token}
	if token == "" || len(token) > maxToken {
		r.failure = failForm
		return r
	}
	e.bytes = append(e.bytes[:0], token...)
	r.hash = sha256.Sum256(e.bytes)
	if r.known = e.filter.known.find(&r.hash); r.known != nil {
		r.signed, r.facts = r.known.signed, &r.known.facts
		return r
	}
	var err error
	// What is kept of it must not keep the header that it was found in, which
	// may be much longer.
	if r.signed, err = parseSignedToken(strings.Clone(token)); err != nil {
		r.failure = signatureFailures[err]
		return r
	}
	facts, err := tokenFactsOf(r.signed.payload)
	if err != nil {
		r.failure = failClaims
	}
	r.facts = &facts
	return r
}

// blame remembers whose failure it is.
func (e *tokenEvaluation) blame(at int, failure *tokenFailure) *tokenFailure {
	if e.blamed == 0 || failure.rank > e.rank {
		e.blamed, e.rank = at+1, failure.rank
	}
	return failure
}

// explain is for the audit record.
func (e *tokenEvaluation) explain(failure *tokenFailure) string {
	if e.blamed == 0 {
		return failure.reason
	}
	p := &e.filter.providers[e.blamed-1]
	if failure == failKeys && p.failure != "" {
		return "provider " + p.name + ": " + p.failure
	}
	return "provider " + p.name + ": " + failure.reason
}

// accepts judges all but the signature. The clocks may differ by p.skew.
func (p *jwtProvider) accepts(t *tokenFacts, audiences []string, now float64) *tokenFailure {
	switch {
	case p.issuer != "" && t.issuer != p.issuer:
		return failIssuer
	case p.subjects != nil && !p.subjects.matches(t.subject):
		return failSubject
	case t.hasExpiry && now > t.expires+p.skew:
		return failExpired
	case now+p.skew < t.notBefore:
		return failEarly
	case (p.mustEnd || p.limited) && !t.hasExpiry:
		return failEndless
	case p.limited && t.expires-now > p.maxLife:
		return failLong
	case len(audiences) > 0 && !slices.ContainsFunc(t.audiences, func(a string) bool { return slices.Contains(audiences, a) }):
		return failAudience
	}
	return nil
}

// claimsOf is what the rules are told of a verified token.
func (p *jwtProvider) claimsOf(s *signedToken) *tokenClaimSet {
	set := &tokenClaimSet{}
	if p.headerKey != "" {
		set.entries = append(set.entries, tokenEntry{p.headerKey, s.header})
	}
	if p.payloadKey != "" {
		set = set.with(&tokenClaimSet{entries: []tokenEntry{{p.payloadKey, splitClaims(s.payload, p.split)}}})
	}
	return set
}

// find appends the tokens of a call that stand where the provider's do.
func (p *jwtProvider) find(call *callFacts, to []foundToken) []foundToken {
	for i := range p.sources {
		switch source := &p.sources[i]; {
		case source.param != "":
			if source.inQuery(call.headers.path) {
				to = append(to, foundToken{"", source})
			}
		case strings.HasSuffix(source.header, "-bin"): // bytes, which are no token
		default:
			to = source.inHeader(call.headers.values(source.header), to)
		}
	}
	return to
}

// inQuery says that a path has the parameter. No gRPC method has such a path, so
// that what is there is taken for a bad token.
func (s *tokenSource) inQuery(path string) bool {
	_, query, _ := strings.Cut(path, "?")
	for part := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(part, "="); name == s.param || strings.IndexByte(name, '%') >= 0 {
			return true
		}
	}
	return false
}

// inHeader finds the tokens in the values of the header. Envoy takes several
// lines of authorization for one.
func (s *tokenSource) inHeader(values []string, to []foundToken) []foundToken {
	if s.header == "authorization" && len(values) > 1 {
		values = []string{strings.Join(values, ",")}
	}
	for _, value := range values {
		if s.cookie != "" {
			to = s.inCookies(value, to)
		} else if text, there := s.inValue(value); there {
			to = append(to, foundToken{text, s})
		}
	}
	return to
}

// inValue finds the token in a header's value. One prefix, one token: where the
// prefix stands elsewhere nobody knows which token a handler would take, so that
// this is taken for a bad one.
func (s *tokenSource) inValue(value string) (text string, there bool) {
	if s.prefix == "" {
		return value, true
	}
	text, ok := strings.CutPrefix(value, s.prefix)
	if !ok {
		return "", strings.Contains(value, s.prefix)
	}
	return strings.TrimSpace(text), true
}

// inCookies finds each cookie of the name.
func (s *tokenSource) inCookies(header string, to []foundToken) []foundToken {
	for part := range strings.SplitSeq(header, ";") {
		if name, value, ok := strings.Cut(part, "="); ok && strings.TrimSpace(name) == s.cookie {
			to = append(to, foundToken{strings.Trim(strings.TrimSpace(value), `"`), s})
		}
	}
	return to
}
