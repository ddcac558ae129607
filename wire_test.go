package proxyless

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	udpatype "github.com/cncf/xds/go/udpa/type/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestCursorRefusesWhatIsNotProtobuf(t *testing.T) {
	group := protowire.AppendTag(nil, 4, protowire.StartGroupType)
	group = protowire.AppendTag(group, 4, protowire.EndGroupType)
	for name, test := range map[string]struct {
		raw  rawProto
		want string
	}{
		"a group":                 {group, "field 4: groups are not accepted"},
		"the end of a group":      {protowire.AppendTag(nil, 4, protowire.EndGroupType), "field 4: groups are not accepted"},
		"field 0":                 {rawProto{0x02, 0x01, 'x'}, "malformed protobuf"},
		"a cut-off tag":           {rawProto{0x80}, "malformed protobuf: cut off"},
		"a cut-off string":        {rawProto{0x0A, 0x05, 'a', 'b'}, "malformed protobuf: cut off"},
		"a cut-off long string":   {rawProto{0x0A, 0x80, 0x01, 'a'}, "malformed protobuf: cut off"},
		"a cut-off varint":        {rawProto{0x10, 0xFF}, "malformed protobuf: cut off"},
		"an endless varint":       {append(rawProto{0x10}, bytes.Repeat([]byte{0xFF}, 11)...), "malformed protobuf"},
		"a cut-off fixed32":       {rawProto{0x1D, 1, 2, 3}, "malformed protobuf: cut off"},
		"a cut-off fixed64":       {rawProto{0x19, 1, 2, 3}, "malformed protobuf: cut off"},
		"a number for a string":   {rawProto{}.num(1, 7), "name: wire type 0 instead of 2"},
		"a string that is not":    {rawProto{}.text(1, "caf\xe9"), "name: invalid UTF-8"},
		"a string for a number":   {rawProto{}.text(1, "x").text(2, "7"), "type: wire type 2 instead of 0"},
		"a number for a message":  {rawProto{}.text(1, "x").num(3, 7), "eds_cluster_config: wire type 0 instead of 2"},
		"a fault inside":          {rawProto{}.text(1, "x").num(2, 3).msg(3, rawProto{}.num(2, 1)), "eds_cluster_config.service_name: wire type 0 instead of 2"},
		"a broken message inside": {rawProto{}.text(1, "x").msg(4, rawProto{0x08}), "connect_timeout: malformed protobuf: cut off"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeResource(kindCluster, test.raw)
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

func TestCursorReadsEveryFormOfLength(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 70000} {
		want := strings.Repeat("x", n)
		raw := rawProto{}.text(1, want).text(100, want).num(3, 1)
		// The same with lengths in more bytes than they need.
		long := append(rawProto{0x0A, byte(n) | 0x80, byte(n>>7) | 0x80, byte(n>>14) | 0x80, 0}, want...).text(100, want).num(3, 1)
		for _, m := range []rawProto{raw, long} {
			c := walk(m)
			for _, field := range []protowire.Number{1, 100} {
				if !c.next() || c.num != field || string(c.val) != want || cap(c.val) != n {
					t.Fatalf("length %d: field %d of %d bytes (%v)", n, c.num, len(c.val), c.err)
				}
			}
			if !c.next() || c.num != 3 || c.val != nil || c.next() || c.err != nil {
				t.Fatalf("length %d: ends with field %d (%v)", n, c.num, c.err)
			}
		}
	}
}

func TestMessagesThatOccurTwiceAreMerged(t *testing.T) {
	first, second := durationpb.New(7*time.Second), &durationpb.Duration{Nanos: 5}
	raw := rawProto{}.msg(4, mustMarshal(t, first), mustMarshal(t, second))
	before := bytes.Clone(raw)
	var merged []byte
	c := walk(raw)
	for c.next() {
		c.message("connect_timeout", &merged)
	}
	if got, err := decodeDuration(merged); err != nil || got != 7*time.Second+5 {
		t.Errorf("%v, %v", got, err)
	}
	if !bytes.Equal(raw, before) {
		t.Error("merging wrote to the response")
	}
}

func TestOneofKeepsItsLastMember(t *testing.T) {
	raw := rawProto{}.text(1, "one").msg(3, rawProto{}.num(1, 1)).msg(3, rawProto{}.num(2, 2)).num(7, 9)
	want := []struct {
		num protowire.Number
		val string
		u   uint64
	}{{1, "one", 0}, {3, "\x08\x01", 0}, {3, "\x08\x01\x10\x02", 0}, {7, "", 9}}
	var o oneof
	c := walk(raw)
	for i := 0; c.next(); i++ {
		switch c.num {
		case 1:
			o.raw(&c, "a")
		case 3:
			o.message(&c, "b")
		case 7:
			o.scalar(&c, "c")
		}
		if o.num != want[i].num || string(o.val) != want[i].val || o.u != want[i].u {
			t.Errorf("after field %d: %+v", i, o)
		}
	}
}

func TestDurations(t *testing.T) {
	for _, want := range []time.Duration{0, 1, time.Millisecond, 90 * time.Second, 292 * 365 * 24 * time.Hour} {
		if got, err := decodeDuration(mustMarshal(t, durationpb.New(want))); err != nil || got != want {
			t.Errorf("%v became %v, %v", want, got, err)
		}
	}
	if got, err := decodeDuration(mustMarshal(t, &durationpb.Duration{Seconds: 315_576_000_000})); err != nil || got != math.MaxInt64 {
		t.Errorf("ten thousand years became %v, %v", got, err)
	}
	for _, bad := range []*durationpb.Duration{{Seconds: -1}, {Nanos: -1}, {Seconds: 315_576_000_001}, {Nanos: 1_000_000_000}} {
		if got, err := decodeDuration(mustMarshal(t, bad)); err == nil {
			t.Errorf("%v became %v", bad, got)
		}
	}
}

func TestWrappers(t *testing.T) {
	for _, test := range []struct {
		message proto.Message
		want    uint64
	}{
		{wrapperspb.UInt32(0), 0}, {wrapperspb.UInt32(math.MaxUint32), math.MaxUint32}, {wrapperspb.Bool(true), 1}, {wrapperspb.UInt64(1 << 60), 1 << 60},
	} {
		if got, err := decodeWrapped(mustMarshal(t, test.message)); err != nil || got != test.want {
			t.Errorf("%v became %d, %v", test.message, got, err)
		}
	}
}

func TestFractions(t *testing.T) {
	for _, test := range []struct{ numerator, denominator, want uint64 }{
		{0, 0, 0}, {50, 0, 500_000}, {100, 0, 1_000_000}, {101, 0, 1_000_000}, {1, 1, 100}, {1, 2, 1}, {math.MaxUint32, 0, 1_000_000},
	} {
		got, err := decodeFraction(rawProto{}.num(1, test.numerator).num(2, test.denominator))
		if err != nil || uint64(got) != test.want {
			t.Errorf("%d of scale %d became %d, %v", test.numerator, test.denominator, got, err)
		}
	}
	if _, err := decodeFraction(rawProto{}.num(1, 1).num(2, 3)); err == nil || err.Error() != "denominator: unknown value 3" {
		t.Errorf("error %v", err)
	}
}

// The types come from the module in which xDS itself is specified.
func TestTypedStructIsTheTypeThatItIsMeantFor(t *testing.T) {
	config, err := structpb.NewStruct(map[string]any{"fault": map[string]any{"abort": 503.0}})
	if err != nil {
		t.Fatal(err)
	}
	typed := &udpatype.TypedStruct{TypeUrl: typePrefix + typeFault, Value: config}
	packed, err := anypb.New(typed)
	if err != nil {
		t.Fatal(err)
	}
	// xds.type.v3.TypedStruct is the same message under its present name.
	renamed := &anypb.Any{TypeUrl: typePrefix + "xds.type.v3.TypedStruct", Value: packed.Value}
	for _, message := range []*anypb.Any{packed, renamed} {
		got, err := decodeExtension(mustMarshal(t, message))
		if err != nil || got.name != typeFault || !got.json {
			t.Fatalf("%s: %+v, %v", message.TypeUrl, got, err)
		}
		var content structpb.Struct
		if err := proto.Unmarshal(got.value, &content); err != nil || !proto.Equal(&content, config) {
			t.Errorf("%s: content %v, %v", message.TypeUrl, &content, err)
		}
	}
	plain, err := decodeExtension(mustMarshal(t, &anypb.Any{TypeUrl: "a/b/" + typeFault, Value: []byte("\x08\x01")}))
	if err != nil || plain.name != typeFault || plain.json || string(plain.value) != "\x08\x01" {
		t.Errorf("%+v, %v", plain, err)
	}
}

func TestErrorsCarryThePath(t *testing.T) {
	cause := errors.New("bad")
	err := inField("a", inElement("b", 2, inField("c", cause)))
	if err.Error() != "a.b[2].c: bad" || !errors.Is(err, cause) {
		t.Error(err)
	}
	if inField("a", nil) != nil || inElement("a", 1, nil) != nil {
		t.Error("an error out of nothing")
	}
}

func mustMarshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
