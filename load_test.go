package proxyless

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheGuidesTwoFiles(t *testing.T) {
	const notServed = "is kept, but nothing listens there: the MetadataService of Dubbo's introspection is not served"
	provider := Config{
		Application: "dubbo-samples-xds-provider", ControlPlanes: []string{"istiod.istio-system.svc:15012"}, Port: 50052, MetadataServicePort: 20885,
		QoS: QoS{AcceptForeignIP: true}, loaded: true,
		Notices: []Notice{{"provider.properties", 2, "dubbo.application.metadataServicePort", "20885", notServed}},
	}
	consumer := Config{
		Application: "dubbo-samples-xds-consumer", ControlPlanes: []string{"istiod.istio-system.svc:15012"}, MetadataServicePort: 20885,
		QoS: QoS{AcceptForeignIP: true}, loaded: true,
		Notices: []Notice{{"consumer.properties", 2, "dubbo.application.metadataServicePort", "20885", notServed}},
	}
	for file, want := range map[string]Config{"provider.properties": provider, "consumer.properties": consumer} {
		if got := readConfig(t, "properties/"+file); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\nwant\n%+v", file, got, want)
		}
	}
}

func TestEveryKeyInItsSpellings(t *testing.T) {
	got := readConfig(t, "properties/everything.properties")
	want := Config{
		Application: "greeting", ControlPlanes: []string{"istiod-a.istio-system.svc:15010", "istiod-b:15010", "istiod-c:15010"}, PlainText: true,
		Timeout: 3 * time.Second, Host: "127.0.0.2", Port: 50053, FallbackToDefault: true, ShutdownTimeout: 20 * time.Second, MetadataServicePort: 20886,
		QoS: QoS{
			Host: "127.0.0.1", Port: 22223, AcceptForeignIP: true, Whitelist: []string{"10.1.0.0/16", "192.168.*.*", "172.16.0.7"},
			AnonymousLevel: LevelProtected, AllowCommands: []string{"live", "ready"}, Check: true,
		},
		loaded: true,
	}
	got.Notices = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestWhatIsNotHonouredIsReportedByNameAndLine(t *testing.T) {
	var text strings.Builder
	for _, notice := range readConfig(t, "properties/notices.properties").Notices {
		text.WriteString(notice.String() + "\n")
	}
	checkSettingsGolden(t, "properties/notices.golden", text.String())
}

func TestMalformedValuesNameFileLineAndKey(t *testing.T) {
	const file = `
dubbo.protocol.port=abc
dubbo.application.qosPort=70000
dubbo.application.qosEnable=yes
dubbo.consumer.timeout=3s
dubbo.service.shutdown.wait=-1
dubbo.registry.address=nacos://127.0.0.1:8848
dubbo.registry.protocol=zookeeper
dubbo.application.name=${NOBODY}
dubbo.protocol.host=${OPEN
`
	config, err := loadConfig("app/dubbo.properties", fakeEnvironment(nil, map[string]string{"app/dubbo.properties": file}))
	if !reflect.DeepEqual(config, Config{}) {
		t.Errorf("an error and %+v", config)
	}
	var got []string
	for _, e := range splitErrors(t, err) {
		got = append(got, e.Resource+": "+e.Reason)
	}
	want := []string{
		"app/dubbo.properties:2 dubbo.protocol.port: \"abc\" is not a port; write a number up to 65535",
		"app/dubbo.properties:3 dubbo.application.qosPort: \"70000\" is not a port; write a number up to 65535",
		"app/dubbo.properties:4 dubbo.application.qosEnable: \"yes\" is neither true nor false",
		"app/dubbo.properties:5 dubbo.consumer.timeout: \"3s\" is not a number of milliseconds",
		"app/dubbo.properties:6 dubbo.service.shutdown.wait: \"-1\" is not a number of milliseconds",
		"app/dubbo.properties:7 dubbo.registry.address: \"nacos://127.0.0.1:8848\" has the scheme nacos; the only registry here is istiod, xds://host:port",
		"app/dubbo.properties:8 dubbo.registry.protocol: \"zookeeper\" is not supported; the only registry here is istiod, xds",
		"app/dubbo.properties:9 dubbo.application.name: \"${NOBODY}\" names NOBODY, which is neither an environment variable nor a key of the file",
		"app/dubbo.properties:10 dubbo.protocol.host: \"${OPEN\" opens ${ and does not close it",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRegistryAddresses(t *testing.T) {
	for _, tt := range []struct {
		text   string
		want   []string
		plain  bool
		agent  bool
		notice string
		err    string
	}{
		{text: "dubbo.registry.address=xds://a:1", want: []string{"a:1"}},
		{text: "dubbo.registry.address=a:1", want: []string{"a:1"}},
		{text: "dubbo.registry.address=xds://a", want: []string{"a"}},
		{text: "dubbo.registry.address=xds://a:1/", want: []string{"a:1"}},
		{text: "dubbo.registry.address=xds://a:1,b:2,xds://c:3", want: []string{"a:1", "b:2", "c:3"}},
		{text: "dubbo.registry.address=xds://a:1?backup=b:2,[::1]:3", want: []string{"a:1", "b:2", "[::1]:3"}},
		{text: "dubbo.registry.parameters.backup=b:2\ndubbo.registry.address=xds://a:1", want: []string{"a:1", "b:2"}},
		{text: "dubbo.registry.address=unix:///x/y", want: []string{"unix:///x/y"}},
		{text: "dubbo.registry.address=xds://a:1?secure=plaintext", want: []string{"a:1"}, plain: true},
		{text: "dubbo.registry.address=xds://a:1?security=plaintext", want: []string{"a:1"}, plain: true},
		{text: "dubbo.registry.address=xds://a:1\ndubbo.registry.secure=plaintext", want: []string{"a:1"}, plain: true},
		{text: "dubbo.registry.address=xds://a:1\ndubbo.registry.secure=tls", want: []string{"a:1"}},
		{text: "dubbo.registry.secure=plaintext\ndubbo.registry.address=xds://a:1?secure=tls", want: []string{"a:1"}, notice: "is overridden by f:2 dubbo.registry.address?secure"},
		{text: "dubbo.registry.address=xds://a:1?use-agent=true", want: []string{"a:1"}, agent: true},
		{text: "dubbo.registry.parameters.use-agent=true", agent: true},
		{text: "dubbo.registry.address=xds://a:1?colour=blue", want: []string{"a:1"}, notice: "is not known and has no effect"},
		{text: "dubbo.registry.address=xds://u:p@a:1", want: []string{"a:1"}, notice: noRegistryLogin},
		{text: "dubbo.registry.address=xds://a:1\ndubbo.registry.enable-empty-protection=false", want: []string{"a:1"}},
		{text: "dubbo.registry.address=xds://a:1;xds://b:1", err: "names several registries"},
		{text: "dubbo.registry.address=N/A", err: `names the address "N/A", which names no host`},
		{text: "dubbo.registry.address=xds://a:0", err: "which has no port from 1 to 65535"},
		{text: "dubbo.registry.address=xds://a:1?backup=b:x", err: "which has no port from 1 to 65535"},
	} {
		c, err := loadConfig("f", fakeEnvironment(nil, map[string]string{"f": tt.text}))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q: %v, want %q", tt.text, err, tt.err)
			}
			continue
		}
		if err != nil || !slices.Equal(c.ControlPlanes, tt.want) || c.PlainText != tt.plain || c.useAgent != tt.agent {
			t.Errorf("%q: %q plain=%v agent=%v, %v", tt.text, c.ControlPlanes, c.PlainText, c.useAgent, err)
		}
		if tt.notice == "" && len(c.Notices) > 0 || tt.notice != "" && (len(c.Notices) != 1 || c.Notices[0].Problem != tt.notice) {
			t.Errorf("%q: notices %v, want %q", tt.text, c.Notices, tt.notice)
		}
	}
}

func TestEnvironmentOverTheFile(t *testing.T) {
	const file = "dubbo.application.name=file\ndubbo.protocol.port=1\ndubbo.registry.address=xds://file:1?backup=file-b:1&secure=plaintext\ndubbo.protocol.host=10.0.0.1"
	c, err := loadConfig("f", fakeEnvironment(map[string]string{
		"DUBBO_APPLICATION_NAME": "variable", "DUBBO_REGISTRY_ADDRESS": "xds://variable:2", "DUBBO_PROTOCOL_PORT": "2", "DUBBO_PORT_TO_BIND": "3",
		"DUBBO_PROTOCOL_HOST": "", "dubbo_protocol_host": "10.0.0.3", "DUBBO_UNHEARD_OF": "x", "TRI_DUBBO_APPLICATION_NAME": "x",
	}, map[string]string{"f": file}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Application != "variable" || c.Port != 3 || !slices.Equal(c.ControlPlanes, []string{"variable:2"}) || c.PlainText || c.Host != "10.0.0.1" || len(c.Notices) > 0 {
		t.Errorf("got %+v", c)
	}
}

func TestVariablesThatKubernetesSetsForServices(t *testing.T) {
	c, err := loadConfig("f", fakeEnvironment(map[string]string{"DUBBO_PROTOCOL_PORT": "tcp://10.96.0.7:50051"}, map[string]string{"f": "dubbo.protocol.port=7"}))
	if err != nil || c.Port != 7 || len(c.Notices) != 1 || !strings.Contains(c.Notices[0].String(), "environment: DUBBO_PROTOCOL_PORT=tcp://10.96.0.7:50051: is what Kubernetes sets") {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestPlaceholders(t *testing.T) {
	env := map[string]string{"NAME": "from-variable", "EMPTY": "", "NESTED": "${NAME}"}
	for value, want := range map[string]string{
		"${NAME}": "from-variable", "a-${NAME}-b": "a-from-variable-b", "${NAME:x}": "from-variable", "${EMPTY:x}": "x", "${NONE:}": "", "${NONE:a:b}": "a:b",
		"${other.key}": "other", "$NAME": "$NAME", "${NONE}": "error", "${NESTED}": "error", "${A:${B}}": "error", "${NAME": "error",
	} {
		c, err := loadConfig("f", fakeEnvironment(env, map[string]string{"f": "other.key=other\ndubbo.application.name=" + value}))
		if err != nil {
			c.Application = "error"
		}
		if c.Application != want {
			t.Errorf("%s gives %q (%v), want %q", value, c.Application, err, want)
		}
	}
}

func TestARepeatedKeyIsReported(t *testing.T) {
	c, err := loadConfig("f", fakeEnvironment(nil, map[string]string{"f": "dubbo.protocol.port=1\ndubbo.protocol.port=1\ndubbo.protocol.Port=2\ndubbo.protocol.host=\n"}))
	if err != nil || c.Port != 2 || len(c.Notices) != 1 || c.Notices[0].String() != "f:2: dubbo.protocol.port=1: is overridden by f:3 dubbo.protocol.Port" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	for _, path := range []string{"", filepath.Join(t.TempDir(), "none.properties")} {
		if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "name the dubbo.properties file") {
			t.Errorf("LoadConfig(%q) = %v", path, err)
		}
	}
	if _, err := loadConfig("f", fakeEnvironment(nil, map[string]string{"f": "a=1\nb=\\u00"})); err == nil || !strings.Contains(err.Error(), "config f: line 2: ") {
		t.Errorf("bad syntax: %v", err)
	}
}

func TestEverySettingHasItsOwnName(t *testing.T) {
	if len(settingIndex) != len(settings) {
		t.Errorf("%d settings, %d names", len(settings), len(settingIndex))
	}
	for _, s := range settings {
		if _, ok := findSetting(canonicalKey(s.name)); !ok {
			t.Errorf("%s is not found", s.name)
		}
	}
}
