package app

import (
	"os"
	"testing"
)

func TestSettingsComeFromTheNearestPlace(t *testing.T) {
	builtIn := []byte("dubbo.application.name=built-in\n")
	t.Chdir(t.TempDir())
	expectApplication(t, "", builtIn, "built-in")
	write(t, "dubbo.properties", "dubbo.application.name=working-directory\n")
	expectApplication(t, "", builtIn, "working-directory")
	write(t, "other.properties", "dubbo.application.name=named\n")
	expectApplication(t, "other.properties", builtIn, "named")
}

func TestANamedFileThatIsMissingIsAnError(t *testing.T) {
	t.Chdir(t.TempDir())
	if cfg, err := LoadConfig("missing.properties", []byte("dubbo.application.name=built-in\n")); err == nil {
		t.Errorf("loaded %q", cfg.Application)
	}
}

func expectApplication(t *testing.T, path string, builtIn []byte, want string) {
	t.Helper()
	cfg, err := LoadConfig(path, builtIn)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Application != want {
		t.Errorf("application %q, want %q", cfg.Application, want)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
