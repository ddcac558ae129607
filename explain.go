package proxyless

import (
	"fmt"
	"strings"
)

// Explanation tells for one hypothetical call where it would go, and for each
// link of the chain what else there was and why that lost. It is made by the
// same code as the choice for calls, at one time, and nothing is sent.
type Explanation struct {
	Service   string `json:"service"`             // as asked
	Method    string `json:"method"`              // "/package.Service/Method"
	Reference string `json:"reference"`           // whose way it is: interface, version and group of a reference
	Temporary bool   `json:"temporary,omitempty"` // nothing referred to the service: a reference was made for this
	Authority string `json:"authority"`           // what the virtual host is chosen by

	// Listeners are the names asked for, and the ports of one asked for without.
	Listeners []ExplainedName `json:"listeners"`
	// RouteConfiguration is the one that the listener names; in the full view it
	// is called "port/host" or "host:port/host", and made of the one before "/".
	RouteConfiguration string `json:"routeConfiguration,omitempty"`
	// VirtualHosts are those of the route configuration; in the full view, where
	// that is for the whole mesh, those that might be meant.
	VirtualHosts []ExplainedName  `json:"virtualHosts,omitempty"`
	Routes       []ExplainedRoute `json:"routes,omitempty"` // of the virtual host, in order
	// Ignored is the policy on the way that is not applied: resource and path.
	Ignored []string `json:"ignored,omitempty"`
	// Error is what the call would fail with; empty where some of its ways lead to
	// endpoints, of which one is ready or may become so.
	Error string `json:"error,omitempty"`
}

// ExplainedName is a listener or a virtual host.
type ExplainedName struct {
	Name   string `json:"name"`
	Taken  bool   `json:"taken"`
	Reason string `json:"reason,omitempty"` // why it lost
}

// ExplainedRoute is a route of the virtual host in force.
type ExplainedRoute struct {
	Name  string `json:"name,omitempty"`
	Match string `json:"match"` // what it takes, in words
	// Share is how many of such calls it takes, from 0 to 1: all or none, unless
	// routes have a fraction.
	Share    float64            `json:"share"`
	Reason   string             `json:"reason,omitempty"`   // why it takes none
	Policies []string           `json:"policies,omitempty"` // in force for calls that it takes
	Clusters []ExplainedCluster `json:"clusters,omitempty"`
	Error    string             `json:"error,omitempty"` // what these calls fail with
}

// ExplainedCluster is a cluster that a route may choose.
type ExplainedCluster struct {
	Name     string   `json:"name"`
	Share    float64  `json:"share"` // of the calls that the route takes
	Balancer string   `json:"balancer,omitempty"`
	Policies []string `json:"policies,omitempty"`
	// Endpoints are all that the mesh lists, up to 1 000, and Count is how many
	// there are.
	Endpoints []ExplainedEndpoint `json:"endpoints,omitempty"`
	Count     int                 `json:"count"`
	Waits     bool                `json:"waits,omitempty"` // no endpoint is ready, and calls wait for the first that is
	Error     string              `json:"error,omitempty"` // what these calls fail with
}

// ExplainedEndpoint is an endpoint of a cluster.
type ExplainedEndpoint struct {
	Address    string `json:"address"`
	Locality   string `json:"locality,omitempty"` // region/zone/sub-zone
	Priority   uint32 `json:"priority"`
	Weight     uint32 `json:"weight"`
	Health     string `json:"health"`     // what the mesh says
	Security   string `json:"security"`   // how it is spoken to: plain text, or TLS and who is expected
	Connection string `json:"connection"` // not connected, connecting, ready, or why it failed
	InFlight   int64  `json:"inFlight"`   // calls of this process
	Ejected    bool   `json:"ejected,omitempty"`
	Pickable   bool   `json:"pickable"`         // a call may be sent there now
	Reason     string `json:"reason,omitempty"` // why not
}

// String is the explanation as text, one line for each step; what was taken is
// marked with >.
func (x *Explanation) String() string {
	t := &explainText{}
	t.line(0, true, "call %s of %s by reference %s%s", x.Method, x.Service, x.Reference, either(x.Temporary, ", made for this", ""))
	for _, l := range x.Listeners {
		t.line(1, l.Taken, "listener %s%s", l.Name, because(l.Reason))
	}
	if x.Authority != "" {
		t.line(1, true, "authority %s", x.Authority)
	}
	if x.RouteConfiguration != "" {
		t.line(1, true, "route configuration %s", x.RouteConfiguration)
	}
	for _, v := range x.VirtualHosts {
		t.line(1, v.Taken, "virtual host %s%s", v.Name, because(v.Reason))
	}
	for i := range x.Routes {
		t.route(&x.Routes[i])
	}
	for _, path := range x.Ignored {
		t.line(1, false, "ignored: %s", path)
	}
	if x.Error != "" {
		t.line(0, true, "fails: %s", x.Error)
	}
	return t.String()
}

// explainText is indented text.
type explainText struct{ strings.Builder }

func (t *explainText) line(depth int, taken bool, format string, args ...any) {
	t.WriteString(strings.Repeat("  ", depth) + either(taken, "> ", "- "))
	fmt.Fprintf(t, format, args...)
	t.WriteByte('\n')
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func (t *explainText) route(r *ExplainedRoute) {
	name := "route"
	if r.Name != "" {
		name += " " + r.Name
	}
	text := fmt.Sprintf("%s (%s)", name, r.Match)
	if r.Share > 0 && r.Share < 1 {
		text += ": " + percent(r.Share) + " of the calls"
	}
	t.line(1, r.Share > 0, "%s%s", text, because(r.Reason))
	for _, p := range r.Policies {
		t.line(2, true, "%s", p)
	}
	for i := range r.Clusters {
		t.cluster(&r.Clusters[i])
	}
	if r.Error != "" {
		t.line(2, true, "fails: %s", r.Error)
	}
}

// shownEndpoints is how many of a cluster's endpoints the text has.
const shownEndpoints = 20

func (t *explainText) cluster(c *ExplainedCluster) {
	text := "cluster " + c.Name
	if c.Share < 1 {
		text += ": " + percent(c.Share)
	}
	if c.Balancer != "" {
		text += ", " + c.Balancer
	}
	t.line(2, true, "%s", text)
	for _, p := range c.Policies {
		t.line(3, true, "%s", p)
	}
	for i := range c.Endpoints {
		if i == shownEndpoints {
			break
		}
		t.endpoint(&c.Endpoints[i])
	}
	if more := c.Count - shownEndpoints; more > 0 {
		t.line(3, false, "and %d endpoints more", more)
	}
	if c.Waits {
		t.line(3, true, "waits until an endpoint is ready")
	}
	if c.Error != "" {
		t.line(3, true, "fails: %s", c.Error)
	}
}

func (t *explainText) endpoint(e *ExplainedEndpoint) {
	text := fmt.Sprintf("endpoint %s", e.Address)
	if e.Locality != "" {
		text += " in " + e.Locality
	}
	text += fmt.Sprintf(", priority %d, weight %d, %s, %s, %d calls in flight", e.Priority, e.Weight, e.Health, e.Connection, e.InFlight)
	t.line(3, e.Pickable, "%s%s", text, because(e.Reason))
	if e.Security != plainWords {
		t.line(4, e.Pickable, "%s", e.Security)
	}
}

// percent writes a share with as many digits as it needs, at most two.
func percent(share float64) string {
	text := strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.2f", share*100), "0"), ".")
	return text + " %"
}
