package proxyless

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"
)

// Variables that name a bootstrap: a file, which wins, or the JSON itself
// (gRFC A27).
const (
	bootstrapFileVariable = "GRPC_XDS_BOOTSTRAP"
	bootstrapTextVariable = "GRPC_XDS_BOOTSTRAP_CONFIG"
)

// bootstrap is what is used of gRPC's xDS bootstrap JSON.
type bootstrap struct {
	source       string   // the file's path or the variable's name
	addresses    []string // xds_servers in order, as in Config.ControlPlanes
	plainText    bool
	rootCertFile string
	tokenFile    string
	node         Node
	providers    map[string]fileProvider
	notes        []string // what it says without effect
}

// fileProvider is one of certificate_providers of the plugin file_watcher (gRFC
// A29): a certificate with its key, roots, or both.
type fileProvider struct {
	cert, key     string // both or none
	roots, bundle string // bundle is a SPIFFE bundle map (gRFC A87), which wins over roots
	refresh       time.Duration
}

// readBootstrap reads the bootstrap that the environment names, once and
// without waiting; nil where it names none.
func readBootstrap(env environment) (*bootstrap, error) {
	source, data := bootstrapTextVariable, []byte(env.getenv(bootstrapTextVariable))
	if file := env.getenv(bootstrapFileVariable); file != "" {
		var err error
		source = file
		if data, err = env.readFile(file); err != nil {
			return nil, &Error{Stage: StageConfig, Resource: source, Reason: "the bootstrap JSON that " + bootstrapFileVariable + " names cannot be read", Err: err,
				Advice: "let Istio's agent start first (holdApplicationUntilProxyStarts), or unset " + bootstrapFileVariable}
		}
	}
	if len(data) == 0 && source == bootstrapTextVariable {
		return nil, nil
	}
	b, err := parseBootstrap(data)
	if err != nil {
		return nil, &Error{Stage: StageConfig, Resource: source, Reason: "is no usable bootstrap JSON", Err: err,
			Advice: "compare it with gRFC A27, or unset " + bootstrapFileVariable + " and " + bootstrapTextVariable}
	}
	b.source = source
	for i, note := range b.notes {
		b.notes[i] = source + ": " + note
	}
	return b, nil
}

// bootstrapJSON mirrors the file. Keys that are not listed are ignored, as
// everywhere in gRPC.
type bootstrapJSON struct {
	Servers      []serverJSON               `json:"xds_servers"`
	Node         nodeJSON                   `json:"node"`
	Providers    map[string]json.RawMessage `json:"certificate_providers"`
	Authorities  map[string]json.RawMessage `json:"authorities"`
	ListenerName string                     `json:"client_default_listener_resource_name_template"`
}

type serverJSON struct {
	URI          string      `json:"server_uri"`
	ChannelCreds []credsJSON `json:"channel_creds"`
	CallCreds    []credsJSON `json:"call_creds"`
}

type credsJSON struct {
	Type   string          `json:"type"`
	Config json.RawMessage `json:"config"`
}

type nodeJSON struct {
	ID       string         `json:"id"`
	Cluster  string         `json:"cluster"`
	Metadata map[string]any `json:"metadata"`
	Locality struct {
		Region  string `json:"region"`
		Zone    string `json:"zone"`
		SubZone string `json:"sub_zone"`
	} `json:"locality"`
}

func parseBootstrap(data []byte) (*bootstrap, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxFile)
	}
	var raw bootstrapJSON
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	b := &bootstrap{node: raw.Node.node()}
	if err := b.addServers(raw.Servers); err != nil {
		return nil, err
	}
	if err := b.addProviders(raw.Providers); err != nil {
		return nil, err
	}
	if len(raw.Authorities) > 0 {
		b.note("authorities are not used: there is one control plane")
	}
	if raw.ListenerName != "" && raw.ListenerName != "%s" {
		b.note("client_default_listener_resource_name_template is not used: listeners have the names of their services")
	}
	return b, nil
}

type providerJSON struct {
	Plugin string `json:"plugin_name"`
	Config struct {
		Cert    string `json:"certificate_file"`
		Key     string `json:"private_key_file"`
		Roots   string `json:"ca_certificate_file"`
		Bundle  string `json:"spiffe_trust_bundle_map_file"`
		Refresh string `json:"refresh_interval"`
	} `json:"config"`
}

// addProviders takes the file watchers. An instance of another plugin is left
// out: what refers to it fails.
func (b *bootstrap) addProviders(raw map[string]json.RawMessage) error {
	for _, instance := range slices.Sorted(maps.Keys(raw)) {
		var p providerJSON
		if err := json.Unmarshal(raw[instance], &p); err != nil {
			return fmt.Errorf("certificate_providers %q: %w", instance, err)
		}
		if p.Plugin != "file_watcher" {
			b.note("certificate_providers %q is not used: its plugin is %q, and file_watcher is understood", instance, p.Plugin)
			continue
		}
		c := p.Config
		one := fileProvider{cert: c.Cert, key: c.Key, roots: c.Roots, bundle: c.Bundle}
		switch {
		case (c.Cert == "") != (c.Key == ""):
			return fmt.Errorf("certificate_providers %q: certificate_file and private_key_file come together", instance)
		case c.Cert == "" && c.Roots == "" && c.Bundle == "":
			return fmt.Errorf("certificate_providers %q names no file", instance)
		}
		if c.Refresh != "" {
			var err error
			if one.refresh, err = time.ParseDuration(c.Refresh); err != nil || one.refresh <= 0 {
				return fmt.Errorf("certificate_providers %q: refresh_interval %q is no duration", instance, c.Refresh)
			}
		}
		if b.providers == nil {
			b.providers = map[string]fileProvider{}
		}
		b.providers[instance] = one
	}
	return nil
}

func (b *bootstrap) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// addServers takes the first server's credentials, and after it the servers
// that have the same: one Config has one way to speak to its control planes.
func (b *bootstrap) addServers(servers []serverJSON) error {
	if len(servers) == 0 {
		return fmt.Errorf("xds_servers is missing or empty")
	}
	for i, s := range servers {
		one, err := s.bootstrap(b)
		if err != nil {
			return fmt.Errorf("xds_servers[%d]: %w", i, err)
		}
		if i == 0 {
			b.plainText, b.rootCertFile, b.tokenFile = one.plainText, one.rootCertFile, one.tokenFile
		} else if one.plainText != b.plainText || one.rootCertFile != b.rootCertFile || one.tokenFile != b.tokenFile {
			b.note("xds_servers[%d] (%s) is not used: its credentials differ from the first server's", i, s.URI)
			continue
		}
		b.addresses = append(b.addresses, one.addresses...)
	}
	return nil
}

// bootstrap reads one server by itself; notes go to all.
func (s *serverJSON) bootstrap(all *bootstrap) (bootstrap, error) {
	address, err := serverAddress(s.URI)
	if err != nil {
		return bootstrap{}, err
	}
	one := bootstrap{addresses: []string{address}}
	if err := one.useChannelCreds(s.ChannelCreds, all); err != nil {
		return bootstrap{}, err
	}
	for _, creds := range s.CallCreds {
		if creds.Type != "jwt_token_file" {
			all.note("call_creds %q of %s are not used", creds.Type, s.URI)
			continue
		}
		var config struct {
			File string `json:"jwt_token_file"`
		}
		if err := creds.decode(&config); err != nil || config.File == "" {
			return bootstrap{}, fmt.Errorf("call_creds jwt_token_file names no file")
		}
		one.tokenFile = config.File
	}
	return one, nil
}

// useChannelCreds takes the first type that is supported.
func (b *bootstrap) useChannelCreds(list []credsJSON, all *bootstrap) error {
	var types []string
	for _, creds := range list {
		types = append(types, creds.Type)
		switch creds.Type {
		case "insecure":
			b.plainText = true
			return nil
		case "tls":
			return b.useTLS(creds, all)
		}
	}
	if len(types) == 0 {
		return fmt.Errorf("channel_creds is missing or empty")
	}
	return fmt.Errorf("channel_creds has none of insecure and tls, but %s", strings.Join(types, ", "))
}

// useTLS reads the configuration of gRFC A65; without a file the system's
// roots verify the server.
func (b *bootstrap) useTLS(creds credsJSON, all *bootstrap) error {
	var config struct {
		CA     string `json:"ca_certificate_file"`
		Cert   string `json:"certificate_file"`
		Spiffe string `json:"spiffe_trust_bundle_map_file"`
	}
	if err := creds.decode(&config); err != nil {
		return fmt.Errorf("channel_creds tls: %w", err)
	}
	if config.Cert != "" {
		all.note("certificate_file of channel_creds is not used: the token proves who this process is")
	}
	if config.Spiffe != "" {
		all.note("spiffe_trust_bundle_map_file of channel_creds is not used: the server is verified by its name")
	}
	b.rootCertFile = config.CA
	if config.CA == "" {
		b.rootCertFile = SystemRoots
	}
	return nil
}

func (c *credsJSON) decode(config any) error {
	if len(c.Config) == 0 {
		return nil
	}
	return json.Unmarshal(c.Config, config)
}

// serverAddress turns a gRPC target into an address of Config.ControlPlanes.
func serverAddress(uri string) (string, error) {
	address := uri
	for _, scheme := range []string{"dns:///", "passthrough:///", "dns:"} {
		if rest, ok := strings.CutPrefix(uri, scheme); ok {
			address = rest
			break
		}
	}
	if reason := addressProblem(address); reason != "" {
		return "", fmt.Errorf("server_uri %q %s", uri, reason)
	}
	const grpcPort = "443" // of a target without one
	if host, port, err := splitAddress(address); !isUnix(address) && err == nil && port == "" {
		return net.JoinHostPort(host, grpcPort), nil
	}
	return address, nil
}

// node takes the bootstrap's node apart, so that each field fills only what
// stronger sources leave empty. An id in another form than Istio's is kept as
// it is.
func (raw *nodeJSON) node() Node {
	n := Node{service: raw.Cluster, Region: raw.Locality.Region, Zone: raw.Locality.Zone, SubZone: raw.Locality.SubZone}
	if !n.takeID(raw.ID) {
		n.ID = raw.ID
	}
	n.Metadata = raw.Metadata
	for key, field := range map[string]*string{
		metaNamespace: &n.Namespace, metaName: &n.Pod, metaClusterID: &n.ClusterID,
		metaServiceAccount: &n.ServiceAccount, metaNodeName: &n.NodeName,
	} {
		if text, ok := n.Metadata[key].(string); ok && text != "" {
			*field = text
		}
		delete(n.Metadata, key)
	}
	if n.Labels = textMap(n.Metadata[metaLabels]); len(n.Labels) == 0 {
		n.Labels = nil
	}
	n.lean = n.Metadata[metaGenerator] == generator
	for _, key := range []string{metaLabels, metaInstanceIPs, metaGenerator} {
		delete(n.Metadata, key)
	}
	return n
}

// takeID reads sidecar~ip~pod.namespace~namespace.svc.domain, or a domain
// alone at the end.
func (n *Node) takeID(id string) bool {
	parts := strings.Split(id, "~")
	if len(parts) != 4 || parts[0] != "sidecar" || nodeIPProblem(parts[1]) != "" {
		return false
	}
	n.IP, n.Pod, n.Domain = parts[1], parts[2], parts[3]
	if dot := strings.LastIndexByte(n.Pod, '.'); dot >= 0 {
		n.Pod, n.Namespace = n.Pod[:dot], n.Pod[dot+1:]
	}
	if namespace, domain, ok := strings.Cut(n.Domain, ".svc."); ok {
		n.Namespace, n.Domain = namespace, domain
	}
	return true
}
