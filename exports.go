package proxyless

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc"
)

// omittedVersion is the version that Dubbo Java 3.1 consumers mean when they
// send no version header.
const omittedVersion = "1.0.0"

// infrastructure are gRPC's own services. They have no versions and are no
// exports to the mesh.
var infrastructure = map[string]bool{
	"grpc.health.v1.Health":                    true,
	orcaService:                                true,
	"grpc.reflection.v1.ServerReflection":      true,
	"grpc.reflection.v1alpha.ServerReflection": true,
}

// exportSet is every export of one interface. grpc knows one ServiceDesc per
// interface; the set makes that one out of all of them and finds the export
// that a call means. It is built by Server under its lock, sealed by Serve, and
// read without a lock from then on.
type exportSet struct {
	exports []*export
	methods map[string]*exportMethod // the union over the exports

	// Constant from the start.
	name       string                 // the interface
	fallBack   bool                   // Config.FallbackToDefault
	anyVersion bool                   // infrastructure
	gate       *gate                  // serverHooks.gate, or nil
	refuse     *atomic.Pointer[Error] // serverHooks.refuse, or nil
	load       *providerLoad          // what is reported of the load, or nil
	panicked   func(ctx context.Context, method string, value any) error

	// Set by seal.
	byKey   map[exportKey]*export // with what a missing version or group stands for
	uniform bool                  // every export has the same ServiceDesc
}

// export is one implementation of an interface under a version and a group.
type export struct {
	key   exportKey
	desc  *grpc.ServiceDesc
	impl  any
	index int // in exportSet.exports and the handlers of exportMethod
}

// exportKey tells the exports of one interface apart.
type exportKey struct{ group, version string }

// serviceKey is Dubbo's name of an interface in a group and a version:
// [group/]interface[:version].
func serviceKey(group, name, version string) string {
	if group != "" {
		name = group + "/" + name
	}
	if version != "" {
		name += ":" + version
	}
	return name
}

// exportMethod is one method of the union, with the handlers of the exports
// that have it.
type exportMethod struct {
	set      *exportSet
	name     string
	path     string // of calls
	shape    methodShape
	handlers []methodHandler // by export.index; may be shorter
}

// methodShape is what all exports of a method must agree on, since the path of
// a call tells grpc how to read it before any header is looked at.
type methodShape struct {
	streams                      bool // a StreamDesc, not a MethodDesc
	clientStreams, serverStreams bool
}

// methodHandler is one export's handler of a method: unary or stream, after its
// shape.
type methodHandler struct {
	shape  methodShape
	unary  grpc.MethodHandler
	stream grpc.StreamHandler
}

// newExport checks an implementation as grpc does, but panics where grpc ends
// the process.
func newExport(key exportKey, desc *grpc.ServiceDesc, impl any) *export {
	if impl != nil && desc.HandlerType != nil {
		want, have := reflect.TypeOf(desc.HandlerType).Elem(), reflect.TypeOf(impl)
		if !have.Implements(want) {
			panic(fmt.Sprintf("proxyless: RegisterService: %v does not implement %v of %s", have, want, desc.ServiceName))
		}
	}
	return &export{key: key, desc: desc, impl: impl}
}

// add takes in one more export. It panics, and leaves the set as it was, where
// the version and group are taken or a method has another shape than before.
func (x *exportSet) add(e *export) {
	for _, other := range x.exports {
		if other.key == e.key {
			panic("proxyless: RegisterService: " + x.key(e) + " is exported already")
		}
	}
	methods := methodsOf(e.desc)
	for name, handler := range methods {
		if known := x.methods[name]; known != nil && known.shape != handler.shape {
			panic(fmt.Sprintf("proxyless: RegisterService: /%s/%s is %s in one export and %s in another; a method has one shape in all versions",
				x.name, name, known.shape, handler.shape))
		}
	}
	e.index = len(x.exports)
	x.exports = append(x.exports, e)
	for name, handler := range methods {
		m := x.methods[name]
		if m == nil {
			m = &exportMethod{set: x, name: name, path: "/" + x.name + "/" + name, shape: handler.shape}
			x.methods[name] = m
		}
		m.handlers = append(m.handlers, make([]methodHandler, e.index+1-len(m.handlers))...)
		m.handlers[e.index] = handler
	}
}

// methodsOf lists the methods by name. Of two with one name the unary one
// counts, as in grpc.
func methodsOf(desc *grpc.ServiceDesc) map[string]methodHandler {
	methods := make(map[string]methodHandler, len(desc.Methods)+len(desc.Streams))
	for _, d := range desc.Streams {
		shape := methodShape{streams: true, clientStreams: d.ClientStreams, serverStreams: d.ServerStreams}
		methods[d.StreamName] = methodHandler{shape: shape, stream: d.Handler}
	}
	for _, d := range desc.Methods {
		methods[d.MethodName] = methodHandler{unary: d.Handler}
	}
	return methods
}

func (s methodShape) String() string {
	switch {
	case s.clientStreams && s.serverStreams:
		return "a bidirectional stream"
	case s.clientStreams:
		return "a client stream"
	case s.serverStreams:
		return "a server stream"
	}
	return "unary"
}

// seal fills in what a call without a version, or without version and group,
// stands for, in this order: the unversioned export, version 1.0.0 (which Dubbo
// Java 3.1 leaves unsaid), the only export of the group; and for a call with
// neither header at last the only export there is.
func (x *exportSet) seal() {
	x.byKey = make(map[exportKey]*export, 2*len(x.exports))
	inGroup := make(map[string]int)
	x.uniform = true
	for _, e := range x.exports {
		x.byKey[e.key] = e
		inGroup[e.key.group]++
		x.uniform = x.uniform && e.desc == x.exports[0].desc
	}
	for _, e := range x.exports {
		unsaid := exportKey{group: e.key.group}
		if x.byKey[unsaid] == nil && (e.key.version == omittedVersion || inGroup[e.key.group] == 1) {
			x.byKey[unsaid] = e
		}
	}
	if x.byKey[exportKey{}] == nil && len(x.exports) == 1 {
		x.byKey[exportKey{}] = x.exports[0]
	}
}

// desc is the one ServiceDesc that stands for all exports. The set itself is
// the implementation to register with it.
func (x *exportSet) desc() *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: x.name, HandlerType: (*any)(nil), Metadata: x.exports[0].desc.Metadata}
	for _, m := range x.sortedMethods() {
		if !m.shape.streams {
			desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: m.name, Handler: m.serveUnary})
			continue
		}
		desc.Streams = append(desc.Streams, grpc.StreamDesc{
			StreamName: m.name, Handler: m.serveStream,
			ClientStreams: m.shape.clientStreams, ServerStreams: m.shape.serverStreams,
		})
	}
	return desc
}

// info describes the union as grpc.Server.GetServiceInfo does.
func (x *exportSet) info() grpc.ServiceInfo {
	info := grpc.ServiceInfo{Metadata: x.exports[0].desc.Metadata}
	for _, m := range x.sortedMethods() {
		info.Methods = append(info.Methods, grpc.MethodInfo{
			Name: m.name, IsClientStream: m.shape.clientStreams, IsServerStream: m.shape.serverStreams,
		})
	}
	return info
}

func (x *exportSet) sortedMethods() []*exportMethod {
	return slices.SortedFunc(maps.Values(x.methods), func(a, b *exportMethod) int { return cmp.Compare(a.name, b.name) })
}

func (x *exportSet) key(e *export) string { return serviceKey(e.key.group, x.name, e.key.version) }
