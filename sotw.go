package proxyless

// This file is what discovery does differently where the stream speaks state
// of the world (SotW): a request has all names of a type, and so does the
// answer about listeners and clusters.

// subscribeSotW asks for all that is wanted of a kind.
func (d *discovery) subscribeSotW(k kind) {
	t := &d.types[k]
	t.unconfirmed = t.nonce != ""
	d.requestSotW(k, "")
}

// acknowledgeSotW answers a response. istiod drops names that ride on a
// refusal, so that those which may have been dropped before are sent again.
func (d *discovery) acknowledgeSotW(k kind, version, problem string) {
	t := &d.types[k]
	if problem == "" {
		t.version, t.unconfirmed = version, false
	} else if t.unconfirmed {
		t.dirty = true
	}
	d.requestSotW(k, problem)
}

// requestSotW asks for what is wanted of a kind, which also acknowledges the
// last response, or refuses it where there was a problem.
func (d *discovery) requestSotW(k kind, problem string) {
	t := &d.types[k]
	d.out.requests = append(d.out.requests, adsRequest{kind: k, version: t.version, nonce: t.nonce, names: t.wanted, nack: problem})
	if problem == "" {
		t.dirty = false
		d.arm(k)
	}
}

// removeUnseen applies the absence of resources from a response that lists all
// there are: it is the mesh's word. One that was asked for by name and never
// received is left to its timer, since the response may have been made before
// it was asked for. In delta only the first response of a stream says
// something about what it does not have, and only of resources without a
// version: those must have been sent again if they exist.
func (d *discovery) removeUnseen(k kind) {
	t := &d.types[k]
	switch {
	case !k.fullState() || d.delta && !(t.wildcard && t.fresh):
		return
	case t.wildcard:
		d.view.removeUnseen(d, k)
		return
	}
	for _, e := range d.entries[k] {
		if e.seen != d.round && e.received() {
			d.absent(e)
		}
	}
}
