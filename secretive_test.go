package proxyless

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/proxyless/proxyless/meshtest"
)

// TestSecretsAreShownNowhere runs a member of a mesh that has a token, a
// certificate, a key which the mesh sent it, and calls with tokens, and reads all
// that it tells of itself.
func TestSecretsAreShownNowhere(t *testing.T) {
	authority := meshtest.NewAuthority(t)
	cp := meshtest.New(t, meshtest.WithAuthority(authority))
	root, tokenFile, err := authority.WriteFiles(t.TempDir(), "demo", "both")
	if err != nil {
		t.Fatal(err)
	}
	es := signer{"ES256", "ec", ecKey()}
	cp.SetInbound("127.0.0.1:0", meshtest.Inbound{TLS: true,
		Filters: []meshtest.HTTPFilter{meshtest.JWTFilter(meshtest.JWTRule{Issuer: "one", JWKS: jwks(es.jwk("")), Forward: true})}})
	records := new(testLog)
	records.written.L = &records.mu
	mesh, err := Join(t.Context(), Config{
		Application: "both", ControlPlanes: []string{cp.Addr()}, ControlPlaneDialOptions: cp.DialOptions(), RootCertFile: root, TokenFile: tokenFile,
		Node: Node{IP: "127.0.0.1", Pod: "both", Namespace: "demo", ServiceAccount: "both"}, Host: "127.0.0.1", Port: -1, ShutdownDelay: -1,
		QoS: QoS{Host: "127.0.0.1", Port: -1}, Logger: slog.New(slog.NewTextHandler(records, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := mesh.NewServer()
	server.RegisterService(talkDesc, &talker{name: "one"})
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.ServeListener(ctx, lis) }() // ended by the clean-up
	t.Cleanup(func() { stop(); <-served })

	// The mesh sends a key, as it never should, with the service that is called.
	const id = "spiffe://cluster.local/ns/demo/sa/both"
	pair, err := authority.Issue(id)
	if err != nil {
		t.Fatal(err)
	}
	key, err := meshtest.KeyPEM(pair)
	if err != nil {
		t.Fatal(err)
	}
	inline := func(b []byte) rawProto { return rawProto{}.text(2, string(b)) }
	tlsOf := rawProto{}.msg(2, rawProto{}.msg(1, inline(meshtest.ChainPEM(pair))).msg(2, inline(key))).msg(3, rawProto{}.msg(1, inline(authority.RootPEM())))
	socket := rawProto{}.text(1, "envoy.transport_sockets.tls").packed(3, typeUpstreamTLS, rawProto{}.msg(1, tlsOf.text(4, "istio")))
	const cluster = "outbound|50052||talk.demo.svc.cluster.local"
	cp.SetService(meshtest.Service{Name: "talk", Namespace: "demo", Address: "10.96.0.9", Ports: []meshtest.Port{{Name: "grpc", Number: 50052}},
		Endpoints: []meshtest.Endpoint{{Address: "127.0.0.1", Port: uint32(lis.Addr().(*net.TCPAddr).Port)}}})
	cp.SetResource(meshtest.ClusterType, cluster, meshtest.Cluster{Name: cluster, Raw: rawProto{}.msg(24, socket)}.Marshal())
	inv, err := mesh.Refer(talkInterface, ProvidedBy("talk"), Port(50052))
	if err != nil {
		t.Fatal(err)
	}
	within, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := mesh.WaitReady(within); err != nil {
		t.Fatal(err)
	}
	good := es.token(fmt.Sprintf(`{"iss":"one","sub":"bob","exp":%d}`, time.Now().Unix()+600))
	bad := good[:len(good)-6] + "AAAAAA"
	for token, fails := range map[string]bool{good: false, bad: true} {
		if _, err := talkSay(metadata.AppendToOutgoingContext(within, "authorization", "Bearer "+token), inv, "Say", "x"); (err != nil) != fails {
			t.Errorf("the call failed: %v", err)
		}
	}

	all := map[string]string{}
	q := "http://" + mesh.QoSAddr().String()
	for _, page := range []string{"/security", "/security/json", "/ls", "/config", "/snapshot", "/coverage", "/coverage/json",
		"/explain?service=talk&method=" + talkInterface + "/Say", "/explain?service=talk&method=" + talkInterface + "/Say&format=json", "/ready"} {
		answer, err := http.Get(q + page)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if all[page] = string(text); err != nil || len(text) == 0 || answer.StatusCode != http.StatusOK {
			t.Errorf("%s answers %d %q %v", page, answer.StatusCode, text, err)
		}
	}
	if !strings.Contains(all["/security"], id) || !strings.Contains(all["/snapshot"], cluster) {
		t.Errorf("the pages do not tell of what this test is about:\n%s\n%s", all["/security"], all["/snapshot"])
	}
	all["the log"] = records.String()
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(key)
	body := bytes.Split(key, []byte("\n"))[1]
	secrets := map[string]string{
		"the token's payload": strings.Split(string(token), ".")[1], "the token's signature": strings.Split(string(bytes.TrimSpace(token)), ".")[2],
		"the key's PEM": string(body), "a PEM key": "PRIVATE KEY", "the key": base64.StdEncoding.EncodeToString(block.Bytes)[48:88],
		"the key's PEM in base64": base64.StdEncoding.EncodeToString(key)[:80], "the key in hex": hex.EncodeToString(block.Bytes)[80:120],
		"a call's token": strings.Split(good, ".")[1], "a call's signature": strings.Split(good, ".")[2], "a bad token": strings.Split(bad, ".")[2],
	}
	for where, text := range all {
		for what, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s shows %s", where, what)
			}
		}
	}
}
