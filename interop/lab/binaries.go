package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// binVariable overrides the folder in which the built programs are kept.
const binVariable = "PROXYLESS_LAB_BIN"

// crdFile is a file of resource definitions in a module that istiod requires. A
// copy is kept beside the programs.
type crdFile struct{ module, path string }

func (f crdFile) name() string { return filepath.Base(f.path) }

// crdFiles define Istio's own resources, and those of the Gateway API that
// route within the mesh.
var crdFiles = []crdFile{
	{"istio.io/istio", "manifests/charts/base/files/crd-all.gen.yaml"},
	{"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"},
	{"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml"},
	{"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_gateways.yaml"},
	{"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_gatewayclasses.yaml"},
	{"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml"},
}

// Program is a program of the project that pods run, built statically before
// the lab starts.
type Program struct {
	Name    string // file name; images refer to it
	Dir     string // folder in which the go command runs; default the test's
	Package string
}

// binaries knows where the components are built from and kept.
type binaries struct {
	dir        string // where they are kept
	tools      string // the folder of the pinning modules
	kubernetes string // version
	istio      string // version
}

// ensureBinaries builds the components that are not in the cache yet and
// returns the folder that holds them.
func ensureBinaries() (string, error) {
	b, err := locate()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(b.dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	for _, component := range b.components() {
		if err := component.ensure(b.dir); err != nil {
			return "", err
		}
	}
	return b.dir, b.ensureCRDs()
}

// locate reads the pinned versions. The cache folder carries them in its name.
func locate() (binaries, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/proxyless/proxyless/interop").Output()
	if err != nil {
		return binaries{}, fmt.Errorf("where is the interop module: %w", err)
	}
	b := binaries{tools: filepath.Join(strings.TrimSpace(string(out)), "tools")}
	if b.kubernetes, err = pinned(filepath.Join(b.tools, "kube"), "k8s.io/kubernetes"); err != nil {
		return b, err
	}
	if b.istio, err = pinned(filepath.Join(b.tools, "istiod"), "istio.io/istio"); err != nil {
		return b, err
	}
	if b.dir = os.Getenv(binVariable); b.dir != "" {
		return b, nil
	}
	cache, err := os.UserCacheDir()
	b.dir = filepath.Join(cache, "proxyless-interop", "kubernetes-"+b.kubernetes+"_istio-"+b.istio)
	return b, err
}

func pinned(dir, module string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	match := regexp.MustCompile(`(?m)^(?:require|\t)\s*` + regexp.QuoteMeta(module) + ` (v\S+)`).FindSubmatch(data)
	if match == nil {
		return "", fmt.Errorf("%s pins no version of %s", dir, module)
	}
	return string(match[1]), nil
}

// component is one program of the control plane.
type component struct {
	name, pkg, ldflags, tools string
	minutes                   int // of a cold build on two cores
}

func (b binaries) components() []component {
	kube, istiod := filepath.Join(b.tools, "kube"), filepath.Join(b.tools, "istiod")
	return []component{
		{"istiod", "istio.io/istio/pilot/cmd/pilot-discovery", "-s -w", istiod, 5},
		{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", kubernetesFlags(b.kubernetes), kube, 6},
		{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", kubernetesFlags(b.kubernetes), kube, 2},
	}
}

// kubernetesFlags stamps the version, which clients read and which is 0.0.0
// otherwise.
func kubernetesFlags(version string) string {
	const variable = " -X k8s.io/component-base/version."
	part := strings.Split(strings.TrimPrefix(version, "v"), ".")
	return "-s -w" + variable + "gitVersion=" + version + variable + "gitMajor=" + part[0] + variable + "gitMinor=" + part[1]
}

// ensure builds the component unless it is there. The file appears whole.
func (c component) ensure(dir string) error {
	target := filepath.Join(dir, c.name)
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	fmt.Fprintf(os.Stderr, "lab: building %s, once (cold it takes about %d minutes) ...\n", c.name, c.minutes)
	began := time.Now()
	build := exec.Command("go", "build", "-ldflags", c.ldflags, "-o", target+".new", c.pkg)
	build.Dir = c.tools
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build %s: %w", c.name, err)
	}
	fmt.Fprintf(os.Stderr, "lab: built %s in %v\n", target, time.Since(began).Round(time.Second))
	return os.Rename(target+".new", target)
}

// ensureCRDs copies the resource definitions out of their modules.
func (b binaries) ensureCRDs() error {
	for _, f := range crdFiles {
		if err := b.ensureCRD(f); err != nil {
			return err
		}
	}
	return nil
}

func (b binaries) ensureCRD(f crdFile) error {
	target := filepath.Join(b.dir, f.name())
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	find := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", f.module)
	find.Dir = filepath.Join(b.tools, "istiod")
	out, err := find.Output()
	if err != nil {
		return fmt.Errorf("where is %s: %w", f.module, err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), f.path))
	if err != nil {
		return err
	}
	if err := os.WriteFile(target+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

// lock keeps two runs from building the same files.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// ensureEtcd installs etcd from the distribution where it is missing.
func ensureEtcd() error {
	if _, err := exec.LookPath("etcd"); err == nil {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return errors.New("etcd is missing and there is no apt-get to install it with; install etcd-server")
	}
	fmt.Fprintln(os.Stderr, "lab: installing etcd-server")
	for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "etcd-server"}} {
		if out, err := exec.Command(apt, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	_, err = exec.LookPath("etcd")
	return err
}

// buildPrograms builds the project's own programs as a container image would
// hold them: static.
func buildPrograms(dir string, programs []Program) error {
	for _, p := range programs {
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, p.Name), p.Package)
		build.Dir = p.Dir
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p.Package, err, out)
		}
	}
	return nil
}
