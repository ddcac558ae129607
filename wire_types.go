package proxyless

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
)

// decodeDuration reads a google.protobuf.Duration; what does not fit into a
// [time.Duration] becomes the longest one. Nothing that is read may be
// negative, so that is an error.
func decodeDuration(message []byte) (time.Duration, error) {
	var seconds, nanos int64
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			seconds = int64(c.scalar("seconds"))
		case 2:
			nanos = int64(int32(c.scalar("nanos")))
		}
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case seconds < 0 || nanos < 0:
		return 0, errors.New("negative duration")
	case seconds > 315_576_000_000 || nanos > 999_999_999:
		return 0, errors.New("duration out of range")
	case seconds >= math.MaxInt64/int64(time.Second):
		return math.MaxInt64, nil
	}
	return time.Duration(seconds)*time.Second + time.Duration(nanos), nil
}

// decodeWrapped reads the varint of a google.protobuf wrapper: BoolValue,
// UInt32Value and the like. An empty wrapper is an explicit zero.
func decodeWrapped(message []byte) (uint64, error) {
	var value uint64
	c := walk(message)
	for c.next() {
		if c.num == 1 {
			value = c.scalar("value")
		}
	}
	return value, c.err
}

// decodeDouble reads the first field of a message, a double: that of an
// envoy.type.v3.Percent or of an envoy.config.core.v3.RuntimeDouble.
func decodeDouble(message []byte) (float64, error) {
	var value float64
	c := walk(message)
	for c.next() {
		if c.num == 1 {
			value = c.double("value")
		}
	}
	return value, c.err
}

// decodeFloat reads a google.protobuf.FloatValue.
func decodeFloat(message []byte) (float64, error) {
	var value float64
	c := walk(message)
	for c.next() {
		if c.num == 1 {
			value = c.float("value")
		}
	}
	return value, c.err
}

// decodePercent reads an envoy.type.v3.Percent: 0 to 100.
func decodePercent(message []byte) (float64, error) {
	value, err := decodeDouble(message)
	if err == nil && (value < 0 || value > 100) {
		err = inField("value", fmt.Errorf("%g is not a percentage", value))
	}
	return value, err
}

// decodeFraction reads an envoy.type.v3.FractionalPercent as parts per
// million, at most a million.
func decodeFraction(message []byte) (uint32, error) {
	share, _, err := decodeShare(message)
	return share, err
}

// decodeShare is decodeFraction that also tells how many parts per million 1
// of the numerator is.
func decodeShare(message []byte) (share, unit uint32, err error) {
	var numerator, denominator uint64
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			numerator = uint64(uint32(c.scalar("numerator")))
		case 2:
			denominator = c.scalar("denominator")
		}
	}
	if c.err != nil {
		return 0, 0, c.err
	}
	scales := [...]uint64{10_000, 100, 1} // HUNDRED, TEN_THOUSAND, MILLION
	if denominator >= uint64(len(scales)) {
		return 0, 0, inField("denominator", fmt.Errorf("unknown value %d", int32(denominator)))
	}
	scale := scales[denominator]
	return uint32(min(numerator*scale, 1_000_000)), uint32(scale), nil
}

// decodeAny reads a google.protobuf.Any; both results alias the message.
func decodeAny(message []byte) (typeURL, value []byte, err error) {
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			typeURL = c.raw("type_url")
		case 2:
			value = c.bytes("value")
		}
	}
	return typeURL, value, c.err
}

// typeName is the part of a type URL that counts: what follows the last slash.
func typeName(typeURL []byte) []byte { return typeURL[bytes.LastIndexByte(typeURL, '/')+1:] }

// extension is the configuration of a pluggable part: a filter, a transport
// socket, a policy.
type extension struct {
	name  string // of its message type
	value []byte // the message, or the google.protobuf.Struct of a TypedStruct
	json  bool   // value is a Struct, so that the message's fields cannot be read
}

// decodeExtension reads the Any of an extension. A TypedStruct, which carries
// a configuration as JSON under the type URL that it is meant for, is
// unwrapped (gRFC A39).
func decodeExtension(message []byte) (extension, error) {
	url, value, err := decodeAny(message)
	x := extension{name: string(typeName(url)), value: value}
	if err != nil || x.name != "xds.type.v3.TypedStruct" && x.name != "udpa.type.v1.TypedStruct" {
		return x, err
	}
	url, x.value, x.json = nil, nil, true
	c := walk(value)
	for c.next() {
		switch c.num {
		case 1:
			url = c.raw("type_url")
		case 2:
			c.message("value", &x.value)
		}
	}
	x.name = string(typeName(url))
	return x, inField("value", c.err)
}
