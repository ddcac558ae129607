package proxyless

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

var (
	routeActionUnapplied = unapplied{4: "metadata_match", 13: "rate_limits", 28: "grpc_timeout_offset",
		33: "retry_policy_typed_config", 38: "append_x_forwarded_host", 41: "path_rewrite_policy", 45: "path_rewrite"}
	clusterWeightUnapplied = unapplied{3: "metadata_match"}
)

// action reads what a route does. Only forwarding carries a call; anything
// else becomes the reason why calls that match fail.
func (d *decoding) action(action oneof, up *routeLevels, own *level, r *route) error {
	switch action.num {
	case 2:
		outer := d.enter()
		defer d.leave(outer, "route", "", -1)
		return inField("route", d.routeAction(action.val, up, own, r))
	case 3:
		return inField("redirect", r.redirect(action.val))
	case 7:
		return inField("direct_response", r.directResponse(action.val))
	case 17, 18:
		r.failure = "the route does not forward: it is meant for servers"
	default:
		r.failure = "the route has no action that is known"
	}
	return nil
}

// redirect reads as much of a RedirectAction as says where it would lead.
func (r *route) redirect(b []byte) error {
	var host, path string
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			host = c.text("host_redirect")
		case 2:
			path = c.text("path_redirect")
		}
	}
	r.failure, r.code = "the route answers with a redirect", codeOfHTTP(301)
	if host+path != "" {
		r.failure += " to " + host + path
	}
	r.failure += ", which a gRPC call cannot follow"
	return c.err
}

// maxDirectBody is how much of the body of a direct response becomes text.
const maxDirectBody = 4096

// directResponse reads a DirectResponseAction: the code is the one that stands
// for its HTTP status, and the body, where it is inline, is the text, as Envoy
// answers a gRPC call.
func (r *route) directResponse(b []byte) error {
	var status uint64
	var body []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			status = c.scalar("status")
		case 2:
			c.message("body", &body)
		}
	}
	var text oneof
	source := walk(body)
	for source.next() {
		switch source.num {
		case 1, 3, 4:
			text.raw(&source, "specifier")
		case 2:
			text = oneof{num: 2, val: source.bytes("inline_bytes")}
		}
	}
	c.fail(inField("body", source.err))
	r.failure, r.code = fmt.Sprintf("the route answers every call directly, with HTTP status %d", uint32(status)), codeOfHTTP(uint32(status))
	if (text.num == 2 || text.num == 3) && len(text.val) > 0 {
		r.failure += ": " + strings.ToValidUTF8(string(text.val[:min(len(text.val), maxDirectBody)]), "?")
	}
	return c.err
}

// actionParts are the messages inside a route action, before they are looked into.
type actionParts struct {
	cluster, rewrite                  oneof
	timeout, grpcTimeout, limit, idle []byte
	policy                            routePolicy // hash, rewrite and path
	prefix                            string
	regex                             []byte
}

// routeAction reads an envoy.config.route.v3.RouteAction.
func (d *decoding) routeAction(b []byte, up *routeLevels, own *level, r *route) error {
	var p actionParts
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1, 2, 37:
			p.cluster.raw(&c, "cluster_specifier")
		case 3, 39:
			p.cluster.message(&c, "cluster_specifier")
		case 5:
			p.prefix = c.text("prefix_rewrite")
		case 6, 29:
			p.rewrite.raw(&c, "host_rewrite_specifier")
		case 7, 35, 44:
			p.rewrite.message(&c, "host_rewrite_specifier")
		case 8:
			c.message("timeout", &p.timeout)
		case 15:
			d.keep(&c, "hash_policy")
			c.fail(inElement("hash_policy", len(p.policy.hash), d.hashPolicy(c.bytes("hash_policy"), &p.policy.hash)))
		case 23:
			c.message("max_grpc_timeout", &p.grpcTimeout)
		case 24:
			c.message("idle_timeout", &p.idle)
		case 32:
			c.message("regex_rewrite", &p.regex)
		case 36:
			c.message("max_stream_duration", &p.limit)
		case 38:
			if c.scalar("append_x_forwarded_host") != 0 {
				d.ignoreIf(&c, routeActionUnapplied)
			}
		default:
			if !d.levelField(&c, &actionFields, own) {
				d.ignoreIf(&c, routeActionUnapplied)
			}
		}
	}
	c.fail(d.authorityRewrite(p.rewrite, &p.policy.rewrite))
	c.fail(inField("regex_rewrite", p.pathRewrite(&r.match)))
	c.fail(d.timeouts(&p, r))
	d.ignoreUnlessZero("idle_timeout", p.idle)
	if c.err != nil {
		return c.err
	}
	r.policy = up.settled(own, nil, &p.policy)
	return d.clusterSpecifier(p.cluster, up, own, &p.policy, r)
}

// pathRewrite settles which method calls go out as.
func (p *actionParts) pathRewrite(match *routeMatch) (err error) {
	switch {
	case p.prefix != "":
		p.policy.path = &pathRewrite{prefix: p.prefix, matched: match.rewritten()}
	case p.regex != nil:
		p.policy.path = &pathRewrite{}
		p.policy.path.regex, p.policy.path.substitute, err = decodeSubstitution(p.regex)
	}
	return err
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

// timeouts settles how long a call may take, as Envoy does for a gRPC call:
// where max_stream_duration is there, by it alone (gRFC A31); else by
// max_grpc_timeout, else by timeout, of which 0 is no limit, so that the
// listener's applies. Envoy's own limit of 15 s, where all are absent, does not
// apply: gRPC has none, and Istio always says what it means.
func (d *decoding) timeouts(p *actionParts, r *route) error {
	if p.limit != nil {
		return inField("max_stream_duration", d.maxStreamDuration(p.limit, r))
	}
	field, message := "max_grpc_timeout", p.grpcTimeout
	if message == nil {
		field, message = "timeout", p.timeout
	}
	limit, err := decodeDuration(message)
	r.maxDuration, r.hasMaxDuration = limit, limit > 0
	return inField(field, err)
}

// clusterSpecifier reads the clusters that a route chooses from.
func (d *decoding) clusterSpecifier(specifier oneof, up *routeLevels, own *level, action *routePolicy, r *route) error {
	switch specifier.num {
	case 1:
		if len(specifier.val) == 0 {
			return missingField("cluster")
		}
		r.clusters, r.total = []weightedCluster{{name: d.intern(specifier.val), weight: 1}}, 1
	case 2:
		if r.header = headerName(string(specifier.val)); r.header == "" {
			return missingField("cluster_header")
		}
	case 3:
		return inField("weighted_clusters", d.weightedClusters(specifier.val, up, own, action, r))
	case 37, 39:
		r.failure = "the route takes its cluster from a plugin, which is not supported"
	default:
		r.failure = "the route names no cluster"
	}
	return nil
}

// weightedClusters reads an envoy.config.route.v3.WeightedCluster.
func (d *decoding) weightedClusters(b []byte, up *routeLevels, own *level, action *routePolicy, r *route) error {
	r.clusters = make([]weightedCluster, 0, countField(b, 1))
	var total uint64
	byHeader := false
	c := walk(b)
	for i := 0; c.next(); {
		switch c.num {
		case 1:
			d.keep(&c, "clusters")
			w, header, err := d.clusterWeight(c.bytes("clusters"), up, own, action, i)
			c.fail(inElement("clusters", i, err))
			if header && w.weight > 0 {
				byHeader = true
			}
			if total += uint64(w.weight); w.weight > 0 {
				r.clusters = append(r.clusters, w)
			}
			i++
		case 4:
			d.ignore("weighted_clusters.header_name")
		case 5:
			d.ignoreUnlessZero("weighted_clusters.use_hash_policy", c.bytes("use_hash_policy"))
		}
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
	if byHeader {
		r.clusters, r.total = nil, 0
		r.failure = "the route takes one of its weighted clusters from a header, which is not supported"
	}
	return nil
}

// clusterWeight reads an envoy.config.route.v3.WeightedCluster.ClusterWeight.
// It has a policy of its own only where it says something of its own.
func (d *decoding) clusterWeight(b []byte, up *routeLevels, own *level, action *routePolicy, index int) (w weightedCluster, byHeader bool, err error) {
	outer := d.enter()
	var its level
	var weight []byte
	var literal, header string
	c := walk(b)
	for c.next() {
		switch {
		case c.num == 1:
			w.name = d.intern(c.raw("name"))
		case c.num == 2:
			c.message("weight", &weight)
		case c.num == 11:
			literal = d.intern(c.raw("host_rewrite_literal"))
		case c.num == 12:
			header = c.text("cluster_header")
		case d.levelField(&c, &clusterFields, &its):
		default:
			d.ignoreIf(&c, clusterWeightUnapplied)
		}
	}
	value, err := decodeWrapped(weight)
	c.fail(inField("weight", err))
	w.weight = uint32(value)
	switch {
	case w.name == "" && header != "":
		byHeader = true
	case w.name == "" && w.weight > 0:
		c.fail(missingField("name"))
	}
	if literal != "" || !its.headers.empty() || its.overrides != (overrides{}) {
		merged := *action
		if literal != "" {
			merged.rewrite = authorityRewrite{literal: literal}
		}
		w.policy = up.settled(own, &its, &merged)
	}
	d.leave(outer, "weighted_clusters.clusters", w.name, index)
	return w, byHeader, c.err
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
