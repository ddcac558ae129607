package meshtest

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// RouteConfiguration is an envoy.config.route.v3.RouteConfiguration.
type RouteConfiguration struct {
	Name         string
	VirtualHosts []VirtualHost
	Raw          []byte // appended as it is
}

// VirtualHost is an envoy.config.route.v3.VirtualHost.
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []Route
	Retry   *RetryPolicy // the default of the routes; nil leaves it out
	// AttemptCount is include_request_attempt_count.
	AttemptCount bool
	Raw          []byte // appended as it is
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
	Headers         []HeaderMatch
	Fraction        *uint32 // runtime_fraction in parts per million; nil leaves it out

	// What to do: forward to Clusters, unless one of the others is set.
	Clusters       []WeightedCluster
	NonForwarding  bool   // what a server's routes have
	Redirect       string // to this host
	DirectResponse uint32 // an HTTP status code

	// Timeout is zero where no VirtualService sets one; istiod then sends
	// timeout and max_grpc_timeout 0 and no max_stream_duration. A positive one
	// goes into timeout and max_stream_duration. A negative one stands for the
	// explicit "no limit" in both, which istiod sends for the routes of a
	// VirtualService without a timeout.
	Timeout   time.Duration
	Retry     *RetryPolicy // nil leaves it out
	Decorator string       // the operation's name in traces

	RawMatch  []byte // appended to the RouteMatch
	RawAction []byte // appended to the RouteAction
	Raw       []byte // appended to the Route
}

// WeightedCluster is one target of a Route. A single one with weight 0 is
// written as RouteAction.cluster, everything else as weighted_clusters.
type WeightedCluster struct {
	Name   string
	Weight uint32
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
	Raw           []byte
}

// DefaultRetry is the policy that Istio gives to every route that has none.
func DefaultRetry() *RetryPolicy {
	return &RetryPolicy{
		On:            "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
		Retries:       2,
		PreviousHosts: true,
	}
}

// Marshal encodes the message.
func (c RouteConfiguration) Marshal() []byte {
	b := appendString(nil, 1, c.Name)
	for _, h := range c.VirtualHosts {
		b = appendMessage(b, 2, h.marshal())
	}
	return append(b, c.Raw...)
}

func (h VirtualHost) marshal() []byte {
	b := appendString(nil, 1, h.Name)
	b = appendStrings(b, 2, h.Domains)
	for _, r := range h.Routes {
		b = appendMessage(b, 3, r.marshal())
	}
	b = appendBool(b, 14, h.AttemptCount)
	if h.Retry != nil {
		b = appendMessage(b, 16, h.Retry.marshal())
	}
	return append(b, h.Raw...)
}

func (r Route) marshal() []byte {
	b := appendMessage(nil, 1, r.match())
	switch {
	case r.NonForwarding:
		b = appendMessage(b, 18, nil)
	case r.Redirect != "":
		b = appendMessage(b, 3, appendString(nil, 1, r.Redirect))
	case r.DirectResponse != 0:
		b = appendMessage(b, 7, appendVarint(nil, 1, uint64(r.DirectResponse)))
	default:
		b = appendMessage(b, 2, r.action())
	}
	if r.Decorator != "" {
		b = appendMessage(b, 5, appendString(nil, 1, r.Decorator))
	}
	return append(appendString(b, 14, r.Name), r.Raw...)
}

func (r Route) match() []byte {
	var b []byte
	switch {
	case r.Path != "":
		b = appendMember(b, 2, r.Path)
	case r.Regex != "":
		b = appendMessage(b, 10, appendString(nil, 2, r.Regex))
	case r.SeparatedPrefix != "":
		b = appendMember(b, 14, r.SeparatedPrefix)
	default:
		b = appendMember(b, 1, r.Prefix)
	}
	if r.IgnoreCase {
		b = appendWrapped(b, 4, 0)
	}
	for _, h := range r.Headers {
		b = appendMessage(b, 6, h.marshal())
	}
	if r.Fraction != nil {
		const million = 2 // FractionalPercent.MILLION
		percent := appendVarint(nil, 1, uint64(*r.Fraction))
		percent = appendVarint(percent, 2, million)
		b = appendMessage(b, 9, appendMessage(nil, 1, percent))
	}
	return append(b, r.RawMatch...)
}

func (r Route) action() []byte {
	var b []byte
	if len(r.Clusters) == 1 && r.Clusters[0].Weight == 0 {
		b = appendMember(b, 1, r.Clusters[0].Name)
	} else if len(r.Clusters) > 0 {
		var list []byte
		for _, c := range r.Clusters {
			w := appendString(nil, 1, c.Name)
			list = appendMessage(list, 1, appendWrapped(w, 2, uint64(c.Weight)))
		}
		b = appendMessage(b, 3, list)
	}
	limit := max(r.Timeout, 0)
	b = appendDuration(b, 8, limit)
	if r.Retry != nil {
		b = appendMessage(b, 9, r.Retry.marshal())
	}
	if r.Timeout == 0 {
		b = appendDuration(b, 23, 0)
	} else {
		b = appendMessage(b, 36, appendDuration(nil, 1, limit))
	}
	return append(b, r.RawAction...)
}

func (p RetryPolicy) marshal() []byte {
	b := appendString(nil, 1, p.On)
	if p.Retries != 0 {
		b = appendWrapped(b, 2, uint64(p.Retries))
	}
	if p.PerTryTimeout != 0 {
		b = appendDuration(b, 3, p.PerTryTimeout)
	}
	if p.PreviousHosts {
		b = appendExtension(b, 5, 3, "envoy.retry_host_predicates.previous_hosts",
			typePrefix+"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", nil)
		b = appendVarint(b, 6, 5)
	}
	return append(b, p.Raw...)
}

func (h HeaderMatch) marshal() []byte {
	b := appendString(nil, 1, h.Name)
	switch h.Kind {
	case HeaderPresent:
		b = appendPresentBool(b, 7, true)
	case HeaderAbsent:
		b = appendPresentBool(b, 7, false)
	case HeaderRange:
		span := appendVarint(nil, 1, uint64(h.Start))
		b = appendMessage(b, 6, appendVarint(span, 2, uint64(h.End)))
	default:
		b = h.appendText(b)
	}
	b = appendBool(b, 8, h.Invert)
	return appendBool(b, 14, h.MissingAsEmpty)
}

func (h HeaderMatch) appendText(b []byte) []byte {
	if h.Deprecated {
		num := [...]protowire.Number{
			HeaderExact: 4, HeaderPrefix: 9, HeaderSuffix: 10, HeaderContains: 12, HeaderRegex: 11,
		}[h.Kind]
		return appendPattern(b, num, h.Kind, h.Value)
	}
	num := [...]protowire.Number{
		HeaderExact: 1, HeaderPrefix: 2, HeaderSuffix: 3, HeaderContains: 7, HeaderRegex: 5,
	}[h.Kind]
	text := appendPattern(nil, num, h.Kind, h.Value)
	return appendMessage(b, 13, appendBool(text, 6, h.IgnoreCase))
}

// appendPattern writes text as a string, or as a RegexMatcher where it is one.
func appendPattern(b []byte, num protowire.Number, kind HeaderKind, text string) []byte {
	if kind == HeaderRegex {
		return appendMessage(b, num, appendString(nil, 2, text))
	}
	return appendMember(b, num, text)
}
