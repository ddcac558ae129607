package proxyless

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

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
		return l, chain(m.DefaultFilterChain, l, true)
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
		ip, e := netip.ParseAddr(r.AddressPrefix)
		if e != nil {
			return x, e
		}
		p, e := ip.WithZone("").Prefix(int(min(r.PrefixLen.GetValue(), 256)))
		x.prefixes, err = append(x.prefixes, p), errors.Join(err, e)
	}
	x.source = len(m.GetSourcePrefixRanges())+len(m.GetSourcePorts())+len(m.GetDirectSourcePrefixRanges()) > 0 || m.GetSourceType() != 0
	return x, err
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
	plain, _ := referenceSocket(m.TransportSocket)
	chain := filterChain{name: m.Name}
	if !plain {
		chain.tls = &tlsContext{failure: "TLS contexts are not read yet"}
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
			manager, err := referenceManager(f.GetTypedConfig())
			if err != nil {
				return err
			}
			for _, f := range manager.HttpFilters {
				name, _ := extensionType(f.GetTypedConfig())
				if name != nameOf(&faultv3.HTTPFault{}) && !referenceHarmless(f.GetTypedConfig()) {
					chain.fail(&listenerFilter{name: either(name, f.Name)})
				}
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
			chain.fail(&listenerFilter{name: either(name, f.Name)})
		}
	}
	l.inbound = append(l.inbound, chain)
	return nil
}

func either(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// referenceSocket says whether a transport socket sends plain text, and if not,
// what it is.
func referenceSocket(m *corev3.TransportSocket) (plain bool, name string) {
	if m == nil {
		return true, ""
	}
	if name, _ = extensionType(m.GetTypedConfig()); name == "" {
		return m.Name == "envoy.transport_sockets.raw_buffer", m.Name
	}
	return name == nameOf(&rawbufferv3.RawBuffer{}), name
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
