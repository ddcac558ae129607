package proxyless

//lint:file-ignore SA1019 istiod sends deprecated fields, and clients have to read them

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// said is what a level of a route configuration says, in generated types.
type said struct {
	addRequest, addResponse       []*corev3.HeaderValueOption
	removeRequest, removeResponse []string
	filters                       map[string]*anypb.Any
	mirrors                       []*routev3.RouteAction_RequestMirrorPolicy
	retry                         *routev3.RetryPolicy
	hedge                         *routev3.HedgePolicy
}

func saidByConfig(m *routev3.RouteConfiguration) said {
	return said{m.RequestHeadersToAdd, m.ResponseHeadersToAdd, m.RequestHeadersToRemove, m.ResponseHeadersToRemove, m.TypedPerFilterConfig, m.RequestMirrorPolicies, nil, nil}
}

func saidByHost(m *routev3.VirtualHost) said {
	return said{m.RequestHeadersToAdd, m.ResponseHeadersToAdd, m.RequestHeadersToRemove, m.ResponseHeadersToRemove, m.TypedPerFilterConfig, m.RequestMirrorPolicies, m.RetryPolicy, m.HedgePolicy}
}

func saidByRoute(m *routev3.Route) said {
	a := m.GetRoute()
	return said{m.RequestHeadersToAdd, m.ResponseHeadersToAdd, m.RequestHeadersToRemove, m.ResponseHeadersToRemove, m.TypedPerFilterConfig, a.GetRequestMirrorPolicies(), a.GetRetryPolicy(), a.GetHedgePolicy()}
}

func saidByCluster(m *routev3.WeightedCluster_ClusterWeight) said {
	return said{m.RequestHeadersToAdd, m.ResponseHeadersToAdd, m.RequestHeadersToRemove, m.ResponseHeadersToRemove, m.TypedPerFilterConfig, nil, nil, nil}
}

// check refuses a level that cannot be read.
func (s *said) check() error {
	_, err := s.policy(nil, true)
	return err
}

// policy settles the levels: s is the most specific one.
func (s *said) policy(above []said, specificWins bool) (*routePolicy, error) {
	levels := append([]said{*s}, above...)
	p := &routePolicy{}
	var errs []error
	for i := range levels {
		if m := levels[i].retry; m != nil {
			var err error
			p.retry, err = referenceRetry(m)
			errs = append(errs, err)
			break
		}
	}
	for i := range levels {
		if m := levels[i].hedge; m != nil {
			var err error
			p.hedge, err = referenceHedge(m)
			errs = append(errs, err)
			break
		}
	}
	for i := range levels {
		if len(levels[i].mirrors) > 0 {
			for _, m := range levels[i].mirrors {
				mirror, err := referenceMirror(m)
				if errs = append(errs, err); mirror.share > 0 {
					p.mirrors = append(p.mirrors, mirror)
				}
			}
			break
		}
	}
	for i := len(levels) - 1; i >= 0; i-- { // the more specific overwrite
		errs = append(errs, referenceOverrides(levels[i].filters, p))
	}
	ordered := slices.Clone(levels)
	if specificWins {
		slices.Reverse(ordered)
	}
	for i := range ordered {
		errs = append(errs,
			referenceMutations(&p.headers.request, ordered[i].removeRequest, ordered[i].addRequest),
			referenceMutations(&p.headers.response, ordered[i].removeResponse, ordered[i].addResponse))
	}
	return p, errors.Join(errs...)
}

// something is nil for a policy that asks for nothing.
func something(p *routePolicy) *routePolicy {
	if p.retry == nil && p.hedge == nil && p.fault == nil && p.session == nil && p.mirrors == nil && p.hash == nil && p.rewrite == (authorityRewrite{}) && p.path == nil &&
		len(p.headers.request.remove)+len(p.headers.request.change)+len(p.headers.response.remove)+len(p.headers.response.change) == 0 {
		return nil
	}
	return p
}

func fixedHeader(name string) bool {
	return strings.HasPrefix(name, ":") || name == "host" || name == ""
}

var constantFormat = regexp.MustCompile(`^(?:[^%]|%%|%PROTOCOL%)*$`)

func referenceMutations(to *headerMutations, remove []string, add []*corev3.HeaderValueOption) error {
	for _, name := range remove {
		if name = strings.ToLower(name); fixedHeader(name) {
			continue
		}
		if slices.ContainsFunc(to.change, func(c headerChange) bool { return c.name == name }) {
			to.change = append(to.change, headerChange{name: name, action: headerRemove})
		} else if !slices.Contains(to.remove, name) {
			to.remove = append(to.remove, name)
		}
	}
	var overwrite, rest []headerChange
	for _, m := range add {
		c := headerChange{name: strings.ToLower(m.GetHeader().GetKey()), value: m.GetHeader().GetValue(), action: headerAction(m.AppendAction)}
		if raw := m.GetHeader().GetRawValue(); len(raw) > 0 {
			c.value = string(raw)
		}
		if c.name == "" {
			return errors.New("header without name")
		}
		if m.Append != nil {
			if c.action = headerAppend; !m.Append.Value {
				c.action = headerOverwrite
			}
		} else if m.AppendAction < 0 || m.AppendAction > 3 {
			continue
		}
		if fixedHeader(c.name) || !constantFormat.MatchString(c.value) || c.value == "" && !m.KeepEmptyValue {
			continue
		}
		c.value = strings.ReplaceAll(strings.ReplaceAll(c.value, "%PROTOCOL%", "HTTP/2"), "%%", "%")
		if c.action == headerOverwrite || c.action == headerOverwriteIfExists {
			overwrite = append(overwrite, c)
		} else {
			rest = append(rest, c)
		}
	}
	to.change = append(append(to.change, overwrite...), rest...)
	return nil
}

func referenceRetry(m *routev3.RetryPolicy) (*retryPolicy, error) {
	r := &retryPolicy{retries: 1, reselect: uint32(min(uint64(m.HostSelectionRetryMaxAttempts), 1<<16)), base: 25 * time.Millisecond}
	if m.HostSelectionRetryMaxAttempts == 0 {
		r.reselect = 1
	}
	for _, word := range strings.Split(m.RetryOn, ",") {
		switch word = strings.TrimSpace(word); word {
		case "cancelled":
			r.codes |= 1 << codes.Canceled
		case "deadline-exceeded":
			r.codes |= 1 << codes.DeadlineExceeded
		case "internal":
			r.codes |= 1 << codes.Internal
		case "resource-exhausted":
			r.codes |= 1 << codes.ResourceExhausted
		case "unavailable":
			r.codes |= 1 << codes.Unavailable
		default:
			r.on |= map[string]retryConditions{"5xx": retry5xx, "gateway-error": retryGatewayError, "reset": retryReset, "reset-before-request": retryResetBeforeRequest,
				"connect-failure": retryConnectFailure, "envoy-ratelimited": retryEnvoyRateLimited, "retriable-4xx": retryRetriable4xx, "refused-stream": retryRefusedStream,
				"retriable-status-codes": retryStatusCodes, "retriable-headers": retryRetriableHeaders}[word]
		}
	}
	for _, status := range m.RetriableStatusCodes {
		set := map[uint32]uint32{400: 1 << codes.Internal, 401: 1 << codes.Unauthenticated, 403: 1 << codes.PermissionDenied, 404: 1 << codes.Unimplemented, 429: 1 << codes.Unavailable,
			500: 1 << codes.Unknown, 502: 1 << codes.Unavailable, 503: 1 << codes.Unavailable, 504: 1<<codes.Unavailable | 1<<codes.DeadlineExceeded}[status]
		if r.on&retryStatusCodes != 0 {
			r.codes |= set
		}
	}
	if m.NumRetries != nil {
		r.retries = m.NumRetries.Value
	}
	var errs [4]error
	r.perTry, errs[0] = referenceDuration(m.PerTryTimeout)
	r.perTryIdle, errs[1] = referenceDuration(m.PerTryIdleTimeout)
	if b := m.RetryBackOff; b != nil {
		if b.BaseInterval != nil {
			r.base, errs[2] = referenceDuration(b.BaseInterval)
			r.base = max(r.base, time.Millisecond)
		}
		r.max, errs[3] = referenceDuration(b.MaxInterval)
	}
	if m.RetryBackOff.GetMaxInterval() == nil {
		r.max = 10 * min(r.base, time.Hour)
	}
	r.max = max(r.max, r.base)
	for _, p := range m.RetryHostPredicate {
		name, _ := extensionType(p.GetTypedConfig())
		if name == nameOf(&previoushostsv3.PreviousHostsPredicate{}) || name == "" && p.Name == "envoy.retry_host_predicates.previous_hosts" {
			r.previousHosts = true
		}
	}
	if name, readable := extensionType(m.RetryPriority.GetTypedConfig()); readable && name == nameOf(&previousprioritiesv3.PreviousPrioritiesConfig{}) {
		config := &previousprioritiesv3.PreviousPrioritiesConfig{}
		if err := proto.Unmarshal(m.RetryPriority.GetTypedConfig().Value, config); err != nil {
			return nil, err
		}
		r.previousPriorities, r.priorityEvery = true, uint32(config.UpdateFrequency)
	}
	err := errors.Join(errs[:]...)
	for _, h := range m.RetriableHeaders {
		err = errors.Join(err, referenceHeaders(h, &r.headers))
	}
	for _, h := range m.RetriableRequestHeaders {
		err = errors.Join(err, referenceHeaders(h, &r.requestHeaders))
	}
	if r.on == 0 && r.codes == 0 {
		r.retries = 0
	}
	if r.retries == 0 && r.perTry == 0 && r.perTryIdle == 0 {
		return nil, err
	}
	return r, err
}

// referenceHeaders appends a matcher outside a RouteMatch.
func referenceHeaders(m *routev3.HeaderMatcher, to *[]headerMatch) error {
	var match routeMatch
	h, err := referenceHeader(m, &match)
	if match.never != "" {
		h.kind = headerNever
	}
	*to = append(*to, h)
	return err
}

func referenceHedge(m *routev3.HedgePolicy) (*hedgePolicy, error) {
	h := &hedgePolicy{initial: max(m.InitialRequests.GetValue(), 1), onPerTry: m.HedgeOnPerTryTimeout}
	err := referenceFraction(m.AdditionalRequestChance, &h.chance)
	if h.initial == 1 && h.chance == 0 && !h.onPerTry {
		return nil, err
	}
	return h, err
}

func referenceMirror(m *routev3.RouteAction_RequestMirrorPolicy) (x mirrorPolicy, err error) {
	x = mirrorPolicy{cluster: m.Cluster, share: 1_000_000, keepsName: m.DisableShadowHostSuffixAppend}
	if m.Cluster == "" {
		x.header = referenceName(m.ClusterHeader)
	}
	if m.Cluster == "" && m.ClusterHeader == "" {
		return x, errors.New("mirror without cluster")
	}
	if m.RuntimeFraction != nil {
		err = referenceFraction(m.RuntimeFraction.DefaultValue, &x.share)
	}
	return x, err
}

func referenceName(name string) string {
	if name = strings.ToLower(name); name == "host" {
		return ":authority"
	}
	return name
}

func referenceHash(m *routev3.RouteAction_HashPolicy) (h hashPolicy, use bool, err error) {
	h.terminal = m.Terminal
	switch s := m.PolicySpecifier.(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		if h.name = referenceName(s.Header.HeaderName); h.name == "" {
			return h, false, errors.New("hash without header")
		}
		if s.Header.RegexRewrite != nil {
			h.rewrite, h.substitute, err = referenceSubstitution(s.Header.RegexRewrite)
		}
		return h, true, err
	case *routev3.RouteAction_HashPolicy_Cookie_:
		if h.kind, h.name, h.path, h.hasTTL = hashCookie, s.Cookie.Name, s.Cookie.Path, s.Cookie.Ttl != nil; h.name == "" {
			return h, false, errors.New("hash without cookie")
		}
		h.ttl, err = referenceDuration(s.Cookie.Ttl)
		return h, true, err
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		h.kind = hashSource
		return h, s.ConnectionProperties.SourceIp, nil
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		h.kind, h.name = hashQuery, s.QueryParameter.Name
		return h, true, nil
	case *routev3.RouteAction_HashPolicy_FilterState_:
		h.kind = hashChannelID
		return h, s.FilterState.Key == "io.grpc.channel_id", nil
	}
	return h, false, nil
}

func referenceSubstitution(m *matcherv3.RegexMatchAndSubstitute) (*regexp.Regexp, string, error) {
	re, err := regexp.Compile(m.GetPattern().GetRegex())
	if err != nil {
		return nil, "", err
	}
	if regexp.MustCompile(`\\[^0-9\\]|\\$`).MatchString(strings.ReplaceAll(m.Substitution, `\\`, "")) {
		return nil, "", errors.New("substitution")
	}
	for _, group := range regexp.MustCompile(`\\[0-9]`).FindAllString(strings.ReplaceAll(m.Substitution, `\\`, ""), -1) {
		if int(group[1]-'0') > re.NumSubexp() {
			return nil, "", fmt.Errorf("group %s", group)
		}
	}
	s := strings.ReplaceAll(m.Substitution, "$", "$$")
	s = regexp.MustCompile(`\\([0-9\\])`).ReplaceAllStringFunc(s, func(part string) string {
		if part == `\\` {
			return `\`
		}
		return "${" + part[1:] + "}"
	})
	return re, s, nil
}
