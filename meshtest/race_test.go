package meshtest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/proxyless/proxyless/meshtest"
)

// TestEverythingAtOnce lets clients come and go while the mesh changes. What
// counts is that the last of them is told the last state.
func TestEverythingAtOnce(t *testing.T) {
	both(t, func(t *testing.T, opts ...meshtest.Option) {
		c := meshtest.New(t, opts...)
		c.SetService(greeting())
		ctx, cancel := context.WithCancel(t.Context())
		var clients, changes sync.WaitGroup
		for range 3 {
			k := connect(t, c)
			context.AfterFunc(ctx, k.cancel)
			clients.Go(func() {
				for ctx.Err() == nil {
					_ = k.stream.SendMsg(request{typeURL: eds, names: []string{greetingCluster}, node: lean()}.marshal())
					for {
						if _, err := k.try(); err != nil {
							break
						}
					}
					if stream, err := k.conn.NewStream(ctx, eitherWay, method); err == nil {
						k.stream = stream
					}
				}
			})
		}
		for _, node := range [][]byte{lean(), full()} {
			k := connectDelta(t, c, node)
			context.AfterFunc(ctx, k.cancel)
			clients.Go(func() {
				for ctx.Err() == nil {
					for _, typeURL := range []string{cds, lds} {
						_ = k.stream.SendMsg(deltaRequest{typeURL: typeURL, sub: []string{"*"}, node: node}.marshal())
					}
					_ = k.stream.SendMsg(deltaRequest{typeURL: rds, sub: []string{"50052"}}.marshal())
					for {
						var b []byte
						if err := k.stream.RecvMsg(&b); err != nil {
							break
						}
						r := parseDelta(b)
						_ = k.stream.SendMsg(deltaRequest{typeURL: r.typeURL, nonce: r.nonce}.marshal())
					}
					if stream, err := k.conn.NewStream(ctx, eitherWay, deltaMethod); err == nil {
						k.stream = stream
					}
				}
			})
		}
		act := func(f func(i int)) {
			changes.Go(func() {
				for i := range 50 {
					f(i)
				}
			})
		}
		act(func(i int) {
			c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: fmt.Sprintf("10.0.0.%d", i)})
		})
		act(func(i int) { c.SetService(meshtest.Service{Name: fmt.Sprint("s", i), Namespace: "demo"}) })
		act(func(i int) { c.RemoveService(fmt.Sprint("s", i), "demo") })
		act(func(i int) { c.SetResource(lds, fmt.Sprint(i), nil); c.Inject([]byte{byte(i)}) })
		act(func(int) { c.Freeze(); c.Thaw() })
		act(func(int) { c.Mute(eds); c.Unmute(eds) })
		act(func(i int) {
			c.SetEgress(meshtest.Egress(i % 2))
			c.SetInbound("0.0.0.0:50052", meshtest.Inbound{TLS: i%2 == 0})
		})
		act(func(i int) {
			if i%10 == 0 {
				c.Disconnect()
			}
			_, _, _ = c.Requests(), c.Streams(), c.Addr()
		})
		act(func(i int) {
			if i%20 == 0 {
				c.StopListening()
				if err := c.Restart(); err != nil {
					t.Error(err)
				}
			}
		})
		changes.Wait()
		cancel()
		clients.Wait()

		k := connect(t, c)
		c.SetEndpoints("greeting", "demo", meshtest.Endpoint{Address: "10.9.9.9"})
		k.ask(eds, greetingCluster)
		if got := addresses(k.want(eds, greetingCluster).resources[0]); got != "10.9.9.9" {
			t.Fatalf("endpoints %q", got)
		}
	})
}

func TestWaitSettled(t *testing.T) {
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(greeting())
	k := connect(t, c)
	k.ask(lds, "greeting:50052")
	r := k.recv() // not answered
	done := make(chan error, 1)
	go func() { done <- c.WaitSettled(t.Context()) }() // ends with the ACK below
	k.ask(cds, greetingCluster)
	k.want(cds, greetingCluster)
	select {
	case err := <-done:
		t.Fatalf("settled with a response unanswered: %v", err)
	default:
	}
	k.raw(request{typeURL: lds, nonce: r.nonce, version: r.version, names: []string{"greeting:50052"}})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
