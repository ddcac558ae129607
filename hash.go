package proxyless

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
)

// The primes of xxHash64.
const (
	xxPrime1 = 11400714785074694791
	xxPrime2 = 14029467366897019727
	xxPrime3 = 1609587929392839161
	xxPrime4 = 9650029242287828579
	xxPrime5 = 2870177450012600261
)

// xxHash64 is the hash of Envoy and gRPC for rings, Maglev tables and requests.
func xxHash64(b []byte, seed uint64) uint64 {
	h := seed + xxPrime5
	n := uint64(len(b))
	if len(b) >= 32 {
		h, b = xxStripes(b, seed)
	}
	h += n
	for ; len(b) >= 8; b = b[8:] {
		h ^= xxRound(0, binary.LittleEndian.Uint64(b))
		h = bits.RotateLeft64(h, 27)*xxPrime1 + xxPrime4
	}
	if len(b) >= 4 {
		h ^= uint64(binary.LittleEndian.Uint32(b)) * xxPrime1
		h = bits.RotateLeft64(h, 23)*xxPrime2 + xxPrime3
		b = b[4:]
	}
	for _, c := range b {
		h ^= uint64(c) * xxPrime5
		h = bits.RotateLeft64(h, 11) * xxPrime1
	}
	h ^= h >> 33
	h *= xxPrime2
	h ^= h >> 29
	h *= xxPrime3
	return h ^ h>>32
}

// xxStripes hashes 32 bytes at a time and returns what is left of b.
func xxStripes(b []byte, seed uint64) (uint64, []byte) {
	prime1, prime2 := uint64(xxPrime1), uint64(xxPrime2) // variables, since the sums overflow
	lanes := [4]uint64{seed + prime1 + prime2, seed + prime2, seed, seed - prime1}
	for ; len(b) >= 32; b = b[32:] {
		for i := range lanes {
			lanes[i] = xxRound(lanes[i], binary.LittleEndian.Uint64(b[8*i:]))
		}
	}
	h := bits.RotateLeft64(lanes[0], 1) + bits.RotateLeft64(lanes[1], 7) + bits.RotateLeft64(lanes[2], 12) + bits.RotateLeft64(lanes[3], 18)
	for _, lane := range lanes {
		h = (h^xxRound(0, lane))*xxPrime1 + xxPrime4
	}
	return h, b
}

func xxRound(lane, input uint64) uint64 {
	return bits.RotateLeft64(lane+input*xxPrime2, 31) * xxPrime1
}

// draws makes all the random numbers of one pick from one: SplitMix64.
type draws uint64

func (d *draws) next() uint64 {
	*d += 0x9e3779b97f4a7c15
	z := uint64(*d)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below returns a number from 0 to n-1; n fits 32 bits.
func (d *draws) below(n uint64) uint64 { return d.next() >> 32 * n >> 32 }

// share returns a number from 0 to below 1.
func (d *draws) share() float64 { return float64(d.next()>>11) / (1 << 53) }

// caller is what hash policies know of who calls. It is constant for an Invoker.
type caller struct {
	id uint64 // by chance: gRPC's channel id
	ip string // this process's address in the mesh
}

// cookie is what stands for the caller where a hash policy generates a cookie:
// Envoy makes it of the addresses of the connection that the call came by, so
// that calls of one connection stay together even where nobody sends the cookie
// back. An Invoker is that connection.
func (c *caller) cookie() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], xxHash64([]byte(c.ip), c.id))
	return hex.EncodeToString(b[:])
}

// hashInput is what hash policies may look at.
type hashInput struct {
	headers callHeaders
	caller  *caller
	message any // the request; nil for a stream
}

// hashOf combines what hash policies find in a call (gRFC A42). It returns
// false where they find nothing. generated is the policy, if any, whose cookie
// the call lacked and for which the caller stood in. Nothing is allocated but
// by gRPC, which copies a header that is there, and by rewriting.
//
// Of Envoy's policies all work but query_parameter, which a gRPC call never
// has. source_ip is this process's own address: the caller, as a sidecar would
// see it.
func hashOf(policies []hashPolicy, in *hashInput) (hash uint64, found bool, generated *hashPolicy) {
	for i := range policies {
		p := &policies[i]
		one, ok := p.hash(in)
		if !ok && p.kind == hashCookie && p.hasTTL {
			one, ok, generated = xxHash64([]byte(in.caller.cookie()), 0), true, p
		}
		if ok {
			hash, found = bits.RotateLeft64(hash, 1)^one, true
		}
		if p.terminal && found {
			break
		}
	}
	return hash, found, generated
}

// hash is what one policy finds.
func (p *hashPolicy) hash(in *hashInput) (uint64, bool) {
	switch p.kind {
	case hashHeader:
		value, ok := in.headers.get(p.name)
		if ok && p.rewrite != nil {
			value = p.rewrite.ReplaceAllString(value, p.substitute)
		}
		return xxHash64([]byte(value), 0), ok
	case hashCookie:
		value := cookieOf(in.headers.values("cookie"), p.name)
		return xxHash64([]byte(value), 0), value != ""
	case hashSource:
		return xxHash64([]byte(in.caller.ip), 0), in.caller.ip != ""
	case hashChannelID:
		return in.caller.id, true
	case hashMessage:
		return hashOfMessage(in)
	}
	return 0, false
}

// hashOfMessage hashes the method and the request. Equal requests have equal
// hashes within one build of the program: protobuf promises no more.
func hashOfMessage(in *hashInput) (uint64, bool) {
	m, ok := in.message.(proto.Message)
	if !ok {
		return 0, false
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return xxHash64(b, xxHash64([]byte(in.headers.path), 0)), err == nil
}

// cookieOf finds a cookie among the values of the cookie header; empty where
// there is none. Quotes around its value do not count.
func cookieOf(headers []string, name string) string {
	for _, header := range headers {
		for header != "" {
			var pair string
			pair, header, _ = strings.Cut(header, ";")
			key, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if key != name {
				continue
			}
			if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			return value
		}
	}
	return ""
}

// setCookie is a value of the set-cookie header, as Envoy writes it.
func setCookie(name, value, path string, ttl time.Duration) string {
	var b strings.Builder
	b.WriteString(name + `="` + value + `"`)
	if ttl > 0 {
		b.WriteString("; Max-Age=" + strconv.FormatInt(int64(ttl/time.Second), 10))
	}
	if path != "" {
		b.WriteString("; Path=" + path)
	}
	b.WriteString("; HttpOnly")
	return b.String()
}
