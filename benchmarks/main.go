// Command benchmarks puts proxyless beside bare grpc-go, grpc-go's own xDS
// client and dubbo-go in one process, and prints ratios with their 95 %
// confidence intervals. BENCHMARKS.md says what they mean.
//
//	go run . [-quick] [-only config,push] [-share 1m]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/proxyless/proxyless/benchmarks/whitebox"
)

// sections in the order of the report. Each lasts about as long as its share of
// the whole says.
var sections = []struct {
	name string
	run  func(r *report, share time.Duration) error
}{
	{"choice", choice},
	{"config", configuration},
	{"services", services},
	{"invoke", invoke},
	{"policies", governance},
	{"security", security},
	{"echo", echo},
	{"push", push},
	{"heap", heap},
	{"program", programs},
}

func main() {
	quick := flag.Bool("quick", false, "a coarse report in half a minute, for CI")
	share := flag.Duration("share", 15*time.Second, "about how long each section's measurements last")
	only := flag.String("only", "", "comma-separated sections: choice, config, services, invoke, policies, security, echo, push, heap, program")
	flag.Parse()
	if !whitebox.Present() {
		os.Exit(again())
	}
	r := &report{quick: *quick}
	if *quick {
		*share = time.Second
	}
	r.settings()
	failed := false
	for _, s := range sections {
		if *only != "" && !strings.Contains(","+*only+",", ","+s.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s ...\n", s.name)
		if err := s.run(r, *share); err != nil {
			failed = true
			fmt.Fprintf(os.Stderr, "%s: %v\n", s.name, err)
		}
	}
	if failed {
		os.Exit(1)
	}
}

// again runs this program with the overlay, which plain go run leaves out.
func again() int {
	const mark = "PROXYLESS_BENCHMARKS_AGAIN"
	if os.Getenv(mark) != "" {
		fmt.Fprintln(os.Stderr, "overlay.json has no effect: run go run -overlay overlay.json . in the folder benchmarks")
		return 1
	}
	cmd := exec.Command("go", append([]string{"run", "-overlay", "overlay.json", "."}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "with overlay.json, in the folder benchmarks:", err)
		return 1
	}
	return 0
}
