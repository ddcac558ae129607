package proxyless

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestVerdicts(t *testing.T) {
	want := map[codes.Code]verdict{
		codes.OK: verdictSuccess, codes.Canceled: verdictNone, codes.Unknown: verdictFailure, codes.InvalidArgument: verdictSuccess,
		codes.DeadlineExceeded: verdictGateway, codes.NotFound: verdictSuccess, codes.AlreadyExists: verdictSuccess,
		codes.PermissionDenied: verdictSuccess, codes.ResourceExhausted: verdictSuccess, codes.FailedPrecondition: verdictSuccess,
		codes.Aborted: verdictSuccess, codes.OutOfRange: verdictSuccess, codes.Unimplemented: verdictFailure, codes.Internal: verdictFailure,
		codes.Unavailable: verdictGateway, codes.DataLoss: verdictFailure, codes.Unauthenticated: verdictSuccess,
	}
	for code, v := range want {
		if got := verdictOf(status.Error(code, "")); got != v {
			t.Errorf("%v is %d, want %d", code, got, v)
		}
	}
	answered := answer{trailer: metadata.Pairs("content-type", "application/grpc")}
	for _, c := range []struct {
		name string
		got  verdict
		want verdict
	}{
		{"nothing sent", verdictOf(fmt.Errorf("wrapped: %w", errNothingSent)), verdictNone},
		{"deadline", verdictOf(context.DeadlineExceeded), verdictGateway},
		{"cancelled", verdictOf(context.Canceled), verdictNone},
		{"another error", verdictOf(errors.New("from an interceptor")), verdictFailure},
		{"the caller's own message", verdictOf(status.Error(codes.Internal, "grpc: error while marshaling: no message")), verdictNone},
		{"no answer", new(answer).judge(status.Error(codes.Unavailable, "")), verdictLocal},
		{"an answer", answered.judge(status.Error(codes.Unavailable, "")), verdictGateway},
		{"no answer, cancelled", new(answer).judge(status.Error(codes.Canceled, "")), verdictNone},
	} {
		if c.got != c.want {
			t.Errorf("%s is %d, want %d", c.name, c.got, c.want)
		}
	}
}
