package proxyless

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"
)

// secretStore finds what TLS contexts name, when a handshake needs it. A nil
// one knows what the host and the context itself hold.
type secretStore struct {
	// Constant after construction.
	workload  *identity               // nil is none
	providers map[string]fileProvider // certificate_providers of the bootstrap JSON
	log       *slog.Logger            // nil says nothing

	// What is made of files is kept for as long as the store lives; contexts name
	// few.
	pairs fileCaches[*tls.Certificate]
	trust fileCaches[*trustRoots]

	mu    sync.Mutex
	host  *trustRoots       // the system's; nil while nobody asked; guarded by mu
	stale map[string]string // by file, why what it held before is used, as it was logged; guarded by mu
}

func newSecretStore(workload *identity, providers map[string]fileProvider, log *slog.Logger) *secretStore {
	return &secretStore{workload: workload, providers: providers, log: log}
}

func (s *secretStore) orEmpty() *secretStore {
	if s == nil {
		return &secretStore{}
	}
	return s
}

// awaited says why a handshake in this context has to wait: this workload has no
// certificate yet. It is nil where none is needed, or there is one.
func (s *secretStore) awaited(t *tlsContext) *Error {
	if s == nil || s.workload == nil || t.identity.kind != secretWorkload || s.workload.current() != nil {
		return nil
	}
	return s.workload.trouble()
}

// certificate finds the certificate to show; nil where the reference is none.
// For the workload's own it waits until there is one, or ctx ends. A certificate
// that has expired is an error here and not only at the peer, who would not say
// so.
func (s *secretStore) certificate(ctx context.Context, ref *secretRef) (*tls.Certificate, error) {
	s = s.orEmpty()
	switch ref.kind {
	case secretNone:
		return nil, nil
	case secretInline:
		return s.fresh(parsePair(ref.inlineKey, ref.inlineKey))
	case secretWorkload:
		if s.workload == nil {
			return nil, errNoSecrets
		}
		c, err := s.workload.wait(ctx)
		if err != nil {
			return nil, err
		}
		if c.expired(time.Now()) {
			if trouble := s.workload.trouble(); trouble != nil {
				return nil, trouble
			}
			c = s.workload.current() // it was renewed just now
		}
		return c.certificate, nil
	case secretProvider:
		p, err := s.provider(ref.name)
		if err != nil {
			return nil, err
		}
		if p.cert == "" {
			return nil, fmt.Errorf("certificate_providers %s has no certificate", strconv.Quote(ref.name))
		}
		return s.pair(p.cert, p.key)
	case secretFile:
		return s.pair(ref.name, ref.key)
	}
	return nil, errors.New("a certificate cannot come from there")
}

// roots finds what the peer is verified with; nil where the reference is none.
func (s *secretStore) roots(ctx context.Context, ref *secretRef) (*trustRoots, error) {
	s = s.orEmpty()
	switch ref.kind {
	case secretNone:
		return nil, nil
	case secretInline:
		if ref.inline == nil {
			return nil, errNoRoots
		}
		return ref.inline, nil
	case secretSystem:
		return s.system()
	case secretWorkload:
		if s.workload == nil {
			return nil, errNoSecrets
		}
		c, err := s.workload.wait(ctx)
		if err != nil {
			return nil, err
		}
		if c.roots == nil {
			return nil, errNoRoots
		}
		return c.roots, nil
	case secretProvider:
		p, err := s.provider(ref.name)
		switch {
		case err != nil:
			return nil, err
		case p.bundle != "":
			return s.trusted(p.bundle, newBundleFiles)
		case p.roots == "":
			return nil, fmt.Errorf("certificate_providers %s has no roots", strconv.Quote(ref.name))
		}
		return s.trusted(p.roots, newRootFiles)
	case secretFile:
		return s.trusted(ref.name, newRootFiles)
	}
	return nil, errNoRoots
}

var errNoSecrets = errors.New("there is nowhere to get this workload's certificate from")

func (s *secretStore) provider(instance string) (fileProvider, error) {
	if p, ok := s.providers[instance]; ok {
		return p, nil
	}
	return fileProvider{}, fmt.Errorf("certificate_providers of the bootstrap JSON has no %s", strconv.Quote(instance))
}

func (s *secretStore) pair(cert, key string) (*tls.Certificate, error) {
	f := s.pairs.find(cert+"~"+key, func() *fileCache[*tls.Certificate] { return newPairFiles(cert, key) })
	made, good, failure := f.get()
	if !good {
		return nil, failure
	}
	s.tell(cert, failure)
	return s.fresh(made, nil)
}

func (s *secretStore) trusted(file string, watch func(string) *fileCache[*trustRoots]) (*trustRoots, error) {
	f := s.trust.find(file, func() *fileCache[*trustRoots] { return watch(file) })
	made, good, failure := f.get()
	if !good {
		return nil, failure
	}
	s.tell(file, failure)
	return made, nil
}

// tell logs, once for each cause, that a file is not as good as it was, and when
// it is again.
func (s *secretStore) tell(file string, failure error) {
	why := ""
	if failure != nil {
		why = failure.Error()
	}
	s.mu.Lock()
	before := s.stale[file]
	switch {
	case why == "":
		delete(s.stale, file)
	case len(s.stale) < maxFileCaches:
		if s.stale == nil {
			s.stale = map[string]string{}
		}
		s.stale[file] = why
	}
	s.mu.Unlock()
	switch {
	case why == before || s.log == nil:
	case why == "":
		s.log.Info("a file of certificates is in order again", "file", file)
	default:
		s.log.Warn("a file of certificates cannot be used; what it held before stays", "file", file, keyError, why)
	}
}

func (s *secretStore) system() (*trustRoots, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.host == nil {
		roots, err := systemTrustRoots()
		if err != nil {
			return nil, err
		}
		s.host = roots
	}
	return s.host, nil
}

// fresh refuses a certificate that is out of its time.
func (s *secretStore) fresh(pair *tls.Certificate, err error) (*tls.Certificate, error) {
	if err != nil {
		return nil, err
	}
	if err := judgePair(pair.Leaf, time.Now()); err != nil {
		return nil, err
	}
	return pair, nil
}
