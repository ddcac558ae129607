package proxyless

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// newMessage is an empty message of each kind.
var newMessage = map[kind]func() proto.Message{
	kindListener:  func() proto.Message { return &listenerv3.Listener{} },
	kindRoute:     func() proto.Message { return &routev3.RouteConfiguration{} },
	kindCluster:   func() proto.Message { return &clusterv3.Cluster{} },
	kindEndpoints: func() proto.Message { return &endpointv3.ClusterLoadAssignment{} },
}

// reference is what should be kept of a message, or that it should be refused.
func reference(m proto.Message) (value any, name string, err error) {
	switch m := m.(type) {
	case *listenerv3.Listener:
		value, err = referenceListener(m)
		return value, m.Name, err
	case *routev3.RouteConfiguration:
		value, err = referenceNamedRouteConfig(m)
		return value, m.Name, err
	case *clusterv3.Cluster:
		value, err = referenceCluster(m)
		return value, m.Name, err
	case *endpointv3.ClusterLoadAssignment:
		value, err = referenceAssignment(m)
		return value, m.ClusterName, err
	}
	panic(fmt.Sprintf("%T", m))
}

// compare decodes a resource both ways; it returns what is kept, nil where both
// refuse the resource.
func compare(t *testing.T, k kind, raw []byte) any {
	t.Helper()
	m := newMessage[k]()
	if err := proto.Unmarshal(raw, m); err != nil {
		t.Fatal(err)
	}
	want, name, refused := reference(m)
	got, err := decodeResource(k, raw)
	switch {
	case (err == nil) != (refused == nil):
		t.Fatalf("%v: the decoder says %v, the reference %v\n%s", k, err, refused, prototext.Format(m))
	case got.name != name:
		t.Fatalf("%v: named %q, the reference says %q", k, got.name, name)
	case err != nil:
		return nil
	}
	forgetBadContexts(got.value)
	d := difference(k.String(), reflect.ValueOf(got.value), reflect.ValueOf(want))
	if d == "" {
		d = differentLabels(got.value, want)
	}
	if d != "" {
		t.Fatalf("%s\n%s", d, prototext.Format(m))
	}
	return got.value
}

// forgetBadContexts leaves of TLS contexts that cannot be obeyed only that.
func forgetBadContexts(value any) {
	forget := func(t **tlsContext) {
		if *t != nil && (*t).failure != "" {
			*t = badContext
		}
	}
	switch v := value.(type) {
	case *listener:
		for i := range v.inbound {
			forget(&v.inbound[i].tls)
		}
	case *cluster:
		forget(&v.tls)
		for i := range v.sockets {
			forget(&v.sockets[i].tls)
		}
	}
}

// differentLabels is the first endpoint whose labels differ, wherever they are
// kept, or empty.
func differentLabels(got, want any) string {
	labels := func(value any) (all []socketLabels) {
		var a *assignment
		switch v := value.(type) {
		case *assignment:
			a = v
		case *cluster:
			a = v.inline
			for _, n := range v.names {
				all = append(all, a.labelsOf(&endpoint{labels: n.labels}))
			}
		}
		if a != nil {
			for i := range a.endpoints {
				all = append(all, a.labelsOf(&a.endpoints[i]))
			}
			for i := range a.others {
				all = append(all, a.labelsOf(&a.others[i].endpoint))
			}
		}
		return all
	}
	g, w := labels(got), labels(want)
	for i := range g {
		if !maps.Equal(g[i], w[i]) {
			return fmt.Sprintf("endpoint %d: labels %v, the reference says %v", i, g[i], w[i])
		}
	}
	return ""
}

func marshal(m proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return raw
}

// TestIstiodResources compares all that a real istiod sent, envelopes included.
func TestIstiodResources(t *testing.T) {
	files, err := filepath.Glob("../../../testdata/istiod/*.binpb")
	if err != nil || len(files) < 30 {
		t.Fatal(len(files), err)
	}
	resources := 0
	for _, file := range files {
		if strings.HasPrefix(filepath.Base(file), "full-delta-") {
			continue // in another envelope
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			response := compareResponse(t, raw)
			k, ok := kindOf(response.typeURL)
			if !ok {
				t.Fatal(response.typeURL)
			}
			for _, r := range response.resources {
				if compare(t, k, r.value) == nil {
					t.Error("refused")
				}
				resources++
			}
		})
	}
	t.Logf("%d responses, %d resources", len(files), resources)
}

// compareResponse decodes a response's envelope both ways.
func compareResponse(t *testing.T, raw []byte) adsResponse {
	t.Helper()
	var m discoveryv3.DiscoveryResponse
	if err := proto.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	got, err := decodeADSResponse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got.version != m.VersionInfo || got.nonce != m.Nonce || got.typeURL != m.TypeUrl || len(got.resources) != len(m.Resources) {
		t.Fatalf("kept %+v of %v", got, &m)
	}
	for i, a := range m.Resources {
		want := rawResource{typeURL: a.TypeUrl, value: a.Value}
		if afterSlash(a.TypeUrl) == nameOf(&discoveryv3.Resource{}) {
			var inner discoveryv3.Resource
			if err := proto.Unmarshal(a.Value, &inner); err != nil {
				t.Fatal(err)
			}
			want = rawResource{typeURL: inner.GetResource().GetTypeUrl(), name: inner.Name, value: inner.GetResource().GetValue()}
		}
		if r := got.resources[i]; r.typeURL != want.typeURL || r.name != want.name || string(r.value) != string(want.value) {
			t.Fatalf("resource %d: kept %+v, the reference says %+v", i, r, want)
		}
	}
	return got
}

// rounds is how many messages of each kind are made.
const rounds = 3000

// TestRandomResources compares messages that were made at random and encoded by
// the protobuf library. Every eighth assignment is two encodings one after the
// other, which is how protobuf says that they are to be merged.
func TestRandomResources(t *testing.T) {
	for k := range kindCount {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			seen := census{}
			accepted, size := 0, 0
			for seed := range uint64(rounds) {
				raw := randomResource(k, seed)
				if k == kindEndpoints && seed%8 == 7 {
					raw = append(raw, randomResource(k, seed-1)...)
				}
				size += len(raw)
				if value := compare(t, k, raw); value != nil {
					accepted++
					seen.count(value)
				}
				if t.Failed() {
					t.Fatal("seed", seed)
				}
			}
			t.Logf("%d accepted, %d refused, %d bytes; %v", accepted, rounds-accepted, size, seen)
			seen.check(t, k)
			if accepted < rounds*2/5 || accepted > rounds*995/1000 {
				t.Errorf("%d of %d accepted: the messages are no longer a mix", accepted, rounds)
			}
		})
	}
}

func randomResource(k kind, seed uint64) []byte {
	m := newMessage[k]()
	maker := newMaker(uint64(k)<<32 | seed)
	maker.fill(m.ProtoReflect(), 12)
	return marshal(m)
}
