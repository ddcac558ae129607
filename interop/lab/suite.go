package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The environment through which the two halves of a test run talk.
const (
	dirVariable  = "PROXYLESS_LAB_DIR"  // set by the outer half: logs and programs
	keepVariable = "PROXYLESS_LAB_KEEP" // set by the user: keep the logs of a run that passed
)

// startLimit bounds the start of a lab whose programs are built.
const startLimit = 2 * time.Minute

// Suite is the lab that the tests of one package share. It is started by the
// first test that asks for it.
type Suite struct {
	options Options
	skip    string // why there is no lab; constant once tests run

	once sync.Once
	lab  *Lab
	err  error
}

// NewSuite returns a suite whose lab is started with the given options.
func NewSuite(o Options) *Suite { return &Suite{options: o} }

// Main runs the package's tests within fresh namespaces and returns the exit
// code for TestMain. Where the machine does not allow that, the tests that ask
// for the lab are skipped with the reason, unless CI=true, where it is a failure.
func (s *Suite) Main(m *testing.M) int {
	if dir := os.Getenv(dirVariable); dir != "" {
		return s.inside(m, dir)
	}
	flag.Parse()
	if testing.Short() {
		s.skip = "the lab is left out of short runs"
		return m.Run()
	}
	if s.skip = missing(); s.skip != "" {
		if os.Getenv("CI") == "true" {
			fmt.Fprintln(os.Stderr, "lab:", s.skip)
			return 1
		}
		return m.Run()
	}
	code, err := s.outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	return code
}

// Lab returns the running lab and starts it when this is the first call. It
// skips the test where there can be none.
func (s *Suite) Lab(t testing.TB) *Lab {
	t.Helper()
	if s.skip != "" {
		t.Skip(s.skip)
	}
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startLimit)
		defer cancel()
		s.lab, s.err = Start(ctx, s.options)
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.lab
}

// inside is the half of the run that holds the tests.
func (s *Suite) inside(m *testing.M, dir string) int {
	s.options.Dir = dir
	if err := furnish(dir); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	code := m.Run()
	if s.lab != nil {
		s.lab.Close()
	}
	return code
}

// outside builds what the lab needs, which takes the network, and then runs
// this very program again in namespaces of its own.
func (s *Suite) outside() (int, error) {
	if err := ensureEtcd(); err != nil {
		return 0, err
	}
	binaries, err := ensureBinaries()
	if err != nil {
		return 0, err
	}
	if err := ensureEnvoy(binaries); err != nil {
		reason := "there is no Envoy: " + err.Error()
		fmt.Fprintln(os.Stderr, "lab:", reason)
		os.Setenv(noEnvoyVariable, reason)
	}
	dir, err := newRunDir()
	if err != nil {
		return 0, err
	}
	if err := buildPrograms(filepath.Join(dir.path, "bin"), s.options.Programs); err != nil {
		dir.close(false)
		return 0, err
	}
	code, interrupted, err := relay(dir.path, binaries)
	keep := err == nil && !interrupted && (code != 0 || os.Getenv(keepVariable) != "")
	dir.close(keep)
	if keep {
		fmt.Fprintln(os.Stderr, "lab: logs are kept in", filepath.Join(dir.path, logFolder))
	}
	return code, err
}

// relay runs the inner half, passes signals on to it and returns its exit code.
// The inner half is the first process of its namespace: with it, all end.
func relay(dir, binaries string) (code int, interrupted bool, err error) {
	runtime.LockOSThread() // Pdeathsig is bound to the thread that starts the child
	defer runtime.UnlockOSThread()
	program, err := os.Executable()
	if err != nil {
		return 0, false, err
	}
	child := exec.Command(program, os.Args[1:]...)
	child.Env = append(os.Environ(), dirVariable+"="+dir, binVariable+"="+binaries)
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := child.Start(); err != nil {
		return 0, false, fmt.Errorf("no namespaces can be made: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- child.Wait() }() // ends with the child
	for {
		select {
		case s := <-signals:
			interrupted = interrupted || s != syscall.SIGQUIT // SIGQUIT asks for a trace
			child.Process.Signal(s)
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 0, interrupted, err
			}
			return exitCode(child.ProcessState), interrupted, nil
		}
	}
}

// exitCode is the child's, or 1 where a signal ended it.
func exitCode(state *os.ProcessState) int {
	if code := state.ExitCode(); code >= 0 {
		return code
	}
	return 1
}

// missing says in a sentence what the machine lacks for the lab.
func missing() string {
	if runtime.GOOS != "linux" {
		return "the lab needs Linux network namespaces"
	}
	if os.Geteuid() != 0 {
		return "the lab needs root, for network namespaces; run the tests as root"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "the lab needs the ip command; install iproute2"
	}
	probe := exec.Command("ip", "link", "add", "pl0", "type", "bridge")
	probe.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if out, err := probe.CombinedOutput(); err != nil {
		return fmt.Sprintf("the lab needs the right to make network namespaces and bridges (%v %s)", err, out)
	}
	return ""
}
