package meshtest

import (
	"time"

	"google.golang.org/grpc/codes"
)

// RouteConfiguration is an envoy.config.route.v3.RouteConfiguration.
type RouteConfiguration struct {
	Name         string
	VirtualHosts []VirtualHost
	// Sidecar writes it as istiod does in the full view: the port of a host is
	// not compared, and timeouts go into timeout and max_grpc_timeout.
	Sidecar bool
	Raw     []byte // appended as it is
}

// VirtualHost is an envoy.config.route.v3.VirtualHost.
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []Route
	Retry   *RetryPolicy // the default of the routes; nil leaves it out
	// AttemptCount is include_request_attempt_count.
	AttemptCount                    bool
	RequestHeaders, ResponseHeaders HeaderMutation
	Fault                           *Fault
	Filters                         []HTTPFilter // typed_per_filter_config
	Raw                             []byte       // appended as it is
}

// Route is an envoy.config.route.v3.Route. At most one of Path, Regex and
// SeparatedPrefix is set; where none is, Prefix applies, and an empty Prefix
// matches every path.
type Route struct {
	Name            string
	Prefix          string
	Path            string
	Regex           string
	SeparatedPrefix string // path_separated_prefix, as the Gateway API has it
	IgnoreCase      bool
	Headers         []HeaderMatch // :method, :authority and :scheme too
	Query           []QueryMatch
	Fraction        *uint32 // runtime_fraction in parts per million; nil leaves it out

	// What to do: forward to Clusters, unless one of the others is set.
	Clusters       []WeightedCluster
	ClusterHeader  string // forward to the cluster that this header names
	NonForwarding  bool   // what a server's routes have
	Redirect       string // to this host
	RedirectPath   string // and this path
	RedirectCode   uint32 // HTTP status: 302, 303, 307 or 308; anything else is 301
	DirectResponse uint32 // an HTTP status code
	DirectBody     string // its body

	// Timeout is zero where no VirtualService sets one; istiod then sends
	// timeout and max_grpc_timeout 0 and no max_stream_duration. A positive one
	// goes into timeout and max_stream_duration. A negative one stands for the
	// explicit "no limit" in both, which istiod sends for the routes of a
	// VirtualService without a timeout. In the full view max_grpc_timeout takes
	// the place of max_stream_duration.
	Timeout   time.Duration
	Retry     *RetryPolicy // nil leaves it out
	Decorator string       // the operation's name in traces

	Fault   *Fault
	Mirrors []Mirror
	Hash    []HashPolicy
	// Hedge is hedge_policy with hedge_on_per_try_timeout.
	Hedge bool

	RequestHeaders, ResponseHeaders HeaderMutation

	// At most one of the three is set.
	HostRewrite       string
	HostRewriteHeader string
	AutoHostRewrite   bool // to the hostname of the endpoint

	PrefixRewrite string
	RegexRewrite  *Rewrite

	Filters []HTTPFilter // typed_per_filter_config

	RawMatch  []byte // appended to the RouteMatch
	RawAction []byte // appended to the RouteAction
	Raw       []byte // appended to the Route
}

// WeightedCluster is one target of a Route. A single one with weight 0 is
// written as RouteAction.cluster, everything else as weighted_clusters.
type WeightedCluster struct {
	Name   string
	Weight uint32

	// What follows is written in weighted_clusters only.
	RequestHeaders, ResponseHeaders HeaderMutation
	HostRewrite                     string
	Filters                         []HTTPFilter // typed_per_filter_config
}

// HeaderMutation adds to headers and takes away from them.
type HeaderMutation struct {
	Set    []Header // in place of those with the same name
	Add    []Header // besides those with the same name
	Remove []string
}

// Header is a header and its value, which may hold %COMMANDS% of Envoy.
type Header struct{ Name, Value string }

// Fault is envoy.extensions.filters.http.fault.v3.HTTPFault. Shares are parts
// per million.
type Fault struct {
	Delay      time.Duration
	DelayShare uint32
	// At most one of the two is set; without both, nothing is aborted.
	AbortHTTP  uint32
	AbortGRPC  codes.Code
	AbortShare uint32

	ByHeader bool // delay and abort as the headers x-envoy-fault-... of a call say
	Raw      []byte
}

// Mirror sends a copy of calls to another cluster.
type Mirror struct {
	Cluster string
	Share   *uint32 // parts per million; nil leaves it out: all
}

// HashPolicy is envoy.config.route.v3.RouteAction.HashPolicy; one of its kinds
// is set.
type HashPolicy struct {
	Header      string
	HeaderRegex *Rewrite // of the header's value
	Cookie      string
	CookiePath  string
	CookieTTL   *time.Duration // nil never makes a cookie
	Query       string
	SourceIP    bool
	FilterState string
	Terminal    bool
}

// Rewrite replaces what a regular expression matches.
type Rewrite struct{ Pattern, Substitution string }

// QueryMatch is an envoy.config.route.v3.QueryParameterMatcher: of the kinds of
// HeaderMatch those that compare text, and HeaderPresent.
type QueryMatch struct {
	Name  string
	Kind  HeaderKind
	Value string
}

// HeaderKind says what HeaderMatch compares with.
type HeaderKind uint8

// The kinds of HeaderMatch.
const (
	HeaderExact HeaderKind = iota
	HeaderPrefix
	HeaderSuffix
	HeaderContains
	HeaderRegex
	HeaderPresent
	HeaderAbsent
	HeaderRange
)

// HeaderMatch is an envoy.config.route.v3.HeaderMatcher.
type HeaderMatch struct {
	Name           string
	Kind           HeaderKind
	Value          string // for the kinds that compare text
	Start, End     int64  // for HeaderRange: Start <= value < End
	Invert         bool
	IgnoreCase     bool
	MissingAsEmpty bool // treat_missing_header_as_empty
	Deprecated     bool // the old fields (exact_match...) in place of string_match
}

// RetryPolicy is an envoy.config.route.v3.RetryPolicy.
type RetryPolicy struct {
	On            string // comma separated conditions
	Retries       uint32 // 0 leaves num_retries out
	PerTryTimeout time.Duration
	PreviousHosts bool // prefer a host that was not tried, at most five draws
	// PreviousPriorities is retryRemoteLocalities: other priorities after every
	// second attempt.
	PreviousPriorities bool
	HostDraws          int64    // in place of five; left out where 0 and not PreviousHosts
	Codes              []uint32 // retriable_status_codes
	Backoff            time.Duration
	MaxBackoff         time.Duration
	Raw                []byte
}

// DefaultRetry is the policy that Istio gives to every route that has none.
func DefaultRetry() *RetryPolicy {
	return &RetryPolicy{
		On:            "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
		Retries:       2,
		PreviousHosts: true,
	}
}
