package proxyless

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const healthInterface = "grpc.health.v1.Health"

// lifecycle is the one truth about whether this process should get calls. The
// probes and commands of QoS, gRPC's health service and the drain of a Server
// all read it and so agree. Live and started it is from the beginning: neither
// depends on the mesh, so that no trouble there makes Kubernetes restart a
// process that does no wrong.
type lifecycle struct {
	log *slog.Logger

	mu         sync.Mutex
	references func() []referenceState
	servers    []*Server
	out        map[string]bool // service keys that were taken offline

	pushing   sync.Mutex // held while readiness is judged and pushed, so that the last push is the newest; taken before mu
	lastReady bool
}

// referenceState is what became of one reference.
type referenceState struct {
	Interface, Version, Group, ProvidedBy string

	Port             int
	Answered         bool // the mesh said what there is, or that there is nothing
	Endpoints, Ready int  // known, and connected
	Problem          string
}

// exportState is one export as QoS shows it.
type exportState struct {
	Key     string // service key
	Serving bool   // calls from the mesh are wanted
}

func newLifecycle(log *slog.Logger) *lifecycle {
	return &lifecycle{log: log, out: make(map[string]bool)}
}

// setReferences says where to ask for what is referred to. The function is
// called without mu, by probes and by refresh.
func (l *lifecycle) setReferences(f func() []referenceState) {
	l.mu.Lock()
	l.references = f
	l.mu.Unlock()
	l.refresh()
}

// addServer makes readiness depend on the server. It takes the place of those
// that have stopped.
func (l *lifecycle) addServer(s *Server) {
	l.mu.Lock()
	l.servers = append(slices.DeleteFunc(l.servers, func(old *Server) bool { return old.in(serverStopped) }), s)
	l.mu.Unlock()
	l.refresh()
}

// live says that the process answers.
func (l *lifecycle) live() (ok bool, why []string) { return true, nil }

// startup says that Join has returned, since QoS opens in it.
func (l *lifecycle) startup() (ok bool, why []string) { return true, nil }

// ready says whether the process should get calls and can make its own, and if
// not, every reason. It tells gRPC's health services the same, and logs when
// the answer turned.
func (l *lifecycle) ready() (ok bool, why []string) {
	l.pushing.Lock()
	defer l.pushing.Unlock()
	ok, why = l.judge()
	l.logTurn(ok, why)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.servers {
		if h := s.health.Load(); h != nil {
			l.pushLocked(h, s, ok)
		}
	}
	return ok, why
}

// refresh is ready for those who change what readiness depends on, so that
// whoever watches a health service learns of it; who asks gets a fresh answer
// in any case. Neither may be called while holding a lock that the references
// function takes.
func (l *lifecycle) refresh() { l.ready() }

func (l *lifecycle) judge() (ok bool, why []string) {
	references := l.referenceStates()
	l.mu.Lock()
	servers := slices.Clone(l.servers)
	l.mu.Unlock()
	if len(servers) == 0 && len(references) == 0 {
		return false, []string{"nothing exported or referred yet"}
	}
	for _, s := range servers {
		if reason := s.unready(); reason != "" {
			why = append(why, reason)
		}
	}
	if l.allOffline() {
		why = append(why, "taken offline through QoS")
	}
	for _, r := range references {
		if !r.Answered {
			why = append(why, r.unanswered())
		}
	}
	return len(why) == 0, why
}

func (r referenceState) key() string { return serviceKey(r.Group, r.Interface, r.Version) }

func (r referenceState) unanswered() string {
	text := r.key() + ": the mesh has not answered yet"
	if r.Problem != "" {
		text += ": " + r.Problem
	}
	return text
}

func (l *lifecycle) referenceStates() []referenceState {
	l.mu.Lock()
	references := l.references
	l.mu.Unlock()
	if references == nil {
		return nil
	}
	return references()
}

// offline takes the exports whose service key or interface the pattern matches
// as a whole out of service: they are served on, but gRPC's health service says
// NOT_SERVING, and once all exports are out the process is not ready, upon
// which the mesh takes its address out. The mesh knows addresses, not
// interfaces, so one export of several cannot leave on its own.
// The empty pattern matches all. It reports whether any matched.
func (l *lifecycle) offline(pattern string) (found bool, err error) {
	return l.switchOver(pattern, true)
}

// online reverts offline.
func (l *lifecycle) online(pattern string) (found bool, err error) {
	return l.switchOver(pattern, false)
}

func (l *lifecycle) switchOver(pattern string, out bool) (found bool, err error) {
	if pattern == "" {
		pattern = ".*"
	}
	matcher, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	for _, s := range l.servers {
		for name, keys := range s.interfaces() {
			for _, key := range keys {
				if matcher.MatchString(key) || matcher.MatchString(name) {
					found = true
					l.out[key] = out
				}
			}
		}
	}
	l.mu.Unlock()
	l.refresh()
	return found, nil
}

// exports lists what the servers export, sorted by service key.
func (l *lifecycle) exports() []exportState {
	l.mu.Lock()
	defer l.mu.Unlock()
	var states []exportState
	for _, s := range l.servers {
		for _, keys := range s.interfaces() {
			for _, key := range keys {
				states = append(states, exportState{Key: key, Serving: s.wanted() && !l.out[key]})
			}
		}
	}
	slices.SortFunc(states, func(a, b exportState) int { return strings.Compare(a.Key, b.Key) })
	return states
}

// refusal is the first reason for which a server refuses every call.
func (l *lifecycle) refusal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.servers {
		if s.hooks.refuse == nil {
			continue
		}
		if err := s.hooks.refuse.Load(); err != nil {
			return err
		}
	}
	return nil
}

func (l *lifecycle) allOffline() bool {
	exports := l.exports()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range exports {
		if !l.out[e.Key] {
			return false
		}
	}
	return len(exports) > 0
}

func (l *lifecycle) logTurn(ready bool, why []string) {
	if ready == l.lastReady {
		return
	}
	l.lastReady = ready
	if ready {
		l.log.Info("ready")
		return
	}
	l.log.Info("not ready", "why", strings.Join(why, "; "))
}

// pushLocked tells the health service the state of the process under the empty
// name, of each export under its service key, and of each interface under its
// name: serving if any of its exports is.
func (l *lifecycle) pushLocked(h *healthService, s *Server, ready bool) {
	h.set("", ready)
	for name, keys := range s.interfaces() {
		any := false
		for _, key := range keys {
			serving := s.wanted() && !l.out[key]
			any = any || serving
			h.set(key, serving)
		}
		h.set(name, any)
	}
}

// healthService is gRPC's health service over the lifecycle.
type healthService struct {
	*health.Server
	refresh func()
	leaving context.Context // ends when watchers are to go
	leave   context.CancelFunc
}

func newHealthService(refresh func()) *healthService {
	h := &healthService{Server: health.NewServer(), refresh: refresh}
	h.leaving, h.leave = context.WithCancel(context.Background())
	h.set("", false)
	return h
}

func (h *healthService) set(service string, serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	h.SetServingStatus(service, state)
}

// Check answers for the process (empty service), an interface, or a service
// key; NOT_FOUND for others.
func (h *healthService) Check(ctx context.Context, request *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	h.refresh()
	return h.Server.Check(ctx, request)
}

// List answers for all of them.
func (h *healthService) List(ctx context.Context, request *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	h.refresh()
	return h.Server.List(ctx, request)
}

// Watch tells the state and each change of it until the server drains: a
// watcher is not a call in flight.
func (h *healthService) Watch(request *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	h.refresh()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(h.leaving, cancel)()
	err := h.Server.Watch(request, watchStream{stream, ctx})
	if h.leaving.Err() != nil {
		return status.Error(codes.Unavailable, "proxyless: provider: the server is stopping")
	}
	return err
}

// watchStream is a stream with a shorter life.
type watchStream struct {
	healthpb.Health_WatchServer
	ctx context.Context
}

func (s watchStream) Context() context.Context { return s.ctx }
