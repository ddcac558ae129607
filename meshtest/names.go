package meshtest

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const inboundPrefix = "xds.istio.io/grpc/lds/inbound/"

// node is what matters of a client's node message.
type node struct {
	namespace string
	domain    string   // <namespace>.svc.cluster.local
	lean      bool     // GENERATOR=grpc: what a proxyless client is given
	ips       []string // its own addresses
}

// newNode refuses what istiod refuses.
func newNode(q Request) (node, error) {
	if q.NodeID == "" {
		return node{}, status.Error(codes.InvalidArgument, "missing node information")
	}
	parts := strings.Split(q.NodeID, "~")
	if len(parts) != 4 {
		return node{}, status.Errorf(codes.InvalidArgument, "missing parts in the service node %q", q.NodeID)
	}
	n := node{domain: parts[3], lean: q.Metadata["GENERATOR"] == "grpc"}
	n.namespace, _ = q.Metadata["NAMESPACE"].(string)
	if n.namespace == "" {
		n.namespace, _, _ = strings.Cut(n.domain, ".")
	}
	list, _ := q.Metadata["INSTANCE_IPS"].(string)
	for _, ip := range append(strings.Split(list, ","), parts[1]) {
		if net.ParseIP(ip) != nil && !slices.Contains(n.ips, ip) {
			n.ips = append(n.ips, ip)
		}
	}
	return n, nil
}

// fqdn completes a host name that a Service is known by within the client's
// namespace. It is empty for every other name, that of a Service of another
// namespace included: istiod knows such a one by its full name only.
func (n node) fqdn(host string) string {
	if !strings.Contains(host, ".") {
		return host + "." + n.domain
	}
	for _, suffix := range []string{n.namespace, n.namespace + ".svc"} {
		short, ok := strings.CutSuffix(host, "."+suffix)
		if ok && strings.HasPrefix(n.domain, suffix) {
			return short + "." + n.domain
		}
	}
	return ""
}

// wanted is what is asked for of one host.
type wanted struct {
	names map[string]bool // as they were written
	ports map[string]bool // nil is all
}

// listenerFilter maps host names to what is wanted of them. As in istiod, names
// and ports that mean the same Service are combined with one another, so that a
// client may receive a listener that it did not ask for.
func listenerFilter(n node, asked []string) map[string]wanted {
	filter := make(map[string]wanted)
	for _, name := range asked {
		if strings.HasPrefix(name, inboundPrefix) {
			continue
		}
		host, port, err := net.SplitHostPort(name)
		if err != nil {
			host, port = name, ""
		}
		want(filter, host, host, port)
		if fqdn := n.fqdn(host); fqdn != "" && fqdn != host {
			want(filter, fqdn, host, port)
		}
	}
	return filter
}

func want(filter map[string]wanted, host, name, port string) {
	w, known := filter[host]
	if !known {
		w = wanted{names: make(map[string]bool), ports: make(map[string]bool)}
	}
	w.names[name] = true
	if port == "" {
		w.ports = nil
	} else if w.ports != nil {
		w.ports[port] = true
	}
	filter[host] = w
}

// leanListeners adds those that the names ask for, all outbound ones where there
// is no name.
func (w *world) leanListeners(n node, asked []string, found map[string][]byte) {
	for _, name := range asked {
		if addr, ok := strings.CutPrefix(name, inboundPrefix); ok {
			if in, known := w.inbound[addr]; known {
				found[name] = in.Listener(addr).Marshal()
			}
		}
	}
	filter := listenerFilter(n, asked)
	for fqdn, service := range w.services {
		match, ok := filter[fqdn]
		if len(asked) == 0 {
			match, ok = wanted{names: map[string]bool{fqdn: true}}, true
		}
		if !ok {
			continue
		}
		for host := range match.names {
			for _, p := range service.Ports {
				if match.ports != nil && !match.ports[strconv.Itoa(int(p.Number))] {
					continue
				}
				name := hostPort(host, p.Number)
				found[name] = service.Listener(name, p).Marshal()
			}
		}
	}
}

// inboundName is how a server asks for the listener of its own address.
func inboundName(addr string) string { return inboundPrefix + addr }

// leanName says that a listener is one of the lean view: host:port, or that of a
// server.
func leanName(name string) bool {
	_, port, err := net.SplitHostPort(name)
	_, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil
}
