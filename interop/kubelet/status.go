package kubelet

import (
	"context"
	"time"

	"github.com/proxyless/proxyless/interop/kubeapi"
)

// report changes the state and writes it to the Pod object.
func (w *worker) report(ctx context.Context, change func(*state)) {
	w.mu.Lock()
	defer w.mu.Unlock() // held while writing, so that the last state is written last
	change(&w.state)
	err := w.kubelet.config.API.Patch(ctx, w.path("/status"), map[string]any{"status": w.status()})
	if err != nil && ctx.Err() == nil && !kubeapi.IsNotFound(err) {
		w.kubelet.logf("%v: status: %v", w, err)
	}
}

// status is the Pod's status field. w.mu is held.
func (w *worker) status() map[string]any {
	now := time.Now().UTC().Format(time.RFC3339)
	condition := func(kind string, holds bool) map[string]any {
		text := map[bool]string{true: "True", false: "False"}[holds]
		return map[string]any{"type": kind, "status": text, "lastTransitionTime": now}
	}
	status := map[string]any{
		"phase":  w.phase(),
		"hostIP": w.kubelet.config.Gateway.String(),
		"conditions": []any{
			condition("PodScheduled", true),
			condition("Initialized", true),
			condition("ContainersReady", w.state.ready),
			condition("Ready", w.state.ready),
		},
	}
	if len(w.pod.Spec.Containers) > 0 {
		status["containerStatuses"] = []any{w.containerStatus(now)}
	}
	if w.ip.IsValid() {
		status["podIP"] = w.ip.String()
		status["podIPs"] = []any{map[string]any{"ip": w.ip.String()}}
	}
	return status
}

func (w *worker) phase() string {
	switch {
	case w.state.ended == nil && w.state.waiting != "" && w.restarts == 0:
		return "Pending"
	case w.state.ended == nil:
		return "Running"
	case *w.state.ended == 0:
		return "Succeeded"
	default:
		return "Failed"
	}
}

func (w *worker) containerStatus(now string) map[string]any {
	var current map[string]any
	switch {
	case w.state.ended != nil:
		current = map[string]any{"terminated": map[string]any{"exitCode": *w.state.ended, "finishedAt": now}}
	case w.state.waiting != "":
		current = map[string]any{"waiting": map[string]any{"reason": "NotRunning", "message": w.state.waiting}}
	default:
		current = map[string]any{"running": map[string]any{"startedAt": w.started.UTC().Format(time.RFC3339)}}
	}
	c := w.container()
	return map[string]any{
		"name": c.Name, "image": c.Image, "imageID": "",
		"ready": w.state.ready, "started": w.state.started, "restartCount": w.restarts,
		"state": current,
	}
}
