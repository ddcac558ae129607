package proxyless_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// named is the roots that only the mesh's configuration names.
func named(m *proxyless.Mesh) (n int) {
	for _, root := range m.Identity().Roots {
		if root.Named {
			n++
		}
	}
	return n
}

func askedForRoots(q meshtest.Request) bool { return q.TypeURL == meshtest.ProxyConfigType }

// TestRootsThatTheMeshNames: a provider of another trust domain, whose certificate
// another authority signed, is called while the mesh names its root, and neither
// before nor after, whatever the view and the protocol.
func TestRootsThatTheMeshNames(t *testing.T) {
	const stranger = "spiffe://elsewhere.example/ns/demo/sa/alice"
	for name, options := range map[string][]meshtest.Option{"delta": nil, "state of the world": {meshtest.WithoutDelta()}, "lean": nil} {
		t.Run(name, func(t *testing.T) {
			if name == "lean" {
				useLeanView(t)
			}
			ca, elsewhere := meshtest.NewAuthority(t), meshtest.NewAuthority(t)
			provider := serveTLS(t, ca, "it", issue(t, elsewhere, stranger))
			s := clusterIP(echoService(provider.endpoint), stranger)
			s.Traffic = &meshtest.TrafficPolicy{TLS: &meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}}
			x := beginSecuredAt(t, ca, s, options)
			_, err := say(t.Context(), x.inv)
			if own := problem(t, err); !strings.Contains(own.Error(), "is not trusted") {
				t.Fatalf("before: %v", err)
			}
			x.cp.SetMeshRoots(ca.RootPEM(), elsewhere.RootPEM())
			waitUntil(t, "it is not called, though the mesh names its root", func() bool {
				_, err := say(t.Context(), x.inv)
				return err == nil
			})
			if n, all := named(x.mesh), len(x.mesh.Identity().Roots); n != 1 || all != 2 {
				t.Errorf("%d of %d roots are named", n, all)
			}
			x.cp.SetMeshRoots([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
			nack, err := x.cp.WaitRequest(t.Context(), func(q meshtest.Request) bool { return askedForRoots(q) && q.NACK })
			if err != nil || !strings.Contains(nack.ErrorDetail, "ca_certificates_pem[0]: ") || named(x.mesh) != 1 {
				t.Errorf("%d roots named, %q, %v", named(x.mesh), nack.ErrorDetail, err)
			}
			x.cp.Disconnect() // loses nothing, and asks again
			x.cp.SetMeshRoots(ca.RootPEM())
			waitUntil(t, "the root that the mesh names no more is trusted", func() bool { return named(x.mesh) == 0 })
			again := join(t, x.mesh.Config())
			_, err = say(t.Context(), refer(t, again, proxyless.Port(testPort)))
			if own := problem(t, err); !strings.Contains(own.Error(), "is not trusted") {
				t.Errorf("after: %v", err)
			}
			if err := x.cp.WaitSettled(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, q := range x.cp.Requests() {
				if askedForRoots(q) && (len(q.Names) > 0 || q.HasNode) {
					t.Errorf("asked so: %+v", q)
				}
			}
		})
	}
}

// TestWhoIsNotAskedForRoots: those who are spoken to in plain text, and nobody
// where the settings say so, or where nothing would be verified with them.
func TestWhoIsNotAskedForRoots(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	for name, change := range map[string]func(*proxyless.Config){
		"nobody asks":    func(c *proxyless.Config) { c.Identity.NoMeshRoots = true },
		"no certificate": func(c *proxyless.Config) { c.Identity.Disabled = true },
	} {
		t.Run(name, func(t *testing.T) {
			x := beginSecuredAt(t, ca, echoService(serveTLS(t, ca, "it", nil).endpoint), nil, change)
			x.cp.SetMeshRoots(ca.RootPEM())
			if _, err := say(t.Context(), x.inv); err != nil {
				t.Fatal(err)
			}
			for _, q := range x.cp.Requests() {
				if askedForRoots(q) {
					t.Errorf("asked so: %+v", q)
				}
			}
		})
	}
}

// strict ends a stream on which it is asked for a type that it does not know, as
// control planes do that are no istiod.
type strict struct{ grpc.ServerStream }

func (s strict) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if raw, ok := m.(*[]byte); err == nil && ok && bytes.Contains(*raw, []byte(meshtest.ProxyConfigType)) {
		return status.Error(codes.Unknown, "no such type")
	}
	return err
}

// TestAControlPlaneThatKnowsNoRoots is asked twice, and then used as it is.
func TestAControlPlaneThatKnowsNoRoots(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	refusing := meshtest.WithServerOptions(grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		return next(srv, strict{ss})
	}))
	x := beginSecuredAt(t, ca, clusterIP(echoService(serveTLS(t, ca, "it", issue(t, ca, aliceID)).endpoint), aliceID), []meshtest.Option{refusing})
	if _, err := say(t.Context(), x.inv); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	third := func(q meshtest.Request) bool {
		return q.Stream == 3 && q.TypeURL == meshtest.ClusterType && q.Nonce != ""
	}
	if _, err := x.cp.WaitRequest(ctx, third); err != nil {
		t.Fatal(err)
	}
	if err := x.cp.WaitSettled(ctx); err != nil {
		t.Fatal(err)
	}
	if n := x.mesh.Stats().ControlPlaneConnects; n != 3 {
		t.Errorf("%d streams", n)
	}
}
