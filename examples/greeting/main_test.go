package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
)

func TestTheConsumerHearsFromBothProvidersInTurn(t *testing.T) {
	for _, view := range []proxyless.View{proxyless.ViewFull, proxyless.ViewLean} {
		t.Run(view.String(), func(t *testing.T) { hearFromBoth(t, view) })
	}
}

func hearFromBoth(t *testing.T, view proxyless.View) {
	noGoroutineLeft(t)
	out := &transcript{}
	s := testSettings(t, out, net.Listen)
	s.view = view
	if err := run(t.Context(), s); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	hosts := inTurn(t, out)
	if loopbackHas(t, "127.0.0.2", "127.0.0.3", "127.0.0.4") && !(hosts["127.0.0.2"] && hosts["127.0.0.3"]) {
		t.Errorf("the greetings come from %v\n%s", hosts, out)
	}
	if got := strings.Count(out.String(), "greeting service received: xDS Consumer\n"); got != 6 {
		t.Errorf("the providers say %d times that they were called, want 6\n%s", got, out)
	}
}

func TestOneLoopbackAddressIsEnough(t *testing.T) {
	noGoroutineLeft(t)
	out := &transcript{}
	if err := run(t.Context(), testSettings(t, out, only("127.0.0.1"))); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for host := range inTurn(t, out) {
		if !strings.HasPrefix(host, "127.0.0.1:") {
			t.Errorf("a greeting comes from %s\n%s", host, out)
		}
	}
	if !strings.Contains(out.String(), "This system has only 127.0.0.1") {
		t.Errorf("the demo does not say why it differs\n%s", out)
	}
}

func TestAnInterruptEndsTheDemoWithoutAnError(t *testing.T) {
	noGoroutineLeft(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := &transcript{after: 3, then: cancel}
	s := testSettings(t, out, net.Listen)
	s.calls = 0
	if err := run(ctx, s); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out.String(), " 0 failed") || strings.Contains(out.String(), "error:") {
		t.Errorf("the interrupt shows as a failed call\n%s", out)
	}
}

func testSettings(t *testing.T, out *transcript, listen listenFunc) settings {
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	return settings{view: proxyless.ViewFull, calls: 6, interval: time.Millisecond, out: out, logger: logger, listen: listen}
}

var result = regexp.MustCompile(`(?m)^result: hello, xDS Consumer! from host: (\S+)$`)

// inTurn checks that six greetings came from two hosts in turn, and returns
// the hosts.
func inTurn(t *testing.T, out *transcript) map[string]bool {
	t.Helper()
	lines := result.FindAllStringSubmatch(out.String(), -1)
	if len(lines) != 6 {
		t.Fatalf("%d greetings, want 6\n%s", len(lines), out)
	}
	hosts := map[string]bool{}
	for i, line := range lines {
		hosts[line[1]] = true
		if i > 0 && line[1] == lines[i-1][1] {
			t.Errorf("greetings %d and %d come from the same host\n%s", i-1, i, out)
		}
	}
	if len(hosts) != 2 {
		t.Errorf("the greetings come from %d hosts, want 2\n%s", len(hosts), out)
	}
	return hosts
}

func loopbackHas(t *testing.T, hosts ...string) bool {
	t.Helper()
	for _, host := range hosts {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return false
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// only is [net.Listen] on a system that has no other host.
func only(host string) listenFunc {
	return func(network, address string) (net.Listener, error) {
		if !strings.HasPrefix(address, host+":") {
			return nil, errors.New("cannot assign requested address")
		}
		return net.Listen(network, address)
	}
}

// noGoroutineLeft checks at the end of the test that no more goroutines run
// than at its beginning.
func noGoroutineLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > before {
			if time.Now().After(deadline) {
				var stacks bytes.Buffer
				_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
				t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, &stacks)
			}
			time.Sleep(5 * time.Millisecond) // goroutines that have ended their work leave in their own time
		}
	})
}

// A transcript collects what the demo prints, from several goroutines, and
// calls then once, after the given number of results.
type transcript struct {
	after int
	then  func()

	mu      sync.Mutex
	text    strings.Builder
	results int
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if bytes.HasPrefix(p, []byte("result: ")) {
		if t.results++; t.results == t.after {
			t.then()
		}
	}
	return t.text.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
