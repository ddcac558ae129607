package proxyless

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// Mesh is this process's membership in a mesh: one ADS stream, the
// configuration that came through it, and everything that is referred to or
// exported here. It is safe for concurrent use.
//
// It owns these goroutines, and Close ends them: the ADS loop (with a receiver
// and a sender for each stream) and the QoS server. Those of a [Server] belong
// to its Serve.
type Mesh struct {
	// Constant after Join.
	config Config
	log    *slog.Logger
	table  *connTable
	ads    *ads
	life   *lifecycle
	qos    *qos // nil when disabled
	closed chan struct{}
	stop   context.CancelFunc
	once   sync.Once
	counts counters

	// Written by the ADS loop only.
	snapshot atomic.Pointer[snapshot]

	// Owned by the ADS loop.
	planner *planner
	told    map[string]struct{} // policy that is not applied, and was logged

	// Guarded by mu.
	mu       sync.Mutex
	invokers map[string][]*Invoker // by the listener they refer to
	inbound  map[string]*inbound   // by the listener asked for
}

// inbound is what the mesh has said about the calls that a server accepts.
type inbound struct {
	asked  time.Time
	refuse *atomic.Pointer[Error] // the server's
	known  atomic.Bool            // the listener arrived, or counts as absent
}

// Join enters the mesh. It reads the environment where cfg leaves something
// open, opens the QoS port and begins to connect to the control plane; it does
// not wait for an answer, which [Mesh.WaitReady] does. ctx bounds the set-up
// only: Close ends the membership.
func Join(ctx context.Context, cfg Config) (*Mesh, error) {
	cfg, notes, err := cfg.withDefaults(osEnvironment())
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := &Mesh{
		config:   cfg,
		log:      cfg.Logger.With("component", "proxyless"),
		closed:   make(chan struct{}),
		told:     map[string]struct{}{},
		invokers: map[string][]*Invoker{},
		inbound:  map[string]*inbound{},
	}
	m.report(notes)
	m.snapshot.Store(&snapshot{})
	m.table = newConnTable(cfg.DialOptions, &m.counts)
	m.planner = newPlanner(m.table)
	m.life = newLifecycle(m.log)
	m.life.setReferences(m.references)
	if err := m.openQoS(); err != nil {
		return nil, err
	}
	m.ads = newADS(&m.config, m.log, &m.counts, os.ReadFile, m.publish)
	loop, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	go m.ads.run(loop) // ended and joined by Close
	return m, nil
}

// report logs what was found in the environment, and what is not honoured.
func (m *Mesh) report(notes []string) {
	for _, note := range notes {
		m.log.Info(note)
	}
	for _, n := range m.config.Notices {
		m.log.Warn("setting not honoured", "setting", n.String())
	}
	if m.config.InsecureSkipVerify && !m.config.PlainText {
		m.log.Warn("the control plane's certificate is not verified, as Config.InsecureSkipVerify says: it may be anybody")
	}
}

func (m *Mesh) openQoS() error {
	if m.config.QoS.Disabled {
		return nil
	}
	q := newQoS(&m.config, m.log, m.life, qosFacts{
		application: m.config.Application,
		config:      func() string { return m.config.String() },
		snapshot:    func() any { return m.snapshot.Load().dump() },
	})
	if err := q.start(); err != nil {
		if m.config.QoS.Check {
			return err
		}
		m.log.Error("QoS port not opened: probes will fail", keyError, err)
		return nil
	}
	m.qos = q
	return nil
}

// QoSAddr is the address of the QoS port; nil when there is none.
func (m *Mesh) QoSAddr() net.Addr {
	if m.qos == nil {
		return nil
	}
	return m.qos.addr()
}

// Config is the effective configuration: what was given, completed from the
// environment. Its String leaves secrets out.
func (m *Mesh) Config() Config { return m.config }

// Stats returns the counters since Join.
func (m *Mesh) Stats() Stats {
	c := &m.counts
	s := Stats{
		ControlPlaneConnects: c.connects.Load(),
		Responses:            c.responses.Load(),
		ResourcesUnchanged:   c.unchanged.Load(),
		ResourcesUpdated:     c.updated.Load(),
		ResourcesRejected:    c.rejected.Load(),
		PlansPublished:       c.published.Load(),
		Dials:                c.dials.Load(),
		Repicks:              c.repicks.Load(),
		Waits:                c.calls.Load(),
		AgeSeconds:           -1,
	}
	if at := c.lastAnswer.Load(); at > 0 {
		s.AgeSeconds = time.Since(time.Unix(0, at)).Seconds()
	}
	return s
}

// Refer makes an Invoker for an interface, which is the full name of a
// protobuf service and, in Dubbo, of a Java interface. [ProvidedBy] is
// required, since xDS cannot lead from an interface to the application that
// provides it. Refer does not wait: the Invoker's first calls do, or
// [Mesh.WaitReady].
func (m *Mesh) Refer(iface string, opts ...ReferOption) (*Invoker, error) {
	var settings referSettings
	for _, o := range opts {
		o.applyRefer(&settings)
	}
	t, err := m.target(iface, settings)
	if err != nil {
		return nil, err
	}
	inv := &Invoker{
		target: *t, table: m.table, counts: &m.counts, closed: m.closed,
		giveUp:  time.Now().Add(m.config.ResourceTimeout),
		trouble: m.ads.trouble.Load,
		unary:   chainUnary(m.config.UnaryInterceptors),
		stream:  chainStream(m.config.StreamInterceptors),
	}
	inv.release = func() { m.release(inv) }
	inv.serial = m.counts.references.Add(1)
	inv.plan.Store(pending(t.listeners[0]))
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
		return nil, ErrClosed
	default:
	}
	for _, name := range t.listeners {
		m.invokers[name] = append(m.invokers[name], inv)
	}
	m.ads.do(func(d *discovery, now time.Time) {
		for _, name := range t.listeners {
			d.refer(now, name)
		}
	})
	return inv, nil
}

// target checks and completes what Refer was told.
func (m *Mesh) target(iface string, s referSettings) (*target, error) {
	if iface == "" {
		return nil, &Error{Stage: StageConfig, Resource: "Refer", Reason: "no interface", Advice: "give the full name of the protobuf service"}
	}
	if len(s.providedBy) != 1 {
		return nil, &Error{Stage: StageConfig, Resource: iface, Reason: fmt.Sprintf("%d applications in providedBy", len(s.providedBy)),
			Advice: "name exactly one with proxyless.ProvidedBy"}
	}
	host, port := splitPort(s.providedBy[0])
	if s.port != 0 {
		port = strconv.Itoa(s.port)
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return nil, &Error{Stage: StageConfig, Resource: iface, Reason: fmt.Sprintf("providedBy port %q is not a TCP port", port), Advice: "use 1 to 65535"}
	}
	t := &target{iface: iface, version: s.version, group: s.group, providedBy: s.providedBy[0], timeout: m.config.Timeout,
		listeners: listenerNames(host, port, m.config.Node.Domain)}
	if s.hasTimeout {
		t.timeout = s.timeout
	}
	t.headers = tripleHeaders(t, m.config.Application)
	return t, nil
}

// tripleHeaders are the request headers that Triple adds to gRPC's.
func tripleHeaders(t *target, application string) metadata.MD {
	md := metadata.MD{}
	for name, value := range map[string]string{
		headerVersion:          t.version,
		headerGroup:            t.group,
		"tri-consumer-appname": application,
	} {
		if value != "" {
			md.Set(name, value)
		}
	}
	return md
}

// release takes an Invoker out, on the ADS loop.
func (m *Mesh) release(inv *Invoker) {
	names := inv.target.listeners
	m.ads.do(func(d *discovery, now time.Time) {
		for _, name := range names {
			m.mu.Lock()
			m.invokers[name] = slices.DeleteFunc(m.invokers[name], func(i *Invoker) bool { return i == inv })
			if len(m.invokers[name]) == 0 {
				delete(m.invokers, name)
			}
			m.mu.Unlock()
			d.release(now, name)
		}
		m.swap(inv, &plan{name: names[0], superseded: make(chan struct{}),
			problem: &Error{Stage: StageConfig, Resource: inv.target.iface, Reason: "the reference was closed", Err: ErrClosed}})
	})
}

// publish makes an update visible: first the snapshot, then the plans that it
// changes. It runs on the ADS loop.
func (m *Mesh) publish(out outcome) {
	snap := m.snapshot.Load().with(out.changed, out.removed)
	m.snapshot.Store(snap)
	for _, r := range out.changed {
		m.tell(r)
	}
	affected := map[*Invoker]struct{}{}
	m.mu.Lock()
	for _, name := range out.affected {
		for _, inv := range m.invokers[name] {
			affected[inv] = struct{}{}
		}
		if in := m.inbound[name]; in != nil {
			m.govern(in, snap.get(kindListener, name))
		}
	}
	m.mu.Unlock()
	answered := false
	for inv := range affected {
		waited := inv.plan.Load().waiting
		m.replan(inv, snap)
		answered = answered || waited && !inv.plan.Load().waiting
	}
	if answered {
		m.life.refresh() // those who watch gRPC's health service learn of it
	}
}

// tell logs, once each, what was rejected and what is not applied.
func (m *Mesh) tell(r *resourceState) {
	if r.rejection != "" {
		m.tellOnce(r.kind.String()+r.name+r.rejection, func() {
			m.log.Error("resource rejected; the last good one, if any, stays", "kind", r.kind.String(), "resource", r.name, keyError, r.rejection)
		})
	}
	for _, field := range r.ignored {
		m.tellOnce(r.kind.String()+r.name+field, func() {
			m.log.Info("policy of the mesh not applied", "kind", r.kind.String(), "resource", r.name, "field", field)
		})
	}
}

func (m *Mesh) tellOnce(key string, say func()) {
	const most = 10_000 // names come and go in a large mesh; repeating a line is the lesser evil
	if _, told := m.told[key]; told {
		return
	}
	if len(m.told) >= most {
		clear(m.told)
	}
	m.told[key] = struct{}{}
	say()
}

// replan compiles an Invoker's plan. While the new chain has gaps that may
// still close, or was rejected, the last whole one stays in force.
func (m *Mesh) replan(inv *Invoker, snap *snapshot) {
	next := m.planner.compile(snap, &inv.target)
	if next.waiting && inv.plan.Load().complete() {
		m.planner.drop(next)
		return
	}
	m.swap(inv, next)
}

// swap publishes a plan.
func (m *Mesh) swap(inv *Invoker, next *plan) {
	old := inv.plan.Swap(next)
	close(old.superseded)
	m.planner.drop(old)
	m.counts.published.Add(1)
}

// WaitReady waits until everything referred to so far can be called, and
// connects to the first endpoints of each ahead of the first calls. When ctx
// ends it returns what is missing, joined.
func (m *Mesh) WaitReady(ctx context.Context) error {
	var missing []error
	for _, inv := range m.referred() {
		if err := inv.warm(ctx); err != nil {
			missing = append(missing, err)
		}
	}
	return errors.Join(missing...)
}

func (m *Mesh) referred() []*Invoker {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []*Invoker
	for _, invokers := range m.invokers {
		all = append(all, invokers...)
	}
	slices.SortFunc(all, func(a, b *Invoker) int {
		return cmp.Or(strings.Compare(a.target.iface, b.target.iface), cmp.Compare(a.serial, b.serial))
	})
	return slices.Compact(all) // one with several listener names is there once for each
}

// references are the rows of QoS and of readiness.
func (m *Mesh) references() []referenceState {
	var rows []referenceState
	for _, inv := range m.referred() {
		p := inv.plan.Load()
		row := referenceState{Interface: inv.target.iface, Version: inv.target.version, Group: inv.target.group, ProvidedBy: inv.target.providedBy, Answered: !p.waiting}
		_, port := splitPort(p.name)
		row.Port, _ = strconv.Atoi(port)
		row.Endpoints, row.Ready = p.census()
		if p.problem != nil {
			row.Problem = inv.describe(p, obstacle{err: p.problem}).Error()
		}
		rows = append(rows, row)
	}
	return rows
}

// NewServer makes a Server that listens on Config.Host and Config.Port. opts
// come after Config.ServerOptions.
func (m *Mesh) NewServer(opts ...grpc.ServerOption) *Server {
	refuse := new(atomic.Pointer[Error])
	in := &inbound{refuse: refuse}
	return newServer(&m.config, m.log, m.life, serverHooks{
		listening: func(addr netip.AddrPort) { m.askInbound(in, addr) },
		answered:  func() bool { return m.inboundAnswered(in) },
		refuse:    refuse,
		done:      m.closed,
	}, opts)
}

// inboundPrefix names the listeners that istiod makes for what a proxyless
// workload accepts.
const inboundPrefix = "xds.istio.io/grpc/lds/inbound/"

// askInbound asks the mesh what a server may accept.
func (m *Mesh) askInbound(in *inbound, addr netip.AddrPort) {
	if !addr.IsValid() { // not TCP: the mesh has no name for it
		in.known.Store(true)
		return
	}
	ip := addr.Addr().Unmap()
	if own, err := netip.ParseAddr(m.config.Node.IP); err == nil && ip.IsUnspecified() {
		ip = own
	}
	name := inboundPrefix + netip.AddrPortFrom(ip, addr.Port()).String()
	m.mu.Lock()
	in.asked = time.Now()
	m.inbound[name] = in
	m.mu.Unlock()
	m.ads.do(func(d *discovery, now time.Time) { d.refer(now, name) })
}

// inboundAnswered says that a provider need not wait for policy any longer.
// istiod finds a workload by its ready pod only and is silent about others, so
// that the first answer of any kind is enough, or the end of the timer.
func (m *Mesh) inboundAnswered(in *inbound) bool {
	m.mu.Lock()
	asked := in.asked
	m.mu.Unlock()
	return in.known.Load() || m.counts.responses.Load() > 0 || !asked.IsZero() && time.Since(asked) >= m.config.ResourceTimeout
}

// govern applies an inbound listener. Policy that cannot be evaluated here
// fails closed: every call is refused. The absence of a listener that was once
// received keeps its policy, since a workload that turns not ready loses its
// listener.
func (m *Mesh) govern(in *inbound, state *resourceState) {
	if state == nil || state.status == statusRequested {
		return
	}
	in.known.Store(true)
	l, _ := state.value.(*listener)
	if l == nil {
		return
	}
	refusal := l.refusal()
	if old := in.refuse.Swap(refusal); refusal != nil && (old == nil || old.Reason != refusal.Reason) {
		m.log.Error("calls are refused: the mesh demands what this version cannot enforce", keyListener, l.name, keyError, refusal.Reason)
	}
}

// refusal is why no call may be accepted under an inbound listener; nil when
// plain text without authorization is what the mesh asks for.
func (l *listener) refusal() *Error {
	e := &Error{Stage: StageProvider, Resource: l.name, Code: codes.PermissionDenied}
	for _, chain := range l.inbound {
		if len(chain.filters) > 0 {
			e.Reason = fmt.Sprintf("filter chain %s has the filters %s, which are not evaluated", chain.name, strings.Join(chain.filters, ", "))
			e.Advice = "remove the AuthorizationPolicy of this workload"
			return e
		}
	}
	for _, chain := range l.inbound {
		if !chain.tls {
			return nil
		}
	}
	e.Reason = "the mesh demands mutual TLS, which is not spoken"
	e.Advice = "set PeerAuthentication to PERMISSIVE or DISABLE, and remove the label security.istio.io/tlsMode"
	return e
}

// Close leaves the mesh: it ends the ADS stream, the connections to providers
// and the QoS port. Calls in flight through Invokers fail. Servers drain; wait
// for their Serve to return first. Close is idempotent and returns when every
// goroutine of the Mesh has ended.
func (m *Mesh) Close() error {
	m.once.Do(func() {
		m.mu.Lock()
		close(m.closed)
		m.mu.Unlock()
		m.stop()
		<-m.ads.done
		m.table.close()
		if m.qos != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			m.qos.close(ctx)
		}
	})
	return nil
}
