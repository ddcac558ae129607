package proxyless

import (
	"net/netip"
	"strings"
	"unique"
)

// security is how the connections to an endpoint are encrypted: a context of
// its cluster with the names that depend on the call and on the endpoint. It
// is immutable; nil is plain text.
type security struct {
	context *tlsContext
	name    string   // asked for (SNI); empty for none
	hosts   []string // that the certificate has to have, besides what the context asks for
	byHost  bool     // name is the endpoint's own, where it has one
	id      unique.Handle[string]
}

// newSecurity is how endpoints are spoken to for calls to an authority: its
// host is what auto_sni and auto_san_validation mean.
func newSecurity(c *cluster, t *tlsContext, authority string) *security {
	if t == nil {
		return nil
	}
	s := &security{context: t, name: t.sni, byHost: t.hostSNI}
	if _, err := netip.ParseAddr(authority); c.nameSNI && err != nil && authority != "" {
		s.name, s.byHost = authority, false
	}
	if c.nameSAN {
		s.hosts = []string{authority}
	}
	return s.settle()
}

// settle makes what depends on the name.
func (s *security) settle() *security {
	if s.context.sameSNI && s.name != "" { // in the place of the context's names (gRFC A101)
		if len(s.context.names) > 0 {
			t := *s.context
			t.names = nil
			s.context = t.settle()
		}
		s.hosts = append(s.hosts[:len(s.hosts):len(s.hosts)], s.name)
	}
	s.id = unique.Make(s.context.text + "\x00" + s.name + "\x00" + strings.Join(s.hosts, "\x00"))
	return s
}

// at is the security of an endpoint.
func (s *security) at(e *endpoint) *security {
	if s == nil || !s.byHost || e.hostname() == "" {
		return s
	}
	own := *s
	own.name, own.byHost = e.hostname(), false
	if s.context.sameSNI && s.name != "" { // which was asked for in the place of the endpoint's
		own.hosts = s.hosts[:len(s.hosts)-1]
	}
	return own.settle()
}

// key is equal for those that may share connections.
func (s *security) key() (id unique.Handle[string]) {
	if s != nil {
		id = s.id
	}
	return id
}

// hostOf is the host of an authority, an address without brackets.
func hostOf(authority string) string {
	return strings.Trim(withoutPort(authority), "[]")
}

const plainWords = "plain text"

// String says it in words.
func (s *security) String() string {
	if s == nil {
		return plainWords
	}
	t := s.context
	if t.failure != "" {
		return "TLS, but " + t.failure
	}
	var b strings.Builder
	b.WriteString("TLS")
	if t.identity.kind != secretNone {
		b.WriteString(" with " + t.identity.words("certificate"))
	}
	switch expected := t.expected(); {
	case !t.verifies():
		b.WriteString(", not verifying who answers, as the mesh says")
	case expected != "" || len(s.hosts) > 0:
		b.WriteString(", expecting " + strings.Join(append(nonEmpty(expected), s.hosts...), " and "))
	default:
		b.WriteString(", expecting anybody that the roots vouch for")
	}
	if t.roots.kind != secretNone {
		b.WriteString(", trusting " + t.roots.words("roots"))
	}
	if s.name != "" {
		b.WriteString(", SNI " + s.name)
	}
	return b.String()
}

func nonEmpty(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}
