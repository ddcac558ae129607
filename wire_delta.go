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
	return new(decoding).response(b, true)
}
