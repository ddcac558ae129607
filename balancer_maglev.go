package proxyless

import "slices"

// maglev is a Maglev table as Envoy builds it: the endpoints take turns, the
// heavier ones more often, to enter the next free place of an order of their
// own. A hash leads to a place. It is immutable.
type maglev []uint32

const (
	defaultMaglev = 65537
	largestMaglev = 5000011 // as in Envoy
)

func newMaglev(from *hashedFrom) maglev {
	size := from.balance.table
	if size == 0 {
		size = defaultMaglev
	}
	size = primeFrom(min(size, largestMaglev))
	type contender struct {
		endpoint         uint32
		next, skip       uint64
		weight, entitled float64
	}
	var all []contender
	for _, e := range from.byKey() {
		key := []byte(e.key)
		all = append(all, contender{endpoint: e.at, weight: e.weight, next: xxHash64(key, 0) % size, skip: xxHash64(key, 1)%(size-1) + 1})
	}
	most := slices.Max(from.weights)
	const free = ^uint32(0)
	m := slices.Repeat(maglev{free}, int(size))
	for round, taken := 1.0, uint64(0); taken < size; round++ {
		for i := range all {
			e := &all[i]
			if taken == size {
				break
			}
			if round*e.weight < e.entitled {
				continue
			}
			e.entitled += most
			for m[e.next] != free {
				e.next = (e.next + e.skip) % size
			}
			m[e.next] = e.endpoint
			taken++
		}
	}
	return m
}

// start returns the hash, changed in all its upper bits for another attempt,
// as in Envoy.
func (m maglev) start(hash uint64, again uint32) uint64 {
	if again > 0 {
		hash ^= -uint64(again)
	}
	return hash
}

// at hashes again for each step: the endpoints of neighbouring places are not
// independent of one another, and the heirs of an endpoint that failed would
// not get their shares.
func (m maglev) at(start uint64, steps int) uint64 {
	if steps > 0 {
		d := draws(start + uint64(steps))
		start = d.next()
	}
	return uint64(m[start%uint64(len(m))])
}

func (m maglev) size() int { return len(m) }

// primeFrom returns the first prime from n on: with any other size an order
// would not reach every place.
func primeFrom(n uint64) uint64 {
	for n = max(n, 3); !prime(n); n++ {
	}
	return n
}

func prime(n uint64) bool {
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}
