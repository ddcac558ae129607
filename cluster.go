package proxyless

import (
	"slices"
	"time"
)

// discoveryType is Cluster.cluster_discovery_type: where the endpoints come from.
type discoveryType uint8

const (
	discoverEDS         discoveryType = iota // EDS; also ORIGINAL_DST of a Service, which istiod answers by EDS
	discoverStatic                           // STATIC: load_assignment has addresses
	discoverStrictDNS                        // STRICT_DNS: all addresses of all names of load_assignment
	discoverLogicalDNS                       // LOGICAL_DNS: the first address of the one name
	discoverAggregate                        // envoy.clusters.aggregate: other clusters, in order
	discoverPassthrough                      // ORIGINAL_DST without a Service (PassthroughCluster): whatever the caller named
)

// cluster is what is kept of an envoy.config.cluster.v3.Cluster.
type cluster struct {
	name     string
	source   discoveryType
	edsName  string      // eds_cluster_config.service_name, or the cluster's name
	inline   *assignment // discoverStatic: its endpoints; DNS clusters: their localities alone; else nil
	names    []dnsName   // DNS clusters
	dns      dnsSettings // DNS clusters
	children []string    // discoverAggregate

	originalDst bool   // ORIGINAL_DST: where EDS has no endpoints, a call goes to the address that the caller named
	failure     string // why calls cannot be sent; empty when they can

	tls     *tlsContext   // transport_socket; nil is plain text
	sockets []socketMatch // transport_socket_matches: the first one that matches an endpoint comes in its place
	nameSNI bool          // auto_sni: what is asked for is the host of the call's authority
	nameSAN bool          // auto_san_validation: the certificate has to have it

	balance  balancing
	conn     connSettings
	limits   *breakers         // nil where there are none
	outlier  *outlierDetection // nil where there is none
	panic    uint32            // common_lb_config.healthy_panic_threshold in percent; 0 is none
	weighted bool              // locality_weighted_lb_config: localities have shares of their own
	override healthSet         // common_lb_config.override_host_status: what session affinity may still reach
}

// dnsName is one endpoint of a DNS cluster.
type dnsName struct {
	host     string
	port     uint16
	weight   uint32
	locality int // index into the localities of cluster.inline
	priority uint32
	hostname string // Endpoint.hostname; empty where it is not said
	labels   uint16 // as endpoint.labels, of cluster.inline
}

// dnsSettings say how the names of a cluster are resolved.
type dnsSettings struct {
	refresh time.Duration // dns_refresh_rate; 0 is Envoy's 5 s
	family  dnsFamily
}

// dnsFamily is Cluster.dns_lookup_family: which addresses of a name count.
type dnsFamily uint8

const (
	dnsAuto    dnsFamily = iota // IPv6 where there are any, else IPv4
	dnsV4                       // IPv4 only
	dnsV6                       // IPv6 only
	dnsV4First                  // IPv4 where there are any, else IPv6
	dnsAll                      // all
)

// healthSet is a set of healthStatus: bit n for status n.
type healthSet uint8

func (s healthSet) has(h healthStatus) bool { return s>>h&1 != 0 }

// socketMatch is what is kept of a Cluster.TransportSocketMatch.
type socketMatch struct {
	name   string
	labels socketLabels // that an endpoint has to have; none matches all
	tls    *tlsContext  // nil is plain text
}

// socketLabels are the fields of metadata "envoy.transport_socket_match", each
// value in one canonical form.
type socketLabels map[string]string

// match says that an endpoint's labels have all that are asked for.
func (s socketLabels) match(asked socketLabels) bool {
	for name, value := range asked {
		if its, ok := s[name]; !ok || its != value {
			return false
		}
	}
	return true
}

// secured says that connections may be encrypted.
func (c *cluster) secured() bool { return c.tls != nil || len(c.sockets) > 0 }

// trusting says that some of the endpoints are spoken to in TLS and need not
// prove who they are.
func (c *cluster) trusting() bool {
	anybody := func(t *tlsContext) bool { return t != nil && t.failure == "" && !t.verifies() }
	return anybody(c.tls) || slices.ContainsFunc(c.sockets, func(m socketMatch) bool { return anybody(m.tls) })
}

// contextFor is the context for an endpoint with labels; nil is plain text.
func (c *cluster) contextFor(labels socketLabels) *tlsContext {
	for i := range c.sockets {
		if labels.match(c.sockets[i].labels) {
			return c.sockets[i].tls
		}
	}
	return c.tls
}
