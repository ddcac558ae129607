package proxyless

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// bases are where exploring starts: resources that say as little as they may.
var bases = [kindCount][]proto.Message{
	kindListener: {parse(&listenerv3.Listener{}, `name: "a:80" api_listener { api_listener { [type.googleapis.com/`+managerType+`] {
		rds { route_config_name: "r" config_source { ads {} } }
		http_filters { name: "router" typed_config { [type.googleapis.com/envoy.extensions.filters.http.router.v3.Router] {} } } } } }`),
		parse(&listenerv3.Listener{}, `name: "out" traffic_direction: OUTBOUND address { socket_address { address: "10.0.0.9" port_value: 80 } } filter_chains { `+managerChain+` }`),
		parse(&listenerv3.Listener{}, `name: "in" filter_chains { filters { name: "m" typed_config { [type.googleapis.com/`+managerType+`] {
		route_config { name: "inbound" }
		http_filters { name: "router" typed_config { [type.googleapis.com/envoy.extensions.filters.http.router.v3.Router] {} } } } } } }`)},
	kindRoute:   {parse(&routev3.RouteConfiguration{}, `name: "r" virtual_hosts { name: "v" domains: "a" routes { match { prefix: "/p" } route { cluster: "c" } } }`)},
	kindCluster: {parse(&clusterv3.Cluster{}, `name: "c" type: EDS eds_cluster_config { eds_config { ads {} } }`)},
	kindEndpoints: {parse(&endpointv3.ClusterLoadAssignment{}, `cluster_name: "c" endpoints { locality { region: "r" } load_balancing_weight { value: 3 } lb_endpoints {
		endpoint { address { socket_address { address: "10.0.0.1" port_value: 80 } } } } }
		endpoints { locality { region: "s" } load_balancing_weight { value: 3 } lb_endpoints { endpoint { address { socket_address { address: "10.0.0.2" port_value: 80 } } } } }`)},
}

const managerType = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"

func parse[M proto.Message](m M, text string) M {
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		panic(fmt.Sprintf("%v in %s", err, text))
	}
	return m
}

func marshal(m proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return raw
}

// outcome is what the decoder makes of a resource.
type result struct {
	value any
	notes []string
	err   string
}

func decodeMessage(k kind, m proto.Message) result {
	got, err := decodeResource(k, marshal(m))
	if err != nil {
		return result{err: err.Error()}
	}
	return result{value: got.value, notes: got.ignored}
}

// finding is what altering one field of a message type did, wherever it was.
type finding struct {
	field protoreflect.FieldDescriptor
	value bool // what is kept changed, or it was refused
	noted bool // the notes changed
}

// explorer alters every field of every message that it can get at, starting
// from the bases, and goes into what it added.
type explorer struct {
	t        *testing.T
	kind     kind
	server   bool // the base is a server's listener, whose filters count as wholes
	found    map[protoreflect.FullName]*finding
	messages []protoreflect.MessageDescriptor // gone into, in the order of the first time
	decodes  int
}

// step leads from a message to one inside it: the first element of a list, the
// only entry of a map.
type step struct {
	field protoreflect.FieldDescriptor
}

func explore(t *testing.T) *explorer {
	x := &explorer{t: t, found: map[protoreflect.FullName]*finding{}}
	for k, starts := range bases {
		x.kind = kind(k)
		for _, start := range starts {
			if r := decodeMessage(x.kind, start); r.err != "" {
				t.Fatalf("a base is refused: %s", r.err)
			}
			l, ok := start.(*listenerv3.Listener)
			x.server = ok && l.Name == "in"
			x.message(start, nil, 0)
		}
	}
	return x
}

// message alters the message that a path leads to, and says whether any of it
// counts. blind is for how many messages on the way nothing was noticed.
func (x *explorer) message(root proto.Message, path []step, blind int) (counts bool) {
	m := at(root.ProtoReflect(), path)
	d := m.Descriptor()
	if !slices.Contains(x.messages, d) {
		x.messages = append(x.messages, d)
	}
	for i := range d.Fields().Len() {
		counts = x.field(root, path, m, d.Fields().Get(i), blind) || counts
	}
	return counts
}

// mostBlind is how deep to look for what counts where nothing did.
const mostBlind = 2

func (x *explorer) field(root proto.Message, path []step, m protoreflect.Message, f protoreflect.FieldDescriptor, blind int) (counts bool) {
	found := x.found[f.FullName()]
	if found == nil {
		found = &finding{field: f}
		x.found[f.FullName()] = found
	}
	for _, variant := range x.variants(m, f) {
		before := alter(root, path, variant.beside)
		after := alter(before, path, variant.set)
		b, a := decodeMessage(x.kind, before), decodeMessage(x.kind, after)
		x.decodes += 2
		if b.err != "" {
			x.t.Fatalf("%s: refused without it: %s", f.FullName(), b.err)
		}
		noticed := a.err != "" || !reflect.DeepEqual(a.value, b.value)
		found.noted = found.noted || !slices.Equal(a.notes, b.notes)
		counts = counts || noticed
		if !x.server && blind == 0 && variant.foreign && !noticed && slices.Equal(a.notes, b.notes) && !proto.Equal(before, after) {
			x.t.Errorf("%s: an extension of an unknown type is passed over in silence", f.FullName())
		}
		if a.err != "" || variant.clears || !x.enters(f, path) {
			continue
		}
		deeper := 0
		if !noticed {
			deeper = blind + 1
		}
		if deeper <= mostBlind {
			counts = x.message(after, append(slices.Clone(path), step{f}), deeper) || counts
		}
	}
	if m.Has(f) && x.enters(f, path) { // as it is, too
		counts = x.message(root, append(slices.Clone(path), step{f}), blind) || counts
	}
	found.value = found.value || counts
	return counts
}

// enters says whether to go into a field: not into what is one value as a
// whole, not into what is never read, and not round in circles.
func (x *explorer) enters(f protoreflect.FieldDescriptor, path []step) bool {
	inside := f.Message()
	if f.IsMap() {
		inside = f.MapValue().Message()
	}
	if inside == nil || isWhole(inside) && inside.FullName() != "google.protobuf.Any" || slices.Contains(neutral, string(f.FullName())) || slices.Contains(closed, string(f.FullName())) {
		return false
	}
	for _, s := range path {
		if s.field == f {
			return false
		}
	}
	return true
}

// at goes down a path; what is inside an Any is made anew, and is for looking
// only.
func at(m protoreflect.Message, path []step) protoreflect.Message {
	m, _ = unpacked(m)
	for _, s := range path {
		v := m.Get(s.field)
		switch {
		case s.field.IsList():
			m = v.List().Get(0).Message()
		case s.field.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { m = v.Message(); return false })
		default:
			m = v.Message()
		}
		m, _ = unpacked(m)
	}
	return m
}

// unpacked is what is inside an Any of a known type, or the message itself.
func unpacked(m protoreflect.Message) (protoreflect.Message, bool) {
	packed, ok := m.Interface().(*anypb.Any)
	if !ok {
		return m, false
	}
	inner, err := packed.UnmarshalNew()
	if err != nil {
		return m, false
	}
	return inner.ProtoReflect(), true
}

// alter copies a resource and changes the message that a path leads to.
func alter(root proto.Message, path []step, change func(protoreflect.Message)) proto.Message {
	root = proto.Clone(root)
	if change != nil {
		alterIn(root.ProtoReflect(), path, change)
	}
	return root
}

func alterIn(m protoreflect.Message, path []step, change func(protoreflect.Message)) {
	inner, packed := unpacked(m)
	if len(path) == 0 {
		change(inner)
	} else {
		s, v := path[0], inner.Mutable(path[0].field)
		switch {
		case s.field.IsList():
			alterIn(v.List().Get(0).Message(), path[1:], change)
		case s.field.IsMap():
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				alterIn(v.Message(), path[1:], change)
				return false
			})
		default:
			alterIn(v.Message(), path[1:], change)
		}
	}
	if packed {
		m.Interface().(*anypb.Any).Value = marshal(inner.Interface())
	}
}

// variant is one way to set a field, and what has to be set beside it for it to
// mean something.
type variant struct {
	beside, set func(protoreflect.Message)
	clears      bool
	foreign     bool // an extension of a type that no decoder knows
}

// variants are the ways to alter a field that are tried.
func (x *explorer) variants(m protoreflect.Message, f protoreflect.FieldDescriptor) []variant {
	var all []variant
	if m.Has(f) {
		all = append(all, variant{set: func(m protoreflect.Message) { m.Clear(f) }, clears: true})
	}
	for _, text := range samplesOf(f) {
		all = append(all, variant{beside: merge(m, beside[string(f.FullName())]), set: merge(m, text), foreign: strings.Contains(text, foreignType)})
	}
	return all
}

// merge sets the fields of a fragment; lists are replaced.
func merge(into protoreflect.Message, text string) func(protoreflect.Message) {
	if text == "" {
		return nil
	}
	fragment := parse(into.New().Interface(), text).ProtoReflect()
	return func(m protoreflect.Message) {
		fragment.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if f.IsList() {
				m.Clear(f)
			}
			return true
		})
		proto.Merge(m.Interface(), fragment.Interface())
	}
}

// foreignType is a type of extension that nothing is made of.
const foreignType = "envoy.config.core.v3.Pipe"

// samplesOf are texts that set a field.
func samplesOf(f protoreflect.FieldDescriptor) []string {
	if texts := special[string(f.FullName())]; texts != nil {
		return texts
	}
	inside := f.Message()
	var values []string
	switch {
	case f.IsMap():
		return nil
	case inside != nil && whole[string(inside.FullName())] != nil:
		values = whole[string(inside.FullName())]
	case inside != nil:
		values = append([]string{filler[string(inside.FullName())]}, also[string(inside.FullName())]...)
	default:
		values = scalars(f)
	}
	texts := make([]string, len(values))
	for i, value := range values {
		if inside != nil {
			value = "{ " + value + " }"
		}
		texts[i] = string(f.Name()) + ": " + value
	}
	return texts
}

func scalars(f protoreflect.FieldDescriptor) []string {
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return []string{`"x"`, `"y, z"`}
	case protoreflect.BoolKind:
		return []string{"true"}
	case protoreflect.EnumKind:
		var all []string
		for i := range f.Enum().Values().Len() {
			all = append(all, string(f.Enum().Values().Get(i).Name()))
		}
		return all
	}
	return []string{"1", "3", "200"}
}

func isWhole(d protoreflect.MessageDescriptor) bool { return whole[string(d.FullName())] != nil }
