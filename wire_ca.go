package proxyless

import (
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// certificateRequest is an istio.v1.auth.IstioCertificateRequest.
type certificateRequest struct {
	csr      string        // PEM
	lifetime time.Duration // of which whole seconds count
	signer   string        // which of its signers an authority is to use (Istio's CertSigner); empty for its own choice
}

// append encodes the request after b.
func (r *certificateRequest) append(b []byte) []byte {
	b = appendText(b, 1, r.csr)
	b = appendNumber(b, 3, uint64(r.lifetime/time.Second)) // validity_duration
	if r.signer != "" {
		b = appendMessage(b, 4, appendStruct(nil, map[string]any{"CertSigner": r.signer}, maxMetadataDepth)) // metadata
	}
	return b
}

// maxChain is how many texts an answer may hold.
const maxChain = 100

// decodeCertificateResponse reads an istio.v1.auth.IstioCertificateResponse:
// PEM texts, that of the leaf first, that of the roots last, and intermediates
// between them. A text may hold several certificates. All results are in DER.
func decodeCertificateResponse(message []byte) (chain, roots [][]byte, err error) {
	var texts [][]byte
	c := walk(message)
	for c.next() {
		if c.num == 1 {
			text := c.raw("cert_chain")
			if len(texts) == maxChain {
				c.fail(inField("cert_chain", fmt.Errorf("more than %d elements", maxChain)))
			}
			texts = append(texts, text)
		}
	}
	switch {
	case c.err != nil:
		return nil, nil, c.err
	case len(texts) < 2:
		return nil, nil, inField("cert_chain", fmt.Errorf("%d elements, where the certificate is the first and the root the last", len(texts)))
	}
	for i, text := range texts {
		found, err := certificatesOf(text)
		if err != nil {
			return nil, nil, inElement("cert_chain", i, err)
		}
		if i == len(texts)-1 {
			roots = found
		} else {
			chain = append(chain, found...)
		}
	}
	return chain, roots, nil
}

// certificatesOf takes the certificates out of a PEM text, which holds nothing
// else.
func certificatesOf(text []byte) (found [][]byte, err error) {
	if err := wholePEM(text); err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errors.New("a PEM block that is no certificate")
		}
		if found = append(found, block.Bytes); len(found) > maxRoots {
			return nil, fmt.Errorf("more than %d certificates", maxRoots)
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no PEM certificate")
	}
	return found, nil
}
