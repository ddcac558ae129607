package meshtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
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
