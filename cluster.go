package proxyless

import "time"

// lbPolicy is Cluster.lb_policy.
type lbPolicy uint8

const (
	lbRoundRobin lbPolicy = iota
	lbOther               // named in decoded.ignored; round robin is used in its place
)

// cluster is what is kept of an envoy.config.cluster.v3.Cluster.
type cluster struct {
	name           string
	edsName        string // eds_cluster_config.service_name, or the cluster's name
	policy         lbPolicy
	connectTimeout time.Duration // 0 when absent
	failure        string        // why calls cannot be sent (not EDS, TLS demanded...); empty when they can
}
