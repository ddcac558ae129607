package proxyless

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// Mesh is this process's membership in a mesh: one ADS stream, the
// configuration that came through it, and everything that is referred to or
// exported here. It is safe for concurrent use.
//
// It owns these goroutines, and Close ends them: the ADS loop (with a receiver
// and a sender for each stream), the one that renews the certificate, the upkeep
// and the QoS server. Those of a [Server] belong to its Serve.
type Mesh struct {
	// Constant after Join.
	config   Config
	log      *slog.Logger
	table    *connTable
	ads      *ads
	life     *lifecycle
	audit    *auditor
	qos      *qos // nil when disabled
	closed   chan struct{}
	identity *identity // who this workload is to its peers
	secrets  *secretStore
	stop     context.CancelFunc
	once     sync.Once
	counts   counters

	plain plainPeers // who calls in plain text

	// Written by the ADS loop only.
	snapshot atomic.Pointer[snapshot]

	// Owned by the ADS loop.
	planner *planner
	told    map[string]struct{} // policy that is not applied, and was logged

	// Guarded by mu.
	mu       sync.Mutex
	invokers map[string][]*Invoker // by the listener they refer to
	inbound  map[string][]*inbound // by the listener asked for: servers at one port share it
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
		inbound:  map[string][]*inbound{},
	}
	m.report(notes)
	m.snapshot.Store(&snapshot{})
	m.table = newConnTable(cfg.DialOptions, &m.counts)
	m.planner = newPlanner(m.table)
	m.audit = newAuditor(m.log, m.config.Audit, &m.counts)
	m.life = newLifecycle(m.log)
	m.life.setReferences(m.references)
	m.identity = newIdentity(&m.config, m.log, &m.counts, readSmallFile)
	m.identity.turned = m.life.refresh // providers depend on it, and those who watch gRPC's health service
	m.secrets = newSecretStore(m.identity, cfg.providers, m.log)
	m.table.secrets = m.secrets
	if err := m.openQoS(); err != nil {
		return nil, err
	}
	m.ads = newADS(&m.config, m.log, &m.counts, os.ReadFile, m.publish)
	switch {
	case !m.identity.available():
		m.ads.machine.decode = decodeAnonymously
	case !m.config.Identity.NoMeshRoots:
		m.ads.nameRoots = m.identity.name
	}
	loop, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stop = stop
	go m.ads.run(loop)           // ended and joined by Close
	go m.table.upkeep.loop(loop) // ended and joined by Close
	go m.identity.run(loop)      // ended and joined by Close
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
	gaps := ""
	if m.config.View == ViewLean {
		gaps = leanGaps
	}
	q := newQoS(&m.config, m.log, m.life, qosFacts{
		application: m.config.Application,
		gaps:        gaps,
		config:      func() string { return m.config.String() },
		snapshot:    func() any { return m.snapshot.Load().dump() },
		coverage:    m.Coverage,
		security:    m.securityState,
		explain:     m.Explain,
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
		PolicyIgnored:        c.ignored.Load(),
		PlansPublished:       c.published.Load(),
		Dials:                c.dials.Load(),
		Repicks:              c.repicks.Load(),
		Waits:                c.calls.Load(),
		Ejections:            c.ejections.Load(),
		Overloads:            c.overloads.Load(),
		Dropped:              c.dropped.Load(),
		Retries:              c.retries.Load(),
		Faults:               c.faults.Load(),
		Mirrored:             c.mirrored.Load(),
		MirrorsDropped:       c.mirrorsDropped.Load(),
		Swallowed:            c.swallowed.Load(),
		Denied:               c.denied.Load(),
		AuditsLost:           c.auditsLost.Load(),
		Certificates:         c.certificates.Load(),
		CertificateFailures:  c.certFailures.Load(),
		ConnectionsEncrypted: c.encrypted.Load(),
		ConnectionsPlain:     c.plain.Load(),
		ConnectionsRefused:   c.turnedAway.Load(),
		ConnectionsRetired:   c.retired.Load(),
		HandshakesSlow:       c.timedOut.Load(),
		HandshakesCrowdedOut: c.crowdedOut.Load(),
		AgeSeconds:           -1,
	}
	if at := c.lastAnswer.Load(); at > 0 {
		s.AgeSeconds = time.Since(time.Unix(0, at)).Seconds()
	}
	return s
}

// Identity says where this workload's certificate stands. There is none before
// something needs it: a connection, a server, [Mesh.WaitIdentity].
func (m *Mesh) Identity() IdentityState { return m.identity.state() }

// WaitIdentity has this workload get a certificate, where nothing needed one so
// far, and waits for the first one. Its error, an [*Error], says why there is
// none; getting it goes on all the same.
func (m *Mesh) WaitIdentity(ctx context.Context) error {
	_, err := m.identity.wait(ctx)
	return err
}

// Coverage reports, for each resource that the mesh sent or was asked for, which
// of its fields are applied, ignored and rejected. Ignored and rejected fields
// are also logged, once each, and counted in [Stats].
func (m *Mesh) Coverage() []ResourceCoverage { return m.snapshot.Load().coverage() }

// publish makes an update visible: first the snapshot, then the plans that it
// changes. It runs on the ADS loop.
func (m *Mesh) publish(out outcome) {
	snap := m.snapshot.Load().with(out.changed, out.removed)
	m.snapshot.Store(snap)
	for _, r := range out.changed {
		m.tell(r)
	}
	affected := map[*Invoker]struct{}{}
	var governed []func()
	m.mu.Lock()
	for _, name := range out.affected {
		for _, inv := range m.invokers[name] {
			affected[inv] = struct{}{}
		}
		for _, in := range m.inbound[name] {
			governed = append(governed, func() { m.govern(in, snap.get(kindListener, name)) })
		}
	}
	m.mu.Unlock()
	for _, govern := range governed { // it logs, and so calls out
		govern()
	}
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

// tell logs, once each, what was rejected, what is not applied, and where
// endpoints need not prove who they are.
func (m *Mesh) tell(r *resourceState) {
	if r.rejection != "" {
		m.tellOnce(r.kind.String()+r.name+r.rejection, func() {
			m.log.Error("resource rejected; the last good one, if any, stays", "kind", r.kind.String(), "resource", r.name, keyError, r.rejection)
		})
	}
	if c, _ := r.value.(*cluster); c != nil && c.trusting() {
		m.tellOnce("trusting "+c.name, func() {
			m.log.Warn("every certificate is accepted of this cluster's endpoints, as the mesh says: they may be anybody", "cluster", c.name,
				"advice", "name caCertificates in the DestinationRule, in place of insecureSkipVerify")
		})
	}
	for _, field := range r.ignored {
		m.tellOnce(r.kind.String()+r.name+field, func() {
			m.counts.ignored.Add(1)
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

// replan compiles an Invoker's plan anew.
func (m *Mesh) replan(inv *Invoker, snap *snapshot) {
	if next := m.planner.compile(snap, &inv.target, inv.plan.Load()); next != nil {
		m.swap(inv, next)
	}
}

// swap publishes a plan.
func (m *Mesh) swap(inv *Invoker, next *plan) {
	old := inv.plan.Swap(next)
	close(old.superseded)
	m.planner.drop(old)
	m.counts.published.Add(1)
}

// NewServer makes a Server that listens on Config.Host and Config.Port. opts
// come after Config.ServerOptions.
func (m *Mesh) NewServer(opts ...grpc.ServerOption) *Server {
	in := &inbound{gate: newGate(&m.config, m.log, &m.counts, m.secrets, m.audit, &m.plain), refuse: new(atomic.Pointer[Error])}
	return newServer(&m.config, m.log, m.life, serverHooks{
		listening: func(addr netip.AddrPort) { m.askInbound(in, addr) },
		left:      func(addr netip.AddrPort) { m.releaseInbound(in, addr) },
		answered:  func() bool { return m.inboundAnswered(in) },
		trouble:   func() string { return m.inboundTrouble(in) },
		gate:      in.gate,
		refuse:    in.refuse,
		done:      m.closed,
	}, opts)
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
		<-m.table.upkeep.done
		<-m.identity.done
		m.table.close()
		m.audit.close()
		if m.qos != nil {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			m.qos.close(ctx)
		}
	})
	return nil
}
