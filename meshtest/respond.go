package meshtest

import (
	"maps"
	"slices"
)

// respond takes what is due from a watch; nil where nothing is to be sent. The
// watch is brought up to date as though it had been sent.
func (w *watch) respond(world *world, n node) *answer {
	if !w.due(world, n) {
		return nil
	}
	var a answer
	switch {
	case w.delta && !n.lean && w.typeURL == ClusterType && !w.owing() && world.news.everything <= w.seen:
		a = w.changedClusters(world, n)
	case w.delta && wildcard(w.typeURL):
		a = w.renew(world, n)
	default:
		a = w.choose(world, n)
	}
	if len(a.list) == 0 && len(a.removed) == 0 && !w.speaksAnyway(n) {
		return nil
	}
	return &a
}

// speaksAnyway says that a response is sent even when it holds nothing.
func (w *watch) speaksAnyway(n node) bool {
	return wildcard(w.typeURL) && w.typeURL != ProxyConfigType || n.lean && w.typeURL == RouteConfigurationType
}

// choose answers for the types that are watched by name: all of them, those that
// a request named, or those that changed.
func (w *watch) choose(world *world, n node) answer {
	wanted := w.names
	whole := w.owesAll || pushedWhole(w.typeURL) && w.stirred(world, n)
	if !whole && (w.owesSome != nil || !pushedWhole(w.typeURL)) {
		wanted = maps.Clone(w.owesSome)
		if wanted == nil {
			wanted = make(map[string]bool)
		}
		if !pushedWhole(w.typeURL) {
			for name := range w.names {
				if world.changedAt(w.typeURL, name) > w.seen {
					wanted[name] = true
				}
			}
		}
	}
	w.settle(world)
	a := answer{list: world.lookup(n, w.typeURL, slices.Sorted(maps.Keys(wanted)))}
	if w.delta {
		a.removed = missing(wanted, a.list)
	}
	return a
}

// renew answers for listeners and clusters in the delta protocol, where istiod
// takes what it sends for what is watched. A proxyless client that names
// something is answered that alone, and has its other names forgotten.
func (w *watch) renew(world *world, n node) answer {
	wanted := w.names
	if w.owesAll || w.owesSome == nil {
		w.settle(world)
	} else {
		wanted = w.owesSome
		w.owesSome = nil
		if !n.lean {
			w.settle(world)
		} else if w.seen == 0 {
			w.seen = world.version
		}
	}
	a := answer{list: world.lookup(n, w.typeURL, slices.Sorted(maps.Keys(wanted)))}
	held := wanted
	if !n.lean {
		held = w.names
	}
	a.removed = missing(held, a.list)
	w.names = make(map[string]bool, len(a.list))
	for _, r := range a.list {
		w.names[r.name] = true
	}
	return a
}

// changedClusters answers a change with the clusters of the Services that it
// concerns, and with those that istiod sends each time.
func (w *watch) changedClusters(world *world, n node) answer {
	found := make(map[string][]byte)
	world.standing(n, found)
	exist := maps.Clone(found)
	for _, fqdn := range world.inOrder() {
		s := world.services[fqdn]
		list := world.encoding(s).fullClusters(s)
		put(exist, list)
		if world.news.clusters[fqdn] > w.seen {
			put(found, list)
		}
	}
	for key, o := range world.overrides {
		if key.typeURL != ClusterType {
			continue
		}
		delete(found, key.name)
		delete(exist, key.name)
		if !o.hidden {
			exist[key.name] = o.value
			if world.news.resources[key] > w.seen {
				found[key.name] = o.value
			}
		}
	}
	for key, at := range world.news.resources {
		if value, ok := exist[key.name]; ok && key.typeURL == ClusterType && at > w.seen {
			found[key.name] = value
		}
	}
	w.settle(world)
	var a answer
	for _, name := range slices.Sorted(maps.Keys(found)) {
		a.list = append(a.list, named{name, found[name]})
		w.names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(w.names)) {
		if _, ok := exist[name]; !ok {
			a.removed = append(a.removed, name)
			delete(w.names, name)
		}
	}
	return a
}

// settle notes that the watch is up to date.
func (w *watch) settle(world *world) {
	w.seen, w.owesAll, w.owesSome = world.version, false, nil
}

// missing lists the names that are not there.
func missing(names map[string]bool, list []named) []string {
	there := make(map[string]bool, len(list))
	for _, r := range list {
		there[r.name] = true
	}
	return slices.Sorted(maps.Keys(without(names, there)))
}
