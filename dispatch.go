package proxyless

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The headers by which a Triple call chooses among the exports of an interface.
const (
	headerVersion = "tri-service-version"
	headerGroup   = "tri-service-group"
)

// listedExports bounds how many exports an error names.
const listedExports = 16

// judge asks whether a call may come in, as gate.judge does, and lets none in
// where no policy could be understood: there is no exemption for gRPC's own
// services.
func (x *exportSet) judge(ctx context.Context, method string) (context.Context, error) {
	own, err := x.gate.judge(ctx, method)
	if err == nil {
		err = x.gate.refused(cmp.Or(own, ctx), x.refuse, method)
	}
	return own, err
}

// choose finds the export that a call means by its headers. It runs once per
// call (twice for a stream whose exports differ in their ServiceDesc), takes no
// lock and allocates nothing unless it fails.
func (x *exportSet) choose(ctx context.Context) (*export, error) {
	if x.anyVersion {
		return x.exports[0], nil
	}
	md := incomingMetadata(ctx)
	want := exportKey{group: firstValue(md[headerGroup]), version: firstValue(md[headerVersion])}
	if e := x.byKey[want]; e != nil {
		return e, nil
	}
	if x.fallBack {
		return x.fallBackFor(want), nil
	}
	return nil, x.notExported(want)
}

// fallBackFor is Dubbo's answer to a version or group that is not exported: the
// default of the group, else the default of the interface, else the export that
// came first (as Dubbo 3.2; 3.1 takes the last).
func (x *exportSet) fallBackFor(want exportKey) *export {
	if e := x.byKey[exportKey{group: want.group}]; e != nil {
		return e
	}
	if e := x.byKey[exportKey{}]; e != nil {
		return e
	}
	return x.exports[0]
}

func (x *exportSet) notExported(want exportKey) error {
	var asked []string
	if want.version == "" {
		asked = append(asked, "no version")
	} else {
		asked = append(asked, "version "+strconv.Quote(want.version))
	}
	if want.group != "" {
		asked = append(asked, "group "+strconv.Quote(want.group))
	}
	return x.unimplemented("is not exported with "+strings.Join(asked, " and "), x.exports)
}

func (x *exportSet) unimplemented(reason string, exports []*export) error {
	names := make([]string, 0, listedExports)
	for _, e := range exports[:min(len(exports), listedExports)] {
		names = append(names, x.key(e))
	}
	if more := len(exports) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return &Error{
		Stage: StageProvider, Resource: x.name, Reason: reason,
		Advice: "ask for one that is exported here: " + strings.Join(names, ", "),
		Code:   codes.Unimplemented,
	}
}

// serveUnary is the grpc.MethodHandler of the union: it hands the call to the
// chosen export's own handler, which runs the interceptors.
func (m *exportMethod) serveUnary(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (reply any, err error) {
	defer func() {
		if value := recover(); value != nil {
			reply, err = nil, m.set.panicked(ctx, m.path, value)
		}
	}()
	if judged, err := m.set.judge(ctx, m.path); err != nil {
		return nil, err
	} else if judged != nil {
		ctx = judged
	}
	e, err := m.set.choose(ctx)
	if err != nil {
		return nil, err
	}
	handler := m.handler(e).unary
	if handler == nil {
		return nil, m.missing(e)
	}
	own, load := m.set.load.begin(ctx)
	reply, err = handler(e.impl, own, decode, interceptor)
	m.set.load.end(load, err, func(md metadata.MD) { grpc.SetTrailer(ctx, md) })
	return reply, err
}

// serveStream is the grpc.StreamHandler of the union. impl is the chosen
// export's already (Server.guardStream saw to that), or what an interceptor put
// in its place. Where exports have different handlers the choice is made again,
// since grpc passes no more than impl along.
func (m *exportMethod) serveStream(impl any, stream grpc.ServerStream) error {
	if impl == any(m.set) { // grpc runs no interceptors for a StreamDesc that streams neither way
		return m.set.serveChosen(stream, m.path, m.serveStream)
	}
	if m.set.uniform {
		return m.handlers[0].stream(impl, stream)
	}
	e, err := m.set.choose(stream.Context())
	if err != nil {
		return err
	}
	handler := m.handler(e).stream
	if handler == nil {
		return m.missing(e)
	}
	return handler(impl, stream)
}

// handler is what the export serves the method with; its fields are nil where
// the export does not have the method.
func (m *exportMethod) handler(e *export) methodHandler {
	if e.index >= len(m.handlers) {
		return methodHandler{}
	}
	return m.handlers[e.index]
}

func (m *exportMethod) missing(e *export) error {
	var having []*export
	for _, other := range m.set.exports {
		if h := m.handler(other); h.unary != nil || h.stream != nil {
			having = append(having, other)
		}
	}
	return m.set.unimplemented(fmt.Sprintf("has no method %s in %s", m.name, m.set.key(e)), having)
}

// serveChosen hands the stream to the handler with the implementation that it
// means, and turns a panic behind the handler into an error.
func (x *exportSet) serveChosen(stream grpc.ServerStream, method string, handler grpc.StreamHandler) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = x.panicked(stream.Context(), method, value)
		}
	}()
	judged, err := x.judge(stream.Context(), method)
	if err != nil {
		return err
	}
	stream = inContext(stream, judged)
	e, err := x.choose(stream.Context())
	if err != nil {
		return err
	}
	ctx, load := x.load.begin(stream.Context())
	if load != nil {
		stream = inContext(stream, ctx)
	}
	err = handler(e.impl, stream)
	x.load.end(load, err, stream.SetTrailer)
	return err
}

// guardStream is the first stream interceptor of the chain, so that those of
// the user see the real implementation and their panics are caught too. A
// grpc.StreamInterceptor among the server options runs before it, as grpc
// defines, and has neither; a grpc.ChainStreamInterceptor runs behind it.
func (s *Server) guardStream(impl any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	if set, ok := impl.(*exportSet); ok {
		return set.serveChosen(stream, info.FullMethod, handler)
	}
	// Load reports, the user's grpc.UnknownServiceHandler, or unknownMethod.
	defer func() {
		if value := recover(); value != nil {
			err = s.panicked(stream.Context(), info.FullMethod, value)
		}
	}()
	ctx, err := s.hooks.gate.judge(stream.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	if err := s.hooks.gate.refused(stream.Context(), s.hooks.refuse, info.FullMethod); err != nil {
		return err
	}
	return handler(impl, inContext(stream, ctx))
}

// unknownMethod answers calls of what is not registered, as grpc does, once the
// mesh has let them in: whom it does not let in learns nothing of what there is.
func (s *Server) unknownMethod(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	s.mu.Lock()
	set := s.sets[service]
	s.mu.Unlock()
	if set == nil {
		return status.Errorf(codes.Unimplemented, "unknown service %v", service)
	}
	return status.Errorf(codes.Unimplemented, "unknown method %v for service %v", name, service)
}

// panicked logs what a handler panicked with and makes the caller's error,
// which tells nothing of the inside.
func (s *Server) panicked(ctx context.Context, method string, value any) error {
	s.log.ErrorContext(ctx, "handler panicked", "method", method, "panic", value, "stack", string(debug.Stack()))
	return status.Errorf(codes.Internal, "proxyless: provider: the handler of %s panicked; the provider's log says where", method)
}

// inContext is a stream with a context of its own, where there is one.
func inContext(stream grpc.ServerStream, ctx context.Context) grpc.ServerStream {
	if ctx == nil {
		return stream
	}
	return reportStream{stream, ctx}
}

// incomingKey is the context key under which package metadata keeps what a call
// brought, found by letting that package look for it. The package's own readers
// copy: two allocations per header that is present, a scan of all headers for
// one that is absent. What is found under the key must only be read.
var incomingKey = func() any {
	var probe keyProbe
	metadata.FromIncomingContext(&probe)
	return probe.key
}()

type keyProbe struct {
	context.Context
	key any
}

func (p *keyProbe) Value(key any) any {
	p.key = key
	return nil
}

// incomingMetadata returns the metadata of the call, shared and read-only.
func incomingMetadata(ctx context.Context) metadata.MD {
	if md, ok := ctx.Value(incomingKey).(metadata.MD); ok {
		return md
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return md
}

func firstValue(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
