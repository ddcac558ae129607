package proxyless

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// captured are the resources of a response of a real istiod, by name.
func captured(t testing.TB, file string) map[string][]byte {
	t.Helper()
	b, err := os.ReadFile("testdata/istiod/" + file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := decodeADSResponse(b)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]byte{}
	for _, raw := range r.resources {
		found[resourceName(0, raw.value)] = raw.value
	}
	return found
}

// renamed is a message with a text replaced wherever it is a whole string field
// or a part of one, at any depth.
func renamed(b []byte, from, to string) []byte {
	if !bytes.Contains(b, []byte(from)) {
		return b
	}
	var out []byte
	for rest := b; len(rest) > 0; {
		num, typ, n := protowire.ConsumeTag(rest)
		if n < 0 || typ != protowire.BytesType || num == 0 {
			m := -1
			if n > 0 {
				m = protowire.ConsumeFieldValue(num, typ, rest[n:])
			}
			if m < 0 {
				return bytes.ReplaceAll(b, []byte(from), []byte(to)) // a string
			}
			out, rest = append(out, rest[:n+m]...), rest[n+m:]
			continue
		}
		value, m := protowire.ConsumeBytes(rest[n:])
		if m < 0 {
			return bytes.ReplaceAll(b, []byte(from), []byte(to))
		}
		out = append(out, rest[:n]...)
		out = protowire.AppendBytes(out, renamed(value, from, to))
		rest = rest[n+m:]
	}
	return out
}

const (
	bigService = "plain-service-%04d"
	bigPort    = "50052"
)

// bigMesh is a mesh of n services with one port, made of what a real istiod
// sent about one: clusters, listeners, and the routes of the port.
func bigMesh(t testing.TB, n int) (clusters, listeners, routes, endpoints []rawResource) {
	t.Helper()
	const pattern = "permissive"
	cds, lds, rds, eds := captured(t, "full-cds.binpb"), captured(t, "full-lds.binpb"), captured(t, "full-rds.binpb"), captured(t, "full-eds.binpb")
	own := "outbound|" + bigPort + "||" + pattern + ".full.svc.cluster.local"
	if cds[own] == nil || rds[bigPort] == nil || lds["0.0.0.0_"+bigPort] == nil {
		t.Fatalf("the captured mesh has no %s", own)
	}
	raw := func(k kind, b []byte) rawResource { return rawResource{typeURL: k.typeURL(), value: b} }
	var table, host []byte
	c := walk(rds[bigPort])
	for before := c.rest; c.next(); before = c.rest {
		switch {
		case c.num != 2:
			table = append(table, before[:len(before)-len(c.rest)]...)
		case strings.HasPrefix(string(rawName(kindRoute, c.val)), pattern):
			host = c.val
		}
	}
	for i := range n {
		name := fmt.Sprintf(bigService, i)
		clusters = append(clusters, raw(kindCluster, renamed(cds[own], pattern, name)))
		table = protowire.AppendTag(table, 2, protowire.BytesType)
		table = protowire.AppendBytes(table, renamed(host, pattern, name))
	}
	for _, name := range []string{"PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster"} {
		clusters = append(clusters, raw(kindCluster, cds[name]))
	}
	for _, name := range []string{"0.0.0.0_" + bigPort, virtualInbound, virtualOutbound} {
		listeners = append(listeners, raw(kindListener, lds[name]))
	}
	for i := range 3 {
		for _, b := range eds {
			if bytes.Contains(b, []byte(pattern)) || endpoints == nil {
				endpoints = append(endpoints, raw(kindEndpoints, renamed(b, resourceName(0, b), strings.Replace(own, pattern, fmt.Sprintf(bigService, i), 1))))
				break
			}
		}
	}
	return clusters, listeners, []rawResource{raw(kindRoute, table)}, endpoints
}

// enterBigMesh is a machine that refers to three services of it.
func enterBigMesh(t testing.TB, n int) (d *discovery, again func()) {
	clusters, listeners, routes, endpoints := bigMesh(t, n)
	d = newDiscovery(15 * time.Second)
	d.useFullView("full", "cluster.local")
	now := time.Now()
	for i := range 3 {
		d.refer(now, fmt.Sprintf(bigService, i))
	}
	d.connect(now, false)
	for _, resources := range [][]rawResource{clusters, listeners, routes, endpoints} {
		d.receive(now, adsResponse{version: "1", nonce: "1", typeURL: resources[0].typeURL, resources: resources})
	}
	if out := d.take(); out.counts.rejected > 0 {
		t.Fatalf("%d rejected: %+v", out.counts.rejected, out.requests)
	}
	all := adsResponse{version: "1", nonce: "1", typeURL: clusters[0].typeURL, resources: clusters}
	return d, func() { d.receive(now, all); d.out = outcome{} }
}

func TestAThousandServicesTakeLittleMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	d, _ := enterBigMesh(t, 1000)
	after := heap()
	for i := range 3 {
		host := fmt.Sprintf(bigService, i)
		e := d.entries[kindListener][host+":"+bigPort]
		if e == nil || e.status != statusAccepted || len(e.children) != 1 || e.children[0].status != statusAccepted {
			t.Fatalf("%s: %+v", host, e)
		}
		if c := d.entries[kindCluster]["outbound|"+bigPort+"||"+host+".full.svc.cluster.local"]; c == nil || c.status != statusAccepted {
			t.Errorf("%s: %+v", host, c)
		}
	}
	if n := len(d.view.held[kindCluster]); n != 1003 {
		t.Errorf("%d clusters are held", n)
	}
	took := float64(after-before) / (1 << 20)
	t.Logf("%.2f MiB", took)
	if took > 5 {
		t.Errorf("%.2f MiB for three of 1000 services, want at most 5", took)
	}
	runtime.KeepAlive(d)
}

func TestAResendOfAllClustersAllocatesNothingForEach(t *testing.T) {
	_, again := enterBigMesh(t, 1000)
	if n := leastAllocs(10, again); n > 20 {
		t.Errorf("%v allocations for 1003 clusters of which none changed", n)
	}
}

// TestOtherServicesPlansStay says that a push about other services' routes
// touches nothing.
func TestOtherServicesPlansStay(t *testing.T) {
	clusters, listeners, routes, endpoints := bigMesh(t, 10)
	d := newDiscovery(15 * time.Second)
	d.useFullView("full", "cluster.local")
	now := time.Now()
	d.refer(now, fmt.Sprintf(bigService, 1)+":"+bigPort)
	d.connect(now, true)
	for _, resources := range [][]rawResource{clusters, listeners, routes, endpoints} {
		d.receive(now, adsResponse{version: "1", nonce: "1", typeURL: resources[0].typeURL, resources: resources})
	}
	d.take()
	push := func(name string) outcome {
		changed := renamed(routes[0].value, name+".full.svc.cluster.local:"+bigPort, name+".elsewhere:"+bigPort)
		if bytes.Equal(changed, routes[0].value) {
			t.Fatal("nothing was changed")
		}
		d.receive(now, adsResponse{version: "2", nonce: "2", typeURL: kindRoute.typeURL(), resources: []rawResource{{typeURL: kindRoute.typeURL(), value: changed}}})
		return d.take()
	}
	if out := push(fmt.Sprintf(bigService, 2)); len(out.changed)+len(out.affected) > 0 {
		t.Errorf("changed %d, affected %v", len(out.changed), out.affected)
	}
	if out := push(fmt.Sprintf(bigService, 1)); len(out.affected) != 1 {
		t.Errorf("affected %v", out.affected)
	}
}
