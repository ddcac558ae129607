package meshtest

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const typePrefix = "type.googleapis.com/"

// Type URLs of the four resource types of the state of the world protocol.
const (
	ListenerType              = typePrefix + "envoy.config.listener.v3.Listener"
	RouteConfigurationType    = typePrefix + "envoy.config.route.v3.RouteConfiguration"
	ClusterType               = typePrefix + "envoy.config.cluster.v3.Cluster"
	ClusterLoadAssignmentType = typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// ProxyConfigType is what Istio's agents ask for on their own account; see
// [ControlPlane.SetMeshRoots].
const ProxyConfigType = typePrefix + "istio.mesh.v1alpha1.ProxyConfig"

// The append functions write one protobuf field each. Scalars with their
// default value are left out, as proto3 does; messages are always written,
// since their presence means something.

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendStrings(b []byte, num protowire.Number, list []string) []byte {
	for _, s := range list {
		b = appendMember(b, num, s)
	}
	return b
}

// appendMember writes a string that must be present even when it is empty: a
// member of a oneof or of a repeated field.
func appendMember(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendMessage(b []byte, num protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), message)
}

func appendVarint(b []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
}

func appendBool(b []byte, num protowire.Number, v bool) []byte {
	return appendVarint(b, num, protowire.EncodeBool(v))
}

// appendPresentBool writes a bool that is a member of a oneof.
func appendPresentBool(b []byte, num protowire.Number, v bool) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), protowire.EncodeBool(v))
}

// appendWrapped writes a google.protobuf.UInt32Value, UInt64Value or BoolValue.
func appendWrapped(b []byte, num protowire.Number, v uint64) []byte {
	return appendMessage(b, num, appendVarint(nil, 1, v))
}

// appendDuration writes a google.protobuf.Duration.
func appendDuration(b []byte, num protowire.Number, d time.Duration) []byte {
	m := appendVarint(nil, 1, uint64(d/time.Second))
	m = appendVarint(m, 2, uint64(d%time.Second))
	return appendMessage(b, num, m)
}

// appendAny writes a google.protobuf.Any.
func appendAny(b []byte, num protowire.Number, typeURL string, value []byte) []byte {
	m := appendString(nil, 1, typeURL)
	if len(value) > 0 {
		m = appendMessage(m, 2, value)
	}
	return appendMessage(b, num, m)
}

// appendExtension writes a message whose name is field 1 and whose Any is field
// typed: TransportSocket, HttpFilter, network Filter and RetryHostPredicate.
func appendExtension(b []byte, num, typed protowire.Number, name, typeURL string, value []byte) []byte {
	m := appendString(nil, 1, name)
	m = appendAny(m, typed, typeURL, value)
	return appendMessage(b, num, m)
}

// appendTextStruct writes one entry of Metadata.filter_metadata whose Struct
// has a single field with a string value.
func appendTextStruct(b []byte, filter, key, value string) []byte {
	field := appendString(nil, 1, key)
	field = appendMessage(field, 2, appendMember(nil, 3, value))
	entry := appendString(nil, 1, filter)
	entry = appendMessage(entry, 2, appendMessage(nil, 1, field))
	return appendMessage(b, 1, entry)
}

// appendField writes one field of a google.protobuf.Struct; value is a
// google.protobuf.Value.
func appendField(b []byte, key string, value []byte) []byte {
	return appendMessage(b, 1, appendMessage(appendString(nil, 1, key), 2, value))
}

// sidecarSource is adsSource as istiod writes it to a sidecar.
func sidecarSource() []byte {
	b := appendMessage(nil, 3, nil)
	b = appendDuration(b, 4, 0)
	return appendVarint(b, 6, v3)
}

// adsSource is a ConfigSource that says: over this very stream.
func adsSource() []byte { return appendMessage(nil, 3, nil) }
