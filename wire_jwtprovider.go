package proxyless

import (
	"errors"
	"strings"
)

// defaultSkew is how many seconds clocks may differ, see clock_skew_seconds.
const defaultSkew = 60

// jwtProvider reads a JwtProvider. What cannot be obeyed of it makes every
// token of it a bad one, and is noted.
func (r *jwtReading) jwtProvider(b []byte) (p jwtProvider, err error) {
	p.skew = defaultSkew
	var keys oneof
	var subjects, lifetime, normalize []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			p.issuer = c.text("issuer")
		case 2:
			r.keep(&c, "audiences")
			p.audiences = append(p.audiences, plainAudience(c.text("audiences")))
		case 3, 4:
			keys.message(&c, "jwks_source_specifier")
		case 5:
			p.forward = c.scalar("forward") != 0
		case 6:
			r.keep(&c, "from_headers")
			source, err := decodeTokenHeader(c.bytes("from_headers"))
			c.fail(inElement("from_headers", len(p.sources), err))
			p.sources = append(p.sources, source)
		case 7:
			r.keep(&c, "from_params")
			p.sources = append(p.sources, tokenSource{param: c.text("from_params")})
		case 13:
			r.keep(&c, "from_cookies")
			p.sources = append(p.sources, tokenSource{header: "cookie", cookie: c.text("from_cookies")})
		case 8:
			if p.payloadHeader = c.text("forward_payload_header"); p.payloadHeader != "" {
				p.payloadHeader, err = jwtHeader(p.payloadHeader)
				c.fail(inField("forward_payload_header", err))
			}
		case 9:
			p.payloadKey = c.text("payload_in_metadata")
		case 10:
			if seconds := uint32(c.scalar("clock_skew_seconds")); seconds > 0 {
				p.skew = float64(seconds)
			}
		case 11:
			p.padded = c.scalar("pad_forward_payload_header") != 0
		case 14:
			p.headerKey = c.text("header_in_metadata")
		case 15:
			r.keep(&c, "claim_to_headers")
			h, err := r.claimHeader(c.bytes("claim_to_headers"))
			c.fail(inElement("claim_to_headers", len(p.claimHeaders), err))
			p.claimHeaders = append(p.claimHeaders, h)
		case 16:
			r.ignore("failed_status_in_metadata")
		case 18:
			c.message("normalize_payload_in_metadata", &normalize)
		case 19:
			c.message("subjects", &subjects)
		case 20:
			p.mustEnd = c.scalar("require_expiration") != 0
		case 21:
			c.message("max_lifetime", &lifetime)
		case 12, 17: // jwt_cache_config: tokens are cached anyway. clear_route_cache
		default:
			r.failProvider(&p, unapplied(nil).name(c.num), "is not supported")
		}
	}
	if c.err != nil {
		return p, c.err
	}
	return p, r.completeProvider(&p, keys, subjects, lifetime, normalize)
}

func (r *jwtReading) completeProvider(p *jwtProvider, keys oneof, subjects, lifetime, normalize []byte) (err error) {
	if len(p.sources) == 0 {
		p.sources = []tokenSource{{header: "authorization", prefix: "Bearer "}, {param: "access_token"}}
	}
	if subjects != nil {
		m, never, err := r.textMatch(subjects)
		if err != nil {
			return inField("subjects", err)
		}
		if never != "" {
			r.failProvider(p, "subjects."+never, "is not supported")
		}
		p.subjects = &m
	}
	if p.limited = lifetime != nil; p.limited {
		limit, err := decodeDuration(lifetime)
		if err != nil {
			return inField("max_lifetime", err)
		}
		p.maxLife = limit.Seconds()
	}
	if p.split, err = r.spaceDelimited(normalize); err != nil {
		return inField("normalize_payload_in_metadata", err)
	}
	switch keys.num {
	case 3:
		r.failProvider(p, "remote_jwks", "is not fetched")
	case 4:
		return inField("local_jwks", r.localKeys(keys.val, p))
	default:
		r.failProvider(p, "jwks_source_specifier", "is missing or not supported")
	}
	return nil
}

// failProvider makes every token of a provider a bad one.
func (r *jwtReading) failProvider(p *jwtProvider, field, why string) {
	r.ignore(field)
	if p.failure == "" {
		p.failure = field + " " + why
	}
}

// localKeys reads the envoy.config.core.v3.DataSource of local_jwks. As in
// Envoy, a key set that cannot be used costs the tokens that need it.
func (r *jwtReading) localKeys(b []byte, p *jwtProvider) error {
	var specifier oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1, 3, 4:
			specifier.raw(&c, "specifier")
		case 2:
			specifier = oneof{num: 2, val: c.bytes("inline_bytes")}
		}
	}
	if c.err != nil {
		return c.err
	}
	if specifier.num != 2 && specifier.num != 3 {
		r.failProvider(p, "local_jwks."+unapplied{0: "specifier", 1: "filename", 4: "environment_variable"}.name(specifier.num), "is not supported")
		return nil
	}
	keys, refused, err := parseKeySet(specifier.val)
	for _, why := range refused {
		place, reason, _ := strings.Cut(why, ": ")
		r.ignore("local_jwks." + place + " (" + reason + ")")
	}
	if p.keys = keys; err != nil {
		r.ignore("local_jwks (" + err.Error() + ")")
		if p.failure == "" {
			p.failure = "local_jwks cannot be used: " + err.Error()
		}
	}
	return nil
}

// decodeTokenHeader reads a JwtHeader.
func decodeTokenHeader(b []byte) (s tokenSource, err error) {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			s.header = c.text("name")
		case 2:
			s.prefix = c.text("value_prefix")
		}
	}
	if c.err == nil {
		s.header, err = jwtHeader(s.header)
		c.fail(inField("name", err))
	}
	return s, c.err
}

// claimHeader reads a JwtClaimToHeader.
func (r *jwtReading) claimHeader(b []byte) (h claimHeader, err error) {
	name := ""
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			h.header = c.text("header_name")
		case 2:
			name = c.text("claim_name")
		case 3:
			r.keep(&c, "claim_path")
			key, err := subtext(c.bytes("claim_path"), 1, "key")
			c.fail(inElement("claim_path", len(h.path), err))
			h.path = append(h.path, key)
		}
	}
	if c.err == nil && (name == "") == (len(h.path) == 0) {
		return h, inField("claim_name", errors.New("one of this and claim_path has to be there"))
	}
	if name != "" {
		h.path = strings.Split(name, ".")
	}
	if c.err == nil {
		h.header, err = jwtHeader(h.header)
		c.fail(inField("header_name", err))
	}
	return h, c.err
}

// spaceDelimited reads a JwtProvider.NormalizePayload.
func (r *jwtReading) spaceDelimited(b []byte) (names []string, err error) {
	c := walk(b)
	for c.next() {
		if c.num == 1 {
			r.keep(&c, "space_delimited_claims")
			names = append(names, r.intern(c.raw("space_delimited_claims")))
		}
	}
	return names, c.err
}
