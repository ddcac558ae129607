package proxyless

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
)

// leafPolicy is the name of the private load-balancing policy inside each
// cell's ClientConn. A plain ClientConn would block calls while it connects,
// and hide whether a failed call was sent.
const leafPolicy = "proxyless_leaf"

const leafServiceConfig = `{"loadBalancingConfig":[{"` + leafPolicy + `":{}}]}`

func init() { balancer.Register(leafBuilder{}) }

type leafBuilder struct{}

func (leafBuilder) Name() string { return leafPolicy }

func (leafBuilder) Build(cc balancer.ClientConn, _ balancer.BuildOptions) balancer.Balancer {
	return &leaf{cc: cc}
}

// leaf keeps the connections of a cell, which it calls links, and mirrors their
// state into the cell. There is one link, and calls are not counted, unless the
// peer or the mesh limits what a connection may carry: see link.go.
type leaf struct {
	cc balancer.ClientConn

	// Atomics.
	waiting atomic.Bool // some call waits until a stream is free

	mu      sync.Mutex // guards the fields below against drain, calls and upkeep
	cell    *cell
	links   []*link     // those that take calls, or will; the first is dialled again when it is lost
	done    bool        // draining: do not connect again
	last    time.Time   // of the latest Connect of the first
	wait    *time.Timer // of the next Connect, where it has to wait; nil otherwise
	picker  *linkPicker // the one in force; nil where calls are not counted
	opening *link       // one more, that is not ready yet; nil otherwise
	refused time.Time   // when one more could not be had; zero is never
	ages    *chore      // nil where no age is watched
}

// reconnectPause is the least time between two connects of an endpoint that
// closes its connections as soon as they are made.
const reconnectPause = time.Second

func (l *leaf) UpdateClientConnState(s balancer.ClientConnState) error {
	c, _ := s.ResolverState.Attributes.Value(cellAttribute{}).(*cell)
	if c == nil {
		return errors.New("proxyless: the leaf policy serves proxyless connections only")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cell != nil {
		return nil
	}
	l.cell = c
	first, err := l.newLink()
	if err != nil {
		c.fail(err)
		return err
	}
	l.links = []*link{first}
	l.tally()
	c.mu.Lock()
	c.leaf = l
	c.mu.Unlock()
	l.cc.UpdateState(notReady(connectivity.Connecting))
	if !l.done && !c.draining.Load() {
		l.connect()
	}
	return nil
}

// connect connects the first link at once, or after a pause when the last time
// was just now. An heir has had gRPC's pause, which is enough. l.mu is held.
func (l *leaf) connect() {
	pause := reconnectPause - time.Since(l.last)
	if l.last.IsZero() || pause <= 0 || l.cell.patient() {
		l.last = time.Now()
		l.links[0].sub.Connect()
		return
	}
	l.wait = time.AfterFunc(pause, func() { // stopped by finish
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.done {
			l.last = time.Now()
			l.links[0].sub.Connect()
		}
	})
}

// finish says that there is nothing to connect for any more. l.mu is held.
func (l *leaf) finish() {
	l.done = true
	l.ages.stop()
	if l.wait != nil {
		l.wait.Stop()
	}
}

// update is the state listener of a link; gRPC calls it in order, never
// concurrently with itself.
func (l *leaf) update(k *link, s balancer.SubConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cell
	if l.done || c.draining.Load() || !k.held() {
		return
	}
	switch s.ConnectivityState {
	case connectivity.Ready:
		l.rise(k)
	case connectivity.TransientFailure:
		l.miss(k, s.ConnectionError)
	case connectivity.Idle: // lost, sent away by GOAWAY, or the pause after a failure is over
		l.lose(k)
	default:
		return
	}
	c.table.changed.notify()
}

// rise takes calls to a link. l.mu is held.
func (l *leaf) rise(k *link) {
	k.rise()
	if l.opening == k {
		l.opening = nil
		l.links = append(l.links, k)
		for _, old := range slices.Clone(l.links) {
			if old == k.replaces || old != k && old.exhausted() {
				l.retire(old)
			}
		}
		k.replaces = nil
	}
	l.publish()
	c := l.cell
	c.patience.Store(0)
	if c.state.Swap(uint32(cellReady)) != uint32(cellReady) {
		c.report.Store(nil) // the provider may have started anew
	}
	c.mu.Lock()
	if c.leaf == l {
		c.ready.Store(c.conn)
	}
	c.mu.Unlock()
	if c.draining.Load() { // drained meanwhile: what drain cleared stays cleared
		c.ready.Store(nil)
	}
	l.watchAges()
}

// miss notes that a link could not be made. l.mu is held.
func (l *leaf) miss(k *link, err error) {
	if l.opening == k {
		l.giveUp()
		return
	}
	k.ready = false
	c := l.cell
	c.failure.Store(&err)
	if c.patient() {
		l.publish()
		return
	}
	c.missed.Add(1)
	if l.publish() == 0 {
		c.ready.Store(nil)
		c.state.Store(uint32(cellFailed))
	}
}

// lose notes that a link is gone. The last one is dialled again. l.mu is held.
func (l *leaf) lose(k *link) {
	if l.opening == k {
		l.giveUp()
		return
	}
	k.ready = false
	if len(l.links) > 1 {
		l.retire(k)
		l.publish()
		return
	}
	c := l.cell
	c.ready.Store(nil)
	l.publish()
	c.state.CompareAndSwap(uint32(cellReady), uint32(cellConnecting))
	l.connect()
}

// publish gives gRPC the links that are ready to pick from, and returns their
// number. l.mu is held.
func (l *leaf) publish() int {
	l.waiting.Store(false) // those who wait pick again
	var ready []terms
	for _, k := range l.links {
		if k.ready {
			ready = append(ready, k.terms)
		}
	}
	l.tally()
	l.picker = nil
	switch {
	case len(ready) == 0:
		l.cc.UpdateState(notReady(connectivity.Connecting))
	case len(ready) == 1 && !ready[0].counted:
		l.cc.UpdateState(balancer.State{ConnectivityState: connectivity.Ready, Picker: readyPicker{ready[0].link}})
	default:
		l.picker = &linkPicker{l, ready}
		l.cc.UpdateState(balancer.State{ConnectivityState: connectivity.Ready, Picker: l.picker})
	}
	return len(ready)
}

// tally tells the cell how many connections it has. l.mu is held.
func (l *leaf) tally() {
	n := len(l.links)
	if l.opening != nil {
		n++
	}
	l.cell.links.Store(int32(n))
}

// retire lets the calls of a link finish and begins no more. Another picker is
// published afterwards. l.mu is held.
func (l *leaf) retire(k *link) {
	l.links = slices.DeleteFunc(l.links, func(o *link) bool { return o == k })
	k.left = true
	l.cell.table.aside(k.sub.Shutdown)
}

// shutdown lets the calls in flight finish and begins no more.
func (l *leaf) shutdown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return
	}
	l.finish()
	l.cc.UpdateState(notReady(connectivity.Idle))
	for _, k := range l.links {
		k.sub.Shutdown()
	}
	if l.opening != nil {
		l.opening.sub.Shutdown()
	}
}

func (l *leaf) ResolverError(error) {}

func (l *leaf) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

func (l *leaf) ExitIdle() {}

func (l *leaf) Close() {
	l.mu.Lock()
	l.finish()
	l.mu.Unlock()
}

func notReady(s connectivity.State) balancer.State {
	return balancer.State{ConnectivityState: s, Picker: nothingPicker{}}
}

type readyPicker struct{ link *link }

func (p readyPicker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	k := p.link
	if k.leaf.cell.reporting.Load() != 0 {
		return balancer.PickResult{SubConn: k.sub, Done: k.told}, nil
	}
	return balancer.PickResult{SubConn: k.sub}, nil
}

type nothingPicker struct{}

func (nothingPicker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{}, errNothingSent
}

// cellResolver hands a connection its one address, and its leaf the cell.
type cellResolver struct{ cell *cell }

type cellAttribute struct{}

func (r cellResolver) Scheme() string { return "proxyless" }

func (r cellResolver) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	return r, cc.UpdateState(resolver.State{
		Endpoints:  []resolver.Endpoint{{Addresses: []resolver.Address{{Addr: r.cell.key.addr.String()}}}},
		Attributes: attributes.New(cellAttribute{}, r.cell),
	})
}

func (cellResolver) ResolveNow(resolver.ResolveNowOptions) {}

func (cellResolver) Close() {}
