package main

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
)

// caller makes one unary call.
type caller func() error

// payload is the string that every call carries there and back.
var payload = strings.Repeat("x", 100)

// through calls by a generated stub. The context is made for each call.
func through(conn grpc.ClientConnInterface, ctx func() (context.Context, context.CancelFunc)) caller {
	stub := greetpb.NewGreetingServiceClient(conn)
	return func() error {
		ctx, cancel := ctx()
		defer cancel()
		out, err := stub.SayHello(ctx, &greetpb.SayHelloRequest{Name: payload})
		if err == nil && len(out.GetMessage()) != len(payload) {
			err = fmt.Errorf("the answer has %d bytes", len(out.GetMessage()))
		}
		return err
	}
}

func always(ctx context.Context) func() (context.Context, context.CancelFunc) {
	return func() (context.Context, context.CancelFunc) { return ctx, func() {} }
}

// serial makes calls one after the other.
func (c caller) serial(times int) {
	for range times {
		if err := c(); err != nil {
			panic(err)
		}
	}
}

// callersPerCore is how many goroutines call at once in the loaded rows.
const callersPerCore = 32

// crowded makes calls from many goroutines at once.
func (c caller) crowded(times int) {
	callers := callersPerCore * runtime.GOMAXPROCS(0)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() { c.serial(times / callers) })
	}
	wg.Wait()
}

// invoke compares clients of one bare server: what a client adds to a bare
// ClientConn that was told the same headers once, for all calls. The mesh has
// no policy for them: what one costs stands in the section policies.
func invoke(r *report, share time.Duration) error {
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	addr, err := w.bareServer(Greeter{})
	if err != nil {
		return err
	}
	w.provideBare("echo", endpoint(addr))
	bare, err := w.bareClient(addr)
	if err != nil {
		return err
	}
	ours, err := w.meshClient("echo", 0)
	if err != nil {
		return err
	}
	xds, err := w.xdsClient("echo")
	if err != nil {
		return err
	}
	plain, headers := always(context.Background()), always(told(context.Background()))
	calls := []caller{through(bare, headers), through(ours, plain), through(xds, headers)}
	var a [3]allocation
	for i := range calls {
		a[i] = allocated(1000, calls[i].serial)
	}
	above := func(i int) estimate {
		x := math.Round(a[i].objects - a[0].objects)
		return estimate{x, x, x, 3}
	}
	r.add(row{what: "Invoke above a bare ClientConn, allocations of both ends", ours: a[1].String(), other: a[0].String(), compared: "difference", estimate: above(1), budget: 2})
	r.add(row{what: "… grpc-go xDS above the same", other: a[2].String(), compared: "difference", estimate: above(2)})
	for _, load := range loads(10, 16*callersPerCore) {
		s := compete(share, load.contestants(calls)...)
		name := "Invoke above a bare ClientConn, " + load.name
		r.add(row{what: name, ours: nanoseconds(s[1].time), other: nanoseconds(s[0].time), compared: "time / bare grpc-go", estimate: ratio(s[1].time, s[0].time), budget: 1.02})
		r.add(row{what: "… processor time", ours: nanoseconds(s[1].cpu), other: nanoseconds(s[0].cpu), compared: "CPU / bare grpc-go", estimate: ratio(s[1].cpu, s[0].cpu), budget: 1.02})
		r.add(row{what: "… grpc-go xDS above the same", other: nanoseconds(s[2].time), compared: "time / bare grpc-go", estimate: ratio(s[2].time, s[0].time)})
		r.add(row{what: "… processor time", other: nanoseconds(s[2].cpu), compared: "CPU / bare grpc-go", estimate: ratio(s[2].cpu, s[0].cpu)})
	}
	return nil
}

// load is a way to make many calls.
type load struct {
	name  string
	batch int // calls
	work  func(caller) func(times int)
}

func loads(serial, crowd int) []load {
	return []load{
		{"serial", serial, func(c caller) func(int) { return c.serial }},
		{"32 callers per core", crowd, func(c caller) func(int) { return c.crowded }},
	}
}

func (l *load) contestants(calls []caller) []contestant {
	var all []contestant
	for _, c := range calls {
		all = append(all, timed(l.batch, l.work(c)))
	}
	return all
}

// echo compares whole stacks, client and server: what a user of each gets. Every
// call has Dubbo's default deadline of three seconds.
func echo(r *report, share time.Duration) error {
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	const timeout = 3 * time.Second
	bareAddr, err := w.bareServer(Greeter{})
	if err != nil {
		return err
	}
	bare, err := w.bareClient(bareAddr)
	if err != nil {
		return err
	}
	meshAddr, err := w.meshServer(Greeter{})
	if err != nil {
		return err
	}
	w.provide("echo", endpoint(meshAddr))
	ours, err := w.meshClient("echo", timeout)
	if err != nil {
		return err
	}
	dubbo, err := dubboStack()
	if err != nil {
		return err
	}
	deadline := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(told(context.Background()), timeout)
	}
	calls := []caller{through(bare, deadline), through(ours, always(context.Background())), dubbo}
	var a [3]allocation
	for i := range calls {
		a[i] = allocated(500, calls[i].serial)
	}
	for _, load := range loads(10, 8*callersPerCore) {
		s := compete(share, load.contestants(calls)...)
		budget := 0.0
		if load.name != "serial" {
			budget = 5
		}
		name := "unary echo, client and server, " + load.name
		r.add(row{what: name, ours: nanoseconds(s[1].time) + ", " + a[1].String(), other: nanoseconds(s[2].time) + ", " + a[2].String(),
			compared: "dubbo-go's time / proxyless", estimate: ratio(s[2].time, s[1].time), budget: budget, atLeast: true})
		r.add(row{what: "… processor time", ours: nanoseconds(s[1].cpu), other: nanoseconds(s[2].cpu),
			compared: "dubbo-go's CPU / proxyless", estimate: ratio(s[2].cpu, s[1].cpu), budget: budget, atLeast: true})
		r.add(row{what: "… proxyless above bare grpc-go", ours: nanoseconds(s[1].cpu), other: nanoseconds(s[0].cpu) + ", " + a[0].String(), compared: "CPU / CPU", estimate: ratio(s[1].cpu, s[0].cpu)})
		r.add(row{what: "… dubbo-go above bare grpc-go", other: nanoseconds(s[2].cpu), compared: "CPU / CPU", estimate: ratio(s[2].cpu, s[0].cpu)})
	}
	return nil
}
