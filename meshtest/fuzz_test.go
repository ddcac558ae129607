package meshtest

import (
	"reflect"
	"testing"
)

// FuzzDecodeRequest: no bytes make the decoder panic, and an error comes without
// a request.
func FuzzDecodeRequest(f *testing.F) {
	node := appendString(nil, 1, "sidecar~1~2~3")
	node = appendMessage(node, 3, appendMessage(nil, 1,
		appendMessage(appendString(nil, 1, "LABELS"), 2, appendMessage(nil, 5, appendMessage(nil, 1,
			appendMessage(appendString(nil, 1, "app"), 2, appendMember(nil, 3, "x")))))))
	q := appendString(nil, 1, "1")
	q = appendMessage(q, 2, node)
	q = appendStrings(q, 3, []string{"a:1", "b"})
	q = appendString(q, 4, ListenerType)
	q = appendMessage(q, 6, appendString(appendVarint(nil, 1, 3), 2, "no"))
	f.Add(q)
	d := appendMessage(nil, 1, node)
	d = appendStrings(appendString(d, 2, ListenerType), 3, []string{"*"})
	d = appendStrings(d, 4, []string{"*"})
	d = appendMessage(d, 5, appendString(appendString(nil, 1, "a"), 2, "1"))
	f.Add(appendString(d, 6, "n"))
	f.Add([]byte{})
	f.Add([]byte{0x12, 0xff})
	deep := []byte{}
	for range 2 * maxDepth {
		deep = appendMessage(nil, 6, appendMessage(nil, 1, deep))
	}
	f.Add(appendMessage(nil, 2, appendMessage(nil, 3, appendMessage(nil, 1, appendMessage(nil, 2, deep)))))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, delta := range []bool{false, true} {
			q, err := decodeRequest(b, delta)
			if err != nil && !reflect.DeepEqual(q, Request{}) {
				t.Fatalf("error %v and request %+v", err, q)
			}
		}
	})
}

func TestMetadataOfAnyKind(t *testing.T) {
	value := func(num int, v []byte) []byte {
		return append([]byte{byte(num<<3 | 2)}, append([]byte{byte(len(v))}, v...)...)
	}
	list := value(6, value(1, value(3, []byte("x"))))
	number := append([]byte{2<<3 | 1}, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f)
	for name, test := range map[string]struct {
		bytes []byte
		want  any
	}{
		"nothing": {[]byte{1 << 3, 0}, nil},
		"number":  {number, 1.5},
		"text":    {value(3, []byte("t")), "t"},
		"yes":     {[]byte{4 << 3, 1}, true},
		"list":    {list, []any{"x"}},
		"struct":  {value(5, value(1, append(value(1, []byte("k")), value(2, value(3, []byte("v")))...))), map[string]any{"k": "v"}},
		"group":   {[]byte{9<<3 | 3, 9<<3 | 4, 4 << 3, 1}, true},
	} {
		got, err := decodeValue(test.bytes, 0)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestOldestRequestsAreForgotten(t *testing.T) {
	r := newRecord()
	for range 3 * recordLimit {
		r.add(Request{})
	}
	list, _ := r.after(0)
	if n := len(list); n < recordLimit/2 || n > recordLimit || list[n-1].Seq != 3*recordLimit {
		t.Fatalf("%d kept, the last is %d", n, list[n-1].Seq)
	}
	if list, _ = r.after(3*recordLimit - 2); len(list) != 2 {
		t.Fatalf("%d of the last two", len(list))
	}
	if list, _ = r.after(3 * recordLimit); len(list) != 0 {
		t.Fatalf("%d after the last", len(list))
	}
}
