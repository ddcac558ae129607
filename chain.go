package proxyless

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// This file is the part of discovery that follows the chain: which entry leads
// to which, what has to be asked for, and what may be forgotten.

// entry finds the entry that a received name belongs to. A port of a listener
// asked for without a port becomes a child of that one, and is made if need be.
func (d *discovery) entry(k kind, name []byte) *entry {
	e := d.entries[k][string(name)]
	if k != kindListener {
		return e
	}
	host, port := splitPort(string(name))
	family := d.entries[k][host]
	if port == "" || family == nil {
		return e
	}
	if e == nil {
		e = d.add(k, string(name))
		e.member = true
	}
	if _, linked := e.parents[family]; !linked {
		d.link(family, append(slices.Clone(family.children), e))
		if e.value != nil { // asked for by name before
			d.settle(e)
		}
	}
	return e
}

// want finds or makes the entry of a name and sees to it that it is asked for,
// or made of what is there.
func (d *discovery) want(k kind, name string) *entry {
	e := d.entries[k][name]
	if e == nil {
		e = d.add(k, name)
	} else if !e.member {
		return e
	}
	e.member = false
	d.obtain(e)
	return e
}

// obtain asks for an entry, or makes it of what is there.
func (d *discovery) obtain(e *entry) {
	switch {
	case e.kind == kindEndpoints && madeHere(e.name):
		d.makeEndpoints(e)
	case d.view != nil && e.kind != kindEndpoints:
		d.view.fill(d, e)
	default:
		d.ask(e.kind, e.name)
	}
	if held := d.types[e.kind].held; held != nil {
		d.forget(held)
	}
}

// set gives an entry a new state and follows where its value leads.
func (d *discovery) set(e *entry, s resourceState) {
	s.kind, s.name = e.kind, e.name
	before := e.value
	e.resourceState = &s
	if e.table != nil {
		d.deriveRoutes(e, nil)
		return
	}
	d.touch(e)
	if before != nil || s.value != nil || e.source != nil {
		d.follow(e)
	}
	if e.kind == kindCluster {
		d.redial(e)
	}
	if e.kind == kindEndpoints && d.view != nil {
		d.reroute(e)
	}
	if d.view == nil {
		d.settle(e)
	}
}

// follow links an entry to what its value leads to. A cluster that leads back
// to itself is left out: calls find it all the same, since it is there.
func (d *discovery) follow(e *entry) {
	var next []*entry
	for _, r := range leadsTo(e.value) {
		if e.kind == kindCluster && r.kind == kindCluster {
			child := d.entries[r.kind][r.name]
			if child == nil {
				child = d.add(r.kind, r.name)
				d.link(e, append(slices.Clone(e.children), child)) // before it is followed: it may lead back
				d.obtain(child)
			} else if child.leadsTo(e, map[*entry]struct{}{}) {
				continue
			}
			next = append(next, child)
			continue
		}
		next = append(next, d.want(r.kind, r.name))
	}
	if e.source != nil {
		next = append(next, e.source)
	}
	next = d.followHost(e, next)
	d.link(e, next)
}

// leadsTo says that an entry is another one, or leads there. It looks at each
// entry once: there may be many ways to one.
func (e *entry) leadsTo(other *entry, been map[*entry]struct{}) bool {
	if e == other {
		return true
	}
	if _, again := been[e]; again {
		return false
	}
	been[e] = struct{}{}
	return slices.ContainsFunc(e.children, func(c *entry) bool { return c.leadsTo(other, been) })
}

// settle tells the listener asked for without a port, of which e is one port,
// what became of its ports: it exists while one of them does.
func (d *discovery) settle(e *entry) {
	for family := range e.parents {
		if e.kind != kindListener {
			return
		}
		var alive []*entry
		var ports []string
		for _, c := range family.children {
			if c.received() {
				alive = append(alive, c)
				ports = append(ports, c.name)
			}
		}
		slices.Sort(ports)
		state := resourceState{kind: kindListener, name: family.name, status: statusAccepted, ports: ports, since: d.now}
		if len(ports) == 0 {
			state.status = statusAbsent
		}
		family.resourceState, family.expires = &state, time.Time{}
		d.touch(family)
		d.link(family, alive)
	}
}

// link replaces the children of an entry and forgets those that nothing leads
// to any more.
func (d *discovery) link(e *entry, next []*entry) {
	old := e.children
	e.children = next
	for _, c := range next {
		c.parents[e] = struct{}{}
	}
	for _, c := range old {
		if !slices.Contains(next, c) {
			delete(c.parents, e)
			d.forget(c)
		}
	}
}

// forget puts an entry that nothing leads to up for the next sweep. Until then
// it may be wanted again: what is asked for by the same names on the same
// stream would not be sent again.
func (d *discovery) forget(e *entry) {
	if e.idle() {
		d.unwanted[e] = struct{}{}
	}
}

func (e *entry) idle() bool { return e.roots == 0 && len(e.parents) == 0 }

// sweep drops what was forgotten, and what only that leads to.
func (d *discovery) sweep() {
	for len(d.unwanted) > 0 {
		batch := slices.SortedFunc(maps.Keys(d.unwanted), func(a, b *entry) int { return byName(a.resourceState, b.resourceState) })
		clear(d.unwanted)
		for _, e := range batch {
			if e.idle() && d.home(e)[e.name] == e {
				d.drop(e)
			}
		}
	}
}

// home is the map that an entry lives in.
func (d *discovery) home(e *entry) map[string]*entry {
	if e.table != nil {
		return d.view.tables
	}
	return d.entries[e.kind]
}

// drop removes an entry and its name, unless it has to be held.
func (d *discovery) drop(e *entry) {
	t := &d.types[e.kind]
	at, asked := slices.BinarySearch(t.wanted, e.name)
	asked = asked && d.units(e.kind)[e.name] == e
	if asked && len(t.wanted) == 1 && e.kind.fullState() && d.connected && t.asked {
		t.held = e
		return
	}
	if t.held == e {
		t.held = nil
	}
	if asked {
		t.wanted, t.dirty = slices.Delete(slices.Clone(t.wanted), at, at+1), true
	}
	delete(d.home(e), e.name)
	if e.table == nil {
		d.touch(e)
	}
	if e.kind == kindRoute && e.table == nil && d.view != nil {
		delete(d.view.passages, e.name)
	}
	d.stopMaking(e)
	d.link(e, nil)
}

func (d *discovery) touch(e *entry) { d.touched[e] = struct{}{} }

// splitPort splits "host:port"; port is empty when the name has none. A bare
// IPv6 address is a host.
func splitPort(name string) (host, port string) {
	at := strings.LastIndexByte(name, ':')
	if at < 0 || strings.IndexByte(name[:at], ':') >= 0 && !strings.HasSuffix(name[:at], "]") {
		return name, ""
	}
	return name[:at], name[at+1:]
}
