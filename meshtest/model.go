package meshtest

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

const defaultDomain = "cluster.local"

// Service is what a Kubernetes Service and its endpoints are to istiod, together
// with what a VirtualService and a DestinationRule say of it; with Host it is a
// ServiceEntry.
type Service struct {
	Name      string
	Namespace string
	Domain    string // empty is cluster.local
	Address   string // the cluster IP; empty makes the service headless
	Ports     []Port
	Endpoints []Endpoint
	// Routes are those that a VirtualService adds; they come before the default
	// route of every port.
	Routes []Route
	// RoutesOnly leaves the default route out, as a VirtualService does: calls that
	// no route matches fail.
	RoutesOnly bool

	// Traffic is what a DestinationRule says of all calls, Subsets are its
	// subsets. Without Subsets the lean view answers for any subset.
	Traffic *TrafficPolicy
	Subsets []Subset
	// SANs are the identities of the servers, spiffe://... each.
	SANs []string
	// Session asks for session affinity.
	Session *Session
	// Aliases are further full names of the service, as an ExternalName has it.
	Aliases []string

	// Host makes this an external service of that full name, which may be
	// *.something; Name serves to refer to it. Its endpoints have no health.
	Host       string
	Resolution Resolution
}

// Port is a port of a Service. One whose name is tcp or starts with "tcp-" has
// a listener, and a route configuration without a virtual host. In the full view
// the name's part before the first hyphen counts, as in Istio: grpc and http2,
// http, tcp, tls and https; a connection to any other is looked into.
type Port struct {
	Name   string
	Number uint32
	Target uint32 // where the endpoints listen; 0 is Number
}

// Endpoint is a place where a Service is provided, at every port of it.
type Endpoint struct {
	Address               string
	Port                  uint32 // 0 is the target of the service port
	Weight                uint32 // 0 is 1
	Health                Health // Unknown is sent as Healthy, as istiod does
	Region, Zone, SubZone string
	Priority              uint32
	TLSMode               string            // "istio" where the workload's label says so
	Hostname              string            // of the endpoint; empty leaves it out
	Labels                map[string]string // what a Subset selects by
	Workload              string            // empty is name;namespace;name;latest;Kubernetes of the Service
}

// FQDN is the full name of the service.
func (s Service) FQDN() string {
	if s.Host != "" {
		return s.Host
	}
	domain := s.Domain
	if domain == "" {
		domain = defaultDomain
	}
	return s.Name + "." + s.Namespace + ".svc." + domain
}

// external says that the service is none of Kubernetes.
func (s Service) external() bool { return s.Host != "" }

// headless says that a sidecar calls the pods by their own addresses.
func (s Service) headless() bool { return !s.external() && s.Address == "" }

// passesThrough says that a sidecar calls the address that was meant.
func (s Service) passesThrough() bool {
	return s.headless() || s.external() && (s.Resolution == ResolveNone || strings.HasPrefix(s.Host, "*"))
}

// policy is what holds for calls to a subset, to the Service itself where that
// has no name.
func (s Service) policy(sub Subset) TrafficPolicy {
	var policy TrafficPolicy
	if s.Traffic != nil {
		policy = *s.Traffic
	}
	if sub.Traffic != nil {
		policy = sub.Traffic.over(policy)
	}
	return policy
}

// subset finds one by its name.
func (s Service) subset(name string) (Subset, bool) {
	i := slices.IndexFunc(s.Subsets, func(sub Subset) bool { return sub.Name == name })
	if i < 0 {
		return Subset{Name: name}, false
	}
	return s.Subsets[i], true
}

// has says that an endpoint belongs to a subset.
func (sub Subset) has(e Endpoint) bool {
	for key, value := range sub.Labels {
		if e.Labels[key] != value {
			return false
		}
	}
	return true
}

// ClusterName is how istiod names the route configuration, the cluster and the
// assignment of a port of a host: outbound|port||host.
func ClusterName(fqdn string, port uint32) string {
	return subsetName(fqdn, port, "")
}

func subsetName(fqdn string, port uint32, subset string) string {
	return "outbound|" + strconv.FormatUint(uint64(port), 10) + "|" + subset + "|" + fqdn
}

// parseClusterName splits outbound|port|subset|fqdn.
func parseClusterName(name string) (port uint32, subset, fqdn string, ok bool) {
	parts := strings.Split(name, "|")
	if len(parts) != 4 || parts[0] != "outbound" || parts[3] == "" {
		return 0, "", "", false
	}
	n, err := strconv.ParseUint(parts[1], 10, 16)
	if err != nil || n == 0 {
		return 0, "", "", false
	}
	return uint32(n), parts[2], parts[3], true
}

func (s Service) clone() Service {
	s.Ports = slices.Clone(s.Ports)
	s.Endpoints = slices.Clone(s.Endpoints)
	s.Routes = slices.Clone(s.Routes)
	s.Subsets = slices.Clone(s.Subsets)
	return s
}

func (s Service) port(number uint32) (Port, bool) {
	for _, p := range s.Ports {
		if p.Number == number {
			return p, true
		}
	}
	return Port{}, false
}

func (p Port) carriesHTTP() bool {
	return p.Name != "tcp" && !strings.HasPrefix(p.Name, "tcp-")
}

// Listener is the API listener of one port as istiod sends it, under the name
// that was asked for.
func (s Service) Listener(name string, port Port) Listener {
	host := s.Address
	if host == "" {
		host = "0.0.0.0"
	}
	l := Listener{
		Name:    name,
		Address: hostPort(host, port.Number),
		Route:   ClusterName(s.FQDN(), port.Number),
	}
	if s.Session != nil {
		l.Filters = []HTTPFilter{s.Session.filter(), FaultFilter(), RouterFilter()}
	}
	return l
}

// RouteConfiguration is that of one port as istiod sends it to a client in the
// given namespace.
func (s Service) RouteConfiguration(port Port, namespace string) RouteConfiguration {
	name := ClusterName(s.FQDN(), port.Number)
	config := RouteConfiguration{Name: name}
	if port.carriesHTTP() {
		host := hostPort(s.FQDN(), port.Number)
		fallback := Route{
			Name: "default", Prefix: "/", Retry: DefaultRetry(),
			Clusters:  []WeightedCluster{{Name: name}},
			Decorator: host + "/*",
		}
		routes := slices.Clone(s.Routes)
		if !s.RoutesOnly {
			routes = append(routes, fallback)
		}
		config.VirtualHosts = []VirtualHost{{
			Name:         host,
			Domains:      s.domains(port.Number, namespace),
			Routes:       s.hashed(routes),
			AttemptCount: true,
		}}
	}
	return config
}

// domains lists the hosts that a node in the given namespace may mean by the
// service, with and without the port.
func (s Service) domains(port uint32, namespace string) []string {
	hosts := s.hosts(namespace)
	domains := make([]string, 0, 2*len(hosts))
	for _, h := range hosts {
		withPort := hostPort(h, port) // brackets an IPv6 address
		domains = append(domains, withPort[:strings.LastIndexByte(withPort, ':')], withPort)
	}
	return domains
}

// hosts are the names by which a node in the given namespace may call the
// service: its name alone only from the same namespace. Those of a headless
// service stand for its pods too.
func (s Service) hosts(namespace string) []string {
	fqdn := s.FQDN()
	hosts := append([]string{fqdn, fqdn + "."}, s.shortNames(fqdn, namespace)...)
	for _, alias := range s.Aliases {
		hosts = append(hosts, alias, alias+".")
		hosts = append(hosts, s.shortNames(alias, namespace)...)
	}
	if s.headless() {
		for _, h := range slices.Clone(hosts) {
			hosts = append(hosts, "*."+h)
		}
	}
	if s.Address != "" {
		hosts = append(hosts, s.Address)
	}
	return hosts
}

// shortNames are the parts of name.namespace.svc.domain that a node may use;
// none for a name of another form.
func (s Service) shortNames(full, namespace string) []string {
	local, _, ok := strings.Cut(full, ".svc.")
	name, home, _ := strings.Cut(local, ".")
	switch {
	case !ok || home == "":
		return nil
	case home == namespace:
		return []string{name, local + ".svc", local}
	default:
		return []string{local, local + ".svc"}
	}
}

// Cluster is that of one port as istiod sends it to a proxyless client.
func (s Service) Cluster(port Port) Cluster { return s.leanCluster(port, Subset{}) }

func (s Service) leanCluster(port Port, sub Subset) Cluster {
	policy := s.policy(sub)
	c := Cluster{Name: subsetName(s.FQDN(), port.Number, sub.Name)}
	if l := policy.LoadBalancer; l != nil {
		switch l.Policy {
		case LeastRequest:
			c.Policy = LeastRequest
		case RingHash, Maglev:
			lb := l.settled()
			c.Balancer = &LoadBalancer{Policy: lb.Policy, RingSize: lb.RingSize, TableSize: lb.TableSize}
		}
	}
	if p := policy.Connections; p != nil {
		c.MaxRequests = p.MaxRequests
	}
	if t := policy.TLS; t != nil && t.Mode == TLSIstioMutual {
		c.TLS, c.SANs = true, s.SANs
	}
	if s.Session != nil {
		c.Health = []Health{Healthy, Draining, Unknown, Degraded}
	}
	return c
}

// Assignment is that of one port as istiod sends it: one entry for each locality
// and priority, in order, whose weight is the sum of its endpoints.
func (s Service) Assignment(port Port) ClusterLoadAssignment { return s.assignment(port, Subset{}) }

func (s Service) assignment(port Port, sub Subset) ClusterLoadAssignment {
	a := ClusterLoadAssignment{Cluster: subsetName(s.FQDN(), port.Number, sub.Name)}
	policy := s.policy(sub)
	sorted := make([]Endpoint, 0, len(s.Endpoints))
	for _, e := range s.Endpoints {
		if sub.has(e) && s.sends(e, policy) {
			sorted = append(sorted, e)
		}
	}
	slices.SortStableFunc(sorted, compareLocality)
	for i, e := range sorted {
		if i == 0 || compareLocality(sorted[i-1], e) != 0 {
			a.Localities = append(a.Localities, Locality{
				Region: e.Region, Zone: e.Zone, SubZone: e.SubZone, Priority: e.Priority,
			})
		}
		l := &a.Localities[len(a.Localities)-1]
		endpoint := s.lbEndpoint(e, port)
		if policy.TLS != nil && policy.TLS.Mode == TLSDisable {
			endpoint.TLSMode = ""
		}
		l.Weight += endpoint.Weight
		l.Endpoints = append(l.Endpoints, endpoint)
	}
	if policy.LoadBalancer != nil {
		policy.LoadBalancer.weigh(a.Localities)
	}
	return a
}

// sends says that istiod tells of an endpoint at all: of a sick one it does
// unless the healthy ones have to do.
func (s Service) sends(e Endpoint, policy TrafficPolicy) bool {
	return e.Health != Unhealthy || policy.Outliers == nil || policy.Outliers.MinHealthPercent == 0
}

// weigh gives localities the weights that a DestinationRule distributes.
func (l LoadBalancer) weigh(localities []Locality) {
	for i := range localities {
		at := &localities[i]
		for _, parts := range [][]string{{at.Region, at.Zone, at.SubZone}, {at.Region, at.Zone}, {at.Region}} {
			if weight, ok := l.LocalityWeights[strings.Join(parts, "/")]; ok {
				at.Weight = weight
				break
			}
		}
	}
}

func (s Service) lbEndpoint(e Endpoint, port Port) LbEndpoint {
	health := cmp.Or(e.Health, Healthy)
	if s.external() {
		health = e.Health
	}
	return LbEndpoint{
		Address:  e.Address,
		Port:     cmp.Or(e.Port, port.Target, port.Number),
		Weight:   cmp.Or(e.Weight, 1),
		Health:   health,
		TLSMode:  e.TLSMode,
		Hostname: e.Hostname,
		Workload: cmp.Or(e.Workload, fmt.Sprintf("%s;%s;%s;latest;Kubernetes", s.Name, s.Namespace, s.Name)),
	}
}

func compareLocality(a, b Endpoint) int {
	return cmp.Or(
		cmp.Compare(a.Priority, b.Priority),
		cmp.Compare(a.Region, b.Region),
		cmp.Compare(a.Zone, b.Zone),
		cmp.Compare(a.SubZone, b.SubZone),
	)
}

func hostPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}
