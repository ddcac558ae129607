package proxyless

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/resolver"
)

// A link is one connection of a cell. Where the peer limits concurrent streams
// (SETTINGS_MAX_CONCURRENT_STREAMS), or the mesh does
// (Http2ProtocolOptions.max_concurrent_streams), the leaf counts the calls of
// each link, fills one after the other, and opens one more when all are full,
// as long as the cluster's connectionPool.tcp.maxConnections allows: calls wait
// for that, or for a stream that ends, whichever comes first. Where no more may
// be opened they queue on the link with the fewest.
//
// A link that is to end, by max_requests_per_connection or
// max_connection_duration, is replaced first: its successor is opened while it
// still takes calls. No call fails for it.
type link struct {
	// Constant after construction.
	leaf *leaf
	sub  balancer.SubConn
	done func(balancer.DoneInfo) // made once, since every call returns it
	told func(balancer.DoneInfo) // in place of done where calls are not counted but report

	// Atomics.
	peer    atomic.Uint32 // the peer's limit of streams; noLimit is none
	streams atomic.Int64  // calls on it; only where counted
	served  atomic.Int64  // calls it ever had; only where requests are limited
	busy    atomic.Bool   // it had a call since the last look

	// Guarded by leaf.mu.
	ready    bool
	left     bool // retired
	terms    terms
	since    time.Time // when it became ready
	until    time.Time // when it is too old; zero is never
	replaces *link     // retired when this one is ready; nil for most
}

// terms are what a link may carry, from when it is ready. Pickers have copies.
type terms struct {
	*link
	counted  bool  // calls are counted
	most     int64 // concurrent streams
	requests int64 // in its life; 0 is no limit
	renew    int64 // from this many requests on a successor is opened
}

// mostLinks is how many connections there are to one endpoint at most.
const mostLinks = 16

// growPause is how long none is opened after one more could not be had.
const growPause = 5 * time.Second

type linkAttribute struct{}

// newLink makes a connection that is not connected. l.mu is held.
func (l *leaf) newLink() (*link, error) {
	k := &link{leaf: l}
	k.peer.Store(noLimit)
	k.done, k.told = k.release, k.learn
	address := resolver.Address{Addr: l.cell.key.addr.String(), Attributes: attributes.New(linkAttribute{}, k)}
	//lint:ignore SA1019 the notice is about several addresses; this SubConn has one
	sub, err := l.cc.NewSubConn([]resolver.Address{address}, balancer.NewSubConnOptions{StateListener: func(s balancer.SubConnState) { l.update(k, s) }})
	k.sub = sub
	return k, err
}

// held says that the leaf still counts on the link. leaf.mu is held.
func (k *link) held() bool { return !k.left }

// rise settles what the link may carry. leaf.mu is held.
func (k *link) rise() {
	settings := &k.leaf.cell.key.settings
	k.ready, k.since, k.until = true, time.Now(), time.Time{}
	k.served.Store(0)
	t := terms{link: k, most: int64(k.peer.Load()), requests: int64(settings.maxRequests)}
	if n := settings.maxStreams; n > 0 {
		t.most = min(t.most, int64(n))
	}
	t.most = max(1, t.most)
	t.renew = t.requests - t.requests/8
	t.counted = t.most < noLimit || t.requests > 0
	k.terms = t
	if age := settings.maxAge; age > 0 { // a tenth earlier at most, so that connections made together do not end so
		k.until = k.since.Add(age - rand.N(age/10+1))
	}
}

// exhausted says that the link has served all it may. leaf.mu is held.
func (k *link) exhausted() bool { return k.terms.requests > 0 && k.served.Load() >= k.terms.requests }

// take counts a call in, unless the link is full.
func (t *terms) take() bool {
	if t.streams.Add(1) > t.most {
		t.streams.Add(-1)
		return false
	}
	if t.requests == 0 {
		return true
	}
	n := t.served.Add(1)
	if n == t.renew || n == t.requests {
		t.leaf.cell.table.aside(func() { t.leaf.renew(t.link) })
	}
	if n > t.requests {
		t.streams.Add(-1)
		return false
	}
	return true
}

// release counts a call out, and lets those who wait pick again.
func (k *link) release(info balancer.DoneInfo) {
	k.streams.Add(-1)
	if k.leaf.cell.reporting.Load() != 0 {
		k.learn(info)
	}
	if l := k.leaf; l.waiting.Load() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !l.done && l.waiting.Load() {
			l.publish()
		}
	}
}

// linkPicker picks among links whose calls are counted.
type linkPicker struct {
	leaf  *leaf
	links []terms
}

func (p *linkPicker) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	if k := p.free(); k != nil {
		return balancer.PickResult{SubConn: k.sub, Done: k.done}, nil
	}
	if p.leaf.widen(p) {
		p.leaf.waiting.Store(true)
		if k := p.free(); k != nil { // else its end is seen by the one who ends it
			return balancer.PickResult{SubConn: k.sub, Done: k.done}, nil
		}
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	k := p.least()
	k.streams.Add(1)
	return balancer.PickResult{SubConn: k.sub, Done: k.done}, nil
}

// free returns a link with a free stream, which counts the call.
func (p *linkPicker) free() *link {
	for i := range p.links {
		if k := &p.links[i]; k.take() {
			if !k.busy.Load() {
				k.busy.Store(true)
			}
			return k.link
		}
	}
	return nil
}

func (p *linkPicker) least() *link {
	least := p.links[0].link
	for _, k := range p.links[1:] {
		if k.streams.Load() < least.streams.Load() {
			least = k.link
		}
	}
	return least
}

// widen has one more link opened, and says whether waiting may help: one is
// under way, or has come since p was published.
func (l *leaf) widen(p *linkPicker) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.picker != p || l.opening != nil || l.open(nil)
}

// open begins one more link, in place of another or beside those there are, if
// that may be. l.mu is held.
func (l *leaf) open(replaces *link) bool {
	c := l.cell
	if l.done || c.draining.Load() || l.opening != nil || !l.refused.IsZero() && time.Since(l.refused) < growPause {
		return false
	}
	if replaces == nil && (len(l.links) >= mostLinks || !c.mayWiden()) {
		return false
	}
	k, err := l.newLink()
	if err != nil {
		return false
	}
	k.replaces = replaces
	l.opening = k
	l.tally()
	c.table.counts.dials.Add(1)
	k.sub.Connect()
	return true
}

// giveUp ends the attempt at one more link; those who wait queue on the others.
// l.mu is held.
func (l *leaf) giveUp() {
	k := l.opening
	l.opening, l.refused = nil, time.Now()
	k.left = true
	l.cell.table.aside(k.sub.Shutdown)
	l.publish()
}

// mayWiden asks the holder of the cell whether there may be one more connection.
func (c *cell) mayWiden() bool {
	ask := c.most.Load()
	return ask == nil || (*ask)()
}

// renew opens the successor of a link that has served nearly all it may, and
// retires one that has served all.
func (l *leaf) renew(k *link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done || k.left || !k.ready {
		return
	}
	l.open(k)
	if !k.exhausted() || len(l.links) == 1 { // the last one stays until its successor is ready
		return
	}
	l.retire(k)
	l.publish()
}
