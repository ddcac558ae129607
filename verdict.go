package proxyless

import (
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// outcome is what an attempt was for its endpoint, as outlier detection counts
// it. Envoy counts HTTP statuses. A gRPC status becomes one by
// Grpc::Utility::grpcToHttpStatus (source/common/grpc/status.cc), and 5xx is a
// failure, of which 502, 503 and 504 are gateway failures:
//
//	UNAVAILABLE                  503  gateway failure
//	DEADLINE_EXCEEDED            504  gateway failure
//	UNKNOWN, INTERNAL, DATA_LOSS 500  failure
//	UNIMPLEMENTED                501  failure
//	all others                   4xx  success
//
// What the endpoint did not answer is a failure of local origin: a connection
// that failed or was lost, a stream that was reset before a response, a
// timeout. Envoy counts it as 503, timeouts as 504, and apart with
// split_external_local_origin_errors (Filter::onUpstreamReset,
// Filter::onResponseTimeout in source/common/router/router.cc,
// DetectorHostMonitorImpl::putResult). A call that its caller cancelled counts
// as nothing.
//
// There are three differences. Envoy looks at a grpc-status in the headers of
// a response and takes one in trailers after a message for HTTP's 200; here
// the status counts, wherever it came. A stream that was reset counts without
// the split by the status that gRPC makes of the reset's code. And with the
// split Envoy takes each stream that was opened for a local success, so that
// timeouts never come in a row; here they do.
type verdict uint8

const (
	verdictNone verdict = iota // says nothing of the endpoint
	verdictSuccess
	verdictFailure
	verdictGateway // a failure, too
	verdictLocal   // of local origin; only where these are split off
)

// verdictOf judges how an attempt ended.
func verdictOf(err error) verdict {
	if err == nil {
		return verdictSuccess
	}
	if nothingSent(err) {
		return verdictNone
	}
	s, known := status.FromError(err)
	if !known {
		s = status.FromContextError(err)
	}
	switch s.Code() {
	case codes.Canceled:
		return verdictNone
	case codes.Unavailable, codes.DeadlineExceeded:
		return verdictGateway
	case codes.Internal:
		if strings.HasPrefix(s.Message(), unsendable) {
			return verdictNone
		}
		return verdictFailure
	case codes.Unknown, codes.DataLoss, codes.Unimplemented:
		return verdictFailure
	}
	return verdictSuccess
}

// unsendable is how gRPC says that the caller's own message is not one.
const unsendable = "grpc: error while marshaling"

// answer is what arrived of a response. It is kept only where failures of
// local origin are split off.
type answer struct{ header, trailer metadata.MD }

// options make gRPC fill the answer.
func (a *answer) options() []grpc.CallOption {
	return []grpc.CallOption{grpc.Header(&a.header), grpc.Trailer(&a.trailer)}
}

// arrived says that the endpoint answered: each response has a content type,
// in its headers or, where it has nothing else, in its trailers.
func (a *answer) arrived() bool {
	return len(a.header["content-type"]) > 0 || len(a.trailer["content-type"]) > 0
}

// judge is verdictOf where failures of local origin are split off.
func (a *answer) judge(err error) verdict {
	o := verdictOf(err)
	if (o == verdictFailure || o == verdictGateway) && !a.arrived() {
		return verdictLocal
	}
	return o
}
