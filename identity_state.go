package proxyless

import (
	"strings"
	"time"
)

// IdentityState is where this workload's certificate stands. It holds no secret.
type IdentityState struct {
	// Source says where the certificate comes from: "authority HOST:PORT", a
	// file, or "none".
	Source string
	// Wanted says that something needed a certificate. Until then none is got.
	Wanted bool
	// ID is the SPIFFE id, spiffe://domain/ns/namespace/sa/account; empty while
	// there is no certificate, and of one from a file that has none.
	ID string
	// Serial is the certificate's serial number, in hexadecimal.
	Serial string
	// Received is when it came; zero while there is none.
	Received time.Time
	// Expires is when it ends, or the first of the authority's certificates that
	// it hangs on.
	Expires time.Time
	// Renewal is when the next one is asked for; zero where it is not asked for,
	// but lies in a file.
	Renewal time.Time
	// Certificates counts those that came into force, and Failures the attempts
	// that brought none.
	Certificates, Failures uint64
	// Trouble says why there is no certificate, or why the one in force is of no
	// use or not renewed, as an [*Error]; nil where all is well.
	Trouble error
	// Roots are what certificates of the mesh are verified with.
	Roots []RootState
}

// RootState is one root certificate.
type RootState struct {
	Subject string
	Serial  string // in hexadecimal
	Expires time.Time
	// Named says that it vouches for peers only because the mesh's configuration
	// names it (meshConfig.caCertificates): it did not come with a certificate, and
	// stands in no file.
	Named bool
}

// state is the identity as users see it.
func (i *identity) state() IdentityState {
	s := IdentityState{Source: "none"}
	if i == nil {
		return s
	}
	if trouble := i.trouble(); trouble != nil {
		s.Trouble = trouble
	}
	if !i.available() {
		return s
	}
	select {
	case <-i.wanted:
		s.Wanted = true
	default:
	}
	s.Certificates, s.Failures = i.counts.certificates.Load(), i.counts.certFailures.Load()
	s.Source = i.source()
	i.facts.Lock()
	c, due := i.current(), i.due
	i.facts.Unlock()
	s.Renewal = due.Round(0)
	if c == nil {
		return s
	}
	leaf := c.certificate.Leaf
	s.ID, s.Serial, s.Received, s.Expires = c.id, leaf.SerialNumber.Text(16), c.received, c.end
	if c.roots != nil {
		for at, root := range c.roots.list {
			s.Roots = append(s.Roots, RootState{Subject: root.Subject.String(), Serial: root.SerialNumber.Text(16), Expires: root.NotAfter, Named: at >= len(c.roots.list)-c.roots.named})
		}
	}
	return s
}

func (i *identity) source() string {
	if i.files != nil {
		return i.files.file
	}
	return "authority " + strings.Join(i.ca.addresses, ", ")
}
