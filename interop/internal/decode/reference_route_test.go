package proxyless

//lint:file-ignore SA1019 istiod sends deprecated fields, and clients have to read them

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

func referenceNamedRouteConfig(m *routev3.RouteConfiguration) (*routeConfig, error) {
	if m.Name == "" {
		return nil, errors.New("no name")
	}
	return referenceRouteConfig(m)
}

func referenceRouteConfig(m *routev3.RouteConfiguration) (*routeConfig, error) {
	c := &routeConfig{name: m.GetName()}
	for _, v := range m.GetVirtualHosts() {
		host := virtualHost{name: v.Name}
		for _, domain := range v.Domains {
			if domain = strings.ToLower(domain); !regexp.MustCompile(`^(\*|\*?[^*]+|[^*]+\*)$`).MatchString(domain) {
				return nil, fmt.Errorf("domain %q", domain)
			}
			host.domains = append(host.domains, domain)
		}
		for _, r := range v.Routes {
			x := route{name: r.Name}
			if err := errors.Join(referenceMatch(r.Match, &x.match), referenceAction(r, &x)); err != nil {
				return nil, err
			}
			host.routes = append(host.routes, x)
		}
		c.virtualHosts = append(c.virtualHosts, host)
	}
	return c, nil
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
	default:
		x.never = "path"
	}
	if len(m.QueryParameters)+len(m.DynamicMetadata)+len(m.FilterState)+len(m.Cookies)+len(m.ProtoReflect().GetUnknown()) > 0 || m.TlsContext != nil {
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
	return err
}

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

func referenceAction(m *routev3.Route, x *route) error {
	forward, ok := m.Action.(*routev3.Route_Route)
	var err error
	if ok {
		err = errors.Join(referenceLimit(forward.Route.GetMaxStreamDuration(), x), referenceClusters(forward.Route, x))
	} else {
		x.failure = "does not forward"
	}
	if x.match.never != "" {
		x.clusters, x.total, x.failure = nil, 0, "never matches"
	}
	return err
}

func referenceLimit(m *routev3.RouteAction_MaxStreamDuration, x *route) (err error) {
	limit := m.GetGrpcTimeoutHeaderMax()
	if limit == nil {
		limit = m.GetMaxStreamDuration()
	}
	x.hasMaxDuration = limit != nil
	x.maxDuration, err = referenceDuration(limit)
	return err
}

func referenceClusters(m *routev3.RouteAction, x *route) error {
	switch specifier := m.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		if specifier.Cluster == "" {
			return errors.New("cluster without name")
		}
		x.clusters, x.total = []weightedCluster{{specifier.Cluster, 1}}, 1
	case *routev3.RouteAction_WeightedClusters:
		var total uint64
		for _, c := range specifier.WeightedClusters.GetClusters() {
			weight := c.Weight.GetValue()
			if total += uint64(weight); weight > 0 {
				x.clusters = append(x.clusters, weightedCluster{c.Name, weight})
			}
			if c.ClusterHeader != "" || weight > 0 && c.Name == "" {
				return errors.New("cluster without name")
			}
		}
		if x.total = uint32(total); total == 0 || total > math.MaxUint32 {
			return fmt.Errorf("weights add up to %d", total)
		}
	default:
		x.failure = "no cluster that can be told beforehand"
	}
	return nil
}
