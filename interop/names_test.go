package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
)

// TestProvidedBy calls a provider by each of its names, over TLS and with a
// token: Services of the consumer's namespace and of another, and hosts of
// ServiceEntries.
func TestProvidedBy(t *testing.T) { eachView(t, testProvidedBy) }

func testProvidedBy(t *testing.T) {
	l := suite.Lab(t)
	here := startProvider(t, l, "names", "here", map[string]string{"app": "greeter"})
	there := startProvider(t, l, "names-elsewhere", "there", map[string]string{"app": "greeter"})
	outside := startProvider(t, l, "names", "outside", nil)
	withManifest(t, l, service("names", "greeter", "greeter", grpcPort)+
		service("names-elsewhere", "greeter", "greeter", grpcPort)+
		service("names-elsewhere", "only-there", "greeter", grpcPort)+`---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: names}
spec:
  hosts: [greetings.example.com, greetings.example]
  addresses: [240.0.0.19]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{name: grpc-tri, number: 50052, protocol: GRPC}]
  endpoints: [{address: `+outside.IP.String()+`}]
`)
	m := joinConsumer(t, l, "names")
	for providedBy, want := range map[string]*provider{
		"greeter":                                      here,
		"greeter.names":                                here,
		"greeter.names.svc":                            here,
		"greeter.names.svc.cluster.local":              here,
		"greeter:50052":                                here,
		"greeter.names:50052":                          here,
		"greeter.names-elsewhere":                      there,
		"greeter.names-elsewhere.svc":                  there,
		"greeter.names-elsewhere.svc.cluster.local":    there,
		"only-there.names-elsewhere":                   there,
		"greeter.names-elsewhere:50052":                there,
		"only-there.names-elsewhere.svc.cluster.local": there,
		"greetings.example.com":                        outside,
		"greetings.example":                            outside,
	} {
		t.Run(providedBy, func(t *testing.T) {
			client := refer(t, m, providedBy)
			ready(t, m)
			if host, err := greet(within(t, 10*time.Second), client); err != nil || host != want.IP.String() {
				t.Errorf("answer of %q, error %v, want %v", host, err, want.IP)
			}
		})
	}
}

// TestUnknownNames shows what is said of names that the mesh does not know.
func TestUnknownNames(t *testing.T) { eachView(t, testUnknownNames) }

func testUnknownNames(t *testing.T) {
	l := suite.Lab(t)
	startProvider(t, l, "names-elsewhere", "there", map[string]string{"app": "greeter"})
	withManifest(t, l, service("names-elsewhere", "only-there", "greeter", grpcPort))
	catchUp(t, l)
	m := joinConsumer(t, l, "names", func(c *proxyless.Config) { c.ResourceTimeout = 2 * time.Second })
	for _, providedBy := range []string{"nobody", "nobody.names", "only-there", "only-there.names-elsewhere:1"} {
		t.Run(providedBy, func(t *testing.T) {
			t.Parallel()
			client := refer(t, m, providedBy)
			said := "the mesh knows nothing of that name"
			if viewOf(t) == fullView && strings.HasSuffix(providedBy, ":1") {
				said = "the Service has no port 1, but 50052"
			}
			expectError(t, refusal(t, client), proxyless.StageListener, said, "providedBy")
		})
	}
}

// TestServiceComesLate refers to a Service that is made afterwards.
func TestServiceComesLate(t *testing.T) { eachView(t, testServiceComesLate) }

func testServiceComesLate(t *testing.T) {
	l := suite.Lab(t)
	m := joinConsumer(t, l, "late", func(c *proxyless.Config) { c.ResourceTimeout = time.Second })
	client := refer(t, m, "late")
	expectError(t, refusal(t, client), proxyless.StageListener, "the mesh knows nothing of that name")
	withManifest(t, l, service("late", "late", "late", grpcPort))
	eventually(t, "the Service to be known", client, failsAt(proxyless.StageEndpoint))
	late := startProvider(t, l, "late", "late-1", map[string]string{"app": "late"})
	eventually(t, "the provider to be called", client, answered)
	if late.received.Load() == 0 {
		t.Error("somebody else answered")
	}
}

// TestReferAgain closes a reference and refers to the same provider again: at
// once or after istiod was asked for something else, alone or beside another.
func TestReferAgain(t *testing.T) { eachView(t, testReferAgain) }

func testReferAgain(t *testing.T) {
	l, _ := oneProvider(t, "again")
	withManifest(t, l, service("again", "other", "greeter", grpcPort))
	catchUp(t, l)
	for _, beside := range []string{"", "other"} {
		for _, between := range []string{"", "other:50052"} {
			m := joinConsumer(t, l, "again", func(c *proxyless.Config) { c.ResourceTimeout = 2 * time.Second })
			if beside != "" {
				refer(t, m, beside)
			}
			for i := range 3 {
				referOnce(t, m, "greeter", fmt.Sprintf("reference %d beside %q after %q", i, beside, between))
				if between != "" {
					referOnce(t, m, between, "the one between")
				}
			}
		}
	}
}

// referOnce refers, waits until a call is answered and closes the reference.
func referOnce(t *testing.T, m *proxyless.Mesh, providedBy, what string) {
	t.Helper()
	inv, err := m.Refer(greetings, proxyless.ProvidedBy(providedBy), proxyless.Version(version))
	must(t, err)
	if _, err := greet(within(t, 10*time.Second), greetpb.NewGreetingServiceClient(inv)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	must(t, inv.Close())
}
