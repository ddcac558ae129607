package meshtestcheck

// The RBAC filters that meshtest makes of AuthorizationPolicies are compared with
// those that istiod made of the same, kept in testdata/authorization.jsonl: a
// line for each policy, view and port.

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/proxyless/proxyless/meshtest"
)

type (
	rule      = meshtest.AccessRule
	source    = meshtest.AccessSource
	operation = meshtest.AccessOperation
	condition = meshtest.AccessCondition
)

func from(s source) rule             { return rule{From: []source{s}} }
func to(o operation) rule            { return rule{To: []operation{o}} }
func when(list ...condition) rule    { return rule{When: list} }
func deny(r ...rule) policies        { return with(meshtest.AccessDeny, r) }
func allow(r ...rule) policies       { return with(meshtest.AccessAllow, r) }
func (p policies) dryRun() policies  { p[0].DryRun = true; return p }
func values(list ...string) []string { return list }

type policies []meshtest.AuthorizationPolicy

func with(action meshtest.AccessAction, rules []rule) policies {
	return policies{{Action: action, Rules: rules}}
}

// istiodPolicies are the policies of the captures, by their names.
var istiodPolicies = map[string]policies{
	"allow-all":          allow(rule{}),
	"allow-nothing":      allow(),
	"deny-all":           deny(rule{}),
	"deny-empty":         deny(),
	"deny-path":          deny(to(operation{Paths: values("/admin/*", "*/Secret", "/exact", "*")})),
	"allow-anyprincipal": allow(from(source{Principals: values("*")})),
	"allow-principal": allow(from(source{
		Principals:    values("cluster.local/ns/sec/sa/exact", "cluster.local/ns/sec/*", "*/sa/suffix"),
		NotPrincipals: values("cluster.local/ns/bad/sa/bad")})),
	"allow-td":     allow(from(source{Principals: values("other.domain/ns/sec/sa/exact")})),
	"allow-ns":     allow(from(source{Namespaces: values("trusted", "team-*", "*-prod"), NotNamespaces: values("bad")})),
	"allow-sa":     allow(from(source{ServiceAccounts: values("sec/caller", "other"), NotServiceAccounts: values("bad/bad")})),
	"audit":        with(meshtest.AccessAudit, []rule{to(operation{Paths: values("/audited/*")})}),
	"custom":       with(meshtest.AccessCustom, []rule{to(operation{Paths: values("/custom/*")})}),
	"dryrun-deny":  deny(to(operation{Paths: values("/dry/*")})).dryRun(),
	"dryrun-allow": allow(to(operation{Paths: values("/dry/*")})).dryRun(),
	"jwt-required": deny(from(source{NotRequestPrincipals: values("*")})),
	"allow-ops": allow(to(operation{
		Methods: values("GET", "PO*"), NotMethods: values("PUT"),
		Hosts: values("a.example.com", "*.example.com"), NotHosts: values("b.example.com"),
		Ports: values("50052", "9999"), NotPorts: values("1"),
		Paths: values("/a", "/b/*"), NotPaths: values("/c", "/d/*")})),
	"allow-ports": allow(to(operation{Ports: values("50052")}),
		rule{To: []operation{{Ports: values("7000")}}, From: []source{{Namespaces: values("sec")}}}),
	"allow-ip": allow(
		from(source{IPBlocks: values("10.244.0.0/16", "1.2.3.4", "2001:db8::/32"), NotIPBlocks: values("10.244.9.0/24")}),
		from(source{RemoteIPBlocks: values("10.0.0.0/8"), NotRemoteIPBlocks: values("10.1.0.0/16")})),
	"allow-template": allow(to(operation{Paths: values("/a/{*}/b", "/c/{**}", "/d/{*}/{**}/e"), NotPaths: values("/x/{*}")})),
	"allow-headers": allow(when(
		condition{Key: "request.headers[x-user]", Values: values("exact", "pre*", "*suf", "*"), NotValues: values("no")},
		condition{Key: "source.ip", Values: values("10.0.0.0/8")},
		condition{Key: "remote.ip", Values: values("10.0.0.0/8")},
		condition{Key: "source.namespace", Values: values("sec")},
		condition{Key: "source.principal", Values: values("cluster.local/ns/sec/sa/x"), NotValues: values("cluster.local/ns/sec/sa/y")},
		condition{Key: "destination.ip", Values: values("10.0.0.0/8")},
		condition{Key: "destination.port", Values: values("50052")},
		condition{Key: "connection.sni", Values: values("www.example.com", "*.example.com")})),
	"allow-requestprincipals": allow(from(source{
		RequestPrincipals:    values("https://issuer.example/sub-1", "https://issuer.example/*", "*/sub-2", "*"),
		NotRequestPrincipals: values("https://bad/*")})),
	"allow-claims": allow(when(
		condition{Key: "request.auth.claims[iss]", Values: values("https://issuer.example")},
		condition{Key: "request.auth.claims[groups]", Values: values("admin", "team-*", "*-x", "*"), NotValues: values("bad")},
		condition{Key: "request.auth.claims[realm][roles]", Values: values("deep")},
		condition{Key: "request.auth.audiences", Values: values("aud-1", "aud-*")},
		condition{Key: "request.auth.presenter", Values: values("azp-1")},
		condition{Key: "request.auth.principal", Values: values("https://issuer.example/sub")})),
	"mixed": append(append(
		deny(to(operation{Paths: values("/admin/*")}), from(source{NotNamespaces: values("sec")})),
		meshtest.AuthorizationPolicy{Name: "mixed-allow", Action: meshtest.AccessAllow, Rules: []rule{{
			From: []source{{Namespaces: values("sec")}}, To: []operation{{Methods: values("POST")}},
			When: []condition{{Key: "request.headers[x-a]", Values: values("b")}}}}}),
		meshtest.AuthorizationPolicy{Name: "mixed-deny2", Action: meshtest.AccessDeny, Rules: []rule{{
			From: []source{{Principals: values("*")}}, To: []operation{{Ports: values("7000")}}}}}),
}

func TestAuthorizationIsThatOfIstiod(t *testing.T) {
	file, err := os.Open("testdata/authorization.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines, seen := bufio.NewScanner(file), map[string]bool{}
	for lines.Buffer(nil, 1<<20); lines.Scan(); {
		var want struct {
			Policy, View string
			Port         uint32
			Filters      []json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		seen[want.Policy] = true
		list := istiodPolicies[want.Policy]
		for i := range list {
			list[i].Namespace = "sec"
			if list[i].Name == "" {
				list[i].Name = want.Policy
			}
		}
		got := accessFilters(t, want.View, want.Port, list)
		if len(got) != len(want.Filters) {
			t.Errorf("%s, %s view, port %d: %d filters, istiod sends %d", want.Policy, want.View, want.Port, len(got), len(want.Filters))
			continue
		}
		for i, m := range got {
			if !proto.Equal(reread(t, m, []byte(protojson.Format(m))), reread(t, m, want.Filters[i])) {
				t.Errorf("%s, %s view, port %d:\n got %s\nwant %s", want.Policy, want.View, want.Port, protojson.Format(m), want.Filters[i])
			}
		}
	}
	if err := lines.Err(); err != nil || len(seen) != len(istiodPolicies) {
		t.Errorf("%v; istiod's filters are known for %d policies of %d", err, len(seen), len(istiodPolicies))
	}
}

// accessFilters are the RBAC filters of a port under the policies.
func accessFilters(t *testing.T, view string, port uint32, list policies) (found []proto.Message) {
	t.Helper()
	const addr = "10.244.0.206"
	c := meshtest.New(t, meshtest.InMemory())
	c.SetService(meshtest.Service{Name: "guarded", Namespace: "full", Address: "10.96.0.41",
		Ports:     []meshtest.Port{{Name: "grpc-tri", Number: 50052}, {Name: "tcp-raw", Number: 7000}},
		Endpoints: []meshtest.Endpoint{{Address: addr}}})
	in := meshtest.Inbound{Permissive: view == "full", Policies: list}
	var l *listenerpb.Listener
	if view == "lean" {
		c.SetInbound(addr+":50052", in)
		name := "xds.istio.io/grpc/lds/inbound/" + addr + ":50052"
		k := newFullClient(t, c, addr)
		k.node.Metadata.Fields["GENERATOR"] = structpb.NewStringValue("grpc")
		l = k.ask(meshtest.ListenerType, name)[name].(*listenerpb.Listener)
	} else {
		c.SetInbound(addr+":0", in)
		l = newFullClient(t, c, addr).ask(meshtest.ListenerType)["virtualInbound"].(*listenerpb.Listener)
	}
	for _, chain := range l.FilterChains {
		if view == "full" && chain.FilterChainMatch.GetDestinationPort().GetValue() != port {
			continue
		}
		for _, f := range chain.Filters {
			if strings.Contains(f.Name, "rbac") {
				found = append(found, f)
			}
			if m := new(hcmpb.HttpConnectionManager); f.GetTypedConfig().UnmarshalTo(m) == nil {
				for _, h := range m.HttpFilters {
					if strings.Contains(h.Name, "rbac") {
						found = append(found, h)
					}
				}
			}
		}
		return found // the others of the port have the same
	}
	t.Fatalf("no chain for port %d in the %s view", port, view)
	return nil
}

// reread makes a message of JSON, so that the order of fields within an Any is
// always the same.
func reread(t *testing.T, m proto.Message, text []byte) proto.Message {
	t.Helper()
	fresh := m.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal(text, fresh); err != nil {
		t.Fatal(err)
	}
	return fresh
}
