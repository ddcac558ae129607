package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The last bytes of pod addresses; what is above belongs to the test process.
const (
	firstAddress = 2
	lastAddress  = 199
)

// addresses gives out the last bytes of pod addresses, each as late as
// possible after its last use.
type addresses struct {
	used [lastAddress + 1]bool
	last int
}

func (a *addresses) take() (int, error) {
	for range lastAddress {
		if a.last++; a.last > lastAddress || a.last < firstAddress {
			a.last = firstAddress
		}
		if !a.used[a.last] {
			a.used[a.last] = true
			return a.last, nil
		}
	}
	return 0, errors.New("no pod address is free")
}

func (a *addresses) release(n int) { a.used[n] = false }

func (w *worker) netns() string { return fmt.Sprintf("pod%d", w.number) }

// joinNetwork makes a network namespace whose eth0 is on the bridge.
func (w *worker) joinNetwork() error {
	k := w.kubelet
	k.mu.Lock()
	number, err := k.network.take()
	k.mu.Unlock()
	if err != nil {
		return err
	}
	gateway := k.config.Gateway.As4()
	w.number, w.ip = number, netip.AddrFrom4([4]byte{gateway[0], gateway[1], gateway[2], byte(number)})
	name := w.netns()
	if err := ip("", "netns add "+name); err != nil {
		return err
	}
	err = ip("", "link add "+name+" type veth peer name eth0 netns "+name, "link set "+name+" master "+k.config.Bridge+" up")
	if err != nil {
		return err
	}
	return ip(name, "link set lo up",
		fmt.Sprintf("addr add %v/24 dev eth0", w.ip), "link set eth0 up", fmt.Sprintf("route add default via %v", k.config.Gateway))
}

func (w *worker) leaveNetwork() error { return ip("", "netns delete "+w.netns()) }

// ip runs commands of ip(8), within a network namespace if one is named.
func ip(netns string, commands ...string) error {
	args := []string{"-batch", "-"}
	if netns != "" {
		args = append([]string{"-netns", netns}, args...)
	}
	c := exec.Command("ip", args...)
	c.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", commands[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// startWithin starts c in the named network namespace and under the given host
// name. A thread enters both, starts the program, which inherits them, and
// returns to where it was; if it cannot return it is given up with its goroutine.
func startWithin(c *exec.Cmd, netns, hostname string) error {
	result := make(chan error, 1)
	go func() { // ends when the program has started
		result <- inside(netns, hostname, c.Start)
	}()
	return <-result
}

// dialWithin connects to a TCP port of the loopback interface of a network
// namespace, in which the connection stays.
func dialWithin(ctx context.Context, netns string, port int) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() { // ends with the attempt
		defer close(done)
		err = inside(netns, "", func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			return err
		})
	}()
	<-done
	return conn, err
}

// inside runs f on a thread of its own that is in the network namespace and,
// where one is given, under the host name. The calling goroutine must have
// nothing else to do.
func inside(netns, hostname string, f func() error) error {
	runtime.LockOSThread()
	leave, err := enter(netns, hostname)
	if err == nil {
		err = f()
	}
	if leave() {
		runtime.UnlockOSThread()
	}
	return err
}

// enter moves the calling thread into the namespaces; leave moves it back and
// says whether that worked.
func enter(netns, hostname string) (leave func() bool, err error) {
	var home []int
	leave = func() bool {
		back := true
		for _, fd := range home {
			back = unix.Setns(fd, 0) == nil && back
			unix.Close(fd)
		}
		return back
	}
	for _, kind := range []string{"net", "uts"} {
		fd, err := unix.Open("/proc/thread-self/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return leave, err
		}
		home = append(home, fd)
	}
	fd, err := unix.Open("/run/netns/"+netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return leave, err
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil || hostname == "" {
		return leave, err
	}
	if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
		return leave, err
	}
	return leave, unix.Sethostname([]byte(hostname))
}
