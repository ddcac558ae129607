package kubelet

import "encoding/json"

// pod and the types below are the parts of the Kubernetes API that the kubelet
// reads, under the names of that API.
type pod struct {
	Metadata metadata `json:"metadata"`
	Spec     podSpec  `json:"spec"`
}

type metadata struct {
	Name                       string            `json:"name"`
	Namespace                  string            `json:"namespace"`
	UID                        string            `json:"uid"`
	Labels                     map[string]string `json:"labels"`
	Annotations                map[string]string `json:"annotations"`
	DeletionTimestamp          string            `json:"deletionTimestamp"`
	DeletionGracePeriodSeconds *int64            `json:"deletionGracePeriodSeconds"`
}

type podSpec struct {
	NodeName           string      `json:"nodeName"`
	ServiceAccountName string      `json:"serviceAccountName"`
	InitContainers     []container `json:"initContainers"`
	Containers         []container `json:"containers"`
	Volumes            []volume    `json:"volumes"`
	RestartPolicy      string      `json:"restartPolicy"`
	HostAliases        []struct {
		IP        string   `json:"ip"`
		Hostnames []string `json:"hostnames"`
	} `json:"hostAliases"`
	SecurityContext securityContext `json:"securityContext"`
}

type securityContext struct {
	RunAsUser  *uint32 `json:"runAsUser"`
	RunAsGroup *uint32 `json:"runAsGroup"`
	FSGroup    *uint32 `json:"fsGroup"` // of the pod's only
}

type container struct {
	Name            string            `json:"name"`
	Image           string            `json:"image"`
	Command         []string          `json:"command"`
	Args            []string          `json:"args"`
	WorkingDir      string            `json:"workingDir"`
	Env             []envVar          `json:"env"`
	EnvFrom         []json.RawMessage `json:"envFrom"`
	Ports           []containerPort   `json:"ports"`
	VolumeMounts    []volumeMount     `json:"volumeMounts"`
	StartupProbe    *probe            `json:"startupProbe"`
	ReadinessProbe  *probe            `json:"readinessProbe"`
	LivenessProbe   *probe            `json:"livenessProbe"`
	Lifecycle       lifecycle         `json:"lifecycle"`
	SecurityContext securityContext   `json:"securityContext"`
}

type containerPort struct {
	Name          string `json:"name"`
	ContainerPort int    `json:"containerPort"`
}

type envVar struct {
	Name      string `json:"name"`
	Value     string `json:"value"`
	ValueFrom *struct {
		FieldRef        *fieldRef `json:"fieldRef"`
		ConfigMapKeyRef *keyRef   `json:"configMapKeyRef"`
		SecretKeyRef    *keyRef   `json:"secretKeyRef"`
	} `json:"valueFrom"`
}

type fieldRef struct {
	FieldPath string `json:"fieldPath"`
}

type keyRef struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Optional bool   `json:"optional"`
}

type volumeMount struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	SubPath   string `json:"subPath"`
}

type volume struct {
	Name string `json:"name"`
	source
	Projected *struct {
		Sources []source `json:"sources"`
	} `json:"projected"`
	EmptyDir json.RawMessage `json:"emptyDir"`
}

// source is what files of a volume are made from, alone or projected.
type source struct {
	ServiceAccountToken *tokenSource  `json:"serviceAccountToken"`
	ConfigMap           *objectSource `json:"configMap"`
	Secret              *objectSource `json:"secret"`
	DownwardAPI         *struct {
		Items []struct {
			Path     string    `json:"path"`
			FieldRef *fieldRef `json:"fieldRef"`
		} `json:"items"`
	} `json:"downwardAPI"`
}

type tokenSource struct {
	Audience          string `json:"audience"`
	ExpirationSeconds int64  `json:"expirationSeconds"`
	Path              string `json:"path"`
}

// objectSource is a ConfigMap (name) or a Secret (name or secretName).
type objectSource struct {
	Name       string `json:"name"`
	SecretName string `json:"secretName"`
	Items      []struct {
		Key  string `json:"key"`
		Path string `json:"path"`
	} `json:"items"`
	Optional bool `json:"optional"`
}

type lifecycle struct {
	PreStop *struct {
		handler
		Sleep *struct {
			Seconds int64 `json:"seconds"`
		} `json:"sleep"`
	} `json:"preStop"`
}

// handler is what a probe or a hook does.
type handler struct {
	HTTPGet   *httpGet        `json:"httpGet"`
	TCPSocket *tcpSocket      `json:"tcpSocket"`
	GRPC      *grpcCheck      `json:"grpc"`
	Exec      json.RawMessage `json:"exec"`
}

type httpGet struct {
	Path        string `json:"path"`
	Port        port   `json:"port"`
	Host        string `json:"host"`
	Scheme      string `json:"scheme"`
	HTTPHeaders []struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	} `json:"httpHeaders"`
}

type tcpSocket struct {
	Port port `json:"port"`
}

type grpcCheck struct {
	Port    int    `json:"port"`
	Service string `json:"service"`
}

// probe is a handler with its schedule, in seconds.
type probe struct {
	handler
	InitialDelaySeconds int `json:"initialDelaySeconds"`
	PeriodSeconds       int `json:"periodSeconds"`
	TimeoutSeconds      int `json:"timeoutSeconds"`
	SuccessThreshold    int `json:"successThreshold"`
	FailureThreshold    int `json:"failureThreshold"`
}

// port is a number or the name of a container port.
type port struct {
	number int
	name   string
}

// UnmarshalJSON reads the API's int-or-string.
func (p *port) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &p.name)
	}
	return json.Unmarshal(data, &p.number)
}
