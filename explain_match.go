package proxyless

import (
	"fmt"
	"strings"
)

// words says in words what a route takes.
func (m *routeMatch) words() string {
	var parts []string
	switch m.path {
	case pathAny:
		parts = append(parts, "any path")
	default:
		parts = append(parts, m.describePath())
	}
	for i := range m.headers {
		parts = append(parts, m.headers[i].words())
	}
	if m.partial {
		parts = append(parts, percent(float64(m.fraction)/fractionScale)+" of the calls")
	}
	if m.never != "" {
		parts = append(parts, m.never)
	}
	return strings.Join(parts, ", ")
}

var pathWords = [...]string{pathPrefix: "path prefix", pathExact: "path", pathRegex: "path regex", pathSeparated: "path separated prefix"}

func (m *routeMatch) describePath() string {
	return fmt.Sprintf("%s %q%s", pathWords[m.path], m.text, either(m.foldCase, " in any case", ""))
}

// objection is the first part of a match that a call does not meet, with what
// was seen; empty where it meets them all. Matching itself is done by matches,
// of which this repeats the order.
func (m *routeMatch) objection(path string, h *callHeaders) string {
	if m.never != "" {
		return "its match has " + m.never + ", which is not supported, so that it never matches"
	}
	if !m.matchPath(path) {
		return fmt.Sprintf("%s does not match %s", m.describePath(), path)
	}
	for i := range m.headers {
		if !m.headers[i].matches(h) {
			return m.headers[i].objection(h)
		}
	}
	if m.partial && m.fraction == 0 {
		return "it takes no share of the calls"
	}
	return ""
}

var headerWords = [...]string{headerExact: "is", headerPrefix: "begins with", headerSuffix: "ends with", headerContains: "contains", headerRegex: "matches"}

// words says in words what a header has to be.
func (m *headerMatch) words() string {
	text := fmt.Sprintf("header %s ", m.name)
	switch m.kind {
	case headerPresent:
		return text + either(m.invert, "absent", "present")
	case headerAbsent:
		return text + either(m.invert, "present", "absent")
	case headerRange:
		text += either(m.invert, "not ", "") + fmt.Sprintf("in [%d, %d)", m.start, m.end)
	default:
		text += either(m.invert, "not: ", "") + fmt.Sprintf("%s %q%s", headerWords[m.kind], m.text, either(m.foldCase, " in any case", ""))
	}
	return text + either(m.missingEmpty, ", a missing one counts as empty", "")
}

// objection says what is wrong with the header that a call has.
func (m *headerMatch) objection(h *callHeaders) string {
	value, present := h.get(m.name)
	if !present {
		return m.words() + ": the call has none"
	}
	return fmt.Sprintf("%s: the call has %q", m.words(), value)
}

// domainObjection says why a virtual host does not take an authority: none of
// its domains matches, or another one's does so better.
func domainObjection(v, winner *virtualHost, authority string) string {
	if winner == nil || matchDomain([]virtualHost{*v}, authority) == nil {
		return "none of its domains matches: " + someOf(v.domains)
	}
	return fmt.Sprintf("%s matches better than its domains %s", winner.name, someOf(v.domains))
}

// someOf lists the first of many.
func someOf(list []string) string {
	const most = 4
	if len(list) <= most {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
}
