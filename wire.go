package proxyless

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxElements is how many list elements of one resource are kept.
const maxElements = 1 << 20

var (
	errMalformed = errors.New("malformed protobuf")
	errCutOff    = errors.New("malformed protobuf: cut off")
)

// cursor walks over the fields of one protobuf message in wire order. Typed
// reads take the field's name for the error and check the wire type; a field
// of the wrong type is an error, unlike in protobuf libraries, which skip it:
// policy must not vanish. Bytes are never copied by the cursor, so that what
// outlives the response has to go through text or decoding.intern.
type cursor struct {
	rest []byte
	num  protowire.Number
	typ  protowire.Type
	val  []byte // of a length-delimited field; its capacity is its length
	u    uint64 // of a varint or fixed field
	err  error
}

func walk(message []byte) cursor { return cursor{rest: message} }

// next moves to the next field. It returns false at the end and after an error.
func (c *cursor) next() bool {
	if c.err != nil || len(c.rest) == 0 {
		return false
	}
	if c.short() {
		return true
	}
	num, typ, n := protowire.ConsumeTag(c.rest)
	if n < 0 {
		return c.broken(n)
	}
	c.num, c.typ, c.val, c.rest = num, typ, nil, c.rest[n:]
	switch typ {
	case protowire.BytesType:
		c.val, n = protowire.ConsumeBytes(c.rest)
		c.val = slices.Clip(c.val)
	case protowire.VarintType:
		c.u, n = protowire.ConsumeVarint(c.rest)
	case protowire.Fixed32Type:
		var u uint32
		u, n = protowire.ConsumeFixed32(c.rest)
		c.u = uint64(u)
	case protowire.Fixed64Type:
		c.u, n = protowire.ConsumeFixed64(c.rest)
	default:
		c.err = inField("field "+strconv.Itoa(int(num)), errors.New("groups are not accepted"))
		return false
	}
	if n < 0 {
		return c.broken(n)
	}
	c.rest = c.rest[n:]
	return true
}

// short takes the field where it is of the most frequent form: length-delimited,
// a tag of one byte, a length of one or two. Anything else is left to next.
func (c *cursor) short() bool {
	b := c.rest
	if len(b) < 3 || b[0]&0x87 != byte(protowire.BytesType) || b[0] < 8 {
		return false
	}
	start, n := 2, int(b[1])
	if n >= 0x80 {
		if b[2] >= 0x80 {
			return false
		}
		start, n = 3, n&0x7f|int(b[2])<<7
	}
	if n > len(b)-start {
		return false
	}
	end := start + n
	c.num, c.typ, c.val, c.rest = protowire.Number(b[0]>>3), protowire.BytesType, b[start:end:end], b[end:]
	return true
}

func (c *cursor) broken(n int) bool {
	c.err = errMalformed
	if errors.Is(protowire.ParseError(n), io.ErrUnexpectedEOF) {
		c.err = errCutOff
	}
	return false
}

// fail ends the walk with an error, if it is one and the first.
func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// is checks the wire type of a field that is known.
func (c *cursor) is(typ protowire.Type, field string) bool {
	if c.typ != typ {
		c.err = inField(field, fmt.Errorf("wire type %d instead of %d", c.typ, typ))
		return false
	}
	return true
}

// bytes reads a length-delimited field without copying it.
func (c *cursor) bytes(field string) []byte {
	if !c.is(protowire.BytesType, field) {
		return nil
	}
	return c.val
}

// raw reads a string field without copying it.
func (c *cursor) raw(field string) []byte {
	if !c.is(protowire.BytesType, field) {
		return nil
	}
	if !utf8.Valid(c.val) {
		c.err = inField(field, errors.New("invalid UTF-8"))
		return nil
	}
	return c.val
}

// text reads and copies a string field. The last occurrence wins.
func (c *cursor) text(field string) string { return string(c.raw(field)) }

// scalar reads a varint field. The last occurrence wins.
func (c *cursor) scalar(field string) uint64 {
	if !c.is(protowire.VarintType, field) {
		return 0
	}
	return c.u
}

// double reads a field of type double. What is no finite number is an error.
func (c *cursor) double(field string) float64 {
	if !c.is(protowire.Fixed64Type, field) {
		return 0
	}
	return c.finite(field, math.Float64frombits(c.u))
}

// float reads a field of type float.
func (c *cursor) float(field string) float64 {
	if !c.is(protowire.Fixed32Type, field) {
		return 0
	}
	return c.finite(field, float64(math.Float32frombits(uint32(c.u))))
}

func (c *cursor) finite(field string, value float64) float64 {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		c.fail(inField(field, errors.New("not a number")))
		return 0
	}
	return value
}

// message reads a singular message field into to, where nil is absent and
// empty is present. As protobuf demands, a message that occurs again is merged
// into what was there: the concatenation of two encodings is their merger.
func (c *cursor) message(field string, to *[]byte) {
	if !c.is(protowire.BytesType, field) {
		return
	}
	if *to == nil {
		*to = c.val
		return
	}
	*to = append(*to, c.val...) // val was clipped: this never writes to the response
}

// submessage finds a singular message field of a message of which nothing else
// is of interest.
func submessage(b []byte, num protowire.Number, field string) (message []byte, err error) {
	c := walk(b)
	for c.next() {
		if c.num == num {
			c.message(field, &message)
		}
	}
	return message, c.err
}

// subtext finds a string field of a message of which nothing else is of
// interest.
func subtext(b []byte, num protowire.Number, field string) (text string, err error) {
	c := walk(b)
	for c.next() {
		if c.num == num {
			text = c.text(field)
		}
	}
	return text, c.err
}

// countField counts the occurrences of a list field, so that a slice can be
// made in its final size. It is not more than maxElements.
func countField(message []byte, num protowire.Number) int {
	n := 0
	c := walk(message)
	for c.next() && n < maxElements {
		if c.num == num {
			n++
		}
	}
	return n
}

// oneof holds the member of a oneof that was seen last; num is 0 while none was.
type oneof struct {
	num protowire.Number
	val []byte // of a string or message
	u   uint64 // of a scalar
}

func (o *oneof) scalar(c *cursor, field string) { *o = oneof{num: c.num, u: c.scalar(field)} }
func (o *oneof) raw(c *cursor, field string)    { *o = oneof{num: c.num, val: c.raw(field)} }

// message merges into the same member and replaces any other.
func (o *oneof) message(c *cursor, field string) {
	if o.num != c.num {
		*o = oneof{num: c.num}
	}
	c.message(field, &o.val)
}

// fieldError says at which field of a resource decoding stopped.
type fieldError struct {
	path string
	err  error
}

func (e *fieldError) Error() string { return e.path + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

// inField puts the name of a field before the path of an error; nil stays nil.
func inField(field string, err error) error {
	if err == nil {
		return nil
	}
	if inner, ok := err.(*fieldError); ok {
		return &fieldError{field + "." + inner.path, inner.err}
	}
	return &fieldError{field, err}
}

// inElement is inField for an element of a list.
func inElement(field string, i int, err error) error {
	if err == nil {
		return nil
	}
	return inField(field+"["+strconv.Itoa(i)+"]", err)
}

func missingField(field string) error { return inField(field, errors.New("missing")) }
