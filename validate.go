package proxyless

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const maxPort = 65535

// Validate reports every problem of the fields as they are set, each as an
// [*Error] of StageConfig that names the field, joined. It fills no defaults
// and reads nothing but the Config.
func (c *Config) Validate() error {
	var p problems
	if c.Application == "" {
		p.add("Application", "is empty", "set it, dubbo.application.name or DUBBO_APPLICATION_NAME")
	}
	c.validateControlPlane(&p)
	c.Node.validate(&p)
	c.validateConsumer(&p)
	c.validateProvider(&p)
	c.QoS.validate(&p)
	c.Identity.validate(&p)
	if c.Port > 0 && !c.QoS.Disabled && c.Port == c.QoS.Port && sameHost(c.Host, c.QoS.Host) {
		p.add("QoS.Port", fmt.Sprintf("is %d, as Port is", c.Port), "give one of them another port")
	}
	return p.join()
}

// problems collects what Validate finds.
type problems struct{ errs []error }

func (p *problems) join() error { return errors.Join(p.errs...) }

func (p *problems) add(field, reason, advice string) {
	p.errs = append(p.errs, &Error{Stage: StageConfig, Resource: "Config." + field, Reason: reason, Advice: advice})
}

func (c *Config) validateControlPlane(p *problems) {
	for i, address := range c.ControlPlanes {
		field := fmt.Sprintf("ControlPlanes[%d]", i)
		if reason := addressProblem(address); reason != "" {
			p.add(field, fmt.Sprintf("%q %s", address, reason), "write host:port or unix:///path")
		} else if slices.Contains(c.ControlPlanes[:i], address) {
			p.add(field, fmt.Sprintf("%q is listed twice", address), "list each replica once")
		}
	}
	if int(c.View) >= len(viewNames) {
		p.add("View", "is "+c.View.String(), "use ViewFull or ViewLean")
	}
	if c.InsecureSkipVerify && c.PlainText {
		p.add("InsecureSkipVerify", "contradicts PlainText, where there is no certificate", "set one of them")
	}
	if c.InsecureSkipVerify && c.RootCertFile != "" {
		p.add("InsecureSkipVerify", "contradicts RootCertFile, which would not be looked at", "set one of them")
	}
	if c.ResourceTimeout < 0 {
		p.add("ResourceTimeout", fmt.Sprintf("is negative (%v)", c.ResourceTimeout), "leave it 0 for 15 s")
	}
	p.nilElement("ControlPlaneDialOptions", slices.Contains(c.ControlPlaneDialOptions, nil))
}

func (c *Config) validateConsumer(p *problems) {
	if c.Timeout < 0 {
		p.add("Timeout", fmt.Sprintf("is negative (%v)", c.Timeout), "leave it 0 for none")
	}
	if unknownCluster(c.Cluster) != "" {
		p.add("Cluster", fmt.Sprintf("is %q, which is unknown", c.Cluster), useCluster)
	}
	if unknownLoadBalance(c.LoadBalance) != "" {
		p.add("LoadBalance", fmt.Sprintf("is %q, which is unknown", c.LoadBalance), useLoadBalance)
	}
	p.nilElement("DialOptions", slices.Contains(c.DialOptions, nil))
	for _, interceptor := range c.UnaryInterceptors {
		p.nilElement("UnaryInterceptors", interceptor == nil)
	}
	for _, interceptor := range c.StreamInterceptors {
		p.nilElement("StreamInterceptors", interceptor == nil)
	}
}

func (c *Config) validateProvider(p *problems) {
	p.host("Host", c.Host)
	p.port("Port", c.Port)
	if c.MetadataServicePort < 0 {
		p.add("MetadataServicePort", fmt.Sprintf("is negative (%d)", c.MetadataServicePort), "leave it 0 for none")
	}
	p.port("MetadataServicePort", c.MetadataServicePort)
	if c.HandshakeTimeout < 0 {
		p.add("HandshakeTimeout", fmt.Sprintf("is negative (%v)", c.HandshakeTimeout), "leave it 0 for 10 s")
	}
	if c.PendingConnections < 0 {
		p.add("PendingConnections", fmt.Sprintf("is negative (%d)", c.PendingConnections), "leave it 0 for 1000")
	}
	if c.ShutdownTimeout < 0 {
		p.add("ShutdownTimeout", fmt.Sprintf("is negative (%v)", c.ShutdownTimeout), "leave it 0 for 10 s")
	}
	p.nilElement("ServerOptions", slices.Contains(c.ServerOptions, nil))
}

func (q *QoS) validate(p *problems) {
	p.host("QoS.Host", q.Host)
	p.port("QoS.Port", q.Port)
	for i, expression := range q.Whitelist {
		if reason := whitelistProblem(expression); reason != "" {
			p.add(fmt.Sprintf("QoS.Whitelist[%d]", i), fmt.Sprintf("%q %s", expression, reason),
				"write an address, a wildcard (10.1.*.*) or a CIDR block (10.1.0.0/16)")
		}
	}
	if q.AnonymousLevel < LevelNone || q.AnonymousLevel > LevelPrivate {
		p.add("QoS.AnonymousLevel", "is "+q.AnonymousLevel.String(), "use one of the Level constants")
	}
}

func (n *Node) validate(p *problems) {
	for _, part := range []struct{ field, value string }{
		{"Node.IP", n.IP}, {"Node.Pod", n.Pod}, {"Node.Namespace", n.Namespace}, {"Node.Domain", n.Domain},
	} {
		if strings.ContainsAny(part.value, "~ \t\r\n") {
			p.add(part.field, fmt.Sprintf("%q holds a ~ or white space", part.value), "the parts of a node id may not")
		}
	}
	for i, ip := range append([]string{n.IP}, n.OtherIPs...) {
		if reason := nodeIPProblem(ip); reason != "" && (ip != "" || i > 0) {
			p.add(cmpIndex("Node.IP", "Node.OtherIPs", i), fmt.Sprintf("%q %s", ip, reason),
				"set the address under which others reach this process (INSTANCE_IP or POD_IP)")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(n.Metadata)) {
		n.validateMetadata(p, key)
	}
}

func (n *Node) validateMetadata(p *problems, key string) {
	field := fmt.Sprintf("Node.Metadata[%q]", key)
	if key == metaGenerator && n.Metadata[key] != generator {
		p.add(field, fmt.Sprintf("is %v", n.Metadata[key]), "leave it out: only istiod's grpc generator is understood")
	}
	if _, err := json.Marshal(n.Metadata[key]); err != nil {
		p.add(field, "cannot be sent: "+err.Error(), "use values that encoding/json can encode")
	}
}

// cmpIndex is the name of the first field for 0, and else of an element.
func cmpIndex(first, rest string, i int) string {
	if i == 0 {
		return first
	}
	return fmt.Sprintf("%s[%d]", rest, i-1)
}

func nodeIPProblem(text string) string {
	ip, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return "is not an IP address"
	case ip.IsUnspecified() || ip.IsMulticast():
		return "is not the address of one host"
	}
	return ""
}

func (p *problems) port(field string, port int) {
	if port > maxPort {
		p.add(field, fmt.Sprintf("is %d", port), fmt.Sprintf("use a port up to %d", maxPort))
	}
}

// host accepts an address or a name, without a port.
func (p *problems) host(field, host string) {
	if host == "" {
		return
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ":/[]@ \t\r\n") {
		p.add(field, fmt.Sprintf("%q is neither an address nor a host name", host), "write the host alone, without a port")
	}
}

func (p *problems) nilElement(field string, isNil bool) {
	if isNil {
		p.add(field, "holds a nil", "leave it out")
	}
}

// whitelistProblem checks what can be checked of Dubbo's address expressions.
func whitelistProblem(expression string) string {
	if strings.Contains(expression, "/") {
		if _, err := netip.ParsePrefix(expression); err != nil {
			return "is not a CIDR block"
		}
		return ""
	}
	if _, err := netip.ParseAddr(expression); err == nil {
		return ""
	}
	if expression == "" || strings.Trim(expression, "0123456789abcdefABCDEF.:*-") != "" {
		return "is not an address"
	}
	return ""
}

// addressProblem says why a control-plane address cannot be dialled, or "".
func addressProblem(address string) string {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		if strings.Trim(path, "/") == "" {
			return "names no socket"
		}
		return ""
	}
	host, port, err := splitAddress(address)
	switch {
	case strings.Contains(address, "://"):
		return "has a scheme that is not known"
	case err != nil:
		return "is not host:port"
	case host == "" || strings.ContainsAny(host, "/?#@,;[] \t\r\n"):
		return "names no host"
	case port != "" && !isPort(port):
		return "has no port from 1 to 65535"
	}
	return ""
}

// splitAddress cuts host:port, and takes a host alone with an empty port.
func splitAddress(address string) (host, port string, err error) {
	if _, err := netip.ParseAddr(address); err == nil || !strings.Contains(address, ":") {
		return address, "", nil
	}
	return net.SplitHostPort(address)
}

func isPort(text string) bool {
	port, err := strconv.ParseUint(text, 10, 16)
	return err == nil && port > 0
}

// sameHost says whether listeners on both hosts would meet on one port.
func sameHost(a, b string) bool {
	anyHost := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return host == "" || err == nil && ip.IsUnspecified()
	}
	return a == b || anyHost(a) || anyHost(b)
}
