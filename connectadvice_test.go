package proxyless

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

// TestAdviceIsAboutTheSideThatCanHelp: what is amiss here is not looked for at the
// provider, and the other way round.
func TestAdviceIsAboutTheSideThatCanHelp(t *testing.T) {
	ca := meshtest.NewAuthority(t)
	peer := issued(t, ca)
	named := &tlsContext{names: []sanMatch{{text: stringMatch{kind: headerExact, text: "nobody"}}}}
	pinned := &tlsContext{hashes: make([][32]byte, 1)}
	rooted := func(ref secretRef) *tlsContext { return &tlsContext{roots: ref} }
	elsewhere := rootsIn(t, meshtest.NewAuthority(t).RootPEM())
	verify := func(c *tlsContext) error {
		return (&secretStore{}).verifyPeer(t.Context(), c, []*x509.Certificate{peer}, x509.ExtKeyUsageServerAuth, time.Now())
	}
	_, files := (&secretStore{}).certificate(t.Context(), &secretRef{kind: secretFile, name: "/nowhere/c", key: "/nowhere/k"})
	mesh := &security{context: &tlsContext{identity: secretRef{kind: secretWorkload}}}
	simple := &security{context: &tlsContext{}}
	root := rootsIn(t, ca.RootPEM())
	outlives := *peer // its root
	outlives.NotAfter = root[0].NotAfter.Add(time.Hour)
	expired := func(leaf *x509.Certificate, at time.Time) error {
		return (&secretStore{}).verifyPeer(t.Context(), rooted(secretRef{kind: secretInline, inline: newTrustRoots(root)}), []*x509.Certificate{leaf}, x509.ExtKeyUsageServerAuth, at)
	}
	for name, test := range map[string]struct {
		err    error
		to     *security
		advice string
	}{
		"no such endpoint":             {syscall.ECONNREFUSED, mesh, adviseReach},
		"it takes time":                {errors.New("context deadline exceeded"), simple, adviseReach},
		"plain text, hung up":          {io.EOF, nil, adviseClear},
		"our certificate is refused":   {&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}, mesh, adviseOurs},
		"we show none":                 {syscall.ECONNRESET, simple, adviseShow},
		"hung up":                      {io.ErrUnexpectedEOF, mesh, adviseEnd},
		"somebody else":                {verify(named), mesh, adviseWho},
		"not the pinned one":           {verify(pinned), mesh, advisePins},
		"not ours":                     {verify(rooted(secretRef{kind: secretInline, inline: newTrustRoots(elsewhere)})), mesh, adviseRoots},
		"expired":                      {expired(peer, peer.NotAfter.Add(time.Minute)), mesh, adviseClock},
		"its root expired":             {expired(&outlives, root[0].NotAfter.Add(time.Minute)), mesh, adviseAbove},
		"no file of roots":             {verify(rooted(secretRef{kind: secretFile, name: "/nowhere/r"})), mesh, adviseFiles},
		"no provider of roots":         {verify(rooted(secretRef{kind: secretProvider, name: adviseAbove})), mesh, adviseFiles},
		"no file of a certificate":     {missingSecret("the certificate to show", files), mesh, adviseFiles},
		"what is not supported":        {(&tlsContext{failure: adviseAbove}).disobeyed(), mesh, adviseAsk},
		"no certificate, with advice":  {noSource("x", "do"), mesh, ""},
		"no certificate, for a while":  {missingSecret("the certificate to show", &Error{Stage: StageIdentity, Reason: "there is none yet", Err: ErrNotReady}), mesh, adviseState},
		"the provider speaks HTTP/1.1": {advised{errors.New("h1"), adviseSpeak}, mesh, adviseSpeak},
	} {
		if test.err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if got := connectAdvice(fmt.Errorf("connection error: %w", test.err), test.to); got != test.advice {
			t.Errorf("%s (%v):\n got %s\nwant %s", name, test.err, got, test.advice)
		}
		if strings.TrimSpace(test.err.Error()) == "" {
			t.Errorf("%s says nothing", name)
		}
	}
}
