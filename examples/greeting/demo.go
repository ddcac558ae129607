package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"github.com/proxyless/proxyless/examples/greeting/internal/app"
	"github.com/proxyless/proxyless/meshtest"
)

const (
	namespace = "dubbo-demo"
	service   = "dubbo-samples-xds-provider" // of Kubernetes, which consumers name in providedBy
	greetings = "org.apache.dubbo.samples.GreetingService"
	version   = "1.0.0"
	startTime = 10 * time.Second // for the members to find each other
)

// A demo is one run of the whole; close ends what it started, last first.
type demo struct {
	settings
	control   *meshtest.ControlPlane
	authority *meshtest.Authority
	folder    string // of what each pod has: a token, and the roots of the mesh
	closers   []func() error
}

func (d *demo) close() error {
	var errs []error
	for len(d.closers) > 0 {
		last := len(d.closers) - 1
		errs = append(errs, d.closers[last]())
		d.closers = d.closers[:last]
	}
	return errors.Join(errs...)
}

// startControlPlane starts an ADS server that signs certificates and knows one
// service, with an endpoint at each provider's place. The providers take mutual
// TLS only, and the consumer is told to speak it: a headless Service, which this
// is, needs a DestinationRule for that.
func (d *demo) startControlPlane(providers []place) (err error) {
	if d.folder, err = os.MkdirTemp("", "greeting-"); err != nil {
		return err
	}
	d.closers = append(d.closers, func() error { return os.RemoveAll(d.folder) })
	if d.authority, err = meshtest.StartAuthority("cluster.local"); err != nil {
		return err
	}
	control, err := meshtest.Start(meshtest.WithAuthority(d.authority))
	if err != nil {
		return err
	}
	d.control = control
	d.closers = append(d.closers, func() error { control.Close(); return nil })
	s := meshtest.Service{
		Name: service, Namespace: namespace, Ports: []meshtest.Port{{Name: "grpc-tri", Number: 50052}},
		SANs:    []string{"spiffe://cluster.local/ns/" + namespace + "/sa/" + service},
		Traffic: &meshtest.TrafficPolicy{TLS: &meshtest.TLSSettings{Mode: meshtest.TLSIstioMutual}},
	}
	for _, p := range providers {
		s.Endpoints = append(s.Endpoints, meshtest.Endpoint{Address: p.host, Port: uint32(p.port), TLSMode: "istio"})
		control.SetInbound(net.JoinHostPort(p.host, strconv.Itoa(p.port)), meshtest.Inbound{TLS: true})
	}
	control.SetService(s)
	fmt.Fprintf(d.out, "control plane  %-16s  in this process, in istiod's place\n", control.Addr())
	return nil
}

// config is what a member of the given name joins with. Its application is its
// service account, too.
func (d *demo) config(application, name string, p place) (proxyless.Config, error) {
	folder := filepath.Join(d.folder, name)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return proxyless.Config{}, err
	}
	root, token, err := d.authority.WriteFiles(folder, namespace, application)
	return proxyless.Config{
		Application:   application,
		ControlPlanes: []string{d.control.Addr()},
		RootCertFile:  root,
		TokenFile:     token,
		View:          d.view,
		Node:          proxyless.Node{IP: p.host, Pod: name, Namespace: namespace, ServiceAccount: application},
		Host:          p.host,
		Port:          p.port,
		ShutdownDelay: -1, // the only consumer is closed before the providers
		QoS:           proxyless.QoS{Host: p.host, Port: p.qos, Check: true},
		Logger:        d.logger.With("member", name),
	}, err
}

// join makes a member of the mesh and tells how to probe it.
func (d *demo) join(ctx context.Context, application, name string, p place) (*proxyless.Mesh, error) {
	cfg, err := d.config(application, name, p)
	if err != nil {
		return nil, err
	}
	mesh, err := proxyless.Join(ctx, cfg)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, mesh.Close)
	fmt.Fprintf(d.out, "%-13s  %-16s  probe it: curl http://%s/ready\n", name, p, mesh.QoSAddr())
	return mesh, nil
}

// startProvider exports the greeting service at the place until the demo ends.
func (d *demo) startProvider(ctx context.Context, name string, p place) error {
	mesh, err := d.join(ctx, service, name, p)
	if err != nil {
		return err
	}
	server := mesh.NewServer()
	greeter := &app.Greeter{Host: p.greets, Out: d.out}
	greetpb.RegisterGreetingServiceServer(server.With(proxyless.Version(version)), greeter)
	// Bound here, and not by Serve in its own time, so that the consumer finds
	// both from its first call on.
	lis, err := net.Listen("tcp", net.JoinHostPort(p.host, strconv.Itoa(p.port)))
	if err != nil {
		return err
	}
	// The providers outlast an interrupt, so that the consumer ends first.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- server.ServeListener(serving, lis) }() // close stops and awaits it
	d.closers = append(d.closers, func() error {
		stop()
		return <-served
	})
	return nil
}

// consume refers to the service and calls it until ctx ends or the calls are
// made.
func (d *demo) consume(ctx context.Context, p place) error {
	mesh, err := d.join(ctx, "dubbo-samples-xds-consumer", "consumer-1", p)
	if err != nil {
		return err
	}
	greeting, err := mesh.Refer(greetings, proxyless.ProvidedBy(service), proxyless.Version(version), proxyless.Timeout(3*time.Second))
	if err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := mesh.WaitReady(ready); err != nil && ctx.Err() == nil {
		return err
	}
	fmt.Fprintf(d.out, "consumer-1 calls %s %s, providedBy %s, over mutual TLS; Ctrl-C ends it\n\n", greetings, version, service)
	caller := app.Caller{Client: greetpb.NewGreetingServiceClient(greeting), Name: "xDS Consumer", Interval: d.interval, Calls: d.calls, Out: d.out}
	answered, failed := caller.Run(ctx)
	fmt.Fprintf(d.out, "\n%d calls answered, %d failed; providers drain, meshes close\n", answered, failed)
	if failed > 0 {
		return fmt.Errorf("%d of %d calls failed", failed, answered+failed)
	}
	return nil
}
