package proxyless

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// securityState is what /security shows, and /ls the most important of: who this
// process is to its peers, what it takes of them, and who speaks plain text. It
// holds no secret.
type securityState struct {
	Identity  identityView
	Ports     []portState
	PlainText []PlainTextPeer
}

// identityView is IdentityState for encoding/json.
type identityView struct {
	IdentityState
	Trouble string // in the place of the error
}

// portState is what the mesh says of one port on which this process serves.
type portState struct {
	Address string
	// Mode is what PeerAuthentication calls it: STRICT, PERMISSIVE or DISABLE;
	// empty where the mesh says nothing.
	Mode  string
	Words string
	// Rules counts those of AuthorizationPolicies by their action, with "dry run"
	// before it where they are only tried. What CUSTOM ones are about is refused.
	Rules map[string]int
	// Tokens says that tokens of callers are verified (RequestAuthentication).
	Tokens bool
	// Refused is why calls are refused whatever the rules say; empty for none.
	Refused string
}

// newPortState reads what a gate goes by.
func newPortState(address string, p *portPolicy) portState {
	s := portState{Address: address}
	switch {
	case p == nil:
		s.Words = "nobody is let in before the mesh has said what may be"
		return s
	case p.rules == nil:
		s.Words = "plain text, since the mesh says nothing of it"
		return s
	}
	encrypted, plain := p.rules.encrypts(), p.rules.takesPlainText()
	switch {
	case encrypted && plain:
		s.Mode, s.Words = "PERMISSIVE", "mutual TLS and plain text"
	case encrypted:
		s.Mode, s.Words = "STRICT", "mutual TLS only"
	case plain:
		s.Mode, s.Words = "DISABLE", "plain text only"
	default:
		s.Words = "nobody, since no filter chain takes a connection"
	}
	for i := range p.rules.inbound {
		s.read(&p.rules.inbound[i])
	}
	return s
}

// read takes over what a chain asks of calls. istiod gives the chains of a port
// the same filters.
func (s *portState) read(c *filterChain) {
	s.Refused = cmp.Or(s.Refused, c.failure)
	if s.Rules != nil {
		return
	}
	for i := range c.filters {
		f := &c.filters[i]
		if f.jwt != nil {
			s.Tokens = true
		}
		if f.access != nil {
			s.count("", f.access.rules)
			s.count("dry run ", f.access.shadow)
			if custom := f.access.custom; custom != nil {
				s.add("CUSTOM", len(custom.policies))
			}
		}
	}
}

func (s *portState) count(prefix string, rules *accessRules) {
	if rules != nil {
		s.add(prefix+rules.action.String(), len(rules.policies))
	}
}

func (s *portState) add(what string, n int) {
	if s.Rules == nil {
		s.Rules = map[string]int{}
	}
	s.Rules[what] += n
}

// String is one line.
func (s *portState) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Port %s takes %s", s.Address, s.Words)
	if s.Mode != "" {
		fmt.Fprintf(&b, " (%s)", s.Mode)
	}
	var asks []string
	for _, action := range slices.Sorted(maps.Keys(s.Rules)) {
		asks = append(asks, counted(s.Rules[action], action+" rule"))
	}
	if s.Tokens {
		asks = append(asks, "tokens are verified")
	}
	if s.Refused != "" {
		asks = append(asks, "calls are refused: "+s.Refused)
	}
	for _, ask := range asks {
		b.WriteString("; " + ask)
	}
	return b.String()
}

func counted[N int | uint64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// String is one line.
func (v *identityView) String() string {
	var b strings.Builder
	switch {
	case v.ID != "":
		fmt.Fprintf(&b, "Identity: %s, from %s, until %s", v.ID, v.Source, stampOf(v.Expires))
		if !v.Renewal.IsZero() {
			fmt.Fprintf(&b, ", to be renewed %s", stampOf(v.Renewal))
		}
	case v.Certificates > 0:
		fmt.Fprintf(&b, "Identity: a certificate without a SPIFFE id, from %s, until %s", v.Source, stampOf(v.Expires))
	case v.Source == "none", v.Source == "":
		b.WriteString("Identity: none")
	case !v.Wanted:
		fmt.Fprintf(&b, "Identity: none yet, nothing needed it; it would come from %s", v.Source)
	default:
		fmt.Fprintf(&b, "Identity: none yet, from %s", v.Source)
	}
	if v.Trouble != "" && (v.Wanted || v.Source == "none") {
		b.WriteString("; " + v.Trouble)
	}
	return b.String()
}

func stampOf(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// plainTextLine is one line.
func plainTextLine(p *PlainTextPeer) string {
	text := fmt.Sprintf("Plain text from %s: %s", p.Address, counted(p.Calls, "call"))
	if p.Connections > 0 {
		return text + fmt.Sprintf(", %s open", counted(p.Connections, "connection"))
	}
	return text + ", last seen " + stampOf(p.Last)
}

// plainTextInLs is how many addresses /ls names.
const plainTextInLs = 5

// text is all of it, in lines; of those who speak plain text at most so many.
func (s *securityState) text(most int) string {
	lines := []string{s.Identity.String()}
	for i := range s.Ports {
		lines = append(lines, s.Ports[i].String())
	}
	for i := range s.PlainText[:min(most, len(s.PlainText))] {
		lines = append(lines, plainTextLine(&s.PlainText[i]))
	}
	if more := len(s.PlainText) - most; more > 0 {
		lines = append(lines, fmt.Sprintf("and from %d more: see /security", more))
	}
	return strings.Join(lines, "\n") + "\n"
}

func (q *qos) runSecurity(c *qosCall) qosAnswer {
	s := q.facts.security()
	if c.arg() == "json" {
		return asJSON(s)
	}
	var b strings.Builder
	b.WriteString(s.text(len(s.PlainText)))
	for _, root := range s.Identity.Roots {
		fmt.Fprintf(&b, "Root: %s, serial %s, until %s%s\n", root.Subject, root.Serial, stampOf(root.Expires), either(root.Named, ", named by the mesh's configuration", ""))
	}
	return said(b.String())
}
