package meshtest_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/proxyless/proxyless/meshtest"
)

const deltaMethod = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

// deltaRequest is what the tests send in the delta protocol.
type deltaRequest struct {
	typeURL, nonce, nack string
	sub, unsub           []string
	held                 []string
	node                 []byte
}

func (q deltaRequest) marshal() []byte {
	var b []byte
	if q.node != nil {
		b = sub(b, 1, q.node)
	}
	b = text(b, 2, q.typeURL)
	for _, n := range q.sub {
		b = text(b, 3, n)
	}
	for _, n := range q.unsub {
		b = text(b, 4, n)
	}
	for _, n := range q.held {
		b = sub(b, 5, text(text(nil, 1, n), 2, "v"))
	}
	if q.nonce != "" {
		b = text(b, 6, q.nonce)
	}
	if q.nack != "" {
		b = sub(b, 7, text(nil, 2, q.nack))
	}
	return b
}

// deltaResponse is what the tests receive in the delta protocol.
type deltaResponse struct {
	typeURL, version, nonce string
	names                   []string
	resources               map[string][]byte
	removed                 []string
}

func parseDelta(b []byte) deltaResponse {
	r := deltaResponse{
		version: string(field(b, 1)), typeURL: string(field(b, 4)), nonce: string(field(b, 5)),
		resources: make(map[string][]byte), names: []string{}, removed: []string{},
	}
	for _, x := range all(b, 2) {
		name := string(field(x, 3))
		r.names = append(r.names, name)
		r.resources[name] = field(x, 2, 2)
	}
	for _, x := range all(b, 6) {
		r.removed = append(r.removed, string(x))
	}
	return r
}

// deltaClient is one stream of the delta protocol.
type deltaClient struct {
	t      *testing.T
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	cancel context.CancelFunc
	node   []byte // of the first message
	probes int
}

func connectDelta(t *testing.T, c *meshtest.ControlPlane, node []byte) *deltaClient {
	t.Helper()
	conn, err := grpc.NewClient(c.Addr(), append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(1<<30)),
	}, c.DialOptions()...)...)
	if err != nil {
		t.Fatal(err)
	}
	k := &deltaClient{t: t, conn: conn}
	t.Cleanup(func() {
		k.cancel()
		_ = conn.Close()
	})
	k.open(node)
	return k
}

func (k *deltaClient) open(node []byte) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	stream, err := k.conn.NewStream(ctx, eitherWay, deltaMethod, grpc.WaitForReady(true))
	if err != nil {
		k.t.Fatal(err)
	}
	k.stream, k.cancel, k.node = stream, cancel, node
}

func (k *deltaClient) raw(q deltaRequest) {
	k.t.Helper()
	q.node, k.node = k.node, nil
	if err := k.stream.SendMsg(q.marshal()); err != nil && !errors.Is(err, io.EOF) {
		k.t.Fatalf("send: %v", err)
	}
}

func (k *deltaClient) sub(typeURL string, names ...string) {
	k.t.Helper()
	k.raw(deltaRequest{typeURL: typeURL, sub: names})
}

func (k *deltaClient) unsub(typeURL string, names ...string) {
	k.t.Helper()
	k.raw(deltaRequest{typeURL: typeURL, unsub: names})
}

func (k *deltaClient) recv() deltaResponse {
	k.t.Helper()
	var b []byte
	if err := k.stream.RecvMsg(&b); err != nil {
		k.t.Fatalf("receive: %v", err)
	}
	return parseDelta(b)
}

// accept receives a response and sends the ACK.
func (k *deltaClient) accept() deltaResponse {
	k.t.Helper()
	r := k.recv()
	k.raw(deltaRequest{typeURL: r.typeURL, nonce: r.nonce})
	return r
}

// want receives and accepts a response of a type with the given names.
func (k *deltaClient) want(typeURL string, names ...string) deltaResponse {
	k.t.Helper()
	r := k.accept()
	if r.typeURL != typeURL || !slices.Equal(r.names, names) || len(r.removed) > 0 {
		k.t.Fatalf("got %s %q, removed %q, want %q", response{typeURL: r.typeURL}.kind(), r.names, r.removed, names)
	}
	return r
}

// gone receives and accepts a response of a type that takes names away.
func (k *deltaClient) gone(typeURL string, names ...string) deltaResponse {
	k.t.Helper()
	r := k.accept()
	if r.typeURL != typeURL || !slices.Equal(r.removed, names) {
		k.t.Fatalf("got %s %q, removed %q, want %q removed", response{typeURL: r.typeURL}.kind(), r.names, r.removed, names)
	}
	return r
}

// silent proves that nothing was sent: the answer to another question comes
// first.
func (k *deltaClient) silent() {
	k.t.Helper()
	k.probes++
	probe := "outbound|1||probe-" + string(rune('a'+k.probes))
	k.sub(eds, probe)
	k.want(eds, probe)
}
