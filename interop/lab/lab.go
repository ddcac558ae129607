package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/proxyless/proxyless/interop/kubeapi"
	"github.com/proxyless/proxyless/interop/kubelet"
	"golang.org/x/sync/errgroup"
)

// Options say what kind of cluster the lab imitates.
type Options struct {
	Programs []Program                // built before the lab starts, into [Lab.Program]
	Images   map[string]kubelet.Image // by a part of the image's name; a relative Image.Program is one of Programs

	// ClusterID is istiod's CLUSTER_ID; default "Kubernetes".
	ClusterID string
	// APIAudiences are what the API server accepts and what a token carries
	// that is asked for without an audience; default the issuer alone, as
	// clusters have it today.
	APIAudiences []string
	// IstiodEnv is added to the environment of every istiod ("KEY=value").
	IstiodEnv []string
	// MeshConfig is Istio's MeshConfig in YAML; default the trust domain alone.
	MeshConfig string
	// ProbeScale multiplies probe periods and initial delays; default 0.1.
	ProbeScale float64
	// Dir is the folder of the run; set by [Suite.Main].
	Dir string
}

func (o Options) withDefaults() Options {
	if o.ClusterID == "" {
		o.ClusterID = "Kubernetes"
	}
	if len(o.APIAudiences) == 0 {
		o.APIAudiences = []string{tokenIssuer}
	}
	if o.MeshConfig == "" {
		o.MeshConfig = "trustDomain: cluster.local\ndefaultConfig:\n  discoveryAddress: " + IstiodName + ":15012\n"
	}
	if o.ProbeScale == 0 {
		o.ProbeScale = 0.1
	}
	return o
}

// Lab is a running control plane. Its methods may be called by several
// goroutines.
type Lab struct {
	// constant after Start
	API     *kubeapi.Client  // as the administrator
	Istiod  *Istiod          // the first replica
	Kubelet *kubelet.Kubelet // runs the pods

	options    Options
	binaries   string
	data, logs string
	kubeconfig string
	meshConfig string
	keys       *keys

	mu        sync.Mutex
	processes []*process      // without istiod, in order of their start; guarded by mu
	replicas  []*Istiod       // guarded by mu
	taken     map[string]bool // addresses of workloads; guarded by mu
}

// Start brings a control plane up within the namespaces that [Suite.Main] made
// and waits until istiod is ready. [Lab.Close] ends it.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if o.Dir == "" || os.Getenv(dirVariable) == "" {
		return nil, errors.New("lab: Start must run within Suite.Main, whose namespaces it fills")
	}
	data := filepath.Join(o.Dir, dataFolder)
	l := &Lab{
		options:    o.withDefaults(),
		binaries:   os.Getenv(binVariable),
		data:       data,
		logs:       filepath.Join(o.Dir, logFolder),
		kubeconfig: filepath.Join(data, "kubeconfig"),
		meshConfig: filepath.Join(data, "mesh.yaml"),
		taken:      map[string]bool{},
	}
	l.Istiod = l.replica()
	if err := l.start(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) (err error) {
	if l.keys, err = makeKeys(filepath.Join(l.data, "keys")); err != nil {
		return err
	}
	if l.API, err = kubeapi.New(apiURL, adminToken, l.keys.rootPEM); err != nil {
		return err
	}
	if err := l.writeKubeconfig(); err != nil {
		return err
	}
	if err := os.WriteFile(l.meshConfig, []byte(l.options.MeshConfig), 0o644); err != nil {
		return err
	}
	if err := l.startEtcd(); err != nil {
		return err
	}
	if err := l.startAPIServer(ctx); err != nil {
		return err
	}
	if err := l.startControllers(); err != nil {
		return err
	}
	var group errgroup.Group
	group.Go(func() error { return l.applyCRDs(ctx) })
	group.Go(func() error { return l.startKubelet(ctx) })
	group.Go(func() error { return l.node(ctx, testNode) })
	group.Go(func() error {
		if err := l.Namespace(ctx, "istio-system"); err != nil {
			return err
		}
		return l.Istiod.Start(ctx)
	})
	return group.Wait()
}

func (l *Lab) startKubelet(ctx context.Context) (err error) {
	images := map[string]kubelet.Image{}
	for name, image := range l.options.Images {
		if !filepath.IsAbs(image.Program) {
			image.Program = l.Program(image.Program)
		}
		images[name] = image
	}
	l.Kubelet, err = kubelet.Start(ctx, kubelet.Config{
		API:        l.API,
		Images:     images,
		Bridge:     Bridge,
		Gateway:    Gateway,
		Hosts:      hosts,
		Dir:        filepath.Join(l.data, "pods"),
		Logs:       l.logs,
		ProbeScale: l.options.ProbeScale,
	})
	return err
}

// Program returns the path of a program of [Options.Programs].
func (l *Lab) Program(name string) string { return filepath.Join(l.options.Dir, "bin", name) }

// AddIstiod starts one more replica of istiod on ports of its own, with more in
// its environment ("KEY=value") where given.
func (l *Lab) AddIstiod(ctx context.Context, env ...string) (*Istiod, error) {
	i := l.replica()
	i.env = env
	return i, i.Start(ctx)
}

// AddMesh is AddIstiod for a replica with a MeshConfig of its own, in YAML.
func (l *Lab) AddMesh(ctx context.Context, meshConfig string, env ...string) (*Istiod, error) {
	i := l.replica()
	i.env = env
	if err := i.SetMeshConfig(meshConfig); err != nil {
		return nil, err
	}
	return i, i.Start(ctx)
}

func (l *Lab) replica() *Istiod {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := &Istiod{lab: l, index: len(l.replicas), meshConfig: l.meshConfig}
	l.replicas = append(l.replicas, i)
	return i
}

// Close ends everything the lab started, last first.
func (l *Lab) Close() {
	if l.Kubelet != nil {
		l.Kubelet.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.replicas {
		i.Kill()
	}
	for _, p := range slices.Backward(l.processes) {
		p.stop(time.Second)
	}
	if l.API != nil {
		l.API.Close()
	}
}

// spawn starts a component that lives as long as the lab.
func (l *Lab) spawn(name string, env []string, program string, args ...string) (*process, error) {
	p, err := startProcess(l.logs, name, env, program, args...)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.processes = append(l.processes, p)
	return p, nil
}
