package kubelet

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPublishReplacesAtOnce writes a volume twice: a reader who keeps a
// directory open sees old files or new ones, and old ones go.
func TestPublishReplacesAtOnce(t *testing.T) {
	dir := t.TempDir()
	anyone := func(string, string) error { return nil }
	if err := publish(dir, map[string]string{"token": "one", "deep/er": "x"}, anyone); err != nil {
		t.Fatal(err)
	}
	first, err := os.Readlink(filepath.Join(dir, current))
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(dir, map[string]string{"token": "two", "deep/er": "y"}, anyone); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"token": "two", "deep/er": "y"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v), want %q", name, got, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, first)); !os.IsNotExist(err) {
		t.Errorf("the first generation is still there: %v", err)
	}
}
