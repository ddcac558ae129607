package proxyless

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
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
	if err := proto.Unmarshal(a.Value, inside.(proto.Message)); err != nil {
		panic(err)
	}
	return afterSlash(inside.GetTypeUrl()), false
}

func afterSlash(url string) string { return url[strings.LastIndex(url, "/")+1:] }

func referenceListener(m *listenerv3.Listener) (*listener, error) {
	l := &listener{name: m.Name}
	if m.Name == "" {
		return nil, errors.New("no name")
	}
	if m.ApiListener != nil {
		return l, referenceClient(m.ApiListener.ApiListener, l)
	}
	chains := m.FilterChains
	if m.DefaultFilterChain != nil {
		chains = append(chains[:len(chains):len(chains)], m.DefaultFilterChain)
	}
	if len(chains) == 0 {
		return nil, errors.New("neither api_listener nor filter chains")
	}
	for _, c := range chains {
		chain, err := referenceChain(c)
		if err != nil {
			return nil, err
		}
		l.inbound = append(l.inbound, chain)
	}
	return l, nil
}

func referenceClient(a *anypb.Any, l *listener) (err error) {
	m, err := referenceManager(a)
	if err != nil {
		return err
	}
	switch specifier := m.RouteSpecifier.(type) {
	case *hcmv3.HttpConnectionManager_Rds:
		l.routeName = specifier.Rds.GetRouteConfigName()
		if l.routeName == "" || !sameStream(specifier.Rds.ConfigSource) {
			return errors.New("rds")
		}
	case *hcmv3.HttpConnectionManager_RouteConfig:
		if l.inline, err = referenceRouteConfig(specifier.RouteConfig); err != nil {
			return err
		}
	default:
		return errors.New("no routes")
	}
	for _, f := range m.HttpFilters {
		name, _ := extensionType(f.GetTypedConfig())
		switch name {
		case nameOf(&routerv3.Router{}), nameOf(&faultv3.HTTPFault{}), nameOf(&sessionv3.StatefulSession{}):
		default:
			if !f.IsOptional {
				return fmt.Errorf("unknown filter %s", name)
			}
		}
	}
	l.maxStreamDuration, err = referenceDuration(m.GetCommonHttpProtocolOptions().GetMaxStreamDuration())
	return err
}

func sameStream(source *corev3.ConfigSource) bool {
	return source.GetAds() != nil || source.GetSelf() != nil
}

// referenceManager holds an HttpConnectionManager to what gRFC A39 and A41 say.
func referenceManager(a *anypb.Any) (*hcmv3.HttpConnectionManager, error) {
	m := &hcmv3.HttpConnectionManager{}
	if name, readable := extensionType(a); name != nameOf(m) || !readable {
		return nil, fmt.Errorf("%s is no connection manager", name)
	}
	if err := proto.Unmarshal(a.Value, m); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for i, f := range m.HttpFilters {
		name, _ := extensionType(f.GetTypedConfig())
		if f.Name == "" || names[f.Name] || (name == nameOf(&routerv3.Router{})) != (i == len(m.HttpFilters)-1) {
			return nil, fmt.Errorf("filter %d, %q", i, f.Name)
		}
		names[f.Name] = true
	}
	if len(names) == 0 || m.XffNumTrustedHops != 0 || len(m.OriginalIpDetectionExtensions) > 0 {
		return nil, errors.New("no filter, or the peer's address from elsewhere")
	}
	return m, nil
}

func referenceChain(m *listenerv3.FilterChain) (filterChain, error) {
	plain, _ := referenceSocket(m.TransportSocket)
	chain := filterChain{name: m.Name, tls: !plain}
	managers := 0
	for _, f := range m.Filters {
		if f.Name == "" {
			return chain, errors.New("filter without name")
		}
		name, _ := extensionType(f.GetTypedConfig())
		if name != nameOf(&hcmv3.HttpConnectionManager{}) {
			chain.filters = append(chain.filters, either(name, f.Name))
			continue
		}
		managers++
		manager, err := referenceManager(f.GetTypedConfig())
		if err != nil {
			return chain, err
		}
		for _, f := range manager.HttpFilters {
			name, _ := extensionType(f.GetTypedConfig())
			if name != nameOf(&routerv3.Router{}) && name != nameOf(&faultv3.HTTPFault{}) {
				chain.filters = append(chain.filters, either(name, f.Name))
			}
		}
	}
	if managers != 1 {
		return chain, fmt.Errorf("%d connection managers", managers)
	}
	return chain, nil
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
