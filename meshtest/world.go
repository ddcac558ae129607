package meshtest

import (
	"maps"
	"reflect"
	"slices"
)

type resourceKey struct{ typeURL, name string }

// named is a resource and its name.
type named struct {
	name  string
	value []byte
}

// override takes the place of what the Services would say.
type override struct {
	value  []byte
	hidden bool
}

// world is what the control plane says: Services, and single resources that
// were set by hand.
type world struct {
	services  map[string]Service // by full name
	order     []string           // the keys of services, sorted; nil before it is asked for
	overrides map[resourceKey]override
	inbound   map[string]Inbound // by address
	egress    Egress

	encoded map[string]*encoding // by full name; what follows from one Service

	version uint64 // of the last change
	news    news
}

// news are versions of the last changes by what they mean to a sidecar.
type news struct {
	everything uint64                 // that sends all there is
	types      map[string]uint64      // that sends a type again, by type URL
	clusters   map[string]uint64      // to the clusters of a Service, by full name
	endpoints  map[string]uint64      // to its assignments
	strangers  uint64                 // that sends the assignments of unknown Services too
	nodes      map[string]uint64      // to what a node serves, by its address
	resources  map[resourceKey]uint64 // made by hand
}

func newWorld() *world {
	return &world{
		services:  make(map[string]Service),
		overrides: make(map[resourceKey]override),
		inbound:   make(map[string]Inbound),
		encoded:   make(map[string]*encoding),
		version:   1,
		news: news{
			types: make(map[string]uint64), clusters: make(map[string]uint64), endpoints: make(map[string]uint64),
			nodes: make(map[string]uint64), resources: make(map[resourceKey]uint64),
		},
	}
}

// inOrder lists the full names of the Services.
func (w *world) inOrder() []string {
	if w.order == nil {
		w.order = slices.Sorted(maps.Keys(w.services))
	}
	return w.order
}

// set adds or replaces a Service. Nothing is pushed where nothing changed.
func (w *world) set(s Service) {
	fqdn := s.FQDN()
	old, known := w.services[fqdn]
	change := compare(old, s)
	if known && change == (difference{}) {
		return
	}
	w.version++
	w.services[fqdn] = s
	delete(w.encoded, fqdn)
	if !known {
		w.order = nil
	}
	if !known || change.service || change.endpoints && s.Resolution != ResolveStatic {
		w.tell(s, ListenerType, ClusterType, RouteConfigurationType)
	}
	if !known || change.service || change.endpoints {
		w.news.endpoints[fqdn] = w.version
		w.tellNodes(old)
		w.tellNodes(s)
		if s.headless() {
			w.news.types[ListenerType] = w.version
		}
	}
	if change.traffic {
		w.tell(s, ListenerType, ClusterType, RouteConfigurationType)
		w.news.endpoints[fqdn], w.news.strangers = w.version, w.version
	}
	if change.routes {
		for _, t := range []string{ListenerType, ClusterType, RouteConfigurationType} {
			w.news.types[t] = w.version
		}
	}
}

func (w *world) remove(fqdn string) {
	old, known := w.services[fqdn]
	if !known {
		return
	}
	w.version++
	delete(w.services, fqdn)
	delete(w.encoded, fqdn)
	w.order = nil
	w.tell(old, ListenerType, ClusterType, RouteConfigurationType)
	w.tellNodes(old)
	w.news.endpoints[fqdn] = w.version
}

// tell marks types as changed because of a Service.
func (w *world) tell(s Service, typeURLs ...string) {
	w.news.clusters[s.FQDN()] = w.version
	for _, t := range typeURLs {
		w.news.types[t] = w.version
	}
}

// tellNodes marks what the endpoints of a Service serve as changed.
func (w *world) tellNodes(s Service) {
	for _, e := range s.Endpoints {
		w.news.nodes[e.Address] = w.version
	}
}

// difference says in which respects two versions of a Service differ: in those
// of the Service itself, of its endpoints, of a DestinationRule and of a
// VirtualService.
type difference struct{ service, endpoints, traffic, routes bool }

func compare(a, b Service) difference {
	d := difference{
		endpoints: !reflect.DeepEqual(a.Endpoints, b.Endpoints),
		traffic:   !reflect.DeepEqual(a.Traffic, b.Traffic) || !reflect.DeepEqual(a.Subsets, b.Subsets),
		routes:    !reflect.DeepEqual(a.Routes, b.Routes),
	}
	for _, s := range []*Service{&a, &b} {
		s.Endpoints, s.Traffic, s.Subsets, s.Routes = nil, nil, nil, nil
	}
	d.service = !reflect.DeepEqual(a, b)
	return d
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
	w.news.resources[key] = w.version
	w.news.types[key.typeURL] = w.version
}

func (w *world) setInbound(addr string, in *Inbound) {
	if _, known := w.inbound[addr]; in == nil && !known {
		return
	}
	w.version++
	if in == nil {
		delete(w.inbound, addr)
	} else {
		w.inbound[addr] = *in
	}
	w.news.types[ListenerType] = w.version
}

func (w *world) setEgress(e Egress) {
	if e != w.egress {
		w.version++
		w.egress, w.news.everything = e, w.version
	}
}

// encoding is what follows from one Service, encoded once.
type encoding struct {
	clusters    []named           // of the full view
	hosts       map[string][]byte // virtual hosts by namespace and port, as fields
	assignments map[string][]byte // by cluster name
}

// encoding finds that of a Service, or begins it.
func (w *world) encoding(s Service) *encoding {
	fqdn := s.FQDN()
	e := w.encoded[fqdn]
	if e == nil {
		e = &encoding{hosts: make(map[string][]byte), assignments: make(map[string][]byte)}
		w.encoded[fqdn] = e
	}
	return e
}

func (e *encoding) fullClusters(s Service) []named {
	if e.clusters == nil {
		e.clusters = s.fullClusters()
	}
	return e.clusters
}

func (e *encoding) virtualHost(s Service, p Port, namespace string) []byte {
	if namespace != s.Namespace && len(s.Aliases) == 0 {
		namespace = "" // the same for all others
	}
	key := hostPort(namespace, p.Number)
	b, ok := e.hosts[key]
	if !ok {
		b = appendMessage(nil, 2, s.fullHost(p, namespace).marshal(true))
		e.hosts[key] = b
	}
	return b
}

// assignment is the same for every subset where none is defined.
func (e *encoding) assignment(s Service, name string, p Port, sub Subset) []byte {
	b, ok := e.assignments[name]
	if !ok {
		a := s.assignment(p, sub)
		a.Cluster = name
		b = a.Marshal()
		e.assignments[name] = b
	}
	return b
}
