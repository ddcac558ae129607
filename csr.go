package proxyless

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// certAuthority asks for certificates by istio.v1.auth.IstioCertificateService.
type certAuthority struct {
	// Constant after construction.
	config    *Config
	addresses []string // asked in order
	readFile  func(string) ([]byte, error)

	// Owned by the caller of ask.
	first   int             // of the addresses
	pending *pendingRequest // made, and not answered yet; nil for none
}

// pendingRequest is a key with the request to certify it. Attempts that fail
// share one: an RSA key takes seconds of a processor.
type pendingRequest struct {
	key     crypto.Signer
	message []byte
}

const (
	createCertificate = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
	askTimeout        = 10 * time.Second // of one address, connecting included
	maxIssue          = 1 << 20          // bytes of an answer
)

// newCertAuthority finds who can be asked; nil where nobody can.
func newCertAuthority(config *Config, readFile func(string) ([]byte, error)) *certAuthority {
	a := &certAuthority{config: config, readFile: readFile}
	if address := config.Identity.CAAddress; address != "" {
		a.addresses = []string{address}
		return a
	}
	for _, address := range config.ControlPlanes {
		if !config.plainTextTo(address) {
			a.addresses = append(a.addresses, address)
		}
	}
	if len(a.addresses) == 0 {
		return nil
	}
	return a
}

// name is how the authority is spoken of.
func (a *certAuthority) name() string { return a.addresses[a.first%len(a.addresses)] }

// rootFile is what the authority is verified with; it may be SystemRoots.
func (a *certAuthority) rootFile() string {
	if a.config.Identity.CAAddress != "" {
		return a.config.Identity.CARootFile
	}
	return a.config.RootCertFile
}

// ask has a key certified that no answer was about. Each address is tried once,
// the one that answered last before the others. The error is that of the last one
// tried.
func (a *certAuthority) ask(ctx context.Context) (*issue, *Error) {
	if a.pending == nil {
		var err error
		if a.pending, err = a.prepare(); err != nil {
			return nil, &Error{Stage: StageIdentity, Reason: "no request for a certificate can be made", Err: err}
		}
	}
	var trouble *Error
	for range a.addresses {
		address := a.name()
		x := contact{config: a.config, address: address, authority: true, rootFile: a.rootFile()}
		answer, err := a.call(ctx, &x, a.pending.message)
		made := &issue{from: address, key: a.pending.key}
		if err == nil {
			if made.chain, made.roots, err = decodeCertificateResponse(answer); err == nil {
				a.pending = nil
				return made, nil
			}
			err = fmt.Errorf("it sent what is no IstioCertificateResponse: %w", err)
		}
		trouble = x.explain(err)
		a.first++
		if ctx.Err() != nil {
			break
		}
	}
	return nil, trouble
}

func (a *certAuthority) prepare() (*pendingRequest, error) {
	key, err := newKey(&a.config.Identity)
	if err != nil {
		return nil, err
	}
	csr, err := signingRequest(key, a.spiffeID())
	if err != nil {
		return nil, err
	}
	request := certificateRequest{csr: csr, lifetime: a.config.Identity.Lifetime, signer: a.signer()}
	return &pendingRequest{key, request.append(nil)}, nil
}

// call makes one call on a connection of its own: the next one is hours away.
// The roots and the token are read for it.
func (a *certAuthority) call(ctx context.Context, x *contact, message []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	transport, trouble := a.transport(x)
	if trouble != nil {
		return nil, trouble
	}
	header := metadata.MD{}
	if x.token, x.tokenPath, x.tokenErr = readToken(a.config, a.readFile); x.tokenErr == nil {
		header.Set("authorization", "Bearer "+x.token)
	}
	if id := a.config.Node.ClusterID; id != "" {
		header.Set("clusterid", id)
	}
	conn, err := grpc.NewClient(dialTarget(x.address), append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithUserAgent("proxyless"),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(maxIssue)),
	}, a.config.ControlPlaneDialOptions...)...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var answer []byte
	err = conn.Invoke(metadata.NewOutgoingContext(ctx, header), createCertificate, &message, &answer)
	return answer, err
}

func (a *certAuthority) transport(x *contact) (credentials.TransportCredentials, *Error) {
	serverName, skip := a.config.serverNameFor(x.address), a.config.InsecureSkipVerify
	if id := &a.config.Identity; id.CAAddress != "" {
		skip = false
		if serverName = id.CAServerName; serverName == "" {
			serverName = hostPart(x.address)
		}
	}
	config, trouble := verifying(serverName, x.rootFile, skip, a.readFile)
	if trouble != nil {
		trouble.Stage, trouble.Resource = StageIdentity, "authority "+x.address
		return nil, trouble
	}
	return credentials.NewTLS(config), nil
}

// spiffeID is what is asked for: nobody's, where it is not known who this
// process is. istiod goes by the token alone; others compare.
func (a *certAuthority) spiffeID() string {
	n := &a.config.Node
	if n.Namespace == "" || n.ServiceAccount == "" {
		return ""
	}
	return istioID(n.TrustDomain, n.Namespace, n.ServiceAccount)
}

// metaCertSigner names the signer that an authority with several is to use.
const metaCertSigner = "CERT_SIGNER"

func (a *certAuthority) signer() string {
	signer, _ := a.config.Node.Metadata[metaCertSigner].(string)
	return signer
}

func newKey(c *Identity) (crypto.Signer, error) {
	switch {
	case c.RSABits > 0:
		return rsa.GenerateKey(rand.Reader, c.RSABits)
	case c.Curve == curveP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// signingRequest is a PKCS #10 request for a SPIFFE id, which may be empty.
func signingRequest(key crypto.Signer, id string) (string, error) {
	template := &x509.CertificateRequest{}
	if id != "" {
		uri, err := url.Parse(id)
		if err != nil {
			return "", err
		}
		template.URIs = []*url.URL{uri}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}
