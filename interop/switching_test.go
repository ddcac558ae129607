package interop

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const switchingNamespace = "switching"

// switching is a provider whose PeerAuthentication changes, and those who call
// it all the time.
type switching struct {
	lab      *lab.Lab
	provider *provider
	meshed   greetpb.GreetingServiceClient // a member, which follows the mesh
	mutual   greetpb.GreetingServiceClient // TLS always
	plain    greetpb.GreetingServiceClient // TLS never
}

// switchingApp is the provider's label and its Service.
const switchingApp = "switched"

func newSwitching(t *testing.T) *switching {
	t.Helper()
	l := suite.Lab(t)
	s := &switching{lab: l}
	s.provider = startPod(t, l, lab.WorkloadSpec{Namespace: switchingNamespace, Name: switchingApp, Account: "provider",
		Labels: map[string]string{"app": switchingApp, tlsMode: "istio"}}, localQoS)
	withManifest(t, l, service(switchingNamespace, switchingApp, switchingApp, grpcPort))
	m := joinConsumer(t, l, switchingNamespace)
	s.meshed = refer(t, m, switchingApp)
	caller := certified(t, l, switchingNamespace, "caller")
	s.mutual = bareClient(dialTLS(t, s.address(), caller, caller.pool(), istioALPN...))
	s.plain = bareClient(dialPlain(t, s.address()))
	ready(t, m)
	return s
}

func (s *switching) address() string { return fmt.Sprintf("%v:%d", s.provider.IP, servicePort) }

// withMode applies the PeerAuthentication until the subtest ends.
func (s *switching) withMode(t *testing.T, spec string) {
	t.Helper()
	withManifest(t, s.lab, peerAuthentication(switchingNamespace, switchingApp, spec))
}

// refusedWithoutTLS takes a call that found no connection.
func refusedWithoutTLS(host string, err error) error { return coded(codes.Unavailable)(host, err) }

// TestPeerAuthenticationSwitched goes through the modes under calls, for a
// workload, its namespace, and one of its ports: nobody who may call under the
// mode before and the mode after loses a call, and who may not any more is
// refused, on connections of before as well.
func TestPeerAuthenticationSwitched(t *testing.T) {
	s := newSwitching(t)
	untilEach(t, "all to be let in", map[greetpb.GreetingServiceClient]func(string, error) error{
		s.meshed: answered, s.mutual: answered, s.plain: answered})
	namespaced := func(mode string) string {
		return "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: switching}\nspec: {mtls: {mode: " + mode + "}}\n"
	}
	workload := func(spec string) string { return peerAuthentication(switchingNamespace, switchingApp, spec) }
	// What is applied replaces what was applied before.
	steps := []struct {
		name, manifest string
		mutual, plain  bool
	}{
		{"STRICT for the workload", workload("mtls: {mode: STRICT}"), true, false},
		{"PERMISSIVE for the workload", workload("mtls: {mode: PERMISSIVE}"), true, true},
		{"STRICT for the port", workload("mtls: {mode: PERMISSIVE}, portLevelMtls: {50052: {mode: STRICT}}"), true, false},
		{"DISABLE for the port", workload("mtls: {mode: STRICT}, portLevelMtls: {50052: {mode: DISABLE}}"), false, true},
		{"STRICT for the namespace", namespaced("STRICT"), true, false},
		{"DISABLE for the namespace", namespaced("DISABLE"), false, true},
		{"nothing said", "", true, true},
	}
	meshed := drive(t, s.meshed)
	mutual, plain, before := true, true, ""
	for _, step := range steps {
		t.Log(step.name)
		var mutualCalls, plainCalls *traffic
		if mutual && step.mutual {
			mutualCalls = drive(t, s.mutual)
		}
		if plain && step.plain {
			plainCalls = drive(t, s.plain)
		}
		s.replace(t, before, step.manifest)
		checks := map[greetpb.GreetingServiceClient]func(string, error) error{s.meshed: answered, s.mutual: answered, s.plain: answered}
		if !step.mutual {
			checks[s.mutual] = refusedWithoutTLS
		}
		if !step.plain {
			checks[s.plain] = refusedWithoutTLS
		}
		untilEach(t, step.name, checks)
		time.Sleep(time.Second) // under calls
		for who, calls := range map[string]*traffic{"with TLS": mutualCalls, "without TLS": plainCalls} {
			if calls != nil {
				calls.stop()
				calls.expectNoneLost(t, "of those "+who+", while there came to be "+step.name)
			}
		}
		meshed.expectNoneLost(t, "of the member, while there came to be "+step.name)
		mutual, plain, before = step.mutual, step.plain, step.manifest
	}
}

// replace applies one manifest in place of another. Objects that are in both
// are changed and never away.
func (s *switching) replace(t *testing.T, before, after string) {
	t.Helper()
	if after != "" {
		withManifest(t, s.lab, after)
	}
	name := func(manifest string) string {
		_, rest, _ := strings.Cut(manifest, "metadata:")
		line, _, _ := strings.Cut(rest, "\n")
		return line
	}
	if before != "" && name(before) != name(after) {
		removeManifest(t, s.lab, before)
	}
}

// TestPlainConnectionsEnd opens connections without TLS, on one of which a call
// is under way, and demands TLS: the idle one is closed, the call is let end,
// and its connection closed after it.
func TestPlainConnectionsEnd(t *testing.T) {
	s := newSwitching(t)
	eventually(t, "plain text to be let in", s.plain, answered)
	idle := greetRaw(t, s.address())
	conn := dialPlain(t, s.address())
	slow := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	received := s.provider.received.Load()
	go func() { // ends with ctx
		_, err := bareClient(conn).SayHello(ctx, &greetpb.SayHelloRequest{Name: "slowly"})
		slow <- err
	}()
	must(t, lab.WaitFor(within(t, 5*time.Second), "the slow call to begin", func(context.Context) error {
		if s.provider.received.Load() == received {
			return fmt.Errorf("it has not")
		}
		return nil
	}))
	s.withMode(t, "mtls: {mode: STRICT}")
	if after, open := staysOpen(t, idle, 20*time.Second); open {
		t.Errorf("a connection without TLS is open still, %v after STRICT was applied", after)
	}
	if err := <-slow; coded(codes.DeadlineExceeded)("", err) != nil { // its own: nobody broke it
		t.Errorf("the call that was under way ended with %v", err)
	}
	eventually(t, "plain text to be refused", bareClient(conn), refusedWithoutTLS)
	eventually(t, "the member to be let in", s.meshed, answered)
}

// TestWrongCaller shows who is not let in under STRICT: nobody without a
// certificate, nor with one that the mesh's roots do not vouch for, nor with
// one of another trust domain.
func TestWrongCaller(t *testing.T) {
	s := newSwitching(t)
	s.withMode(t, "mtls: {mode: STRICT}")
	eventually(t, "plain text to be refused", s.plain, refusedWithoutTLS)
	ours := certified(t, s.lab, switchingNamespace, "caller")
	authority, err := lab.NewAuthority("elsewhere", nil)
	must(t, err)
	cases := map[string]*grpc.ClientConn{
		"no certificate":             dialTLS(t, s.address(), nil, ours.pool(), istioALPN...),
		"another authority":          dialTLS(t, s.address(), forged(t, authority, "spiffe://cluster.local/ns/switching/sa/caller"), ours.pool(), istioALPN...),
		"plain text":                 dialPlain(t, s.address()),
		"another authority, no ALPN": dialTLS(t, s.address(), forged(t, authority, "spiffe://cluster.local/ns/switching/sa/caller"), ours.pool(), "h2"),
	}
	received := s.provider.received.Load()
	for name, conn := range cases {
		if err := outcome(t, conn, sayHello); coded(codes.Unavailable)("", err) != nil {
			t.Errorf("%s: the call ended with %v", name, err)
		}
	}
	if s.provider.received.Load() != received {
		t.Error("a call of a caller that is not of the mesh was let in")
	}
	if err := outcome(t, dialTLS(t, s.address(), ours, ours.pool(), istioALPN...), sayHello); err != nil {
		t.Errorf("a caller of the mesh: %v", err)
	}
	if err := outcome(t, dialTLS(t, s.address(), ours, ours.pool(), "h2"), sayHello); err != nil {
		t.Errorf("a caller of the mesh that does not offer Istio's ALPN: %v", err)
	}
}

// TestGarbage sends a PERMISSIVE provider what is neither TLS nor HTTP/2: it is
// cut off, and who calls meanwhile notices nothing.
func TestGarbage(t *testing.T) {
	s := newSwitching(t)
	calls := drive(t, s.meshed)
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\xff\xff", strings.Repeat("\x00", 4096), "\x16", "PRI * HTTP"} {
		conn, err := net.Dial("tcp", s.address())
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		conn.Write([]byte(garbage))
	}
	calls.reaches(t, s.provider.IP.String())
	calls.stop()
	calls.expectNoneLost(t, "beside garbage")
}
