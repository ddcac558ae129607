package proxyless

import (
	"fmt"
	"strings"
)

var (
	// clusterUnapplied names what a cluster may ask for and does not get.
	clusterUnapplied = unapplied{8: "health_checks", 22: "lb_subset_config", 42: "lrs_server"}

	discoveryTypes = [...]string{"STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST"}
	lbPolicies     = [...]string{"ROUND_ROBIN", "LEAST_REQUEST", "RING_HASH", "RANDOM", "4", "MAGLEV", "CLUSTER_PROVIDED", "LOAD_BALANCING_POLICY_CONFIG"}
)

// Values of Cluster.type.
const (
	enumStatic = iota
	enumStrictDNS
	enumLogicalDNS
	enumEDS
	enumOriginalDst
)

// clusterParts are the messages inside a cluster, before they are looked into.
type clusterParts struct {
	discovery oneof
	eds, load []byte
	timeout   []byte
	breakers  []byte
	outlier   []byte
	socket    []byte
	sockets   [][]byte // transport_socket_matches
	matcher   bool     // transport_socket_matcher
	common    []byte   // common_lb_config
	upstream  []byte   // upstream_connection_options
	http      httpParts
	typed     *httpParts // of an HttpProtocolOptions, in the place of all of http; nil where there is none
	perConn   []byte

	policy                                     uint64
	balancing                                  []byte
	roundRobin, leastRequest, ringHash, maglev []byte
	refresh                                    []byte
}

// httpParts are how a cluster's HTTP is spoken.
type httpParts struct {
	common []byte // common_http_protocol_options
	http2  []byte // http2_protocol_options
	names  []byte // upstream_http_protocol_options
}

// cluster reads an envoy.config.cluster.v3.Cluster.
func (d *decoding) cluster(b []byte) (*cluster, error) {
	x := &cluster{}
	p, err := d.clusterParts(b, x)
	if err != nil {
		return nil, err
	}
	if x.name == "" {
		return nil, missingField("name")
	}
	for _, step := range [...]func(*clusterParts, *cluster) error{
		d.discovery, d.transport, d.connection, d.breakers, d.outlierDetection, d.commonBalancing, d.balancingOf,
	} {
		if err := step(&p, x); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func (d *decoding) clusterParts(b []byte, x *cluster) (p clusterParts, err error) {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			x.name = c.text("name")
		case 2:
			p.discovery.scalar(&c, "type")
		case 3:
			c.message("eds_cluster_config", &p.eds)
		case 4:
			c.message("connect_timeout", &p.timeout)
		case 6:
			p.policy = c.scalar("lb_policy")
		case 9:
			c.message("max_requests_per_connection", &p.perConn)
		case 10:
			c.message("circuit_breakers", &p.breakers)
		case 14:
			c.message("http2_protocol_options", &p.http.http2)
		case 16:
			c.message("dns_refresh_rate", &p.refresh)
		case 17:
			x.dns.family = dnsFamily(min(c.scalar("dns_lookup_family"), uint64(dnsAll)))
		case 19:
			c.message("outlier_detection", &p.outlier)
		case 23:
			c.message("ring_hash_lb_config", &p.ringHash)
		case 24:
			c.message("transport_socket", &p.socket)
		case 27:
			c.message("common_lb_config", &p.common)
		case 29:
			c.message("common_http_protocol_options", &p.http.common)
		case 30:
			c.message("upstream_connection_options", &p.upstream)
		case 33:
			c.message("load_assignment", &p.load)
		case 36:
			c.fail(d.protocolOptions(c.bytes("typed_extension_protocol_options"), &p))
		case 37:
			c.message("least_request_lb_config", &p.leastRequest)
		case 38:
			p.discovery.message(&c, "cluster_type")
		case 40:
			c.fail(inField("filters", d.upstreamFilter(c.bytes("filters"))))
		case 41:
			c.message("load_balancing_policy", &p.balancing)
		case 43:
			d.keep(&c, "transport_socket_matches")
			p.sockets = append(p.sockets, c.bytes("transport_socket_matches"))
		case 46:
			c.message("upstream_http_protocol_options", &p.http.names)
		case 52:
			c.message("maglev_lb_config", &p.maglev)
		case 56:
			c.message("round_robin_lb_config", &p.roundRobin)
		case 59:
			p.matcher = true
		default:
			d.ignoreIf(&c, clusterUnapplied)
		}
	}
	if p.typed != nil {
		p.http = *p.typed
	}
	return p, c.err
}

// upstreamFilter notes a network filter, an envoy.config.cluster.v3.Filter,
// unless it changes nothing.
func (d *decoding) upstreamFilter(b []byte) error {
	var f listenerFilter
	var packed []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			f.name = c.text("name")
		case 2:
			c.message("typed_config", &packed)
		}
	}
	var err error
	f.config, err = decodeExtension(packed)
	c.fail(inField("typed_config", err))
	if c.err == nil && !f.harmless() {
		d.ignore("filters[" + f.name + "]")
	}
	return c.err
}

// servicePrefix begins the names of the clusters that Istio makes for a Service.
const servicePrefix = "outbound|"

// discovery says where the endpoints come from. A cluster of a kind that is
// not known is kept, so that calls can say why they fail.
func (d *decoding) discovery(p *clusterParts, x *cluster) error {
	if p.discovery.num == 38 {
		return inField("cluster_type", d.customType(p, x))
	}
	switch p.discovery.u {
	case enumEDS:
		return x.eds(p.eds)
	case enumStatic:
		x.source = discoverStatic
		return inField("load_assignment", d.staticEndpoints(p.load, x))
	case enumStrictDNS, enumLogicalDNS:
		x.source = discoverStrictDNS
		if p.discovery.u == enumLogicalDNS {
			x.source = discoverLogicalDNS
		}
		return d.dnsNames(p, x)
	case enumOriginalDst:
		x.originalDst = true
		if x.source = discoverPassthrough; strings.HasPrefix(x.name, servicePrefix) {
			x.source, x.edsName = discoverEDS, x.name
		}
	default:
		x.failure = fmt.Sprintf("its endpoints come from %s, which this version does not know", enumName(discoveryTypes[:], p.discovery.u))
	}
	return nil
}

// eds reads a Cluster.EdsClusterConfig.
func (x *cluster) eds(b []byte) error {
	var source []byte
	x.edsName = x.name
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("eds_config", &source)
		case 2:
			x.edsName = x.name // shares its bytes, where the names are equal
			if name := c.raw("service_name"); len(name) > 0 && string(name) != x.name {
				x.edsName = string(name)
			}
		}
	}
	c.fail(inField("eds_config", checkConfigSource(source)))
	return inField("eds_cluster_config", c.err)
}

const (
	typeAggregate  = "envoy.extensions.clusters.aggregate.v3.ClusterConfig"
	typeDNSCluster = "envoy.extensions.clusters.dns.v3.DnsCluster"
)

// customType reads a Cluster.CustomClusterType.
func (d *decoding) customType(p *clusterParts, x *cluster) error {
	var name string
	var packed []byte
	c := walk(p.discovery.val)
	for c.next() {
		switch c.num {
		case 1:
			name = c.text("name")
		case 2:
			c.message("typed_config", &packed)
		}
	}
	if c.err != nil {
		return c.err
	}
	config, err := decodeExtension(packed)
	switch {
	case err != nil:
	case config.json:
		x.failure = fmt.Sprintf("its type %q comes as a TypedStruct, which this version does not read", name)
	case config.name == typeAggregate:
		x.source = discoverAggregate
		err = d.aggregate(config.value, x)
	case config.name == typeDNSCluster:
		x.source = discoverStrictDNS
		if err = x.dnsCluster(config.value, p); err == nil {
			return d.dnsNames(p, x)
		}
	case name == "envoy.clusters.original_dst":
		x.source, x.originalDst = discoverPassthrough, true
	default:
		x.failure = fmt.Sprintf("its endpoints come from a cluster type of its own, %q, which this version does not know", name)
	}
	return inField("typed_config", err)
}

// aggregate reads an envoy.extensions.clusters.aggregate.v3.ClusterConfig.
func (d *decoding) aggregate(b []byte, x *cluster) error {
	c := walk(b)
	for c.next() {
		if c.num == 1 {
			d.keep(&c, "clusters")
			x.children = append(x.children, d.intern(c.raw("clusters")))
		}
	}
	if c.err == nil && len(x.children) == 0 {
		return missingField("clusters")
	}
	return c.err
}

// dnsCluster reads an envoy.extensions.clusters.dns.v3.DnsCluster.
func (x *cluster) dnsCluster(b []byte, p *clusterParts) error {
	families := [...]dnsFamily{dnsAuto, dnsAuto, dnsV4, dnsV6, dnsV4First, dnsAll}
	c := walk(b)
	for c.next() {
		switch c.num {
		case 3:
			c.message("dns_refresh_rate", &p.refresh)
		case 8:
			x.dns.family = families[min(c.scalar("dns_lookup_family"), uint64(len(families)-1))]
		case 9:
			if c.scalar("all_addresses_in_single_endpoint") != 0 {
				x.source = discoverLogicalDNS
			}
		}
	}
	return c.err
}

// staticEndpoints reads the addresses inside a cluster; there may be none, as
// in Istio's BlackHoleCluster.
func (d *decoding) staticEndpoints(b []byte, x *cluster) (err error) {
	outer := d.enter()
	defer d.leave(outer, "load_assignment", "", -1)
	if b == nil {
		x.inline = &assignment{}
		return nil
	}
	x.inline, err = d.loadAssignment(b)
	return err
}

// dnsNames reads the names inside a cluster that is resolved by DNS.
func (d *decoding) dnsNames(p *clusterParts, x *cluster) (err error) {
	outer := d.enter()
	defer d.leave(outer, "load_assignment", "", -1)
	if x.dns.refresh, err = decodeDuration(p.refresh); err != nil {
		return inField("dns_refresh_rate", err)
	}
	x.inline, x.names, err = d.namedEndpoints(p.load)
	if n := len(x.names); err == nil && x.source == discoverLogicalDNS && n != 1 {
		err = fmt.Errorf("%d endpoints instead of one", n)
	}
	return inField("load_assignment", err)
}

func enumName(names []string, value uint64) string {
	if value < uint64(len(names)) {
		return names[value]
	}
	return fmt.Sprint(int32(value))
}
