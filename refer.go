package proxyless

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
)

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
	return m.refer(t, false)
}

// refer makes an Invoker for a target.
func (m *Mesh) refer(t *target, temporary bool) (*Invoker, error) {
	inv := &Invoker{
		temporary: temporary,
		target:    *t, table: m.table, counts: &m.counts, log: m.log, closed: m.closed,
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
	if reason := unknownCluster(s.cluster); reason != "" {
		return nil, &Error{Stage: StageConfig, Resource: iface, Reason: reason, Advice: useCluster}
	}
	if reason := unknownLoadBalance(s.loadBalance); reason != "" {
		return nil, &Error{Stage: StageConfig, Resource: iface, Reason: reason, Advice: useLoadBalance}
	}
	if s.subset < 0 {
		return nil, &Error{Stage: StageConfig, Resource: iface, Reason: fmt.Sprintf("a subset of %d endpoints", s.subset), Advice: "leave it 0 for all"}
	}
	host, port := splitPort(s.providedBy[0])
	if s.port != 0 {
		port = strconv.Itoa(s.port)
	}
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return nil, &Error{Stage: StageConfig, Resource: iface, Reason: fmt.Sprintf("providedBy port %q is not a TCP port", port), Advice: "use 1 to 65535"}
	}
	t := &target{iface: iface, version: s.version, group: s.group, providedBy: s.providedBy[0], timeout: m.config.Timeout, node: m.config.Node.id(),
		listeners: listenerNames(host, port, m.config.Node.Domain)}
	if m.config.View == ViewFull { // which knows what a short name means
		t.listeners = []string{joinPort(host, port)}
	}
	if s.hasTimeout {
		t.timeout = s.timeout
	}
	t.headers = tripleHeaders(t, m.config.Application)
	t.tolerance = newTolerance(&s, &m.config)
	t.prefers = newPreference(&s, m.config.LoadBalance)
	t.caller = caller{id: rand.Uint64(), ip: m.config.Node.IP}
	return t, nil
}

// joinPort is the opposite of splitPort.
func joinPort(host, port string) string {
	if port == "" {
		return host
	}
	return host + ":" + port
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

// referred lists the Invokers that the process has asked for.
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
	all = slices.Compact(all) // one with several listener names is there once for each
	return slices.DeleteFunc(all, func(inv *Invoker) bool { return inv.temporary })
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
