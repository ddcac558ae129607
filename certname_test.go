package proxyless

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/proxyless/proxyless/meshtest"
)

// manyNames is a certificate with a name of every kind.
func manyNames(t *testing.T) *x509.Certificate {
	t.Helper()
	cert, err := meshtest.NewAuthority(t).Issue("spiffe://cluster.local/ns/a/sa/b", func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "someone", Organization: []string{"O"}}
		c.EmailAddresses = []string{"a@example.org"}
		c.DNSNames = []string{"A.Example.org", "*.wild.example.org", "w*b.part.example.org"}
		c.IPAddresses = []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP("fd00::1")}
		c.ExtraExtensions = nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf
}

func TestNamesOfCertificates(t *testing.T) {
	leaf := manyNames(t)
	got := certNames(leaf)
	want := []certName{{sanDNS, "", "A.Example.org"}, {sanDNS, "", "*.wild.example.org"}, {sanDNS, "", "w*b.part.example.org"}, {sanEmail, "", "a@example.org"},
		{sanIP, "", "127.0.0.1"}, {sanIP, "", "fd00::1"}, {sanURI, "", "spiffe://cluster.local/ns/a/sa/b"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := principalNames(leaf); !slices.Equal(got, []string{"spiffe://cluster.local/ns/a/sa/b", "A.Example.org", "*.wild.example.org", "w*b.part.example.org", "CN=someone,O=O"}) {
		t.Errorf("rules see %q", got)
	}
	if principalNames(nil) != nil {
		t.Error("nobody has names")
	}
}

// TestNamesAreTakenAsTheyAreWritten: what crypto/x509 makes of a URI may be
// another one.
func TestNamesAreTakenAsTheyAreWritten(t *testing.T) {
	const odd = "spiffe://cluster.local/ns/a/sa/b%2Fc?x#y"
	leaf := rawNames(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(odd)})
	if got := certNames(leaf); len(got) != 1 || got[0].text != odd {
		t.Errorf("got %v", got)
	}
}

// rawNames is a certificate of which nothing but its names was parsed.
func rawNames(t *testing.T, names ...asn1.RawValue) *x509.Certificate {
	t.Helper()
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return &x509.Certificate{Extensions: []pkix.Extension{{Id: subjectAltNames, Value: value}}}
}

func otherNamed(t *testing.T, oid asn1.ObjectIdentifier, tag int, text string) asn1.RawValue {
	t.Helper()
	id, err := asn1.Marshal(oid)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: mustDER(t, asn1.RawValue{Tag: tag, Bytes: []byte(text)})})
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(id, value...)}
}

func mustDER(t *testing.T, v any) []byte {
	t.Helper()
	b, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOddNamesMatchNothing: what cannot be read, and what others would read
// differently, is no name.
func TestOddNamesMatchNothing(t *testing.T) {
	context := func(tag int, b []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: b}
	}
	leaf := rawNames(t,
		context(2, []byte("good.example\x00.evil.example")), context(6, []byte("spiffe://\xff")), context(7, []byte{1, 2, 3}), context(0, []byte("x")),
		asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("x")}, otherNamed(t, asn1.ObjectIdentifier{1, 2, 3}, asn1.TagBoolean, "x"), context(4, nil),
		otherNamed(t, asn1.ObjectIdentifier{1, 2, 3}, asn1.TagUTF8String, "kept"))
	if got := certNames(leaf); len(got) != 1 || got[0] != (certName{sanOther, "1.2.3", "kept"}) {
		t.Errorf("got %v", got)
	}
	for _, value := range [][]byte{nil, {0x30}, {0x30, 0x80}, {0x04, 0x01, 0x00}, {0x30, 0x02, 0x82, 0x05}} {
		if got := certNames(&x509.Certificate{Extensions: []pkix.Extension{{Id: subjectAltNames, Value: value}}}); got != nil {
			t.Errorf("%x: %v", value, got)
		}
	}
}

func TestMatchesOfNames(t *testing.T) {
	match := func(kind sanKind, how headerKind, text string) sanMatch {
		m := sanMatch{kind: kind, text: stringMatch{kind: how, text: text}}
		if how == headerRegex {
			m.text.regex = regexp.MustCompile("^(?:" + text + ")$")
		}
		return m
	}
	fold := match(sanURI, headerExact, "SPIFFE://CLUSTER.LOCAL/ns/a/sa/b")
	fold.text.foldCase = true
	other := match(sanOther, headerExact, "kept")
	other.oid = "1.2.3"
	elsewhere := other
	elsewhere.oid = "1.2.4"
	leaf := manyNames(t)
	with := rawNames(t, otherNamed(t, asn1.ObjectIdentifier{1, 2, 3}, asn1.TagUTF8String, "kept"))
	for _, test := range []struct {
		m    sanMatch
		leaf *x509.Certificate
		want bool
	}{
		{match(sanAny, headerExact, "spiffe://cluster.local/ns/a/sa/b"), leaf, true},
		{match(sanAny, headerExact, "spiffe://cluster.local/ns/a/sa/B"), leaf, false},
		{match(sanAny, headerExact, "spiffe://cluster.local/ns/a/sa/"), leaf, false},
		{fold, leaf, true},
		{match(sanURI, headerPrefix, "spiffe://cluster.local/"), leaf, true},
		{match(sanURI, headerPrefix, "spiffe://cluster.local.evil/"), leaf, false},
		{match(sanURI, headerSuffix, "/sa/b"), leaf, true},
		{match(sanURI, headerContains, "/ns/a/"), leaf, true},
		{match(sanURI, headerRegex, "spiffe://.*/ns/a/.*"), leaf, true},
		{match(sanURI, headerRegex, "spiffe://"), leaf, false},
		{match(sanURI, headerExact, "a.example.org"), leaf, false},
		{match(sanDNS, headerExact, "a.example.org"), leaf, true},
		{match(sanDNS, headerPrefix, "a.example"), leaf, false}, // a pattern, by case
		{match(sanDNS, headerExact, "x.wild.example.org"), leaf, true},
		{match(sanDNS, headerExact, "x.y.wild.example.org"), leaf, false},
		{match(sanDNS, headerExact, "wild.example.org"), leaf, false},
		{match(sanDNS, headerExact, "web.part.example.org"), leaf, true},
		{match(sanDNS, headerExact, "wb.part.example.org"), leaf, false},
		{match(sanDNS, headerSuffix, ".wild.example.org"), leaf, true},
		{match(sanEmail, headerExact, "a@example.org"), leaf, true},
		{match(sanIP, headerExact, "127.0.0.1"), leaf, true},
		{match(sanIP, headerExact, "fd00::1"), leaf, true},
		{match(sanAny, headerExact, "fd00::2"), leaf, false},
		{match(sanDNS, headerExact, "someone"), leaf, false}, // the subject is no name
		{match(sanAny, headerNever, ""), leaf, false},
		{other, with, true},
		{elsewhere, with, false},
		{match(sanAny, headerExact, "kept"), with, false},
	} {
		context := &tlsContext{names: []sanMatch{match(sanAny, headerExact, "nobody"), test.m}}
		if err := context.verifyNames(test.leaf); (err == nil) != test.want {
			t.Errorf("%v: %v", test.m, err)
		}
	}
}

func TestDNSNames(t *testing.T) {
	for _, test := range []struct {
		name, pattern string
		want          bool
	}{
		{"a.b", "A.B", true}, {"", "", false}, {"a", "*", false}, {"a.b", "*.b", true}, {"a.b", "*.*", false}, {"a.b.c", "*.c", false},
		{"xn--a.b", "x*.b", false}, {"xn--a.b", "*.b", true}, {"ab.c", "a**b.c", false}, {".b", "*.b", false}, {"a.b", "a.*", false},
	} {
		if got := dnsNameMatches(test.name, test.pattern); got != test.want {
			t.Errorf("%q %q: %t", test.name, test.pattern, got)
		}
	}
}

// TestErrorsNameBothSides: who was expected and who came, and no control
// characters of a peer's choice.
func TestErrorsNameBothSides(t *testing.T) {
	context := &tlsContext{}
	for i := range 10 {
		context.names = append(context.names, sanMatch{text: stringMatch{kind: headerExact, text: fmt.Sprintf("spiffe://x/ns/n/sa/%d", i)}})
	}
	context.names[1] = sanMatch{kind: sanDNS, text: stringMatch{kind: headerPrefix, text: "api."}}
	err := context.verifyNames(&x509.Certificate{Extensions: rawNames(t,
		asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte("spiffe://evil/\x1b[2J\n" + strings.Repeat("x", 300))}).Extensions})
	if err == nil || !strings.Contains(err.Error(), "expected spiffe://x/ns/n/sa/0, DNS prefix api., ") || !strings.Contains(err.Error(), "2 more, presented ") ||
		strings.ContainsAny(err.Error(), "\x1b\n") || len(err.Error()) > 700 {
		t.Errorf("got %q", err)
	}
	if err := context.verifyNames(&x509.Certificate{Subject: pkix.Name{CommonName: "c"}}); err == nil || !strings.Contains(err.Error(), `no subject alternative name (subject "CN=c")`) {
		t.Errorf("got %v", err)
	}
}
