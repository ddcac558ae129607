package proxyless

import (
	"slices"
	"time"
)

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

// units are the entries of a kind that are asked for by name.
func (d *discovery) units(k kind) map[string]*entry {
	if d.view != nil && k == kindRoute {
		return d.view.tables
	}
	return d.entries[k]
}

// ask adds a name to those that are asked for.
func (d *discovery) ask(k kind, name string) {
	t := &d.types[k]
	if at, found := slices.BinarySearch(t.wanted, name); !found {
		t.wanted, t.dirty = slices.Insert(slices.Clone(t.wanted), at, name), true
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

// acknowledge answers a response: ACK, or NACK with what is wrong.
func (d *discovery) acknowledge(k kind, version, problem string) {
	if d.delta {
		d.acknowledgeDelta(k, problem)
	} else {
		d.acknowledgeSotW(k, version, problem)
	}
}
