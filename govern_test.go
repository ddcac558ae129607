package proxyless

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless/meshtest"
)

// replica is one provider of greet.Greeting on a socket of its own. Its unary
// method answers by say, its stream by chat.
type replica struct {
	say   func(ctx context.Context, in string) (string, error)
	chat  grpc.StreamHandler
	addr  *net.TCPAddr
	calls atomic.Int32 // of both
	serve *grpc.Server
}

const wireStream = "/greet.Greeting/Chat"

var chatDesc = &grpc.StreamDesc{StreamName: "Chat", ServerStreams: true, ClientStreams: true}

func (r *replica) start(t testing.TB, opts ...grpc.ServerOption) *replica {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = lis.Addr().(*net.TCPAddr)
	r.serve = grpc.NewServer(opts...)
	unary := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		r.calls.Add(1)
		text, err := r.say(ctx, in.Value)
		return wrapperspb.String(text), err
	}
	stream := func(srv any, s grpc.ServerStream) error {
		r.calls.Add(1)
		return r.chat(srv, s)
	}
	r.serve.RegisterService(&grpc.ServiceDesc{ServiceName: "greet.Greeting", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "SayHello", Handler: unary}},
		Streams: []grpc.StreamDesc{{StreamName: "Chat", Handler: stream, ServerStreams: true, ClientStreams: true}},
	}, new(any))
	go r.serve.Serve(lis) // ended by the clean-up
	t.Cleanup(r.serve.Stop)
	return r
}

// answering starts a provider that answers every call alike.
func answering(t testing.TB, text string, err error) *replica {
	return (&replica{say: func(context.Context, string) (string, error) { return text, err }}).start(t)
}

// saying starts a provider whose answer depends on which call it is, from 1.
func saying(t testing.TB, say func(ctx context.Context, n int) (string, error)) *replica {
	r := &replica{}
	r.say = func(ctx context.Context, _ string) (string, error) { return say(ctx, int(r.calls.Load())) }
	return r.start(t)
}

// underPolicy is a hand-fed Mesh whose one route has a policy and leads to
// replicas, all of which are connected.
func underPolicy(t testing.TB, p *routePolicy, replicas ...*replica) *handFed {
	t.Helper()
	return dialledUnderPolicy(t, nil, p, replicas...)
}

func dialledUnderPolicy(t testing.TB, dial []grpc.DialOption, p *routePolicy, replicas ...*replica) *handFed {
	t.Helper()
	m := newHandFed(dial...)
	m.mesh.closed = make(chan struct{})
	t.Cleanup(m.mesh.table.close)
	m.feed(fedService(0))
	m.feed([][]byte{replicaEndpoints(fedCluster, replicas...)})
	m.govern(p)
	m.connect(t)
	return m
}

func replicaEndpoints(cluster string, replicas ...*replica) []byte {
	l := meshtest.Locality{Region: "r", Zone: "z", Weight: 1}
	for _, r := range replicas {
		l.Endpoints = append(l.Endpoints, meshtest.LbEndpoint{Address: r.addr.IP.String(), Port: uint32(r.addr.Port), Weight: 1, Health: meshtest.Healthy})
	}
	return fedResponse(meshtest.ClusterLoadAssignmentType, meshtest.ClusterLoadAssignment{Cluster: cluster, Localities: []meshtest.Locality{l}}.Marshal())
}

// govern gives the first route in force a policy.
func (f *handFed) govern(p *routePolicy) { f.inv.plan.Load().routes.routes[0].policy = p }

// connect dials all endpoints of the plan and waits until none is connecting.
func (f *handFed) connect(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := f.inv.warm(ctx); err != nil {
		t.Fatal(err)
	}
}

func (f *handFed) say(ctx context.Context, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	err := f.inv.Invoke(ctx, wireMethod, wrapperspb.String("hello"), out, opts...)
	return out.Value, err
}

func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func isOwn(t testing.TB, err error, stage Stage, code codes.Code, says string) {
	t.Helper()
	own, is := err.(*Error)
	if !is || own.Stage != stage || status.Code(err) != code || !strings.Contains(own.Error(), says) {
		t.Errorf("got %v, want an error of the %s, %v, with %q", err, stage, code, says)
	}
}

func TestHeadersAreChangedAsTheMeshAsks(t *testing.T) {
	var got metadata.MD
	one := saying(t, func(ctx context.Context, _ int) (string, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		grpc.SetHeader(ctx, metadata.Pairs("secret", "x", "kind", "a"))
		return "one", nil
	})
	p := &routePolicy{headers: headerPolicy{
		request: headerMutations{remove: []string{"gone", "te", "grpc-timeout"}, change: []headerChange{
			{name: "more", value: "2"}, {name: "once", value: "mesh", action: headerAddIfAbsent}, {name: "new", value: "mesh", action: headerAddIfAbsent},
			{name: "over", value: "mesh", action: headerOverwrite}, {name: "nobody", value: "mesh", action: headerOverwriteIfExists},
			{name: "content-type", value: "text/html", action: headerOverwrite}, {name: ":path", value: "/", action: headerOverwrite},
			{name: "grpc-timeout", value: "1n", action: headerOverwrite}, {name: "host", value: "elsewhere", action: headerOverwrite},
		}},
		response: headerMutations{remove: []string{"secret"}, change: []headerChange{{name: "kind", value: "b"}, {name: "mesh", value: "yes"}}},
	}}
	m := underPolicy(t, p, one)
	own := metadata.Pairs("gone", "1", "more", "1", "once", "own", "over", "own")
	var header metadata.MD
	for range 2 { // what is shared must not change
		if _, err := m.say(metadata.NewOutgoingContext(soon(t), own), grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"gone": "", "more": "1,2", "once": "own", "new": "mesh", "over": "mesh", "nobody": "",
			"content-type": "application/grpc+proto", ":authority": "elsewhere", "tri-service-version": "1.0.0"} {
			if v := strings.Join(got[name], ","); v != want {
				t.Errorf("the provider sees %s = %q, want %q", name, v, want)
			}
		}
		for name, want := range map[string]string{"secret": "", "kind": "a,b", "mesh": "yes"} {
			if v := strings.Join(header[name], ","); v != want {
				t.Errorf("the caller sees %s = %q, want %q", name, v, want)
			}
		}
	}
	if len(own) != 4 || own["more"][0] != "1" || len(own["more"]) != 1 {
		t.Errorf("the caller's own metadata was changed: %v", own)
	}
}

func TestTheAuthorityIsRewritten(t *testing.T) {
	var got string
	one := saying(t, func(ctx context.Context, _ int) (string, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		got = strings.Join(md[":authority"], ",")
		return "one", nil
	})
	for name, test := range map[string]struct {
		rewrite authorityRewrite
		want    string
	}{
		"literal":           {authorityRewrite{literal: "literal.example"}, "literal.example"},
		"header":            {authorityRewrite{header: "x-host"}, "by-header.example"},
		"header, missing":   {authorityRewrite{header: "x-none"}, fedName},
		"auto, no hostname": {authorityRewrite{auto: true}, fedName},
	} {
		t.Run(name, func(t *testing.T) {
			m := underPolicy(t, &routePolicy{rewrite: test.rewrite}, one)
			if _, err := m.say(metadata.AppendToOutgoingContext(soon(t), "x-host", "by-header.example")); err != nil || got != test.want {
				t.Errorf("the provider sees %q (%v), want %q", got, err, test.want)
			}
		})
	}
	m := underPolicy(t, &routePolicy{rewrite: authorityRewrite{auto: true}}, one)
	m.inv.plan.Load().sets[0].endpoints[0].extra = &endpointExtra{hostname: "pod.example"}
	if _, err := m.say(soon(t)); err != nil || got != "pod.example" {
		t.Errorf("auto: the provider sees %q (%v)", got, err)
	}
}
