package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/proxyless/proxyless/interop/kubeapi"
	"golang.org/x/sync/errgroup"
)

// Where the Kubernetes components listen. The network namespace is the lab's
// own, so no port is ever taken.
const (
	etcdURL      = "http://127.0.0.1:2379"
	etcdPeerURL  = "http://127.0.0.1:2380"
	apiPort      = "6443"
	apiURL       = "https://127.0.0.1:" + apiPort
	adminToken   = "lab-admin"
	tokenIssuer  = "https://kubernetes.default.svc"
	serviceRange = "10.96.0.0/16"
)

// controllers are those that a manifest's user relies on.
var controllers = []string{
	"deployment-controller",
	"replicaset-controller",
	"endpoints-controller",
	"endpointslice-controller",
	"endpointslice-mirroring-controller",
	"serviceaccount-controller",
	"namespace-controller",
	"garbage-collector-controller",
	"root-ca-certificate-publisher-controller",
}

func (l *Lab) startEtcd() error {
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		return err
	}
	_, err = l.spawn("etcd", nil, etcd,
		"--data-dir", filepath.Join(l.data, "etcd"),
		"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL,
		"--listen-peer-urls", etcdPeerURL, "--initial-advertise-peer-urls", etcdPeerURL,
		"--initial-cluster", "default="+etcdPeerURL)
	return err
}

func (l *Lab) startAPIServer(ctx context.Context) error {
	tokens := filepath.Join(l.data, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(adminToken+`,admin,admin,"system:masters"`+"\n"), 0o600); err != nil {
		return err
	}
	p, err := l.spawn("kube-apiserver", nil, filepath.Join(l.binaries, "kube-apiserver"),
		"--etcd-servers", etcdURL,
		"--bind-address", "0.0.0.0", "--secure-port", apiPort, "--advertise-address", Gateway.String(),
		"--cert-dir", filepath.Join(l.data, "certs"), "--tls-cert-file", l.keys.cert, "--tls-private-key-file", l.keys.key,
		"--service-account-issuer", tokenIssuer, "--api-audiences", strings.Join(l.options.APIAudiences, ","),
		"--service-account-key-file", l.keys.accountsPublic, "--service-account-signing-key-file", l.keys.accountsPrivate,
		"--token-auth-file", tokens, "--authorization-mode", "RBAC",
		"--service-cluster-ip-range", serviceRange)
	if err != nil {
		return err
	}
	return p.ready(ctx, func(ctx context.Context) error {
		return l.API.Do(ctx, http.MethodGet, "/readyz", "", nil, nil)
	})
}

func (l *Lab) startControllers() error {
	_, err := l.spawn("kube-controller-manager", nil, filepath.Join(l.binaries, "kube-controller-manager"),
		"--kubeconfig", l.kubeconfig,
		"--service-account-private-key-file", l.keys.accountsPrivate, "--root-ca-file", l.keys.root,
		"--controllers", strings.Join(controllers, ","),
		"--leader-elect=false", "--bind-address", "127.0.0.1", "--secure-port", "10257")
	return err
}

// applyCRDs defines the resources of Istio and of the Gateway API.
func (l *Lab) applyCRDs(ctx context.Context) error {
	var group errgroup.Group
	group.SetLimit(4)
	for _, f := range crdFiles {
		data, err := os.ReadFile(filepath.Join(l.binaries, f.name()))
		if err != nil {
			return err
		}
		definitions, err := kubeapi.Parse(data)
		if err != nil {
			return err
		}
		for _, definition := range definitions {
			group.Go(func() error { return l.API.ApplyObject(ctx, definition) })
		}
	}
	return group.Wait()
}

// writeKubeconfig writes the administrator's kubeconfig; JSON is YAML too.
func (l *Lab) writeKubeconfig() error {
	named := func(name, key string, value any) []any {
		return []any{map[string]any{"name": name, key: value}}
	}
	config := map[string]any{
		"apiVersion":      "v1",
		"kind":            "Config",
		"clusters":        named("lab", "cluster", map[string]any{"server": apiURL, "certificate-authority-data": l.keys.rootPEM}),
		"users":           named("admin", "user", map[string]any{"token": adminToken}),
		"contexts":        named("lab", "context", map[string]any{"cluster": "lab", "user": "admin"}),
		"current-context": "lab",
	}
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(l.kubeconfig, data, 0o600)
}

// httpReady is a check that url answers 200.
func httpReady(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		return nil
	}
}
