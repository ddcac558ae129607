package proxyless

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// fileCache is what was made of the contents of files, made again when one of
// them changes. While they cannot be read, or do not fit together, what was
// made last stays.
type fileCache[T any] struct {
	// Constant after construction.
	paths []string
	parse func(contents [][]byte) (T, error)

	// Guarded by mu.
	mu      sync.Mutex
	stamps  []fs.FileInfo     // of what was read last; nil before
	settled bool              // the files were old enough to be told from later ones by their stamps
	sum     [sha256.Size]byte // of the contents that were read last
	made    T
	good    bool
	failure error // of the last reading; nil where it went well
}

// unsettled is how young a file is whose next change may leave its time as it is.
const unsettled = 2 * time.Second

// get returns what the files held when they could last be read, and what is
// wrong with them now.
func (f *fileCache[T]) get() (made T, good bool, failure error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamps, err := statAll(f.paths)
	if err != nil {
		f.stamps, f.sum, f.failure = nil, [sha256.Size]byte{}, err
		return f.made, f.good, f.failure
	}
	if f.settled && slices.EqualFunc(stamps, f.stamps, sameFile) {
		return f.made, f.good, f.failure
	}
	f.stamps, f.settled = stamps, oldEnough(stamps, time.Now())
	contents, err := readAll(f.paths)
	if err != nil { // permissions that are given back leave the file's time as it is
		f.settled, f.sum, f.failure = false, [sha256.Size]byte{}, err
		return f.made, f.good, f.failure
	}
	sum := sumOf(contents)
	if sum == f.sum {
		return f.made, f.good, f.failure
	}
	f.sum = sum
	if made, err = f.parse(contents); err == nil {
		f.made, f.good = made, true
	}
	f.failure = err
	return f.made, f.good, f.failure
}

// sumOf tells contents from others without keeping them.
func sumOf(contents [][]byte) [sha256.Size]byte {
	all := sha256.New()
	for _, content := range contents {
		part := sha256.Sum256(content)
		all.Write(part[:])
	}
	return [sha256.Size]byte(all.Sum(nil))
}

func statAll(paths []string) ([]fs.FileInfo, error) {
	stamps := make([]fs.FileInfo, len(paths))
	for i, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() { // reading a pipe may never end
			return nil, fmt.Errorf("%s is no regular file", path)
		}
		stamps[i] = info
	}
	return stamps, nil
}

func readAll(paths []string) ([][]byte, error) {
	contents := make([][]byte, len(paths))
	for i, path := range paths {
		var err error
		if contents[i], err = readSmallFile(path); err != nil {
			return nil, err
		}
	}
	return contents, nil
}

func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func oldEnough(stamps []fs.FileInfo, now time.Time) bool {
	return !slices.ContainsFunc(stamps, func(s fs.FileInfo) bool { return now.Sub(s.ModTime()) < unsettled })
}

// fileCaches are caches by what they are of.
type fileCaches[T any] struct {
	mu sync.Mutex
	by map[string]*fileCache[T] // guarded by mu
}

// maxFileCaches bounds what is kept: it is the mesh that names files.
const maxFileCaches = 1000

func (c *fileCaches[T]) find(key string, begin func() *fileCache[T]) *fileCache[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.by[key]; f != nil {
		return f
	}
	if c.by == nil || len(c.by) >= maxFileCaches {
		c.by = map[string]*fileCache[T]{}
	}
	f := begin()
	c.by[key] = f
	return f
}

// newPairFiles watches a certificate and its key.
func newPairFiles(cert, key string) *fileCache[*tls.Certificate] {
	return &fileCache[*tls.Certificate]{paths: []string{cert, key}, parse: func(contents [][]byte) (*tls.Certificate, error) {
		pair, err := parsePair(contents[0], contents[1])
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", cert, key, err)
		}
		return pair, nil
	}}
}

// newRootFiles watches roots for all.
func newRootFiles(file string) *fileCache[*trustRoots] {
	return newTrustFiles(file, parseRoots)
}

// newBundleFiles watches a SPIFFE bundle map.
func newBundleFiles(file string) *fileCache[*trustRoots] {
	return newTrustFiles(file, parseBundleMap)
}

func newTrustFiles(file string, parse func([]byte) (*trustRoots, error)) *fileCache[*trustRoots] {
	return &fileCache[*trustRoots]{paths: []string{file}, parse: func(contents [][]byte) (*trustRoots, error) {
		roots, err := parse(contents[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return roots, nil
	}}
}

// parsePair reads a certificate with its key from PEM. What is wrong with a key
// is not quoted. Roots at the end of the chain, which Istio's agent writes there,
// are not kept: a peer that trusts them has them.
func parsePair(cert, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	for n := len(pair.Certificate); n > 1; n-- {
		last, err := x509.ParseCertificate(pair.Certificate[n-1])
		if err != nil {
			return nil, fmt.Errorf("certificate %d of the chain cannot be read: %w", n, err)
		}
		if !selfSigned(last) {
			break
		}
		pair.Certificate = pair.Certificate[:n-1]
	}
	return &pair, nil
}

// judgePair says why a certificate is of no use at a time.
func judgePair(leaf *x509.Certificate, now time.Time) error {
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate expired at %s, %s ago", stamp(leaf.NotAfter), between(leaf.NotAfter, now))
	case now.Add(clockSkew).Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s, in %s: check this host's clock", stamp(leaf.NotBefore), between(now, leaf.NotBefore))
	case leaf.IsCA:
		return errors.New("the certificate is that of an authority, not of a workload")
	}
	return nil
}

// clockSkew is how far the clocks of two hosts may be apart. istiod allows for
// two minutes by dating certificates back.
const clockSkew = time.Minute
