package proxyless

import (
	"crypto/x509"
	"time"
)

// name takes over the roots that the mesh's configuration names besides those of
// its authority, in the place of those that it named before. It never blocks.
func (i *identity) name(roots []*x509.Certificate) {
	i.named.Store(&roots)
	select {
	case i.nudged <- struct{}{}:
	default:
	}
}

// lookAtNamed takes the roots over that the mesh's configuration names. When they
// change, the authority's own may have: it is asked again soon, as Istio's agent
// does at once.
func (i *identity) lookAtNamed(now time.Time) {
	named := i.named.Load()
	if named == nil || i.overlap.named != nil && sameRoots(*named, i.overlap.named) {
		return
	}
	first := i.overlap.named == nil
	i.overlap.named = *named
	if len(*named) > 0 || !first {
		i.log.Info("the mesh's configuration names root certificates", "count", len(*named))
	}
	if !first && i.ca != nil && i.current() != nil {
		i.renewal.hurry(now)
	}
}

// lookAtRoots reads the watched file of roots again. A root in it that the
// authority did not tell of means that the authority is about to change, or has:
// it is asked again soon.
func (i *identity) lookAtRoots(now time.Time) {
	if i.roots == nil {
		return
	}
	roots, good, failure := i.roots.get() // of one that was never good it is said when the authority is dialled
	if good {
		i.tellOfRoots(failure)
	}
	if !good || sameRoots(roots.list, i.overlap.file) {
		return
	}
	if i.current() != nil {
		i.log.Info("the mesh's root certificates changed", "file", i.ca.rootFile())
	}
	if i.overlap.read(roots.list) {
		i.renewal.hurry(now)
	}
}

// tellOfRoots logs, once for each cause, that the file of roots is not as good as
// it was.
func (i *identity) tellOfRoots(failure error) {
	why := ""
	if failure != nil {
		why = failure.Error()
	}
	if why != "" && why != i.saidOfRoots {
		i.log.Warn("the mesh's root certificates cannot be read again; those of before stay", "file", i.ca.rootFile(), keyError, why)
	}
	i.saidOfRoots = why
}

// trust puts other roots in force, where there is a certificate.
func (i *identity) trust(roots *trustRoots) {
	if c := i.current(); c != nil {
		next := *c
		next.roots = roots
		i.hold(&next)
	}
}
