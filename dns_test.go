package proxyless

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNamesAreLookedUpAgainAndAgain runs in a bubble of fake time.
func TestNamesAreLookedUpAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked, reports := map[string]int{}, map[string][]string{}
		s := nameService{
			lookUp: func(ctx context.Context, network, host string) ([]netip.Addr, error) {
				mu.Lock()
				asked[host]++
				n := asked[host]
				mu.Unlock()
				switch {
				case host == "slow":
					<-ctx.Done()
					return nil, ctx.Err()
				case n == 2:
					return nil, errors.New("no such host")
				case n == 3:
					return nil, nil
				}
				return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
			},
			report: func(host string, addrs []netip.Addr, failure string) {
				mu.Lock()
				defer mu.Unlock()
				reports[host] = append(reports[host], failure)
			},
		}
		defer s.close()
		s.start(nameLookup{host: "slow"})
		s.start(nameLookup{host: "fast"})
		synctest.Wait()
		mu.Lock()
		if len(reports["fast"]) != 1 || len(reports["slow"]) != 0 {
			t.Errorf("at once: %v", reports)
		}
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		if n := asked["fast"]; n < 9 || n > 17 {
			t.Errorf("%d lookups in a minute", n)
		}
		if want := []string{"", "no such host", "it has no address", ""}; !slices.Equal(reports["fast"][:4], want) {
			t.Errorf("reports %q", reports["fast"])
		}
		if len(reports["slow"]) == 0 || reports["slow"][0] == "" {
			t.Errorf("a server that does not answer: %q", reports["slow"])
		}
		s.stop("fast")
		before := asked["fast"]
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if asked["fast"] != before {
			t.Error("it was looked up after the end")
		}
	})
}

func TestTheFamilyOfAddresses(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	both := ordered([]netip.Addr{six, four, netip.MustParseAddr("::ffff:192.0.2.1")})
	for f, want := range map[dnsFamily][3][]netip.Addr{
		dnsAuto: {{four}, {six}, {six}}, dnsV4: {{four}, nil, {four}}, dnsV6: {nil, {six}, {six}},
		dnsV4First: {{four}, {six}, {four}}, dnsAll: {{four}, {six}, {four, six}},
	} {
		for i, addrs := range [][]netip.Addr{{four}, {six}, both} {
			if got := f.of(addrs); !slices.Equal(got, want[i]) {
				t.Errorf("family %d of %v: %v, want %v", f, addrs, got, want[i])
			}
		}
	}
}

func TestAnAnswerThatStaysTheSameIsNoNews(t *testing.T) {
	silent := func(port string) error {
		return &net.DNSError{Err: "read udp 10.0.0.1:" + port + "->10.96.0.10:53: i/o timeout", Name: "e.com", Server: "10.96.0.10:53", IsTimeout: true}
	}
	if a, b := lookUpFailure(silent("40001")), lookUpFailure(silent("40002")); a != b || a != "lookup e.com on 10.96.0.10:53: i/o timeout" {
		t.Errorf("the failure changes with the port that was asked from: %q, %q", a, b)
	}
	d := newDiscovery(time.Second)
	now := time.Unix(0, 0)
	e := d.add(kindEndpoints, dnsPrefix+"c")
	d.add(kindCluster, "c").resourceState = &resourceState{kind: kindCluster, name: "c", status: statusAccepted,
		value: &cluster{name: "c", source: discoverStrictDNS, names: []dnsName{{host: "e.com", port: 1}}, dns: dnsSettings{family: dnsV6}}}
	e.roots = 1
	d.makeEndpoints(e)
	only4 := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	d.resolved(now, "e.com", only4, "")
	if first := d.take(); e.status != statusAccepted || len(first.changed) == 0 {
		t.Fatalf("%s: %v", e.status, first.changed)
	}
	d.resolved(now, "e.com", only4, "")
	if again := d.take(); len(again.changed) > 0 {
		t.Errorf("no address of the family, as before: changed %v", again.changed[0].name)
	}
}

// TestAnswersForAClusterThatIsAnotherOneByNow: DNS answers late, and what its
// endpoints' labels meant is gone with the cluster that had the names.
func TestAnswersForAClusterThatIsAnotherOneByNow(t *testing.T) {
	d := newDiscovery(time.Second)
	now := time.Unix(0, 0)
	e, parent := d.add(kindEndpoints, dnsPrefix+"c"), d.add(kindCluster, "c")
	accept := func(c *cluster) {
		parent.resourceState = &resourceState{kind: kindCluster, name: "c", status: statusAccepted, value: c}
	}
	accept(&cluster{name: "c", source: discoverStrictDNS, names: []dnsName{{host: "e.com", port: 1, labels: 1}}, inline: &assignment{labels: []socketLabels{{"tlsMode": "istio"}}}})
	e.roots = 1
	d.makeEndpoints(e)
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	d.resolved(now, "e.com", addrs, "")
	if first := d.take(); e.status != statusAccepted || len(first.changed) == 0 {
		t.Fatalf("%s: %v", e.status, first.changed)
	}
	accept(&cluster{name: "c", source: discoverEDS})
	d.resolved(now, "e.com", addrs, "")
	if a := e.value.(*assignment); a.labelsOf(&a.endpoints[0])["tlsMode"] != "istio" {
		t.Errorf("endpoints without labels: %+v", a.endpoints)
	}
}

// TestANewHostnameAtTheSameAddressIsNews: it is asked for in handshakes, and may
// be the authority of calls.
func TestANewHostnameAtTheSameAddressIsNews(t *testing.T) {
	d := newDiscovery(time.Second)
	now := time.Unix(0, 0)
	e, parent := d.add(kindEndpoints, dnsPrefix+"c"), d.add(kindCluster, "c")
	e.roots = 1
	for _, host := range []string{"a.com", "b.com"} {
		parent.resourceState = &resourceState{kind: kindCluster, name: "c", status: statusAccepted,
			value: &cluster{name: "c", source: discoverStrictDNS, names: []dnsName{{host: host, port: 1}}}}
		d.makeEndpoints(e)
		d.resolved(now, host, []netip.Addr{netip.MustParseAddr("10.0.0.1")}, "")
		if a := e.value.(*assignment); a.endpoints[0].extra.hostname != host {
			t.Errorf("it is %s, want %s", a.endpoints[0].extra.hostname, host)
		}
	}
}
