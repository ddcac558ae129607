package proxyless

import (
	"crypto/x509"
	"encoding/asn1"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// certName is one subject alternative name of a certificate, as it is written
// there: crypto/x509 parses URIs, and what it prints again may be another one.
type certName struct {
	kind sanKind
	oid  string // of sanOther
	text string
}

// mostOfName is how much of a name an error shows.
const mostOfName = 200

// String is the name with its kind, for errors: the peer chose it.
func (n certName) String() string {
	text := n.text
	if len(text) > mostOfName {
		text = strings.ToValidUTF8(text[:mostOfName], "") + "..."
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		text = strconv.Quote(text)
	}
	switch n.kind {
	case sanURI:
		return text
	case sanOther:
		return "OTHER_NAME " + n.oid + " " + text
	}
	return sanWords[n.kind] + " " + text
}

var sanWords = [...]string{sanAny: "any", sanEmail: "EMAIL", sanDNS: "DNS", sanURI: "URI", sanIP: "IP_ADDRESS", sanOther: "OTHER_NAME"}

// subjectAltNames is the id of the extension that has them.
var subjectAltNames = asn1.ObjectIdentifier{2, 5, 29, 17}

// certNames are the subject alternative names of a certificate in their order.
// What cannot be read of them is left out, so that it matches nothing.
func certNames(leaf *x509.Certificate) (names []certName) {
	for _, x := range leaf.Extensions {
		if !x.Id.Equal(subjectAltNames) {
			continue
		}
		var all asn1.RawValue
		if rest, err := asn1.Unmarshal(x.Value, &all); err != nil || len(rest) > 0 || all.Tag != asn1.TagSequence || !all.IsCompound {
			continue
		}
		for rest := all.Bytes; len(rest) > 0; {
			var one asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &one); err != nil {
				break
			}
			if name, ok := readCertName(&one); ok {
				names = append(names, name)
			}
		}
	}
	return names
}

// readCertName reads a GeneralName (RFC 5280, section 4.2.1.6).
func readCertName(v *asn1.RawValue) (n certName, ok bool) {
	if v.Class != asn1.ClassContextSpecific {
		return n, false
	}
	switch v.Tag {
	case 0:
		return readOtherName(v.Bytes)
	case 1:
		n.kind = sanEmail
	case 2:
		n.kind = sanDNS
	case 6:
		n.kind = sanURI
	case 7:
		addr, ok := netip.AddrFromSlice(v.Bytes)
		return certName{kind: sanIP, text: addr.String()}, ok
	default:
		return n, false
	}
	n.text = string(v.Bytes)
	return n, printable(n.text)
}

// readOtherName reads an OtherName whose value is a string.
func readOtherName(b []byte) (n certName, ok bool) {
	var id asn1.ObjectIdentifier
	var outer, value asn1.RawValue
	rest, err := asn1.Unmarshal(b, &id)
	if err != nil {
		return n, false
	}
	if _, err = asn1.Unmarshal(rest, &outer); err != nil || outer.Class != asn1.ClassContextSpecific || outer.Tag != 0 {
		return n, false
	}
	if _, err = asn1.Unmarshal(outer.Bytes, &value); err != nil || value.Class != asn1.ClassUniversal {
		return n, false
	}
	switch value.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString, asn1.TagOctetString, tagVisibleString:
		n = certName{kind: sanOther, oid: id.String(), text: string(value.Bytes)}
		return n, printable(n.text)
	}
	return n, false
}

// tagVisibleString is the tag that encoding/asn1 does not name.
const tagVisibleString = 26

// printable says that a name is text without a zero byte, which other
// implementations may take for its end.
func printable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// matches says that a name is one of those that are meant.
func (m *sanMatch) matches(n *certName) bool {
	switch m.kind {
	case sanAny:
		if n.kind == sanOther {
			return false
		}
	case sanOther:
		if n.kind != sanOther || n.oid != m.oid {
			return false
		}
	default:
		if n.kind != m.kind {
			return false
		}
	}
	if n.kind == sanDNS && m.text.kind == headerExact {
		return dnsNameMatches(m.text.text, n.text)
	}
	return m.text.matches(n.text)
}

// dnsNameMatches says that a DNS name of a certificate, whose first label may
// have one star, covers a name. Case does not count.
func dnsNameMatches(name, pattern string) bool {
	name, pattern = strings.ToLower(name), strings.ToLower(pattern)
	if name == pattern {
		return name != ""
	}
	label, domain, ok := strings.Cut(name, ".")
	first, rest, wild := strings.Cut(pattern, ".")
	if !ok || !wild || domain != rest || label == "" || strings.Contains(rest, "*") {
		return false
	}
	before, after, star := strings.Cut(first, "*")
	switch {
	case !star || strings.Contains(after, "*"):
		return false
	case first == "*":
		return true
	case strings.HasPrefix(first, "xn--") || strings.HasPrefix(label, "xn--"): // part of an encoded label is no label
		return false
	}
	return len(label) >= len(first) && strings.HasPrefix(label, before) && strings.HasSuffix(label, after)
}

// principalNames are the names of a peer that rules see, as Envoy does: its
// URIs, its DNS names, its subject. Nothing is one of no certificate.
func principalNames(leaf *x509.Certificate) (names []string) {
	if leaf == nil {
		return nil
	}
	all := certNames(leaf)
	for _, kind := range [...]sanKind{sanURI, sanDNS} {
		for i := range all {
			if all[i].kind == kind {
				names = append(names, all[i].text)
			}
		}
	}
	return append(names, leaf.Subject.String())
}
