package proxyless

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"hash/maphash"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
			s := newScript(t, want)
			got := s.run(want)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("output differs from the script; got:\n%s", got)
			}
			if s.only {
				return
			}
			// In the other protocol the requests differ, and nothing else does.
			other := newScript(t, want)
			other.delta, other.translate = true, true
			if got, want := withoutRequests(other.run(want)), withoutRequests(got); !bytes.Equal(got, want) {
				t.Errorf("output in delta differs from the script; got:\n%s", got)
			}
		})
	}
}

// withoutRequests leaves out what is sent.
func withoutRequests(script []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(script) {
		if !bytes.HasPrefix(line, []byte("> send")) {
			out.Write(line)
		}
	}
	return out.Bytes()
}

// script is one run of a script.
type script struct {
	t   *testing.T
	d   *discovery
	now time.Time
	out bytes.Buffer

	delta     bool // the protocol
	only      bool // the script is meant for one protocol
	translate bool // the script is written in SotW: say in removed_resources what a full response leaves out
	sent      [kindCount]map[string]bool

	pending adsResponse
}

// newScript reads the lines at the start that say what the script is for.
func newScript(t *testing.T, text []byte) *script {
	s := &script{t: t, d: newDiscovery(15 * time.Second), now: time.Unix(0, 0)}
	s.d.decode, s.d.nameOf, s.d.decodeTable = decodeToy, nameToy, decodeToyTable
	for k := range s.sent {
		s.sent[k] = map[string]bool{}
	}
	for line := range strings.Lines(string(text)) {
		switch words := strings.Fields(line); {
		case len(words) == 0:
		case words[0] == "protocol":
			s.only, s.delta = true, words[1] == "delta"
		case words[0] == "view":
			s.d.useFullView("ns", "x")
		}
	}
	return s
}

// run repeats the input lines and puts the machine's output below each event.
func (s *script) run(text []byte) []byte {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, ">") {
			continue
		}
		if resource, ok := strings.CutPrefix(line, "  "); ok {
			s.resource(resource)
		} else {
			s.flush()
		}
		s.out.WriteString(line + "\n")
		if !strings.HasPrefix(line, "  ") {
			s.handle(line)
		}
	}
	s.flush()
	return bytes.Clone(s.out.Bytes())
}

// resource takes a resource of a response, "- NAME" for one that was removed.
func (s *script) resource(text string) {
	if name, ok := strings.CutPrefix(text, "- "); ok {
		s.pending.removed = append(s.pending.removed, name)
		return
	}
	raw := rawResource{typeURL: s.pending.typeURL, value: []byte(text)}
	if words := strings.Fields(text); len(words) > 1 && strings.HasPrefix(words[1], "@") {
		raw.version = words[1][1:]
		raw.value = []byte(strings.Replace(text, " "+words[1], "", 1))
	}
	s.pending.resources = append(s.pending.resources, raw)
}

func (s *script) flush() {
	if s.pending.typeURL == "" {
		return
	}
	if s.translate {
		s.nameRemoved()
	}
	s.d.receive(s.now, s.pending)
	s.pending = adsResponse{}
	printOutcome(&s.out, s.d.take())
}

// nameRemoved does what a control plane does in delta: it names what is gone.
func (s *script) nameRemoved() {
	k, _ := kindOf(s.pending.typeURL)
	if !k.fullState() {
		return
	}
	now := map[string]bool{}
	for _, raw := range s.pending.resources {
		name := string(nameToy(k, raw.value))
		if name == "" { // the script says that absence proves nothing then
			now = s.sent[k]
			break
		}
		now[name] = true
	}
	for name := range s.sent[k] {
		if !now[name] {
			s.pending.removed = append(s.pending.removed, name)
		}
	}
	slices.Sort(s.pending.removed)
	s.sent[k] = now
}

func (s *script) handle(line string) {
	event, rest, _ := strings.Cut(line, " ")
	switch args := strings.Fields(rest); event {
	case "", "#", "protocol", "view":
		return
	case "refer":
		s.d.refer(s.now, args[0])
	case "release":
		s.d.release(s.now, args[0])
	case "connect":
		s.d.connect(s.now, s.delta)
	case "disconnect":
		s.d.disconnect()
	case "after":
		pause, err := time.ParseDuration(args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(pause)
		s.d.tick(s.now)
	case "resolved":
		s.resolved(args[0], args[1:])
	case "receive":
		s.pending = adsResponse{typeURL: toyType(args[0]), version: args[1], nonce: args[2]}
		return
	default:
		s.t.Fatalf("unknown event %q", line)
	}
	printOutcome(&s.out, s.d.take())
}

func (s *script) resolved(host string, words []string) {
	if words[0] == "fails:" {
		s.d.resolved(s.now, host, nil, strings.Join(words[1:], " "))
		return
	}
	var addrs []netip.Addr
	for _, word := range words {
		addrs = append(addrs, netip.MustParseAddr(word))
	}
	s.d.resolved(s.now, host, addrs, "")
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
func nameToy(_ kind, b []byte) []byte {
	name, _, _ := bytes.Cut(b, []byte(" "))
	return bytes.TrimPrefix(name, []byte("?"))
}

// decodeToy reads "name", "name -> next next", "name bad" and, for endpoints,
// "name = address address"; of the full view what the functions below read.
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
		d.value = toyListener(words, next)
	case kindRoute:
		if len(words) > 1 && words[1] == ":" {
			d.value = toyTable(words[0], strings.Join(next, " "))
			break
		}
		d.value = &routeConfig{name: words[0], virtualHosts: []virtualHost{{routes: []route{toyRoute(next)}}}}
	case kindCluster:
		d.value = toyCluster(words, next)
	case kindEndpoints:
		d.value = toyAssignment(words[0], next)
	}
	return d, nil
}

// toyListener reads "name routes ROUTE" (a sidecar's, on the way out), "name
// to CLUSTER" (TCP) and "name inbound plain|tls|filtered...".
func toyListener(words, next []string) *listener {
	l := &listener{name: words[0]}
	verb := ""
	if len(words) > 1 {
		verb = words[1]
	}
	for i, word := range next {
		switch {
		case verb == "routes":
			l.outbound = append(l.outbound, outboundChain{http: &forwarding{routeName: word}})
		case verb == "to":
			l.outbound = append(l.outbound, outboundChain{clusters: []weightedCluster{{name: word, weight: 1}}, total: 1})
		case verb == "inbound":
			chain := filterChain{name: word, match: chainMatch{transport: "raw_buffer"}}
			if strings.HasPrefix(word, "tls") {
				chain.tls = &tlsContext{}
				chain.match.transport = "tls"
			}
			if strings.Contains(word, "filtered") {
				chain.failure = "rbac"
			}
			l.inbound = append(l.inbound, chain)
		case i == 0:
			l.routeName = word
		}
	}
	return l
}

func toyRoute(clusters []string) route {
	r := route{}
	for _, name := range clusters {
		r.clusters = append(r.clusters, weightedCluster{name: name, weight: 1})
	}
	return r
}

// toyTable reads "name : domain domain -> cluster cluster | domain -> cluster".
// The virtual host is called by its last domain that is not "*".
func toyTable(name, text string) *routeConfig {
	r := &routeConfig{name: name}
	for part := range strings.SplitSeq(text, " | ") {
		domains, clusters, _ := strings.Cut(part+" ", "-> ")
		h := virtualHost{domains: strings.Fields(domains), routes: []route{toyRoute(strings.Fields(clusters))}}
		for _, domain := range h.domains {
			if domain != "*" {
				h.name = domain
			}
		}
		r.virtualHosts = append(r.virtualHosts, h)
	}
	return r
}

func decodeToyTable(b []byte, wanted func([]byte) bool, digest *maphash.Hash) (decoded, error) {
	d, err := decodeToy(kindRoute, b)
	if err != nil {
		return d, err
	}
	r := d.value.(*routeConfig)
	r.virtualHosts = slices.DeleteFunc(r.virtualHosts, func(h virtualHost) bool {
		return !slices.ContainsFunc(h.domains, func(domain string) bool { return wanted([]byte(domain)) })
	})
	for i := range r.virtualHosts {
		fmt.Fprint(digest, r.virtualHosts[i])
	}
	return d, nil
}

// toyCluster reads "name -> ASSIGNMENT", "name dns HOST:PORT...", "name one
// HOST:PORT" (logical DNS), "name at ADDRESS...", "name of CLUSTER...", "name
// passthrough" and "name original" (ORIGINAL_DST, with EDS).
func toyCluster(words, next []string) *cluster {
	c := &cluster{name: words[0], edsName: words[0]}
	if len(words) == 1 {
		return c
	}
	switch words[1] {
	case "->":
		c.edsName = next[0]
	case "dns", "one":
		c.source = discoverStrictDNS
		if words[1] == "one" {
			c.source = discoverLogicalDNS
		}
		for i, name := range next {
			host, port := splitPort(name)
			n, _ := strconv.Atoi(port)
			c.names = append(c.names, dnsName{host: host, port: uint16(n), weight: 1, priority: uint32(i)})
		}
	case "at":
		c.source, c.inline = discoverStatic, toyAssignment(words[0], next)
	case "of":
		c.source, c.children = discoverAggregate, next
	case "passthrough":
		c.source = discoverPassthrough
	case "original":
		c.originalDst = true
	}
	return c
}

func toyAssignment(name string, addresses []string) *assignment {
	a := &assignment{cluster: name}
	for _, addr := range addresses {
		a.endpoints = append(a.endpoints, endpoint{addr: netip.MustParseAddrPort(addr), weight: 1})
	}
	return a
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
		if r.reason != "" {
			fmt.Fprintf(out, " (%s)", r.reason)
		}
		printValue(out, r.value)
		out.WriteByte('\n')
	}
	if len(o.affected) > 0 {
		fmt.Fprintf(out, "> affected %v\n", o.affected)
	}
	for i := range o.requests {
		printRequest(out, &o.requests[i])
	}
	if len(o.lookUp) > 0 {
		out.WriteString("> look up")
		for _, name := range o.lookUp {
			out.WriteString(" " + name.host)
		}
		out.WriteByte('\n')
	}
	if len(o.stopped) > 0 {
		fmt.Fprintf(out, "> stop looking up %v\n", o.stopped)
	}
	if o.stalled {
		out.WriteString("> stalled\n")
	}
	if o.counts.unchanged > 0 {
		fmt.Fprintf(out, "> unchanged %d\n", o.counts.unchanged)
	}
}

// printValue shows what the machine has derived or made by itself.
func printValue(out *bytes.Buffer, value any) {
	switch v := value.(type) {
	case *listener:
		for _, chain := range v.inbound {
			fmt.Fprintf(out, " takes %s", chain.name)
		}
	case *routeConfig:
		if v.settled {
			fmt.Fprintf(out, " leads to %v", v.clusterNames(nil))
		}
	case *assignment:
		if madeHere(v.cluster) {
			for i := range v.endpoints {
				fmt.Fprintf(out, " %s", v.endpoints[i].addr)
			}
		}
	}
}

func printRequest(out *bytes.Buffer, r *adsRequest) {
	switch {
	case !r.delta:
		fmt.Fprintf(out, "> send %s version %q nonce %q names %v", r.kind, r.version, r.nonce, r.names)
	case r.nonce != "":
		fmt.Fprintf(out, "> send %s nonce %q", r.kind, r.nonce)
	default:
		fmt.Fprintf(out, "> send %s", r.kind)
		for _, name := range r.subscribe {
			fmt.Fprintf(out, " +%s", name)
		}
		for _, name := range r.unsubscribe {
			fmt.Fprintf(out, " -%s", name)
		}
		for _, held := range r.retained {
			fmt.Fprintf(out, " %s@%s", held.name, held.version)
		}
	}
	if r.nack != "" {
		fmt.Fprintf(out, " NACK %s", r.nack)
	}
	out.WriteByte('\n')
}

// TestDiscoveryForgetsEverything says that nothing is held for names that
// nobody refers to any more.
func TestDiscoveryForgetsEverything(t *testing.T) {
	d := newDiscovery(time.Second)
	d.decode, d.nameOf = decodeToy, nameToy
	now := time.Unix(0, 0)
	d.refer(now, "p")
	d.connect(now, false)
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
