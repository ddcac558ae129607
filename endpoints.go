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
// the endpoints of all localities in one slice, each locality a range of it.
// Localities are sorted by priority, and only usable endpoints are kept.
type assignment struct {
	cluster    string
	localities []locality
	endpoints  []endpoint
	unusable   int // endpoints left out for their health
}

type locality struct {
	region, zone, subZone string
	priority              uint32
	weight                uint32 // load_balancing_weight; where no locality has one, the sum of its endpoints'
	first, count          int    // endpoints[first : first+count]
}

type endpoint struct {
	addr   netip.AddrPort
	weight uint32 // load_balancing_weight; 1 where absent
	health healthStatus
}
