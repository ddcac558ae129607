package proxyless

import (
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
)

var updateSettings = flag.Bool("update-settings", false, "rewrite the goldens of settings from what they are now; read the difference before committing it")

// fakeEnvironment is a host with these variables and files, a name, and one
// address besides the loopback's.
func fakeEnvironment(variables, files map[string]string) environment {
	return environment{
		getenv: func(name string) string { return variables[name] },
		environ: func() []string {
			var all []string
			for _, name := range slices.Sorted(maps.Keys(variables)) {
				all = append(all, name+"="+variables[name])
			}
			return all
		},
		readFile: func(path string) ([]byte, error) {
			text, ok := files[path]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(text), nil
		},
		hostname: func() (string, error) { return "laptop", nil },
		addresses: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("192.0.2.7")}, nil
		},
	}
}

// checkSettingsGolden compares text with a file of testdata.
func checkSettingsGolden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", filepath.FromSlash(file))
	if *updateSettings {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update-settings rewrites it)\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestAnApplicationNameIsEnough(t *testing.T) {
	got, notes, err := Config{Application: "greeting"}.withDefaults(fakeEnvironment(nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Application: "greeting", ControlPlanes: []string{"istiod.istio-system.svc:15012"},
		RootCertFile: "/var/run/secrets/istio/root-cert.pem", TokenFile: "/var/run/secrets/tokens/istio-token",
		ResourceTimeout: 15 * time.Second, Port: 50051, ShutdownDelay: 5 * time.Second, ShutdownTimeout: 10 * time.Second, HandshakeTimeout: 10 * time.Second, PendingConnections: 1000,
		QoS: QoS{Port: 22222}, Logger: slog.Default(),
		Node: Node{
			IP: "192.0.2.7", Pod: "laptop", Namespace: "default", ClusterID: "Kubernetes", Domain: "cluster.local",
			TrustDomain: "cluster.local", Metadata: map[string]any{}, service: "greeting",
		},
		Identity: Identity{Lifetime: 24 * time.Hour, RenewRatio: 0.5, RenewJitter: 0.01, Curve: "P256"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "192.0.2.7") {
		t.Errorf("notes %q do not say where the address comes from", notes)
	}
}

func TestDefaultsLeaveTheLiteralAlone(t *testing.T) {
	literal := Config{Application: "a", ControlPlanes: []string{"h"}, Node: Node{Metadata: map[string]any{"MINE": "1"}}}
	filled, _, err := literal.withDefaults(fakeEnvironment(map[string]string{"ISTIO_META_MESH_ID": "m"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if literal.ControlPlanes[0] != "h" || len(literal.Node.Metadata) != 1 {
		t.Errorf("the literal became %+v", literal)
	}
	if filled.ControlPlanes[0] != "h:15012" || len(filled.Node.Metadata) != 2 {
		t.Errorf("filled is %+v", filled)
	}
	again, _, err := filled.withDefaults(fakeEnvironment(nil, nil))
	if err != nil || !reflect.DeepEqual(again, filled) {
		t.Errorf("filling twice: %+v, %v", again, err)
	}
}

func TestValidateNamesEveryProblemByField(t *testing.T) {
	c := Config{
		ControlPlanes: []string{"ok:1", "xds://h:1", "h:0", "ok:1", "unix:///", ":15012", "a:b:c"}, ResourceTimeout: -1,
		PlainText: true, InsecureSkipVerify: true, RootCertFile: "r",
		Node:    Node{IP: "0.0.0.0", OtherIPs: []string{"x"}, Pod: "a~b", Metadata: map[string]any{"GENERATOR": "envoy", "F": func() {}}},
		Timeout: -time.Second, DialOptions: []grpc.DialOption{nil}, UnaryInterceptors: []grpc.UnaryClientInterceptor{nil},
		StreamInterceptors: []grpc.StreamClientInterceptor{nil}, ControlPlaneDialOptions: []grpc.DialOption{nil},
		Host: "127.0.0.1:80", Port: 70000, ServerOptions: []grpc.ServerOption{nil}, MetadataServicePort: -1, ShutdownTimeout: -1,
		QoS: QoS{Host: "[::1]", Port: 65536, Whitelist: []string{"10.0.0.0/99", "ok.example"}, AnonymousLevel: 9},
	}
	var got []string
	for _, err := range splitErrors(t, c.Validate()) {
		if err.Stage != StageConfig || err.Reason == "" || err.Advice == "" {
			t.Errorf("%+v is incomplete", err)
		}
		got = append(got, strings.TrimPrefix(err.Resource, "Config."))
	}
	want := []string{
		"Application", "ControlPlanes[1]", "ControlPlanes[2]", "ControlPlanes[3]", "ControlPlanes[4]", "ControlPlanes[5]", "ControlPlanes[6]",
		"InsecureSkipVerify", "InsecureSkipVerify", "ResourceTimeout", "ControlPlaneDialOptions",
		"Node.Pod", "Node.IP", "Node.OtherIPs[0]", `Node.Metadata["F"]`, `Node.Metadata["GENERATOR"]`,
		"Timeout", "DialOptions", "UnaryInterceptors", "StreamInterceptors",
		"Host", "Port", "MetadataServicePort", "ShutdownTimeout", "ServerOptions",
		"QoS.Host", "QoS.Port", "QoS.Whitelist[0]", "QoS.Whitelist[1]", "QoS.AnonymousLevel",
	}
	if !slices.Equal(got, want) {
		t.Errorf("problems of\n%q, want\n%q", got, want)
	}
}

// splitErrors takes joined errors apart.
func splitErrors(t *testing.T, err error) []*Error {
	t.Helper()
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Error
		for _, one := range joined.Unwrap() {
			all = append(all, splitErrors(t, one)...)
		}
		return all
	}
	var e *Error
	if err != nil && !errors.As(err, &e) {
		t.Fatalf("%v is no *Error", err)
	}
	return []*Error{e}
}

func TestServiceAndQoSDoNotMeetOnOnePort(t *testing.T) {
	for _, tt := range []struct {
		host, qos string
		meets     bool
	}{
		{"", "", true}, {"127.0.0.1", "0.0.0.0", true}, {"::", "10.0.0.1", true}, {"127.0.0.1", "127.0.0.2", false},
	} {
		c := Config{Application: "a", Host: tt.host, Port: 8080, QoS: QoS{Host: tt.qos, Port: 8080}}
		if err := c.Validate(); (err != nil) != tt.meets {
			t.Errorf("%q and %q: %v", tt.host, tt.qos, err)
		}
		c.QoS.Disabled = true
		if err := c.Validate(); err != nil {
			t.Errorf("without QoS: %v", err)
		}
	}
}

func TestAddressesOfControlPlanes(t *testing.T) {
	for _, tt := range []struct {
		address string
		plain   bool
		want    string // "" means refused
	}{
		{"istiod:15012", false, "istiod:15012"},
		{"istiod", false, "istiod:15012"},
		{"istiod", true, "istiod:15010"},
		{"10.0.0.1", true, "10.0.0.1:15010"},
		{"::1", false, "[::1]:15012"},
		{"[::1]:99", false, "[::1]:99"},
		{"unix:///etc/istio/proxy/XDS", false, "unix:///etc/istio/proxy/XDS"},
		{"", false, ""},
		{"istiod:", false, "istiod:15012"},
		{"istiod:65536", false, ""},
		{"istiod:http", false, ""},
		{"user@istiod:1", false, ""},
		{"a,b", false, ""},
		{"istiod:1/path", false, ""},
	} {
		c, _, err := Config{Application: "a", ControlPlanes: []string{tt.address}, PlainText: tt.plain}.withDefaults(fakeEnvironment(nil, nil))
		if (err == nil) != (tt.want != "") || err == nil && c.ControlPlanes[0] != tt.want {
			t.Errorf("%q: %q, %v; want %q", tt.address, c.ControlPlanes, err, tt.want)
		}
	}
}

func TestASocketIsSpokenToInPlainText(t *testing.T) {
	c, _, err := Config{Application: "a", ControlPlanes: []string{"unix:///x", "istiod"}}.withDefaults(fakeEnvironment(nil, nil))
	if err != nil || c.PlainText || !c.plainTextTo("unix:///x") || c.plainTextTo("istiod:15012") {
		t.Errorf("%v, %v", c, err)
	}
	if c, _, _ = (Config{Application: "a", ControlPlanes: []string{"unix:///x"}}).withDefaults(fakeEnvironment(nil, nil)); !c.PlainText || c.TokenFile != "" {
		t.Errorf("a socket alone: %v", c)
	}
}

func TestNameInTheCertificate(t *testing.T) {
	c := Config{}
	if got := c.serverNameFor("istiod.istio-system.svc:15012"); got != "istiod.istio-system.svc" {
		t.Error(got)
	}
	if c.ServerName = "istiod"; c.serverNameFor("127.0.0.1:15012") != "istiod" {
		t.Error("ServerName is not used")
	}
}

func TestSourcesInOrder(t *testing.T) {
	bootstrap := settingsTestdata(t, "bootstrap/tls.json")
	everything := map[string]string{
		"DUBBO_REGISTRY_ADDRESS": "xds://dubbo:15012", "GRPC_XDS_BOOTSTRAP_CONFIG": bootstrap, "CA_ADDR": "ca:15012",
		"XDS_ROOT_CA": "/xds-root", "DUBBO_PROTOCOL_PORT": "1001", "DUBBO_PORT_TO_BIND": "1002", "TRI_DUBBO_PORT_TO_BIND": "1003",
	}
	for _, tt := range []struct {
		name    string
		config  Config
		without []string
		address string
		root    string
		port    int
	}{
		{"the literal", Config{ControlPlanes: []string{"literal:1"}, RootCertFile: "/r", Port: 7}, nil, "literal:1", "/r", 7},
		{"Dubbo's environment", Config{}, nil, "dubbo:15012", "/xds-root", 1003},
		{"binding variables", Config{}, []string{"TRI_DUBBO_PORT_TO_BIND"}, "dubbo:15012", "/xds-root", 1002},
		{"the protocol's port", Config{}, []string{"TRI_DUBBO_PORT_TO_BIND", "DUBBO_PORT_TO_BIND"}, "dubbo:15012", "/xds-root", 1001},
		{"the bootstrap", Config{}, []string{"DUBBO_REGISTRY_ADDRESS"}, "istiod-a.istio-system.svc:15012", "/etc/certs/root.pem", 1003},
		{"the CA's address", Config{}, []string{"DUBBO_REGISTRY_ADDRESS", "GRPC_XDS_BOOTSTRAP_CONFIG"}, "ca:15012", "/xds-root", 1003},
	} {
		t.Run(tt.name, func(t *testing.T) {
			variables := maps.Clone(everything)
			for _, name := range tt.without {
				delete(variables, name)
			}
			tt.config.Application = "a"
			c, _, err := tt.config.withDefaults(fakeEnvironment(variables, nil))
			if err != nil || c.ControlPlanes[0] != tt.address || c.RootCertFile != tt.root || c.Port != tt.port {
				t.Errorf("got %q %q %d, %v", c.ControlPlanes, c.RootCertFile, c.Port, err)
			}
		})
	}
}

func TestDubboEnvironmentFillsALiteral(t *testing.T) {
	c, _, err := Config{Timeout: time.Second, QoS: QoS{Port: -1}}.withDefaults(fakeEnvironment(map[string]string{
		"DUBBO_APPLICATION_NAME": "named", "DUBBO_CONSUMER_TIMEOUT": "9", "DUBBO_APPLICATION_QOS_PORT": "1", "DUBBO_APPLICATION_QOSHOST": "127.0.0.1",
		"DUBBO_REGISTRY_SECURE": "plaintext", "DUBBO_IP_TO_BIND": "10.0.0.9", "DUBBO_IP_TO_REGISTRY": "10.0.0.10",
		"DUBBO_APPLICATION_QOS_ACCEPT_FOREIGN_IP_WHITELIST": "10.0.0.1", "DUBBO_APPLICATION_QOS_ANONYMOUS_ALLOW_COMMANDS": "ls",
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Application != "named" || c.Timeout != time.Second || c.QoS.Port != -1 || c.QoS.Host != "127.0.0.1" || c.Host != "10.0.0.9" || c.Node.IP != "10.0.0.10" ||
		!c.PlainText || c.ControlPlanes[0] != "istiod.istio-system.svc:15010" || len(c.QoS.Whitelist) != 1 || len(c.QoS.AllowCommands) != 1 {
		t.Errorf("got %v", c)
	}
	if _, _, err := (Config{Application: "a"}).withDefaults(fakeEnvironment(map[string]string{"DUBBO_PROTOCOL_PORT": "x"}, nil)); err == nil || !strings.Contains(err.Error(), "environment DUBBO_PROTOCOL_PORT") {
		t.Errorf("a malformed variable: %v", err)
	}
}

func TestALoadedConfigDoesNotReadDubbosEnvironmentAgain(t *testing.T) {
	env := fakeEnvironment(map[string]string{"DUBBO_APPLICATION_QOS_ACCEPT_FOREIGN_IP": "true"}, map[string]string{"f": "dubbo.application.name=a"})
	c, err := loadConfig("f", env)
	if err != nil || !c.QoS.AcceptForeignIP {
		t.Fatalf("%v, %v", c, err)
	}
	c.QoS.AcceptForeignIP = false
	if c, _, err = c.withDefaults(env); err != nil || c.QoS.AcceptForeignIP {
		t.Errorf("the environment overruled the program: %v, %v", c, err)
	}
}

func TestEffectiveConfigurationIsStableText(t *testing.T) {
	c := readConfig(t, "properties/everything.properties")
	c.Node = Node{Labels: map[string]string{"app": "greeting", "version": "v1"}, IP: "10.1.0.7", Region: "eu", Zone: "eu-1"}
	c, _, err := c.withDefaults(fakeEnvironment(map[string]string{"POD_NAME": "greeting-1", "ISTIO_META_MESH_ID": "m"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	checkSettingsGolden(t, "properties/everything.effective", c.String())
	c, _, err = readConfig(t, "properties/provider.properties").withDefaults(fakeEnvironment(map[string]string{"POD_IP": "10.1.0.8"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	checkSettingsGolden(t, "properties/provider.effective", c.String())
}

func TestEffectiveConfigurationHoldsNoSecret(t *testing.T) {
	const secret = "s3cr3t-value"
	files := map[string]string{
		defaultTokenFile:    testToken(t, map[string]any{"aud": "istio-ca", "iss": secret}),
		istioAnnotationFile: `vault="` + secret + `"`,
		"f":                 "dubbo.application.name=a\ndubbo.registry.address=xds://u:" + secret + "@istiod:1?password=" + secret + "\ndubbo.registry.password=" + secret + "\ndubbo.provider.token=" + secret,
	}
	env := fakeEnvironment(map[string]string{
		"ISTIO_META_API_TOKEN": secret, "ISTIO_META_DB_PASSWORD": secret, "ISTIO_METAJSON_X": `{"NESTED": {"client-secret": "` + secret + `"}}`, "POD_IP": "10.0.0.1",
	}, files)
	c, err := loadConfig("f", env)
	if err != nil {
		t.Fatal(err)
	}
	c, notes, err := c.withDefaults(env)
	if err != nil {
		t.Fatal(err)
	}
	token, _, _ := strings.Cut(files[defaultTokenFile], ".")
	for _, text := range append(notes, c.String()) {
		if strings.Contains(text, secret) || strings.Contains(text, token) {
			t.Errorf("a secret is shown:\n%s", text)
		}
	}
	if n := strings.Count(c.String(), hidden); n < 6 {
		t.Errorf("%d hidden values in\n%s", n, c)
	}
}

func TestEffectiveConfigurationSaysWhatIsOff(t *testing.T) {
	text := Config{InsecureSkipVerify: true, QoS: QoS{Disabled: true}, Port: -1, ShutdownDelay: -1, Application: "a\nqos on"}.String()
	for _, want := range []string{"NOT verified", "qos                    off", "any free port", "not ready for none", `"a\nqos on"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestLevelsAreDubbos(t *testing.T) {
	for i, tt := range []struct {
		name  string
		level Level
	}{{"NONE", LevelNone}, {"PUBLIC", LevelPublic}, {"PROTECTED", LevelProtected}, {"PRIVATE", LevelPrivate}} {
		for _, text := range []string{tt.name, strings.ToLower(tt.name), string(rune('0' + i))} {
			if level, ok := parseLevel(text); !ok || level != tt.level || level.String() != tt.name {
				t.Errorf("parseLevel(%q) = %v, %v", text, level, ok)
			}
		}
	}
	if level, ok := parseLevel("4"); ok || level != LevelPublic {
		t.Errorf("parseLevel(4) = %v, %v", level, ok)
	}
	var zero Level
	if zero != LevelPublic || !(LevelNone < LevelPublic && LevelPublic < LevelProtected && LevelProtected < LevelPrivate) {
		t.Error("the levels are out of order")
	}
	if got := Level(7).String(); got != "Level(7)" {
		t.Error(got)
	}
}

func TestSmallFilesOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for size, ok := range map[int]bool{0: true, maxFile: true, maxFile + 1: false} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if data, err := readSmallFile(path); (err == nil) != ok || ok && len(data) != size {
			t.Errorf("%d bytes: %d, %v", size, len(data), err)
		}
	}
	if _, err := readSmallFile(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
	if _, err := readSmallFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestThisHostHasAnEnvironment(t *testing.T) {
	env := osEnvironment()
	if addresses, err := env.addresses(); err != nil || len(addresses) == 0 {
		t.Errorf("%v, %v", addresses, err)
	}
	if name, err := env.hostname(); err != nil || name == "" {
		t.Errorf("%q, %v", name, err)
	}
}

func settingsTestdata(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// readConfig loads a file of testdata on a host without variables, under its
// bare name.
func readConfig(t *testing.T, file string) Config {
	t.Helper()
	name := filepath.Base(file)
	c, err := loadConfig(name, fakeEnvironment(nil, map[string]string{name: settingsTestdata(t, file)}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
