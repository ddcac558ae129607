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

// Service is what a Kubernetes Service and its endpoints are to istiod.
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
}

// Port is a port of a Service. One whose name is tcp or starts with "tcp-" has
// a listener, and a route configuration without a virtual host.
type Port struct {
	Name   string
	Number uint32
}

// Endpoint is a place where a Service is provided, at every port of it.
type Endpoint struct {
	Address               string
	Port                  uint32 // 0 is the number of the service port
	Weight                uint32 // 0 is 1
	Health                Health // Unknown is sent as Healthy, as istiod does
	Region, Zone, SubZone string
	Priority              uint32
	TLSMode               string // "istio" where the workload's label says so
}

// FQDN is the full name of the service.
func (s Service) FQDN() string {
	domain := s.Domain
	if domain == "" {
		domain = defaultDomain
	}
	return s.Name + "." + s.Namespace + ".svc." + domain
}

// ClusterName is how istiod names the route configuration, the cluster and the
// assignment of a port of a host: outbound|port||host.
func ClusterName(fqdn string, port uint32) string {
	return "outbound|" + strconv.FormatUint(uint64(port), 10) + "||" + fqdn
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
	return Listener{
		Name:    name,
		Address: hostPort(host, port.Number),
		Route:   ClusterName(s.FQDN(), port.Number),
	}
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
		config.VirtualHosts = []VirtualHost{{
			Name:         host,
			Domains:      s.domains(port.Number, namespace),
			Routes:       append(slices.Clone(s.Routes), fallback),
			AttemptCount: true,
		}}
	}
	return config
}

// domains lists the hosts that a node in the given namespace may mean by the
// service: its name alone only from the same namespace. Those of a headless
// service stand for its pods too.
func (s Service) domains(port uint32, namespace string) []string {
	fqdn := s.FQDN()
	local := s.Name + "." + s.Namespace
	hosts := []string{fqdn, fqdn + "."}
	if s.Namespace == namespace {
		hosts = append(hosts, s.Name, local+".svc", local)
	} else {
		hosts = append(hosts, local, local+".svc")
	}
	if s.Address != "" {
		hosts = append(hosts, s.Address)
	} else {
		for _, h := range slices.Clone(hosts) {
			hosts = append(hosts, "*."+h)
		}
	}
	domains := make([]string, 0, 2*len(hosts))
	for _, h := range hosts {
		withPort := hostPort(h, port) // brackets an IPv6 address
		domains = append(domains, withPort[:strings.LastIndexByte(withPort, ':')], withPort)
	}
	return domains
}

// Cluster is that of one port as istiod sends it without a DestinationRule.
func (s Service) Cluster(port Port) Cluster {
	return Cluster{Name: ClusterName(s.FQDN(), port.Number)}
}

// Assignment is that of one port as istiod sends it: one entry for each locality
// and priority, in order, whose weight is the sum of its endpoints.
func (s Service) Assignment(port Port) ClusterLoadAssignment {
	a := ClusterLoadAssignment{Cluster: ClusterName(s.FQDN(), port.Number)}
	sorted := slices.Clone(s.Endpoints)
	slices.SortStableFunc(sorted, compareLocality)
	for i, e := range sorted {
		if i == 0 || compareLocality(sorted[i-1], e) != 0 {
			a.Localities = append(a.Localities, Locality{
				Region: e.Region, Zone: e.Zone, SubZone: e.SubZone, Priority: e.Priority,
			})
		}
		l := &a.Localities[len(a.Localities)-1]
		endpoint := s.lbEndpoint(e, port)
		l.Weight += endpoint.Weight
		l.Endpoints = append(l.Endpoints, endpoint)
	}
	return a
}

func (s Service) lbEndpoint(e Endpoint, port Port) LbEndpoint {
	return LbEndpoint{
		Address:  e.Address,
		Port:     cmp.Or(e.Port, port.Number),
		Weight:   cmp.Or(e.Weight, 1),
		Health:   cmp.Or(e.Health, Healthy),
		TLSMode:  e.TLSMode,
		Workload: fmt.Sprintf("%s;%s;%s;latest;Kubernetes", s.Name, s.Namespace, s.Name),
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
