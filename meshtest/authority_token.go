package meshtest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// istioAudience is whom istiod wants tokens to be for.
const istioAudience = "istio-ca"

// claims are what a service account token says.
type claims struct {
	Issuer     string   `json:"iss"`
	Audience   []string `json:"aud"`
	Expiry     int64    `json:"exp"`
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// Token is the token of a service account, for the audience istio-ca, that is
// valid for a time.
func (a *Authority) Token(namespace, account string, valid time.Duration) string {
	return a.TokenFor(istioAudience, namespace, account, valid)
}

// TokenFor is Token for another audience.
func (a *Authority) TokenFor(audience, namespace, account string, valid time.Duration) string {
	c := claims{Issuer: "https://kubernetes.default.svc", Audience: []string{audience}, Expiry: time.Now().Add(valid).Unix()}
	c.Kubernetes.Namespace, c.Kubernetes.ServiceAccount.Name = namespace, account
	payload, _ := json.Marshal(c) // of strings and numbers
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return head + "." + a.seal(head)
}

func (a *Authority) seal(head string) string {
	mac := hmac.New(sha256.New, a.secret)
	mac.Write([]byte(head))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// admit says who the caller is. As istiod does, it does not say what is wrong.
func (a *Authority) admit(md metadata.MD) (id string, err error) {
	refused := status.Error(codes.Unauthenticated, "request authenticate failure")
	head, seal, ok := cutLast(bearer(md), ".")
	if !ok || !hmac.Equal([]byte(seal), []byte(a.seal(head))) {
		return "", refused
	}
	_, encoded, _ := strings.Cut(head, ".")
	payload, err := base64.RawURLEncoding.DecodeString(encoded)
	var c claims
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return "", refused
	}
	if !slices.Contains(c.Audience, istioAudience) || time.Now().Unix() >= c.Expiry {
		return "", refused
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clusterID != "" && first(md, "clusterid") != a.clusterID {
		return "", refused
	}
	return fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", a.domain, c.Kubernetes.Namespace, c.Kubernetes.ServiceAccount.Name), nil
}

func bearer(md metadata.MD) string {
	token, _ := strings.CutPrefix(first(md, "authorization"), "Bearer ")
	return token
}

func first(md metadata.MD, key string) string {
	if values := md.Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

func cutLast(s, sep string) (before, after string, found bool) {
	at := strings.LastIndex(s, sep)
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+len(sep):], true
}

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
