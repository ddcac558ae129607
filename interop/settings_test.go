package interop

import (
	"log/slog"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
)

// These tests join with nothing but a dubbo.properties and the environment
// variables of a pod.

// podEnvironment sets what the greeting's manifests set.
func podEnvironment(t *testing.T, namespace string) {
	t.Helper()
	t.Setenv("POD_NAME", "consumer")
	t.Setenv("POD_NAMESPACE", namespace)
	t.Setenv("INSTANCE_IP", consumerIP)
}

// loaded joins with the properties of a file.
func loaded(t *testing.T, properties string, settings ...setting) *proxyless.Mesh {
	t.Helper()
	cfg, err := proxyless.LoadConfig(tempFile(t, "dubbo.properties", properties))
	must(t, err)
	for _, notice := range cfg.Notices {
		t.Errorf("not honoured: %v", notice)
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	for _, change := range settings {
		change(&cfg)
	}
	return join(t, cfg)
}

const consumerProperties = `
dubbo.application.name=dubbo-samples-xds-consumer
dubbo.application.qosEnable=false
`

// TestPlainText speaks to 15010, without certificates and without a token.
func TestPlainText(t *testing.T) { eachView(t, testPlainText) }

func testPlainText(t *testing.T) {
	l, p := oneProvider(t, "settings")
	podEnvironment(t, "settings")
	for name, registry := range map[string]string{
		"port and secure":     "dubbo.registry.address=xds://" + l.Istiod.Plain() + "\ndubbo.registry.secure=plaintext",
		"secure alone":        "dubbo.registry.address=xds://istiod.istio-system.svc\ndubbo.registry.secure=plaintext",
		"within the address":  "dubbo.registry.address=xds://istiod.istio-system.svc:15010?secure=plaintext",
		"in kebab-case, late": "dubbo.registry.secure: PLAINTEXT\ndubbo.registry.address = xds://istiod.istio-system.svc:15010",
	} {
		t.Run(name, func(t *testing.T) {
			m := loaded(t, consumerProperties+registry)
			if c := m.Config(); !c.PlainText || len(c.ControlPlanes) != 1 || c.ControlPlanes[0] != l.Istiod.Plain() {
				t.Errorf("control planes %v, plain text %v", c.ControlPlanes, c.PlainText)
			}
			client := refer(t, m, "greeter")
			ready(t, m)
			if host, err := greet(within(t, 10*time.Second), client); err != nil || host != p.IP.String() {
				t.Errorf("answer of %q, error %v", host, err)
			}
		})
	}
}

// TestClusterID shows that ISTIO_META_CLUSTER_ID is what istiod is told.
func TestClusterID(t *testing.T) { eachView(t, testClusterID) }

func testClusterID(t *testing.T) {
	l, _ := oneProvider(t, "settings")
	podEnvironment(t, "settings")
	good := memberConfig(t, l, "settings", "consumer", consumerIP)
	trust := func(c *proxyless.Config) {
		c.RootCertFile, c.TokenFile, c.ResourceTimeout = good.RootCertFile, good.TokenFile, time.Second
	}
	properties := consumerProperties + "dubbo.registry.address=xds://istiod.istio-system.svc:15012"

	t.Run("istiod's", func(t *testing.T) {
		t.Setenv("ISTIO_META_CLUSTER_ID", "Kubernetes")
		m := loaded(t, properties, trust)
		refer(t, m, "greeter")
		ready(t, m)
	})
	t.Run("another", func(t *testing.T) {
		t.Setenv("ISTIO_META_CLUSTER_ID", "cn-hangzhou-1")
		m := loaded(t, properties, trust)
		expectTrouble(t, m, refer(t, m, "greeter"), proxyless.StageIdentity, `"cn-hangzhou-1"`, "ISTIO_META_CLUSTER_ID")
	})
}

// TestBackup writes two replicas as Dubbo does, the first of which is not there.
func TestBackup(t *testing.T) {
	l, _ := oneProvider(t, "settings")
	podEnvironment(t, "settings")
	m := loaded(t, consumerProperties+"dubbo.registry.address=xds://istiod.istio-system.svc:15999?secure=plaintext&backup="+l.Istiod.Plain())
	refer(t, m, "greeter")
	ready(t, m)
}
