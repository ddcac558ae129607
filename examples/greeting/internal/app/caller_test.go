package app

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"google.golang.org/grpc"
)

func TestTheCallerGoesOnAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		caller := Caller{Client: &flaky{}, Name: "xDS Consumer", Interval: 100 * time.Millisecond, Calls: 3, Out: &out}
		start := time.Now()
		answered, failed := caller.Run(t.Context())
		if answered != 2 || failed != 1 {
			t.Errorf("%d answered, %d failed", answered, failed)
		}
		if want := "result: hello, xDS Consumer!\nerror: no provider\nresult: hello, xDS Consumer!\n"; out.String() != want {
			t.Errorf("printed %q, want %q", out.String(), want)
		}
		if took := time.Since(start); took != 200*time.Millisecond {
			t.Errorf("three calls took %v", took)
		}
	})
}

func TestTheCallThatTheEndCutsOffIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		caller := Caller{Client: silent{}, Out: &out}
		if answered, failed := caller.Run(ctx); answered != 0 || failed != 0 || out.Len() > 0 {
			t.Errorf("%d answered, %d failed, printed %q", answered, failed, out.String())
		}
	})
}

// flaky fails every second call.
type flaky struct{ calls int }

func (f *flaky) SayHello(_ context.Context, in *greetpb.SayHelloRequest, _ ...grpc.CallOption) (*greetpb.SayHelloReply, error) {
	f.calls++
	if f.calls%2 == 0 {
		return nil, errors.New("no provider")
	}
	return &greetpb.SayHelloReply{Message: "hello, " + in.GetName() + "!"}, nil
}

// silent never answers.
type silent struct{}

func (silent) SayHello(ctx context.Context, _ *greetpb.SayHelloRequest, _ ...grpc.CallOption) (*greetpb.SayHelloReply, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
