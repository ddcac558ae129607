package meshtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// ServerConfig is for a server that is known by names and by the addresses of
// this host. It shows a certificate of the newest root.
func (a *Authority) ServerConfig(names ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.issue(func(c *x509.Certificate) {
				c.DNSNames = append(names, "localhost")
				c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.IPv4(192, 0, 2, 1)}
			})
		},
	}
}

// Issue makes a key and a certificate for a SPIFFE id, valid for an hour, for
// both ends of a connection; id may be empty. The functions change the
// certificate before it is signed.
func (a *Authority) Issue(id string, change ...func(*x509.Certificate)) (tls.Certificate, error) {
	var uris []*url.URL
	if id != "" {
		u, err := url.Parse(id)
		if err != nil {
			return tls.Certificate{}, err
		}
		uris = append(uris, u)
	}
	c, err := a.issue(func(c *x509.Certificate) {
		c.URIs = uris
		for _, f := range change {
			f(c)
		}
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	return *c, nil
}

func (a *Authority) issue(change func(*x509.Certificate)) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	der, err := a.signer.sign(key.Public(), change)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, a.signer.chain...), PrivateKey: key, Leaf: leaf}, nil
}

// KeyPEM is the private key of a certificate that Issue made, for tests that
// need files.
func KeyPEM(c tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ChainPEM is the chain of a certificate, the leaf first.
func ChainPEM(c tls.Certificate) []byte {
	var text []byte
	for _, der := range c.Certificate {
		text = append(text, certificatePEM(der)...)
	}
	return text
}

// signer is a root, or a root with an intermediate below it.
type signer struct {
	certificate *x509.Certificate
	key         crypto.Signer
	chain       [][]byte // DER of intermediates, the signing one first
}

// backdate is how long before now certificates of istiod begin to be valid.
const backdate = 2 * time.Minute

// newAuthority makes an intermediate, or a root where s is nil.
func (s *signer) newAuthority(name string, change ...func(*x509.Certificate)) (*signer, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	made := &signer{key: key}
	parent := s
	if s == nil {
		parent = made
	}
	der, err := parent.sign(key.Public(), func(c *x509.Certificate) {
		c.Subject = pkix.Name{Organization: []string{"meshtest"}, CommonName: fmt.Sprintf("%s %x", name, c.SerialNumber.Bytes()[:4])}
		c.NotAfter = time.Now().Add(10 * 365 * 24 * time.Hour)
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		for _, f := range change {
			f(c)
		}
	})
	if err != nil {
		return nil, err
	}
	if made.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	if s != nil {
		made.chain = append([][]byte{der}, s.chain...)
	}
	return made, nil
}

// sign signs a certificate, by itself where the signer has none yet.
func (s *signer) sign(key crypto.PublicKey, change func(*x509.Certificate)) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	serial.SetBit(serial, 120, 1)
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-backdate), NotAfter: now.Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	parent := s.certificate
	if parent == nil {
		parent = template
	}
	return x509.CreateCertificate(rand.Reader, template, parent, key, s.key)
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }
