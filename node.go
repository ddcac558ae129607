package proxyless

import (
	"encoding/json"
	"maps"
	"strings"
)

// Node is who this workload is, as the control plane sees it. Join fills empty
// fields from the environment; in a pod with Istio's or Dubbo's usual
// variables and files nothing needs to be set. Several variables at a field
// are tried in order.
type Node struct {
	// ID is the whole node id. Default: Istio's form, built from the fields
	// below: sidecar~IP~Pod.Namespace~Namespace.svc.Domain.
	ID string
	// IP is the address under which others reach this process; istiod finds the
	// pod by it. INSTANCE_IP, POD_IP, ISTIO_META_INSTANCE_IPS, POD_IPS; else
	// Config.Host where it is an address; else that of a network interface.
	// DUBBO_IP_TO_REGISTRY overrides them.
	IP string
	// OtherIPs are further addresses of a pod with both families. POD_IPS.
	OtherIPs []string
	// Pod is the pod's name. POD_NAME, ISTIO_META_NAME, the token, HOSTNAME;
	// else the host's name.
	Pod string
	// Namespace is the pod's namespace, in which short names are looked up.
	// POD_NAMESPACE, WORKLOAD_NAMESPACE, ISTIO_META_NAMESPACE, the service
	// account's files, the token; else "default".
	Namespace string
	// ServiceAccount is compared by istiod with the token's where it is given.
	// SERVICE_ACCOUNT, ISTIO_META_SERVICE_ACCOUNT, the token.
	ServiceAccount string
	// ClusterID is what istiod calls this Kubernetes cluster, its CLUSTER_ID.
	// ISTIO_META_CLUSTER_ID. Default "Kubernetes".
	ClusterID string
	// Domain is the DNS suffix of the cluster. DOMAIN_SUFFIX, CLUSTER_DOMAIN.
	// Default "cluster.local".
	Domain string
	// TrustDomain begins the SPIFFE ids of the mesh. TRUST_DOMAIN. Default
	// "cluster.local".
	TrustDomain string
	// NodeName is the Kubernetes node. NODE_NAME, ISTIO_META_NODE_NAME.
	NodeName string
	// Labels are the pod's labels, by which policy selects workloads.
	// /etc/istio/pod/labels, /etc/podinfo/labels (downward API), and below them
	// ISTIO_METAJSON_LABELS.
	Labels map[string]string
	// Metadata holds further keys of the node's metadata and overrides those
	// made from the fields above. Values are what encoding/json encodes. Every
	// ISTIO_META_X adds the string X, every ISTIO_METAJSON_X the members of its
	// object, /etc/istio/pod/annotations adds ANNOTATIONS. GENERATOR follows
	// from Config.View.
	Metadata map[string]any
	// Region, Zone and SubZone say where the workload runs. The label
	// istio-locality (region/zone/subzone, or with dots), the labels
	// topology.kubernetes.io/region, .../zone and topology.istio.io/subzone.
	Region, Zone, SubZone string

	lean    bool   // Config.View is ViewLean
	service string // Node.cluster: what Envoy calls the local service; default Config.Application
}

// Keys of the node's metadata that have a field of their own (Istio's
// pkg/model.NodeMetadata).
const (
	metaGenerator      = "GENERATOR"
	metaClusterID      = "CLUSTER_ID"
	metaNamespace      = "NAMESPACE"
	metaName           = "NAME"
	metaServiceAccount = "SERVICE_ACCOUNT"
	metaNodeName       = "NODE_NAME"
	metaInstanceIPs    = "INSTANCE_IPS"
	metaLabels         = "LABELS"
	metaStaticLabels   = "STATIC_LABELS"
	metaAnnotations    = "ANNOTATIONS"
)

// generator asks istiod for the configuration of a proxyless gRPC client.
const generator = "grpc"

// nodeMessage is what an envoy.config.core.v3.Node says. The values of the
// metadata are string, bool, float64, nil, []any and map[string]any.
type nodeMessage struct {
	id, cluster           string
	metadata              map[string]any
	region, zone, subZone string
}

// message is the node as istiod is told of it.
func (n Node) message() nodeMessage {
	return nodeMessage{
		id: n.id(), cluster: n.service, metadata: n.metadata(),
		region: n.Region, zone: n.Zone, subZone: n.SubZone,
	}
}

func (n Node) id() string {
	if n.ID != "" {
		return n.ID
	}
	return strings.Join([]string{"sidecar", n.IP, n.Pod + "." + n.Namespace, n.Namespace + ".svc." + n.Domain}, "~")
}

func (n Node) metadata() map[string]any {
	m := map[string]any{}
	for key, text := range map[string]string{
		metaClusterID: n.ClusterID, metaNamespace: n.Namespace, metaName: n.Pod,
		metaServiceAccount: n.ServiceAccount, metaNodeName: n.NodeName,
		metaInstanceIPs: strings.Join(n.ips(), ","),
	} {
		if text != "" {
			m[key] = text
		}
	}
	if len(n.Labels) > 0 {
		m[metaLabels] = jsonValue(n.Labels)
	}
	for key, value := range n.Metadata {
		m[key] = jsonValue(value)
	}
	delete(m, metaGenerator)
	if n.lean {
		m[metaGenerator] = generator
	}
	return m
}

func (n Node) ips() []string {
	if n.IP == "" {
		return n.OtherIPs
	}
	return append([]string{n.IP}, n.OtherIPs...)
}

// jsonValue turns a value into the types that nodeMessage promises. What
// cannot be encoded becomes nil; Validate reports it.
func jsonValue(value any) any {
	switch v := value.(type) {
	case string, bool, float64, nil:
		return v
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil
	}
	var plain any
	if json.Unmarshal(data, &plain) != nil {
		return nil
	}
	return plain
}

// clone keeps a filled Node from sharing maps with the literal it came from.
func (n Node) clone() Node {
	n.Labels = maps.Clone(n.Labels)
	n.Metadata = maps.Clone(n.Metadata)
	return n
}
