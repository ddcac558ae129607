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
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/proxyless/proxyless/meshtest"
)

const (
	lds = meshtest.ListenerType
	rds = meshtest.RouteConfigurationType
	cds = meshtest.ClusterType
	eds = meshtest.ClusterLoadAssignmentType

	method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	nodeID = "sidecar~10.1.0.9~consumer.demo~demo.svc.cluster.local"
)

var eitherWay = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

// request is what the tests send.
type request struct {
	typeURL, version, nonce string
	names                   []string
	node                    []byte
	nack                    string
}

func (q request) marshal() []byte {
	b := text(nil, 1, q.version)
	if q.node != nil {
		b = sub(b, 2, q.node)
	}
	for _, n := range q.names {
		b = text(b, 3, n)
	}
	b = text(b, 4, q.typeURL)
	b = text(b, 5, q.nonce)
	if q.nack != "" {
		status := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3)
		b = sub(b, 6, text(status, 2, q.nack))
	}
	return b
}

func text(b []byte, num protowire.Number, s string) []byte { return sub(b, num, []byte(s)) }

func sub(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// nodeMessage is an envoy.config.core.v3.Node with string metadata.
func nodeMessage(id string, pairs ...string) []byte {
	var fields []byte
	for i := 0; i < len(pairs); i += 2 {
		fields = sub(fields, 1, sub(text(nil, 1, pairs[i]), 2, text(nil, 3, pairs[i+1])))
	}
	b := sub(text(nil, 1, id), 3, fields)
	return sub(b, 4, text(text(text(nil, 1, "r1"), 2, "z1"), 3, "s1"))
}

func lean() []byte { return nodeMessage(nodeID, "GENERATOR", "grpc", "NAMESPACE", "demo") }

// full is the node of a client that wants what a sidecar gets.
func full() []byte { return nodeMessage(nodeID, "NAMESPACE", "demo") }

// response is what the tests receive.
type response struct {
	typeURL, version, nonce string
	resources               [][]byte
}

// names are the first fields of the resources, in order.
func (r response) names() []string {
	names := []string{}
	for _, b := range r.resources {
		names = append(names, string(field(b, 1)))
	}
	return names
}

func (r response) kind() string {
	return map[string]string{lds: "LDS", rds: "RDS", cds: "CDS", eds: "EDS"}[r.typeURL]
}

func parseResponse(b []byte) response {
	r := response{typeURL: string(field(b, 4)), version: string(field(b, 1)), nonce: string(field(b, 5))}
	for _, a := range all(b, 2) {
		r.resources = append(r.resources, field(a, 2))
	}
	return r
}

// all returns every field of bytes with the given number.
func all(b []byte, want protowire.Number) (values [][]byte) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return values
		}
		size := protowire.ConsumeFieldValue(num, typ, b[n:])
		if size < 0 {
			return values
		}
		if num == want && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b[n:])
			values = append(values, v)
		}
		b = b[n+size:]
	}
	return values
}

// field follows a path of field numbers through a message.
func field(b []byte, path ...protowire.Number) []byte {
	for _, num := range path {
		list := all(b, num)
		if len(list) == 0 {
			return nil
		}
		b = list[0]
	}
	return b
}

// client is one ADS stream.
type client struct {
	t      *testing.T
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	cancel context.CancelFunc
	fresh  bool
	node   []byte
	nonces map[string]string
	asked  map[string][]string
}

// connect opens a stream. It does not wait for the control plane.
func connect(t *testing.T, c *meshtest.ControlPlane, opts ...grpc.DialOption) *client {
	t.Helper()
	opts = append(append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(1<<30)),
	}, c.DialOptions()...), opts...)
	conn, err := grpc.NewClient(c.Addr(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	k := &client{t: t, conn: conn, node: lean()}
	t.Cleanup(k.close)
	k.open()
	return k
}

// connectFull is connect in the full view.
func connectFull(t *testing.T, c *meshtest.ControlPlane) *client {
	t.Helper()
	k := connect(t, c)
	k.node = full()
	return k
}

// open starts a new stream on the same connection.
func (k *client) open() {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", "Kubernetes")
	stream, err := k.conn.NewStream(ctx, eitherWay, method, grpc.WaitForReady(true))
	if err != nil {
		k.t.Fatal(err)
	}
	k.stream, k.cancel, k.fresh = stream, cancel, true
	k.nonces, k.asked = map[string]string{}, map[string][]string{}
}

func (k *client) close() {
	k.cancel()
	_ = k.conn.Close()
}

// raw sends one request as it is. Why a stream has ended is told to those who
// receive.
func (k *client) raw(q request) {
	k.t.Helper()
	if err := k.stream.SendMsg(q.marshal()); err != nil && !errors.Is(err, io.EOF) {
		k.t.Fatalf("send: %v", err)
	}
}

// ask subscribes to names, with the last nonce of the type.
func (k *client) ask(typeURL string, names ...string) {
	k.t.Helper()
	q := request{typeURL: typeURL, nonce: k.nonces[typeURL], names: names}
	if k.fresh {
		q.node, k.fresh = k.node, false
	}
	k.asked[typeURL] = names
	k.raw(q)
}

// recv receives a response without an answer.
func (k *client) recv() response {
	k.t.Helper()
	r, err := k.try()
	if err != nil {
		k.t.Fatalf("receive: %v", err)
	}
	return r
}

func (k *client) try() (response, error) {
	var b []byte
	if err := k.stream.RecvMsg(&b); err != nil {
		return response{}, err
	}
	r := parseResponse(b)
	k.nonces[r.typeURL] = r.nonce
	return r, nil
}

// accept receives a response and sends the ACK.
func (k *client) accept() response {
	k.t.Helper()
	r := k.recv()
	k.raw(request{typeURL: r.typeURL, version: r.version, nonce: r.nonce, names: k.asked[r.typeURL]})
	return r
}

// want receives and accepts a response of a type with the given names.
func (k *client) want(typeURL string, names ...string) response {
	k.t.Helper()
	r := k.accept()
	if r.typeURL != typeURL || !slices.Equal(r.names(), names) {
		k.t.Fatalf("got %s %q, want %q", r.kind(), r.names(), names)
	}
	return r
}

// silent proves that nothing was sent: the answer to another question comes
// first.
func (k *client) silent() {
	k.t.Helper()
	probe := "outbound|1||probe-" + k.nonces[eds]
	k.ask(eds, append([]string{probe}, k.asked[eds]...)...)
	for {
		r := k.accept()
		if r.typeURL != eds {
			k.t.Fatalf("got %s %q where nothing was due", r.kind(), r.names())
		}
		if slices.Contains(r.names(), probe) {
			return
		}
		k.t.Fatalf("got EDS %q where nothing was due", r.names())
	}
}

type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return nil, errors.New("not bytes")
}

func (codec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = slices.Clone(b)
	return nil
}

// greeting is the service of most tests: provided on two hosts.
func greeting() meshtest.Service {
	return meshtest.Service{
		Name: "greeting", Namespace: "demo",
		Ports:     []meshtest.Port{{Name: "grpc-tri", Number: 50052}, {Name: "tcp-raw", Number: 7000}},
		Endpoints: []meshtest.Endpoint{{Address: "127.0.0.2"}, {Address: "127.0.0.3"}},
	}
}

const (
	greetingHost    = "greeting.demo.svc.cluster.local"
	greetingCluster = "outbound|50052||" + greetingHost
	greetingRaw     = "outbound|7000||" + greetingHost
)
