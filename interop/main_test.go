package interop

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/kubelet"
	"github.com/proxyless/proxyless/interop/lab"
)

var suite = lab.NewSuite(lab.Options{
	Programs: []lab.Program{
		{Name: "inspect", Package: "./internal/inspect"},
		{Name: "provider", Dir: "..", Package: "./examples/greeting/provider"},
		{Name: "consumer", Dir: "..", Package: "./examples/greeting/consumer"},
	},
	Images: map[string]kubelet.Image{
		"lab/inspect":       {Program: "inspect"},
		"greeting-provider": {Program: "provider", EntryPoint: "/greeting"},
		"greeting-consumer": {Program: "consumer", EntryPoint: "/greeting"},
	},
})

func TestMain(m *testing.M) { os.Exit(suite.Main(m)) }

// within is the test's context with a limit.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// soon is the limit of what the control plane of Kubernetes does for a test. It
// holds on a machine that has ten other things to do.
func soon(t testing.TB) context.Context {
	t.Helper()
	return within(t, 30*time.Second)
}

// apply applies a manifest.
func apply(t testing.TB, l *lab.Lab, manifest string) {
	t.Helper()
	if err := l.Apply(soon(t), manifest); err != nil {
		t.Fatal(err)
	}
}
