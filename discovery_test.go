package proxyless

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata; read the diff before committing it")

// TestDiscoveryScripts runs the scripts of testdata/ads: events in, requests
// and changes out. Lines that start with '>' are output; -update rewrites
// them. testdata/ads/README.md describes the language.
func TestDiscoveryScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/ads/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, want)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("output differs from the script; got:\n%s", got)
			}
		})
	}
}

// runScript repeats the input lines and puts the machine's output below each
// event.
func runScript(t *testing.T, script []byte) []byte {
	d := newDiscovery(15 * time.Second)
	d.decode, d.nameOf = decodeToy, nameToy
	now := time.Unix(0, 0)
	var out bytes.Buffer
	var pending adsResponse
	flush := func() {
		if pending.typeURL != "" {
			d.receive(now, pending)
			pending = adsResponse{}
			printOutcome(&out, d.take())
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, ">") {
			continue
		}
		if resource, ok := strings.CutPrefix(line, "  "); ok {
			pending.resources = append(pending.resources, rawResource{typeURL: pending.typeURL, value: []byte(resource)})
			out.WriteString(line + "\n")
			continue
		}
		flush()
		out.WriteString(line + "\n")
		event, rest, _ := strings.Cut(line, " ")
		switch args := strings.Fields(rest); event {
		case "", "#":
			continue
		case "refer":
			d.refer(now, args[0])
		case "release":
			d.release(now, args[0])
		case "connect":
			d.connect(now)
		case "disconnect":
			d.disconnect()
		case "after":
			pause, err := time.ParseDuration(args[0])
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(pause)
			d.tick(now)
		case "receive":
			pending = adsResponse{typeURL: toyType(args[0]), version: args[1], nonce: args[2]}
			continue
		default:
			t.Fatalf("unknown event %q", line)
		}
		printOutcome(&out, d.take())
	}
	flush()
	return out.Bytes()
}

func toyType(word string) string {
	for k := range kindCount {
		if k.String() == word {
			return k.typeURL()
		}
	}
	return typePrefix + word
}

// nameToy is the first word; "?" stands for none.
func nameToy(_ kind, b []byte) string {
	name, _, _ := strings.Cut(string(b), " ")
	return strings.TrimPrefix(name, "?")
}

// decodeToy reads "name", "name -> next next", "name bad" and, for endpoints,
// "name = address address".
func decodeToy(k kind, b []byte) (decoded, error) {
	words := strings.Fields(string(b))
	if len(words) > 1 {
		switch words[1] {
		case "bad":
			return decoded{name: words[0]}, errors.New("it is bad")
		case "panic":
			panic("oops")
		}
	}
	next := words[min(2, len(words)):]
	d := decoded{name: words[0]}
	switch k {
	case kindListener:
		l := &listener{name: words[0]}
		if len(next) > 0 {
			l.routeName = next[0]
		}
		d.value = l
	case kindRoute:
		r := route{}
		for _, name := range next {
			r.clusters = append(r.clusters, weightedCluster{name: name, weight: 1})
		}
		d.value = &routeConfig{name: words[0], virtualHosts: []virtualHost{{routes: []route{r}}}}
	case kindCluster:
		c := &cluster{name: words[0], edsName: words[0]}
		if len(next) > 0 {
			c.edsName = next[0]
		}
		d.value = c
	case kindEndpoints:
		a := &assignment{cluster: words[0]}
		for _, addr := range next {
			a.endpoints = append(a.endpoints, endpoint{addr: netip.MustParseAddrPort(addr), weight: 1})
		}
		d.value = a
	}
	return d, nil
}

func printOutcome(out *bytes.Buffer, o outcome) {
	for _, r := range o.removed {
		fmt.Fprintf(out, "> removed %s %s\n", r.kind, r.name)
	}
	for _, r := range o.changed {
		fmt.Fprintf(out, "> changed %s %s: %s", r.kind, r.name, r.status)
		if r.version != "" {
			fmt.Fprintf(out, " version %s", r.version)
		}
		if len(r.ports) > 0 {
			fmt.Fprintf(out, " ports %v", r.ports)
		}
		if r.rejection != "" {
			fmt.Fprintf(out, " rejected %s: %s", r.rejectedVersion, r.rejection)
		}
		out.WriteByte('\n')
	}
	if len(o.affected) > 0 {
		fmt.Fprintf(out, "> affected %v\n", o.affected)
	}
	for _, r := range o.requests {
		fmt.Fprintf(out, "> send %s version %q nonce %q names %v", r.kind, r.version, r.nonce, r.names)
		if r.nack != "" {
			fmt.Fprintf(out, " NACK %s", r.nack)
		}
		out.WriteByte('\n')
	}
	if o.stalled {
		out.WriteString("> stalled\n")
	}
	if o.counts.unchanged > 0 {
		fmt.Fprintf(out, "> unchanged %d\n", o.counts.unchanged)
	}
}

// TestDiscoveryForgetsEverything says that nothing is held for names that
// nobody refers to any more.
func TestDiscoveryForgetsEverything(t *testing.T) {
	d := newDiscovery(time.Second)
	d.decode, d.nameOf = decodeToy, nameToy
	now := time.Unix(0, 0)
	d.refer(now, "p")
	d.connect(now)
	for k, text := range []string{"p:1 -> r", "r -> a b", "a", "a = 10.0.0.1:1"} {
		d.receive(now, adsResponse{typeURL: kind(k).typeURL(), resources: []rawResource{{typeURL: kind(k).typeURL(), value: []byte(text)}}})
	}
	d.release(now, "p")
	d.take()
	d.disconnect() // until then the last listener and its chain are held
	d.take()
	for k := range d.entries {
		if len(d.entries[k]) > 0 || len(d.types[k].wanted) > 0 {
			t.Errorf("%s: %d entries, names %v", kind(k), len(d.entries[k]), d.types[k].wanted)
		}
	}
}

func TestSplitPort(t *testing.T) {
	for name, want := range map[string][2]string{
		"p": {"p", ""}, "p:1": {"p", "1"}, "p.ns.svc:80": {"p.ns.svc", "80"}, "10.0.0.1:80": {"10.0.0.1", "80"},
		"::1": {"::1", ""}, "[::1]:80": {"[::1]", "80"}, "xds.istio.io/grpc/lds/inbound/10.0.0.1:50052": {"xds.istio.io/grpc/lds/inbound/10.0.0.1", "50052"},
	} {
		if host, port := splitPort(name); !slices.Equal([]string{host, port}, want[:]) {
			t.Errorf("splitPort(%q) = %q, %q, want %q", name, host, port, want)
		}
	}
}
