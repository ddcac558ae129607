package interop

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

// rawCaller makes calls that no gRPC client would: with any path, and with any
// headers in any number. It has one connection, which is made anew where the
// other end closed it.
type rawCaller struct {
	address string
	tls     *tls.Config // nil for plain text

	conn   net.Conn // nil for none
	framer *http2.Framer
	block  bytes.Buffer
	coder  *hpack.Encoder
	stream uint32 // the last one
}

// header is one line of a call's header.
type header struct {
	name, value string
	absent      bool // a line that is left out
}

// rawTo is a caller with a certificate, nil for plain text, which asks for the
// server name.
func rawTo(t testing.TB, address string, c *certificate, serverName string) *rawCaller {
	t.Helper()
	caller := &rawCaller{address: address}
	if c != nil {
		// The name of whoever answers is not what is tested here.
		caller.tls = &tls.Config{InsecureSkipVerify: true, NextProtos: istioALPN[1:], Certificates: []tls.Certificate{*c.pair(t)}, ServerName: serverName}
	}
	t.Cleanup(caller.close)
	return caller
}

// call makes a call with an empty request. Errors are of the connection, or say
// that the call was reset.
func (c *rawCaller) call(headers []header) (r reply, err error) {
	if c.conn == nil {
		err = c.dial()
	}
	if err == nil {
		err = c.send(headers)
	}
	if err == nil {
		r, err = c.read()
	}
	if err != nil {
		c.close()
	}
	return r, err
}

func (c *rawCaller) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *rawCaller) dial() error {
	conn, err := net.DialTimeout("tcp", c.address, 5*time.Second)
	if err != nil {
		return err
	}
	if c.tls != nil {
		conn = tls.Client(conn, c.tls)
	}
	c.conn, c.stream = conn, 1
	c.framer = http2.NewFramer(conn, conn)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.coder = hpack.NewEncoder(&c.block)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return err
	}
	return c.framer.WriteSettings()
}

func (c *rawCaller) send(headers []header) error {
	if err := c.conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	c.stream += 2
	c.block.Reset()
	for _, h := range headers {
		if err := c.coder.WriteField(hpack.HeaderField{Name: h.name, Value: h.value}); err != nil {
			return err
		}
	}
	return errors.Join(
		c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: c.block.Bytes(), EndHeaders: true}),
		c.framer.WriteData(c.stream, true, make([]byte, 5)))
}

// read reads until the call has ended.
func (c *rawCaller) read() (r reply, err error) {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return r, err
		}
		ended := false
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				err = c.framer.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame:
			err = fmt.Errorf("GOAWAY %v %q", f.ErrCode, f.DebugData())
		case *http2.RSTStreamFrame:
			if f.StreamID == c.stream {
				err = fmt.Errorf("RST_STREAM %v", f.ErrCode)
			}
		case *http2.DataFrame:
			if n := uint32(len(f.Data())); n > 0 {
				err = c.framer.WriteWindowUpdate(0, n)
			}
			ended = f.StreamEnded()
		case *http2.MetaHeadersFrame:
			r.take(f)
			ended = f.StreamEnded()
		}
		if err != nil || ended && frame.Header().StreamID == c.stream {
			return r, err
		}
	}
}

// reply is how a call ended.
type reply struct {
	http    int
	code    codes.Code
	message string
}

func (r *reply) take(f *http2.MetaHeadersFrame) {
	for _, h := range f.Fields {
		n, _ := strconv.Atoi(h.Value)
		switch h.Name {
		case ":status":
			r.http = n
		case "grpc-status":
			r.code = codes.Code(n)
		case "grpc-message":
			r.message = h.Value
		}
	}
}

// verdict is what the rules made of a call.
type verdict string

const (
	passed          verdict = "passed"
	denied          verdict = "denied"
	unauthenticated verdict = "unauthenticated"
)

// byRules says that a call was not turned away for something else.
func (v verdict) byRules() bool { return v == passed || v == denied || v == unauthenticated }

// verdict makes the call and says what the rules made of it; anything else says
// how the call was turned away without them. The service that is called does not
// exist, which is told to those alone who are let in.
func (c *rawCaller) verdict(headers []header) verdict {
	r, err := c.call(headers)
	if err != nil { // of the connection, perhaps
		r, err = c.call(headers)
	}
	switch {
	case err != nil:
		return verdict(err.Error())
	case r.http == 200 && r.code == codes.Unimplemented && !strings.HasPrefix(r.message, "malformed"):
		return passed
	case r.http == 200 && r.code == codes.PermissionDenied:
		return denied
	case r.http == 200 && r.code == codes.Unauthenticated:
		return unauthenticated
	}
	return verdict(fmt.Sprintf("HTTP status %d, %v: %s", r.http, r.code, r.message))
}
