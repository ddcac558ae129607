package interop

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
)

// deployDir holds the manifests that users apply.
const deployDir = "../examples/greeting/deploy"

// deployed applies the greeting's manifests in a namespace of the test's own
// and removes them when it ends.
func deployed(t *testing.T, namespace string) *lab.Lab {
	t.Helper()
	l := suite.Lab(t)
	var manifests []string
	for _, name := range []string{"namespace.yaml", "provider.yaml", "consumer.yaml"} {
		text, err := os.ReadFile(filepath.Join(deployDir, name))
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, strings.ReplaceAll(string(text), demo, namespace))
	}
	all := strings.Join(manifests, "\n---\n")
	apply(t, l, all)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		if err := l.Delete(ctx, all); err != nil {
			t.Error(err)
		}
		for _, label := range []string{"demo=consumer", "demo=provider"} {
			if _, err := l.WaitPods(ctx, namespace, label, 0); err != nil {
				t.Error(err)
			}
		}
	})
	return l
}

// TestGreeting applies the manifests as they are: providers and consumers run in
// bare roots, become ready through their probes, and each consumer hears both
// providers.
func TestGreeting(t *testing.T) {
	l := deployed(t, "greeting")
	ctx := within(t, 60*time.Second)
	providers, err := l.WaitPods(ctx, "greeting", "demo=provider", 2)
	if err != nil {
		t.Fatal(err)
	}
	consumers, err := l.WaitPods(ctx, "greeting", "demo=consumer", 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range append(providers, consumers...) {
		if got := files(t, l, "greeting", pod); !slices.Equal(got, greetingFiles) {
			t.Errorf("%s has %q in its root, want %q", pod.Name, got, greetingFiles)
		}
	}
	for _, consumer := range consumers {
		for _, provider := range providers {
			line := "result: hello, xDS Consumer! from host: " + provider.IP + "\n"
			if err := logged(ctx, consumer, line); err != nil {
				t.Error(err)
			}
		}
	}
}

// greetingFiles are all that the greeting's programs find in their root.
var greetingFiles = []string{
	"/etc/hosts",
	"/etc/istio/pod/labels",
	"/etc/resolv.conf",
	"/greeting",
	"/var/run/secrets/istio/root-cert.pem",
	"/var/run/secrets/tokens/istio-token",
}

// files lists a pod's root, without what the volumes' links point to.
func files(t testing.TB, l *lab.Lab, namespace string, p lab.Pod) []string {
	t.Helper()
	root, err := l.Kubelet.Root(namespace, p.Name)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, root)
		if err == nil && !entry.IsDir() && !strings.Contains(name, "/..") {
			found = append(found, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// logged waits until the pod has written text.
func logged(ctx context.Context, p lab.Pod, text string) error {
	return lab.WaitFor(ctx, fmt.Sprintf("%q from %s", text, p.Name), func(context.Context) error {
		out, err := os.ReadFile(p.Log)
		if err == nil && !strings.Contains(string(out), text) {
			err = fmt.Errorf("it wrote %q", out)
		}
		return err
	})
}
