package proxyless

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
)

// tell gives the call its claims, and the handler the headers that it is to
// see: claims and payloads of verified tokens, and no token that is not
// forwarded. A header that is for claims is never the caller's own.
func (e *tokenEvaluation) tell() {
	call := e.call
	call.claims = call.claims.with(e.claims)
	for _, name := range e.filter.reserved {
		if _, sent := call.headers.md[name]; sent {
			delete(call.editHeaders(), name)
		}
	}
	for i := range e.verified {
		v := &e.verified[i]
		if p := v.provider; p.payloadHeader != "" {
			e.add(p.payloadHeader, p.payloadOf(v.signed))
		}
		for j := range v.provider.claimHeaders {
			c := &v.provider.claimHeaders[j]
			if claim, ok := lookupClaim(v.signed.payload, c.path); ok {
				e.add(c.header, claimText(claim))
			}
		}
	}
	for i := range e.verified { // last, since a token's header may be that of a claim
		v := &e.verified[i]
		if !v.provider.forward && v.source.cookie == "" && !slices.Contains(e.filter.reserved, v.source.header) {
			delete(call.editHeaders(), v.source.header)
		}
	}
}

// add adds a value to a header, unless it is empty.
func (e *tokenEvaluation) add(name, value string) {
	if value != "" {
		md := e.call.editHeaders()
		md[name] = append(slices.Clip(md[name]), value)
	}
}

func (p *jwtProvider) payloadOf(s *signedToken) string {
	if p.padded {
		return s.encoded + strings.Repeat("=", -len(s.encoded)&3)
	}
	return s.encoded
}

// claimText is a claim as a header has it: lists and objects are JSON in
// base64, and null is nothing.
func claimText(claim any) string {
	switch v := claim.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		if v >= 0 && v < math.MaxUint64 && v == math.Trunc(v) {
			return strconv.FormatUint(uint64(v), 10)
		}
		return strconv.FormatFloat(v, 'f', 6, 64)
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetEscapeHTML(false)
	if out.Encode(claim) != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}
