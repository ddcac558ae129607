package proxyless

import (
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// filledNode is the Node that Join makes of a literal on such a host.
func filledNode(t *testing.T, literal Node, variables, files map[string]string) (Node, []string) {
	t.Helper()
	c, notes, err := Config{Application: "greeting", Node: literal}.withDefaults(fakeEnvironment(variables, files))
	if err != nil {
		t.Fatal(err)
	}
	return c.Node, notes
}

func TestAPodWithTheDownwardAPI(t *testing.T) {
	n, notes := filledNode(t, Node{}, map[string]string{
		"POD_NAME": "greeting-5d4f", "HOSTNAME": "other", "POD_NAMESPACE": "demo", "INSTANCE_IP": "10.1.0.7", "SERVICE_ACCOUNT": "greeting", "NODE_NAME": "worker-1",
		"ISTIO_META_CLUSTER_ID": "east", "ISTIO_META_MESH_ID": "mesh", "ISTIO_META_NETWORK": "n1", "ISTIO_META_UNPRIVILEGED_POD": "true", "ISTIO_META_POD_PORTS": `[{"containerPort":50052}]`,
		"ISTIO_METAJSON_ANNOTATIONS": `{"EXTRA": {"a": [1, true]}}`, "ISTIO_META_": "nameless", "DOMAIN_SUFFIX": "corp.local", "TRUST_DOMAIN": "corp",
	}, map[string]string{
		istioLabelsFile: "app=\"greeting\"\nversion=\"v\\\"1\\\"\"\npod-template-hash=\"5d4f\"\nistio-locality=\"eu.eu-1.rack\"\n\n", istioAnnotationFile: `team="a"`,
	})
	got := n.message()
	want := nodeMessage{
		id: "sidecar~10.1.0.7~greeting-5d4f.demo~demo.svc.corp.local", cluster: "greeting", region: "eu", zone: "eu-1", subZone: "rack",
		metadata: map[string]any{
			"CLUSTER_ID": "east", "NAMESPACE": "demo", "NAME": "greeting-5d4f", "SERVICE_ACCOUNT": "greeting", "NODE_NAME": "worker-1",
			"INSTANCE_IPS": "10.1.0.7", "MESH_ID": "mesh", "NETWORK": "n1", "UNPRIVILEGED_POD": "true", "POD_PORTS": `[{"containerPort":50052}]`,
			"EXTRA":       map[string]any{"a": []any{1.0, true}},
			"LABELS":      map[string]any{"app": "greeting", "version": `v"1"`, "istio-locality": "eu.eu-1.rack"},
			"ANNOTATIONS": map[string]any{"team": "a"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
	if n.TrustDomain != "corp" || len(notes) > 0 {
		t.Errorf("trust domain %q, notes %q", n.TrustDomain, notes)
	}
}

func TestAPodWithDubbosEnvironment(t *testing.T) {
	n, _ := filledNode(t, Node{}, map[string]string{"HOSTNAME": "pod-1", "WORKLOAD_NAMESPACE": "demo", "POD_IP": "10.1.0.7"}, nil)
	if id := n.message().id; id != "sidecar~10.1.0.7~pod-1.demo~demo.svc.cluster.local" {
		t.Error(id)
	}
	n, _ = filledNode(t, Node{}, map[string]string{"HOSTNAME": "pod-1"}, map[string]string{namespaceFile: "from-file\n"})
	if id := n.message().id; id != "sidecar~192.0.2.7~pod-1.from-file~from-file.svc.cluster.local" {
		t.Error(id)
	}
}

func TestTheTokenTellsWhoseItIs(t *testing.T) {
	token := testToken(t, map[string]any{"kubernetes.io": map[string]any{
		"namespace": "demo", "pod": map[string]any{"name": "pod-7"}, "serviceaccount": map[string]any{"name": "greeting"},
	}})
	n, _ := filledNode(t, Node{}, map[string]string{"HOSTNAME": "other"}, map[string]string{defaultTokenFile: token})
	if n.Pod != "pod-7" || n.Namespace != "demo" || n.ServiceAccount != "greeting" {
		t.Errorf("got %+v", n)
	}
}

func TestExplicitFieldsWin(t *testing.T) {
	literal := Node{
		ID: "sidecar~1.2.3.4~x.y~z", IP: "10.9.9.9", Pod: "p", Namespace: "n", ServiceAccount: "s", ClusterID: "c", Domain: "d", TrustDomain: "t", NodeName: "w",
		Labels: map[string]string{"a": "b"}, Metadata: map[string]any{"NETWORK": "mine", "WORKLOAD_NAME": "w", "CLUSTER_ID": "overridden", "N": 7, "INSTANCE_IPS": "10.9.9.8"}, Region: "r",
	}
	n, _ := filledNode(t, literal, map[string]string{
		"POD_NAME": "no", "POD_NAMESPACE": "no", "INSTANCE_IP": "no address", "SERVICE_ACCOUNT": "no", "ISTIO_META_CLUSTER_ID": "no", "DOMAIN_SUFFIX": "no", "TRUST_DOMAIN": "no",
		"NODE_NAME": "no", "ISTIO_META_NETWORK": "no", "ISTIO_META_OTHER": "yes", "ISTIO_META_INSTANCE_IPS": "10.0.0.1",
	}, map[string]string{istioLabelsFile: `app="no"`})
	want := literal
	want.service, want.lean = "greeting", false
	want.Metadata = maps.Clone(literal.Metadata)
	want.Metadata["OTHER"] = "yes"
	if !reflect.DeepEqual(n, want) {
		t.Errorf("got\n%+v\nwant\n%+v", n, want)
	}
	m := n.message()
	if m.id != literal.ID || m.metadata["CLUSTER_ID"] != "overridden" || m.metadata["N"] != 7.0 || m.metadata["INSTANCE_IPS"] != "10.9.9.8" {
		t.Errorf("message %+v", m)
	}
}

func TestAddressOfTheNode(t *testing.T) {
	for _, tt := range []struct {
		name      string
		host      string
		variables map[string]string
		want      string // INSTANCE_IPS, or part of an error
		notes     int
	}{
		{"instance before pod", "", map[string]string{"INSTANCE_IP": "10.0.0.1", "POD_IP": "10.0.0.2"}, "10.0.0.1", 0},
		{"pod", "10.0.0.9", map[string]string{"POD_IP": "10.0.0.2", "ISTIO_META_INSTANCE_IPS": "10.0.0.3"}, "10.0.0.2", 0},
		{"Istio's list", "", map[string]string{"ISTIO_META_INSTANCE_IPS": "10.0.0.3,fd00::3"}, "10.0.0.3,fd00::3", 0},
		{"both families", "", map[string]string{"POD_IP": "10.0.0.2", "POD_IPS": "10.0.0.2, fd00::2"}, "10.0.0.2,fd00::2", 0},
		{"both families alone", "", map[string]string{"POD_IPS": "fd00::2,10.0.0.2"}, "fd00::2,10.0.0.2", 0},
		{"what is listened on", "127.0.0.2", nil, "127.0.0.2", 0},
		{"not all interfaces", "0.0.0.0", nil, "192.0.2.7", 1},
		{"not a name", "localhost", nil, "192.0.2.7", 1},
		{"a wrong one", "", map[string]string{"INSTANCE_IP": "pod-1"}, `config INSTANCE_IP: "pod-1" is not an IP address; set it from the downward API`, 0},
		{"a port too many", "", map[string]string{"POD_IP": "10.0.0.1:80"}, `config POD_IP: "10.0.0.1:80" is not an IP address`, 0},
		{"nobody's", "", map[string]string{"POD_IP": "0.0.0.0"}, `"0.0.0.0" is not the address of one host`, 0},
		{"a wrong second", "", map[string]string{"ISTIO_META_INSTANCE_IPS": "10.0.0.1,x"}, `config ISTIO_META_INSTANCE_IPS: "x" is not an IP address`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, notes, err := Config{Application: "a", Host: tt.host}.withDefaults(fakeEnvironment(tt.variables, nil))
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
				return
			}
			if got := c.Node.message().metadata["INSTANCE_IPS"]; got != tt.want || len(notes) != tt.notes {
				t.Errorf("got %q with notes %q, want %q", got, notes, tt.want)
			}
		})
	}
}

func TestAHostWithoutAddresses(t *testing.T) {
	for _, tt := range []struct {
		addresses []string
		want      string
	}{
		{[]string{"::1", "127.0.0.1"}, "::1"}, {[]string{"127.0.0.1", "fe80::1%eth0"}, "fe80::1"}, {[]string{"fe80::1", "fd00::1", "224.0.0.1"}, "fd00::1"}, {nil, ""},
	} {
		env := fakeEnvironment(nil, nil)
		env.addresses = func() (found []netip.Addr, err error) {
			for _, a := range tt.addresses {
				found = append(found, netip.MustParseAddr(a))
			}
			return found, nil
		}
		c, _, err := Config{Application: "a"}.withDefaults(env)
		if c.Node.IP != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: %q, %v", tt.addresses, c.Node.IP, err)
		}
	}
	env := fakeEnvironment(nil, nil)
	env.addresses = func() ([]netip.Addr, error) { return nil, errors.New("no netlink") }
	env.hostname = func() (string, error) { return "", errors.New("no name") }
	if _, _, err := (Config{}).withDefaults(env); err == nil || !strings.Contains(err.Error(), "no netlink") || !strings.Contains(err.Error(), "Config.Application") {
		t.Errorf("%v does not name both problems", err)
	}
	if c, _, err := (Config{Application: "a", Node: Node{IP: "10.0.0.1"}}).withDefaults(env); err != nil || c.Node.Pod != "unknown" {
		t.Errorf("%+v, %v", c.Node, err)
	}
}

func TestLabelsAndLocality(t *testing.T) {
	for _, tt := range []struct {
		name      string
		variables map[string]string
		files     map[string]string
		labels    map[string]string
		locality  string
		notes     int
	}{
		{"none", nil, nil, nil, "//", 0},
		{"the documentation's path", nil, map[string]string{podInfoLabelsFile: `app="a"`}, map[string]string{"app": "a"}, "//", 0},
		{"static labels below the file's", map[string]string{"ISTIO_METAJSON_LABELS": `{"app":"static","kind":"vm"}`}, map[string]string{istioLabelsFile: `app="file"`}, map[string]string{"app": "file", "kind": "vm"}, "//", 0},
		{"labels as text", map[string]string{"ISTIO_META_LABELS": `{"app":"text"}`}, nil, map[string]string{"app": "text"}, "//", 0},
		{"labels that are no map", map[string]string{"ISTIO_META_LABELS": `app`, "ISTIO_METAJSON_LABELS": `[]`}, nil, nil, "//", 1},
		{"a broken line", nil, map[string]string{istioLabelsFile: "app=a\nkind=\"b\"\nalone"}, map[string]string{"kind": "b"}, "//", 2},
		{"Istio's locality", nil, map[string]string{istioLabelsFile: "istio-locality=\"r/z.1/s\"\ntopology.kubernetes.io/region=\"no\""}, map[string]string{"istio-locality": "r/z.1/s", "topology.kubernetes.io/region": "no"}, "r/z.1/s", 0},
		{"Kubernetes' topology", nil, map[string]string{istioLabelsFile: "topology.kubernetes.io/region=\"r\"\ntopology.kubernetes.io/zone=\"z\""}, map[string]string{"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}, "r/z/", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			variables := map[string]string{"POD_IP": "10.0.0.1"}
			maps.Copy(variables, tt.variables)
			n, notes := filledNode(t, Node{}, variables, tt.files)
			if !maps.Equal(n.Labels, tt.labels) || n.Region+"/"+n.Zone+"/"+n.SubZone != tt.locality || len(notes) != tt.notes {
				t.Errorf("labels %v, locality %s/%s/%s, notes %q", n.Labels, n.Region, n.Zone, n.SubZone, notes)
			}
			if _, isMap := n.message().metadata["LABELS"].(map[string]any); isMap != (tt.labels != nil) {
				t.Errorf("metadata %v", n.message().metadata)
			}
		})
	}
}

func TestTheGeneratorIsGRPCsInTheLeanView(t *testing.T) {
	n, notes := filledNode(t, Node{IP: "10.0.0.1"}, map[string]string{"ISTIO_META_GENERATOR": "envoy"}, nil)
	if n.message().metadata["GENERATOR"] != nil || len(notes) != 1 || !strings.Contains(notes[0], "ISTIO_META_GENERATOR=envoy") {
		t.Errorf("%v, notes %q", n.message().metadata, notes)
	}
	n, notes = filledNode(t, Node{IP: "10.0.0.1"}, map[string]string{"ISTIO_META_GENERATOR": "grpc", "ISTIO_METAJSON_X": "{"}, nil)
	if n.message().metadata["GENERATOR"] != "grpc" || len(notes) != 2 || !strings.Contains(notes[0], "ISTIO_METAJSON_X is not used") || !strings.Contains(notes[1], "the view is lean") {
		t.Errorf("%v, notes %q", n.message().metadata, notes)
	}
}

func TestMetadataIsPlainJSON(t *testing.T) {
	type point struct{ X, Y int }
	n := Node{lean: true, Metadata: map[string]any{"S": "s", "B": true, "I": 3, "P": point{1, 2}, "L": []string{"a"}, "Z": nil, "BAD": func() {}}}
	want := map[string]any{"GENERATOR": "grpc", "S": "s", "B": true, "I": 3.0, "P": map[string]any{"X": 1.0, "Y": 2.0}, "L": []any{"a"}, "Z": nil, "BAD": nil}
	if got := n.message().metadata; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}
