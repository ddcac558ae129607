package proxyless

import (
	"context"
	"encoding/binary"
	"net"

	"google.golang.org/grpc/credentials"
)

// heedful is the credentials of the mesh's own connections. gRPC does not tell how
// many streams a peer allows at a time; heedful reads it from the first frame
// that the peer sends, which is its SETTINGS (RFC 9113, section 3.4). What a
// peer says later is left to gRPC, which queues calls by it.
//
// Credentials of the user's own, where the mesh says plain text, are used as they
// are: then only a limit that the mesh sets is known.
type heedful struct {
	credentials.TransportCredentials
}

func (p heedful) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := p.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return conn, info, err
	}
	if k, _ := credentials.ClientHandshakeInfoFromContext(ctx).Attributes.Value(linkAttribute{}).(*link); k != nil {
		k.peer.Store(noLimit)
		conn = &settingsConn{Conn: conn, link: k}
	}
	return conn, info, nil
}

func (p heedful) Clone() credentials.TransportCredentials {
	return heedful{p.TransportCredentials.Clone()}
}

// settingsConn looks at what is read until it has seen one frame.
type settingsConn struct {
	net.Conn
	link *link
	head []byte // of the first frame; owned by the reader
	seen bool
}

func (c *settingsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.seen {
		c.look(b[:n])
	}
	return n, err
}

const (
	frameHeader  = 9    // bytes: a length of three, a type, flags, the stream
	mostSettings = 1024 // bytes; settings have six
	typeSettings = 4
	idMaxStreams = 3
)

func (c *settingsConn) look(b []byte) {
	c.head = append(c.head, b[:min(len(b), frameHeader+mostSettings-len(c.head))]...)
	if len(c.head) < frameHeader {
		return
	}
	length := int(c.head[0])<<16 | int(c.head[1])<<8 | int(c.head[2])
	if c.head[3] == typeSettings && length <= mostSettings {
		if len(c.head) < frameHeader+length {
			return
		}
		for s := c.head[frameHeader : frameHeader+length]; len(s) >= 6; s = s[6:] {
			if binary.BigEndian.Uint16(s) == idMaxStreams {
				c.link.peer.Store(binary.BigEndian.Uint32(s[2:]))
			}
		}
	}
	c.seen, c.head = true, nil
}
