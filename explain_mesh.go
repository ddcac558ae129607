package proxyless

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
)

// Explain tells how a call would go: which listener, virtual host, route,
// cluster and endpoints it would reach, and why others lost. service is what
// [ProvidedBy] takes, method is "/package.Service/Method", and md is the
// metadata of the call. Nothing is sent and no provider is dialled.
//
// Where nothing refers to the service, it is referred to for as long as this
// takes. Explain waits for the mesh's answer as a call would, until ctx ends; the
// Explanation then says how far it got. An error is returned for arguments
// that mean nothing, and after Close.
func (m *Mesh) Explain(ctx context.Context, service, method string, md metadata.MD) (*Explanation, error) {
	method = "/" + strings.TrimPrefix(method, "/")
	iface, name, ok := strings.Cut(method[1:], "/")
	if !ok || iface == "" || name == "" {
		return nil, &Error{Stage: StageConfig, Resource: "Explain", Reason: "method " + method[1:] + " is not one", Advice: "write it as /package.Service/Method"}
	}
	options := []ReferOption{ProvidedBy(service), Version(strings.Join(md.Get(headerVersion), ",")), Group(strings.Join(md.Get(headerGroup), ","))}
	inv, temporary, err := m.referenceTo(iface, options)
	if err != nil {
		return nil, err
	}
	if temporary {
		defer inv.Close()
	}
	if err := inv.answered(ctx); err != nil {
		return nil, err
	}
	p, snap, err := m.consistent(inv)
	if err != nil {
		return nil, err
	}
	x := inv.explain(p, snap, method, md)
	x.Service, x.Temporary = service, temporary
	return x, nil
}

// referenceTo finds a reference that leads where the options say, best one to
// the same interface, version and group, or makes one.
func (m *Mesh) referenceTo(iface string, options []ReferOption) (inv *Invoker, temporary bool, err error) {
	var settings referSettings
	for _, o := range options {
		o.applyRefer(&settings)
	}
	wanted, err := m.target(iface, settings)
	if err != nil {
		return nil, false, err
	}
	best := 0
	for _, each := range m.referred() {
		if t := &each.target; slices.Equal(t.listeners, wanted.listeners) {
			if likeness := t.likeness(wanted); likeness > best {
				inv, best = each, likeness
			}
		}
	}
	if inv != nil {
		return inv, false, nil
	}
	inv, err = m.refer(wanted, true)
	return inv, true, err
}

// likeness orders targets with the same listeners; it is not 0.
func (t *target) likeness(o *target) int {
	n := 1
	if t.iface == o.iface {
		n += 4
	}
	if t.version == o.version && t.group == o.group {
		n += 2
	}
	return n
}

// answered waits until the mesh has answered for the reference, for as long as a
// call would: until ctx ends, or the answer is overdue.
func (inv *Invoker) answered(ctx context.Context) error {
	timer := time.NewTicker(repick)
	defer timer.Stop()
	for {
		p := inv.plan.Load()
		if p.problem != nil && errors.Is(p.problem, ErrClosed) {
			return p.problem
		}
		if !p.waiting || inv.overdue() {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-inv.closed:
			return inv.meshClosed()
		case <-p.superseded:
		case <-timer.C:
		}
	}
}

// consistent takes a plan and the snapshot that it was compiled from: on the
// ADS loop, between two updates.
func (m *Mesh) consistent(inv *Invoker) (p *plan, snap *snapshot, err error) {
	got := make(chan struct{})
	m.ads.do(func(*discovery, time.Time) {
		p, snap = inv.plan.Load(), m.snapshot.Load()
		close(got)
	})
	select {
	case <-got:
		return p, snap, nil
	case <-m.ads.done:
		return nil, nil, inv.meshClosed()
	}
}
