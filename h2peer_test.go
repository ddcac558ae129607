package proxyless

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

// The frames and codes of HTTP/2 that tests need.
const (
	h2Data, h2Headers, h2RSTStream, h2Settings, h2Ping, h2GoAway = 0, 1, 3, 4, 6, 7
	h2Ack, h2EndStream                                           = 1, 1
	h2Internal, h2Refused                                        = 2, 7
)

// h2Peer is a provider that speaks just enough HTTP/2 to misbehave.
type h2Peer struct{ conn net.Conn }

// newH2Peer starts a peer that hands every frame of a stream to on.
func newH2Peer(t testing.TB, on func(p *h2Peer, kind, flags byte, stream uint32)) *replica {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	go func() { // ended by the clean-up
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			p := &h2Peer{conn}
			go p.serve(on) // ends with the connection
		}
	}()
	return &replica{addr: lis.Addr().(*net.TCPAddr)}
}

func (p *h2Peer) frame(kind, flags byte, stream uint32, body []byte) {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(body))<<8|uint32(kind))
	p.conn.Write(append(binary.BigEndian.AppendUint32(append(head, flags), stream), body...))
}

func (p *h2Peer) serve(on func(p *h2Peer, kind, flags byte, stream uint32)) {
	defer p.conn.Close()
	in := bufio.NewReader(p.conn)
	if _, err := in.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		return
	}
	p.frame(h2Settings, 0, 0, nil)
	for {
		var head [9]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:])>>8)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		kind, flags := head[3], head[4]
		switch {
		case kind == h2Settings && flags&h2Ack == 0:
			p.frame(h2Settings, h2Ack, 0, nil)
		case kind == h2Ping && flags&h2Ack == 0:
			p.frame(h2Ping, h2Ack, 0, body)
		case kind <= h2Headers:
			on(p, kind, flags, binary.BigEndian.Uint32(head[5:]))
		}
	}
}
