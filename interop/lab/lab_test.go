package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitForLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		err := WaitFor(t.Context(), "three looks", func(context.Context) error {
			if looks++; looks < 3 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || looks != 3 {
			t.Errorf("%d looks, %v", looks, err)
		}
	})
}

func TestWaitForSaysWhatWasMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		missing := errors.New("no such pod")
		err := WaitFor(ctx, "a pod", func(context.Context) error { return missing })
		if !errors.Is(err, missing) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "a pod") {
			t.Errorf("got %v", err)
		}
	})
}

func TestWaitForStops(t *testing.T) {
	refused := errors.New("refused")
	err := WaitFor(t.Context(), "anything", func(context.Context) error { return stop{refused} })
	if err != refused {
		t.Errorf("got %v", err)
	}
}

// TestPinnedVersions reads them from the tool modules as they are.
func TestPinnedVersions(t *testing.T) {
	for dir, module := range map[string]string{"kube": "k8s.io/kubernetes", "istiod": "istio.io/istio"} {
		if version, err := pinned(filepath.Join("../tools", dir), module); err != nil || !strings.HasPrefix(version, "v") {
			t.Errorf("%s: %q, %v", module, version, err)
		}
		if _, err := pinned(filepath.Join("../tools", dir), "example.org/absent"); err == nil {
			t.Errorf("%s pins a module that is not in it", dir)
		}
	}
}

// TestRunDirs shows which folders a new run removes: those of killed runs, not
// those of running ones, nor logs that were kept.
func TestRunDirs(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	killed, running, failed := makeRunDir(t), makeRunDir(t), makeRunDir(t)
	logs := filepath.Join(failed.path, logFolder)
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	failed.close(true)
	killed.lock.Close()
	makeRunDir(t).close(false)
	for path, want := range map[string]bool{killed.path: false, running.path: true, logs: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", path, err, want)
		}
	}
}

func makeRunDir(t *testing.T) *runDir {
	t.Helper()
	d, err := newRunDir()
	if err != nil {
		t.Fatal(err)
	}
	return d
}
