package proxyless

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// ruleKind is what a rule looks at.
type ruleKind uint8

const (
	ruleConstant   ruleKind = iota // the same for every call: any, and what cannot be evaluated
	ruleAll                        // and_rules, and_ids
	ruleSome                       // or_rules, or_ids
	ruleNot                        // not_rule, not_id
	rulePath                       // url_path, uri_template: the path without its query
	rulePaths                      // any of several paths
	ruleHeader                     // header
	ruleServerName                 // requested_server_name: SNI
	ruleLocalIP                    // destination_ip
	ruleLocalPort                  // destination_port, destination_port_range
	ruleDirectIP                   // direct_remote_ip, source_ip: who made the connection
	ruleRemoteIP                   // remote_ip: who made the call, by what proxies before say
	rulePeer                       // authenticated, by one of the certificate's names
	rulePeers                      // the same, any of several names
	ruleVerified                   // authenticated without a name
	ruleClaim                      // metadata of the JWT filter
)

// accessRule is what is kept of an envoy.config.rbac.v3.Permission or Principal:
// a tree of conditions, which are the same in both.
type accessRule struct {
	kind   ruleKind
	value  judgment            // of ruleConstant
	rules  []accessRule        // inside ruleAll and ruleSome; the one inside ruleNot
	text   *textRule           // of rulePath, ruleServerName, rulePeer
	set    map[string]struct{} // of rulePaths and rulePeers
	header *headerMatch
	prefix netip.Prefix // of the three about addresses
	from   uint32       // of ruleLocalPort; in ruleRemoteIP the number of proxies that are trusted
	to     uint32       // of ruleLocalPort: the first port behind
	claim  *claimRule
}

func (r *accessRule) judge(call *callFacts) judgment {
	switch r.kind {
	case ruleConstant:
		return r.value
	case ruleAll:
		v := yes
		for i := 0; i < len(r.rules) && v != no; i++ {
			v = min(v, r.rules[i].judge(call))
		}
		return v
	case ruleSome:
		v := no
		for i := 0; i < len(r.rules) && v != yes; i++ {
			v = max(v, r.rules[i].judge(call))
		}
		return v
	case ruleNot:
		return yes - r.rules[0].judge(call)
	case rulePath, rulePaths:
		return r.judgePath(call)
	case ruleHeader:
		return r.judgeHeader(call)
	case ruleClaim:
		return r.claim.judge(call.claims)
	}
	return r.judgePeer(call)
}

func (r *accessRule) judgePath(call *callFacts) judgment {
	path, ok := call.plainPath()
	switch {
	case !ok:
		return cannotTell
	case r.kind == rulePath:
		return judged(r.text.matches(path))
	}
	_, found := r.set[path]
	return judged(found)
}

func (r *accessRule) judgeHeader(call *callFacts) judgment {
	h := r.header
	switch h.name {
	case ":path":
		if _, ok := call.plainPath(); !ok {
			return cannotTell
		}
	case ":authority":
		if !plainAuthority(call.headers.authority) {
			return cannotTell
		}
	}
	whole := h.matches(&call.headers)
	if values := call.headers.values(h.name); len(values) > 1 && h.name != "cookie" && whole != h.matchesOne(values) {
		return cannotTell
	}
	return judged(whole)
}

// judgePeer is about the connection.
func (r *accessRule) judgePeer(call *callFacts) judgment {
	p := call.peer
	if p == nil {
		return cannotTell
	}
	switch r.kind {
	case ruleServerName:
		return judged(r.text.matches(strings.ToLower(p.serverName)))
	case ruleLocalIP:
		return r.judgeIP(plainAddr(p.local))
	case ruleLocalPort:
		if !p.local.IsValid() {
			return cannotTell
		}
		port := uint32(p.local.Port())
		return judged(r.from <= port && port < r.to)
	case ruleDirectIP:
		return r.judgeIP(plainAddr(p.remote))
	case ruleRemoteIP:
		return r.judgeIP(remoteAddr(call, int(r.from)))
	case rulePeer, rulePeers, ruleVerified:
		return r.judgeNames(p)
	}
	return cannotTell
}

// judgeIP cannot tell where a connection is none of the internet.
func (r *accessRule) judgeIP(ip netip.Addr) judgment {
	if !ip.IsValid() {
		return cannotTell
	}
	return judged(r.prefix.Contains(ip))
}

// plainAddr is the address of one end of a connection.
func plainAddr(end netip.AddrPort) netip.Addr { return end.Addr().Unmap().WithZone("") }

// judgeNames holds the rule against the names of the peer's certificate. A
// peer that speaks TLS and shows none has no name, but may be what Envoy calls
// authenticated.
func (r *accessRule) judgeNames(p *peerFacts) judgment {
	switch {
	case !p.encrypted:
		return no
	case !p.verified:
		if r.kind == ruleVerified || r.matchesName("") {
			return cannotTell
		}
		return no
	case r.kind == ruleVerified:
		return yes
	}
	for _, name := range p.names {
		if r.matchesName(name) {
			return yes
		}
	}
	return no
}

func (r *accessRule) matchesName(name string) bool {
	if r.kind == rulePeer {
		return r.text.matches(name)
	}
	_, found := r.set[name]
	return found
}

// remoteAddr is where a call comes from: what x-forwarded-for ends with, past
// the proxies that are trusted, or else the peer. That is what a sidecar goes
// by, which relies on the last proxy, such as the ingress gateway, having
// written it. What is written there counts as it is: ::ffff:192.0.2.1 is no
// address of IPv4, and one with a zone is none at all.
func remoteAddr(call *callFacts, trusted int) netip.Addr {
	forwarded, present := call.headers.get("x-forwarded-for")
	for ; present && trusted > 0; trusted-- {
		at := strings.LastIndexByte(forwarded, ',')
		present = at >= 0
		forwarded = forwarded[:max(at, 0)]
	}
	if present {
		if at := strings.LastIndexByte(forwarded, ','); at+1 < len(forwarded) {
			forwarded = forwarded[at+1:]
		}
		if ip, err := netip.ParseAddr(strings.TrimSpace(forwarded)); err == nil && ip.Zone() == "" {
			return ip
		}
	}
	return plainAddr(call.peer.remote)
}

// onlyPaths are the paths without which the rule says no; few is false where
// there is no such list.
func (r *accessRule) onlyPaths() (paths []string, few bool) {
	switch r.kind {
	case rulePath:
		if r.text.exact() {
			return []string{r.text.text}, true
		}
	case rulePaths:
		return slices.Collect(maps.Keys(r.set)), true
	case ruleAll:
		for i := range r.rules {
			if paths, few := r.rules[i].onlyPaths(); few {
				return paths, true
			}
		}
	case ruleSome:
		for i := range r.rules {
			more, few := r.rules[i].onlyPaths()
			if !few {
				return nil, false
			}
			paths = append(paths, more...)
		}
		return paths, true
	}
	return nil, false
}

// gather makes one look-up of the exact paths, and of the exact names, among
// rules of which one has to match.
func gather(rules []accessRule) []accessRule {
	for _, kinds := range [...][2]ruleKind{{rulePath, rulePaths}, {rulePeer, rulePeers}} {
		rules = gatherExact(rules, kinds[0], kinds[1])
	}
	return rules
}

// fewExact is up to how many texts are compared one by one.
const fewExact = 4

func gatherExact(rules []accessRule, one, many ruleKind) []accessRule {
	exact := func(r *accessRule) bool { return r.kind == one && r.text.exact() }
	set := map[string]struct{}{}
	for i := range rules {
		if exact(&rules[i]) {
			set[rules[i].text.text] = struct{}{}
		}
	}
	if len(set) <= fewExact {
		return rules
	}
	left := []accessRule{{kind: many, set: set}}
	for i := range rules {
		if !exact(&rules[i]) {
			left = append(left, rules[i])
		}
	}
	return left
}
