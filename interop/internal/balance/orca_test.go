package balance

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	orcapb "github.com/cncf/xds/go/xds/data/orca/v3"
	orcaservicepb "github.com/cncf/xds/go/xds/service/orca/v3"
	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestOurLoadReportsAreORCAs reads what a Server reports, with a call and in a
// stream, with the generated types.
func TestOurLoadReportsAreORCAs(t *testing.T) {
	cp := meshtest.New(t)
	mesh, err := proxyless.Join(t.Context(), proxyless.Config{
		Application: "provider", ControlPlanes: []string{cp.Addr()}, PlainText: true, ControlPlaneDialOptions: cp.DialOptions(), ShutdownDelay: -1,
		Node: proxyless.Node{IP: "127.0.0.1", Pod: "provider", Namespace: "demo"}, QoS: proxyless.QoS{Disabled: true}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := mesh.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "say",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			return in, decode(in)
		}}}}, new(any))
	want := &orcapb.OrcaLoadReport{CpuUtilization: 0.5, MemUtilization: 0.25, ApplicationUtilization: 1.5, RpsFractional: 10, Eps: 1,
		RequestCost: map[string]float64{"rows": 3}, Utilization: map[string]float64{"disk": 0.75}, NamedMetrics: map[string]float64{"queue": 7}}
	if err := server.ReportLoad(proxyless.LoadReport{CPUUtilization: 0.5, MemoryUtilization: 0.25, ApplicationUtilization: 1.5, QPS: 10, EPS: 1,
		RequestCost: want.RequestCost, Utilization: want.Utilization, NamedMetrics: want.NamedMetrics}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.ServeListener(ctx, lis) }() // ended by stop
	defer func() { stop(); <-served }()

	conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	patient, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(patient, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	var trailer metadata.MD
	if err := conn.Invoke(patient, "/test.Echo/say", wrapperspb.String("hi"), new(wrapperspb.StringValue), grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	got := new(orcapb.OrcaLoadReport)
	if reports := trailer.Get("endpoint-load-metrics-bin"); len(reports) != 1 || proto.Unmarshal([]byte(reports[0]), got) != nil || !proto.Equal(got, want) {
		t.Errorf("with the call: %v, want %v", got, want)
	}
	stream, err := orcaservicepb.NewOpenRcaServiceClient(conn).StreamCoreMetrics(patient, &orcaservicepb.OrcaLoadReportRequest{ReportInterval: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err = stream.Recv(); err != nil || !proto.Equal(got, want) {
			t.Fatalf("in the stream: %v, %v", got, err)
		}
	}
}
