package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// localQoS opens the QoS port on the loopback interface, whose callers may do all.
func localQoS(c *proxyless.Config) { c.QoS = proxyless.QoS{Host: "127.0.0.1", Port: -1, Check: true} }

// askQoS asks the member's QoS port.
func askQoS(t testing.TB, m *proxyless.Mesh, path string) (code int, text string) {
	t.Helper()
	return get(t, http.DefaultClient, "http://"+m.QoSAddr().String()+path)
}

func get(t testing.TB, client *http.Client, url string) (code int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(within(t, 10*time.Second), http.MethodGet, url, nil)
	must(t, err)
	response, err := client.Do(request)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return response.StatusCode, string(body)
}

// expectProbes checks the three probes; why is part of what /ready says when it
// is not true.
func expectProbes(t testing.TB, m *proxyless.Mesh, isReady bool, why string) {
	t.Helper()
	for _, path := range []string{"/live", "/startup"} {
		if code, text := askQoS(t, m, path); code != http.StatusOK || text != "true" {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
	code, text := askQoS(t, m, "/ready")
	if isReady && (code != http.StatusOK || text != "true") || !isReady && (code != http.StatusServiceUnavailable || !strings.HasPrefix(text, "false")) {
		t.Errorf("/ready: %d %q, want it ready: %v", code, text, isReady)
	}
	if !strings.Contains(text, why) {
		t.Errorf("/ready does not say %q: %q", why, text)
	}
}

// becomesReady waits for /ready to be true.
func becomesReady(t testing.TB, m *proxyless.Mesh) {
	t.Helper()
	must(t, lab.WaitFor(within(t, 30*time.Second), "/ready", func(context.Context) error {
		if code, text := askQoS(t, m, "/ready"); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	}))
	expectProbes(t, m, true, "true")
}

// TestConsumerProbes follows a consumer that can reach istiod only after a
// while. It is ready once the mesh has answered about all it refers to, and
// whether that has an endpoint does not matter: a consumer that restarts
// because its provider is down helps nobody.
func TestConsumerProbes(t *testing.T) { eachView(t, testConsumerProbes) }

func testConsumerProbes(t *testing.T) {
	l := suite.Lab(t)
	must(t, l.Namespace(soon(t), "probes"))
	withManifest(t, l, service("probes", "deserted", "nobody", grpcPort))
	var good, file string
	m := joinConsumer(t, l, "probes", localQoS, func(c *proxyless.Config) {
		good, file = readFile(t, c.TokenFile), c.TokenFile
		c.ResourceTimeout = 2 * time.Second
		replaceFile(t, file, "")
	})
	expectProbes(t, m, false, "nothing exported or referred yet")
	client := refer(t, m, "deserted")
	expectProbes(t, m, false, greetings+":1.0.0: the mesh has not answered yet")
	expectTrouble(t, m, client, proxyless.StageIdentity, "there is no token")
	expectProbes(t, m, false, "there is no token")
	replaceFile(t, file, good)
	becomesReady(t, m)
	expectError(t, refusal(t, client), proxyless.StageEndpoint, "the mesh lists no endpoint")
	refer(t, m, "nobody")
	if viewOf(t) == leanView { // the other knows at once
		expectProbes(t, m, false, "the mesh has not answered yet")
	}
	becomesReady(t, m) // it has: there is no such Service
	if _, text := askQoS(t, m, "/ls"); !strings.Contains(text, "from deserted port 50052: 0 of 0 endpoints") || !strings.Contains(text, "knows nothing of that name") {
		t.Errorf("/ls:\n%s", text)
	}
}

// TestProviderProbes follows a provider from Join to its end. istiod finds a
// node by its ready pod, and this pod is not ready before the provider is.
func TestProviderProbes(t *testing.T) { eachView(t, testProviderProbes) }

func testProviderProbes(t *testing.T) {
	l := suite.Lab(t)
	w := addWorkload(t, l, "probes", "provider", map[string]string{"app": "probed"})
	withManifest(t, l, service("probes", "probed", "probed", grpcPort))
	cfg := memberConfig(t, l, "probes", "provider", w.IP.String())
	cfg.Host, cfg.Port, cfg.ShutdownDelay = w.IP.String(), servicePort, time.Second
	localQoS(&cfg)
	m := join(t, cfg)
	expectProbes(t, m, false, "nothing exported or referred yet")
	server := m.NewServer()
	greetpb.RegisterGreetingServiceServer(server, &provider{Workload: w})
	expectProbes(t, m, false, "a server was made but does not serve yet")
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }() // ended by stop, joined below
	becomesReady(t, m)
	health := healthpb.NewHealthClient(dial(t, w))
	expectHealth(t, health, healthpb.HealthCheckResponse_SERVING)
	must(t, w.SetReady(soon(t), true))

	consumer := joinConsumer(t, l, "probes")
	client := greetpb.NewGreetingServiceClient(unversioned(t, consumer, "probed"))
	ready(t, consumer)
	calls := drive(t, client)
	if code, text := askQoS(t, m, "/offline"); code != http.StatusOK || text != "OK" {
		t.Errorf("/offline: %d %q", code, text)
	}
	expectProbes(t, m, false, "taken offline through QoS")
	expectHealth(t, health, healthpb.HealthCheckResponse_NOT_SERVING)
	calls.reaches(t, w.IP.String()) // calls are served on, until the mesh takes the pod out
	askQoS(t, m, "/online")
	expectProbes(t, m, true, "true")
	expectHealth(t, health, healthpb.HealthCheckResponse_SERVING)
	calls.stop()
	calls.expectNoneLost(t, "while the provider was offline")

	stop()
	must(t, lab.WaitFor(within(t, 10*time.Second), "the provider to drain", func(context.Context) error {
		if code, text := askQoS(t, m, "/ready"); code != http.StatusServiceUnavailable || !strings.Contains(text, "draining") {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	}))
	must(t, <-served)
	expectProbes(t, m, false, "has stopped")
}

// TestForeignProbes asks from another address, as a kubelet does: the probes
// are for everybody, and no more than the answer; commands are not.
func TestForeignProbes(t *testing.T) {
	l := suite.Lab(t)
	w := addWorkload(t, l, "probes", "foreign", nil)
	m := joinConsumer(t, l, "probes", func(c *proxyless.Config) {
		c.QoS = proxyless.QoS{Host: w.IP.String(), AcceptForeignIP: true, Check: true}
	})
	want := []struct {
		path string
		code int
		text string // the answer, or the end of a sentence
	}{
		{"/live", http.StatusOK, "true"},
		{"/startup", http.StatusOK, "true"},
		{"/ready", http.StatusServiceUnavailable, "false"},
		{"/ls", http.StatusForbidden, "qosAnonymousAllowCommands=ls"},
		{"/offline", http.StatusForbidden, "qosAnonymousAllowCommands=offline"},
		{"/snapshot", http.StatusForbidden, "qosAnonymousAllowCommands=snapshot"},
		{"/config", http.StatusForbidden, "qosAnonymousAllowCommands=config"},
	}
	for _, c := range want {
		code, text := get(t, http.DefaultClient, "http://"+net.JoinHostPort(w.IP.String(), "22222")+c.path)
		if code != c.code || !strings.HasSuffix(text, c.text) {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, text, c.code, c.text)
		}
	}
	if m.QoSAddr().String() != net.JoinHostPort(w.IP.String(), "22222") {
		t.Errorf("QoS is at %v", m.QoSAddr())
	}
}

// unversioned refers to the greeting service without a version.
func unversioned(t testing.TB, m *proxyless.Mesh, providedBy string) *proxyless.Invoker {
	t.Helper()
	inv, err := m.Refer(greetings, proxyless.ProvidedBy(providedBy))
	must(t, err)
	return inv
}

// dial connects to the provider on the workload as any gRPC client may.
func dial(t testing.TB, w *lab.Workload) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(net.JoinHostPort(w.IP.String(), fmt.Sprint(servicePort)), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// expectHealth checks what gRPC's health service says of the process and of
// the interface.
func expectHealth(t testing.TB, health healthpb.HealthClient, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	for _, service := range []string{"", greetings} {
		answer, err := health.Check(within(t, 10*time.Second), &healthpb.HealthCheckRequest{Service: service})
		must(t, err)
		if answer.Status != want {
			t.Errorf("health of %q is %v, want %v", service, answer.Status, want)
		}
	}
}
