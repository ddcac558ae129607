package proxyless

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// Serve listens on Config.Host and Config.Port and serves until ctx ends or the
// mesh is closed. Then it drains: it turns not ready, keeps serving for
// Config.ShutdownDelay while consumers learn of it, tells those connected to
// leave (GOAWAY), lets calls in flight finish for Config.ShutdownTimeout, and
// cuts what is left.
//
// It returns nil if no call was cut, else an [*Error] of [StageProvider]. A
// Server serves once; only after failing to listen may Serve be called again.
func (s *Server) Serve(ctx context.Context) error {
	if s.hasBegun() {
		return s.servedBefore()
	}
	port := max(0, s.cfg.Port) // negative: any free one
	address := net.JoinHostPort(s.cfg.Host, strconv.Itoa(port))
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return &Error{Stage: StageProvider, Resource: address, Reason: "cannot listen", Advice: listenAdvice(err), Err: err}
	}
	return s.ServeListener(ctx, lis)
}

func listenAdvice(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "another process, or another Server of this one, has the port: set Config.Port (dubbo.protocol.port, DUBBO_PORT_TO_BIND), negative for any free port"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "Config.Host (dubbo.protocol.host, DUBBO_IP_TO_BIND) must be an address of this machine, or empty for all of them"
	case errors.Is(err, syscall.EACCES):
		return "ports below 1024 need privileges: set Config.Port (dubbo.protocol.port) to a higher one"
	}
	return "check Config.Host and Config.Port (dubbo.protocol.host, dubbo.protocol.port)"
}

// ServeListener is Serve on a listener of the caller's, which is closed when it
// returns.
func (s *Server) ServeListener(ctx context.Context, lis net.Listener) error {
	defer lis.Close()
	if ctx.Err() != nil {
		return nil
	}
	if s.meshClosed() {
		return &Error{Stage: StageProvider, Resource: lis.Addr().String(), Reason: "the mesh is closed", Err: ErrClosed}
	}
	if isTCP(lis.Addr()) && !addrPortOf(lis.Addr()).IsValid() {
		return &Error{Stage: StageProvider, Resource: lis.Addr().String(), Reason: "the listener's address is no IP address with a port, so that nobody knows what the mesh demands there"}
	}
	if !s.begin(lis.Addr()) {
		return s.servedBefore()
	}
	run := s.newRun()
	if s.hooks.listening != nil {
		s.hooks.listening(addrPortOf(lis.Addr()))
	}
	if s.hooks.left != nil {
		defer s.hooks.left(addrPortOf(lis.Addr()))
	}
	s.enter(serverServing)
	s.log.Info("provider is serving", "address", lis.Addr().String(), "exports", s.exportKeys())
	go run.serve(lis) // ended by run.stop, called in drain
	select {
	case <-ctx.Done():
	case <-s.hooks.done:
	case <-run.ended:
	}
	return s.drain(run, lis.Addr())
}

func (s *Server) meshClosed() bool {
	select {
	case <-s.hooks.done:
		return true
	default:
		return false
	}
}

func (s *Server) hasBegun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// begin makes the first caller, and only it, the one who serves, and the
// exports constant. gRPC's health service joins them unless the user has one.
func (s *Server) begin(addr net.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun {
		return false
	}
	s.begun = true
	s.address.Store(&addr)
	if s.sets[healthInterface] == nil {
		h := newHealthService(s.life.refresh)
		s.addLocked(newExport(exportKey{}, &healthpb.Health_ServiceDesc, h))
		s.health.Store(h)
	}
	for _, set := range s.sets {
		set.seal()
	}
	return true
}

func (s *Server) servedBefore() error {
	return &Error{Stage: StageProvider, Reason: "Serve was called before", Advice: "make another Server with NewServer"}
}

// drain takes the provider out without losing a call: see Serve.
func (s *Server) drain(run *serverRun, addr net.Addr) error {
	s.enter(serverDraining)
	s.log.Info("provider is draining", "address", addr.String(), "delay", max(0, s.cfg.ShutdownDelay), "timeout", s.cfg.ShutdownTimeout)
	defer s.enter(serverStopped)
	run.linger(s.cfg.ShutdownDelay)
	clean := run.stop(s.cfg.ShutdownTimeout)
	switch {
	case run.err != nil:
		return &Error{Stage: StageProvider, Resource: addr.String(), Reason: "stopped accepting connections", Err: run.err}
	case !clean:
		return &Error{
			Stage: StageProvider, Resource: addr.String(),
			Reason: fmt.Sprintf("calls that did not finish within %v of the shutdown were cut", s.cfg.ShutdownTimeout),
			Advice: "raise Config.ShutdownTimeout (dubbo.service.shutdown.wait), and end long streams when the process is told to stop",
		}
	}
	s.log.Info("provider stopped", "address", addr.String())
	return nil
}

// serverRun is the life of the grpc.Server of one Serve.
type serverRun struct {
	server      *grpc.Server
	gate        *gate
	stopWatches func()        // ends the streams of health and of load reports
	ended       chan struct{} // closed by serve
	err         error         // why it ended unasked; valid once ended is closed
}

func (s *Server) newRun() *serverRun {
	load := newLoadService(&s.load)
	run := &serverRun{server: grpc.NewServer(s.options...), gate: s.hooks.gate, stopWatches: load.leave, ended: make(chan struct{})}
	for _, set := range s.sets {
		run.server.RegisterService(set.desc(), set)
	}
	if h := s.health.Load(); h != nil {
		run.stopWatches = func() { load.leave(); h.leave() }
	}
	if s.sets[orcaService] == nil { // else the user has one
		run.server.RegisterService(load.desc(), load)
	}
	return run
}

func (r *serverRun) serve(lis net.Listener) {
	defer close(r.ended)
	if err := r.server.Serve(lis); !errors.Is(err, grpc.ErrServerStopped) { // stop came first
		r.err = err
	}
}

// linger keeps serving while consumers learn that the provider leaves.
func (r *serverRun) linger(delay time.Duration) {
	timer := time.NewTimer(max(0, delay))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.ended:
	}
}

// stop sends GOAWAY, waits for the calls in flight, and after the timeout cuts
// those left. It reports whether none had to be.
func (r *serverRun) stop(timeout time.Duration) bool {
	if r.gate != nil {
		r.gate.close() // or handshakes would hold the server up
		defer r.gate.join()
	}
	r.stopWatches() // or those who watch it would hold the server up to the end
	finished := make(chan struct{})
	go func() { // ends with the last handler, whose call Stop has cancelled by the timeout at the latest
		defer close(finished)
		r.server.GracefulStop()
	}()
	timer := time.NewTimer(max(0, timeout))
	defer timer.Stop()
	clean := true
	select {
	case <-finished:
	case <-timer.C:
		clean = false
		r.server.Stop()
	}
	<-r.ended
	return clean
}
