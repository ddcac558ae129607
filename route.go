package proxyless

import (
	"time"

	"google.golang.org/grpc/codes"
)

// routeConfig is what is kept of an envoy.config.route.v3.RouteConfiguration.
type routeConfig struct {
	name         string
	virtualHosts []virtualHost

	// Of one that was derived for one host (full view).
	settled   bool          // the virtual host, if there is one, was chosen
	authority string        // host:port that calls name
	passed    []virtualHost // those that might have been meant and were not, without routes: for explanations
}

type virtualHost struct {
	name    string
	domains []string // lower case; exact, "*suffix", "prefix*" or "*"
	routes  []route  // the first match wins
}

// route is one match and what to do with a call that it matches.
type route struct {
	name     string
	match    routeMatch
	clusters []weightedCluster // one entry where the action names one cluster; weight 0 entries are left out
	total    uint32            // sum of the weights; 1 for one cluster
	header   string            // cluster_header, lower case: the call names its cluster; clusters is then empty
	policy   *routePolicy      // nil where the route asks for nothing more
	failure  string            // why this action cannot carry a call (redirect, direct response...); empty when it can
	code     codes.Code        // of calls that meet failure; OK means UNAVAILABLE

	hasMaxDuration bool          // false: the listener's max_stream_duration applies
	maxDuration    time.Duration // of the whole call, by whichever of the route's fields applies to gRPC; 0 is no limit
}

type weightedCluster struct {
	name   string
	weight uint32
	policy *routePolicy // in place of the route's where this cluster has more to say; nil is the route's
}

// clusterNames appends the names of all clusters that the routes may choose,
// or send copies to.
func (c *routeConfig) clusterNames(to []string) []string {
	for i := range c.virtualHosts {
		for j := range c.virtualHosts[i].routes {
			r := &c.virtualHosts[i].routes[j]
			to = r.policy.clusterNames(to)
			for _, w := range r.clusters {
				to = w.policy.clusterNames(append(to, w.name))
			}
		}
	}
	return to
}

// clusterNames appends the names of the clusters that get copies.
func (p *routePolicy) clusterNames(to []string) []string {
	if p == nil {
		return to
	}
	for i := range p.mirrors {
		if name := p.mirrors[i].cluster; name != "" {
			to = append(to, name)
		}
	}
	return to
}
