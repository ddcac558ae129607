package proxyless

//lint:file-ignore SA1019 istiod sends deprecated fields, and clients have to read them

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	reportedv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	overridev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"
	pickfirstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/pick_first/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	subsettingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random_subsetting/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func referenceCluster(m *clusterv3.Cluster) (*cluster, error) {
	x := &cluster{name: m.Name}
	if m.Name == "" {
		return nil, errors.New("no name")
	}
	if x.dns.family = dnsFamily(m.DnsLookupFamily); m.DnsLookupFamily < 0 || m.DnsLookupFamily > 4 {
		x.dns.family = dnsAll
	}
	err := errors.Join(referenceDiscovery(m, x), referenceConnection(m, x), referenceBreakers(m.CircuitBreakers, x), referenceOutliers(m.OutlierDetection, x),
		referenceCommon(m.CommonLbConfig, x))
	return x, errors.Join(err, referenceTransport(m, x), referenceBalancing(m, x))
}

func referenceDiscovery(m *clusterv3.Cluster, x *cluster) (err error) {
	if custom, ok := m.ClusterDiscoveryType.(*clusterv3.Cluster_ClusterType); ok {
		return referenceCustom(custom.ClusterType, m, x)
	}
	switch m.GetType() {
	case clusterv3.Cluster_EDS:
		if !sameStream(m.GetEdsClusterConfig().GetEdsConfig()) {
			return errors.New("eds_config")
		}
		x.edsName = firstOf(m.EdsClusterConfig.ServiceName, m.Name)
	case clusterv3.Cluster_STATIC:
		x.source, x.inline = discoverStatic, &assignment{}
		if m.LoadAssignment != nil {
			x.inline, err = referenceLoad(m.LoadAssignment)
		}
	case clusterv3.Cluster_STRICT_DNS, clusterv3.Cluster_LOGICAL_DNS:
		if x.source = discoverStrictDNS; m.GetType() == clusterv3.Cluster_LOGICAL_DNS {
			x.source = discoverLogicalDNS
		}
		return referenceNames(m.LoadAssignment, m.DnsRefreshRate, x)
	case clusterv3.Cluster_ORIGINAL_DST:
		x.source, x.originalDst = discoverPassthrough, true
		if strings.HasPrefix(m.Name, "outbound|") {
			x.source, x.edsName = discoverEDS, m.Name
		}
	default:
		x.failure = "of another type"
	}
	return err
}

func referenceCustom(m *clusterv3.Cluster_CustomClusterType, of *clusterv3.Cluster, x *cluster) error {
	name, readable := extensionType(m.GetTypedConfig())
	switch {
	case !readable:
		x.failure = "a TypedStruct"
	case name == nameOf(&aggregatev3.ClusterConfig{}):
		config := &aggregatev3.ClusterConfig{}
		if err := proto.Unmarshal(m.TypedConfig.Value, config); err != nil || len(config.Clusters) == 0 {
			return errors.Join(err, errors.New("no clusters"))
		}
		x.source, x.children = discoverAggregate, config.Clusters
	case name == nameOf(&dnsv3.DnsCluster{}):
		config := &dnsv3.DnsCluster{}
		if err := proto.Unmarshal(m.TypedConfig.Value, config); err != nil {
			return err
		}
		if x.source = discoverStrictDNS; config.AllAddressesInSingleEndpoint {
			x.source = discoverLogicalDNS
		}
		if n := config.DnsLookupFamily; n != 0 {
			x.dns.family = map[int32]dnsFamily{1: dnsAuto, 2: dnsV4, 3: dnsV6, 4: dnsV4First}[int32(n)]
			if n > 4 || n < 0 {
				x.dns.family = dnsAll
			}
		}
		refresh := config.DnsRefreshRate
		if refresh == nil {
			refresh = of.DnsRefreshRate
		} else if of.DnsRefreshRate != nil {
			merged := proto.Clone(of.DnsRefreshRate).(*durationpb.Duration)
			proto.Merge(merged, refresh)
			refresh = merged
		}
		return referenceNames(of.LoadAssignment, refresh, x)
	case m.GetName() == "envoy.clusters.original_dst":
		x.source, x.originalDst = discoverPassthrough, true
	default:
		x.failure = "of a type of its own"
	}
	return nil
}

// referenceNames are the names of a cluster that DNS resolves.
func referenceNames(m *endpointv3.ClusterLoadAssignment, refresh *durationpb.Duration, x *cluster) (err error) {
	if x.dns.refresh, err = referenceDuration(refresh); err != nil {
		return err
	}
	x.inline = &assignment{cluster: m.GetClusterName()}
	if err := referencePolicyOfAssignment(m.GetPolicy(), x.inline); err != nil {
		return err
	}
	localities, weighted := referenceLocalities(m.GetEndpoints())
	for i, l := range localities {
		place := locality{region: l.Locality.GetRegion(), zone: l.Locality.GetZone(), subZone: l.Locality.GetSubZone(), priority: l.Priority}
		var sum uint64
		for _, e := range l.LbEndpoints {
			host, port, ok, err := referenceSocketAddress(e.GetEndpoint().GetAddress())
			if err != nil {
				return err
			}
			labels, err := x.inline.labelOf(e.GetMetadata())
			if err != nil {
				return err
			}
			n := dnsName{labels: labels, host: host, port: uint16(port), weight: 1, locality: i, priority: l.Priority, hostname: e.GetEndpoint().GetHostname()}
			if e.LoadBalancingWeight != nil {
				n.weight = e.LoadBalancingWeight.Value
			}
			if ok && host != "" && port != 0 && n.weight > 0 && e.HealthStatus <= 1 && e.HealthStatus >= 0 {
				x.names = append(x.names, n)
				sum += uint64(n.weight)
			}
		}
		if place.weight = uint32(min(sum, math.MaxUint32)); weighted {
			place.weight = l.LoadBalancingWeight.Value
		}
		x.inline.localities = append(x.inline.localities, place)
	}
	if x.source == discoverLogicalDNS && len(x.names) != 1 {
		return errors.New("not one name")
	}
	return nil
}

func referenceConnection(m *clusterv3.Cluster, x *cluster) error {
	var errs []error
	s := &x.conn
	common, http2 := m.CommonHttpProtocolOptions, m.Http2ProtocolOptions
	for _, key := range slices.Sorted(maps.Keys(m.TypedExtensionProtocolOptions)) { // in the order in which they are encoded
		a := m.TypedExtensionProtocolOptions[key]
		if name, readable := extensionType(a); !readable || name != nameOf(&httpv3.HttpProtocolOptions{}) {
			continue
		}
		options := &httpv3.HttpProtocolOptions{}
		if err := proto.Unmarshal(a.Value, options); err != nil {
			return err
		}
		common, http2 = options.CommonHttpProtocolOptions, nil // in the place of all that is older
		for _, h := range []*corev3.Http2ProtocolOptions{options.GetExplicitHttpConfig().GetHttp2ProtocolOptions(),
			options.GetUseDownstreamProtocolConfig().GetHttp2ProtocolOptions(), options.GetAutoConfig().GetHttp2ProtocolOptions()} {
			if h != nil {
				http2 = h
			}
		}
	}
	duration := func(m *durationpb.Duration) time.Duration {
		d, err := referenceDuration(m)
		errs = append(errs, err)
		return d
	}
	s.connectTimeout, s.idleTimeout, s.maxAge = duration(m.ConnectTimeout), duration(common.GetIdleTimeout()), duration(common.GetMaxConnectionDuration())
	if s.maxRequests = m.MaxRequestsPerConnection.GetValue(); common.GetMaxRequestsPerConnection() != nil {
		s.maxRequests = common.MaxRequestsPerConnection.Value
	}
	if n := http2.GetMaxConcurrentStreams().GetValue(); n < math.MaxInt32 {
		s.maxStreams = n
	}
	if k := m.GetUpstreamConnectionOptions().GetTcpKeepalive(); k != nil {
		seconds := func(n uint32) time.Duration { return time.Duration(min(n, math.MaxInt32)) * time.Second }
		s.keepAlive = tcpKeepAlive{true, seconds(k.KeepaliveTime.GetValue()), seconds(k.KeepaliveInterval.GetValue()), int(min(k.KeepaliveProbes.GetValue(), math.MaxInt32))}
	}
	return errors.Join(errs...)
}

func orElse(m *wrapperspb.UInt32Value, absent uint32) uint32 {
	if m == nil {
		return absent
	}
	return m.Value
}

func referenceBreakers(m *clusterv3.CircuitBreakers, x *cluster) error {
	var errs []error
	for i := len(m.GetThresholds()) - 1; i >= 0; i-- {
		t := m.Thresholds[i]
		b := &breakers{connections: orElse(t.MaxConnections, noLimit), pending: orElse(t.MaxPendingRequests, noLimit), requests: orElse(t.MaxRequests, 1024), retries: orElse(t.MaxRetries, noLimit)}
		if budget := t.RetryBudget; budget != nil {
			b.hasBudget, b.budget, b.budgetLeast = true, 0.2, orElse(budget.MinRetryConcurrency, 3)
			if budget.BudgetPercent != nil {
				b.budget = budget.BudgetPercent.Value / 100
			}
			errs = append(errs, percentage(budget.BudgetPercent))
		}
		if t.Priority == corev3.RoutingPriority_DEFAULT {
			x.limits = b
		}
	}
	if x.limits != nil && *x.limits == (breakers{connections: noLimit, pending: noLimit, requests: noLimit, retries: noLimit}) {
		x.limits = nil
	}
	return errors.Join(errs...)
}

func percentage(m *typev3.Percent) error {
	if v := m.GetValue(); v < 0 || v > 100 {
		return fmt.Errorf("%g %%", v)
	}
	return nil
}

func referenceOutliers(m *clusterv3.OutlierDetection, x *cluster) error {
	if m == nil {
		return nil
	}
	var errs []error
	share := func(m *wrapperspb.UInt32Value, absent uint32) uint32 {
		if m.GetValue() > 100 {
			errs = append(errs, errors.New("share"))
		}
		return orElse(m, absent)
	}
	duration := func(m *durationpb.Duration, absent time.Duration) time.Duration {
		d, err := referenceDuration(m)
		if errs = append(errs, err); m == nil {
			return absent
		}
		return d
	}
	o := &outlierDetection{
		interval: duration(m.Interval, 10*time.Second), baseTime: duration(m.BaseEjectionTime, 30*time.Second), maxTime: duration(m.MaxEjectionTime, 0), jitter: duration(m.MaxEjectionTimeJitter, 0),
		maxEjected: share(m.MaxEjectionPercent, 10), atLeastOne: m.AlwaysEjectOneHost.GetValue(), consecutive5xx: orElse(m.Consecutive_5Xx, 5), enforce5xx: share(m.EnforcingConsecutive_5Xx, 100),
		consecutiveGateway: orElse(m.ConsecutiveGatewayFailure, 5), enforceGateway: share(m.EnforcingConsecutiveGatewayFailure, 0), split: m.SplitExternalLocalOriginErrors,
		consecutiveLocal: orElse(m.ConsecutiveLocalOriginFailure, 5), enforceLocal: share(m.EnforcingConsecutiveLocalOriginFailure, 100),
		enforceSuccessRate: share(m.EnforcingSuccessRate, 100), enforceLocalSuccessRate: share(m.EnforcingLocalOriginSuccessRate, 100),
		successHosts: orElse(m.SuccessRateMinimumHosts, 5), successVolume: orElse(m.SuccessRateRequestVolume, 100), successFactor: orElse(m.SuccessRateStdevFactor, 1900),
		enforceFailure: share(m.EnforcingFailurePercentage, 0), enforceLocalFailure: share(m.EnforcingFailurePercentageLocalOrigin, 0), failureThreshold: share(m.FailurePercentageThreshold, 85),
		failureHosts: orElse(m.FailurePercentageMinimumHosts, 5), failureVolume: orElse(m.FailurePercentageRequestVolume, 50),
	}
	if o.maxTime == 0 {
		o.maxTime = 300 * time.Second
	}
	if o.maxTime = max(o.maxTime, o.baseTime); !o.split {
		o.enforceLocal, o.enforceLocalSuccessRate, o.enforceLocalFailure = 0, 0, 0
	}
	if o.enforce5xx+o.enforceGateway+o.enforceLocal+o.enforceSuccessRate+o.enforceLocalSuccessRate+o.enforceFailure+o.enforceLocalFailure > 0 {
		x.outlier = o
	}
	return errors.Join(errs...)
}

func referenceCommon(m *clusterv3.Cluster_CommonLbConfig, x *cluster) error {
	if m == nil {
		return nil
	}
	x.panic = uint32(math.Round(m.HealthyPanicThreshold.GetValue()))
	x.weighted = m.GetLocalityWeightedLbConfig() != nil
	for _, status := range m.GetOverrideHostStatus().GetStatuses() {
		if status >= 0 && status <= 5 {
			x.override |= 1 << status
		}
	}
	// A member of a oneof counts that was sent before the other, too: only for
	// encodings one after the other.
	err := referenceBound(m.GetConsistentHashingLbConfig().GetHashBalanceFactor(), x)
	x.balance.hostnames = m.GetConsistentHashingLbConfig().GetUseHostnameForHashing()
	return errors.Join(err, percentage(m.HealthyPanicThreshold))
}

func referenceBound(m *wrapperspb.UInt32Value, x *cluster) error {
	if m == nil {
		return nil
	}
	if x.balance.bounded = m.Value; m.Value > 0 && m.Value < 100 {
		return errors.New("bound")
	}
	return nil
}

// slowStartConfig is what the old and the new form of slow start have in common.
type slowStartConfig interface {
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corev3.RuntimeDouble
	GetMinWeightPercent() *typev3.Percent
}

func referenceSlow(m slowStartConfig, absent bool, x *cluster) error {
	if absent {
		return nil
	}
	window, err := referenceDuration(m.GetSlowStartWindow())
	if aggression := m.GetAggression().GetDefaultValue(); aggression < 0 {
		err = errors.Join(err, errors.New("aggression"))
	}
	if window > 0 {
		x.balance.slow = slowStart{window, m.GetAggression().GetDefaultValue(), m.GetMinWeightPercent().GetValue() / 100, m.GetMinWeightPercent() != nil}
	}
	return errors.Join(err, percentage(m.GetMinWeightPercent()))
}

func referenceLeast(choices *wrapperspb.UInt32Value, bias *corev3.RuntimeDouble, x *cluster) error {
	x.balance.policy = lbLeastRequest
	if choices != nil {
		if x.balance.choices = choices.Value; choices.Value < 2 {
			return errors.New("choices")
		}
	}
	if bias != nil {
		if x.balance.hasBias, x.balance.bias = true, bias.DefaultValue; bias.DefaultValue < 0 {
			return errors.New("bias")
		}
	}
	return nil
}

func referenceRing(least, most *wrapperspb.UInt64Value, x *cluster) error {
	x.balance.policy, x.balance.minRing, x.balance.maxRing = lbRingHash, least.GetValue(), most.GetValue()
	top := most.GetValue()
	if top == 0 {
		top = 8 << 20
	}
	if least.GetValue() > 8<<20 || most.GetValue() > 8<<20 || least.GetValue() > top {
		return errors.New("ring")
	}
	return nil
}

func referenceTable(m *wrapperspb.UInt64Value, x *cluster) error {
	x.balance.policy, x.balance.table = lbMaglev, m.GetValue()
	if n := m.GetValue(); n > 5000011 || n > 0 && !new(big.Int).SetUint64(n).ProbablyPrime(20) {
		return errors.New("table")
	}
	return nil
}

func referenceBalancing(m *clusterv3.Cluster, x *cluster) error {
	if m.LoadBalancingPolicy != nil {
		known, err := referencePolicy(m.LoadBalancingPolicy, x, 16)
		if !known {
			x.balance = balancing{}
		}
		return err
	}
	switch m.LbPolicy {
	case clusterv3.Cluster_ROUND_ROBIN:
		slow := m.GetRoundRobinLbConfig().GetSlowStartConfig()
		return referenceSlow(slow, slow == nil, x)
	case clusterv3.Cluster_LEAST_REQUEST:
		config := m.GetLeastRequestLbConfig()
		return errors.Join(referenceLeast(config.GetChoiceCount(), config.GetActiveRequestBias(), x), referenceSlow(config.GetSlowStartConfig(), config.GetSlowStartConfig() == nil, x))
	case clusterv3.Cluster_RING_HASH:
		return referenceRing(m.GetRingHashLbConfig().GetMinimumRingSize(), m.GetRingHashLbConfig().GetMaximumRingSize(), x)
	case clusterv3.Cluster_RANDOM:
		x.balance.policy = lbRandom
	case clusterv3.Cluster_MAGLEV:
		return referenceTable(m.GetMaglevLbConfig().GetTableSize(), x)
	}
	return nil
}

func referencePolicy(m *clusterv3.LoadBalancingPolicy, x *cluster, depth int) (known bool, err error) {
	if depth == 0 || len(m.GetPolicies()) == 0 {
		return false, errors.New("too deep, or no policy")
	}
	for _, p := range m.Policies {
		if known, err = referenceOnePolicy(p.GetTypedExtensionConfig().GetTypedConfig(), x, depth); known || err != nil {
			return known, err
		}
	}
	return false, nil
}

func referenceChild(m *clusterv3.LoadBalancingPolicy, x *cluster, depth int) (bool, error) {
	if m == nil {
		return true, nil
	}
	return referencePolicy(m, x, depth-1)
}

func referenceLocality(m *commonv3.LocalityLbConfig, x *cluster) {
	x.weighted = x.weighted || m.GetLocalityWeightedLbConfig() != nil
}

func referenceHashing(m *commonv3.ConsistentHashingLbConfig, x *cluster) error {
	x.balance.hostnames = x.balance.hostnames || m.GetUseHostnameForHashing()
	return referenceBound(m.GetHashBalanceFactor(), x)
}

func referenceOnePolicy(a *anypb.Any, x *cluster, depth int) (known bool, err error) {
	name, readable := extensionType(a)
	value := a.GetValue()
	if !readable {
		value = nil
	}
	read := func(m proto.Message) bool {
		if name == nameOf(m) {
			known, err = true, proto.Unmarshal(value, m)
		}
		return known && err == nil
	}
	var (
		roundRobin = &roundrobinv3.RoundRobin{}
		least      = &leastrequestv3.LeastRequest{}
		random     = &randomv3.Random{}
		ring       = &ringhashv3.RingHash{}
		maglev     = &maglevv3.Maglev{}
		first      = &pickfirstv3.PickFirst{}
		reported   = &reportedv3.ClientSideWeightedRoundRobin{}
		locality   = &wrrlocalityv3.WrrLocality{}
		override   = &overridev3.OverrideHost{}
		subset     = &subsettingv3.RandomSubsetting{}
	)
	switch {
	case read(roundRobin):
		x.balance.policy = lbRoundRobin
		referenceLocality(roundRobin.LocalityLbConfig, x)
		err = referenceSlow(roundRobin.SlowStartConfig, roundRobin.SlowStartConfig == nil, x)
	case read(least):
		referenceLocality(least.LocalityLbConfig, x)
		x.balance.fullScan = x.balance.fullScan || least.EnableFullScan.GetValue() || least.SelectionMethod == leastrequestv3.LeastRequest_FULL_SCAN
		err = errors.Join(referenceLeast(least.ChoiceCount, least.ActiveRequestBias, x), referenceSlow(least.SlowStartConfig, least.SlowStartConfig == nil, x))
	case read(random):
		x.balance.policy = lbRandom
		referenceLocality(random.LocalityLbConfig, x)
	case read(ring):
		x.balance.hostnames = x.balance.hostnames || ring.UseHostnameForHashing
		x.weighted = x.weighted || ring.LocalityWeightedLbConfig != nil
		err = errors.Join(referenceRing(ring.MinimumRingSize, ring.MaximumRingSize, x), referenceBound(ring.HashBalanceFactor, x), referenceHashing(ring.ConsistentHashingLbConfig, x))
	case read(maglev):
		x.weighted = x.weighted || maglev.LocalityWeightedLbConfig != nil
		err = errors.Join(referenceTable(maglev.TableSize, x), referenceHashing(maglev.ConsistentHashingLbConfig, x))
	case read(first):
		x.balance.policy, x.balance.shuffle = lbPickFirst, first.ShuffleAddressList
	case read(reported):
		err = referenceReported(reported, x)
	case read(locality):
		x.weighted = true
		known, err = referenceChild(locality.EndpointPickingPolicy, x, depth)
	case read(override):
		known, err = referenceChild(override.FallbackPolicy, x, depth)
	case read(subset):
		if known, err = referenceChild(subset.ChildPolicy, x, depth); known {
			x.balance.subset = subset.SubsetSize.GetValue()
		}
	}
	return known || name == typeClusterProvided, err
}

func referenceReported(m *reportedv3.ClientSideWeightedRoundRobin, x *cluster) error {
	var errs []error
	duration := func(m *durationpb.Duration) time.Duration {
		d, err := referenceDuration(m)
		errs = append(errs, err)
		return d
	}
	x.balance.policy = lbReported
	x.balance.reported = loadReporting{
		outOfBand: m.EnableOobLoadReport.GetValue(), period: duration(m.OobReportingPeriod), blackout: duration(m.BlackoutPeriod), expiration: duration(m.WeightExpirationPeriod),
		update: duration(m.WeightUpdatePeriod), penalty: float64(m.ErrorUtilizationPenalty.GetValue()), metrics: strings.Join(m.MetricNamesForComputingUtilization, " "),
	}
	x.balance.reported.noBlackout = m.BlackoutPeriod != nil && x.balance.reported.blackout == 0
	if p := m.ErrorUtilizationPenalty; p != nil {
		if x.balance.reported.noPenalty = p.Value == 0; p.Value < 0 {
			errs = append(errs, errors.New("penalty"))
		}
	}
	return errors.Join(append(errs, referenceSlow(m.SlowStartConfig, m.SlowStartConfig == nil, x))...)
}

func referenceAssignment(m *endpointv3.ClusterLoadAssignment) (*assignment, error) {
	if m.ClusterName == "" {
		return nil, errors.New("no name")
	}
	return referenceLoad(m)
}

func referencePolicyOfAssignment(m *endpointv3.ClusterLoadAssignment_Policy, a *assignment) error {
	for _, drop := range m.GetDropOverloads() {
		x := dropShare{category: drop.Category}
		if err := referenceFraction(drop.DropPercentage, &x.share); err != nil {
			return err
		}
		if x.share > 0 {
			a.drops = append(a.drops, x)
		}
	}
	a.overprovided = m.GetOverprovisioningFactor().GetValue()
	return nil
}

// referenceLocalities are those that count, by priority.
func referenceLocalities(all []*endpointv3.LocalityLbEndpoints) (localities []*endpointv3.LocalityLbEndpoints, weighted bool) {
	weighted = slices.ContainsFunc(all, func(l *endpointv3.LocalityLbEndpoints) bool { return l.LoadBalancingWeight != nil })
	localities = slices.DeleteFunc(slices.Clone(all), func(l *endpointv3.LocalityLbEndpoints) bool {
		return weighted && l.LoadBalancingWeight.GetValue() == 0
	})
	slices.SortStableFunc(localities, func(a, b *endpointv3.LocalityLbEndpoints) int { return cmp.Compare(a.Priority, b.Priority) })
	return localities, weighted
}

func referenceLoad(m *endpointv3.ClusterLoadAssignment) (*assignment, error) {
	a := &assignment{cluster: m.ClusterName}
	if err := referencePolicyOfAssignment(m.Policy, a); err != nil {
		return nil, err
	}
	localities, weighted := referenceLocalities(m.Endpoints)
	seen := map[netip.AddrPort]bool{}
	sums := map[uint32]uint64{} // by priority
	for at, l := range localities {
		place := locality{region: l.Locality.GetRegion(), zone: l.Locality.GetZone(), subZone: l.Locality.GetSubZone(), priority: l.Priority, first: len(a.endpoints)}
		var sum uint64
		for _, m := range l.LbEndpoints {
			e, use, err := referenceEndpoint(m)
			if err == nil {
				e.labels, err = a.labelOf(m.GetMetadata())
			}
			switch {
			case err != nil:
				return nil, err
			case use && e.health > healthHealthy:
				a.others = append(a.others, otherEndpoint{e, int32(at)})
				place.others++
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

// referenceEndpoint is an endpoint, and whether it has an address and a weight.
func referenceEndpoint(m *endpointv3.LbEndpoint) (e endpoint, use bool, err error) {
	var extra endpointExtra
	for _, more := range m.GetEndpoint().GetAdditionalAddresses() {
		host, port, ok, err := referenceSocketAddress(more.Address)
		if err != nil {
			return e, false, err
		}
		if ip, err := netip.ParseAddr(host); ok && err == nil && port != 0 {
			extra.more = append(extra.more, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
		}
	}
	host, port, ok, err := referenceSocketAddress(m.GetEndpoint().GetAddress())
	if err != nil || !ok {
		return e, false, err
	}
	ip, bad := netip.ParseAddr(host)
	e = endpoint{addr: netip.AddrPortFrom(ip.Unmap(), uint16(port)), weight: 1, health: healthUnhealthy}
	if m.HealthStatus >= 0 && m.HealthStatus <= 5 {
		e.health = healthStatus(m.HealthStatus)
	}
	if m.LoadBalancingWeight != nil {
		e.weight = m.LoadBalancingWeight.Value
	}
	extra.hostname, extra.hashKey = m.GetEndpoint().GetHostname(), m.GetMetadata().GetFilterMetadata()["envoy.lb"].GetFields()["hash_key"].GetStringValue()
	if extra.hostname != "" || extra.hashKey != "" || extra.more != nil {
		e.extra = &extra
	}
	return e, bad == nil && port != 0 && e.weight > 0, nil
}
