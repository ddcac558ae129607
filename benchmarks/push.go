package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/meshtest"
)

// push measures from the moment at which the control plane learns of a new
// endpoint, which takes the place of the old one, to the end of the first call
// that the new one answered. One goroutine calls without a pause. What else
// there is in the cluster has a lower priority, so that it takes part in every
// push and in no call. Each client is in the view that it has for itself.
func push(r *report, share time.Duration) error {
	for _, size := range []struct {
		endpoints, services int
		name                string
	}{
		{1, 0, ""}, {10, 0, ", 10 endpoints"}, {1000, 0, ", 1 000 endpoints"}, {10_000, 0, ", 10 000 endpoints"}, {1, 1000, ", in a mesh of 1 000 services"},
	} {
		if err := pushes(r, share/5, size.endpoints, size.services, size.name); err != nil {
			return err
		}
	}
	return nil
}

func pushes(r *report, share time.Duration, endpoints, services int, size string) error {
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	w.manyServices(services)
	var places [2][]meshtest.Endpoint
	for i := range places {
		addr, err := w.bareServer(Greeter{prefix: fmt.Sprint(i)})
		if err != nil {
			return err
		}
		places[i] = []meshtest.Endpoint{endpoint(addr)}
		for n := 1; n < endpoints; n++ {
			places[i] = append(places[i], meshtest.Endpoint{Address: netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}).String(), Port: 1, Priority: 1})
		}
	}
	w.provide("ours", places[0]...)
	w.provide("theirs", places[0]...)
	ours, err := w.meshClient("ours", 0)
	if err != nil {
		return err
	}
	theirs, err := w.xdsClient("theirs")
	if err != nil {
		return err
	}
	s := compete(share, mover(w, "ours", ours, places), mover(w, "theirs", theirs, places))
	budget := 0.0
	if size == "" {
		budget = 1
	}
	r.add(row{what: "push to the first call on the new endpoint" + size, ours: nanoseconds(s[0].time), other: nanoseconds(s[1].time),
		compared: "time / grpc-go xDS", estimate: ratio(s[0].time, s[1].time), budget: budget})
	return nil
}

// mover moves a service between two places.
func mover(w *world, name string, conn grpc.ClientConnInterface, places [2][]meshtest.Endpoint) contestant {
	stub := greetpb.NewGreetingServiceClient(conn)
	at := 0
	return func() sample {
		at = 1 - at
		start := time.Now()
		w.control.SetEndpoints(name, namespace, places[at]...)
		for time.Since(start) < 10*time.Second {
			out, err := stub.SayHello(context.Background(), &greetpb.SayHelloRequest{})
			if err == nil && strings.HasPrefix(out.GetMessage(), fmt.Sprint(at)) {
				took := time.Since(start)
				time.Sleep(5 * time.Millisecond) // the old connection drains in peace
				return sample{time: float64(took)}
			}
		}
		panic(name + ": the new endpoint is never called")
	}
}
