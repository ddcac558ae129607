package proxyless

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/metadata"
)

// pathKind is RouteMatch.path_specifier.
type pathKind uint8

const (
	pathAny       pathKind = iota // prefix "" or "/": every gRPC path
	pathPrefix                    // prefix
	pathExact                     // path
	pathRegex                     // safe_regex, anchored at both ends
	pathSeparated                 // path_separated_prefix: the path itself, or followed by "/"
)

// routeMatch is what is kept of an envoy.config.route.v3.RouteMatch. All parts
// must match.
type routeMatch struct {
	path     pathKind
	foldCase bool // case_sensitive = false; never with pathRegex
	text     string
	regex    *regexp.Regexp
	headers  []headerMatch
	fraction uint32 // runtime_fraction in parts per million
	partial  bool   // fraction applies
	never    string // the matcher that is not known, so that this route never matches; empty otherwise
}

// headerKind is HeaderMatcher.header_match_specifier, old and new forms alike.
type headerKind uint8

const (
	headerPresent headerKind = iota // present_match = true, or no specifier
	headerAbsent                    // present_match = false
	headerExact
	headerPrefix
	headerSuffix
	headerContains
	headerRegex
	headerRange // the value is a base-10 integer in [start, end)
	headerNever // a form that is not known: never matches, not even inverted
)

// headerMatch is what is kept of an envoy.config.route.v3.HeaderMatcher.
type headerMatch struct {
	name         string // lower case
	cookie       string // of the header cookie, only the value of this one; empty for others
	kind         headerKind
	text         string
	regex        *regexp.Regexp
	start, end   int64
	foldCase     bool // string_match.ignore_case
	invert       bool // invert_match
	missingEmpty bool // treat_missing_header_as_empty
}

// fractionScale is the scale of runtime_fraction as it is kept.
const fractionScale = 1_000_000

// matches says whether a call takes this route. A random number in
// [0, fractionScale) decides about a fraction: it matches where it is below.
func (m *routeMatch) matches(path string, h *callHeaders, random uint32) bool {
	if m.never != "" || !m.matchPath(path) {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].matches(h) {
			return false
		}
	}
	return !m.partial || random < m.fraction
}

// needsHeaders says whether matches looks at the call's headers; where it does
// not, h may be nil.
func (m *routeMatch) needsHeaders() bool { return len(m.headers) > 0 }

// simple says that the path as it is written decides alone.
func (m *routeMatch) simple() bool {
	return m.never == "" && !m.foldCase && !m.partial && len(m.headers) == 0
}

// everything says that every call matches, so that nothing needs to be looked at.
func (m *routeMatch) everything() bool {
	return m.never == "" && m.path == pathAny && len(m.headers) == 0 && !m.partial
}

// matchPath matches the path alone: "/package.Service/Method".
func (m *routeMatch) matchPath(path string) bool {
	switch m.path {
	case pathAny:
		return true
	case pathPrefix:
		return textHasPrefix(path, m.text, m.foldCase)
	case pathExact:
		return textEqual(path, m.text, m.foldCase)
	case pathRegex:
		return m.regex.MatchString(path)
	case pathSeparated:
		return textHasPrefix(path, m.text, m.foldCase) && (len(path) == len(m.text) || path[len(m.text)] == '/')
	}
	return false
}

// matches follows Envoy: a missing header never matches, not even inverted,
// unless the matcher is about presence or a missing header counts as empty
// (grpc-go has no such flag and gets withoutHeaders of Istio wrong).
func (m *headerMatch) matches(h *callHeaders) bool { return m.judge(h.get(m.name)) }

// judge is matches for the header's value.
func (m *headerMatch) judge(value string, present bool) bool {
	if m.cookie != "" && present {
		value, present = cookieValue(value, m.cookie)
	}
	present = present || m.missingEmpty
	switch {
	case m.kind == headerNever:
		return false
	case m.kind == headerPresent:
		return present != m.invert
	case m.kind == headerAbsent:
		return present == m.invert
	case !present:
		return false
	}
	return m.matchValue(value) != m.invert
}

// matchesOne is matches for a header of several lines, where it is enough that
// one of them has the value.
func (m *headerMatch) matchesOne(values []string) bool {
	for _, value := range values {
		if m.judge(value, true) != m.invert {
			return !m.invert
		}
	}
	return m.invert
}

func (m *headerMatch) matchValue(value string) bool {
	switch m.kind {
	case headerExact:
		return textEqual(value, m.text, m.foldCase)
	case headerPrefix:
		return textHasPrefix(value, m.text, m.foldCase)
	case headerSuffix:
		return len(value) >= len(m.text) && textEqual(value[len(value)-len(m.text):], m.text, m.foldCase)
	case headerContains:
		return textContains(value, m.text, m.foldCase)
	case headerRegex:
		return m.regex.MatchString(value)
	case headerRange:
		n, err := strconv.ParseInt(value, 10, 64)
		return err == nil && m.start <= n && n < m.end
	}
	return false
}

// cookieValue finds a cookie in the value of a cookie header.
func cookieValue(header, name string) (value string, present bool) {
	for part := range strings.FieldsFuncSeq(header, func(r rune) bool { return r == ';' || r == ',' }) {
		if key, value, ok := strings.Cut(strings.TrimSpace(part), "="); ok && key == name {
			return strings.Trim(value, `"`), true
		}
	}
	return "", false
}

// templatePattern turns a path template of Envoy into a regular expression: *
// and {name} stand for one segment, ** for the rest, and {name=...} for what
// its pattern says. What they stand for are the characters of RFC 3986 that
// need no escape.
func templatePattern(template string) (string, error) {
	const segment, rest = "[-a-zA-Z0-9._~%!$&'()*+,;:@=]+", "[-a-zA-Z0-9._~%!$&'()*+,;:@=/]*"
	if !strings.HasPrefix(template, "/") {
		return "", errors.New("a path template starts with /")
	}
	var b strings.Builder
	ended := false // ** was there: no further wildcard
	wildcard := func(pattern string) error {
		if ended {
			return errors.New("a wildcard follows **")
		}
		ended = pattern == rest
		b.WriteString(pattern)
		return nil
	}
	for inside := false; template != ""; {
		var err error
		n := 1
		switch {
		case strings.HasPrefix(template, "**"):
			n, err = 2, wildcard(rest)
		case template[0] == '*':
			err = wildcard(segment)
		case template[0] == '{':
			name, after, ok := strings.Cut(template[1:], "}")
			if inside || !ok {
				return "", errors.New("{ is not closed, or inside another")
			}
			name, pattern, given := strings.Cut(name, "=")
			switch {
			case name == "":
				err = errors.New("a variable has no name")
			case given:
				inside, template, n = true, pattern+"}"+after, 0
			default:
				n, err = len(template)-len(after), wildcard(segment)
			}
		case template[0] == '}' && inside:
			inside = false
		case template[0] == '}':
			err = errors.New("} without {")
		default:
			_, n = utf8.DecodeRuneInString(template)
			b.WriteString(regexp.QuoteMeta(template[:n]))
		}
		if err != nil {
			return "", err
		}
		template = template[n:]
	}
	return b.String(), nil
}

func textEqual(s, text string, fold bool) bool {
	return s == text || fold && strings.EqualFold(s, text)
}

func textHasPrefix(s, prefix string, fold bool) bool {
	return len(s) >= len(prefix) && textEqual(s[:len(prefix)], prefix, fold)
}

func textContains(s, part string, fold bool) bool {
	if !fold {
		return strings.Contains(s, part)
	}
	for i := 0; i+len(part) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

// callHeaders is what header matchers see of a call. Of one on its way out it
// copies only what is looked at of the call's own metadata. The last header
// looked at is remembered, since routes tend to look at the same one.
type callHeaders struct {
	md        metadata.MD     // set on every call, keys in lower case; wins over the call's own
	ctx       context.Context // of the call, with its outgoing metadata; may be nil
	incoming  bool            // the call is on its way in: all there is is in md, see incomingHeaders
	authority string
	path      string // "/package.Service/Method"

	lastName   string
	lastValues []string
}

// get returns the value of a header; several are joined with ",", and cookies,
// which HTTP/2 lets come in crumbs (RFC 9113, 8.2.3), with "; ". The pseudo
// headers that Istio matches (method, authority, scheme of a VirtualService)
// are there; names that end in -bin never are (gRFC A28).
func (h *callHeaders) get(name string) (value string, present bool) {
	switch name {
	case ":path":
		return h.path, true
	case ":authority":
		return h.authority, true
	case ":method":
		return "POST", true
	case ":scheme":
		return "http", true
	case "content-type":
		if !h.incoming {
			return "application/grpc", true
		}
	}
	values := h.values(name)
	if len(values) == 0 || strings.HasSuffix(name, "-bin") {
		return "", false
	}
	if len(values) == 1 {
		return values[0], true
	}
	if name == "cookie" {
		return strings.Join(values, "; "), true
	}
	return strings.Join(values, ","), true
}

func (h *callHeaders) values(name string) []string {
	if h.lastName == name {
		return h.lastValues
	}
	values := h.md[name]
	if len(values) == 0 && h.ctx != nil {
		values = metadata.ValueFromOutgoingContext(h.ctx, name)
	}
	h.lastName, h.lastValues = name, values
	return values
}

// matchDomain finds the virtual host for an authority: an exact domain wins
// over the longest "*suffix", that over the longest "prefix*", that over "*",
// and of equals the first (gRFC A27). Where nothing matches the authority is
// tried without its port, as with Envoy's ignore_port_in_host_matching, which
// Istio sets. It returns nil where no virtual host matches.
func matchDomain(hosts []virtualHost, authority string) *virtualHost {
	authority = strings.ToLower(authority)
	if found := findDomain(hosts, authority); found != nil {
		return found
	}
	if host := withoutPort(authority); host != authority {
		return findDomain(hosts, host)
	}
	return nil
}

func findDomain(hosts []virtualHost, authority string) *virtualHost {
	var found *virtualHost
	best := 0
	for i := range hosts {
		for _, domain := range hosts[i].domains {
			if rank := domainRank(domain, authority); rank > best {
				found, best = &hosts[i], rank
			}
		}
	}
	return found
}

// domainRank orders the domains that match an authority, best highest; 0 is no
// match. As in Envoy, a star does not stand for nothing.
func domainRank(domain, authority string) int {
	const class = 1 << 28 // above any length
	n := len(domain) - 1
	switch {
	case domain == authority:
		return 4 * class
	case n < 0:
		return 0
	case domain == "*":
		return 1
	case domain[0] == '*' && len(authority) > n && strings.HasSuffix(authority, domain[1:]):
		return 2*class + n
	case domain[n] == '*' && len(authority) > n && strings.HasPrefix(authority, domain[:n]):
		return class + n
	}
	return 0
}

// withoutPort cuts ":port" off; an IPv6 address keeps its brackets.
func withoutPort(authority string) string {
	at := strings.LastIndexByte(authority, ':')
	if at < 0 || strings.IndexByte(authority[at:], ']') >= 0 || strings.IndexByte(authority[:at], ':') >= 0 && authority[at-1] != ']' {
		return authority
	}
	return authority[:at]
}

// stringMatch is what is kept of an envoy.type.matcher.v3.StringMatcher that
// stands alone.
type stringMatch struct {
	kind     headerKind // headerExact to headerRegex, or headerNever
	text     string
	regex    *regexp.Regexp
	foldCase bool
}

func (m *stringMatch) matches(value string) bool {
	if m.kind == headerExact && !m.foldCase {
		return value == m.text
	}
	h := headerMatch{kind: m.kind, text: m.text, regex: m.regex, foldCase: m.foldCase}
	return h.matchValue(value)
}
