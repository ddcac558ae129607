package proxyless

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// Config says who this process is in the mesh, where the control plane is, and
// how the process consumes and provides. The zero value of a field means its
// default, so a literal names only what differs.
//
// Where a field is left zero, Join fills it from the first of these that says
// something:
//
//  1. the Config itself, as a literal or as [LoadConfig] returned it,
//  2. Dubbo's environment (DUBBO_REGISTRY_ADDRESS, DUBBO_PORT_TO_BIND, ...),
//  3. Istio's and the downward API's environment and files (POD_NAME,
//     ISTIO_META_CLUSTER_ID, /etc/istio/pod/labels, ...),
//  4. the bootstrap JSON of GRPC_XDS_BOOTSTRAP or GRPC_XDS_BOOTSTRAP_CONFIG,
//  5. the default written at the field.
//
// Inside LoadConfig a DUBBO_ variable overrides the same dubbo. key of the
// file, as in Dubbo; a Config that came from LoadConfig does not read those
// variables again. The control-plane fields (ControlPlanes, PlainText,
// RootCertFile) are taken from one source as a whole where ControlPlanes is
// given. A false cannot be told from a field left out, so a DUBBO_ variable
// can turn on a switch that a literal leaves false.
//
// [Config.String] prints all of it, secrets left out.
type Config struct {
	// Application is this process's name: consumers send it as
	// tri-consumer-appname, providers are found under it by providedBy.
	// Required. dubbo.application.name.
	Application string

	// ControlPlanes are the replicas of istiod, tried in order: host:port, a
	// host alone (port 15012, or 15010 with PlainText), or unix:///path for the
	// socket of Istio's agent. Default istiod.istio-system.svc:15012.
	// dubbo.registry.address=xds://host:port?backup=host:port,host:port.
	ControlPlanes []string
	// PlainText speaks to the control plane without TLS and without a token.
	// dubbo.registry.secure=plaintext.
	PlainText bool
	// ServerName is the name that istiod's certificate must carry. ISTIOD_SAN.
	// Default: the host of the address that is dialled.
	ServerName string
	// RootCertFile holds the PEM certificates that istiod's is verified with,
	// or is [SystemRoots]. It is read again at each connect. Default
	// /var/run/secrets/istio/root-cert.pem; XDS_ROOT_CA as for Istio's agent.
	// Where it holds one of the roots that came with this workload's certificate,
	// as istiod's own ConfigMap does, all that it holds are roots of the mesh:
	// certificates of peers are verified with them, too. It is the place for no
	// others.
	RootCertFile string
	// TokenFile holds the service account token that proves who this process
	// is, read again at each connect and with each request for a certificate.
	// Default /var/run/secrets/tokens/istio-token, and where that does not exist
	// the service account's own token.
	TokenFile string
	// InsecureSkipVerify accepts any certificate of the control plane, which
	// then may be anybody. It is logged.
	InsecureSkipVerify bool
	// ResourceTimeout is how long a resource that was asked for may stay
	// unanswered before it counts as non-existent. Default 15 s (gRFC A57).
	ResourceTimeout time.Duration
	// Strict refuses (NACK) a resource that carries policy which is not applied,
	// where otherwise the rest of it is applied and [Mesh.Coverage] tells. The
	// last good one stays in force; what has none cannot be called. TLS that the
	// mesh offers to some endpoints, and does not demand, is no reason.
	// dubbo.registry.strict, which is no key of Dubbo's own.
	Strict bool
	// View is what istiod is asked for. Default ViewFull. dubbo.registry.view=full or lean, which
	// may be written as a parameter of the registry's address. Where this is
	// left open, ISTIO_META_GENERATOR=grpc, or GENERATOR "grpc" in the node
	// metadata of a bootstrap JSON, as Istio's agent writes it for gRPC
	// clients, means ViewLean.
	View View
	// Resolver looks up names that the mesh leaves to DNS: those of a
	// ServiceEntry with resolution DNS, and hosts outside of the mesh. Default
	// net.DefaultResolver.
	Resolver *net.Resolver
	// ControlPlaneDialOptions are appended when the control plane, or what
	// Identity asks for certificates, is dialled. Transport credentials among them
	// are used in place of those that verify it, and get the token.
	ControlPlaneDialOptions []grpc.DialOption
	// Node is who this workload is.
	Node Node
	// Identity is where this workload's certificate comes from.
	Identity Identity

	// Timeout is the deadline of a call whose context has none; 0 means that
	// such a call has none. dubbo.consumer.timeout, in milliseconds there.
	Timeout time.Duration
	// Cluster says what is done about calls that fail, by one of Dubbo's names;
	// see the option [Cluster]. The default is what the mesh says.
	// dubbo.consumer.cluster.
	Cluster string
	// Retries is how often a failed call is tried again where the mesh's route has
	// no retry policy; see the option [Retries]. The default, 0, leaves retries to
	// the mesh. dubbo.consumer.retries.
	Retries int
	// Forks is to how many endpoints at a time a call goes with Cluster "forking".
	// The default is 2. dubbo.consumer.forks.
	Forks int
	// LoadBalance says how calls are spread over endpoints, in place of what the
	// mesh says, by one of Dubbo's names; see the option [LoadBalance]. The default
	// is what the mesh says. dubbo.consumer.loadbalance.
	LoadBalance string
	// DialOptions apply to each connection to a provider and so to each
	// attempt: stats handlers, user agent, call options such as message limits.
	// Transport credentials among them are for endpoints that the mesh has spoken
	// to in plain text; where it says TLS, they are not used.
	DialOptions []grpc.DialOption
	// UnaryInterceptors run once per call, around routing.
	UnaryInterceptors []grpc.UnaryClientInterceptor
	// StreamInterceptors run once per call, around routing.
	StreamInterceptors []grpc.StreamClientInterceptor

	// Host is the address to listen on. Default all interfaces.
	// DUBBO_IP_TO_BIND, dubbo.protocol.host.
	Host string
	// Port is the TCP port to listen on; negative means any free port. Default
	// 50051 (Triple's). DUBBO_PORT_TO_BIND, dubbo.protocol.port.
	Port int
	// ServerOptions are passed to the grpc.Server.
	ServerOptions []grpc.ServerOption
	// HandshakeTimeout is how long a connection to a provider may take, from when
	// it is accepted, through TLS, to its first frame of HTTP/2, before it is
	// closed. Default 10 s.
	HandshakeTimeout time.Duration
	// PendingConnections is how many connections may be at that at a time. One
	// more, and the one that has taken longest is closed. Default 1000.
	PendingConnections int
	// FallbackToDefault hands a call that names a version which is not exported
	// to the default export, where otherwise it fails with UNIMPLEMENTED.
	// dubbo.rpc.tri.resolve-fallback-to-default, true in Dubbo.
	FallbackToDefault bool
	// ShutdownDelay is how long a provider keeps serving after it turned not
	// ready, while consumers learn of it. Default 5 s; negative means none.
	ShutdownDelay time.Duration
	// ShutdownTimeout is how long calls in flight may then take to finish.
	// Default 10 s. dubbo.service.shutdown.wait, in milliseconds there.
	ShutdownTimeout time.Duration
	// MetadataServicePort is the port for Dubbo's MetadataService. It is kept
	// and shown; nothing listens there.
	// dubbo.application.metadataServicePort.
	MetadataServicePort int

	// QoS is the port for probes and commands.
	QoS QoS
	// Logger receives what the mesh has to say. Default slog.Default().
	Logger *slog.Logger

	// Audit is handed what the mesh's rules made of calls to this process: each
	// call that they refused, and those that AuthorizationPolicies ask to be
	// told of (AUDIT, dry run). The log has the same, at most 50 lines for each
	// second. It is called for one record after the other, in their order, on a
	// goroutine of its own, so that it never holds up a call: while it takes its
	// time up to 1024 records wait, and further ones are lost and counted
	// (AuditRecord.Lost). Mesh.Close waits until it took all; it must not call
	// that itself. Default none.
	Audit func(AuditRecord)

	// Notices lists the settings that were read but are not honoured, or not
	// fully. LoadConfig fills it, Join logs it; setting it has no effect.
	Notices []Notice

	loaded   bool // by LoadConfig, which has read Dubbo's environment
	useAgent bool // use-agent=true: the address comes from the bootstrap JSON

	providers map[string]fileProvider // certificate_providers of the bootstrap JSON, by instance
}

// A View is one of the two pictures of the mesh that istiod can send.
type View uint8

const (
	// ViewFull is what a sidecar gets: the whole policy of the mesh, and the
	// name of every service. It is spoken in delta, or in state of the world
	// with a control plane that does not know delta.
	ViewFull View = iota
	// ViewLean is what istiod makes for gRPC clients: what is asked for by
	// name, and little of it. There is no outlier detection, no DNS, no egress
	// policy, no connection pool; of the choices of an endpoint there are least
	// request and consistent hashing. It takes the least memory, and is spoken
	// in state of the world.
	ViewLean
)

var viewNames = [...]string{"full", "lean"}

// String is "full" or "lean".
func (v View) String() string {
	if int(v) >= len(viewNames) {
		return fmt.Sprintf("View(%d)", uint8(v))
	}
	return viewNames[v]
}

// parseView reads a view's name.
func parseView(s string) (View, bool) {
	for i, name := range viewNames {
		if strings.EqualFold(s, name) {
			return View(i), true
		}
	}
	return 0, false
}

// resolver is what looks names up.
func (c *Config) resolver() *net.Resolver {
	if c.Resolver == nil {
		return net.DefaultResolver
	}
	return c.Resolver
}

// QoS configures the HTTP port of probes (/live, /ready, /startup) and
// commands (/ls, /offline, ...).
type QoS struct {
	// Disabled opens no port. dubbo.application.qosEnable=false.
	Disabled bool
	// Host is the address to listen on. Default all interfaces.
	// dubbo.application.qosHost.
	Host string
	// Port is the TCP port; negative means any free port. Default 22222.
	// dubbo.application.qosPort.
	Port int
	// AcceptForeignIP admits callers that are not on this host although
	// AnonymousLevel is LevelNone. dubbo.application.qosAcceptForeignIp.
	AcceptForeignIP bool
	// Whitelist names foreign callers with the rights of LevelProtected: exact
	// addresses, wildcards (10.1.*.*), CIDR blocks.
	// dubbo.application.qosAcceptForeignIpWhitelist.
	Whitelist []string
	// AnonymousLevel is what other foreign callers may do. Default LevelPublic.
	// dubbo.application.qosAnonymousAccessPermissionLevel.
	AnonymousLevel Level
	// AllowCommands are commands that anybody may run.
	// dubbo.application.qosAnonymousAllowCommands.
	AllowCommands []string
	// Check makes Join fail where the port cannot be opened, which otherwise is
	// logged. dubbo.application.qosCheck.
	Check bool
}

// A Level is the permission that a QoS command demands and a caller has, as in
// Dubbo 3.2. Levels compare in order.
type Level int8

// The levels. The zero value is Dubbo's default.
const (
	LevelNone      Level = iota - 1 // no command at all; Dubbo's 0
	LevelPublic                     // the probes; Dubbo's 1
	LevelProtected                  // reading and taking in and out; Dubbo's 2
	LevelPrivate                    // the host itself only; Dubbo's 3
)

var levelNames = [...]string{"NONE", "PUBLIC", "PROTECTED", "PRIVATE"}

// String is Dubbo's name of the level.
func (l Level) String() string {
	if l < LevelNone || l > LevelPrivate {
		return fmt.Sprintf("Level(%d)", int8(l))
	}
	return levelNames[l-LevelNone]
}

// parseLevel reads a name in any case or Dubbo's number.
func parseLevel(s string) (Level, bool) {
	for i, name := range levelNames {
		if strings.EqualFold(s, name) || s == fmt.Sprint(i) {
			return LevelNone + Level(i), true
		}
	}
	return LevelPublic, false
}

// A Notice is one setting that was read but is not honoured.
type Notice struct {
	File    string // the file, or "environment"
	Line    int    // 1 for the first; 0 in the environment
	Key     string // as written
	Value   string // as written; hidden where it may be a secret
	Problem string // why, and what to do instead
}

// String is the notice in one line, position first.
func (n Notice) String() string {
	where := n.File
	if n.Line > 0 {
		where = fmt.Sprintf("%s:%d", n.File, n.Line)
	}
	return fmt.Sprintf("%s: %s=%s: %s", where, n.Key, n.Value, n.Problem)
}

// SystemRoots as Config.RootCertFile verifies istiod with the system's own
// root certificates. It is the word Istio's agent knows in XDS_ROOT_CA.
const SystemRoots = "SYSTEM"

// Defaults of Config's fields.
const (
	defaultControlPlaneHost = "istiod.istio-system.svc"
	defaultSecurePort       = "15012"
	defaultPlainPort        = "15010"
	defaultRootCertFile     = "/var/run/secrets/istio/root-cert.pem"
	defaultResourceTimeout  = 15 * time.Second
	defaultPort             = 50051
	defaultHandshakeTimeout = 10 * time.Second
	defaultPending          = 1000
	defaultShutdownDelay    = 5 * time.Second
	defaultShutdownTimeout  = 10 * time.Second
	defaultQoSPort          = 22222
)

const unixScheme = "unix:"

func isUnix(address string) bool { return strings.HasPrefix(address, unixScheme) }

// plainTextTo says whether the control plane at the address is spoken to
// without TLS; a Unix socket always is.
func (c *Config) plainTextTo(address string) bool { return c.PlainText || isUnix(address) }

// serverNameFor is the name that the certificate of the control plane at the
// address must carry.
func (c *Config) serverNameFor(address string) string {
	if c.ServerName != "" {
		return c.ServerName
	}
	return hostPart(address)
}

func hostPart(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
