package proxyless

import (
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

// retryTokens are the words of retry_on that are conditions of their own.
var retryTokens = map[string]retryConditions{
	"5xx":                    retry5xx,
	"gateway-error":          retryGatewayError,
	"reset":                  retryReset,
	"reset-before-request":   retryResetBeforeRequest,
	"connect-failure":        retryConnectFailure,
	"envoy-ratelimited":      retryEnvoyRateLimited,
	"retriable-4xx":          retryRetriable4xx,
	"refused-stream":         retryRefusedStream,
	"retriable-status-codes": retryStatusCodes,
	"retriable-headers":      retryRetriableHeaders,

	"http3-post-connect-failure": 0, // of connections that are never made here
}

// retryCodes are the words of retry_on that name a gRPC status.
var retryCodes = map[string]codes.Code{
	"cancelled":          codes.Canceled,
	"deadline-exceeded":  codes.DeadlineExceeded,
	"internal":           codes.Internal,
	"resource-exhausted": codes.ResourceExhausted,
	"unavailable":        codes.Unavailable,
}

var retryUnapplied = unapplied{11: "rate_limited_retry_back_off", 12: "retry_options_predicates", 14: "refresh_cluster_on_retry"}

const (
	typePreviousHosts      = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
	typePreviousPriorities = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
)

// retryParts are the messages inside a retry policy, before they are looked into.
type retryParts struct {
	on                                     string
	count, perTry, idle, priority, backOff []byte
	statuses                               uint32 // gRPC codes of retriable_status_codes
}

// retryPolicy reads an envoy.config.route.v3.RetryPolicy. It returns nil for
// one that asks for nothing.
func (d *decoding) retryPolicy(b []byte) (*retryPolicy, error) {
	outer := d.enter()
	defer d.leave(outer, "retry_policy", "", -1)
	r := &retryPolicy{retries: 1, reselect: 1}
	p, err := d.retryParts(b, r)
	if err != nil {
		return nil, err
	}
	d.retryOn(p.on, r)
	if r.on&retryStatusCodes != 0 {
		r.codes |= p.statuses
	}
	if p.count != nil {
		n, err := decodeWrapped(p.count)
		if err != nil {
			return nil, inField("num_retries", err)
		}
		r.retries = uint32(n)
	}
	if r.perTry, err = decodeDuration(p.perTry); err != nil {
		return nil, inField("per_try_timeout", err)
	}
	if r.perTryIdle, err = decodeDuration(p.idle); err != nil {
		return nil, inField("per_try_idle_timeout", err)
	}
	if err := inField("retry_priority", d.retryPriority(p.priority, r)); err != nil {
		return nil, err
	}
	if err := inField("retry_back_off", r.backOff(p.backOff)); err != nil {
		return nil, err
	}
	if r.on == 0 && r.codes == 0 {
		r.retries = 0
	}
	if r.retries == 0 && r.perTry == 0 && r.perTryIdle == 0 {
		return nil, nil
	}
	return r, nil
}

func (d *decoding) retryParts(b []byte, r *retryPolicy) (p retryParts, err error) {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			p.on = d.intern(c.raw("retry_on"))
		case 2:
			c.message("num_retries", &p.count)
		case 3:
			c.message("per_try_timeout", &p.perTry)
		case 4:
			c.message("retry_priority", &p.priority)
		case 5:
			c.fail(inField("retry_host_predicate", d.hostPredicate(c.bytes("retry_host_predicate"), r)))
		case 6:
			r.reselect = uint32(min(c.scalar("host_selection_retry_max_attempts"), 1<<16))
		case 7:
			eachVarint(&c, "retriable_status_codes", func(status uint64) { p.statuses |= codesOfHTTP(status) })
		case 8:
			c.message("retry_back_off", &p.backOff)
		case 9:
			c.fail(inField("retriable_headers", d.appendHeaderMatch(c.bytes("retriable_headers"), &r.headers)))
		case 10:
			c.fail(inField("retriable_request_headers", d.appendHeaderMatch(c.bytes("retriable_request_headers"), &r.requestHeaders)))
		case 13:
			c.message("per_try_idle_timeout", &p.idle)
		default:
			d.ignoreIf(&c, retryUnapplied)
		}
	}
	return p, c.err
}

// retryOn reads the words of retry_on. One that is not known is noted.
func (d *decoding) retryOn(text string, r *retryPolicy) {
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if code, ok := retryCodes[word]; ok {
			r.codes |= 1 << code
		} else if condition, ok := retryTokens[word]; ok {
			r.on |= condition
		} else if word != "" {
			d.ignore("retry_on (" + word + ")")
		}
	}
}

// codesOfHTTP is the set of gRPC statuses by which a call sees an HTTP status
// of a proxy; 504 also is what Envoy makes of a deadline. A status that no
// gRPC status stands for is an empty set.
func codesOfHTTP(status uint64) uint32 {
	switch status {
	case 504:
		return 1<<codes.Unavailable | 1<<codes.DeadlineExceeded
	case 400, 401, 403, 404, 429, 500, 502, 503:
		return 1 << codeOfHTTP(uint32(status))
	}
	return 0
}

// codeOfHTTP is the gRPC status that stands for an HTTP status, by gRPC's table
// for answers that are not gRPC's.
func codeOfHTTP(status uint32) codes.Code {
	switch status {
	case 400:
		return codes.Internal
	case 401:
		return codes.Unauthenticated
	case 403:
		return codes.PermissionDenied
	case 404:
		return codes.Unimplemented
	case 429, 502, 503, 504:
		return codes.Unavailable
	}
	return codes.Unknown
}

// eachVarint reads a repeated varint field, packed or not.
func eachVarint(c *cursor, field string, f func(uint64)) {
	if c.typ == protowire.VarintType {
		f(c.u)
		return
	}
	for b := c.bytes(field); len(b) > 0 && c.err == nil; {
		value, n := protowire.ConsumeVarint(b)
		if n < 0 {
			c.fail(inField(field, errMalformed))
			return
		}
		f(value)
		b = b[n:]
	}
}

// appendHeaderMatch appends a HeaderMatcher. One that is not known never matches.
func (d *decoding) appendHeaderMatch(b []byte, to *[]headerMatch) error {
	var h headerMatch
	never, err := d.headerMatch(b, &h)
	if never != "" {
		d.ignore("headers." + never)
		h.kind = headerNever
	}
	*to = append(*to, h)
	return err
}

// namedExtension reads a message that has a name (1) and a typed_config (3).
func namedExtension(b []byte) (name string, x extension, err error) {
	var packed []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			name = c.text("name")
		case 3:
			c.message("typed_config", &packed)
		}
	}
	x, err = decodeExtension(packed)
	c.fail(inField("typed_config", err))
	return name, x, c.err
}

// hostPredicate reads a RetryPolicy.RetryHostPredicate.
func (d *decoding) hostPredicate(b []byte, r *retryPolicy) error {
	name, x, err := namedExtension(b)
	if x.name == typePreviousHosts || x.name == "" && name == "envoy.retry_host_predicates.previous_hosts" {
		r.previousHosts = true
	} else if err == nil {
		d.ignore("retry_host_predicate[" + name + "]")
	}
	return err
}

// retryPriority reads a RetryPolicy.RetryPriority.
func (d *decoding) retryPriority(b []byte, r *retryPolicy) error {
	if b == nil {
		return nil
	}
	name, x, err := namedExtension(b)
	if err != nil || x.name != typePreviousPriorities || x.json {
		d.ignore("retry_priority[" + name + "]")
		return err
	}
	r.previousPriorities = true
	c := walk(x.value)
	for c.next() {
		if c.num == 1 {
			r.priorityEvery = uint32(c.scalar("update_frequency"))
		}
	}
	return inField("typed_config", c.err)
}

const defaultRetryBase = 25 * time.Millisecond

// backOff reads a RetryPolicy.RetryBackOff.
func (r *retryPolicy) backOff(b []byte) (err error) {
	r.base = defaultRetryBase
	var base, most []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("base_interval", &base)
		case 2:
			c.message("max_interval", &most)
		}
	}
	if c.err != nil {
		return c.err
	}
	if base != nil {
		if r.base, err = decodeDuration(base); err != nil {
			return inField("base_interval", err)
		}
		r.base = max(r.base, time.Millisecond)
	}
	if r.max, err = decodeDuration(most); err != nil {
		return inField("max_interval", err)
	}
	if most == nil {
		r.max = 10 * min(r.base, time.Hour)
	}
	r.max = max(r.max, r.base)
	return nil
}

// hedgePolicy reads an envoy.config.route.v3.HedgePolicy; nil asks for nothing.
func (d *decoding) hedgePolicy(b []byte) (*hedgePolicy, error) {
	h := &hedgePolicy{initial: 1}
	var initial, chance []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("initial_requests", &initial)
		case 2:
			c.message("additional_request_chance", &chance)
		case 3:
			h.onPerTry = c.scalar("hedge_on_per_try_timeout") != 0
		}
	}
	if initial != nil {
		n, err := decodeWrapped(initial)
		c.fail(inField("initial_requests", err))
		h.initial = max(uint32(n), 1)
	}
	var err error
	h.chance, err = decodeFraction(chance)
	c.fail(inField("additional_request_chance", err))
	if c.err != nil || *h == (hedgePolicy{initial: 1}) {
		return nil, c.err
	}
	return h, nil
}
