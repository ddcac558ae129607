package proxyless

import (
	"fmt"
	"strconv"
	"strings"
)

// Names that istiod gives to secrets of its agent, and to what a bootstrap's
// provider has.
const (
	secretDefault = "default"
	secretRootCA  = "ROOTCA"
	fileCert      = "file-cert:"
	fileRoot      = "file-root:"
)

// ownCertificate settles which certificate is shown. Of several the first is
// taken.
func (d *decoding) ownCertificate(p *tlsParts, t *tlsContext) (err error) {
	switch {
	case p.instance != nil:
		t.identity, err = d.providerInstance(p.instance)
		return inField("tls_certificate_provider_instance", err)
	case len(p.discovered) > 0:
		if len(p.discovered) > 1 {
			d.ignore("common_tls_context.tls_certificate_sds_secret_configs[1]")
		}
		return inElement("tls_certificate_sds_secret_configs", 0, d.discoveredCertificate(p.discovered[0], t))
	case p.older != nil:
		t.identity, err = d.providerInstance(p.older)
		return inField("tls_certificate_certificate_provider_instance", err)
	case len(p.inline) > 0:
		if len(p.inline) > 1 {
			d.ignore("common_tls_context.tls_certificates[1]")
		}
		return inElement("tls_certificates", 0, d.inlineCertificate(p.inline[0], t))
	}
	return nil
}

// providerInstance reads a CertificateProviderPluginInstance, or the older
// CertificateProviderInstance.
func (d *decoding) providerInstance(b []byte) (ref secretRef, err error) {
	ref.name, err = subtext(b, 1, "instance_name")
	if err == nil && ref.name == "" {
		err = missingField("instance_name")
	}
	if ref.kind = secretProvider; ref.name == secretDefault {
		ref = secretRef{kind: secretWorkload}
	}
	return ref, err
}

// discoveredCertificate reads a SdsSecretConfig for a certificate. No secret
// is asked for by ADS: the name alone says where it is.
func (d *decoding) discoveredCertificate(b []byte, t *tlsContext) error {
	name, err := subtext(b, 1, "name")
	if err != nil {
		return err
	}
	rest, file := strings.CutPrefix(name, fileCert)
	certificate, key, both := strings.Cut(rest, "~")
	switch {
	case name == secretDefault:
		t.identity = secretRef{kind: secretWorkload}
	case file && both && certificate != "" && key != "":
		t.identity = secretRef{kind: secretFile, name: certificate, key: key}
	default:
		t.unknownSecret("tls_certificate_sds_secret_configs", name)
	}
	return nil
}

// discoveredRoots is discoveredCertificate for roots.
func (d *decoding) discoveredRoots(field string, b []byte, t *tlsContext) error {
	name, err := subtext(b, 1, "name")
	if err != nil {
		return err
	}
	file, ok := strings.CutPrefix(name, fileRoot)
	switch {
	case name == secretRootCA:
		t.roots = secretRef{kind: secretWorkload}
	case ok && file == "system":
		t.roots = secretRef{kind: secretSystem}
	case ok && file != "":
		t.roots = secretRef{kind: secretFile, name: file}
	default:
		t.unknownSecret(field, name)
	}
	return nil
}

func (t *tlsContext) unknownSecret(field, name string) {
	why := "secret " + strconv.Quote(name) + " is of no kind that can be found without an agent"
	if strings.HasPrefix(name, "kubernetes://") {
		why = "secret " + strconv.Quote(name) + " (credentialName) would have to be asked of istiod, which gives it only to who may list the secrets of the namespace; name files instead"
	}
	t.fail("common_tls_context."+field, why)
}

// dataSource is an envoy.config.core.v3.DataSource.
type dataSource struct {
	file  string
	value []byte
	set   bool
	why   string // it cannot be read; empty where it can
}

func decodeDataSource(b []byte) (s dataSource, err error) {
	var specifier oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1, 3, 4:
			specifier.raw(&c, "specifier")
		case 2:
			specifier = oneof{num: 2, val: c.bytes("inline_bytes")}
		}
	}
	s.set = b != nil
	switch specifier.num {
	case 1:
		s.file = string(specifier.val)
	case 2, 3:
		s.value = specifier.val
	case 4:
		s.why = "an environment_variable is not read"
	}
	if s.set && s.file == "" && len(s.value) == 0 && s.why == "" {
		s.why = "it is empty"
	}
	return s, c.err
}

// inlineCertificate reads a TlsCertificate.
func (d *decoding) inlineCertificate(b []byte, t *tlsContext) error {
	const field = "common_tls_context.tls_certificates"
	var chain, key []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("certificate_chain", &chain)
		case 2:
			c.message("private_key", &key)
		case 3:
			t.fail(field+".password", "encrypted keys are not read")
		case 6:
			t.fail(field+".private_key_provider", "it is not supported")
		case 8:
			t.fail(field+".pkcs12", "it is not supported")
		case 4, 5, 9:
			d.ignore(field + "." + certificateUnapplied.name(c.num))
		}
	}
	certificate, err := decodeDataSource(chain)
	c.fail(inField("certificate_chain", err))
	private, err := decodeDataSource(key)
	c.fail(inField("private_key", err))
	switch {
	case c.err != nil:
	case certificate.why+private.why != "":
		t.fail(field, certificate.why+private.why)
	case certificate.file != "" && private.file != "":
		t.identity = secretRef{kind: secretFile, name: certificate.file, key: private.file}
	case len(certificate.value) > 0 && len(private.value) > 0:
		t.identity = secretRef{kind: secretInline, inlineKey: fmt.Appendf(nil, "%s\n%s", certificate.value, private.value)}
		t.identity.seal(certificate.value, private.value)
	default:
		t.fail(field, "the certificate and its key have to be both in files or both inline")
	}
	return c.err
}

var certificateUnapplied = unapplied{4: "ocsp_staple", 5: "signed_certificate_timestamp", 9: "tls_params"}
