package proxyless

import "net/netip"

// healthStatus is envoy.config.core.v3.HealthStatus.
type healthStatus uint8

const (
	healthUnknown healthStatus = iota
	healthHealthy
	healthUnhealthy
	healthDraining
	healthTimeout
	healthDegraded
)

// usable says that calls may be sent there (gRFC A27: only UNKNOWN and HEALTHY).
func (h healthStatus) usable() bool { return h <= healthHealthy }

// assignment is what is kept of an envoy.config.endpoint.v3.ClusterLoadAssignment:
// the usable endpoints of all localities in one slice, each locality a range of
// it, and the others apart. Localities are sorted by priority.
type assignment struct {
	cluster      string
	localities   []locality
	endpoints    []endpoint      // those that are usable
	others       []otherEndpoint // those that are not, for their health: for panic, session affinity and error texts
	overprovided uint32          // policy.overprovisioning_factor in percent; 0 is 140
	drops        []dropShare
	labels       []socketLabels // that endpoints have, each set once
}

// dropShare is a ClusterLoadAssignment.Policy.DropOverload.
type dropShare struct {
	category string
	share    uint32 // per million
}

// otherEndpoint is an endpoint that is not usable.
type otherEndpoint struct {
	endpoint
	locality int32 // index into localities
}

type locality struct {
	region, zone, subZone string
	priority              uint32
	weight                uint32 // load_balancing_weight; where no locality has one, the sum of its endpoints'
	first, count          int    // endpoints[first : first+count]
	others                int    // how many of assignment.others are its own
}

type endpoint struct {
	addr   netip.AddrPort
	weight uint32 // load_balancing_weight; 1 where absent
	health healthStatus
	labels uint16         // its set of assignment.labels, from 1; 0 is none
	extra  *endpointExtra // nil for most
}

// endpointExtra is what few endpoints have.
type endpointExtra struct {
	hostname string           // Endpoint.hostname
	hashKey  string           // metadata envoy.lb/hash_key (gRFC A76)
	more     []netip.AddrPort // additional_addresses (gRFC A61)
}

// hostname is the endpoint's; empty for most.
func (e *endpoint) hostname() string {
	if e.extra == nil {
		return ""
	}
	return e.extra.hostname
}

// labelsOf are an endpoint's labels.
func (a *assignment) labelsOf(e *endpoint) socketLabels {
	if e.labels == 0 {
		return nil
	}
	return a.labels[e.labels-1]
}
