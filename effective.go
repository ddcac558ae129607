package proxyless

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// String is the configuration as it stands, one setting per line in a stable
// order; once Join has filled it, that is the effective one. Files are named
// and their content is not shown; metadata whose name sounds like a secret and
// the values of annotations are hidden.
func (c Config) String() string {
	var t settingsText
	t.line("application", c.Application)
	t.controlPlane(&c)
	t.node(&c.Node)
	t.identity(&c)
	t.line("call timeout", orNone(c.Timeout > 0, c.Timeout))
	t.line("cluster", c.Cluster)
	t.line("load balance", c.LoadBalance)
	t.line("listen", fmt.Sprintf("%s (host %s)", portText(c.Port), orAll(c.Host)))
	t.line("unknown versions", either(c.FallbackToDefault, "go to the default export", "fail"))
	t.line("handshakes", fmt.Sprintf("%d at a time, %s each", c.PendingConnections, c.HandshakeTimeout))
	t.line("shutdown", fmt.Sprintf("not ready for %s, then %s for calls in flight", orNone(c.ShutdownDelay >= 0, c.ShutdownDelay), c.ShutdownTimeout))
	if c.MetadataServicePort != 0 {
		t.line("metadata service port", strconv.Itoa(c.MetadataServicePort)+" (not served)")
	}
	t.qos(&c.QoS)
	for _, notice := range c.Notices {
		t.line("notice", notice.String())
	}
	return t.String()
}

// settingsText is aligned text, one name and value per line.
type settingsText struct{ strings.Builder }

func (t *settingsText) line(name, value string) {
	if value != "" {
		fmt.Fprintf(t, "%-22s %s\n", name, oneLine(value))
	}
}

func (t *settingsText) controlPlane(c *Config) {
	t.line("control planes", strings.Join(c.ControlPlanes, ", "))
	switch {
	case c.PlainText:
		t.line("transport", "plain text, no token")
	case c.InsecureSkipVerify:
		t.line("transport", "TLS, the certificate is NOT verified")
	default:
		t.line("transport", "TLS")
		t.line("root certificates", c.RootCertFile)
	}
	if !c.PlainText {
		t.line("server name", either(c.ServerName != "", c.ServerName, "the host of each control plane"))
		t.line("token file", c.TokenFile)
	}
	t.line("resource timeout", c.ResourceTimeout.String())
	t.line("policy not applied", either(c.Strict, "refuses the resource (strict)", ""))
	t.line("view", c.View.String())
}

func (t *settingsText) node(n *Node) {
	m := n.message()
	t.line("node id", m.id)
	t.line("node cluster", m.cluster)
	t.line("trust domain", n.TrustDomain)
	if m.region != "" {
		t.line("locality", strings.TrimRight(m.region+"/"+m.zone+"/"+m.subZone, "/"))
	}
	for _, key := range slices.Sorted(maps.Keys(m.metadata)) {
		t.metadata("metadata "+key, key, m.metadata[key])
	}
}

func (t *settingsText) identity(c *Config) {
	id := &c.Identity
	t.line("roots that the mesh's configuration names", either(id.NoMeshRoots, "not trusted", ""))
	switch {
	case id.Disabled:
		t.line("certificate", "none, as the settings say")
		return
	case id.named():
		t.line("certificate", id.CertFile)
		t.line("certificate's key", id.KeyFile)
		t.line("mesh's roots", either(id.bundleFile != "", id.bundleFile+" (by trust domain)", id.RootFile))
		return
	case id.CAAddress != "":
		t.line("certificate", "asked for at "+id.CAAddress)
		t.line("authority's name", either(id.CAServerName != "", id.CAServerName, "its host"))
		t.line("authority's roots", id.CARootFile)
		t.line("authority's token", either(c.PlainText, c.TokenFile, ""))
	case c.PlainText:
		t.line("certificate", "none: the control plane is spoken to in plain text")
		return
	default:
		t.line("certificate", "asked for at the control planes")
	}
	t.line("certificate's lifetime", fmt.Sprintf("%s, renewed when %.3g%% of it is left", id.Lifetime, 100*id.share(0)))
	t.line("certificate's key", either(id.RSABits > 0, fmt.Sprintf("RSA, %d bits", id.RSABits), "ECDSA "+id.Curve))
}

// metadata shows objects member by member.
func (t *settingsText) metadata(name, key string, value any) {
	members, ok := value.(map[string]any)
	switch {
	case looksSecret(key):
		t.line(name, hidden)
	case ok && key == metaAnnotations:
		t.line(name, strings.Join(slices.Sorted(maps.Keys(members)), ", ")+" (values hidden)")
	case ok:
		for _, member := range slices.Sorted(maps.Keys(members)) {
			t.metadata(name+" "+member, member, members[member])
		}
	default:
		t.line(name, fmt.Sprint(value))
	}
}

func (t *settingsText) qos(q *QoS) {
	if q.Disabled {
		t.line("qos", "off")
		return
	}
	t.line("qos", fmt.Sprintf("%s (host %s)", portText(q.Port), orAll(q.Host)))
	t.line("qos anonymous level", q.AnonymousLevel.String())
	t.line("qos foreign callers", either(q.AcceptForeignIP, "accepted", "not accepted")+" where the level is NONE")
	t.line("qos whitelist", strings.Join(q.Whitelist, ", "))
	t.line("qos for anybody", strings.Join(q.AllowCommands, ", "))
	t.line("qos port in use", either(q.Check, "fails Join", "is logged"))
}

func orNone(some bool, value fmt.Stringer) string {
	if !some {
		return "none"
	}
	return value.String()
}

func orAll(host string) string { return either(host != "", host, "all interfaces") }

func portText(port int) string {
	if port < 0 {
		return "any free port"
	}
	return "port " + strconv.Itoa(port)
}

// oneLine keeps a value from looking like further settings.
func oneLine(value string) string {
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return strconv.Quote(value)
	}
	return value
}
