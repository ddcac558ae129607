package proxyless

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

func TestRequestOnTheWire(t *testing.T) {
	node := &nodeMessage{id: "sidecar~10.0.0.7~web-1.demo~demo.svc.cluster.local", cluster: "web", region: "eu", zone: "eu-1",
		metadata: map[string]any{"GENERATOR": "grpc"}}
	rawNode := rawProto{}.text(1, node.id).text(2, "web").msg(3, rawStruct("GENERATOR", "grpc")).
		msg(4, rawProto{}.text(1, "eu").text(2, "eu-1")).text(6, "proxyless").text(7, userAgentVersion)
	for name, test := range map[string]struct {
		request adsRequest
		want    rawProto
	}{
		"the first of a stream": {
			adsRequest{node: node, kind: kindListener, names: []string{"web.demo:80", "api.demo:80"}},
			rawProto{}.msg(2, rawNode).text(3, "web.demo:80", "api.demo:80").text(4, "type.googleapis.com/envoy.config.listener.v3.Listener"),
		},
		"ACK": {
			adsRequest{kind: kindRoute, version: "v2", nonce: "n2", names: []string{"r"}},
			rawProto{}.text(1, "v2").text(3, "r").text(4, "type.googleapis.com/envoy.config.route.v3.RouteConfiguration").text(5, "n2"),
		},
		"NACK": {
			adsRequest{kind: kindCluster, version: "v1", nonce: "n2", names: []string{"c"}, nack: "c: name: missing"},
			rawProto{}.text(1, "v1").text(3, "c").text(4, "type.googleapis.com/envoy.config.cluster.v3.Cluster").text(5, "n2").
				msg(6, rawProto{}.num(1, 3).text(2, "c: name: missing")),
		},
		"nothing wanted any more": {
			adsRequest{kind: kindEndpoints, version: "v1", nonce: "n1"},
			rawProto{}.text(1, "v1").text(4, "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment").text(5, "n1"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.request.append([]byte("x")); !bytes.Equal(got, append([]byte("x"), test.want...)) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestNodeMetadataIsAStruct(t *testing.T) {
	metadata := map[string]any{
		"NAMESPACE": "demo", "EMPTY": "", "NULL": nil, "YES": true, "NO": false, "ZERO": 0.0, "PI": math.Pi,
		"LABELS": map[string]any{"app": "web", "version": "v1"}, "NONE": map[string]any{},
		"LIST": []any{"a", 1.0, []any{}, map[string]any{"k": nil}},
	}
	encoded := appendNode(nil, &nodeMessage{metadata: metadata})
	if again := appendNode(nil, &nodeMessage{metadata: metadata}); !bytes.Equal(encoded, again) {
		t.Error("the same node gives different bytes")
	}
	field, err := submessage(encoded, 3, "metadata")
	if err != nil {
		t.Fatal(err)
	}
	var got structpb.Struct
	if err := proto.Unmarshal(field, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.AsMap(), metadata) {
		t.Errorf("got  %v\nwant %v", got.AsMap(), metadata)
	}
}

func TestNodeMetadataThatIsOdd(t *testing.T) {
	loop := map[string]any{}
	loop["self"] = loop
	for name, test := range map[string]struct{ value, want any }{
		"a type without counterpart": {[]string{"a", "b"}, "[a b]"},
		"an integer":                 {7, "7"},
		"text that is not UTF-8":     {"caf\xe9", "caf\uFFFD"},
	} {
		var got structpb.Value
		if err := proto.Unmarshal(appendValue(nil, test.value, 1), &got); err != nil || got.AsInterface() != test.want {
			t.Errorf("%s: %v, %v", name, got.AsInterface(), err)
		}
	}
	var got structpb.Struct
	if err := proto.Unmarshal(appendStruct(nil, loop, maxMetadataDepth), &got); err != nil {
		t.Errorf("a map that contains itself: %v", err)
	}
}

func TestResponse(t *testing.T) {
	const clusters = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	cluster := rawProto{}.text(1, "outbound|80||web.demo.svc.cluster.local")
	wrapped := rawProto{}.text(1, "7").packed(2, "envoy.config.cluster.v3.Cluster", cluster).text(3, "outbound|80||web.demo.svc.cluster.local").text(4, "alias")
	raw := rawProto{}.text(1, "2026-01-01/4").packed(2, "envoy.config.cluster.v3.Cluster", cluster).packed(2, wrapperType, wrapped).
		num(3, 1).text(4, clusters).text(5, "nonce").msg(6, rawProto{}.text(1, "istiod"))
	want := adsResponse{version: "2026-01-01/4", nonce: "nonce", typeURL: clusters, resources: []rawResource{
		{typeURL: clusters, value: cluster},
		{typeURL: clusters, name: "outbound|80||web.demo.svc.cluster.local", version: "7", value: cluster},
	}}
	got, err := decodeADSResponse(raw)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if name := resourceName(kindCluster, got.resources[0].value); name != "outbound|80||web.demo.svc.cluster.local" {
		t.Errorf("name %q", name)
	}
}

func TestResponseThatIsBroken(t *testing.T) {
	for name, test := range map[string]struct {
		raw  rawProto
		want string
	}{
		"cut off":       {rawProto{}.text(1, "v")[:2], "malformed protobuf: cut off"},
		"a bad Any":     {rawProto{}.packed(2, "t", nil).msg(2, rawProto{}.num(1, 1)), "resources[1].type_url: wire type 0 instead of 2"},
		"a bad wrapper": {rawProto{}.packed(2, wrapperType, rawProto{}.num(3, 1)), "resources[0].name: wire type 0 instead of 2"},
		"a bad inner":   {rawProto{}.packed(2, wrapperType, rawProto{}.msg(2, rawProto{}.num(2, 1))), "resources[0].resource.value: wire type 0 instead of 2"},
		"not UTF-8":     {rawProto{}.text(5, "\xff"), "nonce: invalid UTF-8"},
	} {
		if got, err := decodeADSResponse(test.raw); err == nil || err.Error() != test.want || !reflect.DeepEqual(got, adsResponse{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestResourceNameWithoutDecoding(t *testing.T) {
	for name, test := range map[string]struct {
		raw  rawProto
		want string
	}{
		"first":     {rawProto{}.text(1, "a").text(2, "\xff"), "a"},
		"later":     {rawProto{}.num(2, 3).text(1, "a"), "a"},
		"twice":     {rawProto{}.text(1, "a", "b"), "b"},
		"none":      {rawProto{}.text(2, "a"), ""},
		"not text":  {rawProto{}.num(1, 3), ""},
		"not UTF-8": {rawProto{}.text(1, "\xff"), ""},
		"broken":    {append(rawProto{}.text(1, "a"), 0x0A), ""},
	} {
		if got := resourceName(kindListener, test.raw); got != test.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestResourceThatIsRejectedKeepsItsName(t *testing.T) {
	for k := range kindCount {
		got, err := decodeResource(k, rawProto{}.text(1, "its name").text(2, "x").num(2, 1).num(4, 1))
		if err == nil || got.name != "its name" || got.value != nil {
			t.Errorf("%v: %+v, %v", k, got, err)
		}
		if got, err = decodeResource(k, nil); err == nil || !strings.HasSuffix(err.Error(), "name: missing") || got.value != nil {
			t.Errorf("%v without a name: %+v, %v", k, got, err)
		}
	}
	if _, err := decodeResource(kindEndpoints, make([]byte, maxResource+1)); err == nil || !strings.Contains(err.Error(), "more than the 67108864") {
		t.Errorf("a resource that is too large: %v", err)
	}
}
