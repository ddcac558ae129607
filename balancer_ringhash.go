package proxyless

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"strconv"
)

// ring is a hash ring as Envoy and gRPC build it: each endpoint has points on
// it in proportion to its weight, at the hashes of its key with "_0", "_1", and
// so on behind it. A hash leads to the next point. It is immutable.
type ring struct {
	hashes    []uint64 // in order
	endpoints []uint32 // parallel to hashes
	// parts holds, for each of equal parts of all hashes, where its first point
	// is, so that finding a point takes a step or two on average.
	parts []uint32
	shift int
}

const (
	defaultMinRing = 1024
	// largestRing bounds the memory of a ring to 16 MiB, whatever the mesh asks for.
	largestRing = 1 << 20
)

func newRing(from *hashedFrom) *ring {
	least, most := from.balance.minRing, from.balance.maxRing
	if least == 0 {
		least = defaultMinRing
	}
	if most == 0 || most > largestRing {
		most = largestRing
	}
	lightest := slices.Min(from.weights)
	// The lightest endpoint has a whole number of points, unless that is too many.
	scale := min(math.Ceil(lightest*float64(min(least, most)))/lightest, float64(most))

	type point struct {
		hash     uint64
		endpoint uint32
	}
	points := make([]point, 0, int(math.Ceil(scale)))
	var buf []byte
	target := 0.0
	for _, e := range from.byKey() {
		target += scale * e.weight
		buf = append(append(buf[:0], e.key...), '_')
		bare := len(buf)
		for n := uint64(0); float64(len(points)) < target; n++ {
			buf = strconv.AppendUint(buf[:bare], n, 10)
			points = append(points, point{xxHash64(buf, 0), e.at})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	r := &ring{hashes: make([]uint64, len(points)), endpoints: make([]uint32, len(points))}
	for i, p := range points {
		r.hashes[i], r.endpoints[i] = p.hash, p.endpoint
	}
	r.divide()
	return r
}

// divide cuts the ring into at least as many parts as it has points.
func (r *ring) divide() {
	width := bits.Len(uint(len(r.hashes)))
	r.shift = 64 - width
	r.parts = make([]uint32, 1<<width)
	at := 0
	for i := range r.parts {
		for at < len(r.hashes) && r.hashes[at] < uint64(i)<<r.shift {
			at++
		}
		r.parts[i] = uint32(at)
	}
}

func (r *ring) start(hash uint64, again uint32) uint64 {
	at := int(r.parts[hash>>r.shift])
	for at < len(r.hashes) && r.hashes[at] < hash {
		at++
	}
	return uint64(at) + uint64(again)
}

func (r *ring) at(start uint64, steps int) uint64 {
	return uint64(r.endpoints[(start+uint64(steps))%uint64(len(r.endpoints))])
}

func (r *ring) size() int { return len(r.hashes) }
