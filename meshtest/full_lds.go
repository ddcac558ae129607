package meshtest

import (
	"slices"
	"strconv"
	"time"
)

const (
	tcpProxyType     = typePrefix + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
	tlsInspector     = "tls_inspector"
	httpInspector    = "http_inspector"
	virtualOutbound  = "virtualOutbound"
	virtualInbound   = "virtualInbound"
	anywhere         = "0.0.0.0"
	outboundPort     = 15001
	inboundPort      = 15006
	directionIn      = 1
	directionOut     = 2
	handshakeTimeout = 15 * time.Second
)

var inspectorTypes = map[string]string{
	tlsInspector:  typePrefix + "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
	httpInspector: typePrefix + "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
}

// fullListener is a listener of a sidecar.
type fullListener struct {
	name      string
	address   string
	port      uint32
	chains    [][]byte
	fallback  []byte // default_filter_chain; nil for none
	inspector []string
	direction uint64
	captures  bool     // useOriginalDst: virtualOutbound
	filters   [][]byte // listener filters besides the inspectors
}

func (l fullListener) marshal() []byte {
	b := appendString(nil, 1, l.name)
	b = appendMessage(b, 2, address(l.address, l.port))
	for _, c := range l.chains {
		b = appendMessage(b, 3, c)
	}
	if l.captures {
		b = appendWrapped(b, 4, 1)
	}
	for _, f := range l.filters {
		b = appendMessage(b, 9, f)
	}
	for _, name := range l.inspector {
		b = appendMessage(b, 9, inspector(name))
	}
	if !l.captures {
		b = appendDuration(b, 15, 0)
		b = appendBool(b, 17, true)
	}
	b = appendVarint(b, 16, l.direction)
	if l.fallback != nil {
		b = appendMessage(b, 25, l.fallback)
	}
	if l.captures || l.direction == directionIn {
		return appendWrapped(b, 34, 1)
	}
	return appendWrapped(b, 26, 0) // bind_to_port
}

func inspector(name string) []byte {
	var config []byte
	if name == tlsInspector {
		config = appendWrapped(nil, 2, 512)
	}
	return appendAny(appendString(nil, 1, "envoy.filters.listener."+name), 3, inspectorTypes[name], config)
}

// chain is a FilterChain.
type chain struct {
	match   []byte // nil for none
	filters [][]byte
	socket  []byte
	name    string
	timed   bool // transport_socket_connect_timeout
}

func (c chain) marshal() []byte {
	var b []byte
	if c.match != nil {
		b = appendMessage(b, 1, c.match)
	}
	for _, f := range c.filters {
		b = appendMessage(b, 3, f)
	}
	if c.socket != nil {
		b = appendMessage(b, 6, c.socket)
	}
	b = appendString(b, 7, c.name)
	if c.timed {
		b = appendDuration(b, 9, handshakeTimeout)
	}
	return b
}

// chainMatch is a FilterChainMatch; 0 and empty leave out.
func chainMatch(port uint32, transport string, protocols ...string) []byte {
	b := appendLimit([]byte{}, 8, port, 0)
	b = appendString(b, 9, transport)
	return appendStrings(b, 10, protocols)
}

// tcpProxy is the network filter that forwards bytes to a cluster.
func tcpProxy(cluster string, pool *ConnectionPool) []byte {
	b := appendString(appendString(nil, 1, cluster), 2, cluster)
	if pool != nil {
		b = appendGiven(b, 8, pool.TCPIdleTimeout)
		b = appendGiven(b, 13, pool.MaxConnectionDuration)
	}
	return appendAny(appendString(nil, 1, "envoy.filters.network.tcp_proxy"), 4, tcpProxyType, b)
}

// fallbackChain lets through, or stops, what is no call to a Service.
func (e Egress) fallbackChain() []byte {
	return chain{
		match: []byte{}, filters: [][]byte{tcpProxy(e.cluster(), nil)}, name: "PassthroughFilterChain",
	}.marshal()
}

func (e Egress) cluster() string {
	if e == RegistryOnly {
		return blackHoleName
	}
	return passthroughName
}

// fullListeners are the listeners of a sidecar.
func (w *world) fullListeners(n node, found map[string][]byte) {
	for _, fqdn := range w.inOrder() {
		s := w.services[fqdn]
		for _, p := range s.Ports {
			w.addListeners(n, s, p, found)
		}
	}
	out := fullListener{name: virtualOutbound, address: anywhere, port: outboundPort, captures: true, direction: directionOut}
	out.chains = [][]byte{
		chain{match: chainMatch(outboundPort, ""), filters: [][]byte{tcpProxy(blackHoleName, nil)}, name: "virtualOutbound-blackhole"}.marshal(),
		chain{filters: [][]byte{tcpProxy(w.egress.cluster(), nil)}, name: "virtualOutbound-catchall-tcp"}.marshal(),
	}
	found[virtualOutbound] = out.marshal()
	found[virtualInbound] = w.inboundListener(n)
}

// addListeners adds those of one port that are not there yet.
func (w *world) addListeners(n node, s Service, p Port, found map[string][]byte) {
	proto := p.protocol()
	switch {
	case proto == udp:
	case proto == http1 || proto == http2:
		w.addHTTP(n, anywhere, p.Number, strconv.Itoa(int(p.Number)), w.egress.fallbackChain(), found)
	case proto == tlsProtocol && s.external():
		w.addTLS(s, p, found)
	default:
		for _, bind := range s.binds(n) {
			if proto == sniffed {
				w.addSniffed(n, s, p, bind, found)
				continue
			}
			l := fullListener{name: listenerName(bind, p.Number), address: bind, port: p.Number, direction: directionOut}
			l.chains = [][]byte{s.tcpChain(p, nil)}
			add(found, l)
		}
	}
}

// binds are the addresses on which a service is called: its own, or, where it is
// headless, those of its pods.
func (s Service) binds(n node) []string {
	switch {
	case s.Address != "":
		return []string{s.Address}
	case s.external():
		return []string{anywhere}
	}
	var pods []string
	for _, e := range s.Endpoints {
		if !slices.Contains(n.ips, e.Address) && !slices.Contains(pods, e.Address) {
			pods = append(pods, e.Address)
		}
	}
	return pods
}

func (s Service) tcpChain(p Port, match []byte) []byte {
	name := ClusterName(s.FQDN(), p.Number)
	return chain{match: match, filters: [][]byte{tcpProxy(name, s.policy(Subset{}).Connections)}, timed: true}.marshal()
}

// addSniffed adds a listener of its own, whose route configuration has the one
// virtual host.
func (w *world) addSniffed(n node, s Service, p Port, bind string, found map[string][]byte) {
	if bind == anywhere {
		w.addHTTP(n, bind, p.Number, strconv.Itoa(int(p.Number)), w.egress.fallbackChain(), found)
		return
	}
	w.addHTTP(n, bind, p.Number, hostPort(s.FQDN(), p.Number), s.tcpChain(p, nil), found)
}

func (w *world) addHTTP(n node, bind string, port uint32, routes string, fallback []byte, found map[string][]byte) {
	name := listenerName(bind, port)
	if _, known := found[name]; known {
		return
	}
	filters := outboundFilters(w.sessions(port))
	manager := manager{stat: "outbound_" + name, routes: routes, filters: filters, namespace: n.namespace}
	l := fullListener{name: name, address: bind, port: port, fallback: fallback, direction: directionOut, inspector: []string{httpInspector}}
	l.chains = [][]byte{chain{
		match: chainMatch(0, "raw_buffer", "http/1.1", "h2c"), filters: [][]byte{manager.marshal()}, timed: true,
	}.marshal()}
	add(found, l)
}

// addTLS adds the chain of an external host, which is told apart by the name
// that a client hello has.
func (w *world) addTLS(s Service, p Port, found map[string][]byte) {
	l := fullListener{
		name: listenerName(anywhere, p.Number), address: anywhere, port: p.Number,
		fallback: w.egress.fallbackChain(), direction: directionOut, inspector: []string{tlsInspector},
	}
	for _, fqdn := range w.inOrder() {
		other := w.services[fqdn]
		if q, ok := other.port(p.Number); ok && other.external() && q.protocol() == tlsProtocol {
			l.chains = append(l.chains, other.tcpChain(q, appendMember([]byte{}, 11, other.Host)))
		}
	}
	add(found, l)
}

func add(found map[string][]byte, l fullListener) {
	if _, known := found[l.name]; !known {
		found[l.name] = l.marshal()
	}
}

// sessions says that a Service of the port asks for session affinity.
func (w *world) sessions(port uint32) bool {
	for _, s := range w.services {
		if _, ok := s.port(port); ok && s.Session != nil {
			return true
		}
	}
	return false
}

func listenerName(bind string, port uint32) string {
	return bind + "_" + strconv.FormatUint(uint64(port), 10)
}

// manager is the HttpConnectionManager of a sidecar.
type manager struct {
	stat      string
	routes    string // the name of the route configuration
	inline    []byte // or the message
	filters   []HTTPFilter
	namespace string
	inbound   bool
	http2     bool
}

func (m manager) marshal() []byte {
	b := appendString(nil, 2, m.stat+";")
	if m.routes != "" {
		b = appendMessage(b, 3, appendString(appendMessage(nil, 1, sidecarSource()), 2, m.routes))
	} else {
		b = appendMessage(b, 4, m.inline)
	}
	b = appendFilters(b, m.filters)
	b = appendMessage(b, 7, tracing(m.namespace))
	if m.http2 {
		b = appendMessage(b, 9, nil)
	}
	if m.inbound {
		b = appendString(b, 10, "istio-envoy")
		b = appendVarint(b, 16, 2) // APPEND_FORWARD
		details := appendWrapped(nil, 1, 1)
		b = appendMessage(b, 17, appendBool(appendBool(details, 4, true), 5, true))
	}
	b = appendWrapped(b, 14, 0)
	b = appendBool(b, 18, true)
	b = appendMessage(b, 23, appendString(nil, 1, "websocket"))
	b = appendDuration(b, 24, 0)
	b = appendWrapped(b, 30, 1)
	id := appendWrapped(nil, 2, 1)
	b = appendMessage(b, 36, appendAny(nil, 1, typePrefix+"envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", id))
	b = appendVarint(b, 45, 1)
	return appendAny(appendString(nil, 1, "envoy.filters.network.http_connection_manager"), 4, hcmType, b)
}

// tracing is what istiod says of traces, the names of the policies of a dry run
// included. Nothing of it reaches a proxyless client, but it is a good part of
// every listener.
func tracing(namespace string) []byte {
	b := appendPercent(nil, 3, 100)
	b = appendPercent(b, 4, 1)
	b = appendPercent(b, 5, 100)
	for _, kind := range []string{"allow", "deny"} {
		b = appendTag(b, kind, "policy.name", "effective_policy_id")
		b = appendTag(b, kind, "policy.result", "engine_result")
	}
	for _, pair := range [...][2]string{
		{"istio.canonical_revision", "latest"}, {"istio.canonical_service", "unknown"},
		{"istio.cluster_id", "Kubernetes"}, {"istio.mesh_id", "unknown"}, {"istio.namespace", namespace},
	} {
		b = appendMessage(b, 8, appendMessage(appendString(nil, 1, pair[0]), 2, appendString(nil, 1, pair[1])))
	}
	return b
}

func appendTag(b []byte, kind, what, key string) []byte {
	path := appendMessage(nil, 2, appendString(nil, 1, "istio_dry_run_"+kind+"_shadow_"+key))
	source := appendMessage(nil, 1, appendMessage(nil, 1, nil))
	source = appendMessage(source, 2, append(appendString(nil, 1, "envoy.filters.http.rbac"), path...))
	return appendMessage(b, 8, appendMessage(appendString(nil, 1, "istio.authorization.dry_run."+kind+"_"+what), 5, source))
}

// outboundFilters are the HTTP filters of a sidecar's calls.
func outboundFilters(sessions bool) []HTTPFilter {
	filters := []HTTPFilter{
		peerMetadata("upstream_discovery", "upstream_propagation"), statsFilter(), alpnFilter(),
		FaultFilter(), corsFilter(),
	}
	if sessions {
		filters = append(filters, HTTPFilter{Name: sessionName, TypeURL: sessionType})
	}
	return append(filters, RouterFilter())
}

// peerMetadata is a filter of Istio's that tells proxies of each other.
func peerMetadata(discovery, propagation string) HTTPFilter {
	method := func(name string) []byte {
		return appendMessage(nil, 1, appendMessage(nil, 5, appendField(nil, name, appendMessage(nil, 5, nil))))
	}
	headers := method("istio_headers")
	config := appendField(nil, discovery, appendMessage(nil, 6, append(slices.Clone(headers), method("workload_discovery")...)))
	config = appendField(config, propagation, appendMessage(nil, 6, headers))
	b := appendString(nil, 1, typePrefix+"io.istio.http.peer_metadata.Config")
	return HTTPFilter{Name: "istio.metadata_exchange", TypeURL: structType, Config: appendMessage(b, 2, config)}
}

func statsFilter() HTTPFilter {
	return HTTPFilter{
		Name: "envoy.filters.http.grpc_stats", TypeURL: typePrefix + "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
		Config: appendWrapped(appendBool(nil, 1, true), 3, 0),
	}
}

func corsFilter() HTTPFilter {
	return HTTPFilter{Name: "envoy.filters.http.cors", TypeURL: typePrefix + "envoy.extensions.filters.http.cors.v3.Cors"}
}

// alpnFilter is a filter of Istio's, which no registry of go-control-plane knows.
func alpnFilter() HTTPFilter {
	var b []byte
	for i, name := range []string{"http/1.0", "http/1.1", "h2"} {
		b = appendMessage(b, 1, appendStrings(appendVarint(nil, 1, uint64(i)), 2, []string{"istio-" + name, "istio", name}))
	}
	return HTTPFilter{Name: "istio.alpn", TypeURL: typePrefix + "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", Config: b}
}
