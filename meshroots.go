package proxyless

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// This file asks istiod, on the ADS stream, for the roots that the mesh trusts
// besides those of its authority: meshConfig.caCertificates, which istiod tells
// where it runs with ISTIO_MULTIROOT_MESH=true, and else does not answer. Istio's
// agent asks for them with PROXY_CONFIG_XDS_AGENT=true and hands them to its
// Envoy, which has no part in it; nor has the state machine here.

// rootsAsked is how far a session got with it. It is owned by the ADS loop.
type rootsAsked struct {
	asked    time.Time // zero while it was not
	answered bool
	version  string // last accepted; state of the world
}

// askForRoots asks once a session answers, so that nothing waits for it, and only
// istiod itself: who is spoken to in plain text may be an agent, which has no
// answer.
func (a *ads) askForRoots() {
	s := a.session
	if !s.roots.asked.IsZero() || a.nameRoots == nil || a.config.plainTextTo(s.address) || a.rootless[s.address] >= mostRefusals {
		return
	}
	s.roots.asked = time.Now()
	s.request(&adsRequest{typeURL: typePrefix + typeProxyConfig, delta: s.delta})
}

// mostRefusals is how many sessions with one replica may end over it in a row,
// after which it is not asked any more.
const mostRefusals = 2

// noteRefusal counts a session that ended as though over it. istiod ends none so,
// but others who speak ADS may.
func (a *ads) noteRefusal(s *session, err error) {
	switch code := status.Code(err); {
	case s.roots.asked.IsZero():
	case s.roots.answered || time.Since(s.roots.asked) >= settled:
		delete(a.rootless, s.address)
	case code == codes.Unimplemented || code == codes.Unknown || code == codes.InvalidArgument || code == codes.NotFound:
		if a.rootless[s.address]++; a.rootless[s.address] == mostRefusals {
			a.log.Info("control plane ends the stream when it is asked for roots; it is not asked any more", keyControlPlane, s.address, keyError, err)
		}
	}
}

// takeRoots hands the roots of a response over and answers it. What cannot be read
// leaves those of before.
func (a *ads) takeRoots(r *adsResponse) {
	s := a.session
	s.roots.answered = true
	answer := adsRequest{typeURL: r.typeURL, delta: s.delta, nonce: r.nonce, version: s.roots.version}
	if roots, err := readRoots(r); err != nil {
		a.counts.rejected.Add(1)
		answer.nack = err.Error()
		a.log.Error("the roots that the mesh's configuration names are rejected; those of before, if any, stay", keyControlPlane, s.address, keyError, err)
	} else {
		s.roots.version, answer.version = r.version, r.version
		if roots != nil && a.nameRoots != nil {
			a.nameRoots(roots)
		}
	}
	s.request(&answer)
}

// readRoots reads the one resource of a response; nil where there is none, which
// says nothing.
func readRoots(r *adsResponse) ([]*x509.Certificate, error) {
	switch {
	case len(r.resources) == 0:
		return nil, nil
	case len(r.resources) > 1:
		return nil, fmt.Errorf("there are %d of them instead of one", len(r.resources))
	}
	raw := &r.resources[0]
	if !isProxyConfig(raw.typeURL) {
		return nil, errors.New("resource 0 is a " + raw.typeURL)
	}
	roots, err := decodeProxyConfig(raw.value)
	return roots, inElement("resources", 0, err)
}
