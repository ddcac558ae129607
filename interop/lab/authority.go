package lab

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
)

// Authority is a certificate authority of a test, which istiod can be made to
// sign with: a replica with ROOT_CA_DIR set to the folder of [WriteAuthority].
type Authority struct {
	Certificate *x509.Certificate
	PEM         []byte // of Certificate
	Key         *ecdsa.PrivateKey
}

// NewAuthority makes a root of the name, or an authority below a parent.
func NewAuthority(name string, parent *Authority) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &Authority{Key: key}
	template := certificate(name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	signer, signerKey := template, key
	if parent != nil {
		signer, signerKey = parent.Certificate, parent.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	if err != nil {
		return nil, err
	}
	a.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a.Certificate, err = x509.ParseCertificate(der)
	return a, err
}

// WriteAuthority writes what a folder of the secret "cacerts" holds: istiod
// signs with the authority, whose own certificate is of root, and publishes the
// roots. istiod takes a change up by itself, of the roots with
// ISTIO_MULTIROOT_MESH=true and only where one set holds the other.
func WriteAuthority(dir string, signer, root *Authority, roots ...*Authority) error {
	key, err := x509.MarshalPKCS8PrivateKey(signer.Key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "ca-cert.pem"), signer.PEM, 0o600),
		writePEM(filepath.Join(dir, "ca-key.pem"), "PRIVATE KEY", key),
		os.WriteFile(filepath.Join(dir, "cert-chain.pem"), Bundle(signer, root), 0o600),
		os.WriteFile(filepath.Join(dir, "root-cert.pem"), Bundle(roots...), 0o600),
	)
}

// Bundle is the certificates of authorities, one after the other.
func Bundle(authorities ...*Authority) []byte {
	var bundle bytes.Buffer
	for _, a := range authorities {
		bundle.Write(a.PEM)
	}
	return bundle.Bytes()
}
