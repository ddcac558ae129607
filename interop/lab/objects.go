package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/proxyless/proxyless/interop/kubeapi"
	"github.com/proxyless/proxyless/interop/kubelet"
)

// testNode is the node of the pods that the test process plays.
const testNode = "test-process"

// Namespace makes a namespace; one that exists is left as it is.
func (l *Lab) Namespace(ctx context.Context, name string) error {
	err := l.API.Create(ctx, "/api/v1/namespaces", map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name},
	}, nil)
	if kubeapi.IsConflict(err) {
		return nil
	}
	return err
}

// node makes a Node object: endpoints of pods on unknown nodes are left out.
func (l *Lab) node(ctx context.Context, name string) error {
	return l.AddNode(ctx, name, kubelet.Locality)
}

// AddNode makes a node with the labels, which say where its pods are:
// topology.kubernetes.io/region and zone.
func (l *Lab) AddNode(ctx context.Context, name string, labels map[string]string) error {
	return l.API.Create(ctx, "/api/v1/nodes", map[string]any{
		"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name, "labels": labels},
	}, nil)
}

// Apply applies a manifest, as kubectl apply does.
func (l *Lab) Apply(ctx context.Context, manifest string) error {
	return l.API.Apply(ctx, []byte(manifest))
}

// Delete removes the objects of a manifest.
func (l *Lab) Delete(ctx context.Context, manifest string) error {
	return l.API.DeleteManifest(ctx, []byte(manifest))
}

// Scale sets the number of pods of a Deployment. It does not wait for them.
func (l *Lab) Scale(ctx context.Context, namespace, deployment string, replicas int) error {
	return l.API.Patch(ctx, "/apis/apps/v1/namespaces/"+namespace+"/deployments/"+deployment+"/scale",
		map[string]any{"spec": map[string]any{"replicas": replicas}})
}

// Pod is what a test wants to know of one.
type Pod struct {
	Name     string
	IP       string
	Ready    bool
	Deleted  bool // it is being taken down
	Restarts int
	Log      string // file with the output of its program
}

// Pods returns the pods with the label ("key=value") in the order of their names.
func (l *Lab) Pods(ctx context.Context, namespace, label string) ([]Pod, error) {
	var list struct{ Items []podObject }
	path := "/api/v1/namespaces/" + namespace + "/pods?labelSelector=" + url.QueryEscape(label)
	if err := l.API.Get(ctx, path, &list); err != nil {
		return nil, err
	}
	var pods []Pod
	for _, item := range list.Items {
		pods = append(pods, item.pod(l))
	}
	slices.SortFunc(pods, func(a, b Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, nil
}

// WaitPods waits until exactly n pods have the label, all ready and none being
// taken down, and returns them.
func (l *Lab) WaitPods(ctx context.Context, namespace, label string, n int) (pods []Pod, err error) {
	err = WaitFor(ctx, fmt.Sprintf("%d ready pods %s in %s", n, label, namespace), func(ctx context.Context) (err error) {
		if pods, err = l.Pods(ctx, namespace, label); err != nil {
			return stop{err}
		}
		if len(pods) != n || slices.ContainsFunc(pods, func(p Pod) bool { return !p.Ready || p.Deleted }) {
			return fmt.Errorf("there are %+v", pods)
		}
		return nil
	})
	return pods, err
}

// podObject is the part of a Pod that [Lab.Pods] reads.
type podObject struct {
	Metadata struct{ Namespace, Name, DeletionTimestamp string }
	Status   struct {
		PodIP      string
		Conditions []struct{ Type, Status string }

		ContainerStatuses []struct{ RestartCount int }
	}
}

func (o podObject) pod(l *Lab) Pod {
	p := Pod{
		Name:    o.Metadata.Name,
		IP:      o.Status.PodIP,
		Deleted: o.Metadata.DeletionTimestamp != "",
		Log:     l.Kubelet.LogFile(o.Metadata.Namespace, o.Metadata.Name),
	}
	for _, c := range o.Status.Conditions {
		p.Ready = p.Ready || c.Type == "Ready" && c.Status == "True"
	}
	for _, c := range o.Status.ContainerStatuses {
		p.Restarts += c.RestartCount
	}
	return p
}

// Workload is a Pod that the test process itself plays: it has an address of
// the pod network on which the test listens, and its readiness is the test's word.
type Workload struct {
	// constant after construction
	IP   netip.Addr
	lab  *Lab
	path string
}

// WorkloadSpec describes a [Workload].
type WorkloadSpec struct {
	Namespace, Name string
	IP              string // from 10.244.0.200 to 10.244.0.254, or of 10.244.1.0/24, which no other pod gets
	Labels          map[string]string
	Account         string // service account; default "default"
	Node            string // default the one that all such pods are on
	NotReady        bool   // it does not become ready by itself
}

// ErrTaken says that an address is another workload's.
var ErrTaken = errors.New("lab: the address is another workload's")

// AddWorkload makes the Pod object, gives the address to the test process and
// sets the pod's Ready condition.
func (l *Lab) AddWorkload(ctx context.Context, s WorkloadSpec) (*Workload, error) {
	addr, err := netip.ParseAddr(s.IP)
	if err != nil {
		return nil, err
	}
	if err := l.take(addr); err != nil {
		return nil, err
	}
	if s.Account == "" {
		s.Account = "default"
	}
	if s.Node == "" {
		s.Node = testNode
	}
	collection := "/api/v1/namespaces/" + s.Namespace + "/pods"
	w := &Workload{IP: addr, lab: l, path: collection + "/" + s.Name}
	pod := map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": s.Name, "labels": s.Labels},
		"spec": map[string]any{
			"nodeName":           s.Node,
			"serviceAccountName": s.Account,
			"containers":         []any{map[string]any{"name": "main", "image": testNode}},
		},
	}
	err = WaitFor(ctx, "the admission of pod "+s.Name, func(ctx context.Context) error {
		return unlessForbidden(l.API.Create(ctx, collection, pod, nil))
	})
	if err != nil {
		return nil, err
	}
	return w, w.SetReady(ctx, !s.NotReady)
}

// SetReady sets the pod's Ready condition, as its probes would.
func (w *Workload) SetReady(ctx context.Context, ready bool) error {
	state := map[bool]string{true: "True", false: "False"}[ready]
	return w.lab.API.Patch(ctx, w.path+"/status", map[string]any{"status": map[string]any{
		"phase":  "Running",
		"podIP":  w.IP.String(),
		"podIPs": []any{map[string]any{"ip": w.IP.String()}},
		"conditions": []any{
			map[string]any{"type": "Ready", "status": state},
			map[string]any{"type": "ContainersReady", "status": state},
		},
	}})
}

// Remove deletes the pod and takes the address back.
func (w *Workload) Remove(ctx context.Context) error {
	if err := w.lab.API.Delete(ctx, w.path, 0); err != nil && !kubeapi.IsNotFound(err) {
		return err
	}
	return w.lab.giveBack(w.IP)
}

func (l *Lab) take(addr netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken[addr.String()] {
		return fmt.Errorf("%w: %v", ErrTaken, addr)
	}
	if err := ip("addr add " + addr.String() + "/32 dev " + Bridge); err != nil {
		return err
	}
	l.taken[addr.String()] = true
	return nil
}

func (l *Lab) giveBack(addr netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.taken, addr.String())
	return ip("addr del " + addr.String() + "/32 dev " + Bridge)
}
