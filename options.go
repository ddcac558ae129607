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
	cluster        string
	retries, forks int // retries counts only with hasRetries
	hasRetries     bool
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

type clusterOption string

// Cluster says what is done about unary calls that fail, by one of the names of
// Dubbo's clusters, in any case. It takes the place of Config.Cluster. A call
// failed when it ended with UNAVAILABLE, DEADLINE_EXCEEDED or
// RESOURCE_EXHAUSTED, whoever said so; any other status is the provider's own
// answer and handed to the caller.
//
//   - failover: it is tried again on other endpoints, at once; see [Retries]
//   - failfast: it is not tried again, even if the mesh's route asks for that.
//     Attempts that certainly did not reach a provider are repeated all the same
//   - failsafe: it is logged, and the caller gets an empty reply and no error
//   - failback: the same, and it is made again in the background, every 5 s,
//     [Retries] times (3 without), until it does not fail. Of each Mesh at most
//     100 calls wait for that, one more is dropped and logged, and Close drops
//     all
//   - forking: it goes to several endpoints at a time, see [Forks]; the first
//     that succeeds is the call, and the others are cancelled. All have to fail
//     for the call to fail
//   - broadcast: it goes to every endpoint that can be connected, at most 16 at
//     a time. One that fails, with any status, fails the call, with an error
//     that names those that did. The reply is one of theirs
//   - available: it goes to the first endpoint that is connected, in the order
//     of the mesh
//
// Without it, and without Retries, failures are left to the mesh: Dubbo's
// default of two retries is not applied. Where the mesh's route has a retry
// policy, that one takes the place of failover's retries. Istio gives one to
// every route that does not switch it off. Streams know failover and failfast
// only. Refer fails with the list of names where it does not know the name.
func Cluster(name string) ReferOption { return clusterOption(strings.TrimSpace(name)) }

func (o clusterOption) applyRefer(s *referSettings) { s.cluster = string(o) }

var clusterNames = []string{"failover", "failfast", "failsafe", "failback", "forking", "broadcast", "available"}

// unknownCluster says what is wrong with a name; empty where it is known or
// empty.
func unknownCluster(name string) string {
	if name == "" || slices.Contains(clusterNames, strings.ToLower(name)) {
		return ""
	}
	return "there is no cluster named " + strconv.Quote(name)
}

// useCluster is what to do about an unknown name.
var useCluster = "use one of " + strings.Join(clusterNames, ", ")

type retriesOption int

// Retries is how often a call through this reference that failed is tried
// again (Dubbo's retries), where the mesh's route has no retry policy: with
// [Cluster] failover, which it implies where no cluster is named, and in the
// background with failback. Less than 0 is 0. It takes the place of
// Config.Retries. Without either, failover tries twice more.
func Retries(retries int) ReferOption { return retriesOption(retries) }

func (o retriesOption) applyRefer(s *referSettings) { s.retries, s.hasRetries = max(0, int(o)), true }

type forksOption int

// Forks is to how many endpoints at a time a call goes with [Cluster] forking
// (Dubbo's forks); at most 16. The default is Config.Forks, else 2.
func Forks(forks int) ReferOption { return forksOption(forks) }

func (o forksOption) applyRefer(s *referSettings) { s.forks = int(o) }

type subsetOption int

// Subset restricts this reference to so many endpoints of each priority, chosen
// by chance and kept while they are there (gRFC A68): in a large cluster each
// process then has few connections, and each endpoint few callers. Calls are
// spread evenly only where many processes call. The default, 0, is what the mesh
// says (random_subsetting), else all.
func Subset(endpoints int) ReferOption { return subsetOption(endpoints) }

func (o subsetOption) applyRefer(s *referSettings) { s.subset = int(o) }
