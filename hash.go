package proxyless

import (
	"encoding/binary"
	"math/bits"
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
