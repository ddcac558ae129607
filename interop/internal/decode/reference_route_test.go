package proxyless

//lint:file-ignore SA1019 istiod sends deprecated fields, and clients have to read them

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

func referenceNamedRouteConfig(m *routev3.RouteConfiguration) (*routeConfig, error) {
	if m.Name == "" {
		return nil, errors.New("no name")
	}
	return referenceRouteConfig(m)
}

func referenceRouteConfig(m *routev3.RouteConfiguration) (*routeConfig, error) {
	c := &routeConfig{name: m.GetName()}
	if m == nil {
		return c, nil
	}
	config := saidByConfig(m)
	err := config.check()
	for _, v := range m.GetVirtualHosts() {
		host := virtualHost{name: v.Name}
		for _, domain := range v.Domains {
			if domain = strings.ToLower(domain); !regexp.MustCompile(`^(\*|\*?[^*]+|[^*]+\*)$`).MatchString(domain) {
				return nil, fmt.Errorf("domain %q", domain)
			}
			host.domains = append(host.domains, domain)
		}
		above := []said{saidByHost(v), config}
		err = errors.Join(err, above[0].check())
		for _, r := range v.Routes {
			x := route{name: r.Name}
			err = errors.Join(err, referenceMatch(r.Match, &x.match), referenceAction(r, above, m.MostSpecificHeaderMutationsWins, &x))
			host.routes = append(host.routes, x)
		}
		c.virtualHosts = append(c.virtualHosts, host)
	}
	return c, err
}

func referenceMatch(m *routev3.RouteMatch, x *routeMatch) (err error) {
	if m == nil {
		return errors.New("no match")
	}
	fold := m.CaseSensitive != nil && !m.CaseSensitive.Value
	x.foldCase = fold
	switch path := m.PathSpecifier.(type) {
	case *routev3.RouteMatch_Prefix:
		if x.path, x.text = pathPrefix, path.Prefix; x.text == "" || x.text == "/" {
			x.path, x.text = pathAny, ""
		}
	case *routev3.RouteMatch_Path:
		x.path, x.text = pathExact, path.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		if x.path, x.text = pathSeparated, strings.TrimSuffix(path.PathSeparatedPrefix, "/"); x.text == "" {
			x.path = pathAny
		}
	case *routev3.RouteMatch_SafeRegex:
		x.path, x.text, x.foldCase = pathRegex, path.SafeRegex.GetRegex(), false
		x.regex, err = referenceRegex(path.SafeRegex)
	case *routev3.RouteMatch_PathMatchPolicy:
		err = referenceTemplate(path.PathMatchPolicy, x)
	default:
		x.never = "path"
	}
	for _, q := range m.QueryParameters {
		if present, ok := q.QueryParameterMatchSpecifier.(*routev3.QueryParameterMatcher_PresentMatch); !ok || present.PresentMatch {
			x.never = "query"
		}
	}
	if len(m.DynamicMetadata)+len(m.FilterState)+len(m.ProtoReflect().GetUnknown()) > 0 || m.TlsContext != nil {
		x.never = "other parts"
	}
	if f := m.RuntimeFraction; f != nil {
		err = errors.Join(err, referenceFraction(f.DefaultValue, &x.fraction))
		x.partial = x.fraction < 1_000_000
	}
	for _, h := range m.Headers {
		y, e := referenceHeader(h, x)
		x.headers = append(x.headers, y)
		err = errors.Join(err, e)
	}
	for _, cookie := range m.Cookies {
		y := headerMatch{name: "cookie", cookie: cookie.Name, invert: cookie.InvertMatch, kind: headerExact}
		if cookie.Name == "" {
			err = errors.Join(err, errors.New("cookie without name"))
		}
		if cookie.StringMatch != nil {
			err = errors.Join(err, referenceString(cookie.StringMatch, x, &y))
		}
		x.headers = append(x.headers, y)
	}
	return err
}

// referenceTemplate compiles a path template by replacing its wildcards, which
// is enough for those that are made here.
func referenceTemplate(m *corev3.TypedExtensionConfig, x *routeMatch) error {
	name, readable := extensionType(m.GetTypedConfig())
	if !readable || name != nameOf(&templatev3.UriTemplateMatchConfig{}) {
		x.never = "path"
		return nil
	}
	config := &templatev3.UriTemplateMatchConfig{}
	if err := proto.Unmarshal(m.TypedConfig.Value, config); err != nil {
		return err
	}
	pattern, ok := templates[config.PathTemplate]
	if !ok {
		return fmt.Errorf("template %q", config.PathTemplate)
	}
	x.path, x.text, x.foldCase = pathRegex, config.PathTemplate, false
	x.regex = regexp.MustCompile(pattern)
	x.regex.Longest()
	return nil
}

// templates are the path templates that are made, as patterns.
var templates = map[string]string{
	"/p.S/*": "/p\\.S/" + segment + "+", "/p.S/**": "/p\\.S/" + segments, "/{a}/Method": "/" + segment + "+/Method",
	"/{s=p.*}/{rest=**}": "/p\\." + segment + "+/" + segments, "/{a=**}": "/" + segments,
}

// What stands for a star in a path is RFC 3986's pchar but for the star itself.
const (
	segment  = `[\w.~!$&'()+,;=:@%-]`
	segments = `(?:` + segment + `|/)*`
)

// referenceRegex is the pattern without anchors; see sameRegex.
func referenceRegex(m *matcherv3.RegexMatcher) (*regexp.Regexp, error) {
	re, err := regexp.Compile(m.GetRegex())
	if err == nil {
		re.Longest()
	}
	return re, err
}

func referenceFraction(m *typev3.FractionalPercent, to *uint32) error {
	scale, ok := map[typev3.FractionalPercent_DenominatorType]uint64{
		typev3.FractionalPercent_HUNDRED: 10_000, typev3.FractionalPercent_TEN_THOUSAND: 100, typev3.FractionalPercent_MILLION: 1,
	}[m.GetDenominator()]
	if !ok {
		return fmt.Errorf("denominator %v", m.GetDenominator())
	}
	*to = uint32(min(uint64(m.GetNumerator())*scale, 1_000_000))
	return nil
}

func referenceHeader(m *routev3.HeaderMatcher, x *routeMatch) (h headerMatch, err error) {
	h = headerMatch{name: strings.ToLower(m.Name), invert: m.InvertMatch, missingEmpty: m.TreatMissingHeaderAsEmpty}
	if h.name == "host" {
		h.name = ":authority"
	}
	if m.Name == "" {
		return h, errors.New("header without name")
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		x.never = "header"
	}
	switch specifier := m.HeaderMatchSpecifier.(type) {
	case nil:
	case *routev3.HeaderMatcher_PresentMatch:
		if !specifier.PresentMatch {
			h.kind = headerAbsent
		}
	case *routev3.HeaderMatcher_RangeMatch:
		h.kind, h.start, h.end = headerRange, specifier.RangeMatch.GetStart(), specifier.RangeMatch.GetEnd()
	case *routev3.HeaderMatcher_ExactMatch:
		h.kind, h.text = headerExact, specifier.ExactMatch
	case *routev3.HeaderMatcher_PrefixMatch:
		return h, referencePart(&h, headerPrefix, specifier.PrefixMatch)
	case *routev3.HeaderMatcher_SuffixMatch:
		return h, referencePart(&h, headerSuffix, specifier.SuffixMatch)
	case *routev3.HeaderMatcher_ContainsMatch:
		return h, referencePart(&h, headerContains, specifier.ContainsMatch)
	case *routev3.HeaderMatcher_SafeRegexMatch:
		h.kind, h.text = headerRegex, specifier.SafeRegexMatch.GetRegex()
		h.regex, err = referenceRegex(specifier.SafeRegexMatch)
	case *routev3.HeaderMatcher_StringMatch:
		return h, referenceString(specifier.StringMatch, x, &h)
	default:
		x.never = "header"
	}
	return h, err
}

func referenceString(m *matcherv3.StringMatcher, x *routeMatch, h *headerMatch) (err error) {
	h.foldCase = m.GetIgnoreCase()
	switch pattern := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		h.kind, h.text = headerExact, pattern.Exact
	case *matcherv3.StringMatcher_Prefix:
		return referencePart(h, headerPrefix, pattern.Prefix)
	case *matcherv3.StringMatcher_Suffix:
		return referencePart(h, headerSuffix, pattern.Suffix)
	case *matcherv3.StringMatcher_Contains:
		return referencePart(h, headerContains, pattern.Contains)
	case *matcherv3.StringMatcher_SafeRegex:
		h.kind, h.text, h.foldCase = headerRegex, pattern.SafeRegex.GetRegex(), false
		h.regex, err = referenceRegex(pattern.SafeRegex)
	default:
		x.never = "string"
	}
	return err
}

func referencePart(h *headerMatch, kind headerKind, text string) error {
	if h.kind, h.text = kind, text; text == "" {
		return errors.New("empty part")
	}
	return nil
}

func referenceAction(m *routev3.Route, above []said, specificWins bool, x *route) error {
	own := saidByRoute(m)
	err := own.check()
	switch action := m.Action.(type) {
	case *routev3.Route_Route:
		err = errors.Join(err, referenceLimit(action.Route, x), referenceForward(action.Route, &own, above, specificWins, x))
	case *routev3.Route_DirectResponse:
		x.failure, x.code = "answers itself", referenceCode(action.DirectResponse.GetStatus())
	case *routev3.Route_Redirect:
		x.failure, x.code = "redirects", codes.Unknown
	default:
		x.failure = "does not forward"
	}
	if x.match.never != "" {
		x.clusters, x.total, x.header, x.policy, x.failure = nil, 0, "", nil, "never matches"
	}
	return err
}

// referenceForward settles the policy of a route and of its clusters.
func referenceForward(m *routev3.RouteAction, own *said, above []said, specificWins bool, x *route) error {
	p, err := own.policy(above, specificWins)
	if err != nil {
		return err
	}
	for _, h := range m.GetHashPolicy() {
		hash, use, e := referenceHash(h)
		if err = errors.Join(err, e); use {
			p.hash = append(p.hash, hash)
		}
	}
	switch s := m.GetHostRewriteSpecifier().(type) {
	case *routev3.RouteAction_HostRewriteLiteral:
		p.rewrite.literal = s.HostRewriteLiteral
	case *routev3.RouteAction_AutoHostRewrite:
		p.rewrite.auto = s.AutoHostRewrite.GetValue()
	case *routev3.RouteAction_HostRewriteHeader:
		p.rewrite.header = referenceName(s.HostRewriteHeader)
	case *routev3.RouteAction_HostRewritePathRegex:
		var e error
		p.rewrite.path, p.rewrite.substitute, e = referenceSubstitution(s.HostRewritePathRegex)
		err = errors.Join(err, e)
	}
	switch {
	case m.GetPrefixRewrite() != "":
		p.path = &pathRewrite{prefix: m.GetPrefixRewrite(), matched: x.match.rewritten()}
	case m.GetRegexRewrite() != nil:
		var e error
		p.path = &pathRewrite{}
		p.path.regex, p.path.substitute, e = referenceSubstitution(m.GetRegexRewrite())
		err = errors.Join(err, e)
	}
	err = errors.Join(err, referenceClusters(m, p, own, above, specificWins, x))
	if x.policy = something(p); x.failure != "" && x.match.never != "" {
		x.policy = nil
	}
	return err
}

func referenceLimit(m *routev3.RouteAction, x *route) (err error) {
	if stream := m.GetMaxStreamDuration(); stream != nil {
		limit := stream.GrpcTimeoutHeaderMax
		if limit == nil {
			limit = stream.MaxStreamDuration
		}
		x.hasMaxDuration = limit != nil
		x.maxDuration, err = referenceDuration(limit)
		return err
	}
	limit := m.GetMaxGrpcTimeout()
	if limit == nil {
		limit = m.GetTimeout()
	}
	x.maxDuration, err = referenceDuration(limit)
	x.hasMaxDuration = x.maxDuration > 0
	return err
}

func referenceClusters(m *routev3.RouteAction, p *routePolicy, own *said, above []said, specificWins bool, x *route) error {
	switch specifier := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		if specifier.Cluster == "" {
			return errors.New("cluster without name")
		}
		x.clusters, x.total = []weightedCluster{{name: specifier.Cluster, weight: 1}}, 1
	case *routev3.RouteAction_ClusterHeader:
		if x.header = referenceName(specifier.ClusterHeader); x.header == "" {
			return errors.New("cluster_header without name")
		}
	case *routev3.RouteAction_WeightedClusters:
		return referenceWeights(specifier.WeightedClusters, p, own, above, specificWins, x)
	default:
		x.failure = "no cluster that can be told beforehand"
	}
	return nil
}

func referenceWeights(m *routev3.WeightedCluster, p *routePolicy, own *said, above []said, specificWins bool, x *route) error {
	var total uint64
	byHeader := false
	for _, c := range m.GetClusters() {
		weight := c.Weight.GetValue()
		if total += uint64(weight); c.Name == "" && c.ClusterHeader != "" {
			byHeader = byHeader || weight > 0
		} else if c.Name == "" && weight > 0 {
			return errors.New("cluster without name")
		}
		policy, err := referenceWeightPolicy(c, p, own, above, specificWins)
		if err != nil {
			return err
		}
		if weight > 0 {
			x.clusters = append(x.clusters, weightedCluster{c.Name, weight, policy})
		}
	}
	if x.total = uint32(total); total == 0 || total > math.MaxUint32 {
		return fmt.Errorf("weights add up to %d", total)
	}
	if byHeader {
		x.clusters, x.total, x.failure = nil, 0, "a cluster from a header"
	}
	return nil
}

// referenceWeightPolicy is nil for a cluster that says nothing of its own.
func referenceWeightPolicy(m *routev3.WeightedCluster_ClusterWeight, p *routePolicy, own *said, above []said, specificWins bool) (*routePolicy, error) {
	its := saidByCluster(m)
	alone, err := its.policy(nil, specificWins)
	if err != nil || something(alone) == nil && m.GetHostRewriteLiteral() == "" {
		return nil, err
	}
	settled, err := its.policy(append([]said{*own}, above...), specificWins)
	if err != nil {
		return nil, err
	}
	settled.hash, settled.rewrite, settled.path = p.hash, p.rewrite, p.path
	if literal := m.GetHostRewriteLiteral(); literal != "" {
		settled.rewrite = authorityRewrite{literal: literal}
	}
	return something(settled), nil
}
