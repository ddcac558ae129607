package interop

import (
	"context"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// greeters are the labels of the pods behind the Service "greeter".
var greeters = map[string]string{"app": "greeter"}

// startAgain sees to it that the tests after this one find istiod running.
func startAgain(t *testing.T, l *lab.Lab) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := l.Istiod.Start(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestIstiodRestarts kills istiod under calls and starts it again. Calls go on;
// what changed meanwhile, and what changes after it, arrives.
func TestIstiodRestarts(t *testing.T) { eachView(t, testIstiodRestarts) }

func testIstiodRestarts(t *testing.T) {
	l, first := oneProvider(t, "outage")
	second := startProvider(t, l, "outage", "greeter-2", greeters)
	m := joinConsumer(t, l, "outage")
	client := refer(t, m, "greeter")
	ready(t, m)
	calls := drive(t, client)
	calls.reaches(t, first.IP.String(), second.IP.String())
	before := m.Stats()

	l.Istiod.Kill()
	startAgain(t, l)
	must(t, first.stop())
	calls.reaches(t, second.IP.String())
	third := startProvider(t, l, "outage", "greeter-3", greeters)
	calls.expectNoneLost(t, "while istiod was down")

	must(t, l.Istiod.Start(within(t, 30*time.Second)))
	calls.reaches(t, second.IP.String(), third.IP.String())
	fourth := startProvider(t, l, "outage", "greeter-4", greeters)
	calls.reaches(t, second.IP.String(), third.IP.String(), fourth.IP.String())
	calls.stop()
	calls.expectNoneLost(t, "after istiod came back")
	if after := m.Stats(); after.ControlPlaneConnects <= before.ControlPlaneConnects || after.Responses == before.Responses {
		t.Errorf("before the restart: %+v, after it: %+v", before, after)
	}
}

// TestIstiodReplicas kills the replica that the consumer is connected to, and
// later the other.
func TestIstiodReplicas(t *testing.T) { eachView(t, testIstiodReplicas) }

func testIstiodReplicas(t *testing.T) {
	l, first := oneProvider(t, "replicas")
	replica, err := l.AddIstiod(within(t, 30*time.Second))
	must(t, err)
	t.Cleanup(replica.Stop)
	both := func(c *proxyless.Config) { c.ControlPlanes = []string{l.Istiod.Secure(), replica.Secure()} }
	m := joinConsumer(t, l, "replicas", both)
	client := refer(t, m, "greeter")
	ready(t, m)
	calls := drive(t, client)

	l.Istiod.Kill()
	startAgain(t, l)
	second := startProvider(t, l, "replicas", "greeter-2", greeters, both)
	calls.reaches(t, first.IP.String(), second.IP.String())

	must(t, l.Istiod.Start(within(t, 30*time.Second)))
	replica.Kill()
	third := startProvider(t, l, "replicas", "greeter-3", greeters, both)
	calls.reaches(t, first.IP.String(), second.IP.String(), third.IP.String())
	calls.stop()
	calls.expectNoneLost(t, "while one replica after the other was killed")
	if connects := m.Stats().ControlPlaneConnects; connects < 3 {
		t.Errorf("%d streams were opened, want one for each replica in turn", connects)
	}
}

// TestIstiodFreezes stops the replica that the consumer is connected to
// without closing anything: HTTP/2 pings notice it.
func TestIstiodFreezes(t *testing.T) {
	t.Parallel()
	eachView(t, testIstiodFreezes)
}

func testIstiodFreezes(t *testing.T) {
	l, first := oneProvider(t, "frozen")
	replica, err := l.AddIstiod(within(t, 30*time.Second))
	must(t, err)
	t.Cleanup(replica.Kill)
	m := joinConsumer(t, l, "frozen", func(c *proxyless.Config) {
		c.ControlPlanes = []string{replica.Secure(), l.Istiod.Secure()}
		c.ControlPlaneDialOptions = []grpc.DialOption{grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second})}
	})
	client := refer(t, m, "greeter")
	ready(t, m)
	calls := drive(t, client)
	replica.Freeze()
	second := startProvider(t, l, "frozen", "greeter-2", greeters)
	calls.reaches(t, first.IP.String(), second.IP.String())
	calls.stop()
	calls.expectNoneLost(t, "while a replica was frozen")
}
