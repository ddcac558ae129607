package proxyless

import "testing"

// census counts what was kept, so that a random test that no longer makes
// something is noticed.
type census map[string]int

var pathNames = [...]string{pathAny: "any path", pathPrefix: "prefix", pathExact: "path", pathRegex: "regex", pathSeparated: "separated prefix"}
var headerNames = [...]string{headerPresent: "header present", headerAbsent: "header absent", headerExact: "header exact", headerPrefix: "header prefix",
	headerSuffix: "header suffix", headerContains: "header contains", headerRegex: "header regex", headerRange: "header range", headerNever: ""}

// expected is what has to be among the values of each kind.
var expected = [kindCount][]string{
	kindListener: {"rds", "inline", "limit", "fault", "session", "outbound", "outbound HTTP", "outbound TCP", "inbound", "inbound TCP", "tls", "plain", "filters", "TLS that can be obeyed", "access filters", "JWT filters", "JWT rules", "chain match", "address"},
	kindRoute: append(append([]string{"virtual hosts", "one cluster", "clusters", "failure", "never", "limit", "fold", "fraction",
		"header fold", "header inverted", "header missing is empty", "cookie", "retry", "hedge", "fault", "session", "mirror", "hash", "request header", "response header",
		"rewrite", "cluster header", "code", "policy of a cluster"}, pathNames[:]...), headerNames[:len(headerNames)-1]...),
	kindCluster: {"other name", "own name", "TLS", "TLS by endpoint", "failure", "fine", "round robin", "other policy", "timeout", "static", "DNS", "original", "aggregate", "limits", "budget", "outliers", "panic",
		"override", "weighted", "slow start", "keepalive", "max streams"},
	kindEndpoints: {"IPv4", "IPv6", "unusable", "priorities", "localities", "weighted", "extra", "drops", "overprovided"},
}

func (c census) check(t *testing.T, k kind) {
	t.Helper()
	for _, what := range expected[k] {
		if c[what] < rounds/100 {
			t.Errorf("%d times %s", c[what], what)
		}
	}
}

func (c census) note(what string, when bool) {
	if when {
		c[what]++
	}
}

func (c census) count(value any) {
	switch v := value.(type) {
	case *listener:
		c.listener(v)
	case *routeConfig:
		c.routes(v)
	case *cluster:
		c.note("other name", v.edsName != "" && v.edsName != v.name)
		c.note("own name", v.edsName == v.name)
		c.note("TLS", v.tls != nil)
		c.note("TLS by endpoint", len(v.sockets) > 0)
		c.note("failure", v.failure != "")
		c.note("fine", v.failure == "")
		c.note("round robin", v.balance.policy == lbRoundRobin)
		c.note("other policy", v.balance.policy != lbRoundRobin)
		c.note("timeout", v.conn.connectTimeout > 0)
		c.note("static", v.source == discoverStatic)
		c.note("DNS", len(v.names) > 0)
		c.note("original", v.originalDst)
		c.note("aggregate", len(v.children) > 0)
		c.note("limits", v.limits != nil)
		c.note("budget", v.limits != nil && v.limits.hasBudget)
		c.note("outliers", v.outlier != nil)
		c.note("panic", v.panic > 0)
		c.note("override", v.override != 0)
		c.note("weighted", v.weighted)
		c.note("slow start", v.balance.slow.window > 0)
		c.note("keepalive", v.conn.keepAlive.set)
		c.note("max streams", v.conn.maxStreams > 0)
	case *assignment:
		c.assignment(v)
	}
}

func (c census) listener(v *listener) {
	c.note("rds", v.routeName != "")
	c.note("inline", v.inline != nil)
	c.note("limit", v.maxStreamDuration > 0)
	c.note("fault", v.fault != nil)
	c.note("session", v.session != nil)
	c.note("address", len(v.addresses) > 0)
	for _, chain := range v.outbound {
		c.note("outbound", true)
		c.note("outbound HTTP", chain.http != nil)
		c.note("outbound TCP", len(chain.clusters) > 0)
		c.note("chain match", chain.match.port != 0)
	}
	c.note("inbound", len(v.inbound) > 0)
	for _, chain := range v.inbound {
		c.note("tls", chain.tls != nil)
		c.note("plain", chain.tls == nil)
		c.note("filters", chain.failure != "")
		c.note("inbound TCP", chain.tcp != "")
		c.note("TLS that can be obeyed", chain.tls != nil && chain.tls.failure == "")
		for _, f := range chain.filters {
			c.note("access filters", f.access != nil)
			c.note("JWT filters", f.jwt != nil)
			c.note("JWT rules", f.jwt != nil && len(f.jwt.rules) > 0)
		}
	}
}

func (c census) routes(v *routeConfig) {
	for _, host := range v.virtualHosts {
		c.note("virtual hosts", true)
		for _, r := range host.routes {
			c.note("one cluster", len(r.clusters) == 1)
			c.note("clusters", len(r.clusters) > 1)
			c.note("failure", r.failure != "")
			c.note("never", r.match.never != "")
			c.note("limit", r.hasMaxDuration)
			c.note("fold", r.match.foldCase)
			c.note("fraction", r.match.partial)
			c.note("cluster header", r.header != "")
			c.note("code", r.code != 0)
			for _, w := range r.clusters {
				c.note("policy of a cluster", w.policy != nil)
			}
			if p := r.policy; p != nil {
				c.note("retry", p.retry != nil)
				c.note("hedge", p.hedge != nil)
				c.note("fault", p.fault != nil)
				c.note("session", p.session != nil)
				c.note("mirror", len(p.mirrors) > 0)
				c.note("hash", len(p.hash) > 0)
				c.note("request header", !p.headers.request.empty())
				c.note("response header", !p.headers.response.empty())
				c.note("rewrite", p.rewrite != authorityRewrite{})
				c.note("path rewrite", p.path != nil)
			}
			c.note(pathNames[r.match.path], true)
			for _, h := range r.match.headers {
				c.note(headerNames[h.kind], true)
				c.note("header fold", h.foldCase)
				c.note("cookie", h.cookie != "")
				c.note("header inverted", h.invert)
				c.note("header missing is empty", h.missingEmpty)
			}
		}
	}
}

func (c census) assignment(v *assignment) {
	for _, e := range v.endpoints {
		c.note("IPv4", e.addr.Addr().Is4())
		c.note("IPv6", e.addr.Addr().Is6())
		c.note("weighted", e.weight > 1)
		c.note("extra", e.extra != nil)
	}
	c.note("drops", len(v.drops) > 0)
	c.note("overprovided", v.overprovided > 0)
	for i, l := range v.localities {
		c.note("localities", true)
		c.note("priorities", i > 0 && l.priority != v.localities[i-1].priority)
	}
	c.note("unusable", len(v.others) > 0)
}
