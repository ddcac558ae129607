package proxyless

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// istiodPolicies are what a real istiod made of AuthorizationPolicies, a file
// for each; testdata/access/README.md has the policies.
func istiodPolicies(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "access", "*.binpb"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	policies := map[string][]byte{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		policies[strings.TrimSuffix(filepath.Base(file), ".binpb")] = raw
	}
	return policies
}

// policedCalls are calls of many kinds; what is not said is as in the first.
var policedCalls = map[string]func(*callFacts){
	"caller":        func(*callFacts) {},
	"plain":         func(c *callFacts) { c.peer = &peerFacts{remote: c.peer.remote, local: c.peer.local} },
	"trusted":       policedName("spiffe://cluster.local/ns/trusted/sa/x"),
	"bad":           policedName("spiffe://cluster.local/ns/bad/sa/bad"),
	"sec/x":         policedName("spiffe://cluster.local/ns/sec/sa/x"),
	"sec/y":         policedName("spiffe://cluster.local/ns/sec/sa/y"),
	"sec/exact":     policedName("spiffe://cluster.local/ns/sec/sa/exact"),
	"other.domain":  policedName("spiffe://other.domain/ns/sec/sa/exact"),
	"default/web":   policedName("spiffe://cluster.local/ns/default/sa/web"),
	"/b/c":          policedPath("/b/c"),
	"/c":            policedPath("/c"),
	"/exact":        policedPath("/exact"),
	"/custom/x":     policedPath("/custom/x"),
	"/admin/x":      policedPath("/admin/x"),
	"/%61dmin/x":    policedPath("/%61dmin/x"),
	"/dry/x":        policedPath("/dry/x"),
	"/audited/x":    policedPath("/audited/x"),
	"/s/Secret":     policedPath("/s/Secret"),
	"/a/1/b":        policedPath("/a/1/b"),
	"/a/1/2/b":      policedPath("/a/1/2/b"),
	"/c/1/2":        policedPath("/c/1/2"),
	"/d/1/2/e":      policedPath("/d/1/2/e"),
	"/x/1":          policedPath("/x/1"),
	"host A":        func(c *callFacts) { c.headers.authority = "A.EXAMPLE.com" },
	"host b":        func(c *callFacts) { c.headers.authority = "b.example.com" },
	"host else":     func(c *callFacts) { c.headers.authority = "example.org" },
	"x-a: b":        policedHeader("x-a", "b"),
	"x-user: exact": policedHeader("x-user", "exact"),
	"x-user: pre-1": policedHeader("x-user", "pre-1"),
	"ip 1.2.3.4":    policedAddress("1.2.3.4"),
	"ip 10.0.0.1":   policedAddress("10.0.0.1"),
	"ip v6":         policedAddress("2001:db8::7"),
	"xff 10.1.9.9":  policedHeader("x-forwarded-for", "10.1.9.9"),
	"xff 10.2.9.9":  policedHeader("x-forwarded-for", "192.0.2.1, 10.2.9.9"),
	"to 10.0.0.9":   func(c *callFacts) { c.peer.local = netip.MustParseAddrPort("10.0.0.9:50052") },
	"sni www":       func(c *callFacts) { c.peer.serverName = "www.example.com" },
	"token":         policedToken(map[string]any{"iss": "https://issuer.example", "sub": "sub-1"}),
	"token sub-9":   policedToken(map[string]any{"iss": "https://issuer.example", "sub": "sub-9"}),
	"token bad":     policedToken(map[string]any{"iss": "https://bad", "sub": "sub-1"}),
	"token admin": policedToken(map[string]any{"iss": "https://issuer.example", "sub": "sub-1", "aud": []any{"aud-1"}, "azp": "azp-1",
		"groups": []any{"admin", "team-1"}, "realm": map[string]any{"roles": []any{"deep"}}, "nested": map[string]any{"key": "deep"}}),
	"token of all": policedToken(map[string]any{"iss": "https://issuer.example", "sub": "sub", "aud": []any{"aud-1"}, "azp": "azp-1",
		"groups": []any{"admin", "team-1"}, "realm": map[string]any{"roles": []any{"deep"}}}),
	"token of all, bad": policedToken(map[string]any{"iss": "https://issuer.example", "sub": "sub", "aud": []any{"aud-1"}, "azp": "azp-1",
		"groups": []any{"admin", "bad"}, "realm": map[string]any{"roles": []any{"deep"}}}),
	"sec/x, all": func(c *callFacts) {
		policedName("spiffe://cluster.local/ns/sec/sa/x")(c)
		policedHeader("x-user", "ann")(c)
		c.peer.serverName = "a.example.com"
	},
	"sec/x, all but one": func(c *callFacts) {
		policedName("spiffe://cluster.local/ns/sec/sa/x")(c)
		policedHeader("x-user", "no")(c)
		c.peer.serverName = "a.example.com"
	},
	"ip 10.244.9.1, xff": func(c *callFacts) {
		policedAddress("10.244.9.1")(c)
		policedHeader("x-forwarded-for", "192.0.2.1")(c)
	},
	"ip 192.0.2.1": policedAddress("192.0.2.1"),
	"token team": policedToken(map[string]any{"iss": "https://issuer.example", "sub": "sub-1", "aud": "aud-1", "azp": "azp-1",
		"groups": "team-1", "realm": map[string]any{"roles": "deep"}}),
}

func policedName(name string) func(*callFacts) {
	return func(c *callFacts) { c.peer.names = []string{name} }
}

func policedPath(path string) func(*callFacts) {
	return func(c *callFacts) { c.headers.path = path }
}

func policedHeader(name, value string) func(*callFacts) {
	return func(c *callFacts) { c.headers.md[name] = []string{value} }
}

func policedAddress(ip string) func(*callFacts) {
	return func(c *callFacts) { c.peer.remote = netip.AddrPortFrom(netip.MustParseAddr(ip), 40000) }
}

func policedToken(payload map[string]any) func(*callFacts) {
	return func(c *callFacts) { c.claims = &tokenClaimSet{entries: []tokenEntry{{key: "payload", value: payload}}} }
}

func policedCall(name string, port uint16) *callFacts {
	c := &callFacts{
		peer: &peerFacts{remote: netip.MustParseAddrPort("10.244.0.5:40000"), local: netip.AddrPortFrom(netip.MustParseAddr("10.244.0.9"), port),
			encrypted: true, verified: true, serverName: "outbound_.50052_._.orders", names: []string{"spiffe://cluster.local/ns/sec/sa/caller"}},
		headers: incomingHeaders(metadata.MD{":authority": {"a.example.com"}}, "/a"),
	}
	policedCalls[name](c)
	c.peer.local = netip.AddrPortFrom(c.peer.local.Addr(), port)
	return c
}

// judgedBy is the ruling of a chain's access filters alone, so that no token
// has to be made.
func judgedBy(c *filterChain, call *callFacts) ruling {
	for _, f := range c.filters {
		if f.access == nil {
			continue
		}
		if r := f.access.check(call); r.code != codes.OK {
			return r
		}
	}
	return ruling{}
}

// TestIstiodPolicies holds what becomes of all these calls under each policy
// against testdata/access/*.golden; -update writes it anew. A line lists the
// calls that fare alike.
func TestIstiodPolicies(t *testing.T) {
	for name, raw := range istiodPolicies(t) {
		t.Run(name, func(t *testing.T) {
			response, err := decodeADSResponse(raw)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for i, r := range response.resources {
				got, err := decodeResource(kindListener, r.value)
				if err != nil {
					t.Fatal(err)
				}
				l := got.value.(*listener)
				for j := range l.inbound {
					port := l.inbound[j].match.port
					if port == 0 {
						port = [...]uint16{0, 50052, 7000}[i]
					}
					fmt.Fprintf(&b, "%s view, port %d\n%s", [...]string{"full", "lean", "lean"}[i], port, fates(&l.inbound[j], port))
				}
				for _, path := range got.ignored {
					fmt.Fprintf(&b, "  ignored %s\n", path)
				}
			}
			compareGolden(t, filepath.Join("testdata", "access", name+".golden"), b.String())
		})
	}
}

func fates(chain *filterChain, port uint16) string {
	if chain.failure != "" {
		return "  all refused: " + chain.failure + "\n"
	}
	same := map[string][]string{}
	for name := range policedCalls {
		call := policedCall(name, port)
		r := judgedBy(chain, call)
		fate := "let through"
		if r.code != codes.OK {
			fate = strings.TrimSpace(fmt.Sprintf("%s %s: %s", r.action, r.policy, r.reason))
		}
		for _, a := range call.audits {
			fate += fmt.Sprintf(", and %s %s: %s", a.action, a.policy, a.reason)
		}
		same[fate] = append(same[fate], name)
	}
	var b strings.Builder
	for _, fate := range slices.Sorted(maps.Keys(same)) {
		calls := strings.Join(slices.Sorted(slices.Values(same[fate])), ", ")
		if len(same[fate]) == len(policedCalls) {
			calls = "all"
		}
		fmt.Fprintf(&b, "  %s\n    %s\n", fate, calls)
	}
	return b.String()
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
