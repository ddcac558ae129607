package proxyless

import (
	"maps"
	"net/netip"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// peerFacts is what is known of the caller at the other end of a connection,
// from the handshake on. It is immutable.
type peerFacts struct {
	remote, local netip.AddrPort
	encrypted     bool
	verified      bool     // it showed a certificate, which was verified
	serverName    string   // SNI
	names         []string // of its certificate, as Envoy matches principals: the URIs, else the DNS names, else the subject
}

// callFacts is what the mesh's rules are held against, for one call.
type callFacts struct {
	peer    *peerFacts
	headers callHeaders // incoming
	edited  bool        // filters changed headers.md: it is what the handler is to see, and it is the call's own
	claims  *tokenClaimSet
	audits  []ruling // of AUDIT and shadow rules, where any matched

	// Made when first asked for.
	target string   // see plainPath
	plain  judgment // yes or cannotTell; no while it was not looked at
}

// spareFacts keeps a call that is only judged from allocating.
var spareFacts = sync.Pool{New: func() any { return new(callFacts) }}

// newCallFacts is for a call on its way in. release gives it back: nothing may
// point to it from then on.
func newCallFacts(peer *peerFacts, md metadata.MD, method string) *callFacts {
	c := spareFacts.Get().(*callFacts)
	c.peer, c.headers = peer, incomingHeaders(md, method)
	return c
}

func (c *callFacts) release() {
	*c = callFacts{}
	spareFacts.Put(c)
}

// editHeaders is the call's metadata to be changed by a filter, for the filters
// after it and for the handler. Values must be replaced, never changed in place.
func (c *callFacts) editHeaders() metadata.MD {
	if !c.edited {
		if c.headers.md = maps.Clone(c.headers.md); c.headers.md == nil {
			c.headers.md = metadata.MD{}
		}
		c.edited = true
	}
	c.headers.lastName, c.headers.lastValues = "", nil
	return c.headers.md
}

// ruling is what a chain's filters say about a call.
type ruling struct {
	code   codes.Code // OK, PermissionDenied or Unauthenticated
	policy string     // the one that decided: <namespace>-<name>-<rule>; empty where none matched
	action string     // ALLOW, DENY, AUDIT, CUSTOM or JWT, and "shadow" before it where it is only tried
	reason string     // for the audit record; never for the caller
}

// inboundFilter is one HTTP or network filter that has a say about calls on
// their way in: exactly one of these is set.
type inboundFilter struct {
	jwt    *jwtFilter
	access *accessFilter
}

// authorize asks the chain's filters in their order. The first that refuses
// decides. What could not be understood refuses everything.
func (c *filterChain) authorize(call *callFacts) ruling {
	if c.failure != "" {
		return ruling{code: codes.PermissionDenied, reason: c.failure}
	}
	for i := range c.filters {
		var r ruling
		if f := &c.filters[i]; f.jwt != nil {
			r = f.jwt.check(call)
		} else {
			r = f.access.check(call)
		}
		if r.code != codes.OK {
			return r
		}
	}
	return ruling{}
}

// incomingHeaders are those of a call on its way in. The metadata is shared
// with gRPC and only read. The rules may not ask for the headers that gRPC
// keeps to itself, see unseenHeaders.
func incomingHeaders(md metadata.MD, method string) callHeaders {
	h := callHeaders{md: md, path: method, incoming: true}
	if authority := md[":authority"]; len(authority) > 0 {
		h.authority = authority[0]
	}
	return h
}

// plainPath is the path without its query. Envoy normalizes a path before it
// judges it, and turns away one with a fragment; ok is false where that might
// change something: no method has such a path, and what it means depends on who
// reads it.
func (c *callFacts) plainPath() (path string, ok bool) {
	if c.plain == no {
		path = c.headers.path
		whole := strings.IndexByte(path, '#') < 0
		if end := strings.IndexAny(path, "?#"); end >= 0 {
			path = path[:end]
		}
		c.target, c.plain = path, cannotTell
		if whole && isPlain(path) {
			c.plain = yes
		}
	}
	return c.target, c.plain == yes
}

// plainAuthority says that an authority is a host and perhaps a port, and nothing
// that Envoy would turn away.
func plainAuthority(authority string) bool {
	for i := 0; i < len(authority); i++ {
		if b := authority[i]; b == '/' || b == '@' || !standsForItself(b) && strings.IndexByte("[]%", b) < 0 {
			return false
		}
	}
	return authority != ""
}

// isPlain says that a path begins with a slash, has only characters that stand
// for themselves, and no segments that stand for others.
func isPlain(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := 0; i < len(path); i++ {
		if !standsForItself(path[i]) || path[i] == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
			return false
		}
	}
	return true
}

func standsForItself(b byte) bool {
	switch {
	case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '.', b == '_', b == '/':
		return true
	}
	return strings.IndexByte("-~!$&'()*+,;=:@", b) >= 0
}
