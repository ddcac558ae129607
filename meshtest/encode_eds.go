package meshtest

// Health is envoy.config.core.v3.HealthStatus.
type Health uint8

// The states of an endpoint. Clients use those that are Unknown or Healthy.
const (
	Unknown Health = iota
	Healthy
	Unhealthy
	Draining
	TimedOut
	Degraded
)

// ClusterLoadAssignment is an envoy.config.endpoint.v3.ClusterLoadAssignment.
type ClusterLoadAssignment struct {
	Cluster    string
	Localities []Locality
	// Of policy: calls to drop, and how far the healthy ones of a priority are
	// loaded before the next has a share, in percent; 0 leaves it out.
	Drops            []Drop
	Overprovisioning uint32
	Raw              []byte // appended as it is
}

// Drop is a DropOverload: that many of a million calls fail at once.
type Drop struct {
	Category string
	Share    uint32
}

// Locality is an envoy.config.endpoint.v3.LocalityLbEndpoints.
type Locality struct {
	Region, Zone, SubZone string
	Unnamed               bool   // no locality message at all
	Weight                uint32 // 0 leaves it out
	Priority              uint32
	Endpoints             []LbEndpoint
	Raw                   []byte // appended as it is
}

// LbEndpoint is an envoy.config.endpoint.v3.LbEndpoint.
type LbEndpoint struct {
	Address  string
	Port     uint32
	Weight   uint32 // 0 leaves it out
	Health   Health
	TLSMode  string // metadata envoy.transport_socket_match tlsMode; empty leaves it out
	Workload string // metadata istio workload; empty leaves it out
	Hostname string // empty leaves it out
	Raw      []byte // appended as it is
}

// Marshal encodes the message.
func (a ClusterLoadAssignment) Marshal() []byte {
	b := appendString(nil, 1, a.Cluster)
	for _, l := range a.Localities {
		b = appendMessage(b, 2, l.marshal())
	}
	var policy []byte
	for _, d := range a.Drops {
		policy = appendMessage(policy, 2, appendMessage(appendString(nil, 1, d.Category), 2, share(d.Share)))
	}
	if policy = appendLimit(policy, 3, a.Overprovisioning, 0); policy != nil {
		b = appendMessage(b, 4, policy)
	}
	return append(b, a.Raw...)
}

func (l Locality) marshal() []byte {
	var b []byte
	if !l.Unnamed {
		place := appendString(nil, 1, l.Region)
		place = appendString(place, 2, l.Zone)
		b = appendMessage(b, 1, appendString(place, 3, l.SubZone))
	}
	for _, e := range l.Endpoints {
		b = appendMessage(b, 2, e.marshal())
	}
	if l.Weight != 0 {
		b = appendWrapped(b, 3, uint64(l.Weight))
	}
	return append(appendVarint(b, 5, uint64(l.Priority)), l.Raw...)
}

func (e LbEndpoint) marshal() []byte {
	place := appendMessage(nil, 1, address(e.Address, e.Port))
	b := appendMessage(nil, 1, appendString(place, 3, e.Hostname))
	b = appendVarint(b, 2, uint64(e.Health))
	if metadata := e.metadata(); metadata != nil {
		b = appendMessage(b, 3, metadata)
	}
	if e.Weight != 0 {
		b = appendWrapped(b, 4, uint64(e.Weight))
	}
	return append(b, e.Raw...)
}

func (e LbEndpoint) metadata() []byte {
	var b []byte
	if e.TLSMode != "" {
		b = appendTextStruct(b, "envoy.transport_socket_match", "tlsMode", e.TLSMode)
	}
	if e.Workload != "" {
		b = appendTextStruct(b, "istio", "workload", e.Workload)
	}
	return b
}
