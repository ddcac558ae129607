package proxyless

import "strings"

// kind is one of the four resource types that make up the configuration of a
// call. The values are in dependency order: a listener names a route
// configuration, that names clusters, and those name endpoint assignments.
type kind uint8

const (
	kindListener  kind = iota // LDS
	kindRoute                 // RDS
	kindCluster               // CDS
	kindEndpoints             // EDS
	kindCount
)

const typePrefix = "type.googleapis.com/"

// inboundPrefix begins the names of the listeners that the lean view makes for
// what a workload accepts.
const inboundPrefix = "xds.istio.io/grpc/lds/inbound/"

var kinds = [kindCount]struct{ word, typeURL string }{
	kindListener:  {"listener", typePrefix + "envoy.config.listener.v3.Listener"},
	kindRoute:     {"route", typePrefix + "envoy.config.route.v3.RouteConfiguration"},
	kindCluster:   {"cluster", typePrefix + "envoy.config.cluster.v3.Cluster"},
	kindEndpoints: {"endpoint", typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"},
}

// String is the one word used for the kind in logs, errors, QoS and docs.
func (k kind) String() string { return kinds[k].word }

func (k kind) typeURL() string { return kinds[k].typeURL }

// fullState says that a response lists every resource of the kind that exists
// among those asked for, so that absence means removal (xDS protocol, "state of
// the world"; true of LDS and CDS only).
func (k kind) fullState() bool { return k == kindListener || k == kindCluster }

// kindOf finds the kind of a type URL by the part after the last slash.
func kindOf(typeURL string) (kind, bool) {
	name := typeURL[strings.LastIndexByte(typeURL, '/')+1:]
	for k := range kinds {
		if kinds[k].typeURL[len(typePrefix):] == name {
			return kind(k), true
		}
	}
	return 0, false
}

// decoded is one resource as its decoder hands it over. Resources are
// immutable from here on.
type decoded struct {
	name    string
	value   any      // *listener, *routeConfig, *cluster or *assignment
	applied []string // paths of the fields that are present and obeyed
	ignored []string // field paths that carry policy which is not applied
}
