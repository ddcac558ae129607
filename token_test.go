package proxyless

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"
)

// testToken is an unsigned JWT with these claims; its signature is a word that
// tests look for in errors.
func testToken(t testing.TB, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode(payload) + "." + signatureWord
}

const signatureWord = "c2lnbmF0dXJl"

var testTime = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

func TestTokensAreJudgedByTheirPayload(t *testing.T) {
	at := func(d time.Duration) int64 { return testTime.Add(d).Unix() }
	for _, tt := range []struct {
		name, token string
		want        string // part of the error; "" means in order
		advice      string
	}{
		{"in order", testToken(t, map[string]any{"aud": []string{"istio-ca"}, "exp": at(time.Hour), "nbf": at(-time.Hour)}), "", ""},
		{"one of several audiences", testToken(t, map[string]any{"aud": []string{"https://kubernetes.default.svc", "istio-ca"}, "exp": at(time.Hour)}), "", ""},
		{"an audience as text", testToken(t, map[string]any{"aud": "istio-ca"}), "", ""},
		{"a fraction of a second", testToken(t, map[string]any{"aud": "istio-ca", "exp": float64(at(1)) + 0.5}), "expired", "clock"},
		{"absent", "", "there is no token", "serviceAccountToken: {audience: istio-ca, expirationSeconds: 43200, path: istio-token}"},
		{"another audience", testToken(t, map[string]any{"aud": []string{"https://kubernetes.default.svc", "vault"}, "exp": at(time.Hour)}), `the token is for the audience "https://kubernetes.default.svc, vault", and istiod asks for the audience istio-ca`, "mountPath: /var/run/secrets/tokens"},
		{"no audience", testToken(t, map[string]any{"exp": at(time.Hour)}), "the token is for no audience", "audience: istio-ca"},
		{"expired", testToken(t, map[string]any{"aud": "istio-ca", "exp": at(-90 * time.Minute)}), "the token expired at 2026-09-01T10:30:00Z, 1h30m0s ago", "projected volume"},
		{"expired now", testToken(t, map[string]any{"aud": "istio-ca", "exp": at(0)}), "expired at 2026-09-01T12:00:00Z, 0s ago", "clock"},
		{"too early", testToken(t, map[string]any{"aud": "istio-ca", "nbf": at(time.Minute)}), "not valid before 2026-09-01T12:01:00Z, in 1m0s", "clock"},
		{"a far future", testToken(t, map[string]any{"aud": "istio-ca", "exp": 1e300}), "", ""},
		{"a password", "hunter2", "the file holds no token: it is not a JSON Web Token", "audience: istio-ca"},
		{"three words", "a.b.c", "it is not a JSON Web Token", "audience: istio-ca"},
		{"no base64", "a.***.c", "it is not a JSON Web Token", "audience: istio-ca"},
		{"a list", "a.W10.c", "it is not a JSON Web Token", "audience: istio-ca"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := judgeToken(tt.token, defaultTokenFile, testTime)
			if tt.want == "" {
				if e != nil {
					t.Errorf("judged %v", e)
				}
				return
			}
			if e == nil || e.Stage != StageIdentity || e.Resource != defaultTokenFile || !strings.Contains(e.Reason, tt.want) || !strings.Contains(e.Advice, tt.advice) {
				t.Fatalf("judged %v, want %q and %q", e, tt.want, tt.advice)
			}
			for _, part := range strings.Split(tt.token, ".") {
				if len(part) > 3 && strings.Contains(e.Error(), part) {
					t.Errorf("%v quotes the token", e)
				}
			}
		})
	}
}

func TestTheManifestFitsThePath(t *testing.T) {
	if e := judgeToken("", "/etc/tokens/mesh", testTime); !strings.Contains(e.Advice, "path: mesh}") || !strings.Contains(e.Advice, "mountPath: /etc/tokens,") {
		t.Error(e)
	}
	if e := judgeToken("", accountTokenFile, testTime); !strings.Contains(e.Advice, "mountPath: /var/run/secrets/tokens,") {
		t.Error(e)
	}
}

func TestWhatIsLeftWhenTheTokenIsInOrder(t *testing.T) {
	c := &Config{Node: Node{ClusterID: "east", Namespace: "demo", ServiceAccount: "greeting"}}
	claims := map[string]any{
		"aud": "istio-ca", "exp": testTime.Add(time.Hour).Unix(), "iss": "https://issuer.example",
		"kubernetes.io": map[string]any{"namespace": "demo", "serviceaccount": map[string]any{"name": "greeting"}},
	}
	e := explainUnauthenticated(c, testToken(t, claims), "/t", testTime)
	for _, want := range []string{"proxyless: identity /t: istiod refused the token", `not "east" to istiod`, "ISTIO_META_CLUSTER_ID", "CLUSTER_ID (kubectl", `issuer "https://issuer.example"`, "until 2026-09-01T13:00:00Z"} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("%v lacks %q", e, want)
		}
	}
	if strings.Contains(e.Error(), signatureWord) {
		t.Errorf("%v quotes the token", e)
	}
	c.Node.Namespace = "other"
	if e = explainUnauthenticated(c, testToken(t, claims), "/t", testTime); !strings.Contains(e.Error(), `belongs to the namespace "demo", and this process says it is in "other"; correct POD_NAMESPACE`) {
		t.Error(e)
	}
	c.Node.Namespace, c.Node.ServiceAccount = "demo", "other"
	if e = explainUnauthenticated(c, testToken(t, claims), "/t", testTime); !strings.Contains(e.Error(), `belongs to the service account "greeting"`) {
		t.Error(e)
	}
	claims["aud"] = "vault"
	if e = explainUnauthenticated(c, testToken(t, claims), "/t", testTime); !strings.Contains(e.Error(), "vault") {
		t.Error(e)
	}
	if e = explainUnauthenticated(&Config{}, testToken(t, map[string]any{"aud": "istio-ca"}), "/t", testTime); !strings.Contains(e.Error(), "it never expires") {
		t.Error(e)
	}
}

func TestWhereTheTokenIsRead(t *testing.T) {
	refused := errors.New("permission denied")
	for _, tt := range []struct {
		name, configured    string
		files               map[string]string
		failing             string
		wantToken, wantPath string
		wantErr             string
	}{
		{"Istio's path first", defaultTokenFile, map[string]string{defaultTokenFile: " a\n", accountTokenFile: "b"}, "", "a", defaultTokenFile, ""},
		{"the service account's own", defaultTokenFile, map[string]string{accountTokenFile: "b"}, "", "b", accountTokenFile, ""},
		{"none", defaultTokenFile, nil, "", "", defaultTokenFile, "there is no token"},
		{"a path of the user's has no fallback", "/mine", map[string]string{accountTokenFile: "b"}, "", "", "/mine", "there is no token"},
		{"an empty file", defaultTokenFile, map[string]string{defaultTokenFile: "\n"}, "", "", defaultTokenFile, "there is no token"},
		{"an unreadable file", defaultTokenFile, map[string]string{accountTokenFile: "b"}, defaultTokenFile, "", defaultTokenFile, "permission denied"},
		{"a huge file", "/mine", map[string]string{"/mine": strings.Repeat("x", maxFile+1)}, "", "", "/mine", "cannot be a token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			read := func(path string) ([]byte, error) {
				if path == tt.failing {
					return nil, refused
				}
				return fakeEnvironment(nil, tt.files).readFile(path)
			}
			token, path, err := readToken(&Config{TokenFile: tt.configured}, read)
			if token != tt.wantToken || path != tt.wantPath || (err != nil) != (tt.wantErr != "") {
				t.Fatalf("got %q %q, %v", token, path, err)
			}
			var e *Error
			if err != nil && (!errors.As(err, &e) || e.Stage != StageIdentity || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
		})
	}
	if _, _, err := readToken(&Config{TokenFile: "/mine"}, func(string) ([]byte, error) { return nil, fs.ErrNotExist }); err == nil {
		t.Error("no error for a missing file")
	}
}

// FuzzToken holds that any text is judged without panic, that an error never
// quotes a token, and stays of a readable length.
func FuzzToken(f *testing.F) {
	f.Add("")
	f.Add("hunter2.hunter2.hunter2")
	f.Add(testToken(f, map[string]any{"aud": []string{"istio-ca"}, "exp": testTime.Unix()}))
	f.Add(testToken(f, map[string]any{"aud": "vault", "iss": "x", "kubernetes.io": map[string]any{"namespace": "demo"}}))
	f.Fuzz(func(t *testing.T, token string) {
		c := &Config{Node: Node{Namespace: "ns", ServiceAccount: "sa", ClusterID: "c"}}
		for _, e := range []*Error{judgeToken(token, "/t", testTime), explainUnauthenticated(c, token, "/t", testTime)} {
			if e == nil {
				continue
			}
			text := e.Error()
			parts := strings.Split(token, ".")
			if signature := parts[len(parts)-1]; len(signature) > 40 && strings.Contains(text, signature) {
				t.Fatalf("%q quotes the token", text)
			}
			if len(text) > 4000 {
				t.Fatalf("%d bytes of error", len(text))
			}
		}
	})
}
