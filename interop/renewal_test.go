package interop

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
)

const renewingNamespace = "renewing"

// handshakes connects to a provider without end, a new connection each time,
// and keeps account of what it is shown.
type handshakes struct {
	stop func() // ends and joins them

	mu      sync.Mutex
	serials map[string]int // by the serial number of the provider's certificate; guarded by mu
	failed  []failure      // guarded by mu
}

// shake connects with the certificate that c returns at the time.
func shake(t testing.TB, address string, c func() *certificate) *handshakes {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &handshakes{serials: map[string]int{}}
	var running sync.WaitGroup
	running.Go(func() { // ended and joined by stop
		for ctx.Err() == nil {
			serial, err := handshake(t, address, c())
			h.mu.Lock()
			if err != nil {
				h.failed = append(h.failed, failure{time.Now(), err})
			} else {
				h.serials[serial]++
			}
			h.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
		}
	})
	h.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(h.stop)
	return h
}

// handshake connects as a sidecar does, until HTTP/2 has begun, and returns the
// serial number of the certificate that it was shown.
func handshake(t testing.TB, address string, c *certificate) (string, error) {
	config := &tls.Config{
		Certificates:       []tls.Certificate{*c.pair(t)},
		InsecureSkipVerify: true, // what is shown is compared below
		NextProtos:         istioALPN,
		MinVersion:         tls.VersionTLS13,
	}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return "", err
	}
	var settings [9]byte // with TLS 1.3 a refusal of our certificate comes here
	if _, err := conn.Read(settings[:]); err != nil {
		return "", err
	}
	leaf := conn.ConnectionState().PeerCertificates[0]
	if time.Now().After(leaf.NotAfter) {
		return "", fmt.Errorf("the certificate expired at %v", leaf.NotAfter)
	}
	return leaf.SerialNumber.Text(16), nil
}

// TestRenewal has both sides renew certificates, of lives so short that one
// failure in a row can be made good and no more, ten times and more, while calls
// and handshakes go on over connections that are ever new: none fails, and the
// authority is not asked more often than needed.
func TestRenewal(t *testing.T) {
	l := suite.Lab(t)
	short := func(c *proxyless.Config) { c.Identity.Lifetime = 6 * time.Second }
	labels := map[string]string{"app": "renewed", tlsMode: "istio"}
	p := startPod(t, l, lab.WorkloadSpec{Namespace: renewingNamespace, Name: "renewed", Account: "provider", Labels: labels}, short)
	withManifest(t, l, service(renewingNamespace, "renewed", "renewed", grpcPort)+strict(renewingNamespace, "renewed")+`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: renewed, namespace: renewing}
spec: {host: renewed, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 3}}}}
`)
	catchUp(t, l)
	m := joinConsumer(t, l, renewingNamespace, as(t, l, "consumer"), short)
	client := refer(t, m, "renewed")
	ready(t, m)
	expectEncrypted(t, p, client, true)
	caller := certified(t, l, renewingNamespace, "caller")
	before, err := l.Istiod.Metric(t.Context(), "citadel_server_csr_count")
	must(t, err)
	had := m.Identity().Certificates + p.mesh.Identity().Certificates
	calls, shakes := drive(t, client), shake(t, address(p.Workload), func() *certificate { return caller })
	must(t, lab.WaitFor(within(t, 2*time.Minute), "ten renewals on each side", func(context.Context) error {
		for who, s := range map[string]proxyless.IdentityState{"consumer": m.Identity(), "provider": p.mesh.Identity()} {
			// On a busy machine an answer may take longer than the 1.5 s that one
			// has here; the next request comes in time.
			if s.Trouble != nil || s.Failures > 2 || time.Now().After(s.Expires) || s.Renewal.After(s.Expires) {
				return fmt.Errorf("%s: %+v", who, s)
			}
			if s.Certificates < 11 {
				return fmt.Errorf("%s: %d certificates", who, s.Certificates)
			}
		}
		return nil
	}))
	calls.stop()
	shakes.stop()
	calls.expectNoneLost(t, "while certificates were renewed")
	if len(shakes.failed) > 0 {
		t.Errorf("%d handshakes failed, the first: %v", len(shakes.failed), shakes.failed[0])
	}
	if len(shakes.serials) < 10 {
		t.Errorf("the provider showed %d certificates", len(shakes.serials))
	}
	consumer, provider := m.Identity(), p.mesh.Identity()
	after, err := l.Istiod.Metric(t.Context(), "citadel_server_csr_count")
	must(t, err)
	got, failed := consumer.Certificates+provider.Certificates-had, consumer.Failures+provider.Failures
	// One of each side may be on its way at either end.
	if asked := after - before; asked < float64(got)-2 || asked > float64(got+failed)+2 {
		t.Errorf("istiod was asked %v times for %d certificates, %d requests failed", asked, got, failed)
	}
	answers := 0
	for _, n := range calls.since() {
		answers += n
	}
	t.Logf("%d calls, %d handshakes with %d certificates, %v requests for %d certificates", answers, total(shakes.serials), len(shakes.serials), after-before, got)
}

func total(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// TestRenewalRefused lets a consumer's token expire: it goes on with the
// certificate that it has, says why it is not renewed, asks with pauses, and
// renews as soon as there is a token again.
func TestRenewalRefused(t *testing.T) {
	l := suite.Lab(t)
	var file, good string
	m := joinConsumer(t, l, renewingNamespace, as(t, l, "consumer"), func(c *proxyless.Config) {
		c.Identity.Lifetime = 20 * time.Second
		file, good = c.TokenFile, readFile(t, c.TokenFile)
	})
	must(t, m.WaitIdentity(within(t, 45*time.Second)))
	first := m.Identity()
	replaceFile(t, file, signed(t, l, renewingNamespace, time.Now().Add(-time.Minute), lab.IstioAudience))
	must(t, lab.WaitFor(within(t, 30*time.Second), "the trouble to be told", func(context.Context) error {
		s := m.Identity()
		if s.Failures < 2 || s.Trouble == nil || !strings.Contains(s.Trouble.Error(), "expired") {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	}))
	if s := m.Identity(); s.Serial != first.Serial || s.Failures > 20 {
		t.Errorf("state %+v, before %+v", s, first)
	}
	replaceFile(t, file, good)
	must(t, lab.WaitFor(within(t, 45*time.Second), "a new certificate", func(context.Context) error {
		if s := m.Identity(); s.Serial == first.Serial || s.Trouble != nil {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	}))
}

// TestRootRotation replaces the root of the mesh, as its operator does: both
// roots are published, the new one signs, the old one goes. Calls go on, over
// connections that are ever new, between members of which one renews often and
// the other seldom.
func TestRootRotation(t *testing.T) {
	l := suite.Lab(t)
	r := startRotation(t, l)
	serviceAccount(t, l, renewingNamespace, "caller")
	roots := tempFile(t, "root-cert.pem", string(lab.Bundle(r.roots[0]))) // the ConfigMap as a pod sees it
	of := func(lifetime time.Duration) setting {
		return func(c *proxyless.Config) {
			c.ControlPlanes, c.RootCertFile, c.Identity.Lifetime = []string{r.istiod.Secure()}, roots, lifetime
		}
	}
	labels := map[string]string{"app": "rotated", tlsMode: "istio"}
	p := startPod(t, l, lab.WorkloadSpec{Namespace: renewingNamespace, Name: "rotated", Account: "provider", Labels: labels}, of(6*time.Second))
	withManifest(t, l, service(renewingNamespace, "rotated", "rotated", grpcPort)+strict(renewingNamespace, "rotated")+`---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rotated, namespace: renewing}
spec: {host: rotated, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 3}}}}
`)
	m := joinConsumer(t, l, renewingNamespace, as(t, l, "consumer"), of(30*time.Second))
	client := refer(t, m, "rotated")
	ready(t, m)
	expectEncrypted(t, p, client, true)
	calls := drive(t, client)
	steps := []struct {
		name   string
		do     func(testing.TB)
		bundle []byte
		wait   func() error
	}{
		{"both roots are published", r.publishBoth, lab.Bundle(r.roots...), func() error { return trusting(2, m, p.mesh) }},
		{"the new root signs", r.signAnew, lab.Bundle(r.roots...), func() error { return renewedBy(r.signers[1], address(p.Workload), t, l, r) }},
		{"the old root goes", r.dropOld, lab.Bundle(r.roots[1]), func() error { return trusting(1, m, p.mesh) }},
	}
	for _, step := range steps {
		step.do(t)
		must(t, os.WriteFile(roots+".next", step.bundle, 0o600))
		must(t, os.Rename(roots+".next", roots))
		must(t, lab.WaitFor(within(t, 90*time.Second), step.name, func(context.Context) error { return step.wait() }))
		time.Sleep(time.Second) // under calls
		calls.expectNoneLost(t, "while "+step.name)
	}
}

// trusting says who does not have exactly so many roots.
func trusting(n int, meshes ...*proxyless.Mesh) error {
	for _, m := range meshes {
		if s := m.Identity(); len(s.Roots) != n || s.Trouble != nil {
			return fmt.Errorf("%s trusts %+v, trouble %w", s.ID, s.Roots, s.Trouble)
		}
	}
	return nil
}

// renewedBy says whether the provider shows a certificate of the signer.
func renewedBy(signer *lab.Authority, address string, t testing.TB, l *lab.Lab, r *rotation) error {
	token, err := l.Token(soon(t), renewingNamespace, "caller", time.Hour, lab.IstioAudience)
	if err != nil {
		return err
	}
	c, err := asked{address: r.istiod.Secure(), roots: lab.Bundle(r.roots...), token: token, seconds: 60}.ask(t, l)
	if err != nil {
		return err
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{Certificates: []tls.Certificate{*c.pair(t)}, InsecureSkipVerify: true, NextProtos: istioALPN})
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].CheckSignatureFrom(signer.Certificate)
}
