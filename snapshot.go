package proxyless

import (
	"maps"
	"slices"
	"time"
)

// resourceStatus says how much is known of a resource.
type resourceStatus uint8

const (
	statusRequested resourceStatus = iota // asked for, or about to be; no answer yet
	statusAccepted                        // a value is held
	statusAbsent                          // the mesh says that it does not exist, or never answered
	statusRejected                        // the only value sent so far was refused
)

var statusWords = [...]string{"requested", "ok", "does not exist", "rejected"}

func (s resourceStatus) String() string { return statusWords[s] }

// resourceState is all that is known of one resource at one time. It is
// immutable.
type resourceState struct {
	kind    kind
	name    string
	status  resourceStatus
	value   any       // *listener, *routeConfig, *cluster or *assignment; nil unless accepted
	version string    // of the response that brought value
	since   time.Time // when it reached this status or got this value
	applied []string  // paths of the fields that are present and obeyed
	ignored []string  // field paths with policy that is not applied

	ports []string // of a listener asked for without a port: the names of its ports' listeners

	reason, advice string // why it is absent, and what to do, where there is more to say than that the mesh does not know it

	rejection       string // why the latest value was refused; the last good one, if any, is still in force
	rejectedVersion string
	rejectedFields  []string // for which fields, where it was for any
}

// snapshot is the whole configuration at one time: pure data, immutable, read
// through an atomic pointer. An update shares with its predecessor all that
// did not change.
type snapshot struct {
	generation uint64
	resources  [kindCount]map[string]*resourceState
}

// with is the snapshot after an update. Only the maps of the kinds that
// changed are copied.
func (s *snapshot) with(changed, removed []*resourceState) *snapshot {
	next := &snapshot{generation: s.generation + 1, resources: s.resources}
	var copied [kindCount]bool
	own := func(k kind) map[string]*resourceState {
		if !copied[k] {
			copied[k] = true
			if next.resources[k] = maps.Clone(s.resources[k]); next.resources[k] == nil {
				next.resources[k] = map[string]*resourceState{}
			}
		}
		return next.resources[k]
	}
	for _, r := range removed {
		delete(own(r.kind), r.name)
	}
	for _, r := range changed {
		own(r.kind)[r.name] = r
	}
	return next
}

func (s *snapshot) get(k kind, name string) *resourceState { return s.resources[k][name] }

// gapAt says that a resource is not known, or only refused.
func (s *snapshot) gapAt(k kind, name string) bool {
	state := s.get(k, name)
	return state == nil || state.status == statusRequested || state.status == statusRejected
}

// lacks says that a cluster or its endpoints are not known, or only refused.
func (s *snapshot) lacks(name, authority string) bool {
	if s.gapAt(kindCluster, name) {
		return true
	}
	v, ok := s.get(kindCluster, name).value.(*cluster)
	return ok && v.failure == "" && s.gapAt(kindEndpoints, s.endpointsOf(v, authority))
}

// endpointsOf is the name of the assignment that a cluster uses for calls to an
// authority: one of ORIGINAL_DST for which EDS has no endpoints calls what they
// name.
func (s *snapshot) endpointsOf(v *cluster, authority string) string {
	name := v.endpointsName(authority)
	if v.originalDst && s.get(kindEndpoints, hostPrefix+authority) != nil {
		if state := s.get(kindEndpoints, name); state != nil && v.deserted(state.value) {
			return hostPrefix + authority
		}
	}
	return name
}

// reference names a resource that another one leads to.
type reference struct {
	kind kind
	name string
}

// leadsTo lists what a resource names: the next links of the chain.
func leadsTo(value any) []reference {
	switch r := value.(type) {
	case *listener:
		if r.inline != nil {
			return routeLeadsTo(r.inline)
		}
		if r.routeName != "" {
			return []reference{{kindRoute, r.routeName}}
		}
	case *routeConfig:
		return routeLeadsTo(r)
	case *cluster:
		return clusterLeadsTo(r)
	}
	return nil
}

// clusterLeadsTo leaves out the endpoints of a cluster that sends calls to
// whatever they name: those a derived route leads to.
func clusterLeadsTo(c *cluster) []reference {
	var to []reference
	for _, child := range c.children {
		to = append(to, reference{kindCluster, child})
	}
	if name := c.endpointsName(""); c.failure == "" && name != "" && c.source != discoverPassthrough {
		to = append(to, reference{kindEndpoints, name})
	}
	return to
}

func routeLeadsTo(r *routeConfig) []reference {
	var to []reference
	seen := map[string]struct{}{}
	for _, name := range r.clusterNames(nil) {
		if _, dup := seen[name]; !dup {
			seen[name] = struct{}{}
			to = append(to, reference{kindCluster, name})
		}
	}
	return to
}

// absentAdvice is what to do about a resource that the mesh does not know.
var absentAdvice = [kindCount]string{
	kindListener: "check providedBy (name, name.namespace or full host), the port, and that the Service exists and is visible from this namespace (exportTo, Sidecar)",
	kindCluster:  "check that the VirtualService's destination exists, and its subset in a DestinationRule",
}

// resourceView is one resource as the QoS port shows it.
type resourceView struct {
	Kind      string   `json:"kind"`
	Name      string   `json:"name"`
	Status    string   `json:"status"`
	Version   string   `json:"version,omitempty"`
	Since     string   `json:"since"`
	Ports     []string `json:"ports,omitempty"`
	Endpoints []string `json:"endpoints,omitempty"`
	Ignored   []string `json:"ignored,omitempty"`
	Rejected  string   `json:"rejected,omitempty"`
}

// dump lists the snapshot for people, in dependency order and then by name.
func (s *snapshot) dump() any {
	views := []resourceView{}
	for k := range s.resources {
		for _, name := range slices.Sorted(maps.Keys(s.resources[k])) {
			r := s.resources[k][name]
			v := resourceView{Kind: r.kind.String(), Name: r.name, Status: r.status.String(), Version: r.version, Since: r.since.UTC().Format(time.RFC3339),
				Ports: r.ports, Ignored: r.ignored, Rejected: r.rejection}
			if a, ok := r.value.(*assignment); ok {
				for i := range a.endpoints {
					v.Endpoints = append(v.Endpoints, a.endpoints[i].addr.String())
				}
			}
			views = append(views, v)
		}
	}
	return map[string]any{"generation": s.generation, "resources": views}
}
