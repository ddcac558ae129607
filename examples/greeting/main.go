// Command greeting shows a mesh at work on one machine: a control plane, two
// providers and a consumer, each with a mesh of its own, meet on loopback
// addresses and greet until they are interrupted or -n calls are made.
//
//	go run ./examples/greeting [-n calls] [-interval 100ms] [-lean] [-v]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/proxyless/proxyless"
)

func main() {
	calls := flag.Int("n", 0, "`calls` to make; 0 means until interrupted")
	interval := flag.Duration("interval", 100*time.Millisecond, "pause between two calls")
	lean := flag.Bool("lean", false, "ask the control plane for what it makes for gRPC clients, not for what a sidecar gets")
	verbose := flag.Bool("v", false, "log all that the meshes say")
	flag.Parse()
	level := slog.LevelWarn
	if *verbose {
		level = slog.LevelDebug
	}
	view := proxyless.ViewFull
	if *lean {
		view = proxyless.ViewLean
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second interrupt ends the program at once
	err := run(ctx, settings{
		calls:    *calls,
		interval: *interval,
		view:     view,
		out:      os.Stdout,
		logger:   slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		listen:   net.Listen,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// settings are what the flags say, and what a test replaces.
type settings struct {
	calls    int
	interval time.Duration
	view     proxyless.View
	out      io.Writer // takes whole lines, from several goroutines
	logger   *slog.Logger
	listen   listenFunc // finds out which addresses can be had
}

// run starts the members, lets the consumer call, and ends them in reverse.
func run(ctx context.Context, s settings) (err error) {
	places, notes, err := choosePlaces(s.listen)
	if err != nil {
		return err
	}
	for _, note := range notes {
		fmt.Fprintln(s.out, note)
	}
	d := demo{settings: s}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.startControlPlane(places[:2]); err != nil {
		return err
	}
	for i, p := range places[:2] {
		if err := d.startProvider(ctx, fmt.Sprintf("provider-%d", i+1), p); err != nil {
			return err
		}
	}
	return d.consume(ctx, places[2])
}
