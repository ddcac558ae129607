package proxyless

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file is the part of discovery that makes assignments which ADS does not
// send: those of clusters that have their addresses written in them, or names
// for DNS. Looking names up is left to the shell.

// Names of assignments that are made here begin with one of these.
const (
	inlinePrefix = "inline:" // with a cluster's name: its own addresses
	dnsPrefix    = "dns:"    // with a cluster's name: the names that it has
	hostPrefix   = "host:"   // with host:port: that
)

// madeHere says that an assignment of this name is not asked for by ADS.
func madeHere(name string) bool {
	return strings.HasPrefix(name, inlinePrefix) || strings.HasPrefix(name, dnsPrefix) || strings.HasPrefix(name, hostPrefix)
}

// endpointsName is the name of the assignment of a cluster, for calls that
// name an authority; empty where it has none.
func (c *cluster) endpointsName(authority string) string {
	switch c.source {
	case discoverStatic:
		return inlinePrefix + c.name
	case discoverStrictDNS, discoverLogicalDNS:
		return dnsPrefix + c.name
	case discoverPassthrough:
		return hostPrefix + authority
	case discoverAggregate:
		return ""
	}
	return c.edsName
}

// deserted says that EDS has no endpoint for a cluster of ORIGINAL_DST.
func (c *cluster) deserted(assigned any) bool {
	a, ok := assigned.(*assignment)
	return c.originalDst && c.source == discoverEDS && ok && len(a.endpoints) == 0 && len(a.others) == 0
}

// nameLookup is a name to look up, and how long the pauses are; 0 is the
// default.
type nameLookup struct {
	host  string
	every time.Duration
}

// lookup is one name that DNS is asked for.
type lookup struct {
	every   time.Duration // the pause that its first user asks for
	users   map[*entry]struct{}
	started bool
	done    bool         // there was an answer, if only a failure
	addrs   []netip.Addr // the last good answer
	failure string       // of the last answer
}

// makeEndpoints makes an assignment, or begins to.
func (d *discovery) makeEndpoints(e *entry) {
	e.expires = time.Time{}
	if authority, ok := strings.CutPrefix(e.name, hostPrefix); ok {
		host, port := splitPort(authority)
		n, _ := strconv.ParseUint(port, 10, 16)
		d.resolve(e, []dnsName{{host: strings.Trim(host, "[]"), port: uint16(n), weight: 1}}, 0)
		return
	}
	_, name, _ := strings.Cut(e.name, ":")
	parent := d.entries[kindCluster][name]
	if parent == nil {
		return
	}
	c, _ := parent.value.(*cluster)
	switch {
	case c == nil || c.endpointsName("") != e.name:
	case c.source == discoverStatic:
		if e.value != c.inline {
			d.set(e, resourceState{status: statusAccepted, value: c.inline, version: parent.version, since: d.now})
		}
	default:
		d.resolve(e, c.names, c.dns.refresh)
	}
}

// resolve makes an assignment of names.
func (d *discovery) resolve(e *entry, names []dnsName, every time.Duration) {
	before := e.names
	e.names = names
	for i := range names {
		if _, err := netip.ParseAddr(names[i].host); err == nil {
			continue
		}
		l := d.lookups[names[i].host]
		if l == nil {
			l = &lookup{users: map[*entry]struct{}{}, every: every}
			d.lookups[names[i].host] = l
		}
		l.users[e] = struct{}{}
	}
	d.letGo(e, before)
	d.assemble(e)
}

// stopMaking lets go of the names of an assignment that is dropped.
func (d *discovery) stopMaking(e *entry) {
	before := e.names
	e.names = nil
	d.letGo(e, before)
}

// letGo lets go of names that an assignment does not have any more.
func (d *discovery) letGo(e *entry, before []dnsName) {
	for _, name := range before {
		if l := d.lookups[name.host]; l != nil && !slices.ContainsFunc(e.names, func(n dnsName) bool { return n.host == name.host }) {
			delete(l.users, e)
		}
	}
}

// resolved takes the answer of DNS for a name. After a failure the last good
// answer stays.
func (d *discovery) resolved(now time.Time, host string, addrs []netip.Addr, failure string) {
	d.now = now
	l := d.lookups[host]
	if l == nil {
		return
	}
	l.done, l.failure = true, failure
	if failure == "" {
		l.addrs = ordered(addrs)
	}
	for _, e := range slices.SortedFunc(maps.Keys(l.users), func(a, b *entry) int { return byName(a.resourceState, b.resourceState) }) {
		d.assemble(e)
	}
}

// ordered puts addresses in an order of their own, since DNS servers turn it
// with every answer.
func ordered(addrs []netip.Addr) []netip.Addr {
	list := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		list = append(list, a.Unmap())
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

// of leaves the addresses that count; IPv4 comes before IPv6 in addrs.
func (f dnsFamily) of(addrs []netip.Addr) []netip.Addr {
	v6 := slices.IndexFunc(addrs, netip.Addr.Is6)
	switch {
	case v6 < 0:
		if f == dnsV6 {
			return nil
		}
	case f == dnsV4, f == dnsV4First && v6 > 0:
		return addrs[:v6]
	case f == dnsV6, f == dnsAuto:
		return addrs[v6:]
	}
	return addrs
}

// assemble makes the assignment of what is known of its names. It waits until
// each was answered once, unless some address is there already.
func (d *discovery) assemble(e *entry) {
	a := &assignment{cluster: e.name, localities: []locality{}}
	var c *cluster
	if _, name, ok := strings.Cut(e.name, ":"); ok && d.entries[kindCluster][name] != nil {
		if c, _ = d.entries[kindCluster][name].value.(*cluster); c != nil && c.inline != nil {
			a.labels = c.inline.labels
		}
	}
	if slices.ContainsFunc(e.names, func(n dnsName) bool { return int(n.labels) > len(a.labels) }) {
		return // the cluster is another one by now, and so are its names, soon
	}
	var failures []string
	waiting := false
	names := slices.Clone(e.names)
	slices.SortStableFunc(names, func(a, b dnsName) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.locality, b.locality))
	})
	for i, name := range names {
		addrs, failure, done := d.answer(name.host)
		if c != nil {
			addrs = c.dns.family.of(addrs)
		} else {
			addrs = dnsV4First.of(addrs)
		}
		waiting = waiting || !done
		if failure != "" {
			failures = append(failures, failure)
		}
		if c != nil && c.source == discoverLogicalDNS && len(addrs) > 1 {
			addrs = addrs[:1]
		}
		if i == 0 || name.priority != names[i-1].priority || name.locality != names[i-1].locality {
			a.localities = append(a.localities, localityOf(c, &name, len(a.endpoints)))
		}
		l := &a.localities[len(a.localities)-1]
		for _, addr := range addrs {
			a.endpoints = append(a.endpoints, endpoint{addr: netip.AddrPortFrom(addr, name.port), weight: max(name.weight, 1), labels: name.labels, extra: &endpointExtra{hostname: cmp.Or(name.hostname, name.host)}})
			l.count++
		}
	}
	for i := range a.localities {
		a.localities[i].complete(a)
	}
	switch {
	case len(a.endpoints) == 0 && waiting:
	case len(a.endpoints) == 0 && len(failures) > 0:
		d.unresolved(e, strings.Join(failures, "; "))
	default:
		if old, ok := e.value.(*assignment); !ok || !old.same(a) {
			d.set(e, resourceState{status: statusAccepted, value: a, since: d.now})
		}
	}
}

// unresolved says that no name of an assignment has an address.
func (d *discovery) unresolved(e *entry, failures string) {
	reason, advice := "looking it up failed: "+failures, "check the name in the ServiceEntry, and that the DNS server of this process knows it"
	if strings.HasPrefix(e.name, hostPrefix) {
		reason, advice = "the mesh knows nothing of that name, and looking it up failed: "+failures, absentAdvice[kindListener]
	}
	if e.status != statusAbsent || e.reason != reason {
		d.set(e, resourceState{status: statusAbsent, reason: reason, advice: advice, since: d.now})
	}
}

// answer is what is known of a name, which may be an address.
func (d *discovery) answer(host string) (addrs []netip.Addr, failure string, done bool) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, "", true
	}
	l := d.lookups[host]
	if l == nil {
		return nil, "", false
	}
	if l.failure != "" {
		failure = fmt.Sprintf("%s: %s", host, l.failure)
	}
	return l.addrs, failure, l.done
}

// localityOf is the locality of a name, without endpoints as yet.
func localityOf(c *cluster, name *dnsName, first int) locality {
	l := locality{}
	if c != nil && c.inline != nil && name.locality < len(c.inline.localities) {
		l = c.inline.localities[name.locality]
	}
	l.priority, l.first, l.count, l.others = name.priority, first, 0, 0
	return l
}

// complete gives a locality without a weight the sum of its endpoints'.
func (l *locality) complete(a *assignment) {
	if l.weight > 0 {
		return
	}
	for i := range l.count {
		l.weight += a.endpoints[l.first+i].weight
	}
}

// same says that an assignment that was made here has the same endpoints.
func (a *assignment) same(b *assignment) bool {
	return slices.Equal(a.localities, b.localities) && slices.EqualFunc(a.endpoints, b.endpoints, func(x, y endpoint) bool {
		return x.addr == y.addr && x.weight == y.weight && x.hostname() == y.hostname() && maps.Equal(a.labelsOf(&x), b.labelsOf(&y))
	})
}

// collectLookups says which names to look up from now on, and which no more.
func (d *discovery) collectLookups() {
	for _, host := range slices.Sorted(maps.Keys(d.lookups)) {
		switch l := d.lookups[host]; {
		case len(l.users) == 0:
			delete(d.lookups, host)
			if l.started {
				d.out.stopped = append(d.out.stopped, host)
			}
		case !l.started:
			l.started = true
			d.out.lookUp = append(d.out.lookUp, nameLookup{host, l.every})
		}
	}
}
