package proxyless

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

// What the control plane is told about this client besides the node's identity.
const (
	userAgentName    = "proxyless"
	userAgentVersion = "0.1.0"
)

// adsRequest is an envoy.service.discovery.v3.DiscoveryRequest, or a
// DeltaDiscoveryRequest.
type adsRequest struct {
	node    *nodeMessage // in the first request of a stream only
	kind    kind
	typeURL string // in the place of the kind's, of a type that is none; empty for none
	nonce   string // of the response that is answered; empty at first
	nack    string // why the response was rejected; empty for ACK

	// State of the world.
	version string   // last accepted version of the kind
	names   []string // everything that is wanted of the kind

	// Delta.
	delta                  bool
	subscribe, unsubscribe []string           // what changed about the names wanted
	retained               []retainedResource // in the first request of a kind: what is held
}

// retainedResource is a resource that is held from an earlier stream, with the
// version of its own, which istiod gives to none.
type retainedResource struct{ name, version string }

// append encodes the request after b.
func (r *adsRequest) append(b []byte) []byte {
	if r.delta {
		return r.appendDelta(b)
	}
	b = appendText(b, 1, r.version)
	if r.node != nil {
		b = appendMessage(b, 2, appendNode(nil, r.node))
	}
	for _, name := range r.names {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendString(b, name)
	}
	b = appendText(b, 4, cmp.Or(r.typeURL, r.kind.typeURL()))
	b = appendText(b, 5, r.nonce)
	if r.nack != "" {
		b = appendMessage(b, 6, appendStatus(nil, codes.InvalidArgument, r.nack))
	}
	return b
}

// appendStatus encodes a google.rpc.Status after b.
func appendStatus(b []byte, code codes.Code, message string) []byte {
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(code))
	return appendText(b, 2, message)
}

// appendNode encodes an envoy.config.core.v3.Node after b. The same node gives
// the same bytes: the metadata's keys are sorted.
func appendNode(b []byte, n *nodeMessage) []byte {
	b = appendText(b, 1, n.id)
	b = appendText(b, 2, n.cluster)
	if len(n.metadata) > 0 {
		b = appendMessage(b, 3, appendStruct(nil, n.metadata, maxMetadataDepth))
	}
	if n.region != "" || n.zone != "" || n.subZone != "" {
		locality := appendText(nil, 1, n.region)
		locality = appendText(locality, 2, n.zone)
		b = appendMessage(b, 4, appendText(locality, 3, n.subZone))
	}
	b = appendText(b, 6, userAgentName)
	return appendText(b, 7, userAgentVersion)
}

// maxMetadataDepth bounds node metadata, which users may set to a map that
// contains itself.
const maxMetadataDepth = 32

// appendStruct encodes a google.protobuf.Struct after b.
func appendStruct(b []byte, fields map[string]any, depth int) []byte {
	keys := make([]string, 0, len(fields))
	for key := range fields {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		entry := appendText(nil, 1, key)
		entry = appendMessage(entry, 2, appendValue(nil, fields[key], depth))
		b = appendMessage(b, 1, entry)
	}
	return b
}

// appendValue encodes a google.protobuf.Value after b. A type without a
// counterpart is sent as the text that fmt prints, and what is nested deeper
// than depth as null.
func appendValue(b []byte, value any, depth int) []byte {
	if depth == 0 {
		value = nil
	}
	switch v := value.(type) {
	case nil:
		return appendNumber(b, 1, 0)
	case float64:
		b = protowire.AppendTag(b, 2, protowire.Fixed64Type)
		return protowire.AppendFixed64(b, math.Float64bits(v))
	case string:
		return appendMessage(b, 3, []byte(strings.ToValidUTF8(v, "\uFFFD")))
	case bool:
		return appendNumber(b, 4, protowire.EncodeBool(v))
	case map[string]any:
		return appendMessage(b, 5, appendStruct(nil, v, depth-1))
	case []any:
		var list []byte
		for _, element := range v {
			list = appendMessage(list, 1, appendValue(nil, element, depth-1))
		}
		return appendMessage(b, 6, list)
	}
	return appendValue(b, fmt.Sprint(value), depth)
}

func appendNumber(b []byte, num protowire.Number, v uint64) []byte {
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func appendMessage(b []byte, num protowire.Number, message []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, message)
}

// appendText leaves out an empty string, as proto3 does, and repairs one that
// is not UTF-8, since the control plane would end the stream over it.
func appendText(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, strings.ToValidUTF8(s, "\uFFFD"))
}

// adsResponse is an envoy.service.discovery.v3.DiscoveryResponse, or a
// DeltaDiscoveryResponse.
type adsResponse struct {
	version   string
	nonce     string
	typeURL   string
	resources []rawResource
	removed   []string // delta only
}

// rawResource is one resource of a response, not yet decoded.
type rawResource struct {
	typeURL string
	name    string // from an envoy.service.discovery.v3.Resource around it; empty where there was none
	version string // likewise
	value   []byte // aliases the response
}

const wrapperType = "envoy.service.discovery.v3.Resource"

// decodeADSResponse reads the envelope of an
// envoy.service.discovery.v3.DiscoveryResponse and unwraps its resources, which
// are not looked into.
func decodeADSResponse(b []byte) (adsResponse, error) {
	return new(decoding).response(b, false)
}

// response reads what the responses of both protocols have, and what those of
// delta have beside it. The latter always have a Resource around each Any.
func (d *decoding) response(b []byte, delta bool) (adsResponse, error) {
	var r adsResponse
	version, unwrap := "version_info", d.rawResource
	if delta {
		version, unwrap = "system_version_info", d.wrappedResource
	}
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			r.version = c.text(version)
		case 2:
			raw, err := unwrap(c.bytes("resources"))
			c.fail(inElement("resources", len(r.resources), err))
			d.keep(&c, "resources")
			r.resources = append(r.resources, raw)
		case 4:
			r.typeURL = c.text("type_url")
		case 5:
			r.nonce = c.text("nonce")
		case 6:
			if delta {
				d.keep(&c, "removed_resources")
				r.removed = append(r.removed, c.text("removed_resources"))
			}
		}
	}
	if c.err != nil {
		return adsResponse{}, c.err
	}
	return r, nil
}

// rawResource reads the Any of a resource, which may be a Resource that has
// the Any inside. One with a name and nothing inside (the heartbeat of a
// resource with a TTL, which this client does not ask for) has no type.
func (d *decoding) rawResource(message []byte) (rawResource, error) {
	url, value, err := decodeAny(message)
	if err != nil || string(typeName(url)) != wrapperType {
		return rawResource{typeURL: d.intern(url), value: value}, err
	}
	return d.wrappedResource(value)
}

// wrappedResource reads an envoy.service.discovery.v3.Resource.
func (d *decoding) wrappedResource(value []byte) (rawResource, error) {
	var raw rawResource
	var inner []byte
	c := walk(value)
	for c.next() {
		switch c.num {
		case 1:
			raw.version = c.text("version")
		case 2:
			c.message("resource", &inner)
		case 3:
			raw.name = c.text("name")
		}
	}
	if c.err != nil {
		return raw, c.err
	}
	url, packed, err := decodeAny(inner)
	raw.value = packed
	raw.typeURL = d.intern(url)
	return raw, inField("resource", err)
}

// resourceName is rawName as text.
func resourceName(k kind, value []byte) string { return string(rawName(k, value)) }

// rawName finds the name of a resource without decoding it: field 1 of all four
// kinds. It is empty where there is none that is valid.
func rawName(_ kind, value []byte) []byte {
	var name []byte
	c := walk(value)
	for c.next() {
		if c.num == 1 {
			name = c.raw("name")
		}
	}
	if c.err != nil {
		return nil
	}
	return name
}

// decodeResource turns the bytes of a resource into what is kept of it. An
// error starts with the path of the field that is wrong, and comes with the
// resource's name where that can be read.
func decodeResource(k kind, value []byte) (decoded, error) {
	return new(decoding).resource(k, value)
}

// decodeAnonymously is decodeResource for a workload that has no certificate to
// come by: it takes no offer of mutual TLS.
func decodeAnonymously(k kind, value []byte) (decoded, error) {
	return (&decoding{anonymous: true}).resource(k, value)
}

func (d *decoding) resource(k kind, value []byte) (decoded, error) {
	got := decoded{name: resourceName(k, value)}
	if len(value) > maxResource {
		return got, fmt.Errorf("the resource has %d bytes, more than the %d that are accepted", len(value), maxResource)
	}
	var err error
	switch k {
	case kindListener:
		got.value, err = d.listener(value)
	case kindRoute:
		got.value, err = d.namedRouteConfig(value)
	case kindCluster:
		got.value, err = d.cluster(value)
	case kindEndpoints:
		got.value, err = d.assignment(value)
	}
	if err != nil {
		return decoded{name: got.name}, err
	}
	got.ignored = d.notes()
	return got, nil
}
