package meshtest

import (
	"cmp"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	tlsSocketName  = "envoy.transport_sockets.tls"
	upstreamType   = typePrefix + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
	downstreamType = typePrefix + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
)

// DiscoveryType is Cluster.type, shifted so that the zero value is EDS, the only
// type that istiod gives to a proxyless client.
type DiscoveryType uint8

// The types of Cluster.
const (
	EDS DiscoveryType = iota
	Static
	StrictDNS
	LogicalDNS
	OriginalDst
)

// LBPolicy is envoy.config.cluster.v3.Cluster.LbPolicy.
type LBPolicy uint8

// The load-balancing policies of Cluster.
const (
	RoundRobin   LBPolicy = 0
	LeastRequest LBPolicy = 1
	RingHash     LBPolicy = 2
	Random       LBPolicy = 3
	Maglev       LBPolicy = 5
	Passthrough  LBPolicy = 6 // CLUSTER_PROVIDED: to the address that was meant
)

// Cluster is an envoy.config.cluster.v3.Cluster.
type Cluster struct {
	Name           string
	ServiceName    string // the name asked for in EDS; empty is Name
	Type           DiscoveryType
	Policy         LBPolicy
	ConnectTimeout time.Duration // 0 leaves it out, as istiod does
	MaxRequests    uint32        // circuit breaker; 0 leaves it out
	TLS            bool          // ISTIO_MUTUAL with the certificate provider "default"
	SANs           []string      // of the servers, where TLS

	// Balancer refines Policy, whose place its own takes. Its hash policies belong
	// to routes, its locality weights to assignments.
	Balancer    *LoadBalancer
	Connections *ConnectionPool
	Outliers    *OutlierDetection
	Sidecar     *TLSSettings           // TLS as a sidecar is given it
	AutoTLS     bool                   // transport_socket_matches by the TLSMode of endpoints
	Health      []Health               // override_host_status; nil leaves it out
	Assignment  *ClusterLoadAssignment // of Static, StrictDNS and LogicalDNS
	Children    []string               // makes it an aggregate cluster

	Raw []byte // appended as it is

	full *fullCluster // what istiod adds in the full view
}

const aggregateType = typePrefix + "envoy.extensions.clusters.aggregate.v3.ClusterConfig"

// Marshal encodes the message.
func (c Cluster) Marshal() []byte {
	b := c.appendType(appendString(nil, 1, c.Name))
	b = c.appendConnections(b)
	b = c.appendBalancer(b)
	if c.Outliers != nil {
		b = appendMessage(b, 19, c.Outliers.marshal())
	}
	b = c.appendTLS(b)
	alias := c.Name
	if c.full != nil {
		b = c.full.append(b)
		alias = c.full.alias(c.Name)
	}
	b = appendString(b, 28, alias+";") // alt_stat_name, delimited as istiod does
	return append(b, c.Raw...)
}

func (c Cluster) appendType(b []byte) []byte {
	if c.Children != nil {
		config := appendAny(appendString(nil, 1, "envoy.clusters.aggregate"), 2, aggregateType, appendStrings(nil, 1, c.Children))
		return appendMessage(b, 38, config)
	}
	types := [...]uint64{EDS: 3, Static: 0, StrictDNS: 1, LogicalDNS: 2, OriginalDst: 4}
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), types[c.Type])
	if c.Type == EDS {
		name := c.ServiceName
		if name == "" {
			name = c.Name
		}
		source := adsSource()
		if c.full != nil {
			source = sidecarSource()
		}
		b = appendMessage(b, 3, appendString(appendMessage(nil, 1, source), 2, name))
	}
	if c.Assignment != nil {
		b = appendMessage(b, 33, c.Assignment.Marshal())
	}
	return b
}

func (c Cluster) appendConnections(b []byte) []byte {
	pool := ConnectionPool{}
	if c.Connections != nil {
		pool = *c.Connections
	}
	if pool.MaxRequests == 0 {
		pool.MaxRequests = c.MaxRequests
	}
	b = appendGiven(b, 4, cmp.Or(c.ConnectTimeout, pool.ConnectTimeout))
	var otherwise uint32
	if c.full != nil {
		otherwise = c.full.limit
	}
	if t := pool.thresholds(otherwise); t != nil {
		b = appendMessage(b, 10, t)
	}
	if pool.Keepalive != nil {
		b = appendMessage(b, 30, pool.Keepalive.marshal())
	}
	return c.appendOptions(b, pool)
}

const (
	optionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	optionsType = typePrefix + optionsName
)

// appendOptions writes HttpProtocolOptions, where there are any.
func (c Cluster) appendOptions(b []byte, pool ConnectionPool) []byte {
	protocol, given := explicitHTTP2(pool.MaxConcurrentStreams), pool.MaxConcurrentStreams != 0
	if c.full != nil {
		protocol, given = c.full.protocol.options(pool.MaxConcurrentStreams)
	}
	var options []byte
	if common := pool.common(); common != nil {
		options = appendMessage(options, 1, common)
	}
	if c.Sidecar != nil && (c.Sidecar.Mode == TLSSimple || c.Sidecar.Mode == TLSMutual) {
		auto := appendBool(nil, 1, c.Sidecar.SNI == "")
		if auto = appendBool(auto, 2, c.Sidecar.SANs == nil && !c.Sidecar.Insecure); auto != nil {
			options = appendMessage(options, 2, auto)
		}
	}
	if options == nil && !given {
		return b
	}
	entry := appendString(nil, 1, optionsName)
	return appendMessage(b, 36, appendAny(entry, 2, optionsType, append(options, protocol...)))
}

// explicitHTTP2 is the explicit_http_config of HttpProtocolOptions.
func explicitHTTP2(streams uint32) []byte {
	return appendMessage(nil, 3, appendMessage(nil, 2, appendLimit(nil, 2, streams, 0)))
}

func (c Cluster) appendBalancer(b []byte) []byte {
	lb := LoadBalancer{Policy: c.Policy}
	if c.Balancer != nil {
		lb = *c.Balancer
	}
	b = appendVarint(b, 6, uint64(lb.Policy))
	switch lb.Policy {
	case RingHash:
		if ring := lb.ring(); ring != nil {
			b = appendMessage(b, 23, ring)
		}
	case Maglev:
		if lb.TableSize != 0 {
			b = appendMessage(b, 52, appendWrapped(nil, 1, lb.TableSize))
		}
	case RoundRobin:
		if lb.Warmup != nil {
			b = appendMessage(b, 56, appendMessage(nil, 1, lb.Warmup.marshal()))
		}
	case LeastRequest:
		if lb.Warmup != nil {
			b = appendMessage(b, 37, appendMessage(nil, 3, lb.Warmup.marshal()))
		}
	}
	if common := c.commonLB(lb); common != nil {
		b = appendMessage(b, 27, common)
	}
	return b
}

func (l LoadBalancer) ring() []byte {
	var b []byte
	if l.RingSize != 0 {
		b = appendWrapped(b, 1, l.RingSize)
	}
	if l.MaxRingSize != 0 {
		b = appendWrapped(b, 4, l.MaxRingSize)
	}
	return b
}

// commonLB is common_lb_config; nil where there is none.
func (c Cluster) commonLB(lb LoadBalancer) []byte {
	var b []byte
	switch {
	case c.Outliers != nil && c.Outliers.MinHealthPercent != 0:
		b = appendPercent(b, 1, float64(c.Outliers.MinHealthPercent))
	case c.full != nil && c.full.panic:
		b = appendPercent(b, 1, 0)
	}
	if lb.LocalityWeighted {
		b = appendMessage(b, 3, nil)
	}
	if c.Health != nil {
		var statuses []byte
		for _, h := range c.Health {
			statuses = protowire.AppendVarint(statuses, uint64(h))
		}
		b = appendMessage(b, 8, appendMessage(nil, 1, statuses))
	}
	return b
}

func (c Cluster) appendTLS(b []byte) []byte {
	sni, h2 := sniOf(c.Name), c.full == nil || c.full.protocol == http2
	switch {
	case c.TLS:
		return appendExtension(b, 24, 3, tlsSocketName, upstreamType, appendMessage(nil, 1, commonTLS(c.SANs)))
	case c.Sidecar != nil:
		if socket := c.Sidecar.socket(sni, c.SANs, h2); socket != nil {
			return appendMessage(b, 24, socket)
		}
	case c.AutoTLS:
		return autoTLS(b, sni, c.SANs, h2)
	}
	return b
}

// sniOf is the server name by which sidecars call a cluster.
func sniOf(cluster string) string { return strings.ReplaceAll(cluster, "|", "_.") }

func downstreamTLS() []byte {
	b := appendMessage(nil, 1, commonTLS(nil))
	return appendWrapped(b, 2, 1) // require_client_certificate
}

// commonTLS is the CommonTlsContext that istiod sends to both sides: the
// certificate provider in its old and its new fields.
func commonTLS(sans []string) []byte {
	identity := appendString(appendString(nil, 1, "default"), 2, "default")
	root := appendString(appendString(nil, 1, "default"), 2, "ROOTCA")
	var validation []byte
	for _, san := range sans {
		validation = appendMessage(validation, 9, appendMember(nil, 1, san))
	}
	validation = appendMessage(validation, 13, root)
	combined := appendMessage(nil, 1, validation)
	combined = appendMessage(combined, 4, root)
	b := appendMessage(nil, 8, combined)
	b = appendMessage(b, 11, identity)
	return appendMessage(b, 14, identity)
}
