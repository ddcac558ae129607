package proxyless

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// rawProto builds protobuf messages field by field, the valid and the invalid.
type rawProto []byte

func (m rawProto) num(n protowire.Number, v uint64) rawProto {
	return protowire.AppendVarint(protowire.AppendTag(m, n, protowire.VarintType), v)
}

func (m rawProto) text(n protowire.Number, s ...string) rawProto {
	for _, s := range s {
		m = protowire.AppendString(protowire.AppendTag(m, n, protowire.BytesType), s)
	}
	return m
}

func (m rawProto) msg(n protowire.Number, messages ...rawProto) rawProto {
	for _, message := range messages {
		m = protowire.AppendBytes(protowire.AppendTag(m, n, protowire.BytesType), message)
	}
	return m
}

// wrap is a google.protobuf wrapper around a varint.
func (m rawProto) wrap(n protowire.Number, v uint64) rawProto {
	if v == 0 {
		return m.msg(n, rawProto{})
	}
	return m.msg(n, rawProto{}.num(1, v))
}

// packed is a google.protobuf.Any.
func (m rawProto) packed(n protowire.Number, typeName string, message rawProto) rawProto {
	return m.msg(n, rawProto{}.text(1, typePrefix+typeName).msg(2, message))
}

// entry is one entry of a map with string keys.
func (m rawProto) entry(n protowire.Number, key string, value rawProto) rawProto {
	return m.msg(n, rawProto{}.text(1, key).msg(2, value))
}

// rawStruct is a google.protobuf.Struct with one string.
func rawStruct(key, value string) rawProto {
	return rawProto{}.entry(1, key, rawProto{}.text(3, value))
}

// rawEndpoint is an LbEndpoint with the metadata that istiod sends. A weight
// of 0 is left out.
func rawEndpoint(ip string, port, health, weight uint64) rawProto {
	socket := rawProto{}.text(2, ip).num(3, port)
	m := rawProto{}.msg(1, rawProto{}.msg(1, rawProto{}.msg(1, socket)))
	if health != 0 {
		m = m.num(2, health)
	}
	filters := rawProto{}.entry(1, "envoy.transport_socket_match", rawStruct("tlsMode", "istio")).
		entry(1, "istio", rawStruct("workload", "dubbo-samples-xds-provider;dubbo-demo;dubbo-samples-xds-provider;v1;Kubernetes"))
	m = m.msg(3, filters)
	if weight != 0 {
		m = m.wrap(4, weight)
	}
	return m
}

// rawLocality is a LocalityLbEndpoints; name is region/zone/subZone.
func rawLocality(region, zone string, priority, weight uint64, endpoints ...rawProto) rawProto {
	m := rawProto{}.msg(1, rawProto{}.text(1, region).text(2, zone)).msg(2, endpoints...)
	if weight != 0 {
		m = m.wrap(3, weight)
	}
	if priority != 0 {
		m = m.num(5, priority)
	}
	return m
}

// rawAssignment is what istiod sends for n healthy pods in three zones.
func rawAssignment(n int) rawProto {
	m := rawProto{}.text(1, "outbound|50052||dubbo-samples-xds-provider.dubbo-demo.svc.cluster.local")
	for zone := range min(n, 3) {
		var endpoints []rawProto
		for i := zone; i < n; i += 3 {
			endpoints = append(endpoints, rawEndpoint(fmt.Sprintf("10.%d.%d.%d", 10+i>>16, i>>8&255, i&255), 50052, 1, 1))
		}
		m = m.msg(2, rawLocality("eu-central-1", fmt.Sprint("eu-central-1", 'a'+rune(zone)), 0, uint64(len(endpoints)), endpoints...))
	}
	return m
}
