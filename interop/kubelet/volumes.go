package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// writeVolumes puts the pod's volumes where the container mounts them.
func (w *worker) writeVolumes(ctx context.Context) error {
	for _, mount := range w.container().VolumeMounts {
		if mount.SubPath != "" {
			return fmt.Errorf("volume %s: subPath is not imitated", mount.Name)
		}
		if err := w.writeVolume(ctx, mount); err != nil {
			return fmt.Errorf("volume %s: %w", mount.Name, err)
		}
	}
	return nil
}

func (w *worker) writeVolume(ctx context.Context, mount volumeMount) error {
	v, err := w.volume(mount.Name)
	if err != nil {
		return err
	}
	dir := w.inside(mount.MountPath)
	if v.EmptyDir != nil {
		return errors.Join(os.MkdirAll(dir, 0o777), os.Chmod(dir, 0o777))
	}
	sources := []source{v.source}
	if v.Projected != nil {
		sources = v.Projected.Sources
	}
	files := map[string]string{}
	private := map[string]bool{}
	for _, s := range sources {
		if err := w.collect(ctx, s, files); err != nil {
			return err
		}
		if s.ServiceAccountToken != nil {
			private[s.ServiceAccountToken.Path] = true
		}
	}
	return publish(dir, files, func(name, path string) error { return w.own(path, private[name]) })
}

// own gives a file to those who may read it. Everyone may, but a token, once
// the pod names a user or a group, is for these alone.
func (w *worker) own(path string, private bool) error {
	user, group := w.user(), w.pod.Spec.SecurityContext.FSGroup
	if !private || user == nil && group == nil {
		return nil
	}
	uid, gid, mode := 0, 0, os.FileMode(0o600)
	if user != nil {
		uid = int(*user)
	}
	if group != nil {
		gid, mode = int(*group), 0o640
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

func (w *worker) volume(name string) (volume, error) {
	for _, v := range w.pod.Spec.Volumes {
		if v.Name == name {
			return v, nil
		}
	}
	return volume{}, errors.New("the pod has no such volume")
}

// collect adds the files of one source.
func (w *worker) collect(ctx context.Context, s source, files map[string]string) (err error) {
	switch {
	case s.ServiceAccountToken != nil:
		files[s.ServiceAccountToken.Path], err = w.token(ctx, *s.ServiceAccountToken)
		return err
	case s.ConfigMap != nil:
		return w.collectObject(ctx, "configmaps", *s.ConfigMap, files)
	case s.Secret != nil:
		return w.collectObject(ctx, "secrets", *s.Secret, files)
	case s.DownwardAPI != nil:
		for _, item := range s.DownwardAPI.Items {
			if item.FieldRef == nil {
				return fmt.Errorf("file %s: only fieldRef is imitated", item.Path)
			}
			if files[item.Path], err = w.field(item.FieldRef.FieldPath); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("this kind of volume is not imitated")
}

func (w *worker) collectObject(ctx context.Context, kind string, s objectSource, files map[string]string) error {
	name := s.Name
	if name == "" {
		name = s.SecretName
	}
	data, err := w.data(ctx, kind, name, s.Optional)
	if err != nil {
		return err
	}
	if s.Items == nil {
		for key, text := range data {
			files[key] = text
		}
		return nil
	}
	for _, item := range s.Items {
		text, ok := data[item.Key]
		if !ok && !s.Optional {
			return fmt.Errorf("%s %s has no key %s", kind, name, item.Key)
		}
		if ok {
			files[item.Path] = text
		}
	}
	return nil
}

// token asks for one that is bound to the pod.
func (w *worker) token(ctx context.Context, s tokenSource) (string, error) {
	seconds := s.ExpirationSeconds
	if seconds == 0 {
		seconds = 3600
	}
	spec := map[string]any{
		"expirationSeconds": seconds,
		"boundObjectRef": map[string]any{
			"kind": "Pod", "apiVersion": "v1",
			"name": w.pod.Metadata.Name, "uid": w.pod.Metadata.UID,
		},
	}
	if s.Audience != "" {
		spec["audiences"] = []string{s.Audience}
	}
	var answer struct{ Status struct{ Token string } }
	path := "/api/v1/namespaces/" + w.pod.Metadata.Namespace + "/serviceaccounts/" + w.pod.Spec.ServiceAccountName + "/token"
	err := w.kubelet.config.API.Create(ctx, path, map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
	}, &answer)
	return answer.Status.Token, err
}

// current is the link through which all files of a volume change at once.
const current = "..data"

// publish makes dir show the files, in the layout that kubelets use: every
// name links through "..data" to a folder that is replaced as a whole. own is
// called for each file before it can be seen.
func publish(dir string, files map[string]string, own func(name, path string) error) error {
	generation := ".." + strconv.FormatInt(time.Now().UnixNano(), 36)
	for name, text := range files {
		path := filepath.Join(dir, generation, filepath.Clean("/"+name))
		if err := writeFile(path, text); err != nil {
			return err
		}
		if err := own(name, path); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, generation), 0o755); err != nil {
		return err
	}
	old, err := os.Readlink(filepath.Join(dir, current))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := replaceLink(generation, filepath.Join(dir, current)); err != nil {
		return err
	}
	for name := range files {
		top, _, _ := strings.Cut(strings.TrimPrefix(filepath.Clean("/"+name), "/"), "/")
		if err := replaceLink(filepath.Join(current, top), filepath.Join(dir, top)); err != nil {
			return err
		}
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, old))
}

// replaceLink makes path a link to target in one step.
func replaceLink(target, path string) error {
	if err := os.Symlink(target, path+".new"); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
