package proxyless

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
	inlineKey []byte // never shown; PEM of certificate and key, for secretInline
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
