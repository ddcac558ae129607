package proxyless

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message types of load balancing policies.
const (
	balancingPrefix        = "envoy.extensions.load_balancing_policies."
	typeRoundRobin         = balancingPrefix + "round_robin.v3.RoundRobin"
	typeLeastRequest       = balancingPrefix + "least_request.v3.LeastRequest"
	typeRandom             = balancingPrefix + "random.v3.Random"
	typeRingHash           = balancingPrefix + "ring_hash.v3.RingHash"
	typeMaglev             = balancingPrefix + "maglev.v3.Maglev"
	typePickFirst          = balancingPrefix + "pick_first.v3.PickFirst"
	typeLocalityRoundRobin = balancingPrefix + "wrr_locality.v3.WrrLocality"
	typeReportedRoundRobin = balancingPrefix + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
	typeRandomSubsetting   = balancingPrefix + "random_subsetting.v3.RandomSubsetting"
	typeOverrideHost       = balancingPrefix + "override_host.v3.OverrideHost"
	typeClusterProvided    = balancingPrefix + "cluster_provided.v3.ClusterProvided"

	maxBalancingDepth = 16 // gRFC A52
)

// Values of Cluster.lb_policy.
const (
	enumRoundRobin = iota
	enumLeastRequest
	enumRingHash
	enumRandom
	_
	enumMaglev
	enumClusterProvided
	enumPolicyConfig
)

// balancingOf takes load_balancing_policy where it is there, else lb_policy
// with the configuration that belongs to it.
func (d *decoding) balancingOf(p *clusterParts, x *cluster) error {
	if p.balancing != nil {
		known, err := d.balancingList(p.balancing, x, maxBalancingDepth)
		if err == nil && !known {
			x.balance = balancing{}
		}
		return inField("load_balancing_policy", err)
	}
	b := &x.balance
	switch p.policy {
	case enumRoundRobin:
		return inField("round_robin_lb_config", d.slowStartIn(p.roundRobin, 1, &b.slow))
	case enumLeastRequest:
		b.policy = lbLeastRequest
		return inField("least_request_lb_config", d.leastRequest(p.leastRequest, x))
	case enumRingHash:
		b.policy = lbRingHash
		return inField("ring_hash_lb_config", d.clusterRing(p.ringHash, b))
	case enumRandom:
		b.policy = lbRandom
	case enumMaglev:
		b.policy = lbMaglev
		return inField("maglev_lb_config", d.maglevTable(p.maglev, b))
	case enumClusterProvided:
	default:
		d.ignore("lb_policy (" + enumName(lbPolicies[:], p.policy) + ")")
	}
	return nil
}

// balancingList reads an envoy.config.cluster.v3.LoadBalancingPolicy: the first
// policy that is known applies (gRFC A52). Where none is, the first one is
// noted, and round robin is used in its place.
func (d *decoding) balancingList(b []byte, x *cluster, depth int) (known bool, err error) {
	if depth == 0 {
		return false, errors.New("nested too deep")
	}
	first, i := "", 0
	c := walk(b)
	for c.next() && !known {
		if c.num != 1 {
			continue
		}
		var policy extension
		if policy, err = decodePolicy(c.bytes("policies")); err == nil {
			known, err = d.balancingPolicy(policy, x, depth)
		}
		c.fail(inElement("policies", i, err))
		if i == 0 {
			first = policy.name
		}
		i++
	}
	switch {
	case c.err != nil:
		return false, c.err
	case i == 0:
		return false, inElement("policies", 0, errors.New("missing"))
	case !known:
		d.ignore("load_balancing_policy (" + first[strings.LastIndexByte(first, '.')+1:] + ")")
	}
	return known, nil
}

// decodePolicy reads a LoadBalancingPolicy.Policy.
func decodePolicy(b []byte) (extension, error) {
	typed, err := submessage(b, 4, "typed_extension_config")
	if err != nil {
		return extension{}, err
	}
	packed, err := submessage(typed, 2, "typed_config")
	if err != nil {
		return extension{}, inField("typed_extension_config", err)
	}
	x, err := decodeExtension(packed)
	return x, inField("typed_extension_config.typed_config", err)
}

// balancingPolicy takes a policy if it is known. Of a TypedStruct, which would
// be a policy of the user's own in gRPC, the type is taken and what is inside
// is noted.
func (d *decoding) balancingPolicy(p extension, x *cluster, depth int) (known bool, err error) {
	b := &x.balance
	value := p.value
	if p.json {
		if len(value) > 0 && strings.HasPrefix(p.name, balancingPrefix) {
			d.ignore("load_balancing_policy (TypedStruct of " + p.name + ")")
		}
		value = nil
	}
	switch p.name {
	case typeRoundRobin:
		b.policy = lbRoundRobin
		err = d.policyConfig(value, x, 2, 1)
	case typeLeastRequest:
		b.policy = lbLeastRequest
		err = d.leastRequest(value, x)
	case typeRandom:
		b.policy = lbRandom
		err = d.policyConfig(value, x, 1, noField)
	case typeRingHash:
		b.policy = lbRingHash
		err = d.ringHash(value, x)
	case typeMaglev:
		b.policy = lbMaglev
		err = d.maglev(value, x)
	case typePickFirst:
		b.policy = lbPickFirst
		shuffle, failed := decodeWrapped(value) // shuffle_address_list is field 1, as the value of a wrapper is
		b.shuffle, err = shuffle != 0, failed
	case typeReportedRoundRobin:
		b.policy = lbReported
		err = d.loadReporting(value, b)
	case typeClusterProvided:
	case typeLocalityRoundRobin:
		x.weighted = true
		return d.childPolicy(value, 1, "endpoint_picking_policy", x, depth)
	case typeOverrideHost:
		return d.childPolicy(value, 3, "fallback_policy", x, depth)
	case typeRandomSubsetting:
		return d.randomSubsetting(value, x, depth)
	default:
		return false, nil
	}
	return true, inField(p.name[strings.LastIndexByte(p.name, '.')+1:], err)
}

// childPolicy reads the policies inside a policy; without any it is round robin.
func (d *decoding) childPolicy(b []byte, num protowire.Number, field string, x *cluster, depth int) (known bool, err error) {
	inner, err := submessage(b, num, field)
	if err != nil || inner == nil {
		return true, err
	}
	known, err = d.balancingList(inner, x, depth-1)
	return known, inField(field, err)
}

// policyConfig reads what several policies have: how localities count, and how
// new endpoints start.
func (d *decoding) policyConfig(b []byte, x *cluster, locality, slow protowire.Number) error {
	c := walk(b)
	for c.next() {
		switch c.num {
		case locality:
			c.fail(inField("locality_lb_config", d.localityConfig(c.bytes("locality_lb_config"), x)))
		case slow:
			c.fail(inField("slow_start_config", x.balance.slow.read(c.bytes("slow_start_config"))))
		}
	}
	return c.err
}

// localityConfig reads a LocalityLbConfig.
func (d *decoding) localityConfig(b []byte, x *cluster) error {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			d.ignore("zone_aware_lb_config")
		case 2:
			x.weighted = true
		}
	}
	return c.err
}

// leastRequest reads a Cluster.LeastRequestLbConfig or a LeastRequest policy,
// which have the same numbers for what both have.
func (d *decoding) leastRequest(message []byte, x *cluster) error {
	b := &x.balance
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			n, err := decodeWrapped(c.bytes("choice_count"))
			c.fail(inField("choice_count", err))
			if b.choices = uint32(n); n < 2 {
				c.fail(inField("choice_count", fmt.Errorf("%d is less than 2", uint32(n))))
			}
		case 2:
			bias, err := decodeDouble(c.bytes("active_request_bias"))
			if bias < 0 && err == nil {
				err = fmt.Errorf("%g is negative", bias)
			}
			c.fail(inField("active_request_bias", err))
			b.bias, b.hasBias = bias, true
		case 3:
			c.fail(inField("slow_start_config", b.slow.read(c.bytes("slow_start_config"))))
		case 4:
			c.fail(inField("locality_lb_config", d.localityConfig(c.bytes("locality_lb_config"), x)))
		case 5:
			full, err := decodeWrapped(c.bytes("enable_full_scan"))
			c.fail(inField("enable_full_scan", err))
			b.fullScan = b.fullScan || full != 0
		case 6:
			b.fullScan = b.fullScan || c.scalar("selection_method") == 1
		}
	}
	return c.err
}

// slowStartIn reads the slow start that is one field of a message.
func (d *decoding) slowStartIn(message []byte, num protowire.Number, to *slowStart) error {
	inner, err := submessage(message, num, "slow_start_config")
	if err != nil || inner == nil {
		return err
	}
	return inField("slow_start_config", to.read(inner))
}

// read reads a SlowStartConfig, that of a policy or of a cluster.
func (s *slowStart) read(message []byte) (err error) {
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			s.window, err = decodeDuration(c.bytes("slow_start_window"))
			c.fail(inField("slow_start_window", err))
		case 2:
			s.aggression, err = decodeDouble(c.bytes("aggression"))
			if err == nil && s.aggression < 0 {
				err = fmt.Errorf("%g is negative", s.aggression)
			}
			c.fail(inField("aggression", err))
		case 3:
			s.least, err = decodePercent(c.bytes("min_weight_percent"))
			c.fail(inField("min_weight_percent", err))
			s.least, s.hasLeast = s.least/100, true
		}
	}
	if s.window == 0 {
		*s = slowStart{}
	}
	return c.err
}

// randomSubsetting reads a RandomSubsetting policy.
func (d *decoding) randomSubsetting(message []byte, x *cluster, depth int) (known bool, err error) {
	size, err := submessage(message, 1, "subset_size")
	if err != nil {
		return false, err
	}
	n, err := decodeWrapped(size)
	if err != nil {
		return false, inField("subset_size", err)
	}
	if known, err = d.childPolicy(message, 2, "child_policy", x, depth); known {
		x.balance.subset = uint32(n)
	}
	return known, err
}

// loadReporting reads a ClientSideWeightedRoundRobin policy.
func (d *decoding) loadReporting(message []byte, b *balancing) (err error) {
	r := &b.reported
	var metrics []string
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			on, err := decodeWrapped(c.bytes("enable_oob_load_report"))
			c.fail(inField("enable_oob_load_report", err))
			r.outOfBand = on != 0
		case 2:
			r.period, err = decodeDuration(c.bytes("oob_reporting_period"))
			c.fail(inField("oob_reporting_period", err))
		case 3:
			r.blackout, err = decodeDuration(c.bytes("blackout_period"))
			r.noBlackout = r.blackout == 0
			c.fail(inField("blackout_period", err))
		case 4:
			r.expiration, err = decodeDuration(c.bytes("weight_expiration_period"))
			c.fail(inField("weight_expiration_period", err))
		case 5:
			r.update, err = decodeDuration(c.bytes("weight_update_period"))
			c.fail(inField("weight_update_period", err))
		case 6:
			r.penalty, err = decodeFloat(c.bytes("error_utilization_penalty"))
			if err == nil && r.penalty < 0 {
				err = fmt.Errorf("%g is negative", r.penalty)
			}
			r.noPenalty = r.penalty == 0
			c.fail(inField("error_utilization_penalty", err))
		case 7:
			d.keep(&c, "metric_names_for_computing_utilization")
			metrics = append(metrics, c.text("metric_names_for_computing_utilization"))
		case 8:
			c.fail(inField("slow_start_config", b.slow.read(c.bytes("slow_start_config"))))
		case 9:
			d.ignore("load_balancing_policy.oob_reporting_config")
		}
	}
	r.metrics = strings.Join(metrics, " ")
	return c.err
}
