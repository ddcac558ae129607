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

// subscription is the state of one resource type on the stream.
type subscription struct {
	version string    // last accepted; survives reconnects
	nonce   string    // last received on this stream
	wanted  []string  // sorted; replaced, never written; empty for a wildcard
	dirty   bool      // wanted differs from what was last sent without an error
	asked   bool      // something was sent on this stream
	silent  time.Time // when the stream is given up for not answering; zero is never

	wildcard bool // all resources of the type are asked for, once somebody needs one
	needed   bool // of a wildcard: somebody does
	answered bool // of a wildcard: a response came, on whatever stream, so that absence is the mesh's word

	// held is what nothing leads to any more and is kept all the same: to drop
	// it would empty the list of listeners or clusters, and an empty list means
	// "all of them". It goes when another name is wanted, or the stream ends.
	held *entry

	// unconfirmed says that changed names were sent while a response may have
	// been on its way: istiod drops such a request for its stale nonce, and
	// takes the names from the next acknowledgement. SotW only.
	unconfirmed bool

	// Delta only.
	sent  []string // wanted as the control plane was last told on this stream
	fresh bool     // the stream's first response of the type is still to come
}

// entry is one resource that something leads to.
type entry struct {
	*resourceState // replaced, never written, so that a snapshot may keep it

	hash     uint64
	specific string              // version of this one resource, which only delta has
	seen     uint64              // the last response that had it
	roots    int                 // how often it is referred to by name
	parents  map[*entry]struct{} // resources that lead to it
	children []*entry
	expires  time.Time // the does-not-exist timer; zero is not armed
	member   bool      // known through a listener asked for without a port: not asked for by name

	table  *rawTable // of a route configuration as istiod sends it in the full view; such an entry is in no snapshot
	source *entry    // of a derived route: the entry with the table
	names  []dnsName // of an assignment that is made here: what DNS is asked for
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

// units are the entries of a kind that are asked for by name.
func (d *discovery) units(k kind) map[string]*entry {
	if d.view != nil && k == kindRoute {
		return d.view.tables
	}
	return d.entries[k]
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

// accept applies one resource of a response. It says whether the resource has
// a name, and what is wrong with a bad one.
func (d *discovery) accept(k kind, version string, raw *rawResource) (named bool, problem string) {
	if got, ok := kindOf(raw.typeURL); !ok || got != k {
		return false, fmt.Sprintf("type %q in a response of %ss", raw.typeURL, k)
	}
	name := []byte(raw.name)
	if len(name) == 0 {
		name = d.nameOf(k, raw.value)
	}
	if len(name) == 0 {
		return false, "it has no name"
	}
	if d.view != nil {
		return true, d.view.accept(d, k, name, version, raw)
	}
	e := d.entry(k, name)
	if e == nil {
		return true, ""
	}
	return true, d.apply(e, version, raw.version, raw.value, maphash.Bytes(d.seed, raw.value))
}

// apply gives an entry the bytes that were received for it, and says what is
// wrong with bad ones.
func (d *discovery) apply(e *entry, version, specific string, value []byte, hash uint64) string {
	e.seen, e.expires = d.round, time.Time{}
	if e.status == statusAccepted && e.rejection == "" && e.hash == hash {
		e.specific = specific
		d.out.counts.unchanged++
		return ""
	}
	got, err := d.safeDecode(e.kind, value)
	if err == nil && got.name != e.name {
		err = fmt.Errorf("it calls itself %q", got.name)
	}
	if err != nil {
		return d.reject(e, version, err)
	}
	d.out.counts.updated++
	e.hash, e.specific = hash, specific
	d.set(e, resourceState{status: statusAccepted, value: got.value, applied: got.applied, ignored: got.ignored, version: cmp.Or(specific, version), since: d.now})
	return ""
}

// safeDecode decodes a resource that somebody refers to, and says what of it is
// obeyed.
func (d *discovery) safeDecode(k kind, value []byte) (decoded, error) {
	got, err := guarded(func() (decoded, error) { return d.decode(k, value) })
	if err == nil {
		err = d.survey.complete(k, value, &got, d.strict)
	}
	return got, err
}

// guarded turns a decoder's panic into a rejection of that one resource.
func guarded(decode func() (decoded, error)) (got decoded, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decoding failed: %v", p)
		}
	}()
	return decode()
}

// reject keeps the last good value, if there is one, and remembers why the new
// one was refused.
func (d *discovery) reject(e *entry, version string, err error) string {
	e.expires = time.Time{}
	state := *e.resourceState
	state.rejection, state.rejectedVersion, state.rejectedFields = err.Error(), version, rejectedFields(err)
	if state.value == nil {
		state.status, state.since = statusRejected, d.now
	}
	d.set(e, state)
	return fmt.Sprintf("%s %s: %v", e.kind, e.name, err)
}

// received says that a resource was sent, whether it was any good or not.
func (e *entry) received() bool { return e.value != nil || e.status == statusRejected }

// absent applies the mesh's word that a resource does not exist.
func (d *discovery) absent(e *entry) {
	e.expires, e.specific = time.Time{}, ""
	d.set(e, resourceState{status: statusAbsent, since: d.now})
}

// acknowledge answers a response: ACK, or NACK with what is wrong.
func (d *discovery) acknowledge(k kind, version, problem string) {
	if d.delta {
		d.acknowledgeDelta(k, problem)
	} else {
		d.acknowledgeSotW(k, version, problem)
	}
}

// subscribe asks for the types whose names changed.
func (d *discovery) subscribe() {
	for k := range d.types {
		t := &d.types[k]
		if !d.connected || !t.dirty || !t.asked && len(t.wanted) == 0 && !t.needed {
			continue
		}
		if d.delta {
			d.subscribeDelta(kind(k))
		} else {
			d.subscribeSotW(kind(k))
		}
	}
}

// arm starts the timers of what has just been asked for: the does-not-exist
// timer of everything never received, and, once for each stream, the watch for
// an answer about listeners known to exist.
func (d *discovery) arm(k kind) {
	t := &d.types[k]
	known := t.answered
	for _, name := range t.wanted {
		e := d.units(k)[name]
		if e.status == statusRequested && e.expires.IsZero() {
			e.expires = d.now.Add(d.timeout)
		}
		known = known || e.status == statusAccepted
	}
	if k == kindListener && known && !t.asked {
		t.silent = d.now.Add(d.timeout)
	}
	t.asked = true
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
