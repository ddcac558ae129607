package proxyless

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
)

// loopback is an assignment of endpoints at 127.0.0.1, one for each port.
func loopback(ports ...uint16) *assignment {
	a := &assignment{cluster: "c", localities: []locality{{count: len(ports), weight: uint32(len(ports))}}}
	for _, p := range ports {
		a.endpoints = append(a.endpoints, endpoint{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p), weight: 1})
	}
	return a
}

// The ring is the one in Envoy's own test.
func TestTheRingIsEnvoys(t *testing.T) {
	s := balanced(balancing{policy: lbRingHash, minRing: 12}, loopback(90, 91, 92, 93, 94, 95), nil)
	connectAll(s)
	r := s.tiers[0].picker.(*hashed).order.(*ring)
	hashes := []uint64{
		833437586790550860, 928266305478181108, 1033482794131418490, 3551244743356806947, 3851675632748031481, 5583722120771150861,
		6311230543546372928, 7700377290971790572, 13144177310400110813, 13444792449719432967, 15516499411664133160, 16117243373044804889,
	}
	ports := []uint32{94, 92, 90, 95, 93, 91, 91, 93, 95, 92, 94, 90}
	if !slices.Equal(r.hashes, hashes) {
		t.Errorf("the ring is %d", r.hashes)
	}
	for i, at := range r.endpoints {
		if at+90 != ports[i] {
			t.Errorf("point %d belongs to port %d, want %d", i, at+90, ports[i])
		}
	}
	for hash, port := range map[uint64]uint64{0: 94, math.MaxUint64: 94, 3551244743356806947: 95, 3551244743356806948: 93} {
		if at, _ := s.pick(choice{hash: hash, hashed: true}); at+90 != port {
			t.Errorf("hash %d leads to port %d, want %d", hash, at+90, port)
		}
	}
}

// The table is the one in Envoy's own test.
func TestTheMaglevTableIsEnvoys(t *testing.T) {
	s := balanced(balancing{policy: lbMaglev, table: 7}, loopback(90, 91, 92, 93, 94, 95), nil)
	if m := s.tiers[0].picker.(*hashed).order.(maglev); !slices.Equal(m, maglev{2, 4, 0, 1, 5, 0, 3}) {
		t.Errorf("the table is %d", m)
	}
}

func hashPolicies() map[string]balancing {
	return map[string]balancing{"ring hash": {policy: lbRingHash, minRing: 10_000}, "maglev": {policy: lbMaglev}}
}

// landings is where hashes lead, by address.
func landings(s *endpointSet, hashes int) []netip.AddrPort {
	chance := chances()
	all := make([]netip.AddrPort, hashes)
	for i := range all {
		at, _ := s.pick(choice{hash: chance.Uint64(), hashed: true})
		all[i] = s.endpoints[at].addr
	}
	return all
}

func TestEqualHashesMeetAtOneEndpoint(t *testing.T) {
	for name, b := range hashPolicies() {
		s := balanced(b, testAssignment(ones(10)), nil)
		connectAll(s)
		if one, other := landings(s, 1000), landings(s, 1000); !slices.Equal(one, other) {
			t.Errorf("%s: the same hashes lead elsewhere the second time", name)
		}
	}
}

func TestHashesSpreadByWeight(t *testing.T) {
	for name, b := range hashPolicies() {
		s := balanced(b, testAssignment([]uint32{1, 1, 2, 4}), nil)
		connectAll(s)
		counts := map[netip.AddrPort]int{}
		for _, addr := range landings(s, 80_000) {
			counts[addr]++
		}
		for i, want := range []int{10_000, 10_000, 20_000, 40_000} {
			if n := counts[testAddr(i)]; math.Abs(float64(n-want)) > 0.1*float64(want) {
				t.Errorf("%s: endpoint %d got %d of 80000 hashes, want %d within 10 %%", name, i, n, want)
			}
		}
	}
}

func TestHashesSpreadByLocalityTimesEndpointWeight(t *testing.T) {
	a := testAssignment(ones(4))
	a.localities = []locality{{zone: "a", weight: 75, first: 0, count: 1}, {zone: "b", weight: 25, first: 1, count: 3}}
	for name, b := range hashPolicies() {
		s := balanced(b, a, nil)
		connectAll(s)
		n := 0
		for _, addr := range landings(s, 10_000) {
			if addr == testAddr(0) {
				n++
			}
		}
		if n < 7200 || n > 7800 {
			t.Errorf("%s: the locality with 75 of 100 got %d of 10000 hashes", name, n)
		}
	}
}

func TestOnlyTheHashesOfAnEndpointThatLeavesMove(t *testing.T) {
	for name, most := range map[string]int{"ring hash": 1000, "maglev": 300} { // the others of the ring get more points, to keep its size
		b := hashPolicies()[name]
		old := testAssignment(ones(10))
		s := balanced(b, old, nil)
		connectAll(s)
		before := landings(s, 10_000)
		next := testAssignment(ones(9))
		slices.Reverse(next.endpoints) // the order of endpoints must not count
		n := balanced(b, next, s)
		connectAll(n)
		needless, left := 0, 0
		for i, addr := range landings(n, 10_000) {
			if before[i] == testAddr(9) {
				left++
			} else if addr != before[i] {
				needless++
			}
		}
		if needless > most || left < 800 || left > 1200 {
			t.Errorf("%s: %d hashes were of the endpoint that left, %d others moved", name, left, needless)
		}
	}
}

func TestOnlyTheHashesOfAFailedEndpointMoveAndAlwaysToTheSame(t *testing.T) {
	for name, b := range hashPolicies() {
		s := balanced(b, testAssignment(ones(10)), nil)
		connectAll(s)
		before := landings(s, 10_000)
		s.be(cellFailed, 3)
		during := landings(s, 10_000)
		heirs := map[netip.AddrPort]int{}
		for i := range during {
			if before[i] == testAddr(3) {
				heirs[during[i]]++
			} else if before[i] != during[i] {
				t.Fatalf("%s: a hash of %s moved to %s", name, before[i], during[i])
			}
		}
		if len(heirs) < 5 {
			t.Errorf("%s: only %v took over", name, heirs)
		}
		if again := landings(s, 10_000); !slices.Equal(during, again) {
			t.Errorf("%s: the same hashes lead elsewhere the second time", name)
		}
		s.be(cellReady, 3)
		if after := landings(s, 10_000); !slices.Equal(before, after) {
			t.Errorf("%s: the hashes did not return", name)
		}
	}
}

func TestACallWaitsForTheEndpointOfItsHash(t *testing.T) {
	for name, b := range hashPolicies() {
		s := balanced(b, testAssignment(ones(5)), nil)
		connectAll(s)
		c := choice{hash: 42, hashed: true}
		at, _ := s.pick(c)
		s.be(cellConnecting, int(at))
		if other, found := s.pick(c); found != nil {
			t.Errorf("%s: went to %d while %d connects", name, other, at)
		}
		if _, found := s.pick(choice{}); found == nil {
			t.Errorf("%s: a call without a hash waits", name)
		}
		s.be(cellFailed, int(at))
		heir, found := s.pick(c)
		if found == nil || heir == at {
			t.Errorf("%s: nobody took over", name)
		}
		s.be(cellReady, int(at))
		if back, _ := s.pick(c); back != at {
			t.Errorf("%s: did not return", name)
		}
	}
}

func TestAnUnchangedCircleIsKept(t *testing.T) {
	for name, b := range hashPolicies() {
		s := balanced(b, testAssignment(ones(5)), nil)
		order := func(s *endpointSet) string { return fmt.Sprintf("%p", s.tiers[0].picker.(*hashed).order) }
		if n := balanced(b, testAssignment(ones(5)), s); order(n) != order(s) {
			t.Errorf("%s: made again", name)
		}
		if n := balanced(b, testAssignment([]uint32{1, 1, 1, 1, 2}), s); order(n) == order(s) {
			t.Errorf("%s: kept although a weight changed", name)
		}
	}
}

func TestHashKeysStandForAddresses(t *testing.T) {
	named := func(key, host string) *assignment {
		a := testAssignment(ones(5))
		for i := range a.endpoints {
			a.endpoints[i].extra = &endpointExtra{}
			if key != "" {
				a.endpoints[i].extra.hashKey = fmt.Sprint(key, i)
			}
			if host != "" {
				a.endpoints[i].extra.hostname = fmt.Sprint(host, i)
			}
		}
		return a
	}
	land := func(b balancing, a *assignment, shift int) []netip.AddrPort {
		for i := range a.endpoints { // at other addresses
			a.endpoints[i].addr = testAddr(i + shift)
		}
		s := balanced(b, a, nil)
		connectAll(s)
		all := landings(s, 500)
		for i := range all {
			all[i] = testAddr(int(s.indexOf(all[i])))
		}
		return all
	}
	for name, b := range hashPolicies() {
		if !slices.Equal(land(b, named("pod-", ""), 0), land(b, named("pod-", ""), 100)) {
			t.Errorf("%s: the hash_key does not stand for the endpoint", name)
		}
		if slices.Equal(land(b, named("", "host-"), 0), land(b, named("", "host-"), 100)) {
			t.Errorf("%s: the hostname stands for the endpoint though nobody asked", name)
		}
		b.hostnames = true
		if !slices.Equal(land(b, named("", "host-"), 0), land(b, named("", "host-"), 100)) {
			t.Errorf("%s: the hostname does not stand for the endpoint", name)
		}
	}
}

// indexOf finds an endpoint.
func (s *endpointSet) indexOf(addr netip.AddrPort) int {
	return slices.IndexFunc(s.endpoints, func(e endpoint) bool { return e.addr == addr })
}

func TestBoundedLoadSpillsToTheNextEndpoint(t *testing.T) {
	for name, b := range hashPolicies() {
		b.bounded = 120
		s := balanced(b, testAssignment(ones(4)), nil)
		connectAll(s)
		c := choice{hash: 42, hashed: true}
		counts := make([]int, 4)
		for range 100 { // calls of one hash that do not end
			at, found := s.pick(c)
			found.inflight.Add(1)
			counts[at]++
		}
		// Nobody may have more than 120 % of the average, rounded up, and one.
		if slices.Max(counts) > 32 || slices.Min(counts) < 5 {
			t.Errorf("%s: calls in flight are %d", name, counts)
		}
	}
}

func TestARingIsBounded(t *testing.T) {
	weights := ones(3)
	weights[0] = 1_000_000
	s := balanced(balancing{policy: lbRingHash, minRing: 8 << 20, maxRing: 8 << 20}, testAssignment(weights), nil)
	if n := s.tiers[0].picker.(*hashed).order.size(); n > largestRing+1 {
		t.Errorf("the ring has %d points", n)
	}
}

func TestAMaglevTableOfAnySizeIsFilled(t *testing.T) {
	for _, size := range []uint64{1, 4, 100, 65536} {
		s := balanced(balancing{policy: lbMaglev, table: size}, testAssignment(ones(5)), nil)
		m := s.tiers[0].picker.(*hashed).order.(maglev)
		for _, at := range m {
			if at > 4 {
				t.Fatalf("size %d: a place is free", size)
			}
		}
	}
}
