package proxyless

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ads is the goroutine shell around discovery: one stream to one replica of
// the control plane at a time, reconnected for as long as the Mesh lives. One
// goroutine, run, owns the state machine; each session has two more, which it
// joins.
type ads struct {
	// Constant after construction.
	config  *Config
	log     *slog.Logger
	counts  *counters
	publish func(outcome) // called by run, before anything is acknowledged
	// nameRoots is told of the roots that the mesh's configuration names; nil has
	// nobody ask for them. Set before run.
	nameRoots func([]*x509.Certificate)
	readFile  func(string) ([]byte, error)
	done      chan struct{} // closed when run returns

	// Atomics.
	trouble atomic.Pointer[Error] // why there is no working stream; nil when there is one

	// Guarded by mu.
	mu   sync.Mutex
	todo []func(*discovery, time.Time)
	wake chan struct{} // holds a token while todo is not empty

	// Owned by run.
	machine  *discovery
	session  *session
	dns      nameService
	attempts int             // since the last session that got an answer
	sotwOnly map[string]bool // replicas that do not speak delta, by address
	rootless map[string]int  // how often in a row those ended the stream when they were asked for roots
	said     string          // which trouble was logged last, so that it is not repeated
}

// Limits of the stream.
const (
	connectTimeout = 10 * time.Second // to one replica, TLS handshake included
	// A dead peer is noticed after 40 s: istiod allows pings every 15 s.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	// One response may be large: a full view of 1 000 services takes 2 MB.
	maxResponse = 512 << 20
	// Replicas of a process reconnect spread over this time when istiod ends
	// their streams, as it does every 30 minutes.
	reconnectSpread = 200 * time.Millisecond
)

const (
	sotwMethod  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	deltaMethod = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
)

func newADS(config *Config, log *slog.Logger, counts *counters, readFile func(string) ([]byte, error), publish func(outcome)) *ads {
	a := &ads{
		config: config, log: log, counts: counts, publish: publish, readFile: readFile,
		done: make(chan struct{}), wake: make(chan struct{}, 1),
		machine: newDiscovery(config.ResourceTimeout), sotwOnly: map[string]bool{}, rootless: map[string]int{},
	}
	if config.View == ViewFull {
		a.machine.useFullView(config.Node.Namespace, config.Node.Domain)
	}
	a.dns.lookUp = config.resolver().LookupNetIP
	a.dns.report = func(host string, addrs []netip.Addr, failure string) {
		a.do(func(d *discovery, now time.Time) { d.resolved(now, host, addrs, failure) })
	}
	a.machine.strict = config.Strict
	a.trouble.Store(&Error{Stage: StageControlPlane, Resource: config.ControlPlanes[0], Reason: "not connected yet", Err: ErrNotReady})
	return a
}

// do runs f on the loop, where it may use the state machine.
func (a *ads) do(f func(*discovery, time.Time)) {
	a.mu.Lock()
	a.todo = append(a.todo, f)
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// run is the ADS loop. It returns when ctx ends.
func (a *ads) run(ctx context.Context) {
	defer close(a.done)
	retry := time.NewTimer(0)
	expiry := time.NewTimer(time.Hour)
	for {
		var events chan event
		if a.session != nil {
			events = a.session.events
		}
		select {
		case <-ctx.Done():
			a.hangUp()
			a.dns.close()
			return
		case <-a.wake:
			a.commands()
		case <-retry.C:
			a.session = a.dial(ctx)
		case e := <-events:
			if e.kind != eventEnd {
				e.err = a.handle(e)
			}
			if e.kind == eventEnd || e.err != nil {
				retry.Reset(a.ended(e.err))
			}
		case <-expiry.C:
			a.machine.tick(time.Now())
		}
		if stalled := a.settle(); stalled && a.session != nil {
			retry.Reset(a.ended(errStalled))
		}
		if next := a.machine.next(); !next.IsZero() {
			expiry.Reset(time.Until(next))
		}
	}
}

var errStalled = errors.New("no answer about listeners that are known to exist")

func (a *ads) commands() {
	a.mu.Lock()
	todo := a.todo
	a.todo = nil
	a.mu.Unlock()
	now := time.Now()
	for _, f := range todo {
		f(a.machine, now)
	}
}

// settle publishes what changed and then answers the control plane. It says
// whether the stream looks dead.
func (a *ads) settle() (stalled bool) {
	out := a.machine.take()
	a.counts.updated.Add(uint64(out.counts.updated))
	a.counts.unchanged.Add(uint64(out.counts.unchanged))
	a.counts.rejected.Add(uint64(out.counts.rejected))
	if len(out.changed)+len(out.removed)+len(out.affected) > 0 {
		a.publish(out)
	}
	for _, host := range out.stopped {
		a.dns.stop(host)
	}
	for _, name := range out.lookUp {
		a.dns.start(name)
	}
	if a.session != nil {
		for i := range out.requests {
			a.session.request(&out.requests[i])
		}
	}
	return out.stalled
}

// handle takes an event of the current session. An error ends the session.
func (a *ads) handle(e event) error {
	now := time.Now()
	if e.kind == eventOpen {
		a.session.opened = true
		a.counts.connects.Add(1)
		if a.attempts == 0 { // else what is known of the trouble says more
			a.trouble.Store(&Error{Stage: StageControlPlane, Resource: a.session.address, Reason: "connected, but it has not answered yet"})
		}
		a.machine.connect(now, a.session.delta)
		return nil
	}
	r, err := a.session.decode(e.message)
	if err != nil {
		return fmt.Errorf("it sent what is no DiscoveryResponse: %w", err)
	}
	if a.trouble.Swap(nil) != nil {
		a.log.Info("control plane answers", keyControlPlane, a.session.address)
	}
	a.said, a.session.answered = "", true
	a.counts.responses.Add(1)
	a.counts.lastAnswer.Store(now.UnixNano())
	a.askForRoots()
	if isProxyConfig(r.typeURL) {
		a.takeRoots(&r)
	} else {
		a.machine.receive(now, r)
	}
	return nil
}

// settled is how long a session must have lived for its end to be in the normal
// course of things.
const settled = 10 * time.Second

// ended cleans up after a session and returns the pause before the next. After
// one that got no answer, or ended soon, each replica is tried once before a
// longer pause.
func (a *ads) ended(err error) time.Duration {
	s := a.session
	a.hangUp()
	a.machine.disconnect()
	a.noteRefusal(s, err)
	if s.answered && time.Since(s.since) >= settled {
		a.attempts = 0
		a.log.Info("control plane ended the stream; reconnecting", keyControlPlane, s.address, keyError, err)
		a.trouble.Store(&Error{Stage: StageControlPlane, Resource: s.address, Reason: "the stream ended", Err: err})
		return rand.N(reconnectSpread)
	}
	if a.refusesDelta(s, err) {
		a.sotwOnly[s.address] = true
		a.log.Info("control plane does not speak delta; going on with state of the world", keyControlPlane, s.address, keyError, err)
		return 0
	}
	a.attempts++
	trouble := a.explain(s, err)
	a.trouble.Store(trouble)
	// Not the reason: it may tell the time, and would be news at each attempt.
	if key := string(trouble.Stage) + trouble.Resource + trouble.Advice; key != a.said {
		a.said = key
		a.log.Warn("control plane cannot be used; trying again", keyError, trouble.Error())
	}
	replicas := len(a.config.ControlPlanes)
	if a.attempts%replicas != 0 {
		return 0
	}
	return controlPlaneBackoff.delay(a.attempts / replicas)
}

// refusesDelta says that a session ended because the control plane, or
// something on the way, does not speak delta. istiod does.
func (a *ads) refusesDelta(s *session, err error) bool {
	if !s.delta || !s.opened || s.answered {
		return false
	}
	switch status.Code(err) {
	case codes.Unimplemented, codes.Unknown, codes.Internal, codes.InvalidArgument, codes.NotFound:
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, errStalled)
}

func (a *ads) hangUp() {
	if a.session != nil {
		a.session.close()
		a.session = nil
	}
}

// explain says what a failed attempt means and what to change.
func (a *ads) explain(s *session, err error) *Error {
	x := contact{config: a.config, address: s.address, plain: a.config.plainTextTo(s.address), rootFile: a.config.RootCertFile}
	x.token, x.tokenPath, x.tokenErr = s.token, s.tokenPath, s.tokenErr
	return x.explain(err)
}
