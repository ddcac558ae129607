package kubelet

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/proxyless/proxyless/interop/kubeapi"
)

// environment is the program's, as "KEY=value". Nothing of this machine's own
// environment is in it.
func (w *worker) environment(ctx context.Context) ([]string, error) {
	env := []string{"HOSTNAME=" + w.pod.Metadata.Name, "HOME=/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	env = append(env, w.image.Env...)
	for _, e := range w.container().Env {
		value, err := w.value(ctx, e)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", e.Name, err)
		}
		env = append(env, e.Name+"="+expand(value, env))
	}
	return env, nil
}

func (w *worker) value(ctx context.Context, e envVar) (string, error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return e.Value, nil
	case from.FieldRef != nil:
		return w.field(from.FieldRef.FieldPath)
	case from.ConfigMapKeyRef != nil:
		return w.key(ctx, "configmaps", *from.ConfigMapKeyRef)
	case from.SecretKeyRef != nil:
		return w.key(ctx, "secrets", *from.SecretKeyRef)
	}
	return "", fmt.Errorf("this valueFrom is not imitated")
}

func (w *worker) key(ctx context.Context, kind string, ref keyRef) (string, error) {
	data, err := w.data(ctx, kind, ref.Name, ref.Optional)
	if err != nil {
		return "", err
	}
	value, ok := data[ref.Key]
	if !ok && !ref.Optional {
		return "", fmt.Errorf("%s %s has no key %s", kind, ref.Name, ref.Key)
	}
	return value, nil
}

// data reads a ConfigMap or a Secret of the pod's namespace.
func (w *worker) data(ctx context.Context, kind, name string, optional bool) (map[string]string, error) {
	var object struct{ Data map[string]string }
	err := w.kubelet.config.API.Get(ctx, "/api/v1/namespaces/"+w.pod.Metadata.Namespace+"/"+kind+"/"+name, &object)
	if optional && kubeapi.IsNotFound(err) {
		return nil, nil
	}
	if err != nil || kind != "secrets" {
		return object.Data, err
	}
	for key, text := range object.Data {
		plain, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("secret %s, key %s: %w", name, key, err)
		}
		object.Data[key] = string(plain)
	}
	return object.Data, nil
}

// field reads a path of the downward API.
func (w *worker) field(path string) (string, error) {
	meta := w.pod.Metadata
	if name, ok := subscript(path, "metadata.labels"); ok {
		return meta.Labels[name], nil
	}
	if name, ok := subscript(path, "metadata.annotations"); ok {
		return meta.Annotations[name], nil
	}
	switch path {
	case "metadata.name":
		return meta.Name, nil
	case "metadata.namespace":
		return meta.Namespace, nil
	case "metadata.uid":
		return meta.UID, nil
	case "metadata.labels":
		return quoted(meta.Labels), nil
	case "metadata.annotations":
		return quoted(meta.Annotations), nil
	case "status.podIP", "status.podIPs":
		return w.ip.String(), nil
	case "status.hostIP", "status.hostIPs":
		return w.kubelet.config.Gateway.String(), nil
	case "spec.nodeName":
		return node, nil
	case "spec.serviceAccountName":
		return w.pod.Spec.ServiceAccountName, nil
	}
	return "", fmt.Errorf("field %s is not imitated", path)
}

// subscript reads x of "prefix['x']".
func subscript(path, prefix string) (string, bool) {
	rest, ok := strings.CutPrefix(path, prefix+"['")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, "']")
}

// quoted lists labels as the downward API writes them into a file.
func quoted(labels map[string]string) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		lines = append(lines, fmt.Sprintf("%s=%q", key, labels[key]))
	}
	return strings.Join(lines, "\n")
}

// expand replaces $(NAME) by what env has for NAME so far; $$ stands for $. A
// name that env lacks is left as it is.
func expand(text string, env []string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if rest, ok := strings.CutPrefix(after, "$"); ok {
			out.WriteByte('$')
			text = rest
			continue
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		if value, ok := lookup(env, name); ok && closed && strings.HasPrefix(after, "(") {
			out.WriteString(value)
			text = rest
			continue
		}
		out.WriteByte('$')
		text = after
	}
}

func lookup(env []string, name string) (string, bool) {
	for _, e := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value, true
		}
	}
	return "", false
}
