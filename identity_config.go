package proxyless

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Identity says where this workload's certificate comes from, with which it
// proves to its peers who it is, and they to it. It is got when something needs
// it, and renewed for as long as the Mesh lives. The first of these that says
// something is taken:
//
//  1. Disabled: there is none,
//  2. CertFile and KeyFile: files that somebody else renews,
//  3. CAAddress: a certificate authority that speaks
//     istio.v1.auth.IstioCertificateService, as istiod does,
//  4. OUTPUT_CERTS, FILE_MOUNTED_CERTS, /var/run/secrets/workload-spiffe-credentials
//     and the file_watcher named "default" in certificate_providers of the
//     bootstrap JSON: files again, which the environment names,
//  5. CA_ADDR: an authority that the environment names,
//  6. the control planes, where they are spoken to over TLS.
//
// Where there is none of these, the mesh's offers of mutual TLS are not taken,
// and its demands fail. A key that is made here never leaves the memory of this
// process, and is a new one with each certificate.
type Identity struct {
	// Disabled asks for no certificate and reads none.
	Disabled bool
	// CertFile holds the certificate in PEM, then its intermediates. It and
	// KeyFile come together. They are looked at every 10 s, and take effect as
	// soon as they fit to each other.
	CertFile string
	// KeyFile holds the private key of CertFile in PEM.
	KeyFile string
	// RootFile holds the PEM certificates that peers are verified with, where the
	// certificate comes from files. Default: root-cert.pem beside CertFile.
	RootFile string
	// CAAddress is the authority that is asked for certificates: host:port, or a
	// host alone for port 15012. It is spoken to over TLS, always. CA_ADDR.
	CAAddress string
	// CAServerName is the name that the certificate of CAAddress must carry.
	// Default: its host.
	CAServerName string
	// CARootFile holds the PEM certificates that CAAddress is verified with, or
	// is [SystemRoots]. CA_ROOT_CA. Default: Config.RootCertFile.
	CARootFile string
	// Lifetime is what the authority is asked for, in whole seconds; what it
	// grants counts. Default 24 h. SECRET_TTL, which is a duration as Go writes
	// it, or a number of seconds as Dubbo has it. One certificate is asked for in
	// five seconds at most, or in a quarter of a lifetime that is below 20 s, but
	// never more than two in a second. Lifetimes below 2 s cannot be renewed in
	// time.
	Lifetime time.Duration
	// RenewRatio is the share of the time that a certificate had left when it
	// came, at which it is renewed. Default 0.5; what is kept is from 0.01 to 0.9.
	// SECRET_GRACE_PERIOD_RATIO.
	RenewRatio float64
	// RenewJitter spreads RenewRatio in both directions, so that processes that
	// began together do not renew together. Default 0.01; negative means none.
	// SECRET_GRACE_PERIOD_RATIO_JITTER.
	RenewJitter float64
	// RSABits makes keys RSA ones of this size, 2048 to 8192, where otherwise they
	// are elliptic. WORKLOAD_RSA_KEY_SIZE, unless ECC_SIGNATURE_ALGORITHM is ECDSA.
	// To make one takes a second or more of 4096 bits and many of 8192, which Close
	// waits for.
	RSABits int
	// Curve is that of elliptic keys: P256, the default, or P384. ECC_CURVE.
	Curve string

	// NoMeshRoots trusts none of the roots that the mesh's configuration names
	// besides those of its authority (meshConfig.caCertificates, with istiod's
	// ISTIO_MULTIROOT_MESH); else they vouch for peers, whatever their trust domain.
	// PROXY_CONFIG_XDS_AGENT=false.
	NoMeshRoots bool

	bundleFile string        // spiffe_trust_bundle_map_file of the bootstrap's provider
	refresh    time.Duration // its refresh_interval; 0 where nothing is said
}

// Istio's names for the files of a workload's certificate, and where they lie.
const (
	certChainName       = "cert-chain.pem"
	certKeyName         = "key.pem"
	certRootName        = "root-cert.pem"
	mountedCertDir      = "/etc/certs"
	spiffeCredentialDir = "/var/run/secrets/workload-spiffe-credentials"
)

// defaultProvider is the instance of certificate_providers that istiod means
// when it speaks of the workload's own certificate.
const defaultProvider = "default"

const (
	defaultLifetime    = 24 * time.Hour
	defaultRenewRatio  = 0.5
	defaultRenewJitter = 0.01
	leastRSABits       = 2048
	mostRSABits        = 8192
	leastShare         = 0.01
	mostShare          = 0.9
	curveP256          = "P256"
	curveP384          = "P384"
)

// share is how much of a certificate's time is left when it is renewed, for a
// turn of the dice from -1 to 1. Neither all nor nothing of it is, whatever is
// set: renewing takes time, and so does living.
func (c *Identity) share(dice float64) float64 {
	return min(max(c.RenewRatio+max(c.RenewJitter, 0)*dice, leastShare), mostShare)
}

// named says that the certificate comes from files.
func (c *Identity) named() bool { return c.CertFile != "" }

// fillIdentity chooses the source of the certificate and completes what it
// needs.
func (f *filler) fillIdentity() error {
	c, env := &f.config.Identity, f.env.getenv
	defer f.noteNoAuthority()
	if f.bootstrap != nil {
		f.config.providers = f.bootstrap.providers
	}
	if c.Disabled {
		return nil
	}
	if asked, err := strconv.ParseBool(env("PROXY_CONFIG_XDS_AGENT")); err == nil && !asked {
		c.NoMeshRoots = true
	}
	if !c.named() && c.CAAddress == "" {
		f.fillCertFiles()
	}
	if c.named() {
		if c.RootFile == "" && c.bundleFile == "" {
			c.RootFile = path.Join(path.Dir(c.CertFile), certRootName)
		}
		return nil
	}
	if provider := env("CA_PROVIDER"); provider != "" && provider != "Citadel" {
		f.note("CA_PROVIDER=%s is not used: certificates are asked for as from istiod", provider)
	}
	c.CAAddress = cmp.Or(c.CAAddress, env("CA_ADDR"))
	if c.CAAddress != "" {
		f.fillAuthority()
	}
	return f.fillKeys()
}

// noteNoAuthority says that how an authority is verified counts for nothing where
// none is named: the control planes are verified by settings of their own.
func (f *filler) noteNoAuthority() {
	c := &f.config.Identity
	if c.CAAddress != "" {
		return
	}
	for _, field := range []struct{ name, value string }{{"CARootFile", c.CARootFile}, {"CAServerName", c.CAServerName}} {
		if field.value != "" {
			f.note("Config.Identity.%s %q is not used: neither CAAddress nor CA_ADDR names an authority", field.name, field.value)
		}
	}
}

// fillCertFiles takes the files that the environment names.
func (f *filler) fillCertFiles() {
	c, env := &f.config.Identity, f.env.getenv
	mounted, _ := strconv.ParseBool(env("FILE_MOUNTED_CERTS"))
	provider := f.config.providers[defaultProvider]
	switch {
	case env("OUTPUT_CERTS") != "":
		c.useDirectory(env("OUTPUT_CERTS"))
	case mounted:
		c.useDirectory(mountedCertDir)
	case f.exists(path.Join(spiffeCredentialDir, certChainName)):
		c.useDirectory(spiffeCredentialDir)
	case provider.cert != "":
		c.CertFile, c.KeyFile, c.RootFile, c.bundleFile = provider.cert, provider.key, provider.roots, provider.bundle
		c.refresh = provider.refresh
	default:
		return
	}
	f.note("this workload's certificate is %s, which the environment names", c.CertFile)
}

func (c *Identity) useDirectory(dir string) {
	c.CertFile, c.KeyFile, c.RootFile = path.Join(dir, certChainName), path.Join(dir, certKeyName), path.Join(dir, certRootName)
}

func (f *filler) exists(file string) bool {
	_, err := f.env.readFile(file)
	return err == nil
}

// fillAuthority completes how CAAddress is spoken to. One that is a control
// plane, too, is verified like it.
func (f *filler) fillAuthority() {
	c, id := &f.config, &f.config.Identity
	id.CAAddress = withPorts([]string{id.CAAddress}, false)[0]
	if id.CAServerName == "" && slices.Contains(c.ControlPlanes, id.CAAddress) {
		id.CAServerName = c.ServerName
	}
	id.CAServerName = cmp.Or(id.CAServerName, f.env.getenv("ISTIOD_SAN"))
	id.CARootFile = cmp.Or(id.CARootFile, f.env.getenv("CA_ROOT_CA"), c.RootCertFile, f.env.getenv("XDS_ROOT_CA"), defaultRootCertFile)
	c.TokenFile = cmp.Or(c.TokenFile, defaultTokenFile)
}

// fillKeys reads Istio's variables about keys and lifetimes.
func (f *filler) fillKeys() error {
	c, env := &f.config.Identity, f.env.getenv
	var p problems
	if c.Lifetime == 0 {
		c.Lifetime = p.seconds("SECRET_TTL", env("SECRET_TTL"), defaultLifetime)
	}
	if c.RenewRatio == 0 {
		c.RenewRatio = p.share("SECRET_GRACE_PERIOD_RATIO", env("SECRET_GRACE_PERIOD_RATIO"), defaultRenewRatio)
	}
	if c.RenewJitter == 0 {
		c.RenewJitter = p.share("SECRET_GRACE_PERIOD_RATIO_JITTER", env("SECRET_GRACE_PERIOD_RATIO_JITTER"), defaultRenewJitter)
	}
	algorithm := env("ECC_SIGNATURE_ALGORITHM")
	if algorithm != "" && algorithm != "ECDSA" {
		f.note("ECC_SIGNATURE_ALGORITHM=%s is not used: keys are for ECDSA, or RSA", algorithm)
	}
	if size := env("WORKLOAD_RSA_KEY_SIZE"); c.RSABits == 0 && c.Curve == "" && size != "" && algorithm != "ECDSA" {
		bits, err := strconv.Atoi(size)
		if err != nil || bits < leastRSABits || bits > mostRSABits {
			p.variable("WORKLOAD_RSA_KEY_SIZE", size, fmt.Sprintf("write a number of bits from %d to %d", leastRSABits, mostRSABits))
		}
		c.RSABits = bits
	}
	if c.RSABits == 0 {
		c.Curve = cmp.Or(c.Curve, env("ECC_CURVE"), curveP256)
	}
	return p.join()
}

func (p *problems) variable(name, value, advice string) {
	p.errs = append(p.errs, &Error{Stage: StageConfig, Resource: name, Reason: fmt.Sprintf("is %q", value), Advice: advice})
}

// seconds reads a duration as Go writes it, or a number of seconds.
func (p *problems) seconds(name, value string, otherwise time.Duration) time.Duration {
	if value == "" {
		return otherwise
	}
	if strings.Trim(value, "0123456789") == "" {
		value += "s"
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < time.Second {
		p.variable(name, value, "write a duration of a second or more, such as 24h")
		return otherwise
	}
	return d
}

func (p *problems) share(name, value string, otherwise float64) float64 {
	if value == "" {
		return otherwise
	}
	share, err := strconv.ParseFloat(value, 64)
	if err != nil || !(share >= 0 && share <= 1) {
		p.variable(name, value, "write a number from 0 to 1")
		return otherwise
	}
	if share == 0 {
		return -1 // said, and none
	}
	return share
}

func (c *Identity) validate(p *problems) {
	if c.Disabled && (c.named() || c.CAAddress != "") {
		p.add("Identity.Disabled", "contradicts the source of a certificate that is given", "set one of them")
	}
	if c.named() && c.CAAddress != "" {
		p.add("Identity.CertFile", "contradicts CAAddress", "take the certificate from files or ask for it")
	}
	if c.named() != (c.KeyFile != "") {
		p.add("Identity.KeyFile", "and CertFile come together", "set both or none")
	}
	if c.CAAddress != "" {
		if reason := addressProblem(c.CAAddress); reason != "" {
			p.add("Identity.CAAddress", fmt.Sprintf("%q %s", c.CAAddress, reason), "write host:port")
		} else if isUnix(c.CAAddress) {
			p.add("Identity.CAAddress", fmt.Sprintf("%q is a socket, where nobody could be verified", c.CAAddress), "write host:port")
		}
	}
	if c.Lifetime != 0 && c.Lifetime < time.Second {
		p.add("Identity.Lifetime", fmt.Sprintf("is %v", c.Lifetime), "leave it 0 for 24 h, or ask for a second or more")
	}
	if c.RenewRatio > 1 || c.RenewRatio != c.RenewRatio {
		p.add("Identity.RenewRatio", fmt.Sprintf("is %v", c.RenewRatio), "use a share from 0 to 1")
	}
	if c.RenewJitter > 1 || c.RenewJitter != c.RenewJitter {
		p.add("Identity.RenewJitter", fmt.Sprintf("is %v", c.RenewJitter), "use a share from 0 to 1")
	}
	if c.RSABits != 0 && (c.RSABits < leastRSABits || c.RSABits > mostRSABits) {
		p.add("Identity.RSABits", fmt.Sprintf("is %d", c.RSABits), fmt.Sprintf("use %d to %d, or 0 for an elliptic key", leastRSABits, mostRSABits))
	}
	if c.Curve != "" && c.Curve != curveP256 && c.Curve != curveP384 {
		p.add("Identity.Curve", fmt.Sprintf("is %q", c.Curve), "use P256 or P384")
	}
}
