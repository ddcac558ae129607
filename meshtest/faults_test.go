package meshtest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/proxyless/proxyless/meshtest"
)

func TestDisconnect(t *testing.T) {
	both(t, func(t *testing.T, opts ...meshtest.Option) {
		c := meshtest.New(t, opts...)
		c.SetService(greeting())
		k := connect(t, c)
		k.ask(lds, "greeting:50052")
		k.want(lds, "greeting:50052")
		c.Disconnect()
		if _, err := k.try(); status.Code(err) != codes.Unavailable {
			t.Fatalf("stream ended with %v", err)
		}
		if err := c.WaitStreams(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		k.open()
		k.ask(lds, "greeting:50052")
		k.want(lds, "greeting:50052")
		if q := c.Requests(); q[len(q)-1].Stream != 2 {
			t.Fatalf("last request is of stream %d", q[len(q)-1].Stream)
		}
	})
}

func TestClientClosesStream(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	k := connect(t, c)
	k.ask(lds, "greeting:50052")
	k.want(lds)
	if err := k.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.try(); !errors.Is(err, io.EOF) {
		t.Fatalf("stream ended with %v", err)
	}
}

func TestClientThatDoesNotRead(t *testing.T) {
	both(t, func(t *testing.T, opts ...meshtest.Option) {
		c := meshtest.New(t, opts...)
		slow, quick := connect(t, c), connect(t, c)
		slow.ask(eds, greetingCluster)
		slow.want(eds, greetingCluster)
		quick.ask(eds, greetingCluster)
		quick.want(eds, greetingCluster)
		for i := range 4 {
			many := greeting()
			for j := range 5000 {
				many.Endpoints = append(many.Endpoints, meshtest.Endpoint{Address: fmt.Sprintf("10.%d.%d.%d", i, j/250, j%250)})
			}
			c.SetService(many)
			quick.want(eds, greetingCluster)
		}
		c.Disconnect()
		if err := c.WaitStreams(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	})
}

func TestStopListeningAndRestart(t *testing.T) {
	both(t, func(t *testing.T, opts ...meshtest.Option) {
		c := meshtest.New(t, opts...)
		c.SetService(greeting())
		k := connect(t, c)
		k.ask(lds, "greeting:50052")
		k.want(lds, "greeting:50052")
		addr := c.Addr()
		c.StopListening()
		c.StopListening()
		if _, err := k.try(); status.Code(err) != codes.Unavailable {
			t.Fatalf("stream ended with %v", err)
		}
		if n := c.Streams(); n != 0 {
			t.Fatalf("%d streams", n)
		}
		if conn, err := c.Dial(t.Context(), ""); err == nil {
			_ = conn.Close()
			t.Fatal("something listens")
		}
		for range 2 {
			if err := c.Restart(); err != nil {
				t.Fatal(err)
			}
		}
		if c.Addr() != addr {
			t.Fatalf("address %s became %s", addr, c.Addr())
		}
		k.open()
		k.ask(lds, "greeting:50052")
		k.want(lds, "greeting:50052")
		c.Close()
		c.Close()
		if err := c.Restart(); err == nil {
			t.Fatal("restarted after Close")
		}
	})
}

// A frozen control plane answers no ping, so that the client's keepalive finds
// it dead; time is that of the bubble.
func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := meshtest.New(t, meshtest.InMemory())
		c.SetService(greeting())
		k := connect(t, c, grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
		}))
		k.cancel() // a stream without a deadline in its place
		stream, err := k.conn.NewStream(t.Context(), eitherWay, method)
		if err != nil {
			t.Fatal(err)
		}
		k.stream = stream
		k.ask(lds, "greeting:50052")
		k.want(lds, "greeting:50052")

		time.Sleep(time.Hour) // pings every ten seconds are admitted
		c.Freeze()
		c.SetEndpoints("greeting", "demo")
		time.Sleep(4 * time.Second)
		c.Thaw()
		k.want(lds, "greeting:50052") // late, not lost

		c.Freeze()
		start := time.Now()
		if _, err := k.try(); status.Code(err) != codes.Unavailable {
			t.Fatalf("stream ended with %v", err)
		}
		if d := time.Since(start); d < 5*time.Second || d > 15*time.Second {
			t.Fatalf("found dead after %v", d)
		}
	})
}

func TestCloseWhileFrozen(t *testing.T) {
	both(t, func(t *testing.T, opts ...meshtest.Option) {
		c := meshtest.New(t, opts...)
		k := connect(t, c)
		k.ask(lds, "greeting:50052")
		k.want(lds)
		c.Freeze()
		c.Close()
		if _, err := k.try(); status.Code(err) != codes.Unavailable {
			t.Fatalf("stream ended with %v", err)
		}
	})
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	c, err := meshtest.Start()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		k := connect(t, c)
		k.ask(lds, "greeting:50052")
		k.want(lds)
		k.close()
	}
	k := connect(t, c)
	k.ask(lds, "greeting:50052")
	k.want(lds)
	c.Close()
	k.close()
	buf := make([]byte, 1<<20)
	for range 100 {
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "meshtest.(*") && !strings.Contains(stacks, "grpc.(*Server)") {
			return
		}
		runtime.Gosched()
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("goroutines left:\n%s", buf[:runtime.Stack(buf, true)])
}

func TestAuth(t *testing.T) {
	for _, test := range []struct {
		err  error
		want codes.Code
	}{
		{errors.New("authentication failure"), codes.Unauthenticated},
		{status.Error(codes.PermissionDenied, "no"), codes.PermissionDenied},
		{nil, codes.OK},
	} {
		var seen metadata.MD
		c := meshtest.New(t, meshtest.InMemory(), meshtest.WithAuth(func(md metadata.MD) error {
			seen = md
			return test.err
		}))
		k := connect(t, c)
		k.ask(lds, "greeting:50052")
		if _, err := k.try(); status.Code(err) != test.want {
			t.Fatalf("stream ended with %v, want %v", err, test.want)
		}
		if v := seen.Get("clusterid"); len(v) != 1 || v[0] != "Kubernetes" {
			t.Fatalf("judged %v", seen)
		}
	}
}

func TestNodes(t *testing.T) {
	for _, test := range []struct {
		title, want string
		node        []byte
	}{
		{"no node", "missing node information", nil},
		{"no id", "missing node information", nodeMessage("")},
		{"short id", "missing parts", nodeMessage("a~b", "GENERATOR", "grpc")},
		{"broken", "truncated", []byte{0x0a, 0xff}},
	} {
		t.Run(test.title, func(t *testing.T) {
			c := meshtest.New(t, meshtest.InMemory())
			k := connect(t, c)
			k.raw(request{typeURL: lds, node: test.node})
			_, err := k.try()
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("stream ended with %v", err)
			}
		})
	}
}

func TestRequestsAreRecorded(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	k := connect(t, c)
	k.ask(lds, "a:1", "b:2")
	r := k.want(lds)
	ack, err := c.WaitRequest(t.Context(), func(q meshtest.Request) bool { return q.Nonce == r.nonce })
	if err != nil {
		t.Fatal(err)
	}
	if ack.HasNode || ack.Version != r.version || ack.Seq != 2 || ack.Stream != 1 || ack.NACK {
		t.Fatalf("ACK %+v", ack)
	}
	q := c.Requests()[0]
	if !q.HasNode || q.NodeID != nodeID || q.Metadata["NAMESPACE"] != "demo" ||
		q.Region != "r1" || q.Zone != "z1" || q.SubZone != "s1" {
		t.Fatalf("node %+v", q)
	}
	if len(q.Names) != 2 || q.TypeURL != lds || q.Header.Get("clusterid")[0] != "Kubernetes" {
		t.Fatalf("request %+v", q)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	c := meshtest.New(t, meshtest.WithAddress("127.0.0.1:0"), meshtest.WithTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}))
	k := connect(t, c, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool})))
	k.ask(lds, "greeting:50052")
	k.want(lds)
}

func TestAddressTaken(t *testing.T) {
	c := meshtest.New(t)
	if _, err := meshtest.Start(meshtest.WithAddress(c.Addr())); err == nil {
		t.Fatal("two control planes on one address")
	}
}
