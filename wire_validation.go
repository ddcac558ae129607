package proxyless

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// validationType takes the member of validation_context_type.
func (d *decoding) validationType(v oneof, t *tlsContext) (err error) {
	switch v.num {
	case 3:
		return inField("validation_context", d.validation("validation_context", v.val, t))
	case 7:
		return inField("validation_context_sds_secret_config", d.discoveredRoots("validation_context_sds_secret_config", v.val, t))
	case 8:
		return inField("combined_validation_context", d.combinedValidation(v.val, t))
	case 12:
		t.roots, err = d.providerInstance(v.val)
		return inField("validation_context_certificate_provider_instance", err)
	case 10:
		t.fail("common_tls_context.validation_context_certificate_provider", "it is not supported")
	}
	return nil
}

// combinedValidation reads a CombinedCertificateValidationContext. What is
// found by name wins over what is written in it.
func (d *decoding) combinedValidation(b []byte, t *tlsContext) error {
	var plain, discovered, older []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("default_validation_context", &plain)
		case 2:
			c.message("validation_context_sds_secret_config", &discovered)
		case 3:
			t.fail("common_tls_context.combined_validation_context.validation_context_certificate_provider", "it is not supported")
		case 4:
			c.message("validation_context_certificate_provider_instance", &older)
		}
	}
	c.fail(inField("default_validation_context", d.validation("combined_validation_context.default_validation_context", plain, t)))
	switch {
	case c.err != nil:
	case t.roots.inline != nil && t.roots.inline.domains != nil: // no roots from elsewhere vouch for the domains of a validator of their own
	case discovered != nil:
		c.fail(inField("validation_context_sds_secret_config", d.discoveredRoots("combined_validation_context.validation_context_sds_secret_config", discovered, t)))
	case older != nil && t.roots.kind == secretNone:
		ref, err := d.providerInstance(older)
		t.roots = ref
		c.fail(inField("validation_context_certificate_provider_instance", err))
	}
	return c.err
}

// validation reads a CertificateValidationContext. Whatever would make it
// refuse more peers, and is not known here, fails.
func (d *decoding) validation(field string, b []byte, t *tlsContext) error {
	var ca, custom, instance []byte
	typed := false
	field = "common_tls_context." + field + "."
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("trusted_ca", &ca)
		case 2:
			d.keep(&c, "verify_certificate_hash")
			t.hashes = append(t.hashes, c.sum("verify_certificate_hash", func(s string) ([]byte, error) { return hex.DecodeString(strings.ReplaceAll(s, ":", "")) }))
		case 3:
			d.keep(&c, "verify_certificate_spki")
			t.keys = append(t.keys, c.sum("verify_certificate_spki", base64.StdEncoding.DecodeString))
		case 9, 15:
			name := either(c.num == 15, "match_typed_subject_alt_names", "match_subject_alt_names")
			if len(t.names) > 0 && typed != (c.num == 15) {
				t.fail(field+"match_subject_alt_names", "match_typed_subject_alt_names are there, too")
			}
			typed = c.num == 15
			d.keep(&c, name)
			m, err := d.sanMatch(c.bytes(name), typed, field+name, t)
			c.fail(inElement(name, len(t.names), err))
			t.names = append(t.names, m)
		case 12:
			c.message("custom_validator_config", &custom)
		case 13:
			c.message("ca_certificate_provider_instance", &instance)
		case 17:
			c.bytes("system_root_certs")
			t.roots = secretRef{kind: secretSystem}
		default:
			d.validationLimit(&c, field, t)
		}
	}
	c.fail(inField("trusted_ca", d.trustedCA(field, ca, t)))
	if instance != nil {
		ref, err := d.providerInstance(instance)
		t.roots = ref
		c.fail(inField("ca_certificate_provider_instance", err))
	}
	c.fail(inField("custom_validator_config", d.customValidator(field, custom, t)))
	return c.err
}

// validationLimit reads the rest of a CertificateValidationContext.
func (d *decoding) validationLimit(c *cursor, field string, t *tlsContext) {
	switch c.num {
	case 6:
		if c.flag("require_signed_certificate_timestamp", c.bytes("require_signed_certificate_timestamp")) {
			t.fail(field+"require_signed_certificate_timestamp", "it is not looked at")
		}
	case 7:
		t.fail(field+"crl", "lists of revoked certificates are not read")
	case 8:
		if c.scalar("allow_expired_certificate") != 0 {
			d.ignore(field + "allow_expired_certificate")
		}
	case 10:
		if c.scalar("trust_chain_verification") != 0 {
			d.ignore(field + "trust_chain_verification")
		}
	case 16:
		t.fail(field+"max_verify_depth", "it is not looked at")
	case 11, 14, 18: // of files, which are watched anyway; of the crl; of what the peer is told
	default:
		t.fail(field+unapplied(nil).name(c.num), "it is not known")
	}
}

// sum reads the text of a SHA-256.
func (c *cursor) sum(field string, decode func(string) ([]byte, error)) (sum [32]byte) {
	b, err := decode(c.text(field))
	if err == nil && len(b) != len(sum) {
		err = fmt.Errorf("%d bytes instead of %d", len(b), len(sum))
	}
	c.fail(inField(field, err))
	copy(sum[:], b)
	return sum
}

// sanMatch reads a SubjectAltNameMatcher, or the StringMatcher of the
// deprecated form, which is for names of any kind.
func (d *decoding) sanMatch(b []byte, typed bool, field string, t *tlsContext) (m sanMatch, err error) {
	matcher := b
	if typed {
		matcher = nil
		kind := uint64(0)
		c := walk(b)
		for c.next() {
			switch c.num {
			case 1:
				kind = c.scalar("san_type")
			case 2:
				c.message("matcher", &matcher)
			case 3:
				m.oid = c.text("oid")
			}
		}
		if m.kind = sanKind(min(kind, uint64(sanOther)+1)); m.kind == sanAny || m.kind > sanOther {
			t.fail(field+".san_type", fmt.Sprintf("%d is not known", int32(kind)))
			m.kind = sanAny
		}
		if m.kind == sanOther && !dotted(m.oid) {
			t.fail(field+".oid", strconv.Quote(m.oid)+" is not numbers with dots")
		}
		if err = c.err; err != nil {
			return m, err
		}
	}
	text, never, err := d.textMatch(matcher)
	if m.text = text; never != "" {
		d.ignore(field + "." + never)
	}
	if typed {
		err = inField("matcher", err)
	}
	return m, err
}

// dotted says that a text is an object identifier.
func dotted(oid string) bool {
	parts := strings.Split(oid, ".")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, 31); err != nil {
			return false
		}
	}
	return len(parts) > 1
}

// trustedCA takes roots that are in a file or written in the context.
func (d *decoding) trustedCA(field string, b []byte, t *tlsContext) error {
	s, err := decodeDataSource(b)
	switch {
	case err != nil || !s.set:
	case s.why != "":
		t.fail(field+"trusted_ca", s.why)
	case s.file != "":
		t.roots = secretRef{kind: secretFile, name: s.file}
	default:
		roots, err := parseRoots(s.value)
		if err != nil {
			return err
		}
		t.roots = secretRef{kind: secretInline, inline: roots}
		t.roots.seal(s.value)
	}
	return err
}

const typeSPIFFEValidator = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"

// customValidator reads a TypedExtensionConfig: of the validators that Envoy
// has, the one for SPIFFE.
func (d *decoding) customValidator(field string, b []byte, t *tlsContext) error {
	if b == nil {
		return nil
	}
	field += "custom_validator_config"
	packed, err := submessage(b, 2, "typed_config")
	if err != nil {
		return err
	}
	x, err := decodeExtension(packed)
	if err != nil {
		return inField("typed_config", err)
	}
	if x.name != typeSPIFFEValidator || x.json {
		t.fail(field, strconv.Quote(x.name)+" is not supported")
		return nil
	}
	roots := &trustRoots{domains: map[string]*x509.CertPool{}}
	var parts [][]byte
	c := walk(x.value)
	for i := -1; c.next(); {
		if c.num != 1 {
			t.fail(field, spiffeUnapplied.name(c.num)+" is not supported")
			continue
		}
		i++
		d.keep(&c, "trust_domains")
		name, bundle, why, err := decodeTrustDomain(c.bytes("trust_domains"))
		if c.fail(inElement("trust_domains", i, err)); why != "" {
			t.fail(field+".trust_domains["+name+"].trust_bundle", why)
		}
		if c.err != nil || why != "" {
			continue
		}
		if roots.domains[name] != nil {
			c.fail(inElement("trust_domains", i, fmt.Errorf("%s is there twice", name)))
		}
		bundled, err := parseRoots(bundle)
		if c.fail(inElement("trust_domains", i, inField("trust_bundle", err))); err != nil {
			continue
		}
		roots.domains[name], roots.list = bundled.pool, append(roots.list, bundled.list...)
		parts = append(parts, []byte(name), bundle)
	}
	if c.err == nil && len(roots.domains) == 0 {
		t.fail(field+".trust_domains", "there are none")
	}
	t.roots = secretRef{kind: secretInline, inline: roots}
	t.roots.seal(parts...)
	return inField("typed_config", c.err)
}

var spiffeUnapplied = unapplied{2: "trust_bundles"}

// decodeTrustDomain reads a SPIFFECertValidatorConfig.TrustDomain; why says
// what of it cannot be read.
func decodeTrustDomain(b []byte) (name string, bundle []byte, why string, err error) {
	var source []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			name = c.text("name")
		case 2:
			c.message("trust_bundle", &source)
		}
	}
	if c.err == nil && name == "" {
		return "", nil, "", missingField("name")
	}
	s, err := decodeDataSource(source)
	c.fail(inField("trust_bundle", err))
	if why = s.why; why == "" && len(s.value) == 0 {
		why = "it has to be inline"
	}
	return name, s.value, why, c.err
}
