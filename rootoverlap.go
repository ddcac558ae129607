package proxyless

import (
	"crypto/x509"
	"slices"
	"time"
)

// rootOverlap is which roots are trusted while they change: those of the newest
// answer, those of older ones until the certificate that came with them has
// expired, those of the watched file once it shares one with an answer, and those
// that the mesh's configuration names. It has no clock and is owned by the
// identity's goroutine.
type rootOverlap struct {
	answers []answeredRoots     // the newest last
	file    []*x509.Certificate // what the watched file holds; empty where none is watched
	named   []*x509.Certificate // what the mesh's configuration names; nil while it says nothing
	made    *trustRoots         // the latest result
}

// answeredRoots are the roots of one answer.
type answeredRoots struct {
	roots []*x509.Certificate
	until time.Time // the end of its certificate
}

// maxAnswers bounds how many older answers count, for an authority that has new
// roots each time.
const maxAnswers = 16

// add takes the roots of a new answer.
func (o *rootOverlap) add(roots []*x509.Certificate, until time.Time) {
	o.answers = slices.DeleteFunc(o.answers, func(a answeredRoots) bool { return sameRoots(a.roots, roots) && !a.until.After(until) })
	o.answers = append(o.answers, answeredRoots{roots, until})
	if len(o.answers) > maxAnswers {
		o.answers = o.answers[1:]
	}
}

// trusted is what is trusted at a time. It is the same value while that does
// not change.
func (o *rootOverlap) trusted(now time.Time) *trustRoots {
	newest := len(o.answers) - 1
	kept := o.answers[:0]
	for i, a := range o.answers {
		if i == newest || now.Before(a.until) {
			kept = append(kept, a)
		}
	}
	o.answers = kept
	var list []*x509.Certificate
	for _, a := range slices.Backward(o.answers) {
		list = union(list, a.roots)
	}
	if overlap(list, o.file) {
		list = union(list, o.file)
	}
	return o.and(list)
}

// and is roots with those that the mesh's configuration names.
func (o *rootOverlap) and(list []*x509.Certificate) *trustRoots {
	own := len(list)
	list = union(list[:own:own], o.named)
	if named := len(list) - own; o.made == nil || o.made.named != named || !sameRoots(o.made.list, list) {
		o.made = newTrustRoots(list)
		o.made.named = named
	}
	return o.made
}

// beside is what is trusted where the roots lie in files: those, and what the
// mesh's configuration names. A map of roots by trust domain leaves nothing open
// that could be added to.
func (o *rootOverlap) beside(file *trustRoots) *trustRoots {
	if len(o.named) == 0 || file == nil || file.domains != nil {
		return file
	}
	return o.and(file.list)
}

// next is when what is trusted changes by itself; zero for never.
func (o *rootOverlap) next() time.Time {
	var next time.Time
	for i, a := range o.answers {
		if i < len(o.answers)-1 && (next.IsZero() || a.until.Before(next)) {
			next = a.until
		}
	}
	return next
}

// read takes what the watched file holds now, and says whether the authority has
// news: a root that did not come with its newest answer. A file that is of another
// authority altogether, and was before, has none.
func (o *rootOverlap) read(file []*x509.Certificate) (news bool) {
	before := o.file
	o.file = file
	if len(o.answers) == 0 {
		return false
	}
	newest, own := o.answers[len(o.answers)-1].roots, o.made.list[:len(o.made.list)-o.made.named]
	return slices.ContainsFunc(file, func(c *x509.Certificate) bool { return !contains(newest, c) }) &&
		(overlap(own, file) || overlap(own, before))
}
