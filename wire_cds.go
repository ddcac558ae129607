package proxyless

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

var (
	// clusterUnapplied names what a cluster may ask for and does not get.
	clusterUnapplied = unapplied{8: "health_checks", 9: "max_requests_per_connection", 19: "outlier_detection", 22: "lb_subset_config",
		30: "upstream_connection_options", 40: "filters", 42: "lrs_server", 56: "round_robin_lb_config"}
	thresholdsUnapplied = unapplied{2: "max_connections", 3: "max_pending_requests", 4: "max_requests", 5: "max_retries",
		7: "max_connection_pools", 8: "retry_budget"}

	discoveryTypes = [...]string{"STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS", "ORIGINAL_DST"}
	lbPolicies     = [...]string{"ROUND_ROBIN", "LEAST_REQUEST", "RING_HASH", "RANDOM", "4", "MAGLEV", "CLUSTER_PROVIDED", "LOAD_BALANCING_POLICY_CONFIG"}
)

const (
	enumEDS = 3

	typeRoundRobin         = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"
	typeLocalityRoundRobin = "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality"
	maxBalancingDepth      = 16 // gRFC A52
)

const demandsTLS = "the mesh demands TLS to this service (trafficPolicy.tls of a DestinationRule), and this version sends plain text only"

// clusterParts are the messages inside a cluster, before they are looked into.
type clusterParts struct {
	discovery oneof
	eds       []byte
	timeout   []byte
	policy    uint64
	breakers  []byte
	socket    []byte
	balancing []byte
	sockets   [][]byte // transport_socket_matches
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
	if x.conn.connectTimeout, err = decodeDuration(p.timeout); err != nil {
		return nil, inField("connect_timeout", err)
	}
	if err := x.setDiscovery(&p); err != nil {
		return nil, err
	}
	if err := d.transport(&p, x); err != nil {
		return nil, err
	}
	if err := inField("circuit_breakers", d.breakers(p.breakers)); err != nil {
		return nil, err
	}
	return x, d.balancing(&p, x)
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
		case 10:
			c.message("circuit_breakers", &p.breakers)
		case 24:
			c.message("transport_socket", &p.socket)
		case 38:
			p.discovery.message(&c, "cluster_type")
		case 41:
			c.message("load_balancing_policy", &p.balancing)
		case 43:
			d.keep(&c, "transport_socket_matches")
			p.sockets = append(p.sockets, c.bytes("transport_socket_matches"))
		default:
			d.ignoreIf(&c, clusterUnapplied)
		}
	}
	return p, c.err
}

// setDiscovery says where the endpoints come from. A cluster whose endpoints
// do not come from EDS is kept, so that calls can say why they fail.
func (x *cluster) setDiscovery(p *clusterParts) error {
	switch {
	case p.discovery.num == 38:
		x.failure = "its endpoints come from a cluster type of its own, and this version knows EDS only"
		return nil
	case p.discovery.u != enumEDS:
		x.failure = fmt.Sprintf("its endpoints come from %s, and this version knows EDS only", enumName(discoveryTypes[:], p.discovery.u))
		return nil
	}
	var source []byte
	x.edsName = x.name
	c := walk(p.eds)
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

func enumName(names []string, value uint64) string {
	if value < uint64(len(names)) {
		return names[value]
	}
	return fmt.Sprint(int32(value))
}

// transport fails the cluster where the mesh demands anything but plain text
// of every connection. A socket that is chosen by the endpoint's metadata is
// the mesh's offer of TLS (auto mTLS), not a demand.
func (d *decoding) transport(p *clusterParts, x *cluster) error {
	plain, kind, err := decodeTransportSocket(p.socket)
	if err != nil {
		return inField("transport_socket", err)
	}
	for i := len(p.sockets) - 1; i >= 0; i-- {
		every, its, itsKind, err := decodeSocketMatch(p.sockets[i])
		if err != nil {
			return inElement("transport_socket_matches", i, err)
		}
		if every {
			plain, kind = its, itsKind
		}
		d.ignore("transport_socket_matches")
	}
	switch {
	case plain || x.failure != "":
	case strings.HasSuffix(kind, "UpstreamTlsContext"), kind == "envoy.transport_sockets.tls":
		x.failure = demandsTLS
	default:
		x.failure = fmt.Sprintf("the mesh demands the transport socket %q, and this version sends plain text only", kind)
	}
	return nil
}

// decodeSocketMatch reads a Cluster.TransportSocketMatch; every says that it
// is for all endpoints.
func decodeSocketMatch(b []byte) (every, plain bool, kind string, err error) {
	var match, socket []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 2:
			c.message("match", &match)
		case 3:
			c.message("transport_socket", &socket)
		}
	}
	if c.err != nil {
		return false, false, "", c.err
	}
	plain, kind, err = decodeTransportSocket(socket)
	return len(match) == 0, plain, kind, inField("transport_socket", err)
}

// breakers notes limits that are set; Istio sends the largest number where
// there is to be none.
func (d *decoding) breakers(b []byte) error {
	outer := d.enter()
	c := walk(b)
	for c.next() {
		if c.num != 1 && c.num != 2 { // thresholds, per_host_thresholds
			continue
		}
		t := walk(c.bytes("thresholds"))
		for t.next() {
			limit := t.num >= 2 && t.num <= 5 || t.num == 7
			if limit {
				value, err := decodeWrapped(t.bytes(thresholdsUnapplied[t.num]))
				t.fail(inField(thresholdsUnapplied[t.num], err))
				limit = uint32(value) == math.MaxUint32
			}
			if !limit {
				d.ignoreIf(&t, thresholdsUnapplied)
			}
		}
		c.fail(inField("thresholds", t.err))
	}
	d.leave(outer, "circuit_breakers.thresholds", "", -1)
	return c.err
}

// balancing takes lb_policy, or load_balancing_policy where it is there. What
// is not round robin is noted, and round robin used in its place.
func (d *decoding) balancing(p *clusterParts, x *cluster) error {
	if p.balancing == nil {
		if p.policy != 0 {
			d.ignore("lb_policy (" + enumName(lbPolicies[:], p.policy) + ")")
		}
		return nil
	}
	other, err := d.balancingList(p.balancing, maxBalancingDepth)
	if other != "" {
		d.ignore("load_balancing_policy (" + other + ")")
	}
	return inField("load_balancing_policy", err)
}

// balancingList reads an envoy.config.cluster.v3.LoadBalancingPolicy. It
// returns the name of the first policy, which the mesh prefers, unless that is
// round robin.
func (d *decoding) balancingList(b []byte, depth int) (other string, err error) {
	if depth == 0 {
		return "", errors.New("nested too deep")
	}
	first, err := firstPolicy(b)
	if err != nil {
		return "", inElement("policies", 0, err)
	}
	switch {
	case first.name == typeRoundRobin:
		return "", nil
	case first.name == typeLocalityRoundRobin && !first.json:
		inner, err := submessage(first.value, 1, "endpoint_picking_policy")
		if err != nil || inner == nil {
			return "", err
		}
		other, err = d.balancingList(inner, depth-1)
		return other, inField("endpoint_picking_policy", err)
	}
	return first.name[strings.LastIndexByte(first.name, '.')+1:], nil
}

// firstPolicy reads the first LoadBalancingPolicy.Policy of a list.
func firstPolicy(list []byte) (extension, error) {
	var first []byte
	c := walk(list)
	for c.next() {
		if c.num == 1 && first == nil {
			first = c.bytes("policies")
		}
	}
	if c.err == nil && first == nil {
		return extension{}, errors.New("missing")
	}
	typed, err := submessage(first, 4, "typed_extension_config")
	c.fail(err)
	packed, err := submessage(typed, 2, "typed_config")
	c.fail(inField("typed_extension_config", err))
	x, err := decodeExtension(packed)
	c.fail(inField("typed_extension_config.typed_config", err))
	return x, c.err
}
