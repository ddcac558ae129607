package proxyless

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors is the map of the package from the ground up: a file may name
// top-level identifiers of its own floor or of lower ones. What must go up
// goes through a function value or an atomic pointer. DESIGN.md says what each
// file is for.
var floors = []struct {
	name  string
	files string
}{
	{"ground", "errors clock backoff telemetry upkeep errands notifier wire wire_types"},
	{"settings", "config audit_record defaults validate effective options properties dubbokeys load bootstrap node workload token identity_config"},
	{"model", "resource matcher trustroots certname tlscontext access rbac rbac_rule rbac_text rbac_claim strictjson jwks jws jwtclaims jwtcache jwt jwtcheck jwtheaders listener route routepolicy cluster clusterpolicy orca endpoints spiffe bundlemap"},
	{"decode", "decoding wire_address wire_ads wire_delta wire_hcm wire_lds wire_chain wire_rbac wire_rbac_rule wire_rbac_claim wire_jwt wire_jwtprovider wire_rds wire_action wire_retry wire_mirror wire_hash wire_headers wire_fault wire_match wire_cds wire_balance wire_ring wire_conn wire_socket wire_tls wire_secret wire_validation wire_eds wire_endpoint coverage coverage_table coverage_fields wire_ca wire_proxyconfig"},
	{"state", "discovery subscription entry chain sotw delta view view_derive view_route lookups snapshot coverage_report"},
	{"transport", "identity secrets handshake connectadvice clientcreds security dns session meshroots stream payload conn conntable orca_client leaf link connage peerlimit certfiles refusal csr issue renewal rootoverlap identity_files identity_roots identity_state"},
	{"choice", "clusterstate breaker verdict outlier outlier_sweep hash affinity subsetting dubbobalance balancer balancer_roundrobin endpointset tier priority locality balancer_random balancer_leastrequest balancer_quickest balancer_pickfirst slowstart balancer_reported balancer_hashed balancer_ringhash balancer_maglev picker tolerance routing planner aggregate target compile compile_route plan obstacle attempt"},
	{"call", "headers retry hedge fault streamattempt replay callstream mirror dubbocluster govern interceptors wait warm invoker"},
	{"serve", "audit frames hush plainpeers gate gateconn gatewire gatetls gatecall gateforeign peer health server serve exports dispatch qos qos_access qos_commands qos_security explain explain_chain explain_match explain_policy explain_endpoints orca_server"},
	{"door", "proxyless refer inbound doc explain_mesh qos_mesh"},
}

// owners lists every go statement of the package, by file and function. Each
// ends on Close, as the comment beside it says.
var owners = map[string]int{
	"errands.go run":         1, // copies of calls, calls made later, handing over audit records
	"conntable.go aside":     1, // closing a connection to an endpoint
	"gateconn.go leave":      1, // asking one caller to leave
	"dns.go start":           1, // the lookups of one name
	"proxyless.go Join":      3, // the ADS loop, upkeep, and the identity
	"session.go dial":        1, // a session's receiver
	"session.go converse":    1, // its sender
	"qos.go start":           1, // the QoS server
	"serve.go ServeListener": 1, // a grpc.Server's accept loop
	"serve.go stop":          1, // its graceful stop
}

func TestFloors(t *testing.T) {
	floorOf := map[string]int{}
	for i, f := range floors {
		for name := range strings.FieldsSeq(f.files) {
			floorOf[name+".go"] = i
		}
	}
	fset, files := parsePackage(t)
	for name := range files {
		if _, known := floorOf[name]; !known {
			t.Errorf("%s is on no floor: add it to floors and to DESIGN.md", name)
		}
	}
	for name := range floorOf {
		if files[name] == nil {
			t.Errorf("%s is on a floor but does not exist", name)
		}
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: emptyImporter{}, Error: func(error) {}} // imports stay empty: only the package's own names matter
	pkg, _ := config.Check("proxyless", fset, slices.Collect(maps.Values(files)), &info)
	file := func(p token.Pos) string { return filepath.Base(fset.Position(p).Filename) }
	for use, object := range info.Uses {
		if object.Parent() != pkg.Scope() {
			continue
		}
		from, to := file(use.Pos()), file(object.Pos())
		if floorOf[from] < floorOf[to] {
			t.Errorf("%s (%s) names %s of %s (%s), which is above it", from, floors[floorOf[from]].name, object.Name(), to, floors[floorOf[to]].name)
		}
	}
	if len(info.Uses) < 1000 {
		t.Errorf("only %d names were looked at", len(info.Uses))
	}
}

func TestGoroutineOwners(t *testing.T) {
	_, files := parsePackage(t)
	found := map[string]int{}
	for name, file := range files {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				ast.Inspect(f, func(n ast.Node) bool {
					if _, ok := n.(*ast.GoStmt); ok {
						found[name+" "+f.Name.Name]++
					}
					return true
				})
			}
		}
	}
	if !maps.Equal(found, owners) {
		t.Errorf("go statements are in %v, the list says %v", found, owners)
	}
}

func parsePackage(t *testing.T) (*token.FileSet, map[string]*ast.File) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset, files := token.NewFileSet(), map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if files[name], err = parser.ParseFile(fset, name, nil, parser.SkipObjectResolution); err != nil {
			t.Fatal(err)
		}
	}
	return fset, files
}

type emptyImporter struct{}

func (emptyImporter) Import(path string) (*types.Package, error) {
	pkg := types.NewPackage(path, path[strings.LastIndexByte(path, '/')+1:])
	pkg.MarkComplete()
	return pkg, nil
}

// TestDesignNamesEveryFile holds the file map of DESIGN.md to the code.
func TestDesignNamesEveryFile(t *testing.T) {
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, files := parsePackage(t)
	for name := range files {
		if !strings.Contains(string(design), "`"+name+"`") {
			t.Errorf("DESIGN.md does not name %s", name)
		}
	}
}

// TestDependencies holds the root module to the three packages it may require.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/cncf/xds/go"}
	for line := range strings.Lines(string(mod)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "replace") {
			t.Errorf("go.mod: %s", line)
		}
		path, version, ok := strings.Cut(strings.TrimPrefix(line, "require "), " ")
		if ok && strings.HasPrefix(version, "v") && !strings.HasSuffix(line, "// indirect") && !slices.Contains(allowed, path) {
			t.Errorf("go.mod requires %s", path)
		}
	}
}
