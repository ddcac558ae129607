package proxyless

import (
	"context"
	"encoding/base64"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
)

// guidance is where a call's hash policies and its session want it to go, and
// what the answer has to tell the caller so that its next call goes there too.
//
// The caller of a gRPC client is its program: it reads set-cookie, or the
// session's header, with [grpc.Header] from one call, and sends it as metadata
// cookie, or as that header, with the next.
type guidance struct {
	choice  choice // of the first attempt; a retry takes hash and hashed alone, as in Envoy
	cookie  string // a set-cookie value for a hash policy; empty where there is none
	session *sessionPolicy
	asked   netip.AddrPort // the endpoint that the session named; zero where it named none
}

// guide follows the policies of a call's route. Where the session names a
// cluster of the route, or an endpoint of one, that one is taken in place of the
// one drawn by weight. message is the request, nil for a stream.
func (w *way) guide(ctx context.Context, method string, message any) guidance {
	var g guidance
	p := w.policy()
	if p == nil || !p.guides() {
		return g
	}
	in := hashInput{message: message, caller: &w.plan.caller,
		headers: w.plan.callHeaders(ctx, method)}
	if s := p.session; s != nil && s.covers(method) {
		g.session = s
		if addr, cluster := s.named(&in.headers, time.Now()); addr.IsValid() && w.follow(addr, cluster) {
			g.asked = addr
			g.choice.extra = &choiceExtra{sticky: addr, strict: s.strict}
		}
	}
	var generated *hashPolicy
	g.choice.hash, g.choice.hashed, generated = hashOf(p.hash, &in)
	if generated != nil {
		g.cookie = setCookie(generated.name, in.caller.cookie(), generated.path, generated.ttl)
	}
	return g
}

// guides says that the route has a say in where a call goes.
func (p *routePolicy) guides() bool { return len(p.hash) > 0 || p.session != nil }

// follow turns the way to the cluster that a session wants. It returns false
// where the route does not lead there: then the session does not count (gRFC
// A55).
func (w *way) follow(addr netip.AddrPort, cluster string) bool {
	if cluster == "" && w.cluster.set.knows(addr) {
		return true
	}
	clusters := w.route.clusters
	for i := range clusters {
		c := &clusters[i]
		if c.set != nil && (c.name == cluster || cluster == "" && c.set.knows(addr)) {
			w.cluster = c
			return true
		}
	}
	return cluster == ""
}

// told returns the headers to add to those of the answer that an attempt got;
// nil where there are none.
func (g *guidance) told(a *attempt) metadata.MD {
	var md metadata.MD
	if g.cookie != "" {
		md = metadata.Pairs("set-cookie", g.cookie)
	}
	if s, addr := g.session, a.cell.key.addr; s != nil && addr != g.asked {
		if md == nil {
			md = metadata.MD{}
		}
		name, value := s.name(addr, time.Now())
		md.Append(name, value)
	}
	return md
}

// covers says that a session's cookie is sent with calls of a path (RFC 6265,
// section 5.1.4).
func (s *sessionPolicy) covers(path string) bool {
	rest, ok := strings.CutPrefix(path, s.path)
	return s.path == "" || ok && (rest == "" || rest[0] == '/' || s.path[len(s.path)-1] == '/')
}

// named returns the endpoint that a call's session names, and the cluster where
// that is named, too. The address is zero where there is none.
func (s *sessionPolicy) named(h *callHeaders, now time.Time) (addr netip.AddrPort, cluster string) {
	var text string
	if s.cookie != "" {
		text = cookieOf(h.values("cookie"), s.cookie)
	} else if values := h.values(s.header); len(values) > 0 {
		text = values[0]
	}
	if text == "" {
		return addr, ""
	}
	value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return addr, ""
	}
	plain, cluster, _ := strings.Cut(string(value), ";")
	if addr, err = netip.ParseAddrPort(plain); err == nil {
		return addr, cluster
	}
	if s.cookie == "" {
		return netip.AddrPort{}, ""
	}
	return addressOfCookie(value, now), ""
}

// The value of a session's cookie is the base64 of one of these: an address;
// gRPC's "address;cluster" (gRFC A55); Envoy's message envoy.Cookie {1 address:
// string, 2 expires: int64, in unix seconds}, which is the one written here,
// since sidecars and gateways read it. That of its header is the base64 of an
// address.

// addressOfCookie reads Envoy's message. The address is zero where it has
// expired.
func addressOfCookie(message []byte, now time.Time) netip.AddrPort {
	var addr netip.AddrPort
	expires := int64(0)
	for c := walk(message); c.next(); {
		switch {
		case c.num == 1 && c.typ == protowire.BytesType:
			addr, _ = netip.ParseAddrPort(string(c.val))
		case c.num == 2 && c.typ == protowire.VarintType:
			expires = int64(c.u)
		}
	}
	if expires != 0 && now.Unix() >= expires {
		return netip.AddrPort{}
	}
	return addr
}

// name returns the header that tells the caller of an endpoint.
func (s *sessionPolicy) name(addr netip.AddrPort, now time.Time) (header, value string) {
	text := addr.String()
	if s.cookie == "" {
		return s.header, base64.StdEncoding.EncodeToString([]byte(text))
	}
	message := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), text)
	if s.ttl > 0 {
		message = protowire.AppendVarint(protowire.AppendTag(message, 2, protowire.VarintType), uint64(now.Add(s.ttl).Unix()))
	}
	return "set-cookie", setCookie(s.cookie, base64.StdEncoding.EncodeToString(message), s.path, s.ttl)
}

// pickSticky goes to the endpoint that a session names. It returns false where
// that does not decide: the mesh does not list it, its health is not one of
// override_host_status, it is ejected, or refuses connections; a strict session
// then gets nothing. A call waits while the endpoint connects (gRFC A55).
func (s *endpointSet) pickSticky(x *choiceExtra) (at uint64, c *cell, decided bool) {
	at, ok := s.reachable(x.sticky)
	if !ok {
		return 0, nil, x.strict
	}
	if c = s.usable(at); c == nil {
		s.wake(at)
	}
	return at, c, true
}

// reachable finds an endpoint that a session may go to, connected or not.
func (s *endpointSet) reachable(addr netip.AddrPort) (at uint64, ok bool) {
	at, ok = s.index(addr)
	return at, ok && s.overrides().has(s.endpoints[at].health) && !s.failed(at)
}

// overrides is the cluster's override_host_status, or its default.
func (s *endpointSet) overrides() healthSet {
	if s.cluster.override == 0 {
		return 1<<healthUnknown | 1<<healthHealthy | 1<<healthDegraded
	}
	return s.cluster.override
}

// knows says that an address is one of the set's.
func (s *endpointSet) knows(addr netip.AddrPort) bool {
	_, ok := s.index(addr)
	return ok
}

// index finds an endpoint by its address. The first call makes the index.
func (s *endpointSet) index(addr netip.AddrPort) (at uint64, ok bool) {
	if s == nil {
		return 0, false
	}
	byAddr := s.byAddr.Load()
	if byAddr == nil {
		made := make(map[netip.AddrPort]uint32, len(s.endpoints))
		for i := range s.endpoints {
			made[s.endpoints[i].addr] = uint32(i)
		}
		byAddr = &made
		s.byAddr.Store(byAddr)
	}
	i, ok := (*byAddr)[addr]
	return uint64(i), ok
}

// hope says that waiting may help a call for which a pick found nothing.
func (s *endpointSet) hope(c choice) bool {
	if x := c.extra; x != nil && x.strict && x.sticky.IsValid() {
		_, ok := s.reachable(x.sticky)
		return ok
	}
	return s.expectant()
}

// unpinned says why a call of a strict session came to nothing.
func (s *endpointSet) unpinned(addr netip.AddrPort) *Error {
	return &Error{Stage: StageEndpoint, Resource: s.cluster.name, Err: ErrNotReady,
		Reason: "the session is bound to " + addr.String() + ", which cannot be reached, and the mesh wants it strict",
		Advice: "drop the session's cookie or header to be sent elsewhere"}
}
