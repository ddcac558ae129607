package proxyless

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// ReferOption narrows what Refer asks the mesh for.
type ReferOption interface{ applyRefer(*referSettings) }

// ExportOption says as what [Server.With] exports an implementation.
type ExportOption interface{ applyExport(*exportSettings) }

// referSettings is what the options of one reference add up to.
type referSettings struct {
	version, group string
	providedBy     []string
	port           int           // 0: left to the mesh
	timeout        time.Duration // counts only with hasTimeout
	hasTimeout     bool
	loadBalance    string // empty: Config's, else the mesh's
	subset         int    // 0: the mesh's
}

// exportSettings is what the options of one export add up to.
type exportSettings struct{ version, group string }

// VersionOption is the version of an interface, for references and exports.
type VersionOption string

// Version names the version of an interface that is referred to or exported
// (Dubbo's version, sent as tri-service-version). The empty version, which is
// the default, is a version of its own: the unversioned export. Surrounding
// space does not count.
func Version(version string) VersionOption { return VersionOption(strings.TrimSpace(version)) }

func (o VersionOption) applyRefer(s *referSettings)   { s.version = string(o) }
func (o VersionOption) applyExport(s *exportSettings) { s.version = string(o) }

// GroupOption is the group of an interface, for references and exports.
type GroupOption string

// Group names the group of an interface that is referred to or exported
// (Dubbo's group, sent as tri-service-group). The default is no group.
// Surrounding space does not count.
func Group(group string) GroupOption { return GroupOption(strings.TrimSpace(group)) }

func (o GroupOption) applyRefer(s *referSettings)   { s.group = string(o) }
func (o GroupOption) applyExport(s *exportSettings) { s.group = string(o) }

type providedByOption []string

// ProvidedBy names the applications, which are Kubernetes Services, that export
// the interface (Dubbo's providedBy): a short name of the consumer's own
// namespace, name.namespace, or a fully qualified host. A name may hold several
// separated by commas, as Dubbo's attribute does; names of several options add
// up, in order.
func ProvidedBy(names ...string) ReferOption {
	var split providedByOption
	for _, list := range names {
		for name := range strings.SplitSeq(list, ",") {
			if name = strings.TrimSpace(name); name != "" {
				split = append(split, name)
			}
		}
	}
	return split
}

func (o providedByOption) applyRefer(s *referSettings) { s.providedBy = append(s.providedBy, o...) }

type portOption int

// Port chooses the port of the Service that is called. Without it the mesh is
// asked for all of them: the only port is taken, else the only one with routes,
// else the reference fails with the list.
func Port(port int) ReferOption { return portOption(port) }

func (o portOption) applyRefer(s *referSettings) { s.port = int(o) }

type timeoutOption time.Duration

// Timeout is the deadline of calls through this reference whose context has
// none. It takes the place of Config.Timeout; 0 or less means no deadline.
func Timeout(timeout time.Duration) ReferOption { return timeoutOption(timeout) }

func (o timeoutOption) applyRefer(s *referSettings) {
	s.timeout, s.hasTimeout = max(0, time.Duration(o)), true
}

type loadBalanceOption string

// LoadBalance says how calls through this reference are spread over endpoints,
// in place of what the mesh says (a DestinationRule's loadBalancer) and of
// Config.LoadBalance. The names are Dubbo's, in any case:
//
//   - random: by chance
//   - roundrobin: in turn
//   - leastactive: where the fewest calls of this process are in flight
//   - shortestresponse: where the average time of the last answers times the
//     calls in flight is the least; what is older than 30 s does not count
//   - p2c, adaptive: the better of two endpoints drawn by chance, as by
//     shortestresponse; Dubbo's look at reports of the provider instead
//   - consistenthash, consistenthashing: equal requests to one endpoint. Where
//     the mesh's route has no hash policy, a unary call is hashed by its method
//     and its marshalled request, where Dubbo takes the first argument, and a
//     stream by nothing. Protobuf promises equal bytes for equal messages within
//     one build of a program only.
//   - aliasmethod, interleavedweightedroundrobin: Dubbo for Go's names for
//     random and roundrobin
//
// The weights of the mesh count in all of them. Endpoints still warm up, fail, and are ejected as the
// mesh says. Refer fails with the list of names where it does not know the name.
func LoadBalance(name string) ReferOption { return loadBalanceOption(name) }

func (o loadBalanceOption) applyRefer(s *referSettings) { s.loadBalance = string(o) }

var loadBalanceNames = []string{
	"random", "roundrobin", "leastactive", "shortestresponse", "consistenthash", "p2c", "adaptive",
	"consistenthashing", "interleavedweightedroundrobin", "aliasmethod",
}

// unknownLoadBalance says what is wrong with a name; empty where it is known or
// empty.
func unknownLoadBalance(name string) string {
	if name == "" || slices.Contains(loadBalanceNames, strings.ToLower(name)) {
		return ""
	}
	return "there is no load balance named " + strconv.Quote(name)
}

// useLoadBalance is what to do about an unknown name.
var useLoadBalance = "use one of " + strings.Join(loadBalanceNames, ", ")

type subsetOption int

// Subset restricts this reference to so many endpoints of each priority, chosen
// by chance and kept while they are there (gRFC A68): in a large cluster each
// process then has few connections, and each endpoint few callers. Calls are
// spread evenly only where many processes call. The default, 0, is what the mesh
// says (random_subsetting), else all.
func Subset(endpoints int) ReferOption { return subsetOption(endpoints) }

func (o subsetOption) applyRefer(s *referSettings) { s.subset = int(o) }
