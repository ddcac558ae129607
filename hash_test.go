package proxyless

import (
	"strings"
	"testing"
)

// The expected values are those of the reference implementation.
func TestXXHash64(t *testing.T) {
	for _, c := range []struct {
		text string
		seed uint64
		want uint64
	}{
		{"", 0, 0xef46db3751d8e999},
		{"a", 0, 0xd24ec4f1a98c6e5b},
		{"as", 0, 0x1c330fb2d66be179},
		{"asd", 0, 0x631c37ce72a97393},
		{"asdf", 0, 0x415872f599cea71e},
		{"Call me Ishmael. Some years ago--never mind how long precisely-", 0, 0x02a2e85470d6fd96},
		{"", 1, 0xd5afba1336a3be4b},
	} {
		if got := xxHash64([]byte(c.text), c.seed); got != c.want {
			t.Errorf("%q with seed %d hashes to %#x, want %#x", c.text, c.seed, got, c.want)
		}
	}
}

func TestXXHash64OfAStringAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	text := strings.Repeat("a header of some length ", 20)
	var sum uint64
	if allocs := leastAllocs(100, func() { sum += xxHash64([]byte(text), 0) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
