package proxyless

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"
)

// identity is who this workload is to its peers: a certificate, renewed for as
// long as the Mesh lives. One goroutine, run, gets it, from the first time that
// something wants it. The zero value has none, and nowhere to get it from.
type identity struct {
	// Constant after construction.
	config *Config
	log    *slog.Logger
	counts *counters
	ca     *certAuthority // who is asked; nil where the certificate comes from elsewhere
	files  *certFiles     // where it lies; likewise
	wanted chan struct{}  // closed by the first want
	got    chan struct{}  // closed when there is a first certificate
	done   chan struct{}  // closed when run returns
	turned func()         // called by run, with no lock held, when there is a certificate of use and was none, or the reverse; set before run, nil in tests

	once sync.Once // of want

	// Written by the ADS loop.
	named  atomic.Pointer[[]*x509.Certificate] // the roots that the mesh's configuration names; nil while it says nothing
	nudged chan struct{}                       // holds a token while run has not looked at them

	// Written by run.
	held    atomic.Pointer[credential]
	problem atomic.Pointer[Error] // what is wrong with getting a certificate; nil when nothing is
	facts   sync.Mutex            // held while held and due change, so that state sees them as one
	due     time.Time             // when the next one is asked for, zero for not known; read under facts

	// Owned by run.
	renewal renewal
	overlap rootOverlap
	roots   *fileCache[*trustRoots] // the watched file of roots; nil for none
	lay     *trustRoots             // beside the certificate in files, when that was good last
	said    string                  // which trouble was logged last, so that it is not repeated
	useful  bool                    // as turned was told last

	saidOfRoots string // likewise of the file of roots
}

// credential is one certificate of this workload with what it came with. It is
// immutable.
type credential struct {
	certificate *tls.Certificate // with Leaf
	id          string           // spiffe://domain/ns/namespace/sa/account; empty for a file's that has none
	roots       *trustRoots      // what the mesh's certificates are verified with, those of before included while they overlap
	received    time.Time
	end         time.Time // from which on peers refuse the certificate, for its own age or that of one above it
}

func (c *credential) expired(now time.Time) bool { return now.After(c.end) }

// ending is how its end is spoken of.
func (c *credential) ending() string {
	if c.end.Before(c.certificate.Leaf.NotAfter) {
		return "the authority's own certificate expired at " + stamp(c.end)
	}
	return "the certificate expired at " + stamp(c.end)
}

func newIdentity(config *Config, log *slog.Logger, counts *counters, readFile func(string) ([]byte, error)) *identity {
	i := &identity{
		config: config, log: log, counts: counts, renewal: renewal{settings: &config.Identity},
		nudged: make(chan struct{}, 1), wanted: make(chan struct{}), got: make(chan struct{}), done: make(chan struct{}),
	}
	switch id := &config.Identity; {
	case id.Disabled:
		i.problem.Store(noSource("Config.Identity.Disabled says so", "leave it out"))
		return i
	case id.named():
		i.files = newCertFiles(id)
	default:
		i.ca = newCertAuthority(config, readFile)
	}
	if !i.available() {
		i.problem.Store(noSource("the control plane is spoken to in plain text, and no authority is named",
			"use istiod's port 15012 with TLS, or set CA_ADDR"))
		return i
	}
	if i.ca != nil && i.ca.rootFile() != SystemRoots && i.ca.rootFile() != "" {
		i.roots = newRootFiles(i.ca.rootFile())
	}
	i.problem.Store(&Error{Stage: StageIdentity, Reason: "there is no certificate yet", Err: ErrNotReady})
	return i
}

func noSource(reason, advice string) *Error {
	return &Error{Stage: StageIdentity, Reason: "this workload has no certificate: " + reason, Advice: advice}
}

// available says that there is somewhere to get a certificate from. Where there
// is not, the mesh's offers of mutual TLS are not taken, and its demands fail.
func (i *identity) available() bool { return i != nil && (i.ca != nil || i.files != nil) }

// want says that a certificate is needed, now or soon. It never blocks.
func (i *identity) want() {
	if i.available() {
		i.once.Do(func() { close(i.wanted) })
	}
}

// current is the certificate in force; nil before the first.
func (i *identity) current() *credential { return i.held.Load() }

// wait wants a certificate and waits for the first one. Its error says why
// there is none.
func (i *identity) wait(ctx context.Context) (*credential, error) {
	if c := i.current(); c != nil {
		return c, nil
	}
	if !i.available() {
		return nil, i.trouble()
	}
	i.want()
	select {
	case <-i.got:
		return i.current(), nil
	case <-i.done:
		return nil, &Error{Stage: StageIdentity, Reason: "there is no certificate, and the mesh is closed", Err: ErrClosed}
	case <-ctx.Done():
	}
	trouble := i.trouble() // nil once there is a certificate, which may be just now
	if c := i.current(); c != nil || trouble == nil {
		return c, nil
	}
	return nil, trouble
}

// trouble says why there is no certificate, or why the one in force is of no use
// or not renewed; nil where all is well.
func (i *identity) trouble() *Error {
	problem := i.problem.Load()
	c := i.current()
	if c == nil {
		if problem == nil {
			problem = &Error{Stage: StageIdentity, Reason: "there is no certificate", Err: ErrNotReady}
		}
		return problem
	}
	if now := time.Now(); c.expired(now) {
		e := &Error{Stage: StageIdentity, Resource: c.id, Reason: fmt.Sprintf("%s, %s ago, and there is no new one", c.ending(), between(c.end, now))}
		if problem != nil {
			e.Reason += ": " + problem.Reason
			e.Advice, e.Err = problem.Advice, problem.Err
		}
		return e
	}
	return problem
}

// run gets certificates until ctx ends.
func (i *identity) run(ctx context.Context) {
	defer close(i.done)
	if !i.available() {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-i.wanted:
	}
	step := i.ask
	if i.files != nil {
		step = i.look
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-i.nudged:
		}
		timer.Reset(time.Until(i.heed(step(ctx))))
	}
}

// heed tells when the certificate came, ended and came again. It wakes run at
// the certificate's end, where that is before the next step.
func (i *identity) heed(again time.Time) time.Time {
	c, now := i.current(), time.Now()
	useful := c != nil && !c.expired(now)
	if useful != i.useful {
		i.useful = useful
		if i.turned != nil {
			i.turned()
		}
	}
	if useful {
		if end := c.end.Add(time.Millisecond); end.Before(again) {
			return end
		}
	}
	return again
}

// lookPause is how often files are looked at, and the calendar.
const lookPause = 10 * time.Second

// ask does what is due where certificates are asked for, and says when to come
// again.
func (i *identity) ask(ctx context.Context) time.Time {
	now := time.Now()
	i.lookAtRoots(now)
	i.lookAtNamed(now)
	if i.renewal.due(now) {
		i.renew(ctx)
		now = time.Now()
	} else if i.current() != nil {
		i.trust(i.overlap.trusted(now))
	}
	again := i.renewal.next
	if expiry := i.overlap.next(); !expiry.IsZero() && expiry.Before(again) {
		again = expiry
	}
	if look := now.Add(lookPause); look.Before(again) {
		again = look
	}
	i.facts.Lock()
	i.due = i.renewal.next
	i.facts.Unlock()
	return again
}

// renew asks for a certificate and puts it in force.
func (i *identity) renew(ctx context.Context) {
	i.renewal.ask(time.Now())
	made, trouble := i.ca.ask(ctx)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	var fit *parsed
	if trouble == nil {
		fit, trouble = made.judge(&i.config.Node, now)
	}
	if trouble != nil {
		i.renewal.failed(now)
		i.fail(trouble)
		return
	}
	i.renewal.granted(now, fit.end)
	i.overlap.add(fit.roots, fit.end)
	i.counts.certificates.Add(1)
	i.succeed()
	i.hold(&credential{certificate: fit.certificate, id: fit.id.text, roots: i.overlap.trusted(now), received: now, end: fit.end})
	i.log.Info("this workload has a certificate", keyIdentity, fit.id.text, "from", made.from, "until", stamp(fit.end), "renewal", stamp(i.renewal.next))
}

// look does what is due where certificates lie in files.
func (i *identity) look(context.Context) time.Time {
	now := time.Now()
	i.lookAtNamed(now)
	fit, failure := i.files.load(&i.config.Node, now)
	if failure != nil {
		i.fail(failure)
	}
	if fit != nil {
		fit.received = now
		if c := i.current(); c == nil || c.certificate != fit.certificate {
			i.counts.certificates.Add(1)
			i.log.Info("this workload has a certificate", keyIdentity, fit.id, "from", i.files.file, "until", stamp(fit.end))
		} else {
			fit.received = c.received
		}
		if failure == nil { // before those who wait are told
			i.succeed()
		}
		i.lay = fit.roots
		fit.roots = i.overlap.beside(i.lay)
		i.hold(fit)
	} else { // what the mesh's configuration names may have changed
		i.trust(i.overlap.beside(i.lay))
	}
	return time.Now().Add(i.files.pause)
}

// hold puts a certificate and roots in force, where either is new.
func (i *identity) hold(next *credential) {
	old := i.current()
	if old != nil && old.certificate == next.certificate && old.roots == next.roots {
		return
	}
	i.facts.Lock()
	i.due = i.renewal.next
	i.held.Store(next)
	i.facts.Unlock()
	if old == nil {
		close(i.got)
	}
}

func (i *identity) succeed() {
	i.problem.Store(nil)
	i.said = ""
}

// fail notes a trouble and logs it, each kind once until there is success.
func (i *identity) fail(trouble *Error) {
	i.counts.certFailures.Add(1)
	i.problem.Store(trouble)
	// Not the reason: it may tell the time, and would be news at each attempt.
	key := trouble.Resource + trouble.Advice + status.Code(trouble.Err).String()
	c := i.current()
	if c != nil && c.expired(time.Now()) {
		key += "expired"
	}
	if key == i.said {
		return
	}
	i.said = key
	switch {
	case c == nil:
		i.log.Warn("there is no certificate for this workload yet; trying again", keyError, trouble.Error())
	case c.expired(time.Now()):
		i.log.Error("this workload's certificate has expired and is not renewed: peers refuse it", keyError, i.trouble().Error())
	default:
		i.log.Warn("this workload's certificate is not renewed; the old one stays", keyError, trouble.Error(), "until", stamp(c.end))
	}
}
