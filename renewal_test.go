package proxyless

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proxyless/proxyless/meshtest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// waitFor waits in a bubble until f holds.
func (i *issuing) waitFor(what string, limit time.Duration, f func() bool) {
	i.t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(15 * time.Second) {
		if time.Now().After(end) {
			i.t.Fatalf("%s: not within %v; trouble: %v", what, limit, i.trouble())
		}
	}
}

func TestACertificateIsRenewedAtAShareOfTheTimeThatItHadLeft(t *testing.T) {
	for name, test := range map[string]struct {
		id          Identity
		least, most time.Duration // between requests
	}{
		"default":         {Identity{Lifetime: time.Hour}, 29*time.Minute + 20*time.Second, 30*time.Minute + 40*time.Second},
		"a quarter left":  {Identity{Lifetime: time.Hour, RenewRatio: 0.25, RenewJitter: -1}, 44*time.Minute + 59*time.Second, 45*time.Minute + time.Second},
		"more than all":   {Identity{Lifetime: time.Hour, RenewRatio: 1, RenewJitter: -1}, 5*time.Minute + 59*time.Second, 6*time.Minute + time.Second},
		"widely jittered": {Identity{Lifetime: time.Hour, RenewRatio: 0.5, RenewJitter: 0.4}, 5 * time.Minute, 55 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := beginIdentity(t, func(c *Config) { c.Identity = test.id })
				i.get()
				i.waitFor("20 renewals", 24*time.Hour, func() bool { i.freshToken(); return i.asked() > 20 })
				requests := i.ca.Requests()
				distinct := map[time.Duration]bool{}
				for n := 1; n < len(requests); n++ {
					pause := requests[n].At.Sub(requests[n-1].At)
					distinct[pause.Round(5*time.Second)] = true
					if pause < test.least || pause > test.most {
						t.Errorf("request %d came after %v", n, pause)
					}
				}
				if jittered := test.id.RenewJitter >= 0; jittered != (len(distinct) > 4) {
					t.Errorf("%d different pauses", len(distinct))
				}
				if got := i.counts.certificates.Load(); got < 20 || i.counts.certFailures.Load() != 0 {
					t.Errorf("%d certificates, %d failures", got, i.counts.certFailures.Load())
				}
			})
		})
	}
}

// freshToken does what the kubelet does.
func (i *issuing) freshToken() {
	i.t.Helper()
	replace(i.t, i.config.TokenFile, []byte(i.ca.Token("demo", "greeter", time.Hour)))
}

// replace replaces a file as a whole.
func replace(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", content, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// TestNoLifetimeMakesAStorm lets the authority grant what it likes.
func TestNoLifetimeMakesAStorm(t *testing.T) {
	garbage := func(texts ...string) func(*issuing) {
		return func(i *issuing) {
			i.ca.Answer(func(meshtest.AuthorityRequest) ([]string, error) { return texts, nil })
		}
	}
	for name, test := range map[string]struct {
		begin func(*issuing)
		most  int // requests in ten minutes
	}{
		"one second":       {func(i *issuing) { i.ca.SetLifetime(time.Second) }, 121},
		"one nanosecond":   {func(i *issuing) { i.ca.SetLifetime(1) }, 121},
		"ten seconds":      {func(i *issuing) { i.ca.SetLifetime(10 * time.Second) }, 121},
		"in the past":      {func(i *issuing) { i.ca.SetLifetime(-time.Second) }, 24},
		"long in the past": {func(i *issuing) { i.ca.SetLifetime(-100 * 365 * 24 * time.Hour) }, 24},
		"a thousand years": {func(i *issuing) { i.ca.SetLifetime(250 * 365 * 24 * time.Hour) }, 1},
		"below one that ends soon": {func(i *issuing) {
			signer := meshtest.NewAuthority(i.t)
			err := signer.Intermediate(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Minute) })
			i.ca.Answer(func(r meshtest.AuthorityRequest) ([]string, error) {
				chain, signed := signer.Sign(r)
				return chain, errors.Join(err, signed)
			})
		}, 32},
		"an empty answer": {garbage(), 24},
		"no certificates": {garbage("", "x"), 24},
		"an error":        {func(i *issuing) { i.ca.Fail(status.Error(codes.Internal, "CA is not ready")) }, 24},
		"new roots each time": {func(i *issuing) {
			i.ca.SetLifetime(time.Second)
			i.ca.Answer(func(r meshtest.AuthorityRequest) ([]string, error) {
				return nil, errors.Join(i.ca.RotateRoot(false), errors.New("later"))
			})
		}, 24},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := beginIdentity(t)
				test.begin(i)
				i.want()
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				requests := i.ca.Requests()
				if len(requests) > test.most || len(requests) == 0 {
					t.Errorf("%d requests in ten minutes", len(requests))
				}
				for n := 1; n < len(requests); n++ {
					if pause := requests[n].At.Sub(requests[n-1].At); pause < 790*time.Millisecond {
						t.Fatalf("two requests within %v", pause)
					}
				}
			})
		})
	}
}

func TestTheOldCertificateStaysWhileRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t, func(c *Config) { c.Identity.Lifetime = time.Hour })
		first := i.get()
		i.ca.Fail(status.Error(codes.Unavailable, "the authority is being upgraded"))
		time.Sleep(45 * time.Minute)
		synctest.Wait()
		if i.current() != first || i.trouble() == nil || !strings.Contains(i.trouble().Error(), "being upgraded") {
			t.Fatalf("another certificate, or no trouble: %v", i.trouble())
		}
		store := newSecretStore(i.identity, nil, nil)
		workload := &secretRef{kind: secretWorkload}
		if c, err := store.certificate(t.Context(), workload); err != nil || c != first.certificate {
			t.Fatal("the old one is not shown", err)
		}
		// The pauses grow to a minute.
		requests := i.ca.Requests()
		if n := len(requests); n < 12 || n > 30 {
			t.Errorf("%d requests in a quarter of an hour", n)
		}
		time.Sleep(17 * time.Minute) // two past its end: a pause has 72 s at most
		synctest.Wait()
		_, err := store.certificate(t.Context(), workload)
		own := new(Error)
		if !errors.As(err, &own) || own.Stage != StageIdentity || !strings.Contains(err.Error(), "expired at") || !strings.Contains(err.Error(), "being upgraded") {
			t.Fatalf("after its end: %v", err)
		}
		if s := i.state(); s.Trouble == nil || s.ID == "" || s.Failures < 12 || s.Certificates != 1 || !s.Expires.Before(time.Now()) {
			t.Errorf("state %+v", s)
		}
		if log := i.log.String(); strings.Count(log, "is not renewed") != 2 || !strings.Contains(log, "level=ERROR") {
			t.Errorf("logged:\n%s", log)
		}
		i.ca.Fail(nil)
		i.freshToken()
		i.waitFor("a new certificate", 2*time.Minute, func() bool { return i.current() != first })
		if i.trouble() != nil {
			t.Error(i.trouble())
		}
		if _, err := store.certificate(t.Context(), workload); err != nil {
			t.Error(err)
		}
	})
}

func TestTheTokenIsReadForEachRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := beginIdentity(t, func(c *Config) { c.Identity.Lifetime = time.Hour })
		i.get()
		for range 3 {
			time.Sleep(time.Second)
			i.freshToken()
			now := i.asked()
			i.waitFor("a renewal", time.Hour, func() bool { return i.asked() > now })
		}
		seen := map[string]bool{}
		for _, r := range i.ca.Requests() {
			seen[r.Token] = true
		}
		if len(seen) < 4 {
			t.Errorf("%d tokens in %d requests", len(seen), i.asked())
		}
	})
}

// TestTheTokenIsNeverRepeated has an authority that repeats what it was told,
// and looks for it in all that anybody may read.
func TestTheTokenIsNeverRepeated(t *testing.T) {
	for _, code := range []codes.Code{codes.Internal, codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unknown} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := beginIdentity(t)
				token := readText(t, i.config.TokenFile)
				i.ca.Answer(func(r meshtest.AuthorityRequest) ([]string, error) {
					if !strings.Contains(r.Token, token) {
						t.Error("the authority was told another token")
					}
					return nil, status.Errorf(code, "no certificate for Bearer %s, claims %s", r.Token, strings.Split(r.Token, ".")[1])
				})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := i.wait(ctx)
				if err == nil {
					t.Fatal("there is a certificate")
				}
				secret := strings.Split(token, ".")
				for _, text := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%+v", errors.Unwrap(err)), i.log.String(), i.config.String(), fmt.Sprintf("%+v", i.state())} {
					if strings.Contains(text, secret[1]) || strings.Contains(text, secret[2]) {
						t.Errorf("the token is in %q", text)
					}
				}
			})
		})
	}
}

func readText(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestAHostThatSleptRenewsByTheCalendar: the clock that runs evenly stood still,
// and the certificate did not.
func TestAHostThatSleptRenewsByTheCalendar(t *testing.T) {
	now := time.Now()
	r := renewal{settings: &Identity{RenewRatio: 0.5, RenewJitter: -1}}
	r.ask(now)
	r.granted(now, now.Add(time.Hour))
	if r.due(now) || r.due(now.Add(29*time.Minute)) || !r.due(now.Add(31*time.Minute)) {
		t.Error("awake, it does not renew at half an hour")
	}
	r.date = r.date.Add(-40 * time.Minute) // which is what sleeping for 40 minutes looks like
	if !r.due(now.Add(askFloor)) || r.due(now.Add(time.Second)) {
		t.Error("after a sleep, it does not renew, or not within the floor")
	}
	r.failed(now)
	if r.due(now.Add(time.Millisecond)) {
		t.Error("a failure is no reason to hurry")
	}
}

// TestTheControlPlaneCannotRepeatTheToken is about what is logged when a stream
// ends.
func TestTheControlPlaneCannotRepeatTheToken(t *testing.T) {
	const token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzZWNyZXQifQ.c2lnbmF0dXJl"
	err := withoutToken(status.Errorf(codes.Unavailable, "you said Bearer %s to me", token), token)
	if text := err.Error(); strings.Contains(text, "eyJ") || strings.Contains(text, "c2lnbmF0dXJl") || status.Code(err) != codes.Unavailable {
		t.Error(text)
	}
	plain := errors.New("nothing to hide")
	if withoutToken(plain, token) != plain || withoutToken(plain, "") != plain || withoutToken(nil, token) != nil {
		t.Error("an error without the token is another one")
	}
}

// TestShortLifetimesAreRenewedInTime asks for certificates that live for less
// than the usual floor lets pass between two.
func TestShortLifetimesAreRenewedInTime(t *testing.T) {
	for _, lifetime := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
		t.Run(lifetime.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := beginIdentity(t, func(c *Config) { c.Identity.Lifetime = lifetime })
				i.get()
				for range 200 {
					time.Sleep(lifetime / 10)
					synctest.Wait()
					if trouble := i.trouble(); trouble != nil {
						t.Fatal(trouble)
					}
				}
				if n := i.asked(); n < 20 || n > 60 {
					t.Errorf("asked %d times in 20 lifetimes", n)
				}
			})
		})
	}
}
