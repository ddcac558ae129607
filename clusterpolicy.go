package proxyless

import (
	"math"
	"time"
)

// lbPolicy is how an endpoint is chosen within a priority.
type lbPolicy uint8

const (
	lbRoundRobin   lbPolicy = iota // weighted round robin
	lbLeastRequest                 // the one with the fewest calls in flight of some drawn at random
	lbRandom
	lbRingHash
	lbMaglev
	lbPickFirst
	lbReported      // client-side weighted round robin: by ORCA load reports (gRFC A58). From here on hosts remember
	lbShortestReply // Dubbo's shortestresponse
	lbP2C           // two choices by load, Dubbo's p2c
)

// balancing is the choice of an endpoint: Cluster.lb_policy with its
// configuration, or the first known entry of Cluster.load_balancing_policy.
// The zero value is round robin. It is comparable.
type balancing struct {
	policy    lbPolicy
	choices   uint32  // least request: choice_count; 0 is 2
	fullScan  bool    // least request: look at all
	bias      float64 // least request: active_request_bias where endpoints have weights; 0 with hasBias is none, else 1
	hasBias   bool
	minRing   uint64 // ring hash: minimum_ring_size; 0 is 1024
	maxRing   uint64 // ring hash: maximum_ring_size; 0 is 8388608
	table     uint64 // Maglev: table_size; 0 is 65537
	hostnames bool   // ring hash, Maglev: hash the endpoint's hostname, not its address
	bounded   uint32 // ring hash, Maglev: hash_balance_factor in percent; 0 is none
	shuffle   bool   // pick first
	subset    uint32 // random_subsetting: this many endpoints; 0 is all
	slow      slowStart
	reported  loadReporting
}

// slowStart is Cluster.SlowStartConfig: a new endpoint's weight grows over the window.
type slowStart struct {
	window     time.Duration // 0 is none
	aggression float64       // 0 is 1
	least      float64       // min_weight_percent as a share; 0 with hasLeast is 0, else 0.1
	hasLeast   bool
}

// loadReporting is ClientSideWeightedRoundRobin (gRFC A58). Zero durations mean
// the default behind them.
type loadReporting struct {
	outOfBand  bool          // enable_oob_load_report
	period     time.Duration // oob_reporting_period; 10 s
	blackout   time.Duration // blackout_period; 10 s
	noBlackout bool          // it is 0
	expiration time.Duration // weight_expiration_period; 3 min
	update     time.Duration // weight_update_period; 1 s, at least 100 ms
	penalty    float64       // error_utilization_penalty; 1
	noPenalty  bool          // it is 0
	metrics    string        // metric_names_for_computing_utilization, joined with spaces
}

// settlePeriod is weight_update_period.
func (b *loadReporting) settlePeriod() time.Duration {
	if b.update <= 0 {
		return time.Second
	}
	return max(b.update, 100*time.Millisecond)
}

// expires is weight_expiration_period.
func (b *loadReporting) expires() time.Duration {
	if b.expiration <= 0 {
		return 3 * time.Minute
	}
	return b.expiration
}

// blacksOut is blackout_period.
func (b *loadReporting) blacksOut() time.Duration {
	if b.blackout <= 0 && !b.noBlackout {
		return 10 * time.Second
	}
	return b.blackout
}

// breakers is Cluster.circuit_breakers of the default priority. Each is the
// most there may be at a time in this process.
type breakers struct {
	connections, pending, requests, retries uint32  // noLimit is none
	budget                                  float64 // retry_budget.budget_percent as a share of calls in flight; replaces retries
	budgetLeast                             uint32  // retry_budget.min_retry_concurrency
	hasBudget                               bool
}

// noLimit is Istio's way to say that there is none.
const noLimit = math.MaxUint32

// outlierDetection is what is kept of an envoy.config.cluster.v3.OutlierDetection,
// with defaults filled in. Shares are in percent; an enforcing share of 0 turns
// its rule off.
type outlierDetection struct {
	interval, baseTime, maxTime, jitter time.Duration
	maxEjected                          uint32 // max_ejection_percent
	atLeastOne                          bool   // always_eject_one_host

	consecutive5xx, enforce5xx         uint32
	consecutiveGateway, enforceGateway uint32
	split                              bool // split_external_local_origin_errors
	consecutiveLocal, enforceLocal     uint32

	enforceSuccessRate, enforceLocalSuccessRate   uint32
	successHosts, successVolume                   uint32
	successFactor                                 uint32 // success_rate_stdev_factor, in thousandths
	enforceFailure, enforceLocalFailure           uint32
	failureThreshold, failureHosts, failureVolume uint32
}

// connSettings are the settings of a connection. They are comparable, since
// two services share a connection to one address only where these are equal.
// Zero means the default of gRPC, or none.
type connSettings struct {
	connectTimeout time.Duration // Cluster.connect_timeout; 0 is 20 s
	idleTimeout    time.Duration // HttpProtocolOptions.idle_timeout: closed after so long without a call
	maxAge         time.Duration // HttpProtocolOptions.max_connection_duration
	maxRequests    uint32        // max_requests_per_connection; 0 is no limit
	maxStreams     uint32        // max_concurrent_streams of HTTP/2; 0 is what the peer says
	keepAlive      tcpKeepAlive
}

// tcpKeepAlive is envoy.config.core.v3.TcpKeepalive.
type tcpKeepAlive struct {
	set            bool
	idle, interval time.Duration // 0 is the system's
	probes         int           // 0 is the system's
}

// remembers says that the cluster has policy that must outlive updates.
func (c *cluster) remembers() bool { return c.outlier != nil || c.limits != nil }

// remembers says that choosing needs what must outlive updates.
func (b *balancing) remembers() bool { return b.slow.window > 0 || b.policy >= lbReported }
