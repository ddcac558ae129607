package proxyless

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"
)

// passage is how calls to one port of one host leave, as far as listeners and
// the names of clusters say it. Which virtual host it is, and what becomes of
// calls to a host that the mesh does not know, the route configuration says.
type passage struct {
	host, port string
	table      string // the route configuration to look in; empty for none
	own        bool   // it is this host's alone, so that its "*" is meant
	known      bool   // the mesh has a cluster for this port of the host
	egress     string // where there is no table: the cluster for what the mesh does not know
}

// rawTable is a route configuration as istiod sends it in the full view, for
// all hosts of a port, with which a derived route of one host is made.
type rawTable struct {
	bytes []byte // a copy; nil while there is none
}

// passage finds out how calls to a port of a host leave, or why they cannot.
func (v *fullView) passage(d *discovery, host, port string) (passage, *absence) {
	p := passage{host: host, port: port}
	ports := v.portsOf(host)
	if p.known = slices.Contains(ports, port); !p.known && len(ports) > 0 {
		return p, v.unknown(&p, false)
	}
	for _, meaning := range v.meanings(host) {
		if name := meaning + ":" + port; v.routes[name] != "" {
			p.table, p.own = name, true
			return p, nil
		}
	}
	if v.routes[port] != "" {
		p.table = port
		return p, nil
	}
	if p.known {
		return p, nil
	}
	p.egress = v.catchAll(d, port)
	if p.egress == "" || p.egress == blackHole {
		return p, v.unknown(&p, p.egress == blackHole)
	}
	return p, nil
}

// route is the name of the derived route configuration.
func (p *passage) route() string {
	if p.table != "" {
		return p.table + "/" + p.host
	}
	return p.port + "/" + p.host
}

// unknown says that the mesh knows no such port of such a host, and may forbid
// to call what it does not know.
func (v *fullView) unknown(p *passage, forbidden bool) *absence {
	if ports := v.portsOf(p.host); len(ports) > 0 {
		return &absence{fmt.Sprintf("the Service has no port %s, but %s", p.port, strings.Join(ports, ", ")),
			"check the port in providedBy: a Service is called by its port, not by the targetPort"}
	}
	if forbidden {
		return &absence{"the mesh knows nothing of that name, and its outbound traffic policy REGISTRY_ONLY forbids calls to what it does not know",
			"make a ServiceEntry for the host, or check the name, the port, and what exportTo and the Sidecar resource let this namespace see"}
	}
	return &absence{"the mesh knows nothing of that name", absentAdvice[kindListener]}
}

// wantTable finds or makes the entry of a route configuration as istiod sends
// it, which is asked for by name.
func (v *fullView) wantTable(d *discovery, name string) *entry {
	t := v.tables[name]
	if t == nil {
		t = d.newEntry(kindRoute, name)
		t.table = &rawTable{}
		v.tables[name] = t
		d.ask(kindRoute, name)
	}
	return t
}

// acceptTable takes a route configuration, and derives those of the hosts that
// are referred to from it. It says what is wrong with one of those.
func (v *fullView) acceptTable(d *discovery, t *entry, version string, raw *rawResource) string {
	hash := maphash.Bytes(d.seed, raw.value)
	t.seen, t.expires = d.round, time.Time{}
	if t.status == statusAccepted && t.rejection == "" && t.hash == hash {
		t.specific = raw.version
		d.out.counts.unchanged++
		return ""
	}
	before := *t.resourceState
	turned := d.turnedDomains(t.table.bytes, raw.value)
	t.hash, t.specific, t.table = hash, raw.version, &rawTable{bytes.Clone(raw.value)}
	t.resourceState = &resourceState{kind: kindRoute, name: t.name, status: statusAccepted, version: version, since: d.now}
	problem := d.deriveRoutes(t, turned)
	if problem == "" {
		return ""
	}
	t.specific = ""
	state := *t.resourceState
	state.rejection, state.rejectedVersion = problem, before.version
	t.resourceState = &state
	return fmt.Sprintf("%s %s: %s", kindRoute, t.name, problem)
}

// turnedDomains finds the domains of the virtual hosts that only one of two
// route configurations has, so that a change of one of a thousand hosts makes
// nobody look for the others. It returns nil where more than that differs.
func (d *discovery) turnedDomains(before, now []byte) [][]byte {
	old, ok := d.virtualHosts(before)
	hosts, also := d.virtualHosts(now)
	if !ok || !also || old.rest != hosts.rest {
		return nil
	}
	domains := [][]byte{}
	for _, each := range []struct{ in, out map[uint64][]byte }{{old.byHash, hosts.byHash}, {hosts.byHash, old.byHash}} {
		for hash, host := range each.in {
			if _, kept := each.out[hash]; kept {
				continue
			}
			c := walk(host)
			for c.next() {
				if c.num == 2 {
					domains = append(domains, c.val)
				}
			}
			if c.err != nil {
				return nil
			}
		}
	}
	return domains
}

// hashedHosts are the virtual hosts of a route configuration, and a hash of all
// else that it has.
type hashedHosts struct {
	byHash map[uint64][]byte
	rest   uint64
}

// virtualHosts is not ok where the route configuration cannot be read.
func (d *discovery) virtualHosts(table []byte) (h hashedHosts, ok bool) {
	h.byHash = map[uint64][]byte{}
	var rest maphash.Hash
	rest.SetSeed(d.seed)
	c := walk(table)
	for c.next() {
		if c.num == 2 {
			h.byHash[maphash.Bytes(d.seed, c.val)] = c.val
			continue
		}
		fmt.Fprintf(&rest, "%d %d %d ", c.num, c.u, len(c.val))
		_, _ = rest.Write(c.val)
	}
	h.rest = rest.Sum64()
	return h, c.err == nil && len(h.byHash) > 0
}

// deriveRoutes derives the routes that are made of a table, those of which
// nothing turned left out, and says what is wrong with them. Where turned is
// nil, anything may have.
func (d *discovery) deriveRoutes(t *entry, turned [][]byte) string {
	var parents []*entry
	for p := range t.parents {
		if turned == nil || !d.view.asBefore(p, turned) {
			parents = append(parents, p)
		}
	}
	slices.SortFunc(parents, func(a, b *entry) int { return byName(a.resourceState, b.resourceState) })
	var problems []string
	for _, p := range parents {
		if problem := d.view.deriveRoute(d, p); problem != "" && !slices.Contains(problems, problem) {
			problems = append(problems, problem)
		}
	}
	return strings.Join(problems, "; ")
}

// asBefore says that a route that is in force has nothing to do with domains.
func (v *fullView) asBefore(e *entry, domains [][]byte) bool {
	hosts := v.meanings(v.passages[e.name].host)
	return e.status == statusAccepted && e.rejection == "" && !slices.ContainsFunc(domains, func(domain []byte) bool {
		return slices.ContainsFunc(hosts, func(host string) bool { return concerns(domain, host) })
	})
}

// deriveRoute makes the route configuration of one host, which has the one
// virtual host that is meant, or none. It says what is wrong with it.
func (v *fullView) deriveRoute(d *discovery, e *entry) string {
	p := v.passages[e.name]
	if p.table == "" {
		v.deriveRouteless(d, e, &p)
		return ""
	}
	if e.source == nil { // what it leads to stays until the table has come
		e.source = v.wantTable(d, p.table)
		d.link(e, append(slices.Clone(e.children), e.source))
	}
	t := e.source
	switch {
	case t.status == statusAbsent:
		v.refuse(d, e, &absence{"the control plane has no routes for port " + p.port, "see whether istiod is well"})
		return ""
	case t.table.bytes == nil:
		return ""
	}
	hosts := v.meanings(p.host)
	var digest maphash.Hash
	digest.SetSeed(d.seed)
	got, err := d.safeDecodeTable(t.table.bytes, hosts, &digest)
	if err != nil {
		return v.rejectRoute(d, e, t, err)
	}
	r := got.value.(*routeConfig)
	if absence := v.narrow(&p, r, hosts); absence != nil {
		v.refuse(d, e, absence)
		return ""
	}
	if len(r.virtualHosts) == 0 {
		_ = digest.WriteByte(0)
	}
	sum := digest.Sum64()
	if e.status == statusAccepted && e.rejection == "" && e.hash == sum {
		return ""
	}
	if err := d.survey.complete(kindRoute, t.table.bytes, &got, d.strict); err != nil {
		return v.rejectRoute(d, e, t, err)
	}
	v.setRoute(d, e, &p, resourceState{value: r, applied: got.applied, ignored: got.ignored, version: t.version}, sum)
	return ""
}

func (v *fullView) rejectRoute(d *discovery, e, t *entry, err error) string {
	if e.rejection != err.Error() {
		d.reject(e, t.version, err)
	}
	return err.Error()
}

// narrow leaves a route configuration the one virtual host that is meant, or
// none for a port that is no HTTP. It says why calls are refused.
func (v *fullView) narrow(p *passage, r *routeConfig, hosts []string) *absence {
	var found *virtualHost
	for _, host := range hosts {
		if h := findDomain(r.virtualHosts, host); h != nil && (found == nil || isCatchAll(found) && !isCatchAll(h)) {
			found = h
		}
	}
	theRest := found != nil && !p.own && isCatchAll(found) && (found.name == allowAny || found.name == blockAll)
	switch {
	case theRest && p.known:
		found = nil
	case !p.known && (found == nil || theRest && found.name == blockAll):
		return v.unknown(p, found != nil && found.name == blockAll)
	}
	r.passed = passedOver(r.virtualHosts, found)
	if r.virtualHosts = nil; found != nil {
		r.virtualHosts = []virtualHost{*found}
	}
	return nil
}

// passedOver are the virtual hosts that might have been meant and were not, as
// explanations show them.
func passedOver(hosts []virtualHost, found *virtualHost) []virtualHost {
	var passed []virtualHost
	for i := range hosts {
		if h := &hosts[i]; h != found {
			passed = append(passed, virtualHost{name: h.name, domains: h.domains})
		}
	}
	return passed
}

// isCatchAll says that a virtual host takes what no other one has.
func isCatchAll(h *virtualHost) bool { return slices.Contains(h.domains, "*") }

// safeDecodeTable decodes the virtual hosts that some host may mean.
func (d *discovery) safeDecodeTable(table []byte, hosts []string, digest *maphash.Hash) (decoded, error) {
	wanted := func(domain []byte) bool {
		return slices.ContainsFunc(hosts, func(host string) bool { return concerns(domain, host) })
	}
	return guarded(func() (decoded, error) { return d.decodeTable(table, wanted, digest) })
}

// concerns says that a host is in a domain, which is in any case.
func concerns(domain []byte, host string) bool {
	if len(domain) == 0 || domain[0] != '*' && domain[len(domain)-1] != '*' {
		return len(domain) == len(host) && strings.EqualFold(string(domain), host)
	}
	return domainRank(strings.ToLower(string(domain)), host) > 0
}

// setRoute gives a derived route its value.
func (v *fullView) setRoute(d *discovery, e *entry, p *passage, s resourceState, digest uint64) {
	d.out.counts.updated++
	r := s.value.(*routeConfig)
	r.settled, r.authority = true, p.host+":"+p.port
	s.status, s.since = statusAccepted, d.now
	e.hash = digest
	d.set(e, s)
}

// deriveRouteless makes the route configuration of a host on a port for which
// no listener names one: the port of a service that is no HTTP has no virtual
// host, and what the mesh does not know goes where the mesh lets it go.
func (v *fullView) deriveRouteless(d *discovery, e *entry, p *passage) {
	if table := e.source; table != nil {
		e.source = nil
		d.link(e, slices.DeleteFunc(slices.Clone(e.children), func(c *entry) bool { return c == table }))
	}
	digest := maphash.String(d.seed, p.egress)
	if e.status == statusAccepted && e.hash == digest {
		return
	}
	r := &routeConfig{name: e.name}
	if p.egress != "" {
		r.virtualHosts = []virtualHost{{name: allowAny, domains: []string{"*"}, routes: []route{{name: allowAny,
			clusters: []weightedCluster{{name: p.egress, weight: 1}}, total: 1}}}}
	}
	v.setRoute(d, e, p, resourceState{value: r, version: v.version[kindListener]}, digest)
}

// followHost adds the address that a derived route's calls name, where one of
// its clusters sends calls to whatever they name.
func (d *discovery) followHost(e *entry, next []*entry) []*entry {
	r, ok := e.value.(*routeConfig)
	if !ok || r.authority == "" {
		return next
	}
	for _, c := range next {
		if c, ok := c.value.(*cluster); ok && d.callsByName(c) {
			return append(next, d.want(kindEndpoints, hostPrefix+r.authority))
		}
	}
	return next
}

// callsByName says that a cluster sends calls to whatever they name: it is
// made for that, or a ServiceEntry without resolution is behind it. A headless
// Service without pods is not.
func (d *discovery) callsByName(c *cluster) bool {
	if c.failure != "" || c.source == discoverPassthrough {
		return c.failure == ""
	}
	e := d.entries[kindEndpoints][c.edsName]
	host, _, _ := servicePort(c.name)
	return e != nil && c.deserted(e.value) && !strings.HasSuffix(host, ".svc."+d.view.domain)
}

// redial follows again what depends on where a cluster gets its endpoints.
func (d *discovery) redial(e *entry) {
	for p := range e.parents {
		if p.kind == kindRoute && d.view != nil {
			d.follow(p)
		}
	}
	for _, c := range e.children {
		if c.kind == kindEndpoints && madeHere(c.name) {
			d.makeEndpoints(c)
		}
	}
}

// reroute follows again what depends on whether a cluster has endpoints.
func (d *discovery) reroute(e *entry) {
	for p := range e.parents {
		if c, ok := p.value.(*cluster); ok && c.originalDst {
			d.redial(p)
		}
	}
}
