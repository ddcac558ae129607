package interop

import (
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
)

const portsNamespace = "ports"

// TestPorts refers to Services by the ports they have, all of one provider,
// which listens on 50052.
func TestPorts(t *testing.T) { eachView(t, testPorts) }

func testPorts(t *testing.T) {
	l := suite.Lab(t)
	p := startProvider(t, l, portsNamespace, "provider", map[string]string{"app": "provider"})
	of := func(name string, ports ...string) string { return service(portsNamespace, name, "provider", ports...) }
	withManifest(t, l, of("grpc-named", grpcPort)+
		of("http-named", "{name: http-tri, port: 50052}")+
		of("bare", "{name: tri, port: 50052}")+
		of("unnamed", "{port: 50052}")+
		of("declared", "{name: tri, port: 50052, appProtocol: grpc}")+
		of("overruled", "{name: tcp-tri, port: 50052, appProtocol: grpc}")+
		of("tcp", "{name: tcp-tri, port: 50052}")+
		of("tcp-declared", "{name: tri, port: 50052, appProtocol: tcp}")+
		of("mapped", "{name: grpc-tri, port: 80, targetPort: 50052}")+
		of("two", grpcPort, "{name: grpc-other, port: 50053, targetPort: 50052}")+
		of("two-one-routed", "{name: tcp-admin, port: 22222}", grpcPort)+
		of("two-none-routed", "{name: tcp-tri, port: 50052}", "{name: tcp-admin, port: 22222}"))
	catchUp(t, l)
	m := joinConsumer(t, l, portsNamespace, func(c *proxyless.Config) { c.ResourceTimeout = 5 * time.Second })
	none, tcpAdvice := []proxyless.ReferOption(nil), []string{"listener but no routes", "grpc-", "appProtocol: grpc"}
	cases := []struct {
		providedBy string
		options    []proxyless.ReferOption
		stage      proxyless.Stage // none: the call is answered
		said       []string
	}{
		{"grpc-named", none, "", nil},
		{"http-named", none, "", nil},
		{"bare", none, "", nil},
		{"unnamed", none, "", nil},
		{"declared", none, "", nil},
		{"overruled", none, "", nil},
		{"mapped", none, "", nil},
		{"mapped:80", none, "", nil},
		{"two:50052", none, "", nil},
		{"two:50053", none, "", nil},
		{"two", []proxyless.ReferOption{proxyless.Port(50053)}, "", nil},
		{"two:50052", []proxyless.ReferOption{proxyless.Port(50053)}, "", nil},
		{"two-one-routed", none, "", nil},
		{"tcp", none, proxyless.StageRoute, tcpAdvice},
		{"tcp:50052", none, proxyless.StageRoute, tcpAdvice},
		{"tcp-declared", none, proxyless.StageRoute, tcpAdvice},
		{"two-one-routed:22222", none, proxyless.StageRoute, tcpAdvice},
		{"two", none, proxyless.StageListener, []string{"50052, 50053", "proxyless.Port", "providedBy"}},
		{"two-none-routed", none, proxyless.StageRoute, []string{"22222, 50052", "grpc-", "appProtocol: grpc"}},
		{"mapped:50052", none, proxyless.StageListener, []string{"mapped:50052", "the port"}},
	}
	for _, c := range cases {
		name := c.providedBy
		if len(c.options) > 0 {
			name += " with a port"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := refer(t, m, c.providedBy, c.options...)
			if c.stage != "" {
				expectError(t, refusal(t, client), c.stage, c.said...)
				return
			}
			host := ""
			eventually(t, "the call to be answered", client, func(by string, err error) error { host = by; return err })
			if host != p.IP.String() {
				t.Errorf("answer of %q, want %v", host, p.IP)
			}
		})
	}
}

// TestPortIsRenamed follows the advice that an error gives, while calls go on.
func TestPortIsRenamed(t *testing.T) { eachView(t, testPortIsRenamed) }

func testPortIsRenamed(t *testing.T) {
	l := suite.Lab(t)
	startProvider(t, l, portsNamespace, "provider", map[string]string{"app": "provider"})
	before := service(portsNamespace, "renamed", "provider", "{name: tcp-tri, port: 50052}")
	withManifest(t, l, before)
	client := refer(t, joinConsumer(t, l, portsNamespace), "renamed")
	eventually(t, "the error of a port named tcp-tri", client, failsAt(proxyless.StageRoute))
	apply(t, l, strings.Replace(before, "tcp-tri", "grpc-tri", 1))
	eventually(t, "the renamed port to be called", client, answered)
	apply(t, l, before)
	eventually(t, "the error of a port named tcp-tri", client, failsAt(proxyless.StageRoute))
	apply(t, l, strings.Replace(before, "port: 50052", "port: 50052, appProtocol: grpc", 1))
	eventually(t, "the declared port to be called", client, answered)
}

// TestPortsCome gives a Service a second port with routes, and then takes the
// first one away. Who leaves the choice to the mesh keeps to the port in force
// while it is there, and then takes the other; who comes anew has to choose.
func TestPortsCome(t *testing.T) { eachView(t, testPortsCome) }

func testPortsCome(t *testing.T) {
	l := suite.Lab(t)
	p := startProvider(t, l, portsNamespace, "provider", map[string]string{"app": "provider"})
	const otherPort = "{name: grpc-other, port: 50053, targetPort: 50052}"
	withManifest(t, l, service(portsNamespace, "growing", "provider", grpcPort))
	m := joinConsumer(t, l, portsNamespace)
	client, explicit := refer(t, m, "growing"), refer(t, m, "growing:50053")
	eventually(t, "the only port to be called", client, answered)
	calls := drive(t, client)
	apply(t, l, service(portsNamespace, "growing", "provider", grpcPort, otherPort))
	eventually(t, "the new port to be called", explicit, answered)
	expectError(t, refusal(t, refer(t, joinConsumer(t, l, portsNamespace), "growing")), proxyless.StageListener, "50052, 50053")
	calls.reaches(t, p.IP.String())

	former := refer(t, m, "growing:50052")
	eventually(t, "the first port to be called", former, answered)
	apply(t, l, service(portsNamespace, "growing", "provider", otherPort))
	eventually(t, "the first port to be gone", former, failsAt(proxyless.StageListener))
	calls.reaches(t, p.IP.String())
	calls.stop()
	calls.expectNoneLost(t, "while ports came and went")
}
