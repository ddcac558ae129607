package main

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/examples/greeting/internal/app"
	"github.com/proxyless/proxyless/meshtest"
	"google.golang.org/grpc"
)

func TestTheConsumerCallsUntilItIsToldToEnd(t *testing.T) {
	heard := make(lines, 100)
	control := meshtest.New(t)
	control.SetService(meshtest.Service{
		Name: "dubbo-samples-xds-provider", Namespace: "dubbo-demo",
		Ports:     []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
		Endpoints: []meshtest.Endpoint{{Address: "127.0.0.1", Port: startGreeter(t, heard)}},
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx, testConfig(control.Addr()), time.Millisecond) }() // cancel ends it, done tells

	for range 3 {
		select {
		case line := <-heard:
			if line != "greeting service received: xDS Consumer\n" {
				t.Errorf("the provider prints %q", line)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the provider is not called")
		}
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
	if cfg.Application != "dubbo-samples-xds-consumer" || cfg.MetadataServicePort != 20885 || !cfg.QoS.AcceptForeignIP ||
		len(cfg.ControlPlanes) != 1 || cfg.ControlPlanes[0] != "istiod.istio-system.svc:15012" || cfg.PlainText {
		t.Errorf("%+v", cfg)
	}
}

func testConfig(controlPlane string) proxyless.Config {
	return proxyless.Config{
		Application:   "dubbo-samples-xds-consumer",
		ControlPlanes: []string{controlPlane},
		PlainText:     true,
		Node:          proxyless.Node{IP: "127.0.0.1", Pod: "consumer-1", Namespace: "dubbo-demo"},
		QoS:           proxyless.QoS{Disabled: true},
	}
}

// startGreeter serves the greeting service as any gRPC server may, which is
// enough where versions are not told apart, and returns its port.
func startGreeter(t *testing.T, heard lines) uint32 {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	greetpb.RegisterGreetingServiceServer(server, &app.Greeter{Host: "127.0.0.1", Out: heard})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ended by the cleanup
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return uint32(listener.Addr().(*net.TCPAddr).Port)
}

// lines hands on what is written as long as there is room.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}
