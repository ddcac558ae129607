package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// probe keeps the pod's conditions true until ctx ends: the startup probe
// first, then readiness and liveness side by side. A program that must be
// restarted is named on unhealthy.
func (w *worker) probe(ctx context.Context, unhealthy chan<- string) {
	c := w.container()
	if c.StartupProbe != nil {
		if !w.repeat(ctx, *c.StartupProbe, func(healthy, failed bool) bool {
			if failed {
				unhealthy <- "the startup probe failed"
			}
			return healthy || failed
		}) {
			return
		}
	}
	w.report(ctx, func(s *state) { s.started, s.ready = true, c.ReadinessProbe == nil })
	done := make(chan struct{})
	go func() { // ends by ctx
		defer close(done)
		w.probeLiveness(ctx, unhealthy)
	}()
	w.probeReadiness(ctx)
	<-done
}

func (w *worker) probeReadiness(ctx context.Context) {
	p := w.container().ReadinessProbe
	if p == nil {
		return
	}
	ready := false
	w.repeat(ctx, *p, func(healthy, failed bool) bool {
		if !ready && healthy || ready && failed {
			ready = healthy
			w.kubelet.logf("%v: ready %v", w, ready)
			w.report(ctx, func(s *state) { s.ready = healthy })
		}
		return false
	})
}

func (w *worker) probeLiveness(ctx context.Context, unhealthy chan<- string) {
	p := w.container().LivenessProbe
	if p == nil {
		return
	}
	w.repeat(ctx, *p, func(_, failed bool) bool {
		if failed && !w.isDeleted() {
			unhealthy <- "the liveness probe failed"
		}
		return failed
	})
}

// repeat probes on schedule and tells verdict when the success or the failure
// threshold is reached, until verdict returns true or ctx ends. It returns
// false when the last verdict was a failure or ctx ended.
func (w *worker) repeat(ctx context.Context, p probe, verdict func(healthy, failed bool) bool) bool {
	p = p.withDefaults()
	scale := w.kubelet.config.ProbeScale
	pause(ctx, time.Duration(float64(p.InitialDelaySeconds)*scale*float64(time.Second)))
	successes, failures := 0, 0
	for ctx.Err() == nil {
		err := w.attempt(ctx, p.handler, time.Duration(p.TimeoutSeconds)*time.Second)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
			w.kubelet.logf("%v: probe: %v", w, err)
		}
		healthy, failed := successes >= p.SuccessThreshold, failures >= p.FailureThreshold
		if (healthy || failed) && verdict(healthy, failed) {
			return healthy
		}
		pause(ctx, time.Duration(float64(p.PeriodSeconds)*scale*float64(time.Second)))
	}
	return false
}

// withDefaults fills in the API's defaults, which the API server does too.
func (p probe) withDefaults() probe {
	for value, standard := range map[*int]int{
		&p.PeriodSeconds: 10, &p.TimeoutSeconds: 1, &p.SuccessThreshold: 1, &p.FailureThreshold: 3,
	} {
		if *value == 0 {
			*value = standard
		}
	}
	return p
}

// preStop runs the hook, whose failure stops nothing.
func (w *worker) preStop(ctx context.Context, grace time.Duration) {
	hook := w.container().Lifecycle.PreStop
	switch {
	case hook == nil:
	case hook.Sleep != nil:
		pause(ctx, min(grace, time.Duration(hook.Sleep.Seconds)*time.Second))
	default:
		if err := w.attempt(ctx, hook.handler, grace); err != nil {
			w.kubelet.logf("%v: preStop: %v", w, err)
		}
	}
}

// attempt does what the handler says, from this machine's side of the bridge.
func (w *worker) attempt(ctx context.Context, h handler, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case h.HTTPGet != nil:
		return w.attemptHTTP(ctx, *h.HTTPGet)
	case h.TCPSocket != nil:
		address, err := w.address("", h.TCPSocket.Port)
		if err != nil {
			return err
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	case h.GRPC != nil:
		return w.attemptGRPC(ctx, *h.GRPC)
	}
	return errors.New("a handler without httpGet, tcpSocket or grpc")
}

// prober opens a connection for each probe and does not verify certificates,
// as kubelets do.
var prober = &http.Client{Transport: &http.Transport{
	DisableKeepAlives: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
}}

func (w *worker) attemptHTTP(ctx context.Context, get httpGet) error {
	address, err := w.address(get.Host, get.Port)
	if err != nil {
		return err
	}
	scheme := "http"
	if get.Scheme != "" {
		scheme = strings.ToLower(get.Scheme)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+"/"+strings.TrimPrefix(get.Path, "/"), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.34")
	for _, h := range get.HTTPHeaders {
		request.Header.Add(h.Name, h.Value)
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			request.Host = h.Value
		}
	}
	response, err := prober.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 200))
		return fmt.Errorf("%s: %s %q", request.URL, response.Status, text)
	}
	return nil
}

func (w *worker) attemptGRPC(ctx context.Context, check grpcCheck) error {
	address, err := w.address("", port{number: check.Port})
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: check.Service})
	if err != nil {
		return err
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("grpc health of %q: %v", check.Service, answer.Status)
	}
	return nil
}

// address is host:port of a handler; the host is the pod's address by default.
func (w *worker) address(host string, p port) (string, error) {
	if host == "" {
		host = w.ip.String()
	}
	number := p.number
	for _, declared := range w.container().Ports {
		if p.name != "" && declared.Name == p.name {
			number = declared.ContainerPort
		}
	}
	if number == 0 {
		return "", fmt.Errorf("the container has no port named %q", p.name)
	}
	return net.JoinHostPort(host, strconv.Itoa(number)), nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
