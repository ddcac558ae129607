package interop

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// script is what a call of a conformance row asks of whoever serves it. It
// travels in the message, so that no policy on headers touches it.
type script struct {
	Key   string          // names the call in the ledger
	Steps []step          // what the first, second, ... visit of the call meets
	At    map[string]step // by backend, where Steps says nothing
}

// step is how one visit goes; the zero value answers at once.
type step struct {
	Code  codes.Code
	Delay time.Duration
	Reset bool // the connection breaks
}

// seen is the answer: what a backend saw of the call.
type seen struct {
	Host      string // of the backend: v1, v2, v3
	Path      string
	Authority string
	Peer      string // the connection's other end
	Headers   metadata.MD
	Visit     int // 1 for the first of the call
	TLS       bool
	SNI       string
	Caller    string // the name in its certificate; empty for none

	at      time.Time
	header  metadata.MD // of the response, as the caller saw it
	trailer metadata.MD
	took    time.Duration
}

// ledger keeps what all backends saw, by the key of the call.
type ledger struct {
	mu     sync.Mutex
	visits map[string][]seen // guarded by mu
}

func (l *ledger) enter(key string, s seen) (visit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Visit, s.at = len(l.visits[key])+1, time.Now()
	l.visits[key] = append(l.visits[key], s)
	return s.Visit
}

// of returns the visits of a call so far.
func (l *ledger) of(key string) []seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]seen(nil), l.visits[key]...)
}

// backend is a bare gRPC server on the address of a pod, which serves every
// method by the script in the message.
type backend struct {
	*lab.Workload
	name   string
	ledger *ledger

	end func() // stops it and takes its pod away

	config *tls.Config // of a pod that takes both TLS and plain text; nil of others

	mu    sync.Mutex
	conns map[string]net.Conn // by the other end; guarded by mu
}

// The ports that every backend listens on.
const otherPort = servicePort + 1

// startBackend starts a backend under the version as its name, and makes its
// pod ready unless the spec says otherwise.
func startBackend(t testing.TB, l *lab.Lab, book *ledger, spec lab.WorkloadSpec) *backend {
	t.Helper()
	b := &backend{ledger: book, name: spec.Labels["version"], conns: map[string]net.Conn{}}
	if spec.Labels[tlsMode] != "" {
		b.config = sealing(t, l, spec.Namespace, spec.Account)
	}
	ready := !spec.NotReady
	spec.NotReady = true
	b.Workload = addPod(t, l, spec)
	server := grpc.NewServer(grpc.UnknownServiceHandler(b.serve))
	b.end = sync.OnceFunc(func() { server.Stop(); b.Remove(context.Background()) })
	t.Cleanup(b.end)
	for _, port := range []uint16{servicePort, otherPort} {
		lis, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(b.IP, port)))
		must(t, err)
		go server.Serve(&keptListener{lis, b}) // ends with the server
	}
	must(t, b.SetReady(soon(t), ready))
	return b
}

func (b *backend) serve(_ any, stream grpc.ServerStream) error {
	var in greetpb.SayHelloRequest
	if err := stream.RecvMsg(&in); err != nil {
		return err
	}
	var asked script
	if err := json.Unmarshal([]byte(in.GetName()), &asked); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	s := b.see(stream.Context())
	s.Path, _ = grpc.MethodFromServerStream(stream)
	s.Visit = b.ledger.enter(asked.Key, s)
	if err := b.act(stream.Context(), asked, s); err != nil {
		return err
	}
	stream.SetHeader(metadata.Pairs("x-kept", "backend", "x-taken", "backend"))
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return stream.SendMsg(&greetpb.SayHelloReply{Message: string(text)})
}

func (b *backend) see(ctx context.Context) seen {
	s := seen{Host: b.name}
	s.Headers, _ = metadata.FromIncomingContext(ctx)
	if from, ok := peer.FromContext(ctx); ok {
		s.Peer = from.Addr.String()
		b.seal(&s)
	}
	if authority := s.Headers[":authority"]; len(authority) > 0 {
		s.Authority = authority[0]
	}
	return s
}

// act does what the script asks of this visit.
func (b *backend) act(ctx context.Context, asked script, s seen) error {
	do := asked.At[b.name]
	if s.Visit <= len(asked.Steps) {
		do = asked.Steps[s.Visit-1]
	}
	if do.Delay > 0 {
		select {
		case <-time.After(do.Delay):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if do.Reset {
		b.reset(s.Peer)
		<-ctx.Done()
		return ctx.Err()
	}
	if do.Code != codes.OK {
		return status.Error(do.Code, "as scripted")
	}
	return nil
}

// reset breaks a connection as a crash does.
func (b *backend) reset(peer string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if conn, ok := b.conns[peer].(*net.TCPConn); ok {
		conn.SetLinger(0)
		conn.Close()
	}
}

// keptListener keeps the connections it accepts for [backend.reset].
type keptListener struct {
	net.Listener
	b *backend
}

func (l *keptListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.b.config != nil {
		conn = &sniffed{Conn: conn, config: l.b.config}
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	l.b.conns[conn.RemoteAddr().String()] = conn
	return conn, nil
}

// deaf is a pod whose port never takes another connection: its queue is full, so
// that packets to it are dropped.
func (w *world) deaf() *backend {
	t := w.t
	t.Helper()
	pod := addPod(t, w.lab, lab.WorkloadSpec{Namespace: governed, Name: "nobody", Labels: map[string]string{"app": "nobody"}})
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	must(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Port: servicePort, Addr: pod.IP.As4()}))
	must(t, syscall.Listen(fd, 0))
	for range 3 { // the queue holds one more than is asked for
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(pod.IP, servicePort).String(), 300*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
	}
	return &backend{Workload: pod, name: "nobody"}
}
