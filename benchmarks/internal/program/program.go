// Package program is what the programs in cmd have in common: each serves the
// greeting over gRPC and probes over HTTP, calls one service once, and says what
// that took.
package program

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
)

// Task is what a program is told on its command line.
type Task struct {
	Control string // address of the control plane
	Target  string // address of the service, for who needs no control plane
	Service string // its name in the mesh; to watch, several with commas between
	Lean    bool   // ask the control plane for what it has for gRPC clients
	Watch   bool   // only watch the service, and measure the heap
}

// Result is what a program prints, as JSON.
type Result struct {
	PeakRSS   int64 // bytes
	Anonymous int64 // bytes of memory at the first answer that are not pages of the program's file
	Started   int64 // nanoseconds from the start of main to the first answer
	Heap      int64 // bytes that watching added to the heap
	Stacks    int64 // bytes that watching added to the goroutines' stacks
}

// Client is one way to call the service.
type Client interface {
	grpc.ClientConnInterface
	// Watch returns when the configuration is there, without a call.
	Watch(ctx context.Context) error
}

// Main runs a program: start begins to serve and to refer.
func Main(start func(Task) (Client, error)) {
	began := time.Now()
	var t Task
	flag.StringVar(&t.Control, "control", "", "address of the control plane")
	flag.StringVar(&t.Target, "target", "", "address of the service")
	flag.StringVar(&t.Service, "service", "", "name of the service")
	flag.BoolVar(&t.Lean, "lean", false, "the lean view")
	flag.BoolVar(&t.Watch, "watch", false, "watch the service and measure the heap")
	flag.Parse()
	run := call
	if t.Watch {
		run = watch
	}
	result, err := run(t, start, began)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func call(t Task, start func(Task) (Client, error), began time.Time) (r Result, err error) {
	conn, err := start(t)
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = greetpb.NewGreetingServiceClient(conn).SayHello(ctx, &greetpb.SayHelloRequest{Name: "x"}, grpc.WaitForReady(true))
	r.Started = int64(time.Since(began))
	if err != nil {
		return r, err
	}
	if r.Anonymous, err = memory("RssAnon"); err != nil {
		return r, err
	}
	r.PeakRSS, err = memory("VmHWM") // what wait4 reports to the parent may be the parent's own
	return r, err
}

func watch(t Task, start func(Task) (Client, error), _ time.Time) (r Result, err error) {
	heap, stacks := inUse()
	conn, err := start(t)
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := conn.Watch(ctx); err != nil {
		return r, err
	}
	r.Heap, r.Stacks = inUse()
	runtime.KeepAlive(conn)
	r.Heap, r.Stacks = r.Heap-heap, r.Stacks-stacks
	return r, nil
}

func inUse() (heap, stacks int64) {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
		time.Sleep(100 * time.Millisecond)
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), int64(m.StackInuse)
}

// memory is one line of this process's status, in bytes.
func memory(line string) (int64, error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for text := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(text, line+":"); ok {
			kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return kB << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no %s", line)
}

// Serve is the provider's side of a program without proxyless: a gRPC server and
// probes.
func Serve() error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	greetpb.RegisterGreetingServiceServer(server, Greeter{})
	go server.Serve(lis) // until the process ends
	probes, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "true") })
	go http.Serve(probes, mux) // until the process ends
	return nil
}

// Greeter answers with what it was sent.
type Greeter struct {
	greetpb.UnimplementedGreetingServiceServer
}

// SayHello is the one method of the service.
func (Greeter) SayHello(_ context.Context, in *greetpb.SayHelloRequest) (*greetpb.SayHelloReply, error) {
	return &greetpb.SayHelloReply{Message: in.GetName()}, nil
}

// Bootstrap is the configuration of grpc-go's xDS client.
func Bootstrap(controlPlane string) string {
	return fmt.Sprintf(`{
		"xds_servers": [{"server_uri": %q, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}],
		"node": {"id": "sidecar~127.0.0.1~benchmark.demo~demo.svc.cluster.local", "metadata": {"GENERATOR": "grpc", "NAMESPACE": "demo"}}
	}`, controlPlane)
}
