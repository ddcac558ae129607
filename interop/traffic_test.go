package interop

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
)

// traffic calls without end and keeps account of every call.
type traffic struct {
	stop func() // ends the callers and waits for them

	mu       sync.Mutex
	answers  map[string]int // by the host that answered; guarded by mu
	failures []failure      // guarded by mu
}

// failure is one call that failed.
type failure struct {
	at  time.Time
	err error
}

func (f failure) String() string { return f.at.Format("15:04:05.000 ") + f.err.Error() }

// The callers of a traffic, and what each waits between two calls: some
// hundred calls a second, which leaves most of the machine to istiod.
const (
	callers   = 4
	callPause = 10 * time.Millisecond
)

// drive starts calls, which end with the test at the latest.
func drive(t testing.TB, client greetpb.GreetingServiceClient) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{answers: map[string]int{}}
	var running sync.WaitGroup
	for range callers {
		running.Go(func() { tr.run(ctx, client) }) // ended and joined by stop
	}
	tr.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(tr.stop)
	return tr
}

func (tr *traffic) run(ctx context.Context, client greetpb.GreetingServiceClient) {
	ticker := time.NewTicker(callPause)
	defer ticker.Stop()
	for {
		tr.call(ctx, client)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// call makes one call. One that the end of the traffic cuts off counts for nothing.
func (tr *traffic) call(ctx context.Context, client greetpb.GreetingServiceClient) {
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	host, err := greet(limited, client)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch {
	case err == nil:
		tr.answers[host]++
	case ctx.Err() == nil:
		tr.failures = append(tr.failures, failure{time.Now(), err})
	}
}

// since returns the answers by host since the last call of since.
func (tr *traffic) since() map[string]int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	counts := tr.answers
	tr.answers = map[string]int{}
	return counts
}

// failed returns the failures since the last call of failed.
func (tr *traffic) failed() []failure {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	failures := tr.failures
	tr.failures = nil
	return failures
}

// expectNoneLost fails the test for calls that failed.
func (tr *traffic) expectNoneLost(t testing.TB, during string) {
	t.Helper()
	if failures := tr.failed(); len(failures) > 0 {
		t.Errorf("%d calls failed %s, the first: %v", len(failures), during, failures[0])
	}
}

// reaches waits until exactly the hosts answer: each of them, and for half a
// second nobody else.
func (tr *traffic) reaches(t testing.TB, hosts ...string) {
	t.Helper()
	slices.Sort(hosts)
	tr.since()
	ctx, began := within(t, 45*time.Second), time.Now()
	must(t, lab.WaitFor(ctx, fmt.Sprintf("calls to reach %v", hosts), func(context.Context) error {
		tr.mu.Lock()
		reached := slices.Sorted(maps.Keys(tr.answers))
		tr.mu.Unlock()
		if !subset(reached, hosts) {
			tr.since()
			began = time.Now()
		}
		if !slices.Equal(reached, hosts) || time.Since(began) < 500*time.Millisecond {
			return fmt.Errorf("they reach %v", reached)
		}
		return nil
	}))
}

func subset(part, whole []string) bool {
	return !slices.ContainsFunc(part, func(host string) bool { return !slices.Contains(whole, host) })
}
