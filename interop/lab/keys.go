package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// keys are what the API server proves itself and signs tokens with.
type keys struct {
	rootPEM  []byte          // the root that API clients trust
	accounts *rsa.PrivateKey // signs service account tokens

	root, cert, key                 string // files: the root, the server's certificate and key
	accountsPrivate, accountsPublic string // files
}

func makeKeys(dir string) (*keys, error) {
	k := &keys{
		root:            filepath.Join(dir, "root.crt"),
		cert:            filepath.Join(dir, "apiserver.crt"),
		key:             filepath.Join(dir, "apiserver.key"),
		accountsPrivate: filepath.Join(dir, "accounts.key"),
		accountsPublic:  filepath.Join(dir, "accounts.pub"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := k.makeServer(); err != nil {
		return nil, err
	}
	return k, k.makeAccounts()
}

// makeServer issues the API server's certificate from a root of its own.
func (k *keys) makeServer() error {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	root := certificate("lab root")
	root.IsCA, root.BasicConstraintsValid = true, true
	root.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return err
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	server := certificate("kube-apiserver")
	server.DNSNames = []string{"localhost", "kubernetes.default.svc"}
	server.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), Gateway.AsSlice()}
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, root, serverKey.Public(), rootKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return err
	}
	k.rootPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})
	if err := os.WriteFile(k.root, k.rootPEM, 0o644); err != nil {
		return err
	}
	if err := writePEM(k.cert, "CERTIFICATE", serverDER); err != nil {
		return err
	}
	return writePEM(k.key, "PRIVATE KEY", keyDER)
}

func (k *keys) makeAccounts() (err error) {
	if k.accounts, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	if err := writePEM(k.accountsPrivate, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k.accounts)); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(k.accounts.Public())
	if err != nil {
		return err
	}
	return writePEM(k.accountsPublic, "PUBLIC KEY", public)
}

func certificate(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
