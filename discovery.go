package proxyless

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"time"
)

// discovery is the client side of ADS, state of the world (SotW), as a pure
// state machine: events go in through its methods, and what is to be done
// comes out of take. It has no goroutine, clock or socket of its own; stream
// is its shell, and testdata/ads holds its scripts.
//
// It follows the chain by itself: a referred listener leads to its route
// configuration, that to clusters, those to endpoint assignments. What nothing
// leads to any more is unsubscribed and forgotten.
type discovery struct {
	decode  func(kind, []byte) (decoded, error) // turns bytes into a resource
	nameOf  func(kind, []byte) string           // finds a resource's name without decoding it
	timeout time.Duration                       // of the does-not-exist timer
	survey  *surveyor                           // says what of a resource is obeyed
	strict  bool                                // a resource of which something is ignored is refused

	seed      maphash.Seed
	types     [kindCount]subscription
	entries   [kindCount]map[string]*entry
	connected bool
	now       time.Time // of the event being handled
	out       outcome
	touched   map[*entry]struct{} // changed since the last take
	unwanted  map[*entry]struct{} // nothing led to them when last looked at
}

// subscription is the state of one resource type on the stream.
type subscription struct {
	version string    // last accepted; survives reconnects
	nonce   string    // last received on this stream
	wanted  []string  // sorted; replaced, never written
	dirty   bool      // wanted differs from what was last sent without an error
	asked   bool      // something was sent on this stream
	silent  time.Time // when the stream is given up for not answering; zero is never

	// held is what nothing leads to any more and is kept all the same: to drop
	// it would empty the list of listeners or clusters, and an empty list means
	// "all of them". It goes when another name is wanted, or the stream ends.
	held *entry

	// unconfirmed says that changed names were sent while a response may have
	// been on its way: istiod drops such a request for its stale nonce, and
	// takes the names from the next acknowledgement.
	unconfirmed bool
}

// entry is one resource that something leads to.
type entry struct {
	*resourceState // replaced, never written, so that a snapshot may keep it

	hash     uint64
	roots    int                 // how often it is referred to by name
	parents  map[*entry]struct{} // resources that lead to it
	children []*entry
	expires  time.Time // the does-not-exist timer; zero is not armed
	member   bool      // known through a listener asked for without a port: not asked for by name
}

// outcome is what the shell has to do after an event, in this order: publish,
// then send.
type outcome struct {
	changed  []*resourceState // resources with a new state
	removed  []*resourceState // resources that nothing leads to any more
	affected []string         // listeners referred to whose chain changed
	requests []adsRequest
	stalled  bool // the stream is dead though it looks alive: reconnect
	counts   struct{ updated, unchanged, rejected int }
}

func newDiscovery(timeout time.Duration) *discovery {
	d := &discovery{decode: decodeResource, nameOf: resourceName, timeout: timeout, survey: newSurveyor(), seed: maphash.MakeSeed(),
		touched: map[*entry]struct{}{}, unwanted: map[*entry]struct{}{}}
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

// connect says that a stream is open: everything wanted is asked for again,
// with the versions that are held.
func (d *discovery) connect(now time.Time) {
	d.now, d.connected = now, true
	for k := range d.types {
		t := &d.types[k]
		t.nonce, t.asked, t.dirty, t.unconfirmed, t.silent = "", false, true, false, time.Time{}
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
		for _, e := range d.entries[k] {
			e.expires = time.Time{}
		}
	}
}

// tick ends the timers that are due.
func (d *discovery) tick(now time.Time) {
	d.now = now
	for k := range d.entries {
		for _, e := range d.entries[k] {
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
		for _, e := range d.entries[k] {
			if !e.expires.IsZero() && (next.IsZero() || e.expires.Before(next)) {
				next = e.expires
			}
		}
	}
	return next
}

// receive handles one DiscoveryResponse: good resources are applied even when
// others in it are bad (gRFC A46), and the answer is an ACK or a NACK that
// names each bad one.
func (d *discovery) receive(now time.Time, r adsResponse) {
	d.now = now
	k, known := kindOf(r.typeURL)
	if !known {
		return
	}
	t := &d.types[k]
	t.nonce, t.silent = r.nonce, time.Time{}
	seen := make(map[*entry]struct{}, len(r.resources))
	var problems []string
	nameless := false
	for i, raw := range r.resources {
		e, problem := d.accept(k, r.version, raw)
		if problem != "" {
			problems = append(problems, fmt.Sprintf("resource %d: %s", i, problem))
			nameless = nameless || e == nil
			d.out.counts.rejected++
		}
		if e != nil {
			seen[e] = struct{}{}
		}
	}
	if k.fullState() && !nameless {
		d.removeUnseen(k, seen)
	}
	if len(problems) == 0 {
		t.version, t.unconfirmed = r.version, false
	} else if t.unconfirmed {
		t.dirty = true
	}
	d.request(k, strings.Join(problems, "; ")) // ACK, or NACK
}

// accept applies one resource of a response. It returns nil for one that
// nothing leads to, and says what is wrong with a bad one.
func (d *discovery) accept(k kind, version string, raw rawResource) (*entry, string) {
	if got, ok := kindOf(raw.typeURL); !ok || got != k {
		return nil, fmt.Sprintf("type %q in a response of %ss", raw.typeURL, k)
	}
	name := raw.name
	if name == "" {
		name = d.nameOf(k, raw.value)
	}
	if name == "" {
		return nil, "it has no name"
	}
	e := d.entry(k, name)
	if e == nil {
		return nil, ""
	}
	hash := maphash.Bytes(d.seed, raw.value)
	if e.status == statusAccepted && e.rejection == "" && e.hash == hash {
		d.out.counts.unchanged++
		return e, ""
	}
	got, err := d.safeDecode(k, raw.value)
	if err == nil && got.name != name {
		err = fmt.Errorf("it calls itself %q", got.name)
	}
	if err != nil {
		return e, d.reject(e, version, err)
	}
	d.out.counts.updated++
	e.hash, e.expires = hash, time.Time{}
	d.set(e, resourceState{status: statusAccepted, value: got.value, applied: got.applied, ignored: got.ignored, version: version, since: d.now})
	return e, ""
}

// safeDecode turns a decoder's panic into a rejection of that one resource.
func (d *discovery) safeDecode(k kind, value []byte) (got decoded, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decoding failed: %v", p)
		}
	}()
	if got, err = d.decode(k, value); err == nil {
		err = d.survey.complete(k, value, &got, d.strict)
	}
	return got, err
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

// removeUnseen applies the absence of resources that were once received: in a
// full-state response it is the mesh's word. One never received is left to its
// timer, since the response may have been made before it was asked for.
func (d *discovery) removeUnseen(k kind, seen map[*entry]struct{}) {
	for _, e := range d.entries[k] {
		if _, ok := seen[e]; !ok && (e.value != nil || e.status == statusRejected) {
			d.set(e, resourceState{status: statusAbsent, since: d.now})
		}
	}
}

// request asks for what is wanted of a kind, which also acknowledges the last
// response, or refuses it where there was a problem. istiod drops names that
// ride on a refusal, so that it does not count as having sent them.
func (d *discovery) request(k kind, problem string) {
	t := &d.types[k]
	d.out.requests = append(d.out.requests, adsRequest{kind: k, version: t.version, nonce: t.nonce, names: t.wanted, nack: problem})
	if problem == "" {
		t.dirty = false
		d.arm(k)
	}
}

// take hands over what the events since the last take demand.
func (d *discovery) take() outcome {
	d.sweep()
	d.collect()
	d.subscribe()
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

// subscribe asks for the types whose names changed.
func (d *discovery) subscribe() {
	for k := range d.types {
		t := &d.types[k]
		if d.connected && t.dirty && (t.asked || len(t.wanted) > 0) {
			t.unconfirmed = t.nonce != ""
			d.request(kind(k), "")
		}
	}
}

// arm starts the timers of what has just been asked for: the does-not-exist
// timer of everything never received, and, once for each stream, the watch for
// an answer about listeners known to exist.
func (d *discovery) arm(k kind) {
	t := &d.types[k]
	known := false
	for _, name := range t.wanted {
		e := d.entries[k][name]
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

// entry finds the entry that a received name belongs to. A port of a listener
// asked for without a port becomes a child of that one, and is made if need be.
func (d *discovery) entry(k kind, name string) *entry {
	e := d.entries[k][name]
	host, port := splitPort(name)
	if k != kindListener || port == "" {
		return e
	}
	family := d.entries[k][host]
	if family == nil {
		return e
	}
	if e == nil {
		e = d.add(k, name)
		e.member = true
	}
	if _, linked := e.parents[family]; !linked {
		d.link(family, append(slices.Clone(family.children), e))
		if e.value != nil { // asked for by name before
			d.settle(e)
		}
	}
	return e
}

// want finds or makes the entry of a name and sees to it that it is asked for.
func (d *discovery) want(k kind, name string) *entry {
	e := d.entries[k][name]
	if e == nil {
		e = d.add(k, name)
	} else if !e.member {
		return e
	}
	e.member = false
	t := &d.types[k]
	at, found := slices.BinarySearch(t.wanted, name)
	if !found {
		t.wanted, t.dirty = slices.Insert(slices.Clone(t.wanted), at, name), true
	}
	if t.held != nil {
		d.forget(t.held)
	}
	return e
}

func (d *discovery) add(k kind, name string) *entry {
	e := &entry{resourceState: &resourceState{kind: k, name: name, since: d.now}, parents: map[*entry]struct{}{}}
	d.entries[k][name] = e
	d.touch(e)
	return e
}

// set gives an entry a new state and follows where its value leads.
func (d *discovery) set(e *entry, s resourceState) {
	s.kind, s.name = e.kind, e.name
	value := e.value
	e.resourceState = &s
	d.touch(e)
	if value != nil || s.value != nil {
		var next []*entry
		for _, c := range leadsTo(s.value) {
			next = append(next, d.want(c.kind, c.name))
		}
		d.link(e, next)
	}
	d.settle(e)
}

// settle tells the listener asked for without a port, of which e is one port,
// what became of its ports: it exists while one of them does.
func (d *discovery) settle(e *entry) {
	for family := range e.parents {
		if e.kind != kindListener {
			return
		}
		var alive []*entry
		var ports []string
		for _, c := range family.children {
			if c.value != nil || c.status == statusRejected {
				alive = append(alive, c)
				ports = append(ports, c.name)
			}
		}
		slices.Sort(ports)
		state := resourceState{kind: kindListener, name: family.name, status: statusAccepted, ports: ports, since: d.now}
		if len(ports) == 0 {
			state.status = statusAbsent
		}
		family.resourceState, family.expires = &state, time.Time{}
		d.touch(family)
		d.link(family, alive)
	}
}

// link replaces the children of an entry and forgets those that nothing leads
// to any more.
func (d *discovery) link(e *entry, next []*entry) {
	old := e.children
	e.children = next
	for _, c := range next {
		c.parents[e] = struct{}{}
	}
	for _, c := range old {
		if !slices.Contains(next, c) {
			delete(c.parents, e)
			d.forget(c)
		}
	}
}

// forget puts an entry that nothing leads to up for the next sweep. Until then
// it may be wanted again: what is asked for by the same names on the same
// stream would not be sent again.
func (d *discovery) forget(e *entry) {
	if e.idle() {
		d.unwanted[e] = struct{}{}
	}
}

func (e *entry) idle() bool { return e.roots == 0 && len(e.parents) == 0 }

// sweep drops what was forgotten, and what only that leads to.
func (d *discovery) sweep() {
	for len(d.unwanted) > 0 {
		batch := slices.SortedFunc(maps.Keys(d.unwanted), func(a, b *entry) int { return byName(a.resourceState, b.resourceState) })
		clear(d.unwanted)
		for _, e := range batch {
			if e.idle() && d.entries[e.kind][e.name] == e {
				d.drop(e)
			}
		}
	}
}

// drop removes an entry and its name, unless it has to be held.
func (d *discovery) drop(e *entry) {
	t := &d.types[e.kind]
	at, asked := slices.BinarySearch(t.wanted, e.name)
	if asked && len(t.wanted) == 1 && e.kind.fullState() && d.connected && t.asked {
		t.held = e
		return
	}
	if t.held == e {
		t.held = nil
	}
	if asked {
		t.wanted, t.dirty = slices.Delete(slices.Clone(t.wanted), at, at+1), true
	}
	delete(d.entries[e.kind], e.name)
	d.touch(e)
	d.link(e, nil)
}

func (d *discovery) touch(e *entry) { d.touched[e] = struct{}{} }

// splitPort splits "host:port"; port is empty when the name has none. A bare
// IPv6 address is a host.
func splitPort(name string) (host, port string) {
	at := strings.LastIndexByte(name, ':')
	if at < 0 || strings.IndexByte(name[:at], ':') >= 0 && !strings.HasSuffix(name[:at], "]") {
		return name, ""
	}
	return name[:at], name[at+1:]
}
