package proxyless

import (
	"cmp"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

// appendDelta encodes the request as an
// envoy.service.discovery.v3.DeltaDiscoveryRequest after b.
func (r *adsRequest) appendDelta(b []byte) []byte {
	if r.node != nil {
		b = appendMessage(b, 1, appendNode(nil, r.node))
	}
	b = appendText(b, 2, cmp.Or(r.typeURL, r.kind.typeURL()))
	for _, name := range r.subscribe {
		b = protowire.AppendTag(b, 3, protowire.BytesType)
		b = protowire.AppendString(b, name)
	}
	for _, name := range r.unsubscribe {
		b = protowire.AppendTag(b, 4, protowire.BytesType)
		b = protowire.AppendString(b, name)
	}
	for _, held := range r.retained {
		b = appendMessage(b, 5, appendText(appendText(nil, 1, held.name), 2, held.version))
	}
	b = appendText(b, 6, r.nonce)
	if r.nack != "" {
		b = appendMessage(b, 7, appendStatus(nil, codes.InvalidArgument, r.nack))
	}
	return b
}

// decodeDeltaResponse reads the envelope of an
// envoy.service.discovery.v3.DeltaDiscoveryResponse and unwraps its resources,
// which are not looked into.
func decodeDeltaResponse(b []byte) (adsResponse, error) {
	var r adsResponse
	var d decoding
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			r.version = c.text("system_version_info")
		case 2:
			raw, err := d.wrappedResource(c.bytes("resources"))
			c.fail(inElement("resources", len(r.resources), err))
			d.keep(&c, "resources")
			r.resources = append(r.resources, raw)
		case 4:
			r.typeURL = c.text("type_url")
		case 5:
			r.nonce = c.text("nonce")
		case 6:
			d.keep(&c, "removed_resources")
			r.removed = append(r.removed, c.text("removed_resources"))
		}
	}
	if c.err != nil {
		return adsResponse{}, c.err
	}
	return r, nil
}
