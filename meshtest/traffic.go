package meshtest

import "time"

// TrafficPolicy is what a DestinationRule says about calls to a Service or to
// one of its subsets. A part that is nil is not mentioned: a subset then has
// that of its Service, a Service what Istio does without a rule.
//
// The full view carries all of it. In the lean view istiod sends the kinds
// RoundRobin, LeastRequest, RingHash and Maglev, MaxRequests and the TLS mode
// ISTIO_MUTUAL, and leaves out the rest.
type TrafficPolicy struct {
	LoadBalancer *LoadBalancer
	Connections  *ConnectionPool
	Outliers     *OutlierDetection
	TLS          *TLSSettings
}

// over is the policy of a subset on top of that of its Service.
func (p TrafficPolicy) over(base TrafficPolicy) TrafficPolicy {
	if p.LoadBalancer == nil {
		p.LoadBalancer = base.LoadBalancer
	}
	if p.Connections == nil {
		p.Connections = base.Connections
	}
	if p.Outliers == nil {
		p.Outliers = base.Outliers
	}
	if p.TLS == nil {
		p.TLS = base.TLS
	}
	return p
}

// LoadBalancer is loadBalancer of a DestinationRule.
type LoadBalancer struct {
	Policy LBPolicy
	// Hash is what the kinds RingHash and Maglev hash, in order. Istio has one
	// entry, which it puts on the routes that lead to the Service.
	Hash                  []HashPolicy
	RingSize, MaxRingSize uint64 // of RingHash; 0 is 1024 and left out
	TableSize             uint64 // of Maglev; 0 leaves it out
	Warmup                *Warmup
	LocalityWeighted      bool // locality_weighted_lb_config
	// LocalityWeights are the weights of localities, written region/zone/subzone
	// as far as there are parts; a locality that is missing keeps the sum of its
	// endpoints.
	LocalityWeights map[string]uint32
}

// Warmup is the slow start of RoundRobin and LeastRequest.
type Warmup struct {
	Duration   time.Duration
	Aggression float64 // 0 is 1
	MinPercent uint32  // 0 is 10
}

// ConnectionPool is connectionPool of a DestinationRule. Zero values are not
// mentioned: no limit, or the default of the client.
type ConnectionPool struct {
	MaxConnections           uint32
	MaxPendingRequests       uint32
	MaxRequests              uint32
	MaxRetries               uint32
	RetryBudget              *RetryBudget
	MaxRequestsPerConnection uint32
	MaxConcurrentStreams     uint32
	ConnectTimeout           time.Duration // 0 is 10 s in the full view
	IdleTimeout              time.Duration // of calls; TCPIdleTimeout where 0
	TCPIdleTimeout           time.Duration
	MaxConnectionDuration    time.Duration
	Keepalive                *TCPKeepalive
}

// RetryBudget is envoy.config.cluster.v3.CircuitBreakers.Thresholds.RetryBudget.
type RetryBudget struct {
	Percent        float64
	MinConcurrency uint32 // 0 leaves it out
}

// TCPKeepalive is envoy.config.core.v3.TcpKeepalive; zero values are left out.
type TCPKeepalive struct {
	Probes         uint32
	Time, Interval time.Duration // whole seconds
}

// OutlierDetection is envoy.config.cluster.v3.OutlierDetection with the
// enforcement that istiod gives to it: that of the success rate is off unless
// SuccessRate says otherwise. Zero values are left out.
type OutlierDetection struct {
	// Numbers of errors in a row. A negative one stands for an explicit 0, which
	// turns the detection off; left out, the first counts to five.
	Consecutive5xx             int
	ConsecutiveGatewayFailures int
	ConsecutiveLocalFailures   int // where SplitLocalErrors
	SplitLocalErrors           bool

	Interval           time.Duration
	BaseEjectionTime   time.Duration
	MaxEjectionTime    time.Duration
	MaxEjectionPercent uint32
	MinHealthPercent   uint32 // healthy_panic_threshold of the cluster

	// What Istio has no words for.
	SuccessRate       *SuccessRate
	FailurePercentage *FailurePercentage

	Raw []byte // appended as it is
}

// SuccessRate ejects endpoints that succeed less often than the others.
type SuccessRate struct {
	StdevFactor   uint32 // thousandths; 0 leaves it out
	MinHosts      uint32 // 0 leaves it out
	RequestVolume uint32 // 0 leaves it out
	Enforcing     uint32 // percent
}

// FailurePercentage ejects endpoints that fail too often.
type FailurePercentage struct {
	Threshold     uint32 // percent; 0 leaves it out
	MinHosts      uint32 // 0 leaves it out
	RequestVolume uint32 // 0 leaves it out
	Enforcing     uint32 // percent
}

// TLSMode is tls.mode of a DestinationRule.
type TLSMode uint8

// The modes of TLSSettings.
const (
	TLSDisable TLSMode = iota
	TLSSimple
	TLSMutual
	TLSIstioMutual
)

// TLSSettings is tls of a DestinationRule.
type TLSSettings struct {
	Mode                          TLSMode
	SNI                           string
	SANs                          []string // of the servers; nil is those of the Service where TLSIstioMutual
	CACertificates                string   // paths of files; without it the roots are those of the system
	ClientCertificate, PrivateKey string
	CRL                           string
	// Credential is credentialName, in a DestinationRule with a workloadSelector:
	// the secrets are istiod's. Without the selector istiod says nothing of TLS.
	Credential string
	Insecure   bool // insecureSkipVerify: nothing is verified
}

// Subset is a named part of a Service: those endpoints that have all of Labels.
// Clusters named outbound|port|<Name>|host exist for it.
type Subset struct {
	Name    string
	Labels  map[string]string
	Traffic *TrafficPolicy
}

// Session is the session affinity that the labels istio.io/persistent-session
// and istio.io/persistent-session-header of a Service ask for: endpoints that
// are Draining go on to be sent, and a call is bound to one by a cookie, or by a
// header where Cookie is empty.
type Session struct {
	Cookie string
	Path   string        // of the cookie; empty is /
	TTL    time.Duration // of the cookie; 0 is that of the browser session
	Header string
}

// Resolution says where the endpoints of an external service come from.
type Resolution uint8

// The resolutions of a ServiceEntry.
const (
	ResolveStatic  Resolution = iota // EDS
	ResolveDNS                       // STRICT_DNS
	ResolveDNSOnce                   // LOGICAL_DNS, as DNS_ROUND_ROBIN has it
	ResolveNone                      // ORIGINAL_DST
)
