package proxyless

import (
	"strings"
	"testing"
	"time"
)

// TestWhereTheCertificateComesFrom goes through the sources in their order.
func TestWhereTheCertificateComesFrom(t *testing.T) {
	const provider = `{"xds_servers":[{"server_uri":"a:1","channel_creds":[{"type":"insecure"}]}],"certificate_providers":{
		"default":{"plugin_name":"file_watcher","config":{"certificate_file":"/b/c","private_key_file":"/b/k","ca_certificate_file":"/b/r","refresh_interval":"3s"}},
		"map":{"plugin_name":"file_watcher","config":{"spiffe_trust_bundle_map_file":"/b/m"}},
		"other":{"plugin_name":"vault","config":{"x":1}}}}`
	files := func(cert, key, roots string) func(*Config) string {
		return func(c *Config) string {
			if id := c.Identity; id.CertFile != cert || id.KeyFile != key || id.RootFile != roots || id.CAAddress != "" {
				return "files"
			}
			return ""
		}
	}
	authority := func(address, name, roots string) func(*Config) string {
		return func(c *Config) string {
			if id := c.Identity; id.CAAddress != address || id.CAServerName != name || id.CARootFile != roots || id.named() || c.TokenFile == "" {
				return "authority"
			}
			return ""
		}
	}
	for name, test := range map[string]struct {
		config Config
		env    map[string]string
		files  map[string]string
		wrong  func(*Config) string
		source string // of newIdentity
	}{
		"nothing said": {source: "authority istiod.istio-system.svc:15012"},
		"replicas":     {config: Config{ControlPlanes: []string{"a", "unix:///x", "b:7"}}, source: "authority a:15012, b:7"},
		"plain text":   {config: Config{PlainText: true}, source: "none"},
		"disabled": {config: Config{Identity: Identity{Disabled: true}}, env: map[string]string{"CA_ADDR": "ca:1", "OUTPUT_CERTS": "/o"},
			wrong: files("", "", ""), source: "none"},
		"CA_ADDR": {env: map[string]string{"CA_ADDR": "ca"}, wrong: authority("ca:15012", "", "/var/run/secrets/istio/root-cert.pem"), source: "authority ca:15012"},
		"CA_ADDR beside plain text": {config: Config{PlainText: true, ControlPlanes: []string{"i:15010"}}, env: map[string]string{"CA_ADDR": "ca:9", "CA_ROOT_CA": "/ca.pem", "ISTIOD_SAN": "istiod"},
			wrong: authority("ca:9", "istiod", "/ca.pem"), source: "authority ca:9"},
		"an authority that is the control plane": {config: Config{ControlPlanes: []string{"ca:9"}, ServerName: "n", RootCertFile: "/r"}, env: map[string]string{"CA_ADDR": "ca:9"},
			wrong: authority("ca:9", "n", "/r"), source: "authority ca:9"},
		"the literal before the environment": {config: Config{Identity: Identity{CAAddress: "mine:1", CARootFile: SystemRoots}}, env: map[string]string{"CA_ADDR": "ca", "OUTPUT_CERTS": "/o", "GRPC_XDS_BOOTSTRAP_CONFIG": provider},
			wrong: authority("mine:1", "", SystemRoots), source: "authority mine:1"},
		"files": {config: Config{Identity: Identity{CertFile: "/x/c", KeyFile: "/x/k"}}, env: map[string]string{"CA_ADDR": "ca", "OUTPUT_CERTS": "/o"},
			wrong: files("/x/c", "/x/k", "/x/root-cert.pem"), source: "/x/c"},
		"OUTPUT_CERTS":       {env: map[string]string{"OUTPUT_CERTS": "/o", "FILE_MOUNTED_CERTS": "true"}, wrong: files("/o/cert-chain.pem", "/o/key.pem", "/o/root-cert.pem"), source: "/o/cert-chain.pem"},
		"FILE_MOUNTED_CERTS": {env: map[string]string{"FILE_MOUNTED_CERTS": "true"}, wrong: files("/etc/certs/cert-chain.pem", "/etc/certs/key.pem", "/etc/certs/root-cert.pem"), source: "/etc/certs/cert-chain.pem"},
		"a volume of SPIFFE's": {files: map[string]string{spiffeCredentialDir + "/cert-chain.pem": "x"}, env: map[string]string{"CA_ADDR": "ca"},
			wrong: files(spiffeCredentialDir+"/cert-chain.pem", spiffeCredentialDir+"/key.pem", spiffeCredentialDir+"/root-cert.pem"), source: spiffeCredentialDir + "/cert-chain.pem"},
		"a bootstrap's provider": {env: map[string]string{"GRPC_XDS_BOOTSTRAP_CONFIG": provider}, wrong: func(c *Config) string {
			if len(c.providers) != 2 || c.providers["map"].bundle != "/b/m" || c.Identity.refresh != 3*time.Second {
				return "providers"
			}
			return files("/b/c", "/b/k", "/b/r")(c)
		}, source: "/b/c"},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Application = "greeting"
			c, _, err := test.config.withDefaults(fakeEnvironment(test.env, test.files))
			if err != nil {
				t.Fatal(err)
			}
			if test.wrong != nil && test.wrong(&c) != "" {
				t.Errorf("%s: %+v", test.wrong(&c), c.Identity)
			}
			if s := newIdentity(&c, c.Logger, new(counters), readSmallFile).state(); s.Source != test.source {
				t.Errorf("the source is %s, want %s", s.Source, test.source)
			}
		})
	}
}

func TestIstiosVariablesAboutKeys(t *testing.T) {
	for name, test := range map[string]struct {
		env  map[string]string
		want Identity
		says string // the error's
	}{
		"none":            {nil, Identity{Lifetime: 24 * time.Hour, RenewRatio: 0.5, RenewJitter: 0.01, Curve: "P256"}, ""},
		"Istio's":         {map[string]string{"SECRET_TTL": "1h30m", "SECRET_GRACE_PERIOD_RATIO": "0.25", "SECRET_GRACE_PERIOD_RATIO_JITTER": "0", "ECC_SIGNATURE_ALGORITHM": "ECDSA", "ECC_CURVE": "P384", "WORKLOAD_RSA_KEY_SIZE": "4096"}, Identity{Lifetime: 90 * time.Minute, RenewRatio: 0.25, RenewJitter: -1, Curve: "P384"}, ""},
		"Dubbo's seconds": {map[string]string{"SECRET_TTL": "86400"}, Identity{Lifetime: 24 * time.Hour, RenewRatio: 0.5, RenewJitter: 0.01, Curve: "P256"}, ""},
		"no other roots":  {map[string]string{"PROXY_CONFIG_XDS_AGENT": "false"}, Identity{Lifetime: 24 * time.Hour, RenewRatio: 0.5, RenewJitter: 0.01, Curve: "P256", NoMeshRoots: true}, ""},
		"RSA":             {map[string]string{"WORKLOAD_RSA_KEY_SIZE": "3072"}, Identity{Lifetime: 24 * time.Hour, RenewRatio: 0.5, RenewJitter: 0.01, RSABits: 3072}, ""},
		"no duration":     {map[string]string{"SECRET_TTL": "soon"}, Identity{}, "SECRET_TTL"},
		"no time at all":  {map[string]string{"SECRET_TTL": "0"}, Identity{}, "SECRET_TTL"},
		"no share":        {map[string]string{"SECRET_GRACE_PERIOD_RATIO": "NaN"}, Identity{}, "SECRET_GRACE_PERIOD_RATIO"},
		"more than all":   {map[string]string{"SECRET_GRACE_PERIOD_RATIO": "1.5"}, Identity{}, "SECRET_GRACE_PERIOD_RATIO"},
		"a small key":     {map[string]string{"WORKLOAD_RSA_KEY_SIZE": "1024"}, Identity{}, "WORKLOAD_RSA_KEY_SIZE"},
		"another curve":   {map[string]string{"ECC_CURVE": "P521"}, Identity{}, "Curve"},
	} {
		c, _, err := Config{Application: "greeting"}.withDefaults(fakeEnvironment(test.env, nil))
		if c.Identity != test.want || (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %+v, %v", name, c.Identity, err)
		}
	}
}

func TestIdentityIsValidated(t *testing.T) {
	for field, id := range map[string]Identity{
		"Identity.Disabled":    {Disabled: true, CAAddress: "ca:1"},
		"Identity.CertFile":    {CertFile: "c", KeyFile: "k", CAAddress: "ca:1"},
		"Identity.KeyFile":     {CertFile: "c"},
		"Identity.CAAddress":   {CAAddress: "unix:///x"},
		"Identity.Lifetime":    {Lifetime: time.Millisecond},
		"Identity.RenewRatio":  {RenewRatio: 2},
		"Identity.RenewJitter": {RenewJitter: 2},
		"Identity.RSABits":     {RSABits: 1024},
		"Identity.Curve":       {Curve: "P521"},
	} {
		c := Config{Application: "greeting", Identity: id}
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestBrokenCertificateProviders(t *testing.T) {
	for _, provider := range []string{
		`{"plugin_name":"file_watcher"}`, `{"plugin_name":"file_watcher","config":{"certificate_file":"c"}}`, `{"plugin_name":"file_watcher","config":{"private_key_file":"c","ca_certificate_file":"r"}}`,
		`{"plugin_name":"file_watcher","config":{"ca_certificate_file":"r","refresh_interval":"soon"}}`, `5`,
	} {
		if b, err := parseBootstrap([]byte(`{"xds_servers":[{"server_uri":"a:1","channel_creds":[{"type":"insecure"}]}],"certificate_providers":{"x":` + provider + `}}`)); err == nil {
			t.Errorf("%s: %+v", provider, b.providers)
		}
	}
}
