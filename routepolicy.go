package proxyless

import (
	"regexp"
	"time"

	"google.golang.org/grpc/codes"
)

// routePolicy is what a route asks for beyond finding a cluster. A route that
// asks for nothing has none; each part is nil or zero where it is absent. What
// the mesh may say at several levels (weighted cluster, route, virtual host,
// route configuration, listener) has been settled by the decoder.
type routePolicy struct {
	retry   *retryPolicy
	hedge   *hedgePolicy
	fault   *faultPolicy   // nil: that of the listener applies
	session *sessionPolicy // nil: that of the listener applies
	mirrors []mirrorPolicy
	hash    []hashPolicy // in order
	headers headerPolicy
	rewrite authorityRewrite
	path    *pathRewrite // nil: the method stays as it is
}

// empty says that nothing is asked for.
func (p *routePolicy) empty() bool {
	return p.retry == nil && p.hedge == nil && p.fault == nil && p.session == nil && len(p.mirrors) == 0 && len(p.hash) == 0 &&
		p.headers.request.empty() && p.headers.response.empty() && p.rewrite == (authorityRewrite{}) && p.path == nil
}

// retryPolicy is what is kept of an envoy.config.route.v3.RetryPolicy. One
// without retries is there for its timeouts.
type retryPolicy struct {
	on                 retryConditions
	codes              uint32        // bit n: gRPC status n is retried (retry_on's gRPC names, and retriable_status_codes where they mean one)
	retries            uint32        // num_retries; where absent 1; 0 is none
	perTry             time.Duration // per_try_timeout; 0 is none
	perTryIdle         time.Duration // per_try_idle_timeout; 0 is none
	base, max          time.Duration // retry_back_off; default 25 ms and ten times the base
	previousHosts      bool          // retry_host_predicate previous_hosts: avoid hosts already tried
	reselect           uint32        // host_selection_retry_max_attempts; default 1
	previousPriorities bool          // retry_priority previous_priorities: turn to another priority
	priorityEvery      uint32        // previous_priorities.update_frequency: after so many attempts; 0 without
	headers            []headerMatch // retriable_headers: of the response
	requestHeaders     []headerMatch // retriable_request_headers: without a match there is no retry
}

// retryConditions are the conditions of retry_on that are no gRPC status.
type retryConditions uint16

const (
	retryConnectFailure retryConditions = 1 << iota // no connection: nothing was sent
	retryRefusedStream                              // the provider did not process it
	retryReset                                      // the stream broke before a response
	retryResetBeforeRequest
	retry5xx          // any answer that Envoy takes for a 5xx, and reset and connect-failure
	retryGatewayError // 502, 503, 504
	retryRetriable4xx
	retryRetriableHeaders
	retryStatusCodes // retriable-status-codes
	retryEnvoyRateLimited
)

// hedgePolicy is what is kept of an envoy.config.route.v3.HedgePolicy.
type hedgePolicy struct {
	initial  uint32 // initial_requests; default 1
	chance   uint32 // additional_request_chance, per million
	onPerTry bool   // hedge_on_per_try_timeout: the timed-out attempt goes on beside the next
}

// faultPolicy is what is kept of an
// envoy.extensions.filters.http.fault.v3.HTTPFault (gRFC A33).
type faultPolicy struct {
	delay       time.Duration // fixed_delay; 0 with headerDelay or without a delay
	headerDelay bool          // x-envoy-fault-delay-request says how long
	delayShare  uint32        // per million
	delayUnit   uint32        // per million that 1 of the percentage's denominator is: 10000, 100 or 1; headers count in it; 0 is 10000

	abort       codes.Code // counts where hasAbort
	hasAbort    bool       // http_status, mapped to a code, or grpc_status
	headerAbort bool       // x-envoy-fault-abort-grpc-request or -abort-request says which
	abortShare  uint32     // per million
	abortUnit   uint32     // as delayUnit

	headers   []headerMatch // all must match, else no fault
	upstream  string        // upstream_cluster: only calls to this cluster; empty is any
	nodes     []string      // downstream_nodes: only these node ids; empty is any
	maxActive uint32        // max_active_faults
	limited   bool          // maxActive counts
}

// idle says that it does nothing: a route that switches the listener's off.
func (p *faultPolicy) idle() bool {
	delays := p.delayShare > 0 && (p.delay > 0 || p.headerDelay)
	return !delays && (p.abortShare == 0 || !p.hasAbort && !p.headerAbort)
}

// sessionPolicy is what is kept of an
// envoy.extensions.filters.http.stateful_session.v3.StatefulSession (gRFC A55).
type sessionPolicy struct {
	cookie string        // name of the cookie; empty with header
	path   string        // of the cookie; empty is every path
	ttl    time.Duration // of the cookie; 0 is a session cookie
	header string        // name of the header, lower case; empty with cookie
	strict bool          // the endpoint or nothing
}

// off says that there is no affinity: a route that switches the listener's off.
func (p *sessionPolicy) off() bool { return p.cookie == "" && p.header == "" }

// mirrorPolicy is what is kept of a RouteAction.RequestMirrorPolicy.
type mirrorPolicy struct {
	cluster   string
	header    string // cluster_header, lower case: names the cluster where cluster is empty
	share     uint32 // per million
	keepsName bool   // disable_shadow_host_suffix_append: the authority gets no "-shadow"
}

// hashKind is RouteAction.HashPolicy.policy_specifier.
type hashKind uint8

const (
	hashHeader    hashKind = iota
	hashCookie             // a cookie of the request
	hashSource             // connection_properties.source_ip: of the caller, which is this process
	hashQuery              // query_parameter: a gRPC call has none
	hashChannelID          // filter_state io.grpc.channel_id: the same for all calls of one Invoker
	hashMessage            // the request: no policy of the mesh, but Dubbo's consistenthash
)

// hashPolicy is what is kept of an envoy.config.route.v3.RouteAction.HashPolicy.
type hashPolicy struct {
	kind       hashKind
	name       string         // of the header (lower case), cookie or query parameter
	rewrite    *regexp.Regexp // header.regex_rewrite; not anchored
	substitute string         // in Go's form of replacement
	ttl        time.Duration  // cookie: generated where it is missing and hasTTL
	hasTTL     bool
	path       string // cookie
	terminal   bool   // stop here once there is a hash
}

// headerPolicy is the mutations of request and response headers, in the order
// in which they are applied: that of the levels, and at each level what
// overwrites before what appends, as Envoy does.
type headerPolicy struct {
	request, response headerMutations
}

type headerMutations struct {
	remove []string // lower case; before the others
	change []headerChange
}

// empty says that nothing is changed.
func (m *headerMutations) empty() bool { return len(m.remove) == 0 && len(m.change) == 0 }

// headerAction is HeaderValueOption.HeaderAppendAction.
type headerAction uint8

const (
	headerAppend headerAction = iota // append, or add
	headerAddIfAbsent
	headerOverwrite // overwrite, or add
	headerOverwriteIfExists
	headerRemove // what an earlier change may have set
)

type headerChange struct {
	name, value string // name in lower case; value with Envoy's %...% formats resolved where they are constant
	action      headerAction
}

// authorityRewrite is RouteAction.host_rewrite_specifier.
type authorityRewrite struct {
	literal    string // host_rewrite_literal
	header     string // host_rewrite_header, lower case
	auto       bool   // auto_host_rewrite: the endpoint's hostname
	path       *regexp.Regexp
	substitute string // host_rewrite_path_regex
}

// pathRewrite is RouteAction.prefix_rewrite, or regex_rewrite: a call goes out
// as one of another method.
type pathRewrite struct {
	prefix     string         // in place of what the route matched
	matched    int            // how many bytes of the path that is; -1 is all
	regex      *regexp.Regexp // nil with prefix; not anchored
	substitute string         // in Go's form of replacement
}

// method is what a call goes out as.
func (p *routePolicy) method(called string) string {
	switch r := p.path; {
	case r == nil:
		return called
	case r.regex != nil:
		return r.regex.ReplaceAllString(called, r.substitute)
	case r.matched < 0 || r.matched > len(called):
		return r.prefix
	default:
		return r.prefix + called[r.matched:]
	}
}

// rewritten is how much of a path prefix_rewrite replaces: what the match says,
// all of it where that is no prefix. Istio writes "/" where every path matches.
func (m *routeMatch) rewritten() int {
	switch m.path {
	case pathPrefix, pathSeparated:
		return len(m.text)
	case pathAny:
		return 1
	}
	return -1
}
