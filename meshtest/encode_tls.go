package meshtest

import "strings"

const (
	rawSocketName = "envoy.transport_sockets.raw_buffer"
	rawSocketType = typePrefix + "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
)

// The values of the enumerations that TLS needs.
const (
	tls12, tls13 = 3, 4
	grpcAPI, v3  = 2, 2
)

// agentSource is the ConfigSource of a secret that the agent of a sidecar
// serves. Files are waited for, workload certificates are not.
func agentSource(wait bool) []byte {
	service := appendMessage(nil, 1, appendString(nil, 1, "sds-grpc"))
	api := appendVarint(nil, 1, grpcAPI)
	api = appendMessage(api, 4, service)
	api = appendBool(api, 7, true)
	api = appendVarint(api, 8, v3)
	b := appendMessage(nil, 2, api)
	if !wait {
		b = appendDuration(b, 4, 0)
	}
	return appendVarint(b, 6, v3)
}

func secret(name string, wait bool) []byte {
	source := agentSource(wait)
	if strings.HasPrefix(name, credentialPrefix) {
		source = appendVarint(appendMessage(nil, 3, nil), 6, v3)
	}
	return appendMessage(appendString(nil, 1, name), 2, source)
}

// credentialPrefix begins the names of the secrets that istiod itself serves.
const credentialPrefix = "kubernetes://"

// sidecarTLS is what the CommonTlsContexts that istiod sends to sidecars differ
// in.
type sidecarTLS struct {
	ciphers  bool
	alpn     []string
	identity string   // name of the secret; empty for none
	root     string   // likewise
	files    bool     // the secrets are files
	crl      string   // path of a list of revoked certificates; empty for none
	blind    bool     // nothing is verified
	sans     [][]byte // StringMatchers
}

func (c sidecarTLS) marshal() []byte {
	params := appendVarint(appendVarint(nil, 1, tls12), 2, tls13)
	if c.ciphers {
		params = appendStrings(params, 3, []string{
			"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
			"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
			"AES256-GCM-SHA384", "AES128-GCM-SHA256",
		})
	}
	b := appendMessage(nil, 1, params)
	b = appendStrings(b, 4, c.alpn)
	if c.identity != "" {
		b = appendMessage(b, 6, secret(c.identity, c.files))
	}
	if c.blind {
		return appendMessage(b, 3, nil)
	}
	var sans []byte
	if c.crl != "" {
		sans = appendMessage(sans, 7, appendString(nil, 1, c.crl))
	}
	for _, san := range c.sans {
		sans = appendMessage(sans, 9, san)
	}
	combined := appendMessage(nil, 1, sans)
	if c.root != "" {
		combined = appendMessage(combined, 2, secret(c.root, c.files))
	}
	return appendMessage(b, 8, combined)
}

func exactly(values []string) (matchers [][]byte) {
	for _, v := range values {
		matchers = append(matchers, appendMember(nil, 1, v))
	}
	return matchers
}

// workloadSocket is the transport socket for mutual TLS between workloads.
func workloadSocket(sni string, sans []string, http2 bool) []byte {
	c := sidecarTLS{
		alpn:     []string{"istio-peer-exchange", "istio"},
		identity: "default", root: "ROOTCA", sans: exactly(sans),
	}
	if http2 {
		c.alpn = append(c.alpn, "h2")
	}
	return upstreamSocket(c, sni)
}

func upstreamSocket(c sidecarTLS, sni string) []byte {
	b := appendString(nil, 1, tlsSocketName)
	return appendAny(b, 3, upstreamType, appendString(appendMessage(nil, 1, c.marshal()), 2, sni))
}

// socket is the transport socket that a DestinationRule asks for; nil where it
// is the plain one.
func (s TLSSettings) socket(sni string, sans []string, http2 bool) []byte {
	switch s.Mode {
	case TLSDisable:
		return nil
	case TLSIstioMutual:
		if s.SNI != "" {
			sni = s.SNI
		}
		if s.SANs != nil {
			sans = s.SANs
		}
		return workloadSocket(sni, sans, http2)
	}
	c := sidecarTLS{files: true, sans: exactly(s.SANs), crl: s.CRL, blind: s.Insecure, root: s.root()}
	if http2 {
		c.alpn = []string{"h2"}
	}
	if s.Mode == TLSMutual {
		c.identity = s.identity()
	}
	return upstreamSocket(c, s.SNI)
}

func (s TLSSettings) root() string {
	switch {
	case s.Credential != "":
		return credentialPrefix + s.Credential + "-cacert"
	case s.CACertificates != "":
		return "file-root:" + s.CACertificates
	}
	return "file-root:system"
}

func (s TLSSettings) identity() string {
	if s.Credential != "" {
		return credentialPrefix + s.Credential
	}
	return "file-cert:" + s.ClientCertificate + "~" + s.PrivateKey
}

// autoTLS is transport_socket_matches: mutual TLS to the endpoints that say so in
// their metadata, plain text to all others.
func autoTLS(b []byte, sni string, sans []string, http2 bool) []byte {
	mode := appendMessage(appendString(nil, 1, "tlsMode"), 2, appendMember(nil, 3, "istio"))
	m := appendString(nil, 1, "tlsMode-istio")
	m = appendMessage(m, 2, appendMessage(nil, 1, mode))
	b = appendMessage(b, 43, appendMessage(m, 3, workloadSocket(sni, sans, http2)))
	m = appendString(nil, 1, "tlsMode-disabled")
	m = appendMessage(m, 2, nil)
	plain := appendAny(appendString(nil, 1, rawSocketName), 3, rawSocketType, nil)
	return appendMessage(b, 43, appendMessage(m, 3, plain))
}

// inboundTLS is the DownstreamTlsContext of a sidecar.
func inboundTLS(alpn ...string) []byte {
	c := sidecarTLS{
		ciphers: true, alpn: alpn, identity: "default", root: "ROOTCA",
		sans: [][]byte{appendMember(nil, 2, "spiffe://cluster.local/")},
	}
	return appendWrapped(appendMessage(nil, 1, c.marshal()), 2, 1)
}
