package proxyless

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ResourceCoverage says what became of one resource of the mesh, by the paths
// of its fields, as in virtual_hosts[*].routes[*].route.retry_policy.num_retries.
// Fields that carry no policy, or none that means anything to a gRPC client
// (statistics, tracing, access logs, names), are in no list.
type ResourceCoverage struct {
	Kind   string `json:"kind"` // listener, route, cluster or endpoint
	Name   string `json:"name"`
	Status string `json:"status"` // ok, requested, rejected, does not exist
	// Applied are the fields that are present and obeyed. Elements of a list
	// count together; of a long list of endpoints the first ones stand for all.
	Applied []string `json:"applied,omitempty"`
	// Ignored are the fields with policy that a user would expect to work and
	// that is not applied.
	Ignored []string `json:"ignored,omitempty"`
	// Rejected are the fields for which the latest value was refused: the first
	// that was found to be wrong, or with Config.Strict all of Ignored. Applied
	// and Ignored are then those of the last good value, if there is one.
	Rejected []string `json:"rejected,omitempty"`
	// Reason is why it was refused; empty when it was not.
	Reason string `json:"reason,omitempty"`
}

// coverage lists the resources in dependency order and then by name.
func (s *snapshot) coverage() []ResourceCoverage {
	var rows []ResourceCoverage
	for k := range s.resources {
		for _, name := range slices.Sorted(maps.Keys(s.resources[k])) {
			r := s.resources[k][name]
			rows = append(rows, ResourceCoverage{Kind: r.kind.String(), Name: r.name, Status: r.status.String(),
				Applied: r.applied, Ignored: r.ignored, Rejected: r.rejectedFields, Reason: r.rejection})
		}
	}
	return rows
}

// String is the coverage as text, a line for each field.
func (c ResourceCoverage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %s\n", c.Kind, c.Name, c.Status)
	if c.Reason != "" {
		fmt.Fprintf(&b, "  refused   %s\n", c.Reason)
	}
	for _, list := range []struct {
		word  string
		paths []string
	}{{"rejected", c.Rejected}, {"ignored", c.Ignored}, {"applied", c.Applied}} {
		for _, path := range list.paths {
			fmt.Fprintf(&b, "  %-9s %s\n", list.word, path)
		}
	}
	return b.String()
}
