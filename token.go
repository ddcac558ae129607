package proxyless

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Files that Kubernetes and Istio put into a pod.
const (
	defaultTokenFile = "/var/run/secrets/tokens/istio-token"
	accountTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// istiodAudience is what istiod asks for in a token (its TOKEN_AUDIENCES).
const istiodAudience = "istio-ca"

// readToken reads the token that proves who this process is: Config.TokenFile,
// and where that is Istio's usual path and does not exist, the service
// account's own token. The token never appears in an error.
func readToken(c *Config, readFile func(path string) ([]byte, error)) (token, path string, err error) {
	path = c.TokenFile
	data, err := readFile(path)
	if path == defaultTokenFile && errors.Is(err, fs.ErrNotExist) {
		if fallback, fallbackErr := readFile(accountTokenFile); fallbackErr == nil {
			path, data, err = accountTokenFile, fallback, nil
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", path, judgeToken("", path, time.Time{})
	case err != nil:
		return "", path, &Error{Stage: StageIdentity, Resource: path, Reason: "the token cannot be read", Err: err,
			Advice: "let the user of this process read the file"}
	case len(data) > maxFile:
		return "", path, &Error{Stage: StageIdentity, Resource: path, Reason: fmt.Sprintf("is larger than %d bytes and cannot be a token", maxFile),
			Advice: "name the token's file in Config.TokenFile"}
	}
	token = strings.TrimSpace(string(data))
	if token == "" {
		return "", path, judgeToken("", path, time.Time{})
	}
	return token, path, nil
}

// tokenClaims is what is read of a service account token's payload. The
// signature is not looked at: only istiod can judge it.
type tokenClaims struct {
	Issuer     string    `json:"iss"`
	Audience   audiences `json:"aud"`
	Expiry     unixTime  `json:"exp"`
	NotBefore  unixTime  `json:"nbf"`
	Kubernetes struct {
		Namespace string `json:"namespace"`
		Pod       struct {
			Name string `json:"name"`
		} `json:"pod"`
		ServiceAccount struct {
			Name string `json:"name"`
		} `json:"serviceaccount"`
	} `json:"kubernetes.io"`
}

// audiences is one string or a list (RFC 7519, 4.1.3).
type audiences []string

func (a *audiences) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// unixTime is a number of seconds, possibly with a fraction.
type unixTime float64

func (t unixTime) time() time.Time {
	const year9999 = 253402300799
	return time.Unix(int64(min(max(float64(t), 0), year9999)), 0).UTC()
}

var errNotJWT = errors.New("it is not a JSON Web Token")

// parseToken decodes the payload of a JWT. Its errors never quote the token.
func parseToken(token string) (tokenClaims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxFile {
		return tokenClaims{}, errNotJWT
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return tokenClaims{}, errNotJWT
	}
	var claims tokenClaims
	if json.Unmarshal(payload, &claims) != nil {
		return tokenClaims{}, errNotJWT
	}
	return claims, nil
}

// judgeToken says what istiod would reject a token for, as far as that can be
// seen from here: it is absent, no JWT, for another audience, or out of its
// time. It returns nil where all of that is in order. An istiod with
// TOKEN_AUDIENCES of its own judges audiences otherwise, so that the answer
// explains a refusal and does not replace it.
func judgeToken(token, path string, now time.Time) *Error {
	e := &Error{Stage: StageIdentity, Resource: path}
	if token == "" {
		e.Reason, e.Advice = "there is no token, and istiod admits nobody without one", projectToken(path)
		return e
	}
	claims, err := parseToken(token)
	switch {
	case err != nil:
		e.Reason, e.Advice = "the file holds no token: "+err.Error(), projectToken(path)
	case !slices.Contains(claims.Audience, istiodAudience):
		e.Reason = fmt.Sprintf("the token is for %s, and istiod asks for the audience %s", claims.audienceText(), istiodAudience)
		e.Advice = projectToken(path)
	case claims.Expiry != 0 && !now.Before(claims.Expiry.time()):
		e.Reason = fmt.Sprintf("the token expired at %s, %s ago", stamp(claims.Expiry.time()), between(claims.Expiry.time(), now))
		e.Advice = "mount it as a projected volume, which the kubelet renews (a copied file or a subPath mount stays as it was), and check this host's clock"
	case now.Before(claims.NotBefore.time()):
		e.Reason = fmt.Sprintf("the token is not valid before %s, in %s", stamp(claims.NotBefore.time()), between(now, claims.NotBefore.time()))
		e.Advice = "check this host's clock"
	default:
		return nil
	}
	return e
}

// explainUnauthenticated says why istiod refused the token that was just sent.
// istiod answers each of the causes alike; what can be judged here is judged,
// and what cannot is named.
func explainUnauthenticated(c *Config, token, path string, now time.Time) *Error {
	if e := judgeToken(token, path, now); e != nil {
		return e
	}
	claims, _ := parseToken(token)
	if e := claims.contradict(&c.Node, path); e != nil {
		return e
	}
	return &Error{
		Stage: StageIdentity, Resource: path,
		Reason: fmt.Sprintf("istiod refused the token, whose audience (%s) and time (%s) are in order; two causes are left", istiodAudience, claims.validity()),
		Advice: fmt.Sprintf("either this cluster is not %q to istiod: set ISTIO_META_CLUSTER_ID to istiod's CLUSTER_ID (kubectl -n istio-system describe deployment istiod shows it); "+
			"or istiod's API server does not trust the token's issuer %s: use a token of the cluster that istiod watches", c.Node.ClusterID, shownIssuer(claims.Issuer)),
	}
}

// contradict compares the node with the token, as istiod does.
func (t *tokenClaims) contradict(n *Node, path string) *Error {
	for _, part := range []struct{ word, node, token, advice string }{
		{"namespace", n.Namespace, t.Kubernetes.Namespace, "POD_NAMESPACE or Config.Node.Namespace"},
		{"service account", n.ServiceAccount, t.Kubernetes.ServiceAccount.Name, "SERVICE_ACCOUNT or Config.Node.ServiceAccount"},
	} {
		if part.node != "" && part.token != "" && part.node != part.token {
			return &Error{
				Stage: StageIdentity, Resource: path,
				Reason: fmt.Sprintf("the token belongs to the %s %s, and this process says it is in %s", part.word, strconv.Quote(part.token), strconv.Quote(part.node)),
				Advice: "correct " + part.advice,
			}
		}
	}
	return nil
}

// projectToken is the manifest that gives a pod the token istiod asks for, in
// YAML's flow style so that it stays one line in a log.
func projectToken(file string) string {
	if file == accountTokenFile {
		file = defaultTokenFile
	}
	dir, base := path.Split(file)
	return fmt.Sprintf("add to the pod's spec: volumes: [{name: istio-token, projected: {sources: [{serviceAccountToken: {audience: %s, expirationSeconds: 43200, path: %s}}]}}] "+
		"and to its container: volumeMounts: [{name: istio-token, mountPath: %s, readOnly: true}]", istiodAudience, base, path.Clean(dir))
}

// audienceText names the audiences, bounded since they are somebody else's.
func (t *tokenClaims) audienceText() string {
	if len(t.Audience) == 0 {
		return "no audience"
	}
	const most = 8
	return "the audience " + shownIssuer(strings.Join(t.Audience[:min(len(t.Audience), most)], ", "))
}

func (t *tokenClaims) validity() string {
	if t.Expiry == 0 {
		return "it never expires"
	}
	return "until " + stamp(t.Expiry.time())
}

func shownIssuer(text string) string {
	const most = 300
	return strconv.Quote(text[:min(len(text), most)])
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func between(from, to time.Time) time.Duration { return to.Sub(from).Round(time.Second) }
