package interop

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	_ "github.com/cncf/xds/go/udpa/type/v1"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// unpacked writes a response with everything in it unpacked and without what
// changes from run to run: version, nonce and the order of resources. blank is
// an empty message of the response's type.
func unpacked(t testing.TB, raw []byte, blank proto.Message) string {
	t.Helper()
	response := proto.Clone(blank)
	must(t, proto.Unmarshal(raw, response))
	switch r := response.(type) {
	case *discoveryv3.DiscoveryResponse:
		r.VersionInfo, r.Nonce = "", ""
		slices.SortFunc(r.Resources, func(a, b *anypb.Any) int { return bytes.Compare(a.Value, b.Value) })
	case *discoveryv3.DeltaDiscoveryResponse:
		r.SystemVersionInfo, r.Nonce = "", ""
		slices.SortFunc(r.Resources, func(a, b *discoveryv3.Resource) int { return strings.Compare(a.Name, b.Name) })
	}
	nameUnknown(response.ProtoReflect())
	text, err := protojson.Marshal(response)
	must(t, err)
	var indented bytes.Buffer
	must(t, json.Indent(&indented, text, "", " "))
	return indented.String()
}

// nameUnknown puts what has no order in order, and replaces what is packed in a message and of a type that this
// program does not have, as Istio's own filters are, by its name and bytes.
func nameUnknown(m protoreflect.Message) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		nameUnknownIn(packed)
		return
	}
	if match, ok := m.Interface().(*routev3.RouteMatch); ok { // istiod's order is a map's
		slices.SortFunc(match.QueryParameters, func(a, b *routev3.QueryParameterMatcher) int { return strings.Compare(a.Name, b.Name) })
	}
	if locality, ok := m.Interface().(*endpointv3.LocalityLbEndpoints); ok { // that in which Kubernetes came to know the pods
		slices.SortFunc(locality.LbEndpoints, func(a, b *endpointv3.LbEndpoint) int {
			return strings.Compare(a.GetEndpoint().GetAddress().GetSocketAddress().GetAddress(), b.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
		})
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap() && field.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, value protoreflect.Value) bool {
				nameUnknown(value.Message())
				return true
			})
		case field.IsList() && field.Message() != nil:
			for i := range v.List().Len() {
				nameUnknown(v.List().Get(i).Message())
			}
		case !field.IsMap() && !field.IsList() && field.Message() != nil:
			nameUnknown(v.Message())
		}
		return true
	})
}

func nameUnknownIn(packed *anypb.Any) {
	if packed.TypeUrl == "" {
		return
	}
	known, err := protoregistry.GlobalTypes.FindMessageByURL(packed.TypeUrl)
	if err != nil {
		packed.MarshalFrom(wrapperspb.String(packed.TypeUrl + " " + hex.EncodeToString(packed.Value)))
		return
	}
	inner := known.New()
	if proto.Unmarshal(packed.Value, inner.Interface()) == nil {
		nameUnknown(inner)
		packed.MarshalFrom(inner.Interface())
	}
}

// firstDifference shows where two texts part, with the lines around.
func firstDifference(was, is string) string {
	a, b := strings.Split(was, "\n"), strings.Split(is, "\n")
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	around := func(lines []string) string { return strings.Join(lines[max(0, at-8):min(len(lines), at+8)], "\n") }
	return fmt.Sprintf("line %d\nkept:\n%s\ntoday:\n%s", at+1, around(a), around(b))
}
