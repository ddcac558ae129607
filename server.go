package proxyless

import (
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// pingInterval is how often a consumer may ping an idle connection before grpc
// closes it. grpc's own five minutes would turn away Dubbo 3.3 consumers, which
// ping every minute, and consumers that want to notice a dead peer. A
// grpc.KeepaliveEnforcementPolicy among the server options overrides it.
const pingInterval = 10 * time.Second

// Server provides interfaces to the mesh. It is a grpc.ServiceRegistrar, so
// that generated code registers implementations on it, and serves them over
// Triple, which is gRPC with Dubbo's headers.
//
// One interface may be exported several times, under versions and groups of
// [Server.With]. A call goes to the export that its headers tri-service-version
// and tri-service-group name. Without them it goes to the unversioned export,
// else to version 1.0.0 (Dubbo Java 3.1 does not send that one), else to the
// only one; what is not exported fails with UNIMPLEMENTED and the list of what
// is. Config.FallbackToDefault restores Dubbo's habit of serving it all the
// same. All other metadata of a call, Dubbo's attachments, is the handler's to
// read with package metadata; headers and trailers it sets travel back.
//
// A panic in a handler fails its call with INTERNAL and is logged with its
// stack. Server options of Config.ServerOptions and of NewServer, in this
// order, reach the grpc.Server: interceptors and stats handlers run once per
// call. gRPC's health service is added unless the user registers one;
// reflection is the user's choice: reflection.Register(server).
//
// The mesh says who may connect and call (PeerAuthentication,
// AuthorizationPolicy, RequestAuthentication): whether in plain text, with the
// mesh's mutual TLS, or either, which the first bytes tell. A handler learns who
// calls from [PeerFrom]. When that changes, connections that are not admitted
// any longer are asked to leave (GOAWAY): calls that were begun are judged as
// before, and served for Config.ShutdownTimeout at most; to a caller that gives
// no sign of having heard, calls fail with UNAVAILABLE after 5 s. In the full view
// nobody is let in before the mesh has spoken. In the lean view it speaks only once the
// workload is ready, and plain text is taken until then. Every call is judged,
// those of health and reflection, too: where plain text is not admitted, have
// probes ask the QoS port. Calls that are not let in fail with
// PERMISSION_DENIED or UNAUTHENTICATED without a reason, which Config.Audit is
// told. A listener that is not TCP has no policy.
//
// grpc.Creds among the server options take the place of the mesh's TLS. Calls
// are then judged by what those credentials tell: credentials.TLSInfo with the
// caller's certificate, or plain text. What tells neither is denied. A
// grpc.StreamInterceptor runs before a stream is judged, a
// grpc.ChainStreamInterceptor and all that is unary after it. peer.Peer.LocalAddr
// of a call is no *net.TCPAddr; its text is that of one.
type Server struct {
	// Constant after newServer.
	cfg     *Config
	log     *slog.Logger
	life    *lifecycle
	hooks   serverHooks
	options []grpc.ServerOption

	phase   atomic.Int32 // a serverPhase; changed by ServeListener
	address atomic.Pointer[net.Addr]
	load    providerLoad
	health  atomic.Pointer[healthService] // nil before Serve, and where the user has one

	mu    sync.Mutex
	begun bool                  // by the one call of Serve that listens; sets is constant then
	sets  map[string]*exportSet // by interface
}

// serverHooks is what a Server learns from the mesh, and tells it.
type serverHooks struct {
	listening func(addr netip.AddrPort) // called once bound, before serving; not valid where the listener is not TCP
	left      func(addr netip.AddrPort) // called once after listening, when nothing is served any more
	answered  func() bool               // inbound configuration arrived, or its timer ended; nil means true
	trouble   func() string             // why what the mesh asks for cannot be done yet; nil and empty mean that it can
	gate      *gate                     // what connections come through; nil where there is no mesh
	refuse    *atomic.Pointer[Error]    // content: policy that cannot be evaluated; every call is refused with it
	done      <-chan struct{}           // closed with the mesh
}

// serverPhase is how far a Server has come. It only grows.
type serverPhase int32

const (
	serverMade serverPhase = iota // by newServer; exports may be registered
	serverServing
	serverDraining // still serving, but leaving
	serverStopped
)

func newServer(cfg *Config, log *slog.Logger, life *lifecycle, hooks serverHooks, opts []grpc.ServerOption) *Server {
	s := &Server{cfg: cfg, log: log, life: life, hooks: hooks, sets: make(map[string]*exportSet)}
	s.options = slices.Concat([]grpc.ServerOption{
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingInterval, PermitWithoutStream: true}),
		grpc.ChainStreamInterceptor(s.guardStream),
		grpc.UnknownServiceHandler(s.unknownMethod),
	}, gateOption(hooks.gate), cfg.ServerOptions, opts)
	life.addServer(s)
	return s
}

// gateOption makes grpc take connections in through a gate. grpc.Creds among the
// user's options come later and so take its place.
func gateOption(g *gate) []grpc.ServerOption {
	if g == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.Creds(g)}
}

// RegisterService exports an implementation without version and group; it is
// With().RegisterService.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.register(exportKey{}, desc, impl)
}

// With returns a registrar whose registrations are exported under the version
// and the group of the options.
func (s *Server) With(opts ...ExportOption) grpc.ServiceRegistrar {
	var settings exportSettings
	for _, o := range opts {
		o.applyExport(&settings)
	}
	return registrar{s, exportKey{group: settings.group, version: settings.version}}
}

type registrar struct {
	server *Server
	key    exportKey
}

// RegisterService exports an implementation under the registrar's version and
// group. Like grpc it accepts no registration once the server serves, none
// twice, and no implementation of another type: it panics.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.server.register(r.key, desc, impl)
}

func (s *Server) register(key exportKey, desc *grpc.ServiceDesc, impl any) {
	e := newExport(key, desc, impl)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		panic("proxyless: RegisterService of " + desc.ServiceName + " after Serve")
	}
	s.addLocked(e)
}

func (s *Server) addLocked(e *export) {
	desc := e.desc
	set := s.sets[desc.ServiceName]
	if set == nil {
		set = &exportSet{
			name: desc.ServiceName, methods: make(map[string]*exportMethod),
			fallBack: s.cfg.FallbackToDefault, anyVersion: infrastructure[desc.ServiceName],
			gate: s.hooks.gate, refuse: s.hooks.refuse, panicked: s.panicked,
		}
		if !set.anyVersion {
			set.load = &s.load
		}
	}
	set.add(e)
	s.sets[desc.ServiceName] = set
}

// GetServiceInfo lists the interfaces with the methods of all their exports,
// for grpc's reflection service.
func (s *Server) GetServiceInfo() map[string]grpc.ServiceInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	infos := make(map[string]grpc.ServiceInfo, len(s.sets))
	for name, set := range s.sets {
		infos[name] = set.info()
	}
	return infos
}

// Addr returns the address the server listens on, nil before it does.
func (s *Server) Addr() net.Addr {
	if addr := s.address.Load(); addr != nil {
		return *addr
	}
	return nil
}

// addrPortOf is a TCP address as the rules of the mesh write it, without the zone
// of a link-local one; not valid for others. Listeners that are wrapped may have
// types of their own.
func addrPortOf(addr net.Addr) netip.AddrPort {
	var a netip.AddrPort
	if tcp, ok := addr.(*net.TCPAddr); ok {
		a = tcp.AddrPort()
	} else if isTCP(addr) {
		a, _ = netip.ParseAddrPort(addr.String())
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func isTCP(addr net.Addr) bool { return addr != nil && strings.HasPrefix(addr.Network(), "tcp") }

func (s *Server) enter(phase serverPhase) {
	s.phase.Store(int32(phase))
	s.life.refresh()
}

// in reports whether the server is in the phase.
func (s *Server) in(phase serverPhase) bool { return s.phase.Load() == int32(phase) }

// wanted reports whether calls are wanted: the server serves, knows its inbound
// configuration, and can do what it asks for.
func (s *Server) wanted() bool { return s.in(serverServing) && s.answered() && s.trouble() == "" }

func (s *Server) answered() bool { return s.hooks.answered == nil || s.hooks.answered() }

func (s *Server) trouble() string {
	if s.hooks.trouble == nil {
		return ""
	}
	return s.hooks.trouble()
}

// unready says why the server keeps the process from being ready; empty if it
// does not.
func (s *Server) unready() string {
	switch {
	case s.in(serverMade):
		return "a server was made but does not serve yet"
	case s.in(serverDraining):
		return s.Addr().String() + " is draining"
	case s.in(serverStopped):
		return s.Addr().String() + " has stopped"
	case !s.answered():
		return s.Addr().String() + ": the mesh has not answered about its inbound configuration yet"
	}
	if trouble := s.trouble(); trouble != "" {
		return s.Addr().String() + ": " + trouble
	}
	return ""
}

// interfaces lists the service keys of the exports of each interface.
func (s *Server) interfaces() map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	interfaces := make(map[string][]string, len(s.sets))
	for name, set := range s.sets {
		if set.anyVersion {
			continue
		}
		for _, e := range set.exports {
			interfaces[name] = append(interfaces[name], set.key(e))
		}
	}
	return interfaces
}

func (s *Server) exportKeys() []string {
	return slices.Sorted(slices.Values(slices.Concat(slices.Collect(maps.Values(s.interfaces()))...)))
}
