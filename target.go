package proxyless

import (
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
)

// target is what one Invoker refers to. It is constant.
type target struct {
	iface, version, group string
	providedBy            string   // as the user wrote it
	listeners             []string // the names asked of the mesh; the first one that exists counts
	headers               metadata.MD
	node                  string        // this process's id, as istiod knows it
	timeout               time.Duration // of calls whose context has no deadline; 0 is none
	caller                caller
	prefers               preference
	tolerance             tolerance
}

// listenerNames are the names to ask for a host and a port, which is empty
// where the choice is left to the mesh. istiod completes a short name, and
// name.namespace for the workload's own namespace only (tried): names that may
// mean a Service of another namespace are asked for in full first, and as they
// are too, since they may also be hosts of a ServiceEntry.
func listenerNames(host, port, domain string) []string {
	names := []string{host}
	labels := strings.Split(host, ".")
	if len(labels) == 2 || len(labels) == 3 && labels[2] == "svc" {
		names = []string{labels[0] + "." + labels[1] + ".svc." + domain, host}
	}
	if port != "" {
		for i := range names {
			names[i] += ":" + port
		}
	}
	return names
}

// existing is the first of the listeners that exists, else the first of which
// that is not known yet.
func existing(snap *snapshot, names []string) string {
	for _, want := range []resourceStatus{statusAccepted, statusRejected, statusRequested} {
		for _, name := range names {
			if state := snap.get(kindListener, name); state != nil && state.status == want {
				return name
			}
		}
	}
	return names[0]
}

// policy is a route's policy as the reference wants it.
func (t *target) policy(mesh *routePolicy) *routePolicy {
	return t.tolerance.policy(t.prefers.policy(mesh))
}
