package proxyless

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// referenceOverrides takes what one level says of filters.
func referenceOverrides(filters map[string]*anypb.Any, p *routePolicy) (err error) {
	for _, name := range slices.Sorted(maps.Keys(filters)) {
		a := filters[name]
		kind, readable := extensionType(a)
		disabled := false
		if readable && kind == nameOf(&routev3.FilterConfig{}) {
			wrapper := &routev3.FilterConfig{}
			if err := proto.Unmarshal(a.GetValue(), wrapper); err != nil {
				return err
			}
			a, disabled = wrapper.Config, wrapper.Disabled
			kind, readable = extensionType(a)
		}
		switch {
		case disabled && (kind == nameOf(&faultv3.HTTPFault{}) || kind == "" && strings.Contains(name, "fault")):
			p.fault = &faultPolicy{}
		case disabled && (kind == nameOf(&sessionv3.StatefulSessionPerRoute{}) || kind == "" && strings.Contains(name, "stateful_session")):
			p.session = &sessionPolicy{}
		case disabled || !readable:
		case kind == nameOf(&faultv3.HTTPFault{}):
			fault, e := referenceFault(a)
			p.fault, err = fault, errors.Join(err, e)
		case kind == nameOf(&sessionv3.StatefulSessionPerRoute{}):
			m := &sessionv3.StatefulSessionPerRoute{}
			if e := proto.Unmarshal(a.GetValue(), m); e != nil {
				return e
			}
			if m.GetDisabled() {
				p.session = &sessionPolicy{}
			} else if m.GetStatefulSession() != nil {
				session, e := referenceSession(m.GetStatefulSession())
				p.session, err = session, errors.Join(err, e)
			}
		}
	}
	return err
}

func referenceShare(m *typev3.FractionalPercent, share, unit *uint32) error {
	*unit = map[typev3.FractionalPercent_DenominatorType]uint32{0: 10_000, 1: 100, 2: 1}[m.GetDenominator()]
	return referenceFraction(m, share)
}

func referenceFault(a *anypb.Any) (*faultPolicy, error) {
	m := &faultv3.HTTPFault{}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return nil, err
	}
	p := &faultPolicy{upstream: m.UpstreamCluster, nodes: m.DownstreamNodes, maxActive: m.MaxActiveFaults.GetValue(), limited: m.MaxActiveFaults != nil}
	var err error
	for _, h := range m.Headers {
		err = errors.Join(err, referenceHeaders(h, &p.headers))
	}
	if m.Delay != nil {
		err = errors.Join(err, referenceShare(m.Delay.Percentage, &p.delayShare, &p.delayUnit))
		switch s := m.Delay.FaultDelaySecifier.(type) {
		case *commonfaultv3.FaultDelay_FixedDelay:
			delay, e := referenceDuration(s.FixedDelay)
			p.delay, err = delay, errors.Join(err, e)
		case *commonfaultv3.FaultDelay_HeaderDelay_:
			p.headerDelay = true
		default:
			err = errors.Join(err, errors.New("no delay"))
		}
	}
	if m.Abort != nil {
		err = errors.Join(err, referenceShare(m.Abort.Percentage, &p.abortShare, &p.abortUnit))
		switch s := m.Abort.ErrorType.(type) {
		case *faultv3.FaultAbort_HttpStatus:
			if s.HttpStatus < 200 || s.HttpStatus > 599 {
				err = errors.Join(err, fmt.Errorf("status %d", s.HttpStatus))
			}
			p.hasAbort, p.abort = true, referenceCode(s.HttpStatus)
		case *faultv3.FaultAbort_GrpcStatus:
			if p.hasAbort, p.abort = true, codes.Code(s.GrpcStatus); s.GrpcStatus > 16 {
				p.abort = codes.Unknown
			}
		case *faultv3.FaultAbort_HeaderAbort_:
			p.headerAbort = true
		default:
			err = errors.Join(err, errors.New("no abort"))
		}
	}
	return p, err
}

func referenceCode(status uint32) codes.Code {
	if code, ok := map[uint32]codes.Code{400: codes.Internal, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.Unimplemented,
		429: codes.Unavailable, 502: codes.Unavailable, 503: codes.Unavailable, 504: codes.Unavailable}[status]; ok {
		return code
	}
	return codes.Unknown
}

func referenceSession(m *sessionv3.StatefulSession) (*sessionPolicy, error) {
	p := &sessionPolicy{strict: m.Strict}
	a := m.GetSessionState().GetTypedConfig()
	kind, readable := extensionType(a)
	if !readable {
		return p, nil
	}
	switch kind {
	case nameOf(&cookiev3.CookieBasedSessionState{}):
		state := &cookiev3.CookieBasedSessionState{}
		if err := proto.Unmarshal(a.GetValue(), state); err != nil {
			return nil, err
		}
		ttl, err := referenceDuration(state.GetCookie().GetTtl())
		p.cookie, p.path, p.ttl = state.GetCookie().GetName(), state.GetCookie().GetPath(), ttl
		if p.cookie == "" {
			err = errors.New("no cookie")
		}
		return p, err
	case nameOf(&headerv3.HeaderBasedSessionState{}):
		state := &headerv3.HeaderBasedSessionState{}
		if err := proto.Unmarshal(a.GetValue(), state); err != nil {
			return nil, err
		}
		if p.header = referenceName(state.Name); p.header == "" {
			return nil, errors.New("no header")
		}
	}
	return p, nil
}

// referenceAddress is an address of an IP with a port.
func referenceSocketAddress(m *corev3.Address) (host string, port uint32, ok bool, err error) {
	socket := m.GetSocketAddress()
	if socket == nil {
		return "", 0, false, nil
	}
	if port = socket.GetPortValue(); port > 65535 {
		return "", 0, false, fmt.Errorf("port %d", port)
	}
	return socket.Address, port, true, nil
}
