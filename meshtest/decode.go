package meshtest

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
)

// maxDepth bounds the nesting of a node's metadata.
const maxDepth = 100

var errTruncated = errors.New("truncated field")

// fields calls visit for every field of a message. A scalar arrives in v, bytes
// in b; groups and fixed32 fields are skipped.
func fields(message []byte, visit func(num protowire.Number, v uint64, b []byte) error) error {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(message)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(message)
		default:
			if n = protowire.ConsumeFieldValue(num, typ, message); n >= 0 {
				message = message[n:]
				continue
			}
		}
		if n < 0 {
			return fmt.Errorf("field %d: %w", num, errTruncated)
		}
		message = message[n:]
		if err := visit(num, v, b); err != nil {
			return err
		}
	}
	return nil
}

// decodeRequest reads an envoy.service.discovery.v3.DiscoveryRequest, or a
// DeltaDiscoveryRequest.
func decodeRequest(message []byte, delta bool) (Request, error) {
	if delta {
		return decodeDelta(message)
	}
	var r Request
	err := fields(message, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			r.Version = string(b)
		case 2:
			r.HasNode = true
			return decodeNode(b, &r)
		case 3:
			r.Names = append(r.Names, string(b))
		case 4:
			r.TypeURL = string(b)
		case 5:
			r.Nonce = string(b)
		case 6:
			r.NACK = true
			return decodeStatus(b, &r)
		}
		return nil
	})
	if err != nil {
		return Request{}, fmt.Errorf("discovery request: %w", err)
	}
	return r, nil
}

func decodeDelta(message []byte) (Request, error) {
	r := Request{Delta: true}
	err := fields(message, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			r.HasNode = true
			return decodeNode(b, &r)
		case 2:
			r.TypeURL = string(b)
		case 3:
			r.Names = append(r.Names, string(b))
		case 4:
			r.Unsubscribed = append(r.Unsubscribed, string(b))
		case 5:
			return decodeHeld(b, &r)
		case 6:
			r.Nonce = string(b)
		case 7:
			r.NACK = true
			return decodeStatus(b, &r)
		}
		return nil
	})
	if err != nil {
		return Request{}, fmt.Errorf("delta discovery request: %w", err)
	}
	return r, nil
}

// decodeHeld reads an entry of initial_resource_versions.
func decodeHeld(message []byte, r *Request) error {
	var name, version string
	err := fields(message, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			name = string(b)
		case 2:
			version = string(b)
		}
		return nil
	})
	if r.Held == nil {
		r.Held = make(map[string]string)
	}
	r.Held[name] = version
	return err
}

// decodeNode reads an envoy.config.core.v3.Node.
func decodeNode(message []byte, r *Request) error {
	return fields(message, func(num protowire.Number, _ uint64, b []byte) (err error) {
		switch num {
		case 1:
			r.NodeID = string(b)
		case 2:
			r.NodeCluster = string(b)
		case 3:
			r.Metadata, err = decodeStruct(b, 0)
		case 4:
			err = decodeLocality(b, r)
		}
		return err
	})
}

func decodeLocality(message []byte, r *Request) error {
	return fields(message, func(num protowire.Number, _ uint64, b []byte) error {
		switch num {
		case 1:
			r.Region = string(b)
		case 2:
			r.Zone = string(b)
		case 3:
			r.SubZone = string(b)
		}
		return nil
	})
}

// decodeStatus reads the google.rpc.Status of a NACK.
func decodeStatus(message []byte, r *Request) error {
	return fields(message, func(num protowire.Number, v uint64, b []byte) error {
		switch num {
		case 1:
			r.ErrorCode = codes.Code(v)
		case 2:
			r.ErrorDetail = string(b)
		}
		return nil
	})
}

// decodeStruct reads a google.protobuf.Struct.
func decodeStruct(message []byte, depth int) (map[string]any, error) {
	if depth > maxDepth {
		return nil, errors.New("metadata is nested too deeply")
	}
	m := make(map[string]any)
	err := fields(message, func(num protowire.Number, _ uint64, entry []byte) error {
		if num != 1 {
			return nil
		}
		var key string
		var value any
		err := fields(entry, func(num protowire.Number, _ uint64, b []byte) (err error) {
			switch num {
			case 1:
				key = string(b)
			case 2:
				value, err = decodeValue(b, depth)
			}
			return err
		})
		m[key] = value
		return err
	})
	return m, err
}

// decodeValue reads a google.protobuf.Value as nil, float64, string, bool,
// map[string]any or []any.
func decodeValue(message []byte, depth int) (value any, err error) {
	err = fields(message, func(num protowire.Number, v uint64, b []byte) (err error) {
		switch num {
		case 1:
			value = nil
		case 2:
			value = math.Float64frombits(v)
		case 3:
			value = string(b)
		case 4:
			value = protowire.DecodeBool(v)
		case 5:
			value, err = decodeStruct(b, depth+1)
		case 6:
			value, err = decodeList(b, depth+1)
		}
		return err
	})
	return value, err
}

// decodeList reads a google.protobuf.ListValue.
func decodeList(message []byte, depth int) ([]any, error) {
	if depth > maxDepth {
		return nil, errors.New("metadata is nested too deeply")
	}
	list := []any{}
	err := fields(message, func(num protowire.Number, _ uint64, b []byte) error {
		if num != 1 {
			return nil
		}
		value, err := decodeValue(b, depth)
		list = append(list, value)
		return err
	})
	return list, err
}
