package proxyless

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// tolerating is a hand-fed Mesh whose reference has options, and whose one
// route has a policy.
func tolerating(t testing.TB, p *routePolicy, opts []ReferOption, replicas ...*replica) *handFed {
	t.Helper()
	m := underPolicy(t, nil, replicas...)
	var s referSettings
	for _, o := range opts {
		o.applyRefer(&s)
	}
	m.inv.target.tolerance = newTolerance(&s, &m.mesh.config)
	m.govern(m.inv.target.policy(p))
	return m
}

func with(opts ...ReferOption) []ReferOption { return opts }

func TestDubbosRetries(t *testing.T) {
	unavailable, business := status.Error(codes.Unavailable, ""), status.Error(codes.Unknown, "a business error")
	mesh := &routePolicy{retry: &retryPolicy{codes: bit(codes.Unavailable), retries: 4, base: quick}}
	for name, test := range map[string]struct {
		opts   []ReferOption
		policy *routePolicy
		fail   error
		want   int32
	}{
		"by default the mesh decides":         {nil, nil, unavailable, 1},
		"failover":                            {with(Cluster("failover")), nil, unavailable, 3},
		"in any case":                         {with(Cluster(" FailOver ")), nil, unavailable, 3},
		"retries alone":                       {with(Retries(3)), nil, unavailable, 4},
		"failover, retries":                   {with(Cluster("failover"), Retries(1)), nil, unavailable, 2},
		"failover, no retries":                {with(Cluster("failover"), Retries(0)), nil, unavailable, 1},
		"less than none":                      {with(Cluster("failover"), Retries(-1)), nil, unavailable, 1},
		"a business error":                    {with(Cluster("failover")), nil, business, 1},
		"the mesh's, in place of Dubbo's":     {with(Cluster("failover"), Retries(1)), mesh, unavailable, 5},
		"failfast":                            {with(Cluster("failfast")), nil, unavailable, 1},
		"failfast, whatever the mesh says":    {with(Cluster("failfast"), Retries(3)), mesh, unavailable, 1},
		"available, and the mesh's retries":   {with(Cluster("available")), mesh, unavailable, 5},
		"available, and Dubbo's are not many": {with(Cluster("available"), Retries(3)), nil, unavailable, 1},
	} {
		t.Run(name, func(t *testing.T) {
			one := answering(t, "", test.fail)
			m := tolerating(t, test.policy, test.opts, one)
			if _, err := m.say(soon(t)); status.Code(err) != status.Code(test.fail) || one.calls.Load() != test.want {
				t.Errorf("got %v after %d attempts, want %d", err, one.calls.Load(), test.want)
			}
		})
	}
}

func TestFailsafeTellsNothing(t *testing.T) {
	for name, test := range map[string]struct {
		fail error
		want codes.Code
	}{
		"the call failed":  {status.Error(codes.Unavailable, ""), codes.OK},
		"a business error": {status.Error(codes.NotFound, ""), codes.NotFound},
	} {
		m := tolerating(t, nil, with(Cluster("failsafe")), answering(t, "", test.fail))
		out := wrapperspb.String("old")
		err := m.inv.Invoke(soon(t), wireMethod, wrapperspb.String("hello"), out)
		if status.Code(err) != test.want || err == nil && out.Value != "" || (m.mesh.Stats().Swallowed == 1) != (err == nil) {
			t.Errorf("%s: %v, reply %q, %d swallowed", name, err, out.Value, m.mesh.Stats().Swallowed)
		}
	}
	m := tolerating(t, nil, with(Cluster("failsafe")), answering(t, "one", nil))
	if who, err := m.say(soon(t)); who != "one" || err != nil {
		t.Errorf("a call that succeeds: %q, %v", who, err)
	}
}

func TestForkingTakesTheFirstThatSucceeds(t *testing.T) {
	slow, cancelled := hanging(t)
	bad := answering(t, "", status.Error(codes.Internal, ""))
	good := saying(t, func(context.Context, int) (string, error) { time.Sleep(20 * time.Millisecond); return "good", nil })
	m := tolerating(t, nil, with(Cluster("forking"), Forks(3)), slow, bad, good)
	for range 5 {
		if who, err := m.say(soon(t)); who != "good" || err != nil {
			t.Errorf("got %q, %v", who, err)
		}
	}
	waitFor(t, "the losers are cancelled", func() bool { return cancelled.Load() == slow.calls.Load() })
	m = tolerating(t, nil, with(Cluster("forking")), bad)
	bad.calls.Store(0)
	if _, err := m.say(soon(t)); status.Code(err) != codes.Internal || bad.calls.Load() != 2 {
		t.Errorf("all fail: %v after %d forks", err, bad.calls.Load())
	}
}

func TestBroadcastCallsEveryProvider(t *testing.T) {
	var all []*replica
	for i := range 2 * mostBroadcast {
		all = append(all, answering(t, fmt.Sprint(i), nil))
	}
	m := tolerating(t, nil, with(Cluster("broadcast")), all...)
	var header metadata.MD
	who, err := m.say(soon(t), grpc.Header(&header))
	if err != nil || who == "" || header == nil {
		t.Errorf("got %q, %v, header %v", who, err, header)
	}
	for i, r := range all {
		if n := r.calls.Load(); n != 1 {
			t.Errorf("provider %d was called %d times", i, n)
		}
	}
	bad := answering(t, "", status.Error(codes.NotFound, "not here"))
	m = tolerating(t, nil, with(Cluster("broadcast")), append(all[:3:3], bad)...)
	_, err = m.say(soon(t))
	isOwn(t, err, StageEndpoint, codes.NotFound, "1 of 4 endpoints failed the broadcast: "+bad.addr.String()+": not here")
}

func TestBroadcastConnectsToProvidersThatWereNeverCalled(t *testing.T) {
	one, two := answering(t, "one", nil), answering(t, "two", nil)
	m := tolerating(t, nil, with(Cluster("broadcast")), one)
	m.feed([][]byte{replicaEndpoints(fedCluster, one, two)})
	if _, err := m.say(soon(t)); err != nil || two.calls.Load() != 1 {
		t.Errorf("got %v, %d calls", err, two.calls.Load())
	}
}

func TestAvailableStaysWithTheFirstProvider(t *testing.T) {
	var all []*replica
	for i := range 3 {
		all = append(all, answering(t, fmt.Sprint(i), nil))
	}
	m := tolerating(t, nil, with(Cluster("available")), all...)
	first := ""
	for range 6 {
		who, err := m.say(soon(t))
		if err != nil || first != "" && who != first {
			t.Errorf("got %q, %v, after %q", who, err, first)
		}
		first = who
	}
	i := slices.IndexFunc(all, func(r *replica) bool { return r.calls.Load() > 0 })
	all[i].serve.Stop()
	waitFor(t, "another one takes over", func() bool { who, err := m.say(soon(t)); return err == nil && who != first })
}

// TestFailbackCallsAgainLater runs in a bubble, since Dubbo waits five seconds.
func TestFailbackCallsAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newErrands(2)
		var ran atomic.Int32
		for range 3 {
			e.run(func(end context.Context) {
				select {
				case <-end.Done():
				case <-time.After(failbackPeriod):
					ran.Add(1)
				}
			})
		}
		time.Sleep(failbackPeriod)
		synctest.Wait()
		if n := ran.Load(); n != 2 {
			t.Errorf("%d errands ran, want the two that there is room for", n)
		}
		e.run(func(end context.Context) { <-end.Done() })
		e.close()
		if e.run(func(context.Context) {}) {
			t.Error("an errand was run after close")
		}
	})
}

func TestFailbackRepeatsWhatWasSent(t *testing.T) {
	var got atomic.Pointer[string]
	one := &replica{}
	one.say = func(_ context.Context, in string) (string, error) {
		if one.calls.Load() == 1 {
			return "", status.Error(codes.Unavailable, "")
		}
		got.Store(&in)
		return "", nil
	}
	one.start(t)
	m := tolerating(t, nil, with(Cluster("failback")), one)
	in := wrapperspb.String("hello")
	if err := m.inv.Invoke(soon(t), wireMethod, in, new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	in.Value = "changed by its owner"
	if testing.Short() {
		return
	}
	waitFor(t, "the call is made again", func() bool { return got.Load() != nil })
	if *got.Load() != "hello" {
		t.Errorf("the provider got %q", *got.Load())
	}
}

func TestCloseDropsWhatFailbackWouldRepeat(t *testing.T) {
	one := answering(t, "", status.Error(codes.Unavailable, ""))
	m := tolerating(t, nil, with(Cluster("failback")), one)
	for range 3 {
		if _, err := m.say(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	m.mesh.table.close()
	if took := time.Since(start); took > failbackPeriod-time.Second {
		t.Errorf("Close took %v", took)
	}
}

func TestUnknownClustersAreNamed(t *testing.T) {
	m := newHandFed()
	_, err := m.mesh.Refer("greet.Greeting", ProvidedBy("echo"), Cluster("failsoft"))
	if err == nil || !strings.Contains(err.Error(), `"failsoft"`) || !strings.Contains(err.Error(), strings.Join(clusterNames, ", ")) {
		t.Errorf("got %v", err)
	}
}
