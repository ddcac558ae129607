// Command consumer calls the greeting service of the mesh that its
// dubbo.properties names, over and over, until it is told to end.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/examples/greeting/internal/app"
)

//go:embed dubbo.properties
var builtIn []byte

func main() {
	config := flag.String("config", "", "settings `file` (default: dubbo.properties in the working directory, else those built in)")
	interval := flag.Duration("interval", 100*time.Millisecond, "pause between two calls")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := app.LoadConfig(*config, builtIn)
	if err == nil {
		err = run(ctx, cfg, *interval)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg proxyless.Config, interval time.Duration) error {
	cfg.Timeout = 3 * time.Second // of a call; without it a call waits as long as its context
	mesh, err := proxyless.Join(ctx, cfg)
	if err != nil {
		return err
	}
	defer mesh.Close()
	greeting, err := mesh.Refer("org.apache.dubbo.samples.GreetingService",
		proxyless.ProvidedBy("dubbo-samples-xds-provider"), proxyless.Version("1.0.0"))
	if err != nil {
		return err
	}
	caller := app.Caller{Client: greetpb.NewGreetingServiceClient(greeting), Name: "xDS Consumer", Interval: interval, Out: os.Stdout}
	caller.Run(ctx)
	return nil
}
