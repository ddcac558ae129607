package proxyless

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// certFiles is this workload's certificate in files that somebody else renews:
// Istio's agent, a CSI driver, a volume.
type certFiles struct {
	pair  *fileCache[*tls.Certificate]
	trust *fileCache[*trustRoots]
	file  string        // of the certificate, for errors
	pause time.Duration // between looks
}

func newCertFiles(id *Identity) *certFiles {
	f := &certFiles{pair: newPairFiles(id.CertFile, id.KeyFile), file: id.CertFile, pause: lookPause}
	if id.bundleFile != "" {
		f.trust = newBundleFiles(id.bundleFile)
	} else {
		f.trust = newRootFiles(id.RootFile)
	}
	if id.refresh > 0 {
		f.pause = min(max(id.refresh, time.Second), lookPause)
	}
	return f
}

// load reads what changed. Both results may be set: what is in force, and what
// is wrong with what came after it. A certificate out of its time does not take
// the place of another.
func (f *certFiles) load(n *Node, now time.Time) (*credential, *Error) {
	pair, good, failure := f.pair.get()
	if !good {
		return nil, f.trouble(failure)
	}
	roots, trusted, rootFailure := f.trust.get()
	if !trusted {
		return nil, f.trouble(rootFailure)
	}
	found := &credential{certificate: pair, roots: roots, end: pair.Leaf.NotAfter}
	if len(pair.Leaf.URIs) > 0 {
		id, err := spiffeOf(pair.Leaf)
		if err != nil {
			return nil, f.trouble(err)
		}
		if trouble := n.disowns(id); trouble != nil {
			return nil, trouble
		}
		found.id = id.text
	}
	if err := judgePair(pair.Leaf, now); err != nil {
		trouble := f.trouble(err)
		if now.After(pair.Leaf.NotAfter) {
			trouble.Advice = "see why what writes " + f.file + " has not renewed it, and check this host's clock"
		}
		return nil, trouble
	}
	if failure = errors.Join(failure, rootFailure); failure != nil {
		return found, f.trouble(failure)
	}
	return found, nil
}

func (f *certFiles) trouble(err error) *Error {
	e := &Error{Stage: StageIdentity, Resource: f.file, Reason: "what lies in this workload's files cannot be used", Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Advice = fmt.Sprintf("mount what writes it, which may be late, or leave %s out of the settings", f.file)
	case errors.Is(err, fs.ErrPermission):
		e.Advice = "let the user of this process read it"
	}
	return e
}
