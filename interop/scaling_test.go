package interop

import (
	"errors"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestScaling runs the greeting's providers as pods and scales them while calls
// go on. Calls fail only while there is no pod, and then as UNAVAILABLE.
func TestScaling(t *testing.T) {
	t.Parallel()
	eachView(t, testScaling)
}

func testScaling(t *testing.T) {
	const ns, name, label = "scaling", providerName, "demo=provider"
	l := deployed(t, ns, "provider.yaml")
	ctx := within(t, 2*time.Minute)
	must(t, l.Scale(ctx, ns, name, 1))
	_, err := l.WaitPods(ctx, ns, label, 1)
	must(t, err)
	m := joinConsumer(t, l, ns)
	client := refer(t, m, name)
	ready(t, m)
	calls := drive(t, client)

	for _, replicas := range []int{1, 3, 0, 2} {
		must(t, l.Scale(ctx, ns, name, replicas))
		pods, err := l.WaitPods(ctx, ns, label, replicas)
		must(t, err)
		var hosts []string
		for _, pod := range pods {
			hosts = append(hosts, pod.IP)
		}
		calls.reaches(t, hosts...)
		switch replicas {
		case 0:
			expectNoEndpoint(t, calls.failed())
		case 2:
			calls.failed() // those from before the first pod was ready
			calls.reaches(t, hosts...)
			calls.expectNoneLost(t, "with two pods")
		default:
			calls.expectNoneLost(t, "while there were pods")
		}
	}
	if s := m.Stats(); s.ControlPlaneConnects != 1 {
		t.Errorf("all of it over one stream, please: %+v", s)
	}
}

// expectNoEndpoint takes failures of calls that had nobody to go to.
func expectNoEndpoint(t *testing.T, failures []failure) {
	t.Helper()
	if len(failures) == 0 {
		t.Error("no call failed although there was nobody to answer")
	}
	for _, f := range failures {
		var own *proxyless.Error
		if !errors.As(f.err, &own) || own.Stage != proxyless.StageEndpoint || status.Code(f.err) != codes.Unavailable {
			t.Fatalf("want UNAVAILABLE for want of an endpoint: %v", f)
		}
	}
}
