package proxyless

import "slices"

// This file is what discovery does differently where the stream speaks delta:
// a request has what changed about the names that are wanted, a response has
// what changed about the resources, and acknowledgements are messages of their
// own. istiod ignores names that ride on one.

// subscribeDelta tells the control plane what changed about the names wanted
// of a kind. The first request of a stream says what is held as well, so that
// what vanished in the meantime is named in the answer.
func (d *discovery) subscribeDelta(k kind) {
	t := &d.types[k]
	r := adsRequest{kind: k, delta: true}
	if t.asked {
		r.subscribe, r.unsubscribe = difference(t.wanted, t.sent), difference(t.sent, t.wanted)
	} else {
		r.subscribe, r.retained = t.wanted, d.retained(k)
	}
	first := !t.asked
	t.sent, t.dirty = t.wanted, false
	if first || len(r.subscribe)+len(r.unsubscribe) > 0 {
		d.out.requests = append(d.out.requests, r)
		d.arm(k)
	}
}

// difference is what a has and b has not; both are sorted.
func difference(a, b []string) []string {
	var only []string
	for _, name := range a {
		if _, found := slices.BinarySearch(b, name); !found {
			only = append(only, name)
		}
	}
	return only
}

// retained lists what is held of a kind, by name. istiod gives no resource a
// version of its own, and sends all of them again.
func (d *discovery) retained(k kind) []retainedResource {
	if d.types[k].wildcard {
		return d.view.retained(k)
	}
	var list []retainedResource
	for _, name := range d.types[k].wanted {
		if e := d.units(k)[name]; e.value != nil || e.table != nil && e.table.bytes != nil {
			list = append(list, retainedResource{name, e.specific})
		}
	}
	return list
}

// acknowledgeDelta answers a response.
func (d *discovery) acknowledgeDelta(k kind, problem string) {
	d.out.requests = append(d.out.requests, adsRequest{kind: k, delta: true, nonce: d.types[k].nonce, nack: problem})
}

// gone applies the mesh's word that a resource was removed, or never existed.
func (d *discovery) gone(k kind, name string) {
	if d.types[k].wildcard {
		d.view.gone(d, k, name)
		return
	}
	if e := d.units(k)[name]; e != nil && len(e.ports) == 0 { // a family lives by its ports
		d.absent(e)
	}
}
