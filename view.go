package proxyless

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
)

// fullView is what discovery keeps of istiod's full view, which is what a
// sidecar gets: every listener and cluster of the mesh, as the bytes that came,
// and the route configurations of some ports. What a process refers to is
// decoded, and the listener `host:port` that the lean view would have sent is
// derived from it, with a route configuration of its own that has the one
// virtual host for host (view_route.go). So everything above discovery sees the
// same four kinds in both views.
type fullView struct {
	domain    string // DNS suffix of the cluster
	namespace string // of this workload: short names are looked up in it

	held     [kindCount]map[string]*holding // listeners and clusters, by name
	version  [kindCount]string              // of the last response
	ports    map[string][]string            // by host, in order: what the names of clusters say
	routes   map[string]string              // by route configuration: the listener that names it
	tables   map[string]*entry              // route configurations as istiod sends them, by name
	passages map[string]passage             // by derived route
	stale    bool                           // something that listeners are derived from changed
}

// holding is a listener or cluster that may be wanted later.
type holding struct {
	hash    uint64 // of what was sent last
	bytes   []byte // a copy of what was sent last, or for a listener of the last that could be read
	version string // of this one resource; istiod gives none
	seen    uint64 // the last response that had it
	routes  []string
	inbound bool   // it is a listener that says who may come in
	failure string // why what was sent last cannot be read; of a listener
}

// leanGaps is what istiod does not tell a provider in the lean view, so that
// nothing here can enforce it.
const leanGaps = "in the lean view istiod leaves out AuthorizationPolicies with the actions CUSTOM and AUDIT, an ALLOW policy without rules " +
	"(which is to refuse every call, and refuses none), RequestAuthentication, and the choice of PERMISSIVE; policies under dry run are enforced"

// Names that istiod gives.
const (
	virtualInbound  = "virtualInbound"   // the full view's one listener for that
	virtualOutbound = "virtualOutbound"  // takes what no other listener takes
	blackHole       = "BlackHoleCluster" // where calls go that are forbidden
	blockAll        = "block_all"        // a virtual host that refuses what no other one has, under REGISTRY_ONLY
	allowAny        = "allow_any"        // and one that lets it through
)

// useFullView makes a machine that nothing was asked of understand the full
// view.
func (d *discovery) useFullView(namespace, domain string) {
	d.view = &fullView{domain: domain, namespace: namespace, ports: map[string][]string{}, routes: map[string]string{},
		tables: map[string]*entry{}, passages: map[string]passage{}}
	for _, k := range []kind{kindListener, kindCluster} {
		d.types[k].wildcard = true
		d.view.held[k] = map[string]*holding{}
	}
}

// accept applies one resource of a response, and says what is wrong with a bad
// one that somebody needs.
func (v *fullView) accept(d *discovery, k kind, name []byte, version string, raw *rawResource) string {
	e := d.units(k)[string(name)]
	switch {
	case d.types[k].wildcard:
		h := v.hold(d, k, name, version, raw)
		if k == kindCluster && e != nil {
			return d.apply(e, version, raw.version, raw.value, h.hash)
		}
		if h.failure != "" && v.needs(d, string(name)) {
			return fmt.Sprintf("%s %s: %s", k, name, h.failure)
		}
	case e == nil:
	case k == kindRoute:
		return v.acceptTable(d, e, version, raw)
	default:
		return d.apply(e, version, raw.version, raw.value, maphash.Bytes(d.seed, raw.value))
	}
	return ""
}

// hold keeps a listener or cluster. One that is as it was costs nothing.
func (v *fullView) hold(d *discovery, k kind, name []byte, version string, raw *rawResource) *holding {
	v.version[k] = version
	hash := maphash.Bytes(d.seed, raw.value)
	h := v.held[k][string(name)]
	switch {
	case h == nil:
		h = &holding{}
		v.held[k][string(name)] = h
		v.stale = true
		if k == kindCluster {
			v.index(string(name))
		}
	case h.hash == hash:
		h.seen, h.version = d.round, raw.version
		d.out.counts.unchanged++
		return h
	}
	h.seen, h.version, h.hash = d.round, raw.version, hash
	if k == kindListener {
		v.stale = true
		v.read(d, h, raw.value)
	} else {
		h.bytes = bytes.Clone(raw.value)
	}
	return h
}

// read finds out which route configurations a listener names. One that cannot
// be read stays as it was.
func (v *fullView) read(d *discovery, h *holding, value []byte) {
	got, err := guarded(func() (decoded, error) { return d.decode(kindListener, value) })
	if err != nil {
		h.failure = err.Error()
		return
	}
	h.bytes, h.failure, h.routes = bytes.Clone(value), "", nil
	l, _ := got.value.(*listener)
	h.inbound = len(l.inbound) > 0
	for i := range l.outbound {
		if http := l.outbound[i].http; http != nil && http.routeName != "" && !l.originalDst {
			h.routes = append(h.routes, http.routeName)
		}
	}
}

// needs says that a listener has a part in what somebody refers to.
func (v *fullView) needs(d *discovery, name string) bool {
	for referred := range d.entries[kindListener] {
		address, inbound := strings.CutPrefix(referred, inboundPrefix)
		_, port := splitPort(referred)
		switch {
		case inbound:
			if name == virtualInbound || name == ownInbound(address) {
				return true
			}
		case name != virtualInbound && (name == virtualOutbound || port == "" || strings.HasSuffix(name, "_"+port)):
			return true
		}
	}
	return false
}

// index enters the name of a cluster, outbound|port|subset|host, among the
// ports of its host.
func (v *fullView) index(name string) {
	if host, port, ok := servicePort(name); ok {
		ports := v.ports[host]
		if at, found := slices.BinarySearchFunc(ports, port, comparePorts); !found {
			v.ports[host] = slices.Insert(ports, at, port)
		}
	}
}

// unindex is the opposite of index.
func (v *fullView) unindex(name string) {
	if host, port, ok := servicePort(name); ok {
		v.ports[host] = slices.DeleteFunc(v.ports[host], func(p string) bool { return p == port })
		if len(v.ports[host]) == 0 {
			delete(v.ports, host)
		}
	}
}

// servicePort splits the name of a cluster that stands for a whole port of a
// service.
func servicePort(name string) (host, port string, ok bool) {
	rest, ok := strings.CutPrefix(name, "outbound|")
	if !ok {
		return "", "", false
	}
	port, rest, _ = strings.Cut(rest, "|")
	subset, host, ok := strings.Cut(rest, "|")
	return host, port, ok && subset == ""
}

func comparePorts(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// removeUnseen drops what a response did not have that has all there is. What
// has a version need not have been sent again.
func (v *fullView) removeUnseen(d *discovery, k kind) {
	for name, h := range v.held[k] {
		if h.seen != d.round && (!d.delta || h.version == "") {
			v.gone(d, k, name)
		}
	}
}

// gone drops a listener or cluster.
func (v *fullView) gone(d *discovery, k kind, name string) {
	if _, held := v.held[k][name]; !held {
		return
	}
	delete(v.held[k], name)
	v.stale = true
	if k == kindListener {
		return
	}
	v.unindex(name)
	if e := d.entries[k][name]; e != nil {
		d.absent(e)
	}
}

// retained lists what is held, by name.
func (v *fullView) retained(k kind) []retainedResource {
	var list []retainedResource
	for _, name := range slices.Sorted(maps.Keys(v.held[k])) {
		list = append(list, retainedResource{name, v.held[k][name].version})
	}
	return list
}

// fill makes a wanted entry of what is held.
func (v *fullView) fill(d *discovery, e *entry) {
	switch e.kind {
	case kindListener:
		v.start(d, kindListener)
		if !strings.HasPrefix(e.name, inboundPrefix) {
			v.start(d, kindCluster)
		}
		v.derive(d, e)
	case kindRoute:
		v.deriveRoute(d, e)
	case kindCluster:
		if h := v.held[kindCluster][e.name]; h != nil {
			d.apply(e, v.version[kindCluster], h.version, h.bytes, h.hash)
		} else if d.types[kindCluster].answered {
			d.absent(e)
		}
	}
}

// start sees to it that all resources of a type are asked for.
func (v *fullView) start(d *discovery, k kind) {
	if t := &d.types[k]; !t.needed {
		t.needed, t.dirty = true, true
	}
}
