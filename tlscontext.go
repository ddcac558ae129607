package proxyless

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// tlsContext is what is kept of an UpstreamTlsContext or DownstreamTlsContext:
// how a connection is encrypted, what is shown to the peer and what is asked of
// it. It names secrets and holds none, so that a certificate is renewed without
// touching a connection. It is immutable.
type tlsContext struct {
	text     string     // equal for contexts that are equal in all that follows, and only for those
	failure  string     // the field that cannot be obeyed, and why: every handshake fails with it; empty for none
	identity secretRef  // the certificate that is shown; none of some clients
	roots    secretRef  // what the peer's certificate is verified with; none where it is not verified
	names    []sanMatch // of which the peer's certificate has to have one; empty for any
	hashes   [][32]byte // verify_certificate_hash: SHA-256 of the peer's certificate, one of which has to be it
	keys     [][32]byte // verify_certificate_spki: likewise of its public key
	alpn     []string   // alpn_protocols
	versions [2]uint16  // least and greatest, as crypto/tls counts them; 0 is the default
	ciphers  []uint16   // of TLS 1.2; empty is Go's choice
	curves   []uint16   // tls.CurveID; empty is Go's choice

	// Of an UpstreamTlsContext.
	sni     string // what is asked for; empty for none
	hostSNI bool   // auto_host_sni: the endpoint's hostname in its place, where it has one
	sameSNI bool   // auto_sni_san_validation: the certificate has to have it among its DNS names

	// Of a DownstreamTlsContext.
	demands bool // require_client_certificate
	needSNI bool // require_sni
}

// needsWorkload says that a handshake needs this workload's own certificate, or
// the roots that came with it.
func (t *tlsContext) needsWorkload() bool {
	return t != nil && (t.identity.kind == secretWorkload || t.roots.kind == secretWorkload)
}

// verifies says that the peer has to prove who it is.
func (t *tlsContext) verifies() bool {
	return t.roots.kind != secretNone || len(t.hashes)+len(t.keys) > 0
}

// fail notes the first field that cannot be obeyed.
func (t *tlsContext) fail(field, why string) {
	if t.failure == "" {
		t.failure = field + " cannot be obeyed: " + why
	}
}

// settle writes the text of a context that is complete. Of what is secret, and
// of what is long, it has a hash.
func (t *tlsContext) settle() *tlsContext {
	var b strings.Builder
	list := func(name string, n int, each func(i int) string) {
		if n == 0 {
			return
		}
		b.WriteString(name + "[")
		for i := range n {
			b.WriteString(either(i > 0, " ", "") + each(i))
		}
		b.WriteString("] ")
	}
	flag := func(name string, set bool) { b.WriteString(either(set, name+" ", "")) }
	fmt.Fprintf(&b, "identity(%s) roots(%s) versions(%x %x) sni(%q) ", t.identity.text(), t.roots.text(), t.versions[0], t.versions[1], t.sni)
	list("names", len(t.names), func(i int) string {
		m := &t.names[i]
		return fmt.Sprintf("%d,%q,%d,%q,%t", m.kind, m.oid, m.text.kind, m.text.text, m.text.foldCase)
	})
	list("hashes", len(t.hashes), func(i int) string { return fmt.Sprintf("%x", t.hashes[i]) })
	list("keys", len(t.keys), func(i int) string { return fmt.Sprintf("%x", t.keys[i]) })
	list("alpn", len(t.alpn), func(i int) string { return fmt.Sprintf("%q", t.alpn[i]) })
	list("ciphers", len(t.ciphers), func(i int) string { return fmt.Sprintf("%x", t.ciphers[i]) })
	list("curves", len(t.curves), func(i int) string { return fmt.Sprintf("%x", t.curves[i]) })
	flag("hostSNI", t.hostSNI)
	flag("sameSNI", t.sameSNI)
	flag("demands", t.demands)
	flag("needSNI", t.needSNI)
	if t.failure != "" {
		fmt.Fprintf(&b, "failure(%q)", t.failure)
	}
	t.text = strings.TrimSuffix(b.String(), " ")
	return t
}

// secretKind is where a secret is found.
type secretKind uint8

const (
	secretNone     secretKind = iota
	secretWorkload            // this workload's own: SDS name "default" or "ROOTCA", or the provider instances that istiod calls so
	secretProvider            // certificate_providers of a bootstrap JSON, by instance name
	secretFile                // "file-cert:CERT~KEY", "file-root:FILE"
	secretSystem              // the system's roots: "file-root:system", system_root_certs
	secretInline              // in the context itself
)

// secretRef names a certificate with its key, or roots.
type secretRef struct {
	kind      secretKind
	name      string // secretProvider: the instance; secretFile: the path of the certificate or roots
	key       string // secretFile: the path of the key
	inline    *trustRoots
	inlineKey []byte   // never shown; PEM of certificate and key, for secretInline
	digest    [32]byte // SHA-256 of what is inline: the certificate with its key, or the roots
}

// text is the reference as part of a context's text.
func (r *secretRef) text() string {
	switch r.kind {
	case secretNone:
		return "none"
	case secretWorkload:
		return "workload"
	case secretProvider:
		return fmt.Sprintf("provider %q", r.name)
	case secretFile:
		return fmt.Sprintf("file %q %q", r.name, r.key)
	case secretSystem:
		return "system"
	}
	return fmt.Sprintf("inline %x", r.digest)
}

// words say what it is that a secret holds, and where it comes from.
func (r *secretRef) words(what string) string {
	switch r.kind {
	case secretWorkload:
		return "the mesh's " + what
	case secretProvider:
		return "the " + what + " of certificate provider " + r.name
	case secretFile:
		return "the " + what + " of " + r.name
	case secretSystem:
		return "the system's " + what
	case secretInline:
		return "the " + what + " in the mesh's configuration"
	}
	return "no " + what
}

// seal notes what tells an inline secret from others.
func (r *secretRef) seal(parts ...[]byte) {
	sum := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(sum, "%d:", len(p))
		sum.Write(p)
	}
	sum.Sum(r.digest[:0])
}

// sanKind is SubjectAltNameMatcher.SanType.
type sanKind uint8

const (
	sanAny   sanKind = iota // match_subject_alt_names: of any kind
	sanEmail                // EMAIL
	sanDNS                  // DNS
	sanURI                  // URI
	sanIP                   // IP_ADDRESS
	sanOther                // OTHER_NAME, by oid
)

// sanMatch is what is kept of a SubjectAltNameMatcher.
type sanMatch struct {
	kind sanKind
	oid  string
	text stringMatch
}

// String is the match in words.
func (m *sanMatch) String() string {
	kind := ""
	switch m.kind {
	case sanAny, sanURI:
	case sanOther:
		kind = "OTHER_NAME " + m.oid + " "
	default:
		kind = sanWords[m.kind] + " "
	}
	word := [...]string{headerPrefix: "prefix ", headerSuffix: "suffix ", headerContains: "containing ", headerRegex: "matching ", headerNever: "nothing "}
	how := ""
	if k := int(m.text.kind); k < len(word) {
		how = word[k]
	}
	return kind + how + m.text.text
}
