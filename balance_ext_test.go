package proxyless_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// fullView is a consumer of a service with so many providers, named by number,
// in the view of a sidecar.
func fullView(t *testing.T, providers int, change func(*meshtest.Service)) *proxyless.Invoker {
	t.Helper()
	cp := meshtest.New(t)
	var endpoints []meshtest.Endpoint
	for i := range providers {
		endpoints = append(endpoints, startProvider(t, cp, &echo{name: fmt.Sprint(i)}).endpoint())
	}
	s := echoService(endpoints...)
	s.Address = "10.96.0.9"
	change(&s)
	cp.SetService(s)
	cfg := testConfig(cp, "consumer")
	cfg.View = proxyless.ViewFull
	mesh := join(t, cfg)
	inv := refer(t, mesh)
	ready(t, mesh)
	return inv
}

func TestCallsWithOneHeaderMeetAtOneProvider(t *testing.T) {
	for _, policy := range []meshtest.LBPolicy{meshtest.RingHash, meshtest.Maglev} {
		inv := fullView(t, 4, func(s *meshtest.Service) {
			s.Traffic = &meshtest.TrafficPolicy{LoadBalancer: &meshtest.LoadBalancer{Policy: policy, Hash: []meshtest.HashPolicy{{Header: "user"}}}}
		})
		reached := map[string]bool{}
		for user := range 20 {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "user", fmt.Sprint("user-", user))
			first, err := say(ctx, inv)
			if err != nil {
				t.Fatal(err)
			}
			reached[first] = true
			for range 5 {
				if who, err := say(ctx, inv); err != nil || who != first {
					t.Errorf("policy %v: user %d met %s and then %s, %v", policy, user, first, who, err)
				}
			}
		}
		if len(reached) < 3 {
			t.Errorf("policy %v: 20 users met the providers %v only", policy, reached)
		}
	}
}

func TestASessionKeepsItsProvider(t *testing.T) {
	for name, session := range map[string]meshtest.Session{"cookie": {Cookie: "sid", TTL: time.Hour}, "header": {Header: "x-session"}} {
		inv := fullView(t, 4, func(s *meshtest.Service) { s.Session = &session })
		var header metadata.MD
		first, err := say(t.Context(), inv, grpc.Header(&header))
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		if session.Cookie == "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "x-session", strings.Join(header.Get("x-session"), ""))
		} else {
			cookie, _, _ := strings.Cut(strings.Join(header.Get("set-cookie"), ""), ";")
			ctx = metadata.AppendToOutgoingContext(ctx, "cookie", cookie)
		}
		for range 12 {
			header = nil
			if who, err := say(ctx, inv, grpc.Header(&header)); err != nil || who != first || header.Get("set-cookie") != nil {
				t.Fatalf("%s: the session of %s met %s, %v, and is told %v", name, first, who, err, header)
			}
		}
		stream, err := inv.NewStream(ctx, &echoDesc.Streams[0], echoStream)
		if err != nil {
			t.Fatal(err)
		}
		out := new(wrapperspb.StringValue)
		if err = stream.SendMsg(wrapperspb.String("hi")); err == nil {
			err = stream.RecvMsg(out)
		}
		if err != nil || out.Value != first+":hi" {
			t.Errorf("%s: a stream of the session of %s met %q, %v", name, first, out.Value, err)
		}
		stream.CloseSend()
		others := map[string]bool{}
		for range 60 {
			who, err := say(t.Context(), inv)
			if err != nil {
				t.Fatal(err)
			}
			others[who] = true
		}
		if len(others) < 2 {
			t.Errorf("%s: calls without the session all met %v", name, others)
		}
	}
}
