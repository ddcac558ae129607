package meshtest

import (
	"maps"
	"slices"
	"sort"
)

// watch is what a stream asked for of one type, and what it was sent.
type watch struct {
	typeURL string
	delta   bool
	names   map[string]bool // none is all, where the type allows it
	nonce   string          // of the last response; empty before the first
	acked   bool            // the last response was answered, or there was none
	seen    uint64          // version of the world that was sent last

	// What a request waits for: everything that is watched, or what is named,
	// which may be nothing.
	owesAll  bool
	owesSome map[string]bool
}

// pushOrder is the order in which istiod sends what changed.
var pushOrder = []string{ClusterType, ClusterLoadAssignmentType, ListenerType, RouteConfigurationType}

// typesInOrder lists the watched types; those that pushOrder does not know come
// last.
func (s *stream) typesInOrder() []string {
	types := make([]string, 0, len(s.watches))
	for t := range s.watches {
		types = append(types, t)
	}
	rank := func(t string) int {
		if i := slices.Index(pushOrder, t); i >= 0 {
			return i
		}
		return len(pushOrder)
	}
	sort.Slice(types, func(i, j int) bool {
		if a, b := rank(types[i]), rank(types[j]); a != b {
			return a < b
		}
		return types[i] < types[j]
	})
	return types
}

// receive judges a request as istiod does: a NACK changes nothing, a request
// that answers an older response than the last is ignored, and an ACK is
// answered only when it names something new. It returns the watch from then on,
// nil where there is none.
func (w *watch) receive(n node, q Request) *watch {
	switch {
	case q.NACK:
		if w != nil && q.Nonce == w.nonce {
			w.acked = true
		}
		return w
	case q.Delta:
		return w.receiveDelta(q)
	case len(q.Names) == 0 && !wildcard(q.TypeURL):
		return nil
	}
	names := make(map[string]bool, len(q.Names))
	for _, name := range q.Names {
		names[name] = true
	}
	if w == nil || q.Nonce == "" {
		return &watch{typeURL: q.TypeURL, names: names, acked: true, owesAll: true}
	}
	if q.Nonce != w.nonce {
		return w
	}
	w.acked = true
	added := without(names, w.names)
	switch {
	case len(added) == 0 && (len(names) == len(w.names) || !wildcard(q.TypeURL)):
	case n.lean || wildcard(q.TypeURL):
		w.owesAll = true
	default:
		w.owe(added)
	}
	w.names = names
	return w
}

// receiveDelta judges a request of the delta protocol. What the client says that
// it holds counts as asked for, and is compared with nothing.
func (w *watch) receiveDelta(q Request) *watch {
	asked := make(map[string]bool, len(q.Names)+len(q.Held))
	for _, name := range q.Names {
		asked[name] = true
	}
	for name := range q.Held {
		asked[name] = true
	}
	for _, name := range q.Unsubscribed {
		delete(asked, name)
	}
	if w == nil {
		delete(asked, "*")
		w = &watch{typeURL: q.TypeURL, delta: true, names: maps.Clone(asked), acked: true}
		if len(asked) == 0 && !slices.ContainsFunc(q.Unsubscribed, notWildcard) {
			w.owesAll = true
		} else {
			w.owe(asked)
		}
		return w
	}
	if q.Nonce != "" {
		if q.Nonce != w.nonce {
			return w
		}
		w.acked = true
	}
	changed := len(without(asked, w.names)) > 0
	for name := range asked {
		w.names[name] = true
	}
	for _, name := range q.Unsubscribed {
		changed = changed || w.names[name]
		delete(w.names, name)
	}
	delete(w.names, "*")
	delete(asked, "*")
	if changed {
		w.owe(asked)
	}
	return w
}

func notWildcard(name string) bool { return name != "*" }

// owe has names answered, besides those that are owed already.
func (w *watch) owe(names map[string]bool) {
	if w.owesSome == nil {
		w.owesSome = make(map[string]bool, len(names))
	}
	maps.Copy(w.owesSome, names)
}

// without is what a has and b has not.
func without(a, b map[string]bool) map[string]bool {
	rest := make(map[string]bool)
	for name := range a {
		if !b[name] {
			rest[name] = true
		}
	}
	return rest
}

// owing says that a request waits for its response.
func (w *watch) owing() bool { return w.owesAll || w.owesSome != nil }

// due says that there is something to send.
func (w *watch) due(world *world, n node) bool { return w.owing() || w.stirred(world, n) }

// stirred says that something changed which istiod would send.
func (w *watch) stirred(world *world, n node) bool {
	switch {
	case world.version == w.seen:
		return false
	case w.typeURL == ProxyConfigType:
		return world.news.types[w.typeURL] > w.seen
	case n.lean && pushedWhole(w.typeURL):
		return true
	case pushedWhole(w.typeURL):
		return world.toldAt(n, w.typeURL) > w.seen
	}
	for name := range w.names {
		if world.changedAt(w.typeURL, name) > w.seen {
			return true
		}
	}
	return false
}

// toldAt is the version of the last change after which istiod sends a sidecar a
// type again.
func (w *world) toldAt(n node, typeURL string) uint64 {
	at := max(w.news.everything, w.news.types[typeURL])
	if wildcard(typeURL) {
		for _, ip := range n.ips {
			at = max(at, w.news.nodes[ip])
		}
	}
	return at
}

// changedAt is the version of the last change to a resource that is sent singly.
func (w *world) changedAt(typeURL, name string) uint64 {
	at := max(w.news.everything, w.news.resources[resourceKey{typeURL, name}])
	if typeURL != ClusterLoadAssignmentType {
		return at
	}
	_, _, fqdn, ok := parseClusterName(name)
	if !ok {
		return at
	}
	if _, known := w.services[fqdn]; !known {
		at = max(at, w.news.strangers)
	}
	return max(at, w.news.endpoints[fqdn])
}

// wildcard says that no names stand for all resources of the type.
func wildcard(typeURL string) bool {
	return typeURL == ListenerType || typeURL == ClusterType || typeURL == ProxyConfigType
}

// pushedWhole says that a change sends all watched resources of the type again,
// changed or not: to a proxyless client any change, to a sidecar one that may
// matter to the type. Of the other types istiod sends what changed.
func pushedWhole(typeURL string) bool {
	return wildcard(typeURL) || typeURL == RouteConfigurationType
}
