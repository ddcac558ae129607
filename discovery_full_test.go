package proxyless

import (
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
