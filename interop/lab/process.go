package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a component of the lab: a process group with a log file.
type process struct {
	// constant after construction
	name string
	log  string
	cmd  *exec.Cmd

	done chan struct{} // closed when the process has ended
	err  error         // how it ended; readable after done
}

// startProcess starts a program in a process group of its own. Its output goes
// to the end of logs/name.log.
func startProcess(logs, name string, env []string, program string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(logs, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", name, err)
	}
	go func() { // ends with the process
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// failure tells why the process is no longer running, with the end of its log;
// nil while it runs.
func (p *process) failure() error {
	select {
	case <-p.done:
		return fmt.Errorf("lab: %s ended (%v); the end of its log:\n%s", p.name, p.err, tail(p.log, 8))
	default:
		return nil
	}
}

// kill ends the process group at once and waits for the process.
func (p *process) kill() { p.end(syscall.SIGKILL, 0) }

// freeze stops the process group until it is killed.
func (p *process) freeze() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGSTOP) }

// stop asks the process group to end and kills it after grace.
func (p *process) stop(grace time.Duration) { p.end(syscall.SIGTERM, grace) }

func (p *process) end(first syscall.Signal, grace time.Duration) {
	syscall.Kill(-p.cmd.Process.Pid, first)
	if first != syscall.SIGKILL {
		select {
		case <-p.done:
		case <-time.After(grace):
			syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		}
	}
	<-p.done
}

// ready waits until check succeeds. It gives up when the process ends or ctx does.
func (p *process) ready(ctx context.Context, check func(context.Context) error) error {
	err := WaitFor(ctx, p.name, func(ctx context.Context) error {
		if err := p.failure(); err != nil {
			return stop{err}
		}
		return check(ctx)
	})
	if err != nil && p.failure() == nil {
		return fmt.Errorf("%w; the end of its log:\n%s", err, tail(p.log, 8))
	}
	return err
}

// tail returns the last n lines of a file.
func tail(path string, n int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
