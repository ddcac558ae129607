package kubelet

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/proxyless/proxyless/interop/kubeapi"
)

// The wait before a crashed program is started again, doubled each time.
const (
	firstRestart = 200 * time.Millisecond
	lastRestart  = 5 * time.Second
)

// worker runs one pod from its binding to its removal.
type worker struct {
	// constant after construction
	kubelet  *Kubelet
	pod      pod
	root     string
	finished chan struct{} // closed when nothing of the pod is left
	deleted  chan struct{} // closed when the pod is to stop

	// set by prepare, before the program runs
	number  int        // last byte of the address
	ip      netip.Addr // on the bridge
	image   Image
	started time.Time

	mu       sync.Mutex
	grace    time.Duration // how long stopping may take; set once, before deleted is closed
	process  *os.Process   // nil while the program is down
	state    state
	restarts int
}

// state is what the Pod object says of its container.
type state struct {
	started bool   // the startup probe has passed
	ready   bool   // the readiness probe passes
	waiting string // why there is no program; empty while there is one
	ended   *int   // exit code of a program that is not restarted
}

func newWorker(k *Kubelet, p pod) *worker {
	return &worker{
		kubelet:  k,
		pod:      p,
		root:     filepath.Join(k.config.Dir, p.Metadata.UID),
		finished: make(chan struct{}),
		deleted:  make(chan struct{}),
	}
}

func (w *worker) String() string { return w.pod.Metadata.Namespace + "/" + w.pod.Metadata.Name }

func (w *worker) path(suffix string) string {
	return "/api/v1/namespaces/" + w.pod.Metadata.Namespace + "/pods/" + w.pod.Metadata.Name + suffix
}

// delete makes the pod stop within grace. Only the first call counts.
func (w *worker) delete(grace time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.deleted:
	default:
		w.grace = grace
		close(w.deleted)
	}
}

// run is the life of the pod.
func (w *worker) run(ctx context.Context) {
	defer close(w.finished)
	defer w.kubelet.forget(w)
	defer w.release()
	if err := w.prepare(ctx); err != nil {
		w.kubelet.logf("%v: %v", w, err)
		w.report(ctx, func(s *state) { s.waiting = err.Error() })
		wait(ctx, w.deleted, 0)
	} else {
		w.runProgram(ctx)
	}
	if ctx.Err() == nil {
		err := w.kubelet.config.API.Delete(ctx, w.path(""), 0)
		if err != nil && !kubeapi.IsNotFound(err) {
			w.kubelet.logf("%v: %v", w, err)
		}
	}
}

// prepare binds the pod to this node and makes its network and its root.
func (w *worker) prepare(ctx context.Context) error {
	if w.pod.Spec.NodeName == "" {
		err := w.kubelet.config.API.Create(ctx, w.path("/binding"), map[string]any{
			"apiVersion": "v1", "kind": "Binding",
			"metadata": map[string]any{"name": w.pod.Metadata.Name},
			"target":   map[string]any{"apiVersion": "v1", "kind": "Node", "name": node},
		}, nil)
		if err != nil && !kubeapi.IsConflict(err) {
			return err
		}
	}
	if err := w.supported(); err != nil {
		return err
	}
	var err error
	if w.image, err = w.kubelet.image(w.container().Image); err != nil {
		return err
	}
	if err := w.joinNetwork(); err != nil {
		return err
	}
	if err := w.makeRoot(); err != nil {
		return err
	}
	return w.untilDeleted(ctx, w.writeVolumes)
}

// supported refuses what would otherwise be silently left out.
func (w *worker) supported() error {
	spec := w.pod.Spec
	if len(spec.Containers) != 1 || len(spec.InitContainers) > 0 {
		return fmt.Errorf("one container and no init container can be imitated, not %d and %d",
			len(spec.Containers), len(spec.InitContainers))
	}
	c := w.container()
	if len(c.EnvFrom) > 0 {
		return fmt.Errorf("container %s: envFrom is not imitated", c.Name)
	}
	handlers := map[string]*probe{"startupProbe": c.StartupProbe, "readinessProbe": c.ReadinessProbe, "livenessProbe": c.LivenessProbe}
	for name, p := range handlers {
		if p != nil && p.Exec != nil {
			return fmt.Errorf("container %s: exec in %s is not imitated", c.Name, name)
		}
	}
	if hook := c.Lifecycle.PreStop; hook != nil && hook.Exec != nil {
		return fmt.Errorf("container %s: exec in preStop is not imitated", c.Name)
	}
	return nil
}

func (w *worker) container() *container { return &w.pod.Spec.Containers[0] }

// untilDeleted tries again until f succeeds: what a volume is made of may not
// be there yet.
func (w *worker) untilDeleted(ctx context.Context, f func(context.Context) error) error {
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		w.kubelet.logf("%v: %v", w, err)
		w.report(ctx, func(s *state) { s.waiting = err.Error() })
		if wait(ctx, w.deleted, 200*time.Millisecond) {
			return err
		}
	}
}

// runProgram starts the program again and again until the pod is deleted or
// its restart policy ends it.
func (w *worker) runProgram(ctx context.Context) {
	pause := firstRestart
	for {
		code, err := w.runOnce(ctx)
		w.kubelet.logf("%v: ended with code %d %v", w, code, errText(err))
		if w.isDeleted() || ctx.Err() != nil {
			return
		}
		if policy := w.pod.Spec.RestartPolicy; policy == "Never" || policy == "OnFailure" && code == 0 {
			w.report(ctx, func(s *state) { *s = state{ended: &code} })
			wait(ctx, w.deleted, 0)
			return
		}
		w.report(ctx, func(s *state) { *s = state{waiting: fmt.Sprintf("the program ended with code %d", code)} })
		if wait(ctx, w.deleted, pause) {
			return
		}
		pause = min(2*pause, lastRestart)
		w.mu.Lock()
		w.restarts++
		w.mu.Unlock()
	}
}

// runOnce starts the program, probes it, and returns its exit code when it has
// ended, of its own will or because it had to.
func (w *worker) runOnce(ctx context.Context) (code int, err error) {
	ended := make(chan int, 1)
	if err := w.start(ctx, ended); err != nil {
		w.report(ctx, func(s *state) { s.waiting = err.Error() })
		return -1, err
	}
	probing, cancel := context.WithCancel(ctx)
	unhealthy := make(chan string, 1)
	probed := make(chan struct{})
	go func() { // ends by cancel
		defer close(probed)
		w.probe(probing, unhealthy)
	}()
	defer func() { cancel(); <-probed }()
	w.report(ctx, func(s *state) { *s = state{} })
	grace := 30 * time.Second
	select {
	case code := <-ended:
		return code, nil
	case <-ctx.Done():
		grace = 0
	case why := <-unhealthy:
		w.kubelet.logf("%v: %s", w, why)
	case <-w.deleted:
		w.mu.Lock()
		grace = w.grace
		w.mu.Unlock()
	}
	return w.terminate(ctx, grace, ended), nil
}

// start runs the program and sends its exit code to ended.
func (w *worker) start(ctx context.Context, ended chan<- int) error {
	c, err := w.command(ctx)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(w.kubelet.LogFile(w.pod.Metadata.Namespace, w.pod.Metadata.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	if err := startWithin(c, w.netns(), w.pod.Metadata.Name); err != nil {
		return err
	}
	w.mu.Lock()
	w.process, w.started = c.Process, time.Now()
	w.mu.Unlock()
	w.kubelet.logf("%v: started on %v as process %d", w, w.ip, c.Process.Pid)
	go func() { // ends with the program
		c.Wait()
		w.mu.Lock()
		w.process = nil
		w.mu.Unlock()
		ended <- c.ProcessState.ExitCode()
	}()
	return nil
}

// terminate stops the program: preStop, SIGTERM, and SIGKILL when grace, which
// began with preStop, is over.
func (w *worker) terminate(ctx context.Context, grace time.Duration, ended <-chan int) int {
	over := time.Now().Add(grace)
	if grace > 0 {
		w.preStop(ctx, grace)
		w.signal(syscall.SIGTERM)
		w.kubelet.logf("%v: SIGTERM", w)
	}
	timer := time.NewTimer(time.Until(over))
	defer timer.Stop()
	select {
	case code := <-ended:
		return code
	case <-ctx.Done():
	case <-timer.C:
		w.kubelet.logf("%v: SIGKILL", w)
	}
	w.signal(syscall.SIGKILL)
	return <-ended
}

// crash kills the program without a word.
func (w *worker) crash() error { return w.signal(syscall.SIGKILL) }

func (w *worker) signal(s syscall.Signal) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.process == nil {
		return fmt.Errorf("kubelet: the program of %v is not running", w)
	}
	return w.process.Signal(s)
}

func (w *worker) isDeleted() bool {
	select {
	case <-w.deleted:
		return true
	default:
		return false
	}
}

// release removes what the pod had of this machine.
func (w *worker) release() {
	if w.number != 0 {
		if err := w.leaveNetwork(); err != nil {
			w.kubelet.logf("%v: %v", w, err)
		}
	}
	if err := os.RemoveAll(w.root); err != nil {
		w.kubelet.logf("%v: %v", w, err)
	}
}

// wait returns true when ctx or stop ends within d, which 0 makes unlimited.
func wait(ctx context.Context, stop <-chan struct{}, d time.Duration) bool {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
		return true
	case <-stop:
		return true
	case <-over:
		return false
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return "(" + err.Error() + ")"
}
