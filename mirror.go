package proxyless

import (
	"context"
	"reflect"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// Copies of calls go to other clusters where a route asks for that
// (request_mirror_policies). A copy is sent beside the call and forgotten: it
// neither delays nor fails the call, and nobody sees its answer. Copies are of
// unary calls only: what a stream will send is not known when it is opened.

// mirrorTime bounds a copy of a call without deadline.
const mirrorTime = 15 * time.Second

// mirrors are those of the way's policy.
func (w *way) mirrors() []plannedMirror {
	if w.cluster.policy != nil {
		return w.cluster.mirrors
	}
	return w.route.mirrors
}

// mirror sends the copies that are due. The request is marshalled by then.
func (g *governed) mirror(ctx context.Context) {
	mirrors := g.way.mirrors()
	for i := range mirrors {
		m := &mirrors[i]
		if !drawn(m.policy.share) {
			continue
		}
		if g.payload.hold() != nil {
			return // the call itself will say so
		}
		w := way{plan: g.way.plan, route: g.way.route, cluster: &m.cluster}
		if m.policy.header != "" {
			h := g.way.plan.callHeaders(ctx, g.method)
			name, _ := h.get(m.policy.header)
			found := m.named[name]
			w.cluster = &found
		}
		if !g.payload.held || w.cluster.set == nil || !g.inv.sendCopy(ctx, g.copy(), w, m.policy) {
			g.inv.counts.mirrorsDropped.Add(1)
		}
	}
}

// sentCopy is a unary call whose answer nobody looks at: the codec that sends
// what was marshalled already.
type sentCopy struct {
	codec  encoding.CodecV2
	data   mem.BufferSlice
	kind   reflect.Type // of the request
	policy *routePolicy
	method string
	opts   []grpc.CallOption
}

// copy holds the request on its own.
func (g *governed) copy() *sentCopy {
	g.payload.data.Ref()
	return &sentCopy{codec: g.payload.codec, data: g.payload.data, kind: reflect.TypeOf(g.args), policy: g.policy, method: g.method, opts: g.opts}
}

func (c *sentCopy) Name() string                         { return c.codec.Name() }
func (c *sentCopy) Unmarshal(mem.BufferSlice, any) error { return nil }

func (c *sentCopy) Marshal(any) (mem.BufferSlice, error) {
	c.data.Ref()
	return c.data, nil
}

// message stands for the request, which its caller may have changed by now. It
// is made where somebody may look at it.
func (c *sentCopy) message(t *connTable) any {
	if t.watched && c.kind != nil && c.kind.Kind() == reflect.Pointer {
		m := reflect.New(c.kind.Elem()).Interface()
		if c.codec.Unmarshal(c.data, m) == nil {
			return m
		}
	}
	return c
}

// options are those of the call which do not say where its answer goes.
func (c *sentCopy) options(p *plan) []grpc.CallOption {
	o := make([]grpc.CallOption, 0, len(p.options)+len(c.opts)+3)
	o = append(o, p.options...)
	for _, one := range c.opts {
		switch one.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption, grpc.OnFinishCallOption, grpc.StaticMethodCallOption:
		default:
			o = append(o, one)
		}
	}
	return append(o, grpc.ForceCodecV2(c))
}

// sendCopy sends a copy to a mirror on an errand. It takes over c.data.
func (inv *Invoker) sendCopy(ctx context.Context, c *sentCopy, w way, m *mirrorPolicy) bool {
	deadline, has := ctx.Deadline()
	if !has {
		deadline = time.Now().Add(mirrorTime)
	}
	values := context.WithoutCancel(ctx)
	started := inv.table.mirrors.run(func(end context.Context) {
		defer c.data.Free()
		ctx, cancel := context.WithDeadline(values, deadline)
		defer cancel()
		defer context.AfterFunc(end, cancel)()
		a, ok := inv.pickFor(ctx, &w)
		if !ok {
			inv.counts.mirrorsDropped.Add(1)
			return
		}
		authority := c.policy.authority(ctx, c.method, &a)
		if authority == "" {
			authority = w.plan.name
		}
		if !m.keepsName {
			authority = shadow(authority)
		}
		inv.counts.mirrored.Add(1)
		err := a.conn.Invoke(c.policy.outgoing(ctx, &a, 0), c.policy.method(c.method), c.message(inv.table), new(struct{}), append(c.options(w.plan), grpc.CallAuthority(authority))...)
		a.finish(err)
	})
	if !started {
		c.data.Free()
	}
	return started
}

// shadow is the authority of a copy: Envoy's way to tell them from calls.
func shadow(authority string) string {
	host := withoutPort(authority)
	return host + "-shadow" + strings.TrimPrefix(authority, host)
}

// pickFor waits for an endpoint of one cluster, as long as there is hope. It
// does not look for another way when no plan has the cluster's endpoints any more.
func (inv *Invoker) pickFor(ctx context.Context, w *way) (attempt, bool) {
	timer := time.NewTimer(repick)
	defer timer.Stop()
	for {
		changed := inv.table.changed.wait()
		a, blocked := w.pick(choice{})
		if a.conn != nil {
			return a, true
		}
		if !blocked.hopeful || w.cluster.set.gone() {
			return a, false
		}
		select {
		case <-ctx.Done():
			return a, false
		case <-changed:
		case <-timer.C:
			timer.Reset(repick)
		}
	}
}
