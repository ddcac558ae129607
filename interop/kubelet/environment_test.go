package kubelet

import (
	"encoding/json"
	"testing"
)

func TestExpand(t *testing.T) {
	env := []string{"A=1", "B=two words", "A=3"}
	cases := []struct{ text, want string }{
		{"", ""},
		{"plain", "plain"},
		{"$(A)", "3"},
		{"x$(B)y$(A)", "xtwo wordsy3"},
		{"$$(A)", "$(A)"},
		{"$(C)", "$(C)"},
		{"$(A", "$(A"},
		{"$A)", "$A)"},
		{"5$", "5$"},
	}
	for _, c := range cases {
		if got := expand(c.text, env); got != c.want {
			t.Errorf("expand(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestQuotedLabels(t *testing.T) {
	got := quoted(map[string]string{"b": `x"y`, "a/c": "1"})
	if want := "a/c=\"1\"\nb=\"x\\\"y\""; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPort(t *testing.T) {
	var ports []port
	if err := json.Unmarshal([]byte(`[8080, "http"]`), &ports); err != nil {
		t.Fatal(err)
	}
	if ports[0] != (port{number: 8080}) || ports[1] != (port{name: "http"}) {
		t.Errorf("got %+v", ports)
	}
}

func TestUnsupportedIsRefused(t *testing.T) {
	for _, spec := range []string{
		`{"containers": [{"name": "a"}, {"name": "b"}]}`,
		`{"containers": [{"name": "a"}], "initContainers": [{"name": "b"}]}`,
		`{"containers": [{"name": "a", "envFrom": [{}]}]}`,
		`{"containers": [{"name": "a", "readinessProbe": {"exec": {}}}]}`,
		`{"containers": [{"name": "a", "lifecycle": {"preStop": {"exec": {}}}}]}`,
	} {
		var w worker
		if err := json.Unmarshal([]byte(spec), &w.pod.Spec); err != nil {
			t.Fatal(err)
		}
		if w.supported() == nil {
			t.Errorf("%s was taken", spec)
		}
	}
}

// TestAddressesRest shows that an address is not given out again at once.
func TestAddressesRest(t *testing.T) {
	var a addresses
	first, err := a.take()
	if err != nil {
		t.Fatal(err)
	}
	a.release(first)
	for range lastAddress - firstAddress {
		if n, err := a.take(); err != nil || n == first {
			t.Fatalf("got %d %v", n, err)
		}
	}
	if n, err := a.take(); err != nil || n != first {
		t.Errorf("the last free address: got %d %v, want %d", n, err, first)
	}
	if _, err := a.take(); err == nil {
		t.Error("an address was taken twice")
	}
}
