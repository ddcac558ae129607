package proxyless

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

const perFilter = "typed_per_filter_config"

var (
	routeConfigUnapplied = unapplied{9: "vhds"}
	virtualHostUnapplied = unapplied{4: "require_tls", 6: "rate_limits", 20: "retry_policy_typed_config", 21: "matcher"}
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

// level is what a route configuration, virtual host, route or weighted cluster
// says for every call below it, beyond where calls go.
type level struct {
	headers   headerLevel
	overrides overrides
	retry     *retryPolicy // nil with hasRetry: a policy that asks for nothing
	hedge     *hedgePolicy
	mirrors   []mirrorPolicy

	hasRetry, hasHedge, hasMirrors bool
}

// levelFields are the field numbers of what is the same at several levels.
type levelFields struct {
	addRequest, removeRequest, addResponse, removeResponse, perFilter, mirrors, retry, hedge protowire.Number
}

// noField is the number of a field that a level does not have.
const noField = -1

var (
	configFields  = levelFields{6, 8, 4, 5, 16, 13, noField, noField}
	hostFields    = levelFields{7, 13, 10, 11, 15, 22, 16, 17}
	routeFields   = levelFields{9, 12, 10, 11, 13, noField, noField, noField}
	actionFields  = levelFields{noField, noField, noField, noField, noField, 30, 9, 27}
	clusterFields = levelFields{4, 9, 5, 6, 10, noField, noField, noField}
)

// levelField takes the field at the cursor if it is one of those.
func (d *decoding) levelField(c *cursor, f *levelFields, l *level) bool {
	switch c.num {
	case f.addRequest:
		d.addHeader(c, "request_headers_to_add", &l.headers.request)
	case f.removeRequest:
		d.removeHeader(c, "request_headers_to_remove", &l.headers.request)
	case f.addResponse:
		d.addHeader(c, "response_headers_to_add", &l.headers.response)
	case f.removeResponse:
		d.removeHeader(c, "response_headers_to_remove", &l.headers.response)
	case f.perFilter:
		c.fail(d.filterOverride(c.bytes(perFilter), &l.overrides))
	case f.mirrors:
		d.keep(c, "request_mirror_policies")
		c.fail(inField("request_mirror_policies", d.mirrorPolicy(c.bytes("request_mirror_policies"), &l.mirrors)))
		l.hasMirrors = true
	case f.retry:
		var err error
		l.retry, err = d.sharedRetry(c.bytes("retry_policy"))
		c.fail(inField("retry_policy", err))
		l.hasRetry = true
	case f.hedge:
		var err error
		l.hedge, err = d.hedgePolicy(c.bytes("hedge_policy"))
		c.fail(inField("hedge_policy", err))
		l.hasHedge = true
	default:
		return false
	}
	return true
}

// routeLevels are the levels above a route.
type routeLevels struct {
	config, host level
	specificWins bool // most_specific_header_mutations_wins
}

// routeConfig reads an envoy.config.route.v3.RouteConfiguration. The name of
// one that is inside a listener may be empty. Its virtual hosts are read last,
// since they depend on its other fields, which come behind them.
func (d *decoding) routeConfig(b []byte) (*routeConfig, error) {
	r := &routeConfig{}
	up := &routeLevels{}
	hosts := 0
	c := walk(b)
	for c.next() {
		if c.num != 2 {
			d.digestField(c.num, c.val, c.u)
		}
		switch {
		case c.num == 1:
			r.name = c.text("name")
		case c.num == 2:
			c.is(protowire.BytesType, "virtual_hosts")
			hosts++
		case c.num == 10:
			up.specificWins = c.scalar("most_specific_header_mutations_wins") != 0
		case d.levelField(&c, &configFields, &up.config):
		default:
			d.ignoreIf(&c, routeConfigUnapplied)
		}
	}
	if d.wanted == nil {
		r.virtualHosts = make([]virtualHost, 0, min(hosts, maxElements))
	}
	if hosts > 0 && c.err == nil {
		c.err = d.virtualHosts(b, up, r)
	}
	return r, c.err
}

// virtualHosts reads the virtual hosts that matter.
func (d *decoding) virtualHosts(b []byte, up *routeLevels, r *routeConfig) error {
	c := walk(b)
	for index := 0; c.next(); {
		if c.num != 2 {
			continue
		}
		if d.matters(c.val) {
			d.keep(&c, "virtual_hosts")
			i := len(r.virtualHosts)
			r.virtualHosts = append(r.virtualHosts, virtualHost{})
			c.fail(inElement("virtual_hosts", index, d.virtualHost(c.val, up, &r.virtualHosts[i], index)))
		}
		index++
	}
	return c.err
}

// virtualHost reads an envoy.config.route.v3.VirtualHost; its routes last.
func (d *decoding) virtualHost(b []byte, up *routeLevels, v *virtualHost, index int) error {
	up.host = level{}
	domains, routes := 0, 0
	outer := d.enter()
	c := walk(b)
	for c.next() {
		switch {
		case c.num == 1:
			v.name = c.text("name")
		case c.num == 2:
			if v.domains == nil {
				v.domains = make([]string, 0, countField(b, 2))
			}
			d.keep(&c, "domains")
			domain := strings.ToLower(c.text("domains"))
			c.fail(inElement("domains", domains, checkDomain(domain)))
			v.domains = append(v.domains, domain)
			domains++
		case c.num == 3:
			c.is(protowire.BytesType, "routes")
			routes++
		case d.levelField(&c, &hostFields, &up.host):
		default:
			d.ignoreIf(&c, virtualHostUnapplied)
		}
	}
	if c.err == nil {
		c.err = d.routes(b, up, v, routes)
	}
	d.leave(outer, "virtual_hosts", v.name, index)
	return c.err
}

func (d *decoding) routes(b []byte, up *routeLevels, v *virtualHost, n int) error {
	v.routes = make([]route, 0, min(n, maxElements))
	c := walk(b)
	for c.next() {
		if c.num != 3 {
			continue
		}
		d.keep(&c, "routes")
		i := len(v.routes)
		v.routes = append(v.routes, route{})
		c.fail(inElement("routes", i, d.route(c.val, up, &v.routes[i], i)))
	}
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
func (d *decoding) route(b []byte, up *routeLevels, r *route, index int) error {
	outer := d.enter()
	var own level
	var match []byte
	var action oneof
	c := walk(b)
	for c.next() {
		switch {
		case c.num == 1:
			c.message("match", &match)
		case c.num == 2, c.num == 3, c.num == 7, c.num == 17, c.num == 18:
			action.message(&c, "action")
		case c.num == 14:
			r.name = c.text("name")
		case d.levelField(&c, &routeFields, &own):
		}
	}
	if c.err == nil && match == nil {
		c.fail(missingField("match"))
	}
	c.fail(inField("match", d.routeMatch(match, &r.match)))
	c.fail(d.action(action, up, &own, r))
	if r.match.never != "" {
		r.giveUp()
	}
	d.leave(outer, "routes", r.name, index)
	return c.err
}

// giveUp makes a route that never matches one that leads nowhere, so that
// nothing is subscribed to for it.
func (r *route) giveUp() {
	r.clusters, r.total, r.header, r.policy = nil, 0, "", nil
	r.failure = "its match has " + r.match.never + ", so that it never matches"
}

// settled is the policy of a call by all levels, the most specific first: own
// is the route's, and above it is nil, or that of one weighted cluster.
func (up *routeLevels) settled(own, cluster *level, action *routePolicy) *routePolicy {
	p := *action
	p.retry, p.hedge, p.mirrors = own.retry, own.hedge, own.mirrors
	if !own.hasRetry {
		p.retry = up.host.retry
	}
	if !own.hasHedge {
		p.hedge = up.host.hedge
	}
	if !own.hasMirrors {
		if p.mirrors = up.host.mirrors; !up.host.hasMirrors {
			p.mirrors = up.config.mirrors
		}
	}
	var filters overrides
	levels := make([]*headerLevel, 0, 4)
	if cluster != nil {
		filters.orElse(&cluster.overrides)
	}
	for _, l := range [...]*level{cluster, own, &up.host, &up.config} {
		if l != nil && !l.headers.empty() {
			levels = append(levels, &l.headers)
		}
	}
	filters.orElse(&own.overrides)
	filters.orElse(&up.host.overrides)
	filters.orElse(&up.config.overrides)
	p.fault, p.session = filters.fault, filters.session
	p.headers = settleHeaders(levels, up.specificWins)
	if p.empty() {
		return nil
	}
	return &p
}

// sharedRetry is retryPolicy that gives routes with the same policy the same
// value: Istio gives one of its own to every route of the mesh.
func (d *decoding) sharedRetry(b []byte) (*retryPolicy, error) {
	if d.lastRetry != nil && slices.Equal(d.lastRetryBytes, b) {
		return d.lastRetry, nil
	}
	noted := len(d.ignored)
	r, err := d.retryPolicy(b)
	if d.lastRetry = nil; err == nil && noted == len(d.ignored) && !d.more {
		d.lastRetry, d.lastRetryBytes = r, b
	}
	return r, err
}
