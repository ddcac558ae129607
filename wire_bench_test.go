package proxyless

import (
	"fmt"
	"strconv"
	"testing"
)

func BenchmarkDecodeAssignment(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			raw := rawAssignment(n)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeResource(kindEndpoints, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecodeRouteConfig takes one service with one route, as istiod sends
// it for each service that is referred to, and a hundred services with ten.
func BenchmarkDecodeRouteConfig(b *testing.B) {
	for _, n := range []struct{ hosts, routes int }{{1, 1}, {100, 10}} {
		b.Run(fmt.Sprintf("hosts=%d/routes=%d", n.hosts, n.routes), func(b *testing.B) {
			raw := rawServices(n.hosts, n.routes)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeResource(kindRoute, raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// rawServices is a route configuration with the domains that istiod gives to a
// service, and for each service routes by header and a default one.
func rawServices(hosts, routes int) rawProto {
	m := rawProto{}.text(1, reviews)
	for i := range hosts {
		name := fmt.Sprint("service-", i)
		host := rawProto{}.text(1, name+".demo.svc.cluster.local:9080")
		for _, suffix := range []string{".demo.svc.cluster.local", "", ".demo.svc", ".demo"} {
			host = host.text(2, name+suffix, name+suffix+":9080")
		}
		cluster := "outbound|9080||" + name + ".demo.svc.cluster.local"
		for j := range routes - 1 {
			match := rawProto{}.text(1, "/").msg(6, rawHeader("end-user", rawProto{}.text(1, fmt.Sprint("user-", j))))
			host = host.msg(3, rawRoute(fmt.Sprint("route-", j), match, rawDefaultAction(cluster)))
		}
		m = m.msg(2, host.msg(3, rawRoute("default", rawEverything, rawDefaultAction(cluster))))
	}
	return m
}
