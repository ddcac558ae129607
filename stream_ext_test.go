package proxyless_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// authority makes a root certificate and one for the given name.
func authority(t *testing.T, name string) (root []byte, server tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}
}

// token is an unsigned service account token.
func token(audience string, expiry time.Time) string {
	payload, _ := json.Marshal(map[string]any{"aud": []string{audience}, "exp": expiry.Unix(), "iss": "https://kubernetes.default.svc"})
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
}

func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheControlPlaneIsVerifiedAndToldWhoCalls(t *testing.T) {
	root, server := authority(t, "istiod.istio-system.svc")
	other, _ := authority(t, "istiod.istio-system.svc")
	good := token("istio-ca", time.Now().Add(time.Hour))
	admit := func(md metadata.MD) error {
		if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+good || len(md.Get("clusterid")) != 1 {
			return status.Error(codes.Unauthenticated, "authentication failure")
		}
		return nil
	}
	for name, test := range map[string]struct {
		root       []byte
		token      string
		serverName string
		stage      proxyless.Stage // of the call's error; empty for success
		says       string
	}{
		"all right":      {root: root, token: good, serverName: "istiod.istio-system.svc"},
		"another root":   {root: other, token: good, serverName: "istiod.istio-system.svc", stage: proxyless.StageControlPlane, says: "istio-ca-root-cert"},
		"no root":        {token: good, serverName: "istiod.istio-system.svc", stage: proxyless.StageControlPlane, says: "istio-ca-root-cert"},
		"another name":   {root: root, token: good, stage: proxyless.StageControlPlane, says: "ServerName"},
		"no token":       {root: root, serverName: "istiod.istio-system.svc", stage: proxyless.StageIdentity, says: "serviceAccountToken"},
		"its audience":   {root: root, token: token("vault", time.Now().Add(time.Hour)), serverName: "istiod.istio-system.svc", stage: proxyless.StageIdentity, says: "vault"},
		"it has expired": {root: root, token: token("istio-ca", time.Now().Add(-time.Hour)), serverName: "istiod.istio-system.svc", stage: proxyless.StageIdentity, says: "expired"},
		"an unknown one": {root: root, token: token("istio-ca", time.Now().Add(2*time.Hour)), serverName: "istiod.istio-system.svc", stage: proxyless.StageIdentity, says: "CLUSTER_ID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := meshtest.New(t, meshtest.WithTLS(&tls.Config{Certificates: []tls.Certificate{server}}), meshtest.WithAuth(admit))
			cp.SetService(echoService())
			cfg := testConfig(cp, "consumer")
			dir := t.TempDir()
			cfg.PlainText, cfg.ServerName = false, test.serverName
			cfg.RootCertFile, cfg.TokenFile = filepath.Join(dir, "root.pem"), filepath.Join(dir, "token")
			cfg.ResourceTimeout = 3 * time.Second
			if test.root != nil {
				write(t, cfg.RootCertFile, test.root)
			}
			if test.token != "" {
				write(t, cfg.TokenFile, []byte(test.token))
			}
			inv := refer(t, join(t, cfg))
			_, err := say(t.Context(), inv)
			own := problem(t, err)
			if test.stage == "" {
				if own.Stage != proxyless.StageEndpoint { // the chain is whole, and there is no endpoint
					t.Errorf("got %v", own)
				}
				return
			}
			if own.Stage != test.stage || !strings.Contains(own.Error(), test.says) || status.Code(err) != codes.Unavailable {
				t.Errorf("got %v, want stage %s with %q", own, test.stage, test.says)
			}
			if test.token != "" && strings.Contains(own.Error(), test.token) {
				t.Errorf("the error has the token in it: %v", own)
			}
			// The files are read again at each connect.
			write(t, cfg.RootCertFile, root)
			write(t, cfg.TokenFile, []byte(good))
			if test.serverName == "" {
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := cp.WaitRequest(ctx, func(meshtest.Request) bool { return true }); err != nil {
				t.Errorf("no request after the files were mended: %v", err)
			}
		})
	}
}

func TestPlainTextCarriesNoToken(t *testing.T) {
	useLeanView(t)
	cp := meshtest.New(t)
	cfg := testConfig(cp, "consumer")
	cfg.TokenFile = write(t, filepath.Join(t.TempDir(), "token"), []byte(token("istio-ca", time.Now().Add(time.Hour))))
	refer(t, join(t, cfg))
	r, err := cp.WaitRequest(t.Context(), func(r meshtest.Request) bool { return r.HasNode })
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Header.Get("authorization")) > 0 {
		t.Error("the token was sent in plain text")
	}
	if r.NodeID != "sidecar~127.0.0.1~consumer.demo~demo.svc.cluster.local" || r.Metadata["GENERATOR"] != "grpc" || r.Metadata["NAMESPACE"] != "demo" {
		t.Errorf("node %q with %v", r.NodeID, r.Metadata)
	}
}

func TestOnlyTheFirstRequestOfAStreamCarriesTheNode(t *testing.T) {
	cp := meshtest.New(t)
	cp.SetService(echoService())
	mesh := join(t, testConfig(cp, "consumer"))
	inv := refer(t, mesh)
	say(t.Context(), inv)
	cp.Disconnect()
	if _, err := cp.WaitRequest(t.Context(), func(r meshtest.Request) bool {
		return r.Stream == 2 && r.TypeURL == meshtest.ClusterLoadAssignmentType && r.Nonce != ""
	}); err != nil {
		t.Fatal(err)
	}
	first := map[int]bool{}
	for _, r := range cp.Requests() {
		if r.HasNode != !first[r.Stream] {
			t.Errorf("stream %d, request %d: node %v", r.Stream, r.Seq, r.HasNode)
		}
		first[r.Stream] = true
	}
}

// TestADeadPeerIsNoticed runs in a bubble of fake time: half a minute without
// an answer to a ping passes at once.
func TestADeadPeerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cp := meshtest.New(t, meshtest.InMemory())
		cp.SetService(echoService())
		mesh := join(t, testConfig(cp, "consumer"))
		refer(t, mesh)
		synctest.Wait()
		if n := mesh.Stats().ControlPlaneConnects; n != 1 {
			t.Fatalf("%d connects", n)
		}
		cp.Freeze()
		time.Sleep(45 * time.Second)
		cp.Thaw()
		time.Sleep(15 * time.Second)
		if n := mesh.Stats().ControlPlaneConnects; n < 2 {
			t.Errorf("%d connects after the peer was dead for 45 s", n)
		}
		mesh.Close()
	})
}

func TestAStreamThatIsSilentAboutWhatExistsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cp := meshtest.New(t, meshtest.InMemory())
		cp.SetService(echoService())
		mesh := join(t, testConfig(cp, "consumer"))
		refer(t, mesh)
		synctest.Wait()
		cp.Mute(meshtest.ListenerType, meshtest.RouteConfigurationType, meshtest.ClusterType, meshtest.ClusterLoadAssignmentType)
		cp.Disconnect()
		time.Sleep(5 * time.Second)
		if n := mesh.Stats().ControlPlaneConnects; n != 2 {
			t.Fatalf("%d connects", n)
		}
		time.Sleep(15 * time.Second)
		if n := mesh.Stats().ControlPlaneConnects; n != 3 {
			t.Errorf("%d connects after 15 s of silence", n)
		}
		cp.Unmute(meshtest.ListenerType, meshtest.RouteConfigurationType, meshtest.ClusterType, meshtest.ClusterLoadAssignmentType)
		mesh.Close()
	})
}

func TestSteadySilenceIsNormal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cp := meshtest.New(t, meshtest.InMemory())
		cp.SetService(echoService())
		mesh := join(t, testConfig(cp, "consumer"))
		refer(t, mesh)
		time.Sleep(time.Hour)
		if n := mesh.Stats().ControlPlaneConnects; n != 1 {
			t.Errorf("%d connects in a quiet hour", n)
		}
		mesh.Close()
	})
}

func TestTheDoesNotExistTimerIsFifteenSeconds(t *testing.T) {
	useLeanView(t) // in the full view the first answers say what there is not
	synctest.Test(t, func(t *testing.T) {
		cp := meshtest.New(t, meshtest.InMemory())
		mesh := join(t, testConfig(cp, "consumer"))
		inv := refer(t, mesh)
		start := time.Now()
		_, err := say(t.Context(), inv)
		if took := time.Since(start).Round(time.Second); err == nil || took != 15*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		mesh.Close()
	})
}

func TestAbsenceInTheFullViewIsTheMeshsWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cp := meshtest.New(t, meshtest.InMemory())
		mesh := join(t, testConfig(cp, "consumer"))
		inv := refer(t, mesh)
		start := time.Now()
		_, err := say(t.Context(), inv)
		if took := time.Since(start).Round(time.Second); problem(t, err).Stage != proxyless.StageListener || took > 0 {
			t.Errorf("%v after %v", err, took)
		}
		mesh.Close()
	})
}

func TestReconnectsAreSpreadAndSlowDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := []time.Duration{}
		start := time.Now()
		cp := meshtest.New(t, meshtest.InMemory(), meshtest.WithAuth(func(metadata.MD) error {
			refused = append(refused, time.Since(start))
			return fmt.Errorf("no")
		}))
		mesh := join(t, testConfig(cp, "consumer"))
		time.Sleep(5 * time.Minute)
		mesh.Close()
		if n := len(refused); n < 10 || n > 25 {
			t.Errorf("%d attempts in 5 minutes: %v", n, refused)
		}
	})
}

// endsDelta is a control plane whose first delta streams are ended with err; it
// counts them.
func endsDelta(t *testing.T, err error, most int64, streams *atomic.Int64) *meshtest.ControlPlane {
	return meshtest.New(t, meshtest.InMemory(), meshtest.WithServerOptions(grpc.StreamInterceptor(
		func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if strings.HasSuffix(info.FullMethod, "/DeltaAggregatedResources") && streams.Add(1) <= most {
				return err
			}
			return next(srv, ss)
		})))
}

// TestAReplicaThatEndsDeltaStreamsIsAskedForStateOfTheWorld says also that this
// is remembered: the method is not tried again.
func TestAReplicaThatEndsDeltaStreamsIsAskedForStateOfTheWorld(t *testing.T) {
	for name, err := range map[string]error{
		"Unimplemented": status.Error(codes.Unimplemented, "no"), "Unknown": status.Error(codes.Unknown, "no"),
		"Internal": status.Error(codes.Internal, "no"), "just ended": nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tried atomic.Int64
				cp := endsDelta(t, err, 1<<40, &tried)
				cp.SetService(echoService())
				mesh := join(t, testConfig(cp, "consumer"))
				refer(t, mesh)
				for range 3 {
					time.Sleep(time.Minute)
					synctest.Wait()
					cp.Disconnect()
				}
				if n := tried.Load(); n != 1 {
					t.Errorf("delta was tried %d times", n)
				}
				if s := mesh.Stats(); s.Responses == 0 {
					t.Errorf("%+v", s)
				}
				mesh.Close()
			})
		})
	}
}

func TestAReplicaThatIsMerelyDownIsAskedForDeltaAgain(t *testing.T) {
	for name, down := range map[string]func(*meshtest.ControlPlane){
		"its port is closed": func(cp *meshtest.ControlPlane) {
			cp.StopListening()
			time.Sleep(time.Minute)
			if err := cp.Restart(); err != nil {
				panic(err)
			}
		},
		"it is silent":            func(cp *meshtest.ControlPlane) { cp.Freeze(); time.Sleep(2 * time.Minute); cp.Thaw() },
		"it ends the stream":      func(cp *meshtest.ControlPlane) { cp.Disconnect() },
		"it refuses for a minute": func(*meshtest.ControlPlane) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var tried atomic.Int64
				most := int64(0)
				if name == "it refuses for a minute" {
					most = 5
				}
				cp := endsDelta(t, status.Error(codes.Unavailable, "starting"), most, &tried)
				cp.SetService(echoService())
				mesh := join(t, testConfig(cp, "consumer"))
				refer(t, mesh)
				synctest.Wait()
				down(cp)
				time.Sleep(3 * time.Minute)
				synctest.Wait()
				requests := cp.Requests()
				for _, r := range requests {
					if !r.Delta {
						t.Fatalf("asked for state of the world: %+v", r)
					}
				}
				if len(requests) == 0 || mesh.Stats().Responses == 0 || tried.Load() < 2 {
					t.Errorf("%d requests, %d delta streams", len(requests), tried.Load())
				}
				mesh.Close()
			})
		})
	}
}
