package meshtest

import (
	"maps"
	"slices"
	"strings"
)

// answer is what a response holds.
type answer struct {
	list    []named
	removed []string // in the delta protocol
}

// lookup finds the resources of a type for a node under the given names, in the
// order of their names. Of listeners and clusters a sidecar gets all there are,
// whatever it names; a proxyless client gets all listeners where it names none.
func (w *world) lookup(n node, typeURL string, names []string) []named {
	found := make(map[string][]byte)
	switch {
	case typeURL == ProxyConfigType: // what SetMeshRoots said
	case n.lean && typeURL == ListenerType:
		w.leanListeners(n, names, found)
	case n.lean || !wildcard(typeURL):
		for _, name := range names {
			if value, ok := w.generate(n, typeURL, name); ok {
				found[name] = value
			}
		}
	case typeURL == ListenerType:
		w.fullListeners(n, found)
	default:
		w.fullClusters(n, found)
	}
	w.override(n, typeURL, names, found)
	list := make([]named, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, named{name, found[name]})
	}
	return list
}

// fullClusters are the clusters of a sidecar.
func (w *world) fullClusters(n node, found map[string][]byte) {
	for _, fqdn := range w.inOrder() {
		s := w.services[fqdn]
		put(found, w.encoding(s).fullClusters(s))
	}
	w.standing(n, found)
}

// standing are the clusters that no Service makes, or that are made again with
// every change.
func (w *world) standing(n node, found map[string][]byte) {
	put(found, fixedClusters)
	put(found, w.inboundClusters(n))
}

func put(found map[string][]byte, list []named) {
	for _, r := range list {
		found[r.name] = r.value
	}
}

// generate builds one resource that is asked for by its full name.
func (w *world) generate(n node, typeURL, name string) ([]byte, bool) {
	if typeURL == RouteConfigurationType && !n.lean {
		return w.fullRoutes(n, name), true
	}
	number, subset, fqdn, ok := parseClusterName(name)
	service := w.services[fqdn]
	port, known := service.port(number)
	switch typeURL {
	case RouteConfigurationType:
		if known {
			return service.RouteConfiguration(port, n.namespace).Marshal(), true
		}
		return RouteConfiguration{Name: name}.Marshal(), ok
	case ClusterType:
		sub, defined := service.subset(subset)
		if known && (subset == "" || defined) {
			return service.leanCluster(port, sub).Marshal(), true
		}
	case ClusterLoadAssignmentType:
		sub, defined := service.subset(subset)
		if known && (subset == "" || defined || service.Subsets == nil) && !service.resolvesItself() {
			return w.encoding(service).assignment(service, name, port, sub), true
		}
		return ClusterLoadAssignment{Cluster: name}.Marshal(), true
	}
	return nil, false
}

// resolvesItself says that a client has the places of the service from its
// cluster, or from nowhere.
func (s Service) resolvesItself() bool { return s.external() && s.Resolution != ResolveStatic }

// override puts what was set by hand into the place of what was found.
func (w *world) override(n node, typeURL string, names []string, found map[string][]byte) {
	for key, o := range w.overrides {
		if key.typeURL != typeURL {
			continue
		}
		_, present := found[key.name]
		switch {
		case o.hidden:
			delete(found, key.name)
		case present || n.asksFor(typeURL, names, key.name):
			found[key.name] = o.value
		}
	}
}

// asksFor says that a resource of this name belongs to what a node asked for. An
// API listener is also asked for without its port, and by naming nothing.
func (n node) asksFor(typeURL string, names []string, name string) bool {
	if typeURL == ProxyConfigType {
		return true
	}
	if !n.lean && wildcard(typeURL) {
		return typeURL == ClusterType || !leanName(name)
	}
	if slices.Contains(names, name) {
		return true
	}
	if typeURL != ListenerType || strings.HasPrefix(name, inboundPrefix) {
		return false
	}
	i := strings.LastIndexByte(name, ':')
	return len(names) == 0 || i >= 0 && slices.Contains(names, name[:i])
}
