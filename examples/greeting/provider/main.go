// Command provider serves the greeting service to the mesh that its
// dubbo.properties names, until it is told to end.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/examples/greeting/internal/app"
)

//go:embed dubbo.properties
var builtIn []byte

func main() {
	config := flag.String("config", "", "settings `file` (default: dubbo.properties in the working directory, else those built in)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cfg, err := app.LoadConfig(*config, builtIn)
	if err == nil {
		err = run(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg proxyless.Config) error {
	mesh, err := proxyless.Join(ctx, cfg)
	if err != nil {
		return err
	}
	defer mesh.Close()
	greeter := &app.Greeter{Host: mesh.Config().Node.IP, Out: os.Stdout}
	server := mesh.NewServer()
	greetpb.RegisterGreetingServiceServer(server.With(proxyless.Version("1.0.0")), greeter)
	return server.Serve(ctx)
}
