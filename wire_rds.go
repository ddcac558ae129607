package proxyless

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

var (
	routeConfigUnapplied = unapplied{4: "response_headers_to_add", 5: "response_headers_to_remove", 6: "request_headers_to_add",
		8: "request_headers_to_remove", 9: "vhds", 13: "request_mirror_policies", 16: perFilter}
	virtualHostUnapplied = unapplied{4: "require_tls", 6: "rate_limits", 7: "request_headers_to_add", 10: "response_headers_to_add",
		11: "response_headers_to_remove", 13: "request_headers_to_remove", 15: perFilter, 17: "hedge_policy", 20: "retry_policy_typed_config",
		21: "matcher", 22: "request_mirror_policies"}
	routeUnapplied = unapplied{9: "request_headers_to_add", 10: "response_headers_to_add", 11: "response_headers_to_remove",
		12: "request_headers_to_remove", 13: perFilter}
	routeActionUnapplied = unapplied{4: "metadata_match", 5: "prefix_rewrite", 6: "host_rewrite_literal", 13: "rate_limits", 15: "hash_policy",
		24: "idle_timeout", 27: "hedge_policy", 28: "grpc_timeout_offset", 29: "host_rewrite_header", 30: "request_mirror_policies",
		32: "regex_rewrite", 33: "retry_policy_typed_config", 35: "host_rewrite_path_regex", 41: "path_rewrite_policy",
		44: "host_rewrite", 45: "path_rewrite"}
	clusterWeightUnapplied = unapplied{3: "metadata_match", 4: "request_headers_to_add", 5: "response_headers_to_add",
		6: "response_headers_to_remove", 9: "request_headers_to_remove", 10: perFilter, 11: "host_rewrite_literal"}
)

// namedRouteConfig is routeConfig for a resource of its own, which has a name.
func (d *decoding) namedRouteConfig(b []byte) (*routeConfig, error) {
	r, err := d.routeConfig(b)
	if err == nil && r.name == "" {
		return nil, missingField("name")
	}
	return r, err
}

// decodeRoutes is decodeResource for a route configuration of which only some
// virtual hosts matter, as in a sidecar's, which has one for each service of
// the mesh: those none of whose domains is wanted are skipped before anything
// of them is decoded. The domain is as it was sent: in any case, exact,
// "*suffix", "prefix*" or "*"; it must not be kept. What matters is written to
// the digest, which may be nil, so that the caller can tell that nothing of
// interest has changed.
func decodeRoutes(value []byte, wanted func(domain []byte) bool, digest *maphash.Hash) (decoded, error) {
	d := decoding{wanted: wanted, digest: digest}
	return d.resource(kindRoute, value)
}

// matters says whether a virtual host is to be decoded, and writes it to the
// digest if so.
func (d *decoding) matters(virtualHost []byte) bool {
	if d.wanted != nil {
		found := false
		c := walk(virtualHost)
		for !found && c.next() {
			found = c.num == 2 && d.wanted(c.val)
		}
		if !found && c.err == nil {
			return false
		}
	}
	d.digestField(2, virtualHost, 0)
	return true
}

// digestField writes a field to the digest.
func (d *decoding) digestField(num protowire.Number, value []byte, scalar uint64) {
	if d.digest == nil {
		return
	}
	var head [3 * binary.MaxVarintLen64]byte
	b := binary.AppendUvarint(head[:0], uint64(num))
	b = binary.AppendUvarint(b, scalar)
	_, _ = d.digest.Write(binary.AppendUvarint(b, uint64(len(value))))
	_, _ = d.digest.Write(value)
}

// routeConfig reads an envoy.config.route.v3.RouteConfiguration. The name of
// one that is inside a listener may be empty.
func (d *decoding) routeConfig(b []byte) (*routeConfig, error) {
	r := &routeConfig{}
	if d.wanted == nil {
		r.virtualHosts = make([]virtualHost, 0, countField(b, 2))
	}
	c := walk(b)
	for index := 0; c.next(); {
		if c.num != 2 {
			d.digestField(c.num, c.val, c.u)
		}
		switch c.num {
		case 1:
			r.name = c.text("name")
		case 2:
			if host := c.bytes("virtual_hosts"); d.matters(host) {
				d.keep(&c, "virtual_hosts")
				i := len(r.virtualHosts)
				r.virtualHosts = append(r.virtualHosts, virtualHost{})
				c.fail(inElement("virtual_hosts", index, d.virtualHost(host, &r.virtualHosts[i], index)))
			}
			index++
		default:
			d.ignoreIf(&c, routeConfigUnapplied)
		}
	}
	if d.defaultRetry {
		d.ignore("virtual_hosts[*].routes[*].route.retry_policy (Istio's default)")
	}
	return r, c.err
}

// virtualHost reads an envoy.config.route.v3.VirtualHost.
func (d *decoding) virtualHost(b []byte, v *virtualHost, index int) error {
	v.domains = make([]string, 0, countField(b, 2))
	v.routes = make([]route, 0, countField(b, 3))
	outer := d.enter()
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			v.name = c.text("name")
		case 2:
			d.keep(&c, "domains")
			domain := strings.ToLower(c.text("domains"))
			c.fail(inElement("domains", len(v.domains), checkDomain(domain)))
			v.domains = append(v.domains, domain)
		case 3:
			d.keep(&c, "routes")
			i := len(v.routes)
			v.routes = append(v.routes, route{})
			c.fail(inElement("routes", i, d.route(c.bytes("routes"), &v.routes[i], i)))
		case 16:
			c.fail(inField("retry_policy", d.retryPolicy(c.bytes("retry_policy"))))
		default:
			d.ignoreIf(&c, virtualHostUnapplied)
		}
	}
	d.leave(outer, "virtual_hosts", v.name, index)
	return c.err
}

// checkDomain accepts an exact name, "*suffix", "prefix*" and "*".
func checkDomain(domain string) error {
	if star := strings.IndexByte(domain, '*'); domain == "" || star >= 0 && star != strings.LastIndexByte(domain, '*') || star > 0 && star < len(domain)-1 {
		return fmt.Errorf("%q is neither a name nor one with a single * at its start or end", domain)
	}
	return nil
}

// route reads an envoy.config.route.v3.Route.
func (d *decoding) route(b []byte, r *route, index int) error {
	outer := d.enter()
	var match []byte
	var action oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("match", &match)
		case 2, 3, 7, 17, 18:
			action.message(&c, "action")
		case 14:
			r.name = c.text("name")
		default:
			d.ignoreIf(&c, routeUnapplied)
		}
	}
	if c.err == nil && match == nil {
		c.fail(missingField("match"))
	}
	c.fail(inField("match", d.routeMatch(match, &r.match)))
	c.fail(d.action(action, r))
	if r.match.never != "" {
		d.ignore("match." + r.match.never)
		r.clusters, r.total = nil, 0 // nothing to subscribe to
		r.failure = "its match has " + r.match.never + ", which is not supported, so that it never matches"
	}
	d.leave(outer, "routes", r.name, index)
	return c.err
}

// action reads what a route does. Only forwarding carries a call; anything
// else becomes the reason why calls that match fail.
func (d *decoding) action(action oneof, r *route) error {
	switch action.num {
	case 2:
		outer := d.enter()
		defer d.leave(outer, "route", "", -1)
		return inField("route", d.routeAction(action.val, r))
	case 3:
		r.failure = "the route answers with a redirect, which a gRPC call cannot follow"
	case 7:
		status, err := decodeWrapped(action.val) // status is field 1, as the value of a wrapper is
		r.failure = fmt.Sprintf("the route answers every call directly, with HTTP status %d", status)
		return inField("direct_response", err)
	case 17, 18:
		r.failure = "the route does not forward: it is meant for servers"
	default:
		r.failure = "the route has no action that is known"
	}
	return nil
}

// routeAction reads an envoy.config.route.v3.RouteAction.
func (d *decoding) routeAction(b []byte, r *route) error {
	var cluster oneof
	var timeout, grpcTimeout, limit, rewrite []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1, 2, 37:
			cluster.raw(&c, "cluster_specifier")
		case 3, 39:
			cluster.message(&c, "cluster_specifier")
		case 7:
			c.message("auto_host_rewrite", &rewrite)
		case 8:
			c.message("timeout", &timeout)
		case 9:
			c.fail(inField("retry_policy", d.retryPolicy(c.bytes("retry_policy"))))
		case 23:
			c.message("max_grpc_timeout", &grpcTimeout)
		case 36:
			c.message("max_stream_duration", &limit)
		default:
			d.ignoreIf(&c, routeActionUnapplied)
		}
	}
	c.fail(inField("max_stream_duration", d.maxStreamDuration(limit, r)))
	if !r.hasMaxDuration {
		d.ignoreUnlessZero("timeout", timeout)
		d.ignoreUnlessZero("max_grpc_timeout", grpcTimeout)
	}
	d.ignoreUnlessZero("auto_host_rewrite", rewrite)
	if c.err != nil {
		return c.err
	}
	return d.clusterSpecifier(cluster, r)
}

// ignoreUnlessZero notes a Duration or wrapper that says something. Istio sends
// a timeout of 0 where no timeout is meant.
func (d *decoding) ignoreUnlessZero(field string, message []byte) {
	c := walk(message)
	for c.next() {
		if c.u != 0 {
			d.ignore(field)
		}
	}
}

// clusterSpecifier reads the clusters that a route chooses from.
func (d *decoding) clusterSpecifier(specifier oneof, r *route) error {
	switch specifier.num {
	case 1:
		if len(specifier.val) == 0 {
			return missingField("cluster")
		}
		r.clusters, r.total = []weightedCluster{{name: d.intern(specifier.val), weight: 1}}, 1
	case 2:
		r.failure = fmt.Sprintf("the route takes its cluster from the header %q, which is not supported", specifier.val)
	case 3:
		return inField("weighted_clusters", d.weightedClusters(specifier.val, r))
	case 37, 39:
		r.failure = "the route takes its cluster from a plugin, which is not supported"
	default:
		r.failure = "the route names no cluster"
	}
	return nil
}

// weightedClusters reads an envoy.config.route.v3.WeightedCluster.
func (d *decoding) weightedClusters(b []byte, r *route) error {
	r.clusters = make([]weightedCluster, 0, countField(b, 1))
	var total uint64
	c := walk(b)
	for i := 0; c.next(); {
		if c.num != 1 {
			continue
		}
		d.keep(&c, "clusters")
		w, err := d.clusterWeight(c.bytes("clusters"), i)
		c.fail(inElement("clusters", i, err))
		if total += uint64(w.weight); w.weight > 0 {
			r.clusters = append(r.clusters, w)
		}
		i++
	}
	switch {
	case c.err != nil:
		return c.err
	case total == 0:
		return errors.New("no cluster has a weight")
	case total > math.MaxUint32:
		return fmt.Errorf("the weights add up to %d, more than %d", total, uint32(math.MaxUint32))
	}
	r.total = uint32(total)
	return nil
}

// clusterWeight reads an envoy.config.route.v3.WeightedCluster.ClusterWeight.
func (d *decoding) clusterWeight(b []byte, index int) (w weightedCluster, err error) {
	outer := d.enter()
	var weight []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			w.name = d.intern(c.raw("name"))
		case 2:
			c.message("weight", &weight)
		case 12:
			c.fail(inField("cluster_header", errors.New("not supported")))
		default:
			d.ignoreIf(&c, clusterWeightUnapplied)
		}
	}
	value, err := decodeWrapped(weight)
	c.fail(inField("weight", err))
	if w.weight = uint32(value); w.name == "" && w.weight > 0 {
		c.fail(missingField("name"))
	}
	d.leave(outer, "weighted_clusters.clusters", w.name, index)
	return w, c.err
}

// maxStreamDuration reads an envoy.config.route.v3.RouteAction.MaxStreamDuration:
// grpc_timeout_header_max comes before max_stream_duration (gRFC A31).
func (d *decoding) maxStreamDuration(b []byte, r *route) error {
	var limit, headerMax []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("max_stream_duration", &limit)
		case 2:
			c.message("grpc_timeout_header_max", &headerMax)
		case 3:
			d.ignore("max_stream_duration.grpc_timeout_header_offset")
		}
	}
	field := "max_stream_duration"
	if headerMax != nil {
		field, limit = "grpc_timeout_header_max", headerMax
	}
	if c.err != nil || limit == nil {
		return c.err
	}
	var err error
	r.hasMaxDuration = true
	r.maxDuration, err = decodeDuration(limit)
	return inField(field, err)
}

// istioRetryOn is the policy that Istio gives to every route without one.
const istioRetryOn = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"

// retryPolicy notes that an envoy.config.route.v3.RetryPolicy is not applied;
// Istio's own is noted once for all routes.
func (d *decoding) retryPolicy(b []byte) error {
	var on string
	var retries []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			on = c.text("retry_on")
		case 2:
			c.message("num_retries", &retries)
		}
	}
	n, err := decodeWrapped(retries)
	c.fail(inField("num_retries", err))
	if on == istioRetryOn && n == 2 {
		d.defaultRetry = true
	} else {
		d.ignore("retry_policy")
	}
	return c.err
}
