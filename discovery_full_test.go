package proxyless

import (
	"hash/maphash"
	"strings"
	"testing"
)

// fullScript is a script in the full view whose listeners are given line by
// line; a listener with the word "odd" has policy that is not applied.
func fullScript(t *testing.T) *script {
	s := newScript(t, []byte("view full\n"))
	s.d.decode = func(k kind, b []byte) (decoded, error) {
		got, err := decodeToy(k, b)
		if strings.Contains(string(b), " odd") {
			got.ignored = []string{"odd"}
		}
		return got, err
	}
	return s
}

func TestStrictModeTakesTheLastGoodListenerBack(t *testing.T) {
	s := fullScript(t)
	s.d.strict = true
	good := "receive listener v l\n  0.0.0.0_80 routes 80\n"
	s.run([]byte("refer p:80\nconnect\nreceive cluster v c\n  outbound|80||p.ns.svc.x\n" + good))
	s.run([]byte("receive listener w l\n  0.0.0.0_80 routes 80 odd\n"))
	if e := s.d.entries[kindListener]["p:80"]; e.status != statusAccepted || e.rejection == "" {
		t.Fatalf("%s, rejection %q: want the last good one, and the new one refused", e.status, e.rejection)
	}
	s.run([]byte(good))
	if e := s.d.entries[kindListener]["p:80"]; e.rejection != "" {
		t.Errorf("still rejected, though what was refused is gone: %s", e.rejection)
	}
}

func TestTheFullViewForgetsWhatNobodyRefersTo(t *testing.T) {
	s := fullScript(t)
	s.run([]byte("connect\nreceive cluster v c\n  PassthroughCluster passthrough\nreceive listener v l\n  0.0.0.0_80 routes 80\n  virtualOutbound to PassthroughCluster\n"))
	for _, name := range []string{"p:80", "e.com:80", "e.com:81"} {
		s.run([]byte("refer " + name + "\nrelease " + name + "\n"))
	}
	for k := range s.d.entries {
		if n := len(s.d.entries[k]); n > 0 {
			t.Errorf("%d entries of %ss", n, kind(k))
		}
	}
	if v := s.d.view; len(v.passages)+len(v.tables)+len(s.d.lookups) > 0 {
		t.Errorf("held: passages %v, tables %v, names %v", v.passages, v.tables, s.d.lookups)
	}
}

func TestOthersListenersCostNoRoutes(t *testing.T) {
	s := fullScript(t)
	decodes := 0
	decode := s.d.decodeTable
	s.d.decodeTable = func(b []byte, wanted func([]byte) bool, digest *maphash.Hash) (decoded, error) {
		decodes++
		return decode(b, wanted, digest)
	}
	clusters := "receive cluster v c\n  outbound|80||p.ns.svc.x\n"
	s.run([]byte("refer p:80\nconnect\n" + clusters + "receive listener v l\n  0.0.0.0_80 routes 80\nreceive route v r\n  80 : p.ns.svc.x -> outbound|80||p.ns.svc.x\n"))
	before := decodes
	s.run([]byte(clusters + "  outbound|90||q.ns.svc.x\nreceive listener v l\n  0.0.0.0_80 routes 80\n  0.0.0.0_90 routes 90\n"))
	if decodes > before {
		t.Errorf("routes were looked through %d times for a listener and a cluster of somebody else", decodes-before)
	}
}
