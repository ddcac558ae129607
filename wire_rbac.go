package proxyless

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxRuleDepth is how deeply rules may be nested in each other. Istio needs
// fewer than ten.
const maxRuleDepth = 32

// callAccess adds an HTTP RBAC filter to a chain on the way in. One that is
// switched off is of no use to any route: see checkOverrides.
func (d *decoding) callAccess(f *listenerFilter, m *connectionManager, chain *filterChain, lean bool) error {
	if f.disabled {
		return nil
	}
	use, err := decodeWrapped(m.useRemote)
	if err != nil {
		return inField("use_remote_address", err)
	}
	r := ruleReader{hops: int(min(m.hops, 1<<16)), origin: m.addressed, tokens: !lean || chain.hasTokens(), stripped: len(m.strips) > 0}
	if use != 0 {
		r.hops--
	}
	return d.addAccess(f, r, chain, "http_filters")
}

// connectionAccess adds a network RBAC filter.
func (d *decoding) connectionAccess(f *listenerFilter, chain *filterChain) error {
	return d.addAccess(f, ruleReader{connection: true}, chain, "filters")
}

func (d *decoding) addAccess(f *listenerFilter, r ruleReader, chain *filterChain, list string) error {
	outer := d.enter()
	filter, failure, err := d.accessFilter(f, r)
	d.leave(outer, list, f.name, -1)
	if filter != nil {
		chain.filters = append(chain.filters, inboundFilter{access: filter})
	}
	if chain.failure == "" {
		chain.failure = failure
	}
	return err
}

// hasTokens says that what tokens say is known behind the chain's filters.
func (c *filterChain) hasTokens() bool {
	return slices.ContainsFunc(c.filters, func(f inboundFilter) bool { return f.jwt != nil })
}

// checkOverrides makes a chain refuse everything where its routes say something
// about the filters that judge calls: rules are the same for all calls here.
func (d *decoding) checkOverrides(m *connectionManager, chain *filterChain) error {
	judges := func(name string) bool {
		return slices.ContainsFunc(m.filters, func(f listenerFilter) bool {
			judge := !f.harmless() || f.config.name == typeRBAC // whose rules may be those of a route alone
			return f.name == name && f.config.name != typeFault && judge
		})
	}
	switch {
	case chain.failure != "" || !slices.ContainsFunc(m.filters, func(f listenerFilter) bool { return judges(f.name) }):
	case m.route.num == 4:
		name, err := overriddenFilter(m.route.val, judges)
		if name != "" {
			chain.failure = "filter " + name + " is not the same for all routes (" + perFilter + "), which is not evaluated"
		}
		return inField("route_config", err)
	case m.route.num != 0:
		chain.failure = "the filters may differ by routes that are not looked at (rds, scoped_routes)"
	}
	return nil
}

// accessFilter reads an RBAC filter, which is alike for HTTP and for
// connections but for the numbers of its fields. The filter is nil where there
// is nothing to evaluate. failure is what of it has to be obeyed and cannot be.
func (d *decoding) accessFilter(f *listenerFilter, r ruleReader) (filter *accessFilter, failure string, err error) {
	if f.remote || f.config.json {
		return nil, "filter " + f.typeOrName() + " has a configuration that cannot be read", nil
	}
	matcher, shadowMatcher, prefix := protowire.Number(4), protowire.Number(5), protowire.Number(3)
	if r.connection {
		matcher, shadowMatcher, prefix = 6, 7, 5
	}
	var rules, shadow []byte
	custom := false
	c := walk(f.config.value)
	for c.next() {
		switch {
		case c.num == 1:
			c.message("rules", &rules)
		case c.num == 2:
			c.message("shadow_rules", &shadow)
		case c.num == prefix:
			custom = c.text("shadow_rules_stat_prefix") == customPrefix
		case c.num == matcher:
			failure = "matcher of filter " + f.name + " is not evaluated"
		case c.num == shadowMatcher:
			d.ignore("shadow_matcher")
		case c.num > 8:
			failure = "field " + strconv.Itoa(int(c.num)) + " of filter " + f.name + " is not known"
		}
	}
	if c.err != nil || failure != "" {
		return nil, failure, c.err
	}
	filter = &accessFilter{}
	if filter.rules, failure, err = d.accessRules(rules, "rules", r); err != nil || failure != "" {
		return nil, failure, err
	}
	tried, failure, err := d.accessRules(shadow, "shadow_rules", r)
	switch {
	case custom && failure != "":
		return nil, failure, err
	case custom && tried != nil:
		filter.custom = tried
		d.ignore("CUSTOM (no external authorizer is asked)")
	case failure != "":
		d.ignore("shadow_rules (" + failure + ")")
	default:
		filter.shadow = tried
	}
	if *filter == (accessFilter{}) {
		filter = nil
	}
	return filter, "", err
}

// customPrefix is that of shadow rules which only mark the calls that an
// external authorizer is to be asked about: AuthorizationPolicies with the
// action CUSTOM.
const customPrefix = "istio_ext_authz_"

// marked says that a filter which asks an external authorizer does so for calls
// only that are marked by rules before it in the chain. Those are refused, and
// the others go on as if the filter were not there.
func (c *filterChain) marked(f *listenerFilter) bool {
	field, by := protowire.Number(14), "envoy.filters.http.rbac"
	switch {
	case f.config.json:
		return false
	case f.config.name == typeNetworkExtAuthz:
		field, by = 6, "envoy.filters.network.rbac"
	case f.config.name != typeExtAuthz:
		return false
	}
	metadata, err := submessage(f.config.value, field, "filter_enabled_metadata")
	filter, err2 := subtext(metadata, 1, "filter")
	segment, err3 := submessage(metadata, 2, "path")
	key, err4 := subtext(segment, 1, "key")
	invert := false
	m := walk(metadata)
	for m.next() {
		invert = invert || m.num == 4
	}
	return cmp.Or(err, err2, err3, err4, m.err) == nil && !invert && filter == by && key == customPrefix+"shadow_effective_policy_id" &&
		slices.ContainsFunc(c.filters, func(f inboundFilter) bool { return f.access != nil && f.access.custom != nil })
}

// accessRules reads an envoy.config.rbac.v3.RBAC. Without one everything
// passes; nil stands for rules that nothing ever comes of, too.
func (d *decoding) accessRules(b []byte, field string, r ruleReader) (rules *accessRules, failure string, err error) {
	if b == nil {
		return nil, "", nil
	}
	rules = &accessRules{}
	outer := d.enter()
	defer d.leave(outer, field, "", -1)
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			action := c.scalar("action")
			if action > uint64(accessLog) {
				failure = fmt.Sprintf("action %d is not known", action)
			}
			rules.action = accessAction(action)
		case 2:
			d.keep(&c, "policies")
			p, err := d.accessPolicy(c.bytes("policies"), r)
			c.fail(err)
			rules.put(p)
		case 3:
			c.fail(inField("audit_logging_options", d.auditOptions(c.bytes("audit_logging_options"), rules)))
		default:
			failure = unapplied(nil).name(c.num) + " of the rules is not known"
		}
	}
	if c.err != nil || failure != "" {
		return nil, failure, inField(field, c.err)
	}
	rules.index()
	if len(rules.policies) == 0 && rules.action != accessAllow && !rules.auditAllow {
		return nil, "", nil
	}
	return rules, "", nil
}

// put adds a policy. Of those with the same name the last counts, as in every
// map of protobuf.
func (r *accessRules) put(p accessPolicy) {
	if r.at == nil {
		r.at = map[string]int{}
	}
	if i, known := r.at[p.name]; known {
		r.policies[i] = p
		return
	}
	r.at[p.name] = len(r.policies)
	r.policies = append(r.policies, p)
}

// auditOptions reads an RBAC.AuditLoggingOptions. Calls that are denied are
// recorded always, and whatever loggers are asked for the records go where all
// do, so that only those of calls that are let through are to be asked for.
func (d *decoding) auditOptions(b []byte, to *accessRules) error {
	const onAllow, both = 2, 3
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			condition := c.scalar("audit_condition")
			to.auditAllow = condition == onAllow || condition == both
		case 2:
			logger, err := submessage(c.bytes("logger_configs"), 1, "audit_logger")
			c.fail(inField("logger_configs", err))
			x, err := decodeNamed(logger)
			c.fail(inField("logger_configs.audit_logger", err))
			if x.name != typeStdoutAudit {
				d.ignore("audit_logging_options.logger_configs (" + x.name + ")")
			}
		}
	}
	return c.err
}

const typeStdoutAudit = "envoy.extensions.rbac.audit_loggers.stream.v3.StdoutAuditLog"

// decodeNamed reads an envoy.config.core.v3.TypedExtensionConfig.
func decodeNamed(b []byte) (extension, error) {
	packed, err := submessage(b, 2, "typed_config")
	if err != nil {
		return extension{}, err
	}
	x, err := decodeExtension(packed)
	return x, inField("typed_config", err)
}

// accessPolicy reads an entry of RBAC.policies. Lists without elements are not
// valid, and istiod sends them in the lean view for rules that it could not
// translate: what was meant is not known.
func (d *decoding) accessPolicy(entry []byte, r ruleReader) (p accessPolicy, err error) {
	var policy []byte
	c := walk(entry)
	for c.next() {
		switch c.num {
		case 1:
			p.name = c.text("key")
		case 2:
			c.message("value", &policy)
		}
	}
	if c.err != nil {
		return p, inField("policies", c.err)
	}
	r.decoding, r.gaps = d, &p.gaps
	outer := d.enter()
	defer d.leave(outer, "policies", p.name, -1)
	err = r.policy(policy, &p)
	return p, inField("policies["+p.name+"]", err)
}

func (r ruleReader) policy(b []byte, p *accessPolicy) error {
	var permissions, principals, more []accessRule
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			permissions = r.on(permissionSide, &c, permissions)
		case 2:
			principals = r.on(principalSide, &c, principals)
		case 5: // cel_config: how the conditions would be evaluated
		default:
			r.side = unapplied{3: "condition", 4: "checked_condition"}.name(c.num)
			more = append(more, r.gap(""))
		}
	}
	r.side = permissionSide
	p.permissions = r.combine(ruleSome, permissions, "")
	r.side = principalSide
	p.principals = r.combine(ruleSome, principals, "")
	if len(more) > 0 {
		p.principals = accessRule{kind: ruleAll, rules: append(more, p.principals)}
	}
	return c.err
}

// on appends the rule at the cursor to those of one side.
func (r ruleReader) on(side string, c *cursor, rules []accessRule) []accessRule {
	r.keep(c, side)
	r.side = side
	rule, err := r.rule(c.bytes(side), 0)
	c.fail(inElement(side, len(rules), err))
	return append(rules, rule)
}

// overriddenFilter is the name of a filter that a route configuration of the
// way in says something about; empty for none. Rules that differ by route are
// not evaluated.
func overriddenFilter(routes []byte, names func(string) bool) (found string, err error) {
	look := func(c *cursor) {
		key, err := subtext(c.bytes(perFilter), 1, "key")
		c.fail(err)
		if err == nil && names(key) {
			found = key
		}
	}
	var visit func(b []byte, level int) error
	levels := [...]struct{ config, inside protowire.Number }{
		{16, 2}, // RouteConfiguration, virtual_hosts
		{15, 3}, // VirtualHost, routes
		{13, 2}, // Route, route
		{0, 3},  // RouteAction, weighted_clusters
		{0, 1},  // WeightedCluster, clusters
		{10, 0}, // ClusterWeight
	}
	visit = func(b []byte, level int) error {
		c := walk(b)
		for c.next() {
			switch c.num {
			case levels[level].config:
				look(&c)
			case levels[level].inside:
				if c.typ == protowire.BytesType {
					c.fail(visit(c.val, level+1))
				}
			}
		}
		return c.err
	}
	return found, visit(routes, 0)
}
