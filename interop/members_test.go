package interop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// What the members of the mesh in this package export and refer to.
const (
	greetings   = "org.apache.dubbo.samples.GreetingService"
	version     = "1.0.0"
	servicePort = 50052
)

// consumerIP is the address of every consumer that the test process plays; it
// is behind no Service, and nothing connects to it.
const consumerIP = "10.244.0.250"

// A setting changes the Config of a member.
type setting = func(*proxyless.Config)

// memberConfig is what a pod of the namespace has: its token, istiod's root,
// and who it is; in the view that the test is in.
func memberConfig(t testing.TB, l *lab.Lab, namespace, pod, ip string) proxyless.Config {
	t.Helper()
	ctx := soon(t)
	must(t, l.Namespace(ctx, namespace))
	roots, err := l.RootCert(ctx, "default") // the same in all namespaces
	must(t, err)
	cfg := proxyless.Config{
		Application:   pod,
		ControlPlanes: []string{l.Istiod.Secure()},
		RootCertFile:  tempFile(t, "root-cert.pem", string(roots)),
		TokenFile:     tempFile(t, "istio-token", istioToken(ctx, t, l, namespace)),
		Node:          proxyless.Node{IP: ip, Pod: pod, Namespace: namespace},
		QoS:           proxyless.QoS{Disabled: true},
		Logger:        slog.New(slog.DiscardHandler),
	}
	viewOf(t).set(&cfg)
	return cfg
}

// join makes a member of the mesh, which leaves when the test ends.
func join(t testing.TB, cfg proxyless.Config) *proxyless.Mesh {
	t.Helper()
	m, err := proxyless.Join(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// joinConsumer joins as a pod that only calls.
func joinConsumer(t testing.TB, l *lab.Lab, namespace string, settings ...setting) *proxyless.Mesh {
	t.Helper()
	cfg := memberConfig(t, l, namespace, "consumer", consumerIP)
	for _, change := range settings {
		change(&cfg)
	}
	return join(t, cfg)
}

// refer makes a client of the greeting service that providedBy provides.
func refer(t testing.TB, m *proxyless.Mesh, providedBy string, options ...proxyless.ReferOption) greetpb.GreetingServiceClient {
	t.Helper()
	options = append([]proxyless.ReferOption{proxyless.ProvidedBy(providedBy), proxyless.Version(version)}, options...)
	inv, err := m.Refer(greetings, options...)
	must(t, err)
	return greetpb.NewGreetingServiceClient(inv)
}

// ready waits until all that the mesh refers to can be called.
func ready(t testing.TB, m *proxyless.Mesh) {
	t.Helper()
	must(t, m.WaitReady(within(t, 30*time.Second)))
}

// greet calls once and returns who answered.
func greet(ctx context.Context, client greetpb.GreetingServiceClient) (host string, err error) {
	reply, err := client.SayHello(ctx, &greetpb.SayHelloRequest{Name: "xDS Consumer"})
	_, host, _ = strings.Cut(reply.GetMessage(), "from host: ")
	return host, err
}

// refusal is the error of one call, which waits until the mesh has said what
// there is.
func refusal(t testing.TB, client greetpb.GreetingServiceClient) *proxyless.Error {
	t.Helper()
	host, err := greet(within(t, 30*time.Second), client)
	var own *proxyless.Error
	if !errors.As(err, &own) {
		t.Fatalf("answer of %q, error %v, want an error of proxyless", host, err)
	}
	return own
}

// expectError checks where in the chain an error is, and what it says.
func expectError(t testing.TB, got *proxyless.Error, stage proxyless.Stage, parts ...string) {
	t.Helper()
	if got.Stage != stage {
		t.Errorf("the error is of stage %q, want %q: %v", got.Stage, stage, got)
	}
	for _, part := range parts {
		if !strings.Contains(got.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, got)
		}
	}
}

// eventually calls until check takes the outcome.
func eventually(t testing.TB, what string, client greetpb.GreetingServiceClient, check func(host string, err error) error) {
	t.Helper()
	must(t, lab.WaitFor(within(t, 45*time.Second), what, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return check(greet(ctx, client))
	}))
}

// answered takes a call that did not fail.
func answered(_ string, err error) error { return err }

// failsAt takes a call that failed at the stage.
func failsAt(stage proxyless.Stage) func(string, error) error {
	return func(host string, err error) error {
		var own *proxyless.Error
		if errors.As(err, &own) && own.Stage == stage {
			return nil
		}
		return fmt.Errorf("answer of %q, error %w", host, err)
	}
}

// provider is a pod that the test process plays, with the library in it.
type provider struct {
	*lab.Workload
	mesh      *proxyless.Mesh
	received  atomic.Int64
	encrypted atomic.Bool                    // the last call's connection
	caller    atomic.Pointer[proxyless.Peer] // the last one
	stop      func() error                   // ends Serve and returns what it returned

	greetpb.UnimplementedGreetingServiceServer
}

// as makes a member of the service account, which is made where there is none.
func as(t testing.TB, l *lab.Lab, account string) setting {
	return func(c *proxyless.Config) {
		t.Helper()
		serviceAccount(t, l, c.Node.Namespace, account)
		token, err := l.Token(soon(t), c.Node.Namespace, account, time.Hour, lab.IstioAudience)
		must(t, err)
		replaceFile(t, c.TokenFile, token)
		c.Node.ServiceAccount = account
	}
}

// serviceAccount makes a service account, which stays.
func serviceAccount(t testing.TB, l *lab.Lab, namespace, name string) {
	t.Helper()
	must(t, l.Namespace(soon(t), namespace))
	apply(t, l, fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: %s}\n", name, namespace))
}

// startProvider starts a provider with the labels and makes its pod ready once
// it listens.
func startProvider(t testing.TB, l *lab.Lab, namespace, name string, labels map[string]string, settings ...setting) *provider {
	t.Helper()
	return startPod(t, l, lab.WorkloadSpec{Namespace: namespace, Name: name, Labels: labels}, settings...)
}

// startPod is startProvider for a pod that is special, as one of a service
// account of its own.
func startPod(t testing.TB, l *lab.Lab, spec lab.WorkloadSpec, settings ...setting) *provider {
	t.Helper()
	if spec.Account != "" {
		settings = append([]setting{as(t, l, spec.Account)}, settings...)
		serviceAccount(t, l, spec.Namespace, spec.Account)
	}
	spec.NotReady = true
	p := &provider{Workload: addPod(t, l, spec)}
	p.export(t, l, spec, settings...)
	must(t, p.SetReady(soon(t), true))
	return p
}

// export joins as the pod and serves.
func (p *provider) export(t testing.TB, l *lab.Lab, spec lab.WorkloadSpec, settings ...setting) {
	t.Helper()
	cfg := memberConfig(t, l, spec.Namespace, spec.Name, p.IP.String())
	cfg.Host, cfg.Port, cfg.ShutdownDelay, cfg.Node.Labels = p.IP.String(), servicePort, -1, spec.Labels
	for _, change := range settings {
		change(&cfg)
	}
	p.mesh = join(t, cfg)
	server := p.mesh.NewServer()
	greetpb.RegisterGreetingServiceServer(server.With(proxyless.Version(version)), p)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }() // ended and joined by stop
	p.stop = sync.OnceValue(func() error { cancel(); return <-served })
	t.Cleanup(func() { p.stop() })
	must(t, lab.WaitFor(soon(t), "the provider to listen", func(context.Context) error {
		if server.Addr() == nil {
			return errors.New("it does not")
		}
		return nil
	}))
}

// SayHello answers as the greeting of the guide does; "slowly" takes its time.
func (p *provider) SayHello(ctx context.Context, in *greetpb.SayHelloRequest) (*greetpb.SayHelloReply, error) {
	p.received.Add(1)
	from, _ := peer.FromContext(ctx)
	_, encrypted := from.AuthInfo.(credentials.TLSInfo)
	p.encrypted.Store(encrypted)
	if caller, ok := proxyless.PeerFrom(ctx); ok {
		p.caller.Store(&caller)
	}
	if in.GetName() == "slowly" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &greetpb.SayHelloReply{Message: "hello, " + in.GetName() + "! from host: " + p.IP.String()}, nil
}

// lastIP counts the addresses that addPod gave out.
var lastIP atomic.Uint32

// addWorkload makes a pod that is not ready yet, at an address that none had
// for as long as possible. It goes with the test.
func addWorkload(t testing.TB, l *lab.Lab, namespace, name string, labels map[string]string) *lab.Workload {
	t.Helper()
	return addPod(t, l, lab.WorkloadSpec{Namespace: namespace, Name: name, Labels: labels, NotReady: true})
}

// addPod is addWorkload for a pod that is special; the address is given here.
func addPod(t testing.TB, l *lab.Lab, spec lab.WorkloadSpec) *lab.Workload {
	t.Helper()
	ctx := soon(t)
	must(t, l.Namespace(ctx, spec.Namespace))
	for {
		const first, count = 1, 254
		spec.IP = netip.AddrFrom4([4]byte{10, 244, 1, byte(first + lastIP.Add(1)%count)}).String()
		w, err := l.AddWorkload(ctx, spec)
		if errors.Is(err, lab.ErrTaken) && ctx.Err() == nil {
			continue
		}
		must(t, err)
		t.Cleanup(func() { w.Remove(context.Background()) })
		return w
	}
}

// service is the manifest of a Service for pods labelled app, with ports as
// they are written in YAML.
func service(namespace, name, app string, ports ...string) string {
	return fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: %s}
spec:
  selector: {app: %s}
  ports: [%s]
`, name, namespace, app, strings.Join(ports, ", "))
}

// grpcPort is the one port of most Services.
const grpcPort = "{name: grpc-tri, port: 50052}"

// withManifest applies a manifest until the test ends.
func withManifest(t testing.TB, l *lab.Lab, manifest string) {
	t.Helper()
	apply(t, l, manifest)
	t.Cleanup(func() { removeManifest(t, l, manifest) })
}

// removeManifest deletes what is left of a manifest.
func removeManifest(t testing.TB, l *lab.Lab, manifest string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := l.Delete(ctx, manifest); err != nil {
		t.Error(err)
	}
}

// tempFile writes a file that goes with the test.
func tempFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	replaceFile(t, path, text)
	return path
}

// replaceFile changes a file in one step, as a kubelet does.
func replaceFile(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path+".new", []byte(text), 0o600))
	must(t, os.Rename(path+".new", path))
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listen opens a bare TCP port on a workload's address, until the test ends.
func listen(t testing.TB, w *lab.Workload) net.Listener {
	t.Helper()
	lis, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.IP, servicePort)))
	must(t, err)
	t.Cleanup(func() { lis.Close() })
	return lis
}
