// Package kubelet imitates the part of a kubelet that a program can notice: it
// runs every Pod of the API server as the first process of its own process and
// network namespace, in a root directory that holds the image's files and the
// pod's volumes and nothing else, probes it from outside, and stops it as a
// kubelet does (preStop, SIGTERM, grace period, SIGKILL).
//
// There is no container runtime: an image is a static program of this machine,
// chosen by a part of the image's name. One container a pod; init containers,
// exec handlers, envFrom and unknown kinds of volumes are refused, not passed
// over. Users and groups are as the security context has them; capabilities,
// seccomp profiles and resource limits are not enforced.
package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/proxyless/proxyless/interop/kubeapi"
)

// node is the name of the one node there is.
const node = "lab"

// Locality are the labels of the node: where all pods are.
var Locality = map[string]string{
	"topology.kubernetes.io/region": "region-1",
	"topology.kubernetes.io/zone":   "zone-1",
}

// Image is what stands for a container image.
type Image struct {
	Program    string            // static program on this machine
	EntryPoint string            // its path in the image; default "/" and its file name
	Files      map[string]string // further files: path in the image to path on this machine
	Args       []string          // used where the container has none
	Env        []string          // "KEY=value", overridden by the container's
}

// Config is what a kubelet needs to know.
type Config struct {
	API        *kubeapi.Client
	Images     map[string]Image // by a part of the image's name
	Bridge     string           // device that joins the pods
	Gateway    netip.Addr       // address of this machine on it; pods get its /24
	Hosts      []string         // lines of every pod's /etc/hosts
	Dir        string           // the pods' roots
	Logs       string           // kubelet.log and the pods' output
	ProbeScale float64          // multiplies probe periods and initial delays
}

// Kubelet runs pods until it is closed.
type Kubelet struct {
	// constant after construction
	config  Config
	cancel  context.CancelFunc
	watched chan struct{} // closed when the watch has ended
	log     *os.File

	mu      sync.Mutex
	workers map[string]*worker // by the pod's UID; guarded by mu
	network addresses          // guarded by mu
}

// Start makes the Node object and begins to run pods. ctx bounds the start
// only; [Kubelet.Close] ends it.
func Start(ctx context.Context, c Config) (*Kubelet, error) {
	for _, dir := range []string{c.Dir, filepath.Join(c.Logs, "pods")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(filepath.Join(c.Logs, "kubelet.log"))
	if err != nil {
		return nil, err
	}
	err = c.API.Create(ctx, "/api/v1/nodes", map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": node, "labels": Locality},
	}, nil)
	if err != nil {
		log.Close()
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	running, cancel := context.WithCancel(context.Background())
	k := &Kubelet{config: c, cancel: cancel, watched: make(chan struct{}), log: log, workers: map[string]*worker{}}
	go k.watch(running) // ends by Close
	return k, nil
}

// Close kills all pods and removes their namespaces and roots. The Pod objects
// stay as they are.
func (k *Kubelet) Close() {
	k.cancel()
	<-k.watched
	for _, w := range k.running() {
		<-w.finished
	}
	k.config.API.Close()
	k.log.Close()
}

// LogFile is where the output of a pod's program goes, all restarts in one file.
func (k *Kubelet) LogFile(namespace, name string) string {
	return filepath.Join(k.config.Logs, "pods", namespace+"_"+name+".log")
}

// Journal is the kubelet's own log: starts, failed probes, readiness, signals
// and exit codes of all pods.
func (k *Kubelet) Journal() string { return k.log.Name() }

// Dial connects to a port of a running pod's own loopback interface, as kubectl
// port-forward does.
func (k *Kubelet) Dial(ctx context.Context, namespace, name string, port int) (net.Conn, error) {
	w := k.find(namespace, name)
	if w == nil {
		return nil, fmt.Errorf("kubelet: no pod %s/%s", namespace, name)
	}
	return dialWithin(ctx, w.netns(), port)
}

// Root is the root directory of a running pod, as seen from this machine.
func (k *Kubelet) Root(namespace, name string) (string, error) {
	w := k.find(namespace, name)
	if w == nil {
		return "", fmt.Errorf("kubelet: no pod %s/%s", namespace, name)
	}
	return w.root, nil
}

// Refresh writes the pod's volumes anew, as a kubelet does from time to time:
// fresh tokens, changed ConfigMaps.
func (k *Kubelet) Refresh(ctx context.Context, namespace, name string) error {
	w := k.find(namespace, name)
	if w == nil {
		return fmt.Errorf("kubelet: no pod %s/%s", namespace, name)
	}
	return w.writeVolumes(ctx)
}

// Kill sends SIGKILL to the pod's program, as the kernel does to one that has
// used up its memory. The pod is restarted as its policy has it.
func (k *Kubelet) Kill(namespace, name string) error {
	w := k.find(namespace, name)
	if w == nil {
		return fmt.Errorf("kubelet: no pod %s/%s", namespace, name)
	}
	return w.crash()
}

func (k *Kubelet) find(namespace, name string) *worker {
	for _, w := range k.running() {
		if w.pod.Metadata.Namespace == namespace && w.pod.Metadata.Name == name {
			return w
		}
	}
	return nil
}

func (k *Kubelet) running() []*worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []*worker
	for _, w := range k.workers {
		all = append(all, w)
	}
	return all
}

// watch follows the pods and gives each a worker.
func (k *Kubelet) watch(ctx context.Context) {
	defer close(k.watched)
	k.config.API.Watch(ctx, "/api/v1/pods", kubeapi.Watcher{
		List: func(objects []json.RawMessage) {
			seen := map[string]bool{}
			for _, object := range objects {
				seen[k.changed(ctx, false, object)] = true
			}
			for _, w := range k.running() {
				if !seen[w.pod.Metadata.UID] {
					w.delete(0)
				}
			}
		},
		Change: func(deleted bool, object json.RawMessage) { k.changed(ctx, deleted, object) },
	})
}

// changed acts on one pod's new state and returns its UID.
func (k *Kubelet) changed(ctx context.Context, gone bool, object json.RawMessage) string {
	var p pod
	if err := json.Unmarshal(object, &p); err != nil {
		k.logf("pod not understood: %v", err)
		return ""
	}
	if p.Spec.NodeName != "" && p.Spec.NodeName != node {
		return p.Metadata.UID
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.workers[p.Metadata.UID]
	switch {
	case gone:
		if w != nil {
			w.delete(0)
		}
	case w == nil:
		w = newWorker(k, p)
		k.workers[p.Metadata.UID] = w
		go w.run(ctx) // ends with the pod or by Close
		fallthrough
	default:
		if p.Metadata.DeletionTimestamp != "" {
			w.delete(p.grace())
		}
	}
	return p.Metadata.UID
}

// grace is how long the pod may take to stop.
func (p pod) grace() time.Duration {
	if p.Metadata.DeletionGracePeriodSeconds == nil {
		return 30 * time.Second
	}
	return time.Duration(*p.Metadata.DeletionGracePeriodSeconds) * time.Second
}

// forget takes a finished worker out of the books.
func (k *Kubelet) forget(w *worker) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.workers, w.pod.Metadata.UID)
	k.network.release(w.number)
}

// image finds what stands for the image; the longest matching part wins.
func (k *Kubelet) image(name string) (Image, error) {
	best, found := "", false
	for part := range k.config.Images {
		if strings.Contains(name, part) && (!found || len(part) > len(best)) {
			best, found = part, true
		}
	}
	if !found {
		return Image{}, fmt.Errorf("no program stands for image %q", name)
	}
	return k.config.Images[best], nil
}

func (k *Kubelet) logf(format string, args ...any) {
	fmt.Fprintf(k.log, time.Now().Format("15:04:05.000 ")+format+"\n", args...)
}
