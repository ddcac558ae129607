package proxyless

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"google.golang.org/grpc"
)

func testAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 1)
}

// testAssignment has one locality with the given weights, for each priority.
func testAssignment(priorities ...[]uint32) *assignment {
	a := &assignment{cluster: "c"}
	for p, weights := range priorities {
		l := locality{priority: uint32(p), first: len(a.endpoints), count: len(weights)}
		for _, w := range weights {
			l.weight += w
			a.endpoints = append(a.endpoints, endpoint{addr: testAddr(len(a.endpoints)), weight: w})
		}
		a.localities = append(a.localities, l)
	}
	return a
}

func testSet(a *assignment, prev *endpointSet) *endpointSet {
	var table *connTable
	if prev != nil {
		table = prev.table
	} else {
		table = newConnTable([]grpc.DialOption{grpc.WithContextDialer(nowhere)}, &counters{})
	}
	return newEndpointSet(table, &cluster{name: "c"}, a, nil, prev)
}

// nowhere keeps the tests of picking off the network.
func nowhere(ctx context.Context, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// be puts endpoints into a state without connecting.
func (s *endpointSet) be(state cellState, indexes ...int) {
	for _, i := range indexes {
		c := s.slots[i].Load()
		if c == nil {
			c = s.adopt(uint64(i))
		}
		c.state.Store(uint32(state))
		c.ready.Store(nil)
		if state == cellReady {
			c.ready.Store(new(grpc.ClientConn))
		}
	}
}

func (s *endpointSet) count(t *testing.T, picks int) map[netip.AddrPort]int {
	t.Helper()
	counts := map[netip.AddrPort]int{}
	for range picks {
		c := s.pickOne()
		if c == nil {
			t.Fatal("nothing was picked")
		}
		counts[c.key.addr]++
	}
	return counts
}

func TestAPickDialsAtMostOneEndpoint(t *testing.T) {
	s := testSet(testAssignment(make([]uint32, 50)), nil)
	defer s.table.close()
	for i := range 3 {
		s.pickOne()
		if n := s.table.counts.dials.Load(); n != uint64(i+1) {
			t.Fatalf("%d endpoints dialled by %d picks", n, i+1)
		}
	}
}

func TestAnEmptyAssignmentPicksNothing(t *testing.T) {
	s := testSet(testAssignment(), nil)
	if s.pickOne() != nil || s.expectant() {
		t.Error("there is hope for no endpoints")
	}
}

// TestRetriesElsewherePassOverPrioritiesWithNoUsableEndpoint: panic keeps such
// a priority in the set.
func TestRetriesElsewherePassOverPrioritiesWithNoUsableEndpoint(t *testing.T) {
	panics := func(c *cluster, _ *assignment) { c.panic = 50 }
	elsewhere := choice{extra: &choiceExtra{avoid: []netip.AddrPort{testAddr(0)}}}
	s := priorities(panics, [2]int{2, 0}, [2]int{0, 3}, [2]int{1, 0})
	if _, c := s.pick(elsewhere); c == nil || c.key.addr != testAddr(5) {
		t.Errorf("picked %v, want the third priority's", c)
	}
	s = priorities(panics, [2]int{2, 0}, [2]int{0, 3})
	if _, c := s.pick(elsewhere); c == nil || c.key.addr.Compare(testAddr(2)) >= 0 {
		t.Errorf("picked %v, want the first priority's for want of another", c)
	}
}
