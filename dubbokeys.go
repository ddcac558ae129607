package proxyless

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// setting is one dubbo. key: how it is written in Dubbo's documentation, and
// what its value does. set returns nil, notHonoured, or an error for a value
// that cannot be read; the error's text follows the value in a sentence.
type setting struct {
	name string
	set  func(c *Config, value string) error
}

// notHonoured says why a value is read but has no, or not its whole, effect.
type notHonoured string

func (n notHonoured) Error() string { return string(n) }

const (
	registryPrefix     = "dubbo.registry."
	registryAddressKey = "dubboregistryaddress"
	// tripleBindPrefix may stand before DUBBO_IP_TO_BIND and DUBBO_PORT_TO_BIND
	// to mean one protocol only.
	tripleBindPrefix = "TRI_"
)

// settings are the keys of Dubbo that mean something here, and then those that
// a mesh user is likely to have without effect.
var settings = []setting{
	{"dubbo.application.name", setText(func(c *Config) *string { return &c.Application })},
	{"dubbo.application.metadataServicePort", setMetadataServicePort},
	{"dubbo.application.qosEnable", setQoSEnable},
	{"dubbo.application.qosHost", setText(func(c *Config) *string { return &c.QoS.Host })},
	{"dubbo.application.qosPort", setPort(func(c *Config) *int { return &c.QoS.Port })},
	{"dubbo.application.qosAcceptForeignIp", setBool(func(c *Config) *bool { return &c.QoS.AcceptForeignIP })},
	{"dubbo.application.qosAcceptForeignIpWhitelist", setList(func(c *Config) *[]string { return &c.QoS.Whitelist })},
	{"dubbo.application.qosCheck", setBool(func(c *Config) *bool { return &c.QoS.Check })},
	{"dubbo.application.qosAnonymousAccessPermissionLevel", setLevel},
	{"dubbo.application.qosAnonymousAllowCommands", setList(func(c *Config) *[]string { return &c.QoS.AllowCommands })},
	{"dubbo.registry.address", setRegistryAddress},
	{"dubbo.registry.backup", setRegistryBackup},
	{"dubbo.registry.secure", setSecure},
	{"dubbo.registry.protocol", setRegistryProtocol},
	{"dubbo.registry.strict", setBool(func(c *Config) *bool { return &c.Strict })},
	{"dubbo.registry.view", setView},
	{"dubbo.registry.useAgent", setBool(func(c *Config) *bool { return &c.useAgent })},
	{"dubbo.protocol.name", only("the one protocol here is Triple, which gRPC clients speak too; write tri", "tri")},
	{"dubbo.protocol.port", setPort(func(c *Config) *int { return &c.Port })},
	{"dubbo.protocol.host", setText(func(c *Config) *string { return &c.Host })},
	{"dubbo.consumer.timeout", setMillis(func(c *Config) *time.Duration { return &c.Timeout })},
	{"dubbo.consumer.cluster", setText(func(c *Config) *string { return &c.Cluster })},
	{"dubbo.consumer.retries", setCount(func(c *Config) *int { return &c.Retries })},
	{"dubbo.consumer.forks", setCount(func(c *Config) *int { return &c.Forks })},
	{"dubbo.consumer.loadbalance", setText(func(c *Config) *string { return &c.LoadBalance })},
	{"dubbo.service.shutdown.wait", setMillis(func(c *Config) *time.Duration { return &c.ShutdownTimeout })},
	{"dubbo.service.shutdown.wait.seconds", setSeconds(func(c *Config) *time.Duration { return &c.ShutdownTimeout })},
	{"dubbo.rpc.tri.resolve-fallback-to-default", setBool(func(c *Config) *bool { return &c.FallbackToDefault })},
	{"DUBBO_IP_TO_BIND", setText(func(c *Config) *string { return &c.Host })},
	{"DUBBO_PORT_TO_BIND", setPort(func(c *Config) *int { return &c.Port })},
	{"DUBBO_IP_TO_REGISTRY", setText(func(c *Config) *string { return &c.Node.IP })},

	{"DUBBO_PORT_TO_REGISTRY", only("nothing is registered: the mesh announces the targetPort of the Service")},
	{"dubbo.application.protocol", only("the one protocol here is Triple; write tri", "tri")},
	{"dubbo.application.metadataType", only("metadata is not exchanged through a metadata centre", "local")},
	{"dubbo.application.metadataServiceProtocol", only(noMetadataService)},
	{"dubbo.application.metadata.proxy.delay", only(noMetadataService)},
	{"dubbo.application.metadata.publish.delay", only(noMetadataService)},
	{"dubbo.application.livenessProbe", only(noExtraProbes)},
	{"dubbo.application.readinessProbe", only(noExtraProbes)},
	{"dubbo.application.startupProbe", only(noExtraProbes)},
	{"dubbo.registry.port", only("write the port into dubbo.registry.address, as in xds://istiod.istio-system.svc:15012")},
	{"dubbo.registry.username", only(noRegistryLogin)},
	{"dubbo.registry.password", only(noRegistryLogin)},
	{"dubbo.registry.signer", only("certificates are asked for as from istiod, by IstioCertificateService; write istio", "istio")},
	{"dubbo.ssl.serverKeyCertChainPath", only(noOwnTLS)},
	{"dubbo.ssl.serverPrivateKeyPath", only(noOwnTLS)},
	{"dubbo.ssl.serverKeyPassword", only(noOwnTLS)},
	{"dubbo.ssl.serverTrustCertCollectionPath", only(noOwnTLS)},
	{"dubbo.ssl.clientKeyCertChainPath", only(noOwnTLS)},
	{"dubbo.ssl.clientPrivateKeyPath", only(noOwnTLS)},
	{"dubbo.ssl.clientKeyPassword", only(noOwnTLS)},
	{"dubbo.ssl.clientTrustCertCollectionPath", only(noOwnTLS)},
	{"dubbo.protocol.sslEnabled", only(noOwnTLS)},
	{"dubbo.registry.pollingTimeout", only("istiod pushes, nothing is polled")},
	{"dubbo.registry.pollingPoolSize", only("istiod pushes, nothing is polled")},
	{"dubbo.registry.enableEmptyProtection", only("an empty endpoint list is the mesh's word and is applied", "false")},
	{"dubbo.registry.registerMode", only("nothing is registered: Kubernetes knows the pods")},
	{"dubbo.registry.register", only("nothing is registered: Kubernetes knows the pods", "false")},
	{"dubbo.registry.check", only("joining never waits for istiod; use Mesh.WaitReady", "false")},
	{"dubbo.registry.echoPollingCycle", only(noMetadataService)},
	{"dubbo.protocol.extProtocol", only("one protocol is served, Triple")},
	{"dubbo.protocol.serialization", only("the codec is gRPC's, protobuf unless a call option says otherwise", "protobuf")},
	{"dubbo.protocol.preferSerialization", only("the codec is gRPC's, protobuf unless a call option says otherwise", "protobuf")},
	{"dubbo.consumer.check", only("referring never waits for a provider; use Mesh.WaitReady", "false")},
	{"dubbo.consumer.meshEnable", only("that is Dubbo's way with a sidecar; here there is none", "false")},
	{"dubbo.shutdownHook.listenIgnore", only("no hook is installed: end the context of Server.Serve on a signal", "true")},
}

const (
	noMetadataService = "the MetadataService of Dubbo's introspection is not served"
	noExtraProbes     = "probes are not loaded by name: /live, /ready and /startup answer for the mesh and for gRPC health"
	noOwnTLS          = "the mesh says where TLS is spoken, and its authority signs the certificate; to take it from files, set CertFile, KeyFile and RootFile of Config.Identity"
	noRegistryLogin   = "istiod takes no user and password, but the token of Config.TokenFile"
)

// settingIndex finds a setting by its canonical key.
var settingIndex = func() map[string]int {
	index := make(map[string]int, len(settings))
	for i, s := range settings {
		index[canonicalKey(s.name)] = i
	}
	return index
}()

func findSetting(key string) (setting, bool) {
	i, ok := settingIndex[key]
	if !ok {
		return setting{}, false
	}
	return settings[i], true
}

// bindRank sorts the settings of which the later one wins: Dubbo prefers
// DUBBO_IP_TO_BIND and DUBBO_PORT_TO_BIND to the protocol's host and port.
func bindRank(it settingItem) int {
	if strings.HasSuffix(it.key, "tobind") {
		return 1
	}
	return 0
}

// unknownKey says what to do about a key that is in no table.
func unknownKey(key string) string {
	for _, several := range []string{"registries", "protocols"} {
		if strings.HasPrefix(key, "dubbo"+several) {
			return "there is one registry and one protocol; write dubbo.registry.* and dubbo.protocol.*"
		}
	}
	if name := similarSetting(key); name != "" {
		return "is not known; did you mean " + name + "?"
	}
	return "is not known and has no effect"
}

// similarSetting is the setting fewest letters away, of at most two, or "".
func similarSetting(key string) string {
	best, distance := "", 3
	for known, i := range settingIndex {
		if max(len(known)-len(key), len(key)-len(known)) > distance {
			continue
		}
		d, name := editDistance(key, known), settings[i].name
		if d < distance || d == distance && name < best {
			best, distance = name, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func setText(field func(*Config) *string) func(*Config, string) error {
	return func(c *Config, value string) error {
		*field(c) = value
		return nil
	}
}

func setList(field func(*Config) *[]string) func(*Config, string) error {
	return func(c *Config, value string) error {
		*field(c) = commaList(value)
		return nil
	}
}

func commaList(value string) []string {
	var list []string
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

func setBool(field func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, value string) error {
		on, err := parseBool(value)
		*field(c) = on
		return err
	}
}

func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, errors.New("is neither true nor false")
}

// setPort takes any negative number as Dubbo takes -1: a free port is found.
func setPort(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, value string) error {
		port, err := strconv.Atoi(value)
		if err != nil || port > maxPort {
			return fmt.Errorf("is not a port; write a number up to %d", maxPort)
		}
		*field(c) = port
		return nil
	}
}

// setCount reads a number. One below 0 is 0, as in Dubbo.
func setCount(field func(*Config) *int) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := strconv.Atoi(value)
		if err != nil {
			return errors.New("is not a number")
		}
		*field(c) = max(0, n)
		return nil
	}
}

func setMillis(field func(*Config) *time.Duration) func(*Config, string) error {
	return setDuration(field, time.Millisecond, "milliseconds")
}

func setSeconds(field func(*Config) *time.Duration) func(*Config, string) error {
	return setDuration(field, time.Second, "seconds")
}

func setDuration(field func(*Config) *time.Duration, unit time.Duration, word string) func(*Config, string) error {
	return func(c *Config, value string) error {
		n, err := strconv.ParseInt(value, 10, 32)
		if err != nil || n < 0 {
			return fmt.Errorf("is not a number of %s", word)
		}
		*field(c) = time.Duration(n) * unit
		return nil
	}
}

// only honours the listed values and gives the reason for any other.
func only(reason string, honoured ...string) func(*Config, string) error {
	return func(_ *Config, value string) error {
		if slices.ContainsFunc(honoured, func(h string) bool { return strings.EqualFold(h, value) }) {
			return nil
		}
		return notHonoured(reason)
	}
}

func setMetadataServicePort(c *Config, value string) error {
	if err := setPort(func(c *Config) *int { return &c.MetadataServicePort })(c, value); err != nil {
		return err
	}
	return notHonoured("is kept, but nothing listens there: " + noMetadataService)
}

func setQoSEnable(c *Config, value string) error {
	on, err := parseBool(value)
	c.QoS.Disabled = !on
	return err
}

func setLevel(c *Config, value string) error {
	level, ok := parseLevel(value)
	c.QoS.AnonymousLevel = level
	if !ok {
		return notHonoured("is no level, so that PUBLIC counts as in Dubbo; write NONE, PUBLIC, PROTECTED or PRIVATE")
	}
	return nil
}

// setRegistryAddress takes one or several host:port, the scheme once or before
// each. Parameters were cut off before.
func setRegistryAddress(c *Config, value string) error {
	if strings.ContainsAny(value, ";|") {
		return errors.New("names several registries; write one, its replicas with commas or ?backup=")
	}
	var addresses []string
	var login bool
	for _, one := range commaList(value) {
		scheme, address, ok := strings.Cut(one, "://")
		if !ok {
			scheme, address = "xds", one
		}
		if scheme == "unix" {
			addresses = append(addresses, one)
			continue
		}
		if scheme != "xds" {
			return fmt.Errorf("has the scheme %s; the only registry here is istiod, xds://host:port", scheme)
		}
		if at := strings.LastIndexByte(address, '@'); at >= 0 {
			address, login = address[at+1:], true
		}
		addresses = append(addresses, strings.TrimRight(address, "/"))
	}
	if err := checkAddresses(addresses); err != nil {
		return err
	}
	c.ControlPlanes = append(addresses, c.ControlPlanes...)
	if login {
		return notHonoured(noRegistryLogin)
	}
	return nil
}

func setRegistryBackup(c *Config, value string) error {
	addresses := commaList(value)
	c.ControlPlanes = append(c.ControlPlanes, addresses...)
	return checkAddresses(addresses)
}

func checkAddresses(addresses []string) error {
	for _, address := range addresses {
		if reason := addressProblem(address); reason != "" {
			return fmt.Errorf("names the address %q, which %s", address, reason)
		}
	}
	return nil
}

// setSecure honours the one word that Dubbo knows, and the words for what is
// done anyway.
func setSecure(c *Config, value string) error {
	c.PlainText = strings.EqualFold(value, "plaintext")
	if c.PlainText || strings.EqualFold(value, "tls") {
		return nil
	}
	return notHonoured("istiod is spoken to over TLS, verified by its root certificate; the other choice is plaintext")
}

// setView reads full or lean.
func setView(c *Config, value string) error {
	view, ok := parseView(value)
	if !ok {
		return errors.New("is neither full nor lean")
	}
	c.View = view
	return nil
}

func setRegistryProtocol(_ *Config, value string) error {
	if value != "xds" {
		return errors.New("is not supported; the only registry here is istiod, xds")
	}
	return nil
}
