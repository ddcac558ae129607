package meshtest

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Egress says what a sidecar does with calls to what is no Service.
type Egress uint8

// The modes of outboundTrafficPolicy.
const (
	AllowAny Egress = iota
	RegistryOnly
)

// Inbound is the policy of a server. Its zero value is plain text without
// authorization, as under a PeerAuthentication of mode DISABLE.
type Inbound struct {
	TLS bool // mutual TLS, as under a STRICT PeerAuthentication
	// Permissive is both, which the lean view does not know: a server without the
	// label that has its callers use TLS is given plain text there.
	Permissive bool
	// Filters are HTTP filters of any kind; see JWTFilter and RBACFilter. They come after those
	// of CUSTOM policies and before those of all others, as istiod puts JWT.
	Filters  []HTTPFilter
	Policies []AuthorizationPolicy
}

// httpFilters are those that judge calls.
func (in Inbound) httpFilters(lean bool) []HTTPFilter {
	var custom, others []AuthorizationPolicy
	for _, p := range in.Policies {
		if p.Action == AccessCustom {
			custom = append(custom, p)
		} else {
			others = append(others, p)
		}
	}
	filters := append(httpFilters(custom, lean), in.Filters...)
	return append(filters, httpFilters(others, lean)...)
}

// Listener is the inbound listener that the lean view has for the server at addr,
// an ip:port.
func (in Inbound) Listener(addr string) Listener {
	chain := FilterChain{Name: "inbound-plaintext", TLS: in.TLS}
	if in.TLS {
		chain.Name = "inbound-mtls"
	}
	chain.Filters = append(in.httpFilters(true), RouterFilter())
	return Listener{Name: inboundName(addr), Address: addr, Inbound: []FilterChain{chain}}
}

// served is a port on which a node's workload serves.
type served struct {
	number  uint32
	service Service // without a name where no Service selects the node
	port    Port
	policy  Inbound
}

// serves lists the ports of a node: those of the Services that have it among
// their endpoints, and those that SetInbound was told of.
func (w *world) serves(n node) []served {
	ports := make(map[uint32]served)
	otherwise := w.inboundPolicy(n)
	for _, fqdn := range w.inOrder() {
		s := w.services[fqdn]
		for _, e := range s.Endpoints {
			if s.external() || !slices.Contains(n.ips, e.Address) || e.Health == Unhealthy {
				continue
			}
			for _, p := range s.Ports {
				number := cmp.Or(e.Port, p.Target, p.Number)
				if _, known := ports[number]; !known {
					ports[number] = served{number, s, p, otherwise}
				}
			}
		}
	}
	for addr, policy := range w.inbound {
		number, ok := n.binds(addr)
		if !ok || number == 0 {
			continue
		}
		at, known := ports[number]
		if !known {
			at = served{number: number, port: Port{Name: "grpc", Number: number}}
		}
		at.policy = policy
		ports[number] = at
	}
	list := make([]served, 0, len(ports))
	for _, at := range ports {
		list = append(list, at)
	}
	slices.SortFunc(list, func(a, b served) int { return cmp.Compare(a.number, b.number) })
	return list
}

// inboundPolicy is that of the ports of a node which have none of their own.
func (w *world) inboundPolicy(n node) Inbound {
	for addr, policy := range w.inbound {
		if number, ok := n.binds(addr); ok && number == 0 {
			return policy
		}
	}
	return Inbound{Permissive: true}
}

// binds says that an ip:port is one of the node's, and gives the port.
func (n node) binds(addr string) (port uint32, ok bool) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, false
	}
	number, err := strconv.ParseUint(text, 10, 16)
	ip := net.ParseIP(host)
	return uint32(number), err == nil && ip != nil && (ip.IsUnspecified() || slices.Contains(n.ips, host))
}

// The application protocols by which sidecars know each other.
var (
	istioHTTP = []string{"istio-http/1.0", "istio-http/1.1", "istio-h2"}
	istioTCP  = []string{"istio-peer-exchange", "istio"}
	istioAny  = append([]string{"istio", "istio-peer-exchange"}, istioHTTP...)
	plainHTTP = []string{"http/1.1", "h2c"}
	httpALPN  = []string{"h2", "http/1.1"}
	tcpALPN   = []string{"istio-peer-exchange", "h2", "http/1.1"}
)

const (
	overTLS = "tls"
	inClear = "raw_buffer"
)

// inboundListener is virtualInbound of a node.
func (w *world) inboundListener(n node) []byte {
	l := fullListener{
		name: virtualInbound, address: anywhere, port: inboundPort, direction: directionIn,
		filters: [][]byte{appendAny(appendString(nil, 1, "envoy.filters.listener.original_dst"), 3,
			typePrefix+"envoy.extensions.filters.listener.original_dst.v3.OriginalDst", nil)},
	}
	l.chains = append(l.chains, chain{
		match: chainMatch(inboundPort, ""), filters: inboundTCP(blackHoleName), name: "virtualInbound-blackhole",
	}.marshal())
	l.chains = append(l.chains, inboundChains{
		policy: w.inboundPolicy(n), protocol: sniffed, cluster: inboundPassthroughName,
		http: "virtualInbound-catchall-http", tcp: virtualInbound, namespace: n.namespace,
	}.list()...)
	ports := w.serves(n)
	for _, at := range ports {
		name := listenerName(anywhere, at.number)
		l.chains = append(l.chains, inboundChains{
			policy: at.policy, protocol: at.port.protocol(), port: at.number, service: at,
			cluster: inboundClusterName(at.number), http: name, tcp: name, namespace: n.namespace,
		}.list()...)
	}
	if policy := w.inboundPolicy(n); policy.TLS || policy.Permissive || slices.ContainsFunc(ports, served.encrypted) {
		l.filters = append(l.filters, disabledAt(tlsInspector, nil))
	}
	if !w.inboundPolicy(n).TLS || slices.ContainsFunc(ports, served.sniffed) {
		l.filters = append(l.filters, disabledAt(httpInspector, ports))
	}
	return l.marshal()
}

// encrypted says that TLS may come to the port.
func (at served) encrypted() bool { return at.policy.TLS || at.policy.Permissive }

// sniffed says that plain text may come whose protocol has to be found out.
func (at served) sniffed() bool { return at.port.protocol() == sniffed && !at.policy.TLS }

// disabledAt is an inspector that does not look at the port of virtualInbound
// itself, nor, where ports are given, at those whose protocol is known.
func disabledAt(name string, ports []served) []byte {
	numbers := []uint32{inboundPort}
	for _, at := range ports {
		if at.port.protocol() != sniffed {
			numbers = append(numbers, at.number)
		}
	}
	slices.Sort(numbers)
	var rules []byte
	for _, number := range numbers {
		span := appendVarint(appendVarint(nil, 1, uint64(number)), 2, uint64(number)+1)
		rules = appendMessage(rules, 1, appendMessage(nil, 5, span))
	}
	if len(numbers) > 1 {
		return appendMessage(inspector(name), 4, appendMessage(nil, 1, rules))
	}
	span := appendVarint(appendVarint(nil, 1, inboundPort), 2, inboundPort+1)
	return appendMessage(inspector(name), 4, appendMessage(nil, 5, span))
}

// inboundChains are the filter chains for one port, or for all others.
type inboundChains struct {
	policy    Inbound
	protocol  protocol
	port      uint32 // 0 for all others
	service   served // of a port
	cluster   string
	http, tcp string // names
	namespace string
}

func (c inboundChains) list() [][]byte {
	both, secured := c.policy.Permissive, c.policy.TLS
	var list [][]byte
	put := func(http, encrypted bool, transport string, protocols ...string) {
		list = append(list, c.chain(http, encrypted, chainMatch(c.port, transport, protocols...)))
	}
	switch {
	case c.protocol == sniffed:
		if both || secured {
			put(true, true, overTLS, istioHTTP...)
		}
		if !secured {
			put(true, false, inClear, plainHTTP...)
		}
		switch {
		case secured:
			put(false, true, overTLS)
		case both:
			put(false, true, overTLS, istioTCP...)
			put(false, false, inClear)
			put(false, false, overTLS)
		default:
			put(false, false, inClear)
		}
	case secured:
		put(c.protocol.http(), true, overTLS)
	case both:
		put(c.protocol.http(), true, overTLS, istioAny...)
		if !c.protocol.http() {
			put(false, false, overTLS)
		}
		put(c.protocol.http(), false, inClear)
	default:
		put(c.protocol.http(), false, inClear)
	}
	return list
}

func (c inboundChains) chain(http, encrypted bool, match []byte) []byte {
	out := chain{match: match, name: c.tcp, filters: inboundTCP(c.cluster, networkFilters(c.policy.Policies)...)}
	alpn := tcpALPN
	if http {
		out.name, alpn = c.http, httpALPN
		out.filters = [][]byte{metadataExchange(4), c.manager()}
	}
	if encrypted {
		out.socket = appendAny(appendString(nil, 1, tlsSocketName), 3, downstreamType, inboundTLS(alpn...))
	}
	return out.marshal()
}

func inboundTCP(cluster string, access ...[]byte) [][]byte {
	return append(append([][]byte{metadataExchange(4)}, access...), tcpProxy(cluster, nil))
}

func (c inboundChains) manager() []byte {
	r := Route{Name: "default", Prefix: "/", Clusters: []WeightedCluster{{Name: c.cluster}}}
	number, host := c.service.port.Number, ""
	if c.port == 0 {
		r.Retry = &RetryPolicy{On: "reset-before-request", Retries: 2}
	} else {
		host = c.service.service.nameOr("inbound")
	}
	r.Decorator = host + ":" + strconv.Itoa(int(number)) + "/*"
	limits := appendDuration(appendDuration(nil, 1, 0), 2, 0)
	route := appendMessage(nil, 1, appendMember(nil, 1, "/"))
	action := appendDuration(r.target(), 8, 0)
	if r.Retry != nil {
		action = appendMessage(action, 9, r.Retry.marshal())
	}
	route = appendMessage(route, 2, appendMessage(action, 36, limits))
	route = appendMessage(route, 5, appendString(nil, 1, r.Decorator))
	route = appendString(route, 14, r.Name)
	h := appendString(nil, 1, "inbound|http|"+strconv.Itoa(int(number)))
	h = appendMessage(appendMember(h, 2, "*"), 3, route)
	config := appendMessage(appendString(nil, 1, c.cluster), 2, h)
	stat := c.cluster
	if c.port != 0 {
		stat = "inbound_" + listenerName(anywhere, c.port)
	}
	return manager{
		stat: stat, inline: appendWrapped(config, 7, 0), namespace: c.namespace,
		inbound: true, http2: c.protocol == http2, filters: inboundFilters(c.policy.httpFilters(false)),
	}.marshal()
}

// inboundFilters puts the filters of a policy where istiod has them. Those of
// RBAC have one name there, whatever they do.
func inboundFilters(policy []HTTPFilter) []HTTPFilter {
	filters := []HTTPFilter{peerMetadata("downstream_discovery", "downstream_propagation")}
	for _, f := range policy {
		f.Name = strings.TrimSuffix(f.Name, ".DENY")
		filters = append(filters, f)
	}
	return append(filters, statsFilter(), FaultFilter(), corsFilter(), RouterFilter())
}

func (s Service) nameOr(otherwise string) string {
	if s.Name == "" {
		return otherwise
	}
	return s.FQDN()
}

// inboundClusters are those of the ports on which a node serves.
func (w *world) inboundClusters(n node) (list []named) {
	for _, at := range w.serves(n) {
		if at.service.Name != "" {
			list = append(list, at.service.inboundCluster(at.port, at.number))
		}
	}
	return list
}
