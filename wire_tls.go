package proxyless

import (
	"crypto/tls"
	"fmt"
	"strings"
)

const (
	typeUpstreamTLS   = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
	typeDownstreamTLS = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
	nameTLS           = "envoy.transport_sockets.tls"
	nameRawBuffer     = "envoy.transport_sockets.raw_buffer"
)

// transportSocket reads an envoy.config.core.v3.TransportSocket that is for
// TLS contexts of one kind. It returns nil for plain text: without a socket,
// and with that of raw_buffer. What cannot be obeyed makes a context whose
// handshakes fail, and is named by its path.
func (d *decoding) transportSocket(b []byte, kind, path string) (*tlsContext, error) {
	if b == nil {
		return nil, nil
	}
	var name, packed []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			name = c.raw("name")
		case 3:
			c.message("typed_config", &packed)
		}
	}
	x, err := decodeExtension(packed)
	if c.fail(inField("typed_config", err)); c.err != nil {
		return nil, c.err
	}
	t := &tlsContext{}
	switch {
	case x.name == typeRawBuffer || x.name == "" && string(name) == nameRawBuffer:
		return nil, nil
	case x.name == "" && string(name) == nameTLS:
		t.fail("typed_config", "it has no typed_config")
	case x.name != kind:
		if x.name == "" {
			x.name = string(name)
		}
		t.fail("typed_config", fmt.Sprintf("%q is not supported", x.name))
	case x.json:
		t.fail("typed_config", "a TypedStruct of a TLS context is not supported")
	case kind == typeUpstreamTLS:
		err = d.upstreamTLS(x.value, t)
	default:
		err = d.downstreamTLS(x.value, t)
	}
	if err != nil {
		return nil, inField("typed_config", err)
	}
	if t.failure != "" {
		t.failure = path + "." + t.failure
	}
	return t.settle(), nil
}

// upstreamTLS reads an UpstreamTlsContext.
func (d *decoding) upstreamTLS(b []byte, t *tlsContext) error {
	var common []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("common_tls_context", &common)
		case 2:
			t.sni = c.text("sni")
		case 3:
			if c.scalar("allow_renegotiation") != 0 {
				d.ignore("allow_renegotiation")
			}
		case 6:
			t.hostSNI = c.scalar("auto_host_sni") != 0
		case 7:
			t.sameSNI = c.scalar("auto_sni_san_validation") != 0
		}
	}
	c.fail(inField("common_tls_context", d.commonTLS(common, t)))
	return c.err
}

// downstreamTLS reads a DownstreamTlsContext. Tickets and cached sessions are
// the server's own affair.
func (d *decoding) downstreamTLS(b []byte, t *tlsContext) error {
	var common, demands, needSNI []byte
	stapling := uint64(0)
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("common_tls_context", &common)
		case 2:
			c.message("require_client_certificate", &demands)
		case 3:
			c.message("require_sni", &needSNI)
		case 8:
			stapling = c.scalar("ocsp_staple_policy")
		}
	}
	t.demands = c.flag("require_client_certificate", demands)
	t.needSNI = c.flag("require_sni", needSNI)
	c.fail(inField("common_tls_context", d.commonTLS(common, t)))
	switch {
	case stapling != 0:
		t.fail("ocsp_staple_policy", "OCSP responses are not stapled")
	case t.identity.kind == secretNone:
		t.fail("common_tls_context", "it names no certificate to show")
	case t.demands && !t.verifies():
		t.fail("require_client_certificate", "there are no roots to verify it with")
	}
	return c.err
}

// flag reads a google.protobuf.BoolValue.
func (c *cursor) flag(field string, message []byte) bool {
	value, err := decodeWrapped(message)
	c.fail(inField(field, err))
	return value != 0
}

// tlsParts are the messages inside a CommonTlsContext: its certificate and its
// roots may be said in many ways.
type tlsParts struct {
	params             []byte
	inline, discovered [][]byte // tls_certificates, tls_certificate_sds_secret_configs
	instance, older    []byte   // tls_certificate_provider_instance, and the deprecated one
	validation         oneof    // validation_context_type
}

// commonTLS reads a CommonTlsContext.
func (d *decoding) commonTLS(b []byte, t *tlsContext) error {
	var p tlsParts
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("tls_params", &p.params)
		case 2:
			d.keep(&c, "tls_certificates")
			p.inline = append(p.inline, c.bytes("tls_certificates"))
		case 3, 7, 8, 10, 12:
			p.validation.message(&c, "validation_context_type")
		case 4:
			d.keep(&c, "alpn_protocols")
			t.alpn = append(t.alpn, d.intern(c.raw("alpn_protocols")))
		case 6:
			d.keep(&c, "tls_certificate_sds_secret_configs")
			p.discovered = append(p.discovered, c.bytes("tls_certificate_sds_secret_configs"))
		case 11:
			c.message("tls_certificate_certificate_provider_instance", &p.older)
		case 13:
			t.fail("common_tls_context.custom_handshaker", "there is only one way to shake hands")
		case 14:
			c.message("tls_certificate_provider_instance", &p.instance)
		case 15:
			d.ignore("common_tls_context.key_log")
		case 16:
			t.fail("common_tls_context.custom_tls_certificate_selector", "it is not supported")
		default:
			d.ignore("common_tls_context." + commonTLSUnapplied.name(c.num))
		}
	}
	c.fail(inField("tls_params", d.tlsParams(p.params, t)))
	c.fail(d.ownCertificate(&p, t))
	c.fail(d.validationType(p.validation, t))
	if len(t.names) > 0 && t.roots.kind == secretNone {
		t.fail("common_tls_context", "it names whom to expect, but no roots to verify that with")
	}
	return c.err
}

var commonTLSUnapplied = unapplied{9: "tls_certificate_certificate_provider"}

// tlsProtocols are the values of TlsParameters.TlsProtocol.
var tlsProtocols = [...]uint16{0, tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13}

// tlsParams reads a TlsParameters. What crypto/tls cannot do is noted where
// that only takes a choice away, and fails where it would allow more.
func (d *decoding) tlsParams(b []byte, t *tlsContext) error {
	var ciphers, curves []string
	var versions [2]uint64
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			versions[0] = c.scalar("tls_minimum_protocol_version")
		case 2:
			versions[1] = c.scalar("tls_maximum_protocol_version")
		case 3:
			d.keep(&c, "cipher_suites")
			ciphers = append(ciphers, strings.FieldsFunc(c.text("cipher_suites"), func(r rune) bool { return strings.ContainsRune("[|]:", r) })...)
		case 4:
			d.keep(&c, "ecdh_curves")
			curves = append(curves, strings.Split(c.text("ecdh_curves"), ":")...)
		case 5:
			t.fail("common_tls_context.tls_params.signature_algorithms", "they cannot be chosen")
		case 6:
			t.fail("common_tls_context.tls_params.compliance_policies", "they cannot be chosen")
		}
	}
	for i, v := range versions {
		if v >= uint64(len(tlsProtocols)) {
			t.fail("common_tls_context.tls_params", fmt.Sprintf("the version of TLS %d is not known", v))
			return c.err
		}
		t.versions[i] = tlsProtocols[v]
	}
	d.tlsVersions(t)
	d.tlsCiphers(ciphers, t)
	d.tlsCurves(curves, t)
	return c.err
}

// tlsVersions sees to it that TLS is at least 1.2, which HTTP/2 demands.
func (d *decoding) tlsVersions(t *tlsContext) {
	least, greatest := &t.versions[0], t.versions[1]
	if *least != 0 && *least < tls.VersionTLS12 {
		d.ignore("common_tls_context.tls_params.tls_minimum_protocol_version (HTTP/2 needs TLS 1.2)")
		*least = tls.VersionTLS12
	}
	switch {
	case greatest != 0 && greatest < tls.VersionTLS12:
		t.fail("common_tls_context.tls_params.tls_maximum_protocol_version", "HTTP/2 needs TLS 1.2")
	case greatest != 0 && greatest < *least:
		t.fail("common_tls_context.tls_params.tls_maximum_protocol_version", "it is less than tls_minimum_protocol_version")
	}
}

// tlsCipherIDs are the cipher suites of TLS 1.2 by their OpenSSL names; those
// of TLS 1.3 cannot be chosen, neither here nor in Envoy.
var tlsCipherIDs = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	"AES128-GCM-SHA256":             tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	"AES256-GCM-SHA384":             tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	"AES128-SHA":                    tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	"AES256-SHA":                    tls.TLS_RSA_WITH_AES_256_CBC_SHA,
}

// tlsCiphers keeps the suites that crypto/tls has. Where it has none of them,
// TLS 1.3 is left, for which they do not count.
func (d *decoding) tlsCiphers(names []string, t *tlsContext) {
	for _, name := range names {
		if id, ok := tlsCipherIDs[name]; ok {
			t.ciphers = append(t.ciphers, id)
		} else {
			d.ignore("common_tls_context.tls_params.cipher_suites (" + name + ")")
		}
	}
	switch {
	case len(names) == 0 || len(t.ciphers) > 0:
	case t.versions[1] == 0 || t.versions[1] >= tls.VersionTLS13:
		t.versions[0] = tls.VersionTLS13
	default:
		t.fail("common_tls_context.tls_params.cipher_suites", "none of them is known here")
	}
}

// tlsCurveIDs are the key exchanges by their BoringSSL names.
var tlsCurveIDs = map[string]tls.CurveID{"X25519": tls.X25519, "P-256": tls.CurveP256, "P-384": tls.CurveP384, "P-521": tls.CurveP521, "X25519MLKEM768": tls.X25519MLKEM768}

func (d *decoding) tlsCurves(names []string, t *tlsContext) {
	for _, name := range names {
		if id, ok := tlsCurveIDs[name]; ok {
			t.curves = append(t.curves, uint16(id))
		} else {
			d.ignore("common_tls_context.tls_params.ecdh_curves (" + name + ")")
		}
	}
	if len(names) > 0 && len(t.curves) == 0 {
		t.fail("common_tls_context.tls_params.ecdh_curves", "none of them is known here")
	}
}
