package proxyless

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tolerance is what a reference does about failures beside what the mesh asks
// for: Dubbo's cluster, with its retries and forks. The zero value leaves all to
// the mesh.
type tolerance struct {
	mode    string // one of clusterNames; empty leaves it to the mesh
	retries int
	forks   int
}

const (
	clusterFailover  = "failover"
	clusterFailfast  = "failfast"
	clusterFailsafe  = "failsafe"
	clusterFailback  = "failback"
	clusterForking   = "forking"
	clusterBroadcast = "broadcast"
	clusterAvailable = "available"
)

// Dubbo's numbers.
const (
	dubboRetries  = 2
	dubboForks    = 2
	failbackTries = 3 // in the background, where the reference does not say
)

// newTolerance settles a reference's options and their fallbacks.
func newTolerance(s *referSettings, c *Config) tolerance {
	t := tolerance{mode: strings.ToLower(s.cluster), retries: c.Retries, forks: c.Forks}
	if t.mode == "" {
		t.mode = strings.ToLower(c.Cluster)
	}
	if s.hasRetries {
		t.retries = s.retries
	}
	if s.forks > 0 {
		t.forks = s.forks
	}
	if t.forks <= 0 {
		t.forks = dubboForks
	}
	told := s.hasRetries || c.Retries > 0
	switch {
	case t.mode == "" && t.retries > 0:
		t.mode = clusterFailover
	case t.mode == clusterFailover && !told:
		t.retries = dubboRetries
	case t.mode == clusterFailback && !told:
		t.retries = failbackTries
	}
	return t
}

// dubboCodes are the failures of the call itself, which Dubbo's clusters act
// on. Any other status is the provider's answer, and passed on.
const dubboCodes = 1<<codes.Unavailable | 1<<codes.DeadlineExceeded | 1<<codes.ResourceExhausted

func callFailed(err error) bool { return err != nil && dubboCodes>>status.Code(err)&1 != 0 }

// policy is a route's policy as the reference wants it. Retries of the mesh take
// the place of Dubbo's, and never add to them; failfast has none.
func (t *tolerance) policy(mesh *routePolicy) *routePolicy {
	var own routePolicy
	if mesh != nil {
		own = *mesh
	}
	switch {
	case t.mode == clusterFailover && own.retry == nil && t.retries > 0:
		own.retry = &retryPolicy{on: retryConnectFailure | retryRefusedStream | retryReset, codes: dubboCodes,
			retries: uint32(t.retries), previousHosts: true, reselect: 5, base: 1, max: 1} // Dubbo does not pause
	case t.mode == clusterFailfast && (own.retry != nil || own.hedge != nil):
		own.retry, own.hedge = nil, nil
	default:
		return mesh
	}
	if own.empty() {
		return nil
	}
	return &own
}
