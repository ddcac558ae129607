package proxyless

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"google.golang.org/protobuf/proto"
)

func referenceCluster(m *clusterv3.Cluster) (*cluster, error) {
	x := &cluster{name: m.Name}
	if m.Name == "" {
		return nil, errors.New("no name")
	}
	var err error
	if x.connectTimeout, err = referenceDuration(m.ConnectTimeout); err != nil {
		return nil, err
	}
	if kind, ok := m.ClusterDiscoveryType.(*clusterv3.Cluster_Type); ok && kind.Type == clusterv3.Cluster_EDS {
		if !sameStream(m.GetEdsClusterConfig().GetEdsConfig()) {
			return nil, errors.New("eds_config")
		}
		x.edsName = either(m.EdsClusterConfig.ServiceName, m.Name)
	} else {
		x.failure = "not EDS"
	}
	if x.failure == "" {
		x.failure = referenceTransport(m)
	}
	if m.LoadBalancingPolicy == nil {
		if m.LbPolicy != clusterv3.Cluster_ROUND_ROBIN {
			x.policy = lbOther
		}
		return x, nil
	}
	x.policy, err = referencePolicy(m.LoadBalancingPolicy, 16)
	return x, err
}

// referenceTransport is why plain text is not what the mesh wants of every
// connection: the first socket that is for all endpoints decides.
func referenceTransport(m *clusterv3.Cluster) string {
	plain, name := referenceSocket(m.TransportSocket)
	for _, match := range m.TransportSocketMatches {
		if len(match.GetMatch().GetFields()) == 0 {
			plain, name = referenceSocket(match.TransportSocket)
			break
		}
	}
	switch {
	case plain:
		return ""
	case name == nameOf(&tlsv3.UpstreamTlsContext{}), name == "envoy.transport_sockets.tls":
		return demandsTLS
	}
	return "another socket"
}

func referencePolicy(m *clusterv3.LoadBalancingPolicy, depth int) (lbPolicy, error) {
	if depth == 0 || len(m.GetPolicies()) == 0 {
		return 0, errors.New("too deep, or no policy")
	}
	config := m.Policies[0].GetTypedExtensionConfig().GetTypedConfig()
	switch name, _ := extensionType(config); name {
	case nameOf(&roundrobinv3.RoundRobin{}):
		return lbRoundRobin, nil
	case nameOf(&wrrlocalityv3.WrrLocality{}):
		locality := &wrrlocalityv3.WrrLocality{}
		if err := proto.Unmarshal(config.Value, locality); err != nil {
			return 0, err
		}
		if locality.EndpointPickingPolicy == nil {
			return lbRoundRobin, nil
		}
		return referencePolicy(locality.EndpointPickingPolicy, depth-1)
	}
	return lbOther, nil
}

func referenceAssignment(m *endpointv3.ClusterLoadAssignment) (*assignment, error) {
	a := &assignment{cluster: m.ClusterName}
	if m.ClusterName == "" {
		return nil, errors.New("no name")
	}
	for _, drop := range m.GetPolicy().GetDropOverloads() {
		if err := referenceFraction(drop.DropPercentage, new(uint32)); err != nil {
			return nil, err
		}
	}
	weighted := slices.ContainsFunc(m.Endpoints, func(l *endpointv3.LocalityLbEndpoints) bool { return l.LoadBalancingWeight != nil })
	localities := slices.DeleteFunc(slices.Clone(m.Endpoints), func(l *endpointv3.LocalityLbEndpoints) bool {
		return weighted && l.LoadBalancingWeight.GetValue() == 0
	})
	slices.SortStableFunc(localities, func(a, b *endpointv3.LocalityLbEndpoints) int { return cmp.Compare(a.Priority, b.Priority) })
	seen := map[netip.AddrPort]bool{}
	sums := map[uint32]uint64{} // by priority
	for _, l := range localities {
		place := locality{region: l.Locality.GetRegion(), zone: l.Locality.GetZone(), subZone: l.Locality.GetSubZone(), priority: l.Priority, first: len(a.endpoints)}
		var sum uint64
		for _, m := range l.LbEndpoints {
			e, use, err := referenceEndpoint(m)
			switch {
			case err != nil:
				return nil, err
			case m.HealthStatus > corev3.HealthStatus_HEALTHY || m.HealthStatus < 0:
				a.unusable++
			case use && !seen[e.addr]:
				seen[e.addr] = true
				a.endpoints = append(a.endpoints, e)
				sum += uint64(e.weight)
			}
		}
		place.count, place.weight = len(a.endpoints)-place.first, uint32(sum)
		if weighted {
			place.weight = l.LoadBalancingWeight.Value
		}
		if sums[l.Priority] += uint64(place.weight); sum > math.MaxUint32 || sums[l.Priority] > math.MaxUint32 {
			return nil, errors.New("weights")
		}
		a.localities = append(a.localities, place)
	}
	return a, nil
}

// referenceEndpoint is an endpoint that can be called, unless its health says
// that it must not be.
func referenceEndpoint(m *endpointv3.LbEndpoint) (e endpoint, use bool, err error) {
	socket := m.GetEndpoint().GetAddress().GetSocketAddress()
	if m.HealthStatus > corev3.HealthStatus_HEALTHY || m.HealthStatus < 0 || socket == nil {
		return e, false, nil
	}
	if socket.GetPortValue() > math.MaxUint16 {
		return e, false, fmt.Errorf("port %d", socket.GetPortValue())
	}
	ip, err := netip.ParseAddr(socket.Address)
	e = endpoint{addr: netip.AddrPortFrom(ip.Unmap(), uint16(socket.GetPortValue())), weight: 1, health: healthStatus(m.HealthStatus)}
	if m.LoadBalancingWeight != nil {
		e.weight = m.LoadBalancingWeight.Value
	}
	return e, err == nil && e.addr.Port() != 0 && e.weight > 0, nil
}
