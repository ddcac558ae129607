package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/benchmarks/whitebox"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/meshtest"
)

// account is the service account of everybody in the section security.
const (
	account = "benchmark"
	ownID   = "spiffe://cluster.local/ns/" + namespace + "/sa/" + account
)

// secret is what the members of a world that speaks TLS prove themselves with.
type secret struct {
	authority           *meshtest.Authority
	rootFile, tokenFile string
}

// failing collects what NewAuthority cannot do.
type failing struct{ err error }

func (f *failing) Helper()                           {}
func (f *failing) Cleanup(func())                    {}
func (f *failing) Fatalf(format string, args ...any) { f.err = fmt.Errorf(format, args...) }

// newSecuredWorld is a world whose control plane speaks TLS and signs
// certificates, and whose servers ask for them.
func newSecuredWorld() (*world, error) {
	var f failing
	authority := meshtest.NewAuthority(&f)
	if f.err != nil {
		return nil, f.err
	}
	folder, err := os.MkdirTemp("", "proxyless-benchmarks-")
	if err != nil {
		return nil, err
	}
	w := &world{}
	w.later(func() { os.RemoveAll(folder) })
	root, token, err := authority.WriteFiles(folder, namespace, account)
	if err == nil {
		w.control, err = meshtest.Start(meshtest.WithAuthority(authority))
	}
	if err != nil {
		w.close()
		return nil, err
	}
	w.later(w.control.Close)
	w.secret = &secret{authority, root, token}
	w.control.SetInbound("127.0.0.1:0", meshtest.Inbound{TLS: true})
	return w, nil
}

// configure makes a member one that has an identity.
func (s *secret) configure(c *proxyless.Config) {
	c.PlainText, c.RootCertFile, c.TokenFile = false, s.rootFile, s.tokenFile
	c.Node.ServiceAccount = account
}

// bareTLS are the settings of both ends of bare grpc-go: the mesh's kind of
// certificate, which the peer has to show, too, and a name that crypto/tls can
// verify by itself.
func (s *secret) bareTLS() (client, server *tls.Config, err error) {
	certificate, err := s.authority.Issue(ownID, func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} })
	if err != nil {
		return nil, nil, err
	}
	roots := s.authority.Roots()
	client = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, RootCAs: roots, ServerName: "localhost"}
	server = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	return client, server, nil
}

// bareTLSPair is a bare grpc-go client of a bare grpc-go server, with TLS.
func (w *world) bareTLSPair() (grpc.ClientConnInterface, error) {
	client, server, err := w.secret.bareTLS()
	if err != nil {
		return nil, err
	}
	addr, err := w.bareServer(Greeter{}, grpc.Creds(credentials.NewTLS(server)))
	if err != nil {
		return nil, err
	}
	return w.dial("passthrough:///"+addr.String(), grpc.WithTransportCredentials(credentials.NewTLS(client)))
}

// securedService is a service whose endpoint speaks the mesh's TLS.
func securedService(name, address string, addr *net.TCPAddr) meshtest.Service {
	s, route := bareService(name, endpoint(addr))
	s.Address, s.SANs = address, []string{ownID}
	s.Endpoints[0].TLSMode = "istio"
	s.Routes = []meshtest.Route{route}
	return s
}

// security compares what TLS and authorization cost.
func security(r *report, share time.Duration) error {
	for _, part := range []func(*report, time.Duration) error{handshakes, judgments, encryptedCalls, authorizedCalls} {
		if err := part(r, share/2); err != nil {
			return err
		}
	}
	return nil
}

// handshakes compares connections from their first byte to the end of the
// handshake, both ends, over 127.0.0.1: how many there are in a second.
func handshakes(r *report, share time.Duration) error {
	w, err := newSecuredWorld()
	if err != nil {
		return err
	}
	defer w.close()
	clientTLS, serverTLS, err := w.secret.bareTLS()
	if err != nil {
		return err
	}
	bare := shaking(credentials.NewTLS(clientTLS), credentials.NewTLS(serverTLS))
	certificate, err := w.secret.authority.Issue(ownID)
	if err != nil {
		return err
	}
	client, server := whitebox.Handshakers(&certificate, w.secret.authority.Roots(), ownID)
	ours := shaking(client, server)
	a, b := allocated(50, ours), allocated(50, bare)
	s := compete(share, timed(10, ours), timed(10, bare))
	r.add(row{what: "mutual TLS handshake, both ends", ours: rate(s[0].time) + ", " + a.String(), other: rate(s[1].time) + ", " + b.String(),
		compared: "time / bare grpc-go's credentials/tls", estimate: ratio(s[0].time, s[1].time)})
	r.add(row{what: "… processor time", ours: nanoseconds(s[0].cpu), other: nanoseconds(s[1].cpu), compared: "CPU / CPU", estimate: ratio(s[0].cpu, s[1].cpu)})
	return nil
}

func rate(times []float64) string { return significant(1e9/estimateOf(times).median) + "/s" }

// shaking makes connections one after the other.
func shaking(client, server credentials.TransportCredentials) func(times int) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return func(times int) {
		for range times {
			shake(lis, client, server)
		}
	}
}

func shake(lis net.Listener, client, server credentials.TransportCredentials) {
	var wg sync.WaitGroup
	wg.Go(func() {
		raw, err := lis.Accept()
		if err != nil {
			panic(err)
		}
		conn, _, err := server.ServerHandshake(raw)
		if err != nil {
			panic(err)
		}
		conn.Close()
	})
	raw, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		panic(err)
	}
	conn, _, err := client.ClientHandshake(context.Background(), "localhost", raw)
	if err != nil {
		panic(err)
	}
	wg.Wait()
	conn.Close()
}

// encryptedCalls compares whole stacks, client and server, under mutual TLS.
func encryptedCalls(r *report, share time.Duration) error {
	w, err := newSecuredWorld()
	if err != nil {
		return err
	}
	defer w.close()
	encrypted, err := w.bareTLSPair()
	if err != nil {
		return err
	}
	addr, err := w.bareServer(Greeter{})
	if err != nil {
		return err
	}
	plain, err := w.bareClient(addr)
	if err != nil {
		return err
	}
	meshAddr, err := w.meshServer(Greeter{})
	if err != nil {
		return err
	}
	w.control.SetService(securedService("echo", "10.96.1.1", meshAddr))
	ours, err := w.meshClient("echo", 0)
	if err != nil {
		return err
	}
	headers := always(told(context.Background()))
	calls := []caller{through(encrypted, headers), through(ours, always(context.Background())), through(plain, headers)}
	var a [3]allocation
	for i := range calls {
		a[i] = allocated(500, calls[i].serial)
	}
	for _, load := range loads(10, 8*callersPerCore) {
		s := compete(share, load.contestants(calls)...)
		r.add(row{what: "unary echo under mutual TLS, " + load.name, ours: nanoseconds(s[1].time) + ", " + a[1].String(), other: nanoseconds(s[0].time) + ", " + a[0].String(),
			compared: "time / bare grpc-go with TLS", estimate: ratio(s[1].time, s[0].time)})
		r.add(row{what: "… processor time", ours: nanoseconds(s[1].cpu), other: nanoseconds(s[0].cpu), compared: "CPU / CPU", estimate: ratio(s[1].cpu, s[0].cpu)})
		r.add(row{what: "… bare grpc-go with TLS above plain text", other: nanoseconds(s[2].time), compared: "time / time", estimate: ratio(s[0].time, s[2].time)})
	}
	return nil
}

// callersPolicies are AuthorizationPolicies about a caller and a path each, of
// which the last lets the benchmark's calls in.
func callersPolicies(n int) []meshtest.AuthorizationPolicy {
	list := make([]meshtest.AuthorizationPolicy, n)
	for i := range list {
		who, path := fmt.Sprintf("cluster.local/ns/%s/sa/other-%d", namespace, i), fmt.Sprintf("/some.Service%d/Method", i)
		if i == n-1 {
			who, path = ownID[len("spiffe://"):], greetpb.GreetingService_SayHello_FullMethodName
		}
		list[i] = meshtest.AuthorizationPolicy{Namespace: namespace, Name: fmt.Sprintf("policy-%03d", i), Rules: []meshtest.AccessRule{{
			From: []meshtest.AccessSource{{Principals: []string{who}}}, To: []meshtest.AccessOperation{{Paths: []string{path}}},
		}}}
	}
	return list
}

var policyCounts = []int{1, 10, 100}

// withoutPaths leaves the callers: such policies are tried one by one, where
// those about paths are found by the path of the call.
func withoutPaths(list []meshtest.AuthorizationPolicy) []meshtest.AuthorizationPolicy {
	for i := range list {
		list[i].Rules[0].To = nil
	}
	return list
}

// judgments measures a call's way through its filters, alone.
func judgments(r *report, share time.Duration) error {
	for _, n := range policyCounts {
		r.judge(fmt.Sprintf("authorization by %d ALLOW policies about callers and paths", n), callersPolicies(n), share)
		r.judge(fmt.Sprintf("authorization by %d ALLOW policies about callers, the last matches", n), withoutPaths(callersPolicies(n)), share)
	}
	return nil
}

func (r *report) judge(what string, list []meshtest.AuthorizationPolicy, share time.Duration) {
	judge := whitebox.Judge(inboundUnder(list), ownID, greetpb.GreetingService_SayHello_FullMethodName)
	a := allocated(1000, judge)
	s := compete(share/6, timed(1000, judge))
	r.add(row{what: what, ours: nanoseconds(s[0].time), compared: "ns", estimate: estimateOf(s[0].time)})
	x := math.Round(a.objects)
	r.add(row{what: "… allocations", compared: "count", estimate: estimate{x, x, x, 3}, budget: zeroBudget})
}

// zeroBudget is a bound of none at all, since a budget of 0 is none.
const zeroBudget = 0.5

// inboundUnder is the listener of the lean view of a server under policies.
func inboundUnder(list []meshtest.AuthorizationPolicy) []byte {
	return meshtest.Inbound{TLS: true, Policies: list}.Listener("127.0.0.1:50052").Marshal()
}

// authorizedCalls compares calls under policies with those under none.
func authorizedCalls(r *report, share time.Duration) error {
	w, err := newSecuredWorld()
	if err != nil {
		return err
	}
	defer w.close()
	var calls []caller
	var a []allocation
	for i, n := range append([]int{0}, policyCounts...) {
		addr, err := w.meshServer(Greeter{})
		if err != nil {
			return err
		}
		w.control.SetInbound(addr.String(), meshtest.Inbound{TLS: true, Policies: callersPolicies(n)})
		s := securedService(fmt.Sprint("guarded-", n), fmt.Sprint("10.96.2.", i+1), addr)
		w.control.SetService(s)
		conn, err := w.meshClient(s.Name, 0)
		if err != nil {
			return fmt.Errorf("%d policies: %w", n, err)
		}
		call := through(conn, always(context.Background()))
		calls, a = append(calls, call), append(a, allocated(1000, call.serial))
	}
	for i, n := range policyCounts {
		s := compete(share/time.Duration(len(policyCounts)), timed(10, calls[0].serial), timed(10, calls[i+1].serial))
		r.add(row{what: fmt.Sprintf("call under mutual TLS with %d ALLOW policies", n), ours: nanoseconds(s[1].time) + ", " + a[i+1].String(), other: nanoseconds(s[0].time) + ", " + a[0].String(),
			compared: "time / without policy", estimate: ratio(s[1].time, s[0].time)})
		x := math.Round(a[i+1].objects-a[0].objects) + 0 // never -0
		r.add(row{what: "… allocations above", compared: "difference", estimate: estimate{x, x, x, 3}})
	}
	return nil
}
