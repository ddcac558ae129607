package proxyless

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const talkInterface = "org.x.Talk"

// talker is the test's service: one method of each kind, which answer with the
// name of the implementation.
type talker struct {
	name string
	say  func(ctx context.Context, word string) (string, error) // instead of the default answer
}

func (t *talker) answer(ctx context.Context, word string) (string, error) {
	if t.say != nil {
		return t.say(ctx, word)
	}
	return t.name + ":" + word, nil
}

type talkServer interface {
	answer(ctx context.Context, word string) (string, error)
}

var talkDesc = newTalkDesc("Say", "Tell", "Listen", "Chat")

// newTalkDesc makes what protoc would, with the methods named.
func newTalkDesc(methods ...string) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: talkInterface, HandlerType: (*talkServer)(nil), Metadata: "talk.proto"}
	for _, name := range methods {
		switch name {
		case "Tell":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, Handler: handleTell, ServerStreams: true})
		case "Listen":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, Handler: handleListen, ClientStreams: true})
		case "Chat":
			desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: name, Handler: handleChat, ClientStreams: true, ServerStreams: true})
		default:
			desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: name, Handler: sayAs(name)})
		}
	}
	return desc
}

func sayAs(method string) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		handler := func(ctx context.Context, request any) (any, error) {
			word, err := srv.(talkServer).answer(ctx, request.(*wrapperspb.StringValue).Value)
			return wrapperspb.String(word), err
		}
		if interceptor == nil {
			return handler(ctx, in)
		}
		return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + talkInterface + "/" + method}, handler)
	}
}

func handleTell(srv any, stream grpc.ServerStream) error {
	in := new(wrapperspb.StringValue)
	if err := stream.RecvMsg(in); err != nil {
		return err
	}
	for range 2 {
		if err := sendAnswer(srv, stream, in.Value); err != nil {
			return err
		}
	}
	return nil
}

func sendAnswer(srv any, stream grpc.ServerStream, word string) error {
	word, err := srv.(talkServer).answer(stream.Context(), word)
	if err != nil {
		return err
	}
	return stream.SendMsg(wrapperspb.String(word))
}

func handleListen(srv any, stream grpc.ServerStream) error {
	var words []string
	for {
		in := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(in); errors.Is(err, io.EOF) {
			return sendAnswer(srv, stream, strings.Join(words, "+"))
		} else if err != nil {
			return err
		}
		words = append(words, in.Value)
	}
}

func handleChat(srv any, stream grpc.ServerStream) error {
	for {
		in := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := sendAnswer(srv, stream, in.Value); err != nil {
			return err
		}
	}
}

// talkSay calls a unary method and returns the answer.
func talkSay(ctx context.Context, conn grpc.ClientConnInterface, method, word string, opts ...grpc.CallOption) (string, error) {
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, "/"+talkInterface+"/"+method, wrapperspb.String(word), out, opts...)
	return out.Value, err
}

// talkStream calls a streaming method with the words and returns the answers,
// joined by spaces.
func talkStream(ctx context.Context, conn grpc.ClientConnInterface, method string, words ...string) (string, error) {
	desc := &grpc.StreamDesc{ClientStreams: method != "Tell", ServerStreams: method != "Listen"}
	stream, err := conn.NewStream(ctx, desc, "/"+talkInterface+"/"+method)
	if err != nil {
		return "", err
	}
	for _, word := range words {
		if err := stream.SendMsg(wrapperspb.String(word)); err != nil {
			break
		}
	}
	if err := stream.CloseSend(); err != nil {
		return "", err
	}
	var answers []string
	for {
		out := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(out); errors.Is(err, io.EOF) {
			return strings.Join(answers, " "), nil
		} else if err != nil {
			return "", err
		}
		answers = append(answers, out.Value)
	}
}

// talkContext is the context of a call with the headers; "-" sends none.
func talkContext(ctx context.Context, version, group string) context.Context {
	if version != "-" {
		ctx = metadata.AppendToOutgoingContext(ctx, headerVersion, version)
	}
	if group != "-" {
		ctx = metadata.AppendToOutgoingContext(ctx, headerGroup, group)
	}
	return ctx
}

func TestDispatchByVersionAndGroup(t *testing.T) {
	const only = "" // the name of an unversioned export
	tests := []struct {
		name           string
		exports        []string // [group/]version
		version, group string
		want, fallback string // the export that answers; "-" for none
	}{
		{"no header, only export", []string{only}, "-", "-", "", ""},
		{"no header, only export has a version", []string{"2.0.0"}, "-", "-", "2.0.0", "2.0.0"},
		{"no header, only export has a group", []string{"g/2.0.0"}, "-", "-", "g/2.0.0", "g/2.0.0"},
		{"no header, unversioned among others", []string{"1.0.0", only, "2.0.0"}, "-", "-", "", ""},
		{"no header means 1.0.0 to Java 3.1", []string{"2.0.0", "1.0.0"}, "-", "-", "1.0.0", "1.0.0"},
		{"no header, nothing to prefer", []string{"2.0.0", "3.0.0"}, "-", "-", "-", "2.0.0"},
		{"no header, only export without a group", []string{"g/1.0.0", "2.0.0"}, "-", "-", "2.0.0", "2.0.0"},
		{"empty headers are none", []string{"1.0.0"}, "", "", "1.0.0", "1.0.0"},
		{"exact version", []string{"1.0.0", "2.0.0", only}, "2.0.0", "-", "2.0.0", "2.0.0"},
		{"exact version and group", []string{"1.0.0", "g/1.0.0"}, "1.0.0", "g", "g/1.0.0", "g/1.0.0"},
		{"wrong version of the only export", []string{"1.0.0"}, "2.0.0", "-", "-", "1.0.0"},
		{"version of an unversioned export", []string{only}, "1.0.0", "-", "-", ""},
		{"wrong version, default", []string{"1.0.0", only}, "2.0.0", "-", "-", ""},
		{"wrong version in a group", []string{"1.0.0", "g/1.0.0"}, "2.0.0", "g", "-", "g/1.0.0"},
		{"version without its group", []string{"g/1.0.0"}, "1.0.0", "-", "-", "g/1.0.0"},
		{"group without version: unversioned", []string{"g/", "g/1.0.0", only}, "-", "g", "g/", "g/"},
		{"group without version: 1.0.0", []string{"g/2.0.0", "g/1.0.0"}, "-", "g", "g/1.0.0", "g/1.0.0"},
		{"group without version: only one", []string{"g/2.0.0", "1.0.0"}, "-", "g", "g/2.0.0", "g/2.0.0"},
		{"unknown group", []string{only}, "-", "h", "-", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, fallback := range []bool{false, true} {
				_, conn := startTalk(t, &Config{FallbackToDefault: fallback}, serverHooks{}, func(s *Server) {
					for _, name := range tt.exports {
						exportTalk(s, name)
					}
				})
				want := tt.want
				if fallback {
					want = tt.fallback
				}
				got, err := talkSay(talkContext(t.Context(), tt.version, tt.group), conn, "Say", "x")
				chatted, chatErr := talkStream(talkContext(t.Context(), tt.version, tt.group), conn, "Chat", "x")
				if status.Code(err) != status.Code(chatErr) || got != chatted {
					t.Errorf("unary call: %q %v; stream: %q %v", got, err, chatted, chatErr)
				}
				if want == "-" {
					if status.Code(err) != codes.Unimplemented {
						t.Errorf("fallback %v: %q, %v; want UNIMPLEMENTED", fallback, got, err)
					}
				} else if err != nil || got != want+":x" {
					t.Errorf("fallback %v: %q, %v; want %q", fallback, got, err, want)
				}
			}
		})
	}
}

func TestErrorListsWhatIsExported(t *testing.T) {
	_, conn := startTalk(t, &Config{}, serverHooks{}, func(s *Server) {
		exportTalk(s, "1.0.0")
		exportTalk(s, "g/1.1.0")
	})
	tests := []struct{ version, group, want string }{
		{"2.0.0", "-", `org.x.Talk: is not exported with version "2.0.0"; ask for one that is exported here: org.x.Talk:1.0.0, g/org.x.Talk:1.1.0`},
		{"2.0.0", "h", `org.x.Talk: is not exported with version "2.0.0" and group "h"; `},
		{"-", "h", `org.x.Talk: is not exported with no version and group "h"; `},
	}
	for _, tt := range tests {
		_, err := talkSay(talkContext(t.Context(), tt.version, tt.group), conn, "Say", "x")
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("error = %v\nwant %s", err, tt.want)
		}
	}
}

func TestLongListOfExportsIsCut(t *testing.T) {
	set := &exportSet{name: talkInterface, methods: map[string]*exportMethod{}}
	for i := range 20 {
		set.add(newExport(exportKey{version: strings.Repeat("1", i+1)}, talkDesc, nil))
	}
	set.seal()
	_, err := set.choose(t.Context())
	if !strings.HasSuffix(err.Error(), "and 4 more") {
		t.Errorf("error = %v", err)
	}
}

func TestMethodsOfSomeVersionsOnly(t *testing.T) {
	_, conn := startTalk(t, &Config{}, serverHooks{}, func(s *Server) {
		s.With(Version("1.0.0")).RegisterService(newTalkDesc("Say", "Tell"), &talker{name: "1.0.0"})
		s.With(Version("2.0.0")).RegisterService(newTalkDesc("Chat", "Shout"), &talker{name: "2.0.0"})
	})
	one, two := talkContext(t.Context(), "1.0.0", "-"), talkContext(t.Context(), "2.0.0", "-")
	for _, tt := range []struct {
		ctx          context.Context
		method, want string
	}{
		{one, "Say", "1.0.0:x"}, {two, "Shout", "2.0.0:x"},
		{one, "Tell", "1.0.0:x 1.0.0:x"}, {two, "Chat", "2.0.0:x"},
		{two, "Say", "has no method Say in org.x.Talk:2.0.0; ask for one that is exported here: org.x.Talk:1.0.0"},
		{one, "Chat", "has no method Chat in org.x.Talk:1.0.0; ask for one that is exported here: org.x.Talk:2.0.0"},
	} {
		call := func() (string, error) { return talkSay(tt.ctx, conn, tt.method, "x") }
		if tt.method == "Tell" || tt.method == "Chat" {
			call = func() (string, error) { return talkStream(tt.ctx, conn, tt.method, "x") }
		}
		got, err := call()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s\nwant %s", tt.method, got, tt.want)
		}
	}
}

func TestAllKindsOfStreams(t *testing.T) {
	_, conn := startTalk(t, &Config{}, serverHooks{}, func(s *Server) {
		exportTalk(s, "1.0.0")
		exportTalk(s, "2.0.0")
	})
	ctx := talkContext(t.Context(), "2.0.0", "-")
	for method, want := range map[string]string{
		"Tell": "2.0.0:a 2.0.0:a", "Listen": "2.0.0:a+b", "Chat": "2.0.0:a 2.0.0:b",
	} {
		words := []string{"a", "b"}
		if method == "Tell" {
			words = words[:1]
		}
		if got, err := talkStream(ctx, conn, method, words...); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", method, got, err, want)
		}
	}
}

func TestStreamThatStreamsNeitherWay(t *testing.T) {
	desc := newTalkDesc("Tell")
	desc.Streams[0].ServerStreams = false
	desc.Streams[0].Handler = func(srv any, stream grpc.ServerStream) error {
		in := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(in); err != nil {
			return err
		}
		return sendAnswer(srv, stream, in.Value)
	}
	_, conn := startTalk(t, &Config{}, serverHooks{}, func(s *Server) {
		s.With(Version("1.0.0")).RegisterService(desc, &talker{name: "one"})
		s.With(Version("2.0.0")).RegisterService(desc, &talker{name: "two", say: func(context.Context, string) (string, error) { panic("oh") }})
	})
	if got, err := talkSay(talkContext(t.Context(), "1.0.0", "-"), conn, "Tell", "x"); err != nil || got != "one:x" {
		t.Errorf("answer %q, %v", got, err)
	}
	if _, err := talkSay(talkContext(t.Context(), "2.0.0", "-"), conn, "Tell", "x"); status.Code(err) != codes.Internal {
		t.Errorf("panic: %v", err)
	}
}

func TestRegistrationPanics(t *testing.T) {
	other := newTalkDesc("Chat")
	other.Streams[0].ServerStreams = false
	tests := []struct {
		name, want string
		register   func(s *Server)
	}{
		{"twice", "g/org.x.Talk:1.0.0 is exported already", func(s *Server) {
			exportTalk(s, "g/1.0.0")
			exportTalk(s, "g/1.0.0")
		}},
		{"wrong type", "*int does not implement proxyless.talkServer of org.x.Talk", func(s *Server) {
			s.RegisterService(talkDesc, new(int))
		}},
		{"another shape", "/org.x.Talk/Chat is a bidirectional stream in one export and a client stream in another", func(s *Server) {
			exportTalk(s, "1.0.0")
			s.With(Version("2.0.0")).RegisterService(other, &talker{})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(&Config{}, slog.New(slog.DiscardHandler), newLifecycle(slog.New(slog.DiscardHandler)), serverHooks{}, nil)
			if got := panicText(func() { tt.register(s) }); !strings.Contains(got, tt.want) {
				t.Errorf("panic %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("after Serve", func(t *testing.T) {
		s, _ := startTalk(t, &Config{}, serverHooks{}, func(*Server) {})
		if got := panicText(func() { exportTalk(s, "1.0.0") }); !strings.Contains(got, "RegisterService of org.x.Talk after Serve") {
			t.Errorf("panic %q", got)
		}
	})
}

func panicText(f func()) (text string) {
	defer func() { text, _ = recover().(string) }()
	f()
	return ""
}

func TestRefusalFailsEveryCall(t *testing.T) {
	refuse := new(atomic.Pointer[Error])
	const reflection = "grpc.reflection.v1.ServerReflection"
	_, conn := startTalk(t, &Config{}, serverHooks{refuse: refuse}, func(s *Server) {
		exportTalk(s, "")
		s.RegisterService(&grpc.ServiceDesc{ServiceName: reflection, HandlerType: (*any)(nil),
			Streams: []grpc.StreamDesc{{StreamName: "ServerReflectionInfo", Handler: func(any, grpc.ServerStream) error { return nil }, ServerStreams: true, ClientStreams: true}}}, new(any))
	})
	ctx := t.Context()
	if _, err := talkSay(ctx, conn, "Say", "x"); err != nil {
		t.Fatal(err)
	}
	refuse.Store(&Error{Stage: StageListener, Reason: "a rule that cannot be evaluated", Code: codes.PermissionDenied})
	_, err := talkSay(ctx, conn, "Say", "x")
	_, streamErr := talkStream(ctx, conn, "Chat", "x")
	known := conn.Invoke(ctx, "/"+reflection+"/ServerReflectionInfo", wrapperspb.String(""), new(wrapperspb.StringValue))
	unknown := conn.Invoke(ctx, "/org.x.None/None", wrapperspb.String(""), new(wrapperspb.StringValue))
	_, health := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	for _, err := range []error{err, streamErr, known, unknown, health} { // who calls is not told why
		if status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), "a rule that cannot be evaluated") {
			t.Errorf("refused call: %v", err)
		}
	}
	refuse.Store(nil)
	if _, err := talkSay(ctx, conn, "Say", "x"); err != nil {
		t.Errorf("after the refusal ended: %v", err)
	}
}

// incomingContext is the context of a handler whose call had the headers.
func incomingContext(t testing.TB, pairs ...string) context.Context {
	t.Helper()
	base := metadata.Pairs(":authority", "a:1", "content-type", "application/grpc", "user-agent", "u", "tri-consumer-appname", "c")
	return metadata.NewIncomingContext(t.Context(), metadata.Join(base, metadata.Pairs(pairs...)))
}

func TestIncomingMetadataIsWhatGrpcKeeps(t *testing.T) {
	if incomingKey == nil {
		t.Fatal("the context key of incoming metadata was not found; calls pay for a copy")
	}
	md := incomingMetadata(incomingContext(t, headerVersion, "1.0.0"))
	if got := firstValue(md[headerVersion]); got != "1.0.0" {
		t.Errorf("version = %q", got)
	}
	if md := incomingMetadata(t.Context()); md != nil {
		t.Errorf("metadata of a context without: %v", md)
	}
}

func talkSet(versions ...string) *exportSet {
	set := &exportSet{name: talkInterface, methods: map[string]*exportMethod{}, refuse: new(atomic.Pointer[Error])}
	for _, v := range versions {
		set.add(newExport(exportKey{version: v}, talkDesc, &talker{name: v}))
	}
	set.seal()
	return set
}

func TestChoosingAllocatesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		set *exportSet
		ctx context.Context
	}{
		"one, no header": {talkSet(""), incomingContext(t)},
		"one, header":    {talkSet("1.0.0"), incomingContext(t, headerVersion, "1.0.0")},
		"of three":       {talkSet("1.0.0", "2.0.0", ""), incomingContext(t, headerVersion, "2.0.0", headerGroup, "")},
	} {
		var err error
		allocs := leastAllocs(100, func() { _, err = tt.set.choose(tt.ctx) })
		if err != nil || allocs != 0 {
			t.Errorf("%s: %v allocations, %v", name, allocs, err)
		}
	}
}

func TestUnaryDispatchAllocatesNothing(t *testing.T) {
	reply := any(wrapperspb.String("x"))
	desc := newTalkDesc("Say")
	desc.Methods[0].Handler = func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
		return reply, nil
	}
	set := &exportSet{name: talkInterface, methods: map[string]*exportMethod{}}
	set.add(newExport(exportKey{}, desc, &talker{}))
	set.seal()
	handler, ctx := set.desc().Methods[0].Handler, incomingContext(t)
	if allocs := leastAllocs(100, func() { handler(set, ctx, nil, nil) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkChoose(b *testing.B) {
	for name, tt := range map[string]struct {
		set *exportSet
		ctx context.Context
	}{
		"one":      {talkSet("1.0.0"), incomingContext(b, headerVersion, "1.0.0")},
		"of three": {talkSet("1.0.0", "2.0.0", ""), incomingContext(b, headerVersion, "2.0.0", headerGroup, "")},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tt.set.choose(tt.ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
