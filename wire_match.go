package proxyless

import (
	"errors"
	"regexp"
	"strings"
)

// routeMatchUnapplied names the matchers that are known but need what a call
// does not have. Ignoring one would let the route take calls that are not
// meant for it, so a route that has one never matches.
var routeMatchUnapplied = unapplied{7: "query_parameters", 11: "tls_context", 12: "connect_matcher", 13: "dynamic_metadata",
	15: "path_match_policy", 16: "filter_state", 17: "cookies"}

// routeMatch reads an envoy.config.route.v3.RouteMatch.
func (d *decoding) routeMatch(b []byte, m *routeMatch) error {
	var path oneof
	var sensitive, fraction []byte
	m.headers = make([]headerMatch, 0, countField(b, 6))
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1, 2, 14:
			path.raw(&c, "path_specifier")
		case 10, 12, 15:
			path.message(&c, "path_specifier")
		case 4:
			c.message("case_sensitive", &sensitive)
		case 6:
			d.keep(&c, "headers")
			i := len(m.headers)
			m.headers = append(m.headers, headerMatch{})
			c.fail(inElement("headers", i, d.headerMatch(c.bytes("headers"), m, &m.headers[i])))
		case 8: // grpc: every call is one
		case 9:
			c.message("runtime_fraction", &fraction)
		default:
			m.neverBecause(routeMatchUnapplied.name(c.num))
		}
	}
	c.fail(d.pathMatch(path, m))
	c.fail(inField("runtime_fraction", m.setFraction(fraction)))
	if sensitive != nil && m.path != pathRegex {
		value, err := decodeWrapped(sensitive)
		m.foldCase = value == 0
		c.fail(inField("case_sensitive", err))
	}
	return c.err
}

// neverBecause makes the match one that never matches.
func (m *routeMatch) neverBecause(field string) {
	if m.never == "" {
		m.never = field
	}
}

// pathMatch takes the member of path_specifier.
func (d *decoding) pathMatch(path oneof, m *routeMatch) (err error) {
	switch path.num {
	case 1:
		m.path, m.text = pathPrefix, string(path.val)
	case 2:
		m.path, m.text = pathExact, string(path.val)
	case 10:
		m.path = pathRegex
		m.regex, m.text, err = d.regexMatcher(path.val)
		return inField("safe_regex", err)
	case 14:
		m.path, m.text = pathSeparated, strings.TrimSuffix(string(path.val), "/")
	case 0:
		m.neverBecause("path_specifier of an unknown kind")
	default:
		m.neverBecause(routeMatchUnapplied[path.num])
	}
	if m.path == pathSeparated && m.text == "" || m.path == pathPrefix && (m.text == "" || m.text == "/") {
		m.path, m.text = pathAny, ""
	}
	return nil
}

// setFraction reads an envoy.config.core.v3.RuntimeFractionalPercent, whose
// runtime_key means nothing here.
func (m *routeMatch) setFraction(b []byte) error {
	if b == nil {
		return nil
	}
	value, err := submessage(b, 1, "default_value")
	if err != nil {
		return err
	}
	m.fraction, err = decodeFraction(value)
	m.partial = m.fraction < fractionScale
	return inField("default_value", err)
}

// regexMatcher reads an envoy.type.matcher.v3.RegexMatcher; its engine is RE2
// whatever google_re2 says. The pattern is returned for who looks at the route.
func (d *decoding) regexMatcher(b []byte) (re *regexp.Regexp, pattern string, err error) {
	c := walk(b)
	for c.next() {
		if c.num == 2 {
			pattern = d.intern(c.raw("regex"))
		}
	}
	if c.err != nil {
		return nil, "", c.err
	}
	re, err = d.regex(pattern)
	return re, pattern, inField("regex", err)
}

// headerMatch reads an envoy.config.route.v3.HeaderMatcher.
func (d *decoding) headerMatch(b []byte, m *routeMatch, h *headerMatch) error {
	var specifier oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			h.name = headerName(d.intern(c.raw("name")))
		case 4, 9, 10, 12:
			specifier.raw(&c, "header_match_specifier")
		case 7:
			specifier.scalar(&c, "present_match")
		case 6, 11, 13:
			specifier.message(&c, "header_match_specifier")
		case 8:
			h.invert = c.scalar("invert_match") != 0
		case 14:
			h.missingEmpty = c.scalar("treat_missing_header_as_empty") != 0
		default:
			m.neverBecause("headers." + unapplied(nil).name(c.num))
		}
	}
	if c.err == nil && h.name == "" {
		return missingField("name")
	}
	c.fail(d.headerSpecifier(specifier, m, h))
	return c.err
}

// headerName is the name under which a call's header is found. HTTP/2 has
// :authority where HTTP/1 has host.
func headerName(name string) string {
	if name = strings.ToLower(name); name == "host" {
		return ":authority"
	}
	return name
}

// headerSpecifier takes the member of header_match_specifier; without one the
// header has to be present.
func (d *decoding) headerSpecifier(s oneof, m *routeMatch, h *headerMatch) (err error) {
	switch s.num {
	case 4:
		h.kind, h.text = headerExact, d.intern(s.val)
	case 6:
		h.kind = headerRange
		h.start, h.end, err = decodeRange(s.val)
		return inField("range_match", err)
	case 7:
		if s.u == 0 {
			h.kind = headerAbsent
		}
	case 9:
		return h.part(headerPrefix, "prefix_match", d.intern(s.val))
	case 10:
		return h.part(headerSuffix, "suffix_match", d.intern(s.val))
	case 11:
		h.kind = headerRegex
		h.regex, h.text, err = d.regexMatcher(s.val)
		return inField("safe_regex_match", err)
	case 12:
		return h.part(headerContains, "contains_match", d.intern(s.val))
	case 13:
		return inField("string_match", d.stringMatch(s.val, m, h))
	}
	return nil
}

// part sets a match on a part of the value, which must not be empty.
func (h *headerMatch) part(kind headerKind, field, text string) error {
	if text == "" {
		return inField(field, errors.New("empty"))
	}
	h.kind, h.text = kind, text
	return nil
}

// stringMatch reads an envoy.type.matcher.v3.StringMatcher.
func (d *decoding) stringMatch(b []byte, m *routeMatch, h *headerMatch) (err error) {
	var pattern oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1, 2, 3, 7:
			pattern.raw(&c, "match_pattern")
		case 5, 8:
			pattern.message(&c, "match_pattern")
		case 6:
			h.foldCase = c.scalar("ignore_case") != 0
		}
	}
	if c.err != nil {
		return c.err
	}
	switch pattern.num {
	case 1:
		h.kind, h.text = headerExact, d.intern(pattern.val)
	case 2:
		return h.part(headerPrefix, "prefix", d.intern(pattern.val))
	case 3:
		return h.part(headerSuffix, "suffix", d.intern(pattern.val))
	case 5:
		h.kind, h.foldCase = headerRegex, false
		h.regex, h.text, err = d.regexMatcher(pattern.val)
		return inField("safe_regex", err)
	case 7:
		return h.part(headerContains, "contains", d.intern(pattern.val))
	case 8:
		m.neverBecause("headers.string_match.custom")
	default:
		m.neverBecause("headers.string_match of an unknown kind")
	}
	return nil
}

// decodeRange reads an envoy.type.v3.Int64Range.
func decodeRange(b []byte) (start, end int64, err error) {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			start = int64(c.scalar("start"))
		case 2:
			end = int64(c.scalar("end"))
		}
	}
	return start, end, c.err
}
