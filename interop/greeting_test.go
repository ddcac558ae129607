package interop

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
)

// deployDir holds the manifests that users apply.
const deployDir = "../examples/greeting/deploy"

// deployed applies some of the greeting's manifests in a namespace of the
// test's own and removes them when it ends.
func deployed(t *testing.T, namespace string, files ...string) *lab.Lab {
	t.Helper()
	l := suite.Lab(t)
	must(t, l.Namespace(soon(t), namespace))
	var manifests []string
	for _, name := range files {
		manifests = append(manifests, strings.ReplaceAll(readFile(t, filepath.Join(deployDir, name)), demo, namespace))
	}
	all := strings.Join(manifests, "\n---\n")
	apply(t, l, all)
	t.Cleanup(func() {
		removeManifest(t, l, all)
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		for _, label := range []string{"demo=consumer", "demo=provider"} {
			if _, err := l.WaitPods(ctx, namespace, label, 0); err != nil {
				t.Error(err)
			}
		}
	})
	return l
}

const (
	greetingNamespace = "greeting"
	providerName      = "dubbo-samples-xds-provider"
	consumerName      = "dubbo-samples-xds-consumer"
)

// TestGreeting applies the manifests as they are: providers and consumers run
// in bare roots, become ready through their probes, and each consumer hears
// both providers. Then providers leave in the ways they do in a cluster, and no
// call fails.
func TestGreeting(t *testing.T) {
	t.Parallel()
	l := deployed(t, greetingNamespace, "namespace.yaml", "provider.yaml", "consumer.yaml")
	ctx := within(t, 60*time.Second)
	providers, err := l.WaitPods(ctx, greetingNamespace, "demo=provider", 2)
	must(t, err)
	consumers, err := l.WaitPods(ctx, greetingNamespace, "demo=consumer", 2)
	must(t, err)
	expectHosts(t, consumers, providers...)
	for _, pod := range append(providers, consumers...) {
		if got := files(t, l, greetingNamespace, pod); !slices.Equal(got, greetingFiles) {
			t.Errorf("%s has %q in its root, want %q", pod.Name, got, greetingFiles)
		}
	}
	t.Run("offline and online", func(t *testing.T) { takeOut(t, l, providers, consumers) })
	t.Run("policies", func(t *testing.T) { secure(t, l, providers, consumers) })
	t.Run("rollout", func(t *testing.T) { rollOut(t, l, providers, consumers) })
	t.Run("consumers end", func(t *testing.T) {
		ctx := within(t, 30*time.Second)
		must(t, l.Scale(ctx, greetingNamespace, consumerName, 0))
		_, err := l.WaitPods(ctx, greetingNamespace, "demo=consumer", 0)
		must(t, err)
		expectEndedWell(t, l, consumers)
	})
}

// takeOut takes a provider out through the loopback interface of its pod, and
// puts it back.
func takeOut(t *testing.T, l *lab.Lab, providers, consumers []lab.Pod) {
	lost := failedCalls(t, consumers)
	out := providers[0]
	if code, text := get(t, http.DefaultClient, "http://"+out.IP+":22222/offline"); code != http.StatusForbidden {
		t.Errorf("/offline from another pod: %d %q", code, text)
	}
	inPod := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return l.Kubelet.Dial(ctx, greetingNamespace, out.Name, 22222)
		},
	}}
	if code, text := get(t, inPod, "http://localhost:22222/offline"); code != http.StatusOK || text != "OK" {
		t.Errorf("/offline: %d %q", code, text)
	}
	expectReady(t, l, out, false)
	expectHosts(t, consumers, providers[1:]...)
	if code, text := get(t, inPod, "http://localhost:22222/online"); code != http.StatusOK || text != "OK" {
		t.Errorf("/online: %d %q", code, text)
	}
	expectReady(t, l, out, true)
	expectHosts(t, consumers, providers...)
	lost("while a provider was offline")
}

// secure applies the policies that come with the manifests, one after the
// other, as docs/security.md has it, and then one that lets somebody else in.
// What was applied stays for what comes after.
func secure(t *testing.T, l *lab.Lab, providers, consumers []lab.Pod) {
	policy := func(name string) string {
		return strings.ReplaceAll(readFile(t, filepath.Join(deployDir, "policy", name)), demo, greetingNamespace)
	}
	ls := func(p lab.Pod) string {
		_, text := get(t, &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return l.Kubelet.Dial(ctx, greetingNamespace, p.Name, 22222)
			},
		}}, "http://localhost:22222/ls")
		return text
	}
	lost := failedCalls(t, consumers)
	apply(t, l, policy("mutual.yaml"))
	expectHosts(t, consumers, providers...)
	for _, p := range providers {
		must(t, lab.WaitFor(within(t, 30*time.Second), p.Name+" to be called in plain text no more", func(context.Context) error {
			text := ls(p)
			if _, callers, _ := strings.Cut(text, "Plain text from "); strings.Contains(callers, " open") {
				return fmt.Errorf("/ls says %s", text)
			}
			return nil
		}))
	}
	apply(t, l, policy("strict.yaml"))
	for _, p := range providers {
		must(t, lab.WaitFor(within(t, 30*time.Second), p.Name+" to be strict", func(context.Context) error {
			if text := ls(p); !strings.Contains(text, "STRICT") {
				return fmt.Errorf("/ls says %s", text)
			}
			return nil
		}))
	}
	expectHosts(t, consumers, providers...)
	enforced := strings.Replace(policy("authorization.yaml"), `istio.io/dry-run: "true"`, `istio.io/dry-run: "false"`, 1)
	for _, manifest := range []string{policy("authorization.yaml"), enforced} {
		apply(t, l, manifest)
		catchUp(t, l)
		expectHosts(t, consumers, providers...)
	}
	lost("while the policies were applied")
	apply(t, l, strings.ReplaceAll(enforced, "sa/"+consumerName, "sa/somebody"))
	for _, consumer := range consumers {
		must(t, lab.WaitFor(within(t, 30*time.Second), consumer.Name+" to be refused", func(context.Context) error {
			if text := readFile(t, consumer.Log); !strings.Contains(text, "PermissionDenied") {
				return fmt.Errorf("it wrote %s", text[max(0, len(text)-500):])
			}
			return nil
		}))
	}
	apply(t, l, enforced)
	expectHosts(t, consumers, providers...)
}

// expectReady waits until the pod's Ready condition is as wanted.
func expectReady(t *testing.T, l *lab.Lab, p lab.Pod, want bool) {
	t.Helper()
	must(t, lab.WaitFor(within(t, 30*time.Second), fmt.Sprintf("%s to be ready: %v", p.Name, want), func(ctx context.Context) error {
		pods, err := l.Pods(ctx, greetingNamespace, "demo=provider")
		if err == nil && !slices.ContainsFunc(pods, func(now lab.Pod) bool { return now.Name == p.Name && now.Ready == want }) {
			err = fmt.Errorf("there are %+v", pods)
		}
		return err
	}))
}

// rollOut replaces the providers as kubectl rollout restart does.
func rollOut(t *testing.T, l *lab.Lab, old, consumers []lab.Pod) {
	lost := failedCalls(t, consumers)
	ctx := within(t, 60*time.Second)
	restarted := map[string]any{"kubectl.kubernetes.io/restartedAt": time.Now().Format(time.RFC3339)}
	must(t, l.API.Patch(ctx, "/apis/apps/v1/namespaces/"+greetingNamespace+"/deployments/"+providerName, map[string]any{
		"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": restarted}}},
	}))
	var replaced []lab.Pod
	must(t, lab.WaitFor(ctx, "the rollout", func(ctx context.Context) (err error) {
		if replaced, err = l.WaitPods(ctx, greetingNamespace, "demo=provider", 2); err != nil {
			return err
		}
		if slices.ContainsFunc(replaced, func(p lab.Pod) bool { return p.Name == old[0].Name || p.Name == old[1].Name }) {
			return fmt.Errorf("there are %+v", replaced)
		}
		return nil
	}))
	expectHosts(t, consumers, replaced...)
	lost("during the rollout")
	expectEndedWell(t, l, old)
	for _, p := range old {
		text := readFile(t, p.Log)
		if !strings.Contains(text, "provider is draining") || !strings.Contains(text, "provider stopped") {
			t.Errorf("%s wrote %q", p.Name, text)
		}
	}
}

// expectEndedWell holds that the pods ended by themselves after SIGTERM.
func expectEndedWell(t *testing.T, l *lab.Lab, pods []lab.Pod) {
	t.Helper()
	journal := readFile(t, l.Kubelet.Journal())
	for _, p := range pods {
		name := " " + greetingNamespace + "/" + p.Name + ": "
		if !strings.Contains(journal, name+"SIGTERM") || !strings.Contains(journal, name+"ended with code 0") || strings.Contains(journal, name+"SIGKILL") {
			t.Errorf("%s did not end in good order:\n%s", p.Name, journal)
		}
	}
}

// expectHosts waits until the latest calls of each consumer were answered by
// the providers, by all of them and by nobody else.
func expectHosts(t *testing.T, consumers []lab.Pod, providers ...lab.Pod) {
	t.Helper()
	const latest = 10
	var want []string
	for _, p := range providers {
		want = append(want, "result: hello, xDS Consumer! from host: "+p.IP)
	}
	slices.Sort(want)
	for _, consumer := range consumers {
		from := len(readFile(t, consumer.Log))
		must(t, lab.WaitFor(within(t, 60*time.Second), fmt.Sprintf("%d calls of %s that say %q", latest, consumer.Name, want), func(context.Context) error {
			lines := strings.Split(strings.TrimSuffix(readFile(t, consumer.Log)[from:], "\n"), "\n")
			said := slices.Clone(lines[max(0, len(lines)-latest):])
			slices.Sort(said)
			if got := slices.Compact(said); len(lines) < latest || !slices.Equal(got, want) {
				return fmt.Errorf("it wrote %q", lines)
			}
			return nil
		}))
	}
}

// failedCalls returns a function that fails the test for calls of the
// consumers that have failed meanwhile.
func failedCalls(t *testing.T, consumers []lab.Pod) func(during string) {
	t.Helper()
	var before []int
	for _, consumer := range consumers {
		before = append(before, len(readFile(t, consumer.Log)))
	}
	return func(during string) {
		t.Helper()
		for i, consumer := range consumers {
			if since := readFile(t, consumer.Log)[before[i]:]; strings.Contains(since, "error: ") {
				t.Errorf("calls failed %s; %s wrote\n%s", during, consumer.Name, since)
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
