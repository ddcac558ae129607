package proxyless

import (
	"testing"
)

func TestReadyEndpointsTakeTurns(t *testing.T) {
	s := testSet(testAssignment([]uint32{1, 1, 1, 1}), nil)
	s.be(cellReady, 0, 1, 2, 3)
	for addr, n := range s.count(t, 400) {
		if n != 100 {
			t.Errorf("%s was picked %d times in 400", addr, n)
		}
	}
}

func TestAFailedEndpointsShareIsSpreadOverAll(t *testing.T) {
	s := testSet(testAssignment([]uint32{1, 1, 1, 1}), nil)
	s.be(cellReady, 0, 2, 3)
	s.be(cellFailed, 1)
	for addr, n := range s.count(t, 300) {
		if n != 100 || addr == testAddr(1) {
			t.Errorf("%s was picked %d times in 300", addr, n)
		}
	}
}

func TestWeightsAreHonoured(t *testing.T) {
	s := testSet(testAssignment([]uint32{1, 2, 7}), nil)
	s.be(cellReady, 0, 1, 2)
	counts := s.count(t, 10_000)
	for i, want := range []int{1000, 2000, 7000} {
		if n := counts[testAddr(i)]; n < want-20 || n > want+20 {
			t.Errorf("endpoint %d was picked %d times, want %d", i, n, want)
		}
	}
}
