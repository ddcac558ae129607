package proxyless

import (
	"crypto/tls"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/proxyless/proxyless/meshtest"
)

// TestIstiodTLS holds what is kept of a real istiod's TLS against
// testdata/wire; -update writes it anew.
func TestIstiodTLS(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "tls", "*.binpb"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "wire", "tls-"+strings.TrimSuffix(filepath.Base(file), ".binpb")+".golden")
		got := describeAnswer(t, raw)
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || got != string(want) {
			t.Errorf("%v; got\n%s\nwant\n%s", err, got, want)
		}
	}
}

func rawUpstream(common rawProto) rawProto { return rawProto{}.msg(1, common) }

// rawSDS is a SdsSecretConfig.
func rawSDS(name string) rawProto {
	return rawProto{}.text(1, name).msg(2, rawProto{}.msg(2, rawProto{}))
}

// rawValidated is a CommonTlsContext with a validation context.
func rawValidated(context rawProto) rawProto { return rawProto{}.msg(3, context) }

func rawExact(text string) rawProto { return rawProto{}.text(1, text) }

func workloadRef() secretRef { return secretRef{kind: secretWorkload} }

const inCommon = "transport_socket.common_tls_context."

func TestUpstreamContext(t *testing.T) {
	hash := strings.Repeat("ab", 32)
	var sum [32]byte
	for i := range sum {
		sum[i] = 0xab
	}
	system := rawProto{}.msg(17, rawProto{})
	exactly := func(text string) sanMatch { return sanMatch{text: stringMatch{kind: headerExact, text: text}} }
	roots := secretRef{kind: secretSystem}
	for name, test := range map[string]struct {
		raw     rawProto
		want    tlsContext
		ignored []string
	}{
		"nothing":                    {nil, tlsContext{}, nil},
		"sni":                        {rawProto{}.text(2, "x.example"), tlsContext{sni: "x.example"}, nil},
		"auto_host_sni":              {rawProto{}.num(6, 1).num(7, 1).num(4, 3).num(5, 0), tlsContext{hostSNI: true, sameSNI: true}, nil},
		"allow_renegotiation":        {rawProto{}.num(3, 1), tlsContext{}, []string{"transport_socket.allow_renegotiation"}},
		"ISTIO_MUTUAL, full":         {rawUpstream(rawProto{}.text(4, "istio-peer-exchange", "istio", "h2").msg(6, rawSDS("default")).msg(8, rawProto{}.msg(1, rawProto{}.msg(9, rawExact("a"), rawExact("b"))).msg(2, rawSDS("ROOTCA")))), tlsContext{identity: workloadRef(), roots: workloadRef(), names: []sanMatch{exactly("a"), exactly("b")}, alpn: []string{"istio-peer-exchange", "istio", "h2"}}, nil},
		"ISTIO_MUTUAL, lean":         {rawUpstream(rawProto{}.msg(14, rawProto{}.text(1, "default").text(2, "default")).msg(11, rawProto{}.text(1, "other")).msg(8, rawProto{}.msg(1, rawProto{}.msg(13, rawProto{}.text(1, "default").text(2, "ROOTCA"))).msg(4, rawProto{}.text(1, "other")))), tlsContext{identity: workloadRef(), roots: workloadRef()}, nil},
		"providers, the old form":    {rawUpstream(rawProto{}.msg(11, rawProto{}.text(1, "a")).msg(12, rawProto{}.text(1, "b"))), tlsContext{identity: secretRef{kind: secretProvider, name: "a"}, roots: secretRef{kind: secretProvider, name: "b"}}, nil},
		"combined with a provider":   {rawUpstream(rawProto{}.msg(8, rawProto{}.msg(4, rawProto{}.text(1, "b")))), tlsContext{roots: secretRef{kind: secretProvider, name: "b"}}, nil},
		"roots by SDS":               {rawUpstream(rawProto{}.msg(7, rawSDS("ROOTCA"))), tlsContext{roots: workloadRef()}, nil},
		"the system's roots":         {rawUpstream(rawValidated(system)), tlsContext{roots: roots}, nil},
		"the system's roots by SDS":  {rawUpstream(rawProto{}.msg(7, rawSDS("file-root:system"))), tlsContext{roots: roots}, nil},
		"files by SDS":               {rawUpstream(rawProto{}.msg(6, rawSDS("file-cert:/a~/b"), rawSDS("x")).msg(7, rawSDS("file-root:/c"))), tlsContext{identity: secretRef{kind: secretFile, name: "/a", key: "/b"}, roots: secretRef{kind: secretFile, name: "/c"}}, []string{inCommon + "tls_certificate_sds_secret_configs[1]"}},
		"files":                      {rawUpstream(rawValidated(rawProto{}.msg(1, rawProto{}.text(1, "/c")).msg(11, rawProto{})).msg(2, rawProto{}.msg(1, rawProto{}.text(1, "/a")).msg(2, rawProto{}.text(1, "/b")))), tlsContext{identity: secretRef{kind: secretFile, name: "/a", key: "/b"}, roots: secretRef{kind: secretFile, name: "/c"}}, nil},
		"a certificate inside":       {rawUpstream(rawProto{}.msg(2, rawProto{}.msg(1, rawProto{}.text(3, "C")).msg(2, rawProto{}.text(2, "K")))), tlsContext{identity: sealed("C", "C\nK")}, nil},
		"hashes":                     {rawUpstream(rawValidated(rawProto{}.text(2, hash, strings.TrimSuffix(strings.Repeat("AB:", 32), ":")).text(3, "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="))), tlsContext{hashes: [][32]byte{sum, sum}, keys: [][32]byte{sum}}, nil},
		"versions, ciphers, curves":  {rawUpstream(rawProto{}.msg(1, rawProto{}.num(1, 3).num(2, 4).text(3, "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-RSA-AES256-GCM-SHA384]", "PSK").text(4, "X25519", "P-256:P-224"))), tlsContext{versions: [2]uint16{tls.VersionTLS12, tls.VersionTLS13}, ciphers: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}, curves: []uint16{uint16(tls.X25519), uint16(tls.CurveP256)}}, []string{inCommon + "tls_params.cipher_suites (PSK)", inCommon + "tls_params.ecdh_curves (P-224)"}},
		"TLS 1.0":                    {rawUpstream(rawProto{}.msg(1, rawProto{}.num(1, 1))), tlsContext{versions: [2]uint16{tls.VersionTLS12, 0}}, []string{inCommon + "tls_params.tls_minimum_protocol_version (HTTP/2 needs TLS 1.2)"}},
		"ciphers that are not there": {rawUpstream(rawProto{}.msg(1, rawProto{}.text(3, "PSK"))), tlsContext{versions: [2]uint16{tls.VersionTLS13, 0}}, []string{inCommon + "tls_params.cipher_suites (PSK)"}},
		"what asks for less":         {rawUpstream(rawValidated(system.num(8, 1).num(10, 1)).msg(15, rawProto{})), tlsContext{roots: roots}, []string{inCommon + "key_log", inCommon + "validation_context.allow_expired_certificate", inCommon + "validation_context.trust_chain_verification"}},
		"names of every kind": {rawUpstream(rawValidated(system.msg(15,
			rawProto{}.num(1, 1).msg(2, rawProto{}.text(2, "a")), rawProto{}.num(1, 2).msg(2, rawProto{}.text(3, "b").num(6, 1)), rawProto{}.num(1, 3).msg(2, rawProto{}.text(7, "c")),
			rawProto{}.num(1, 4).msg(2, rawExact("::1")), rawProto{}.num(1, 5).text(3, "1.2.3").msg(2, rawExact("o"))))), tlsContext{roots: roots, names: []sanMatch{
			{kind: sanEmail, text: stringMatch{kind: headerPrefix, text: "a"}}, {kind: sanDNS, text: stringMatch{kind: headerSuffix, text: "b", foldCase: true}}, {kind: sanURI, text: stringMatch{kind: headerContains, text: "c"}},
			{kind: sanIP, text: stringMatch{kind: headerExact, text: "::1"}}, {kind: sanOther, oid: "1.2.3", text: stringMatch{kind: headerExact, text: "o"}}}}, nil},
		"a custom matcher": {rawUpstream(rawValidated(system.msg(9, rawProto{}.msg(8, rawProto{})))), tlsContext{roots: roots, names: []sanMatch{{text: stringMatch{kind: headerNever}}}}, []string{inCommon + "validation_context.match_subject_alt_names.string_match.custom"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeResource(kindCluster, rawCluster().msg(24, rawProto{}.packed(3, typeUpstreamTLS, test.raw)))
			if err != nil {
				t.Fatal(err)
			}
			c := got.value.(*cluster)
			if test.want.settle(); !reflect.DeepEqual(c.tls, &test.want) {
				t.Errorf("got  %s\nwant %s", describeValue(reflect.ValueOf(c.tls)), describeValue(reflect.ValueOf(&test.want)))
			}
			if !reflect.DeepEqual(got.ignored, test.ignored) {
				t.Errorf("ignores %q, want %q", got.ignored, test.ignored)
			}
		})
	}
}

// sealed is an inline certificate.
func sealed(certificate, both string) secretRef {
	ref := secretRef{kind: secretInline, inlineKey: []byte(both)}
	ref.seal([]byte(certificate), []byte(strings.TrimPrefix(both, certificate+"\n")))
	return ref
}

// TestContextsThatCannotBeObeyed: whatever is not known must not let anybody
// in, and is named.
func TestContextsThatCannotBeObeyed(t *testing.T) {
	system := rawProto{}.msg(17, rawProto{})
	validated := func(v rawProto) rawProto { return rawUpstream(rawValidated(v)) }
	for want, raw := range map[string]rawProto{
		inCommon + "custom_handshaker":                                                        rawUpstream(rawProto{}.msg(13, rawProto{})),
		inCommon + "custom_tls_certificate_selector":                                          rawUpstream(rawProto{}.msg(16, rawProto{})),
		inCommon + "tls_params.signature_algorithms":                                          rawUpstream(rawProto{}.msg(1, rawProto{}.text(5, "x"))),
		inCommon + "tls_params.compliance_policies":                                           rawUpstream(rawProto{}.msg(1, rawProto{}.num(6, 0))),
		inCommon + "tls_params.tls_maximum_protocol_version":                                  rawUpstream(rawProto{}.msg(1, rawProto{}.num(2, 2))),
		inCommon + "tls_params.ecdh_curves":                                                   rawUpstream(rawProto{}.msg(1, rawProto{}.text(4, "P-224"))),
		inCommon + "tls_params.cipher_suites":                                                 rawUpstream(rawProto{}.msg(1, rawProto{}.num(2, 3).text(3, "PSK"))),
		inCommon + "tls_params":                                                               rawUpstream(rawProto{}.msg(1, rawProto{}.num(1, 5))),
		inCommon + "tls_certificate_sds_secret_configs":                                       rawUpstream(rawProto{}.msg(6, rawSDS("kubernetes://x"))),
		inCommon + "tls_certificates":                                                         rawUpstream(rawProto{}.msg(2, rawProto{}.msg(1, rawProto{}.text(4, "ENV")).msg(2, rawProto{}.text(1, "/b")))),
		inCommon + "tls_certificates.password":                                                rawUpstream(rawProto{}.msg(2, rawProto{}.msg(3, rawProto{}))),
		inCommon + "tls_certificates.private_key_provider":                                    rawUpstream(rawProto{}.msg(2, rawProto{}.msg(6, rawProto{}))),
		inCommon + "tls_certificates.pkcs12":                                                  rawUpstream(rawProto{}.msg(2, rawProto{}.msg(8, rawProto{}))),
		inCommon + "validation_context_sds_secret_config":                                     rawUpstream(rawProto{}.msg(7, rawSDS("mine"))),
		inCommon + "validation_context_certificate_provider":                                  rawUpstream(rawProto{}.msg(10, rawProto{})),
		inCommon + "combined_validation_context.default_validation_context.crl":               rawUpstream(rawProto{}.msg(8, rawProto{}.msg(1, rawProto{}.msg(7, rawProto{})))),
		inCommon + "combined_validation_context.validation_context_sds_secret_config":         rawUpstream(rawProto{}.msg(8, rawProto{}.msg(2, rawSDS("default")))),
		inCommon + "combined_validation_context.validation_context_certificate_provider":      rawUpstream(rawProto{}.msg(8, rawProto{}.msg(3, rawProto{}))),
		inCommon + "validation_context.crl":                                                   validated(system.msg(7, rawProto{}.text(1, "/crl"))),
		inCommon + "validation_context.require_signed_certificate_timestamp":                  validated(system.wrap(6, 1)),
		inCommon + "validation_context.max_verify_depth":                                      validated(system.wrap(16, 3)),
		inCommon + "validation_context.field 99":                                              validated(system.num(99, 1)),
		inCommon + "validation_context.trusted_ca":                                            validated(rawProto{}.msg(1, rawProto{})),
		inCommon + "validation_context.match_subject_alt_names":                               validated(system.msg(9, rawExact("a")).msg(15, rawProto{}.num(1, 2).msg(2, rawExact("a")))),
		inCommon + "validation_context.match_typed_subject_alt_names.san_type":                validated(system.msg(15, rawProto{}.msg(2, rawExact("a")))),
		inCommon + "validation_context.match_typed_subject_alt_names.oid":                     validated(system.msg(15, rawProto{}.num(1, 5).text(3, "UPN").msg(2, rawExact("a")))),
		inCommon + "validation_context.custom_validator_config":                               validated(rawProto{}.msg(12, rawProto{}.packed(2, "a.Validator", nil))),
		inCommon + "validation_context.custom_validator_config.trust_domains":                 validated(rawProto{}.msg(12, rawProto{}.packed(2, typeSPIFFEValidator, nil))),
		inCommon + "validation_context.custom_validator_config.trust_domains[x].trust_bundle": validated(rawProto{}.msg(12, rawProto{}.packed(2, typeSPIFFEValidator, rawProto{}.msg(1, rawProto{}.text(1, "x").msg(2, rawProto{}.text(1, "/f")))))),
		"transport_socket.common_tls_context":                                                 validated(rawProto{}.msg(9, rawExact("a"))),
	} {
		got, err := decodeResource(kindCluster, rawCluster().msg(24, rawProto{}.packed(3, typeUpstreamTLS, raw)))
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		c := got.value.(*cluster)
		if c.tls == nil || !strings.HasPrefix(c.tls.failure, want+" cannot be obeyed: ") {
			t.Errorf("got  %+v\nwant %s", c.tls, want)
			continue
		}
		if _, err := (clientTLS{&secretStore{}, newSecurity(c, c.tls, "")}).config(t.Context()); err == nil || err.Error() != c.tls.failure {
			t.Errorf("%s: a handshake begins: %v", want, err)
		}
	}
}

func TestContextsThatAreRejected(t *testing.T) {
	validated := func(v rawProto) rawProto { return rawUpstream(rawValidated(v)) }
	const in, verify = "common_tls_context.", "common_tls_context.validation_context."
	for want, raw := range map[string]rawProto{
		in + "tls_certificate_provider_instance.instance_name: missing":                                                  rawUpstream(rawProto{}.msg(14, rawProto{})),
		in + "tls_params.tls_minimum_protocol_version: wire type 2 instead of 0":                                         rawUpstream(rawProto{}.msg(1, rawProto{}.text(1, "x"))),
		verify + "verify_certificate_hash: 1 bytes instead of 32":                                                        validated(rawProto{}.text(2, "ab")),
		verify + "verify_certificate_spki: illegal base64 data at input byte 0":                                          validated(rawProto{}.text(3, "!")),
		verify + "trusted_ca: there is no PEM certificate in it":                                                         validated(rawProto{}.msg(1, rawProto{}.text(3, "x"))),
		verify + "match_subject_alt_names[0].prefix: empty":                                                              validated(rawProto{}.msg(9, rawProto{}.text(2, ""))),
		verify + "match_typed_subject_alt_names[0].matcher.suffix: empty":                                                validated(rawProto{}.msg(15, rawProto{}.num(1, 1).msg(2, rawProto{}.text(3, "")))),
		verify + "custom_validator_config.typed_config.trust_domains[0].trust_bundle: there is no PEM certificate in it": validated(rawProto{}.msg(12, rawProto{}.packed(2, typeSPIFFEValidator, rawProto{}.msg(2, rawProto{}).msg(1, rawProto{}.text(1, "d").msg(2, rawProto{}.text(3, "x")))))),
		verify + "custom_validator_config.typed_config.trust_domains[0].name: missing":                                   validated(rawProto{}.msg(12, rawProto{}.packed(2, typeSPIFFEValidator, rawProto{}.msg(1, rawProto{})))),
	} {
		_, err := decodeResource(kindCluster, rawCluster().msg(24, rawProto{}.packed(3, typeUpstreamTLS, raw)))
		if err == nil || err.Error() != "transport_socket.typed_config."+want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestDownstreamContext(t *testing.T) {
	own := rawProto{}.msg(6, rawSDS("default"))
	rooted := own.msg(7, rawSDS("ROOTCA"))
	for name, test := range map[string]struct {
		raw  rawProto
		want tlsContext
	}{
		"STRICT":              {rawProto{}.msg(1, rooted).wrap(2, 1), tlsContext{identity: workloadRef(), roots: workloadRef(), demands: true}},
		"no client's asked":   {rawProto{}.msg(1, own).wrap(2, 0).wrap(3, 1).num(8, 0), tlsContext{identity: workloadRef(), needSNI: true}},
		"anybody's":           {rawProto{}.msg(1, own).wrap(2, 1), tlsContext{identity: workloadRef(), demands: true, failure: "transport_socket.require_client_certificate cannot be obeyed: there are no roots to verify it with"}},
		"OCSP":                {rawProto{}.msg(1, own).num(8, 2), tlsContext{identity: workloadRef(), failure: "transport_socket.ocsp_staple_policy cannot be obeyed: OCSP responses are not stapled"}},
		"nothing to be shown": {nil, tlsContext{failure: "transport_socket.common_tls_context cannot be obeyed: it names no certificate to show"}},
	} {
		chain := rawChain("x", rawManager(rawRouter), "").msg(6, rawProto{}.packed(3, typeDownstreamTLS, test.raw))
		got, err := decodeResource(kindListener, rawInbound(chain))
		if err != nil {
			t.Fatal(err)
		}
		if c := got.value.(*listener).inbound[0].tls; !reflect.DeepEqual(c, test.want.settle()) {
			t.Errorf("%s: got  %+v\nwant %+v", name, c, &test.want)
		}
	}
}

// TestTextsOfContexts: what differs is told apart, and no secret is told.
func TestTextsOfContexts(t *testing.T) {
	a := meshtest.NewAuthority(t)
	inlined := func(a *meshtest.Authority, id string) rawProto {
		cert, err := a.Issue(id)
		if err != nil {
			t.Fatal(err)
		}
		key, err := meshtest.KeyPEM(cert)
		if err != nil {
			t.Fatal(err)
		}
		return rawUpstream(rawProto{}.msg(2, rawProto{}.msg(1, rawProto{}.text(2, string(meshtest.ChainPEM(cert)))).msg(2, rawProto{}.text(2, string(key)))).
			msg(3, rawProto{}.msg(1, rawProto{}.text(3, string(a.RootPEM())))))
	}
	read := func(raw rawProto) *tlsContext {
		got, err := decodeResource(kindCluster, rawCluster().msg(24, rawProto{}.packed(3, typeUpstreamTLS, raw)))
		if err != nil {
			t.Fatal(err)
		}
		return got.value.(*cluster).tls
	}
	first := inlined(a, "spiffe://cluster.local/ns/a/sa/b")
	one, same, other, rooted := read(first), read(first), read(inlined(a, "spiffe://cluster.local/ns/a/sa/c")), read(inlined(meshtest.NewAuthority(t), "spiffe://cluster.local/ns/a/sa/b"))
	if one.text != same.text || one.text == other.text || rooted.text == one.text || one.roots.text() == rooted.roots.text() || one.roots.text() != other.roots.text() {
		t.Errorf("texts\n%s\n%s\n%s\n%s", one.text, same.text, other.text, rooted.text)
	}
	block, _ := pem.Decode(one.identity.inlineKey[strings.Index(string(one.identity.inlineKey), "PRIVATE KEY")-11:])
	if block == nil {
		t.Fatal("no key")
	}
	text := one.text + (&security{context: one}).String()
	if strings.Contains(text, "PRIVATE") || strings.Contains(text, string(block.Bytes)) || strings.Contains(text, strings.Split(string(one.identity.inlineKey), "\n")[3]) {
		t.Error("the text tells a secret")
	}
}

// TestOffersOfTLSAreNotTakenWithoutACertificate: as before there was any, and
// what was demanded is still demanded.
func TestOffersOfTLSAreNotTakenWithoutACertificate(t *testing.T) {
	raw, err := os.ReadFile("testdata/tls/clusters.binpb")
	if err != nil {
		t.Fatal(err)
	}
	response, err := decodeADSResponse(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range response.resources {
		taken, err := decodeResource(kindCluster, r.value)
		if err != nil {
			t.Fatal(err)
		}
		left, err := decodeAnonymously(kindCluster, r.value)
		if err != nil {
			t.Fatal(err)
		}
		with, without := taken.value.(*cluster), left.value.(*cluster)
		if len(without.sockets) != 0 || (with.tls == nil) != (without.tls == nil) || (len(with.sockets) > 0) != slices.Contains(left.ignored, "transport_socket_matches") {
			t.Errorf("%s: %+v, %q", with.name, without, left.ignored)
		}
	}
}

// FuzzTLSContext: whatever a context says, it is never plain text, it verifies
// whom it names, it is the same again, and what it cannot do fails.
func FuzzTLSContext(f *testing.F) {
	for _, file := range []string{"testdata/tls/clusters.binpb", "testdata/tls/clusters-lean.binpb"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		response, err := decodeADSResponse(raw)
		if err != nil {
			f.Fatal(err)
		}
		for _, r := range response.resources {
			socket, _ := submessage(r.value, 24, "transport_socket")
			packed, _ := submessage(socket, 3, "typed_config")
			if x, err := decodeExtension(packed); err == nil && len(x.value) > 0 {
				f.Add(x.value)
			}
		}
	}
	f.Add([]byte(rawUpstream(rawValidated(rawProto{}.msg(12, rawProto{}.packed(2, typeSPIFFEValidator, rawProto{}.msg(1, rawProto{}.text(1, "x").msg(2, rawProto{}.text(3, "y")))))))))
	f.Add([]byte(rawUpstream(rawValidated(rawProto{}.msg(17, rawProto{}).msg(15, rawProto{}.num(1, 5).text(3, "1.2").msg(2, rawProto{}.msg(5, rawRegex("a.*"))))))))
	f.Add([]byte(rawUpstream(rawProto{}.msg(1, rawProto{}.num(1, 3).text(3, "AES128-SHA").text(4, "P-256")).msg(2, rawProto{}.msg(1, rawProto{}.text(3, "c")).msg(2, rawProto{}.text(3, "k"))))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, kind := range []string{typeUpstreamTLS, typeDownstreamTLS} {
			socket := rawProto{}.packed(3, kind, raw)
			var d decoding
			got, err := d.transportSocket(socket, kind, "transport_socket")
			again, err2 := new(decoding).transportSocket(socket, kind, "transport_socket")
			if (err == nil) != (err2 == nil) || !reflect.DeepEqual(got, again) {
				t.Fatalf("first %+v, %v, then %+v, %v", got, err, again, err2)
			}
			if err != nil {
				if got != nil {
					t.Fatal("a context and an error")
				}
				continue
			}
			if got == nil || got.text == "" || len(d.ignored) > maxIgnored {
				t.Fatalf("%+v, %d ignored", got, len(d.ignored))
			}
			if got.failure == "" && (len(got.names) > 0 || kind == typeDownstreamTLS && got.demands) && !got.verifies() {
				t.Fatalf("anybody is let in: %+v", got)
			}
			if key := string(got.identity.inlineKey); len(key) > 40 && strings.Contains(got.text, key) {
				t.Fatal("the text has a secret")
			}
		}
	})
}
