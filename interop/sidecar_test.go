package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// sidecar is a pod with a real Envoy in it, which istiod configures as the one
// of a sidecar, and an application behind it that knows nothing of the mesh.
type sidecar struct {
	*lab.Workload
	admin  string                        // Envoy's own pages
	client greetpb.GreetingServiceClient // calls the peer's Service through Envoy
}

// What of a sidecar listens on the loopback device.
const (
	sidecarEgress = "127.0.1.1:50052"
	sidecarAdmin  = "127.0.1.1:15000"
	sidecarApp    = "127.0.0.1:60052" // Istio lets a sidecar call nothing else
)

// plainFilters is the environment of a replica that leaves out the filters
// which only Istio's own build of Envoy has.
var plainFilters = []string{"PILOT_ENABLE_METADATA_EXCHANGE=false", "PILOT_ENABLE_ALPN_FILTER=false"}

// startSidecar starts the pod "sidecar" of the account with that name, behind a
// Service with that name. Its application calls the Service of the peer.
func startSidecar(t testing.TB, l *lab.Lab, namespace, peer string) *sidecar {
	t.Helper()
	envoy := suite.Envoy(t)
	replica, err := l.AddIstiod(within(t, 30*time.Second), plainFilters...)
	must(t, err)
	t.Cleanup(replica.Kill)
	identity := certified(t, l, namespace, "sidecar")
	labels := map[string]string{"app": "sidecar", tlsMode: "istio"}
	s := &sidecar{
		Workload: addPod(t, l, lab.WorkloadSpec{Namespace: namespace, Name: "sidecar", Labels: labels, Account: "sidecar", NotReady: true}),
		admin:    "http://" + sidecarAdmin,
	}
	withManifest(t, l, service(namespace, "sidecar", "sidecar", grpcPort)+s.unredirected(namespace))
	serve(t, sidecarApp, func(server *grpc.Server) { greetpb.RegisterGreetingServiceServer(server, behind("envoy")) })
	secrets := serve(t, "127.0.0.1:0", func(server *grpc.Server) {
		secretv3.RegisterSecretDiscoveryServiceServer(server, &secretServer{identity: identity, key: identity.keyPEM(t)})
	})
	must(t, s.SetReady(soon(t), true))
	node := fullNode(s.IP.String(), "sidecar", namespace, labels)
	node.Cluster = "sidecar." + namespace
	s.run(t, envoy, bootstrap(t, node, port(replica.Plain()), port(secrets)))
	conn, err := grpc.NewClient("passthrough:///"+sidecarEgress, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority(peer+"."+namespace+":50052"))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	s.client = versioned{greetpb.NewGreetingServiceClient(conn)}
	return s
}

// unredirected is the Sidecar of a pod whose connections nothing redirects:
// Envoy listens where the application and its peers connect to.
func (s *sidecar) unredirected(namespace string) string {
	bind, number, _ := strings.Cut(sidecarEgress, ":")
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: sidecar, namespace: %s}
spec:
  workloadSelector: {labels: {app: sidecar}}
  ingress:
  - {port: {number: 50052, protocol: GRPC, name: grpc-tri}, bind: %s, captureMode: NONE, defaultEndpoint: "%s"}
  egress:
  - {port: {number: %s, protocol: GRPC, name: grpc-tri}, bind: %s, captureMode: NONE, hosts: ["./*"]}
`, namespace, s.IP, sidecarApp, number, bind)
}

// bootstrap is Envoy's, with the clusters that istiod's resources refer to.
func bootstrap(t testing.TB, node *corev3.Node, istiod, secrets string) string {
	t.Helper()
	who, err := protojson.Marshal(node)
	must(t, err)
	cluster := func(name, port string) string {
		return fmt.Sprintf(`{"name": "%s", "type": "STATIC", "connect_timeout": "5s",
 "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
  "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}},
 "load_assignment": {"cluster_name": "%s", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %s}}}}]}]}}`, name, name, port)
	}
	host, number, _ := strings.Cut(sidecarAdmin, ":")
	return fmt.Sprintf(`{"node": %s,
"admin": {"address": {"socket_address": {"address": "%s", "port_value": %s}}},
"dynamic_resources": {
 "ads_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
 "cds_config": {"ads": {}, "resource_api_version": "V3"}, "lds_config": {"ads": {}, "resource_api_version": "V3"}},
"static_resources": {"clusters": [%s, %s]}}`, who, host, number, cluster("xds-grpc", istiod), cluster("sds-grpc", secrets))
}

// run runs Envoy until the test ends, and waits until it listens.
func (s *sidecar) run(t testing.TB, envoy, config string) {
	t.Helper()
	file := tempFile(t, "envoy.json", config)
	log, err := os.Create(file + ".log")
	must(t, err)
	defer log.Close()
	cmd := exec.Command(envoy, "--config-path", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	must(t, lab.WaitFor(within(t, 30*time.Second), "Envoy to listen as istiod says", func(context.Context) error {
		listeners, err := s.page("/listeners")
		if err != nil || !strings.Contains(listeners, s.IP.String()) || !strings.Contains(listeners, sidecarEgress) {
			return fmt.Errorf("it listens on %q, error %w; its log:\n%s", listeners, err, readFile(t, log.Name()))
		}
		return nil
	}))
}

// page reads one of Envoy's own pages.
func (s *sidecar) page(path string) (string, error) {
	response, err := http.Get(s.admin + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// secretServer hands out what Istio's agent does.
type secretServer struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	identity *certificate
	key      []byte
}

func (s *secretServer) StreamSecrets(stream secretv3.SecretDiscoveryService_StreamSecretsServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil || request.ErrorDetail != nil {
			return errors.Join(err, errors.New(request.GetErrorDetail().GetMessage()))
		}
		if request.ResponseNonce != "" {
			continue // it has what it asked for
		}
		response := &discoveryv3.DiscoveryResponse{TypeUrl: request.TypeUrl, VersionInfo: "1", Nonce: "1"}
		for _, name := range request.ResourceNames {
			packed, err := anypb.New(s.secret(name))
			if err != nil {
				return err
			}
			response.Resources = append(response.Resources, packed)
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

func (s *secretServer) secret(name string) *tlsv3.Secret {
	bytes := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	secret := &tlsv3.Secret{Name: name}
	if name == "ROOTCA" {
		secret.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: bytes(s.identity.roots())}}
	} else {
		secret.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: bytes(s.identity.chain()), PrivateKey: bytes(s.key)}}
	}
	return secret
}

// serve runs a bare gRPC server until the test ends and returns its address.
func serve(t testing.TB, address string, register func(*grpc.Server), options ...grpc.ServerOption) string {
	t.Helper()
	lis, err := net.Listen("tcp", address)
	must(t, err)
	server := grpc.NewServer(options...)
	register(server)
	go server.Serve(lis) // ended by Stop
	t.Cleanup(server.Stop)
	return lis.Addr().String()
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// bareGreeter is an application without the library: it answers as its host.
type bareGreeter struct {
	greetpb.UnimplementedGreetingServiceServer
	host string
}

func behind(host string) *bareGreeter { return &bareGreeter{host: host} }

func (b *bareGreeter) SayHello(_ context.Context, in *greetpb.SayHelloRequest) (*greetpb.SayHelloReply, error) {
	return &greetpb.SayHelloReply{Message: "hello, " + in.GetName() + "! from host: " + b.host}, nil
}

// versioned is a client without the library, which asks for the version that
// the providers of this package export.
type versioned struct{ greetpb.GreetingServiceClient }

func (v versioned) SayHello(ctx context.Context, in *greetpb.SayHelloRequest, options ...grpc.CallOption) (*greetpb.SayHelloReply, error) {
	return v.GreetingServiceClient.SayHello(metadata.AppendToOutgoingContext(ctx, "tri-service-version", version), in, options...)
}
