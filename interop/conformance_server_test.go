package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/xds"
)

// The rows in this file are about who is let in. Each has a pod of its own, which
// the row's policies select, and in it a server of every column, each at a port
// of its own. Their callers are without the library.

// columnPorts is where the columns' servers listen.
var columnPorts = map[column]int{fullColumn: servicePort, leanColumn: servicePort + 1, rivalColumn: servicePort + 2}

// guardPorts are those of a Service of such a pod.
var guardPorts = []string{"{name: grpc-full, port: 50052}", "{name: grpc-lean, port: 50053}", "{name: grpc-rival, port: 50054}"}

// A guard is a server of a row in a column.
type guard struct {
	address string
	ready   func(context.Context) error
	audited *ledgerOfAudit                            // nil in grpc-go's column
	mode    atomic.Pointer[xds.ServingModeChangeArgs] // of grpc-go's, which does not serve where it takes exception to something
}

// unserved says that a server does not serve at all.
type unserved struct{ error }

// ledgerOfAudit keeps what a provider was told by the mesh's rules.
type ledgerOfAudit struct {
	mu      sync.Mutex
	records []proxyless.AuditRecord // guarded by mu
}

func (l *ledgerOfAudit) add(r proxyless.AuditRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
}

func (l *ledgerOfAudit) has(action string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.records, func(r proxyless.AuditRecord) bool { return r.Action == action })
}

// guardedRows are the rows with servers of their own.
func guardedRows(rows []*row) (some []*row) {
	for _, r := range rows {
		if r.serves {
			some = append(some, r)
		}
	}
	return some
}

// podLabels are those of the row's pod.
func (r *row) podLabels() map[string]string {
	return map[string]string{"app": r.name, tlsMode: "istio"}
}

// addGuardedPods makes the rows' pods, ready from the start: istiod tells a pod
// that is not ready nothing in the lean view.
func (w *world) addGuardedPods(rows []*row) {
	w.t.Helper()
	for _, r := range guardedRows(rows) {
		w.pods[r] = addPod(w.t, w.lab, lab.WorkloadSpec{Namespace: governed, Name: r.name, Labels: r.podLabels()})
	}
}

// startGuards starts the rows' servers and waits until all have been told what
// they are to do.
func (w *world) startGuards(rows []*row) {
	w.t.Helper()
	for _, r := range guardedRows(rows) {
		for _, v := range views {
			w.guards[guardKey{r, column(v)}] = w.startOurs(r, v)
		}
		w.guards[guardKey{r, rivalColumn}] = w.startRival(r)
	}
	ctx := within(w.t, 60*time.Second)
	for key, g := range w.guards {
		if err := g.ready(ctx); err != nil {
			w.t.Fatalf("the server of row %s, %v: %v", key.row.name, key.column, err)
		}
	}
}

type guardKey struct {
	row    *row
	column column
}

func (w *world) startOurs(r *row, v view) *guard {
	w.t.Helper()
	pod, audited := w.pods[r], &ledgerOfAudit{}
	p := &provider{Workload: pod}
	port := columnPorts[column(v)]
	p.export(w.t, w.lab, lab.WorkloadSpec{Namespace: governed, Name: r.name, Labels: r.podLabels()}, v.set, func(c *proxyless.Config) {
		c.Port, c.Audit = port, audited.add
	})
	return &guard{address: fmt.Sprintf("%v:%d", pod.IP, port), ready: p.mesh.WaitReady, audited: audited}
}

// startRival starts grpc-go's own xDS server, with its credentials for it.
func (w *world) startRival(r *row) *guard {
	w.t.Helper()
	pod := w.pods[r]
	transport, err := xdscreds.NewServerCredentials(xdscreds.ServerOptions{FallbackCreds: insecure.NewCredentials()})
	must(w.t, err)
	node := labelled(leanNode(pod.IP.String(), r.name, governed), r.podLabels())
	g := &guard{address: fmt.Sprintf("%v:%d", pod.IP, columnPorts[rivalColumn])}
	server, err := xds.NewGRPCServer(grpc.Creds(transport),
		xds.BootstrapContentsForTesting(rivalBootstrap(w.t, w.lab.Istiod, node, w.files)),
		xds.ServingModeCallback(func(_ net.Addr, change xds.ServingModeChangeArgs) { g.mode.Store(&change) }),
		// Paths that nothing serves meet the policies, too.
		grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error { return status.Error(codes.Unimplemented, "let in") }))
	must(w.t, err)
	greetpb.RegisterGreetingServiceServer(server, behind("rival"))
	lis, err := net.Listen("tcp", g.address)
	must(w.t, err)
	w.t.Cleanup(server.Stop)
	go server.Serve(lis) // ended by Stop
	g.ready = func(ctx context.Context) error {
		return lab.WaitFor(ctx, "grpc-go's server to be told", func(context.Context) error {
			if g.mode.Load() == nil {
				return errors.New("it is not")
			}
			return nil
		})
	}
	return g
}

// knock is one call of a server and what becomes of it.
type knock struct {
	who     string // an account with a certificate of istiod's; "stranger" has one of another authority
	path    string // default the greeting's
	headers []string
	token   func(*issuer) map[string]any // of a token that is sent; nil for none
	want    codes.Code
}

// Callers, by who they are. Without a certificate it is plain text.
const (
	alice     = "alice"
	bob       = "bob"
	stranger  = "stranger"
	plainText = ""
)

// in is a call that is let in.
func in(who string, headers ...string) knock { return knock{who: who, headers: headers} }

// out is a call that policy refuses.
func out(who string, headers ...string) knock {
	return knock{who: who, headers: headers, want: codes.PermissionDenied}
}

// cut is a call that finds no connection.
func cut(who string) knock { return knock{who: who, want: codes.Unavailable} }

func (k knock) at(path string) knock { k.path = path; return k }

// showing adds a token with changes to the claims of a good one.
func (k knock) showing(changes map[string]any) knock {
	k.token = func(i *issuer) map[string]any { return i.claims(changes) }
	return k
}

// refusedAs changes the status that the call ends with.
func (k knock) refusedAs(code codes.Code) knock { k.want = code; return k }

// letsIn makes calls of the row's server.
func letsIn(knocks ...knock) func(*scene) error {
	return func(s *scene) error {
		for _, k := range knocks {
			if err := s.knock(k); err != nil {
				return err
			}
		}
		return nil
	}
}

// recording makes calls, and has them recorded under the action.
func recording(action string, knocks ...knock) func(*scene) error {
	return func(s *scene) error {
		if err := letsIn(knocks...)(s); err != nil {
			return err
		}
		if s.guard.audited == nil {
			return unseenf("there is no record of any call")
		}
		return lab.WaitFor(within(s.world.t, 10*time.Second), "the record", func(context.Context) error {
			if !s.guard.audited.has(action) {
				return unseenf("no record of %s", action)
			}
			return nil
		})
	}
}

// knock calls once. Where a call is let in that should not be, the policy does
// not show.
func (s *scene) knock(k knock) error {
	w := s.world
	if mode := s.guard.mode.Load(); mode != nil && mode.Mode != connectivity.ServingModeServing {
		return unserved{mode.Err}
	}
	conn := w.dialAs(k.who, s.guard.address)
	defer conn.Close()
	if k.path == "" {
		k.path = sayHello
	}
	headers := k.headers
	if k.token != nil {
		headers = append(slices.Clone(headers), bearer(w.issuer.sign(w.t, "ES256", k.token(w.issuer)))...)
	}
	err := outcome(w.t, conn, k.path, headers...)
	what := strings.TrimSpace(k.who + " at " + k.path)
	switch got := status.Code(err); {
	case got == k.want:
		return nil
	case got == codes.OK:
		return unseenf("%s was let in, want %v", what, k.want)
	default:
		return fmt.Errorf("%s, want %v: %w", what, k.want, err)
	}
}

func (w *world) dialAs(who, address string) *grpc.ClientConn {
	if who == plainText {
		return dialPlain(w.t, address)
	}
	return dialTLS(w.t, address, w.callers[who], w.callers[alice].pool(), istioALPN...)
}

// nameCallers gets the certificates of the callers, and who signs tokens.
func (w *world) nameCallers() {
	w.t.Helper()
	for _, who := range []string{alice, bob} {
		w.callers[who] = certified(w.t, w.lab, governed, who)
	}
	elsewhere, err := lab.NewAuthority("elsewhere", nil)
	must(w.t, err)
	w.callers[stranger] = forged(w.t, elsewhere, "spiffe://cluster.local/ns/governed/sa/"+alice)
	w.issuer = newIssuer(w.t, "https://issuer.example")
}
