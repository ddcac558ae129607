package proxyless

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// rawH2 is a client that speaks HTTP/2 by hand.
type rawH2 struct {
	t    testing.TB
	conn net.Conn
}

type rawFrame struct {
	kind, flags byte
	stream      uint32
	body        []byte
}

func rawClient(t testing.TB, addr string) *rawH2 {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { conn.Close() })
	return &rawH2{t, conn}
}

func (c *rawH2) send(kind, flags byte, stream uint32, body []byte) {
	c.conn.Write(rawFrame{kind, flags, stream, body}.append(nil)) // where it was cut, reading tells
}

func (f rawFrame) append(b []byte) []byte {
	b = append(b, byte(len(f.body)>>16), byte(len(f.body)>>8), byte(len(f.body)), f.kind, f.flags)
	return append(binary.BigEndian.AppendUint32(b, f.stream), f.body...)
}

// settle greets, and waits until the gate counts the connection as open.
func (c *rawH2) settle(s *gated) {
	c.t.Helper()
	io.WriteString(c.conn, preface)
	c.send(h2Settings, 0, 0, nil)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.gate.mu.Lock()
		open := len(s.gate.open)
		s.gate.mu.Unlock()
		if open == 1 {
			return
		}
		if time.Now().After(end) {
			c.t.Fatal("the connection never opens")
		}
	}
}

// await reads up to a frame of the kind.
func (c *rawH2) await(kind byte) rawFrame {
	c.t.Helper()
	for {
		f, err := readRawFrame(c.conn)
		if err != nil {
			c.t.Fatalf("before a frame of kind %d: %v", kind, err)
		}
		if f.kind == kind {
			return f
		}
	}
}

// drain reads until the connection was ended.
func (c *rawH2) drain() {
	c.t.Helper()
	if _, err := io.Copy(io.Discard, c.conn); err != nil {
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			c.t.Error("the connection is never ended")
		}
	}
}

func readRawFrame(r io.Reader) (f rawFrame, err error) {
	var head [frameHeadSize]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	f.kind, f.flags, f.stream = head[3], head[4], binary.BigEndian.Uint32(head[5:])&maxStream
	f.body = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(r, f.body)
	return f, err
}

// FuzzSniff holds that what the first bytes say does not depend on how many of
// them came, and that it is right.
func FuzzSniff(f *testing.F) {
	for _, seed := range []string{"", "\x16", "\x16\x03\x01\x02\x00\x01", "\x16\x02", preface, preface + "\x00", preface[:23], "PRI * HTTP/1.1\r\n", "GET / HTTP/1.1\r\n", "\x80", "P"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var decided opening
		for n := range len(b) + 1 {
			got := sniff(b[:n])
			if decided != openingShort && got != decided {
				t.Fatalf("after %d bytes it is %d, which was %d", n, got, decided)
			}
			decided = got
			couldBeTLS := n < 2 && strings.HasPrefix("\x16\x03", string(b[:n])) || n >= 2 && string(b[:2]) == "\x16\x03"
			couldBeHTTP2 := strings.HasPrefix(preface, string(b[:min(n, len(preface))]))
			want := openingOther
			switch {
			case couldBeTLS && n >= 2:
				want = openingTLS
			case couldBeHTTP2 && n >= len(preface):
				want = openingHTTP2
			case couldBeTLS || couldBeHTTP2:
				want = openingShort
			}
			if got != want {
				t.Fatalf("%q is %d, want %d", b[:n], got, want)
			}
		}
	})
}

// walked is what a walk through frames found.
type walked struct {
	kinds   []byte
	streams []uint32
	edges   []int // after how many bytes another frame may come
}

// walkOf walks in pieces.
func walkOf(b []byte, piece func() int) (all walked) {
	var w frameWalk
	for at := 0; at < len(b); {
		part := b[at:min(len(b), at+piece())]
		for len(part) > 0 {
			n, ended := w.step(part)
			at += n
			part = part[n:]
			if ended {
				all.kinds, all.streams = append(all.kinds, w.kind()), append(all.streams, w.stream())
			}
			if ended && w.between() {
				all.edges = append(all.edges, at)
			}
		}
	}
	return all
}

// parsedOf finds the same by reading all bytes at once.
func parsedOf(b []byte) (all walked) {
	r := bytes.NewReader(b)
	block := false
	for {
		f, err := readRawFrame(r)
		if err != nil {
			return all
		}
		all.kinds, all.streams = append(all.kinds, f.kind), append(all.streams, f.stream)
		if f.kind == 1 || f.kind == 5 || f.kind == 9 {
			block = f.flags&4 == 0
		}
		if !block {
			all.edges = append(all.edges, len(b)-r.Len())
		}
	}
}

func (a walked) equal(b walked) bool {
	return bytes.Equal(a.kinds, b.kinds) && slices.Equal(a.streams, b.streams) && slices.Equal(a.edges, b.edges)
}

// FuzzFrameWalk compares walking in pieces of any size with reading all of it.
func FuzzFrameWalk(f *testing.F) {
	var b []byte
	for _, one := range []rawFrame{{kind: 4}, {1, 0, 1, []byte("part")}, {9, 0, 1, nil}, {9, 4, 1, []byte("end")}, {0, 1, 1, make([]byte, 300)}, {6, 1, 0, leavePing[:]}, {7, 0, 0, make([]byte, 8)}} {
		b = one.append(b)
	}
	f.Add(b, uint64(1))
	f.Add(b[:len(b)-3], uint64(2))
	f.Add([]byte("\x00\x00\x00\x01\x00\xff\xff\xff\xff"), uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		want := parsedOf(b)
		for _, most := range []int{1, 2, 9, 64, 1 << 20} {
			r := rand.New(rand.NewPCG(seed, uint64(most)))
			if got := walkOf(b, func() int { return 1 + r.IntN(most) }); !got.equal(want) {
				t.Fatalf("in pieces of up to %d: %+v, want %+v", most, got, want)
			}
		}
	})
}

// TestFrameWalkKeepsThePing holds what a PING said, however it came.
func TestFrameWalkKeepsThePing(t *testing.T) {
	b := rawFrame{framePing, flagAck, 0, leavePing[:]}.append(nil)
	for size := 1; size <= len(b); size++ {
		var w frameWalk
		ended := false
		for rest := b; len(rest) > 0; {
			var n int
			n, ended = w.step(rest[:min(size, len(rest))])
			rest = rest[n:]
		}
		if !ended || w.body != leavePing || w.kind() != framePing || w.flags() != flagAck {
			t.Errorf("in pieces of %d: %+v", size, w)
		}
	}
}

// writeOnly is a connection that keeps what is written.
type writeOnly struct {
	net.Conn
	written bytes.Buffer
}

func (w *writeOnly) Write(b []byte) (int, error) { return w.written.Write(b) }

// FuzzInsert asks for leave at any moment of what grpc writes, in writes of any
// size: what comes out is what grpc wrote, with the frames in one place where
// frames may be, and nothing of it where grpc had said goodbye itself.
func FuzzInsert(f *testing.F) {
	f.Add(uint64(1), 3, 1)
	f.Add(uint64(2), 0, 30)
	f.Add(uint64(3), 1000, 100)
	f.Fuzz(func(t *testing.T, seed uint64, when, most int) {
		r := rand.New(rand.NewPCG(seed, 0))
		most = 1 + min(max(most, 0), 1<<16)
		wrote := rawFrame{kind: h2Settings}.append(nil)
		bye := -1
		for range r.IntN(12) {
			kind := byte(r.IntN(10))
			switch kind {
			case frameHeaders:
				wrote = rawFrame{kind, 0, 1, make([]byte, r.IntN(20))}.append(wrote)
				for range r.IntN(3) {
					wrote = rawFrame{frameContinuation, 0, 1, make([]byte, r.IntN(20))}.append(wrote)
				}
				kind = frameContinuation
				wrote = rawFrame{kind, flagEndHeaders, 1, make([]byte, r.IntN(20))}.append(wrote)
				continue
			case frameContinuation, framePushPromise:
				continue
			case frameGoAway:
				if bye < 0 {
					bye = len(wrote)
				}
			}
			wrote = rawFrame{kind, byte(r.IntN(256)), uint32(r.IntN(5)), make([]byte, r.IntN(100))}.append(wrote)
		}
		note := appendGoAway(nil, leaveReason, leavePing)
		out := &writeOnly{}
		c := &gateConn{Conn: out, taken: true}
		at, asked := 0, false
		for rest := wrote; ; {
			if when <= at && !asked {
				c.insert(note)
				asked = true
			}
			if len(rest) == 0 {
				break
			}
			n := min(len(rest), 1+r.IntN(most))
			if m, err := c.Write(rest[:n]); m != n || err != nil {
				t.Fatalf("Write = %d, %v", m, err)
			}
			rest, at = rest[n:], at+n
		}
		got := out.written.Bytes()
		place := bytes.Index(got, note)
		if place < 0 {
			if asked && bye < 0 {
				t.Fatalf("it was never written: %q", got)
			}
			if !bytes.Equal(got, wrote) {
				t.Fatalf("wrote %q, came %q", wrote, got)
			}
			return
		}
		without := append(bytes.Clone(got[:place]), got[place+len(note):]...)
		if !bytes.Equal(without, wrote) {
			t.Fatalf("without the note %q, grpc wrote %q", without, wrote)
		}
		if !slices.Contains(parsedOf(wrote).edges, place) {
			t.Fatalf("it is at %d, frames end at %v", place, parsedOf(wrote).edges)
		}
		if bye >= 0 && place > bye {
			t.Fatalf("it is at %d, after grpc's own at %d", place, bye)
		}
	})
}
