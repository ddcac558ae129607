package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
)

// A place is where one member of the demo listens.
type place struct {
	host   string
	port   int // of the service; 0 for the consumer, which has none
	qos    int
	greets string // where its greetings say they come from
}

// String is the address of the service there, or the host where there is none.
func (p place) String() string {
	if p.port == 0 {
		return p.host
	}
	return net.JoinHostPort(p.host, strconv.Itoa(p.port))
}

// A listenFunc opens a listener as [net.Listen] does.
type listenFunc func(network, address string) (net.Listener, error)

// choosePlaces finds where two providers and, last, the consumer can listen,
// and says in plain words what is not as one would expect: a loopback address
// or a port that cannot be had.
func choosePlaces(listen listenFunc) (places [3]place, notes []string, err error) {
	c := chooser{listen: listen}
	defer func() { err = errors.Join(err, c.close()) }()
	places = [3]place{
		{host: "127.0.0.2", port: 50052, qos: 22222},
		{host: "127.0.0.3", port: 50052, qos: 22222},
		{host: "127.0.0.4", qos: 22222},
	}
	missing := c.missing(places)
	if missing != nil {
		c.note("This system has only 127.0.0.1 (%v), so both providers live there, on two ports that their greetings tell.", missing)
		places = [3]place{
			{host: "127.0.0.1", port: 50052, qos: 22222},
			{host: "127.0.0.1", port: 50053, qos: 22223},
			{host: "127.0.0.1", qos: 22224},
		}
	}
	for i := range places {
		p := &places[i]
		p.port, p.qos = c.port(p.host, p.port), c.port(p.host, p.qos)
		p.greets = p.host
		if missing != nil {
			p.greets = p.String()
		}
	}
	return places, c.notes, c.err
}

// A chooser holds the ports it has chosen until it is closed, so that it
// chooses none of them twice.
type chooser struct {
	listen listenFunc
	held   []net.Listener
	notes  []string
	err    error
}

func (c *chooser) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// missing says why one of the hosts cannot be listened on; nil if all can.
func (c *chooser) missing(places [3]place) error {
	for _, p := range places {
		if _, err := c.hold(p.host, 0); err != nil {
			return err
		}
	}
	return nil
}

// port returns the wanted port, or a free one if that is taken; 0 stays 0.
func (c *chooser) port(host string, wanted int) int {
	if wanted == 0 {
		return 0
	}
	port, err := c.hold(host, wanted)
	if err == nil {
		return port
	}
	port, freeErr := c.hold(host, 0)
	if freeErr != nil {
		c.err = errors.Join(c.err, freeErr)
		return 0
	}
	c.note("%s:%d cannot be had (%v), so %s:%d takes its place.", host, wanted, err, host, port)
	return port
}

func (c *chooser) hold(host string, port int) (int, error) {
	l, err := c.listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return 0, err
	}
	c.held = append(c.held, l)
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (c *chooser) close() error {
	var errs []error
	for _, l := range c.held {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
