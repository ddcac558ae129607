package proxyless

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"
)

// discovery is the client side of ADS as a pure state machine: events go in
// through its methods, and what is to be done comes out of take. It has no
// goroutine, clock or socket of its own; stream is its shell, and testdata/ads
// holds its scripts.
//
// It speaks both protocols, state of the world (SotW, sotw.go) and delta
// (delta.go), which differ in how they ask and in how a resource is said to be
// gone, and understands both views: in the lean view the entries are what
// istiod sends, in the full view (view.go) listeners and routes are derived
// from it.
//
// It follows the chain by itself (chain.go): a referred listener leads to its
// route configuration, that to clusters, those to endpoint assignments. What
// nothing leads to any more is unsubscribed and forgotten.
type discovery struct {
	decode      func(kind, []byte) (decoded, error)                                    // turns bytes into a resource
	nameOf      func(kind, []byte) []byte                                              // finds a resource's name without decoding it
	decodeTable func([]byte, func(domain []byte) bool, *maphash.Hash) (decoded, error) // the virtual hosts of a route configuration that matter
	timeout     time.Duration                                                          // of the does-not-exist timer
	view        *fullView                                                              // nil in the lean view
	survey      *surveyor                                                              // says what of a resource is obeyed
	strict      bool                                                                   // a resource of which something is ignored is refused

	seed      maphash.Seed
	types     [kindCount]subscription
	entries   [kindCount]map[string]*entry
	lookups   map[string]*lookup // names that DNS is asked for
	connected bool
	delta     bool      // the protocol of the stream, or of the last one
	now       time.Time // of the event being handled
	round     uint64    // counts responses
	out       outcome
	touched   map[*entry]struct{} // changed since the last take
	unwanted  map[*entry]struct{} // nothing led to them when last looked at
}

// outcome is what the shell has to do after an event, in this order: publish,
// then send, then look up.
type outcome struct {
	changed  []*resourceState // resources with a new state
	removed  []*resourceState // resources that nothing leads to any more
	affected []string         // listeners referred to whose chain changed
	requests []adsRequest
	lookUp   []nameLookup // names to look up from now on
	stopped  []string     // names that need not be looked up any more
	stalled  bool         // the stream is dead though it looks alive: reconnect
	counts   struct{ updated, unchanged, rejected int }
}

func newDiscovery(timeout time.Duration) *discovery {
	d := &discovery{decode: decodeResource, nameOf: rawName, decodeTable: decodeRoutes, timeout: timeout, survey: newSurveyor(), seed: maphash.MakeSeed(),
		lookups: map[string]*lookup{}, touched: map[*entry]struct{}{}, unwanted: map[*entry]struct{}{}}
	for k := range d.entries {
		d.entries[k] = map[string]*entry{}
	}
	return d
}

// refer asks for a listener by name. A name without a port is answered by one
// listener for each port of the service (tried against istiod).
func (d *discovery) refer(now time.Time, name string) {
	d.now = now
	e := d.want(kindListener, name)
	e.roots++
	d.touch(e)
}

// release takes back one refer.
func (d *discovery) release(now time.Time, name string) {
	d.now = now
	if e := d.entries[kindListener][name]; e != nil && e.roots > 0 {
		e.roots--
		d.forget(e)
	}
}

// connect says that a stream is open, and which protocol it speaks: everything
// wanted is asked for again, with the versions that are held.
func (d *discovery) connect(now time.Time, delta bool) {
	d.now, d.connected, d.delta = now, true, delta
	for k := range d.types {
		t := &d.types[k]
		t.nonce, t.asked, t.dirty, t.unconfirmed, t.silent = "", false, true, false, time.Time{}
		t.sent, t.fresh = nil, true
	}
}

// disconnect says that the stream ended. Nothing is lost: silence and
// reconnects never delete anything.
func (d *discovery) disconnect() {
	d.connected = false
	for k := range d.types {
		if held := d.types[k].held; held != nil {
			d.forget(held)
		}
		d.types[k].silent = time.Time{}
		for _, e := range d.units(kind(k)) {
			e.expires = time.Time{}
		}
	}
}

// tick ends the timers that are due.
func (d *discovery) tick(now time.Time) {
	d.now = now
	for k := range d.entries {
		for _, e := range d.units(kind(k)) {
			if due(e.expires, now) {
				e.expires = time.Time{}
				d.set(e, resourceState{status: statusAbsent, since: now})
			}
		}
	}
	if t := &d.types[kindListener]; due(t.silent, now) {
		t.silent, d.out.stalled = time.Time{}, true
	}
}

func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// next is when tick has something to do; zero is never.
func (d *discovery) next() time.Time {
	next := d.types[kindListener].silent
	for k := range d.entries {
		for _, e := range d.units(kind(k)) {
			if !e.expires.IsZero() && (next.IsZero() || e.expires.Before(next)) {
				next = e.expires
			}
		}
	}
	return next
}

// receive handles one response: good resources are applied even when others in
// it are bad (gRFC A46), and the answer is an ACK or a NACK that names each bad
// one.
func (d *discovery) receive(now time.Time, r adsResponse) {
	d.now = now
	k, known := kindOf(r.typeURL)
	if !known {
		return
	}
	d.round++
	t := &d.types[k]
	t.nonce, t.silent = r.nonce, time.Time{}
	for _, name := range r.removed {
		d.gone(k, name)
	}
	var problems []string
	nameless := false
	for i := range r.resources {
		named, problem := d.accept(k, r.version, &r.resources[i])
		if problem != "" {
			problems = append(problems, fmt.Sprintf("resource %d: %s", i, problem))
			nameless = nameless || !named
			d.out.counts.rejected++
		}
	}
	if !nameless {
		d.removeUnseen(k)
	}
	if t.wildcard {
		d.deriveListeners(k)
	}
	t.fresh = false
	d.acknowledge(k, r.version, strings.Join(problems, "; "))
}

// take hands over what the events since the last take demand.
func (d *discovery) take() outcome {
	d.sweep()
	d.collect()
	d.subscribe()
	d.collectLookups()
	out := d.out
	d.out = outcome{}
	return out
}

// collect turns the touched entries into changes, removals and the listeners
// that are affected.
func (d *discovery) collect() {
	affected := map[*entry]struct{}{}
	for e := range d.touched {
		if d.entries[e.kind][e.name] != e {
			d.out.removed = append(d.out.removed, e.resourceState)
			continue
		}
		d.out.changed = append(d.out.changed, e.resourceState)
		climb(e, affected)
	}
	clear(d.touched)
	for e := range affected {
		if e.roots > 0 {
			d.out.affected = append(d.out.affected, e.name)
		}
	}
	slices.SortFunc(d.out.changed, byName)
	slices.SortFunc(d.out.removed, byName)
	slices.Sort(d.out.affected)
}

// byName orders resources by kind, then by name.
func byName(a, b *resourceState) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), strings.Compare(a.name, b.name))
}

// climb adds e and everything that leads to it.
func climb(e *entry, to map[*entry]struct{}) {
	if _, done := to[e]; done {
		return
	}
	to[e] = struct{}{}
	for p := range e.parents {
		climb(p, to)
	}
}
