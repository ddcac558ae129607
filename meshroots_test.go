package proxyless

import (
	"crypto/x509"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

func rootsIn(t testing.TB, pem []byte) []*x509.Certificate {
	t.Helper()
	list, err := parseCertificates(pem)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestRootsInAProxyConfig(t *testing.T) {
	a, b := string(meshtest.NewAuthority(t).RootPEM()), string(meshtest.NewAuthority(t).RootPEM())
	leaf, err := meshtest.NewAuthority(t).Issue("spiffe://d/ns/n/sa/a")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		raw   rawProto
		roots int
		fails string
	}{
		"nothing":             {nil, 0, ""},
		"other fields":        {rawProto{}.text(1, "/etc").msg(33, rawProto{}), 0, ""},
		"two":                 {rawProto{}.text(34, a, b), 2, ""},
		"two in one":          {rawProto{}.text(34, a+"\n"+b), 2, ""},
		"the same again":      {rawProto{}.text(34, a+b, b, a), 2, ""},
		"no PEM":              {rawProto{}.text(34, a, "x"), 0, "ca_certificates_pem[1]: there is no PEM certificate in it"},
		"half of one":         {rawProto{}.text(34, a[:len(a)-30]), 0, "ca_certificates_pem[0]: 1 of its 1 PEM blocks cannot be read"},
		"no authority":        {rawProto{}.text(34, string(meshtest.ChainPEM(leaf))), 0, "ca_certificates_pem[0]: certificate 1 of it is not that of an authority"},
		"too many":            {rawProto{}.text(34, strings.Repeat(a, maxRoots), b), 0, "ca_certificates_pem"},
		"another kind of one": {rawProto{}.num(34, 1), 0, "ca_certificates_pem: wire type 0 instead of 2"},
	} {
		roots, err := decodeProxyConfig(test.raw)
		if test.fails != "" {
			if err == nil || !strings.HasPrefix(err.Error(), test.fails) || roots != nil {
				t.Errorf("%s: %d roots, %v", name, len(roots), err)
			}
		} else if err != nil || roots == nil || len(roots) != test.roots {
			t.Errorf("%s: %d roots, %v", name, len(roots), err)
		}
	}
}

// TestResponsesAboutRoots: one resource counts, none says nothing, and what is of
// another type is refused.
func TestResponsesAboutRoots(t *testing.T) {
	pem := string(meshtest.NewAuthority(t).RootPEM())
	one := rawResource{typeURL: typePrefix + typeProxyConfig, value: rawProto{}.text(34, pem)}
	other := one
	other.typeURL = kindCluster.typeURL()
	for name, test := range map[string]struct {
		resources []rawResource
		roots     bool
		fails     bool
	}{
		"none": {nil, false, false}, "one": {[]rawResource{one}, true, false}, "two": {[]rawResource{one, one}, false, true}, "another type": {[]rawResource{other}, false, true},
	} {
		roots, err := readRoots(&adsResponse{resources: test.resources})
		if (roots != nil) != test.roots || (err != nil) != test.fails {
			t.Errorf("%s: %d roots, %v", name, len(roots), err)
		}
	}
}

// TestNamedRootsAreTrustedAsLongAsTheyAreNamed: beside those that come with the
// certificate, and beside those in files.
func TestNamedRootsAreTrustedAsLongAsTheyAreNamed(t *testing.T) {
	for name, change := range map[string]func(*Config, *meshtest.Authority, string){
		"an authority": func(*Config, *meshtest.Authority, string) {},
		"files": func(c *Config, ca *meshtest.Authority, dir string) {
			writePair(t, ca, dir, "spiffe://cluster.local/ns/demo/sa/greeter", time.Hour)
			c.Identity.useDirectory(dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, elsewhere, dir := meshtest.NewAuthority(t), meshtest.NewAuthority(t), t.TempDir()
				i := beginIdentityAt(t, ca, func(c *Config) { change(c, ca, dir) })
				stranger := issued(t, elsewhere)
				i.name(append(rootsIn(t, ca.RootPEM()), rootsIn(t, elsewhere.RootPEM())...)) // before there is a certificate
				synctest.Wait()
				if i.current() != nil {
					t.Fatal("roots make a process want a certificate")
				}
				i.get()
				synctest.Wait()
				if s := i.state(); !i.trusts(stranger) || !i.trusts(issued(t, ca)) || len(s.Roots) != 2 || s.Roots[0].Named || !s.Roots[1].Named {
					t.Errorf("named: %+v", s.Roots)
				}
				if i.files != nil { // what the files held stays, what is named goes
					replace(t, i.config.Identity.KeyFile, []byte("-----BEGIN"))
				}
				asked := i.asked()
				i.name([]*x509.Certificate{})
				synctest.Wait()
				if s := i.state(); i.trusts(stranger) || !i.trusts(issued(t, ca)) || len(s.Roots) != 1 {
					t.Errorf("named no more: %+v", s.Roots)
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if more := i.asked() - asked; i.files == nil && more != 1 || i.files != nil && more != 0 {
					t.Errorf("asked for %d certificates when the roots changed", more)
				}
			})
		})
	}
}

// TestNamedRootsDoNotVouchForTheFile: that one root of the watched file is named
// makes the others in it no roots of the mesh.
func TestNamedRootsDoNotVouchForTheFile(t *testing.T) {
	of := func() []*x509.Certificate { return rootsIn(t, meshtest.NewAuthority(t).RootPEM()) }
	answered, both, others := of(), of(), of()
	o := rootOverlap{file: append(both[:1:1], others...), named: both}
	o.add(answered, time.Now().Add(time.Hour))
	got := o.trusted(time.Now())
	if len(got.list) != 2 || got.named != 1 || contains(got.list, others[0]) || o.trusted(time.Now()) != got {
		t.Errorf("%d roots, %d of them named", len(got.list), got.named)
	}
	o.named = append(answered[:1:1], both...)
	if again := o.trusted(time.Now()); again != got {
		t.Error("the same roots in another order are others")
	}
	byDomain := &trustRoots{domains: map[string]*x509.CertPool{}}
	if o.beside(byDomain) != byDomain {
		t.Error("roots by trust domain are added to")
	}
}

// FuzzProxyConfig holds that any bytes give roots of authorities or an error.
func FuzzProxyConfig(f *testing.F) {
	pem := string(meshtest.NewAuthority(f).RootPEM())
	f.Add([]byte(rawProto{}.text(34, pem, pem)))
	f.Add([]byte(rawProto{}.text(1, "/etc/istio/proxy").text(34, pem+"x")))
	f.Add([]byte(rawProto{}.text(34, "")))
	f.Add([]byte(rawProto{}.num(34, 1)))
	f.Fuzz(func(t *testing.T, message []byte) {
		roots, err := decodeProxyConfig(message)
		if (err == nil) == (roots == nil) || len(roots) > maxRoots {
			t.Fatalf("%d roots and %v", len(roots), err)
		}
		for _, root := range roots {
			if !root.IsCA {
				t.Fatalf("%v is a root", root.Subject)
			}
		}
	})
}
