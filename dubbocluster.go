package proxyless

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	failbackPeriod = 5 * time.Second // before each call made later
	mostBroadcast  = 16              // calls of one broadcast at a time
)

// spreads says that unary calls do not just go to one endpoint after the other.
func (t *tolerance) spreads() bool {
	return t.mode != "" && (t.mode == clusterForking || t.mode == clusterAvailable || t.mode == clusterBroadcast)
}

// forgives says that callers are not told of unary calls that failed.
func (t *tolerance) forgives() bool {
	return t.mode != "" && (t.mode == clusterFailsafe || t.mode == clusterFailback)
}

// spread sends a unary call where its reference's cluster wants it.
func (inv *Invoker) spread(ctx context.Context, method string, args, reply any, w way, opts []grpc.CallOption) error {
	t := &inv.target.tolerance
	switch t.mode {
	case clusterForking:
		var forked routePolicy
		if p := w.policy(); p != nil {
			forked = *p
		}
		forked.retry, forked.hedge = nil, &hedgePolicy{initial: uint32(min(t.forks, mostHedged))}
		return inv.governBy(ctx, &forked, method, args, reply, w, opts)
	case clusterBroadcast:
		return inv.broadcast(ctx, method, args, reply, w, opts)
	}
	return inv.governBy(ctx, w.policy().orNone(), method, args, reply, w, opts)
}

// forgive keeps a failure from a unary call's caller.
func (inv *Invoker) forgive(ctx context.Context, method string, args, reply any, opts []grpc.CallOption, err error) error {
	t := &inv.target.tolerance
	if !callFailed(err) || ctx.Err() == context.Canceled || errors.Is(err, ErrClosed) {
		return err
	}
	if t.mode == clusterFailback {
		inv.retryLater(ctx, method, args, opts)
	}
	inv.counts.swallowed.Add(1)
	inv.log.Warn("a call failed, and its caller was told nothing, as Dubbo's cluster says", "cluster", t.mode, "method", method, keyError, err)
	blank(reply)
	return nil
}

// orNone is a policy that asks for nothing where there is none.
func (p *routePolicy) orNone() *routePolicy {
	if p == nil {
		return &routePolicy{}
	}
	return p
}

// blank empties a reply that may have been decoded into.
func blank(reply any) {
	if m, is := reply.(proto.Message); is {
		proto.Reset(m)
	} else if v := reflect.ValueOf(reply); v.Kind() == reflect.Pointer && !v.IsNil() {
		v.Elem().SetZero()
	}
}

// firstAvailable keeps a call of the cluster "available" to the first endpoint
// that is connected, in the order of the mesh.
func (s *endpointSet) firstAvailable() *choiceExtra {
	for i := range s.tiers {
		t := &s.tiers[i]
		for at := t.first; at < t.first+t.count; at++ {
			if s.usable(at) != nil {
				return &choiceExtra{sticky: s.endpoints[at].addr}
			}
			s.wake(at)
		}
	}
	return nil
}

// retryLater repeats a call in the background until it succeeds or was tried
// as often as it may be. Too many such calls at a time are dropped.
func (inv *Invoker) retryLater(ctx context.Context, method string, args any, opts []grpc.CallOption) {
	p := payload{codec: inv.table.callCodec(opts), args: args}
	if p.hold() != nil || !p.held {
		return
	}
	limit := inv.target.timeout
	if limit <= 0 {
		limit = mirrorTime
	}
	c := &sentCopy{codec: p.codec, data: p.data, kind: reflect.TypeOf(args), method: method, opts: opts}
	values := context.WithoutCancel(ctx)
	started := inv.table.failback.run(func(end context.Context) {
		defer c.data.Free()
		for range inv.target.tolerance.retries {
			select {
			case <-end.Done():
				return
			case <-time.After(failbackPeriod):
			}
			inv.counts.retries.Add(1)
			if inv.repeat(end, values, limit, c) {
				return
			}
		}
		inv.log.Error("a call that was to be made later has failed for good", "method", method)
	})
	if !started {
		c.data.Free()
		inv.log.Error("a call that was to be made later is dropped: too many are waiting", "method", method)
	}
}

// repeat sends a call of the past once. It returns false where it is to be sent
// again.
func (inv *Invoker) repeat(end, values context.Context, limit time.Duration, c *sentCopy) bool {
	ctx, cancel := context.WithTimeout(values, limit)
	defer cancel()
	defer context.AfterFunc(end, cancel)()
	w, _, err := inv.way(ctx, c.method, nil)
	if err == nil {
		var a attempt
		if a, err = inv.attempt(ctx, c.method, &w, choice{}, nil); err == nil {
			p := w.policy().orNone()
			err = a.conn.Invoke(p.outgoing(ctx, &a, 0), p.method(c.method), c.message(inv.table), new(struct{}), c.options(a.plan)...)
			a.finish(err)
		}
	}
	return end.Err() == nil && !callFailed(err)
}

// broadcast calls every endpoint of the cluster that can be connected, and
// fails where any of them does. The reply is that of the last one in the order
// of the mesh. Faults of the route apply once; its retries do not.
func (inv *Invoker) broadcast(ctx context.Context, method string, args, reply any, w way, opts []grpc.CallOption) error {
	p := w.policy().orNone()
	if p.fault != nil {
		if ended, err := inv.inject(ctx, p.fault, method, &w); ended {
			return err
		}
	}
	attempts, err := inv.everyEndpoint(ctx, method, &w, opts)
	if err != nil {
		return err
	}
	errs := make([]error, len(attempts))
	turn := make(chan struct{}, mostBroadcast)
	var all sync.WaitGroup
	for i := range attempts {
		a := &attempts[i]
		to, o := any(nil), broadcastOptions(opts)
		if i == len(attempts)-1 {
			to, o = reply, opts
		}
		all.Go(func() { // joined below
			turn <- struct{}{}
			defer func() { <-turn }()
			errs[i] = inv.broadcastOne(ctx, p, method, args, to, a, o)
		})
	}
	all.Wait()
	return inv.broadcastFailure(attempts, errs)
}

// broadcastOne is one call of a broadcast. Its reply is decoded, and thrown
// away where to is nil.
func (inv *Invoker) broadcastOne(ctx context.Context, p *routePolicy, method string, args, to any, a *attempt, opts []grpc.CallOption) (err error) {
	defer func() { a.finish(err) }()
	o := a.options(opts)
	if to == nil {
		c := &deafCodec{inv.table.callCodec(opts)}
		if c.CodecV2 == nil {
			return status.Error(codes.Internal, "proxyless: the call's codec is not known")
		}
		to, o = new(struct{}), append(o[:len(o):len(o)], grpc.ForceCodecV2(c))
	}
	if authority := p.authority(ctx, method, a); authority != "" {
		o = append(o[:len(o):len(o)], grpc.CallAuthority(authority))
	}
	return a.conn.Invoke(p.outgoing(ctx, a, 0), p.method(method), args, to, o...)
}

func (inv *Invoker) broadcastFailure(attempts []attempt, errs []error) error {
	var failed []string
	var last error
	for i, err := range errs {
		if err != nil {
			last = err
			failed = append(failed, fmt.Sprintf("%s: %s", attempts[i].cell.key.addr, status.Convert(err).Message()))
		}
	}
	if last == nil {
		return nil
	}
	return &Error{Stage: StageEndpoint, Resource: attempts[0].set.cluster.name, Code: status.Code(last), Err: errors.Join(errs...),
		Reason: fmt.Sprintf("%d of %d endpoints failed the broadcast: %s", len(failed), len(attempts), strings.Join(failed, "; "))}
}

// everyEndpoint connects to all endpoints of the cluster that take calls, and
// returns an attempt at each. Those that cannot be connected are left out; at
// least one must be.
func (inv *Invoker) everyEndpoint(ctx context.Context, method string, w *way, opts []grpc.CallOption) ([]attempt, error) {
	for {
		changed := inv.table.changed.wait()
		if w.cluster.set.connectAll() {
			break
		}
		select {
		case <-ctx.Done():
			return nil, expired(ctx, w.cluster.set.unready(w.plan))
		case <-inv.closed:
			return nil, inv.meshClosed()
		case <-w.plan.superseded: // its endpoints may never settle any more
			next, _, err := inv.way(ctx, method, opts)
			if err != nil {
				return nil, err
			}
			*w = next
		case <-changed:
		}
	}
	s := w.cluster.set
	var all []attempt
	for at := range uint64(s.listed) {
		if s.usable(at) == nil {
			continue
		}
		if a, ok := w.enter(at); ok {
			all = append(all, a)
		}
	}
	if len(all) == 0 { // wait, or fail with what a call would say
		a, err := inv.attempt(ctx, method, w, choice{}, opts)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// connectAll dials every endpoint and says that none is still connecting.
func (s *endpointSet) connectAll() bool {
	settled := true
	for at := range uint64(s.listed) {
		s.wake(at)
		if c := s.slots[at].Load(); c != nil && cellState(c.state.Load()) == cellConnecting {
			settled = false
		}
	}
	return settled
}

// deafCodec does not decode answers.
type deafCodec struct{ encoding.CodecV2 }

func (deafCodec) Unmarshal(mem.BufferSlice, any) error { return nil }

// broadcastOptions are a call's options without the places where its answer
// goes, of which there is one only.
func broadcastOptions(opts []grpc.CallOption) []grpc.CallOption {
	var kept []grpc.CallOption
	for _, o := range opts {
		switch o.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption:
		default:
			kept = append(kept, o)
		}
	}
	return kept
}
