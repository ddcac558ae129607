package meshtest

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// service describes istio.v1.auth.IstioCertificateService.
func (a *Authority) service() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: "istio.v1.auth.IstioCertificateService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "CreateCertificate",
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var message []byte
				if err := decode(&message); err != nil {
					return nil, err
				}
				answer, err := a.create(ctx, message)
				return answer, err
			},
		}},
	}
}

// AuthorityRequest is one call of CreateCertificate, whether it was answered or
// refused.
type AuthorityRequest struct {
	At        time.Time
	CSR       string        // PEM, as it came
	Lifetime  time.Duration // validity_duration
	Token     string        // without "Bearer"; empty for none
	ClusterID string        // header clusterid
	ID        string        // SPIFFE id that the token stands for; empty for a token that is not in order
}

// create is CreateCertificate. Its caller is who the token says.
func (a *Authority) create(ctx context.Context, message []byte) ([]byte, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	request, err := decodeCertificateRequest(message)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	request.At, request.Token, request.ClusterID = time.Now(), bearer(md), first(md, "clusterid")
	id, refusal := a.admit(md)
	request.ID = id
	a.mu.Lock()
	a.requests = append(a.requests, request)
	close(a.changed)
	a.changed = make(chan struct{})
	failure, script := a.failure, a.script
	a.mu.Unlock()
	switch {
	case failure != nil:
		return nil, failure
	case refusal != nil:
		return nil, refusal
	}
	if script == nil {
		script = a.Sign
	}
	chain, err := script(request)
	if err != nil {
		return nil, err
	}
	return encodeCertificateResponse(chain), nil
}

// Sign is the answer that a request gets: cert_chain, the leaf first, then
// intermediates, and the roots, all in one, last.
func (a *Authority) Sign(request AuthorityRequest) ([]string, error) {
	block, _ := pem.Decode([]byte(request.CSR))
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, status.Error(codes.InvalidArgument, "no PEM certificate request")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	uri, err := url.Parse(request.ID)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	lifetime := request.Lifetime
	if a.lifetime != nil {
		lifetime = a.lifetime(lifetime)
	}
	der, err := a.signer.sign(csr.PublicKey, func(c *x509.Certificate) {
		c.URIs, c.NotAfter = []*url.URL{uri}, time.Now().Add(lifetime)
	})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	chain := []string{string(certificatePEM(der))}
	for _, der := range a.signer.chain {
		chain = append(chain, string(certificatePEM(der)))
	}
	return append(chain, string(a.rootPEM())), nil
}

// decodeCertificateRequest reads an istio.v1.auth.IstioCertificateRequest.
func decodeCertificateRequest(message []byte) (r AuthorityRequest, err error) {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return r, protowire.ParseError(n)
		}
		message = message[n:]
		switch {
		case num == 1 && typ == protowire.BytesType: // csr
			r.CSR, n = protowire.ConsumeString(message)
		case num == 3 && typ == protowire.VarintType: // validity_duration
			var seconds uint64
			seconds, n = protowire.ConsumeVarint(message)
			r.Lifetime = time.Duration(int64(seconds)) * time.Second
		default:
			n = protowire.ConsumeFieldValue(num, typ, message)
		}
		if n < 0 {
			return r, protowire.ParseError(n)
		}
		message = message[n:]
	}
	return r, nil
}

// encodeCertificateResponse writes an istio.v1.auth.IstioCertificateResponse.
func encodeCertificateResponse(chain []string) (b []byte) {
	for _, text := range chain {
		b = protowire.AppendTag(b, 1, protowire.BytesType) // cert_chain
		b = protowire.AppendString(b, text)
	}
	return b
}
