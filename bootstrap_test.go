package proxyless

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// joinedConfig is what Join makes of a bootstrap file of testdata.
func joinedConfig(t *testing.T, c Config, file string, variables map[string]string) (Config, []string) {
	t.Helper()
	all := map[string]string{"GRPC_XDS_BOOTSTRAP": "/b.json"}
	for name, value := range variables {
		all[name] = value
	}
	c.Application = "greeting"
	c, notes, err := c.withDefaults(fakeEnvironment(all, map[string]string{"/b.json": settingsTestdata(t, file)}))
	if err != nil {
		t.Fatal(err)
	}
	return c, notes
}

func TestTheBootstrapOfIstiosAgent(t *testing.T) {
	c, notes := joinedConfig(t, Config{}, "bootstrap/istio-agent.json", nil)
	if !slices.Equal(c.ControlPlanes, []string{"unix:///etc/istio/proxy/XDS"}) || !c.PlainText || c.TokenFile != "" || c.RootCertFile != "" {
		t.Errorf("control plane %v", c)
	}
	want := nodeMessage{
		id: "sidecar~10.1.0.7~greeting-5d4f.demo~demo.svc.cluster.local", cluster: "greeting", region: "eu", zone: "eu-1", subZone: "rack-3",
		metadata: map[string]any{
			"GENERATOR": "grpc", "CLUSTER_ID": "east", "NAMESPACE": "demo", "NAME": "greeting-5d4f", "SERVICE_ACCOUNT": "greeting", "NODE_NAME": "worker-1",
			"INSTANCE_IPS": "10.1.0.7", "LABELS": map[string]any{"app": "greeting", "version": "v1"}, "MESH_ID": "cluster.local",
			"PROXY_CONFIG": map[string]any{"discoveryAddress": "istiod.istio-system.svc:15012", "concurrency": 2.0},
		},
	}
	if got := c.Node.message(); !reflect.DeepEqual(got, want) {
		t.Errorf("node\n%+v\nwant\n%+v", got, want)
	}
	wantNotes := []string{
		"the control plane is unix:///etc/istio/proxy/XDS, from /b.json",
		"the view is lean, since GENERATOR is grpc in the node's metadata",
		"this workload's certificate is /var/lib/istio/data/cert-chain.pem, which the environment names",
	}
	if !slices.Equal(notes, wantNotes) || c.View != ViewLean {
		t.Errorf("notes %q", notes)
	}
}

func TestTheEnvironmentIsStrongerThanTheBootstrap(t *testing.T) {
	c, _ := joinedConfig(t, Config{Node: Node{ClusterID: "literal"}}, "bootstrap/istio-agent.json", map[string]string{
		"POD_NAME": "p", "POD_NAMESPACE": "n", "POD_IP": "10.0.0.1", "ISTIO_META_CLUSTER_ID": "variable", "ISTIO_META_MESH_ID": "variable",
	})
	m := c.Node.message()
	if m.id != "sidecar~10.0.0.1~p.n~n.svc.cluster.local" || m.metadata["CLUSTER_ID"] != "literal" || m.metadata["MESH_ID"] != "variable" || m.metadata["SERVICE_ACCOUNT"] != "greeting" {
		t.Errorf("node %+v", m)
	}
}

func TestTheBootstrapOfGRPCSimple(t *testing.T) {
	c, _ := joinedConfig(t, Config{}, "bootstrap/grpc-simple.json", nil)
	if !slices.Equal(c.ControlPlanes, []string{"istiod.istio-system.svc:15010"}) || !c.PlainText {
		t.Errorf("control plane %v", c)
	}
	if m := c.Node.message(); m.id != "sidecar~10.1.0.8~greeting-7c9b.demo~demo.svc.cluster.local" || m.metadata["NAMESPACE"] != "demo" {
		t.Errorf("node %+v", m)
	}
}

func TestSeveralServersWithTLS(t *testing.T) {
	c, notes := joinedConfig(t, Config{}, "bootstrap/tls.json", nil)
	if !slices.Equal(c.ControlPlanes, []string{"istiod-a.istio-system.svc:15012", "istiod-b.istio-system.svc:15012"}) || c.PlainText ||
		c.RootCertFile != "/etc/certs/root.pem" || c.TokenFile != "/etc/tokens/istio" {
		t.Errorf("control plane %v", c)
	}
	if m := c.Node.message(); m.id != "build-agent-7" || m.cluster != "builders" {
		t.Errorf("node %+v", m)
	}
	for _, part := range []string{"unheard_of", "xds_servers[2]", "authorities", "client_default_listener"} {
		if !strings.Contains(strings.Join(notes, "\n"), part) {
			t.Errorf("no note of %s in %q", part, notes)
		}
	}
}

func TestAGivenControlPlaneIsNotReplacedByTheBootstraps(t *testing.T) {
	c, notes := joinedConfig(t, Config{ControlPlanes: []string{"mine:15012"}, Node: Node{IP: "10.0.0.1"}}, "bootstrap/tls.json", nil)
	if !slices.Equal(c.ControlPlanes, []string{"mine:15012"}) || c.RootCertFile != defaultRootCertFile || c.TokenFile != defaultTokenFile || c.Node.message().id == "build-agent-7" {
		t.Errorf("control plane %v", c)
	}
	if !strings.Contains(strings.Join(notes, "\n"), "the servers of /b.json are not used") {
		t.Errorf("notes %q", notes)
	}
	env := fakeEnvironment(map[string]string{"GRPC_XDS_BOOTSTRAP": "/none", "POD_IP": "10.0.0.1"}, nil)
	c, notes, err := Config{Application: "a", ControlPlanes: []string{"mine:1"}}.withDefaults(env)
	if err != nil || c.ControlPlanes[0] != "mine:1" || len(notes) != 1 || !strings.Contains(notes[0], "/none") {
		t.Errorf("a broken bootstrap beside a given control plane: %v, notes %q", err, notes)
	}
}

func TestUseAgentTakesTheAddressFromTheBootstrap(t *testing.T) {
	files := map[string]string{
		"f": "dubbo.application.name=a\ndubbo.registry.address=xds://istiod:15012?use-agent=true", "/b.json": settingsTestdata(t, "bootstrap/istio-agent.json"),
	}
	loaded, err := loadConfig("f", fakeEnvironment(nil, files))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := loaded.withDefaults(fakeEnvironment(map[string]string{"GRPC_XDS_BOOTSTRAP": "/b.json"}, files))
	if err != nil || !slices.Equal(c.ControlPlanes, []string{"unix:///etc/istio/proxy/XDS"}) {
		t.Errorf("%q, %v", c.ControlPlanes, err)
	}
	for _, variables := range []map[string]string{nil, {"GRPC_XDS_BOOTSTRAP": "/none"}} {
		if _, _, err = loaded.withDefaults(fakeEnvironment(variables, files)); err == nil || !strings.Contains(err.Error(), "GRPC_XDS_BOOTSTRAP") {
			t.Errorf("without a bootstrap: %v", err)
		}
	}
}

func TestBrokenBootstraps(t *testing.T) {
	const server = `{"xds_servers":[{"server_uri":"a:1","channel_creds":[{"type":"insecure"}]}]`
	for text, want := range map[string]string{
		`{`:                    "unexpected end of JSON input",
		`[]`:                   "cannot unmarshal array",
		`{}`:                   "xds_servers is missing or empty",
		`{"xds_servers":[{}]}`: `xds_servers[0]: server_uri ""`,
		`{"xds_servers":[{"server_uri":"xds:///a"}]}`:                                                                      `has a scheme that is not known`,
		`{"xds_servers":[{"server_uri":"a:1"}]}`:                                                                           "channel_creds is missing or empty",
		`{"xds_servers":[{"server_uri":"a:1","channel_creds":[{"type":"google_default"},{"type":"alts"}]}]}`:               "has none of insecure and tls, but google_default, alts",
		`{"xds_servers":[{"server_uri":"a:1","channel_creds":[{"type":"tls","config":7}]}]}`:                               "channel_creds tls: ",
		`{"xds_servers":[{"server_uri":"a:1","channel_creds":[{"type":"tls"}],"call_creds":[{"type":"jwt_token_file"}]}]}`: "call_creds jwt_token_file names no file",
		server + `,"node":7}`:                       "cannot unmarshal number",
		server + `}` + strings.Repeat(" ", maxFile): "is larger than",
	} {
		env := fakeEnvironment(map[string]string{"GRPC_XDS_BOOTSTRAP_CONFIG": text}, nil)
		_, _, err := Config{Application: "a"}.withDefaults(env)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "GRPC_XDS_BOOTSTRAP_CONFIG") {
			t.Errorf("%.100s: %v, want %q", text, err, want)
		}
	}
	if _, _, err := (Config{Application: "a"}).withDefaults(fakeEnvironment(map[string]string{"GRPC_XDS_BOOTSTRAP": "/none"}, nil)); err == nil || !strings.Contains(err.Error(), "/none") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestServerURIs(t *testing.T) {
	for uri, want := range map[string]string{
		"a:1": "a:1", "dns:///a:1": "a:1", "dns:a:1": "a:1", "passthrough:///a:1": "a:1", "a": "a:443", "dns:///[::1]:5": "[::1]:5", "unix:///x": "unix:///x", "unix:etc/istio/proxy/XDS": "unix:etc/istio/proxy/XDS",
	} {
		if got, err := serverAddress(uri); got != want || err != nil {
			t.Errorf("serverAddress(%q) = %q, %v; want %q", uri, got, err, want)
		}
	}
}

func TestTLSWithoutAFileUsesTheSystemsRoots(t *testing.T) {
	b, err := parseBootstrap([]byte(`{"xds_servers":[{"server_uri":"a:1","channel_creds":[{"type":"tls","config":{"certificate_file":"c","spiffe_trust_bundle_map_file":"s"}}]}]}`))
	if err != nil || b.rootCertFile != SystemRoots || len(b.notes) != 2 {
		t.Errorf("%+v, %v", b, err)
	}
}

// FuzzBootstrap holds that any text gives a bootstrap or an error, and that a
// bootstrap has addresses that can be dialled and a node that can be sent.
func FuzzBootstrap(f *testing.F) {
	files, err := filepath.Glob("testdata/bootstrap/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := parseBootstrap(data)
		if (b == nil) == (err == nil) {
			t.Fatalf("%v and %v", b, err)
		}
		if err != nil {
			return
		}
		for _, address := range b.addresses {
			if reason := addressProblem(address); reason != "" {
				t.Fatalf("address %q %s", address, reason)
			}
		}
		_ = b.node.message()
		env := fakeEnvironment(map[string]string{"GRPC_XDS_BOOTSTRAP_CONFIG": string(data)}, nil)
		if c, _, err := (Config{Application: "a"}).withDefaults(env); err == nil {
			_ = c.String()
		}
	})
}
