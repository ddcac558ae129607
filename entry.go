package proxyless

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"time"
)

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

func (d *discovery) add(k kind, name string) *entry {
	e := d.newEntry(k, name)
	d.entries[k][name] = e
	d.touch(e)
	return e
}

func (d *discovery) newEntry(k kind, name string) *entry {
	return &entry{resourceState: &resourceState{kind: k, name: name, since: d.now}, parents: map[*entry]struct{}{}}
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

// absent applies the mesh's word that a resource does not exist.
func (d *discovery) absent(e *entry) {
	e.expires, e.specific = time.Time{}, ""
	d.set(e, resourceState{status: statusAbsent, since: d.now})
}

// received says that a resource was sent, whether it was any good or not.
func (e *entry) received() bool { return e.value != nil || e.status == statusRejected }
