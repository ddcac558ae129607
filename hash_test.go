package proxyless

import (
	"math/bits"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
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

func TestHashPolicies(t *testing.T) {
	hash := func(text string) uint64 { return xxHash64([]byte(text), 0) }
	who := &caller{id: 12345, ip: "10.1.2.3"}
	ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs(
		"user", "jason", "many", "a", "many", "b", "trace-bin", "x", "path", "/v1/users/7", "cookie", `a=1; session="abc"; b=2`, "cookie", "late=z"))
	user, absent := hashPolicy{kind: hashHeader, name: "user"}, hashPolicy{kind: hashHeader, name: "nobody-sends-this"}
	terminal := func(p hashPolicy) hashPolicy { p.terminal = true; return p }
	for name, c := range map[string]struct {
		policies []hashPolicy
		want     uint64
		none     bool
	}{
		"no policy":                {none: true},
		"a header":                 {policies: []hashPolicy{user}, want: hash("jason")},
		"all values of a header":   {policies: []hashPolicy{{name: "many"}}, want: hash("a,b")},
		"a header that is missing": {policies: []hashPolicy{absent}, none: true},
		"a binary header":          {policies: []hashPolicy{{name: "trace-bin"}}, none: true},
		"a pseudo header":          {policies: []hashPolicy{{name: ":path"}}, want: hash("/s/M")},
		"a header rewritten": {policies: []hashPolicy{{name: "path", rewrite: regexp.MustCompile(`/users/\d+`), substitute: "/users"}},
			want: hash("/v1/users")},
		"a cookie":                  {policies: []hashPolicy{{kind: hashCookie, name: "session"}}, want: hash("abc")},
		"a cookie of another line":  {policies: []hashPolicy{{kind: hashCookie, name: "late"}}, want: hash("z")},
		"a cookie that is missing":  {policies: []hashPolicy{{kind: hashCookie, name: "c"}}, none: true},
		"a cookie to be generated":  {policies: []hashPolicy{{kind: hashCookie, name: "c", hasTTL: true}}, want: hash(who.cookie())},
		"the source address":        {policies: []hashPolicy{{kind: hashSource}}, want: hash("10.1.2.3")},
		"a query parameter":         {policies: []hashPolicy{{kind: hashQuery, name: "q"}}, none: true},
		"the channel":               {policies: []hashPolicy{{kind: hashChannelID}}, want: 12345},
		"two":                       {policies: []hashPolicy{user, {kind: hashSource}}, want: bits.RotateLeft64(hash("jason"), 1) ^ hash("10.1.2.3")},
		"two, one without result":   {policies: []hashPolicy{user, absent}, want: hash("jason")},
		"a terminal one":            {policies: []hashPolicy{terminal(user), {kind: hashSource}}, want: hash("jason")},
		"past an empty terminal":    {policies: []hashPolicy{terminal(absent), user}, want: hash("jason")},
		"an empty one that is last": {policies: []hashPolicy{user, terminal(absent), {kind: hashSource}}, want: hash("jason")},
	} {
		in := hashInput{caller: who, headers: callHeaders{ctx: ctx, path: "/s/M"}}
		got, found, generated := hashOf(c.policies, &in)
		if found == c.none || got != c.want && found {
			t.Errorf("%s: %d, %v; want %d, %v", name, got, found, c.want, !c.none)
		}
		if want := name == "a cookie to be generated"; (generated != nil) != want {
			t.Errorf("%s: generated %v", name, generated)
		}
	}
}

func TestRequestsHashByMethodAndContent(t *testing.T) {
	of := func(path, text string) uint64 {
		hash, _, _ := hashOf([]hashPolicy{{kind: hashMessage}}, &hashInput{message: wrapperspb.String(text), headers: callHeaders{path: path}})
		return hash
	}
	first, again := of("/s/M", "a"), of("/s/M", "a")
	if first != again || first == of("/s/M", "b") || first == of("/s/N", "a") {
		t.Error("equal requests must have equal hashes, others different ones")
	}
	if _, found, _ := hashOf([]hashPolicy{{kind: hashMessage}}, &hashInput{}); found {
		t.Error("a stream has no request")
	}
}

func TestHashOfACallWithoutItsHeaderAllocatesNothing(t *testing.T) {
	skipUnderRace(t)
	ctx := metadata.NewOutgoingContext(t.Context(), metadata.Pairs("other", "x"))
	policies := []hashPolicy{{kind: hashHeader, name: "user"}, {kind: hashSource}, {kind: hashChannelID}}
	who := &caller{id: 1, ip: "10.1.2.3"}
	var sum uint64
	allocs := leastAllocs(100, func() {
		in := hashInput{caller: who, headers: callHeaders{ctx: ctx, path: "/s/M"}}
		hash, _, _ := hashOf(policies, &in)
		sum += hash
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	ctx = metadata.NewOutgoingContext(t.Context(), metadata.Pairs("user", "jason"))
	if allocs := leastAllocs(100, func() {
		in := hashInput{caller: who, headers: callHeaders{ctx: ctx, path: "/s/M"}}
		hash, _, _ := hashOf(policies, &in)
		sum += hash
	}); allocs > 1 {
		t.Errorf("%v allocations with the header, want gRPC's copy alone", allocs)
	}
}

func TestSetCookieIsWrittenAsByEnvoy(t *testing.T) {
	for want, got := range map[string]string{
		`a="b"; HttpOnly`:                      setCookie("a", "b", "", 0),
		`a="b"; Max-Age=90; Path=/x; HttpOnly`: setCookie("a", "b", "/x", 90*time.Second),
		`sid="MQ=="; Path=/; HttpOnly`:         setCookie("sid", "MQ==", "/", 0),
		`sid="MQ=="; Max-Age=3600; HttpOnly`:   setCookie("sid", "MQ==", "", time.Hour),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
