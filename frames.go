package proxyless

import "encoding/binary"

// preface is what an HTTP/2 client sends first.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// The frames of HTTP/2 that the gate looks at.
const (
	frameHeaders      = 1
	framePing         = 6
	frameGoAway       = 7
	frameContinuation = 9
	framePushPromise  = 5

	flagAck        = 1
	flagEndHeaders = 4

	frameHeadSize = 9
	pingSize      = 8
	goAwaySize    = 8 // without its debug data
	maxStream     = 1<<31 - 1
)

// opening is what the first bytes of a connection say that it is.
type opening uint8

const (
	openingShort opening = iota // too few bytes to tell
	openingTLS                  // a TLS record of a handshake
	openingHTTP2                // the whole preface
	openingOther
)

// sniff tells TLS from HTTP/2 in the clear.
func sniff(b []byte) opening {
	switch {
	case len(b) == 0, len(b) == 1 && b[0] == 0x16:
		return openingShort
	case b[0] == 0x16 && b[1] == 0x03:
		return openingTLS
	}
	n := min(len(b), len(preface))
	switch {
	case string(b[:n]) != preface[:n]:
		return openingOther
	case n < len(preface):
		return openingShort
	}
	return openingHTTP2
}

// frameWalk follows the frames of one direction of an HTTP/2 connection, whose
// bytes come in any pieces.
type frameWalk struct {
	head [frameHeadSize]byte
	body [pingSize]byte // the first bytes of the payload
	have int            // bytes of head
	left uint32         // bytes of the payload that are still to come
	ends uint64         // frames that ended
	open bool           // a header block goes on in the next frame, and nothing may come between
}

// step takes bytes up to the end of the frame at most. It says how many, and
// whether the frame ended with them.
func (w *frameWalk) step(b []byte) (n int, ended bool) {
	if w.have < frameHeadSize {
		n = copy(w.head[w.have:], b)
		if w.have += n; w.have < frameHeadSize {
			return n, false
		}
		w.left = w.size()
	}
	if rest := b[n:]; w.left > 0 {
		part := int(min(uint64(w.left), uint64(len(rest))))
		if done := w.size() - w.left; done < pingSize {
			copy(w.body[done:], rest[:part])
		}
		w.left -= uint32(part)
		n += part
	}
	if w.left > 0 {
		return n, false
	}
	w.have = 0
	w.ends++
	if kind := w.kind(); kind == frameHeaders || kind == framePushPromise || kind == frameContinuation {
		w.open = w.flags()&flagEndHeaders == 0
	}
	return n, true
}

// The parts of the frame that ended last.

func (w *frameWalk) size() uint32   { return binary.BigEndian.Uint32(w.head[:]) >> 8 }
func (w *frameWalk) kind() byte     { return w.head[3] }
func (w *frameWalk) flags() byte    { return w.head[4] }
func (w *frameWalk) stream() uint32 { return binary.BigEndian.Uint32(w.head[5:]) & maxStream }

// between says that the next byte may be that of any frame. Before the first
// frame, which has to be SETTINGS, it may not.
func (w *frameWalk) between() bool { return w.have == 0 && !w.open && w.ends > 0 }

// appendGoAway appends a GOAWAY that asks for no new streams, and takes those
// that are on their way; and a PING whose answer says that it was read.
func appendGoAway(b []byte, reason string, ping [pingSize]byte) []byte {
	b = appendFrameHead(b, goAwaySize+len(reason), frameGoAway)
	b = binary.BigEndian.AppendUint32(b, maxStream)
	b = binary.BigEndian.AppendUint32(b, 0) // NO_ERROR
	b = append(b, reason...)
	return append(appendFrameHead(b, pingSize, framePing), ping[:]...)
}

func appendFrameHead(b []byte, size int, kind byte) []byte {
	return append(b, byte(size>>16), byte(size>>8), byte(size), kind, 0, 0, 0, 0, 0)
}
