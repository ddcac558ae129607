package proxyless

//lint:file-ignore SA1019 istiod sends deprecated fields, and clients have to read them

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Of a context that cannot be obeyed it counts only that it is one.
var badContext = &tlsContext{failure: "why"}

// referenceSocket is nil for plain text.
func referenceSocket(m *corev3.TransportSocket, kind proto.Message) (*tlsContext, error) {
	if m == nil {
		return nil, nil
	}
	name, readable := extensionType(m.GetTypedConfig())
	switch {
	case name == nameOf(&rawbufferv3.RawBuffer{}), name == "" && m.Name == "envoy.transport_sockets.raw_buffer":
		return nil, nil
	case name != nameOf(kind) || !readable:
		return badContext, nil
	}
	if err := proto.Unmarshal(m.GetTypedConfig().GetValue(), kind); err != nil {
		return nil, err
	}
	t := &tlsContext{}
	switch m := kind.(type) {
	case *tlsv3.UpstreamTlsContext:
		t.sni, t.hostSNI, t.sameSNI = m.Sni, m.AutoHostSni, m.AutoSniSanValidation
		if err := referenceCommonTLS(m.CommonTlsContext, t); err != nil {
			return nil, err
		}
	case *tlsv3.DownstreamTlsContext:
		t.demands, t.needSNI = m.RequireClientCertificate.GetValue(), m.RequireSni.GetValue()
		if err := referenceCommonTLS(m.CommonTlsContext, t); err != nil {
			return nil, err
		}
		if t.identity.kind == secretNone || t.demands && t.roots.kind == secretNone || m.OcspStaplePolicy != 0 {
			return badContext, nil
		}
	}
	if t.failure != "" {
		return badContext, nil
	}
	return t, nil
}

// referenceCommonTLS knows what tlsFragments has.
func referenceCommonTLS(m *tlsv3.CommonTlsContext, t *tlsContext) error {
	t.alpn = m.GetAlpnProtocols()
	referenceTLSParams(m.GetTlsParams(), t)
	switch sds := m.GetTlsCertificateSdsSecretConfigs(); {
	case m.GetTlsCertificateProviderInstance() != nil:
		t.identity = referenceInstance(m.GetTlsCertificateProviderInstance().InstanceName, t)
	case len(sds) > 0 && sds[0].Name == "default":
		t.identity.kind = secretWorkload
	case len(sds) > 0:
		files := strings.Split(strings.TrimPrefix(sds[0].Name, "file-cert:"), "~")
		if t.identity.kind = secretFile; len(files) != 2 {
			t.failure = "why"
			return nil
		}
		t.identity.name, t.identity.key = files[0], files[1]
	case m.GetTlsCertificateCertificateProviderInstance() != nil:
		t.identity = referenceInstance(m.GetTlsCertificateCertificateProviderInstance().InstanceName, t)
	}
	if t.identity.kind == secretProvider && t.identity.name == "" {
		return errors.New("instance_name")
	}
	combined := m.GetCombinedValidationContext()
	found := combined.GetValidationContextSdsSecretConfig()
	if found == nil {
		found = m.GetValidationContextSdsSecretConfig()
	}
	err := referenceValidation(m.GetValidationContext(), t)
	err = errors.Join(err, referenceValidation(combined.GetDefaultValidationContext(), t))
	switch {
	case found.GetName() == "ROOTCA":
		t.roots = secretRef{kind: secretWorkload}
	case found.GetName() == "file-root:system":
		t.roots = secretRef{kind: secretSystem}
	case strings.HasPrefix(found.GetName(), "file-root:/"):
		t.roots = secretRef{kind: secretFile, name: strings.TrimPrefix(found.GetName(), "file-root:")}
	case found != nil:
		t.failure = "why"
	case combined.GetValidationContextCertificateProviderInstance() != nil && t.roots.kind == secretNone:
		t.roots = referenceInstance(combined.GetValidationContextCertificateProviderInstance().InstanceName, t)
	}
	if len(t.names) > 0 && t.roots.kind == secretNone {
		t.failure = "why"
	}
	return err
}

func referenceInstance(name string, t *tlsContext) secretRef {
	if name == "default" {
		return secretRef{kind: secretWorkload}
	}
	return secretRef{kind: secretProvider, name: name}
}

// cipherNames are the OpenSSL names of the suites that crypto/tls has of TLS 1.2.
var cipherNames = func() map[string]uint16 {
	names := map[string]uint16{}
	openSSL := strings.NewReplacer("TLS_RSA_WITH_", "", "TLS_", "", "_WITH_", "-", "AES_", "AES", "_CBC_", "-", "_POLY1305_SHA256", "-POLY1305", "_", "-")
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if !strings.Contains(s.Name, "3DES") && !strings.Contains(s.Name, "RC4") && !strings.Contains(s.Name, "CBC_SHA256") && slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			names[openSSL.Replace(s.Name)] = s.ID
		}
	}
	return names
}()

func referenceTLSParams(m *tlsv3.TlsParameters, t *tlsContext) {
	versions := map[tlsv3.TlsParameters_TlsProtocol]uint16{0: 0, 1: tls.VersionTLS12, 2: tls.VersionTLS12, 3: tls.VersionTLS12, 4: tls.VersionTLS13}
	t.versions[0], t.versions[1] = versions[m.GetTlsMinimumProtocolVersion()], versions[m.GetTlsMaximumProtocolVersion()]
	if most := m.GetTlsMaximumProtocolVersion(); most == 1 || most == 2 || t.versions[1] != 0 && t.versions[1] < t.versions[0] {
		t.failure = "why"
	}
	for _, name := range m.GetCipherSuites() {
		if id, ok := cipherNames[name]; ok {
			t.ciphers = append(t.ciphers, id)
		}
	}
	if len(m.GetCipherSuites()) > 0 && len(t.ciphers) == 0 {
		if t.versions[0] = tls.VersionTLS13; t.versions[1] == tls.VersionTLS12 {
			t.failure = "why"
		}
	}
	for _, name := range m.GetEcdhCurves() {
		if id, ok := map[string]uint16{"X25519": uint16(tls.X25519), "P-256": uint16(tls.CurveP256)}[name]; ok {
			t.curves = append(t.curves, id)
		}
	}
}

func referenceValidation(m *tlsv3.CertificateValidationContext, t *tlsContext) (err error) {
	if file := m.GetTrustedCa().GetFilename(); file != "" {
		t.roots = secretRef{kind: secretFile, name: file}
	}
	if m.GetSystemRootCerts() != nil {
		t.roots = secretRef{kind: secretSystem}
	}
	if instance := m.GetCaCertificateProviderInstance(); instance != nil {
		t.roots = referenceInstance(instance.InstanceName, t)
	}
	if m.GetCrl() != nil || m.GetRequireSignedCertificateTimestamp().GetValue() || m.GetMaxVerifyDepth() != nil {
		t.failure = "why"
	}
	for _, each := range m.GetMatchSubjectAltNames() {
		h := headerMatch{}
		err = errors.Join(err, referenceString(each, &routeMatch{}, &h))
		t.names = append(t.names, sanMatch{text: stringMatch{kind: h.kind, text: h.text, regex: h.regex, foldCase: h.foldCase}})
	}
	for _, each := range m.GetMatchTypedSubjectAltNames() {
		h := headerMatch{}
		err = errors.Join(err, referenceString(each.Matcher, &routeMatch{}, &h))
		t.names = append(t.names, sanMatch{kind: sanKind(each.SanType), oid: each.Oid, text: stringMatch{kind: h.kind, text: h.text, regex: h.regex, foldCase: h.foldCase}})
	}
	return err
}

// tlsFragments are parts of contexts that make sense alone, and a few that
// cannot be obeyed.
var tlsFragments = []string{
	`tls_params { tls_minimum_protocol_version: TLSv1_2 tls_maximum_protocol_version: TLSv1_3 cipher_suites: "ECDHE-RSA-AES128-GCM-SHA256" cipher_suites: "unknown" ecdh_curves: "P-256" }`,
	`tls_params { tls_minimum_protocol_version: TLSv1_0 cipher_suites: "ECDHE-ECDSA-AES256-GCM-SHA384" ecdh_curves: "X25519" ecdh_curves: "P-224" }`,
	`tls_params { tls_maximum_protocol_version: TLSv1_2 cipher_suites: "unknown" }`,
	`tls_params { tls_minimum_protocol_version: TLSv1_3 tls_maximum_protocol_version: TLSv1_2 }`,
	`tls_params { tls_maximum_protocol_version: TLSv1_1 }`,
	`tls_certificate_sds_secret_configs { name: "default" }`, `tls_certificate_sds_secret_configs { name: "default" }`,
	`tls_certificate_sds_secret_configs { name: "file-cert:/c.pem~/k.pem" }`,
	`tls_certificate_sds_secret_configs { name: "kubernetes://x" }`,
	`tls_certificate_provider_instance { instance_name: "default" certificate_name: "default" } tls_certificate_certificate_provider_instance { instance_name: "p" }`,
	`tls_certificate_certificate_provider_instance { instance_name: "p" }`,
	`validation_context_sds_secret_config { name: "ROOTCA" }`,
	`validation_context_sds_secret_config { name: "file-root:/ca.pem" }`,
	`validation_context_sds_secret_config { name: "x" }`,
	`combined_validation_context { default_validation_context { match_subject_alt_names { exact: "spiffe://a/ns/b/sa/c" } match_subject_alt_names { prefix: "spiffe://a/" ignore_case: true } } validation_context_sds_secret_config { name: "ROOTCA" } }`,
	`combined_validation_context { default_validation_context { trusted_ca { filename: "/x" } } validation_context_sds_secret_config { name: "file-root:system" } }`,
	`combined_validation_context { default_validation_context { ca_certificate_provider_instance { instance_name: "default" } } validation_context_certificate_provider_instance { instance_name: "p" } }`,
	`combined_validation_context { default_validation_context {} validation_context_certificate_provider_instance { instance_name: "p" } }`,
	`validation_context { trusted_ca { filename: "/ca" } match_typed_subject_alt_names { san_type: DNS matcher { safe_regex { regex: "a.*" } } } match_typed_subject_alt_names { san_type: OTHER_NAME oid: "1.2.3" matcher { suffix: "x" } } }`,
	`validation_context { system_root_certs {} allow_expired_certificate: true }`,
	`validation_context { match_subject_alt_names { exact: "a" } }`,
	`validation_context { trusted_ca { filename: "/ca" } crl { filename: "/crl" } }`,
	`validation_context {}`,
	`alpn_protocols: "istio" alpn_protocols: "h2"`,
	``,
}

var tlsEnds = map[string][]string{
	typeUpstreamTLS:   {``, ``, `sni: "outbound_.80_._.a"`, `auto_host_sni: true`, `sni: "a" auto_sni_san_validation: true`, `allow_renegotiation: true`},
	typeDownstreamTLS: {`require_client_certificate { value: true }`, `require_client_certificate { value: true }`, `require_client_certificate {}`, `require_sni { value: true }`, `ocsp_staple_policy: MUST_STAPLE`, ``},
}

// tlsContext makes a context of fragments.
func (m *maker) tlsContext(name string) []byte {
	common := pick(m, tlsFragments[5:11]...)
	for range m.IntN(4) {
		common += " " + pick(m, tlsFragments...)
	}
	end := pick(m, tlsEnds[name]...)
	to := map[string]proto.Message{typeUpstreamTLS: &tlsv3.UpstreamTlsContext{}, typeDownstreamTLS: &tlsv3.DownstreamTlsContext{}}[name]
	if prototext.Unmarshal([]byte(end+" common_tls_context { "+common+" }"), to) != nil { // two members of a oneof
		return m.tlsContext(name)
	}
	return marshal(to)
}

// referenceTransport settles how the endpoints of a cluster are spoken to.
func referenceTransport(m *clusterv3.Cluster, x *cluster) (err error) {
	if x.tls, err = referenceSocket(m.TransportSocket, &tlsv3.UpstreamTlsContext{}); err != nil {
		return err
	}
	ended := false
	for _, match := range m.TransportSocketMatches {
		socket, err := referenceSocket(match.TransportSocket, &tlsv3.UpstreamTlsContext{})
		if err != nil {
			return err
		}
		labels, err := referenceLabels(match.Match)
		if err != nil {
			return err
		}
		if len(labels) == 0 && !ended {
			x.tls, ended = socket, true
		}
		if !ended {
			x.sockets = append(x.sockets, socketMatch{match.Name, labels, socket})
		}
	}
	if x.tls == nil && !slices.ContainsFunc(x.sockets, func(s socketMatch) bool { return s.tls != nil }) {
		x.sockets = nil
	}
	if m.TransportSocketMatcher != nil {
		x.tls, x.sockets = badContext, nil
	}
	names := m.UpstreamHttpProtocolOptions
	for _, key := range slices.Sorted(maps.Keys(m.TypedExtensionProtocolOptions)) {
		a := m.TypedExtensionProtocolOptions[key]
		options := &httpv3.HttpProtocolOptions{}
		if name, readable := extensionType(a); !readable || name != nameOf(options) {
			continue
		}
		if err := proto.Unmarshal(a.Value, options); err != nil {
			return err
		}
		names = options.UpstreamHttpProtocolOptions
	}
	secured := x.tls != nil || len(x.sockets) > 0
	x.nameSNI, x.nameSAN = names.GetAutoSni() && secured, names.GetAutoSanValidation() && secured
	if names.GetOverrideAutoSniHeader() != "" && (x.nameSNI || x.nameSAN) {
		x.tls, x.sockets = badContext, nil
	}
	return nil
}

// referenceLabels are the labels of a Struct; nil for none.
func referenceLabels(m *structpb.Struct) (socketLabels, error) {
	if len(m.GetFields()) == 0 {
		return nil, nil
	}
	labels := socketLabels{}
	for name, value := range m.GetFields() {
		text, err := labelText(value)
		if err != nil {
			return nil, err
		}
		labels[name] = text
	}
	return labels, nil
}

func labelText(m *structpb.Value) (string, error) {
	switch v := m.GetKind().(type) {
	case *structpb.Value_NumberValue:
		if math.IsNaN(v.NumberValue) || math.IsInf(v.NumberValue, 0) {
			return "", errors.New("no number")
		}
		return strconv.FormatFloat(v.NumberValue, 'g', -1, 64), nil
	case *structpb.Value_StringValue:
		return strconv.Quote(v.StringValue), nil
	case *structpb.Value_BoolValue:
		return fmt.Sprint(v.BoolValue), nil
	case *structpb.Value_ListValue:
		var parts []string
		for _, each := range v.ListValue.Values {
			text, err := labelText(each)
			if err != nil {
				return "", err
			}
			parts = append(parts, text)
		}
		return "[" + strings.Join(parts, ",") + "]", nil
	case *structpb.Value_StructValue:
		text := "{"
		for _, name := range slices.Sorted(maps.Keys(v.StructValue.GetFields())) {
			value, err := labelText(v.StructValue.Fields[name])
			if err != nil {
				return "", err
			}
			text += strconv.Quote(name) + ":" + value + ","
		}
		return text + "}", nil
	}
	return "null", nil
}

// labelOf puts the labels of a Metadata into an assignment, and returns their
// number there.
func (a *assignment) labelOf(m *corev3.Metadata) (uint16, error) {
	labels, err := referenceLabels(m.GetFilterMetadata()["envoy.transport_socket_match"])
	if err != nil || labels == nil {
		return 0, err
	}
	a.labels = append(a.labels, labels)
	return uint16(len(a.labels)), nil
}
