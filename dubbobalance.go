package proxyless

import (
	"slices"
	"strings"
)

// dubboBalance is what one of Dubbo's loadbalance names means here: how
// endpoints are chosen, and what calls are hashed by where the mesh's routes do
// not say.
type dubboBalance struct {
	balance balancing
	hash    []hashPolicy
}

// dubboBalances are the names of Dubbo for Java and for Go, in the order of
// loadBalanceNames. Weights are the mesh's in all of them.
var dubboBalances = map[string]dubboBalance{
	"random":                        {balance: balancing{policy: lbRandom}},
	"aliasmethod":                   {balance: balancing{policy: lbRandom}},
	"roundrobin":                    {balance: balancing{policy: lbRoundRobin}},
	"interleavedweightedroundrobin": {balance: balancing{policy: lbRoundRobin}},
	"leastactive":                   {balance: balancing{policy: lbLeastRequest, fullScan: true}},
	"shortestresponse":              {balance: balancing{policy: lbShortestReply}},
	"consistenthash":                {balance: balancing{policy: lbRingHash}, hash: []hashPolicy{{kind: hashMessage}}},
	"consistenthashing":             {balance: balancing{policy: lbRingHash}, hash: []hashPolicy{{kind: hashMessage}}},
	"p2c":                           {balance: balancing{policy: lbP2C}},
	"adaptive":                      {balance: balancing{policy: lbP2C}},
}

// preference is how a reference wants endpoints to be chosen, where it does not
// leave that to the mesh. The zero value leaves it.
type preference struct {
	balance *dubboBalance
	subset  uint32 // this many endpoints of each priority; 0 is what the mesh says
}

func newPreference(s *referSettings, fallback string) preference {
	p := preference{subset: uint32(max(0, s.subset))}
	name := s.loadBalance
	if name == "" {
		name = fallback
	}
	if b, ok := dubboBalances[strings.ToLower(name)]; ok {
		p.balance = &b
	}
	return p
}

// of is how endpoints of a cluster are chosen. Slow start stays the mesh's
// concern.
func (p *preference) of(c *cluster) balancing {
	b := c.balance
	if p.balance != nil {
		slow, subset := b.slow, b.subset
		b = p.balance.balance
		b.slow, b.subset = slow, subset
	}
	if p.subset > 0 {
		b.subset = p.subset
	}
	return b
}

// policy adds to a route's policy what calls are hashed by, where the mesh does
// not say.
func (p *preference) policy(mesh *routePolicy) *routePolicy {
	if p.balance == nil || p.balance.hash == nil || mesh != nil && len(mesh.hash) > 0 {
		return mesh
	}
	var own routePolicy
	if mesh != nil {
		own = *mesh
	}
	own.hash = slices.Clone(p.balance.hash)
	return &own
}
