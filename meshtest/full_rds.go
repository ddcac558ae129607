package meshtest

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// hashed gives to routes what the balancers of their targets hash, as istiod
// does; where there is such a thing, the default policy does not look for
// another host.
func (s Service) hashed(routes []Route) []Route {
	for i := range routes {
		r := &routes[i]
		if r.Hash != nil {
			continue
		}
		for _, c := range r.Clusters {
			_, name, fqdn, ok := parseClusterName(c.Name)
			sub, _ := s.subset(name)
			if lb := s.policy(sub).LoadBalancer; ok && fqdn == s.FQDN() && lb != nil {
				r.Hash = append(r.Hash, lb.Hash...)
			}
		}
		if r.Hash != nil && r.Retry != nil && r.Retry.isDefault() && len(r.Clusters) == 1 {
			retry := *r.Retry
			retry.PreviousHosts, retry.HostDraws = false, 5
			r.Retry = &retry
		}
	}
	return routes
}

func (p *RetryPolicy) isDefault() bool {
	return p.PreviousHosts && p.On == DefaultRetry().On && p.PerTryTimeout == 0
}

// fullHost is the virtual host of one port for a sidecar.
func (s Service) fullHost(p Port, namespace string) VirtualHost {
	name := hostPort(s.FQDN(), p.Number)
	fallback := Route{
		Name: "default", Prefix: "/", Retry: DefaultRetry(), Decorator: name + "/*",
		Clusters: []WeightedCluster{{Name: ClusterName(s.FQDN(), p.Number)}},
	}
	h := VirtualHost{Name: name, AttemptCount: true}
	for _, host := range s.hosts(namespace) {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		h.Domains = append(h.Domains, host)
	}
	h.Routes = slices.Clone(s.Routes)
	if !s.RoutesOnly && !slices.ContainsFunc(h.Routes, Route.takesAll) {
		h.Routes = append(h.Routes, fallback)
	}
	h.Routes = s.hashed(h.Routes)
	if s.Session != nil {
		h.Filters = []HTTPFilter{s.Session.perRoute()}
	}
	return h
}

// takesAll says that no call gets past the route.
func (r Route) takesAll() bool {
	return r.Path+r.Regex+r.SeparatedPrefix == "" && (r.Prefix == "" || r.Prefix == "/") &&
		r.Headers == nil && r.Query == nil && r.Fraction == nil && r.RawMatch == nil
}

// catchAll is the virtual host of everything that is no Service.
func (e Egress) catchAll() VirtualHost {
	r := Route{Name: "allow_any", Prefix: "/", Clusters: []WeightedCluster{{Name: passthroughName}}}
	if e == RegistryOnly {
		r = Route{Name: "block_all", Prefix: "/", DirectResponse: 502}
	}
	return VirtualHost{Name: r.Name, Domains: []string{"*"}, Routes: []Route{r}, AttemptCount: true}
}

// fullRoutes is the route configuration of a name: that of a port has a virtual
// host for each Service, that of host:port the one that is meant.
func (w *world) fullRoutes(n node, name string) []byte {
	host, text, alone := strings.Cut(name, ":")
	if !alone {
		text = name
	}
	b := appendString(nil, 1, name)
	port, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err != nil:
		return appendWrapped(b, 7, 0) // validate_clusters
	case alone:
		if s, p, ok := w.meant(n, host, uint32(port)); ok {
			h := s.fullHost(p, n.namespace)
			h.Domains = []string{"*"}
			b = appendMessage(b, 2, h.marshal(true))
		}
		return appendSidecarRoutes(b)
	}
	for _, fqdn := range w.inOrder() {
		s := w.services[fqdn]
		if p, ok := s.port(uint32(port)); ok && p.protocol().http() {
			b = append(b, w.encoding(s).virtualHost(s, p, n.namespace)...)
		}
	}
	b = appendMessage(b, 2, w.egress.catchAll().marshal(true))
	return appendSidecarRoutes(b)
}

// meant finds the Service that a node calls by a host and a port.
func (w *world) meant(n node, host string, port uint32) (Service, Port, bool) {
	if s, known := w.services[host]; known {
		p, ok := s.port(port)
		return s, p, ok && p.protocol().http()
	}
	for _, fqdn := range w.inOrder() {
		s := w.services[fqdn]
		if p, ok := s.port(port); ok && p.protocol().http() && slices.Contains(s.hosts(n.namespace), host) {
			return s, p, true
		}
	}
	return Service{}, Port{}, false
}

const (
	sessionName     = "envoy.filters.http.stateful_session"
	sessionType     = typePrefix + "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
	perRouteType    = typePrefix + "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"
	cookieStateType = typePrefix + "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
	headerStateType = typePrefix + "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState"
)

// filter is the HTTP filter of a proxyless client's listener.
func (s Session) filter() HTTPFilter {
	return HTTPFilter{Name: sessionName, TypeURL: sessionType, Config: s.marshal()}
}

// perRoute is its counterpart on a virtual host of a sidecar.
func (s Session) perRoute() HTTPFilter {
	return HTTPFilter{Name: sessionName, TypeURL: perRouteType, Config: appendMessage(nil, 2, s.marshal())}
}

// marshal is a StatefulSession.
func (s Session) marshal() []byte {
	name, typeURL := "envoy.http.stateful_session.header", headerStateType
	state := appendString(nil, 1, s.Header)
	if s.Cookie != "" {
		name, typeURL = "envoy.http.stateful_session.cookie", cookieStateType
		cookie := appendString(nil, 1, s.Cookie)
		if s.TTL != 0 {
			cookie = appendDuration(cookie, 2, s.TTL.Truncate(time.Second))
		}
		state = appendMessage(nil, 1, appendString(cookie, 3, cmp.Or(s.Path, "/")))
	}
	return appendMessage(nil, 1, appendAny(appendString(nil, 1, name), 2, typeURL, state))
}
