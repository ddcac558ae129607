package proxyless

import (
	"bytes"
	"math"
	"net/netip"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// endpoint reads an envoy.config.endpoint.v3.LbEndpoint; use is false for one
// that cannot be called.
func (f *filling) endpoint(b []byte, e *endpoint) (use bool, err error) {
	if !f.usualEndpoint(b, e) {
		if use, err = f.unusualEndpoint(b, e); !use || err != nil {
			return false, err
		}
	}
	return true, nil
}

// usualEndpoint reads an LbEndpoint of the form that istiod sends for a pod.
// It is there for speed only: of any other form, and of anything wrong, it
// returns false, and unusualEndpoint decides. Metadata that is like that of the
// endpoint before is not looked at again.
func (f *filling) usualEndpoint(b []byte, e *endpoint) bool {
	*e = endpoint{weight: 1}
	for len(b) >= 2 {
		tag, n := b[0], int(b[1])
		if b = b[2:]; tag == 2<<3 && n <= int(healthDegraded) {
			e.health = healthStatus(n)
			continue
		}
		if n >= 0x80 { // two bytes of length
			if len(b) == 0 || b[0] >= 0x80 {
				return false
			}
			n, b = n&0x7F|int(b[0])<<7, b[1:]
		}
		if n > len(b) || !f.usualField(tag, b[:n], e) {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0 && e.addr.IsValid()
}

// usualField takes a length-delimited field of an LbEndpoint.
func (f *filling) usualField(tag byte, b []byte, e *endpoint) bool {
	switch tag {
	case 1<<3 | 2: // endpoint { address { socket_address {
		if len(b) < 4 || len(b) >= 0x80 || b[0] != 1<<3|2 || b[2] != 1<<3|2 || int(b[1]) != len(b)-2 || int(b[3]) != len(b)-4 || e.addr.IsValid() {
			return false
		}
		return usualSocket(b[4:], &e.addr)
	case 3<<3 | 2: // metadata
		if e.labels != 0 { // twice: what was before counts, too
			return false
		}
		if !bytes.Equal(b, f.metadata) {
			socket, ok := usualMetadata(b)
			labels, err := f.labels.add(socket)
			if !ok || err != nil {
				return false
			}
			f.metadata, f.labelsBefore = b, labels
		}
		e.labels = f.labelsBefore
		return true
	case 4<<3 | 2: // load_balancing_weight { value
		if len(b) != 2 || b[0] != 1<<3 || b[1] >= 0x80 || b[1] == 0 {
			return false
		}
		e.weight = uint32(b[1])
		return true
	}
	return false
}

// usualMetadata finds what counts of a Metadata: what chooses a transport
// socket. Load balancing by metadata is not usual.
func usualMetadata(b []byte) (socket []byte, ok bool) {
	for len(b) > 0 {
		entry, rest, ok := usualPart(b, 1)
		if !ok {
			return nil, false
		}
		key, value, ok := usualPart(entry, 1)
		if !ok || string(key) == metadataLB {
			return nil, false
		}
		its, after, ok := usualPart(value, 2)
		if !ok || len(after) > 0 {
			return nil, false
		}
		if string(key) == metadataSocket {
			if socket != nil {
				return nil, false
			}
			socket = its
		}
		b = rest
	}
	return socket, true
}

// usualPart takes a length-delimited field, with one or two bytes of length,
// from the start of a message.
func usualPart(b []byte, num byte) (part, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != num<<3|2 {
		return nil, nil, false
	}
	n := int(b[1])
	if b = b[2:]; n >= 0x80 {
		if len(b) == 0 || b[0] >= 0x80 {
			return nil, nil, false
		}
		n, b = n&0x7F|int(b[0])<<7, b[1:]
	}
	if n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

const metadataLB = "envoy.lb"

// usualSocket takes a SocketAddress of an IP address and a port.
func usualSocket(b []byte, addr *netip.AddrPort) bool {
	if len(b) < 2 || b[0] != 2<<3|2 || int(b[1]) > len(b)-2 {
		return false
	}
	ip, ok := parseUsualIP(b[2 : 2+b[1]])
	b = b[2+b[1]:]
	if !ok || len(b) < 2 || b[0] != 3<<3 {
		return false
	}
	port, n := protowire.ConsumeVarint(b[1:])
	if n != len(b)-1 || port == 0 || port > math.MaxUint16 {
		return false
	}
	*addr = netip.AddrPortFrom(ip, uint16(port))
	return true
}

// unusualEndpoint reads any LbEndpoint.
func (f *filling) unusualEndpoint(b []byte, e *endpoint) (use bool, err error) {
	p, err := decodeLBEndpoint(b)
	if err != nil {
		return false, err
	}
	*e = endpoint{weight: p.weight, health: p.health}
	if use, err = f.address(p.host, e); err != nil {
		return false, inField("endpoint", err)
	}
	if key := hashKey(p.metadata); key != "" {
		e.more().hashKey = key
	}
	if e.labels, err = f.labels.labelsOf(p.metadata); err != nil {
		return false, err
	}
	if use && e.weight == 0 {
		f.ignore("endpoints[*].lb_endpoints[" + e.addr.String() + "].load_balancing_weight (0)")
		use = false
	}
	return use, nil
}

// more makes room for what few endpoints have.
func (e *endpoint) more() *endpointExtra {
	if e.extra == nil {
		e.extra = &endpointExtra{}
	}
	return e.extra
}

// endpointParts is what is looked at of an LbEndpoint.
type endpointParts struct {
	host     oneof
	metadata []byte
	weight   uint32 // 1 where it is absent
	health   healthStatus
}

// decodeLBEndpoint reads an envoy.config.endpoint.v3.LbEndpoint.
func decodeLBEndpoint(b []byte) (p endpointParts, err error) {
	var weight []byte
	var health uint64
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			p.host.message(&c, "endpoint")
		case 2:
			health = c.scalar("health_status")
		case 3:
			c.message("metadata", &p.metadata)
		case 4:
			c.message("load_balancing_weight", &weight)
		case 5:
			p.host.raw(&c, "endpoint_name")
		}
	}
	if p.health = healthUnhealthy; health <= uint64(healthDegraded) {
		p.health = healthStatus(health)
	}
	if p.weight = 1; weight != nil {
		value, err := decodeWrapped(weight)
		c.fail(inField("load_balancing_weight", err))
		p.weight = uint32(value)
	}
	return p, c.err
}

// hashKey finds filter_metadata["envoy.lb"]["hash_key"] of a Metadata (gRFC
// A76). What is wrong with metadata is nobody's business here: then there is none.
func hashKey(metadata []byte) string {
	key := ""
	c := walk(mapValue(mapValue(metadata, metadataLB), "hash_key"))
	for c.next() {
		if c.num == 3 && utf8.Valid(c.val) {
			key = string(c.val)
		}
	}
	return key
}

// mapValue finds the value of a key in the map that is field 1 of a message;
// of several the last. What it returns aliases the message.
func mapValue(message []byte, key string) (value []byte) {
	c := walk(message)
	for c.next() {
		if c.num != 1 {
			continue
		}
		var found, its []byte
		entry := walk(c.val)
		for entry.next() {
			switch entry.num {
			case 1:
				found = entry.val
			case 2:
				its = entry.val
			}
		}
		if string(found) == key {
			value = its
		}
	}
	return value
}

// address reads the address of an envoy.config.endpoint.v3.Endpoint. Only a
// socket address with an IP and a port can be called.
func (f *filling) address(host oneof, e *endpoint) (ok bool, err error) {
	var address []byte
	c := walk(host.val)
	for host.num == 1 && c.next() {
		switch c.num {
		case 1:
			c.message("address", &address)
		case 3:
			if name := c.text("hostname"); name != "" {
				e.more().hostname = name
			}
		case 4:
			f.keep(&c, "additional_addresses")
			c.fail(inField("additional_addresses", f.additional(c.bytes("additional_addresses"), e)))
		}
	}
	if c.err != nil {
		return false, c.err
	}
	addr, text, err := socketAddress(address)
	if err == nil && !addr.IsValid() {
		f.ignore("endpoints[*].lb_endpoints[" + text + "].endpoint.address (not an IP address with a port)")
	}
	e.addr = addr
	return addr.IsValid(), inField("address", err)
}

// additional reads an Endpoint.AdditionalAddress.
func (f *filling) additional(b []byte, e *endpoint) error {
	address, err := submessage(b, 1, "address")
	if err != nil {
		return err
	}
	addr, text, err := socketAddress(address)
	switch {
	case err != nil:
	case addr.IsValid():
		e.more().more = append(e.more().more, addr)
	default:
		f.ignore("endpoints[*].lb_endpoints[*].endpoint.additional_addresses (" + text + ")")
	}
	return inField("address", err)
}
