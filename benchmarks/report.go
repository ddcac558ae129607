package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// report prints the table, row by row as they come.
type report struct{ quick bool }

// row is one comparison. The budget is a bound on the estimate: an upper one,
// or a lower one where more is better.
type row struct {
	what        string
	ours, other string
	compared    string // what the estimate is
	estimate    estimate
	unit        string
	budget      float64 // 0 is none
	atLeast     bool
}

// add prints a row as BENCHMARKS.md has it.
func (r *report) add(w row) {
	fmt.Printf("| %s | %s | %s | %s | %s%s | %d | %s |\n", w.what, w.ours, w.other, w.compared, w.estimate, w.unit, w.estimate.n, w.verdict())
}

// verdict says whether the budget is met: surely, where the whole interval
// meets it.
func (w *row) verdict() string {
	if w.budget == 0 {
		return ""
	}
	bound, sign := fmt.Sprintf("%g%s", w.budget, w.unit), "≤ "
	within := func(x float64) bool { return x <= w.budget }
	if w.atLeast {
		within, sign = func(x float64) bool { return x >= w.budget }, "≥ "
	}
	word := "missed"
	switch low, high := within(w.estimate.low), within(w.estimate.high); {
	case low && high:
		word = "met"
	case within(w.estimate.median):
		word = "met by the median"
	case low || high:
		word = "missed by the median"
	}
	return sign + bound + ": " + word
}

// settings says what took part and how it was set.
func (r *report) settings() {
	fmt.Printf("%s %s/%s, GOMAXPROCS %d, CPU %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), processor())
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		switch m.Path {
		case "google.golang.org/grpc", "google.golang.org/protobuf", "dubbo.apache.org/dubbo-go/v3", "github.com/envoyproxy/go-control-plane/envoy":
			fmt.Printf("%s %s\n", m.Path, m.Version)
		}
	}
	fmt.Print(contestants)
	fmt.Println("| what | proxyless | other | compared | estimate (95 %) | rounds | budget |\n|---|---|---|---|---|---|---|")
}

// contestants is printed above the table: who does what with which settings.
const contestants = `
Contestants (what is not named is at its default; plain text over 127.0.0.1; one process holds all, and the control plane):
  bare grpc-go   grpc.NewClient to the server's address, insecure credentials, content-subtype proto; grpc.NewServer
  proxyless      Config{PlainText, QoS disabled, no interceptors}; Refer with a version; its Server in the echo rows, bare grpc-go's in the others
  grpc-go xDS    xds:///echo:50052 with a bootstrap of one xds_server, insecure credentials; bare grpc-go's server
  dubbo-go       Triple client with the server's URL, Triple server, protobuf, default filters and cluster (failover), logs discarded
  security       mutual TLS 1.3, ECDSA P-256, one certificate for all; bare grpc-go with credentials/tls that verifies both ends; proxyless with auto mTLS under STRICT
  control plane  meshtest over TCP; proxyless asks for the full view by delta, grpc-go for the lean view by state of the world
Every estimate is the median over rounds in which the contestants took turns, with its 95 % confidence interval by order statistics.

`

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
