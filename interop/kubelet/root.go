package kubelet

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// makeRoot makes the directory that the program sees as "/": the image's
// files, /etc/hosts and /etc/resolv.conf. Volumes are added by writeVolumes.
func (w *worker) makeRoot() error {
	if err := copyFile(w.image.Program, w.inside(w.entryPoint()), 0o755); err != nil {
		return err
	}
	for target, file := range w.image.Files {
		if err := copyFile(file, w.inside(target), 0o644); err != nil {
			return err
		}
	}
	lines := append([]string{}, w.kubelet.config.Hosts...)
	lines = append(lines, w.ip.String()+" "+w.pod.Metadata.Name)
	for _, alias := range w.pod.Spec.HostAliases {
		lines = append(lines, alias.IP+" "+strings.Join(alias.Hostnames, " "))
	}
	if err := writeFile(w.inside("/etc/hosts"), strings.Join(lines, "\n")+"\n"); err != nil {
		return err
	}
	return writeFile(w.inside("/etc/resolv.conf"), fmt.Sprintf(
		"search %s.svc.cluster.local svc.cluster.local cluster.local\nnameserver %v\n",
		w.pod.Metadata.Namespace, w.kubelet.config.Gateway))
}

// inside is where a path of the pod lies on this machine.
func (w *worker) inside(path string) string { return filepath.Join(w.root, filepath.Clean("/"+path)) }

// entryPoint is the program's path within the pod.
func (w *worker) entryPoint() string {
	if w.image.EntryPoint != "" {
		return w.image.EntryPoint
	}
	return "/" + filepath.Base(w.image.Program)
}

// command is the program as it will run: in the pod's root, as the first
// process of a process namespace, so that signals work as in a container.
func (w *worker) command(ctx context.Context) (*exec.Cmd, error) {
	env, err := w.environment(ctx)
	if err != nil {
		return nil, err
	}
	spec := w.container()
	command, args := []string{w.entryPoint()}, spec.Args
	switch {
	case len(spec.Command) > 0:
		command = spec.Command
	case len(args) == 0:
		args = w.image.Args
	}
	line := append(append([]string{}, command...), args...)
	for i := range line {
		line[i] = expand(line[i], env)
	}
	c := exec.Command(line[0], line[1:]...)
	c.Env = env
	c.Dir = filepath.Clean("/" + spec.WorkingDir)
	c.SysProcAttr = &syscall.SysProcAttr{
		Chroot:     w.root,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
		Credential: w.credential(),
	}
	return c, nil
}

// credential is the user and the groups that the security contexts ask for;
// nil means root.
func (w *worker) credential() *syscall.Credential {
	user, group := w.user(), w.pod.Spec.SecurityContext.RunAsGroup
	if own := w.container().SecurityContext.RunAsGroup; own != nil {
		group = own
	}
	if user == nil {
		return nil
	}
	c := &syscall.Credential{Uid: *user}
	if group != nil {
		c.Gid = *group
	}
	if shared := w.pod.Spec.SecurityContext.FSGroup; shared != nil {
		c.Groups = []uint32{*shared}
	}
	return c
}

func (w *worker) user() *uint32 {
	if own := w.container().SecurityContext.RunAsUser; own != nil {
		return own
	}
	return w.pod.Spec.SecurityContext.RunAsUser
}

func copyFile(from, to string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		target.Close()
		return err
	}
	return target.Close()
}

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
