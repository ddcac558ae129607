package proxyless

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// words says in words what a route asks for beyond forwarding, one policy
// each.
func (p *routePolicy) words() []string {
	if p == nil {
		return nil
	}
	var t policyText
	if p.retry != nil {
		t.retry(p.retry)
	}
	if p.hedge != nil {
		t.say("hedging: %d attempts at first, %s a further one%s", max(1, p.hedge.initial), perMillion(p.hedge.chance),
			either(p.hedge.onPerTry, ", another beside one whose time ran out", ""))
	}
	if p.fault != nil {
		t.fault(p.fault)
	}
	if p.session != nil {
		t.say("session by %s%s", either(p.session.header != "", "header "+p.session.header, "cookie "+p.session.cookie),
			either(p.session.strict, ", there or nowhere", ""))
	}
	for _, m := range p.mirrors {
		t.say("mirror %s to %s", perMillion(m.share), either(m.cluster != "", m.cluster, "the cluster of header "+m.header))
	}
	for i := range p.hash {
		t.hash(&p.hash[i])
	}
	t.mutations("request", &p.headers.request)
	t.mutations("response", &p.headers.response)
	t.rewrite(&p.rewrite)
	return t
}

// policyText is a list of policies in words.
type policyText []string

func (t *policyText) say(format string, args ...any) { *t = append(*t, fmt.Sprintf(format, args...)) }

func perMillion(share uint32) string { return percent(float64(share) / 1_000_000) }

var retryNames = []struct {
	condition retryConditions
	name      string
}{
	{retryConnectFailure, "connect-failure"}, {retryRefusedStream, "refused-stream"}, {retryReset, "reset"},
	{retryResetBeforeRequest, "reset-before-request"}, {retry5xx, "5xx"}, {retryGatewayError, "gateway-error"},
	{retryRetriable4xx, "retriable-4xx"}, {retryRetriableHeaders, "retriable-headers"}, {retryStatusCodes, "retriable-status-codes"},
	{retryEnvoyRateLimited, "envoy-ratelimited"},
}

func (t *policyText) retry(p *retryPolicy) {
	var on []string
	for _, c := range retryNames {
		if p.on&c.condition != 0 {
			on = append(on, c.name)
		}
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		if p.codes>>code&1 != 0 {
			on = append(on, code.String())
		}
	}
	text := fmt.Sprintf("retry up to %d times on %s", max(1, p.retries), strings.Join(on, ", "))
	if limit := p.limit(); limit > 0 {
		text += fmt.Sprintf(", each try within %s", limit)
	}
	t.say("%s%s%s", text, either(p.previousHosts, ", not where it was tried", ""), either(p.previousPriorities, ", in other priorities", ""))
}

func (t *policyText) fault(p *faultPolicy) {
	where := ""
	if len(p.headers) > 0 {
		var each []string
		for i := range p.headers {
			each = append(each, p.headers[i].words())
		}
		where = ", where " + strings.Join(each, ", ")
	}
	if p.upstream != "" {
		where += ", to " + p.upstream
	}
	if len(p.nodes) > 0 {
		where += ", from " + strings.Join(p.nodes, ", ")
	}
	switch {
	case p.delay > 0:
		t.say("fault: %s of the calls are delayed by %s%s", perMillion(p.delayShare), p.delay, where)
	case p.headerDelay:
		t.say("fault: calls are delayed as x-envoy-fault-delay-request says%s", where)
	}
	switch {
	case p.hasAbort:
		t.say("fault: %s of the calls fail with %s%s", perMillion(p.abortShare), p.abort, where)
	case p.headerAbort:
		t.say("fault: calls fail as x-envoy-fault-abort-grpc-request says%s", where)
	}
}

var hashWords = [...]string{hashHeader: "header", hashCookie: "cookie", hashSource: "the caller's address", hashQuery: "query parameter",
	hashChannelID: "the reference", hashMessage: "the request"}

func (t *policyText) hash(p *hashPolicy) {
	t.say("hash by %s%s%s", hashWords[p.kind], either(p.name != "", " "+p.name, ""), either(p.terminal, ", and by nothing more where it is there", ""))
}

func (t *policyText) mutations(of string, m *headerMutations) {
	var parts []string
	for _, name := range m.remove {
		parts = append(parts, "without "+name)
	}
	words := [...]string{headerAppend: "add", headerAddIfAbsent: "add if absent", headerOverwrite: "set", headerOverwriteIfExists: "replace"}
	for _, c := range m.change {
		parts = append(parts, fmt.Sprintf("%s %s=%q", words[c.action], c.name, c.value))
	}
	if len(parts) > 0 {
		t.say("%s headers: %s", of, strings.Join(parts, ", "))
	}
}

func (t *policyText) rewrite(r *authorityRewrite) {
	switch {
	case r.literal != "":
		t.say("authority becomes %s", r.literal)
	case r.header != "":
		t.say("authority becomes the value of header %s", r.header)
	case r.auto:
		t.say("authority becomes the endpoint's hostname")
	case r.path != nil:
		t.say("authority becomes %q, by the path's match of %s", r.substitute, r.path)
	}
}

var balancerNames = [...]string{lbRoundRobin: "round robin", lbLeastRequest: "least request", lbRandom: "random", lbRingHash: "ring hash",
	lbMaglev: "Maglev", lbPickFirst: "pick first", lbReported: "round robin by reported load", lbShortestReply: "shortest response", lbP2C: "two choices"}

// words says in words what a cluster asks for; b is how its endpoints are chosen,
// which a reference may have a word in.
func (c *cluster) words(b *balancing) []string {
	var t policyText
	if l := c.limits; l != nil {
		limits := []string{limitText("connections", l.connections), limitText("waiting calls", l.pending), limitText("calls", l.requests)}
		if l.hasBudget {
			limits = append(limits, "retries for "+percent(l.budget)+" of the calls")
		} else {
			limits = append(limits, limitText("retries", l.retries))
		}
		t.say("at most %s", strings.Join(slices.DeleteFunc(limits, func(s string) bool { return s == "" }), ", "))
	}
	if o := c.outlier; o != nil {
		t.say("outlier detection every %s, ejecting at most %d %% for %s", o.interval, o.maxEjected, o.baseTime)
	}
	if c.panic > 0 {
		t.say("panic below %d %% healthy", c.panic)
	}
	if c.weighted {
		t.say("localities by weight")
	}
	if b.slow.window > 0 {
		t.say("slow start over %s", b.slow.window)
	}
	if b.subset > 0 {
		t.say("%d of the endpoints of each priority", b.subset)
	}
	s := &c.conn
	for _, d := range []struct {
		word  string
		value time.Duration
	}{{"connect timeout", s.connectTimeout}, {"idle timeout", s.idleTimeout}, {"connections live", s.maxAge}} {
		if d.value > 0 {
			t.say("%s %s", d.word, d.value)
		}
	}
	if s.maxRequests > 0 {
		t.say("%d calls for each connection", s.maxRequests)
	}
	return t
}

func limitText(word string, limit uint32) string {
	if limit == noLimit {
		return ""
	}
	return fmt.Sprintf("%d %s", limit, word)
}
