package proxyless

import (
	"reflect"
	"testing"
)

func TestClaimLookup(t *testing.T) {
	set := &tokenClaimSet{entries: []tokenEntry{{"payload", map[string]any{
		"iss": "one", "n": 1.5, "ok": true, "none": nil, "groups": []any{"a", "b"}, "deep": map[string]any{"er": "x"},
	}}}}
	other := set.with(&tokenClaimSet{entries: []tokenEntry{{"payload", map[string]any{"iss": "two"}}, {"more", map[string]any{"iss": "three"}}}})
	for _, c := range []struct {
		set  *tokenClaimSet
		path []string
		want any
		ok   bool
	}{
		{set, []string{"payload", "iss"}, "one", true},
		{set, []string{"payload", "n"}, 1.5, true},
		{set, []string{"payload", "ok"}, true, true},
		{set, []string{"payload", "none"}, nil, true},
		{set, []string{"payload", "groups"}, []any{"a", "b"}, true},
		{set, []string{"payload", "groups", "0"}, nil, false},
		{set, []string{"payload", "deep", "er"}, "x", true},
		{set, []string{"payload", "deep.er"}, nil, false},
		{set, []string{"payload", "deep", "er", "x"}, nil, false},
		{set, []string{"payload", "absent"}, nil, false},
		{set, []string{"iss"}, nil, false},
		{set, nil, nil, false},
		{nil, []string{"payload", "iss"}, nil, false},
		{other, []string{"payload", "iss"}, "two", true},
		{other, []string{"payload", "ok"}, nil, false},
		{other, []string{"more", "iss"}, "three", true},
		{(*tokenClaimSet)(nil).with(set), []string{"payload", "iss"}, "one", true},
		{set.with(nil), []string{"payload", "iss"}, "one", true},
	} {
		if got, ok := c.set.lookup(c.path); ok != c.ok || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %v, %t; want %v, %t", c.path, got, ok, c.want, c.ok)
		}
	}
	path := []string{"payload", "deep", "er"}
	if n := leastAllocs(100, func() { set.lookup(path) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}
