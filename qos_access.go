package proxyless

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// access decides who may run which QoS command. A command demands a [Level]; a
// caller has one by where it calls from:
//
//	this host (loopback)   PRIVATE
//	QoS.Whitelist          PROTECTED
//	anybody else           QoS.AnonymousLevel, by default PUBLIC
//
// Commands of QoS.AllowCommands are open to all. As in Dubbo 3.2,
// QoS.AcceptForeignIP does not raise the level of strangers; it only admits
// them at all where AnonymousLevel is NONE.
//
// Deviations from Dubbo 3.2:
//   - With AnonymousLevel NONE, Dubbo checks no permissions of those it admits;
//     here strangers admitted by AcceptForeignIP have PUBLIC, the whitelist
//     PROTECTED, and AllowCommands stay open to all.
//   - A whitelisted caller has no less than strangers have.
//   - A request that a proxy relayed to the loopback interface is not local: one
//     with a Forwarded, X-Forwarded-For or Via header, or from 127.0.0.6, from
//     where Istio's sidecar hands on what came from outside. No header raises a
//     level.
//   - A command that changes something or demands PRIVATE is refused to
//     browsers, so that no web page can run it behind a user's back: requests
//     with an Origin, a Referer or a foreign Sec-Fetch-Site, and those whose
//     Host is neither an IP address nor localhost (DNS rebinding).
//   - A refusal is HTTP 403 with a sentence that names the settings.
type access struct {
	acceptForeign bool
	anonymous     Level
	whitelist     []hostPattern
	allow         []string
}

// newAccess also returns the whitelist entries that mean nothing; they admit
// nobody.
func newAccess(c QoS) (a access, bad []string) {
	a = access{acceptForeign: c.AcceptForeignIP, anonymous: c.AnonymousLevel, allow: c.AllowCommands}
	for _, entry := range c.Whitelist {
		pattern, ok := parseHostPattern(entry)
		if !ok {
			bad = append(bad, entry)
			continue
		}
		a.whitelist = append(a.whitelist, pattern)
	}
	return a, bad
}

// sidecarAddress is the source address of what Istio's sidecar passes through
// from outside.
var sidecarAddress = netip.AddrFrom4([4]byte{127, 0, 0, 6})

// callerOf is the address the request came from; not valid where there is
// none. IPv4 mapped into IPv6 counts as IPv4.
func callerOf(r *http.Request) netip.Addr {
	caller, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return caller.Addr().Unmap().WithZone("")
}

// level is what the caller of the request may run.
func (a *access) level(r *http.Request) Level {
	caller := callerOf(r)
	switch {
	case caller.IsLoopback() && caller != sidecarAddress && !relayed(r):
		return LevelPrivate
	case slices.ContainsFunc(a.whitelist, func(p hostPattern) bool { return p.matches(caller) }):
		return max(LevelProtected, a.anonymous)
	case a.anonymous <= LevelNone && a.acceptForeign:
		return LevelPublic
	}
	return a.anonymous
}

func relayed(r *http.Request) bool {
	for _, header := range [...]string{"Forwarded", "X-Forwarded-For", "Via"} {
		if _, ok := r.Header[header]; ok {
			return true
		}
	}
	return false
}

// refusal returns the sentence with which the request is refused; empty if it
// may run the command.
func (a *access) refusal(c *command, r *http.Request) string {
	if level := a.level(r); level < c.level && !slices.Contains(a.allow, c.name) {
		return a.denied(c, callerOf(r), level)
	}
	if (c.changes || c.level == LevelPrivate) && fromBrowser(r) {
		return fmt.Sprintf("/%s is not for browsers: call it without Origin and Referer headers, by IP address or as localhost, for example with curl or wget", c.name)
	}
	return ""
}

func (a *access) denied(c *command, caller netip.Addr, level Level) string {
	whitelist := ""
	if c.level <= LevelProtected {
		whitelist = fmt.Sprintf("dubbo.application.qosAcceptForeignIpWhitelist=%v, ", caller)
	}
	if c.level == LevelPublic {
		whitelist += "dubbo.application.qosAcceptForeignIp=true, "
	}
	return fmt.Sprintf("/%s needs permission level %v, and %v has %v: call it from this host (127.0.0.1), or permit it with one of %s"+
		"dubbo.application.qosAnonymousAccessPermissionLevel=%v, dubbo.application.qosAnonymousAllowCommands=%s",
		c.name, c.level, caller, level, whitelist, c.level, c.name)
}

// fromBrowser recognises what browsers add to requests that pages make, and a
// Host that an attacker's name server may have pointed here.
func fromBrowser(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" ||
		site != "" && site != "none" || !literalHost(r.Host)
}

func literalHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "" || strings.EqualFold(host, "localhost") { // HTTP/1.0 sends none
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// hostPattern is one entry of QoS.Whitelist, in Dubbo's syntax: an address, a
// CIDR block, or an address whose parts may be * or a range (10.1.*.1-20; an
// IPv6 address then needs all its eight parts).
type hostPattern struct {
	prefix netip.Prefix // exact addresses are prefixes of full length
	parts  [][2]uint16  // from and to of each part, where prefix is not valid
}

func parseHostPattern(entry string) (hostPattern, bool) {
	entry = strings.TrimSpace(entry)
	if prefix, err := netip.ParsePrefix(entry); err == nil {
		return hostPattern{prefix: unmapPrefix(prefix)}, true
	}
	if addr, err := netip.ParseAddr(entry); err == nil {
		addr = addr.Unmap().WithZone("")
		return hostPattern{prefix: netip.PrefixFrom(addr, addr.BitLen())}, true
	}
	if parts := strings.Split(entry, "."); len(parts) == 4 {
		return parseParts(parts, 10, 8)
	}
	if parts := strings.Split(entry, ":"); len(parts) == 8 {
		return parseParts(parts, 16, 16)
	}
	return hostPattern{}, false
}

func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

func parseParts(parts []string, base, bits int) (hostPattern, bool) {
	var p hostPattern
	for _, part := range parts {
		if part == "*" {
			p.parts = append(p.parts, [2]uint16{0, 1<<bits - 1})
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, base, bits)
		to, err2 := strconv.ParseUint(last, base, bits)
		if err1 != nil || err2 != nil || from > to {
			return hostPattern{}, false
		}
		p.parts = append(p.parts, [2]uint16{uint16(from), uint16(to)})
	}
	return p, true
}

func (p hostPattern) matches(a netip.Addr) bool {
	if p.prefix.IsValid() {
		return p.prefix.Contains(a)
	}
	parts := addressParts(a)
	if len(parts) != len(p.parts) {
		return false
	}
	for i, part := range parts {
		if part < p.parts[i][0] || part > p.parts[i][1] {
			return false
		}
	}
	return true
}

func addressParts(a netip.Addr) []uint16 {
	var parts []uint16
	switch {
	case a.Is4():
		for _, b := range a.As4() {
			parts = append(parts, uint16(b))
		}
	case a.Is6():
		bytes := a.As16()
		for i := 0; i < len(bytes); i += 2 {
			parts = append(parts, uint16(bytes[i])<<8|uint16(bytes[i+1]))
		}
	}
	return parts
}
