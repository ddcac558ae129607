package meshtest

import (
	"cmp"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	passthroughName        = "PassthroughCluster"
	blackHoleName          = "BlackHoleCluster"
	inboundPassthroughName = "InboundPassthroughCluster"

	structType   = typePrefix + "udpa.type.v1.TypedStruct"
	resolverType = typePrefix + "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"

	connectTimeout = 10 * time.Second
	passIdle       = 300 * time.Second
)

// fullCluster is what istiod adds to the cluster of a sidecar.
type fullCluster struct {
	limit    uint32 // of circuit breakers that nobody set
	protocol protocol
	panic    bool // healthy_panic_threshold 0
	exchange bool // the filter istio.metadata_exchange
	dns      bool
	inbound  bool
	common   bool   // an empty common_lb_config
	aliased  string // in place of the name in alt_stat_name

	host     string // the Service in the metadata; empty leaves that out
	service  Service
	subset   string
	override bool // alpn_override: the DestinationRule has TLS of its own
}

func (f *fullCluster) alias(name string) string { return cmp.Or(f.aliased, name) }

func (f *fullCluster) append(b []byte) []byte {
	if f.dns {
		b = appendDuration(b, 16, time.Minute)
		b = appendVarint(b, 17, 1) // V4_ONLY
		b = appendBool(b, 39, true)
		queries := appendMessage(nil, 5, appendVarint(nil, 1, 100))
		resolver := appendString(nil, 1, "envoy.network.dns_resolver.cares")
		b = appendMessage(b, 55, appendAny(resolver, 2, resolverType, queries))
		b = appendDuration(b, 58, 100*time.Millisecond)
	}
	if f.inbound {
		b = appendMessage(b, 21, appendMessage(nil, 1, plainAddress("127.0.0.6", 0)))
	}
	if f.common {
		b = appendDuration(b, 20, 9223372035*time.Second)
		b = appendMessage(b, 27, nil)
	}
	if f.host != "" {
		b = appendMessage(b, 25, f.metadata())
	}
	if f.exchange {
		b = appendMessage(b, 40, metadataExchange(2))
	}
	return b
}

// metadataExchange is a network filter of Istio's, which every client but its
// sidecars ignores. The configuration is field typed.
func metadataExchange(typed protowire.Number) []byte {
	config := appendField(nil, "enable_discovery", appendPresentBool(nil, 4, true))
	config = appendField(config, "protocol", appendMember(nil, 3, "istio-peer-exchange"))
	value := appendString(nil, 1, typePrefix+"envoy.tcp.metadataexchange.config.MetadataExchange")
	value = appendMessage(value, 2, config)
	return appendAny(appendString(nil, 1, "istio.metadata_exchange"), typed, structType, value)
}

// metadata names the Service and the rule that a cluster comes from.
func (f *fullCluster) metadata() []byte {
	var b []byte
	if f.override {
		b = appendField(b, "alpn_override", appendMember(nil, 3, "false"))
	}
	if f.service.Traffic != nil || f.service.Subsets != nil {
		b = appendField(b, "config", appendMember(nil, 3, istioConfig(f.service.Namespace, "destination-rule", f.service.Name)))
	}
	if f.service.external() {
		b = appendField(b, "external", appendPresentBool(nil, 4, true))
	}
	entry := appendField(nil, "host", appendMember(nil, 3, f.host))
	entry = appendField(entry, "name", appendMember(nil, 3, cmp.Or(f.service.Host, f.service.Name)))
	entry = appendField(entry, "namespace", appendMember(nil, 3, f.service.Namespace))
	list := appendMessage(nil, 1, appendMessage(nil, 5, entry))
	b = appendField(b, "services", appendMessage(nil, 6, list))
	if f.subset != "" {
		b = appendField(b, "subset", appendMember(nil, 3, f.subset))
	}
	return appendMessage(nil, 1, appendMessage(appendString(nil, 1, "istio"), 2, b))
}

// istioConfig is how istiod refers to a resource of Istio's.
func istioConfig(namespace, kind, name string) string {
	return "/apis/networking.istio.io/v1/namespaces/" + namespace + "/" + kind + "/" + name
}

// fullClusters are those that istiod makes of a Service for a sidecar: one for
// each port and one for each of its subsets.
func (s Service) fullClusters() (list []named) {
	for _, p := range s.Ports {
		if p.protocol() == udp {
			continue
		}
		for _, sub := range append([]Subset{{}}, s.Subsets...) {
			c := s.fullCluster(p, sub)
			list = append(list, named{c.Name, c.Marshal()})
		}
	}
	return list
}

func (s Service) fullCluster(p Port, sub Subset) Cluster {
	policy := s.policy(sub)
	f := &fullCluster{
		limit: noLimit, protocol: p.protocol(), panic: true, exchange: true,
		host: s.FQDN(), service: s, subset: sub.Name,
	}
	c := Cluster{
		Name: subsetName(s.FQDN(), p.Number, sub.Name), ConnectTimeout: connectTimeout, SANs: s.SANs,
		Connections: policy.Connections, Outliers: policy.Outliers, full: f,
	}
	if policy.Connections != nil {
		c.ConnectTimeout = cmp.Or(policy.Connections.ConnectTimeout, c.ConnectTimeout)
	}
	lb := LoadBalancer{Policy: LeastRequest}
	if policy.LoadBalancer != nil {
		lb = policy.LoadBalancer.settled()
	}
	if s.passesThrough() || lb.Policy == Passthrough {
		c.Type, lb = OriginalDst, LoadBalancer{Policy: Passthrough}
	} else {
		s.setResolution(&c, p)
	}
	c.Balancer = &lb
	if s.Session != nil {
		c.Health = []Health{Healthy, Draining, Unknown, Degraded}
	}
	switch {
	case policy.TLS != nil:
		c.Sidecar = policy.TLS
		f.override = policy.TLS.Mode == TLSSimple || policy.TLS.Mode == TLSMutual
	case c.Type == EDS && !s.external():
		c.AutoTLS = true
	}
	return c
}

// setResolution gives an external service the places it is told of.
func (s Service) setResolution(c *Cluster, p Port) {
	switch s.Resolution {
	case ResolveDNS:
		c.Type = StrictDNS
	case ResolveDNSOnce:
		c.Type = LogicalDNS
	default:
		return
	}
	c.full.dns = true
	places := s
	if len(places.Endpoints) == 0 {
		places.Endpoints = []Endpoint{{Address: s.Host}}
	}
	a := places.assignment(p, Subset{})
	a.Cluster = c.Name
	c.Assignment = &a
}

// settled fills in what istiod always says.
func (l LoadBalancer) settled() LoadBalancer {
	if l.Policy == RingHash {
		l.RingSize = cmp.Or(l.RingSize, 1024)
	}
	return l
}

// fixedClusters are those that every sidecar has. istiod sends them along with
// every change of another.
var fixedClusters = []named{
	{blackHoleName, Cluster{Name: blackHoleName, Type: Static, ConnectTimeout: connectTimeout, full: &fullCluster{protocol: tcp}}.Marshal()},
	{passthroughName, passthroughCluster(passthroughName, &fullCluster{exchange: true})},
	{inboundPassthroughName, passthroughCluster(inboundPassthroughName, &fullCluster{inbound: true, aliased: passthroughName})},
}

func passthroughCluster(name string, f *fullCluster) []byte {
	f.limit = noLimit // and the protocol of the connection that comes in
	return Cluster{
		Name: name, Type: OriginalDst, Policy: Passthrough, ConnectTimeout: connectTimeout,
		Connections: &ConnectionPool{IdleTimeout: passIdle}, full: f,
	}.Marshal()
}

// inboundCluster is that of a port on which a sidecar's own workload serves.
func (s Service) inboundCluster(p Port, number uint32) named {
	f := &fullCluster{limit: noLimit, protocol: p.protocol(), inbound: true, common: true, host: s.FQDN(), service: s}
	c := Cluster{
		Name: inboundClusterName(number), Type: OriginalDst, Policy: Passthrough,
		ConnectTimeout: connectTimeout, Connections: s.policy(Subset{}).Connections, full: f,
	}
	if c.Connections != nil {
		c.ConnectTimeout = cmp.Or(c.Connections.ConnectTimeout, c.ConnectTimeout)
	}
	return named{c.Name, c.Marshal()}
}

func inboundClusterName(port uint32) string {
	return "inbound|" + strconv.FormatUint(uint64(port), 10) + "||"
}
