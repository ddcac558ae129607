package meshtest

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

type resourceKey struct{ typeURL, name string }

// override takes the place of what the Services would say.
type override struct {
	value  []byte
	hidden bool
}

// world is what the control plane says: Services, and single resources that
// were set by hand.
type world struct {
	version   uint64                 // of the last change
	changed   map[resourceKey]uint64 // version of the last change to what is pushed singly
	services  map[string]Service     // by FQDN
	overrides map[resourceKey]override
	encoded   map[string]map[string][]byte // assignments by FQDN and cluster name
}

func newWorld() *world {
	return &world{
		version:   1,
		changed:   make(map[resourceKey]uint64),
		services:  make(map[string]Service),
		overrides: make(map[resourceKey]override),
		encoded:   make(map[string]map[string][]byte),
	}
}

// set adds or replaces a Service. Nothing is pushed where nothing changed.
func (w *world) set(s Service) {
	fqdn := s.FQDN()
	old, known := w.services[fqdn]
	samePlaces := known && old.Address == s.Address &&
		slices.Equal(old.Ports, s.Ports) && slices.Equal(old.Endpoints, s.Endpoints)
	if samePlaces && sameRoutes(old.Routes, s.Routes) {
		return
	}
	w.version++
	w.services[fqdn] = s
	if !samePlaces {
		w.touchEndpoints(old)
		w.touchEndpoints(s)
	}
}

func (w *world) remove(fqdn string) {
	old, known := w.services[fqdn]
	if !known {
		return
	}
	w.version++
	delete(w.services, fqdn)
	w.touchEndpoints(old)
}

// touchEndpoints marks the assignments of every port as changed.
func (w *world) touchEndpoints(s Service) {
	delete(w.encoded, s.FQDN())
	for _, p := range s.Ports {
		name := ClusterName(s.FQDN(), p.Number)
		w.changed[resourceKey{ClusterLoadAssignmentType, name}] = w.version
	}
}

// setOverride replaces one resource; a nil override lets the Services speak
// again.
func (w *world) setOverride(key resourceKey, o *override) {
	if _, known := w.overrides[key]; o == nil && !known {
		return
	}
	w.version++
	if o == nil {
		delete(w.overrides, key)
	} else {
		w.overrides[key] = *o
	}
	w.changed[key] = w.version
}

func sameRoutes(a, b []Route) bool {
	return slices.EqualFunc(a, b, func(x, y Route) bool { return bytes.Equal(x.marshal(), y.marshal()) })
}

// resources are those that a response to the watch holds, in the order of their
// names: all that are asked for where the type is pushed whole or a request
// waits, else those that changed.
func (w *world) resources(n node, asked *watch) []Any {
	found := make(map[string][]byte)
	for _, name := range asked.names {
		if !w.isNews(asked, name) {
			continue
		}
		if value, ok := w.generate(n, asked.typeURL, name); ok {
			found[name] = value
		}
	}
	if asked.typeURL == ListenerType {
		w.listeners(n, asked.names, found)
	}
	w.override(asked, found)
	list := make([]Any, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, Any{TypeURL: asked.typeURL, Value: found[name]})
	}
	return list
}

// generate builds one resource that is asked for by its full name.
func (w *world) generate(n node, typeURL, name string) ([]byte, bool) {
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
		if known && subset == "" {
			return service.Cluster(port).Marshal(), true
		}
	case ClusterLoadAssignmentType:
		if known {
			return w.assignment(service, name, port), true
		}
		return ClusterLoadAssignment{Cluster: name}.Marshal(), true
	}
	return nil, false
}

// assignment is the same for every subset, as it is in istiod where no
// DestinationRule defines them.
func (w *world) assignment(s Service, name string, p Port) []byte {
	cache := w.encoded[s.FQDN()]
	if cache == nil {
		cache = make(map[string][]byte)
		w.encoded[s.FQDN()] = cache
	}
	b, ok := cache[name]
	if !ok {
		a := s.Assignment(p)
		a.Cluster = name
		b = a.Marshal()
		cache[name] = b
	}
	return b
}

// override puts what was set by hand into the place of what was found.
func (w *world) override(asked *watch, found map[string][]byte) {
	for key, o := range w.overrides {
		if key.typeURL != asked.typeURL {
			continue
		}
		_, present := found[key.name]
		switch {
		case o.hidden:
			delete(found, key.name)
		case present || asked.includes(key.name) && w.isNews(asked, key.name):
			found[key.name] = o.value
		}
	}
}

// isNews says that a resource belongs into the next response to a watch.
func (w *world) isNews(asked *watch, name string) bool {
	return asked.owed || pushedWhole(asked.typeURL) || w.changedAt(asked.typeURL, name) > asked.seen
}

// changedAt is the version of the last change to a resource that is pushed
// singly. An assignment of a subset changes with that of its cluster.
func (w *world) changedAt(typeURL, name string) uint64 {
	at := w.changed[resourceKey{typeURL, name}]
	port, subset, fqdn, ok := parseClusterName(name)
	if ok && subset != "" && typeURL == ClusterLoadAssignmentType {
		at = max(at, w.changed[resourceKey{typeURL, ClusterName(fqdn, port)}])
	}
	return at
}

// includes says that the watch asks for a resource of this name. An API listener
// is also asked for without its port, and by naming nothing.
func (w *watch) includes(name string) bool {
	if slices.Contains(w.names, name) {
		return true
	}
	if w.typeURL != ListenerType || strings.HasPrefix(name, inboundPrefix) {
		return false
	}
	i := strings.LastIndexByte(name, ':')
	return len(w.names) == 0 || i >= 0 && slices.Contains(w.names, name[:i])
}
