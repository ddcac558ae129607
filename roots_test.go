package proxyless

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

// trusts says whether a certificate of the authority's newest root is trusted.
func (i *issuing) trusts(issued *x509.Certificate) bool {
	return i.current().roots.verify([]*x509.Certificate{issued}, x509.ExtKeyUsageServerAuth, issued.NotBefore.Add(time.Minute)) == nil
}

func issued(t testing.TB, ca *meshtest.Authority) *x509.Certificate {
	t.Helper()
	c, err := ca.Issue("spiffe://cluster.local/ns/demo/sa/peer")
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

func TestRootsOverlapUntilTheCertificateThatCameWithThemEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t, func(c *Config) { c.Identity.Lifetime = time.Hour; c.Identity.RenewJitter = -1 })
		first := i.get()
		old := issued(t, i.ca)
		oldRoot := i.ca.RootPEM()
		if err := i.ca.RotateRoot(false); err != nil {
			t.Fatal(err)
		}
		fresh := issued(t, i.ca)
		if !i.trusts(old) || i.trusts(fresh) {
			t.Fatal("before the renewal")
		}
		// What istiod is verified with has both, as the ConfigMap has while roots
		// change.
		replace(t, i.config.RootCertFile, append(i.ca.RootPEM(), oldRoot...))
		i.freshToken()
		i.waitFor("a certificate of the new root", 40*time.Second, func() bool { return i.current().certificate != first.certificate })
		if !i.trusts(old) || !i.trusts(fresh) {
			t.Error("after the renewal, one of the roots is not trusted")
		}
		replace(t, i.config.RootCertFile, i.ca.RootPEM())
		time.Sleep(29 * time.Minute) // to before the second renewal
		if !i.trusts(old) || !i.trusts(fresh) {
			t.Error("the old root is gone before its certificate ended")
		}
		for range 4 {
			i.freshToken()
			time.Sleep(10 * time.Minute)
		}
		if i.trusts(old) || !i.trusts(fresh) {
			t.Error("the old root stays")
		}
		if state := i.state(); len(state.Roots) != 1 || state.Roots[0].Expires.Before(time.Now()) || i.trouble() != nil {
			t.Errorf("state %+v", state)
		}
	})
}

// TestARootThatOnlyTheFileKnowsIsTrusted is the first step of a rotation: peers
// may have certificates of the new root before this process does.
func TestARootThatOnlyTheFileKnowsIsTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t)
		i.get()
		next := meshtest.NewAuthority(t)
		replace(t, i.config.RootCertFile, append(i.ca.RootPEM(), next.RootPEM()...))
		asked := i.asked()
		i.waitFor("an early renewal", 40*time.Second, func() bool { return i.asked() == asked+1 })
		if !i.trusts(issued(t, next)) || !i.trusts(issued(t, i.ca)) {
			t.Error("one of the roots is not trusted")
		}
		time.Sleep(time.Hour)
		if i.asked() != asked+1 {
			t.Errorf("%d renewals for one change", i.asked()-asked)
		}
	})
}

// TestARootThatIsReplacedAtOnceIsFetched: an authority that makes itself a new
// root keeps nothing of the old one.
func TestARootThatIsReplacedAtOnceIsFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t)
		first, old := i.get(), issued(t, i.ca)
		if err := i.ca.RotateRoot(false); err != nil {
			t.Fatal(err)
		}
		replace(t, i.config.RootCertFile, i.ca.RootPEM())
		i.waitFor("a certificate of the new root", 40*time.Second, func() bool { return i.current().certificate != first.certificate })
		if !i.trusts(old) || !i.trusts(issued(t, i.ca)) {
			t.Error("one of the roots is not trusted")
		}
		time.Sleep(time.Hour)
		if i.asked() != 2 {
			t.Errorf("asked %d times", i.asked())
		}
	})
}

// TestTheRootsOfAnotherAuthorityAreNotTheMeshes: istiod may have a certificate
// of somebody who vouches for half the world.
func TestTheRootsOfAnotherAuthorityAreNotTheMeshes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := meshtest.NewAuthority(t)
		mesh := meshtest.NewAuthority(t)
		// What answers has a certificate of the other authority, and signs with the
		// mesh's root.
		i := beginIdentityAt(t, other)
		other.Answer(mesh.Sign)
		i.get()
		if i.trusts(issued(t, other)) || !i.trusts(issued(t, mesh)) {
			t.Error("istiod's own authority vouches for workloads")
		}
		asked := i.asked()
		if err := other.RotateRoot(true); err != nil {
			t.Fatal(err)
		}
		replace(t, i.config.RootCertFile, other.RootPEM())
		time.Sleep(time.Minute)
		if i.trusts(issued(t, other)) || i.asked() != asked {
			t.Error("a change of it renews the certificate, or is trusted")
		}
	})
}

func TestABundleMapHasRootsByTrustDomain(t *testing.T) {
	one, two := meshtest.NewAuthorityOf(t, "one.example"), meshtest.NewAuthorityOf(t, "two.example")
	roots, err := parseBundleMap(bundleMap(t, map[string]*meshtest.Authority{"one.example": one, "two.example": two}))
	if err != nil {
		t.Fatal(err)
	}
	issue := func(ca *meshtest.Authority, id string, change ...func(*x509.Certificate)) *x509.Certificate {
		c, err := ca.Issue(id, change...)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	for name, test := range map[string]struct {
		leaf *x509.Certificate
		says string
	}{
		"one":                 {issue(one, "spiffe://one.example/a"), ""},
		"two":                 {issue(two, "spiffe://two.example/ns/a/sa/b"), ""},
		"the other's root":    {issue(one, "spiffe://two.example/a"), "unknown authority"},
		"unknown domain":      {issue(one, "spiffe://three.example/a"), "no roots for the trust domain"},
		"no id":               {issue(one, ""), "0 URIs"},
		"another scheme":      {issue(one, "https://one.example/a"), "no SPIFFE id"},
		"two ids":             {issue(one, "spiffe://one.example/a", func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }), "2 URIs"},
		"may sign":            {issue(one, "spiffe://one.example/a", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), "may sign others"},
		"for another purpose": {issue(one, "spiffe://one.example/a", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }), "incompatible key usage"},
		"expired":             {issue(one, "spiffe://one.example/a", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), "expired"},
		"a path with two dots": {issue(one, "", func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "one.example", Path: "/a/../b"}}
		}), "no SPIFFE id"},
	} {
		err := roots.verify([]*x509.Certificate{test.leaf}, x509.ExtKeyUsageClientAuth, time.Now())
		if got := fmt.Sprint(err); (test.says == "") != (err == nil) || !strings.Contains(got, test.says) && err != nil {
			t.Errorf("%s: %s", name, got)
		}
	}
	if err := roots.verify(nil, x509.ExtKeyUsageClientAuth, time.Now()); err == nil {
		t.Error("no certificate is verified")
	}
	for _, none := range []*trustRoots{nil, {}} {
		if err := none.verify([]*x509.Certificate{issue(one, "spiffe://one.example/a")}, x509.ExtKeyUsageClientAuth, time.Now()); err == nil {
			t.Error("no roots verify")
		}
	}
}

// bundleMap is a SPIFFE bundle map of authorities by trust domain.
func bundleMap(t testing.TB, of map[string]*meshtest.Authority) []byte {
	t.Helper()
	var domains []string
	for domain, ca := range of {
		list, err := parseCertificates(ca.RootPEM())
		if err != nil {
			t.Fatal(err)
		}
		keys := []string{`{"use":"jwt-svid","kty":"RSA"}`, `{"use":"x509-svid","kty":"OKP"}`}
		for _, root := range list {
			keys = append(keys, `{"use":"x509-svid","kty":"EC","x5c":["`+base64.StdEncoding.EncodeToString(root.Raw)+`"]}`)
		}
		domains = append(domains, fmt.Sprintf(`%q:{"spiffe_sequence":1,"keys":[%s]}`, domain, strings.Join(keys, ",")))
	}
	return []byte(`{"trust_domains":{` + strings.Join(domains, ",") + `}}`)
}

// FuzzBundleMap holds that any text gives roots or an error, and never roots for
// all.
func FuzzBundleMap(f *testing.F) {
	f.Add(bundleMap(f, map[string]*meshtest.Authority{"one.example": meshtest.NewAuthority(f)}))
	f.Add([]byte(`{"trust_domains":{}}`))
	f.Add([]byte(`{"trust_domains":{"A":{"keys":[]}}}`))
	f.Add([]byte(`{"trust_domains":{"a":{"keys":[{"use":"x509-svid","kty":"EC","x5c":["AA==","AA=="]}]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		roots, err := parseBundleMap(text)
		if (err == nil) == (roots == nil) {
			t.Fatalf("%v and %v", roots, err)
		}
		if err == nil && (roots.pool != nil || roots.domains == nil) {
			t.Fatal("it has roots for all")
		}
	})
}

// FuzzCertificateResponse holds that any answer of an authority gives an error
// or a chain with roots, and that judging it never panics.
func FuzzCertificateResponse(f *testing.F) {
	ca := meshtest.NewAuthority(f)
	key, err := newKey(&Identity{})
	if err != nil {
		f.Fatal(err)
	}
	csr, err := signingRequest(key, "")
	if err != nil {
		f.Fatal(err)
	}
	chain, err := ca.Sign(meshtest.AuthorityRequest{CSR: csr, Lifetime: time.Hour, ID: "spiffe://cluster.local/ns/a/sa/b"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(rawProto{}.text(1, chain[0]).text(1, chain[1])))
	f.Add([]byte(rawProto{}.text(1, chain[0]+chain[1]).text(1, chain[1]).text(9, "x")))
	f.Add([]byte(rawProto{}.text(1, chain[1]).text(1, chain[0])))
	f.Add([]byte(rawProto{}.text(1, chain[0])))
	f.Add([]byte(rawProto{}.num(1, 5)))
	n := &Node{TrustDomain: "cluster.local", Namespace: "a", ServiceAccount: "b"}
	f.Fuzz(func(t *testing.T, message []byte) {
		chain, roots, err := decodeCertificateResponse(message)
		if (err == nil) != (len(chain) > 0 && len(roots) > 0) || err != nil && (chain != nil || roots != nil) {
			t.Fatalf("%d certificates, %d roots and %v", len(chain), len(roots), err)
		}
		if err != nil {
			return
		}
		made := &issue{key: key, chain: chain, roots: roots}
		fit, trouble := made.judge(n, time.Now())
		if (trouble == nil) == (fit == nil) {
			t.Fatalf("%v and %v", fit, trouble)
		}
		if fit != nil && (fit.id.namespace != "a" || len(fit.certificate.Certificate) == 0) {
			t.Fatalf("somebody else's certificate passes: %+v", fit)
		}
	})
}

func TestASPIFFEIDIsReadStrictly(t *testing.T) {
	for text, want := range map[string]spiffeID{
		"spiffe://cluster.local/ns/a/sa/b":   {domain: "cluster.local", namespace: "a", account: "b"},
		"spiffe://cluster.local/ns/a/sa/b/c": {domain: "cluster.local"},
		"spiffe://cluster.local/x":           {domain: "cluster.local"},
		"spiffe://cluster.local":             {domain: "cluster.local"},
		"spiffe://a_b-c.1/ns/A/sa/B":         {domain: "a_b-c.1", namespace: "A", account: "B"},
	} {
		want.text = text
		if got, err := parseSPIFFE(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "spiffe://", "spiffe:///ns/a/sa/b", "https://cluster.local/ns/a/sa/b", "SPIFFE://cluster.local/a", "spiffe://Cluster.local/a",
		"spiffe://cluster.local/", "spiffe://cluster.local/a/", "spiffe://cluster.local//a", "spiffe://cluster.local/./a", "spiffe://cluster.local/../a",
		"spiffe://cluster.local:1/a", "spiffe://u@cluster.local/a", "spiffe://cluster.local/a?b", "spiffe://cluster.local/a#b", "spiffe://cluster.local/%61",
		"spiffe://cluster.local/ä", "spiffe://cluster.local/" + strings.Repeat("a", maxSPIFFE), "spiffe://" + strings.Repeat("a", 256) + "/a",
	} {
		if got, err := parseSPIFFE(text); err == nil {
			t.Errorf("%s is %+v", text, got)
		}
	}
}

// writePair writes a certificate of the authority with its key and roots, as
// Istio's agent does: the root stands in the chain, too.
func writePair(t testing.TB, ca *meshtest.Authority, dir, id string, lifetime time.Duration) {
	t.Helper()
	c, err := ca.Issue(id, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(lifetime) })
	if err != nil {
		t.Fatal(err)
	}
	key, err := meshtest.KeyPEM(c)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, filepath.Join(dir, certKeyName), key)
	replace(t, filepath.Join(dir, certChainName), append(meshtest.ChainPEM(c), ca.RootPEM()...))
	replace(t, filepath.Join(dir, certRootName), ca.RootPEM())
}

func TestACertificateInFilesIsWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const id = "spiffe://cluster.local/ns/demo/sa/greeter"
		dir, ca := t.TempDir(), meshtest.NewAuthority(t)
		i := beginIdentityAt(t, ca, func(c *Config) { c.Identity.useDirectory(dir) })
		i.want()
		time.Sleep(time.Second)
		synctest.Wait()
		if trouble := i.trouble(); trouble == nil || !strings.Contains(trouble.Error(), certChainName) {
			t.Fatalf("before there are files: %v", trouble)
		}
		writePair(t, ca, dir, id, time.Hour)
		first := i.get()
		if first.id != id || len(first.certificate.Certificate) != 1 || !i.trusts(issued(t, ca)) || i.trouble() != nil {
			t.Errorf("%s, %d certificates, %v", first.id, len(first.certificate.Certificate), i.trouble())
		}
		same := func(when string, trouble bool) {
			t.Helper()
			time.Sleep(30 * time.Second)
			synctest.Wait()
			if i.current().certificate != first.certificate || (i.trouble() != nil) != trouble {
				t.Errorf("%s: another certificate, or trouble %v", when, i.trouble())
			}
		}
		same("nothing changed", false)
		key := readText(t, filepath.Join(dir, certKeyName))
		chain := readText(t, filepath.Join(dir, certChainName))
		replace(t, filepath.Join(dir, certKeyName), []byte("-----BEGIN"))
		same("no key", true)
		if strings.Contains(i.log.String(), "PRIVATE") {
			t.Error("a key is in the log")
		}
		os.Remove(filepath.Join(dir, certKeyName))
		same("no file", true)
		replace(t, filepath.Join(dir, certKeyName), []byte(key))
		other := t.TempDir()
		writePair(t, ca, other, id, time.Hour)
		replace(t, filepath.Join(dir, certChainName), []byte(readText(t, filepath.Join(other, certChainName))))
		same("the key of another certificate", true)
		writePair(t, ca, dir, "spiffe://cluster.local/ns/demo/sa/somebody", time.Hour)
		same("somebody else's", true)
		replace(t, filepath.Join(dir, certChainName), []byte(chain))
		replace(t, filepath.Join(dir, certKeyName), []byte(key))
		time.Sleep(30 * time.Second)
		if i.trouble() != nil {
			t.Errorf("it is as it was: %v", i.trouble())
		}
		if err := ca.RotateRoot(false); err != nil {
			t.Fatal(err)
		}
		writePair(t, ca, dir, id, time.Hour)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if i.current().certificate == first.certificate || !i.trusts(issued(t, ca)) || i.trouble() != nil {
			t.Errorf("the new certificate is not in force: %v", i.trouble())
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if trouble := i.trouble(); trouble == nil || !strings.Contains(trouble.Error(), "expired") || !strings.Contains(trouble.Error(), "what writes "+filepath.Join(dir, certChainName)) {
			t.Errorf("after its end: %v", trouble)
		}
		if i.asked() != 0 {
			t.Error("an authority was asked as well")
		}
	})
}

func TestSecretsAreFoundByName(t *testing.T) {
	ca, dir := meshtest.NewAuthority(t), t.TempDir()
	writePair(t, ca, dir, "spiffe://cluster.local/ns/a/sa/b", time.Hour)
	file := func(name string) string { return filepath.Join(dir, name) }
	bundle := file("bundle.json")
	replace(t, bundle, bundleMap(t, map[string]*meshtest.Authority{"cluster.local": ca}))
	replace(t, file("garbage.pem"), []byte("garbage"))
	if err := os.Mkdir(file("directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	full := &secretStore{providers: map[string]fileProvider{
		"both":   {cert: file(certChainName), key: file(certKeyName), roots: file(certRootName)},
		"bundle": {roots: file("nowhere"), bundle: bundle},
		"cert":   {cert: file(certChainName), key: file(certKeyName)},
	}}
	inline := readText(t, file(certChainName)) + readText(t, file(certKeyName))
	roots, err := parseRoots(ca.RootPEM())
	if err != nil {
		t.Fatal(err)
	}
	leaf := issued(t, ca)
	for name, test := range map[string]struct {
		ref         secretRef
		store       *secretStore
		cert, roots string // the error's text; "ok" for success; "none" for nothing
	}{
		"none":               {secretRef{}, nil, "none", "none"},
		"inline":             {secretRef{kind: secretInline, inline: roots, inlineKey: []byte(inline)}, nil, "ok", "ok"},
		"inline, empty":      {secretRef{kind: secretInline}, full, "failed to find any PEM data", "no roots"},
		"system":             {secretRef{kind: secretSystem}, nil, "cannot come from there", "system"},
		"workload, no store": {secretRef{kind: secretWorkload}, nil, "nowhere", "nowhere"},
		"workload, no id":    {secretRef{kind: secretWorkload}, &secretStore{workload: &identity{}}, "there is no certificate", "there is no certificate"},
		"provider":           {secretRef{kind: secretProvider, name: "both"}, full, "ok", "ok"},
		"bundle":             {secretRef{kind: secretProvider, name: "bundle"}, full, "has no certificate", "ok"},
		"no roots":           {secretRef{kind: secretProvider, name: "cert"}, full, "ok", "has no roots"},
		"unknown provider":   {secretRef{kind: secretProvider, name: "x"}, full, `has no "x"`, `has no "x"`},
		"file":               {secretRef{kind: secretFile, name: file(certChainName), key: file(certKeyName)}, nil, "ok", "ok"},
		"roots in a file":    {secretRef{kind: secretFile, name: file(certRootName)}, full, "no such file", "ok"},
		"garbage":            {secretRef{kind: secretFile, name: file("garbage.pem"), key: file(certKeyName)}, full, "garbage.pem", "no PEM certificate"},
		"a directory":        {secretRef{kind: secretFile, name: file("directory"), key: file("directory")}, full, "no regular file", "no regular file"},
		"a device":           {secretRef{kind: secretFile, name: "/dev/zero", key: "/dev/zero"}, full, "no regular file", "no regular file"},
		"of a later kind":    {secretRef{kind: 99}, full, "cannot come from there", "no roots"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := test.store.certificate(t.Context(), &test.ref)
			switch {
			case test.cert == "ok" && (err != nil || c.Leaf == nil || len(c.Certificate) != 1), test.cert == "none" && (c != nil || err != nil):
				t.Errorf("certificate %v, %v", c, err)
			case test.cert != "ok" && test.cert != "none" && (err == nil || c != nil || !strings.Contains(err.Error(), test.cert)):
				t.Errorf("certificate %v, %v", c, err)
			}
			r, err := test.store.roots(t.Context(), &test.ref)
			switch test.roots {
			case "none":
				if r != nil || err != nil {
					t.Errorf("roots %v, %v", r, err)
				}
			case "ok":
				if err == nil {
					err = r.verify([]*x509.Certificate{leaf}, x509.ExtKeyUsageServerAuth, time.Now())
				}
				if err != nil {
					t.Error(err)
				}
			case "system":
				if err != nil || r.verify([]*x509.Certificate{leaf}, x509.ExtKeyUsageServerAuth, time.Now()) == nil {
					t.Errorf("the system's roots: %v", err)
				}
			default:
				if err == nil || r != nil || !strings.Contains(err.Error(), test.roots) {
					t.Errorf("roots %v, %v", r, err)
				}
			}
		})
	}
}

func TestWhatFilesHeldLastStays(t *testing.T) {
	ca, dir := meshtest.NewAuthority(t), t.TempDir()
	root := filepath.Join(dir, "root.pem")
	replace(t, root, ca.RootPEM())
	store := &secretStore{}
	ref := &secretRef{kind: secretFile, name: root}
	first, err := store.roots(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	replace(t, root, []byte("half a fi"))
	if got, err := store.roots(t.Context(), ref); err != nil || got != first {
		t.Errorf("a broken file replaces the roots: %v", err)
	}
	os.Remove(root)
	if got, err := store.roots(t.Context(), ref); err != nil || got != first {
		t.Errorf("a file that is gone replaces the roots: %v", err)
	}
	if err := ca.RotateRoot(false); err != nil {
		t.Fatal(err)
	}
	replace(t, root, ca.RootPEM())
	got, err := store.roots(t.Context(), ref)
	if err != nil || got.verify([]*x509.Certificate{issued(t, ca)}, x509.ExtKeyUsageServerAuth, time.Now()) != nil {
		t.Errorf("the new roots are not taken: %v", err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(root, old, old); err != nil {
		t.Fatal(err)
	}
	settled, _ := store.roots(t.Context(), ref)
	if again, _ := store.roots(t.Context(), ref); again != settled {
		t.Error("a file that does not change is read again")
	}
}

// TestRootsThatChangeAllTheTimeMakeNoStorm has a file that is never the same.
func TestRootsThatChangeAllTheTimeMakeNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t)
		i.get()
		root := i.ca.RootPEM()
		for range 100 {
			replace(t, i.config.RootCertFile, append(meshtest.NewAuthority(t).RootPEM(), root...))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if n := i.asked(); n < 3 || n > 12 {
			t.Errorf("%d requests in 100 s", n)
		}
		if n := len(i.current().roots.list); n != 2 {
			t.Errorf("%d roots are trusted", n)
		}
	})
}

// TestAnAuthorityThatDoesNotAnswerIsLeft: closing does not wait for it, and
// asking ends.
func TestAnAuthorityThatDoesNotAnswerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t)
		answer := make(chan struct{})
		defer close(answer)
		i.ca.Answer(func(meshtest.AuthorityRequest) ([]string, error) {
			<-answer
			return nil, errors.New("too late")
		})
		i.want()
		time.Sleep(askTimeout + 10*time.Millisecond)
		synctest.Wait()
		if trouble := i.trouble(); trouble == nil || errors.Is(trouble, ErrNotReady) || !strings.Contains(trouble.Error(), "no answer within 10s") { // gRPC's deadline, or the authority's end of the call at the same instant
			t.Errorf("trouble %v", trouble)
		}
		time.Sleep(3 * time.Second)
		begin := time.Now()
		i.cancel()
		<-i.done
		if time.Since(begin) > 0 {
			t.Errorf("closing took %v", time.Since(begin))
		}
		if _, err := i.wait(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("waiting after the end: %v", err)
		}
	})
}
