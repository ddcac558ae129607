package proxyless

import (
	"strings"
	"testing"
)

func TestAnEndpointThatWasNeverDialledIsNotSaidToHaveFailed(t *testing.T) {
	s := testSet(testAssignment([]uint32{1, 1}), nil)
	if text := s.unready(&plan{}).Error(); !strings.Contains(text, "none of 2 endpoints is ready: none was dialled yet;") {
		t.Error(text)
	}
	s.be(cellConnecting, 1)
	if text := s.unready(&plan{}).Error(); !strings.Contains(text, "none of 2 endpoints is ready: "+testAddr(1).String()+": connecting") {
		t.Error(text)
	}
}
