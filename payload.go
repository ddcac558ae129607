package proxyless

import (
	"context"
	"reflect"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of calls that name none
	"google.golang.org/grpc/mem"
)

// payload is the request of one call, which all its attempts share. It stands
// before the codec of the call as a codec that remembers: the request is
// marshalled once, however often it is sent. Only one attempt may use it at a
// time, but for what is held already.
type payload struct {
	codec   encoding.CodecV2 // the call's own; nil where it is not known, and gRPC will say why
	args    any
	data    mem.BufferSlice // what args became; counts where held
	held    bool
	decoded bool // a response was decoded: the call is the attempt's that did
}

var _ encoding.CodecV2 = (*payload)(nil)

func (p *payload) Name() string { return p.codec.Name() }

func (p *payload) Marshal(v any) (mem.BufferSlice, error) {
	ours := sameMessage(v, p.args) // else an interceptor of Config.DialOptions sends something else
	if ours && p.held {
		p.data.Ref()
		return p.data, nil
	}
	data, err := p.codec.Marshal(v)
	if err == nil && ours {
		data.Ref()
		p.data, p.held = data, true
	}
	return data, err
}

func (p *payload) Unmarshal(data mem.BufferSlice, v any) error {
	p.decoded = true
	return p.codec.Unmarshal(data, v)
}

// hold marshals the request ahead of its first attempt.
func (p *payload) hold() error {
	if p.held || p.codec == nil {
		return nil
	}
	data, err := p.codec.Marshal(p.args)
	if err == nil {
		p.data, p.held = data, true
	}
	return err
}

// free lets go of the request. Attempts that still send it hold it on their own.
func (p *payload) free() {
	if p.held {
		p.data.Free()
	}
	*p = payload{}
}

// sameMessage says that both are one message. What is neither a pointer nor a
// slice cannot be told apart from its neighbours, and is never the same.
func sameMessage(a, b any) bool {
	if a == nil || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return false
	}
	switch v := reflect.ValueOf(a); v.Kind() {
	case reflect.Pointer:
		return a == b
	case reflect.Slice: // of bytes: custom codecs take them
		w := reflect.ValueOf(b)
		return v.Pointer() == w.Pointer() && v.Len() == w.Len()
	}
	return false
}

// contentSubtype is that of every call, unless its options say otherwise.
const contentSubtype = "proto"

// callCodec is the codec that gRPC takes for a call with these options; nil
// where it has none.
func (t *connTable) callCodec(opts []grpc.CallOption) encoding.CodecV2 {
	forced, subtype := t.codec(), contentSubtype
	for _, o := range opts {
		if c, ok := forcedCodec(o); ok {
			forced = c
		} else if o, ok := o.(grpc.ContentSubtypeCallOption); ok {
			subtype = o.ContentSubtype
		}
	}
	if forced != nil {
		return forced
	}
	if c := encoding.GetCodec(subtype); c != nil {
		return bytesCodec{c, c.Name()}
	}
	return encoding.GetCodecV2(subtype)
}

// forcedCodec is the codec that an option demands, if it is of those that do.
func forcedCodec(o grpc.CallOption) (c encoding.CodecV2, ok bool) {
	switch o := o.(type) {
	case grpc.ForceCodecV2CallOption:
		return o.CodecV2, true
	case grpc.ForceCodecCallOption:
		return bytesCodec{o.Codec, o.Codec.Name()}, true
	case grpc.CustomCodecCallOption:
		return bytesCodec{o.Codec, o.Codec.String()}, true
	}
	return nil, false
}

// bytesCodec is a codec of the old form, which knows byte slices only.
type bytesCodec struct {
	old interface {
		Marshal(v any) ([]byte, error)
		Unmarshal(data []byte, v any) error
	}
	name string
}

func (c bytesCodec) Name() string { return c.name }

func (c bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	data, err := c.old.Marshal(v)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

func (c bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	return c.old.Unmarshal(data.Materialize(), v)
}

// dialledCodec finds the codec that the user's dial options give to every call.
// They are opaque; gRPC shows what they add up to when a call begins, which
// this one does without being sent.
func dialledCodec(options []grpc.DialOption) func() encoding.CodecV2 {
	if len(options) == 0 {
		return func() encoding.CodecV2 { return nil }
	}
	return sync.OnceValue(func() (forced encoding.CodecV2) {
		look := func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			for _, o := range opts {
				if c, ok := forcedCodec(o); ok {
					forced = c
				}
			}
			return nil
		}
		all := append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
		conn, err := grpc.NewClient("passthrough:///nowhere", append(all, grpc.WithUnaryInterceptor(look))...)
		if err != nil {
			return nil
		}
		defer conn.Close()
		conn.Invoke(context.Background(), "/nothing/nothing", nil, nil)
		return forced
	})
}
