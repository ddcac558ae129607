package proxyless

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Files that describe the pod: the service account's namespace, which
// Kubernetes mounts, and the downward API's, where Istio's injection and
// Kubernetes' documentation put them.
const (
	namespaceFile       = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	istioLabelsFile     = "/etc/istio/pod/labels"
	istioAnnotationFile = "/etc/istio/pod/annotations"
	podInfoLabelsFile   = "/etc/podinfo/labels"
)

const (
	istioMetaPrefix     = "ISTIO_META_"
	istioMetaJSONPrefix = "ISTIO_METAJSON_"
	defaultClusterID    = "Kubernetes"
	defaultDomain       = "cluster.local"
	defaultNamespace    = "default"
)

// fillNode fills the empty fields of Config.Node: from the environment and the
// pod's files, then from the bootstrap's node, then with defaults.
func (f *filler) fillNode() error {
	n := f.config.Node.clone()
	from := nodeSource{meta: f.istioMetadata()}
	if f.bootstrap != nil {
		from.bootstrap = f.bootstrap.node
	}
	from.claims = f.tokenClaims()
	f.fillLabels(&n, &from)
	f.fillNames(&n, &from)
	f.fillLocality(&n, &from)
	instanceIPs := commaList(from.text(metaInstanceIPs))
	n.Metadata = mergeMetadata(n.Metadata, from.meta, from.bootstrap.Metadata)
	f.fillView(from.bootstrap.lean)
	n.lean = f.config.View == ViewLean
	err := f.fillIP(&n, instanceIPs, from.bootstrap.IP)
	f.config.Node = n
	return err
}

// nodeSource is what was found about the node, besides plain variables.
type nodeSource struct {
	meta      map[string]any // ISTIO_META_* and ISTIO_METAJSON_*
	claims    tokenClaims    // zero where there is no readable token
	bootstrap Node           // zero where there is no bootstrap
}

// text takes a key that has a field of its own out of the metadata.
func (s *nodeSource) text(key string) string {
	text, _ := s.meta[key].(string)
	delete(s.meta, key)
	return text
}

// istioMetadata collects ISTIO_META_* and ISTIO_METAJSON_* as Istio's agent
// does: the former are strings whatever they look like, the latter objects
// whose members count and whose own name does not.
func (f *filler) istioMetadata() map[string]any {
	meta := map[string]any{}
	variables := slices.Sorted(slices.Values(f.env.environ()))
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		if key, ok := strings.CutPrefix(name, istioMetaPrefix); ok && key != "" {
			meta[key] = value
		}
	}
	for _, variable := range variables {
		name, value, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, istioMetaJSONPrefix) {
			f.addMetadataJSON(meta, name, value)
		}
	}
	if g, ok := meta[metaGenerator]; ok && g != generator {
		f.note("ISTIO_META_GENERATOR=%v is not used: istiod's grpc generator and its default are understood", g)
	}
	f.generator, _ = meta[metaGenerator].(string)
	delete(meta, metaGenerator)
	return meta
}

// fillView takes the view that the environment is made for: Istio injects its
// generator for gRPC clients into pods without a sidecar.
func (f *filler) fillView(bootstrapLean bool) {
	if f.config.View != ViewLean && (f.generator == generator || bootstrapLean) {
		f.config.View = ViewLean
		f.note("the view is lean, since GENERATOR is grpc in the node's metadata")
	}
}

func (f *filler) addMetadataJSON(meta map[string]any, name, value string) {
	var members map[string]any
	if err := json.Unmarshal([]byte(value), &members); err != nil {
		f.note("%s is not used: it is not a JSON object (%v)", name, err)
		return
	}
	if name == istioMetaJSONPrefix+metaLabels {
		members = map[string]any{metaStaticLabels: members}
	}
	for key, member := range members {
		meta[key] = member
	}
}

// fillLabels prefers the pod's label file to static labels.
func (f *filler) fillLabels(n *Node, from *nodeSource) {
	labels := map[string]string{}
	for _, source := range []any{from.bootstrap.Labels, from.meta[metaLabels], from.meta[metaStaticLabels], f.podLabels()} {
		for key, value := range textMap(source) {
			labels[key] = value
		}
	}
	delete(labels, "pod-template-hash") // differs between revisions of one workload; Istio leaves it out too
	delete(from.meta, metaLabels)
	if n.Labels == nil && len(labels) > 0 {
		n.Labels = labels
	}
	if annotations := f.downwardAPI(istioAnnotationFile); len(annotations) > 0 {
		from.meta[metaAnnotations] = annotations
	}
}

// textMap reads labels from a map, or from its JSON text.
func textMap(source any) map[string]string {
	switch s := source.(type) {
	case map[string]string:
		return s
	case string:
		var m map[string]string
		if json.Unmarshal([]byte(s), &m) != nil {
			return nil
		}
		return m
	case map[string]any:
		m := make(map[string]string, len(s))
		for key, value := range s {
			if text, ok := value.(string); ok {
				m[key] = text
			}
		}
		return m
	}
	return nil
}

func (f *filler) podLabels() map[string]string {
	if labels := f.downwardAPI(istioLabelsFile); len(labels) > 0 {
		return labels
	}
	return f.downwardAPI(podInfoLabelsFile)
}

// downwardAPI reads the lines key="quoted value" of a downward API volume. A
// line that is not of that form is noted and left out.
func (f *filler) downwardAPI(path string) map[string]string {
	data, err := f.env.readFile(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.note("%s cannot be read: %v", path, err)
		}
		return nil
	}
	found := map[string]string{}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimSpace(string(line))
		key, quoted, _ := strings.Cut(text, "=")
		value, err := strconv.Unquote(quoted)
		if text != "" && err != nil {
			f.note("%s:%d is not key=\"value\" and is left out", path, number)
		} else if text != "" {
			found[key] = value
		}
	}
	return found
}

func (f *filler) fillNames(n *Node, from *nodeSource) {
	env, claims, b := f.env.getenv, &from.claims.Kubernetes, &from.bootstrap
	n.Pod = cmp.Or(n.Pod, env("POD_NAME"), from.text(metaName), claims.Pod.Name, env("HOSTNAME"), b.Pod, f.hostname())
	n.Namespace = cmp.Or(n.Namespace, env("POD_NAMESPACE"), env("WORKLOAD_NAMESPACE"), from.text(metaNamespace),
		f.namespaceFromFile(), claims.Namespace, b.Namespace, defaultNamespace)
	n.ServiceAccount = cmp.Or(n.ServiceAccount, env("SERVICE_ACCOUNT"), from.text(metaServiceAccount),
		claims.ServiceAccount.Name, b.ServiceAccount)
	n.ClusterID = cmp.Or(n.ClusterID, from.text(metaClusterID), b.ClusterID, defaultClusterID)
	n.Domain = cmp.Or(n.Domain, env("DOMAIN_SUFFIX"), env("CLUSTER_DOMAIN"), b.Domain, defaultDomain)
	n.TrustDomain = cmp.Or(n.TrustDomain, env("TRUST_DOMAIN"), b.TrustDomain, defaultDomain)
	n.NodeName = cmp.Or(n.NodeName, env("NODE_NAME"), from.text(metaNodeName), b.NodeName)
	n.service = cmp.Or(n.service, b.service, f.config.Application)
}

// hostname never fails: a process without one is still somebody.
func (f *filler) hostname() string {
	name, err := f.env.hostname()
	if err != nil || name == "" {
		return "unknown"
	}
	return name
}

func (f *filler) namespaceFromFile() string {
	data, err := f.env.readFile(namespaceFile)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// tokenClaims reads what the token says about its pod, if there is a token.
func (f *filler) tokenClaims() tokenClaims {
	c := f.config
	c.TokenFile = cmp.Or(c.TokenFile, defaultTokenFile)
	token, _, err := readToken(&c, f.env.readFile)
	if err != nil {
		return tokenClaims{}
	}
	claims, _ := parseToken(token)
	return claims
}

func (f *filler) fillLocality(n *Node, from *nodeSource) {
	if n.Region != "" || n.Zone != "" || n.SubZone != "" {
		return
	}
	b := &from.bootstrap
	n.Region, n.Zone, n.SubZone = b.Region, b.Zone, b.SubZone
	if locality := n.Labels["istio-locality"]; locality != "" {
		n.Region, n.Zone, n.SubZone = splitLocality(locality)
	} else if region := n.Labels["topology.kubernetes.io/region"]; region != "" {
		n.Region = region
		n.Zone = n.Labels["topology.kubernetes.io/zone"]
		n.SubZone = n.Labels["topology.istio.io/subzone"]
	}
}

// splitLocality reads region/zone/subzone; a label value may not hold slashes,
// so that dots do instead where there is no slash.
func splitLocality(text string) (region, zone, subZone string) {
	if !strings.Contains(text, "/") {
		text = strings.ReplaceAll(text, ".", "/")
	}
	parts := append(strings.SplitN(text, "/", 3), "", "")
	return parts[0], parts[1], parts[2]
}

// mergeMetadata lets the earlier maps win.
func mergeMetadata(sources ...map[string]any) map[string]any {
	merged := map[string]any{}
	for _, source := range sources {
		for key, value := range source {
			if _, ok := merged[key]; !ok {
				merged[key] = value
			}
		}
	}
	return merged
}

// fillIP takes the first address that is named, and tells by name which one is
// wrong.
func (f *filler) fillIP(n *Node, instanceIPs []string, bootstrapIP string) error {
	if n.IP != "" {
		return nil
	}
	for _, source := range []struct {
		name string
		ips  []string
	}{
		{"INSTANCE_IP", commaList(f.env.getenv("INSTANCE_IP"))}, {"POD_IP", commaList(f.env.getenv("POD_IP"))},
		{"ISTIO_META_INSTANCE_IPS", instanceIPs}, {"POD_IPS", commaList(f.env.getenv("POD_IPS"))},
	} {
		if len(source.ips) > 0 {
			return f.setIPs(n, source.name, source.ips)
		}
	}
	if ip, err := netip.ParseAddr(f.config.Host); err == nil && !ip.IsUnspecified() {
		n.IP = f.config.Host
		return nil
	}
	if n.IP = bootstrapIP; n.IP != "" {
		return nil
	}
	return f.interfaceIP(n)
}

func (f *filler) setIPs(n *Node, source string, ips []string) error {
	for _, ip := range ips {
		if reason := nodeIPProblem(ip); reason != "" {
			return &Error{Stage: StageConfig, Resource: source, Reason: fmt.Sprintf("%q %s", ip, reason),
				Advice: "set it from the downward API (fieldRef: status.podIP), or set Config.Node.IP"}
		}
	}
	n.IP = ips[0]
	others := append(slices.Clone(ips[1:]), commaList(f.env.getenv("POD_IPS"))...)
	for _, ip := range others {
		if len(n.OtherIPs) < maxOtherIPs && nodeIPProblem(ip) == "" && !slices.Contains(n.ips(), ip) {
			n.OtherIPs = append(n.OtherIPs, ip)
		}
	}
	return nil
}

// maxOtherIPs is far above what a pod has.
const maxOtherIPs = 15

// interfaceIP prefers IPv4, and an address that others can reach.
func (f *filler) interfaceIP(n *Node) error {
	addresses, err := f.env.addresses()
	best := netip.Addr{}
	for _, ip := range addresses {
		if ipRank(ip) > ipRank(best) {
			best = ip
		}
	}
	if !best.IsValid() {
		return &Error{Stage: StageConfig, Resource: "Config.Node.IP", Reason: "is unknown, and no network interface has an address", Err: err,
			Advice: "set INSTANCE_IP or POD_IP from the downward API (fieldRef: status.podIP), or Config.Node.IP"}
	}
	n.IP = best.WithZone("").String()
	f.note("the address of this process is taken to be %s, found at a network interface; INSTANCE_IP or POD_IP would tell", n.IP)
	return nil
}

func ipRank(ip netip.Addr) int {
	switch {
	case !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast():
		return 0
	case ip.IsLoopback():
		return 1
	case ip.IsLinkLocalUnicast():
		return 2
	case ip.Is6():
		return 3
	}
	return 4
}
