package proxyless

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// The reference functions say what is to be kept of a message, or that it is to
// be refused, in terms of the generated types alone.

func nameOf(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }

// extensionType is the type of an extension's configuration. That of a
// TypedStruct is the one it stands for, and cannot be read.
func extensionType(a *anypb.Any) (name string, readable bool) {
	var inside interface{ GetTypeUrl() string }
	switch name = afterSlash(a.GetTypeUrl()); name {
	case nameOf(&xdsv3.TypedStruct{}):
		inside = &xdsv3.TypedStruct{}
	case nameOf(&udpav1.TypedStruct{}):
		inside = &udpav1.TypedStruct{}
	default:
		return name, true
	}
	if err := proto.Unmarshal(a.GetValue(), inside.(proto.Message)); err != nil {
		panic(err)
	}
	return afterSlash(inside.GetTypeUrl()), false
}

func afterSlash(url string) string { return url[strings.LastIndex(url, "/")+1:] }

func referenceListener(m *listenerv3.Listener) (*listener, error) {
	l := &listener{name: m.Name, originalDst: m.UseOriginalDst.GetValue()}
	if m.Name == "" {
		return nil, errors.New("no name")
	}
	addresses := []*corev3.Address{m.Address}
	var more []*corev3.Address
	for _, a := range m.AdditionalAddresses {
		more = append(more, a.Address)
	}
	for _, a := range append(more, addresses...) {
		host, port, ok, err := referenceSocketAddress(a)
		if err != nil {
			return nil, err
		}
		if ip, err := netip.ParseAddr(host); ok && err == nil && port != 0 && m.ApiListener == nil {
			l.addresses = append(l.addresses, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
		}
	}
	if m.ApiListener != nil {
		return l, referenceClient(m.ApiListener.ApiListener, l)
	}
	if len(m.FilterChains) == 0 && m.DefaultFilterChain == nil {
		return nil, errors.New("neither api_listener nor filter chains")
	}
	chain := referenceInbound
	if m.TrafficDirection == corev3.TrafficDirection_OUTBOUND {
		chain = referenceOutbound
	}
	for _, c := range m.FilterChains {
		if err := chain(c, l, false); err != nil {
			return nil, err
		}
	}
	if m.DefaultFilterChain != nil {
		if err := chain(m.DefaultFilterChain, l, true); err != nil {
			return nil, err
		}
	}
	if m.FilterChainMatcher != nil {
		for i := range l.inbound {
			l.inbound[i].failure = "a matcher"
		}
	}
	return l, nil
}

func referenceClient(a *anypb.Any, l *listener) (err error) {
	m, err := referenceManager(a)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, f := range m.HttpFilters {
		if names[f.Name] {
			return fmt.Errorf("filter %q", f.Name)
		}
		names[f.Name] = true
	}
	if m.XffNumTrustedHops != 0 || len(m.OriginalIpDetectionExtensions) > 0 {
		return errors.New("the peer's address from elsewhere")
	}
	if m.GetScopedRoutes() != nil {
		return errors.New("scoped routes")
	}
	l.forwarding, err = referenceForwarding(m, true)
	return err
}

// referenceForwarding is what a connection manager says of calls on their way out.
func referenceForwarding(m *hcmv3.HttpConnectionManager, strict bool) (to forwarding, err error) {
	switch specifier := m.RouteSpecifier.(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		to.routeName = specifier.Rds.GetRouteConfigName()
		if to.routeName == "" || !sameStream(specifier.Rds.ConfigSource) {
			return to, errors.New("rds")
		}
	case *hcmv3.HttpConnectionManager_RouteConfig:
		if to.inline, err = referenceRouteConfig(specifier.RouteConfig); err != nil {
			return to, err
		}
	default:
		return to, errors.New("no routes")
	}
	for _, f := range m.HttpFilters {
		name, readable := extensionType(f.GetTypedConfig())
		switch {
		case referenceHarmless(f.GetTypedConfig()) || f.Disabled:
		case name == nameOf(&faultv3.HTTPFault{}):
			if p, e := referenceFault(f.GetTypedConfig()); readable && (e != nil || !p.idle()) {
				to.fault, err = p, errors.Join(err, e)
			}
		case name == nameOf(&sessionv3.StatefulSession{}):
			session := &sessionv3.StatefulSession{}
			if e := proto.Unmarshal(f.GetTypedConfig().GetValue(), session); e != nil && readable {
				return to, e
			}
			if p, e := referenceSession(session); readable && (e != nil || !p.off()) {
				to.session, err = p, errors.Join(err, e)
			}
		case !f.IsOptional && strict:
			return to, fmt.Errorf("unknown filter %s", name)
		}
	}
	limit, e := referenceDuration(m.GetCommonHttpProtocolOptions().GetMaxStreamDuration())
	to.maxStreamDuration = limit
	return to, errors.Join(err, e)
}

// referenceHarmless says that leaving a filter out changes nothing.
func referenceHarmless(a *anypb.Any) bool {
	name, readable := extensionType(a)
	switch _, known := harmlessFilters[name]; {
	case known:
		return true
	case name == nameOf(&sessionv3.StatefulSession{}):
		return len(a.GetValue()) == 0 || !readable // the TypedStructs that are made are empty
	case !readable || len(a.GetValue()) == 0:
		return false
	case name == nameOf(&httprbacv3.RBAC{}):
		m := &httprbacv3.RBAC{}
		return proto.Unmarshal(a.GetValue(), m) == nil && m.Rules == nil && m.Matcher == nil
	case name == nameOf(&networkrbacv3.RBAC{}):
		m := &networkrbacv3.RBAC{}
		return proto.Unmarshal(a.GetValue(), m) == nil && m.Rules == nil && m.Matcher == nil
	}
	return false
}

func referenceChainMatch(m *listenerv3.FilterChainMatch, fallback bool) (x chainMatch, err error) {
	x = chainMatch{fallback: fallback, port: uint16(m.GetDestinationPort().GetValue()), transport: m.GetTransportProtocol(), protocols: m.GetApplicationProtocols()}
	for _, name := range m.GetServerNames() {
		x.serverNames = append(x.serverNames, strings.ToLower(name))
	}
	for _, r := range m.GetPrefixRanges() {
		p, e := referencePrefix(r)
		x.prefixes, err = append(x.prefixes, p), errors.Join(err, e)
	}
	for _, list := range []struct {
		from []*corev3.CidrRange
		to   *[]netip.Prefix
	}{{m.GetSourcePrefixRanges(), &x.sources}, {m.GetDirectSourcePrefixRanges(), &x.direct}} {
		for _, r := range list.from {
			p, e := referencePrefix(r)
			*list.to, err = append(*list.to, p), errors.Join(err, e)
		}
	}
	for _, port := range m.GetSourcePorts() {
		if port > math.MaxUint16 {
			err = errors.Join(err, fmt.Errorf("port %d", port))
		}
		x.sourcePorts = append(x.sourcePorts, uint16(port))
	}
	if m.GetDestinationPort().GetValue() > math.MaxUint16 {
		err = errors.Join(err, errors.New("port"))
	}
	if x.near = nearness(m.GetSourceType()); m.GetSourceType() > listenerv3.FilterChainMatch_EXTERNAL || m.GetSourceType() < 0 {
		err = errors.Join(err, errors.New("source type"))
	}
	return x, err
}

func referencePrefix(r *corev3.CidrRange) (netip.Prefix, error) {
	ip, err := netip.ParseAddr(r.AddressPrefix)
	if err != nil {
		return netip.Prefix{}, err
	}
	return ip.WithZone("").Prefix(int(min(r.PrefixLen.GetValue(), 256)))
}

// sorted is how many connection managers and TCP proxies a chain has.
func sorted(m *listenerv3.FilterChain) (managers, proxies int, err error) {
	for _, f := range m.Filters {
		if f.Name == "" {
			err = errors.New("filter without name")
		}
		switch name, _ := extensionType(f.GetTypedConfig()); name {
		case nameOf(&hcmv3.HttpConnectionManager{}):
			managers++
		case nameOf(&tcpproxyv3.TcpProxy{}):
			proxies++
		}
	}
	return managers, proxies, err
}

func referenceOutbound(m *listenerv3.FilterChain, l *listener, fallback bool) (err error) {
	chain := outboundChain{name: m.Name}
	managers, proxies, err := sorted(m)
	if err != nil {
		return err
	}
	if chain.match, err = referenceChainMatch(m.FilterChainMatch, fallback); err != nil {
		return err
	}
	if managers+proxies != 1 {
		chain.failure = "nothing, or several, to end the chain"
	}
	for _, f := range m.Filters {
		name, readable := extensionType(f.GetTypedConfig())
		switch {
		case chain.failure != "":
		case name == nameOf(&hcmv3.HttpConnectionManager{}) && !readable, name == nameOf(&tcpproxyv3.TcpProxy{}) && !readable:
			chain.failure = "a TypedStruct"
		case name == nameOf(&hcmv3.HttpConnectionManager{}):
			manager, err := referenceManager(f.GetTypedConfig())
			if err != nil {
				return err
			}
			if manager.GetScopedRoutes() != nil {
				chain.failure = "scoped routes"
				continue
			}
			to, err := referenceForwarding(manager, false)
			if err != nil {
				return err
			}
			chain.http = &to
		case name == nameOf(&tcpproxyv3.TcpProxy{}):
			if chain.clusters, chain.total, err = referenceProxy(f.GetTypedConfig()); err != nil {
				return err
			}
		}
	}
	l.outbound = append(l.outbound, chain)
	return nil
}

func referenceProxy(a *anypb.Any) (clusters []weightedCluster, total uint32, err error) {
	m := &tcpproxyv3.TcpProxy{}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return nil, 0, err
	}
	if name := m.GetCluster(); name != "" {
		return []weightedCluster{{name: name, weight: 1}}, 1, nil
	}
	var sum uint64
	for _, c := range m.GetWeightedClusters().GetClusters() {
		if sum += uint64(c.Weight); c.Weight > 0 {
			clusters = append(clusters, weightedCluster{name: c.Name, weight: c.Weight})
		}
	}
	if sum > math.MaxUint32 {
		err = errors.New("weights")
	}
	return clusters, uint32(sum), err
}

func sameStream(source *corev3.ConfigSource) bool {
	return source.GetAds() != nil || source.GetSelf() != nil
}

// referenceManager holds an HttpConnectionManager to what gRFC A39 says of both sides.
func referenceManager(a *anypb.Any) (*hcmv3.HttpConnectionManager, error) {
	m := &hcmv3.HttpConnectionManager{}
	if name, readable := extensionType(a); name != nameOf(m) || !readable {
		return nil, fmt.Errorf("%s is no connection manager", name)
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return nil, err
	}
	for i, f := range m.HttpFilters {
		name, _ := extensionType(f.GetTypedConfig())
		if f.Name == "" || (name == nameOf(&routerv3.Router{})) != (i == len(m.HttpFilters)-1) {
			return nil, fmt.Errorf("filter %d, %q", i, f.Name)
		}
	}
	if len(m.HttpFilters) == 0 {
		return nil, errors.New("no filter")
	}
	return m, nil
}

func referenceInbound(m *listenerv3.FilterChain, l *listener, fallback bool) (err error) {
	chain := filterChain{name: m.Name}
	if chain.tls, err = referenceSocket(m.TransportSocket, &tlsv3.DownstreamTlsContext{}); err != nil {
		return err
	}
	managers, proxies, err := sorted(m)
	if err != nil {
		return err
	}
	if chain.match, err = referenceChainMatch(m.FilterChainMatch, fallback); err != nil {
		return err
	}
	if managers > 1 || managers == 0 && proxies != 1 {
		return fmt.Errorf("%d connection managers", managers)
	}
	for _, f := range m.Filters {
		name, readable := extensionType(f.GetTypedConfig())
		switch {
		case name == nameOf(&hcmv3.HttpConnectionManager{}):
			if err := referenceInboundHTTP(f.GetTypedConfig(), &chain); err != nil {
				return err
			}
		case name == nameOf(&networkrbacv3.RBAC{}):
			m := &networkrbacv3.RBAC{}
			if err := chain.judge(f.GetTypedConfig(), readable, m, func() bool { return m.Matcher != nil }, func() (a, b *rbacv3.RBAC) { return m.Rules, m.ShadowRules }); err != nil {
				return err
			}
		case name == nameOf(&tcpproxyv3.TcpProxy{}) && readable:
			clusters, _, err := referenceProxy(f.GetTypedConfig())
			if err != nil {
				return err
			}
			if len(clusters) > 0 {
				chain.tcp = clusters[0].name
			}
		case !referenceHarmless(f.GetTypedConfig()):
			chain.fail(&listenerFilter{name: firstOf(name, f.Name)})
		}
	}
	l.inbound = append(l.inbound, chain)
	return nil
}

func referenceInboundHTTP(a *anypb.Any, chain *filterChain) error {
	manager, err := referenceManager(a)
	if err != nil {
		return err
	}
	judges := map[string]bool{}
	for _, f := range manager.HttpFilters {
		name, readable := extensionType(f.GetTypedConfig())
		if name == nameOf(&httprbacv3.RBAC{}) || name != nameOf(&faultv3.HTTPFault{}) && !referenceHarmless(f.GetTypedConfig()) {
			judges[f.Name] = true
		}
		switch {
		case name == nameOf(&httprbacv3.RBAC{}):
			if f.Disabled {
				continue
			}
			m := &httprbacv3.RBAC{}
			if err := chain.judge(f.GetTypedConfig(), readable, m, func() bool { return m.Matcher != nil }, func() (a, b *rbacv3.RBAC) { return m.Rules, m.ShadowRules }); err != nil {
				return err
			}
		case name == nameOf(&jwtv3.JwtAuthentication{}) && readable:
			if f.Disabled {
				continue
			}
			filter, err := referenceJWT(f.GetTypedConfig())
			if err != nil {
				return err
			}
			chain.filters = append(chain.filters, inboundFilter{jwt: filter})
		case name != nameOf(&faultv3.HTTPFault{}) && !referenceHarmless(f.GetTypedConfig()):
			chain.fail(&listenerFilter{name: firstOf(name, f.Name)})
		}
	}
	if len(judges) > 0 && (manager.GetRds() != nil || manager.GetScopedRoutes() != nil || differByRoute(manager.GetRouteConfig(), judges)) {
		chain.fail(&listenerFilter{name: "of routes"})
	}
	return nil
}

// differByRoute says that routes say something about filters.
func differByRoute(m *routev3.RouteConfiguration, filters map[string]bool) bool {
	has := func(config map[string]*anypb.Any) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(config)), func(name string) bool { return filters[name] })
	}
	found := has(m.GetTypedPerFilterConfig())
	for _, h := range m.GetVirtualHosts() {
		found = found || has(h.TypedPerFilterConfig)
		for _, r := range h.Routes {
			found = found || has(r.TypedPerFilterConfig)
			for _, c := range r.GetRoute().GetWeightedClusters().GetClusters() {
				found = found || has(c.TypedPerFilterConfig)
			}
		}
	}
	return found
}

// judge notes an RBAC filter by what there is of it. What its rules say of calls
// is compared elsewhere.
func (c *filterChain) judge(a *anypb.Any, readable bool, m proto.Message, matcher func() bool, rules func() (enforced, shadow *rbacv3.RBAC)) error {
	if !readable || a == nil {
		c.fail(&listenerFilter{name: "unreadable"})
		return nil
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return err
	}
	if matcher() {
		c.fail(&listenerFilter{name: "matcher"})
		return nil
	}
	counts := func(m *rbacv3.RBAC) bool { return m != nil && (len(m.Policies) > 0 || m.Action == rbacv3.RBAC_ALLOW) }
	f := &accessFilter{}
	enforced, shadow := rules()
	if counts(enforced) {
		f.rules = &accessRules{}
	}
	if counts(shadow) {
		f.shadow = &accessRules{}
	}
	if f.rules != nil || f.shadow != nil {
		c.filters = append(c.filters, inboundFilter{access: f})
	}
	return nil
}

func firstOf(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func referenceDuration(m *durationpb.Duration) (time.Duration, error) {
	if m == nil {
		return 0, nil
	}
	if err := m.CheckValid(); err != nil || m.Seconds < 0 || m.Nanos < 0 {
		return 0, fmt.Errorf("duration %v", m)
	}
	return min(m.AsDuration(), math.MaxInt64), nil
}
