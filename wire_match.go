package proxyless

import (
	"errors"
	"regexp"
	"strings"
)

// routeMatchUnapplied names the matchers that are known but need what a call
// does not have. Ignoring one would let the route take calls that are not
// meant for it, so a route that has one never matches.
var routeMatchUnapplied = unapplied{11: "tls_context", 13: "dynamic_metadata", 16: "filter_state"}

const typePathTemplate = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"

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
			never, err := d.headerMatch(c.bytes("headers"), &m.headers[i])
			c.fail(inElement("headers", i, err))
			if never != "" {
				d.unknownMatcher(m, "headers."+never)
			}
		case 8: // grpc: every call is one
		case 9:
			c.message("runtime_fraction", &fraction)
		case 7:
			d.keep(&c, "query_parameters")
			c.fail(inField("query_parameters", d.queryMatch(c.bytes("query_parameters"), m)))
		case 17:
			d.keep(&c, "cookies")
			c.fail(inField("cookies", d.cookieMatch(c.bytes("cookies"), m)))
		default:
			d.unknownMatcher(m, routeMatchUnapplied.name(c.num))
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

const notSupported = ", which is not supported"

// unsupported says that the match never matches for something that was not
// understood, and not for something that no gRPC call has.
func (m *routeMatch) unsupported() bool { return strings.HasSuffix(m.never, notSupported) }

// unknownMatcher makes the match one that never matches, and notes it.
func (d *decoding) unknownMatcher(m *routeMatch, field string) {
	d.ignore("match." + field)
	m.neverBecause(field + notSupported)
}

// queryMatch reads a QueryParameterMatcher. The path of a gRPC call has no
// query, so that only a matcher that wants a parameter to be absent is met.
func (d *decoding) queryMatch(b []byte, m *routeMatch) error {
	var specifier oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 5:
			specifier.message(&c, "string_match")
		case 6:
			specifier.scalar(&c, "present_match")
		}
	}
	if specifier.num != 6 || specifier.u != 0 {
		m.neverBecause("query_parameters, which a gRPC call has none of")
	}
	return c.err
}

// cookieMatch reads a CookieMatcher.
func (d *decoding) cookieMatch(b []byte, m *routeMatch) error {
	h := headerMatch{kind: headerExact}
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			h.cookie = d.intern(c.raw("name"))
		case 2:
			never, err := d.stringMatch(c.bytes("string_match"), &h)
			c.fail(inField("string_match", err))
			if never != "" {
				d.unknownMatcher(m, "cookies."+never)
			}
		case 3:
			h.invert = c.scalar("invert_match") != 0
		}
	}
	if c.err == nil && h.cookie == "" {
		return missingField("name")
	}
	h.name = "cookie"
	m.headers = append(m.headers, h)
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
	case 12:
		m.neverBecause("connect_matcher, which a gRPC call is no CONNECT for")
	case 15:
		return inField("path_match_policy", d.pathPolicy(path.val, m))
	default:
		d.unknownMatcher(m, "path_specifier of an unknown kind")
	}
	if m.path == pathSeparated && m.text == "" || m.path == pathPrefix && (m.text == "" || m.text == "/") {
		m.path, m.text = pathAny, ""
	}
	return nil
}

// pathPolicy reads the TypedExtensionConfig of path_match_policy.
func (d *decoding) pathPolicy(b []byte, m *routeMatch) error {
	template, unknown, err := d.pathTemplate(b)
	switch {
	case err != nil:
		return err
	case unknown != "":
		d.unknownMatcher(m, "path_match_policy ("+unknown+")")
		return nil
	}
	m.path, m.text, m.regex = pathRegex, template.text, template.regex
	return nil
}

// pathTemplate reads the TypedExtensionConfig of a path template as the pattern
// that it stands for. One of another type is named.
func (d *decoding) pathTemplate(b []byte) (m stringMatch, unknown string, err error) {
	x, err := decodeNamed(b)
	if err != nil || x.name != typePathTemplate || x.json {
		return m, x.name, err
	}
	template, err := subtext(x.value, 1, "path_template")
	if err != nil {
		return m, "", inField("typed_config", err)
	}
	pattern, err := templatePattern(template)
	if err == nil {
		m.kind, m.text = headerRegex, template
		m.regex, err = d.regex(pattern)
	}
	return m, "", inField("typed_config.path_template", err)
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

// headerMatch reads an envoy.config.route.v3.HeaderMatcher; never says what is
// not known of it, so that it must not match.
func (d *decoding) headerMatch(b []byte, h *headerMatch) (never string, err error) {
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
			never = unapplied(nil).name(c.num)
		}
	}
	if c.err == nil && h.name == "" {
		return "", missingField("name")
	}
	unknown, err := d.headerSpecifier(specifier, h)
	c.fail(err)
	if never == "" {
		never = unknown
	}
	return never, c.err
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
func (d *decoding) headerSpecifier(s oneof, h *headerMatch) (never string, err error) {
	switch s.num {
	case 4:
		h.kind, h.text = headerExact, d.intern(s.val)
	case 6:
		h.kind = headerRange
		h.start, h.end, err = decodeRange(s.val)
		return "", inField("range_match", err)
	case 7:
		if s.u == 0 {
			h.kind = headerAbsent
		}
	case 9:
		return "", h.part(headerPrefix, "prefix_match", d.intern(s.val))
	case 10:
		return "", h.part(headerSuffix, "suffix_match", d.intern(s.val))
	case 11:
		h.kind = headerRegex
		h.regex, h.text, err = d.regexMatcher(s.val)
		return "", inField("safe_regex_match", err)
	case 12:
		return "", h.part(headerContains, "contains_match", d.intern(s.val))
	case 13:
		never, err = d.stringMatch(s.val, h)
		return never, inField("string_match", err)
	}
	return "", nil
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
func (d *decoding) stringMatch(b []byte, h *headerMatch) (never string, err error) {
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
		return "", c.err
	}
	switch pattern.num {
	case 1:
		h.kind, h.text = headerExact, d.intern(pattern.val)
	case 2:
		return "", h.part(headerPrefix, "prefix", d.intern(pattern.val))
	case 3:
		return "", h.part(headerSuffix, "suffix", d.intern(pattern.val))
	case 5:
		h.kind, h.foldCase = headerRegex, false
		h.regex, h.text, err = d.regexMatcher(pattern.val)
		return "", inField("safe_regex", err)
	case 7:
		return "", h.part(headerContains, "contains", d.intern(pattern.val))
	case 8:
		return "string_match.custom", nil
	default:
		return "string_match of an unknown kind", nil
	}
	return "", nil
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

// textMatch reads an envoy.type.matcher.v3.StringMatcher that stands alone.
// One of a form that is not known never matches, and is named.
func (d *decoding) textMatch(b []byte) (m stringMatch, never string, err error) {
	var h headerMatch
	never, err = d.stringMatch(b, &h)
	m = stringMatch{kind: h.kind, text: h.text, regex: h.regex, foldCase: h.foldCase}
	if never != "" {
		m.kind = headerNever
	}
	return m, never, err
}
