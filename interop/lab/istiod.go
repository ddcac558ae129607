package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// IstiodName is the name in istiod's certificate, which every pod and the test
// process resolve to [Gateway].
const IstiodName = "istiod.istio-system.svc"

// Istiod is one replica of the control plane. All replicas share one root.
type Istiod struct {
	// constant after construction
	lab   *Lab
	index int
	env   []string // beside that of all replicas

	// meshConfig is its file: that of all replicas, or one of its own.
	meshConfig string

	mu      sync.Mutex
	process *process // nil while it is down; guarded by mu
}

// port returns the replica's own port in place of istiod's usual one.
func (i *Istiod) port(usual int) int { return usual + 100*i.index }

// Secure is the address for TLS and tokens, by name: 15012 for the first replica.
func (i *Istiod) Secure() string {
	return net.JoinHostPort(IstiodName, strconv.Itoa(i.port(15012)))
}

// Plain is the address without TLS, by name: 15010 for the first replica.
func (i *Istiod) Plain() string {
	return net.JoinHostPort(IstiodName, strconv.Itoa(i.port(15010)))
}

// DebugURL is the base of istiod's /ready and /debug pages.
func (i *Istiod) DebugURL() string {
	return "http://127.0.0.1:" + strconv.Itoa(i.port(18080))
}

// Metric is the present value of one of the replica's own metrics, by its name
// with labels as they are written there; 0 where it has none such.
func (i *Istiod) Metric(ctx context.Context, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(i.port(15014))+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		if rest, found := strings.CutPrefix(line, name+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, nil
}

// Start brings the replica up on its ports and waits until it is ready. A
// replica that runs already is left alone.
func (i *Istiod) Start(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil && i.process.failure() == nil {
		return nil
	}
	name := "istiod-" + strconv.Itoa(i.index)
	local := func(port int) string { return "127.0.0.1:" + strconv.Itoa(i.port(port)) }
	open := func(port int) string { return ":" + strconv.Itoa(i.port(port)) }
	env := append([]string{
		"POD_NAME=" + name, "POD_NAMESPACE=istio-system", "SERVICE_ACCOUNT=istiod",
		"REVISION=default", "CLUSTER_ID=" + i.lab.options.ClusterID,
		"ISTIOD_CUSTOM_HOST=localhost",
	}, slices.Concat(i.lab.options.IstiodEnv, i.env)...)
	p, err := startProcess(i.lab.logs, name, env, filepath.Join(i.lab.binaries, "istiod"), "discovery",
		"--kubeconfig", i.lab.kubeconfig, "--meshConfig", i.meshConfig, "--domain", "cluster.local",
		"--grpcAddr", open(15010), "--secureGRPCAddr", open(15012),
		"--httpsAddr", local(15017), "--httpAddr", local(18080), "--monitoringAddr", local(15014))
	if err != nil {
		return err
	}
	i.process = p
	return p.ready(ctx, httpReady(i.DebugURL()+"/ready"))
}

// SetMeshConfig gives the replica a MeshConfig of its own, in YAML. One that has
// such and runs takes a change up by itself, soon.
func (i *Istiod) SetMeshConfig(text string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.meshConfig = filepath.Join(i.lab.data, fmt.Sprintf("mesh-%d.yaml", i.index))
	next := i.meshConfig + ".next"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(next, i.meshConfig)
}

// Kill ends the replica as a crash does (SIGKILL): its connections are reset.
func (i *Istiod) Kill() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil {
		i.process.kill()
		i.process = nil
	}
}

// Freeze stops the replica without ending it (SIGSTOP): its connections stay
// open and silent. [Istiod.Kill] ends it for good.
func (i *Istiod) Freeze() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil {
		i.process.freeze()
	}
}

// Stop ends the replica as a rollout does (SIGTERM).
func (i *Istiod) Stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process != nil {
		i.process.stop(10 * time.Second)
		i.process = nil
	}
}

// Restart kills the replica and starts it again on the same ports.
func (i *Istiod) Restart(ctx context.Context) error {
	i.Kill()
	if err := i.Start(ctx); err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	return nil
}
