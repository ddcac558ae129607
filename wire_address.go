package proxyless

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
)

// parseIP reads an IP address as netip does.
func parseIP(b []byte) (netip.Addr, bool) {
	if ip, ok := parseUsualIP(b); ok {
		return ip, true
	}
	ip, err := netip.ParseAddr(string(b))
	return ip.Unmap(), err == nil
}

// parseUsualIP reads an IP address of a form that Kubernetes writes, without
// making a string of it. Zones and IPv4 inside IPv6 are left to netip.
func parseUsualIP(b []byte) (netip.Addr, bool) {
	if len(b) > 4 && (b[1] == '.' || b[2] == '.' || b[3] == '.') {
		return parseIPv4(b)
	}
	return parseIPv6(b)
}

func parseIPv4(b []byte) (netip.Addr, bool) {
	var quad [4]byte
	for i := range quad {
		value, n := octet(b)
		if n == 0 {
			return netip.Addr{}, false
		}
		quad[i], b = value, b[n:]
		if i == 3 {
			break
		}
		if len(b) == 0 || b[0] != '.' {
			return netip.Addr{}, false
		}
		b = b[1:]
	}
	return netip.AddrFrom4(quad), len(b) == 0
}

// octet reads a number below 256 that has no leading zeros; n is 0 where there
// is none.
func octet(b []byte) (value byte, n int) {
	sum := 0
	for n < len(b) && n < 3 && b[n]-'0' <= 9 {
		sum = sum*10 + int(b[n]-'0')
		n++
	}
	if sum > 255 || n > 1 && b[0] == '0' {
		return 0, 0
	}
	return byte(sum), n
}

func parseIPv6(b []byte) (netip.Addr, bool) {
	var ip [16]byte
	n, gap := 0, -1 // bytes written, and where "::" was
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = 0, b[2:]
	}
	for more := len(b) > 0; more; {
		value, digits := hexadecimal(b)
		if digits == 0 || n == len(ip) {
			return netip.Addr{}, false
		}
		binary.BigEndian.PutUint16(ip[n:], value)
		n, b = n+2, b[digits:]
		switch {
		case len(b) == 0:
			more = false
		case len(b) == 1 || b[0] != ':':
			return netip.Addr{}, false
		case b[1] != ':':
			b = b[1:]
		case gap >= 0:
			return netip.Addr{}, false
		default:
			gap, b = n, b[2:]
			more = len(b) > 0
		}
	}
	if (gap < 0) != (n == len(ip)) {
		return netip.Addr{}, false
	}
	if gap >= 0 {
		copy(ip[len(ip)-(n-gap):], ip[gap:n])
		clear(ip[gap : len(ip)-(n-gap)])
	}
	return netip.AddrFrom16(ip).Unmap(), true
}

// hexadecimal reads up to four digits.
func hexadecimal(b []byte) (value uint16, n int) {
	for n < len(b) && n < 4 {
		digit := b[n] - '0'
		if digit > 9 {
			if digit = b[n] | 0x20 - 'a'; digit > 5 {
				break
			}
			digit += 10
		}
		value, n = value<<4|uint16(digit), n+1
	}
	return value, n
}

// addressSet finds endpoints that are listed twice: an open-addressing table
// of indexes into the endpoints. A slot has the index, plus one, in its low
// bits and a part of the hash above it, so that two different addresses hardly
// ever have to be compared.
type addressSet struct {
	slots []uint32
	shift uint8
}

// indexBits is enough for maxElements, and one.
const indexBits = 21

func (s *addressSet) init(n int) {
	log := max(bits.Len(uint(n+n/2)), 3) // at most two thirds full
	s.slots, s.shift = make([]uint32, 1<<log), uint8(64-log)
}

// add says whether the address of the last endpoint is a new one.
func (s *addressSet) add(endpoints []endpoint, addr netip.AddrPort) bool {
	hash := hashAddress(addr)
	mine := uint32(hash)<<indexBits | uint32(len(endpoints))
	mask := uint64(len(s.slots) - 1)
	for at := hash >> s.shift; ; at = (at + 1) & mask {
		slot := s.slots[at]
		if slot == 0 {
			s.slots[at] = mine
			return true
		}
		if (slot^mine)>>indexBits == 0 && endpoints[slot&(1<<indexBits-1)-1].addr == addr {
			return false
		}
	}
}

// hashAddress spreads well in its high bits, and well enough in its low ones.
func hashAddress(addr netip.AddrPort) uint64 {
	ip := addr.Addr().As16()
	const odd = 0x9E3779B97F4A7C15
	low := binary.BigEndian.Uint64(ip[8:]) ^ uint64(addr.Port())<<48
	high := binary.BigEndian.Uint64(ip[:8])
	return (low*odd ^ bits.ReverseBytes64(high*odd)) * odd
}

// socketAddress reads an envoy.config.core.v3.Address. It is invalid, and text
// says what there is, where it is no socket address of an IP with a port.
func socketAddress(b []byte) (addr netip.AddrPort, text string, err error) {
	kind, err := decodeAddress(b)
	if err != nil || kind.num != 1 {
		return addr, "*", err
	}
	name, port, err := decodeSocketAddress(kind.val)
	if err != nil {
		return addr, "", inField("socket_address", err)
	}
	if ip, ok := parseIP(name); ok && port != 0 {
		return netip.AddrPortFrom(ip, port), "", nil
	}
	return addr, fmt.Sprintf("%s:%d", name, port), nil
}

// decodeAddress reads an envoy.config.core.v3.Address.
func decodeAddress(b []byte) (kind oneof, err error) {
	c := walk(b)
	for c.next() {
		if c.num <= 3 {
			kind.message(&c, "address")
		}
	}
	return kind, c.err
}

// decodeSocketAddress reads an envoy.config.core.v3.SocketAddress; the port is
// 0 where it is a named one.
func decodeSocketAddress(b []byte) (host []byte, port uint16, err error) {
	var specifier oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 2:
			host = c.raw("address")
		case 3:
			specifier.scalar(&c, "port_value")
		case 4:
			specifier.raw(&c, "named_port")
		}
	}
	if c.err == nil && specifier.u > math.MaxUint16 {
		return nil, 0, inField("port_value", fmt.Errorf("%d is not a port", uint32(specifier.u)))
	}
	return host, uint16(specifier.u), c.err
}
