package proxyless

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func rawCLA(localities ...rawProto) rawProto {
	return rawProto{}.text(1, reviews).msg(2, localities...)
}

// rawSocketEndpoint is an LbEndpoint around a SocketAddress.
func rawSocketEndpoint(socket rawProto) rawProto {
	return rawProto{}.msg(1, rawProto{}.msg(1, rawProto{}.msg(1, socket)))
}

// describe writes an assignment down as text, a line for each locality.
func (a *assignment) describe() string {
	var b strings.Builder
	if a.overprovided != 0 {
		fmt.Fprintf(&b, "overprovided %d", a.overprovided)
		for _, d := range a.drops {
			fmt.Fprintf(&b, ", %s drops %d ppm", d.category, d.share)
		}
		b.WriteString("\n")
	}
	mixed := slices.ContainsFunc(a.endpoints, func(e endpoint) bool { return e.labels != a.endpoints[0].labels })
	for _, l := range a.localities {
		fmt.Fprintf(&b, "%s/%s/%s priority %d weight %d:", l.region, l.zone, l.subZone, l.priority, l.weight)
		for _, e := range a.endpoints[l.first : l.first+l.count] {
			fmt.Fprintf(&b, " %v", e.addr)
			if e.weight != 1 || e.health != healthHealthy {
				fmt.Fprintf(&b, "(weight %d, health %d)", e.weight, e.health)
			}
			if e.labels != 0 && mixed {
				fmt.Fprintf(&b, "%v", a.labelsOf(&e))
			}
			if x := e.extra; x != nil {
				for word, value := range map[string]string{" key ": x.hashKey, " named ": x.hostname, " also ": fmt.Sprint(x.more)} {
					if value != "" && value != "[]" {
						b.WriteString(word + value)
					}
				}
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestAssignment(t *testing.T) {
	up := func(ip string) rawProto { return rawEndpoint(ip, 80, 1, 1) }
	more := func(ip string, port uint64) rawProto {
		return rawProto{}.msg(1, rawProto{}.msg(1, rawProto{}.text(2, ip).num(3, port)))
	}
	for name, test := range map[string]struct {
		raw      rawProto
		want     string
		unusable int
		ignored  []string
	}{
		"a service that is not there, or has no endpoints": {rawCLA(), "", 0, nil},
		"ready pods in two zones": {
			rawCLA(rawLocality("eu", "a", 0, 2, up("10.0.0.1"), up("10.0.0.2")), rawLocality("eu", "b", 0, 1, up("10.0.1.1"))),
			"eu/a/ priority 0 weight 2: 10.0.0.1:80 10.0.0.2:80\neu/b/ priority 0 weight 1: 10.0.1.1:80\n", 0, nil,
		},
		"pods without a zone": {rawCLA(rawLocality("", "", 0, 1, up("10.0.0.1"))), "// priority 0 weight 1: 10.0.0.1:80\n", 0, nil},
		"pods that are not ready": {
			rawCLA(rawLocality("eu", "a", 0, 2, up("10.0.0.1"), rawEndpoint("10.0.0.2", 80, 2, 1), rawEndpoint("10.0.0.3", 80, 3, 1), rawEndpoint("10.0.0.4", 80, 4, 1),
				rawEndpoint("10.0.0.5", 80, 5, 1), rawEndpoint("10.0.0.6", 80, 6, 1), rawEndpoint("10.0.0.7", 80, 256, 1), rawEndpoint("10.0.0.8", 80, 0, 1))),
			"eu/a/ priority 0 weight 2: 10.0.0.1:80 10.0.0.8:80(weight 1, health 0)\n", 6, nil,
		},
		"failover": {
			rawCLA(rawLocality("us", "a", 1, 1, up("10.2.0.1")), rawLocality("eu", "a", 0, 1, up("10.1.0.1")), rawLocality("eu", "b", 1, 1, up("10.1.1.1"))),
			"eu/a/ priority 0 weight 1: 10.1.0.1:80\nus/a/ priority 1 weight 1: 10.2.0.1:80\neu/b/ priority 1 weight 1: 10.1.1.1:80\n", 0, nil,
		},
		"distribute: a locality without a weight gets no calls": {
			rawCLA(rawLocality("eu", "a", 0, 80, up("10.1.0.1")), rawLocality("eu", "b", 0, 0, up("10.1.1.1")), rawLocality("us", "a", 0, 20)),
			"eu/a/ priority 0 weight 80: 10.1.0.1:80\nus/a/ priority 0 weight 20:\n", 0, nil,
		},
		"no locality has a weight: each counts by its endpoints": {
			rawCLA(rawLocality("eu", "a", 0, 0, rawEndpoint("10.1.0.1", 80, 1, 3), up("10.1.0.2")), rawLocality("eu", "b", 0, 0, up("10.1.1.1"))),
			"eu/a/ priority 0 weight 4: 10.1.0.1:80(weight 3, health 1) 10.1.0.2:80\neu/b/ priority 0 weight 1: 10.1.1.1:80\n", 0, nil,
		},
		"weights": {
			rawCLA(rawLocality("eu", "a", 0, 1, rawEndpoint("10.0.0.1", 80, 1, 127), rawEndpoint("10.0.0.2", 80, 1, 128), rawEndpoint("10.0.0.3", 80, 1, 0), rawEndpoint("10.0.0.4", 80, 1, 0).wrap(4, 0))),
			"eu/a/ priority 0 weight 1: 10.0.0.1:80(weight 127, health 1) 10.0.0.2:80(weight 128, health 1) 10.0.0.3:80\n", 0,
			[]string{"endpoints[*].lb_endpoints[10.0.0.4:80].load_balancing_weight (0)"},
		},
		"the same address twice: the first is kept": {
			rawCLA(rawLocality("eu", "a", 1, 1, up("10.0.0.1"), up("10.0.0.2"), up("10.0.0.1")), rawLocality("eu", "b", 0, 1, up("10.0.0.2"), rawEndpoint("10.0.0.2", 81, 1, 1), up("::ffff:10.0.0.2"))),
			"eu/b/ priority 0 weight 1: 10.0.0.2:80 10.0.0.2:81\neu/a/ priority 1 weight 1: 10.0.0.1:80\n", 0, nil,
		},
		"IPv6 and every form of port": {
			rawCLA(rawLocality("eu", "a", 0, 1, up("2001:db8::1"), rawEndpoint("fe80::1%eth0", 443, 1, 1), rawEndpoint("10.0.0.1", 1, 1, 1), rawEndpoint("10.0.0.1", 127, 1, 1),
				rawEndpoint("10.0.0.1", 16384, 1, 1), rawEndpoint("10.0.0.1", 65535, 1, 1))),
			"eu/a/ priority 0 weight 1: [2001:db8::1]:80 [fe80::1%eth0]:443 10.0.0.1:1 10.0.0.1:127 10.0.0.1:16384 10.0.0.1:65535\n", 0, nil,
		},
		"several addresses: the first is called": {
			rawCLA(rawLocality("eu", "a", 0, 1, rawProto{}.num(2, 1).msg(1, rawProto{}.msg(1, rawProto{}.msg(1, rawProto{}.text(2, "10.0.0.1").num(3, 80))).msg(4, rawProto{}, more("fd00::1", 80), more("db.example.org", 80))))),
			"eu/a/ priority 0 weight 1: 10.0.0.1:80 also [[fd00::1]:80]\n", 0,
			[]string{"endpoints[*].lb_endpoints[*].endpoint.additional_addresses (*)", "endpoints[*].lb_endpoints[*].endpoint.additional_addresses (db.example.org:80)"},
		},
		"what few endpoints have": {
			rawCLA(rawLocality("eu", "a", 0, 1,
				up("10.0.0.1").msg(3, rawProto{}.entry(1, "envoy.lb", rawStruct("hash_key", "first"))),
				rawProto{}.msg(1, rawProto{}.msg(1, rawProto{}.msg(1, rawProto{}.text(2, "10.0.0.2").num(3, 80))).text(3, "pod-2")),
				up("10.0.0.3").msg(3, rawProto{}.entry(1, "envoy.lb", rawStruct("canary", "yes")).entry(2, "envoy.lb", nil)))),
			"eu/a/ priority 0 weight 1: 10.0.0.1:80map[tlsMode:\"istio\"] key first 10.0.0.2:80(weight 1, health 0) named pod-2 10.0.0.3:80map[tlsMode:\"istio\"]\n", 0, nil,
		},
		"what cannot be called": {
			rawCLA(rawLocality("eu", "a", 0, 1, rawEndpoint("db.example.org", 80, 1, 1), rawEndpoint("10.0.0.1", 0, 1, 1), rawEndpoint("10.0.0.01", 80, 1, 1), up(""),
				rawSocketEndpoint(rawProto{}.text(2, "10.0.0.1").num(3, 80).text(4, "http")), rawProto{}.msg(1, rawProto{}.msg(1, rawProto{}.msg(2, rawProto{}.text(1, "/run/x.sock")))),
				rawProto{}.text(5, "named"), rawProto{}, up("10.0.0.9"))),
			"eu/a/ priority 0 weight 1: 10.0.0.9:80\n", 0,
			[]string{
				"endpoints[*].lb_endpoints[db.example.org:80].endpoint.address (not an IP address with a port)",
				"endpoints[*].lb_endpoints[10.0.0.1:0].endpoint.address (not an IP address with a port)",
				"endpoints[*].lb_endpoints[10.0.0.01:80].endpoint.address (not an IP address with a port)",
				"endpoints[*].lb_endpoints[:80].endpoint.address (not an IP address with a port)",
				"endpoints[*].lb_endpoints[*].endpoint.address (not an IP address with a port)",
			},
		},
		"fields in another order, twice, and unknown ones": {
			rawCLA(rawProto{}.num(5, 3).wrap(3, 7).msg(2, rawProto{}.wrap(4, 5).num(2, 2).num(2, 1).num(99, 7).
				msg(1, rawProto{}.text(3, "hostname").msg(1, rawProto{}.msg(1, rawProto{}.num(3, 80))).msg(1, rawProto{}.msg(1, rawProto{}.text(2, "10.0.0.1"))))).
				msg(1, rawProto{}.text(3, "rack").text(1, "eu"))),
			"eu//rack priority 3 weight 7: 10.0.0.1:80(weight 5, health 1) named hostname\n", 0, nil,
		},
		"calls to be dropped": {
			rawCLA(rawLocality("", "", 0, 1, up("10.0.0.1"))).msg(4, rawProto{}.wrap(3, 150).num(6, 1).
				msg(2, rawProto{}.text(1, "lb").msg(2, rawProto{}.num(1, 5)), rawProto{}.text(1, "off").msg(2, rawProto{}))),
			"overprovided 150, lb drops 50000 ppm\n// priority 0 weight 1: 10.0.0.1:80\n", 0, []string{"policy.weighted_priority_health"},
		},
		"endpoints from elsewhere": {
			rawCLA(rawProto{}.msg(7, rawProto{}).msg(8, rawProto{})), "// priority 0 weight 0:\n", 0,
			[]string{"endpoints[*].load_balancer_endpoints", "endpoints[*].leds_cluster_locality_config"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeResource(kindEndpoints, test.raw)
			if err != nil {
				t.Fatal(err)
			}
			a := got.value.(*assignment)
			if text := a.describe(); text != test.want || a.cluster != reviews || got.name != reviews {
				t.Errorf("%s\n%s\nwant\n%s", a.cluster, text, test.want)
			}
			if len(a.others) != test.unusable || !reflect.DeepEqual(got.ignored, test.ignored) {
				t.Errorf("%d unusable, ignores %q", len(a.others), got.ignored)
			}
		})
	}
}

func TestAssignmentThatIsRejected(t *testing.T) {
	second := func(m rawProto) rawProto {
		return rawCLA(rawLocality("", "", 0, 1, rawEndpoint("10.0.0.1", 80, 1, 1), m))
	}
	heavy := rawProto{}.wrap(4, math.MaxUint32)
	const at = "endpoints[0].lb_endpoints[1]."
	for want, raw := range map[string]rawProto{
		"endpoints[0].lb_endpoints: more than 1048576 list elements in one resource": rawCLA(bytes.Repeat(rawProto{}.msg(2, nil), maxElements)),
		"cluster_name: missing": rawProto{}.msg(2, rawProto{}),
		at + "endpoint.address.socket_address.port_value: 65536 is not a port":              second(rawEndpoint("10.0.0.2", 65536, 1, 1)),
		at + "endpoint.address.socket_address.address: wire type 0 instead of 2":            second(rawSocketEndpoint(rawProto{}.num(2, 1))),
		at + "endpoint.address: wire type 0 instead of 2":                                   second(rawProto{}.msg(1, rawProto{}.num(1, 1))),
		at + "load_balancing_weight.value: wire type 2 instead of 0":                        second(rawEndpoint("10.0.0.2", 80, 1, 0).msg(4, rawProto{}.text(1, "x"))),
		at + "health_status: wire type 2 instead of 0":                                      second(rawProto{}.text(2, "x")),
		"endpoints[1].lb_endpoints: wire type 0 instead of 2":                               rawCLA(rawLocality("", "", 0, 1), rawProto{}.num(2, 1)),
		"endpoints[1].priority: wire type 2 instead of 0":                                   rawCLA(rawLocality("", "", 0, 1), rawProto{}.text(5, "")),
		"endpoints[1].locality.zone: invalid UTF-8":                                         rawCLA(rawLocality("", "", 0, 1), rawLocality("", "\xff", 0, 1)),
		"endpoints[0].lb_endpoints: the weights add up to 8589934590, more than 4294967295": rawCLA(rawLocality("", "", 0, 1, append(rawEndpoint("10.0.0.1", 80, 1, 0), heavy...), append(rawEndpoint("10.0.0.2", 80, 1, 0), heavy...))),
		"endpoints: the weights of priority 1 add up to 4294967296, more than 4294967295":   rawCLA(rawLocality("", "", 0, math.MaxUint32), rawLocality("", "", 1, math.MaxUint32), rawLocality("", "", 1, 1)),
		"policy.drop_overloads[0].drop_percentage.denominator: unknown value 5":             rawCLA().msg(4, rawProto{}.msg(2, rawProto{}.msg(2, rawProto{}.num(2, 5)))),
	} {
		if got, err := decodeResource(kindEndpoints, raw); err == nil || err.Error() != want || got.value != nil {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestAddressesAreReadAsNetipReadsThem(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "255.255.255.255", "1.2.3.4", "10.20.30.40", "100.200.100.200", "256.1.1.1", "1.256.1.1", "1.1.1.256", "01.2.3.4", "1.2.3.04", "1.2.3", "1.2.3.4.5", "1.2.3.4.",
		".1.2.3.4", "1..2.3", "1.2.3.", "", "a.b.c.d", "1.2.3.4a", "1.2.3.4 ", "1111.2.3.4", "::", "::1", "::1.2.3.4", "2001:db8::8a2e:370:7334", "fe80::1%lo", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "::ffff:1.2.3.4", "[::1]",
		"1::", "1::2", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6::8", "1:2:3:4:5:6:7::8", "::1:2:3:4:5:6:7:8", "1::2::3", ":::", ":", "1:", ":1", "1:::2", "12345::", "0001::", "FFFF::abCD", "::g",
		"fd00:10:244::1f", "::ffff:102:304", "::ffff:0:1.2.3.4",
	} {
		want, err := netip.ParseAddr(s)
		got, ok := parseIP([]byte(s))
		if ok != (err == nil) || got != want.Unmap() {
			t.Errorf("%q: %v %v, want %v %v", s, got, ok, want, err)
		}
	}
}

// The short way and the general one must not differ in what they understand.
func checkUsualEndpoint(t *testing.T, raw []byte) {
	t.Helper()
	var short, general endpoint
	f := filling{decoding: &decoding{}, assignment: &assignment{}}
	if !f.usualEndpoint(raw, &short) {
		return
	}
	f = filling{decoding: &decoding{}, assignment: &assignment{}}
	if use, err := f.unusualEndpoint(raw, &general); !use || err != nil || short.health.usable() != general.health.usable() || short.health.usable() && short != general {
		t.Errorf("%x: %+v, in general %+v, %v, %v", raw, short, general, use, err)
	}
}

func TestUsualEndpointIsWhatIstiodSends(t *testing.T) {
	e := rawEndpoint("10.244.13.7", 50052, 1, 1)
	var got endpoint
	want := endpoint{addr: netip.MustParseAddrPort("10.244.13.7:50052"), weight: 1, health: healthHealthy, labels: 1}
	var f filling
	if !f.usualEndpoint(e, &got) || got != want {
		t.Errorf("not taken, or taken for %+v", got)
	}
	for i := range e { // every byte wrong in every way
		for b := range 256 {
			damaged := slices.Clone(e)
			damaged[i] = byte(b)
			checkUsualEndpoint(t, damaged)
		}
		checkUsualEndpoint(t, e[:i])
	}
}

func TestTenThousandEndpointsTakeFewAllocations(t *testing.T) {
	var v6 []rawProto
	for i := range 10_000 {
		v6 = append(v6, rawEndpoint(fmt.Sprintf("fd00:10:244:%x::%x", i>>8, i), 50052, 1, 1))
	}
	for name, raw := range map[string]rawProto{"IPv4": rawAssignment(10_000), "IPv6": rawCLA(rawLocality("eu", "a", 0, 1, v6...))} {
		allocs := leastAllocs(2, func() {
			if got, err := decodeResource(kindEndpoints, raw); err != nil || len(got.value.(*assignment).endpoints) != 10_000 {
				t.Fatal(err)
			}
		})
		if allocs > 30 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}
