package interop

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc"
)

var (
	updateConformance = flag.Bool("update-conformance", false, "write what was observed to "+conformanceFile)
	onlyRows          = flag.String("rows", "", "conformance rows to run, a regular expression; the table is left alone")
)

// atOnce is how many rows are observed side by side: most of their time is
// waiting.
const atOnce = 16

// world is what the rows share: three backends, and one member of the mesh for
// each view.
type world struct {
	t        testing.TB
	lab      *lab.Lab
	ledger   *ledger
	backends map[string]*backend // by version
	files    string              // folder of certificates that rows name
	rivals   map[*row]*rival     // nil is shared by the rows without labels
	members  map[memberKey]*member
	pods     map[*row]*lab.Workload // of the rows that serve
	guards   map[guardKey]*guard
	callers  map[string]*certificate // of those who call them
	issuer   *issuer                 // of the callers' tokens
	breaking sync.Mutex              // held by a row that breaks connections
}

type memberKey struct {
	row  *row // nil: shared
	view view
}

// member is a consumer of the library.
type member struct{ mesh *proxyless.Mesh }

// allRows are the lines of the table in their order.
func allRows() []*row {
	var rows []*row
	for _, part := range [][]row{matchRows, routeRows, headerRows, retryRows, faultRows, balanceRows, protectionRows, tlsRows, hostRows, peerRows, authorizationRows, authenticationRows} {
		for i := range part {
			rows = append(rows, &part[i])
		}
	}
	return rows
}

// TestConformance observes, for every feature of Istio's traffic management and
// security, what becomes of it in both views of the library and in grpc-go's own xDS
// client, and holds docs/conformance.md to it.
func TestConformance(t *testing.T) {
	rows := allRows()
	if *onlyRows != "" {
		rows = chosen(t, rows, *onlyRows)
	}
	w := newWorld(t, rows)
	cells := w.observe(rows)
	for i, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for _, c := range columns() {
				cells[i][c].judge(t, r, c)
			}
		})
	}
	if *onlyRows == "" {
		holdTable(t, rows, cells)
	}
}

func chosen(t testing.TB, rows []*row, pattern string) (some []*row) {
	t.Helper()
	re, err := regexp.Compile(pattern)
	must(t, err)
	for _, r := range rows {
		if re.MatchString(r.name) || re.MatchString(r.part) {
			some = append(some, r)
		}
	}
	return some
}

// backendPods are three versions in one place, three pods in different ones, two
// of which one is not ready, and three whose connections break.
var backendPods = []lab.WorkloadSpec{
	{Name: "governed-1", Labels: map[string]string{"app": "governed", "version": "v1"}},
	{Name: "governed-2", Labels: map[string]string{"app": "governed", "version": "v2"}},
	{Name: "governed-3", Labels: map[string]string{"app": "governed", "version": "v3"}},
	{Name: "spread-1", Labels: map[string]string{"app": "spread", "version": "near"}},
	{Name: "spread-2", Labels: map[string]string{"app": "spread", "version": "zone"}, Node: "other-zone"},
	{Name: "spread-3", Labels: map[string]string{"app": "spread", "version": "far"}, Node: "other-region"},
	{Name: "ailing-1", Labels: map[string]string{"app": "ailing", "version": "well"}},
	{Name: "ailing-2", Labels: map[string]string{"app": "ailing", "version": "ill"}, NotReady: true},
	{Name: "fragile-1", Labels: map[string]string{"app": "fragile", "version": "v1"}},
	{Name: "fragile-2", Labels: map[string]string{"app": "fragile", "version": "v2"}},
	{Name: "fragile-3", Labels: map[string]string{"app": "fragile", "version": "v3"}},
	{Name: "sealed-1", Labels: map[string]string{"app": sealedAccount, "version": "sealed", tlsMode: "istio"}, Account: sealedAccount},
	{Name: "consumer", Labels: map[string]string{"app": "consumer", "version": "consumer"}},
}

func newWorld(t testing.TB, rows []*row) *world {
	t.Helper()
	w := &world{
		t: t, lab: suite.Lab(t),
		ledger:   &ledger{visits: map[string][]seen{}},
		backends: map[string]*backend{},
		members:  map[memberKey]*member{},
		rivals:   map[*row]*rival{},
		pods:     map[*row]*lab.Workload{},
		guards:   map[guardKey]*guard{},
		callers:  map[string]*certificate{},
	}
	ctx := soon(t)
	must(t, w.lab.AddNode(ctx, "other-zone", locality("region-1", "zone-2")))
	must(t, w.lab.AddNode(ctx, "other-region", locality("region-2", "zone-1")))
	serviceAccount(t, w.lab, governed, sealedAccount)
	for _, spec := range backendPods {
		spec.Namespace = governed
		b := startBackend(t, w.lab, w.ledger, spec)
		if w.backends[b.name] == nil {
			w.backends[b.name] = b
		}
	}
	w.files = sealedFiles(t, w.lab)
	w.backends["nobody"] = w.deaf()
	w.nameBackends()
	w.nameCallers()
	w.addGuardedPods(rows)
	w.apply(rows)
	w.settle()
	w.startGuards(rows)
	w.rivals[nil] = newRival(t, w.lab.Istiod, nil, w.files)
	for _, v := range views {
		w.members[memberKey{nil, v}] = &member{joinConsumer(t, w.lab, governed, v.set)}
	}
	for _, r := range rows {
		if special(r) == nil {
			continue
		}
		istiod := w.istiodOf(r)
		w.rivals[r] = newRival(t, istiod, r.labels, w.files)
		for _, v := range views {
			labelled := func(c *proxyless.Config) {
				c.ControlPlanes, c.Node.Pod, c.Node.Labels = []string{istiod.Secure()}, r.name, r.labels
			}
			w.members[memberKey{r, v}] = &member{joinConsumer(t, w.lab, governed, v.set, labelled)}
		}
	}
	return w
}

func locality(region, zone string) map[string]string {
	return map[string]string{"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
}

// nameBackends gives the backends names outside the mesh, for the test process
// and all that is in it.
func (w *world) nameBackends() {
	names := readFile(w.t, "/etc/hosts")
	for version, b := range w.backends {
		names += fmt.Sprintf("%s %s.backends.test %s.wild.test %s.outside.test\n", b.IP, version, version, version)
	}
	must(w.t, os.WriteFile("/etc/hosts", []byte(names), 0o644))
}

// apply applies what all rows need, in one go.
func (w *world) apply(rows []*row) {
	w.t.Helper()
	var all strings.Builder
	for _, r := range rows {
		all.WriteString(w.manifest(r))
	}
	withManifest(w.t, w.lab, all.String())
}

// manifest is the row's YAML with its Service.
func (w *world) manifest(r *row) string {
	names := []string{"HOST", r.name, "NAMESPACE", governed, "FILES", w.files, "JWKS", w.issuer.jwks(w.t)}
	for version, b := range w.backends {
		names = append(names, "IP_"+version, b.IP.String())
	}
	text := ""
	switch {
	case r.serves:
		text = service(governed, r.name, r.name, guardPorts...)
	case !r.bare:
		app := "governed"
		switch {
		case r.breaks:
			app = "fragile"
		case strings.HasPrefix(r.name, "tls-"):
			app = sealedAccount
		}
		text = service(governed, r.name, app, grpcPort)
	}
	return text + strings.NewReplacer(names...).Replace(r.yaml)
}

// observe runs every row in every column.
func (w *world) observe(rows []*row) []map[column]*cell {
	cells := make([]map[column]*cell, len(rows))
	var running sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	run := func(look func()) {
		slots <- struct{}{}
		running.Go(func() { // joined below
			defer func() { <-slots }()
			look()
		})
	}
	for i, r := range rows {
		cells[i] = map[column]*cell{}
		for _, c := range columns() {
			cells[i][c] = &cell{}
		}
		if r.alone {
			run(func() {
				for _, c := range columns() {
					cells[i][c].observe(w, r, c)
				}
			})
			continue
		}
		for _, c := range columns() {
			got := cells[i][c]
			run(func() { got.observe(w, r, c) })
		}
	}
	running.Wait()
	return cells
}

// scene makes the client of a row in a column.
func (w *world) scene(r *row, c column) (*scene, error) {
	s := &scene{row: r, world: w, guard: w.guards[guardKey{r, c}]}
	if r.serves {
		return s, nil
	}
	if c == rivalColumn {
		conn, err := w.rivals[special(r)].dial(r)
		s.conn = conn
		return s, err
	}
	s.ours = w.members[memberKey{special(r), c.view()}]
	inv, err := s.ours.mesh.Refer(echo, proxyless.ProvidedBy(r.target()), proxyless.Port(r.targetPort()))
	s.conn = inv
	return s, err
}

// special returns the row where it has members of its own, else nil.
func special(r *row) *row {
	if r.labels == nil && r.istiod == nil {
		return nil
	}
	return r
}

// istiodOf is the one that a row's members ask.
func (w *world) istiodOf(r *row) *lab.Istiod {
	if r.istiod == nil {
		return w.lab.Istiod
	}
	i, err := w.lab.AddIstiod(within(w.t, 30*time.Second), r.istiod...)
	must(w.t, err)
	w.t.Cleanup(i.Kill)
	return i
}

// settle waits until istiod knows what was applied last, of each kind.
func (w *world) settle() {
	w.t.Helper()
	const policies = "app: governed, version: v3"
	last := row{name: "settled", yaml: virtual("- name: the-end\n  route: ["+dest("v3")+"]") + rule("connectionPool: {http: {http2MaxRequests: 4242}}") +
		strings.ReplaceAll(peerYAML("mtls: {mode: STRICT}")+denyYAML("{}")+tokenYAML(""), "app: HOST", policies)}
	withManifest(w.t, w.lab, w.manifest(&last))
	cluster, pod := "outbound|50052|v3|"+last.target(), w.backends["v3"]
	ip, labels := pod.IP.String(), map[string]string{"app": "governed", "version": "v3"}
	consumer := func() *corev3.Node { return leanNode(consumerIP, "consumer", governed) }
	provider := func() *corev3.Node { return labelled(leanNode(ip, "governed-3", governed), labels) }
	signs := []struct {
		node          func() *corev3.Node
		typeURL, name string
		sign          string
	}{
		{consumer, routeType, "outbound|50052||" + last.target(), "the-end"},
		{consumer, clusterType, cluster, "\x92\x21"}, // 4242
		{consumer, endpointType, cluster, ip},
		{provider, listenerType, "xds.istio.io/grpc/lds/inbound/" + ip + ":50052", "governed-settled-0"},
		{provider, listenerType, "xds.istio.io/grpc/lds/inbound/" + ip + ":50052", "DownstreamTlsContext"},
		{func() *corev3.Node { return fullNode(ip, "governed-3", governed, labels) }, listenerType, "", "issuer.example"},
	}
	must(w.t, lab.WaitFor(within(w.t, 60*time.Second), "istiod to know all rows", func(context.Context) error {
		for _, s := range signs {
			a := openADS(w.t, w.lab.Istiod.Plain(), credential{}, s.node()).ask(w.t, s.typeURL, strings.Fields(s.name)...)
			if a == nil || a.err != nil || !bytes.Contains(a.raw, []byte(s.sign)) {
				return fmt.Errorf("%q is not in the answer for %s", s.sign, s.name)
			}
		}
		return nil
	}))
}

var _ grpc.ClientConnInterface = (*proxyless.Invoker)(nil)
