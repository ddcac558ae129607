package proxyless

import "time"

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
	failure     string // why calls cannot be sent (TLS demanded...); empty when they can

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
