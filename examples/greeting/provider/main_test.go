package main

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/examples/greeting/internal/app"
	"github.com/proxyless/proxyless/meshtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestTheProviderGreetsUntilItIsToldToEnd(t *testing.T) {
	port := freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx, testConfig(meshtest.New(t).Addr(), port)) }() // cancel ends it, done tells

	if got, want := greet(t, port), "hello, xDS Consumer! from host: 127.0.0.1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheBuiltInSettingsAreThoseOfTheGuide(t *testing.T) {
	t.Chdir(t.TempDir())
	cfg, err := app.LoadConfig("", builtIn)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Application != "dubbo-samples-xds-provider" || cfg.Port != 50052 || cfg.MetadataServicePort != 20885 || !cfg.QoS.AcceptForeignIP ||
		len(cfg.ControlPlanes) != 1 || cfg.ControlPlanes[0] != "istiod.istio-system.svc:15012" || cfg.PlainText {
		t.Errorf("%+v", cfg)
	}
}

func testConfig(controlPlane string, port int) proxyless.Config {
	return proxyless.Config{
		Application:   "dubbo-samples-xds-provider",
		ControlPlanes: []string{controlPlane},
		PlainText:     true,
		Node:          proxyless.Node{IP: "127.0.0.1", Pod: "provider-1", Namespace: "dubbo-demo"},
		Host:          "127.0.0.1",
		Port:          port,
		ShutdownDelay: -1,
		QoS:           proxyless.QoS{Disabled: true},
	}
}

// greet calls the provider as any gRPC client may, once it listens.
func greet(t *testing.T, port int) string {
	t.Helper()
	conn, err := grpc.NewClient(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	reply, err := greetpb.NewGreetingServiceClient(conn).SayHello(ctx, &greetpb.SayHelloRequest{Name: "xDS Consumer"}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return reply.GetMessage()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}
