package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// The folders of a run.
const (
	logFolder  = "logs" // on disk, kept when a test fails
	dataFolder = "data" // in memory: etcd, keys, the pods' roots
)

// Bridge joins the lab with its pods; Gateway is the lab's address on it.
const Bridge = "pl0"

// Gateway is where pods reach istiod.
var Gateway = netip.MustParseAddr("10.244.0.1")

// servedPorts are those that tests listen on among the ones the kernel gives to
// connections.
const servedPorts = "50000-50999,60052"

// hosts is /etc/hosts of the test process and of every pod.
var hosts = []string{
	"127.0.0.1 localhost",
	Gateway.String() + " istiod.istio-system.svc istiod.istio-system.svc.cluster.local istiod.istio-system",
}

// furnish makes fresh namespaces habitable: a private view of the file system
// with its own /proc, /run and /etc/hosts, the loopback device and the bridge.
func furnish(dir string) error {
	data, logs := filepath.Join(dir, dataFolder), filepath.Join(dir, logFolder)
	for _, d := range []string{data, logs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	names := filepath.Join(data, "hosts")
	mounts := []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"none", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
		{"tmpfs", data, "tmpfs", 0},
		{names, "/etc/hosts", "", syscall.MS_BIND},
	}
	for _, m := range mounts {
		if m.source == names {
			if err := os.WriteFile(names, []byte(strings.Join(hosts, "\n")+"\n"), 0o644); err != nil {
				return err
			}
		}
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	// No connection that the kernel numbers gets in the way of a server of a test.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_reserved_ports", []byte(servedPorts), 0o644); err != nil {
		return err
	}
	return ip(
		"link set lo up",
		"link add "+Bridge+" type bridge",
		"addr add "+Gateway.String()+"/24 dev "+Bridge,
		"link set "+Bridge+" up",
	)
}

// ip runs commands of ip(8), one after the other.
func ip(commands ...string) error {
	c := exec.Command("ip", "-batch", "-")
	c.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
