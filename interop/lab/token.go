package lab

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/proxyless/proxyless/interop/kubeapi"
)

// IstioAudience is what istiod wants among the audiences of a token.
const IstioAudience = "istio-ca"

// Token asks the API server for a token of the service account (TokenRequest).
// Without audiences it carries [Options.APIAudiences]. The server gives no
// token for less than ten minutes; see [Lab.SignToken] for those.
func (l *Lab) Token(ctx context.Context, namespace, account string, expiry time.Duration, audiences ...string) (string, error) {
	spec := map[string]any{"expirationSeconds": int64(expiry / time.Second)}
	if len(audiences) > 0 {
		spec["audiences"] = audiences
	}
	request := map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
	var answer struct{ Status struct{ Token string } }
	path := "/api/v1/namespaces/" + namespace + "/serviceaccounts/" + account + "/token"
	err := WaitFor(ctx, "the service account "+namespace+"/"+account, func(ctx context.Context) error {
		return unlessNotFound(l.API.Create(ctx, path, request, &answer))
	})
	return answer.Status.Token, err
}

// Claims returns those of a token of the service account that is valid from
// one hour before expires until then, for changing and [Lab.SignToken].
func (l *Lab) Claims(ctx context.Context, namespace, account string, expires time.Time, audiences ...string) (map[string]any, error) {
	var found struct{ Metadata struct{ UID string } }
	if err := l.API.Get(ctx, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+account, &found); err != nil {
		return nil, err
	}
	from := expires.Add(-time.Hour).Unix()
	return map[string]any{
		"iss": tokenIssuer,
		"sub": "system:serviceaccount:" + namespace + ":" + account,
		"aud": audiences,
		"iat": from,
		"nbf": from,
		"exp": expires.Unix(),
		"kubernetes.io": map[string]any{
			"namespace":      namespace,
			"serviceaccount": map[string]any{"name": account, "uid": found.Metadata.UID},
		},
	}, nil
}

// SignToken makes a token of any claims with the key that the API server
// signs service account tokens with (RS256).
func (l *Lab) SignToken(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) +
		"." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, l.keys.accounts, crypto.SHA256, digest[:])
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// RootCert returns the PEM root that istiod publishes in the namespace, with
// which its certificate is verified.
func (l *Lab) RootCert(ctx context.Context, namespace string) ([]byte, error) {
	var found struct{ Data map[string]string }
	path := "/api/v1/namespaces/" + namespace + "/configmaps/istio-ca-root-cert"
	err := WaitFor(ctx, "istiod's root in namespace "+namespace, func(ctx context.Context) error {
		if err := l.API.Get(ctx, path, &found); err != nil {
			return unlessNotFound(err)
		}
		if found.Data["root-cert.pem"] == "" {
			return fmt.Errorf("%s has no root-cert.pem", path)
		}
		return nil
	})
	return []byte(found.Data["root-cert.pem"]), err
}

// unlessNotFound makes every refusal but "not found" end the waiting.
func unlessNotFound(err error) error {
	if err == nil || kubeapi.IsNotFound(err) {
		return err
	}
	return stop{err}
}

// unlessForbidden makes every refusal but "forbidden" end the waiting: a pod is
// forbidden while its namespace has no service account yet.
func unlessForbidden(err error) error {
	if err == nil || kubeapi.IsForbidden(err) {
		return err
	}
	return stop{err}
}
