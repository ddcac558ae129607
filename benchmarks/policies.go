package main

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/proxyless/proxyless/meshtest"
)

// governed is a service whose calls one policy of the mesh applies to.
type governed struct {
	name    string
	service func(*meshtest.Service, *meshtest.Route)
}

// none is a service of which the mesh says nothing but where it is.
var none = governed{"none", func(*meshtest.Service, *meshtest.Route) {}}

var nobody = uint32(0) // parts per million

var policies = []governed{
	{"retries (Istio's default)", func(_ *meshtest.Service, r *meshtest.Route) { r.Retry = meshtest.DefaultRetry() }},
	{"retries with a time limit for each", func(_ *meshtest.Service, r *meshtest.Route) {
		r.Retry = &meshtest.RetryPolicy{On: "unavailable", Retries: 2, PerTryTimeout: time.Minute}
	}},
	{"a time limit", func(_ *meshtest.Service, r *meshtest.Route) { r.Timeout = time.Minute }},
	{"injected faults, 0 %", func(_ *meshtest.Service, r *meshtest.Route) {
		r.Fault = &meshtest.Fault{AbortHTTP: 503}
	}},
	{"a mirror, 0 %", func(s *meshtest.Service, r *meshtest.Route) {
		r.Mirrors = []meshtest.Mirror{{Cluster: clusterOf(s), Share: &nobody}}
	}},
	{"a request header set", func(_ *meshtest.Service, r *meshtest.Route) {
		r.RequestHeaders.Set = []meshtest.Header{{Name: "x-stage", Value: "canary"}}
	}},
	{"least request (Istio's default)", func(s *meshtest.Service, _ *meshtest.Route) {
		s.Traffic = &meshtest.TrafficPolicy{LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.LeastRequest}}
	}},
	{"ring hash by a header", func(s *meshtest.Service, r *meshtest.Route) {
		s.Traffic = &meshtest.TrafficPolicy{LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.RingHash}}
		r.Hash = []meshtest.HashPolicy{{Header: "x-user"}}
	}},
	{"circuit breakers", func(s *meshtest.Service, _ *meshtest.Route) {
		s.Traffic = &meshtest.TrafficPolicy{Connections: &meshtest.ConnectionPool{MaxRequests: 100_000}}
	}},
	{"outlier detection", func(s *meshtest.Service, _ *meshtest.Route) {
		s.Traffic = &meshtest.TrafficPolicy{Outliers: &meshtest.OutlierDetection{Consecutive5xx: 5}}
	}},
	{"least request, retries, breakers and outlier detection", func(s *meshtest.Service, r *meshtest.Route) {
		s.Traffic = &meshtest.TrafficPolicy{
			LoadBalancer: &meshtest.LoadBalancer{Policy: meshtest.LeastRequest},
			Connections:  &meshtest.ConnectionPool{MaxRequests: 100_000},
			Outliers:     &meshtest.OutlierDetection{Consecutive5xx: 5},
		}
		r.Retry = meshtest.DefaultRetry()
	}},
}

func clusterOf(s *meshtest.Service) string { return meshtest.ClusterName(s.FQDN(), port) }

// governance compares a whole unary call under one policy with the same call
// where the mesh has none: what a policy costs while it has nothing to do.
func governance(r *report, share time.Duration) error {
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	addr, err := w.bareServer(Greeter{})
	if err != nil {
		return err
	}
	var calls []caller
	var a []allocation
	for i, p := range append([]governed{none}, policies...) {
		s, route := bareService(fmt.Sprint("governed-", i), endpoint(addr))
		s.Address = fmt.Sprint("10.96.1.", i+1) // not headless, which would leave least request out
		p.service(&s, &route)
		s.Routes = []meshtest.Route{route}
		w.control.SetService(s)
		conn, err := w.meshClient(s.Name, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		call := through(conn, always(told(context.Background())))
		calls = append(calls, call)
		a = append(a, allocated(1000, call.serial))
	}
	for i, p := range policies {
		s := compete(share/time.Duration(len(policies)), timed(10, calls[0].serial), timed(10, calls[i+1].serial))
		r.add(row{what: "call with " + p.name, ours: nanoseconds(s[1].time) + ", " + a[i+1].String(), other: nanoseconds(s[0].time) + ", " + a[0].String(),
			compared: "time / without policy", estimate: ratio(s[1].time, s[0].time)})
		x := math.Round(a[i+1].objects-a[0].objects) + 0 // never -0
		r.add(row{what: "… allocations above", compared: "difference", estimate: estimate{x, x, x, 3}})
	}
	return nil
}
