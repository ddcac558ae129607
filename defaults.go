package proxyless

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// environment is what a Config is filled from. Its functions are injected, so
// that what depends on the machine can be tested without it.
type environment struct {
	getenv    func(name string) string
	environ   func() []string                   // NAME=value, as os.Environ
	readFile  func(path string) ([]byte, error) // refuses what is larger than maxFile
	hostname  func() (string, error)
	addresses func() ([]netip.Addr, error) // of the network interfaces
}

// osEnvironment is the environment of this process.
func osEnvironment() environment {
	return environment{
		getenv: os.Getenv, environ: os.Environ, readFile: readSmallFile,
		hostname: os.Hostname, addresses: interfaceAddresses,
	}
}

// maxFile bounds every file of settings, tokens and certificates, in bytes.
const maxFile = 1 << 20

// readSmallFile is os.ReadFile with a limit.
func readSmallFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, nil
}

func interfaceAddresses() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for _, a := range found {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			addresses = append(addresses, prefix.Addr().Unmap())
		}
	}
	return addresses, nil
}

// withDefaults returns a validated copy in which every field is filled, in the
// order of sources that Config documents. The notes say in plain words what
// came from an unexpected place or is not used; on an error the copy is empty.
func (c Config) withDefaults(env environment) (Config, []string, error) {
	f := filler{config: c, env: env}
	errs := []error{f.fromDubbo(), f.fromBootstrap()}
	f.fillControlPlane()
	errs = append(errs, f.fillNode(), f.fillIdentity())
	f.fillNumbers()
	errs = append(errs, f.config.Validate())
	if err := errors.Join(errs...); err != nil {
		return Config{}, nil, err
	}
	return f.config, f.notes, nil
}

// filler fills one Config from the sources, the strongest first.
type filler struct {
	config    Config
	env       environment
	bootstrap *bootstrap // nil where none is named
	generator string     // GENERATOR of ISTIO_META_*
	notes     []string
}

func (f *filler) note(format string, args ...any) {
	f.notes = append(f.notes, fmt.Sprintf(format, args...))
}

// fromDubbo fills a literal from Dubbo's variables; LoadConfig has done so.
func (f *filler) fromDubbo() error {
	if f.config.loaded {
		return nil
	}
	e, err := dubboEnvironment(f.env)
	if err != nil {
		return err
	}
	c := &f.config
	if len(c.ControlPlanes) == 0 {
		c.ControlPlanes, c.useAgent = e.ControlPlanes, e.useAgent
		c.PlainText = c.PlainText || e.PlainText
	}
	c.Application = cmp.Or(c.Application, e.Application)
	c.Timeout = cmp.Or(c.Timeout, e.Timeout)
	c.Cluster = cmp.Or(c.Cluster, e.Cluster)
	c.Retries = cmp.Or(c.Retries, e.Retries)
	c.Forks = cmp.Or(c.Forks, e.Forks)
	c.LoadBalance = cmp.Or(c.LoadBalance, e.LoadBalance)
	c.Host = cmp.Or(c.Host, e.Host)
	c.Port = cmp.Or(c.Port, e.Port)
	c.FallbackToDefault = c.FallbackToDefault || e.FallbackToDefault
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, e.ShutdownTimeout)
	c.MetadataServicePort = cmp.Or(c.MetadataServicePort, e.MetadataServicePort)
	c.Node.IP = cmp.Or(c.Node.IP, e.Node.IP)
	c.View = cmp.Or(c.View, e.View)
	c.QoS.fill(&e.QoS)
	c.Notices = append(slices.Clone(c.Notices), e.Notices...)
	return nil
}

func (q *QoS) fill(e *QoS) {
	q.Disabled = q.Disabled || e.Disabled
	q.Host = cmp.Or(q.Host, e.Host)
	q.Port = cmp.Or(q.Port, e.Port)
	q.AcceptForeignIP = q.AcceptForeignIP || e.AcceptForeignIP
	q.AnonymousLevel = cmp.Or(q.AnonymousLevel, e.AnonymousLevel)
	q.Check = q.Check || e.Check
	if len(q.Whitelist) == 0 {
		q.Whitelist = e.Whitelist
	}
	if len(q.AllowCommands) == 0 {
		q.AllowCommands = e.AllowCommands
	}
}

// fromBootstrap reads the bootstrap JSON where the environment names one. A
// broken one is an error only where the control plane is not known otherwise.
func (f *filler) fromBootstrap() error {
	b, err := readBootstrap(f.env)
	if err != nil && (len(f.config.ControlPlanes) == 0 || f.config.useAgent) {
		return err
	}
	if err != nil {
		f.note("not used: %v", err)
		return nil
	}
	if b == nil && f.config.useAgent {
		return &Error{Stage: StageConfig, Resource: "dubbo.registry.parameters.use-agent", Reason: "is true, but no bootstrap JSON is named",
			Advice: "set GRPC_XDS_BOOTSTRAP to the file that Istio's agent writes (/etc/istio/proxy/grpc-bootstrap.json), or leave use-agent out"}
	}
	if b != nil {
		f.notes = append(f.notes, b.notes...)
	}
	f.bootstrap = b
	return nil
}

// fillControlPlane takes addresses, plain text and certificates from one
// source, so that a secret never goes where another source points.
func (f *filler) fillControlPlane() {
	c := &f.config
	switch {
	case f.bootstrap != nil && (c.useAgent || len(c.ControlPlanes) == 0):
		f.fromBootstrapServer()
	case f.bootstrap != nil:
		f.note("the servers of %s are not used, since the control plane is given", f.bootstrap.source)
	case len(c.ControlPlanes) == 0 && f.env.getenv("CA_ADDR") != "":
		c.ControlPlanes = []string{f.env.getenv("CA_ADDR")}
		f.note("the control plane is %s, from CA_ADDR", c.ControlPlanes[0])
	case len(c.ControlPlanes) == 0:
		c.ControlPlanes = []string{defaultControlPlaneHost}
	}
	c.ControlPlanes = withPorts(c.ControlPlanes, c.PlainText)
	c.PlainText = c.PlainText || !slices.ContainsFunc(c.ControlPlanes, func(a string) bool { return !isUnix(a) })
	f.fillTrust()
}

func (f *filler) fromBootstrapServer() {
	c, b := &f.config, f.bootstrap
	c.ControlPlanes = b.addresses
	c.PlainText = c.PlainText || b.plainText
	c.RootCertFile = cmp.Or(c.RootCertFile, b.rootCertFile)
	c.TokenFile = cmp.Or(c.TokenFile, b.tokenFile)
	c.Node.ID = cmp.Or(c.Node.ID, b.node.ID)
	f.note("the control plane is %s, from %s", strings.Join(b.addresses, ", "), b.source)
}

// fillTrust chooses the files for TLS; in plain text none is read.
func (f *filler) fillTrust() {
	c := &f.config
	if c.PlainText {
		if f.authorityNamed() {
			return // which has use for them
		}
		if c.RootCertFile != "" || c.TokenFile != "" || c.ServerName != "" {
			f.note("RootCertFile, TokenFile and ServerName are not used in plain text")
		}
		return
	}
	if !c.InsecureSkipVerify {
		c.RootCertFile = cmp.Or(c.RootCertFile, f.env.getenv("XDS_ROOT_CA"), defaultRootCertFile)
	}
	c.TokenFile = cmp.Or(c.TokenFile, defaultTokenFile)
	c.ServerName = cmp.Or(c.ServerName, f.env.getenv("ISTIOD_SAN"))
}

// authorityNamed says that certificates are asked for elsewhere than at the
// control planes.
func (f *filler) authorityNamed() bool {
	c := &f.config.Identity
	return !c.Disabled && !c.named() && cmp.Or(c.CAAddress, f.env.getenv("CA_ADDR")) != ""
}

// withPorts adds the port that a host alone leaves out.
func withPorts(addresses []string, plainText bool) []string {
	port := defaultSecurePort
	if plainText {
		port = defaultPlainPort
	}
	full := slices.Clone(addresses)
	for i, address := range addresses {
		if host, given, err := splitAddress(address); !isUnix(address) && err == nil && given == "" {
			full[i] = net.JoinHostPort(host, port)
		}
	}
	return full
}

func (f *filler) fillNumbers() {
	c := &f.config
	c.ResourceTimeout = cmp.Or(c.ResourceTimeout, defaultResourceTimeout)
	c.Port = cmp.Or(c.Port, defaultPort)
	c.ShutdownDelay = cmp.Or(c.ShutdownDelay, defaultShutdownDelay)
	c.ShutdownTimeout = cmp.Or(c.ShutdownTimeout, defaultShutdownTimeout)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, defaultHandshakeTimeout)
	c.PendingConnections = cmp.Or(c.PendingConnections, defaultPending)
	c.QoS.Port = cmp.Or(c.QoS.Port, defaultQoSPort)
	c.Logger = cmp.Or(c.Logger, slog.Default())
}
