package meshtest

import "time"

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
	Raw            []byte        // appended as it is
}

// Marshal encodes the message.
func (c Cluster) Marshal() []byte {
	types := [...]uint64{EDS: 3, Static: 0, StrictDNS: 1, LogicalDNS: 2, OriginalDst: 4}
	b := appendString(nil, 1, c.Name)
	b = appendVarint(b, 2, types[c.Type])
	if c.Type == EDS {
		name := c.ServiceName
		if name == "" {
			name = c.Name
		}
		b = appendMessage(b, 3, appendString(appendMessage(nil, 1, adsSource()), 2, name))
	}
	if c.ConnectTimeout != 0 {
		b = appendDuration(b, 4, c.ConnectTimeout)
	}
	b = appendVarint(b, 6, uint64(c.Policy))
	if c.MaxRequests != 0 {
		b = appendMessage(b, 10, appendMessage(nil, 1, appendWrapped(nil, 4, uint64(c.MaxRequests))))
	}
	if c.TLS {
		b = appendExtension(b, 24, 3, tlsSocketName, upstreamType, appendMessage(nil, 1, commonTLS(c.SANs)))
	}
	b = appendString(b, 28, c.Name+";") // alt_stat_name, delimited as istiod does
	return append(b, c.Raw...)
}

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
