package interop

import (
	"encoding/json"
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/xds"
	"google.golang.org/protobuf/encoding/protojson"
)

// rival is grpc-go's own xDS client, in the lean view, which is the one that
// Istio has for it, with the files of Istio's agent.
type rival struct {
	t        testing.TB
	resolver resolver.Builder
}

func newRival(t testing.TB, istiod *lab.Istiod, labels map[string]string, files string) *rival {
	t.Helper()
	bootstrap := rivalBootstrap(t, istiod, labelled(leanNode(consumerIP, "rival", governed), labels), files)
	builder, err := xds.NewXDSResolverWithConfigForTesting(bootstrap)
	must(t, err)
	return &rival{t, builder}
}

// rivalBootstrap is the file that Istio's agent writes for grpc-go.
func rivalBootstrap(t testing.TB, istiod *lab.Istiod, node *corev3.Node, files string) []byte {
	t.Helper()
	who, err := protojson.Marshal(node)
	must(t, err)
	bootstrap, err := json.Marshal(map[string]any{
		"xds_servers": []any{map[string]any{
			"server_uri":      istiod.Plain(),
			"channel_creds":   []any{map[string]any{"type": "insecure"}},
			"server_features": []any{"xds_v3"},
		}},
		"node":                                   json.RawMessage(who),
		"server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
		"certificate_providers": map[string]any{"default": map[string]any{
			"plugin_name": "file_watcher",
			"config": map[string]any{
				"certificate_file": files + "/own.pem", "private_key_file": files + "/own-key.pem", "ca_certificate_file": files + "/root.pem",
			},
		}},
	})
	must(t, err)
	return bootstrap
}

func (r *rival) dial(row *row) (grpc.ClientConnInterface, error) {
	transport, err := xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(fmt.Sprintf("xds:///%s:%d", row.target(), row.targetPort()),
		grpc.WithResolvers(r.resolver), grpc.WithTransportCredentials(transport))
	if err == nil {
		r.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}
